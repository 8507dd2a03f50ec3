//! What is read from a request of the Responses API: the last message of the user and the outputs after it.

use serde_json::Value;

/// The part of a request that steers the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The newest message of the user.
    pub prompt: String,
    /// What tools answered since that message.
    pub outputs: Vec<String>,
    /// The names of the tools that Codex offers.
    pub tools: Vec<String>,
}

impl Request {
    /// Reads the body of a request.
    #[must_use]
    pub fn read(body: &Value) -> Self {
        let items = body["input"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut request = Self { tools: tool_names(body), ..Self::default() };
        for item in items {
            match item["type"].as_str() {
                Some("message") | None if item["role"] == "user" => request.take_message(&content_text(item)),
                Some("function_call_output" | "custom_tool_call_output") => {
                    request.outputs.push(output_text(&item["output"]));
                }
                _ => {}
            }
        }
        request
    }

    fn take_message(&mut self, text: &str) {
        // Codex describes the environment in messages of the user's role, wrapped in tags.
        if text.trim_start().starts_with('<') || text.starts_with("# AGENTS.md") {
            return;
        }
        text.clone_into(&mut self.prompt);
        self.outputs.clear();
    }
}

fn tool_names(body: &Value) -> Vec<String> {
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    tools.iter().filter_map(|tool| tool["name"].as_str().or(tool["type"].as_str())).map(str::to_owned).collect()
}

fn content_text(item: &Value) -> String {
    if let Some(text) = item["content"].as_str() {
        return text.to_owned();
    }
    let parts = item["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
}

fn output_text(output: &Value) -> String {
    output.as_str().map_or_else(|| output.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_message_counts_and_the_environment_does_not() {
        let body = json!({"input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "first"}]},
            {"type": "function_call_output", "call_id": "a", "output": "old"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "second"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment_context>"}]},
            {"type": "function_call_output", "call_id": "b", "output": "new"},
        ]});
        let request = Request::read(&body);
        assert_eq!(request.prompt, "second");
        assert_eq!(request.outputs, ["new"]);
    }
}
