//! Age and freshness of entries. Time is an argument, never read.
//!
//! Age counts from the carrier's reply, across restarts (RFC 9111 4.2.3 with the carrier as origin and no transit to
//! estimate). `stale-while-revalidate` and `stale-if-error` count from the end of freshness (RFC 5861).

use std::time::Duration;

use cmiot_signer::Card;

use super::{Entry, Key};
use crate::carrier::verdict::{Class, Usage};
use crate::clock::Time;
use crate::lifetimes::{Lifetime, Lifetimes};
use crate::operation::FreshnessRule;
use crate::units::HumanDuration;

/// Freshness of an entry at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// Served without a call.
    Fresh,
    /// Served at once, while a call refreshes it.
    Revalidate,
    /// Served if the carrier fails or is slow.
    IfError,
    /// Never served.
    Expired,
}

/// Lifetimes of entries.
#[derive(Clone, Debug)]
pub struct FreshnessPolicy {
    /// By STATUS and error class.
    pub lifetimes: Lifetimes,
    /// Greatest deviation of a card's freshness from the configured one, in percent.
    pub jitter_percent: u32,
}

impl FreshnessPolicy {
    /// The lifetime of an entry; `None` when it is never stored.
    pub fn lifetime(&self, key: &Key, entry: &Entry) -> Option<Lifetime> {
        let verdict = &entry.reply.verdict;
        let lifetime = match (verdict.class, key.operation.keep) {
            _ if !key.operation.is_lookup() => return None,
            (Class::NotFound, _) => self.lifetimes.not_found,
            // From a file of the time when a success without a STATUS was stored.
            (Class::Ok, FreshnessRule::ByStatus) if verdict.status.is_none() => return None,
            (Class::Ok, FreshnessRule::ByStatus) => *self.lifetimes.of_status(verdict.status.as_ref()),
            (Class::Ok, FreshnessRule::Fixed(lifetime)) => lifetime,
            // Without jitter: the figures of a day change at that time.
            (Class::Ok, FreshnessRule::UntilNineAm(stale_if_error)) => {
                let until_nine_am = until_nine_am(entry.answered_at);
                let fresh = HumanDuration(match &entry.reply.translated {
                    Some(translated) if translated.usage != Usage::Daily => until_nine_am.min(REAL_TIME),
                    _ => until_nine_am,
                });
                return Some(Lifetime {
                    fresh,
                    stale_while_revalidate: HumanDuration::secs(0),
                    stale_if_error,
                });
            }
            _ => return None,
        };
        let fresh = self.jitter(&key.card, lifetime.fresh.0);
        (!fresh.is_zero()).then_some(Lifetime { fresh: HumanDuration(fresh), ..lifetime })
    }

