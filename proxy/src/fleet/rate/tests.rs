//! A model of the database and of nodes that call as often as they may, under any schedule of cuts and delays.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::fleet::shares;
use crate::gcra::{Gcra, TheoreticalArrivalTime};
use crate::store::fleet::pace::Pace;

/// The time from one step of the model to the next.
const TICK: Duration = Duration::from_millis(5);

/// The length of a run, in ticks.
const TICKS: u64 = 6_000;

/// Time for one statement.
const TIMEOUT: Duration = Duration::from_millis(100);

/// The tables, as the statements of `store/fleet/pace.rs` change them; times in microseconds.
#[derive(Default)]
struct Database {
    pacers: HashMap<u8, i64>,
    next: Option<i64>,
    /// The sum of the steps of its clock.
    step: i64,
}

impl Database {
    fn clock(&self, now: Duration) -> i64 {
        1_800_000_000_000_000 + micros(now) + self.step
    }

    fn beat(&mut self, now: Duration, node: u8, seen: Option<i64>) -> i64 {
        let (t, lease) = (self.clock(now), micros(LEASE));
        if let Some(until) = seen.map(|seen| seen + lease).filter(|until| *until > t && *until <= t + lease) {
            let known = self.pacers.entry(node).or_insert(until);
            *known = (*known).max(until).min(t + lease);
        }
        t
    }

    fn book(&mut self, now: Duration, node: u8, pace: Pace, slots: u32) -> Booking {
        let t = self.clock(now);
        let valid = |until: &i64| *until > t && *until <= t + micros(LEASE);
        let pacers = self.pacers.values().filter(|until| valid(until)).count() as u32;
        let own = self.pacers.get(&node).is_some_and(valid);
        let rate = (pace.per_second - pace.nodes.saturating_sub(pacers) * pace.alone).max(1);
        let step = micros(STRETCHED_SECOND).div_euclid(i64::from(rate))
            + i64::from(micros(STRETCHED_SECOND) % i64::from(rate) > 0);
        let (last, n) = (t + micros(AHEAD), i64::from(slots).min(1 + micros(SPAN) / step));
        let (n, beyond) = (if own { n } else { 0 }, last + micros(SPAN) + step);
        let step_back = Duration::from_micros(step.unsigned_abs());
        let Some(next) = self.next else {
            self.next = Some(beyond);
            return Booking { slots: 0, first: beyond - last, step: step_back };
        };
        if next > last {
            self.next = Some(next.min(beyond));
            return Booking { slots: 0, first: next.min(beyond) - last, step: step_back };
        }
        self.next = Some(next.max(t) + n * step);
        Booking { slots: n as u32, first: next.max(t) - t, step: step_back }
    }
}

fn micros(duration: Duration) -> i64 {
    duration.as_micros() as i64
}

/// One node, which calls whenever it may.
struct Node {
    heard: Heard,
    slots: VecDeque<Slot>,
    alone: Option<Gcra>,
    state: TheoreticalArrivalTime,
    next_beat: Duration,
    next_booking: Duration,
}

/// The network between one node and the database for some time.
#[derive(Clone, Copy, Debug)]
enum Network {
    /// Statements take this long there, and their replies this long back.
    Pass(u64, u64),
    /// Statements are lost.
    Cut,
    /// Statements arrive, and replies are lost.
    Mute,
    /// Statements arrive after this time, and their replies are lost.
    Late(u64),
}

#[derive(Clone, Copy)]
enum Statement {
    Beat(Option<i64>),
    Book(u32),
}

#[derive(Clone, Copy)]
struct Message {
    node: usize,
    sent: Duration,
    arrives: Duration,
    back: Option<Duration>,
    statement: Statement,
}

enum Reply {
    Beat(i64),
    Book(Booking),
}

fn network() -> impl Strategy<Value = Vec<(u64, Network)>> {
    let one = prop_oneof![
        4 => (0_u64..25, 0_u64..25).prop_map(|(there, back)| Network::Pass(there, back)),
        1 => (0_u64..90, 0_u64..90).prop_map(|(there, back)| Network::Pass(there, back)),
        1 => Just(Network::Cut),
        1 => Just(Network::Mute),
        1 => (100_u64..12_000).prop_map(Network::Late),
    ];
    proptest::collection::vec((50_u64..2_500, one), 2..8)
}

fn at(networks: &[(u64, Network)], tick: u64) -> Network {
    let length: u64 = networks.iter().map(|(ticks, _)| ticks).sum();
    let mut tick = tick % length;
    for (ticks, network) in networks {
        if tick < *ticks {
            return *network;
        }
        tick -= ticks;
    }
    unreachable!("the tick is below the sum");
}

