//! Arrivals, drawn before the run begins, and the thread that gives each out when it is due.
//!
//! Nobody waits for an answer before the next arrival, and latency counts from the intended start: a stall of the
//! relay lengthens the answers of all that was due in it (no coordinated omission).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flydex_domain::command::CommandClass;
use flydex_runtime::clock::Clock;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;

use crate::play::Cast;
use crate::scenario::{Arrivals, Mix, Phase, PhaseKind, Scenario};

/// Interval at which the run's own lateness is looked at.
const LAG_INTERVAL: Duration = Duration::from_millis(5);
/// Round trips of the floor in a second.
const FLOOR_PER_SECOND: f64 = 20.0;

/// How many approvals of ten are answered by the phone that was paired with the machine.
const PAIRED_OF_TEN: u32 = 6;

/// What a session asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A page of threads.
    ListThreads,
    /// A page of history.
    ReadThread,
    /// The models.
    ListModels,
    /// A prompt.
    StartTurn,
    /// Another name.
    RenameThread,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// A session asks.
    Session(usize, Ask),
    /// A machine tells.
    Machine(usize),
    /// A machine asks for an approval.
    Approval(usize, Cast),
    /// The floor is measured.
    Floor,
    /// The run's own lateness is measured.
    Lag,
}

/// One thing to be done at one time.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When, since the run began.
    pub at: Duration,
    /// In which phase.
    pub phase: usize,
    /// By whom.
    pub to: To,
    /// The first effect that is asked of its machine after the fault with which the phase begins.
    pub first: bool,
}

/// An arrival that is due.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// When it should begin.
    pub intended: Instant,
    /// In which phase.
    pub phase: usize,
    /// What a session asks; meaningless to others.
    pub ask: Ask,
    /// The approval that a machine asks for; none where it tells an event.
    pub cast: Option<Cast>,
    /// The first effect that is asked of its machine after the fault with which the phase begins.
    pub first: bool,
}

/// Every arrival of a scenario, in order.
#[must_use]
pub fn draw(scenario: &Scenario) -> Vec<Arrival> {
    let mut random = StdRng::seed_from_u64(scenario.seed);
    // Of their own: with them or without, the rest is the same.
    let mut of_approvals = StdRng::seed_from_u64(!scenario.seed);
    let mut arrivals = Vec::new();
    let mut start = Duration::ZERO;
    for (index, phase) in scenario.phases.iter().enumerate() {
        let mut add = |at, to| arrivals.push(Arrival { at: start + at, phase: index, to, first: false });
        for at in times(phase, phase.commands_per_second, &mut random) {
            let mut session = random.random_range(0..scenario.sessions());
            while is_picked(session, scenario.sessions(), phase.unasked()) {
                session = random.random_range(0..scenario.sessions());
            }
            add(at, To::Session(session, pick(&phase.mix, &mut random)));
        }
        for at in times(phase, phase.events_per_second, &mut random) {
            add(at, To::Machine(random.random_range(0..scenario.fleet.machines)));
        }
        for at in times(phase, phase.approvals_per_second, &mut of_approvals) {
            let machine = of_approvals.random_range(0..scenario.fleet.machines);
            add(at, To::Approval(machine, cast(scenario, phase, machine, &mut of_approvals)));
        }
        let steady = Phase { kind: PhaseKind::Steady, arrivals: Arrivals::Even, ..phase.clone() };
        for at in times(&steady, FLOOR_PER_SECOND, &mut random) {
            add(at, To::Floor);
        }
        for at in times(&steady, LAG_INTERVAL.as_secs_f64().recip(), &mut random) {
            add(at, To::Lag);
        }
        start += phase.duration();
    }
    arrivals.sort_by_key(|arrival| arrival.at);
    mark_first(scenario, &mut arrivals);
    arrivals
}

/// A play for the phones of one machine of which something may be asked in the phase.
fn cast(scenario: &Scenario, phase: &Phase, machine: usize, random: &mut StdRng) -> Cast {
    let phones = scenario.fleet.sessions_per_machine;
    let is_asked = |phone: usize| !is_picked(machine * phones + phone, scenario.sessions(), phase.unasked());
    // Control knows the first alone, which was paired; the accepts of the others are recorded at the machine.
    let from = if random.random_range(0..10) < PAIRED_OF_TEN { 0 } else { random.random_range(0..phones) };
    let mut asked = (0..phones).map(|step| (from + step) % phones).filter(|phone| is_asked(*phone));
    let first = asked.next().unwrap_or(from);
    Cast::draw(random, (first, asked.next().unwrap_or(first)))
}

