//! What the doctor looks at on this machine: folder, Codex, journal and port.

use crate::cli::Context;
use crate::codex::probe::{Daemon, probe};
use crate::control::Status;
use crate::helper::Helper;
use crate::paired::JOURNAL_FILE;
use crate::record::{PairedRecord, Settings, load_devices};
use crate::state::{StateDir, StateError};

use super::Finding;

pub(super) fn state(state: &StateDir) -> Vec<Finding> {
    let broken = |part, error: StateError| Finding::fail(part, error.to_string(), error.next_step());
    let folder = match state.check_files() {
        Ok(()) => Finding::ok("folder", format!("{} is private", state.path().display())),
        Err(error) => broken("folder", error),
    };
    let mut findings = vec![folder];
    findings.push(match (state.existing_machine_key(), PairedRecord::load(state)) {
        (Ok(Some(_)), Ok(Some(record))) => {
            Finding::ok("pairing", format!("with account {} at {}", record.account_name, record.origin))
        }
        (Ok(_), Ok(None)) => Finding::warn("pairing", "not paired", "flydex connect --server https://…"),
        (Ok(None), Ok(Some(_))) => Finding::fail("pairing", "the machine key is gone", "flydex connect"),
        (Err(error), _) | (_, Err(error)) => broken("pairing", error),
    });
    findings.push(match load_devices(state) {
        Ok(devices) if devices.devices().next().is_none() => {
            Finding::warn("devices", "none on the list", "flydex devices add (or flydex connect, to pair first)")
        }
        Ok(devices) => Finding::ok("devices", format!("{} on the list", devices.devices().count())),
        Err(error) => broken("devices", error),
    });
    findings.push(match Settings::load(state) {
        Ok(settings) if settings.paused => Finding::warn("settings", "remote control is paused", "flydex resume"),
        Ok(settings) if settings.directories.is_empty() => {
            let next = "flydex directories add FOLDER";
            Finding::warn("settings", "no folder is listed: threads can be followed, not started", next)
        }
        Ok(settings) => Finding::ok("settings", format!("{} folders listed", settings.directories.len())),
        Err(error) => broken("settings", error),
    });
    findings
}

pub(super) async fn codex(context: &Context, settings: &Settings) -> Vec<Finding> {
    let found = probe(&crate::cli::codex_config(context, settings)).await;
    let place = found.program.as_ref().map(|program| program.display().to_string()).unwrap_or_default();
    let version = match found.version {
        Ok((version, false)) => Finding::ok("codex", format!("{version} at {place}")),
        Ok((version, true)) => {
            let text = format!("{version} at {place} is newer than this FlyDex knows: reading works, sending does not");
            Finding::warn("codex", text, "update FlyDex")
        }
        Err(code) => Finding::fail("codex", format!("{} [{code}]", code.message()), crate::api::next_step(code)),
    };
    let daemon = match found.daemon {
        Daemon::Safe => Finding::ok("daemon", "the shared Codex daemon listens; desk and phone see one thread"),
        Daemon::Absent => Finding::ok("daemon", "no shared Codex daemon listens; FlyDex starts its own"),
        Daemon::Refused(why) => Finding::warn("daemon", why, "stop it, or repair the modes of its socket and folder"),
    };
    vec![version, daemon]
}

pub(super) fn journal(state: &StateDir, running: Option<&Status>) -> Vec<Finding> {
    if let Some(status) = running {
        let finding = if status.journal_writable {
            Finding::ok("journal", "the running connector writes it")
        } else {
            Finding::fail("journal", "cannot be written: only stop and decline work", "free some disk space")
        };
        return vec![finding];
    }
    let mut findings = vec![match state.write(".doctor", b"probe").and_then(|()| state.remove(".doctor")) {
        Ok(()) => Finding::ok("journal", "its disk can be written"),
        Err(error) => Finding::fail("journal", error.to_string(), "free some disk space"),
    }];
    if state.file(&format!("{JOURNAL_FILE}.damaged")).exists() {
        let text = "an earlier journal was damaged and set aside; outcomes from before it are unknown";
        findings.push(Finding::warn("journal", text, format!("keep or delete {JOURNAL_FILE}.damaged")));
    }
    findings
}

pub(super) async fn port(port: u16, running: Option<&Status>) -> Finding {
    let ours = running.and_then(|status| status.facts.helper_port);
    if let Some(ours) = ours {
        return Finding::ok("port", format!("the running connector serves its page on 127.0.0.1:{ours}"));
    }
    match Helper::bind(port).await {
        Ok(_) => Finding::ok("port", format!("127.0.0.1:{port} is free")),
        Err(error) => {
            let next = "end the program that has it; until then pairing goes on in the terminal";
            Finding::warn("port", format!("{error} [{}]", error.code()), next)
        }
    }
}
