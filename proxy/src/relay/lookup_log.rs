//! The log's lines of lookups: at the target `lookup`, at a level of their own, sampled above a rate.
//!
//! The first lines of each second are written (`[log] lookups_per_second`), then one per [`ONE_IN`] lookups; the others are
//! counted, and the count has a line. Counted refusals (`audit/refusals.rs`) have no line here and do not use up the rate.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use cmiot_signer::{AppId, Card};

use crate::config::{Client, LookupLevel};
use crate::outcome::Outcome;

/// Above the rate, the number of lookups for which one has a line.
const ONE_IN: u32 = 100;

/// The target of the lines, by which RUST_LOG selects them.
const TARGET: &str = "lookup";

/// Decides which lookups have a line.
#[derive(Debug, Default)]
pub struct LookupLog {
    level: AtomicU8,
    per_second: AtomicU32,
    /// The current second of the monotonic clock in the upper half, its number of lookups in the lower half.
    second: AtomicU64,
    unlogged: AtomicU64,
}

/// The line of one lookup.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) peer: IpAddr,
    /// The authenticated client.
    pub(super) client: Option<Arc<Client>>,
    /// The appid that the request claims.
    pub(super) claimed: Option<AppId>,
    pub(super) card: Option<Card>,
    level: LookupLevel,
    /// The number of lookups for which this line is written.
    one_in: u32,
}

impl LookupLog {
    /// With these settings.
    pub fn new(level: LookupLevel, per_second: u32) -> Self {
        let log = Self::default();
        log.set(level, per_second);
        log
    }

    /// Applies other settings.
    pub fn set(&self, level: LookupLevel, per_second: u32) {
        self.level.store(level as u8, Ordering::Relaxed);
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// The level of the lines.
    fn level(&self) -> LookupLevel {
        match self.level.load(Ordering::Relaxed) {
            level if level == LookupLevel::Info as u8 => LookupLevel::Info,
            level if level == LookupLevel::Debug as u8 => LookupLevel::Debug,
            _ => LookupLevel::Off,
        }
    }

    /// Whether lines of lookups are written at all.
    fn is_read(level: LookupLevel) -> bool {
        match level {
            LookupLevel::Info => tracing::enabled!(target: TARGET, tracing::Level::INFO),
            LookupLevel::Debug => tracing::enabled!(target: TARGET, tracing::Level::DEBUG),
            LookupLevel::Off => false,
        }
    }

    /// Decides about one lookup at the monotonic time `now`; none if it has no line.
    pub(super) fn sample(&self, now: Duration) -> Option<Sampled> {
        let level = self.level();
        if !Self::is_read(level) {
            return None;
        }
        let second = now.as_secs() & u64::from(u32::MAX);
        let next = |before: u64| if before >> 32 == second { before + 1 } else { second << 32 | 1 };
        // The lower half cannot overflow: no second has 2^32 lookups.
        let before =
            self.second.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| Some(next(before)));
        let number = next(before.unwrap_or_else(|before| before)) & u64::from(u32::MAX);
        let above = number.saturating_sub(u64::from(self.per_second.load(Ordering::Relaxed)));
        if above == 0 {
            return Some(Sampled { level, one_in: 1 });
        }
        if above.is_multiple_of(u64::from(ONE_IN)) {
            return Some(Sampled { level, one_in: ONE_IN });
        }
        self.unlogged.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Logs the number of lookups without a line since the last call; called on a ticker.
    pub(super) fn report(&self) {
        let count = self.unlogged.swap(0, Ordering::Relaxed);
        if count == 0 {
            return;
        }
        match self.level() {
            LookupLevel::Info => tracing::info!(target: TARGET, count, "lookups without a line"),
            LookupLevel::Debug => tracing::debug!(target: TARGET, count, "lookups without a line"),
            LookupLevel::Off => {}
        }
    }
}

/// The decision that a lookup has a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sampled {
    level: LookupLevel,
    one_in: u32,
}

impl Sampled {
    /// The line, whose result follows.
    pub(super) fn line(
        self,
        peer: IpAddr,
        client: Option<Arc<Client>>,
        claimed: Option<AppId>,
        card: Option<Card>,
    ) -> Line {
        Line { peer, client, claimed, card, level: self.level, one_in: self.one_in }
    }
}

impl Line {
    /// Writes the line.
    pub(super) fn write(&self, outcome: Outcome, reason: &str, latency: Duration) {
        let client = self.client.as_ref().map(|client| client.appid.as_str());
        // An appid that is not authenticated is only a claim.
        let claimed = self.claimed.as_ref().map(AppId::as_str).filter(|_| client.is_none());
        let card = self.card.as_ref().map(|card| card.masked().to_string());
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let one_in = (self.one_in > 1).then_some(self.one_in);
        let (peer, outcome) = (self.peer, outcome.name());
        macro_rules! write {
            ($level:ident) => {
                tracing::$level!(
                    target: TARGET,
                    outcome, reason, %peer, client, claimed, card, latency_us, one_in, "lookup"
                )
            };
        }
        match self.level {
            LookupLevel::Info => write!(info),
            LookupLevel::Debug => write!(debug),
            LookupLevel::Off => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_rate_one_lookup_in_a_hundred_has_a_line() {
        let subscriber = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
        tracing::subscriber::with_default(subscriber, || {
            let log = LookupLog::new(LookupLevel::Info, 3);
            let lines = |second| -> Vec<u32> {
                let now = Duration::from_secs(second);
                (0..303).filter_map(|_| log.sample(now)).map(|sampled| sampled.one_in).collect()
            };
            assert_eq!(lines(7), [1, 1, 1, ONE_IN, ONE_IN, ONE_IN]);
            assert_eq!(log.unlogged.load(Ordering::Relaxed), 297);
            assert_eq!(lines(8).len(), 6, "each second begins again");
            log.set(LookupLevel::Off, 3);
            assert_eq!(lines(9), [0_u32; 0]);
            log.set(LookupLevel::Debug, 3);
            assert_eq!(lines(10), [0_u32; 0], "the subscriber's level is INFO");
        });
    }
}
