//! The HTTP client: its limits, and its failures told apart.

use std::error::Error as StdError;
use std::io;

use flydex_domain::limits::{API_TIMEOUT, LONG_POLL_MAX};
use http::{HeaderMap, header};

use super::ApiError;

pub(super) fn base_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(API_TIMEOUT)
        .timeout(API_TIMEOUT + LONG_POLL_MAX)
        .user_agent(concat!("flydex/", env!("CARGO_PKG_VERSION")))
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|content_type| content_type.starts_with("application/json"))
}

pub(super) fn transport_error(error: reqwest::Error) -> ApiError {
    let error = error.without_url();
    if error.is_timeout() {
        ApiError::Timeout(error)
    } else if has_certificate_error(&error) {
        ApiError::Untrusted(error)
    } else {
        ApiError::Unreachable(error)
    }
}

fn has_certificate_error(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    false
}
