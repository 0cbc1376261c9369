//! The queue and the pace, on a clock that only the test moves.

use super::*;
use crate::clock::{ManualClock, Time};
use crate::store::state::OnStateLoss;
use proptest::prelude::*;

const START: Time = Time::from_secs(1_768_449_600);

struct Bench {
    budget: Arc<Budget>,
    hand: ManualClock,
    _dir: tempfile::TempDir,
}

fn bench(limits: Limits) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = Clock::manual(START);
    let state = Arc::new(StateStore::open(dir.path(), OnStateLoss::Refuse).unwrap());
    let budget = Budget::new(limits, AppId::parse("100001").unwrap(), state, clock);
    Bench { budget, hand, _dir: dir }
}

const NONE: Limits = Limits {
    per_second: None,
    concurrent: None,
    per_day: None,
    queue: 10,
    queue_timeout: Duration::from_secs(60),
    refresh_ahead_percent: 10,
};

fn rate(per_second: u32) -> Limits {
    Limits { per_second: NonZeroU32::new(per_second), ..NONE }
}

fn at_once(calls: u32) -> Limits {
    Limits { concurrent: NonZeroU32::new(calls), ..NONE }
}

impl Bench {
    /// A caller that waits; returns once it does.
    async fn waiting(&self, urgency: Urgency) -> tokio::task::JoinHandle<Result<Permit, NotSent>> {
        self.waiting_under(&SharedUrgency::new(urgency)).await
    }

    /// The same, as urgent as the pressure is and becomes.
    async fn waiting_under(
        &self,
        pressure: &SharedUrgency,
    ) -> tokio::task::JoinHandle<Result<Permit, NotSent>> {
        let before = self.budget.gauges().waiting;
        let (budget, pressure) = (Arc::clone(&self.budget), pressure.clone());
        let waiting = tokio::spawn(async move { budget.take(&pressure).await });
        while self.budget.gauges().waiting == before {
            tokio::task::yield_now().await;
        }
        waiting
    }
}

#[tokio::test]
async fn without_limits_everything_passes() {
    let bench = bench(NONE);
    let mut held = Vec::new();
    for _ in 0..1_000 {
        held.push(bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap());
    }
    assert_eq!(bench.budget.gauges(), BudgetGauges::default());
}

#[tokio::test]
async fn a_call_that_ends_lets_the_next_one_pass_misses_first() {
    let bench = bench(at_once(1));
    let first = bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    let refresh = bench.waiting(Urgency::Refresh).await;
    let miss = bench.waiting(Urgency::Miss).await;
    drop(first);
    let second = miss.await.unwrap().unwrap();
    assert!(!refresh.is_finished(), "the refresh came first, and waits still");
    drop(second);
    assert!(refresh.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_refresh_that_a_miss_joins_moves_up_in_the_queue() {
    let bench = bench(at_once(1));
    let first = bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    let earlier = bench.waiting(Urgency::Refresh).await;
    let pressure = SharedUrgency::new(Urgency::Refresh);
    let joined = bench.waiting_under(&pressure).await;
    pressure.raise(Urgency::Miss);
    while bench.budget.lock_queue().waiting.keys().all(|(urgency, _)| *urgency == Urgency::Refresh) {
        tokio::task::yield_now().await;
    }
    drop(first);
    let second = joined.await.unwrap().unwrap();
    assert!(!earlier.is_finished(), "it came first, and waits still");
    drop(second);
    assert!(earlier.await.unwrap().is_ok());
    assert_eq!(bench.budget.gauges(), BudgetGauges::default());
}

#[tokio::test]
async fn one_that_goes_away_gives_its_place_up() {
    let bench = bench(at_once(1));
    let first = bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    let gone = bench.waiting(Urgency::Miss).await;
    let next = bench.waiting(Urgency::Miss).await;
    gone.abort();
    assert!(gone.await.is_err());
    assert_eq!(bench.budget.gauges().waiting, 1);
    drop(first);
    assert!(next.await.unwrap().is_ok());
}

#[tokio::test]
async fn the_queue_is_bounded_and_refreshes_get_half_of_it() {
    let bench = bench(Limits { queue: 2, ..at_once(1) });
    let _first = bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    let _refresh = bench.waiting(Urgency::Refresh).await;
    assert!(bench.budget.take(&SharedUrgency::new(Urgency::Refresh)).await.is_err());
    let _miss = bench.waiting(Urgency::Miss).await;
    let refused = bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap_err();
    assert_eq!(refused, NotSent::Budget(Duration::from_secs(1)));
}

#[tokio::test]
async fn one_that_waits_too_long_is_refused() {
    let bench = bench(Limits { queue_timeout: Duration::from_millis(5), ..at_once(1) });
    let _first = bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    assert!(bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.is_err());
    assert_eq!(bench.budget.gauges().waiting, 0);
}

#[tokio::test]
async fn what_waits_for_the_pace_leaves_when_its_time_has_come() {
    let bench = bench(rate(1));
    drop(bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap());
    let waiting = bench.waiting(Urgency::Miss).await;
    bench.hand.advance(Duration::from_millis(999));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    bench.hand.advance(Duration::from_millis(1));
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn refreshing_ahead_has_a_share_and_never_waits() {
    let bench = bench(rate(100));
    assert!(bench.budget.can_refresh_ahead());
    assert!(bench.budget.take(&SharedUrgency::new(Urgency::Ahead)).await.is_ok());
    assert!(!bench.budget.can_refresh_ahead());
    assert!(bench.budget.take(&SharedUrgency::new(Urgency::Ahead)).await.is_err(), "a tenth of the pace");
    assert!(
        bench.budget.take(&SharedUrgency::new(Urgency::Miss)).await.is_ok(),
        "which leaves the rest to misses"
    );
    bench.hand.advance(Duration::from_secs(1));
    assert!(bench.budget.take(&SharedUrgency::new(Urgency::Ahead)).await.is_ok());
}

#[tokio::test]
async fn the_account_with_more_left_is_the_better_choice() {
    let (idle, busy) = (bench(rate(10)), bench(rate(10)));
    let _call = busy.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    assert!(idle.budget.headroom() > busy.budget.headroom());
    let (fresh, spent) =
        (bench(Limits { per_day: Some(10), ..NONE }), bench(Limits { per_day: Some(10), ..NONE }));
    drop(spent.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap());
    assert!(fresh.budget.headroom() > spent.budget.headroom());
}

proptest! {
    /// Whoever asks whenever: no second sees more than the rate.
    #[test]
    fn no_second_sees_more_than_the_rate(
        per_second in 1_u32..60,
        pauses in proptest::collection::vec(0_u64..120, 1..300),
    ) {
        let bench = bench(rate(per_second));
        let mut left = Vec::new();
        let mut now = Duration::ZERO;
        for pause in pauses {
            let pause = Duration::from_millis(pause);
            now += pause;
            bench.hand.advance(pause);
            let mut desk = bench.budget.lock_queue();
            if matches!(bench.budget.admission(&desk, Urgency::Miss), Admission::Now) {
                let permit = bench.budget.grant(&mut desk, Urgency::Miss);
                drop(desk);
                drop(permit);
                left.push(now);
            }
        }
        for (n, begin) in left.iter().enumerate() {
            let within = left[n..].iter().take_while(|at| **at - *begin < Duration::from_secs(1)).count();
            prop_assert!(within <= per_second as usize, "{within} calls in a second of {per_second}");
        }
    }
}
