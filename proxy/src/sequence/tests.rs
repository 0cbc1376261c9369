//! The source's promises: no transid twice, whatever is killed and however clocks are set.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, Time};
use crate::store::state::OnStateLoss;

const START: u64 = 1_768_449_600;

fn appid() -> AppId {
    AppId::parse("100001").unwrap()
}

/// The transids used so far: whoever uses one twice is caught.
#[derive(Default)]
struct Carrier(HashSet<(u64, u32)>);

impl Carrier {
    fn take(&mut self, transid: &Transid) -> u64 {
        let (stamp, number) = (transid.stamp().to_unix(), transid.sequence().get());
        assert!(self.0.insert((stamp, number)), "{} was sent twice", transid.as_str());
        stamp
    }
}

fn state(dir: &std::path::Path) -> Arc<StateStore> {
    Arc::new(StateStore::open(dir, OnStateLoss::Refuse).unwrap())
}

fn source(state: &Arc<StateStore>, node: u8, clock: &Clock, block: u32) -> TransidSource {
    TransidSource::with_leasing(Arc::clone(state), node, clock.clone(), LeaseConfig { block, ahead: 60 })
}

fn at_start() -> (Clock, ManualClock) {
    Clock::manual(Time::from_secs(START.cast_signed()))
}

#[test]
fn numbers_begin_at_one_behind_the_nodes_digits() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, _hand) = at_start();
    let state = state(dir.path());
    for (node, first, second) in [(0, 1, 2), (7, 7_000_001, 7_000_002), (99, 99_000_001, 99_000_002)] {
        let source = TransidSource::new(Arc::clone(&state), node, clock.clone());
        let numbers = [(); 2].map(|()| source.next(&appid()).unwrap().sequence().get());
        assert_eq!(numbers, [first, second]);
    }
}

#[test]
fn a_stamp_goes_with_the_clock_backwards_and_with_no_step_forwards() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = at_start();
    let source = source(&state(dir.path()), 0, &clock, 10);
    let stamp = || source.next(&appid()).unwrap().stamp().to_unix();
    assert_eq!(stamp(), START);
    hand.advance(Duration::from_secs(3_600));
    assert_eq!(stamp(), START + 3_600);
    hand.step(-3_600);
    clock.tick();
    assert_eq!(stamp(), START, "set back at once: the numbers of a lap differ anyway");
    hand.step(86_400);
    assert_eq!(stamp(), START, "a step forwards is not believed yet");
    clock.compare(clock.moment(), Time::from_secs((START + 86_400).cast_signed()));
    assert_eq!(stamp(), START + 86_400, "confirmed by the carrier");
}

#[test]
fn a_wrong_day_ahead_does_not_lift_the_next_lap() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = at_start();
    let state = state(dir.path());
    let first = source(&state, 0, &clock, 5);
    first.next(&appid()).unwrap();
    hand.step(86_400);
    first.next(&appid()).unwrap();
    hand.step(-86_400);
    skip_to_the_end(&state, 0, 0);
    let next = source(&state, 0, &clock, 5).next(&appid()).unwrap();
    assert_eq!(next.stamp().to_unix(), START + 61, "above the ceiling of one lease");
}

#[test]
fn a_lap_begins_above_the_greatest_stamp_of_the_one_before_not_above_its_last() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = at_start();
    let state = state(dir.path());
    let source = source(&state, 0, &clock, LAP);
    let mut carrier = Carrier::default();
    let mut draw = || carrier.take(&source.next(&appid()).unwrap());
    draw();
    hand.advance(Duration::from_secs(50));
    assert_eq!(draw(), START + 50);
    hand.step(-50);
    for _ in 3..LAP {
        draw();
    }
    assert_eq!(draw(), START + 51);
}

#[test]
fn a_lap_that_is_used_up_begins_above_every_stamp_used() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, _hand) = at_start();
    let state = state(dir.path());
    let first = source(&state, 3, &clock, LAP);
    let mut carrier = Carrier::default();
    for _ in 1..LAP {
        assert_eq!(carrier.take(&first.next(&appid()).unwrap()), START);
    }
    // This process knows what it used: one second on, not a minute.
    let next = first.next(&appid()).unwrap();
    assert_eq!((carrier.take(&next), next.sequence().get()), (START + 1, 3_000_001));
    // Another has the committed ceiling to go by.
    let next = source(&state, 3, &clock, LAP).next(&appid()).unwrap();
    assert_eq!((carrier.take(&next), next.sequence().get()), (START + 62, 3_000_001));
}

#[test]
fn what_needs_no_lease_is_had_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = at_start();
    let source = source(&state(dir.path()), 0, &clock, 2);
    assert_eq!(source.try_next(&appid()), None, "nothing is leased yet");
    source.next(&appid()).unwrap();
    assert!(source.try_next(&appid()).is_some());
    assert_eq!(source.try_next(&appid()), None, "the block is used up");
    source.next(&appid()).unwrap();
    hand.advance(Duration::from_secs(61));
    assert_eq!(source.try_next(&appid()), None, "the stamp is above the ceiling");
    let extended = source.next(&appid()).unwrap();
    assert_eq!(extended.sequence().get(), 4, "a higher ceiling costs no numbers");
}

#[test]
fn an_unset_clock_and_a_lost_disk_give_no_transid() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = Clock::manual(Time::EPOCH);
    let source = source(&state(dir.path()), 0, &clock, 10);
    assert_eq!(source.next(&appid()), Err(TransidUnavailable::Stamp(StampError::Unset)));
    hand.set(Time::from_secs(START.cast_signed()));
    clock.tick();
    let other = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
    other
        .execute_batch("CREATE TRIGGER broken BEFORE INSERT ON sequence BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    assert!(matches!(source.next(&appid()), Err(TransidUnavailable::State(_))));
    other.execute_batch("DROP TRIGGER broken").unwrap();
    assert_eq!(source.next(&appid()).unwrap().sequence().get(), 1);
}

