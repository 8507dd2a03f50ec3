//! One OpenID provider: its metadata and keys, the way to it with PKCE and a nonce, and the check of what it says.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{PROVIDER_METADATA_LIFETIME, PROVIDER_REFETCH_INTERVAL, PROVIDER_SKEW_MAX};
use flydex_runtime::clock::Clock;
use flydex_runtime::origin::PublicOrigin;
use flydex_runtime::telemetry::log::chain;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreErrorResponseType, CoreIdToken, CoreIdTokenClaims, CoreJwsSigningAlgorithm,
    CoreProviderMetadata,
};
use openidconnect::{
    AccessTokenHash, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, RequestTokenError, SignatureVerificationError, StandardErrorResponse, TokenResponse as _,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::http::{Http, HttpError};

/// The page of the web app that providers send browsers back to.
const BACK_TO: &str = "/sign-in/identity";

/// The algorithms that an ID token may be signed with: by a key that the provider alone has. So neither `none` nor
/// an HMAC, whose key everyone would have who can verify.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// How the server is set up with a provider.
#[derive(Clone)]
pub struct IdentityProvider {
    /// What people call it.
    pub name: String,
    /// What it calls itself, an https address; http on this computer alone.
    pub issuer: String,
    /// What it calls this server.
    pub client_id: String,
    /// What this server proves itself to it with.
    pub client_secret: secrecy::SecretString,
}

flydex_domain::never_implements!(IdentityProvider: fmt::Display, serde::Serialize);

impl fmt::Debug for IdentityProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityProvider").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Its issuer is no address that can be trusted.
    #[error("the issuer must be https://…, or http on this computer alone")]
    Issuer,
    /// The client for it cannot be made.
    #[error("make a client for the identity provider")]
    Client(#[from] reqwest::Error),
}

/// A provider that can be asked.
pub(crate) struct Provider {
    settings: IdentityProvider,
    issuer: IssuerUrl,
    back_to: RedirectUrl,
    http: Http,
    clock: Clock,
    /// Held while it is fetched: all who wait get the same.
    known: Mutex<Option<Known>>,
}

/// What a provider says of itself, and when it said so.
struct Known {
    metadata: Arc<CoreProviderMetadata>,
    fetched_at: Instant,
    /// When it was last fetched for the sake of a key that was not known.
    sought_at: Option<Instant>,
}

/// A way to the provider.
pub(crate) struct Begun {
    /// Where the browser goes.
    pub(crate) url: String,
    /// What the answer is checked against.
    pub(crate) state: String,
}

/// What an answer is checked against, as an attempt holds it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) state: String,
    nonce: String,
    verifier: String,
}

/// Whom a provider vouches for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Vouched {
    pub(crate) issuer: String,
    pub(crate) subject: String,
}

