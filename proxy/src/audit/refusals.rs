//! Requests that are not admitted: per period, the first few of a client or peer with the same reason have a record
//! each, further ones a count.
//!
//! Peers without credentials can send as many as the network carries, and so can a peer with one captured request,
//! which is refused for its transid each time. The rows are bounded: `each` records for at most [`PEERS`] pairs of peer
//! and reason and [`CLIENTS`] pairs of client and reason, and a count per pair and per reason of all others. An
//! admitted request marks its transid used, and always has a record.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;

use crate::clock::Time;
use crate::config::AuditConfig;
use crate::peer::peer_of;
use crate::store::audit::RefusedRow;

/// Pairs of peer and reason per period, of requests that were not authenticated.
const PEERS: usize = 4_096;

/// Pairs of client and reason per period.
const CLIENTS: usize = 16_384;

/// Decides which refusals have a record, and counts the others.
pub struct Refusals {
    each: u32,
    period: Duration,
    current: Mutex<Period>,
}

#[derive(Default)]
struct Period {
    /// By the monotonic clock.
    ends: Duration,
    peers: Seen<IpAddr>,
    clients: Seen<AppId>,
}

/// Refusals by peer or client and reason; without a peer or client, all those beyond the limit.
type Seen<K> = HashMap<(Option<K>, &'static str), Refused>;

#[derive(Default)]
struct Refused {
    recorded: u32,
    counted: Option<Counted>,
}

/// The refusals that were not recorded.
struct Counted {
    count: u64,
    first: Time,
    last: Time,
    /// None when there were several.
    peer: Option<IpAddr>,
}

impl Refusals {
    pub fn new(settings: &AuditConfig) -> Self {
        Self { each: settings.refusals, period: settings.refusal_period, current: Mutex::default() }
    }

    /// Whether a refusal has a record of its own; if not, it is counted. `client` was authenticated.
    pub(super) fn is_recorded(
        &self,
        client: Option<AppId>,
        peer: IpAddr,
        reason: &'static str,
        at: Time,
    ) -> bool {
        let mut period = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, refused) = match client {
            Some(client) => find(&mut period.clients, CLIENTS, client, reason),
            // By /64 for IPv6: one host has every address in it.
            None => find(&mut period.peers, PEERS, peer_of(peer), reason),
        };
        if known && refused.recorded < self.each {
            refused.recorded += 1;
            return true;
        }
        let peer = (known || client.is_some()).then_some(peer);
        refused.counted = Some(match refused.counted.take() {
            None => Counted { count: 1, first: at, last: at, peer },
            Some(before) => Counted {
                count: before.count + 1,
                first: before.first.min(at),
                last: before.last.max(at),
                peer: before.peer.filter(|before| Some(*before) == peer),
            },
        });
        false
    }

    /// The counts of a period that has ended; begins the next one.
    pub(super) fn take_if_ended(&self, now: Duration) -> Vec<RefusedRow> {
        let mut period = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now < period.ends {
            return Vec::new();
        }
        let ends = now.saturating_add(self.period);
        rows(std::mem::replace(&mut *period, Period { ends, ..Period::default() }))
    }

    /// The counts so far: the last of the process.
    pub(super) fn take(&self) -> Vec<RefusedRow> {
        rows(std::mem::take(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The entry of a pair, and whether the pair has an entry of its own.
fn find<'a, K: Copy + Eq + std::hash::Hash>(
    seen: &'a mut Seen<K>,
    most: usize,
    key: K,
    reason: &'static str,
) -> (bool, &'a mut Refused) {
    let known = seen.len() < most || seen.contains_key(&(Some(key), reason));
    (known, seen.entry((known.then_some(key), reason)).or_default())
}

fn rows(period: Period) -> Vec<RefusedRow> {
    let of_peers = period.peers.into_iter().map(|((_, reason), refused)| (reason, refused));
    let of_clients = period.clients.into_iter().map(|((_, reason), refused)| (reason, refused));
    let counted = of_peers.chain(of_clients).filter_map(|(reason, refused)| {
        let Counted { count, first, last, peer } = refused.counted?;
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
        assert_eq!(refusals.take_if_ended(Duration::from_secs(1_000)), []);
        let recorded = [0, 1, 2, 3].map(|n| refusals.is_recorded(None, peer(1), "token", at(n)));
        assert_eq!(recorded, [true, true, false, false]);
        assert!(refusals.is_recorded(None, peer(2), "token", at(4)), "another peer");
        assert!(refusals.is_recorded(None, peer(1), "no-card", at(5)), "another reason");
        assert_eq!(refusals.take_if_ended(Duration::from_secs(1_059)), []);
        let row = RefusedRow { peer: Some(peer(1)), reason: "token", count: 2, first: at(2), last: at(3) };
        assert_eq!(refusals.take_if_ended(Duration::from_secs(1_060)), [row]);
        assert!(refusals.is_recorded(None, peer(1), "token", at(6)), "a new period");
        assert_eq!(refusals.take(), []);
    }

    #[test]
    fn peers_without_number_write_no_more_than_so_many_records() {
        let refusals = refusals(1);
        let tried = 3 * u32::try_from(PEERS).unwrap();
        let recorded = (0..tried)
            .filter(|n| refusals.is_recorded(None, IpAddr::from(n.to_be_bytes()), "token", at(0)))
            .count();
        assert_eq!(recorded, PEERS);
        let counts = refusals.take();
        assert_eq!(counts.len(), 1);
        assert_eq!((counts[0].peer, counts[0].count), (None, u64::from(tried) - PEERS as u64));
    }

    #[test]
    fn the_addresses_of_an_ipv6_host_are_one_peer() {
        let refusals = refusals(2);
        let peer = |host: u16| IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, host]);
        let recorded = [1, 2, 3, 4].map(|n| refusals.is_recorded(None, peer(n), "token", at(i64::from(n))));
        assert_eq!(recorded, [true, true, false, false]);
        let other = IpAddr::from([0x2001, 0xdb8, 1, 3, 0, 0, 0, 1]);
        assert!(refusals.is_recorded(None, other, "token", at(5)));
        let row = RefusedRow { peer: None, reason: "token", count: 2, first: at(3), last: at(4) };
        assert_eq!(refusals.take(), [row], "of several addresses none is named");
    }

    #[test]
    fn a_clients_refusals_are_bounded_wherever_they_come_from() {
        let refusals = refusals(2);
        let (one, other) = (AppId::parse("A1").unwrap(), AppId::parse("B1").unwrap());
        let peer = |last: u8| IpAddr::from([192, 0, 2, last]);
        let is_recorded = |client, last, n| refusals.is_recorded(Some(client), peer(last), "rate", at(n));
        assert_eq!([0, 1, 2, 3].map(|n| is_recorded(one, 1, n)), [true, true, false, false]);
        assert!(refusals.is_recorded(Some(other), peer(1), "rate", at(4)), "another client");
        assert!(refusals.is_recorded(None, peer(1), "rate", at(4)), "nobody's");
        let row =
            |peer, count, last| RefusedRow { peer, reason: "rate", count, first: at(2), last: at(last) };
        assert_eq!(refusals.take(), [row(Some(peer(1)), 2, 3)]);
        // From another address it is the same client.
        for n in 0..4 {
            is_recorded(one, 1, n);
        }
        assert!(!is_recorded(one, 2, 4));
        assert_eq!(refusals.take(), [row(None, 3, 4)]);
    }
}
