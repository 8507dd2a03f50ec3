//! In which region a machine links, and which is its warm second. Pure: what happened and the time go in.
//!
//! The nearest region wins by the time of a handshake's one round trip. A machine stays where it is until another is
//! nearer by [`REGION_GAIN_MIN`] and by [`REGION_NEARER_PART`], and not before [`REGION_STAY_MIN`]; so no jitter makes
//! it swing. A region that drains or fails is left at once and left alone for a while that grows with each failure;
//! one that came back is measured anew before anybody returns. Where every region is in trouble none is, for then the
//! trouble is on this side. A pinned machine knows no other region than its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{
    REGION_DRAIN_HOLD, REGION_GAIN_MIN, REGION_GO_AWAY_WINDOW, REGION_GO_AWAYS_MAX, REGION_HOLD_MAX, REGION_HOLD_MIN,
    REGION_NEARER_PART, REGION_PROBE_INTERVAL, REGION_RESURVEY_WITHIN, REGION_SAMPLE_KEPT, REGION_SAMPLES_MAX,
    REGION_STAY_MIN, REGION_SURVEY_INTERVAL, REGIONS_MAX,
};

/// The hint of a go-away that says: leave this region, all of it drains.
pub const DRAIN_HINT: &str = "region";

/// Everything that a connector knows of the regions it may link in.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    /// As listed: best first.
    listed: Vec<Region>,
    pin: Option<String>,
    present: Option<Present>,
}

/// Where to link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The region to link in; `None` when none is listed that may be used.
    pub link: Option<&'a str>,
    /// The region to turn to when that one is lost.
    pub second: Option<&'a str>,
}

/// How the link in the present region ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It served for a good while.
    Served,
    /// An owner had attached a moment ago.
    Young,
    /// No owner ever attached: the region takes links and cannot serve them.
    NeverOwned,
}

/// The region of the link, or of the last one.
#[derive(Clone, Debug)]
struct Present {
    name: String,
    since: Instant,
    linked: bool,
}

#[derive(Clone, Debug)]
struct Region {
    name: String,
    samples: VecDeque<Sample>,
    failures: u32,
    held_until: Option<Instant>,
    drains_until: Option<Instant>,
    go_aways: VecDeque<Instant>,
    probe_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    handshake: Duration,
}

impl Regions {
    // === What is known ===

