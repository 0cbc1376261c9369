//! Guarantees of a source: no transid twice, across kills and steps of the clock.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, Time};
use crate::store::state::OnStateLoss;

mod restored;

const START: u64 = 1_768_449_600;

fn appid() -> AppId {
    AppId::parse("100001").unwrap()
}

/// The transids used so far; a second use of one fails the test.
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
fn numbers_start_at_one_after_the_digits_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, _manual) = at_start();
    let state = state(dir.path());
    for (node, first, second) in [(0, 1, 2), (7, 7_000_001, 7_000_002), (99, 99_000_001, 99_000_002)] {
        let source = TransidSource::new(Arc::clone(&state), node, clock.clone());
        let numbers = [(); 2].map(|()| source.next(&appid()).unwrap().sequence().get());
        assert_eq!(numbers, [first, second]);
    }
}

#[test]
fn a_stamp_follows_the_clock_backwards_and_no_step_forwards() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, manual) = at_start();
    let source = source(&state(dir.path()), 0, &clock, 10);
    let stamp = || source.next(&appid()).unwrap().stamp().to_unix();
    assert_eq!(stamp(), START);
    manual.advance(Duration::from_secs(3_600));
    assert_eq!(stamp(), START + 3_600);
    manual.step(-3_600);
    clock.tick();
    assert_eq!(stamp(), START, "set back at once: the numbers of a lap differ anyway");
    manual.step(86_400);
    assert_eq!(stamp(), START, "a step forwards is not believed yet");
    clock.compare(clock.moment(), Time::from_secs((START + 86_400).cast_signed()));
    assert_eq!(stamp(), START + 86_400, "confirmed by the carrier");
}

#[test]
fn a_day_ahead_by_mistake_does_not_raise_the_next_lap() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, manual) = at_start();
    let state = state(dir.path());
    let first = source(&state, 0, &clock, 5);
    first.next(&appid()).unwrap();
    manual.step(86_400);
    first.next(&appid()).unwrap();
    manual.step(-86_400);
    skip_to_the_end(&state, 0, 0);
    let next = source(&state, 0, &clock, 5).next(&appid()).unwrap();
    assert_eq!(next.stamp().to_unix(), START + 61, "above the ceiling of one lease");
}

#[test]
fn a_lap_starts_above_the_greatest_stamp_of_the_previous_one() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, manual) = at_start();
    let state = state(dir.path());
    let source = source(&state, 0, &clock, LAP);
    let mut carrier = Carrier::default();
    let mut use_next = || carrier.take(&source.next(&appid()).unwrap());
    use_next();
    manual.advance(Duration::from_secs(50));
    assert_eq!(use_next(), START + 50);
    manual.step(-50);
    for _ in 3..LAP {
        use_next();
    }
    assert_eq!(use_next(), START + 51);
}

#[test]
fn a_new_lap_starts_above_every_used_stamp() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, _manual) = at_start();
    let state = state(dir.path());
    let first = source(&state, 3, &clock, LAP);
    let mut carrier = Carrier::default();
    for _ in 1..LAP {
        assert_eq!(carrier.take(&first.next(&appid()).unwrap()), START);
    }
    // The stamps that this process used are known: one second later, not a minute.
    let next = first.next(&appid()).unwrap();
    assert_eq!((carrier.take(&next), next.sequence().get()), (START + 1, 3_000_001));
    // For another source only the committed ceiling is known.
    let next = source(&state, 3, &clock, LAP).next(&appid()).unwrap();
    assert_eq!((carrier.take(&next), next.sequence().get()), (START + 62, 3_000_001));
}

#[test]
fn a_transid_of_a_lease_needs_no_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, manual) = at_start();
    let source = source(&state(dir.path()), 0, &clock, 2);
    assert_eq!(source.try_next(&appid()), None, "nothing is leased yet");
    source.next(&appid()).unwrap();
    assert!(source.try_next(&appid()).is_some());
    assert_eq!(source.try_next(&appid()), None, "the block is used up");
    source.next(&appid()).unwrap();
    manual.advance(Duration::from_secs(61));
    assert_eq!(source.try_next(&appid()), None, "the stamp is above the ceiling");
    let extended = source.next(&appid()).unwrap();
    assert_eq!(extended.sequence().get(), 4, "a higher ceiling costs no numbers");
}

