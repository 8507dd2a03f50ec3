//! One round: values of B at some places, and their twins at the same, and whether the answers differ.
//!
//! Most rounds say many things and wait once for all answers, which costs little for each. Where the answers to all of
//! them differ, or the connection ended under way, each is tried alone, and what then differs twice more from the same
//! beginning is a finding. Some rounds say one thing only, and their answers are timed.

use std::time::Duration;

use anyhow::Context as _;
use flydex_runtime::clock::Clock;
use prost_reflect::Value;

use super::places::{ADDRESSES, Place, Places};
use super::report::Report;
use super::{Operation, World};
use crate::known::Plain;
use crate::observe::Seen;
use crate::session::Session;
use crate::tenant::copy;

/// Swaps in one round.
const COMPANY_MAX: usize = 24;
/// One round in this many is of one swap, to time it.
const ALONE_ONCE_IN: usize = 2;
/// What ends a connection or lasts costs a handshake, and is tried once in this many times.
const COSTLY_ONCE_IN: usize = 16;
/// One frame in this many has an address that is another's whole, and not only in one field.
const ASTRAY_ONCE_IN: usize = 4;
/// How often answers must differ from the same beginning to be told apart.
const CONFIRMATIONS: usize = 2;
/// How far the clock moves with each operation, so that what a session may open comes back.
const STEP: Duration = Duration::from_millis(200);

/// A place, a value of B for it, and the value's twin.
pub(super) struct Swap<'a> {
    place: &'a Place,
    value: Plain,
    twin: Plain,
    signs: bool,
    /// Who it is for where that is another's whole: names of fields, and for each a value and its twin.
    address: Vec<(&'static str, Plain, Plain)>,
}

/// Which of the two is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Theirs,
    Nobodys,
}

/// What came of saying something.
struct Tried {
    /// The answers, or what A saw that is B's.
    seen: Result<Vec<Seen>, String>,
    took: Duration,
    /// Whether the connection ended or the machine moved on: what was said after that was lost.
    ended: bool,
}

impl<'a> Swap<'a> {
    fn operation(&'a self, side: Side) -> Operation<'a> {
        let of = |value: &'a Plain, twin: &'a Plain| if side == Side::Theirs { value } else { twin };
        let address = self.address.iter().map(|(name, value, twin)| (*name, of(value, twin))).collect();
        Operation { place: self.place, value: of(&self.value, &self.twin), signs: self.signs, address }
    }

    fn told(&self) -> String {
        format!("{}: {:?} or {:?}", self.place, self.value, self.twin)
    }
}

impl World {
    /// Tries something. What was found goes into the report.
    pub(super) async fn round(&mut self, places: &Places, report: &mut Report) -> anyhow::Result<()> {
        let Some(first) = self.draw(places, None) else { return Ok(()) };
        let mut swaps = vec![first];
        if !self.is_alone(swaps[0].place) && !self.chance.once_in(ALONE_ONCE_IN) {
            for _ in 1..COMPANY_MAX {
                swaps.extend(self.draw(places, Some(swaps[0].place)));
            }
        }
        let [swap] = swaps.as_slice() else { return self.together(&swaps, report).await };
        self.alone(swap, report).await
    }

