//! What a device and a machine sign to open a session and a link. Both sides build the same transcript here.

use crate::encoding::{Label, Transcript, sha256};
use crate::id::BootId;

/// What a device signs to open a session: this ticket, at this gateway, from a page of this origin.
#[must_use]
pub fn session(nonce: &[u8; 32], ticket: &str, gateway_id: &str, origin: &str) -> Transcript {
    Transcript::new(Label::SessionProof).bytes(nonce).bytes(&sha256(ticket.as_bytes())).text(gateway_id).text(origin)
}

/// What a machine signs to open a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkProof<'a> {
    /// The gateway's fresh random bytes.
    pub nonce: &'a [u8; 32],
    /// The host name that the connector dialled: lower case, without port (see [`host_of`]).
    pub host: &'a str,
    /// The gateway's name, from its challenge.
    pub gateway_id: &'a str,
    /// The connector's life.
    pub boot_id: BootId,
    /// The connector's count of links.
    pub link_counter: u64,
    /// 32 bytes of the TLS exporter; absent where TLS does not reach from end to end.
    pub exporter: Option<&'a [u8; 32]>,
}

impl LinkProof<'_> {
    /// The bytes to sign.
    #[must_use]
    pub fn transcript(&self) -> Transcript {
        Transcript::new(Label::LinkProof)
            .bytes(self.nonce)
            .text(self.host)
            .text(self.gateway_id)
            .bytes(self.boot_id.as_bytes())
            .integer(self.link_counter)
            .optional(self.exporter.map(<[u8; 32]>::as_slice))
    }
}

/// The host name inside `https://Host:port/path`: lower case, without port; an IPv6 address keeps its brackets.
#[must_use]
pub fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_has_no_scheme_port_or_path() {
        for (url, host) in [
            ("https://FlyDex.Example", "flydex.example"),
            ("wss://flydex.example:8443/v1/link", "flydex.example"),
            ("http://127.0.0.1:8080", "127.0.0.1"),
            ("https://[::1]:8443/v1/link", "[::1]"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }

    #[test]
    fn every_field_of_a_link_proof_counts() {
        let nonce = [1; 32];
        let exporter = [2; 32];
        let boot_id = BootId::from_bytes([3; 16]);
        let proof = LinkProof {
            nonce: &nonce,
            host: "a",
            gateway_id: "g",
            boot_id,
            link_counter: 1,
            exporter: Some(&exporter),
        };
        let others = [
            LinkProof { nonce: &[0; 32], ..proof },
            LinkProof { host: "b", ..proof },
            LinkProof { gateway_id: "h", ..proof },
            LinkProof { boot_id: BootId::from_bytes([0; 16]), ..proof },
            LinkProof { link_counter: 2, ..proof },
            LinkProof { exporter: Some(&nonce), ..proof },
            LinkProof { exporter: None, ..proof },
        ];
        for other in others {
            assert_ne!(proof.transcript().sha256(), other.transcript().sha256());
        }
    }
}
