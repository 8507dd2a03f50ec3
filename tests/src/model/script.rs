//! What the model does: keywords in the last message of the user.
//!
//! A message holds steps such as `[[stream 40]]`; text without any is answered with a sentence. A step that calls a
//! tool ends the response, and the steps after it are played once Codex has sent the tool's output.

use std::time::Duration;

/// One thing the model does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `[[stream N]]`: N small pieces of text at once.
    Stream(usize),
    /// `[[slow N MS]]`: N small pieces of text, one every MS milliseconds.
    Slow(usize, Duration),
    /// `[[gate NAME]]`: holds until the test opens that gate.
    Gate(String),
    /// `[[big N]]`: N bytes of text.
    Big(usize),
    /// `[[say TEXT]]`: that text.
    Say(String),
    /// `[[markdown]]`: headings, a list, code and a table.
    Markdown,
    /// `[[reason]]`: a summary of reasoning before the text.
    Reason,
    /// `[[shell CMD]]`: runs the command inside the sandbox.
    Shell(String),
    /// `[[esc CMD]]`: asks to run the command outside the sandbox, which needs an approval.
    Escalated(String),
    /// `[[network]]`: asks for the network, which needs an approval of high risk.
    Network,
    /// `[[par CMD]]`: asks twice at once.
    Parallel(String),
    /// `[[patch PATH]]`: adds a file.
    Patch(String),
    /// `[[update PATH]]`: changes the file that `[[patch PATH]]` added.
    Update(String),
    /// `[[http CODE]]`: answers with that status instead of a stream.
    Http(u16),
    /// `[[fail]]`: the response fails in the stream.
    Fail,
    /// `[[drop]]`: the connection breaks in the middle of the text.
    Drop,
}

impl Step {
    /// How many tool outputs come back for this step.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match self {
            Self::Shell(_) | Self::Escalated(_) | Self::Network | Self::Patch(_) | Self::Update(_) => 1,
            Self::Parallel(_) => 2,
            Self::Stream(_)
            | Self::Slow(..)
            | Self::Gate(_)
            | Self::Big(_)
            | Self::Say(_)
            | Self::Markdown
            | Self::Reason
            | Self::Http(_)
            | Self::Fail
            | Self::Drop => 0,
        }
    }
}

/// Reads the steps of a message, in order.
#[must_use]
pub fn parse(message: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = message;
    while let Some((_, after)) = rest.split_once("[[") {
        let Some((inside, tail)) = after.split_once("]]") else {
            break;
        };
        steps.extend(step(inside.trim()));
        rest = tail;
    }
    steps
}

fn step(inside: &str) -> Option<Step> {
    let (word, rest) = inside.split_once(' ').unwrap_or((inside, ""));
    let rest = rest.trim();
    let step = match word {
        "stream" => Step::Stream(rest.parse().ok()?),
        "slow" => {
            let (count, millis) = rest.split_once(' ')?;
            Step::Slow(count.parse().ok()?, Duration::from_millis(millis.trim().parse().ok()?))
        }
        "gate" => Step::Gate(rest.to_owned()),
        "big" => Step::Big(rest.parse().ok()?),
        "say" => Step::Say(rest.to_owned()),
        "markdown" => Step::Markdown,
        "reason" => Step::Reason,
        "shell" => Step::Shell(rest.to_owned()),
        "esc" => Step::Escalated(rest.to_owned()),
        "network" => Step::Network,
        "par" => Step::Parallel(rest.to_owned()),
        "patch" => Step::Patch(rest.to_owned()),
        "update" => Step::Update(rest.to_owned()),
        "http" => Step::Http(rest.parse().ok()?),
        "fail" => Step::Fail,
        "drop" => Step::Drop,
        _ => return None,
    };
    Some(step)
}

/// The steps of one response: those after the calls whose outputs are there, up to and with the next call.
#[must_use]
pub fn response(steps: &[Step], outputs: usize) -> Vec<Step> {
    let mut answered = 0;
    let mut chosen = Vec::new();
    for step in steps {
        if answered == outputs {
            chosen.push(step.clone());
            if step.outputs() > 0 {
                break;
            }
        } else {
            answered += step.outputs();
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_in_order_and_unknown_words_are_skipped() {
        assert_eq!(
            parse("do [[stream 3]] then [[nonsense]] and [[esc echo hi]]"),
            [Step::Stream(3), Step::Escalated("echo hi".to_owned())]
        );
        assert_eq!(parse("plain text"), []);
        assert_eq!(parse("[[slow 4 250]]"), [Step::Slow(4, Duration::from_millis(250))]);
    }

    #[test]
    fn a_call_ends_a_response_and_its_output_opens_the_next() {
        let steps = parse("[[stream 1]] [[par ls]] [[stream 2]] [[esc id]] [[stream 3]]");
        assert_eq!(response(&steps, 0), steps[..2]);
        assert_eq!(response(&steps, 2), steps[2..4]);
        assert_eq!(response(&steps, 3), steps[4..]);
        assert_eq!(response(&steps, 4), []);
    }
}
