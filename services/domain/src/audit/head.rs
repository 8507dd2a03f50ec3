//! The head of a chain under control's signature, for whoever wants to keep it.
//!
//! With it anybody can show later that the chain was cut or rewritten, whoever did it: the operator too.

use pasetors::Public;
use pasetors::token::UntrustedToken;
use pasetors::version4::V4;
use serde::{Deserialize, Serialize};

use super::ChainHead;
use crate::id::{AccountId, CommandHash};
use crate::time::UnixMillis;
use crate::token::{Claims, TokenError, TokenVerifier};

/// What control says of an account's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadClaims {
    /// Whose chain.
    pub account_id: AccountId,
    /// The newest record.
    pub number: u64,
    /// Its hash, in the form of other hashes.
    hash: CommandHash,
    /// When it was signed.
    pub signed_at: UnixMillis,
}

impl HeadClaims {
    /// Says where the chain is.
    #[must_use]
    pub const fn new(account_id: AccountId, head: ChainHead, signed_at: UnixMillis) -> Self {
        Self { account_id, number: head.number, hash: CommandHash::from_bytes(head.hash), signed_at }
    }

    /// Where the chain was.
    #[must_use]
    pub const fn head(&self) -> ChainHead {
        ChainHead { number: self.number, hash: *self.hash.as_bytes() }
    }
}

impl Claims for HeadClaims {
    const KIND: &'static str = "flydex/v1/audit-head";

    /// Never: what was so stays so.
    fn expires_at(&self) -> UnixMillis {
        UnixMillis(u64::MAX)
    }
}

/// The token (PASETO v4.public).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead(pub String);

impl SignedHead {
    /// What it says, if one of the keys has signed it.
    ///
    /// # Errors
    /// [`TokenError::Invalid`].
    pub fn verify(&self, keys: &TokenVerifier) -> Result<HeadClaims, TokenError> {
        keys.verify(&self.0, UnixMillis(0))
    }

    /// What it says, whoever has signed it.
    ///
    /// # Errors
    /// [`TokenError::Invalid`].
    pub fn unverified(&self) -> Result<HeadClaims, TokenError> {
        let token = UntrustedToken::<Public, V4>::try_from(&self.0).map_err(|_| TokenError::Invalid)?;
        serde_json::from_slice(token.untrusted_payload()).map_err(|_| TokenError::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, chain};
    use super::*;
    use crate::secret::SecretKey;
    use crate::token::TokenSigner;

    #[test]
    fn a_head_verifies_for_ever_under_the_key_that_signed_it_and_under_no_other() {
        let signer = |seed| TokenSigner::from_seed("k1", &SecretKey::new([seed; 32]));
        let (_, head) = chain(account(1), 3);
        let claims = HeadClaims::new(account(1), head, UnixMillis(1));
        let signed = SignedHead(signer(1).sign(&claims));
        assert_eq!(signed.verify(&TokenVerifier::new([signer(1).public()])), Ok(claims.clone()));
        assert_eq!(claims.head(), head);
        let other = TokenVerifier::new([signer(2).public()]);
        assert_eq!(signed.verify(&other), Err(TokenError::Invalid));
        assert_eq!(signed.unverified(), Ok(claims));
        assert_eq!(SignedHead("v4.public.AAAA".to_owned()).unverified(), Err(TokenError::Invalid));
    }
}
