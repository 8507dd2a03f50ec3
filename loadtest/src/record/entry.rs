//! One line of a history.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::epoch::Epoch;
use flydex_domain::id::{ApprovalId, CommandHash, CommandId, DeviceId, Generation, MachineId, SessionId};
use flydex_domain::invariant::{Question, Word};
use flydex_domain::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// One line of a history.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Microseconds since the run began.
    #[serde(rename = "t")]
    pub at_us: u64,
    /// At or about which machine.
    #[serde(rename = "m")]
    pub machine_id: MachineId,
    /// What.
    #[serde(rename = "e")]
    pub entry: Entry,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// A device sent a command for the first time.
    Asked {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
        /// Its kind.
        kind: String,
        /// It acts, and is not only read.
        effect: bool,
        /// When it was to be sent, in microseconds since the run began.
        intended_us: u64,
    },
    /// A device was told of a command in the machine's name.
    Told {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
        /// It acts, and is not only read.
        effect: bool,
        /// What.
        word: TheWord,
    },
    /// A device was told by the relay that a command did not get through. Never final.
    Failed {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// Why.
        code: String,
    },
    /// A command is on the machine's disk.
    Journalled {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
    },
    /// A command took effect.
    Acted {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
        /// The highest epoch that the connector had attached to.
        epoch: Epoch,
    },
    /// A command took effect that no device asked for.
    Invented {
        /// Which.
        id: CommandId,
    },
    /// A device was shown an approval, and signed an answer to it.
    Answers {
        /// Whose.
        device: DeviceId,
        /// With which command.
        id: CommandId,
        /// What is asked.
        question: TheQuestion,
        /// What it was shown of it.
        approval: ApprovalId,
        /// Its answer.
        decision: String,
        /// The digest that it signed.
        digest: Digest,
    },
    /// The audit record of an accept is durable.
    Audited {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
        /// Where.
        at: AuditedAt,
    },
    /// A remote accept took effect.
    Accepted {
        /// Whose.
        device: DeviceId,
        /// Which.
        id: CommandId,
        /// What exactly.
        hash: CommandHash,
        /// What was asked.
        question: TheQuestion,
        /// The digest that the device signed.
        rendered: Digest,
        /// The digest of what happened.
        happened: Digest,
        /// The life of Codex that the device answered.
        answered: Generation,
        /// When the machine began it, by its own clock.
        at_ms: UnixMillis,
        /// The end of the approval that the device answered.
        expires_at_ms: UnixMillis,
    },
    /// A question ended otherwise: declined, answered at the desk, or taken back.
    Closed {
        /// Which.
        question: TheQuestion,
    },
    /// An answer took effect that no device gave.
    NobodysAnswer {
        /// To what.
        question: TheQuestion,
    },
    /// The connector made an epoch durable.
    Attached {
        /// Which.
        epoch: Epoch,
    },
    /// A session begins a stream after this number.
    Watches {
        /// Which session.
        session: SessionId,
        /// Which stream.
        stream: u32,
        /// The number.
        after: u64,
        /// The number up to which the device had seen the stream, when it was told that it resumes there.
        resumed: Option<u64>,
    },
    /// An event reached a session.
    Seen {
        /// Which session.
        session: SessionId,
        /// Which stream.
        stream: u32,
        /// Its number.
        seq: u64,
    },
    /// A session was told that a stream ended.
    Ended {
        /// Which session.
        session: SessionId,
        /// Which stream.
        stream: u32,
    },
}

/// [`Word`] as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TheWord {
    /// The machine has it.
    Delivered,
    /// It was done.
    Executed,
    /// It was not and will not be done.
    Refused,
    /// It may or may not have been done.
    Unknown,
}

impl From<TheWord> for Word {
    fn from(word: TheWord) -> Self {
        match word {
            TheWord::Delivered => Self::Delivered,
            TheWord::Executed => Self::Executed,
            TheWord::Refused => Self::Refused,
            TheWord::Unknown => Self::Unknown,
        }
    }
}

/// [`Question`] as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TheQuestion {
    /// The life of Codex that asks.
    #[serde(rename = "g")]
    pub generation: Generation,
    /// Its number in that life.
    #[serde(rename = "n")]
    pub number: u64,
}

impl From<Question> for TheQuestion {
    fn from(Question { generation, number }: Question) -> Self {
        Self { generation, number }
    }
}

impl From<TheQuestion> for Question {
    fn from(TheQuestion { generation, number }: TheQuestion) -> Self {
        Self { generation, number }
    }
}

/// Where an audit record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditedAt {
    /// Control has signed for it.
    Control,
    /// The machine's disk.
    Machine,
}

/// The digest of an approval, written as base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl From<Digest> for String {
    fn from(Digest(bytes): Digest) -> Self {
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a digest is 32 bytes in base64url")
    }
}
