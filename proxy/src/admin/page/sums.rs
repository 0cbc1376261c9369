//! The sums of an hour of the audit: lookups by outcome, calls, latencies, clients and refusals, all of them bounded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cmiot_signer::{AppId, Transid};

use super::histogram::Histogram;
use crate::outcome::Outcome;
use crate::store::audit::query::{Counted, CountedLookup};

/// Clients, and refused peers and reasons, that an hour distinguishes.
const MAX_CLIENTS: usize = 20_000;
const MAX_REFUSALS: usize = 2_000;

/// Microseconds of an hour. Hours at UTC+8 begin when those of UTC do.
pub(super) const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = HOUR / 60;

/// Whether a client is listed: then a lookup counts for it also while its token is wrong.
pub(super) type IsListed = Arc<dyn Fn(&AppId) -> bool + Send + Sync>;

/// The sums of an hour.
#[derive(Clone, Debug, Default)]
pub(super) struct Hour {
    /// Lookups, by the position of their outcome in [`Outcome::ALL`].
    pub(super) outcomes: [u64; 6],
    /// Refusals that were only counted.
    pub(super) counted: u64,
    /// Attempts at the carrier, by account.
    pub(super) calls: BTreeMap<Arc<str>, u64>,
    /// The same by minute, if its clients count.
    pub(super) minutes: BTreeMap<Arc<str>, [u32; 60]>,
    pub(super) latency: Histogram,
    pub(super) clients: HashMap<AppId, ClientHour>,
    /// By peer and reason; those of further peers are without one.
    pub(super) refusals: HashMap<(Option<Arc<str>>, Arc<str>), RefusalHour>,
}

/// The sums of a client in an hour.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientHour {
    pub(super) outcomes: [u32; 6],
    /// Refused requests and failed lookups, by reason.
    pub(super) reasons: BTreeMap<Arc<str>, u32>,
    /// The last request.
    pub(super) last: i64,
    /// The stamp of its transid less its arrival, in seconds: how far the gateway's clock is ahead.
    pub(super) ahead: Option<i64>,
}

/// The refusals of a peer for one reason in an hour.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusalHour {
    pub(super) count: u64,
    pub(super) last: i64,
    /// The last client that was named, authenticated or not.
    pub(super) client: Option<AppId>,
}

impl Hour {
    pub(super) fn lookups(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    pub(super) fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[position(outcome)]
    }

    pub(super) fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }

    /// The percentage of carrier replies that came fresh from the cache; none without a reply.
    pub(super) fn hit_percent(&self) -> Option<f64> {
        let answered: u64 = Outcome::ANSWERED.iter().map(|&outcome| self.outcome(outcome)).sum();
        // Exact up to 2^53 lookups.
        (answered > 0).then(|| 100.0 * self.outcome(Outcome::Hit) as f64 / answered as f64)
    }

    /// A percentile of the latency, in milliseconds; none without a lookup.
    pub(super) fn latency_ms(&self, percent: u64) -> Option<f64> {
        self.latency.percentile(percent).map(|micros| micros as f64 / 1e3)
    }

    /// Drops what only the hours of the last day have.
    pub(super) fn keep_totals(&mut self) {
        (self.clients, self.refusals) = (HashMap::new(), HashMap::new());
        self.minutes = BTreeMap::new();
    }

    /// Whether it has more than totals.
    pub(super) fn has_details(&self) -> bool {
        !(self.clients.is_empty() && self.refusals.is_empty() && self.minutes.is_empty())
    }

    /// Adds the totals of another hour, without its clients and refusals.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, more) in self.outcomes.iter_mut().zip(other.outcomes) {
            *sum += more;
        }
        self.counted += other.counted;
        for (account, calls) in &other.calls {
            *self.calls.entry(Arc::clone(account)).or_default() += calls;
        }
        self.latency.add(&other.latency);
    }
}

fn position(outcome: Outcome) -> usize {
    outcome as usize
}

/// The sums of some rows.
pub(super) struct Part<'a> {
    /// The first hour whose clients and refusals count.
    detailed: i64,
    is_listed: &'a IsListed,
    pub(super) hours: BTreeMap<i64, Hour>,
    /// The oldest and the newest time of a lookup among them.
    pub(super) times: Option<(i64, i64)>,
}

impl<'a> Part<'a> {
    /// Without rows. Hours before `detailed` count no clients and refusals.
    pub(super) fn new(detailed: i64, is_listed: &'a IsListed) -> Self {
        Self { detailed, is_listed, hours: BTreeMap::new(), times: None }
    }

