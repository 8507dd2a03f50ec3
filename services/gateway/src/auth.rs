//! Who a peer is: tokens of the control plane, then a signature over a fresh nonce.
//!
//! A ticket is spent after the proof, so that nobody without the device key can use it up. When the directory does
//! not answer, the proof over a nonce that this gateway has just made stands in for spending: a copied ticket is
//! worth nothing without the key.

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{BootId, DeviceId};
use flydex_domain::key::PublicKey;
use flydex_domain::proof::{self, LinkProof};
use flydex_domain::scope::{MachineKey, Principal};
use flydex_domain::token::{Claims as _, Grant, MachineCredential, Ticket, TokenError, signer_of};
use flydex_proto::v1;
use flydex_store::directory::DirectoryError;

use crate::Gateway;
use crate::registry::SessionIdentity;

/// A hello whose tokens verify; the proof is still to come.
pub(crate) struct Claimed {
    ticket: Ticket,
    ticket_text: String,
    grant: Grant,
    device_key: PublicKey,
    signed_by: Vec<String>,
}

/// Verifies the ticket and the grant of a hello against each other.
///
/// # Errors
/// The code that the browser is told.
pub(crate) fn claim_session(gateway: &Gateway, hello: &v1::SessionHello) -> Result<Claimed, ErrorCode> {
    let now = gateway.now();
    let ticket = gateway.verifier.verify::<Ticket>(&hello.ticket, now).map_err(|error| match error {
        TokenError::Expired => ErrorCode::TicketExpired,
        TokenError::Invalid | TokenError::Stale => error.code(ErrorCode::TicketInvalid),
    })?;
    if ticket.region != gateway.config.region {
        return Err(ErrorCode::TicketWrongRegion);
    }
    let device_key = hello.device_key.clone().ok_or(ErrorCode::BadRequest)?;
    let device_key = PublicKey::try_from(device_key).map_err(|_| ErrorCode::BadRequest)?;
    if device_key.device_id() != ticket.device_id {
        return Err(ErrorCode::TicketInvalid);
    }
    let grant =
        gateway.verifier.verify::<Grant>(&hello.grant, now).map_err(|error| error.code(ErrorCode::GrantInvalid))?;
    let same = grant.account_id == ticket.account_id
        && grant.user_id == ticket.user_id
        && grant.device_key.0.device_id() == ticket.device_id;
    if !same {
        return Err(ErrorCode::GrantInvalid);
    }
    gateway.revoked.check_grant(&grant)?;
    let signed_by = [&hello.ticket, &hello.grant].into_iter().filter_map(|token| signer_of(token)).collect();
    Ok(Claimed { ticket, ticket_text: hello.ticket.clone(), grant, device_key, signed_by })
}

impl Claimed {
    /// The grant: it is checked against revocations again, and its end is the session's.
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The names of the keys that signed the ticket and the grant.
    pub(crate) fn signed_by(&self) -> Vec<String> {
        self.signed_by.clone()
    }

    /// Verifies the device's proof, then spends the ticket.
    ///
    /// # Errors
    /// The code that the browser is told.
    pub(crate) async fn prove(
        &self,
        gateway: &Gateway,
        nonce: &[u8; 32],
        proof: &v1::SessionProof,
    ) -> Result<SessionIdentity, ErrorCode> {
        let gateway_id = gateway.config.gateway_id.as_str();
        let transcript = proof::session(nonce, &self.ticket_text, gateway_id, &gateway.config.public_origin);
        self.device_key.verify(transcript, &proof.signature).map_err(|_| ErrorCode::ProofInvalid)?;
        // The directory remembers a ticket for as long as the verifier takes it.
        let forget_at = self.ticket.holds_until();
        match gateway.directory.spend_ticket(self.ticket.ticket_id, forget_at, gateway.now()).await {
            Ok(true) => {}
            Ok(false) => return Err(ErrorCode::TicketUsed),
            Err(DirectoryError::Full) => return Err(ErrorCode::Overloaded),
            Err(error @ (DirectoryError::Unavailable | DirectoryError::Format | DirectoryError::FromTheFuture)) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::debug!(error, "ticket not spent: the directory does not answer");
                gateway.metrics.ticket_unspent();
            }
        }
        let principal = Principal::Device {
            account_id: self.ticket.account_id,
            user_id: self.ticket.user_id,
            role: self.ticket.role,
            device_id: self.ticket.device_id,
        };
        Ok(SessionIdentity {
            scope: principal.scope(),
            user_id: self.ticket.user_id,
            device_id: self.device_id(),
            grant_id: self.grant.grant_id,
        })
    }

    fn device_id(&self) -> DeviceId {
        self.ticket.device_id
    }
}

/// A link's hello whose credential verifies; the proof is still to come.
pub(crate) struct ClaimedLink {
    pub(crate) credential: MachineCredential,
    /// The name of the key that signed the credential.
    pub(crate) signed_by: Vec<String>,
    boot_id: BootId,
    link_counter: u64,
}

/// What the transport knows of the connection that a proof must cover.
#[derive(Clone, Copy)]
pub(crate) struct Binding {
    /// The TLS exporter, where TLS ends here.
    pub(crate) exporter: Option<[u8; 32]>,
    /// Whether a proof without the exporter is refused: nothing can sit between the ends of a QUIC connection.
    pub(crate) required: bool,
}

/// Verifies the credential of a hello.
///
/// # Errors
/// The code that the connector is told.
pub(crate) fn claim_link(gateway: &Gateway, hello: &v1::LinkHello) -> Result<ClaimedLink, ErrorCode> {
    let credential = gateway
        .verifier
        .verify::<MachineCredential>(&hello.credential, gateway.now())
        .map_err(|error| error.code(ErrorCode::CredentialInvalid))?;
    if credential.region_pin.as_ref().is_some_and(|region| *region != gateway.config.region) {
        return Err(ErrorCode::MachineWrongRegion);
    }
    gateway.revoked.check_credential(&credential)?;
    let boot_id = BootId::try_from(hello.boot_id.as_ref()).map_err(|_| ErrorCode::BadRequest)?;
    let signed_by = signer_of(&hello.credential).into_iter().collect();
    Ok(ClaimedLink { credential, signed_by, boot_id, link_counter: hello.link_counter })
}

impl ClaimedLink {
    /// Verifies the machine's proof.
    ///
    /// # Errors
    /// [`ErrorCode::ProofInvalid`] when it does not verify, or lacks a binding that it needs.
    pub(crate) fn prove(
        &self,
        gateway: &Gateway,
        nonce: &[u8; 32],
        binding: Binding,
        proof: &v1::LinkProof,
    ) -> Result<MachineKey, ErrorCode> {
        let exporter = match (proof.channel_bound, binding.exporter) {
            (true, Some(exporter)) => Some(exporter),
            (true, None) => return Err(ErrorCode::ProofInvalid),
            (false, _) if binding.required => return Err(ErrorCode::ProofInvalid),
            (false, _) => None,
        };
        let transcript = LinkProof {
            nonce,
            host: &gateway.host,
            gateway_id: gateway.config.gateway_id.as_str(),
            boot_id: self.boot_id,
            link_counter: self.link_counter,
            exporter: exporter.as_ref(),
        }
        .transcript();
        let machine_key = self.credential.machine_key.0;
        machine_key.verify(transcript, &proof.signature).map_err(|_| ErrorCode::ProofInvalid)?;
        let MachineCredential { account_id, machine_id, .. } = self.credential;
        Ok(MachineKey::new(Principal::Machine { account_id, machine_id }.scope(), machine_id))
    }
}
