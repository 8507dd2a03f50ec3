//! One response, played step by step.

use std::ops::{ControlFlow, RangeFrom};

use serde_json::json;

use super::events::Writer;
use super::script::Step;
use super::{Gate, Shared};
use crate::canary;

/// One response under way: where it is written and how far its text is numbered.
struct Play<'a> {
    state: &'a Shared,
    writer: Writer,
    ticks: RangeFrom<usize>,
}

pub(super) async fn play(state: &Shared, writer: Writer, steps: Vec<Step>) {
    let mut play = Play { state, writer, ticks: 0.. };
    play.writer.created().await;
    for step in steps {
        if play.step(step).await.is_break() {
            return;
        }
    }
    play.writer.completed().await;
}

impl Play<'_> {
    async fn step(&mut self, step: Step) -> ControlFlow<()> {
        let writer = &mut self.writer;
        match step {
            Step::Stream(count) => {
                for tick in self.ticks.by_ref().take(count) {
                    writer.text(&format!("tick {tick} ")).await;
                }
            }
            Step::Slow(count, every) => {
                let mut pace = tokio::time::interval(every);
                for tick in self.ticks.by_ref().take(count) {
                    pace.tick().await;
                    writer.text(&format!("tick {tick} ")).await;
                }
            }
            Step::Gate(name) => pass(&self.state.gate(&name)).await,
            Step::Big(bytes) => writer.text(&filler(bytes)).await,
            Step::Say(text) => {
                canary::plant("model's answer", &text);
                writer.text(&text).await;
            }
            Step::Markdown => writer.text(MARKDOWN).await,
            Step::Reason => writer.reasoning("**Weighing it**\n\nThe small change first, then the test.").await,
            Step::Shell(command) => writer.function_call("exec_command", &json!({"cmd": command}).to_string()).await,
            Step::Escalated(command) => escalated(writer, &command).await,
            Step::Network => {
                let arguments = json!({"reason": "May I?", "permissions": {"network": {"enabled": true}}});
                writer.function_call("request_permissions", &arguments.to_string()).await;
            }
            Step::Parallel(command) => {
                escalated(writer, &command).await;
                escalated(writer, &command).await;
            }
            Step::Patch(path) => {
                let change = format!("*** Add File: {path}\n+first line\n+second line");
                apply_patch(writer, &change).await;
            }
            Step::Update(path) => {
                let lines = "@@\n first line\n-second line\n+second line, changed";
                apply_patch(writer, &format!("*** Update File: {path}\n{lines}")).await;
            }
            // The status was sent instead of a stream.
            Step::Http(_) => {}
            Step::Fail => {
                writer.failed().await;
                return ControlFlow::Break(());
            }
            Step::Drop => {
                writer.text("this sentence has no ").await;
                writer.broken().await;
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

async fn pass(gate: &Gate) {
    let mut open = gate.open.subscribe();
    gate.reached.send_replace(true);
    // The sender lives in the gate, which is borrowed here: it cannot close.
    let _ = open.wait_for(|open| *open).await;
}

async fn apply_patch(writer: &mut Writer, change: &str) {
    writer.custom_call("apply_patch", &format!("*** Begin Patch\n{change}\n*** End Patch\n")).await;
}

async fn escalated(writer: &mut Writer, command: &str) {
    let arguments = json!({
        "cmd": command,
        "sandbox_permissions": "require_escalated",
        "justification": "May I run this outside the sandbox?",
    });
    writer.function_call("exec_command", &arguments.to_string()).await;
}

fn filler(bytes: usize) -> String {
    "All work and no play makes a dull model. ".chars().cycle().take(bytes).collect()
}

const MARKDOWN: &str = "## A plan in three parts\n\nThe *relay* only carries; the **machine** decides.\n\n\
1. Read the thread\n2. Change `src/lib.rs`\n3. Run the tests\n\n```rust\nfn main() {\n    println!(\"hello\");\n}\n```\n\n\
| part | state |\n|---|---|\n| gateway | ready |\n| connector | ready |\n\n\
<script>alert('this must be shown as text')</script>\n\n[a link](https://example.com/) and [a bad one](javascript:alert(1))\n";
