//! How long the span of an answer to an approval is open.

use std::sync::{Arc, Mutex};

use flydex_domain::command::CommandKind;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::*;

/// Counts the spans of answers to approvals that have ended.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<usize>>);

struct OfAnswer;

struct IsAnswer(bool);

impl Visit for IsAnswer {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0 |= field.name() == "command.kind" && value == CommandKind::AnswerApproval.name();
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Layer<Registry> for Ended {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, Registry>) {
        let mut is_answer = IsAnswer(false);
        attributes.record(&mut is_answer);
        if let Some(span) = context.span(id).filter(|_| is_answer.0) {
            span.extensions_mut().insert(OfAnswer);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, Registry>) {
        if context.span(&id).is_some_and(|span| span.extensions().get::<OfAnswer>().is_some()) {
            *self.0.lock().unwrap() += 1;
        }
    }
}

#[tokio::test]
async fn the_span_of_an_accept_is_open_while_its_record_and_codex_are_awaited() {
    let ended = Ended::default();
    let _guard = tracing_subscriber::registry().with(ended.clone()).set_default();
    let count = || *ended.0.lock().unwrap();
    let (mut world, approval) = with_open().await;
    let gate = world.codex.hold();
    world.answer(1, &approval, Decision::Accept, rendered(&approval), no_audit).await;
    world
        .until_message("delivered", |kind| {
            matches!(kind, flydex_proto::v1::machine_message::Kind::Progress(_)).then_some(())
        })
        .await;
    assert_eq!(count(), 0, "recorded and delivered, and Codex has not answered");
    gate.add_permits(1);
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    assert_eq!(count(), 1);
}