#[test]
fn threads_never_get_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = at_start();
    let state = state(dir.path());
    // Two sources of one node: what a mistaken second one may not break.
    let sources = [source(&state, 0, &clock, 50), source(&state, 0, &clock, 70)];
    let drawn: Vec<Transid> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (source, hand) = (&sources[thread % 2], &hand);
                scope.spawn(move || {
                    let mut mine: Vec<Transid> = Vec::new();
                    for step in 0..500 {
                        if step % 100 == 99 {
                            hand.advance(Duration::from_secs(45));
                        }
                        mine.push(source.next(&appid()).unwrap());
                    }
                    assert!(mine.is_sorted_by_key(|transid| transid.stamp().to_unix()));
                    mine
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut carrier = Carrier::default();
    for transid in &drawn {
        carrier.take(transid);
    }
    assert_eq!(carrier.0.len(), 2_000);
}

/// Takes every number of the lap but the last `left`, as another lessee of the node might.
fn skip_to_the_end(state: &StateStore, node: u8, left: u32) {
    state.advance(&appid(), node, |read| HighWaterMark { next: read.next.max(LAP - left), ..read }).unwrap();
}

#[test]
fn a_lap_is_above_what_another_source_used() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = at_start();
    let state = state(dir.path());
    let (first, second) = (source(&state, 0, &clock, 5), source(&state, 0, &clock, 5));
    let mut carrier = Carrier::default();
    let mut draw = |source: &TransidSource| carrier.take(&source.next(&appid()).unwrap());
    skip_to_the_end(&state, 0, 10);
    for _ in 0..5 {
        draw(&first);
    }
    hand.advance(Duration::from_secs(50));
    for _ in 0..5 {
        assert_eq!(draw(&second), START + 50);
    }
    // The next lap, by the one who did not use the latest stamp; then the second's numbers again.
    hand.set(Time::from_secs(START.cast_signed()));
    assert_eq!(draw(&first), START + 111, "above the second's ceiling");
    skip_to_the_end(&state, 0, 5);
    hand.advance(Duration::from_secs(50));
    for _ in 0..9 {
        draw(&first);
    }
}

#[test]
fn a_block_of_a_lap_gone_by_is_not_used_on() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = at_start();
    let state = state(dir.path());
    let (slow, quick) = (source(&state, 0, &clock, 5), source(&state, 0, &clock, 5));
    let mut carrier = Carrier::default();
    let mut draw = |source: &TransidSource| carrier.take(&source.next(&appid()).unwrap());
    skip_to_the_end(&state, 0, 10);
    draw(&slow);
    for _ in 0..6 {
        draw(&quick);
    }
    // The quick one is a lap on, and comes to the numbers that the slow one still holds.
    skip_to_the_end(&state, 0, 10);
    hand.advance(Duration::from_secs(600));
    for _ in 0..9 {
        draw(&quick);
    }
    for _ in 0..5 {
        draw(&slow);
    }
}

/// What can happen to the proxies that share an account.
#[derive(Clone, Debug)]
enum Event {
    /// A source draws so many.
    Draw { source: usize, count: u32 },
    /// All are killed and start again.
    Kill,
    /// Another lessee of node 0 takes all numbers of the lap but so many.
    Skip(u32),
    /// The wall clock is stepped by so many seconds.
    Step(i64),
    /// The clock is looked at, after ten minutes.
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..SOURCES, 1_u32..40).prop_map(|(source, count)| Event::Draw { source, count }),
        1 => Just(Event::Kill),
        2 => (0_u32..100).prop_map(Event::Skip),
        1 => (-200_i64..200).prop_map(Event::Step),
        1 => Just(Event::Step(-86_400 * 30)),
        1 => Just(Event::Step(86_400 * 30)),
        1 => Just(Event::Tick),
    ]
}

/// Two sources of node 0 in one process, and one of node 1.
const SOURCES: usize = 3;

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn no_transid_is_ever_used_twice(
        events in prop::collection::vec(event(), 1..60),
        block in prop_oneof![1_u32..50, Just(400_000_u32)],
    ) {
        let mut dir = tempfile::tempdir().unwrap();
        let (clock, hand) = at_start();
        let open = |dir: &std::path::Path| {
            let state = state(dir);
            let nodes: [u8; SOURCES] = [0, 0, 1];
            let sources = nodes.map(|node| source(&state, node, &clock, block));
            (state, sources)
        };
        let (mut state, mut sources) = open(dir.path());
        let mut carrier = Carrier::default();
        for event in events {
            match event {
                Event::Draw { source, count } => {
                    for _ in 0..count {
                        carrier.take(&sources[source].next(&appid()).unwrap());
                    }
                }
                Event::Kill => {
                    // The files as they are at that moment, nothing closed.
                    let left = tempfile::tempdir().unwrap();
                    for file in ["state.db", "state.db-wal"] {
                        fs::copy(dir.path().join(file), left.path().join(file)).unwrap();
                    }
                    (state, sources) = open(left.path());
                    dir = left;
                }
                Event::Skip(left) => skip_to_the_end(&state, 0, left),
                Event::Step(seconds) => hand.step(seconds),
                Event::Tick => {
                    hand.advance(Duration::from_secs(600));
                    clock.tick();
                }
            }
        }
    }
}
