//! Who is connected: so many in all, so many from one peer; and whose bytes were not HTTP.
//!
//! The last tenth of the limiter is for peers that hold fewer than two: whoever opens connections from many addresses at
//! once fills nine tenths, and a gateway that comes with its first still finds its permit.
//!
//! A peer is an IPv4 address, or the first 64 bits of an IPv6 address.
//!
//! The table holds a line for every peer that is connected, and for the first [`MAX_IDLE_PEERS`] that sent garbage.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peer::peer_of;

/// Peers whose garbage is remembered after they left.
const MAX_IDLE_PEERS: usize = 1_000;

/// What a peer may hold once nine tenths of all limiter are taken.
const RESERVED_PER_PEER: usize = 2;

/// The connections of one listener.
#[derive(Clone, Debug, Default)]
pub struct ConnectionLimiter(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    all: usize,
    peers: HashMap<IpAddr, PeerStats>,
}

/// What is known of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerStats {
    /// Connections open.
    pub connections: usize,
    /// Connections that were turned away.
    pub shed: u64,
    /// Connections that ended because what came was not HTTP.
    pub unparsed: u64,
}

/// A connection's permit, given back when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limiter: ConnectionLimiter,
    /// Whose; none while a trusted proxy has not said for whom it connects.
    peer: Option<IpAddr>,
}

/// Why there is no permit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LimitReached {
    All,
    Peer,
}

impl ConnectionLimiter {
    /// Takes a permit among all; [`ConnectionPermit::for_peer`] then counts it to its peer.
    pub(super) fn acquire(&self, most: usize) -> Result<ConnectionPermit, LimitReached> {
        let mut table = self.lock();
        if table.all >= most {
            return Err(LimitReached::All);
        }
        table.all += 1;
        Ok(ConnectionPermit { limiter: self.clone(), peer: None })
    }

    /// The connections open.
    pub fn open_connections(&self) -> usize {
        self.lock().all
    }

    /// The busiest peers: most connections first, then most garbage.
    pub fn top_peers(&self, most: usize) -> Vec<(IpAddr, PeerStats)> {
        let mut lines: Vec<_> = self.lock().peers.iter().map(|(peer, line)| (*peer, *line)).collect();
        lines.sort_by_key(|(peer, line)| {
            (std::cmp::Reverse((line.connections, line.unparsed, line.shed)), *peer)
        });
        lines.truncate(most);
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Counts the permit to the peer of this address, which may have `most`, of `all` that there are.
    pub(super) fn for_peer(mut self, address: IpAddr, most: usize, all: usize) -> Result<Self, LimitReached> {
        let peer = peer_of(address);
        let mut table = self.limiter.lock();
        let most = if table.all > all - all / 10 { most.min(RESERVED_PER_PEER) } else { most };
        let line = table.peers.entry(peer).or_default();
        if line.connections >= most {
            line.shed += 1;
            return Err(LimitReached::Peer);
        }
        line.connections += 1;
        drop(table);
        self.peer = Some(peer);
        Ok(self)
    }

    /// Counts garbage to the peer; true for its first.
    pub(super) fn count_parse_error(&self) -> bool {
        let Some(peer) = self.peer else { return false };
        let mut table = self.limiter.lock();
        let Some(line) = table.peers.get_mut(&peer) else { return false };
        line.unparsed += 1;
        line.unparsed == 1
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut table = self.limiter.lock();
        table.all -= 1;
        let Some(peer) = self.peer else { return };
        let full = table.peers.len() > MAX_IDLE_PEERS;
        if let Some(line) = table.peers.get_mut(&peer) {
            line.connections -= 1;
            if line.connections == 0 && (full || *line == PeerStats::default()) {
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
    fn places_are_counted_in_all_and_by_peer_and_come_back() {
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
        let (peer, line) = limiter.top_peers(1)[0];
        assert_eq!((peer.to_string().as_str(), line.connections, line.shed), ("192.0.2.1", 2, 1));
    }

    #[test]
    fn the_last_tenth_is_for_the_first_connections_of_peers() {
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
    fn garbage_is_remembered_and_quiet_peers_are_not() {
        let limiter = ConnectionLimiter::default();
        let take = |n| limiter.acquire(9).unwrap().for_peer(peer(n), 9, 9).unwrap();
        let garbage = take(1);
        assert!(garbage.count_parse_error());
        assert!(!garbage.count_parse_error());
        drop(garbage);
        drop(take(2));
        assert_eq!(limiter.top_peers(9), [(peer(1), PeerStats { connections: 0, shed: 0, unparsed: 2 })]);
    }
}
