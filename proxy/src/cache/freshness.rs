//! Freshness: how old an entry is, and what it is still good for. Time is an argument, never read.
//!
//! Age counts from the moment the carrier answered, through restarts (RFC 9111 4.2.3 with the carrier as origin and
//! no transit to estimate). `stale-while-revalidate` and `stale-if-error` count from the end of freshness (RFC 5861).

use crate::carrier::verdict::{Class, Verdict};
use crate::clock::Time;
use crate::config::{Lifetime, Lifetimes};

/// What an entry is good for at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// Answered without asking.
    Fresh,
    /// Answered at once, while the proxy asks.
    Revalidate,
    /// Answered if the carrier fails or is slow.
    IfError,
    /// Good for nothing.
    Expired,
}

/// The lifetime of an answer with this verdict; `None` when it is never stored.
pub fn lifetime<'a>(lifetimes: &'a Lifetimes, verdict: &Verdict) -> Option<&'a Lifetime> {
    let lifetime = match verdict.class {
        Class::Ok => lifetimes.of_status(verdict.status.as_ref()),
        Class::NotFound => &lifetimes.not_found,
        _ => return None,
    };
    (!lifetime.fresh.0.is_zero()).then_some(lifetime)
}

/// What an entry answered at `answered_at` is good for at `now`.
pub fn freshness(lifetime: &Lifetime, answered_at: Time, now: Time) -> Freshness {
    let age = now.since(answered_at);
    let stale = age.checked_sub(lifetime.fresh.0);
    match stale {
        None => Freshness::Fresh,
        Some(stale) if stale < lifetime.stale_while_revalidate.0 => Freshness::Revalidate,
        Some(stale) if stale < lifetime.stale_if_error.0 => Freshness::IfError,
        Some(_) => Freshness::Expired,
    }
}

/// Seconds of freshness left for `Cache-Status` (RFC 9211 2.5): negative once stale.
pub fn ttl(lifetime: &Lifetime, answered_at: Time, now: Time) -> i64 {
    let end = answered_at.plus(lifetime.fresh.0);
    // Rounded down, so that it is negative from the first moment of staleness on.
    end.as_micros().saturating_sub(now.as_micros()).div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Span;
    use proptest::prelude::*;
    use std::time::Duration;

    const LIFETIME: Lifetime = Lifetime {
        fresh: Span::secs(60),
        stale_while_revalidate: Span::secs(30),
        stale_if_error: Span::secs(600),
    };

    fn at(age: u64) -> Freshness {
        freshness(&LIFETIME, Time::from_secs(1_000), Time::from_secs(1_000).plus(Duration::from_secs(age)))
    }

    #[test]
    fn each_bound_is_exclusive() {
        assert_eq!(at(0), Freshness::Fresh);
        assert_eq!(at(59), Freshness::Fresh);
        assert_eq!(at(60), Freshness::Revalidate);
        assert_eq!(at(89), Freshness::Revalidate);
        assert_eq!(at(90), Freshness::IfError);
        assert_eq!(at(659), Freshness::IfError);
        assert_eq!(at(660), Freshness::Expired);
    }

    #[test]
    fn ttl_is_negative_just_when_stale() {
        let after = |age: Duration| ttl(&LIFETIME, Time::EPOCH, Time::EPOCH.plus(age));
        assert_eq!(after(Duration::ZERO), 60);
        assert_eq!(after(Duration::from_millis(59_999)), 0);
        assert_eq!(after(Duration::from_millis(60_001)), -1);
        assert_eq!(after(Duration::from_secs(68)), -8);
    }

    #[test]
    fn errors_of_the_carrier_are_never_stored() {
        let lifetimes = Lifetimes::default();
        let verdict = |code: &str| Verdict::stored(crate::carrier::verdict::Code::parse(code).unwrap(), None);
        for code in ["7", "10", "20", "71", "73", "99", "10006", "777"] {
            assert_eq!(lifetime(&lifetimes, &verdict(code)), None, "{code}");
        }
        assert_eq!(lifetime(&lifetimes, &verdict("12")), Some(&lifetimes.not_found));
    }

    proptest! {
        #[test]
        fn nothing_grows_fresher(ages in proptest::collection::vec(0_u64..2_000, 2)) {
            let rank = |f| match f {
                Freshness::Fresh => 0,
                Freshness::Revalidate => 1,
                Freshness::IfError => 2,
                Freshness::Expired => 3,
            };
            let (young, old) = (ages[0].min(ages[1]), ages[0].max(ages[1]));
            prop_assert!(rank(at(young)) <= rank(at(old)));
        }
    }
}
