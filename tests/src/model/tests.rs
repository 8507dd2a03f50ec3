use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Sends a prompt and reads until the model closes the connection.
async fn ask(address: SocketAddr, prompt: &str) -> String {
    let content = json!([{"type": "input_text", "text": prompt}]);
    let body = json!({"input": [{"type": "message", "role": "user", "content": content}]}).to_string();
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: model\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_stream_has_the_events_that_codex_needs() {
    let model = Model::start().await.unwrap();
    let body = ask(model.address, "[[stream 2]]").await;
    let kinds: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.output_item.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_item.done",
            "response.completed"
        ]
    );
}

#[tokio::test]
async fn a_gate_holds_a_response_until_it_is_opened() {
    let model = Model::start().await.unwrap();
    let answer = tokio::spawn(ask(model.address, "[[stream 1]] [[gate half]] [[stream 1]]"));
    model.reached("half").await.unwrap();
    assert!(!answer.is_finished());
    model.open("half");
    assert!(answer.await.unwrap().contains("tick 1"));
}

#[tokio::test]
async fn a_status_and_a_broken_stream_are_what_they_say() {
    let model = Model::start().await.unwrap();
    assert!(ask(model.address, "[[http 401]]").await.starts_with("HTTP/1.1 401"));
    let broken = ask(model.address, "[[drop]]").await;
    assert!(broken.contains("this sentence has no"));
    assert!(!broken.contains("response.completed") && !broken.ends_with("\r\n0\r\n\r\n"));
}
