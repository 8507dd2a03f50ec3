//! Which nodes there are, who owns a machine, and which tickets are spent: a hint that may be lost without harm.
//!
//! The connector is the fence (INV-FENCE): a directory that forgets, lies or goes back in time costs a `stale` answer
//! and another acquire, never a double effect. Therefore nothing here must be durable, and a record may be dropped.
//! The rules are in `flydex_domain::placement`; an implementation keeps the records and applies the rules atomically.
//!
//! **Amnesia.** A directory has a life: a random number that is lost with everything else. A node that renews its
//! lease learns the life and whether its lease was there as it left it; when either is not so, it asserts again what it
//! owns. For [`flydex_domain::limits::LEASE_DEAD_AFTER`] after the start of a life nobody is given a machine that is
//! not on record merely because a session asks for it: its owner may not have spoken yet.

use std::time::Duration;

use flydex_domain::epoch::Epoch;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{Incarnation, TicketId};
pub use flydex_domain::placement::Cause;
use flydex_domain::placement::{Acquisition, LinkPlacement, LinkRecord, Member, NodeRecord, OwnerRecord, Reassertion};
use flydex_domain::scope::MachineKey;
use flydex_domain::time::UnixMillis;
use futures_util::future::BoxFuture;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod in_process;
pub mod redis;

pub use self::in_process::InProcessDirectory;
pub use self::redis::RedisDirectory;

/// Why the directory has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be reached, or does not answer in time.
    #[error("directory is not reachable")]
    Unavailable,
    /// It holds as much as it may.
    #[error("directory is full")]
    Full,
    /// A record was written by a FlyDex of another format.
    #[error("directory holds a record of another format")]
    Format,
    /// A number is higher than any honest history leads to.
    #[error("epoch or counter from the future")]
    FromTheFuture,
}

/// Numbers from here on are from the future: no honest history leads to them, and not every store is exact with them.
const COUNTER_MAX: u64 = 1 << 53;

/// Refuses a number from the future.
const fn exact(number: u64) -> Result<(), DirectoryError> {
    if number < COUNTER_MAX { Ok(()) } else { Err(DirectoryError::FromTheFuture) }
}

impl DirectoryError {
    /// The code that peers are told.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Unavailable | Self::Format => ErrorCode::StoreUnavailable,
            Self::Full => ErrorCode::Overloaded,
            Self::FromTheFuture => ErrorCode::EpochRefused,
        }
    }
}

/// One life of the directory's memory; random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life(pub [u8; 16]);

/// What a node learns when it renews its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The directory's life.
    pub life: Life,
    /// Whether the lease was there as this node left it. If not, the directory has forgotten something.
    pub continuous: bool,
}

/// The nodes that have a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The directory's life.
    pub life: Life,
    /// At most [`flydex_domain::limits::MEMBERS_MAX`], by incarnation.
    pub members: Vec<Member>,
}

/// A node's request for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquire {
    /// The machine.
    pub machine: MachineKey,
    /// The node.
    pub asker: Incarnation,
    /// The epoch must not be below this.
    pub floor: Epoch,
    /// The holder from which the asker was sent to take over, lease or not.
    pub replacing: Option<Incarnation>,
    /// Why it asks.
    pub cause: Cause,
}

/// What became of an [`Acquire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The rule was applied.
    Decided(Acquisition),
    /// The directory has forgotten and waits for owners to assert themselves; ask again after this time.
    Settling(Duration),
}

/// A machine that a node owns, as it asserts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The machine.
    pub machine: MachineKey,
    /// The epoch of the ownership.
    pub epoch: Epoch,
    /// The link that counts, if there is one.
    pub link: Option<LinkRecord>,
}

/// The answer of the directory, some time.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, DirectoryError>>;

/// Nodes, ownerships and spent tickets of one region.
///
/// Every method fails with a [`DirectoryError`]; after [`DirectoryError::Unavailable`] it is not known whether the
/// change was made. Every change may be asked for again.
pub trait Directory: Send + Sync + 'static {
    /// Writes a node's lease anew. `beat` grows by one with each renewal of this node that was answered.
    fn renew(&self, record: NodeRecord, beat: u64) -> Answer<'_, Renewal>;

    /// Ends a lease: the node is gone, and its machines may be taken at once.
    fn leave(&self, node: Incarnation) -> Answer<'_, ()>;

    /// The nodes that have a lease.
    fn members(&self) -> Answer<'_, Members>;

    /// Who owns a machine.
    fn find(&self, machine: MachineKey) -> Answer<'_, Option<OwnerRecord>>;

    /// Asks for a machine; see [`flydex_domain::placement::acquire`].
    fn acquire(&self, acquire: Acquire) -> Answer<'_, Acquired>;

    /// Asserts ownerships, at most [`flydex_domain::limits::REASSERT_BATCH`] at once; one answer for each, in order. See
    /// [`flydex_domain::placement::reassert`].
    fn reassert(&self, holdings: Vec<Holding>) -> Answer<'_, Vec<Reassertion>>;

    /// Ends an ownership if `holder` has it. The epoch stays on record.
    fn release(&self, machine: MachineKey, holder: Incarnation) -> Answer<'_, ()>;

    /// Records the link that counts, if `holder` owns the machine; see [`flydex_domain::placement::set_link`].
    fn set_link(&self, machine: MachineKey, holder: Incarnation, link: LinkRecord) -> Answer<'_, LinkPlacement>;

    /// Spends a ticket: true exactly once for each, and never for an expired one.
    fn spend_ticket(&self, ticket_id: TicketId, expires_at: UnixMillis, now: UnixMillis) -> Answer<'_, bool>;
}
