//! Naming one life of the app-server, so that an approval of an earlier life can never be answered in a
//! later one, whose request ids start again at 0.

use flydex_domain::encoding::{Label, Transcript};
use flydex_domain::id::Generation;

/// The generation of a process: of its host's boot, its id, and when it started.
pub(super) fn of_process(host_boot_id: &str, pid: u32, started_at_ticks: u64) -> Generation {
    let transcript =
        Transcript::new(Label::Generation).text(host_boot_id).integer(u64::from(pid)).integer(started_at_ticks);
    Generation::from_bytes(transcript.sha256())
}

/// The generation of the process behind a connection; a new one for each attach where it cannot be told.
pub(super) fn read(pid: Option<u32>) -> Generation {
    pid.and_then(read_process).unwrap_or_else(|| Generation::from_bytes(rand::random()))
}

fn read_process(pid: u32) -> Option<Generation> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(of_process(boot_id.trim(), pid, started_at_ticks(&stat)?))
}

/// Field 22 of `/proc/<pid>/stat`. The second field, the name, may hold spaces and parentheses.
fn started_at_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21";
        assert_eq!(started_at_ticks(stat), Some(987_654));
        assert_eq!(started_at_ticks("nonsense"), None);
    }

    #[test]
    fn a_process_keeps_its_generation_and_another_life_has_another() {
        let own = std::process::id();
        assert_eq!(read(Some(own)), read(Some(own)));
        assert_ne!(of_process("boot", 7, 1), of_process("boot", 7, 2));
        assert_ne!(of_process("boot", 7, 1), of_process("other", 7, 1));
        assert_ne!(read(None), read(None));
    }
}
