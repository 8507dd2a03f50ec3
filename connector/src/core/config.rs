//! What the core is given: who the machine is, its files, and what it shares with the desk.

use std::io;
use std::path::Path;
use std::time::Duration;

use flydex_domain::id::BootId;
use flydex_domain::limits::APPROVAL_LIFETIME;
use tokio::sync::{mpsc, watch as channel};

use crate::epoch::Fence;
use crate::paired::{
    CoreStatus, DEVICES_FILE, DeskRequest, Entropy, FENCE_FILE, JOURNAL_FILE, PairedState, RegionReport,
};
use crate::spool::Spool;
use crate::storage::{FileStorage, Storage};

/// What the core is given.
pub struct CoreConfig {
    /// Who this machine is, and what it trusts.
    pub paired: PairedState,
    /// This life of the connector; random.
    pub boot_id: BootId,
    /// This connector's version.
    pub connector_version: String,
    /// Where random bytes come from.
    pub entropy: Entropy,
    /// The command journal.
    pub journal: Box<dyn Storage>,
    /// The device list.
    pub devices: Box<dyn Storage>,
    /// The highest epoch and the count of links.
    pub fence: Fence,
    /// Audit records on their way to control.
    pub spool: Spool,
    /// How long an approval waits for a remote answer before it is renewed under another id.
    pub approval_lifetime: Duration,
    /// What the desk asks.
    pub desk: mpsc::Receiver<DeskRequest>,
    /// What the desk sees.
    pub status: channel::Sender<Option<CoreStatus>>,
    /// Where links say in which region they are.
    pub region_report: channel::Sender<RegionReport>,
}

impl CoreConfig {
    /// A core on the files of a state folder; what it shares with the desk is given.
    ///
    /// # Errors
    /// When the fence cannot be read, or is not what was written.
    pub fn in_folder(
        folder: &Path,
        paired: PairedState,
        spool: Spool,
        desk: mpsc::Receiver<DeskRequest>,
        status: channel::Sender<Option<CoreStatus>>,
        entropy: Entropy,
    ) -> io::Result<Self> {
        let file = |name: &str| Box::new(FileStorage::new(folder.join(name)));
        Ok(Self {
            paired,
            boot_id: BootId::from_bytes(entropy.bytes()),
            connector_version: env!("CARGO_PKG_VERSION").to_owned(),
            entropy,
            journal: file(JOURNAL_FILE),
            devices: file(DEVICES_FILE),
            fence: Fence::open(file(FENCE_FILE))?,
            spool,
            approval_lifetime: APPROVAL_LIFETIME,
            desk,
            status,
            region_report: channel::Sender::new(RegionReport::default()),
        })
    }
}
