//! How callers prove who they are, as the API's description names it; each route says which proof it takes.

use utoipa::Modify;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

/// The ways in. `cookie` is a browser's, `local_connect` a connector's while it pairs, and the three of a machine go
/// together.
pub(crate) struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, description: &mut OpenApi) {
        let cookie = ApiKeyValue::with_description(
            crate::cookie::NAME,
            "An account session. What is not a GET needs the server's own origin in `Origin` as well.",
        );
        let local_connect = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of one pairing in progress, from its start."))
            .build();
        let header = |name: &str, description: &str| {
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, description)))
        };
        let schemes = [
            ("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie))),
            ("local_connect", SecurityScheme::Http(local_connect)),
            (
                "webhook",
                header(
                    "Stripe-Signature",
                    "By the payment provider's secret over time and body, as Stripe documents it.",
                ),
            ),
            ("machine_credential", header("Authorization", "`FlyDex-Machine` and the machine's credential.")),
            ("machine_timestamp", header("FlyDex-Timestamp", "Milliseconds since the Unix epoch, at most 60 s off.")),
            (
                "machine_signature",
                header(
                    "FlyDex-Signature",
                    "By the credential's key over the transcript of method, path, SHA-256 of the body, timestamp and \
                     origin.",
                ),
            ),
        ];
        let components = description.components.get_or_insert_default();
        for (name, scheme) in schemes {
            components.add_security_scheme(name, scheme);
        }
    }
}
