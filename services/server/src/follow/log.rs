//! The log as it is heard: in order, without holes, and begun anew when it is another's.

use flydex_domain::revocation::RevocationEntry;
use flydex_proto::follow::token_keys;
use flydex_proto::v1;
use flydex_proto::v1::followed::Kind;

/// Heartbeats below what is known after which the log is another one: a control process that has not looked for half a
/// second says so once or twice.
const LOWER_HEADS_MAX: u32 = 4;

/// How far the log is known.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The newest number that was applied; 0 when none is known.
    last: u64,
    has_keys: bool,
    lower_heads: u32,
}

/// What a message asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Keys(Vec<(String, [u8; 32])>),
    Apply(RevocationEntry),
    /// Whether the region drains.
    Drain(bool),
    /// Everything that control knew of is known.
    Complete,
    Nothing,
}

/// Why a stream cannot be believed further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Malformed,
    /// A number was left out.
    Gap,
    /// The log is shorter than what is known of it: a database was restored. All of it is read again.
    Rewound,
}

impl Log {
    /// The number to ask after.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Another stream begins; what was said of the head before does not count.
    pub(super) const fn begin_stream(&mut self) {
        self.lower_heads = 0;
    }

    pub(super) fn take(&mut self, message: v1::Followed) -> Result<Step, Broken> {
        match message.kind {
            Some(Kind::Keys(keys)) => {
                let keys = token_keys(keys).map_err(|_| Broken::Malformed)?;
                self.has_keys = true;
                Ok(Step::Keys(keys))
            }
            Some(Kind::Revocation(record)) => {
                self.entry(RevocationEntry::try_from(record).map_err(|_| Broken::Malformed)?)
            }
            Some(Kind::RegionDrain(drain)) => Ok(Step::Drain(drain.drains)),
            Some(Kind::Heartbeat(heartbeat)) => self.heartbeat(heartbeat.head_number),
            // A kind of a later version.
            None => Ok(Step::Nothing),
        }
    }

    fn entry(&mut self, entry: RevocationEntry) -> Result<Step, Broken> {
        if entry.number <= self.last {
            return Ok(Step::Nothing);
        }
        if self.last != 0 && entry.number != self.last + 1 {
            return Err(Broken::Gap);
        }
        self.last = entry.number;
        Ok(Step::Apply(entry))
    }

    fn heartbeat(&mut self, head: u64) -> Result<Step, Broken> {
        if head < self.last {
            self.lower_heads += 1;
            if self.lower_heads < LOWER_HEADS_MAX {
                return Ok(Step::Nothing);
            }
            self.last = 0;
            return Err(Broken::Rewound);
        }
        self.lower_heads = 0;
        if self.last == 0 {
            // Nothing in the log still ends anything.
            self.last = head;
        }
        if head != self.last {
            return Err(Broken::Gap);
        }
        Ok(if self.has_keys { Step::Complete } else { Step::Nothing })
    }
}

#[cfg(test)]
mod tests {
    use flydex_domain::id::{AccountId, UserId};
    use flydex_domain::revocation::Revocation;
    use flydex_domain::time::UnixMillis;
    use flydex_proto::follow::wire_token_keys;

    use super::*;

    fn keys() -> v1::Followed {
        v1::Followed { kind: Some(Kind::Keys(wire_token_keys(&[("k".to_owned(), [1; 32])]))) }
    }

    fn entry(number: u64) -> v1::Followed {
        let revocation = Revocation::User {
            account_id: AccountId::try_from([1; 16].as_slice()).unwrap(),
            user_id: UserId::try_from([2; 16].as_slice()).unwrap(),
        };
        let entry = RevocationEntry { number, at: UnixMillis(1), revocation };
        v1::Followed { kind: Some(Kind::Revocation((&entry).into())) }
    }

    fn heartbeat(head_number: u64) -> v1::Followed {
        v1::Followed { kind: Some(Kind::Heartbeat(v1::Heartbeat { head_number, at_ms: 0 })) }
    }

    fn known(last: u64) -> Log {
        Log { last, has_keys: true, lower_heads: 0 }
    }

    #[test]
    fn the_log_may_begin_anywhere_and_then_goes_on_by_one() {
        let mut log = Log::default();
        assert_eq!(log.take(heartbeat(0)), Ok(Step::Nothing), "without keys nothing is known");
        assert!(matches!(log.take(keys()), Ok(Step::Keys(_))));
        assert!(matches!(log.take(entry(41)), Ok(Step::Apply(_))));
        assert!(matches!(log.take(entry(42)), Ok(Step::Apply(_))));
        assert_eq!(log.take(entry(42)), Ok(Step::Nothing), "it is applied once");
        assert_eq!(log.take(heartbeat(42)), Ok(Step::Complete));
    }

    #[test]
    fn a_number_that_is_left_out_is_asked_for_again() {
        let mut log = known(5);
        assert_eq!(log.take(entry(7)), Err(Broken::Gap));
        assert_eq!(log.last(), 5);
        assert_eq!(log.take(heartbeat(6)), Err(Broken::Gap));
        assert_eq!(log.last(), 5);
    }

    #[test]
    fn an_old_log_without_anything_that_counts_is_known_by_its_head() {
        let mut log = known(0);
        assert_eq!(log.take(heartbeat(57)), Ok(Step::Complete));
        assert_eq!(log.take(entry(59)), Err(Broken::Gap));
    }

    #[test]
    fn a_log_that_stays_shorter_than_what_is_known_is_read_from_its_beginning() {
        let mut log = known(9);
        for _ in 1..LOWER_HEADS_MAX {
            assert_eq!(log.take(heartbeat(8)), Ok(Step::Nothing), "another process may look late");
        }
        assert_eq!(log.take(heartbeat(8)), Err(Broken::Rewound));
        assert_eq!(log.last(), 0);
    }

    #[test]
    fn keys_of_another_length_are_not_taken() {
        let mut log = Log::default();
        let short = v1::TokenKey { key_id: "k".to_owned(), key: vec![1; 31].into() };
        let message = v1::Followed { kind: Some(Kind::Keys(v1::TokenKeys { keys: vec![short] })) };
        assert_eq!(log.take(message), Err(Broken::Malformed));
    }
}
