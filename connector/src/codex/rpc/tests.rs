use super::*;

#[test]
fn codex_texts_become_reasons() {
    let classify = |message: &str| RawError { code: -32600, message: message.to_owned() }.classify();
    assert_eq!(classify("thread 01a2 already has an active writer"), Error::Refused(Reason::OpenElsewhere));
    assert_eq!(classify("no rollout found for thread id 01a2"), Error::Refused(Reason::NoThread));
    assert_eq!(classify("list_turns is not supported yet"), Error::Refused(Reason::NotYet));
    assert_eq!(classify("no active turn to steer"), Error::Refused(Reason::NoTurn));
    let turn_id = "01a2-b".parse().ok();
    assert_eq!(
        classify("expected active turn id `nope` but found `01a2-b`"),
        Error::Refused(Reason::OtherTurn(turn_id))
    );
    assert_eq!(classify("something new"), Error::Refused(Reason::Other));
    assert_eq!(RawError { code: -32001, message: String::new() }.classify(), Error::Overloaded);
}

#[test]
fn messages_are_told_apart_and_noise_is_dropped() {
    assert!(matches!(parse(r#"{"id":7,"result":{}}"#), Some(Inbound::Response { id: 7, outcome: Ok(_) })));
    assert!(matches!(parse(r#"{"id":"a","method":"x","params":{}}"#), Some(Inbound::Request { .. })));
    assert!(matches!(parse(r#"{"method":"x"}"#), Some(Inbound::Notification { .. })));
    assert!(parse("[]").is_none());
    assert!(parse("{").is_none());
    assert!(parse("{}").is_none());
}

#[tokio::test]
async fn an_answer_reaches_its_asker_and_an_ordered_one_comes_back() {
    let (outbound, mut written) = mpsc::channel(4);
    let client = Client::new(outbound);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.request(Method::ModelList, json!({})).await }
    });
    let text = written.recv().await.expect("a request");
    assert_eq!(text, r#"{"id":1,"method":"model/list","params":{}}"#);
    assert_eq!(client.complete(1, Ok(json!(5))), None);
    assert_eq!(asking.await.expect("the task"), Ok(json!(5)));
    let id = client.send_ordered(Method::ThreadLoadedList, &json!({})).expect("room");
    assert_eq!(client.complete(id, Ok(json!(6))), Some(Ok(json!(6))));
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_codex_is_asked_again_and_then_given_up() {
    let (outbound, mut written) = mpsc::channel(4);
    let client = Client::new(outbound);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.request(Method::ModelList, json!({})).await }
    });
    for id in 1..=u64::from(CODEX_OVERLOAD_RETRIES_MAX) {
        written.recv().await.expect("a request");
        client.complete(id, Err(Error::Overloaded));
    }
    assert_eq!(asking.await.expect("the task"), Err(Error::Overloaded));
}

#[tokio::test]
async fn a_lost_connection_leaves_a_written_request_unknown_and_sends_no_other() {
    let (outbound, mut written) = mpsc::channel(4);
    let client = Client::new(outbound);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.request(Method::TurnStart, json!({})).await }
    });
    written.recv().await.expect("a request");
    client.close();
    let error = asking.await.expect("the task").expect_err("no answer");
    assert!(error.clone().refused(true).unknown && !error.refused(false).unknown);
    assert_eq!(client.request(Method::TurnStart, json!({})).await, Err(Error::NotSent));
}