/// The moments of all calls. `crashes` empty the tables; at `step_back` the clock of the database is set back by 500 ms.
fn run(
    pace: Pace,
    networks: &[Vec<(u64, Network)>],
    crashes: &[u64],
    step_back: Option<u64>,
) -> Vec<Duration> {
    let alone = (pace.alone > 0).then(|| {
        let burst = (pace.alone / 10).max(1);
        Gcra::new(SECOND / (pace.alone - burst + 1), burst)
    });
    let node = |_| Node {
        heard: Heard::new(Duration::from_secs(100)),
        slots: VecDeque::new(),
        alone,
        state: TheoreticalArrivalTime::default(),
        next_beat: Duration::ZERO,
        next_booking: Duration::ZERO,
    };
    let mut nodes: Vec<Node> = networks.iter().map(node).collect();
    let mut database = Database::default();
    let (mut under_way, mut calls): (Vec<Message>, Vec<Duration>) = (Vec::new(), Vec::new());
    let mut replies: Vec<(usize, Duration, Duration, Reply)> = Vec::new();
    for tick in 0..TICKS {
        let now = Duration::from_secs(100) + TICK * tick as u32;
        if crashes.contains(&tick) {
            (database.pacers, database.next) = (HashMap::new(), None);
        }
        if step_back == Some(tick) {
            database.step -= 500_000;
        }
        let arrived: Vec<_> = under_way.extract_if(.., |message| message.arrives <= now).collect();
        for Message { node, sent, arrives, back, statement } in arrived {
            let reply = match statement {
                Statement::Beat(seen) => Reply::Beat(database.beat(arrives, node as u8, seen)),
                Statement::Book(slots) => Reply::Book(database.book(arrives, node as u8, pace, slots)),
            };
            if let Some(back) = back.filter(|back| *back <= sent + TIMEOUT) {
                replies.push((node, sent, back, reply));
            }
        }
        for (node, sent, back, reply) in replies.extract_if(.., |(_, _, back, _)| *back <= now) {
            match reply {
                Reply::Beat(clock) => nodes[node].heard.record(now, clock),
                Reply::Book(booking) => nodes[node].slots.extend(slots(sent, back, booking)),
            }
        }
        for (index, node) in nodes.iter_mut().enumerate() {
            let network = at(&networks[index], tick);
            let millis = Duration::from_millis;
            let mut send = |statement| {
                let (arrives, back) = match network {
                    Network::Pass(there, back) => (now + millis(there), Some(now + millis(there + back))),
                    Network::Cut => return,
                    Network::Mute => (now, None),
                    Network::Late(after) => (now + millis(after), None),
                };
                under_way.push(Message { node: index, sent: now, arrives, back, statement });
            };
            if now >= node.next_beat {
                node.next_beat = now + millis(if node.heard.is_pacer(now) { 1_000 } else { 250 });
                send(Statement::Beat(node.heard.seen(now)));
            }
            if node.heard.is_alone(now) {
                if let Some(alone) = node.alone {
                    while alone.acquire(&mut node.state, now).is_ok() {
                        calls.push(now);
                    }
                }
                continue;
            }
            node.slots.retain(|slot| slot.until >= now);
            // Each second slot is used as late as it may be.
            let due = |slot: &Slot| slot.from <= now && (tick % 2 == 0 || slot.until < now + TICK);
            while node.slots.front().is_some_and(due) {
                node.slots.pop_front();
                calls.push(now);
            }
            if node.slots.is_empty() && now >= node.next_booking {
                node.next_booking = now + millis(20);
                send(Statement::Book(batch(pace.per_second, 50)));
            }
        }
    }
    calls.sort();
    calls
}

/// The greatest number of calls in a second, wherever it begins.
fn most_in_a_second(calls: &[Duration]) -> usize {
    let within = |n: usize| calls[n..].iter().take_while(|at| **at < calls[n] + SECOND).count();
    (0..calls.len()).map(within).max().unwrap_or_default()
}

#[test]
fn three_nodes_that_reach_the_database_use_the_whole_rate() {
    let pace = shares::pace(NonZeroU32::new(20).unwrap(), 3);
    let calls = run(pace, &vec![vec![(100, Network::Pass(1, 1))]; 3], &[], None);
    assert!(most_in_a_second(&calls) <= 20);
    // The nodes become pacers within two seconds, and the first booking waits for slots of a row that was lost.
    let used = calls.iter().filter(|at| **at > Duration::from_secs(105)).count();
    assert!(used >= 25 * 18, "{used} calls in 25 seconds");
}

#[test]
fn three_nodes_without_the_database_use_their_shares() {
    let pace = shares::pace(NonZeroU32::new(20).unwrap(), 3);
    let calls = run(pace, &vec![vec![(100, Network::Cut)]; 3], &[], None);
    assert_eq!(most_in_a_second(&calls), 18);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_second_sees_more_than_the_rate_under_any_schedule(
        per_second in 1_u32..60,
        networks in proptest::collection::vec(network(), 1..5),
        crashes in proptest::collection::vec(0..TICKS, 0..4),
        step_back in proptest::option::of(0..TICKS),
    ) {
        let nodes = networks.len() as u32;
        let pace = shares::pace(NonZeroU32::new(per_second).unwrap(), nodes);
        let calls = run(pace, &networks, &crashes, step_back);
        let most = most_in_a_second(&calls);
        prop_assert!(most <= per_second as usize, "{most} calls in a second of {per_second}");
    }
}
