//! In which region a connector is, as it says itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pair::printable;
use crate::paired::{MeasuredRegion, RegionReport};

/// In which region the machine is, and where it would turn to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// The region of the link, or the one in which it is being opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Distance>,
    /// The region to turn to when that one is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Distance>,
    /// The only region that the account allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// A region and how far away it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distance {
    /// Its name.
    pub region: String,
    /// One round trip of a handshake, in milliseconds; absent until it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_ms: Option<u64>,
}

impl RegionStatus {
    /// What the links report.
    #[must_use]
    pub fn of(report: &RegionReport) -> Self {
        Self {
            link: report.link.as_ref().map(Distance::of),
            second: report.second.as_ref().map(Distance::of),
            pin: report.pin.clone(),
        }
    }

    /// In a person's words; `None` before anything is known.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let pin = self.pin.as_deref().map(printable);
        let parts = [
            self.link.as_ref().map(Distance::words),
            self.second.as_ref().map(|second| format!("second {}", second.words())),
            pin.as_ref().map(|pin| format!("pinned to {pin}")),
            pin.filter(|_| self.link.is_none()).map(|_| "which the server does not list".to_owned()),
        ];
        let said: Vec<_> = parts.into_iter().flatten().collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.link.is_none() && self.second.is_none() && self.pin.is_none()
    }
}

impl Distance {
    /// A region after one handshake, or before any.
    #[must_use]
    pub fn new(region: &str, handshake: Option<Duration>) -> Self {
        let millis = |handshake: Duration| u64::try_from(handshake.as_millis()).unwrap_or(u64::MAX);
        Self { region: region.to_owned(), handshake_ms: handshake.map(millis) }
    }

    fn of(measured: &MeasuredRegion) -> Self {
        Self::new(&measured.region, measured.handshake)
    }

    /// In a person's words.
    #[must_use]
    pub fn words(&self) -> String {
        let region = printable(&self.region);
        match self.handshake_ms {
            Some(0) => format!("{region}, under 1 ms"),
            Some(ms) => format!("{region}, {ms} ms"),
            None => region,
        }
    }
}
