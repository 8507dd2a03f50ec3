use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, act: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::registry().with(LogLayer::new(format, move || writer.clone()));
    tracing::subscriber::with_default(subscriber, act);
    lines.text()
}

#[test]
fn fields_of_spans_and_events_come_in_one_line() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let text = logged(format, || {
            let span = tracing::info_span!(target: "flydex_test", "session", session.id = 7_u64);
            let _guard = span.enter();
            tracing::info!(target: "flydex_test", bytes = 3_u64, "frame refused");
        });
        assert_eq!(text.lines().count(), 1);
        for part in ["session.id", "bytes", "frame refused"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn an_undeclared_field_is_counted_and_not_written() {
    let text = logged(LogFormat::Json, || tracing::error!(target: "flydex_test", prompt = "secret words", "oops"));
    assert!(text.contains("\"fields.dropped\":1"), "{text}");
    assert!(!text.contains("secret words"), "{text}");
}

#[test]
fn what_is_for_the_exporter_of_traces_is_neither_written_nor_counted() {
    let text = logged(LogFormat::Json, || tracing::info!(target: "flydex_test", { otel.name = "GET /" }, "answered"));
    assert!(!text.contains("otel.name") && !text.contains("fields.dropped"), "{text}");
}

#[test]
fn a_librarys_trace_line_is_not_written() {
    let text = logged(LogFormat::Text, || tracing::trace!(target: "tungstenite", "received message secret words"));
    assert_eq!(text, "");
}

#[test]
fn an_error_is_written_with_its_causes() {
    let text = logged(LogFormat::Text, || {
        let error = io::Error::other(io::Error::other("inner"));
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(target: "flydex_test", error, "dial failed");
    });
    assert!(text.contains("inner"), "{text}");
}
