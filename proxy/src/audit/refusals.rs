//! Refusals before authentication: the first few a peer and reason in a period have a record each, further ones a count.
//!
//! Whoever has no credentials can make as many as the network carries; what that writes is bounded: `each` records for
//! at most [`MOST`] peers and reasons, and a count for each of them and each reason of all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Time;
use crate::config::Auditing;
use crate::store::audit::RefusedRow;

/// Peers and reasons told apart in a period.
const MOST: usize = 4_096;

/// Tells the first from the further ones.
pub struct Refusals {
    each: u32,
    period: Duration,
    current: Mutex<Period>,
}

#[derive(Default)]
struct Period {
    /// By the monotonic clock.
    ends: Duration,
    seen: HashMap<(Option<IpAddr>, &'static str), Seen>,
}

#[derive(Default)]
struct Seen {
    recorded: u32,
    /// Count, first, last.
    counted: Option<(u64, Time, Time)>,
}

impl Refusals {
    /// As configured.
    pub fn new(settings: &Auditing) -> Self {
        Self { each: settings.refusals, period: settings.refusal_period, current: Mutex::default() }
    }

    /// Whether a refusal has a record of its own; otherwise it has been counted.
    pub(super) fn is_recorded(&self, peer: IpAddr, reason: &'static str, at: Time) -> bool {
        let mut period = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let known = period.seen.len() < MOST || period.seen.contains_key(&(Some(peer), reason));
        let seen = period.seen.entry((known.then_some(peer), reason)).or_default();
        if known && seen.recorded < self.each {
            seen.recorded += 1;
            return true;
        }
        let (count, first, last) = seen.counted.unwrap_or((0, at, at));
        seen.counted = Some((count + 1, first.min(at), last.max(at)));
        false
    }

    /// The counts of a period that is over, and the next one begins.
    pub(super) fn take_if_over(&self, now: Duration) -> Vec<RefusedRow> {
        let mut period = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now < period.ends {
            return Vec::new();
        }
        let ends = now.saturating_add(self.period);
        rows(std::mem::replace(&mut *period, Period { ends, seen: HashMap::new() }))
    }

    /// The counts so far: the last of the process.
    pub(super) fn take(&self) -> Vec<RefusedRow> {
        rows(std::mem::take(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn rows(period: Period) -> Vec<RefusedRow> {
    let counted = period.seen.into_iter().filter_map(|((peer, reason), seen)| {
        let (count, first, last) = seen.counted?;
        Some(RefusedRow { peer, reason, count, first, last })
    });
    counted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(each: u32) -> Refusals {
        Refusals { each, period: Duration::from_secs(60), current: Mutex::default() }
    }

    fn at(seconds: i64) -> Time {
        Time::from_secs(seconds)
    }

    #[test]
    fn the_first_are_recorded_and_the_rest_counted_until_the_period_ends() {
        let refusals = refusals(2);
        let peer = |last: u8| IpAddr::from([192, 0, 2, last]);
        assert_eq!(refusals.take_if_over(Duration::from_secs(1_000)), []);
        let recorded = [0, 1, 2, 3].map(|n| refusals.is_recorded(peer(1), "token", at(n)));
        assert_eq!(recorded, [true, true, false, false]);
        assert!(refusals.is_recorded(peer(2), "token", at(4)), "another peer");
        assert!(refusals.is_recorded(peer(1), "no-card", at(5)), "another reason");
        assert_eq!(refusals.take_if_over(Duration::from_secs(1_059)), []);
        let row = RefusedRow { peer: Some(peer(1)), reason: "token", count: 2, first: at(2), last: at(3) };
        assert_eq!(refusals.take_if_over(Duration::from_secs(1_060)), [row]);
        assert!(refusals.is_recorded(peer(1), "token", at(6)), "a new period");
        assert_eq!(refusals.take(), []);
    }

    #[test]
    fn peers_without_number_write_no_more_than_so_many_records() {
        let refusals = refusals(1);
        let tried = 3 * u32::try_from(MOST).unwrap();
        let recorded = (0..tried)
            .filter(|n| refusals.is_recorded(IpAddr::from(n.to_be_bytes()), "token", at(0)))
            .count();
        assert_eq!(recorded, MOST);
        let counts = refusals.take();
        assert_eq!(counts.len(), 1);
        assert_eq!((counts[0].peer, counts[0].count), (None, u64::from(tried) - MOST as u64));
    }
}
