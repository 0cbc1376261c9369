//! One test a sentence of the decision table, on a clock whose wall and monotonic time are moved apart.

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

/// Lets so long pass, a tick each second.
fn pass(clock: &Clock, hand: &ManualClock, seconds: u64) {
    for _ in 0..seconds {
        hand.advance(SECOND);
        clock.tick();
    }
}

#[test]
fn a_clock_stepped_back_gives_zero_not_a_panic() {
    let (clock, hand) = Clock::manual(Time::from_secs(1_000));
    let then = clock.now();
    hand.set(Time::from_secs(900));
    assert_eq!(clock.now().since(then), Duration::ZERO);
    hand.advance(Duration::from_secs(150));
    assert_eq!(clock.now().since(then), Duration::from_secs(50));
}

#[test]
fn times_are_shown_in_the_carriers_zone() {
    assert_eq!(Time::from_micros(1_413_444_630_000_000).to_string(), "2014-10-16T15:30:30.000+08:00");
}

#[test]
fn a_step_forwards_is_not_believed_from_its_first_moment_on() {
    let (clock, hand) = Clock::manual(NOON);
    hand.step(HOUR);
    assert_eq!((clock.now(), clock.believed()), (at(HOUR), NOON), "no tick has seen it yet");
    assert_eq!(clock.tick().step, Some(Step::Forwards));
    let text = clock.alarm().unwrap();
    assert!(text.contains("set forwards by 3600 s") && text.contains("chronyc"), "{text}");
    pass(&clock, &hand, 20);
    assert_eq!((clock.now(), clock.believed()), (at(HOUR + 20), at(20)));
    assert_eq!(
        clock.tick(),
        Tick { step: None, set_back: false, unconfirmed: Duration::from_secs(3_600) },
        "reported once"
    );
}

#[test]
fn a_date_that_agrees_confirms_a_step() {
    let (clock, hand) = Clock::manual(NOON);
    hand.step(HOUR);
    clock.tick();
    let sent = clock.moment();
    hand.advance(SECOND);
    assert!(!clock.compare(sent, at(HOUR)).alarm);
    assert_eq!((clock.believed(), clock.alarm()), (at(HOUR + 1), None));
}

#[test]
fn a_step_that_is_confirmed_before_a_tick_sees_it_is_counted_all_the_same() {
    let (clock, hand) = Clock::manual(NOON);
    hand.step(HOUR);
    clock.compare(clock.moment(), at(HOUR));
    assert_eq!(clock.believed(), at(HOUR));
    assert_eq!(clock.tick().step, Some(Step::Forwards));
}

#[test]
fn a_date_never_moves_the_clock() {
    let (clock, hand) = Clock::manual(NOON);
    // Neither ours nor the one before the step.
    hand.step(HOUR);
    for theirs in [at(7 * HOUR), at(-7 * HOUR), NOON] {
        assert!(clock.compare(clock.moment(), theirs).alarm);
        assert_eq!((clock.now(), clock.believed()), (at(HOUR), NOON));
    }
    // Without a step.
    let (clock, _hand) = Clock::manual(NOON);
    assert!(clock.compare(clock.moment(), at(HOUR)).alarm);
    assert_eq!((clock.now(), clock.believed()), (NOON, NOON));
}

#[test]
fn ten_minutes_without_a_date_confirm_a_step() {
    let (clock, hand) = Clock::manual(NOON);
    hand.step(HOUR);
    clock.tick();
    pass(&clock, &hand, 599);
    assert_eq!(clock.believed(), at(599));
    pass(&clock, &hand, 1);
    assert_eq!((clock.believed(), clock.alarm()), (at(HOUR + 600), None));
}

#[test]
fn a_date_that_contradicts_begins_the_ten_minutes_anew() {
    let (clock, hand) = Clock::manual(NOON);
    hand.step(HOUR);
    clock.tick();
    for _ in 0..10 {
        pass(&clock, &hand, 500);
        clock.compare(clock.moment(), clock.believed());
    }
    assert_eq!(clock.believed(), at(5_000));
    assert!(clock.alarm().unwrap().contains("differs from the carrier's Date"));
    pass(&clock, &hand, 600);
    assert_eq!(clock.believed(), at(HOUR + 5_600));
}

#[test]
fn a_step_forwards_that_is_taken_back_leaves_no_trace() {
    let (clock, hand) = Clock::manual(NOON);
    hand.step(24 * HOUR);
    clock.tick();
    pass(&clock, &hand, 10);
    hand.step(-24 * HOUR);
    assert_eq!(clock.believed(), at(10));
    assert_eq!(clock.tick(), Tick { step: None, set_back: true, unconfirmed: Duration::ZERO });
    assert_eq!(clock.alarm(), None);
}

