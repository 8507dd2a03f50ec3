//! `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>…]`: HMAC-SHA256 over `<seconds>.<body>`.
//!
//! There may be several signatures and several secrets while one secret takes the place of another; one that fits is
//! enough. The time is signed too, so an event that is old, or from the future, is a replay whoever sends it.

use std::fmt;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{BILLING_SIGNATURE_HEADER_BYTES_MAX, BILLING_SIGNATURES_MAX, BILLING_TOLERANCE};
use flydex_domain::time::UnixMillis;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use sha2::Sha256;
use zeroize::ZeroizeOnDrop;

/// The header, in whatever case.
const HEADER: &str = "stripe-signature";
/// A signature in hexadecimal.
const SIGNATURE_HEX_BYTES: usize = 64;

/// What the provider signs its events with. Never printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct WebhookSecret(Vec<u8>);

flydex_domain::never_implements!(WebhookSecret: fmt::Display, serde::Serialize, AsRef<[u8]>);

impl WebhookSecret {
    /// Takes a secret over, as the provider shows it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    fn fits(&self, time: &str, body: &[u8], signature: &[u8; 32]) -> bool {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        hmac.update(time.as_bytes());
        hmac.update(b".");
        hmac.update(body);
        // In constant time.
        hmac.verify_slice(signature).is_ok()
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(redacted)")
    }
}

/// Checks that the provider sent this body lately.
pub(super) fn verify(
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[WebhookSecret],
    now: UnixMillis,
) -> Result<(), ErrorCode> {
    let mut headers = headers.get_all(HEADER).iter();
    // Of two headers nobody could say which one is meant.
    let (Some(header), None) = (headers.next(), headers.next()) else { return Err(ErrorCode::WebhookRefused) };
    let header = header.to_str().map_err(|_| ErrorCode::WebhookRefused)?;
    let Signed { time, signatures } = Signed::parse(header).ok_or(ErrorCode::WebhookRefused)?;
    let pairs = || signatures.iter().flat_map(|signature| secrets.iter().map(move |secret| (signature, secret)));
    let fitting = pairs().filter(|(signature, secret)| secret.fits(time, body, signature)).count();
    let seconds: u64 = time.parse().map_err(|_| ErrorCode::WebhookRefused)?;
    let away = now.0.abs_diff(seconds.saturating_mul(1000));
    if fitting > 0 && u128::from(away) <= BILLING_TOLERANCE.as_millis() {
        Ok(())
    } else {
        Err(ErrorCode::WebhookRefused)
    }
}

struct Signed<'header> {
    /// As it was signed.
    time: &'header str,
    signatures: Vec<[u8; 32]>,
}

impl<'header> Signed<'header> {
    /// None when there is not exactly one time. Schemes other than `v1` are passed over, as the provider says.
    fn parse(header: &'header str) -> Option<Self> {
        if header.len() > BILLING_SIGNATURE_HEADER_BYTES_MAX {
            return None;
        }
        let mut times = Vec::new();
        let mut signatures = Vec::new();
        for part in header.split(',') {
            match part.trim().split_once('=')? {
                ("t", time) => times.push(time),
                ("v1", signature) => signatures.extend(bytes_of(signature)),
                (_, _) => {}
            }
        }
        let [time] = times[..] else { return None };
        let plain = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit());
        signatures.truncate(BILLING_SIGNATURES_MAX);
        plain.then_some(Self { time, signatures })
    }
}

fn bytes_of(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != SIGNATURE_HEX_BYTES || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}