    /// Adds a row.
    pub(super) fn count(&mut self, row: Counted<'_>) {
        match row {
            Counted::Lookup(lookup) => self.lookup(&lookup),
            Counted::Call { at, account } => {
                let begin = hour_of(at.as_micros());
                let hour = self.hours.entry(begin).or_default();
                *hour.calls.entry(Arc::clone(account)).or_default() += 1;
                if begin >= self.detailed {
                    hour.minutes.entry(Arc::clone(account)).or_insert([0; 60])[minute_of(at.as_micros())] +=
                        1;
                }
            }
            Counted::Refused { at, peer, reason, count } => {
                let begin = hour_of(at.as_micros());
                let hour = self.hours.entry(begin).or_default();
                hour.counted += count;
                if begin >= self.detailed {
                    refuse(hour, peer, reason, count, at.as_micros(), None);
                }
            }
        }
    }

    fn lookup(&mut self, lookup: &CountedLookup<'_>) {
        let at = lookup.at.as_micros();
        self.times = Some(self.times.map_or((at, at), |(oldest, newest)| (oldest.min(at), newest.max(at))));
        let begin = hour_of(at);
        let hour = self.hours.entry(begin).or_default();
        let Some(outcome) = Outcome::ALL.iter().position(|one| one.name() == &**lookup.outcome) else {
            return;
        };
        hour.outcomes[outcome] += 1;
        hour.latency.record(lookup.latency);
        if begin < self.detailed {
            return;
        }
        let client = lookup.client.and_then(|client| AppId::parse(client).ok());
        // Answered lookups may have a reason too, such as `alone`.
        let reason =
            lookup.reason.filter(|_| [Outcome::Refused, Outcome::Failed].contains(&Outcome::ALL[outcome]));
        if let Some(reason) = reason {
            refuse(hour, Some(lookup.peer), reason, 1, at, client);
        }
        let counts = |client: &AppId| lookup.authenticated || (self.is_listed)(client);
        let Some(client) = client.filter(counts) else { return };
        let Some(sums) = client_of(hour, client) else { return };
        sums.outcomes[outcome] += 1;
        if let Some(reason) = reason {
            *sums.reasons.entry(Arc::clone(reason)).or_default() += 1;
        }
        if at >= sums.last {
            sums.last = at;
            let stamp = lookup.transid.and_then(|transid| Transid::parse(transid).ok());
            let stamp = stamp.and_then(|transid| i64::try_from(transid.stamp().to_unix()).ok());
            sums.ahead = stamp.map(|stamp| stamp - at.div_euclid(1_000_000)).or(sums.ahead);
        }
    }
}

/// The sums of a client; none for one more than an hour distinguishes.
fn client_of(hour: &mut Hour, client: AppId) -> Option<&mut ClientHour> {
    let has_room = hour.clients.len() < MAX_CLIENTS || hour.clients.contains_key(&client);
    has_room.then(|| hour.clients.entry(client).or_default())
}

/// The sums of a peer and a reason; those of the reason alone for one more than an hour distinguishes.
fn refusals_of(hour: &mut Hour, peer: Option<Arc<str>>, reason: Arc<str>) -> &mut RefusalHour {
    let mut key = (peer, reason);
    if hour.refusals.len() >= MAX_REFUSALS && !hour.refusals.contains_key(&key) {
        key.0 = None;
    }
    hour.refusals.entry(key).or_default()
}

fn refuse(
    hour: &mut Hour,
    peer: Option<&str>,
    reason: &Arc<str>,
    count: u64,
    at: i64,
    client: Option<AppId>,
) {
    add_refusals(hour, peer.map(Arc::from), Arc::clone(reason), &RefusalHour { count, last: at, client });
}

fn add_refusals(hour: &mut Hour, peer: Option<Arc<str>>, reason: Arc<str>, more: &RefusalHour) {
    let sums = refusals_of(hour, peer, reason);
    sums.count += more.count;
    sums.last = sums.last.max(more.last);
    sums.client = more.client.or(sums.client);
}