#[test]
fn an_unset_clock_or_a_failed_disk_gives_no_transid() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, manual) = Clock::manual(Time::EPOCH);
    let source = source(&state(dir.path()), 0, &clock, 10);
    assert_eq!(source.next(&appid()), Err(TransidUnavailable::Stamp(StampError::Unset)));
    manual.set(Time::from_secs(START.cast_signed()));
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
fn threads_never_get_the_same_transid() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, manual) = at_start();
    let state = state(dir.path());
    // Two sources of one node: a second one by mistake must not break the guarantee.
    let sources = [source(&state, 0, &clock, 50), source(&state, 0, &clock, 70)];
    let used: Vec<Transid> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (source, manual) = (&sources[thread % 2], &manual);
                scope.spawn(move || {
                    let mut mine: Vec<Transid> = Vec::new();
                    for step in 0..500 {
                        if step % 100 == 99 {
                            manual.advance(Duration::from_secs(45));
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
    for transid in &used {
        carrier.take(transid);
    }
    assert_eq!(carrier.0.len(), 2_000);
}

/// Leases every number of the lap except for the last `left`, as another source of the node might.
fn skip_to_the_end(state: &StateStore, node: u8, left: u32) {
    state.advance(&appid(), node, |read| HighWaterMark { next: read.next.max(LAP - left), ..read }).unwrap();
}

#[test]
fn a_lap_is_above_the_stamps_of_another_source() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, manual) = at_start();
    let state = state(dir.path());
    let (first, second) = (source(&state, 0, &clock, 5), source(&state, 0, &clock, 5));
    let mut carrier = Carrier::default();
    let mut use_next = |source: &TransidSource| carrier.take(&source.next(&appid()).unwrap());
    skip_to_the_end(&state, 0, 10);
    for _ in 0..5 {
        use_next(&first);
    }
    manual.advance(Duration::from_secs(50));
    for _ in 0..5 {
        assert_eq!(use_next(&second), START + 50);
    }
    // The source that did not use the latest stamp starts the next lap; then come the numbers of the second one again.
    manual.set(Time::from_secs(START.cast_signed()));
    assert_eq!(use_next(&first), START + 111, "above the second's ceiling");
    skip_to_the_end(&state, 0, 5);
    manual.advance(Duration::from_secs(50));
    for _ in 0..9 {
        use_next(&first);
    }
}

#[test]
fn a_block_of_an_earlier_lap_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, manual) = at_start();
    let state = state(dir.path());
    let (slow, quick) = (source(&state, 0, &clock, 5), source(&state, 0, &clock, 5));
    let mut carrier = Carrier::default();
    let mut use_next = |source: &TransidSource| carrier.take(&source.next(&appid()).unwrap());
    skip_to_the_end(&state, 0, 10);
    use_next(&slow);
    for _ in 0..6 {
        use_next(&quick);
    }
    // The quick one is a lap ahead, and reaches the numbers of the slow one's lease.
    skip_to_the_end(&state, 0, 10);
    manual.advance(Duration::from_secs(600));
    for _ in 0..9 {
        use_next(&quick);
    }
    for _ in 0..5 {
        use_next(&slow);
    }
}

/// An event for the proxies that share an account.
#[derive(Clone, Debug)]
enum Event {
    /// A source uses this many transids.
    Use { source: usize, count: u32 },
    /// All sources are killed and start again.
    Kill,
    /// Another source of node 0 leases all numbers of the lap but this many.
    Skip(u32),
    /// The wall clock steps by this many seconds.
    Step(i64),
    /// The clock is checked after ten minutes.
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..SOURCES, 1_u32..40).prop_map(|(source, count)| Event::Use { source, count }),
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
    fn no_transid_is_used_twice(
        events in prop::collection::vec(event(), 1..60),
        block in prop_oneof![1_u32..50, Just(400_000_u32)],
    ) {
        let mut dir = tempfile::tempdir().unwrap();
        let (clock, manual) = at_start();
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
                Event::Use { source, count } => {
                    for _ in 0..count {
                        carrier.take(&sources[source].next(&appid()).unwrap());
                    }
                }
                Event::Kill => {
                    // The files as they are at that moment, without a close.
                    let left = tempfile::tempdir().unwrap();
                    for file in ["state.db", "state.db-wal"] {
                        fs::copy(dir.path().join(file), left.path().join(file)).unwrap();
                    }
                    (state, sources) = open(left.path());
                    dir = left;
                }
                Event::Skip(left) => skip_to_the_end(&state, 0, left),
                Event::Step(seconds) => manual.step(seconds),
                Event::Tick => {
                    manual.advance(Duration::from_secs(600));
                    clock.tick();
                }
            }
        }
    }
}
