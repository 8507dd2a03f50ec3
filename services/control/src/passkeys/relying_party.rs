//! WebAuthn's relying party: what authenticators are asked, and what their answers must fit.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{ATTEMPT_LIFETIME, PASSKEY_STORED_BYTES_MAX};
use flydex_runtime::origin::PublicOrigin;
use flydex_store::sql::{Passkey, User};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::ToSchema;
use webauthn_rs::prelude::{
    AuthenticationResult, DiscoverableAuthentication, Passkey as Credential, PasskeyRegistration, PublicKeyCredential,
    RegisterPublicKeyCredential, Url, WebauthnError,
};
use webauthn_rs::{Webauthn, WebauthnBuilder};

use crate::error::ApiError;

/// The name that authenticators show.
const RELYING_PARTY_NAME: &str = "FlyDex";

/// What a page hands to `navigator.credentials`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Options {
    /// The `publicKey` member, in WebAuthn's JSON form.
    #[schema(value_type = Object)]
    options: Value,
}

/// The relying party of the public origin, where passkeys are possible there.
pub(crate) struct RelyingParty(Option<Webauthn>);

impl RelyingParty {
    /// The relying party whose id is the origin's host. A bare address has none.
    pub(crate) fn new(origin: &PublicOrigin) -> Self {
        let url = Url::parse(origin.as_str()).ok().filter(|url| url.domain().is_some());
        Self(url.and_then(|url| {
            let builder = WebauthnBuilder::new(origin.host(), &url).ok()?;
            builder.rp_name(RELYING_PARTY_NAME).timeout(ATTEMPT_LIFETIME).build().ok()
        }))
    }

    /// Whether passkeys work at the server's address.
    pub(crate) const fn is_possible(&self) -> bool {
        self.0.is_some()
    }

    /// Asks for a new passkey: discoverable, with user verification, on an authenticator that has none of the user's.
    pub(crate) fn registration(
        &self,
        user: &User,
        account_name: &str,
        existing: Vec<Passkey>,
    ) -> Result<(Options, String), ApiError> {
        let exclude = existing.into_iter().map(|passkey| passkey.credential_id).collect();
        let (challenge, state) = self
            .webauthn()?
            .start_passkey_registration(user.user_id.uuid(), account_name, account_name, Some(exclude))
            .map_err(|_| ErrorCode::Internal)?;
        let mut options = json!(challenge.public_key);
        // The library asks for any credential; one without a user name must be discoverable.
        options["authenticatorSelection"]["residentKey"] = json!("required");
        options["authenticatorSelection"]["requireResidentKey"] = json!(true);
        Ok((Options { options }, text(&state)?))
    }

    /// Checks what an authenticator made, against the challenge. The answer is its id and what is stored.
    pub(crate) fn register(
        &self,
        made: &RegisterPublicKeyCredential,
        state: &str,
    ) -> Result<(Vec<u8>, String), ApiError> {
        let state: PasskeyRegistration = parse(state)?;
        let made = self.webauthn()?.finish_passkey_registration(made, &state).map_err(|_| ErrorCode::PasskeyRefused)?;
        let stored = text(&made)?;
        if stored.len() > PASSKEY_STORED_BYTES_MAX {
            return Err(ErrorCode::PasskeyRefused.into());
        }
        Ok((made.cred_id().to_vec(), stored))
    }

    /// Asks for an assertion with user verification: by one of these, or without any by whichever the user chooses.
    pub(crate) fn assertion(&self, allowed: &[Passkey]) -> Result<(Options, String), ApiError> {
        let (challenge, state) =
            self.webauthn()?.start_discoverable_authentication().map_err(|_| ErrorCode::Internal)?;
        let mut options = json!(challenge.public_key);
        let allowed: Vec<Value> = allowed.iter().filter_map(descriptor).collect();
        options["allowCredentials"] = json!(allowed);
        Ok((Options { options }, text(&state)?))
    }

    /// Verifies an assertion against a stored passkey. The answer is what to store in its place.
    ///
    /// # Errors
    /// [`ErrorCode::PasskeyCloned`] when only the counter is wrong.
    pub(crate) fn verify(
        &self,
        assertion: &PublicKeyCredential,
        state: &str,
        passkey: &Passkey,
    ) -> Result<String, ApiError> {
        let state: DiscoverableAuthentication = parse(state)?;
        let mut credential: Credential = parse(&passkey.public_key)?;
        let verified =
            self.webauthn()?.finish_discoverable_authentication_v2(assertion, state, &credential).map_err(code_of)?;
        require_verified_user(&verified)?;
        credential.update_credential(&verified);
        text(&credential)
    }

    fn webauthn(&self) -> Result<&Webauthn, ApiError> {
        self.0.as_ref().ok_or_else(|| ErrorCode::NotFound.into())
    }
}

fn descriptor(passkey: &Passkey) -> Option<Value> {
    let credential: Credential = serde_json::from_str(&passkey.public_key).ok()?;
    // The library writes bytes where browsers read base64url.
    Some(json!({ "type": "public-key", "id": URL_SAFE_NO_PAD.encode(credential.cred_id()) }))
}

fn code_of(error: WebauthnError) -> ErrorCode {
    if matches!(error, WebauthnError::CredentialPossibleCompromise) {
        ErrorCode::PasskeyCloned
    } else {
        ErrorCode::PasskeyRefused
    }
}

fn require_verified_user(verified: &AuthenticationResult) -> Result<(), ApiError> {
    if verified.user_verified() { Ok(()) } else { Err(ErrorCode::PasskeyRefused.into()) }
}

fn text(value: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|_| ErrorCode::Internal.into())
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    serde_json::from_str(text).map_err(|_| ErrorCode::Internal.into())
}
