//! Codex's errors in our words. Its own texts carry addresses and paths and stay on the machine.

use flydex_domain::error::ErrorCode;
use serde_json::Value;

/// What a person is told about a failed turn; empty when it did not fail.
pub(in crate::codex) fn turn_error(error: Option<&Value>) -> String {
    let Some(error) = error.filter(|error| !error.is_null()) else { return String::new() };
    sentence(info(error)).to_owned()
}

/// The code of a problem in a running turn.
pub(in crate::codex) fn problem_code(error: &Value) -> ErrorCode {
    match info(error) {
        "serverOverloaded" | "rateLimitExceeded" | "flexUnavailable" | "policyCapacityUnavailable" => {
            ErrorCode::CodexOverloaded
        }
        _ => ErrorCode::CodexRefused,
    }
}

fn info(error: &Value) -> &str {
    match error.get("codexErrorInfo") {
        Some(Value::String(name)) => name,
        Some(Value::Object(variant)) => variant.keys().next().map(String::as_str).unwrap_or_default(),
        _ => "",
    }
}

fn sentence(info: &str) -> &'static str {
    match info {
        "contextWindowExceeded" => "The conversation is longer than the model can read.",
        "sessionBudgetExceeded" => "The budget of this session is used up.",
        "usageLimitExceeded" => "The usage limit of the account is reached.",
        "rateLimitExceeded" => "The model provider limits the rate of requests.",
        "serverOverloaded" | "flexUnavailable" | "policyCapacityUnavailable" => "The model provider is overloaded.",
        "modelNotFound" => "The model was not found.",
        "cyberPolicy" | "misalignmentPolicyViolation" | "inferenceHookDenied" => {
            "The model provider's policy stopped this turn."
        }
        "tooManyDenials" => "Too many requests of this turn were declined.",
        "unauthorized" => "The model provider refused the machine's credentials.",
        "badRequest" => "The model provider refused the request.",
        "sandboxError" => "The sandbox on the machine failed.",
        "httpConnectionFailed" | "responseStreamConnectionFailed" => "The model provider could not be reached.",
        "responseStreamDisconnected" | "responseTooManyFailedAttempts" => "The connection to the model provider broke.",
        _ => "The turn failed on the machine.",
    }
}
