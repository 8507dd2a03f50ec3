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
    "gateway.id",
    "http.method",
    "http.route",
    "http.status",
    "lane",
    "limit",
    "link.epoch",
    "link.id",
    "listen.address",
    "local_connect.id",
    "machine.id",
    "machine.status",
    "method",
    "node.id",
    "origin",
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

/// Whether a field may be written.
#[must_use]
pub fn is_declared(name: &str) -> bool {
    DECLARED.contains(&name)
}
