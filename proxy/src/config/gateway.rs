//! The gateways' listener, checked: its limits, and the transids that it remembers.

use std::time::Duration;

use ipnet::IpNet;

use super::error;
use super::listen::Listen;
use super::listener::{ListenConfig, Timeouts};
use super::reader::SourceFiles;
use super::{file, shares, tls_files};
use crate::language::{Text, text};
use crate::units::Window;

/// A gateway stops waiting for a response after this long.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(25);

/// The gateways' listener.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub listen: Listen,
    /// Hosts that an absolute-form target may name, in addition to the carrier's and the listening address.
    pub names: Vec<String>,
    /// From request to response: queue, flight and retry together.
    pub deadline: Duration,
    /// The distance between a transid's stamp and the clock that clients without a setting of their own may have.
    pub clock_skew: Window,
    pub transids: TransidLimits,
    /// Networks that requests are accepted from; empty means all.
    pub peers: Vec<IpNet>,
    pub limits: ListenConfig,
    /// The time that a drain leaves to requests and calls in flight.
    pub drain_timeout: Duration,
}

/// Transids that are remembered at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransidLimits {
    pub total: usize,
    /// For a client without a `rate`.
    pub per_client: usize,
    pub per_group: usize,
}

/// Checks `[gateway]` of a configuration with this number of groups.
pub(super) fn check(raw: &file::Gateway, groups: usize, reader: &mut SourceFiles<'_>) -> Option<Gateway> {
    let before = reader.problems.len();
    counts_are_positive(raw, reader);
    let times = [
        ("deadline", "20s", raw.deadline),
        ("first_byte_timeout", "10s", raw.first_byte_timeout),
        ("header_timeout", "10s", raw.header_timeout),
        ("body_timeout", "10s", raw.body_timeout),
        ("idle_timeout", "75s", raw.idle_timeout),
    ];
    for (key, example, _) in times.into_iter().filter(|(_, _, time)| time.0.is_zero()) {
        reader.problem(format!("[gateway] {key}"), error::longer_than_zero(example));
    }
    if raw.deadline.0 >= GATEWAY_TIMEOUT {
        reader.warnings.push(text!(
            "[gateway] deadline = \"{deadline}\": gateways give up after 25 s and would never see these responses",
            "[gateway] deadline = \"{deadline}\"：网关等待 25 秒后放弃，收不到这些响应",
            deadline = raw.deadline
        ));
    }
    if raw.proxy_protocol && raw.trusted_proxies.is_empty() {
        reader.problem(
            "[gateway] proxy_protocol",
            text!(
                "requires trusted_proxies: the header is accepted from those networks only",
                "需要 trusted_proxies：只接受来自这些网络的头部"
            ),
        );
    }
    let tls = tls_files::server(&tls_files::GATEWAY, raw.tls.as_ref(), reader);
    if reader.problems.len() > before {
        return None;
    }
    Some(Gateway {
        listen: raw.listen.clone(),
        names: raw.names.clone(),
        deadline: raw.deadline.0,
        clock_skew: raw.clock_skew,
        transids: transids(raw, groups, &mut reader.warnings),
        peers: raw.peers.clone(),
        limits: ListenConfig {
            max_connections: raw.max_connections,
            max_connections_per_peer: raw.max_connections_per_peer,
            max_requests: raw.max_requests_per_connection,
            max_streams: raw.max_streams,
            timeouts: Timeouts::of(raw),
            trusted_proxies: raw.trusted_proxies.clone(),
            proxy_protocol: raw.proxy_protocol,
            tls,
        },
        drain_timeout: raw.drain_timeout.0,
    })
}

/// With a limit of zero, nothing would be accepted.
fn counts_are_positive(raw: &file::Gateway, reader: &mut SourceFiles<'_>) {
    let counts = [
        ("max_connections", raw.max_connections),
        ("max_connections_per_peer", raw.max_connections_per_peer),
        ("max_requests_per_connection", usize::try_from(raw.max_requests_per_connection).unwrap_or(1)),
        ("max_streams", raw.max_streams as usize),
        ("max_transids", raw.max_transids),
        ("max_transids_per_client", raw.max_transids_per_client),
        ("max_transids_per_group", raw.max_transids_per_group.unwrap_or(1)),
    ];
    for (key, _) in counts.into_iter().filter(|(_, count)| *count == 0) {
        reader.problem(format!("[gateway] {key}"), error::at_least_one());
    }
}

/// The limits with the shares of groups and clients lowered to what leaves room for others.
pub(super) fn transids(raw: &file::Gateway, groups: usize, warnings: &mut Vec<Text>) -> TransidLimits {
    let per_group = shares::of_group(
        "[gateway] max_transids_per_group",
        raw.max_transids_per_group,
        "max_transids",
        raw.max_transids,
        groups,
        warnings,
    );
    let per_client = shares::of_client(
        "[gateway] max_transids_per_client",
        raw.max_transids_per_client,
        "a group's share",
        per_group,
        warnings,
    );
    TransidLimits { total: raw.max_transids, per_client, per_group }
}
