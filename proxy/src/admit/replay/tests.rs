//! The table of transids by itself: windows, modes, rooms, clocks that step.

use super::*;
use crate::config::file::Format;
use cmiot_signer::Sequence;
use proptest::prelude::*;
use std::collections::HashSet;

const NOW: u64 = 1_700_000_000;
const WINDOW: Duration = Duration::from_secs(300);

fn number(stamp: u64, sequence: u32) -> Number {
    let stamp = Stamp::from_unix(stamp).unwrap();
    Number::of(&Transid::new(&appid(), stamp, Sequence::new(sequence).unwrap()))
}

fn appid() -> AppId {
    AppId::parse("A1").unwrap()
}

fn at(secs: u64) -> Time {
    Time::from_secs(i64::try_from(secs).unwrap())
}

fn rights(replay: ReplayMode, share: usize) -> Rights {
    Rights {
        peers: Vec::new(),
        operations: Vec::new(),
        cards: Vec::new(),
        card_list: None,
        rate: None,
        replay,
        format: Format::Strict,
        window: Some(WINDOW),
        share,
        max_age_floor: Duration::ZERO,
        max_stale_ceiling: Duration::MAX,
    }
}

fn burn(replay: &Replay, stamp: u64, sequence: u32, now: u64) -> Result<bool, Unusable> {
    let refuse = rights(ReplayMode::Refuse, 1_000);
    replay.pass(&appid(), number(stamp, sequence), &refuse, ReplayMode::Refuse, at(now), Duration::ZERO)
}

#[test]
fn the_window_is_open_on_both_sides_of_the_clock() {
    let replay = Replay::new(10);
    for (stamp, expected) in [
        (NOW - 301, Err(Unusable::Stale)),
        (NOW - 300, Ok(())),
        (NOW + 300, Ok(())),
        (NOW + 301, Err(Unusable::Stale)),
    ] {
        assert_eq!(replay.check_window(stamp, Some(WINDOW), at(NOW)), expected);
    }
    assert_eq!(replay.check_window(0, None, at(NOW)), Ok(()));
}

#[test]
fn a_clock_stepped_back_brings_no_transid_back() {
    let replay = Replay::new(10);
    assert_eq!(burn(&replay, NOW, 1, NOW), Ok(false));
    assert_eq!(burn(&replay, NOW + 400, 1, NOW + 400), Ok(false));
    assert_eq!(replay.check_window(NOW, Some(WINDOW), at(NOW)), Err(Unusable::Stale));
    assert_eq!(burn(&replay, NOW, 1, NOW), Err(Unusable::Stale));
}

#[test]
fn a_window_that_grows_brings_no_transid_back() {
    let replay = Replay::new(10);
    assert_eq!(burn(&replay, NOW, 1, NOW), Ok(false));
    assert_eq!(burn(&replay, NOW + 400, 2, NOW + 400), Ok(false), "the first is forgotten");
    replay.reloaded(Some(WINDOW));
    let wider = Some(WINDOW * 4);
    assert_eq!(replay.check_window(NOW, wider, at(NOW + 400)), Err(Unusable::Stale));
    assert_eq!(replay.check_window(NOW + 100, wider, at(NOW + 400)), Ok(()));
}

