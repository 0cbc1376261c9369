//! The client's side of a connection, and the addresses that count as one where connections or refusals are counted.
//!
//! An IPv4 address counts alone. Of an IPv6 address the first 64 bits count: a host is assigned at least that much
//! (RFC 6177), and may use every address of it.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// The client of one request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address of the gateway, in front of any trusted proxies.
    pub address: IpAddr,
    /// The DNS names of its certificate, in lower case, if it presented one.
    pub names: Option<Arc<[String]>>,
}

/// The address under which a peer is counted: an IPv4 address, or the first address of an IPv6 /64.
pub fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_ipv4_address_or_an_ipv6_network() {
        let of = |text: &str| peer_of(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2::"), of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
    }
}
