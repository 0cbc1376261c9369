//! The replay cache alone: windows, modes, limits, clocks that step.

use super::*;
use crate::config::file::Format;
use cmiot_signer::{Sequence, Stamp, Transid};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::HashSet;

const NOW: u64 = 1_700_000_000;
const WINDOW: Duration = Duration::from_secs(300);

fn number(stamp: u64, sequence: u32) -> TransidKey {
    let stamp = Stamp::from_unix(stamp).unwrap();
    TransidKey::of(&Transid::new(&appid(), stamp, Sequence::new(sequence).unwrap()))
}

fn appid() -> AppId {
    AppId::parse("A1").unwrap()
}

/// A moment when both clocks agree.
fn at(secs: u64) -> Moment {
    moment(secs, secs)
}

fn moment(wall: u64, believed: u64) -> Moment {
    let time = |secs: u64| Time::from_secs(i64::try_from(secs).unwrap());
    Moment { wall: time(wall), believed: time(believed), monotonic: Duration::ZERO }
}

/// Sweeps all shards.
fn sweep(replay: &ReplayCache, now: Moment) {
    (0..SHARDS).for_each(|_| replay.sweep(WINDOW, now));
}

fn rights(replay: ReplayMode, share: usize) -> Permissions {
    Permissions {
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

fn group() -> Arc<str> {
    "g".into()
}

/// A request of a client of this group, with this limit of the group.
fn pass_of(
    replay: &ReplayCache,
    (appid, group, group_share): (&AppId, &Arc<str>, usize),
    number: TransidKey,
    rights: &Permissions,
    now: u64,
) -> Result<bool, ReplayError> {
    let owner = Owner { appid, group, group_share };
    replay.check_and_record(owner, number, rights, rights.replay, at(now))
}

/// The same with a group that has no limit of its own.
fn pass(
    replay: &ReplayCache,
    appid: &AppId,
    number: TransidKey,
    rights: &Permissions,
    now: u64,
) -> Result<bool, ReplayError> {
    pass_of(replay, (appid, &group(), usize::MAX), number, rights, now)
}

fn mark_used(replay: &ReplayCache, stamp: u64, sequence: u32, now: u64) -> Result<bool, ReplayError> {
    let refuse = rights(ReplayMode::Refuse, 1_000);
    pass(replay, &appid(), number(stamp, sequence), &refuse, now)
}

#[test]
fn the_window_is_open_on_both_sides_of_the_clock() {
    let replay = ReplayCache::new(10);
    for (stamp, expected) in [
        (NOW - 301, Err(ReplayError::Stale)),
        (NOW - 300, Ok(())),
        (NOW + 300, Ok(())),
        (NOW + 301, Err(ReplayError::Stale)),
    ] {
        assert_eq!(replay.check_window(stamp, Some(WINDOW), at(NOW)), expected);
    }
    assert_eq!(replay.check_window(0, None, at(NOW)), Ok(()));
}

#[test]
fn after_an_unconfirmed_step_forwards_either_time_may_be_right() {
    let replay = ReplayCache::new(10);
    let came = moment(NOW + 86_400, NOW);
    for (stamp, expected) in [
        (NOW - 301, Err(ReplayError::Stale)),
        (NOW - 300, Ok(())),
        (NOW + 300, Ok(())),
        (NOW + 43_200, Err(ReplayError::Stale)),
        (NOW + 86_100, Ok(())),
        (NOW + 86_701, Err(ReplayError::Stale)),
    ] {
        assert_eq!(replay.check_window(stamp, Some(WINDOW), came), expected, "{stamp}");
    }
}

#[test]
fn a_step_backwards_makes_no_transid_usable_again_and_refuses_no_new_one() {
    let replay = ReplayCache::new(10);
    assert_eq!(mark_used(&replay, NOW, 1, NOW), Ok(false));
    assert_eq!(mark_used(&replay, NOW + 86_400, 1, NOW + 86_400), Ok(false), "the first is forgotten");
    sweep(&replay, at(NOW + 86_400));
    assert_eq!(mark_used(&replay, NOW, 1, NOW), Err(ReplayError::Stale));
    assert_eq!(mark_used(&replay, NOW + 1, 1, NOW + 1), Ok(false), "what comes after it was not forgotten");
    assert_eq!(mark_used(&replay, NOW + 1, 1, NOW + 1), Err(ReplayError::Reused));
    assert_eq!(
        mark_used(&replay, NOW + 86_400, 1, NOW + 86_400),
        Err(ReplayError::Reused),
        "used ahead, and kept"
    );
}

#[test]
fn an_unconfirmed_step_forwards_removes_nothing() {
    let replay = ReplayCache::new(10);
    assert_eq!(mark_used(&replay, NOW, 1, NOW), Ok(false));
    let refuse = rights(ReplayMode::Refuse, 10);
    let owner = Owner { appid: &appid(), group: &group(), group_share: 10 };
    let came = moment(NOW + 86_400, NOW);
    let ahead = number(NOW + 86_400, 1);
    assert_eq!(replay.check_and_record(owner, ahead, &refuse, ReplayMode::Refuse, came), Ok(false));
    sweep(&replay, came);
    assert_eq!(mark_used(&replay, NOW, 1, NOW), Err(ReplayError::Reused));
}

#[test]
fn after_a_restore_only_the_restored_transids_are_refused() {
    let replay = ReplayCache::new(10);
    assert_eq!(mark_used(&replay, NOW, 1, NOW), Ok(false));
    assert_eq!(mark_used(&replay, NOW - 100, 2, NOW), Ok(false));
    // A clock that is ahead removes both, and their client.
    let late = Moment { monotonic: IDLE * 2, ..at(NOW + 86_400) };
    sweep(&replay, late);
    assert_eq!(
        (replay.transid_count(), replay.check_window(NOW, Some(WINDOW), at(NOW))),
        (0, Err(ReplayError::Stale))
    );
    replay.begin_restore();
    sweep(&replay, late);
    replay.restore(&appid(), Some(&group()), number(NOW, 1));
    sweep(&replay, late);
    assert_eq!(replay.transid_count(), 1, "nothing is forgotten meanwhile");
    replay.finish_restore(NOW - 50);
    for (stamp, sequence, expected) in
        [(NOW, 1, Err(ReplayError::Reused)), (NOW, 2, Ok(false)), (NOW - 50, 3, Ok(false))]
    {
        assert_eq!(replay.check_window(stamp, Some(WINDOW), at(NOW)), Ok(()));
        assert_eq!(mark_used(&replay, stamp, sequence, NOW), expected);
    }
    assert_eq!(replay.check_window(NOW - 51, Some(WINDOW), at(NOW)), Err(ReplayError::Stale), "not read");
}

#[test]
fn stamps_whose_records_are_lost_are_refused_until_that_ends() {
    let replay = ReplayCache::new(10);
    replay.set_lost_before(NOW);
    let check = |stamp| replay.check_window(stamp, Some(WINDOW), at(NOW));
    assert_eq!((check(NOW - 1), check(NOW)), (Err(ReplayError::Stale), Ok(())));
    assert_eq!(mark_used(&replay, NOW - 1, 1, NOW), Err(ReplayError::Stale));
    replay.set_lost_before(0);
    assert_eq!((check(NOW - 1), mark_used(&replay, NOW - 1, 1, NOW)), (Ok(()), Ok(false)));
}

#[test]
fn a_wider_window_makes_no_transid_usable_again() {
    let replay = ReplayCache::new(10);
    let wide = Permissions { window: Some(WINDOW * 4), ..rights(ReplayMode::Refuse, 10) };
    assert_eq!(mark_used(&replay, NOW, 1, NOW), Ok(false));
    assert_eq!(mark_used(&replay, NOW + 400, 2, NOW + 400), Ok(false), "the first is forgotten");
    assert_eq!(pass(&replay, &appid(), number(NOW, 1), &wide, NOW + 400), Err(ReplayError::Stale));
    assert_eq!(pass(&replay, &appid(), number(NOW + 1, 1), &wide, NOW + 400), Ok(false));
}

#[test]
fn a_transid_used_under_a_narrower_window_stays_used_under_a_wider_one() {
    let narrow = Permissions { window: Some(Duration::from_secs(60)), ..rights(ReplayMode::Refuse, 10) };
    let wide = rights(ReplayMode::Refuse, 10);
    let quiet = appid();
    let other = AppId::parse("B1").unwrap();
    let pass = |replay: &ReplayCache, who: &AppId, rights: &Permissions, stamp, sequence, now| {
        pass(replay, who, number(stamp, sequence), rights, now)
    };

    // Its client sends no request after the reload, while others do.
    let replay = ReplayCache::new(10);
    assert_eq!(pass(&replay, &quiet, &narrow, NOW - 10, 1, NOW), Ok(false));
    assert_eq!(pass(&replay, &other, &wide, NOW + 80, 1, NOW + 80), Ok(false));
    sweep(&replay, at(NOW + 80));
    assert_eq!(pass(&replay, &quiet, &wide, NOW - 10, 1, NOW + 90), Err(ReplayError::Reused));

    // A request that arrived before the reload removes it after that.
    let replay = ReplayCache::new(10);
    assert_eq!(pass(&replay, &quiet, &narrow, NOW, 1, NOW), Ok(false));
    assert_eq!(pass(&replay, &quiet, &narrow, NOW, 2, NOW + 100), Err(ReplayError::Stale));
    assert_eq!(replay.transid_count(), 0);
    assert_eq!(pass(&replay, &quiet, &wide, NOW, 1, NOW + 100), Err(ReplayError::Stale));
    // It stays refused when its client is removed.
    sweep(&replay, Moment { monotonic: IDLE * 2, ..at(NOW + 100) });
    assert_eq!(pass(&replay, &quiet, &wide, NOW, 1, NOW + 100), Err(ReplayError::Stale));
}

#[test]
fn each_mode_does_what_its_name_says() {
    let replay = ReplayCache::new(10);
    for (mode, expected) in [
        (ReplayMode::Refuse, Err(ReplayError::Reused)),
        (ReplayMode::SameAnswer, Ok(true)),
        (ReplayMode::Observe, Ok(true)),
    ] {
        let appid = AppId::parse(match mode {
            ReplayMode::Refuse => "R",
            ReplayMode::SameAnswer => "S",
            ReplayMode::Observe => "O",
        })
        .unwrap();
        let pass = || pass(&replay, &appid, number(NOW, 1), &rights(mode, 10), NOW);
        assert_eq!(pass(), Ok(false), "{mode:?}");
        assert_eq!(pass(), expected, "{mode:?}");
    }
    assert_eq!(replay.transid_count(), 3, "what is observed is remembered too");
}

#[test]
fn a_client_at_its_limit_is_refused_until_its_oldest_transid_expires() {
    let replay = ReplayCache::new(100);
    let two = rights(ReplayMode::Refuse, 2);
    let pass = |stamp, sequence, now| pass(&replay, &appid(), number(stamp, sequence), &two, now);
    assert_eq!(pass(NOW - 290, 1, NOW), Ok(false));
    assert_eq!(pass(NOW, 2, NOW), Ok(false));
    assert_eq!(pass(NOW, 3, NOW), Err(ReplayError::Full(Duration::from_secs(11))));
    assert_eq!(pass(NOW, 2, NOW), Err(ReplayError::Reused), "what is remembered stays so");
    assert_eq!(pass(NOW, 3, NOW + 11), Ok(false));
}

#[test]
fn the_capacity_of_the_cache_is_limited_and_is_released() {
    let replay = ReplayCache::new(1);
    assert_eq!(mark_used(&replay, NOW, 1, NOW), Ok(false));
    assert!(matches!(mark_used(&replay, NOW, 2, NOW), Err(ReplayError::Full(_))));
    sweep(&replay, at(NOW + 301));
    assert_eq!(replay.transid_count(), 0);
}

#[test]
fn a_transid_used_in_one_mode_is_used_in_every_other() {
    let modes = [ReplayMode::Refuse, ReplayMode::SameAnswer, ReplayMode::Observe];
    for (before, after) in modes.iter().flat_map(|before| modes.map(|after| (*before, after))) {
        let replay = ReplayCache::new(10);
        assert_eq!(pass(&replay, &appid(), number(NOW, 1), &rights(before, 10), NOW), Ok(false));
        let expected = if after == ReplayMode::Refuse { Err(ReplayError::Reused) } else { Ok(true) };
        let again = pass(&replay, &appid(), number(NOW, 1), &rights(after, 10), NOW);
        assert_eq!(again, expected, "{before:?}, then {after:?}");
    }
}

#[test]
fn transids_of_a_client_without_a_window_are_stored_for_a_later_window() {
    let replay = ReplayCache::new(10);
    let any = Permissions { window: None, ..rights(ReplayMode::Observe, 10) };
    let refuse = rights(ReplayMode::Refuse, 10);
    let old = NOW - 10 * 365 * 86_400;
    for stamp in [old, NOW, NOW + 86_400] {
        assert_eq!(pass(&replay, &appid(), number(stamp, 1), &any, NOW), Ok(false), "{stamp}");
        assert_eq!(pass(&replay, &appid(), number(stamp, 1), &any, NOW), Ok(true), "{stamp}");
    }
    assert_eq!(replay.transid_count(), 1, "what no window could reach is only recognised");
    assert_eq!(pass(&replay, &appid(), number(NOW, 1), &refuse, NOW), Err(ReplayError::Reused));
    assert_eq!(pass(&replay, &appid(), number(NOW, 2), &refuse, NOW), Ok(false));
}

#[test]
fn an_observed_client_is_never_refused_and_its_evicted_transids_are_refused_later() {
    let replay = ReplayCache::new(100);
    let observe = rights(ReplayMode::Observe, 2);
    let refuse = rights(ReplayMode::Refuse, 10);
    for sequence in 1..=5 {
        let stamp = NOW - 5 + u64::from(sequence);
        assert_eq!(pass(&replay, &appid(), number(stamp, sequence), &observe, NOW), Ok(false), "{sequence}");
    }
    assert_eq!(replay.transid_count(), 2);
    // Older than all stored ones: recognised, and it counts as used.
    assert_eq!(pass(&replay, &appid(), number(NOW - 100, 9), &observe, NOW), Ok(false));
    assert_eq!(pass(&replay, &appid(), number(NOW - 100, 9), &observe, NOW), Ok(true));
    for sequence in 1..=5 {
        let stamp = NOW - 5 + u64::from(sequence);
        let again = pass(&replay, &appid(), number(stamp, sequence), &refuse, NOW);
        assert!(matches!(again, Err(ReplayError::Stale | ReplayError::Reused)), "{sequence}: {again:?}");
    }
    assert!(pass(&replay, &appid(), number(NOW - 100, 9), &refuse, NOW).is_err());
    assert_eq!(pass(&replay, &appid(), number(NOW, 6), &refuse, NOW), Ok(false));
    // One second with more transids than the limit.
    let replay = ReplayCache::new(100);
    for sequence in 1..=5 {
        assert_eq!(pass(&replay, &appid(), number(NOW, sequence), &observe, NOW), Ok(false), "{sequence}");
    }
    for sequence in 1..=5 {
        assert!(pass(&replay, &appid(), number(NOW, sequence), &refuse, NOW).is_err(), "{sequence}");
    }
}

#[test]
fn a_full_client_and_a_full_group_affect_only_themselves() {
    let replay = ReplayCache::new(100);
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let client = |name: &str| AppId::parse(name).unwrap();
    let share = rights(ReplayMode::Refuse, 40);
    let ask = |appid: &AppId, group: &Arc<str>, sequence| {
        pass_of(&replay, (appid, group, 60), number(NOW, sequence), &share, NOW)
    };
    let fill = |appid: &AppId, group| (1..200).take_while(|n| ask(appid, group, *n).is_ok()).count();
    assert_eq!(fill(&client("A1"), &a), 40, "its own share");
    assert_eq!(fill(&client("A2"), &a), 20, "what is left of its group's");
    assert_eq!(fill(&client("A3"), &a), 0);
    assert_eq!(fill(&client("B1"), &b), 40, "another group goes on");
    assert_eq!(fill(&client("B2"), &b), 0, "the table is full");
    assert_eq!(replay.transid_count_by_group(), [(Arc::clone(&a), 60), (Arc::clone(&b), 40)]);
    // A client without a transid waits for those of the others to expire, which takes a window.
    assert_eq!(ask(&client("A3"), &a, 1), Err(ReplayError::Full(WINDOW)));
    let full = replay.take_full_reports();
    let reports: Vec<_> = full.iter().map(|(group, full)| (&**group, full.bound, full.refused)).collect();
    assert_eq!(reports, [("a", CapacityBound::Group, 4), ("b", CapacityBound::Table, 2)]);
    assert_eq!(replay.take_full_reports(), []);
}

#[test]
fn the_transids_of_a_client_count_against_its_new_group() {
    let replay = ReplayCache::new(100);
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let refuse = rights(ReplayMode::Refuse, 10);
    let ask = |group: &Arc<str>, sequence| {
        pass_of(&replay, (&appid(), group, 10), number(NOW, sequence), &refuse, NOW)
    };
    assert_eq!(ask(&a, 1), Ok(false));
    assert_eq!(ask(&b, 1), Err(ReplayError::Reused));
    assert_eq!(replay.transid_count_by_group(), [(Arc::clone(&a), 0), (Arc::clone(&b), 1)]);
    assert_eq!(ask(&b, 2), Ok(false));
    sweep(&replay, at(NOW + 301));
    assert_eq!((replay.transid_count(), replay.transid_count_by_group()), (0, vec![(a, 0), (b, 0)]));
}

#[test]
fn restored_transids_count_against_the_present_group() {
    let replay = ReplayCache::new(100);
    let gone = AppId::parse("GONE").unwrap();
    replay.restore(&appid(), Some(&group()), number(NOW, 1));
    replay.restore(&appid(), Some(&group()), number(NOW, 1));
    replay.restore(&gone, None, number(NOW, 1));
    assert_eq!((replay.transid_count(), replay.transid_count_by_group()), (2, vec![(group(), 1)]));
    assert_eq!(mark_used(&replay, NOW, 1, NOW), Err(ReplayError::Reused));
    let refuse = rights(ReplayMode::Refuse, 10);
    assert_eq!(pass(&replay, &gone, number(NOW, 1), &refuse, NOW), Err(ReplayError::Reused), "it came back");
    assert_eq!(replay.transid_count_by_group(), [(group(), 2)]);
}

#[test]
fn a_request_beyond_the_rate_takes_no_room() {
    let replay = ReplayCache::new(100);
    let one = std::num::NonZeroU32::MIN;
    let slow = Permissions {
        rate: Some(crate::config::Rate { per_second: one, burst: one }),
        ..rights(ReplayMode::Refuse, 10)
    };
    assert_eq!(pass(&replay, &appid(), number(NOW, 1), &slow, NOW), Ok(false));
    assert!(matches!(pass(&replay, &appid(), number(NOW, 2), &slow, NOW), Err(ReplayError::TooFast(_))));
    assert_eq!((replay.transid_count(), replay.transid_count_by_group()), (1, vec![(group(), 1)]));
}

/// A random time from few values, so that stamps repeat and are near the clock: up to two windows, and 0 to 3 s.
fn few_times() -> impl Strategy<Value = u64> {
    (0_u64..3, 0_u64..4).prop_map(|(windows, seconds)| windows * WINDOW.as_secs() + seconds)
}

/// A transid is accepted at most once, in all steps of the clock and of the believed time.
#[test]
fn no_transid_is_accepted_twice() {
    let ahead = prop_oneof![7 => Just(0), 1 => few_times()];
    let step = (few_times(), ahead, few_times(), 1_u32..3, proptest::bool::weighted(0.2));
    // The number of requests that only the stored transids refuse.
    let reused = std::cell::Cell::new(0);
    let checked = TestRunner::default().run(&proptest::collection::vec(step, 1..60), |steps| {
        let replay = ReplayCache::new(1_000);
        let refuse = rights(ReplayMode::Refuse, 1_000);
        let (appid, group) = (appid(), group());
        let owner = Owner { appid: &appid, group: &group, group_share: 1_000 };
        let mut used = HashSet::new();
        for (clock, ahead, stamp, sequence, sweeps) in steps {
            // Long idle, so that a client without transids is removed.
            let now = Moment { monotonic: IDLE * 2, ..moment(NOW + clock + ahead, NOW + clock) };
            let (stamp, number) = (NOW + stamp, number(NOW + stamp, sequence));
            if replay.check_window(stamp, Some(WINDOW), now).is_ok() {
                let came = Moment { monotonic: Duration::ZERO, ..now };
                match replay.check_and_record(owner, number, &refuse, ReplayMode::Refuse, came) {
                    Ok(_) => prop_assert!(used.insert((stamp, sequence)), "{number:?} was accepted twice"),
                    Err(ReplayError::Reused) => reused.set(reused.get() + 1),
                    Err(_) => {}
                }
            }
            if sweeps {
                sweep(&replay, now);
            }
        }
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
    assert!(
        reused.get() > 256,
        "{} reused transids in 256 cases: too few for this test to fail",
        reused.get()
    );
}
