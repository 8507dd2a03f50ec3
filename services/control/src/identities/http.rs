//! How a provider is asked: no redirects, a deadline, and no more of an answer than a bound.

use std::error::Error;
use std::pin::Pin;

use flydex_domain::limits::{PROVIDER_ANSWER_BYTES_MAX, PROVIDER_TIMEOUT};
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::redirect::Policy;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// It did not come, or not whole.
    #[error("ask the identity provider")]
    Exchange(#[source] Box<dyn Error + Send + Sync>),
    /// It is longer than any that is wanted.
    #[error("the identity provider's answer is too long")]
    TooLong,
}

/// A client for one provider.
pub(super) struct Http(reqwest::Client);

impl Http {
    /// A client that speaks https alone, unless the provider is on this computer.
    pub(super) fn new(https_only: bool) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .https_only(https_only)
            // A provider that redirects could send us anywhere inside the network.
            .redirect(Policy::none())
            .timeout(PROVIDER_TIMEOUT);
        client.build().map(Self)
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = reqwest::Request::try_from(request).map_err(exchange)?;
        let mut answer = self.0.execute(request).await.map_err(exchange)?;
        let mut response = HttpResponse::new(Vec::new());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        while let Some(chunk) = answer.chunk().await.map_err(exchange)? {
            if response.body().len() + chunk.len() > PROVIDER_ANSWER_BYTES_MAX {
                return Err(HttpError::TooLong);
            }
            response.body_mut().extend_from_slice(&chunk);
        }
        Ok(response)
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

fn exchange(error: reqwest::Error) -> HttpError {
    // The address may hold a code.
    HttpError::Exchange(Box::new(error.without_url()))
}