    /// The jitter of a card is the same after a restart and on every proxy.
    fn jitter(&self, card: &Card, fresh: Duration) -> Duration {
        let reach = u64::from(self.jitter_percent.min(100)) * 10;
        if reach == 0 {
            return fresh;
        }
        // FNV-1a, folded, which separates neighbouring numbers well enough.
        let hash = card.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let permille = 1_000 - reach + (hash ^ hash >> 32) % (2 * reach + 1);
        let micros = u128::from(permille) * fresh.as_micros() / 1_000;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// Time for which figures are fresh that the carrier counts until the call, or may count so.
const REAL_TIME: Duration = Duration::from_secs(60);

/// Time from a reply to the next 09:00 at UTC+8, when the carrier has the figures of the day before.
fn until_nine_am(answered_at: Time) -> Duration {
    const DAY: u64 = 86_400;
    // Seconds since the last 09:00 at UTC+8, which is 01:00 UTC.
    let after = (answered_at.as_secs() + DAY - 3_600) % DAY;
    Duration::from_secs(DAY - after)
}

/// An entry this far ahead of the clock is not of the future: requests overtake each other, and NTP adjusts clocks.
pub const TOLERANCE: Duration = Duration::from_secs(2);

/// Whether an entry is of the future: the clock was ahead when it was stored, and has been set back. Its age is unknown.
pub fn is_in_future(answered_at: Time, now: Time) -> bool {
    answered_at > now.plus(TOLERANCE)
}

/// Freshness at `now` of an entry answered at `answered_at`.
pub fn freshness(lifetime: &Lifetime, answered_at: Time, now: Time) -> Freshness {
    if is_in_future(answered_at, now) {
        return Freshness::Expired;
    }
    let age = now.since(answered_at);
    let stale = age.checked_sub(lifetime.fresh.0);
    match stale {
        None => Freshness::Fresh,
        Some(stale) if stale < lifetime.stale_while_revalidate.0 => Freshness::Revalidate,
        Some(stale) if stale < lifetime.stale_if_error.0 => Freshness::IfError,
        Some(_) => Freshness::Expired,
    }
}

/// Time since the end of freshness; zero while the entry is fresh.
pub fn staleness(lifetime: &Lifetime, answered_at: Time, now: Time) -> Duration {
    now.since(answered_at).saturating_sub(lifetime.fresh.0)
}

/// Seconds of freshness that remain, for `Cache-Status` (RFC 9211 2.5): negative once stale.
pub fn ttl(lifetime: &Lifetime, answered_at: Time, now: Time) -> i64 {
    let end = answered_at.plus(lifetime.fresh.0);
    // Rounded down, so that it is negative from the first moment of staleness on.
    end.as_micros().saturating_sub(now.as_micros()).div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::intern::CarrierReply;
    use crate::cache::tests::{entry, key};
    use crate::carrier::dialect::stored_verdict;
    use crate::carrier::verdict::{Code, Translated};
    use proptest::prelude::*;

    const LIFETIME: Lifetime = Lifetime {
        fresh: HumanDuration::secs(60),
        stale_while_revalidate: HumanDuration::secs(30),
        stale_if_error: HumanDuration::secs(600),
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
    fn an_entry_answered_in_the_future_is_expired() {
        let now = Time::from_secs(1_000);
        for (ahead, expected) in [
            (0, Freshness::Fresh),
            (2, Freshness::Fresh),
            (3, Freshness::Expired),
            (86_400, Freshness::Expired),
        ] {
            let answered_at = now.plus(Duration::from_secs(ahead));
            assert_eq!(freshness(&LIFETIME, answered_at, now), expected, "{ahead} s ahead");
        }
    }

    #[test]
    fn ttl_is_negative_just_when_stale() {
        let after = |age: Duration| ttl(&LIFETIME, Time::EPOCH, Time::EPOCH.plus(age));
        assert_eq!(after(Duration::ZERO), 60);
        assert_eq!(after(Duration::from_millis(59_999)), 0);
        assert_eq!(after(Duration::from_millis(60_001)), -1);
        assert_eq!(after(Duration::from_secs(68)), -8);
    }

    fn rules(jitter_percent: u32) -> FreshnessPolicy {
        FreshnessPolicy { lifetimes: Lifetimes::default(), jitter_percent }
    }

    fn reply(code: &str) -> Entry {
        let verdict = stored_verdict(Code::parse(code).unwrap(), None);
        let entry = entry("00", 0);
        Entry { reply: CarrierReply { verdict, ..(*entry.reply).clone() }.into(), ..entry }
    }

    #[test]
    fn errors_of_the_carrier_are_never_stored() {
        let rules = rules(0);
        let key = key("1064800000001");
        for code in ["7", "10", "20", "71", "73", "99", "10006", "777"] {
            assert_eq!(rules.lifetime(&key, &reply(code)), None, "{code}");
        }
        assert_eq!(rules.lifetime(&key, &reply("12")), Some(rules.lifetimes.not_found));
    }

    #[test]
    fn a_fleet_does_not_expire_at_once_and_a_restart_agrees() {
        let fresh = |number| {
            let key = key(&format!("1064800{number:06}"));
            rules(10).lifetime(&key, &reply("12")).unwrap().fresh.0
        };
        let mut by_second = [0; 12];
        for number in 0..12_000 {
            let fresh = fresh(number);
            assert!((54_000..=66_000).contains(&fresh.as_millis()), "{fresh:?}");
            by_second[usize::try_from(fresh.as_millis() - 54_000).unwrap().min(11_999) / 1_000] += 1;
        }
        // Evenly over the whole reach, within a fifth.
        assert!(by_second.iter().all(|count| (800..1_200).contains(count)), "{by_second:?}");
        assert_eq!(fresh(7), fresh(7));
    }

    #[test]
    fn yesterdays_figures_are_fresh_until_nine_in_the_morning() {
        let operations = crate::operation::tests::all();
        let used = Key { operation: operations.named("gprsusedinfosingle").unwrap(), ..key("1064800000001") };
        // 2026-01-15 at UTC+8, by the hour.
        let midnight = Time::from_secs(1_768_406_400);
        for (hours, left) in [(0, 9), (8, 1), (9, 24), (12, 21), (23, 10)] {
            let answered_at = midnight.plus(Duration::from_secs(hours * 3_600));
            let lifetime = rules(10).lifetime(&used, &Entry { answered_at, ..reply("0") }).unwrap();
            assert_eq!(lifetime.fresh, HumanDuration::secs(left * 3_600), "answered at {hours}:00");
        }
    }

    #[test]
    fn figures_of_the_newer_platform_are_fresh_for_a_minute_and_unknown_ones_too() {
        let operations = crate::operation::tests::all();
        let used = Key { operation: operations.named("gprsusedinfosingle").unwrap(), ..key("1064800000001") };
        let plain = reply("0");
        for (usage, fresh) in [(Usage::Daily, 9 * 3_600), (Usage::RealTime, 60), (Usage::Unknown, 60)] {
            let translated = Translated { usage, ..Translated::read("0").unwrap() };
            let reply = CarrierReply { translated: Some(translated.into()), ..(*plain.reply).clone() };
            // Midnight at UTC+8.
            let entry =
                Entry { reply: reply.into(), answered_at: Time::from_secs(1_768_406_400), ..plain.clone() };
            assert_eq!(
                rules(10).lifetime(&used, &entry).unwrap().fresh,
                HumanDuration::secs(fresh),
                "{usage:?}"
            );
        }
    }

    #[test]
    fn an_action_is_never_stored() {
        let operations = crate::operation::tests::all();
        let reset = Key { operation: operations.named("smsstatusreset").unwrap(), ..key("1064800000001") };
        assert_eq!(rules(0).lifetime(&reset, &reply("0")), None);
        assert_eq!(rules(0).lifetime(&reset, &reply("12")), None);
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
