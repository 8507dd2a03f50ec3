use http::HeaderValue;

use super::*;

const PROXY: &str = "10.0.0.1";

fn trusted(ranges: &[&str]) -> TrustedProxies {
    ranges.iter().map(|range| range.parse::<Cidr>().expect("a range")).collect()
}

/// The client of a request from `peer` with these `X-Forwarded-For` headers, where 10.0.0.0/8 and fd00::/8 are trusted.
fn client(peer: &str, headers: &[&str]) -> String {
    client_of(&trusted(&["10.0.0.0/8", "fd00::/8"]), peer, headers)
}

fn client_of(trusted: &TrustedProxies, peer: &str, headers: &[&str]) -> String {
    let mut map = HeaderMap::new();
    for header in headers {
        map.append(FORWARDED_FOR, HeaderValue::from_bytes(header.as_bytes()).expect("a header"));
    }
    let ClientAddress(client) = trusted.client(peer.parse().expect("an address"), &map);
    client.to_string()
}

#[test]
fn nobody_is_believed_by_default() {
    assert_eq!(client_of(&TrustedProxies::default(), PROXY, &["192.0.2.1"]), PROXY);
    assert_eq!(client_of(&TrustedProxies::default(), "127.0.0.1", &["192.0.2.1"]), "127.0.0.1");
}

#[test]
fn a_peer_that_is_no_trusted_proxy_speaks_for_itself_alone() {
    assert_eq!(client("198.51.100.7", &["192.0.2.1"]), "198.51.100.7");
    assert_eq!(client("198.51.100.7", &["192.0.2.1, 10.0.0.9"]), "198.51.100.7");
}

#[test]
fn the_right_most_untrusted_entry_is_the_client() {
    assert_eq!(client(PROXY, &["192.0.2.1"]), "192.0.2.1");
    assert_eq!(client(PROXY, &["192.0.2.1, 10.0.0.9"]), "192.0.2.1");
    assert_eq!(client("fd00::1", &["2001:db8::7"]), "2001:db8::7");
}

#[test]
fn what_a_client_wrote_itself_is_not_believed() {
    assert_eq!(client(PROXY, &["203.0.113.99, 192.0.2.1"]), "192.0.2.1");
    // Not even that it were one of the proxies.
    assert_eq!(client(PROXY, &["10.9.9.9, 192.0.2.1"]), "192.0.2.1");
    assert_eq!(client(PROXY, &["203.0.113.99", "192.0.2.1, 10.0.0.9"]), "192.0.2.1");
    assert_eq!(client(PROXY, &["203.0.113.99, 192.0.2.1", "10.0.0.9"]), "192.0.2.1");
}

#[test]
fn an_entry_that_is_no_address_ends_the_search() {
    for malformed in ["unknown", "", "_hidden", "192.0.2.1.5", "\u{fc}"] {
        assert_eq!(client(PROXY, &[malformed]), PROXY, "{malformed}");
        assert_eq!(client(PROXY, &[&format!("203.0.113.99, {malformed}, 10.0.0.9")]), "10.0.0.9", "{malformed}");
    }
}

#[test]
fn a_request_of_the_proxys_own_is_the_proxys() {
    assert_eq!(client(PROXY, &[]), PROXY);
    assert_eq!(client(PROXY, &["10.0.0.9"]), "10.0.0.9");
}

#[test]
fn ports_brackets_and_mapped_addresses_are_read() {
    assert_eq!(client(PROXY, &["192.0.2.1:4711"]), "192.0.2.1");
    assert_eq!(client(PROXY, &["[2001:db8::7]:4711"]), "2001:db8::7");
    assert_eq!(client(PROXY, &["[2001:db8::7]"]), "2001:db8::7");
    assert_eq!(client("::ffff:10.0.0.1", &["::ffff:192.0.2.1"]), "192.0.2.1");
}

#[test]
fn ranges_are_read_and_written_and_nonsense_is_refused() {
    for (text, written) in
        [("10.1.2.3/8", "10.0.0.0/8"), ("192.0.2.1", "192.0.2.1/32"), ("::/0", "::/0"), ("0.0.0.0/0", "0.0.0.0/0")]
    {
        assert_eq!(text.parse::<Cidr>().map(|range| range.to_string()), Ok(written.to_owned()));
    }
    for text in ["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "proxy.example", "10.0.0.0/-1", ""] {
        assert!(text.parse::<Cidr>().is_err(), "{text}");
    }
}

#[test]
fn a_configuration_gives_a_list_or_one_text() {
    #[derive(Deserialize)]
    struct Config {
        trusted_proxies: TrustedProxies,
    }
    let read = |text: &str| toml::from_str::<Config>(text).map(|config| config.trusted_proxies);
    let expected = trusted(&["10.0.0.0/8", "::1"]);
    assert_eq!(read("trusted_proxies = [\"10.0.0.0/8\", \"::1\"]").expect("a list"), expected);
    assert_eq!(read("trusted_proxies = \"10.0.0.0/8, ::1\"").expect("a text"), expected);
    assert_eq!(read("trusted_proxies = \"\"").expect("none"), TrustedProxies::default());
    assert!(read("trusted_proxies = [\"10.0.0.0/99\"]").is_err());
}

#[tokio::test]
async fn a_handler_is_given_the_client_and_without_a_proxy_the_peer() {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt as _;

    let shown = async |client: Option<ClientAddress>| format!("{client:?}");
    let bare = Router::new().route("/", get(shown));
    let behind = located(bare.clone(), trusted(&["10.0.0.0/8"]));
    let ask = async |router: Router, peer: Option<SocketAddr>| {
        let mut request = Request::get("/").header(FORWARDED_FOR, "192.0.2.1").body(Body::empty()).unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let body = router.oneshot(request).await.unwrap().into_body();
        String::from_utf8(to_bytes(body, 64).await.unwrap().to_vec()).unwrap()
    };
    let proxy = Some(SocketAddr::new(PROXY.parse().unwrap(), 1));
    assert_eq!(ask(behind.clone(), proxy).await, "Some(ClientAddress(192.0.2.1))");
    assert_eq!(ask(bare, proxy).await, "Some(ClientAddress(10.0.0.1))");
    assert_eq!(ask(behind, None).await, "None");
}
