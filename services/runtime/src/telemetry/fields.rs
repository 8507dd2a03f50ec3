//! The closed list of fields that logs may carry. None can hold content, a secret or a name.

/// Every field that is written; all others are left out of the line and counted in `fields.dropped`.
pub const DECLARED: &[&str] = &[
    "message",
    "account.id",
    "approval.id",
    "attempt",
    "boot.id",
    "bytes",
    "claim.id",
    "close.code",
    "codex.read_only",
    "codex.shared",
    "codex.version",
    "command.id",
    "command.kind",
    "config.path",
    "count",
    "decision",
    "device.id",
    "duration_ms",
    "error",
    "error.code",
    "error.kind",
    "gateway.id",
    "http.method",
    "http.route",
    "http.status",
    "journal.cut_bytes",
    "journal.damaged_at",
    "journal.writable",
    "lane",
    "limit",
    "link.bound",
    "link.epoch",
    "link.id",
    "listen.address",
    "local_connect.id",
    "machine.id",
    "machine.status",
    "method",
    "node.id",
    "origin",
    "panic.location",
    "reason",
    "region",
    "retry_in_ms",
    "role",
    "session.id",
    "signal",
    "stream.id",
    "thread.id",
    "transport",
    "turn.id",
    "user.id",
    "version",
];

/// Fields that tell the exporter of traces how to show a span; they are no part of a line.
pub const FOR_TRACES: &[&str] = &["otel.kind", "otel.name", "otel.status_code"];

/// Whether a field may be recorded at all.
#[must_use]
pub fn is_declared(name: &str) -> bool {
    is_written(name) || FOR_TRACES.contains(&name)
}

/// Whether a field may be written in a line.
#[must_use]
pub fn is_written(name: &str) -> bool {
    DECLARED.contains(&name)
}
