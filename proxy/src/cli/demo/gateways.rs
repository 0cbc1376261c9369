//! The gateways, the cards and the configuration of the demo's history, and the faults that make some of them show up on
//! the operators' page.

use super::environment::Gateway;

/// A gateway of the history. Its password is not a secret: it is valid only here.
pub(super) struct Sender {
    pub(super) credentials: Gateway<'static>,
    /// Its address, in `X-Forwarded-For`.
    pub(super) peer: &'static str,
    /// Its share of the lookups.
    pub(super) weight: u64,
    pub(super) fault: Fault,
}

/// The fault of a gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It looks a card up several times at once.
    Bursts,
    /// It sends some URLs twice.
    Repeats,
    /// From a day of the history on, it signs with the password before the present one.
    OldPassword,
    /// From that day on, its clock is seven minutes late.
    LateClock,
    /// It sends more lookups at once than its rate allows.
    Rate,
}

/// The accounts at the carrier: name, appid, ebid, password, calls per day.
pub(super) const ACCOUNTS: [(&str, &str, &str, &str, u32); 2] = [
    ("fleet", "100001", "0001000000009", "demo-carrier-password", 250),
    ("meters", "100002", "0002000000009", "demo-meters-password", 90),
];

const fn fleet(appid: &'static str, peer: &'static str, weight: u64, fault: Fault) -> Sender {
    let credentials = Gateway { appid, password: "demo-gateway-password", ebid: "0001000000009" };
    Sender { credentials, peer, weight, fault }
}

const fn meters(appid: &'static str, peer: &'static str, weight: u64, fault: Fault) -> Sender {
    let credentials = Gateway { appid, password: "demo-meter-password", ebid: "0002000000009" };
    Sender { credentials, peer, weight, fault }
}

/// All gateways.
pub(super) const SENDERS: [Sender; 12] = [
    fleet("GW0001", "10.20.0.11", 24, Fault::None),
    fleet("GW0002", "10.20.0.12", 18, Fault::Bursts),
    fleet("GW0003", "10.20.0.13", 14, Fault::None),
    fleet("GW0004", "10.20.0.14", 9, Fault::Repeats),
    fleet("GW0005", "10.20.0.15", 8, Fault::None),
    fleet("GW0006", "10.20.0.16", 4, Fault::OldPassword),
    fleet("GW0007", "10.20.0.17", 4, Fault::None),
    fleet("GW0008", "10.20.0.18", 2, Fault::None),
    meters("MT0001", "10.30.4.21", 8, Fault::None),
    meters("MT0002", "10.30.4.22", 5, Fault::Rate),
    meters("MT0003", "10.30.4.23", 3, Fault::LateClock),
    meters("MT0004", "10.30.4.24", 2, Fault::None),
];

/// The name of its group.
pub(super) fn group(gateway: Gateway<'_>) -> &'static str {
    let account = ACCOUNTS.iter().find(|(_, _, ebid, ..)| *ebid == gateway.ebid);
    account.map_or("", |(name, ..)| name)
}

/// The tables of the configuration. Records survive the end of the process, not of the machine: the history is written in
/// seconds. No call goes on after its lookup has a response: a step of the clock could meet it.
pub(super) fn tables() -> String {
    let mut tables = String::from(
        r#"
        gateway.trusted_proxies = ["127.0.0.1/32"]
        admin.listen = "127.0.0.1:0"
        audit.durability = "process"
        audit.anchor_every = "6h"
        cache.refresh_ahead_percent = 0
        carrier.stale_timeout = "19s"
        freshness.normal = { fresh = "12h", stale_while_revalidate = "0s", stale_if_error = "24h" }
        "#,
    );
    for (name, appid, ebid, password, calls_per_day) in ACCOUNTS {
        tables.push_str(&format!(
            "[[account]]\nname = \"{name}\"\nappid = \"{appid}\"\nebid = \"{ebid}\"\npassword = \"{password}\"\n\
             calls_per_second = 20\ncalls_per_day = {calls_per_day}\n"
        ));
    }
    for Sender { credentials, fault, .. } in &SENDERS {
        let Gateway { appid, password, .. } = credentials;
        let group = group(*credentials);
        let rate = if *fault == Fault::Rate { "rate = 1\nburst = 2\n" } else { "" };
        tables.push_str(&format!(
            "[[client]]\ngroup = \"{group}\"\nappid = \"{appid}\"\npassword = \"{password}\"\n{rate}"
        ));
    }
    tables
}
