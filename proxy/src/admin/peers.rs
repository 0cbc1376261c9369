//! Who is connected, and who sends what is not HTTP.
//!
//! - `GET /peers`: JSON, the 100 busiest peers: connections open, connections turned away, connections that ended
//!   because what came was not HTTP. A peer is an IPv4 address or an IPv6 network of 64 bits.

use std::net::IpAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::{Admin, response};

/// A page for people: whoever looks for an attacker looks at the top.
const SHOWN: usize = 100;

pub(super) fn busiest(admin: &Admin) -> Response<Full<Bytes>> {
    let peers: Vec<_> = admin
        .connections
        .top_peers(SHOWN)
        .into_iter()
        .map(|(peer, line)| {
            json!({
                "peer": shown(peer),
                "connections": line.connections,
                "turned_away": line.shed,
                "not_http": line.unparsed,
            })
        })
        .collect();
    let page = json!({ "connections": admin.connections.open_connections(), "peers": peers });
    response::typed(StatusCode::OK, "application/json", page.to_string())
}

fn shown(peer: IpAddr) -> String {
    if peer.is_ipv6() { format!("{peer}/64") } else { peer.to_string() }
}
