//! A client of QUIC that keeps to no more of a link than a test wants.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use flydex_proto::codec::SUBPROTOCOL;
use flydex_runtime::tls;
use flydex_tests::wait;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connecting, Connection, ConnectionError, Endpoint};
use reqwest::Method;

use super::address;
use crate::attacks::stand::Relay;

/// A socket from which links are dialled.
pub(super) struct Links {
    endpoint: Endpoint,
    address: SocketAddr,
    server_name: String,
}

impl Links {
    /// To the relay itself.
    pub(super) async fn of(relay: &Relay) -> anyhow::Result<Self> {
        Self::through(relay, address(relay)?.parse()?).await
    }

    /// To the relay, by an address that leads there.
    pub(super) async fn through(relay: &Relay, address: SocketAddr) -> anyhow::Result<Self> {
        let (_, list) = relay.account.call(Method::GET, "/api/regions", None).await?;
        let region = &list["regions"][0];
        let server_name = region["quic"]["server_name"].as_str().context("no QUIC")?.to_owned();
        let config = tls::client_config(region["certificate_pem"].as_str(), &[SUBPROTOCOL.as_bytes()])?;
        let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?)));
        Ok(Self { endpoint, address, server_name })
    }

    /// Says the first word of a connection, and waits for none.
    pub(super) fn begin(&self) -> anyhow::Result<Connecting> {
        Ok(self.endpoint.connect(self.address, &self.server_name)?)
    }

    /// A connection on which nothing was said.
    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        Ok(wait::within("a QUIC handshake", self.begin()?).await??)
    }

    /// The code with which the relay closes it.
    pub(super) async fn close_code(connection: &Connection) -> anyhow::Result<u16> {
        let ended = wait::within("the relay to close a link", connection.closed()).await?;
        let ConnectionError::ApplicationClosed(close) = ended else { bail!("it ended otherwise: {ended}") };
        Ok(u16::try_from(close.error_code.into_inner())?)
    }
}
