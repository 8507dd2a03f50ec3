//! Pairing, as the machine does it: make the secret, show it, check the device's proof, ask the desk, and only
//! then prove itself and take the device on.
//!
//! The secret leaves this process only inside the address that the desk's screen shows. The relay is told the
//! hash of one of the three keys that the secret gives; what it reports of device and account counts only once
//! the device's MAC covers it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use flydex_domain::encoding::{Label, Transcript, sha256};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ClaimId, LocalConnectId, MachineId};
use flydex_domain::key::{self, PublicKey};
use flydex_domain::limits::{
    CLAIM_LIFETIME, LOCAL_CONNECT_LIFETIME, PAIRING_CONFIRM_TRIES_MAX, PAIRING_CONFIRM_WAIT, PAIRING_POLL_INTERVAL,
};
use flydex_domain::pairing::{ClaimKeys, PairingTerms};
use flydex_domain::scope::Role;
use flydex_domain::secret::SecretKey;
use flydex_domain::status::LocalConnectStatus;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, MachineCredential};
use flydex_runtime::clock::Clock;
use zeroize::Zeroizing;

use crate::api::{AgentStatus, Api, LocalConnectAnswer, SecretText, StartRequest, verifier};
use crate::paired::Entropy;

pub mod desk;
pub mod error;
pub mod proposal;

pub use error::PairError;
pub use proposal::{Enrolment, PairingUrl, Proposal, printable};

/// What a pairing is to give.
#[derive(Clone, Debug)]
pub struct PairingRequest<'a> {
    /// The machine's key.
    pub machine_key: &'a SigningKey,
    /// The machine's name, for people.
    pub machine_label: String,
    /// What the device may do.
    pub role: Role,
    /// Of a machine that is paired already: it keeps its id and its account.
    pub credential: Option<SecretText>,
}

/// A pairing in progress: the claim is made, and waits to be scanned.
#[derive(Debug)]
pub struct Pairing {
    api: Api,
    clock: Clock,
    secret: SecretKey,
    keys: ClaimKeys,
    token: SecretText,
    local_connect_id: LocalConnectId,
    claim_id: ClaimId,
    machine_id: MachineId,
    machine_key: PublicKey,
    role: Role,
    expires_at: UnixMillis,
}

impl Pairing {
    /// Makes a claim and tells the control plane its hash.
    ///
    /// # Errors
    /// [`PairError::Api`] or [`PairError::OtherOrigin`].
    pub async fn start(
        api: Api,
        request: PairingRequest<'_>,
        clock: Clock,
        entropy: &Entropy,
    ) -> Result<Self, PairError> {
        let secret = SecretKey::new(entropy.bytes());
        let keys = ClaimKeys::derive(&secret);
        let redeem_sha256 = sha256(keys.redeem.expose());
        let timestamp_ms = UnixMillis(clock.unix_millis());
        let transcript = Transcript::new(Label::MachineRequest)
            .text("local-connect")
            .text(api.origin().as_str())
            .bytes(&redeem_sha256)
            .text(&request.machine_label)
            .text(request.role.as_str())
            .integer(timestamp_ms.0);
        let machine_key = PublicKey::of(request.machine_key);
        let body = StartRequest {
            machine_key: EncodedKey(machine_key),
            machine_label: request.machine_label,
            role: request.role,
            redeem_sha256: URL_SAFE_NO_PAD.encode(redeem_sha256),
            connector_version: env!("CARGO_PKG_VERSION"),
            credential: request.credential,
            timestamp_ms,
            signature: URL_SAFE_NO_PAD.encode(key::sign(request.machine_key, transcript)),
        };
        let answer = api.start_local_connect(&body).await?;
        if answer.origin != api.origin().as_str() {
            return Err(PairError::OtherOrigin { own: answer.origin });
        }
        Ok(Self {
            api,
            clock,
            secret,
            keys,
            token: answer.token,
            local_connect_id: answer.local_connect_id,
            claim_id: answer.claim_id,
            machine_id: answer.machine_id,
            machine_key,
            role: request.role,
            expires_at: answer.expires_at_ms,
        })
    }