    /// Takes the newest list. What is known of a region that stays is kept; a new one is to be probed at once.
    pub fn list<'n>(&mut self, names: impl IntoIterator<Item = &'n str>, now: Instant) {
        let mut before = std::mem::take(&mut self.listed);
        for name in names.into_iter().take(REGIONS_MAX) {
            if self.listed.iter().any(|region| region.name == name) {
                continue;
            }
            let known = before.iter().position(|region| region.name == name);
            self.listed.push(known.map_or_else(|| Region::new(name, now), |index| before.swap_remove(index)));
        }
    }

    /// Takes the account's pin.
    pub fn pin(&mut self, pin: Option<String>) {
        self.pin = pin;
    }

    /// The account's pin.
    #[must_use]
    pub fn pinned(&self) -> Option<&str> {
        self.pin.as_deref()
    }

    /// Whether a link may be in this region.
    #[must_use]
    pub fn permits(&self, name: &str) -> bool {
        self.pin.as_ref().is_none_or(|pin| pin == name)
    }

    /// How many regions may be chosen from.
    #[must_use]
    pub fn choices(&self) -> usize {
        self.permitted().count()
    }

    /// The region of the link, while there is one.
    #[must_use]
    pub fn present(&self) -> Option<&str> {
        self.present.as_ref().filter(|present| present.linked).map(|present| present.name.as_str())
    }

    /// How long a handshake with a region takes, as far as that is known.
    #[must_use]
    pub fn handshake(&self, name: &str, now: Instant) -> Option<Duration> {
        self.region(name)?.handshake(now)
    }

    /// Whether every region has been tried, with one result or the other.
    #[must_use]
    pub fn is_surveyed(&self, now: Instant) -> bool {
        self.permitted().all(|region| region.handshake(now).is_some() || region.in_trouble(now))
    }

    /// Whether any region has answered.
    #[must_use]
    pub fn is_measured(&self, now: Instant) -> bool {
        self.permitted().any(|region| region.handshake(now).is_some())
    }

    // === What to do ===

    /// The region to link in and the one to turn to.
    #[must_use]
    pub fn choose(&self, now: Instant) -> Choice<'_> {
        let usable: Vec<_> = self.permitted().filter(|region| !region.in_trouble(now)).collect();
        let all_in_trouble = usable.is_empty();
        let pool = if all_in_trouble { self.permitted().collect() } else { usable };
        let present = self.present.as_ref().and_then(|present| {
            let region = pool.iter().copied().find(|region| region.name == present.name)?;
            Some((region, present))
        });
        let is_present = |region: &Region| present.is_some_and(|(present, _)| present.name == region.name);
        let rank = |region: &&Region| (region.drains(now), all_in_trouble && !is_present(region), region.rank(now));
        let nearest = pool.iter().copied().min_by_key(rank);
        let link = match (nearest, present) {
            // A link that serves is not left for trouble elsewhere.
            (Some(_), Some((region, present))) if all_in_trouble && present.linked => Some(region),
            (Some(nearest), Some((region, present))) if !all_in_trouble => {
                let stayed = now.saturating_duration_since(present.since) >= REGION_STAY_MIN;
                Some(if stayed && nearest.is_nearer_than(region, now) { nearest } else { region })
            }
            (nearest, _) => nearest,
        };
        let others = pool.into_iter().filter(|region| link.is_none_or(|link| link.name != region.name));
        let second = others.min_by_key(rank);
        Choice { link: link.map(|region| region.name.as_str()), second: second.map(|region| region.name.as_str()) }
    }

    /// The region to probe next, and when. One that has no alternative needs no probe.
    #[must_use]
    pub fn next_probe(&self) -> Option<(&str, Instant)> {
        if self.choices() < 2 {
            return None;
        }
        let next = self.permitted().min_by_key(|region| region.probe_at)?;
        Some((&next.name, next.probe_at))
    }

    /// The regions that are to be probed by now.
    pub fn probes_due(&self, now: Instant) -> impl Iterator<Item = &str> {
        let several = self.choices() >= 2;
        self.permitted().filter(move |region| several && region.probe_at <= now).map(|region| region.name.as_str())
    }

    // === What happened ===

    /// A probe ended, with the time of its handshake when it succeeded. `jitter` spreads the next one over the fleet.
    pub fn probed(&mut self, name: &str, handshake: Option<Duration>, jitter: u8, now: Instant) {
        // A link that serves proves more than a handshake that failed.
        let serves = self.present() == Some(name);
        if let Some(region) = self.region_mut(name) {
            match handshake {
                Some(handshake) => region.measured(handshake, now),
                None if serves => {}
                None => return region.failed(jitter, now),
            }
        }
        let wait = self.probe_wait(name, now);
        if let Some(region) = self.region_mut(name) {
            region.probe_at = now + wait / 2 + spread(wait, jitter);
        }
    }

    /// A link's own handshake took this long.
    pub fn measured(&mut self, name: &str, handshake: Duration, now: Instant) {
        if let Some(region) = self.region_mut(name) {
            region.measured(handshake, now);
        }
    }

    /// A link is open in this region.
    pub fn linked(&mut self, name: &str, now: Instant) {
        let since = match &self.present {
            Some(present) if present.name == name => present.since,
            Some(_) | None => now,
        };
        self.present = Some(Present { name: name.to_owned(), since, linked: true });
        if let Some(region) = self.region_mut(name) {
            region.held_until = None;
        }
    }

    /// The link was lost. Everything is measured again soon, spread by `jitter`.
    pub fn lost(&mut self, name: &str, lost: Lost, jitter: u8, now: Instant) {
        if let Some(present) = self.present.as_mut().filter(|present| present.name == name) {
            present.linked = false;
        }
        let soon = now + spread(REGION_RESURVEY_WITHIN, jitter);
        for region in self.listed.iter_mut().filter(|region| !region.in_trouble(now)) {
            region.probe_at = region.probe_at.min(soon);
        }
        let Some(region) = self.region_mut(name) else { return };
        match lost {
            Lost::Served => region.failures = 0,
            Lost::Young => {}
            Lost::NeverOwned => region.failed(jitter, now),
        }
    }

    /// No link could be opened in this region, and the region is to blame.
    pub fn failed(&mut self, name: &str, jitter: u8, now: Instant) {
        if let Some(region) = self.region_mut(name) {
            region.failed(jitter, now);
        }
    }

    /// The second was there first: what is known of this one is too good to be true.
    pub fn outrun(&mut self, name: &str, now: Instant) {
        if let Some(region) = self.region_mut(name) {
            region.samples.clear();
            region.probe_at = region.probe_at.min(now + REGION_RESURVEY_WITHIN);
        }
    }

    /// A gateway of this region told the machine to go, perhaps with [`DRAIN_HINT`].
    pub fn told_to_go(&mut self, name: &str, hint: &str, now: Instant) {
        let Some(region) = self.region_mut(name) else { return };
        region.go_aways.retain(|at| now.saturating_duration_since(*at) < REGION_GO_AWAY_WINDOW);
        region.go_aways.push_back(now);
        if hint == DRAIN_HINT || region.go_aways.len() > REGION_GO_AWAYS_MAX {
            region.go_aways.clear();
            region.drains_until = Some(now + REGION_DRAIN_HOLD);
        }
    }

    fn permitted(&self) -> impl Iterator<Item = &Region> {
        self.listed.iter().filter(|region| self.permits(&region.name))
    }

    fn region(&self, name: &str) -> Option<&Region> {
        self.listed.iter().find(|region| region.name == name)
    }

    fn region_mut(&mut self, name: &str) -> Option<&mut Region> {
        self.listed.iter_mut().find(|region| region.name == name)
    }

    fn probe_wait(&self, name: &str, now: Instant) -> Duration {
        let Choice { link, second } = self.choose(now);
        let near = link == Some(name) || second == Some(name) || self.handshake(name, now).is_none();
        if near { REGION_PROBE_INTERVAL } else { REGION_SURVEY_INTERVAL }
    }
}

