//! A whole hit over the wire under `power`, by the number of cards in memory: CPU, as `bench peers` measures it.
//!
//! One server per number runs at the same time, and they are loaded in turn, so that drift affects all alike.
//! Cards are asked about in another order than they came into memory in, so that neighbours there are not asked about
//! together.

use std::path::Path;

use anyhow::Result;

use crate::bench::peers::{Cards, cost, middle, wrk};
use crate::bench::servers::{Carrier, FLEET, Server, Site};

/// Connections kept open.
const CONNECTIONS: u32 = 256;

/// A prime that divides no number of cards in use.
const STRIDE: u32 = 7_919;

/// Microseconds of CPU a hit over each store, medians of `rounds`.
pub(super) fn cpu(stores: &[(u32, &Path)], seconds: u32, rounds: u32) -> Result<Vec<f64>> {
    let carrier = Carrier::start(None)?;
    let mut servers = Vec::new();
    for &(count, place) in stores {
        let server = Server::start(&FLEET, Site::on_one_processor(place, &carrier)?)?;
        let mut warm = 0;
        while warm < u64::from(count) {
            warm += wrk(&server.url(), CONNECTIONS, Cards { count, stride: 1 }, seconds, warm)?.requests;
        }
        servers.push((server, Cards { count, stride: STRIDE }, Vec::new()));
    }
    let mut first = 0;
    for _ in 0..rounds {
        for (server, cards, figures) in &mut servers {
            first = (first + 5_000_000) % 90_000_000;
            figures.push(cost(server, CONNECTIONS, *cards, seconds, first)?.cpu_us());
        }
    }
    Ok(servers.into_iter().map(|(_, _, figures)| middle(figures)).collect())
}
