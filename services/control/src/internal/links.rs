//! In which region each machine is linked, as nodes report it. It is kept in the memory of the process that was told:
//! nothing that matters rests on it, and a machine's stored region stands in where nothing is known.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::limits::LINK_REGIONS_MAX;
use flydex_domain::time::UnixMillis;
use flydex_proto::convert::Malformed;
use flydex_proto::v1;

/// The regions of linked machines, up to a bound.
pub(crate) struct Links {
    regions: Mutex<BTreeMap<(AccountId, MachineId), Linked>>,
    max: usize,
}

struct Linked {
    region: String,
    at: UnixMillis,
}

/// One line of a report.
pub(super) struct Line {
    account_id: AccountId,
    machine_id: MachineId,
    linked: bool,
    at: UnixMillis,
}

impl TryFrom<&v1::LinkReport> for Line {
    type Error = Malformed;

    fn try_from(report: &v1::LinkReport) -> Result<Self, Malformed> {
        Ok(Self {
            account_id: AccountId::try_from(report.account_id.as_ref())?,
            machine_id: MachineId::try_from(report.machine_id.as_ref())?,
            linked: report.linked,
            at: UnixMillis(report.at_ms),
        })
    }
}

impl Default for Links {
    fn default() -> Self {
        Self::with_bound(LINK_REGIONS_MAX)
    }
}

impl Links {
    fn with_bound(max: usize) -> Self {
        Self { regions: Mutex::default(), max }
    }

    /// Takes a report of a region. Within a region the later word counts; that a link ended counts only from the region
    /// that has it, for a machine that moved ends its old link last.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`] when there is no room for another machine; the lines before it count.
    pub(super) fn report(&self, region: &str, lines: Vec<Line>) -> Result<(), ErrorCode> {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            let key = (line.account_id, line.machine_id);
            let known = regions.get(&key);
            let here = known.filter(|known| known.region == region);
            if here.is_some_and(|known| known.at > line.at) {
                continue;
            }
            if line.linked {
                if known.is_none() && regions.len() >= self.max {
                    return Err(ErrorCode::Overloaded);
                }
                regions.insert(key, Linked { region: region.to_owned(), at: line.at });
            } else if here.is_some() {
                regions.remove(&key);
            }
        }
        Ok(())
    }

    /// The region that a machine is linked in, as far as this process was told.
    pub(crate) fn region(&self, account_id: AccountId, machine_id: MachineId) -> Option<String> {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.get(&(account_id, machine_id)).map(|known| known.region.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> (AccountId, MachineId) {
        (AccountId::try_from([1; 16].as_slice()).unwrap(), MachineId::try_from([2; 16].as_slice()).unwrap())
    }

    fn line(linked: bool, at: u64) -> Vec<Line> {
        let (account_id, machine_id) = key();
        vec![Line { account_id, machine_id, linked, at: UnixMillis(at) }]
    }

    #[test]
    fn a_machine_that_moved_stays_where_it_went_when_its_old_link_ends() {
        let links = Links::default();
        let (account_id, machine_id) = key();
        links.report("eu", line(true, 1)).unwrap();
        links.report("us", line(true, 2)).unwrap();
        links.report("eu", line(false, 3)).unwrap();
        assert_eq!(links.region(account_id, machine_id).as_deref(), Some("us"));
        links.report("us", line(false, 1)).unwrap();
        assert_eq!(links.region(account_id, machine_id).as_deref(), Some("us"), "an older word of the same region");
        links.report("us", line(false, 4)).unwrap();
        assert_eq!(links.region(account_id, machine_id), None);
    }

    #[test]
    fn a_full_table_says_so_and_still_follows_the_machines_it_knows() {
        let links = Links::with_bound(1);
        let (account_id, machine_id) = key();
        links.report("eu", line(true, 1)).unwrap();
        let other = MachineId::try_from([3; 16].as_slice()).unwrap();
        let another = vec![Line { account_id, machine_id: other, linked: true, at: UnixMillis(2) }];
        assert_eq!(links.report("eu", another), Err(ErrorCode::Overloaded));
        links.report("us", line(true, 2)).unwrap();
        assert_eq!(links.region(account_id, machine_id).as_deref(), Some("us"));
    }
}
