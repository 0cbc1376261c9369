//! The queue and the rate, on a clock that only the test moves.

use super::*;
use crate::clock::{ManualClock, Time};
use crate::store::state::OnStateLoss;
use proptest::prelude::*;

const START: Time = Time::from_secs(1_768_449_600);

struct TestBudget {
    budget: Arc<Budget>,
    clock: ManualClock,
    _dir: tempfile::TempDir,
}

fn budget(limits: Limits) -> TestBudget {
    let dir = tempfile::tempdir().unwrap();
    let (clock, manual) = Clock::manual(START);
    let state = Arc::new(StateStore::open(dir.path(), OnStateLoss::Refuse).unwrap());
    let budget = Budget::new(limits, AppId::parse("100001").unwrap(), state, None, clock);
    TestBudget { budget, clock: manual, _dir: dir }
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

impl TestBudget {
    /// A call that waits in the queue.
    async fn waiting(&self, urgency: Urgency) -> tokio::task::JoinHandle<Result<Permit, NotSent>> {
        self.waiting_with(&SharedUrgency::new(urgency)).await
    }

    /// A call that waits in the queue, and whose urgency may rise.
    async fn waiting_with(
        &self,
        urgency: &SharedUrgency,
    ) -> tokio::task::JoinHandle<Result<Permit, NotSent>> {
        let before = self.budget.gauges().waiting;
        let (budget, urgency) = (Arc::clone(&self.budget), urgency.clone());
        let waiting = tokio::spawn(async move { budget.take(&urgency).await });
        while self.budget.gauges().waiting == before {
            tokio::task::yield_now().await;
        }
        waiting
    }
}

#[tokio::test]
async fn without_limits_everything_passes() {
    let account = budget(NONE);
    let mut held = Vec::new();
    for _ in 0..1_000 {
        held.push(account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap());
    }
    assert_eq!(account.budget.gauges(), BudgetGauges::default());
}

#[tokio::test]
async fn a_call_that_ends_lets_the_next_one_pass_misses_first() {
    let account = budget(at_once(1));
    let first = account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    let refresh = account.waiting(Urgency::Refresh).await;
    let miss = account.waiting(Urgency::Miss).await;
    drop(first);
    let second = miss.await.unwrap().unwrap();
    assert!(!refresh.is_finished(), "the refresh came first, and waits still");
    drop(second);
    assert!(refresh.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_refresh_that_a_miss_joins_moves_up_in_the_queue() {
    let account = budget(at_once(1));
    let first = account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    let earlier = account.waiting(Urgency::Refresh).await;
    let urgency = SharedUrgency::new(Urgency::Refresh);
    let joined = account.waiting_with(&urgency).await;
    urgency.raise(Urgency::Miss);
    while account.budget.lock_queue().waiting.keys().all(|key| key.urgency == Urgency::Refresh) {
        tokio::task::yield_now().await;
    }
    drop(first);
    let second = joined.await.unwrap().unwrap();
    assert!(!earlier.is_finished(), "it came first, and waits still");
    drop(second);
    assert!(earlier.await.unwrap().is_ok());
    assert_eq!(account.budget.gauges(), BudgetGauges::default());
}

#[tokio::test]
async fn a_call_that_is_cancelled_leaves_the_queue() {
    let account = budget(at_once(1));
    let first = account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    let gone = account.waiting(Urgency::Miss).await;
    let next = account.waiting(Urgency::Miss).await;
    gone.abort();
    assert!(gone.await.is_err());
    assert_eq!(account.budget.gauges().waiting, 1);
    drop(first);
    assert!(next.await.unwrap().is_ok());
}

#[tokio::test]
async fn the_queue_is_bounded_and_refreshes_get_half_of_it() {
    let account = budget(Limits { queue: 2, ..at_once(1) });
    let _first = account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    let _refresh = account.waiting(Urgency::Refresh).await;
    assert!(account.budget.take(&SharedUrgency::new(Urgency::Refresh)).await.is_err());
    let _miss = account.waiting(Urgency::Miss).await;
    let refused = account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap_err();
    assert_eq!(refused, NotSent::Budget(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_call_that_waits_too_long_is_refused() {
    let account = budget(Limits { queue_timeout: Duration::from_millis(5), ..at_once(1) });
    let _first = account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    assert!(account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.is_err());
    assert_eq!(account.budget.gauges().waiting, 0);
}

#[tokio::test]
async fn a_call_that_waits_for_the_rate_leaves_when_it_conforms() {
    let account = budget(rate(1));
    drop(account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap());
    let waiting = account.waiting(Urgency::Miss).await;
    account.clock.advance(Duration::from_millis(999));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    account.clock.advance(Duration::from_millis(1));
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test]
async fn refreshing_ahead_has_a_share_and_never_waits() {
    let account = budget(rate(100));
    assert!(account.budget.can_refresh_ahead());
    assert!(account.budget.take(&SharedUrgency::new(Urgency::Ahead)).await.is_ok());
    assert!(!account.budget.can_refresh_ahead());
    assert!(account.budget.take(&SharedUrgency::new(Urgency::Ahead)).await.is_err(), "a tenth of the rate");
    assert!(
        account.budget.take(&SharedUrgency::new(Urgency::Miss)).await.is_ok(),
        "the rest remains for misses"
    );
    account.clock.advance(Duration::from_secs(1));
    assert!(account.budget.take(&SharedUrgency::new(Urgency::Ahead)).await.is_ok());
}

#[tokio::test]
async fn the_account_with_more_left_is_the_better_choice() {
    let (idle, busy) = (budget(rate(10)), budget(rate(10)));
    let _call = busy.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap();
    assert!(idle.budget.headroom() > busy.budget.headroom());
    let (fresh, spent) =
        (budget(Limits { per_day: Some(10), ..NONE }), budget(Limits { per_day: Some(10), ..NONE }));
    drop(spent.budget.take(&SharedUrgency::new(Urgency::Miss)).await.unwrap());
    assert!(fresh.budget.headroom() > spent.budget.headroom());
}

proptest! {
    /// Calls at any times: no second sees more than the rate.
    #[test]
    fn no_second_sees_more_than_the_rate(
        per_second in 1_u32..60,
        pauses in proptest::collection::vec(0_u64..120, 1..300),
    ) {
        let account = budget(rate(per_second));
        let mut left = Vec::new();
        let mut now = Duration::ZERO;
        for pause in pauses {
            let pause = Duration::from_millis(pause);
            now += pause;
            account.clock.advance(pause);
            let mut queue = account.budget.lock_queue();
            if matches!(account.budget.admission(&queue, Urgency::Miss), Admission::Now) {
                let permit = account.budget.grant(&mut queue, Urgency::Miss);
                drop(queue);
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