/// So many of them, rounded.
#[must_use]
pub fn share_of(of: usize, part: f64) -> usize {
    // Both are small and not negative.
    (of as f64 * part).round() as usize
}

/// Whether one of `of` belongs to a part that lies evenly among them.
#[must_use]
pub fn is_picked(index: usize, of: usize, part: f64) -> bool {
    (index * share_of(of, part)) % of < share_of(of, part)
}

fn mark_first(scenario: &Scenario, arrivals: &mut [Arrival]) {
    let mut asked = BTreeSet::new();
    for arrival in arrivals {
        let To::Session(session, ask) = arrival.to else { continue };
        if scenario.phases[arrival.phase].kind == PhaseKind::Fault && ask.kind().class() == CommandClass::Effect {
            arrival.first = asked.insert((arrival.phase, session / scenario.fleet.sessions_per_machine));
        }
    }
}

/// Times of one kind of arrival within a phase, in order.
fn times(phase: &Phase, rate: f64, random: &mut StdRng) -> Vec<Duration> {
    let mut times = Vec::new();
    // In a ramp the count up to t is rate * t² / 2T, so that a count of n is reached at √(2Tn / rate).
    let expected = if phase.kind == PhaseKind::Ramp { rate * phase.seconds / 2.0 } else { rate * phase.seconds };
    let mut count = 0.0;
    loop {
        count += match phase.arrivals {
            Arrivals::Poisson => -(1.0 - random.random::<f64>()).ln(),
            Arrivals::Even => 1.0,
        };
        if count > expected {
            return times;
        }
        let share = count / expected;
        let share = if phase.kind == PhaseKind::Ramp { share.sqrt() } else { share };
        times.push(phase.duration().mul_f64(share));
    }
}

fn pick(mix: &Mix, random: &mut StdRng) -> Ask {
    let weights = [
        (Ask::ListThreads, mix.list_threads),
        (Ask::ReadThread, mix.read_thread),
        (Ask::ListModels, mix.list_models),
        (Ask::StartTurn, mix.start_turn),
        (Ask::RenameThread, mix.rename_thread),
    ];
    let mut left = random.random_range(0..mix.total().max(1));
    for (ask, weight) in weights {
        match left.checked_sub(u64::from(weight)) {
            Some(rest) => left = rest,
            None => return ask,
        }
    }
    Ask::ListThreads
}

/// Where arrivals go.
#[derive(Debug)]
pub struct Receivers {
    /// Of each session.
    pub sessions: Vec<mpsc::Sender<Due>>,
    /// Of each machine.
    pub machines: Vec<mpsc::Sender<Due>>,
    /// Of the floor.
    pub floor: mpsc::Sender<Due>,
    /// Of the watcher of lateness.
    pub lag: mpsc::Sender<Due>,
}