    /// The address to scan or to open.
    #[must_use]
    pub fn url(&self) -> PairingUrl {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.expose()));
        PairingUrl(Zeroizing::new(format!("{}/pair#{}.{}", self.api.origin(), self.claim_id, *secret)))
    }

    /// What the device may do.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Waits until a device has redeemed the claim and its proof holds.
    ///
    /// # Errors
    /// [`PairError`] when it expires, is ended, or the proof does not hold; the relay is told of the last.
    pub async fn proposal(&self) -> Result<Proposal, PairError> {
        let waited = tokio::time::timeout(CLAIM_LIFETIME + LOCAL_CONNECT_LIFETIME, self.finalized()).await;
        let proposal = self.verify(waited.map_err(|_| PairError::Expired)??);
        if proposal.is_err() {
            self.tell(&AgentStatus::Failed { code: ErrorCode::PairingTampered.name() }).await;
        }
        proposal
    }

    async fn finalized(&self) -> Result<LocalConnectAnswer, PairError> {
        let mut after = None;
        loop {
            let answer = self.look(after).await?;
            match answer.status {
                LocalConnectStatus::Created => after = Some(LocalConnectStatus::Created.name()),
                LocalConnectStatus::AwaitingBrowserFinalize => {
                    if answer.device.as_ref().is_some_and(|device| device.mac.is_some()) {
                        return Ok(answer);
                    }
                    after = None;
                    tokio::time::sleep(PAIRING_POLL_INTERVAL).await;
                }
                LocalConnectStatus::CodexReady
                | LocalConnectStatus::Expired
                | LocalConnectStatus::Cancelled
                | LocalConnectStatus::Failed => return Err(ended(&answer)),
            }
        }
    }

    /// Looks once; a server that does not answer is asked again until the caller's patience ends.
    async fn look(&self, after: Option<&str>) -> Result<LocalConnectAnswer, PairError> {
        loop {
            match self.api.local_connect(self.local_connect_id, self.token.expose(), after).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.may_retry() => {
                    tracing::debug!(error.code = error.code().name(), "pairing status not readable, asking again");
                    tokio::time::sleep(PAIRING_POLL_INTERVAL).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn verify(&self, answer: LocalConnectAnswer) -> Result<Proposal, PairError> {
        let (Some(account), Some(device)) = (answer.account, answer.device) else {
            return Err(PairError::Tampered);
        };
        let terms = PairingTerms {
            origin: self.api.origin().as_str().to_owned(),
            claim_id: self.claim_id,
            expires_at: self.expires_at,
            account_id: account.account_id,
            machine_id: self.machine_id,
            role: self.role,
            machine_key: self.machine_key,
            device_key: device.key.0,
        };
        let mac = device.mac.and_then(|mac| URL_SAFE_NO_PAD.decode(mac).ok()).ok_or(PairError::Tampered)?;
        if !terms.verify_mac(&self.keys.device_to_machine, &mac) {
            return Err(PairError::Tampered);
        }
        let short_code = terms.short_code();
        let (account_name, device_label) = (printable(&account.name), printable(&device.label));
        Ok(Proposal { terms, account_name, device_label, short_code })
    }

    /// Waits until the pairing is ended from the other side, while the desk decides.
    pub async fn ended(&self) -> PairError {
        let watching = async {
            loop {
                match self.look(Some(LocalConnectStatus::AwaitingBrowserFinalize.name())).await {
                    Ok(answer) if answer.status.is_final() => return ended(&answer),
                    // A server that answers at once although nothing changed is not asked in a tight loop.
                    Ok(_) => tokio::time::sleep(PAIRING_POLL_INTERVAL).await,
                    Err(error) => return error,
                }
            }
        };
        tokio::time::timeout(LOCAL_CONNECT_LIFETIME, watching).await.unwrap_or(PairError::Expired)
    }

    /// Gives the machine's proof, after the yes at the desk, and checks what comes back.
    ///
    /// # Errors
    /// [`PairError::Api`], or [`PairError::AnswerForged`] when the answer is for something else.
    pub async fn confirm(&self, proposal: &Proposal) -> Result<Enrolment, PairError> {
        let mac = proposal.terms.mac(&self.keys.machine_to_device);
        let answer = self.confirm_retrying(&mac).await?;
        let now = UnixMillis(self.clock.unix_millis());
        let credential = verifier(&answer.token_keys).verify::<MachineCredential>(answer.credential.expose(), now);
        let fits = credential.is_ok_and(|credential| {
            credential.account_id == proposal.terms.account_id
                && credential.machine_id == self.machine_id
                && credential.machine_key.0 == self.machine_key
        });
        if !fits || answer.account_id != proposal.terms.account_id || answer.machine_id != self.machine_id {
            return Err(PairError::AnswerForged);
        }
        Ok(Enrolment {
            account_id: answer.account_id,
            machine_id: answer.machine_id,
            credential: answer.credential,
            token_keys: answer.token_keys,
        })
    }

    /// Confirming is idempotent, so a lost answer is asked for again.
    async fn confirm_retrying(&self, mac: &[u8]) -> Result<crate::api::ConfirmedAnswer, PairError> {
        for _ in 1..PAIRING_CONFIRM_TRIES_MAX {
            match self.api.confirm(self.local_connect_id, self.token.expose(), mac).await {
                Err(error) if error.may_retry() => tokio::time::sleep(PAIRING_CONFIRM_WAIT).await,
                settled => return Ok(settled?),
            }
        }
        Ok(self.api.confirm(self.local_connect_id, self.token.expose(), mac).await?)
    }

    /// Tells the relay that the desk said no.
    pub async fn refuse(&self) {
        self.tell(&AgentStatus::Refused).await;
    }

    /// Tells the relay, and so the phone, that Codex answers.
    pub async fn codex_ready(&self) {
        self.tell(&AgentStatus::CodexReady).await;
    }

    /// Tells the relay, and so the phone, why it cannot go on.
    pub async fn failed(&self, code: ErrorCode) {
        self.tell(&AgentStatus::Failed { code: code.name() }).await;
    }

    /// Reports; a report that does not arrive changes nothing here, and the other side sees it expire.
    async fn tell(&self, status: &AgentStatus) {
        let told = self.api.agent_status(self.local_connect_id, self.token.expose(), status).await;
        if let Err(error) = told {
            tracing::warn!(error.code = error.code().name(), "pairing report not taken");
        }
    }
}

fn ended(answer: &LocalConnectAnswer) -> PairError {
    let code = answer.code.as_deref().and_then(ErrorCode::from_name);
    match answer.status {
        LocalConnectStatus::Expired => PairError::Expired,
        LocalConnectStatus::Cancelled
        | LocalConnectStatus::Failed
        | LocalConnectStatus::CodexReady
        | LocalConnectStatus::Created
        | LocalConnectStatus::AwaitingBrowserFinalize => PairError::Ended(code.unwrap_or(ErrorCode::PairingEnded)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
