//! An account's audit as text, to be kept and checked without the server: one JSON object a line.
//!
//! Every line is a record with its number, the hash before it and its own; the last line is the signed head of the
//! chain as it then was, so that a copy which ends early is seen to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::head::SignedHead;
use super::{AuditEntry, AuditKind, AuditOutcome, AuditRecord};
use crate::command::Decision;
use crate::error::ErrorCode;
use crate::id::{AccountId, ApprovalId, AuditId, CommandHash, CommandId, DeviceId, Generation, MachineId, UserId};
use crate::time::UnixMillis;

/// A line that is none of an export.
#[derive(Debug, thiserror::Error)]
#[error("not a line of an export")]
pub struct MalformedLine(#[source] serde_json::Error);

/// A line of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A record of that account.
    Record(AccountId, Box<AuditRecord>),
    /// The signed head, which ends it.
    Head(SignedHead),
}

impl Line {
    /// The line as text, without its end.
    ///
    /// # Panics
    /// Never: it is plain data.
    #[must_use]
    pub fn write(&self) -> String {
        let text = match self {
            Self::Record(account_id, record) => serde_json::to_string(&RecordJson::of(*account_id, record)),
            Self::Head(SignedHead(head)) => serde_json::to_string(&HeadJson { head: head.clone() }),
        };
        text.expect("a line is plain data")
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`MalformedLine`] for whatever [`Line::write`] does not write: unknown fields and names as well.
    pub fn read(line: &[u8]) -> Result<Self, MalformedLine> {
        let record = match serde_json::from_slice::<RecordJson>(line) {
            Ok(record) => record,
            Err(error) => {
                let head = serde_json::from_slice::<HeadJson>(line).map_err(|_| MalformedLine(error))?;
                return Ok(Self::Head(SignedHead(head.head)));
            }
        };
        let (account_id, record) = record.into_record()?;
        Ok(Self::Record(account_id, Box::new(record)))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadJson {
    head: String,
}

macro_rules! record_json {
    ($($optional:ident: $kind:ty,)*) => {
        #[derive(Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct RecordJson {
            account_id: AccountId,
            number: u64,
            audit_id: AuditId,
            kind: AuditKind,
            at_ms: UnixMillis,
            deferred: bool,
            $(#[serde(default, skip_serializing_if = "Option::is_none")]
            $optional: Option<$kind>,)*
            previous_hash: Hash,
            hash: Hash,
        }
    };
}

record_json! {
    user_id: UserId,
    machine_id: MachineId,
    device_id: DeviceId,
    approval_id: ApprovalId,
    generation: Generation,
    command_id: CommandId,
    command_hash: CommandHash,
    decision: String,
    outcome: AuditOutcome,
    code: String,
    address_hash: Hash,
}

impl RecordJson {
    fn of(account_id: AccountId, record: &AuditRecord) -> Self {
        let AuditRecord { number, entry, previous_hash, hash } = record;
        Self {
            account_id,
            number: *number,
            audit_id: entry.audit_id,
            kind: entry.kind,
            at_ms: entry.at,
            deferred: entry.deferred,
            user_id: entry.user_id,
            machine_id: entry.machine_id,
            device_id: entry.device_id,
            approval_id: entry.approval_id,
            generation: entry.generation,
            command_id: entry.command_id,
            command_hash: entry.command_hash,
            decision: entry.decision.map(|decision| decision.name().to_owned()),
            outcome: entry.outcome,
            code: entry.code.map(|code| code.name().to_owned()),
            address_hash: entry.address_hash.map(Hash),
            previous_hash: Hash(*previous_hash),
            hash: Hash(*hash),
        }
    }

    fn into_record(self) -> Result<(AccountId, AuditRecord), MalformedLine> {
        let unknown = |what| MalformedLine(serde::de::Error::custom(format_args!("unknown {what}")));
        let decision = self.decision.map(|name| Decision::from_name(&name).ok_or_else(|| unknown("decision")));
        let code = self.code.map(|name| ErrorCode::from_name(&name).ok_or_else(|| unknown("code")));
        let entry = AuditEntry {
            audit_id: self.audit_id,
            kind: self.kind,
            at: self.at_ms,
            deferred: self.deferred,
            user_id: self.user_id,
            machine_id: self.machine_id,
            device_id: self.device_id,
            approval_id: self.approval_id,
            generation: self.generation,
            command_id: self.command_id,
            command_hash: self.command_hash,
            decision: decision.transpose()?,
            outcome: self.outcome,
            code: code.transpose()?,
            address_hash: self.address_hash.map(|hash| hash.0),
        };
        let record = AuditRecord { number: self.number, entry, previous_hash: self.previous_hash.0, hash: self.hash.0 };
        Ok((self.account_id, record))
    }
}

/// 32 bytes as base64url without padding.
struct Hash([u8; 32]);

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("malformed hash"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, chain, tamper};
    use super::*;

    #[test]
    fn every_field_of_a_record_is_read_as_it_was_written() {
        let (records, _) = chain(account(1), 1);
        for field in 0..=14 {
            let mut record = records[0].clone();
            tamper(&mut record.entry, field);
            let line = Line::Record(account(1), Box::new(record));
            assert_eq!(Line::read(line.write().as_bytes()).unwrap(), line, "field {field}");
            assert!(!line.write().contains('\n'));
        }
        let head = Line::Head(SignedHead("v4.public.AAAA".to_owned()));
        assert_eq!(Line::read(head.write().as_bytes()).unwrap(), head);
    }

    #[test]
    fn the_names_of_an_export_are_the_stored_ones() {
        for kind in AuditKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        for outcome in [AuditOutcome::Executed, AuditOutcome::Refused, AuditOutcome::Unknown] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.name());
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let (records, _) = chain(account(1), 1);
        let line = Line::Record(account(1), Box::new(records[0].clone())).write();
        let wrong = [
            String::new(),
            "{}".to_owned(),
            line[..line.len() - 1].to_owned(),
            line.replace("command_executed", "unheard_of"),
            line.replace("\"number\"", "\"note\":\"x\",\"number\""),
            line.replace("\"number\":1", "\"number\":1,\"number\":1"),
            line.replace("\"deferred\":false", "\"deferred\":false,\"code\":\"unheard_of\""),
        ];
        for line in wrong {
            assert!(Line::read(line.as_bytes()).is_err(), "{line}");
        }
    }
}