    fn draw<'a>(&mut self, places: &'a Places, beside: Option<&Place>) -> Option<Swap<'a>> {
        let place = match beside {
            None => {
                let place = places.draw(&mut self.chance)?;
                let sayable = place.root() != "NodeFrame" || self.doctored.is_some();
                if !sayable || (self.is_costly(place) && !self.chance.once_in(COSTLY_ONCE_IN)) {
                    return None;
                }
                place
            }
            Some(beside) => {
                let company = places.company(beside);
                // Most do not end anything.
                let chosen = (0..4).find_map(|_| {
                    let index = *self.chance.one_of(company)?;
                    places.all.get(index).filter(|place| !self.ends.contains(&place.index))
                });
                chosen?
            }
        };
        self.swap(place, None)
    }

    /// A swap at a place: of a value of B that is drawn, or of the one that is known by that name.
    fn swap<'a>(&mut self, place: &'a Place, name: Option<&(String, usize)>) -> Option<Swap<'a>> {
        let (value, twin) = if let Some(both) = self.proof_for(place) {
            both
        } else {
            let value = match name {
                Some((name, index)) => self.b.tenant.known.all(name).into_iter().nth(*index)?,
                None => self.value_for(place)?,
            };
            let twin = self.twins.of(&value);
            (value, twin)
        };
        // Who holds B's token may open what is B's: a gateway that was shown it does so for B.
        let astray = place.is_addressed() && !place.is_token() && self.chance.once_in(ASTRAY_ONCE_IN);
        let address = if astray { self.address() } else { Vec::new() };
        Some(Swap { place, value, twin, signs: !self.chance.once_in(4), address })
    }

    /// B's whole address, and its twin.
    fn address(&mut self) -> Vec<(&'static str, Plain, Plain)> {
        let mut address = Vec::new();
        for name in ADDRESSES {
            if let Some(value) = self.b.tenant.known.all(name).into_iter().next() {
                let twin = self.twins.of(&value);
                address.push((name, value, twin));
            }
        }
        address
    }

    /// Whether something is said without others beside it.
    fn is_alone(&self, place: &Place) -> bool {
        place.is_lonely() || self.ends.contains(&place.index)
    }

    fn is_costly(&self, place: &Place) -> bool {
        place.lasts() || place.opens() || self.ends.contains(&place.index)
    }

    /// Tries many swaps at once.
    async fn together(&mut self, swaps: &[Swap<'_>], report: &mut Report) -> anyhow::Result<()> {
        let tell = || swaps.iter().map(Swap::told).collect::<Vec<_>>().join("\n  ");
        let [of_values, of_twins] = self.both(swaps).await.with_context(tell)?;
        for swap in swaps {
            report.count(swap.place.surface, 2);
        }
        let names = swaps.iter().all(|swap| swap.place.names());
        let alike = !names || of_values.seen == of_twins.seen;
        let leaked = of_values.seen.is_err() || of_twins.seen.is_err();
        if alike && !leaked && !of_values.ended && !of_twins.ended {
            return Ok(());
        }
        let before = report.findings.len();
        for swap in swaps {
            self.alone(swap, report).await?;
        }
        if let Some(Err(leak)) = [of_values.seen, of_twins.seen].into_iter().find(Result::is_err)
            && report.findings.len() == before
        {
            let finding = self.finding(&format!("A saw {leak} of B, and only once, after one of\n  {}", tell()));
            report.find(None, finding);
        }
        Ok(())
    }

    /// Tries one swap.
    async fn alone(&mut self, swap: &Swap<'_>, report: &mut Report) -> anyhow::Result<()> {
        let place = swap.place;
        let tried = self.both(std::slice::from_ref(swap)).await;
        let [of_value, of_twin] = tried.with_context(|| swap.told())?;
        report.count(place.surface, 2);
        if of_value.ended || of_twin.ended {
            self.ends.insert(place.index);
        }
        if let Some(Err(leak)) = [&of_value.seen, &of_twin.seen].into_iter().find(|seen| seen.is_err()) {
            let finding = self.finding(&format!("{place}: A saw {leak} of B"));
            report.find(Some(place.surface), finding);
            return Ok(());
        }
        if place.names() {
            report.time(place.surface, of_value.took, of_twin.took);
        }
        if place.lasts() {
            self.refresh(place).await?;
        }
        if place.names()
            && of_value.seen != of_twin.seen
            && let Some(differs) = self.differs(swap).await?
        {
            let finding = self.finding(&differs);
            report.find(Some(place.surface), finding);
        }
        Ok(())
    }

    /// Says all of them with the values and all with the twins. Which come first is drawn, so that load falls on both.
    async fn both(&mut self, swaps: &[Swap<'_>]) -> anyhow::Result<[Tried; 2]> {
        let operations = |side| swaps.iter().map(|swap| swap.operation(side)).collect::<Vec<_>>();
        if self.chance.once_in(2) {
            let of_values = self.say_all(&operations(Side::Theirs)).await?;
            return Ok([of_values, self.say_all(&operations(Side::Nobodys)).await?]);
        }
        let of_twins = self.say_all(&operations(Side::Nobodys)).await?;
        Ok([self.say_all(&operations(Side::Theirs)).await?, of_twins])
    }

    /// Whether answers that differed still do between two accounts that have said nothing yet: what A said earlier may
    /// have been the reason, since its machine remembers it.
    async fn differs(&mut self, swap: &Swap<'_>) -> anyhow::Result<Option<String>> {
        let place = swap.place;
        let name = self.b.tenant.known.place_of(&swap.value);
        let mut last = None;
        for _ in 0..CONFIRMATIONS {
            let fresh = Self::start(&mut self.chance, self.doctored.is_some(), self.fault);
            let mut fresh = Box::pin(fresh).await.context("start a relay")?;
            let Some(mut again) = fresh.swap(place, name.as_ref()) else { return Ok(None) };
            again.signs = swap.signs;
            again.address = if swap.address.is_empty() { Vec::new() } else { fresh.address() };
            fresh.refresh(place).await?;
            let of_value = fresh.say_all(&[again.operation(Side::Theirs)]).await?.seen;
            fresh.refresh(place).await?;
            let of_twin = fresh.say_all(&[again.operation(Side::Nobodys)]).await?.seen;
            fresh.stand.stop().await;
            if of_value == of_twin {
                return Ok(None);
            }
            last = Some(format!("{of_value:?}\n  {of_twin:?}"));
        }
        Ok(last.map(|last| format!("{place}: answers tell what exists\n  {last}")))
    }

    /// Opens anew what A speaks on.
    async fn refresh(&mut self, place: &Place) -> anyhow::Result<()> {
        match place.root() {
            _ if place.opens() => Ok(()),
            "SessionUp" => self.renew_session().await,
            "LinkUp" | "NodeFrame" | "RevocationRecord" => self.renew_link().await,
            _ => self.renew_gateway().await,
        }
    }

    /// A value of B for a place: one of the same name, rarely another that looks like it.
    fn value_for(&mut self, place: &Place) -> Option<Plain> {
        let theirs = self.b.tenant.known.all(place.name());
        let ours = self.a.tenant.known.all(place.name());
        let mut choice: Vec<Plain> = theirs.iter().filter(|value| !ours.contains(value)).cloned().collect();
        if choice.is_empty() || (self.chance.once_in(16) && !place.is_token()) {
            let like = ours.first().or(theirs.first());
            let like = like.map_or(Plain::Bytes(copy(&[0; 16])), Clone::clone);
            let ours: Vec<Plain> = self.a.tenant.known.every().collect();
            let others = self.b.tenant.known.every().filter(|value| value.is_like(&like) && !ours.contains(value));
            choice.extend(others);
        }
        let fits = |value: &Plain| Value::from(value.clone()).is_valid(&place.kind());
        choice.retain(fits);
        self.chance.one_of(&choice).cloned()
    }

    /// Says things one after another on one connection, and says what came of it and how long that took; or what A saw
    /// that is B's.
    async fn say_all(&mut self, operations: &[Operation<'_>]) -> anyhow::Result<Tried> {
        self.stand.clock.advance(STEP * u32::try_from(operations.len()).unwrap_or(1));
        let Some(first) = operations.first() else { anyhow::bail!("nothing to say") };
        let messages = self.messages(operations)?;
        let clock = Clock::system();
        let began = clock.instant();
        let (frames, mut seen) = match first.place.root() {
            _ if first.place.opens() => self.by_opening(first).await?,
            "SessionUp" => self.by_session(messages).await?,
            "LinkUp" => self.by_link(operations, messages).await?,
            "NodeFrame" => self.by_node(messages).await?,
            "RevocationRecord" => self.by_control(messages).await?,
            _ => self.by_gateway(operations, messages).await?,
        };
        let took = clock.instant().saturating_duration_since(began);
        let ended = !seen.is_empty();
        let put: Vec<&[u8]> = operations.iter().flat_map(Operation::put).collect();
        let mut frames_seen = Vec::with_capacity(frames.len());
        for (descriptor, frame) in frames {
            if let Some(leak) = self.of_b.find(&frame, &put) {
                return Ok(Tried { seen: Err(self.name_of(leak)), took, ended });
            }
            frames_seen.push(Seen::of(&descriptor, frame)?);
        }
        // What comes beside an end races with it.
        if !ended {
            seen = frames_seen;
        }
        // Lanes have no order between them.
        seen.sort();
        Ok(Tried { seen: Ok(seen), took, ended })
    }

    /// Another session in place of the one that ended.
    pub(super) async fn renew_session(&mut self) -> anyhow::Result<()> {
        self.a.session = Session::ready(&self.stand, &self.a.tenant, &mut self.chance).await?;
        let session_id = self.a.session.session_id.clone();
        for name in ["session_id", "subject_id"] {
            self.a.tenant.known.set(name, Value::Bytes(session_id.clone()));
        }
        Ok(())
    }

    pub(super) fn finding(&self, what: &str) -> String {
        format!("seed {}: {what}", self.seed)
    }
}
