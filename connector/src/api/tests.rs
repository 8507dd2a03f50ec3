use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    origin
}

fn api() -> Router {
    Router::new().route("/api/regions", get(async || Json(json!({ "regions": [] }))))
}

fn client(origin: &str) -> Api {
    Api::new(origin.parse().unwrap(), None, Clock::manual(1)).unwrap()
}

#[tokio::test]
async fn an_origin_that_does_not_say_where_its_api_is_has_it_itself() {
    let origin = serve(api()).await;
    assert_eq!(client(&origin).regions().await.unwrap(), Regions::default());
}

#[tokio::test]
async fn an_origin_that_says_where_its_api_is_is_called_there_and_known_by_its_own_name() {
    let elsewhere = serve(api()).await;
    let says = Json(json!({ "api_origin": elsewhere }));
    let origin = serve(Router::new().route(WHERE_THE_API_IS, get(async move || says.clone()))).await;
    let client = client(&origin);
    assert_eq!(client.regions().await.unwrap(), Regions::default());
    assert_eq!(client.origin().as_str(), origin);
}

#[tokio::test]
async fn an_origin_that_says_nonsense_is_not_called() {
    for says in [json!({}), json!({ "api_origin": "https://api.example/path" }), json!("https://api.example")] {
        let origin = serve(api().route(WHERE_THE_API_IS, get(async move || Json(says.clone())))).await;
        assert!(matches!(client(&origin).regions().await, Err(ApiError::Malformed)));
    }
}

#[test]
fn an_api_is_as_private_as_the_origin_that_it_belongs_to() {
    let https = "https://app.example".parse().unwrap();
    assert_eq!(as_private("https://api.example", &https).unwrap().as_str(), "https://api.example");
    assert_eq!(as_private("http://localhost:1", &https), None);
    assert!(as_private("http://localhost:1", &"http://localhost:2".parse().unwrap()).is_some());
}
