//! A network of its own for one node, joined to this computer's by one cable that can be pulled.

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// A network namespace with one address; it goes when it is dropped. Only root can make one.
pub struct Island {
    name: String,
    address: String,
    mainland: String,
}

impl Island {
    /// Makes it.
    ///
    /// # Errors
    /// When `ip` is missing, or this is not root.
    pub async fn rise() -> anyhow::Result<Self> {
        let number = std::process::id();
        let name = format!("fx{number}");
        // Private addresses that nobody else on this computer is likely to have.
        let network = format!("10.77.{}", number % 250);
        let island = Self { name, address: format!("{network}.2"), mainland: format!("{network}.1") };
        let Self { name, address, mainland } = &island;
        let near = format!("{name}a");
        ip(&["netns", "add", name]).await?;
        ip(&["link", "add", &near, "type", "veth", "peer", "name", CABLE, "netns", name]).await?;
        ip(&["address", "add", &format!("{mainland}/30"), "dev", &near]).await?;
        ip(&["link", "set", &near, "up"]).await?;
        ip(&["-n", name, "address", "add", &format!("{address}/30"), "dev", CABLE]).await?;
        ip(&["-n", name, "link", "set", CABLE, "up"]).await?;
        Ok(island)
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where what lives there is reached.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where everything else is reached from there.
    #[must_use]
    pub fn mainland(&self) -> &str {
        &self.mainland
    }

    /// Pulls the cable, or puts it back: what is sent meanwhile is lost, and nobody is told.
    ///
    /// # Errors
    /// When `ip` fails.
    pub async fn cut(&self, cut: bool) -> anyhow::Result<()> {
        ip(&["-n", &self.name, "link", "set", CABLE, if cut { "down" } else { "up" }]).await
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        // The cable goes with one of its ends.
        let _ = std::process::Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// The island's end of the cable.
const CABLE: &str = "cable";

async fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).output().await.context("run ip (Debian package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", words.join(" "), said.trim());
    Ok(())
}
