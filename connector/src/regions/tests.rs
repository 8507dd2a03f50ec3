use super::*;

fn origin(text: &str) -> Result<String, OriginError> {
    text.parse::<ServerOrigin>().map(|origin| origin.as_str().to_owned())
}

#[test]
fn https_and_loopback_are_taken() {
    for (given, kept) in [
        ("https://relay.example", "https://relay.example"),
        ("https://relay.example:443/", "https://relay.example"),
        (" https://Relay.Example:8443 ", "https://relay.example:8443"),
        ("http://localhost:7000", "http://localhost:7000"),
        ("http://127.0.0.1:7000", "http://127.0.0.1:7000"),
        ("http://[::1]:7000", "http://[::1]:7000"),
    ] {
        assert_eq!(origin(given).as_deref(), Ok(kept), "{given}");
    }
}

#[test]
fn anything_else_is_refused_with_the_reason() {
    for given in ["http://relay.example", "http://192.168.1.4:7000", "http://localhost.example", "http://0.0.0.0:1"] {
        assert_eq!(origin(given), Err(OriginError::PlainHttp), "{given}");
    }
    for given in ["relay.example", "ftp://relay.example", "", "https://", "wss://relay.example", "file:///etc"] {
        assert_eq!(origin(given), Err(OriginError::Malformed), "{given}");
    }
    for given in ["https://relay.example/a", "https://a@relay.example", "https://relay.example/?q", "https://r.e/#f"] {
        assert_eq!(origin(given), Err(OriginError::MoreThanOrigin), "{given}");
    }
}

fn regions(link_url: &str) -> Regions {
    Regions {
        regions: vec![Region {
            region: "local".to_owned(),
            link_url: link_url.to_owned(),
            quic: None,
            certificate_pem: Some("pem".to_owned()),
        }],
    }
}

#[test]
fn a_self_made_certificate_is_believed_from_this_machine_only() {
    let local = "https://localhost:7000".parse().unwrap();
    let remote = "https://relay.example".parse().unwrap();
    let regions = regions("wss://relay.example/v1/link");
    assert_eq!(regions.self_made_pem(&local).as_deref(), Some("pem"));
    assert_eq!(regions.self_made_pem(&remote), None);
    assert_eq!(regions.endpoints(&remote, None)[0].certificate_pem, None);
    assert_eq!(regions.endpoints(&local, None)[0].certificate_pem.as_deref(), Some("pem"));
    assert_eq!(regions.endpoints(&local, Some("pem"))[0].certificate_pem.as_deref(), Some("pem"));
    assert_eq!(regions.endpoints(&local, Some("ca"))[0].certificate_pem.as_deref(), Some("ca\npem"));
}

#[test]
fn an_unencrypted_entrance_is_dialled_on_this_machine_only() {
    let local = "http://localhost:7000".parse().unwrap();
    let remote = "https://relay.example".parse().unwrap();
    assert_eq!(regions("ws://localhost:7000/v1/link").endpoints(&local, None).len(), 1);
    assert_eq!(regions("ws://relay.example/v1/link").endpoints(&local, None).len(), 0);
    assert_eq!(regions("ws://localhost:7000/v1/link").endpoints(&remote, None).len(), 0);
    assert_eq!(regions("http://relay.example").endpoints(&remote, None).len(), 0);
}
