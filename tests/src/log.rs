//! The log of a process of ours: what is odd in it must have been expected by the test, with a reason.

use crate::canary;

/// A line that a test expects at WARN or above.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// What stands in it: the message, or the message and the fields after it.
    pub text: &'static str,
    /// Why it is right here.
    pub why: &'static str,
    /// Whether it must have come, or only may, where that is a matter of time.
    pub must_come: bool,
}

/// What is wrong with a log: lines that nobody expected, lines that did not come, content and secrets.
#[must_use]
pub fn problems(lines: &[String], expected: &[Expected]) -> Vec<String> {
    let odd = lines.iter().filter(|line| is_odd(line));
    let unlisted = odd.filter(|line| !expected.iter().any(|one| line.contains(one.text)));
    let mut problems: Vec<_> = unlisted.map(|line| format!("nobody expected: {line}")).collect();
    let missing = expected.iter().filter(|one| one.must_come && !lines.iter().any(|line| line.contains(one.text)));
    problems.extend(missing.map(|one| format!("did not come: {:?}, expected because {}", one.text, one.why)));
    for line in lines {
        problems.extend(canary::found_in(line.as_bytes()).into_iter().map(|what| format!("holds a {what}: {line}")));
    }
    problems
}

/// Whether the line is an event at WARN or ERROR, or the word of a panic.
fn is_odd(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let is_event = words.next().is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    is_event && words.next().is_some_and(|level| matches!(level, "WARN" | "ERROR"))
        || line.starts_with("thread '") && line.contains(" panicked at ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[Expected], problem: &str) {
        let found = problems(&[line.to_owned()], expected);
        assert_eq!(found.first().map(String::as_str).unwrap_or_default(), problem, "{line}");
    }

    #[test]
    fn what_is_odd_must_be_expected_and_what_must_come_must_have_come() {
        let broke = Expected { text: "stream broke error.code=\"gone\"", why: "it was cut", must_come: true };
        let may = Expected { must_come: false, ..broke };
        let line = "1790000000000 WARN  flydex_gateway::node stream broke error.code=\"gone\" lane=1";
        check("1790000000000 INFO  flydex_gateway::node stream opened", &[], "");
        check("note: WARN is a level", &[], "");
        check(line, &[], &format!("nobody expected: {line}"));
        check(line, &[broke], "");
        let panic = "thread 'main' (77) panicked at src/main.rs:1:2:";
        check(panic, &[], &format!("nobody expected: {panic}"));
        check("", &[may], "");
        check("", &[broke], "did not come: \"stream broke error.code=\\\"gone\\\"\", expected because it was cut");
    }

    #[test]
    fn a_line_with_content_is_a_problem_at_any_level() {
        let line = format!("1790000000000 TRACE flydex_gateway::node frame text={}", canary::mark("prompt"));
        check(&line, &[], &format!("holds a prompt: {line}"));
    }
}