/// Gives arrivals out on a thread of its own, since an async timer is a millisecond late by design. Returns how many
/// found no room: their receivers were further behind than any queue should be.
#[must_use]
pub fn give_out(arrivals: &[Arrival], start: Instant, receivers: &Receivers, clock: &Clock) -> u64 {
    let mut dropped = 0;
    for arrival in arrivals {
        let intended = start + arrival.at;
        let wait = intended.saturating_duration_since(clock.instant());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        let mut due = Due { intended, phase: arrival.phase, ask: Ask::ListThreads, cast: None, first: arrival.first };
        let receiver = match arrival.to {
            To::Session(session, ask) => {
                due.ask = ask;
                receivers.sessions.get(session)
            }
            To::Machine(machine) => receivers.machines.get(machine),
            To::Approval(machine, cast) => {
                due.cast = Some(cast);
                receivers.machines.get(machine)
            }
            To::Floor => Some(&receivers.floor),
            To::Lag => Some(&receivers.lag),
        };
        let given = receiver.is_some_and(|receiver| receiver.try_send(due).is_ok());
        dropped += u64::from(!given);
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(phase: &str) -> Scenario {
        let fleet = "name = \"a\"\n[fleet]\naccounts = 1\nmachines = 3\nsessions_per_machine = 2\n";
        Scenario::parse(&format!("{fleet}[[phase]]\nname = \"a\"\nseconds = 10\n{phase}")).unwrap()
    }

    fn commands(arrivals: &[Arrival], from: f64, to: f64) -> usize {
        let within = |arrival: &&Arrival| (from..to).contains(&arrival.at.as_secs_f64());
        let is_command = |arrival: &&Arrival| matches!(arrival.to, To::Session(..));
        arrivals.iter().filter(within).filter(is_command).count()
    }

    #[test]
    fn a_seed_gives_one_schedule_in_order_and_another_seed_another() {
        let mut scenario = scenario("kind = \"steady\"\ncommands_per_second = 100\nevents_per_second = 50");
        let times = |scenario: &Scenario| draw(scenario).iter().map(|arrival| arrival.at).collect::<Vec<_>>();
        let first = times(&scenario);
        assert!(first.is_sorted());
        assert_eq!(first, times(&scenario));
        scenario.seed += 1;
        assert_ne!(first, times(&scenario));
    }

    #[test]
    fn a_part_lies_evenly_and_is_not_asked() {
        let picked: Vec<_> = (0..10).filter(|index| is_picked(*index, 10, 0.3)).collect();
        assert_eq!(picked, [0, 4, 7]);
        assert!((0..10).all(|index| !is_picked(index, 10, 0.0)));
        let phase = "kind = \"fault\"\ncommands_per_second = 100\nslow_sessions = 0.5";
        let arrivals = draw(&scenario(phase));
        let asked = arrivals.iter().filter_map(|arrival| match arrival.to {
            To::Session(session, _) => Some(session),
            To::Machine(_) | To::Approval(..) | To::Floor | To::Lag => None,
        });
        assert_eq!(asked.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), [1, 3, 5]);
    }

    #[test]
    fn the_first_effect_after_a_fault_is_marked_once_for_each_machine() {
        let phase = "kind = \"fault\"\ncommands_per_second = 100\nmix = { list_threads = 1, start_turn = 1 }";
        let first: Vec<_> = draw(&scenario(phase)).into_iter().filter(|arrival| arrival.first).collect();
        assert_eq!(first.len(), 3);
        assert!(first.iter().all(|arrival| matches!(arrival.to, To::Session(_, Ask::StartTurn))), "{first:?}");
        let steady = draw(&scenario("kind = \"steady\"\ncommands_per_second = 100"));
        assert!(steady.iter().all(|arrival| !arrival.first));
    }

    #[test]
    fn approvals_leave_the_rest_of_the_schedule_alone_and_are_played_by_phones_that_are_asked() {
        let phase = "kind = \"fault\"\ncommands_per_second = 50\nevents_per_second = 50\nslow_sessions = 0.5";
        let without = draw(&scenario(phase));
        let with = draw(&scenario(&format!("{phase}\napprovals_per_second = 20")));
        let casts: Vec<_> = with
            .iter()
            .filter_map(|arrival| if let To::Approval(_, cast) = arrival.to { Some(cast) } else { None })
            .collect();
        assert!((100..300).contains(&casts.len()), "{}", casts.len());
        // Of the two phones of a machine the second is asked here.
        assert!(casts.iter().all(|cast| (cast.first, cast.second) == (1, 1)), "{casts:?}");
        let others = with.into_iter().filter(|arrival| !matches!(arrival.to, To::Approval(..)));
        assert!(
            others.map(|arrival| (arrival.at, arrival.to)).eq(without.iter().map(|arrival| (arrival.at, arrival.to)))
        );
    }

    #[test]
    fn a_ramp_rises_evenly_to_its_rate() {
        let arrivals = draw(&scenario("kind = \"ramp\"\narrivals = \"even\"\ncommands_per_second = 100"));
        assert_eq!(commands(&arrivals, 0.0, 10.1), 500);
        assert_eq!(commands(&arrivals, 0.0, 5.01), 125);
        assert_eq!(commands(&arrivals, 9.01, 10.1), 95);
    }

    #[test]
    fn independent_arrivals_have_the_rate_on_average() {
        let arrivals = draw(&scenario("kind = \"steady\"\ncommands_per_second = 1000"));
        let count = commands(&arrivals, 0.0, 10.1);
        assert!((9_500..10_500).contains(&count), "{count}");
    }

    #[test]
    fn a_receiver_without_room_costs_nobody_else() {
        let arrivals = draw(&scenario("kind = \"steady\"\narrivals = \"even\"\ncommands_per_second = 100"));
        let arrivals: Vec<_> = arrivals.iter().map(|arrival| Arrival { at: Duration::ZERO, ..*arrival }).collect();
        let (full, _full) = mpsc::channel(1);
        let (lag, mut lags) = mpsc::channel(10_000);
        let receivers = Receivers { sessions: vec![full.clone(); 6], machines: vec![], floor: full, lag };
        let clock = Clock::system();
        let dropped = give_out(&arrivals, clock.instant(), &receivers, &clock);
        assert_eq!(dropped, arrivals.len() as u64 - 1 - 2_000);
        assert!(lags.try_recv().is_ok());
    }
}