#[test]
fn a_step_backwards_takes_effect_at_once() {
    let (clock, hand) = Clock::manual(NOON);
    hand.step(-HOUR);
    assert_eq!(clock.believed(), at(-HOUR), "no tick has seen it yet");
    assert_eq!(clock.tick().step, Some(Step::Backwards));
    assert!(clock.alarm().unwrap().contains("set back by 3600 s"));
    pass(&clock, &hand, 5);
    assert_eq!((clock.believed(), clock.tick().step), (at(5 - HOUR), None), "reported once");
    // Set right again, it is a step forwards as any other.
    hand.step(HOUR);
    assert_eq!(clock.believed(), at(5 - HOUR));
    clock.compare(clock.moment(), at(5));
    assert_eq!((clock.believed(), clock.alarm()), (at(5), None));
}

#[test]
fn the_alarm_of_a_step_backwards_ends_when_the_time_is_reached_again_or_confirmed() {
    let (clock, hand) = Clock::manual(NOON);
    hand.step(-400);
    clock.tick();
    pass(&clock, &hand, 99);
    assert!(clock.alarm().is_some());
    pass(&clock, &hand, 1);
    assert_eq!(clock.alarm(), None);
    hand.step(-HOUR);
    clock.tick();
    clock.compare(clock.moment(), clock.now());
    assert_eq!(clock.alarm(), None);
}

#[test]
fn a_clock_behind_the_newest_record_is_an_alarm() {
    let (clock, hand) = Clock::manual(NOON);
    clock.newest_record(at(300));
    assert_eq!(clock.alarm(), None, "within clock_skew");
    clock.newest_record(at(HOUR));
    let text = clock.alarm().unwrap();
    assert!(text.contains("3600 s behind the newest audit record"), "{text}");
    pass(&clock, &hand, 3_300);
    assert_eq!(clock.alarm(), None);
}

#[test]
fn small_steps_that_add_up_are_one() {
    let (clock, hand) = Clock::manual(NOON);
    hand.step(200);
    pass(&clock, &hand, 1);
    assert_eq!((clock.believed(), clock.alarm()), (at(201), None), "within clock_skew");
    hand.step(200);
    assert_eq!(clock.tick().step, Some(Step::Forwards));
    assert!(clock.believed() < at(202));
}

#[test]
fn slewing_and_suspension_are_no_steps() {
    let (clock, hand) = Clock::manual(NOON);
    // As chrony slews: 8 % for three hours.
    for _ in 0..10_800 {
        hand.advance(SECOND);
        hand.set(clock.now().plus(Duration::from_millis(80)));
        assert_eq!(clock.tick(), Tick { step: None, set_back: false, unconfirmed: Duration::ZERO });
    }
    hand.suspend(Duration::from_secs(100_000));
    assert_eq!(clock.tick(), Tick { step: None, set_back: false, unconfirmed: Duration::ZERO });
    assert_eq!(clock.believed(), clock.now());
}

#[test]
fn a_clock_that_was_never_set_is_believed_once_it_is() {
    let (clock, hand) = Clock::manual(Time::from_secs(10));
    hand.set(NOON);
    assert_eq!((clock.believed(), clock.tick().step), (NOON, None));
}

#[test]
fn a_slow_answer_is_no_drift() {
    let (clock, hand) = Clock::manual(NOON);
    // Its Date is of the moment when it was made, somewhere in these 20 minutes.
    let sent = clock.moment();
    hand.advance(MINUTE * 20);
    for (theirs, seconds) in [(0, 0.0), (600, 0.0), (1_200, 0.0), (1_250, 50.0), (-51, -50.0)] {
        let drift = clock.compare(sent, at(theirs));
        assert_eq!((drift.seconds, drift.alarm), (seconds, false), "{theirs}");
    }
    assert!(clock.compare(sent, at(1_261)).alarm && clock.compare(sent, at(-62)).alarm);
}

#[test]
fn a_step_during_a_call_is_not_confirmed_by_its_date() {
    let (clock, hand) = Clock::manual(NOON);
    let sent = clock.moment();
    hand.advance(SECOND);
    hand.step(HOUR);
    assert!(clock.compare(sent, at(1)).alarm);
    assert_eq!(clock.believed(), at(1));
}