#[test]
fn what_was_burnt_under_a_narrower_window_stays_burnt_under_a_wider_one() {
    let narrow = Rights { window: Some(Duration::from_secs(60)), ..rights(ReplayMode::Refuse, 10) };
    let wide = rights(ReplayMode::Refuse, 10);
    let quiet = appid();
    let other = AppId::parse("B1").unwrap();
    let pass = |replay: &Replay, who: &AppId, rights: &Rights, stamp, sequence, now| {
        replay.pass(who, number(stamp, sequence), rights, ReplayMode::Refuse, at(now), Duration::ZERO)
    };

    // Its client asks nothing after the reload, while others do.
    let replay = Replay::new(10);
    assert_eq!(pass(&replay, &quiet, &narrow, NOW - 10, 1, NOW), Ok(false));
    replay.reloaded(narrow.window);
    assert_eq!(pass(&replay, &other, &wide, NOW + 80, 1, NOW + 80), Ok(false));
    (0..SHARDS).for_each(|_| replay.sweep(WINDOW, Duration::ZERO));
    assert_eq!(pass(&replay, &quiet, &wide, NOW - 10, 1, NOW + 90), Err(Unusable::Reused));

    // A request that came before the reload forgets it after that.
    let replay = Replay::new(10);
    assert_eq!(pass(&replay, &quiet, &narrow, NOW, 1, NOW), Ok(false));
    replay.reloaded(narrow.window);
    assert_eq!(pass(&replay, &quiet, &narrow, NOW, 2, NOW + 100), Err(Unusable::Stale));
    assert_eq!(replay.held(), 0);
    assert_eq!(pass(&replay, &quiet, &wide, NOW, 1, NOW + 100), Err(Unusable::Stale));
    // Nor is that forgotten with its client, of which nothing else is left.
    (0..SHARDS).for_each(|_| replay.sweep(WINDOW, IDLE * 2));
    assert_eq!(pass(&replay, &quiet, &wide, NOW, 1, NOW + 100), Err(Unusable::Stale));
}

#[test]
fn each_mode_does_what_its_name_says() {
    let replay = Replay::new(10);
    for (mode, expected) in [
        (ReplayMode::Refuse, Err(Unusable::Reused)),
        (ReplayMode::SameAnswer, Ok(true)),
        (ReplayMode::Observe, Ok(true)),
    ] {
        let appid = AppId::parse(match mode {
            ReplayMode::Refuse => "R",
            ReplayMode::SameAnswer => "S",
            ReplayMode::Observe => "O",
        })
        .unwrap();
        let pass = || replay.pass(&appid, number(NOW, 1), &rights(mode, 10), mode, at(NOW), Duration::ZERO);
        assert_eq!(pass(), Ok(false), "{mode:?}");
        assert_eq!(pass(), expected, "{mode:?}");
    }
    assert_eq!(replay.held(), 2, "what is only observed takes no room");
}

#[test]
fn a_full_share_is_refused_until_its_oldest_leaves() {
    let replay = Replay::new(100);
    let two = rights(ReplayMode::Refuse, 2);
    let pass = |stamp, sequence, now| {
        replay.pass(&appid(), number(stamp, sequence), &two, ReplayMode::Refuse, at(now), Duration::ZERO)
    };
    assert_eq!(pass(NOW - 290, 1, NOW), Ok(false));
    assert_eq!(pass(NOW, 2, NOW), Ok(false));
    assert_eq!(pass(NOW, 3, NOW), Err(Unusable::Full(Duration::from_secs(11))));
    assert_eq!(pass(NOW, 2, NOW), Err(Unusable::Reused), "what is remembered stays so");
    assert_eq!(pass(NOW, 3, NOW + 11), Ok(false));
}

#[test]
fn the_whole_table_is_bounded_and_gives_its_room_back() {
    let replay = Replay::new(1);
    assert_eq!(burn(&replay, NOW, 1, NOW), Ok(false));
    assert!(matches!(burn(&replay, NOW, 2, NOW), Err(Unusable::Full(_))));
    replay.latest.store(NOW + 301, Ordering::Relaxed);
    for _ in 0..SHARDS {
        replay.sweep(WINDOW, Duration::ZERO);
    }
    assert_eq!(replay.held(), 0);
}

proptest! {
    /// Whatever the clock does, a transid is burnt once.
    #[test]
    fn no_transid_is_burnt_twice(steps in proptest::collection::vec((0_u64..2_000, 0_u64..2_000, 1_u32..4), 1..60)) {
        let replay = Replay::new(1_000);
        let mut burnt = HashSet::new();
        for (clock, stamp, sequence) in steps {
            let (now, stamp) = (NOW + clock, NOW + stamp);
            if replay.check_window(stamp, Some(WINDOW), at(now)).is_ok() && burn(&replay, stamp, sequence, now).is_ok() {
                prop_assert!(burnt.insert((stamp, sequence)));
            }
        }
    }
}
