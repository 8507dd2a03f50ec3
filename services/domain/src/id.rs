//! Identifiers. Each is its own type, so one can never stand where another is meant.
//!
//! UUID-shaped ids print as UUIDs; byte-shaped ids print as base64url without padding. None is a secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text or byte string that is not an identifier of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {kind}")]
pub struct MalformedId {
    /// The kind of identifier that was expected.
    pub kind: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID made by the caller.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The 16 bytes, big-endian, as they travel.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = MalformedId;

            fn try_from(bytes: &[u8]) -> Result<Self, MalformedId> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| MalformedId { kind: stringify!($name) })
            }
        }

        impl FromStr for $name {
            type Err = MalformedId;

            fn from_str(text: &str) -> Result<Self, MalformedId> {
                Uuid::try_parse(text).map(Self).map_err(|_| MalformedId { kind: stringify!($name) })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps bytes made by the caller.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes, as they travel.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = MalformedId;

            fn try_from(bytes: &[u8]) -> Result<Self, MalformedId> {
                bytes.try_into().map(Self).map_err(|_| MalformedId { kind: stringify!($name) })
            }
        }

        impl FromStr for $name {
            type Err = MalformedId;

            fn from_str(text: &str) -> Result<Self, MalformedId> {
                let malformed = MalformedId { kind: stringify!($name) };
                let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed)?;
                Self::try_from(bytes.as_slice())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// A tenant.
    AccountId
);
uuid_id!(
    /// A member of an account.
    UserId
);
uuid_id!(
    /// One browser that is signed in to an account.
    AccountSessionId
);
uuid_id!(
    /// One passkey of a user, as FlyDex names it; the authenticator's own name for it is another.
    PasskeyId
);
uuid_id!(
    /// A user's link with an identity at a provider.
    IdentityId
);
uuid_id!(
    /// A paired computer. Stable over key rotation.
    MachineId
);
uuid_id!(
    /// One live WebSocket of one device, made by the gateway that accepted it.
    SessionId
);
uuid_id!(
    /// One live connector connection, made by the gateway that accepted it.
    LinkId
);
uuid_id!(
    /// A signed request of a device (UUIDv7, made by the device).
    CommandId
);
uuid_id!(
    /// A pairing in progress.
    LocalConnectId
);
uuid_id!(
    /// The public name of a pairing secret.
    ClaimId
);
uuid_id!(
    /// A single-use pass to open a session.
    TicketId
);
uuid_id!(
    /// The signed word of the control plane on who a session is.
    GrantId
);
uuid_id!(
    /// One record of the audit.
    AuditId
);
uuid_id!(
    /// An invitation to an account; not its secret.
    InvitationId
);

bytes_id!(
    /// A device key by its fingerprint: SHA-256 over label, algorithm and public key.
    DeviceId, 32
);
bytes_id!(
    /// One life of the connector process; random.
    BootId, 16
);
bytes_id!(
    /// One life of a `machines` process; random.
    Incarnation, 16
);
bytes_id!(
    /// One life of the app-server that the connector is attached to.
    Generation, 32
);
bytes_id!(
    /// An approval, derived from what it is about (see [`crate::approval`]).
    ApprovalId, 32
);
bytes_id!(
    /// SHA-256 over the signed bytes of a command.
    CommandHash, 32
);

/// A `gateway` or `machines` process by its configured name: 1 to 64 of `[a-z0-9.-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

impl NodeId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeId {
    type Error = MalformedId;

    fn try_from(text: String) -> Result<Self, MalformedId> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(MalformedId { kind: "NodeId" });
        }
        Ok(Self(text))
    }
}

impl From<NodeId> for String {
    fn from(node_id: NodeId) -> Self {
        node_id.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_and_byte_forms() {
        let machine_id = MachineId::from_uuid(Uuid::from_u128(7));
        assert_eq!(machine_id.to_string().parse(), Ok(machine_id));
        assert_eq!(MachineId::try_from(machine_id.as_bytes().as_slice()), Ok(machine_id));
        let device_id = DeviceId::from_bytes([9; 32]);
        assert_eq!(device_id.to_string().parse(), Ok(device_id));
    }

    #[test]
    fn a_short_or_foreign_text_is_refused() {
        assert_eq!("AAAA".parse::<DeviceId>(), Err(MalformedId { kind: "DeviceId" }));
        assert_eq!(MachineId::try_from([0_u8; 15].as_slice()), Err(MalformedId { kind: "MachineId" }));
        assert!(NodeId::try_from("Upper".to_owned()).is_err());
        assert!(NodeId::try_from(String::new()).is_err());
    }
}
