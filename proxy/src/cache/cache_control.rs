//! What a gateway wants of the cache: the request directives of `Cache-Control` (RFC 9111 5.2.1).
//!
//! `no-cache` and `max-age=N` ask for more freshness than the proxy's own, `max-stale[=N]` for less, `only-if-cached`
//! for no call. What the RFC does not define, and values that are not numbers, are ignored (5.2.3). The operator's
//! [`DirectiveLimits`] bound what a gateway can cost: an entry younger than the floor is fresh enough for everybody.

use std::time::Duration;

use hyper::header::{self, HeaderMap};

use super::Candidate;
use super::freshness::Freshness;
use crate::config::Permissions;

/// What was wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestDirectives {
    /// Nothing older than this; `no-cache` is zero.
    pub max_age: Option<Duration>,
    /// Something stale for no longer than this will do.
    pub max_stale: Option<Duration>,
    /// An answer without a call, or none.
    pub only_if_cached: bool,
}

/// How far a gateway's wishes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectiveLimits {
    /// A smaller `max-age`, and `no-cache`, count as this.
    pub max_age_floor: Duration,
    /// A larger `max-stale` counts as this.
    pub max_stale_ceiling: Duration,
}

impl DirectiveLimits {
    /// Those of a client.
    pub fn of(rights: &Permissions) -> Self {
        Self { max_age_floor: rights.max_age_floor, max_stale_ceiling: rights.max_stale_ceiling }
    }
}

impl RequestDirectives {
    /// Reads the header, however often it stands there. Of a directive given twice the stricter counts.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut wants = Self::default();
        let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        for directive in values.flat_map(|value| value.split(',')) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = || value.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
            let smaller = |old: Option<Duration>, new: Duration| Some(old.map_or(new, |old| old.min(new)));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" => wants.max_age = Some(Duration::ZERO),
                "max-age" => {
                    if let Some(age) = seconds() {
                        wants.max_age = smaller(wants.max_age, age);
                    }
                }
                // Without a number: however stale (5.2.1.2).
                "max-stale" => {
                    let stale = if value.is_empty() { Some(Duration::MAX) } else { seconds() };
                    if let Some(stale) = stale {
                        wants.max_stale = smaller(wants.max_stale, stale);
                    }
                }
                "only-if-cached" => wants.only_if_cached = true,
                _ => {}
            }
        }
        wants
    }

    /// The same within the operator's limits.
    pub fn clamp(self, limits: &DirectiveLimits) -> Self {
        Self {
            max_age: self.max_age.map(|age| age.max(limits.max_age_floor)),
            max_stale: self.max_stale.map(|stale| stale.min(limits.max_stale_ceiling)),
            ..self
        }
    }

    /// Whether an entry of this age, stale for so long (zero while fresh), will do without asking.
    pub fn accept(&self, held: &Candidate, age: Duration, stale: Duration) -> bool {
        let young = self.max_age.is_none_or(|max| age <= max);
        let fresh = held.freshness == Freshness::Fresh;
        // What the operator purged softly is not to be answered without asking, whatever its age.
        let stale_enough = !held.entry.stale && self.max_stale.is_some_and(|max| stale <= max);
        young && (fresh || stale_enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Entry;
    use crate::cache::tests::entry;
    use std::sync::Arc;

    fn wants(lines: &[&'static str]) -> RequestDirectives {
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
    fn directives_are_read_whatever_their_form() {
        let none = RequestDirectives::default();
        assert_eq!(wants(&[]), none);
        assert_eq!(wants(&["no-store, x=y, max-age=soon"]), none);
        assert_eq!(wants(&["No-Cache"]), RequestDirectives { max_age: Some(secs(0)), ..none });
        assert_eq!(
            wants(&["max-age=30", "max-age=\"20\""]),
            RequestDirectives { max_age: Some(secs(20)), ..none }
        );
        assert_eq!(wants(&["max-age=30, no-cache"]), RequestDirectives { max_age: Some(secs(0)), ..none });
        assert_eq!(wants(&["max-stale"]), RequestDirectives { max_stale: Some(Duration::MAX), ..none });
        assert_eq!(
            wants(&["max-stale=5 , ONLY-IF-CACHED"]),
            RequestDirectives { max_stale: Some(secs(5)), only_if_cached: true, ..none }
        );
    }

    #[test]
    fn limits_bound_what_a_gateway_can_cost() {
        let limits = DirectiveLimits { max_age_floor: secs(10), max_stale_ceiling: secs(60) };
        assert_eq!(wants(&["no-cache"]).clamp(&limits).max_age, Some(secs(10)));
        assert_eq!(wants(&["max-age=30"]).clamp(&limits).max_age, Some(secs(30)));
        assert_eq!(wants(&["max-stale"]).clamp(&limits).max_stale, Some(secs(60)));
    }

    #[test]
    fn an_entry_will_do_or_not() {
        let held =
            |freshness| Candidate { entry: Arc::new(entry("00", 0)), freshness, lifetime: None, hits: 0 };
        let fresh = held(Freshness::Fresh);
        let stale = held(Freshness::IfError);
        assert!(wants(&[]).accept(&fresh, secs(50), secs(0)));
        assert!(!wants(&[]).accept(&stale, secs(70), secs(10)));
        assert!(!wants(&["max-age=40"]).accept(&fresh, secs(50), secs(0)));
        assert!(wants(&["max-stale=10"]).accept(&stale, secs(70), secs(10)));
        assert!(!wants(&["max-stale=9"]).accept(&stale, secs(70), secs(10)));
        assert!(!wants(&["max-stale, max-age=60"]).accept(&stale, secs(70), secs(10)));
        let purged = Candidate { entry: Arc::new(Entry { stale: true, ..entry("00", 0) }), ..stale };
        assert!(!wants(&["max-stale"]).accept(&purged, secs(70), secs(10)));
    }
}
