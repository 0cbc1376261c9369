//! One test per sentence of the decision table, on a clock whose wall and monotonic time move separately.

use super::belief::Step;
use super::*;

/// 2026-01-15T12:00:00+08:00
const NOON: Time = Time::from_secs(1_768_449_600);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600;

fn at(seconds: i64) -> Time {
    Time::from_secs(1_768_449_600 + seconds)
}

/// Moves the clock forward, with a tick each second.
fn pass(clock: &Clock, manual: &ManualClock, seconds: u64) {
    for _ in 0..seconds {
        manual.advance(SECOND);
        clock.tick();
    }
}

#[test]
fn a_clock_that_steps_back_gives_zero_and_no_panic() {
    let (clock, manual) = Clock::manual(Time::from_secs(1_000));
    let then = clock.now();
    manual.set(Time::from_secs(900));
    assert_eq!(clock.now().since(then), Duration::ZERO);
    manual.advance(Duration::from_secs(150));
    assert_eq!(clock.now().since(then), Duration::from_secs(50));
}

#[test]
fn times_are_shown_in_the_carriers_zone() {
    assert_eq!(Time::from_micros(1_413_444_630_000_000).to_string(), "2014-10-16T15:30:30.000+08:00");
}

#[test]
fn a_step_forwards_is_not_believed_from_its_first_moment() {
    let (clock, manual) = Clock::manual(NOON);
    manual.step(HOUR);
    assert_eq!((clock.now(), clock.believed()), (at(HOUR), NOON), "before any tick");
    assert_eq!(clock.tick().step, Some(Step::Forwards));
    let text = clock.alarm().unwrap().english;
    assert!(text.contains("set forwards by 3600 s") && text.contains("chronyc"), "{text}");
    pass(&clock, &manual, 20);
    assert_eq!((clock.now(), clock.believed()), (at(HOUR + 20), at(20)));
    assert_eq!(
        clock.tick(),
        Tick { step: None, set_back: false, unconfirmed: Duration::from_secs(3_600) },
        "reported once"
    );
}

#[test]
fn a_date_that_agrees_confirms_a_step() {
    let (clock, manual) = Clock::manual(NOON);
    manual.step(HOUR);
    clock.tick();
    let sent = clock.moment();
    manual.advance(SECOND);
    assert!(!clock.compare(sent, at(HOUR)).alarm);
    assert_eq!((clock.believed(), clock.alarm()), (at(HOUR + 1), None));
}

#[test]
fn a_step_that_is_confirmed_before_a_tick_is_counted_nevertheless() {
    let (clock, manual) = Clock::manual(NOON);
    manual.step(HOUR);
    clock.compare(clock.moment(), at(HOUR));
    assert_eq!(clock.believed(), at(HOUR));
    assert_eq!(clock.tick().step, Some(Step::Forwards));
}

#[test]
fn a_date_never_moves_the_clock() {
    let (clock, manual) = Clock::manual(NOON);
    // Neither ours nor the one before the step.
    manual.step(HOUR);
    for theirs in [at(7 * HOUR), at(-7 * HOUR), NOON] {
        assert!(clock.compare(clock.moment(), theirs).alarm);
        assert_eq!((clock.now(), clock.believed()), (at(HOUR), NOON));
    }
    // Without a step.
    let (clock, _manual) = Clock::manual(NOON);
    assert!(clock.compare(clock.moment(), at(HOUR)).alarm);
    assert_eq!((clock.now(), clock.believed()), (NOON, NOON));
}

#[test]
fn ten_minutes_without_a_date_confirm_a_step() {
    let (clock, manual) = Clock::manual(NOON);
    manual.step(HOUR);
    clock.tick();
    pass(&clock, &manual, 599);
    assert_eq!(clock.believed(), at(599));
    pass(&clock, &manual, 1);
    assert_eq!((clock.believed(), clock.alarm()), (at(HOUR + 600), None));
}

#[test]
fn a_date_that_contradicts_restarts_the_ten_minutes() {
    let (clock, manual) = Clock::manual(NOON);
    manual.step(HOUR);
    clock.tick();
    for _ in 0..10 {
        pass(&clock, &manual, 500);
        clock.compare(clock.moment(), clock.believed());
    }
    assert_eq!(clock.believed(), at(5_000));
    assert!(clock.alarm().unwrap().english.contains("differs from the carrier's Date"));
    pass(&clock, &manual, 600);
    assert_eq!(clock.believed(), at(HOUR + 5_600));
}

