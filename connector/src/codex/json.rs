//! Reading Codex's JSON, which may lack or change any field from one version to the next.

use serde_json::Value;

/// The text at a field; empty when there is none.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a field; 0 when there is none or it is negative.
pub(super) fn number(value: &Value, field: &str) -> u64 {
    optional_number(value, field).unwrap_or_default()
}

/// The number at a field, when there is one and it is not negative.
pub(super) fn optional_number(value: &Value, field: &str) -> Option<u64> {
    value.get(field).and_then(Value::as_u64)
}

/// Whether the field is true.
pub(super) fn flag(value: &Value, field: &str) -> bool {
    value.get(field).and_then(Value::as_bool).unwrap_or_default()
}

/// The elements of the list at a field; none when there is no list.
pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The value at a field, when it is there and not null.
pub(super) fn present<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    value.get(field).filter(|value| !value.is_null())
}
