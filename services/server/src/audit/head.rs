//! A signed head in a file, as `/api/audit/head` gave it, and the keys that such heads verify with.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::audit::ChainHead;
use flydex_domain::audit::head::{HeadClaims, SignedHead};
use flydex_domain::id::AccountId;
use flydex_domain::token::TokenVerifier;
use serde::Deserialize;

/// A head that somebody has kept.
pub(super) struct Kept {
    claims: HeadClaims,
    proof: Proof,
}

/// Who says that control has signed it.
enum Proof {
    /// Keys from elsewhere.
    Keys,
    /// The keys that were kept with it.
    Own,
    /// Nobody: it was kept, and that is all.
    Nobody,
}

/// Of the answers of `/api/audit/head` and `/api/keys`, what this needs.
#[derive(Deserialize)]
struct KeptJson {
    head: Option<String>,
    #[serde(default)]
    token_keys: Vec<KeyJson>,
}

#[derive(Deserialize)]
struct KeyJson {
    key_id: String,
    key: String,
}

impl Kept {
    /// Reads what `/api/audit/head` answered, or its token alone. A signature is checked under the keys, without any
    /// under those in the file itself.
    pub(super) fn read(file: &Path, keys: Option<&TokenVerifier>) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        Self::parse(text.trim(), keys).with_context(|| format!("use the head in {}", file.display()))
    }

    fn parse(text: &str, keys: Option<&TokenVerifier>) -> anyhow::Result<Self> {
        let kept = if text.starts_with('{') {
            serde_json::from_str(text).context("it is not an answer of /api/audit/head")?
        } else {
            KeptJson { head: Some(text.to_owned()), token_keys: Vec::new() }
        };
        let signed = SignedHead(kept.head.context("it holds no head")?);
        let own = if kept.token_keys.is_empty() { None } else { Some(verifier(&kept.token_keys)?) };
        let claims = match keys.or(own.as_ref()) {
            Some(keys) => signed.verify(keys).map_err(|_| anyhow!("none of the keys has signed it")),
            None => signed.unverified().map_err(|_| anyhow!("it is not a signed head")),
        };
        let proof = match (keys, &own) {
            (Some(_), _) => Proof::Keys,
            (None, Some(_)) => Proof::Own,
            (None, None) => Proof::Nobody,
        };
        Ok(Self { claims: claims?, proof })
    }

    pub(super) const fn account_id(&self) -> AccountId {
        self.claims.account_id
    }

    pub(super) const fn head(&self) -> ChainHead {
        self.claims.head()
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HeadClaims { account_id, number, signed_at, .. } = &self.claims;
        write!(f, "the kept head is of record {number} of account {account_id}, signed at {signed_at} ms: ")?;
        f.write_str(match self.proof {
            Proof::Keys => "its signature holds",
            Proof::Own => "its signature holds under the keys that were kept with it",
            Proof::Nobody => "its signature is not checked without --keys",
        })
    }
}

/// Reads what `/api/keys` answered, once or at several times.
pub(super) fn read_keys(files: &[PathBuf]) -> anyhow::Result<TokenVerifier> {
    let mut keys = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let kept: KeptJson = serde_json::from_str(&text)
            .with_context(|| format!("read {}: it is not an answer of /api/keys", file.display()))?;
        keys.extend(kept.token_keys);
    }
    verifier(&keys)
}

fn verifier(keys: &[KeyJson]) -> anyhow::Result<TokenVerifier> {
    let key = |key: &KeyJson| {
        let bytes = URL_SAFE_NO_PAD.decode(&key.key).ok().and_then(|bytes| bytes.try_into().ok());
        Ok((key.key_id.clone(), bytes.with_context(|| format!("the key {} is not one", key.key_id))?))
    };
    Ok(TokenVerifier::new(keys.iter().map(key).collect::<anyhow::Result<Vec<_>>>()?))
}
