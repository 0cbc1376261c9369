//! The peers that are connected, with the number of their rejected and malformed connections.
//!
//! - `GET /peers`: JSON, the 100 peers with the most connections: their open connections, rejected connections, and
//!   connections that ended with an HTTP parse error. A peer is an IPv4 address or an IPv6 network of 64 bits.

use std::net::IpAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::{Admin, response};

/// Maximum of listed peers; an attacker is among them.
const MAX_PEERS: usize = 100;

pub(super) fn list(admin: &Admin) -> Response<Full<Bytes>> {
    let peers: Vec<_> = admin
        .connections
        .top_peers(MAX_PEERS)
        .into_iter()
        .map(|(peer, stats)| {
            json!({
                "peer": peer_name(peer),
                "connections": stats.connections,
                "turned_away": stats.shed,
                "not_http": stats.unparsed,
            })
        })
        .collect();
    let body = json!({ "connections": admin.connections.open_connections(), "peers": peers });
    response::typed(StatusCode::OK, "application/json", body.to_string())
}

fn peer_name(peer: IpAddr) -> String {
    if peer.is_ipv6() { format!("{peer}/64") } else { peer.to_string() }
}
