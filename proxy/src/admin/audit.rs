//! `POST /audit/query`: lookups, newest first, as JSON lines.
//!
//! The request is JSON with the filters of `cmiot-proxy audit query`. A card has the carrier's parameter name and is never
//! part of a URL. A full page ends with `{"cursor": ID}`: send it as `before` for the next. Each page opens the segments
//! read-only with connections of its own, and stops after a timeout.

use std::time::Duration;

use bytes::Bytes;
use cmiot_signer::{Card, CardKind};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;

use super::body::{present, whole};
use super::{Admin, response};
use crate::audit::{filter, render};
use crate::clock::Time;
use crate::store::audit::query::{self, Deadline, Filter, LOOKUP, timed_out};

/// Lookups per page.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 1_000;
/// Timeout of one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuditRequest {
    #[serde(deserialize_with = "present")]
    msisdn: Option<String>,
    #[serde(deserialize_with = "present")]
    iccid: Option<String>,
    #[serde(deserialize_with = "present")]
    imsi: Option<String>,
    #[serde(deserialize_with = "present")]
    client: Option<String>,
    #[serde(deserialize_with = "present")]
    account: Option<String>,
    #[serde(deserialize_with = "present")]
    peer: Option<String>,
    #[serde(deserialize_with = "present")]
    transid: Option<String>,
    #[serde(deserialize_with = "present")]
    outcome: Option<String>,
    #[serde(deserialize_with = "present")]
    code: Option<String>,
    #[serde(deserialize_with = "present")]
    status: Option<String>,
    #[serde(deserialize_with = "present")]
    since: Option<String>,
    #[serde(deserialize_with = "present")]
    until: Option<String>,
    #[serde(deserialize_with = "whole")]
    before: Option<i64>,
    #[serde(deserialize_with = "whole")]
    limit: Option<usize>,
}

pub(super) async fn respond(admin: &Admin, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().query().is_some() {
        let what = "send the filters as JSON: URLs are logged on their way\n";
        return response::text(StatusCode::BAD_REQUEST, what);
    }
    let (filter, limit) = match admin.read(request).await.and_then(AuditRequest::check) {
        Ok(asked) => asked,
        Err(what) => return response::text(StatusCode::BAD_REQUEST, format!("{what}\n")),
    };
    let dir = admin.relay.config.load().store_dir.clone();
    let clock = admin.relay.clock.clone();
    let found = tokio::task::spawn_blocking(move || {
        let at = clock.monotonic().saturating_add(PAGE_TIMEOUT);
        query::lookups(&dir, &filter, limit, Some(&Deadline { clock, at }))
    });
    match found.await {
        Ok(Ok(rows)) => {
            let mut lines: String = rows.iter().map(|row| render::json_line(LOOKUP, row) + "\n").collect();
            if let (true, Some(last)) = (rows.len() == limit, rows.last().and_then(|row| query::id(row))) {
                lines.push_str(&format!("{{\"cursor\":{last}}}\n"));
            }
            response::typed(StatusCode::OK, "application/x-ndjson", lines)
        }
        Ok(Err(error)) if timed_out(&error) => {
            let what = "it took too long: name a card, or a shorter time with since and until\n";
            response::text(StatusCode::SERVICE_UNAVAILABLE, what)
        }
        Ok(Err(error)) => response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        Err(_) => response::text(StatusCode::INTERNAL_SERVER_ERROR, "the query died\n"),
    }
}

impl AuditRequest {
    fn check(self) -> Result<(Filter, usize), String> {
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=LONGEST_PAGE).contains(&limit) {
            return Err(format!("limit: 1 to {LONGEST_PAGE}"));
        }
        let cards =
            [(CardKind::Msisdn, self.msisdn), (CardKind::Iccid, self.iccid), (CardKind::Imsi, self.imsi)];
        let mut cards = cards.into_iter().filter_map(|(kind, number)| number.map(|number| (kind, number)));
        let card = cards.next().map(|(kind, number)| Card::parse(kind, &number)).transpose();
        let card = card.map_err(|error| error.to_string())?;
        if cards.next().is_some() {
            return Err("one of msisdn, iccid and imsi at most".to_owned());
        }
        let filter = Filter {
            card,
            client: self.client,
            account: self.account,
            peer: self.peer,
            transid: self.transid,
            outcome: self.outcome,
            reason: None,
            code: self.code,
            status: self.status,
            since: self.since.as_deref().map(time).transpose()?,
            until: self.until.as_deref().map(time).transpose()?,
            before: self.before,
        };
        Ok((filter::checked(filter).map_err(|text| text.english)?, limit))
    }
}

/// RFC 3339.
fn time(text: &str) -> Result<Time, String> {
    let parsed = text.parse::<jiff::Timestamp>();
    parsed
        .map(|at| Time::from_micros(at.as_microsecond()))
        .map_err(|_| "since and until: RFC 3339, such as 2026-01-15T12:00:00+08:00".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(Filter, usize), String> {
        serde_json::from_str::<AuditRequest>(text)
            .map_err(|error| error.to_string())
            .and_then(AuditRequest::check)
    }

    #[test]
    fn a_query_is_checked_as_a_whole() {
        let (filter, limit) =
            check(r#"{"msisdn": "14765004176", "since": "2026-01-15T12:00:00+08:00", "limit": 5}"#).unwrap();
        assert_eq!(
            (filter.card.map(|card| card.as_str().to_owned()), limit),
            (Some("14765004176".into()), 5)
        );
        assert_eq!(filter.since, Some(Time::from_secs(1_768_449_600)));
        assert_eq!(check("{}").unwrap().1, PAGE);
        assert_eq!(check(r#"{"limit": 5.0, "before": 7.0}"#).unwrap().1, 5);
        for (wrong, said) in [
            (r#"{"msisdn": "x"}"#, ""),
            (r#"{"msisdn": "14765004176", "imsi": "460079650004176"}"#, "at most"),
            (r#"{"limit": 0}"#, "limit"),
            (r#"{"limit": 1001}"#, "limit"),
            (r#"{"limit": 1.5}"#, "whole"),
            (r#"{"limit": -1}"#, "whole"),
            (r#"{"limit": null}"#, ""),
            (r#"{"since": "yesterday"}"#, "RFC 3339"),
            (r#"{"since": "2026-01-15T12:00:00Z", "until": "2026-01-15T11:00:00Z"}"#, "not before until"),
            (r#"{"since": "1969-12-31T23:59:59Z"}"#, "before 1970"),
            (r#"{"before": 0}"#, "before"),
            (r#"{"before": -7}"#, "before"),
            (r#"{"before": 1e300}"#, "whole"),
            (r#"{"outcome": "hits"}"#, "collapsed"),
            (r#"{"status": "normal"}"#, "00 normal"),
            (r#"{"peer": "here"}"#, "peer"),
            (r#"{"client": ""}"#, "client"),
            (r#"{"card": "14765004176"}"#, "unknown field"),
        ] {
            let error = check(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