impl Provider {
    /// A provider that nothing is known of yet; it is asked when somebody wants to sign in there.
    pub(crate) fn new(settings: IdentityProvider, origin: &PublicOrigin, clock: Clock) -> Result<Self, ProviderError> {
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|_| ProviderError::Issuer)?;
        let at = issuer.url().origin().ascii_serialization();
        let at = PublicOrigin::parse(&at).map_err(|_| ProviderError::Issuer)?;
        let back_to = RedirectUrl::new(format!("{origin}{BACK_TO}")).map_err(|_| ProviderError::Issuer)?;
        let http = Http::new(at.is_https())?;
        Ok(Self { settings, issuer, back_to, http, clock, known: Mutex::new(None) })
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// What it calls itself.
    pub(crate) fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// A way to the provider, for a purpose that the page reads from the state that comes back.
    pub(crate) async fn begin(&self, purpose: &str) -> Result<Begun, ErrorCode> {
        let metadata = self.metadata(Wanted::Any).await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = format!("{purpose}.{}", CsrfToken::new_random().secret());
        let nonce = Nonce::new_random();
        let client = self.client(&metadata);
        let (asked, with) = (state.clone(), nonce.clone());
        let (url, _, _) = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, move || CsrfToken::new(asked), move || with)
            .set_pkce_challenge(challenge)
            .url();
        let pending = Pending { state, nonce: nonce.secret().clone(), verifier: verifier.secret().clone() };
        let state = serde_json::to_string(&pending).map_err(|_| ErrorCode::Internal)?;
        Ok(Begun { url: url.into(), state })
    }

    /// Reads what an attempt holds.
    pub(crate) fn pending(&self, state: &str) -> Result<Pending, ErrorCode> {
        serde_json::from_str(state).map_err(|_| ErrorCode::Internal)
    }

    /// Redeems a code, and verifies the ID token that it gives.
    pub(crate) async fn redeem(&self, code: &str, pending: &Pending) -> Result<Vouched, ErrorCode> {
        let metadata = self.metadata(Wanted::Any).await?;
        let client = self.client(&metadata);
        let answer = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|_| ErrorCode::IdentityProviderUnreachable)?
            .set_pkce_verifier(PkceCodeVerifier::new(pending.verifier.clone()))
            .request_async(&self.http)
            .await
            .map_err(|error| refused(&error))?;
        let token = answer.id_token().ok_or(ErrorCode::IdentityRefused)?;
        let claims = match self.verify(token, &metadata, pending) {
            Err(ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey)) => {
                // It may have changed its keys; one that is made up must not cost a fetch each time.
                let newer = self.metadata(Wanted::OtherKeys).await?;
                self.verify(token, &newer, pending)
            }
            verified => verified,
        };
        let claims = claims.map_err(|error| said_no(&error))?;
        self.check_access_token(&claims, token, &metadata, answer.access_token())?;
        Ok(Vouched { issuer: self.settings.issuer.clone(), subject: claims.subject().to_string() })
    }

    fn verify(
        &self,
        token: &CoreIdToken,
        metadata: &CoreProviderMetadata,
        pending: &Pending,
    ) -> Result<CoreIdTokenClaims, ClaimsVerificationError> {
        let client = self.client(metadata);
        let now = self.clock.unix_millis();
        let skew = u64::try_from(PROVIDER_SKEW_MAX.as_millis()).unwrap_or(u64::MAX);
        let verifier = client
            .id_token_verifier()
            .set_allowed_algs(ALGORITHMS)
            .set_time_fn(move || time(now.saturating_sub(skew)))
            .set_issue_time_verifier_fn(move |issued_at| {
                if issued_at <= time(now.saturating_add(skew)) { Ok(()) } else { Err("from the future".to_owned()) }
            });
        token.claims(&verifier, &Nonce::new(pending.nonce.clone())).cloned()
    }

    /// Where the ID token names its access token, it must be the one that came with it.
    fn check_access_token(
        &self,
        claims: &CoreIdTokenClaims,
        token: &CoreIdToken,
        metadata: &CoreProviderMetadata,
        access_token: &openidconnect::AccessToken,
    ) -> Result<(), ErrorCode> {
        let Some(expected) = claims.access_token_hash() else { return Ok(()) };
        let client = self.client(metadata);
        let verifier = client.id_token_verifier();
        let key = token.signing_key(&verifier).map_err(|_| ErrorCode::IdentityRefused)?;
        let alg = token.signing_alg().map_err(|_| ErrorCode::IdentityRefused)?;
        let actual = AccessTokenHash::from_token(access_token, alg, key).map_err(|_| ErrorCode::IdentityRefused)?;
        if actual == *expected { Ok(()) } else { Err(ErrorCode::IdentityRefused) }
    }

    fn client(&self, metadata: &CoreProviderMetadata) -> Client {
        use secrecy::ExposeSecret as _;
        CoreClient::from_provider_metadata(
            metadata.clone(),
            ClientId::new(self.settings.client_id.clone()),
            Some(ClientSecret::new(self.settings.client_secret.expose_secret().to_owned())),
        )
        .set_redirect_uri(self.back_to.clone())
    }

    /// What the provider says of itself.
    async fn metadata(&self, wanted: Wanted) -> Result<Arc<CoreProviderMetadata>, ErrorCode> {
        let mut known = self.known.lock().await;
        let now = self.clock.instant();
        let is_past = |then: Instant, age: Duration| now.saturating_duration_since(then) >= age;
        let sought_at = known.as_ref().and_then(|known| known.sought_at);
        if let Some(known) = known.as_ref() {
            let enough = match wanted {
                Wanted::Any => !is_past(known.fetched_at, PROVIDER_METADATA_LIFETIME),
                Wanted::OtherKeys => sought_at.is_some_and(|then| !is_past(then, PROVIDER_REFETCH_INTERVAL)),
            };
            if enough {
                return Ok(Arc::clone(&known.metadata));
            }
        }
        let metadata =
            CoreProviderMetadata::discover_async(self.issuer.clone(), &self.http).await.map_err(|error| {
                tracing::warn!(error = %chain(&error), "identity provider cannot be read");
                ErrorCode::IdentityProviderUnreachable
            })?;
        let metadata = Arc::new(metadata);
        let sought_at = if wanted == Wanted::OtherKeys { Some(now) } else { sought_at };
        *known = Some(Known { metadata: Arc::clone(&metadata), fetched_at: now, sought_at });
        Ok(metadata)
    }
}

/// What is asked of a provider's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Not older than its life.
    Any,
    /// Newer, for a key is not in it; but not for each token that names a key which is made up.
    OtherKeys,
}

/// A client that knows where to send people, and may know where to redeem codes.
type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// Why a code was not redeemed. A code that was used, or is somebody else's, is the provider's no.
fn refused(error: &RequestTokenError<HttpError, StandardErrorResponse<CoreErrorResponseType>>) -> ErrorCode {
    match error {
        RequestTokenError::ServerResponse(response) => {
            tracing::warn!(error = %response.error().as_ref(), "identity provider redeemed no code");
            ErrorCode::IdentityRefused
        }
        RequestTokenError::Request(_) | RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            tracing::warn!(error = %chain(error), "identity provider gave no token");
            ErrorCode::IdentityProviderUnreachable
        }
    }
}

fn said_no(error: &ClaimsVerificationError) -> ErrorCode {
    tracing::warn!(error = %chain(error), "identity token refused");
    ErrorCode::IdentityRefused
}

fn time(millis: u64) -> DateTime<Utc> {
    i64::try_from(millis).ok().and_then(DateTime::from_timestamp_millis).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
