//! The request directives of `Cache-Control` (RFC 9111 5.2.1).
//!
//! `no-cache` and `max-age=N` require a fresher response than the proxy's own rules do, `max-stale[=N]` a less fresh one;
//! `only-if-cached` forbids a call. Directives that the RFC does not define, and values that are not numbers, are ignored
//! (5.2.3). The cache applies them within the operator's limits (`cache/cache_control.rs`).

use std::time::Duration;

use hyper::header::{self, HeaderMap};

/// The parsed directives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestDirectives {
    /// The greatest age of a response; `no-cache` is zero.
    pub max_age: Option<Duration>,
    /// The longest time for which a response may have been stale.
    pub max_stale: Option<Duration>,
    /// A response without a call, or a refusal.
    pub only_if_cached: bool,
}

impl RequestDirectives {
    /// Reads all `Cache-Control` fields. Of a directive given twice the stricter counts.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        for directive in values.flat_map(|value| value.split(',')) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = || value.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
            let smaller = |old: Option<Duration>, new: Duration| Some(old.map_or(new, |old| old.min(new)));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" => directives.max_age = Some(Duration::ZERO),
                "max-age" => {
                    if let Some(age) = seconds() {
                        directives.max_age = smaller(directives.max_age, age);
                    }
                }
                // Without a number: stale for any time (5.2.1.2).
                "max-stale" => {
                    let stale = if value.is_empty() { Some(Duration::MAX) } else { seconds() };
                    if let Some(stale) = stale {
                        directives.max_stale = smaller(directives.max_stale, stale);
                    }
                }
                "only-if-cached" => directives.only_if_cached = true,
                _ => {}
            }
        }
        directives
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&'static str]) -> RequestDirectives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, header::HeaderValue::from_static(line));
        }
        RequestDirectives::read(&headers)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn directives_are_parsed_in_any_form() {
        let none = RequestDirectives::default();
        assert_eq!(parse(&[]), none);
        assert_eq!(parse(&["no-store, x=y, max-age=soon"]), none);
        assert_eq!(parse(&["No-Cache"]), RequestDirectives { max_age: Some(secs(0)), ..none });
        assert_eq!(
            parse(&["max-age=30", "max-age=\"20\""]),
            RequestDirectives { max_age: Some(secs(20)), ..none }
        );
        assert_eq!(parse(&["max-age=30, no-cache"]), RequestDirectives { max_age: Some(secs(0)), ..none });
        assert_eq!(parse(&["max-stale"]), RequestDirectives { max_stale: Some(Duration::MAX), ..none });
        assert_eq!(
            parse(&["max-stale=5 , ONLY-IF-CACHED"]),
            RequestDirectives { max_stale: Some(secs(5)), only_if_cached: true, ..none }
        );
    }
}
