//! Checks filters: a value that no record can have is an error, not an empty result.

use std::net::IpAddr;

use cmiot_signer::{AppId, Status, Transid};

use crate::clock::Time;
use crate::language::{Text, text};
use crate::outcome::Outcome;
use crate::store::audit::query::Filter;

/// The longest code and the longest STATUS that the proxy reads from a carrier reply.
const LONGEST: usize = 16;

/// The codes of STATUS that the carrier documents.
const STATUSES: [Status; 9] = [
    Status::Normal,
    Status::OneWayBarred,
    Status::Barred,
    Status::PreCancelled,
    Status::Cancelled,
    Status::Transferred,
    Status::Dormant,
    Status::AwaitingActivation,
    Status::NoSuchNumber,
];

/// The filter with the peer in the form that records have.
///
/// # Errors
/// The field that no record can meet, and its valid values.
pub fn checked(mut filter: Filter) -> Result<Filter, Text> {
    if filter.client.as_deref().is_some_and(|client| AppId::parse(client).is_err()) {
        return Err(text!(
            "client: an appid has 1 to 26 letters and digits",
            "client（客户端）：appid 为 1 至 26 个字母或数字"
        ));
    }
    if filter.account.as_deref().is_some_and(str::is_empty) {
        return Err(text!("account: an account has a name", "account（账号）：账号名不能为空"));
    }
    if let Some(peer) = &mut filter.peer {
        let forms = || {
            text!(
                "peer: an IPv4 or IPv6 address, or an IPv6 network with /64",
                "peer（来源地址）：IPv4 或 IPv6 地址，或带 /64 的 IPv6 网络"
            )
        };
        *peer = address(peer).ok_or_else(forms)?.to_string();
    }
    if filter.transid.as_deref().is_some_and(|transid| !is_word(transid, Transid::MAX_LEN)) {
        return Err(text!(
            "transid: 1 to {longest} letters and digits",
            "transid（事务编码）：1 至 {longest} 个字母或数字",
            longest = Transid::MAX_LEN
        ));
    }
    if filter.code.as_deref().is_some_and(|code| !is_word(code, LONGEST)) {
        return Err(text!(
            "code: 1 to {LONGEST} letters and digits",
            "code（返回码）：1 至 {LONGEST} 个字母或数字"
        ));
    }
    if let Some(text) = &filter.outcome
        && Outcome::ALL.iter().all(|outcome| outcome.name() != text)
    {
        let (given, names) = (text.escape_debug(), Outcome::ALL.map(Outcome::name).join(", "));
        return Err(text!(
            "outcome: \"{given}\" is invalid; valid are {names}",
            "outcome（结果）：“{given}”无效；有效值为 {names}"
        ));
    }
    filter.status.as_deref().map(status).transpose()?;
    times(filter.since, filter.until)?;
    if filter.before.is_some_and(|before| before < 1) {
        return Err(text!(
            "before: the number of a record, which is 1 or more",
            "before：记录的编号，不小于 1"
        ));
    }
    Ok(filter)
}

/// Checks a code of STATUS: one that the carrier documents, or another that it may send, which has a digit.
///
/// # Errors
/// The codes, with their names.
pub fn status(text: &str) -> Result<(), Text> {
    let documented = STATUSES.iter().any(|status| status.code() == text);
    if documented || is_word(text, LONGEST) && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    let codes = STATUSES.map(|status| format!("{} {}", status.code(), status.as_str())).join(", ");
    let given = text.escape_debug();
    Err(text!(
        "status: \"{given}\" is no code of STATUS; they are {codes}",
        "status（卡状态）：“{given}”不是 STATUS 的代码；代码有 {codes}"
    ))
}

/// Checks that a record can be between the times: no record is older than 1970.
///
/// # Errors
/// The time that is wrong.
pub fn times(since: Option<Time>, until: Option<Time>) -> Result<(), Text> {
    for (name, time) in [("since", since), ("until", until)] {
        if time.is_some_and(|time| time < Time::EPOCH) {
            return Err(text!(
                "{name}: it is before 1970, and no record is that old",
                "{name}：早于 1970 年，没有这样早的记录"
            ));
        }
    }
    match (since, until) {
        (Some(since), Some(until)) if since >= until => Err(text!(
            "since: {since} is not before until, {until}",
            "since（始于）：{since} 不早于 until（直到）{until}"
        )),
        _ => Ok(()),
    }
}

fn address(text: &str) -> Option<IpAddr> {
    match text.strip_suffix("/64") {
        Some(network) => network.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    }
}

fn is_word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter with one field that `set` gives.
    fn with(set: impl FnOnce(&mut Filter)) -> Result<Filter, Text> {
        let mut filter = Filter::default();
        set(&mut filter);
        checked(filter)
    }

    #[test]
    fn a_value_that_no_record_can_have_is_named() {
        let some = |text: &str| Some(text.to_owned());
        let at = |seconds| Some(Time::from_secs(seconds));
        for (found, said) in [
            (with(|filter| filter.client = some("a b")), "client:"),
            (with(|filter| filter.client = some("")), "client:"),
            (with(|filter| filter.account = some("")), "account:"),
            (with(|filter| filter.peer = some("gateway")), "peer:"),
            (with(|filter| filter.peer = some("10.0.0.1/64")), "peer:"),
            (with(|filter| filter.transid = some("")), "transid:"),
            (with(|filter| filter.transid = some(&"1".repeat(49))), "transid:"),
            (with(|filter| filter.outcome = some("HIT")), "hit, stale, miss, collapsed, refused, failed"),
            (with(|filter| filter.outcome = some("")), "outcome:"),
            (with(|filter| filter.code = some("-1")), "code:"),
            (with(|filter| filter.status = some("normal")), "00 normal"),
            (with(|filter| filter.status = some("\x1b[2K")), "02 barred"),
            (with(|filter| filter.status = some("")), "status:"),
            (with(|filter| filter.since = Some(Time::from_micros(-1))), "since:"),
            (with(|filter| filter.until = Some(Time::from_micros(i64::MIN))), "until:"),
            (with(|filter| (filter.since, filter.until) = (at(2), at(1))), "not before until"),
            (with(|filter| (filter.since, filter.until) = (at(2), at(2))), "not before until"),
            (with(|filter| filter.before = Some(0)), "before:"),
            (with(|filter| filter.before = Some(-1)), "before:"),
        ] {
            let Text { english, chinese } = found.unwrap_err();
            assert!(english.contains(said) && !english.contains('\x1b'), "{said}: {english}");
            let name = english.split(':').next().unwrap();
            assert!(chinese.starts_with(name) && chinese.contains('：'), "{chinese}");
            assert!(!chinese.contains('\x1b'), "{chinese}");
        }
    }

    #[test]
    fn a_value_that_a_record_can_have_is_taken() {
        let some = |text: &str| Some(text.to_owned());
        for text in ["00", "99", "42", "A1"] {
            assert!(with(|filter| filter.status = some(text)).is_ok(), "{text}");
        }
        for outcome in Outcome::ALL {
            assert!(with(|filter| filter.outcome = some(outcome.name())).is_ok());
        }
        for (given, applied) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8:1:2::/64", "2001:db8:1:2::"),
            ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ] {
            assert_eq!(with(|filter| filter.peer = some(given)).unwrap().peer, some(applied));
        }
        assert!(with(|filter| filter.before = Some(1)).is_ok());
        assert!(with(|filter| filter.since = Some(Time::EPOCH)).is_ok());
    }
}
