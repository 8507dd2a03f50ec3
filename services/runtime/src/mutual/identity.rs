//! Who a process is, as its certificate says.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

/// What the URI begins with: the scheme, and the trust domain that all our processes are of.
const PREFIX: &str = "spiffe://flydex/";
/// Longest part of the URI.
const PART_BYTES_MAX: usize = 64;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Terminates sessions and links.
    Gateway,
    /// Holds machines.
    Machines,
    /// The control plane.
    Control,
    /// An operator's tool.
    Admin,
}

/// One process, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The region that it works in; 1 to 64 of `[a-z0-9.-]`.
    pub region: String,
    /// What it does.
    pub role: Role,
    /// Its configured name; 1 to 64 of `[a-z0-9.-]`.
    pub node_id: String,
}

/// Why a certificate says nothing that can be used, or not what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is no certificate.
    #[error("certificate cannot be parsed")]
    Malformed,
    /// No URI, more than one, or one of another form.
    #[error("certificate names no process of ours")]
    Unnamed,
    /// The role may not be here.
    #[error("certificate is of another role")]
    Role,
    /// The region is another.
    #[error("certificate is of another region")]
    Region,
    /// It is another process than the one that was called.
    #[error("certificate is of another process")]
    Node,
}

/// Which peers a server takes.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// The roles.
    pub roles: Vec<Role>,
    /// The only region, when the service is one region's.
    pub region: Option<String>,
}

/// Which server a client calls.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its role.
    pub role: Role,
    /// Its region, when that is known.
    pub region: Option<String>,
    /// Its name, when that is known.
    pub node_id: Option<String>,
}

// === impl Role ===

impl Role {
    /// The role as it stands in a certificate.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Machines => "machines",
            Self::Control => "control",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        [Self::Gateway, Self::Machines, Self::Control, Self::Admin]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or(IdentityError::Unnamed)
    }
}

// === impl PeerIdentity ===

impl PeerIdentity {
    /// Reads the one URI of a certificate that was verified, or is about to be.
    ///
    /// # Errors
    /// [`IdentityError::Malformed`] or [`IdentityError::Unnamed`].
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let certificate = EndEntityCert::try_from(certificate).map_err(|_| IdentityError::Malformed)?;
        let mut uris = certificate.valid_uri_names();
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            _ => Err(IdentityError::Unnamed),
        }
    }
}

impl FromStr for PeerIdentity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let path = uri.strip_prefix(PREFIX).ok_or(IdentityError::Unnamed)?;
        let mut parts = path.split('/');
        let (Some(region), Some(role), Some(node_id), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Unnamed);
        };
        if !is_name(region) || !is_name(node_id) {
            return Err(IdentityError::Unnamed);
        }
        Ok(Self { region: region.to_owned(), role: role.parse()?, node_id: node_id.to_owned() })
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}/{}", self.region, self.role.name(), self.node_id)
    }
}

// === impl Allowed ===

impl Allowed {
    /// Whether a peer may call.
    ///
    /// # Errors
    /// [`IdentityError::Role`] or [`IdentityError::Region`].
    pub fn check(&self, peer: &PeerIdentity) -> Result<(), IdentityError> {
        if !self.roles.contains(&peer.role) {
            return Err(IdentityError::Role);
        }
        same(self.region.as_ref(), &peer.region).then_some(()).ok_or(IdentityError::Region)
    }
}

// === impl Expected ===

impl Expected {
    /// Whether a server is the one that is called.
    ///
    /// # Errors
    /// [`IdentityError::Role`], [`IdentityError::Region`] or [`IdentityError::Node`].
    pub fn check(&self, peer: &PeerIdentity) -> Result<(), IdentityError> {
        if self.role != peer.role {
            return Err(IdentityError::Role);
        }
        if !same(self.region.as_ref(), &peer.region) {
            return Err(IdentityError::Region);
        }
        same(self.node_id.as_ref(), &peer.node_id).then_some(()).ok_or(IdentityError::Node)
    }
}

fn same(wanted: Option<&String>, is: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == is)
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    (1..=PART_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_region_role_and_node() {
        let identity: PeerIdentity = "spiffe://flydex/eu-1/machines/node-7".parse().unwrap();
        assert_eq!(
            (identity.region.as_str(), identity.role, identity.node_id.as_str()),
            ("eu-1", Role::Machines, "node-7")
        );
        assert_eq!(identity.to_string(), "spiffe://flydex/eu-1/machines/node-7");
    }

    #[test]
    fn a_uri_of_another_form_names_nobody() {
        let long = format!("spiffe://flydex/eu/machines/{}", "n".repeat(65));
        for uri in [
            "https://flydex/eu/machines/n",
            "spiffe://elsewhere/eu/machines/n",
            "spiffe://flydex/eu/machines",
            "spiffe://flydex/eu/machines/n/more",
            "spiffe://flydex/eu/owner/n",
            "spiffe://flydex//machines/n",
            "spiffe://flydex/EU/machines/n",
            "spiffe://flydex/eu/machines/",
            "spiffe://flydex/eu/machines/n%2f",
            &long,
        ] {
            assert_eq!(uri.parse::<PeerIdentity>(), Err(IdentityError::Unnamed), "{uri}");
        }
    }
}
