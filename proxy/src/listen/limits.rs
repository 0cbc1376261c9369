//! Connection limits, in total and per peer, and counts of connections per peer.
//!
//! The last 10 % of the connections are reserved for peers with fewer than two: a flood of connections from many addresses
//! fills 90 %, and a gateway still gets its first connection.
//!
//! A peer is an IPv4 address, or the first 64 bits of an IPv6 address. The table has an entry for every connected peer,
//! and for the first [`MAX_IDLE_PEERS`] others that sent input that is not HTTP.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peer::peer_of;

/// The number of peers whose counts are kept after their last connection.
const MAX_IDLE_PEERS: usize = 1_000;

/// The limit per peer once 90 % of all connections are open.
const RESERVED_PER_PEER: usize = 2;

/// The connections of one listener.
#[derive(Clone, Debug, Default)]
pub struct ConnectionLimiter(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    all: usize,
    peers: HashMap<IpAddr, PeerStats>,
}

/// The counts of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerStats {
    /// Open connections.
    pub connections: usize,
    /// Connections over a limit.
    pub shed: u64,
    /// Connections that ended because their input was not HTTP.
    pub unparsed: u64,
}

/// A connection's permit, released when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limiter: ConnectionLimiter,
    /// The peer; `None` for a trusted proxy that has not named its client.
    peer: Option<IpAddr>,
}

/// The limit that a connection exceeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LimitReached {
    All,
    Peer,
}

impl ConnectionLimiter {
    /// Takes a permit within the total; [`ConnectionPermit::for_peer`] then counts it against its peer.
    pub(super) fn acquire(&self, max_connections: usize) -> Result<ConnectionPermit, LimitReached> {
        let mut table = self.lock();
        if table.all >= max_connections {
            return Err(LimitReached::All);
        }
        table.all += 1;
        Ok(ConnectionPermit { limiter: self.clone(), peer: None })
    }

    pub fn open_connections(&self) -> usize {
        self.lock().all
    }

    /// The peers with the most connections, then with the most input that is not HTTP.
    pub fn top_peers(&self, count: usize) -> Vec<(IpAddr, PeerStats)> {
        let mut peers: Vec<_> = self.lock().peers.iter().map(|(peer, stats)| (*peer, *stats)).collect();
        peers.sort_by_key(|(peer, stats)| {
            (std::cmp::Reverse((stats.connections, stats.unparsed, stats.shed)), *peer)
        });
        peers.truncate(count);
        peers
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No step leaves the table inconsistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Counts the permit against the peer of this address, which may have `per_peer` of `total` connections.
    pub(super) fn for_peer(
        mut self,
        address: IpAddr,
        per_peer: usize,
        total: usize,
    ) -> Result<Self, LimitReached> {
        let peer = peer_of(address);
        let mut table = self.limiter.lock();
        let limit = if table.all > total - total / 10 { per_peer.min(RESERVED_PER_PEER) } else { per_peer };
        let stats = table.peers.entry(peer).or_default();
        if stats.connections >= limit {
            stats.shed += 1;
            return Err(LimitReached::Peer);
        }
        stats.connections += 1;
        drop(table);
        self.peer = Some(peer);
        Ok(self)
    }

    /// Counts input that is not HTTP against the peer. Returns whether it is the peer's first.
    pub(super) fn count_parse_error(&self) -> bool {
        let Some(peer) = self.peer else { return false };
        let mut table = self.limiter.lock();
        let Some(stats) = table.peers.get_mut(&peer) else { return false };
        stats.unparsed += 1;
        stats.unparsed == 1
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut table = self.limiter.lock();
        table.all -= 1;
        let Some(peer) = self.peer else { return };
        let full = table.peers.len() > MAX_IDLE_PEERS;
        if let Some(stats) = table.peers.get_mut(&peer) {
            stats.connections -= 1;
            if stats.connections == 0 && (full || *stats == PeerStats::default()) {
                table.peers.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, n])
    }

    #[test]
    fn permits_are_counted_in_total_and_per_peer_and_are_released() {
        let limiter = ConnectionLimiter::default();
        let take = |n| limiter.acquire(3).and_then(|permit| permit.for_peer(peer(n), 2, 3));
        let (first, second, _other) = (take(1).unwrap(), take(1).unwrap(), take(2).unwrap());
        assert_eq!(take(3).err(), Some(LimitReached::All));
        drop(first);
        let third = take(1).unwrap();
        drop(second);
        assert_eq!(limiter.open_connections(), 2);
        let _fourth = take(1).unwrap();
        drop(third);
        assert!(
            limiter.acquire(9).unwrap().for_peer(peer(1), 1, 9).is_err_and(|full| full == LimitReached::Peer)
        );
        assert_eq!(limiter.top_peers(1), [(peer(1), PeerStats { connections: 1, shed: 1, unparsed: 0 })]);
    }

    #[test]
    fn an_ipv6_peer_is_its_first_64_bits() {
        let limiter = ConnectionLimiter::default();
        let take = |address: &str| limiter.acquire(9).unwrap().for_peer(address.parse().unwrap(), 2, 90);
        let one = take("2001:db8:1:2::1").unwrap();
        let _two = take("2001:db8:1:2:ffff:ffff:ffff:ffff").unwrap();
        assert_eq!(take("2001:db8:1:2:3::4").err(), Some(LimitReached::Peer));
        let _next = take("2001:db8:1:3::1").unwrap();
        let _mapped = [take("::ffff:192.0.2.1").unwrap(), take("192.0.2.1").unwrap()];
        assert_eq!(take("192.0.2.1").err(), Some(LimitReached::Peer), "IPv4 in IPv6 is IPv4");
        let _other = take("::ffff:192.0.2.2").unwrap();
        drop(one);
        let _again = take("2001:db8:1:2:3::4").unwrap();
        let (peer, stats) = limiter.top_peers(1)[0];
        assert_eq!((peer.to_string().as_str(), stats.connections, stats.shed), ("192.0.2.1", 2, 1));
    }

    #[test]
    fn the_last_tenth_is_reserved_for_first_connections() {
        let limiter = ConnectionLimiter::default();
        let take = |n| limiter.acquire(100).and_then(|permit| permit.for_peer(peer(n), 90, 100));
        let many: Vec<_> = (0..90).map(|_| take(1).unwrap()).collect();
        assert_eq!(take(1).err(), Some(LimitReached::Peer), "and its own limit is 90 too");
        drop(many);
        let both: Vec<_> = (0..90).map(|n| take(1 + n % 2).unwrap()).collect();
        assert_eq!(take(1).err(), Some(LimitReached::Peer), "it holds 45");
        let two = [take(3).unwrap(), take(3).unwrap()];
        assert_eq!(take(3).err(), Some(LimitReached::Peer), "it holds two");
        let few: Vec<_> = (4..12).map(|n| take(n).unwrap()).collect();
        assert_eq!(take(20).err(), Some(LimitReached::All));
        drop(two);
        drop((both, few));
    }

    #[test]
    fn peers_with_parse_errors_are_kept_and_others_are_not() {
        let limiter = ConnectionLimiter::default();
        let take = |n| limiter.acquire(9).unwrap().for_peer(peer(n), 9, 9).unwrap();
        let broken = take(1);
        assert!(broken.count_parse_error());
        assert!(!broken.count_parse_error());
        drop(broken);
        drop(take(2));
        assert_eq!(limiter.top_peers(9), [(peer(1), PeerStats { connections: 0, shed: 0, unparsed: 2 })]);
    }
}
