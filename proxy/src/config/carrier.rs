//! The connection to the carrier and the limits of flights, checked.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hyper::Uri;

use super::certificates::Validity;
use super::error::{self, ConfigError};
use super::reader::SourceFiles;
use super::{file, shares};
use crate::language::{Text, text};
use crate::tls;

/// The connection to the carrier.
#[derive(Clone, PartialEq, Debug)]
pub struct Carrier {
    /// `http` or `https`, host, optional port and path prefix without a closing slash.
    pub base_url: Uri,
    /// The HTTP proxy that connections go through.
    pub proxy: Option<Uri>,
    /// For a TCP connection.
    pub connect_timeout: Duration,
    /// For a flight.
    pub timeout: Duration,
    /// The first two digits of the sequence.
    pub node: u8,
    /// The local address of connections.
    pub bind: Option<IpAddr>,
    /// The longest response in bytes.
    pub max_body: usize,
    /// A request that has a stale entry waits this long for the flight.
    pub stale_timeout: Duration,
    pub flights: FlightLimits,
    /// Calls that wait for an account's budget.
    pub max_queued_calls: usize,
    /// The longest wait of such a call.
    pub queue_timeout: Duration,
    /// The clock drift that raises the alarm.
    pub drift_alarm: Duration,
    /// The certificates that identify the carrier.
    pub tls: tls::ClientTrust,
}

impl Carrier {
    /// The host that gateways may name in an absolute-form target.
    pub fn host(&self) -> &str {
        self.base_url.host().unwrap_or_default()
    }
}

/// Flights, and the requests that wait for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlightLimits {
    /// Flights at once.
    pub flights: usize,
    /// Requests that wait for one flight, its leader included.
    pub waiters: usize,
    /// Requests of one client that wait, and flights that it started.
    pub client: usize,
    /// Flights at once that clients of one group started.
    pub group: usize,
}

/// Checks `[carrier]` of a configuration with this number of groups.
pub(super) fn check(raw: &file::Carrier, groups: usize, reader: &mut SourceFiles<'_>) -> Option<Carrier> {
    let base_url = reader.keep(base_url("[carrier] base_url", &raw.base_url));
    let proxy = raw.proxy.as_deref().map(http_proxy).transpose();
    let proxy = reader.keep(proxy);
    let before = reader.problems.len();
    let mut wrong = |key: &str, problem: Text| reader.problem(format!("[carrier] {key}"), problem);
    if raw.node > 99 {
        wrong(
            &format!("node = {}", raw.node),
            text!(
                "must be 0..=99, and different on each proxy of an account",
                "必须为 0..=99，并且使用同一账号的各个代理互不相同"
            ),
        );
    }
    let times = [
        ("connect_timeout", raw.connect_timeout),
        ("timeout", raw.timeout),
        ("drift_alarm", raw.drift_alarm),
    ];
    for (key, _) in times.into_iter().filter(|(_, time)| time.0.is_zero()) {
        wrong(key, error::longer_than_zero("10s"));
    }
    let max_body = usize::try_from(raw.max_body.0);
    match max_body {
        Ok(0) => wrong("max_body", error::more_than_zero("\"64KiB\"")),
        Ok(_) => {}
        Err(_) => wrong(
            &format!("max_body = \"{}\"", raw.max_body),
            text!("too large for this machine", "超出本机的容量"),
        ),
    }
    let counts = [
        ("max_waiters_per_card", raw.max_waiters_per_card),
        ("max_waiters_per_client", raw.max_waiters_per_client),
        ("max_flights", raw.max_flights),
        ("max_flights_per_group", raw.max_flights_per_group.unwrap_or(1)),
    ];
    for (key, _) in counts.into_iter().filter(|(_, count)| *count == 0) {
        wrong(key, error::at_least_one());
    }
    let tls = trust(raw.tls.as_ref(), reader)?;
    if reader.problems.len() > before {
        return None;
    }
    Some(Carrier {
        base_url: base_url?,
        proxy: proxy?,
        connect_timeout: raw.connect_timeout.0,
        timeout: raw.timeout.0,
        node: raw.node,
        bind: raw.bind,
        max_body: max_body.ok()?,
        stale_timeout: raw.stale_timeout.0,
        flights: flights(raw, groups, &mut reader.warnings),
        max_queued_calls: raw.max_queued_calls,
        queue_timeout: raw.queue_timeout.0,
        drift_alarm: raw.drift_alarm.0,
        tls,
    })
}

