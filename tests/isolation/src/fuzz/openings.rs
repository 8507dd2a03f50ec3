//! A opens a session or a link with something of another in its hello or proof.
//!
//! The twin of a token is one that control signed as well, for an account of which nobody else knows: what is refused
//! must not depend on whether somebody is there.

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use flydex_domain::key::PublicKey;
use flydex_domain::scope::Role;
use flydex_proto::v1;
use flydex_proto::v1::link_up::Kind as LinkUp;
use flydex_proto::v1::session_up::Kind as SessionUp;
use prost_reflect::DynamicMessage;

use super::places::Place;
use super::sessions::Observed;
use super::{Operation, World};
use crate::connector;
use crate::known::Plain;
use crate::observe::Seen;
use crate::session::{self, Ended};
use crate::tenant::copy;
use crate::wire::Wire;

impl World {
    /// What B would prove itself with, and the same of nobody; nothing where a place wants no proof.
    pub(super) fn proof_for(&mut self, place: &Place) -> Option<(Plain, Plain)> {
        if !place.opens() {
            return None;
        }
        let Self { stand, chance, b, nobody, .. } = self;
        let bytes = |key: PublicKey| Plain::Bytes(copy(key.as_bytes()));
        Some(match place.name() {
            "ticket" => {
                let ticket = b.tenant.ticket(stand, Role::Owner, chance);
                (Plain::Text(ticket), Plain::Text(nobody.ticket(stand, Role::Owner, chance)))
            }
            "grant" => {
                let grant = b.tenant.grant(stand, Role::Owner);
                (Plain::Text(grant), Plain::Text(nobody.grant(stand, Role::Owner)))
            }
            "credential" => (Plain::Text(b.tenant.credential(stand)), Plain::Text(nobody.credential(stand))),
            // A signature is made once it is known over what: this says by whom.
            "key" | "signature" => (bytes(b.tenant.device_key()), bytes(nobody.device_key())),
            _ => return None,
        })
    }

    /// Opens a connection, and says how that went.
    pub(super) async fn by_opening(&mut self, operation: &Operation<'_>) -> anyhow::Result<Observed> {
        let opened = if operation.place.root() == "SessionUp" {
            self.open_session(operation).await?
        } else {
            self.open_link(operation).await?
        };
        let seen = match opened {
            Ok(()) => Seen::word("welcome", 0),
            Err(Ended(code)) => Seen::word("refused", code),
        };
        Ok((Vec::new(), vec![seen]))
    }

    async fn open_session(&mut self, operation: &Operation<'_>) -> anyhow::Result<Result<(), Ended>> {
        let tenant = &self.a.tenant;
        let hello = session::hello(&self.stand, tenant, Role::Owner, &mut self.chance);
        let mut said = DynamicMessage::new(self.schema.message("SessionUp")?);
        said.transcode_from(&v1::SessionUp { kind: Some(SessionUp::Hello(hello)) })?;
        let mut signer = tenant.device();
        if is_proof(operation) {
            signer = self.signer(operation, |tenant| tenant.device());
        } else {
            self.schema.put(&mut said, &operation.place.path, &operation.value.clone().into())?;
        }
        let Some(SessionUp::Hello(hello)) = said.transcode_to::<v1::SessionUp>()?.kind else {
            anyhow::bail!("no hello any more")
        };
        let mut wire = session::connect(&self.stand).await?;
        Ok(session::shake_hands(&mut wire, signer, hello).await?.map(|_| ()))
    }

    /// Of a machine that has no other link: which of two counts is another question.
    async fn open_link(&mut self, operation: &Operation<'_>) -> anyhow::Result<Result<(), Ended>> {
        let machine = self.a.tenant.neighbour(&mut self.chance);
        let hello = connector::hello(&self.stand, &machine, 1);
        let mut said = DynamicMessage::new(self.schema.message("LinkUp")?);
        said.transcode_from(&v1::LinkUp { kind: Some(LinkUp::Hello(hello)) })?;
        let mut signer = machine.machine_key();
        if is_proof(operation) {
            signer = self.signer(operation, |tenant| tenant.machine_key());
        } else {
            self.schema.put(&mut said, &operation.place.path, &operation.value.clone().into())?;
        }
        let Some(LinkUp::Hello(hello)) = said.transcode_to::<v1::LinkUp>()?.kind else {
            anyhow::bail!("no hello any more")
        };
        let mut wire = Wire::open(self.stand.address, crate::stand::HOST, "/v1/link", None).await?;
        let opened = connector::shake_hands(&mut wire, signer, hello).await.context("open a link")?;
        Ok(opened.map(|_| ()))
    }

    fn signer(&self, operation: &Operation<'_>, key: impl Fn(&crate::tenant::Tenant) -> &SigningKey) -> &SigningKey {
        let is_of_b = operation.value.telling() == Some(self.b.tenant.device_key().as_bytes());
        key(if is_of_b { &self.b.tenant } else { &self.nobody })
    }
}

fn is_proof(operation: &Operation<'_>) -> bool {
    operation.place.name() == "signature"
}