/// Adds the sums of more rows of an hour.
pub(super) fn merge(hour: &mut Hour, more: Hour) {
    hour.add(&more);
    for (account, more) in more.minutes {
        let sums = hour.minutes.entry(account).or_insert([0; 60]);
        sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    for (client, more) in more.clients {
        let Some(sums) = client_of(hour, client) else { continue };
        for (sum, more) in sums.outcomes.iter_mut().zip(more.outcomes) {
            *sum += more;
        }
        for (reason, count) in more.reasons {
            *sums.reasons.entry(reason).or_default() += count;
        }
        if more.last >= sums.last {
            (sums.last, sums.ahead) = (more.last, more.ahead.or(sums.ahead));
        }
    }
    for ((peer, reason), more) in more.refusals {
        add_refusals(hour, peer, reason, &more);
    }
}

/// The begin of the hour of a time, both in microseconds.
pub(super) fn hour_of(at: i64) -> i64 {
    at.div_euclid(HOUR) * HOUR
}

/// The minute of its hour in which a time in microseconds is, 0 to 59.
fn minute_of(at: i64) -> usize {
    // At most 59.
    usize::try_from(at.rem_euclid(HOUR) / MINUTE).unwrap_or_default()
}

/// The calls of an account in the last whole minute.
pub(super) fn last_minute(hours: &BTreeMap<i64, Arc<Hour>>, account: &str, now: i64) -> u32 {
    let at = now - MINUTE;
    let minutes = hours.get(&hour_of(at)).and_then(|hour| hour.minutes.get(account));
    minutes.map_or(0, |minutes| minutes[minute_of(at)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    /// 2026-01-15T12:00:00+08:00
    const NOON: i64 = 1_768_449_600_000_000;

    fn lookup<'a>(
        at: i64,
        outcome: &'a Arc<str>,
        client: Option<&'a str>,
        reason: Option<&'a Arc<str>>,
        peer: &'a str,
    ) -> Counted<'a> {
        Counted::Lookup(CountedLookup {
            at: Time::from_micros(at),
            outcome,
            reason,
            client,
            authenticated: true,
            peer,
            transid: None,
            latency: 1_000,
        })
    }

    #[test]
    fn an_hour_distinguishes_a_bounded_number_of_clients_and_peers_and_counts_all() {
        let is_listed: IsListed = Arc::new(|_| true);
        let mut part = Part::new(NOON, &is_listed);
        let (refused, rate): (Arc<str>, Arc<str>) = ("refused".into(), "rate".into());
        let more = 50;
        for number in 0..MAX_CLIENTS + more {
            let (client, peer) = (format!("GW{number}"), format!("2001:db8::{number:x}"));
            part.count(lookup(NOON, &refused, Some(&client), Some(&rate), &peer));
        }
        let hour = part.hours.remove(&NOON).unwrap();
        assert_eq!(hour.clients.len(), MAX_CLIENTS);
        // One more, without a peer, has the rest.
        assert_eq!(hour.refusals.len(), MAX_REFUSALS + 1);
        let rest = hour.refusals[&(None, rate.clone())].count;
        assert_eq!(rest, (MAX_CLIENTS + more - MAX_REFUSALS) as u64);
        assert_eq!(hour.outcome(Outcome::Refused), (MAX_CLIENTS + more) as u64);
        // Two hours as one keep the bounds, and lose no count.
        let mut both = hour.clone();
        merge(&mut both, hour);
        assert_eq!((both.clients.len(), both.refusals.len()), (MAX_CLIENTS, MAX_REFUSALS + 1));
        let counts: u64 = both.refusals.values().map(|one| one.count).sum();
        assert_eq!(counts, 2 * (MAX_CLIENTS + more) as u64);
    }

    #[test]
    fn an_hour_of_before_the_details_has_totals_only() {
        let is_listed: IsListed = Arc::new(|_| true);
        let mut part = Part::new(NOON + HOUR, &is_listed);
        let (refused, rate, account): (Arc<str>, Arc<str>, Arc<str>) =
            ("refused".into(), "rate".into(), "fleet".into());
        for at in [NOON, NOON + HOUR] {
            part.count(lookup(at, &refused, Some("GW1"), Some(&rate), "192.0.2.1"));
            part.count(Counted::Call { at: Time::from_micros(at), account: &account });
        }
        let [before, after] = [NOON, NOON + HOUR].map(|begin| part.hours[&begin].clone());
        assert!(!before.has_details() && after.has_details());
        assert_eq!((before.lookups(), before.all_calls()), (after.lookups(), after.all_calls()));
        let mut totals = after.clone();
        totals.keep_totals();
        assert!(!totals.has_details());
        assert_eq!((totals.lookups(), totals.all_calls()), (1, 1));
    }

    #[test]
    fn the_calls_of_the_last_whole_minute_are_counted_over_the_end_of_an_hour_too() {
        let is_listed: IsListed = Arc::new(|_| true);
        let mut part = Part::new(NOON, &is_listed);
        let account: Arc<str> = "fleet".into();
        // Three in the last minute of an hour, one in the first of the next.
        for at in [HOUR - MINUTE, HOUR - 2, HOUR - 1, HOUR] {
            part.count(Counted::Call { at: Time::from_micros(NOON + at), account: &account });
        }
        let hours = part.hours.into_iter().map(|(begin, hour)| (begin, Arc::new(hour))).collect();
        for (now, calls) in
            [(HOUR - 1, 0), (HOUR, 3), (HOUR + MINUTE - 1, 3), (HOUR + MINUTE, 1), (HOUR + 2 * MINUTE, 0)]
        {
            assert_eq!(last_minute(&hours, "fleet", NOON + now), calls, "{now}");
        }
        assert_eq!(last_minute(&hours, "other", NOON + HOUR), 0);
    }
}