impl Region {
    fn new(name: &str, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            samples: VecDeque::new(),
            failures: 0,
            held_until: None,
            drains_until: None,
            go_aways: VecDeque::new(),
            probe_at: now,
        }
    }

    /// The shortest handshake of late.
    fn handshake(&self, now: Instant) -> Option<Duration> {
        let fresh = self.samples.iter().filter(|sample| now.saturating_duration_since(sample.at) < REGION_SAMPLE_KEPT);
        fresh.map(|sample| sample.handshake).min()
    }

    /// The nearest first; what is not measured comes last, in the order of the list.
    fn rank(&self, now: Instant) -> Duration {
        self.handshake(now).unwrap_or(Duration::MAX)
    }

    fn is_nearer_than(&self, present: &Self, now: Instant) -> bool {
        let (Some(here), Some(there)) = (present.handshake(now), self.handshake(now)) else { return false };
        let (part, of) = REGION_NEARER_PART;
        here.saturating_sub(there) >= REGION_GAIN_MIN && there * of <= here * part
    }

    fn drains(&self, now: Instant) -> bool {
        self.drains_until.is_some_and(|until| now < until)
    }

    fn in_trouble(&self, now: Instant) -> bool {
        self.drains(now) || self.held_until.is_some_and(|until| now < until)
    }

    fn measured(&mut self, handshake: Duration, now: Instant) {
        while self.samples.len() >= REGION_SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at: now, handshake });
    }

    /// Left alone for a while; then it is measured anew, not by the whole fleet at once.
    fn failed(&mut self, jitter: u8, now: Instant) {
        let hold = REGION_HOLD_MIN.saturating_mul(1 << self.failures.min(16)).min(REGION_HOLD_MAX);
        self.failures = self.failures.saturating_add(1);
        self.held_until = Some(now + hold);
        self.samples.clear();
        self.probe_at = now + hold + spread(REGION_PROBE_INTERVAL, jitter);
    }
}

/// A part of `most`, so that a fleet does not do something all at once.
fn spread(most: Duration, jitter: u8) -> Duration {
    most.mul_f64(f64::from(jitter) / 256.0)
}

#[cfg(test)]
mod tests;