#[test]
fn a_step_forwards_that_is_reversed_has_no_effect() {
    let (clock, manual) = Clock::manual(NOON);
    manual.step(24 * HOUR);
    clock.tick();
    pass(&clock, &manual, 10);
    manual.step(-24 * HOUR);
    assert_eq!(clock.believed(), at(10));
    assert_eq!(clock.tick(), Tick { step: None, set_back: true, unconfirmed: Duration::ZERO });
    assert_eq!(clock.alarm(), None);
}

#[test]
fn a_step_backwards_takes_effect_at_once() {
    let (clock, manual) = Clock::manual(NOON);
    manual.step(-HOUR);
    assert_eq!(clock.believed(), at(-HOUR), "before any tick");
    assert_eq!(clock.tick().step, Some(Step::Backwards));
    assert!(clock.alarm().unwrap().english.contains("set back by 3600 s"));
    pass(&clock, &manual, 5);
    assert_eq!((clock.believed(), clock.tick().step), (at(5 - HOUR), None), "reported once");
    // Set right again, it is a step forwards as any other.
    manual.step(HOUR);
    assert_eq!(clock.believed(), at(5 - HOUR));
    clock.compare(clock.moment(), at(5));
    assert_eq!((clock.believed(), clock.alarm()), (at(5), None));
}

#[test]
fn the_alarm_of_a_step_backwards_ends_when_the_time_is_reached_again_or_confirmed() {
    let (clock, manual) = Clock::manual(NOON);
    manual.step(-400);
    clock.tick();
    pass(&clock, &manual, 99);
    assert!(clock.alarm().is_some());
    pass(&clock, &manual, 1);
    assert_eq!(clock.alarm(), None);
    manual.step(-HOUR);
    clock.tick();
    clock.compare(clock.moment(), clock.now());
    assert_eq!(clock.alarm(), None);
}

#[test]
fn a_clock_behind_the_newest_record_is_an_alarm() {
    let (clock, manual) = Clock::manual(NOON);
    clock.newest_record(at(300));
    assert_eq!(clock.alarm(), None, "within clock_skew");
    clock.newest_record(at(HOUR));
    let text = clock.alarm().unwrap().english;
    assert!(text.contains("3600 s behind the newest audit record"), "{text}");
    pass(&clock, &manual, 3_300);
    assert_eq!(clock.alarm(), None);
}

#[test]
fn small_steps_that_add_up_are_one() {
    let (clock, manual) = Clock::manual(NOON);
    manual.step(200);
    pass(&clock, &manual, 1);
    assert_eq!((clock.believed(), clock.alarm()), (at(201), None), "within clock_skew");
    manual.step(200);
    assert_eq!(clock.tick().step, Some(Step::Forwards));
    assert!(clock.believed() < at(202));
}

#[test]
fn slewing_and_suspension_are_no_steps() {
    let (clock, manual) = Clock::manual(NOON);
    // As chrony slews: 8 % for three hours.
    for _ in 0..10_800 {
        manual.advance(SECOND);
        manual.set(clock.now().plus(Duration::from_millis(80)));
        assert_eq!(clock.tick(), Tick { step: None, set_back: false, unconfirmed: Duration::ZERO });
    }
    manual.suspend(Duration::from_secs(100_000));
    assert_eq!(clock.tick(), Tick { step: None, set_back: false, unconfirmed: Duration::ZERO });
    assert_eq!(clock.believed(), clock.now());
}

#[test]
fn a_clock_that_was_never_set_is_believed_once_it_is() {
    let (clock, manual) = Clock::manual(Time::from_secs(10));
    manual.set(NOON);
    assert_eq!((clock.believed(), clock.tick().step), (NOON, None));
}

#[test]
fn a_slow_answer_is_no_drift() {
    let (clock, manual) = Clock::manual(NOON);
    // Its Date is of the moment when it was made, somewhere in these 20 minutes.
    let sent = clock.moment();
    manual.advance(MINUTE * 20);
    for (theirs, seconds) in [(0, 0.0), (600, 0.0), (1_200, 0.0), (1_250, 50.0), (-51, -50.0)] {
        let drift = clock.compare(sent, at(theirs));
        assert_eq!((drift.seconds, drift.alarm), (seconds, false), "{theirs}");
    }
    assert!(clock.compare(sent, at(1_261)).alarm && clock.compare(sent, at(-62)).alarm);
}

#[test]
fn a_step_during_a_call_is_not_confirmed_by_its_date() {
    let (clock, manual) = Clock::manual(NOON);
    let sent = clock.moment();
    manual.advance(SECOND);
    manual.step(HOUR);
    assert!(clock.compare(sent, at(1)).alarm);
    assert_eq!(clock.believed(), at(1));
}
