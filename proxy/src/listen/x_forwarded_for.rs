//! For whom a trusted proxy asks: `X-Forwarded-For`, read from its end.
//!
//! Each proxy appends the address that it saw. Whatever stands before the last untrusted address may be anybody's
//! invention, so reading stops there. Of a peer that is not trusted the header is not looked at at all, and it is never
//! relayed.

use std::net::{IpAddr, SocketAddr};

use hyper::header::HeaderMap;
use ipnet::IpNet;

/// The address that asks: the peer's own, unless trusted proxies name another.
pub fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    let mut origin = peer;
    let values: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let mut named = values.iter().rev().flat_map(|value| value.rsplit(','));
    while is_trusted(&origin) {
        let Some(address) = named.next().and_then(parse) else { break };
        origin = address;
    }
    origin
}

/// An address, with or without a port.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        origin(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(from("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(from("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("::1", &["198.51.100.7:4711"]), "198.51.100.7");
    }

    #[test]
    fn what_a_client_invents_stands_before_what_a_proxy_saw() {
        assert_eq!(from("10.0.0.1", &["203.0.113.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("10.0.0.1", &["203.0.113.9", "198.51.100.7, 10.0.0.2"]), "198.51.100.7");
    }

    #[test]
    fn what_cannot_be_read_ends_the_list() {
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["198.51.100.7, unknown"]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(from("10.0.0.1", &["[2001:db8::1]:80"]), "2001:db8::1");
    }
}