/// The base URL under a key.
///
/// # Errors
/// The key, the problem and the remedy.
pub(super) fn base_url(key: &str, raw: &str) -> Result<Uri, ConfigError> {
    if raw.contains('@') {
        // Not repeated: it may hold a password.
        return Err(ConfigError::new(key, error::has_credentials()));
    }
    let wrong = |problem: Text| ConfigError::new(format!("{key} = \"{raw}\""), problem);
    let base_url: Uri = raw.trim_end_matches('/').parse().map_err(|_| {
        wrong(error::is_no_url()).remedy(text!(
            "write scheme, host and optional port and path prefix, such as \"https://api.iot.10086.cn\"",
            "请写协议、主机，以及可选的端口和路径前缀，例如 \"https://api.iot.10086.cn\""
        ))
    })?;
    match base_url.scheme_str() {
        Some("http" | "https") if base_url.host().is_some_and(|host| !host.is_empty()) => {}
        _ => {
            return Err(wrong(text!(
                "must begin with http:// or https:// and a host",
                "必须以 http:// 或 https:// 和主机开头"
            )));
        }
    }
    if base_url.query().is_some() {
        return Err(wrong(text!(
            "must not have a query: the proxy writes its own",
            "不能含有查询部分：代理会写自己的查询"
        )));
    }
    Ok(base_url)
}

/// Scheme, host and port: the target of a CONNECT request.
fn http_proxy(raw: &str) -> Result<Uri, ConfigError> {
    let wrong = || {
        let problem = text!("is not the address of an HTTP proxy", "不是 HTTP 代理的地址");
        ConfigError::new("[carrier] proxy", problem).remedy(text!(
            "write http://, host and port, such as \"http://10.0.0.1:3128\"",
            "请写 http://、主机和端口，例如 \"http://10.0.0.1:3128\""
        ))
    };
    let proxy: Uri = raw.parse().map_err(|_| wrong())?;
    let bare = proxy.path() == "/" && proxy.query().is_none() && !raw.contains('@');
    match proxy.scheme_str() {
        Some("http") if bare && proxy.host().is_some_and(|host| !host.is_empty()) => Ok(proxy),
        _ => Err(wrong()),
    }
}

fn flights(raw: &file::Carrier, groups: usize, warnings: &mut Vec<Text>) -> FlightLimits {
    let group = shares::of_group(
        "[carrier] max_flights_per_group",
        raw.max_flights_per_group,
        "max_flights",
        raw.max_flights,
        groups,
        warnings,
    );
    let client = shares::of_client(
        "[carrier] max_waiters_per_client",
        raw.max_waiters_per_client,
        "a group's share of max_flights",
        group,
        warnings,
    );
    FlightLimits { flights: raw.max_flights, waiters: raw.max_waiters_per_card, client, group }
}

/// The certificates by which the carrier is identified. They are tried here, so that a reload that cannot apply them is
/// refused as a whole.
fn trust(raw: Option<&file::CarrierTls>, reader: &mut SourceFiles<'_>) -> Option<tls::ClientTrust> {
    let Some(raw) = raw else { return Some(tls::ClientTrust::default()) };
    let mut read = |key: &str, path: Option<&Path>| {
        let Some(path) = path else { return Some(Vec::new()) };
        let key = format!("[carrier.tls] {key}");
        let pem = reader.bytes(&key, path)?;
        let read = tls::certificates(&pem);
        reader.keep(read.map_err(|e| ConfigError::new(key, e.about(path.display()))))
    };
    let (roots, pinned) =
        (read("ca_file", raw.ca_file.as_deref()), read("pin_file", raw.pin_file.as_deref()));
    let trust = tls::ClientTrust {
        roots: roots?,
        pinned: pinned?.into_iter().next(),
        min_version: match raw.min_version {
            file::TlsVersion::V12 => tls::MinVersion::Tls12,
            file::TlsVersion::V13 => tls::MinVersion::Tls13,
        },
    };
    if trust.pinned.is_none() {
        // A pinned certificate is accepted whatever its dates are.
        reader.certificates.extend(Validity::of("[carrier.tls] ca_file", &trust.roots));
    }
    let usable =
        tls::client(&trust).map_err(|e| ConfigError::new("[carrier.tls] ca_file", Text::untranslated(e)));
    reader.keep(usable).map(|_| trust)
}
