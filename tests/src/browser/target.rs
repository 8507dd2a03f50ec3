//! Which element of a page is meant.

use serde_json::{Value, json};

/// The attribute `data-testid` of an element.
pub type TestId = &'static str;

/// An element: by test id, and where several have it by the text in it, its place, or what it lies in.
#[derive(Clone, Debug)]
pub struct Target(Value);

impl From<TestId> for Target {
    fn from(test_id: TestId) -> Self {
        Self(json!({"testid": test_id}))
    }
}

impl Target {
    /// Elements by a CSS selector, for what has no test id.
    #[must_use]
    pub fn css(selector: &str) -> Self {
        Self(json!({"css": selector}))
    }

    /// By test id and the state that it says by `data-state`.
    #[must_use]
    pub fn state(test_id: TestId, state: &str) -> Self {
        Self::css(&format!("[data-testid={test_id}][data-state={state}]"))
    }

    /// Only those that can be seen, where the same line stands in a part that is hidden on this screen.
    #[must_use]
    pub fn shown(mut self) -> Self {
        self.0["shown"] = json!(true);
        self
    }

    /// Only those that hold this text.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        self.0["text"] = json!(text);
        self
    }

    /// As the driver reads it.
    pub(super) fn json(self) -> Value {
        self.0
    }
}
