//! Who is connected: so many in all, so many from one peer; and whose bytes were not HTTP.
//!
//! The last tenth of the places is for peers that hold fewer than two: whoever opens connections from many addresses at
//! once fills nine tenths, and a gateway that comes with its first still finds its place.
//!
//! A peer is an IPv4 address, or the first 64 bits of an IPv6 address.
//!
//! The table holds a line for every peer that is connected, and for the first [`REMEMBERED`] that sent garbage.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peer::peer_of;

/// Peers whose garbage is remembered after they left.
const REMEMBERED: usize = 1_000;

/// What a peer may hold once nine tenths of all places are taken.
const FEW: usize = 2;

/// The connections of one listener.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    all: usize,
    peers: HashMap<IpAddr, Line>,
}

/// What is known of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Line {
    /// Connections open.
    pub connections: usize,
    /// Connections that were turned away.
    pub shed: u64,
    /// Connections that ended because what came was not HTTP.
    pub unparsed: u64,
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    /// Whose; none while a trusted proxy has not said for whom it connects.
    peer: Option<IpAddr>,
}

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    All,
    Peer,
}

impl Places {
    /// Takes a place among all; [`Place::of`] then counts it to its peer.
    pub(super) fn take(&self, most: usize) -> Result<Place, Full> {
        let mut table = self.lock();
        if table.all >= most {
            return Err(Full::All);
        }
        table.all += 1;
        Ok(Place { places: self.clone(), peer: None })
    }

    /// The connections open.
    pub fn open(&self) -> usize {
        self.lock().all
    }

    /// The busiest peers: most connections first, then most garbage.
    pub fn busiest(&self, most: usize) -> Vec<(IpAddr, Line)> {
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

impl Place {
    /// Counts the place to the peer of this address, which may have `most`, of `all` that there are.
    pub(super) fn of(mut self, address: IpAddr, most: usize, all: usize) -> Result<Self, Full> {
        let peer = peer_of(address);
        let mut table = self.places.lock();
        let most = if table.all > all - all / 10 { most.min(FEW) } else { most };
        let line = table.peers.entry(peer).or_default();
        if line.connections >= most {
            line.shed += 1;
            return Err(Full::Peer);
        }
        line.connections += 1;
        drop(table);
        self.peer = Some(peer);
        Ok(self)
    }

    /// Counts garbage to the peer; true for its first.
    pub(super) fn unparsed(&self) -> bool {
        let Some(peer) = self.peer else { return false };
        let mut table = self.places.lock();
        let Some(line) = table.peers.get_mut(&peer) else { return false };
        line.unparsed += 1;
        line.unparsed == 1
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.lock();
        table.all -= 1;
        let Some(peer) = self.peer else { return };
        let full = table.peers.len() > REMEMBERED;
        if let Some(line) = table.peers.get_mut(&peer) {
            line.connections -= 1;
            if line.connections == 0 && (full || *line == Line::default()) {
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
        let places = Places::default();
        let take = |n| places.take(3).and_then(|place| place.of(peer(n), 2, 3));
        let (first, second, _other) = (take(1).unwrap(), take(1).unwrap(), take(2).unwrap());
        assert_eq!(take(3).err(), Some(Full::All));
        drop(first);
        let third = take(1).unwrap();
        drop(second);
        assert_eq!(places.open(), 2);
        let _fourth = take(1).unwrap();
        drop(third);
        assert!(places.take(9).unwrap().of(peer(1), 1, 9).is_err_and(|full| full == Full::Peer));
        assert_eq!(places.busiest(1), [(peer(1), Line { connections: 1, shed: 1, unparsed: 0 })]);
    }

    #[test]
    fn an_ipv6_peer_is_its_first_64_bits() {
        let places = Places::default();
        let take = |address: &str| places.take(9).unwrap().of(address.parse().unwrap(), 2, 90);
        let one = take("2001:db8:1:2::1").unwrap();
        let _two = take("2001:db8:1:2:ffff:ffff:ffff:ffff").unwrap();
        assert_eq!(take("2001:db8:1:2:3::4").err(), Some(Full::Peer));
        let _next = take("2001:db8:1:3::1").unwrap();
        let _mapped = [take("::ffff:192.0.2.1").unwrap(), take("192.0.2.1").unwrap()];
        assert_eq!(take("192.0.2.1").err(), Some(Full::Peer), "IPv4 in IPv6 is IPv4");
        let _other = take("::ffff:192.0.2.2").unwrap();
        drop(one);
        let _again = take("2001:db8:1:2:3::4").unwrap();
        let (peer, line) = places.busiest(1)[0];
        assert_eq!((peer.to_string().as_str(), line.connections, line.shed), ("192.0.2.1", 2, 1));
    }

    #[test]
    fn the_last_tenth_is_for_the_first_connections_of_peers() {
        let places = Places::default();
        let take = |n| places.take(100).and_then(|place| place.of(peer(n), 90, 100));
        let many: Vec<_> = (0..90).map(|_| take(1).unwrap()).collect();
        assert_eq!(take(1).err(), Some(Full::Peer), "and its own limit is 90 too");
        drop(many);
        let both: Vec<_> = (0..90).map(|n| take(1 + n % 2).unwrap()).collect();
        assert_eq!(take(1).err(), Some(Full::Peer), "it holds 45");
        let two = [take(3).unwrap(), take(3).unwrap()];
        assert_eq!(take(3).err(), Some(Full::Peer), "it holds two");
        let few: Vec<_> = (4..12).map(|n| take(n).unwrap()).collect();
        assert_eq!(take(20).err(), Some(Full::All));
        drop(two);
        drop((both, few));
    }

    #[test]
    fn garbage_is_remembered_and_quiet_peers_are_not() {
        let places = Places::default();
        let take = |n| places.take(9).unwrap().of(peer(n), 9, 9).unwrap();
        let garbage = take(1);
        assert!(garbage.unparsed());
        assert!(!garbage.unparsed());
        drop(garbage);
        drop(take(2));
        assert_eq!(places.busiest(9), [(peer(1), Line { connections: 0, shed: 0, unparsed: 2 })]);
    }
}
