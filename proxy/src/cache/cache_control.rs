//! Request directives of `Cache-Control`, applied to an entry within the operator's limits.

use std::time::Duration;

use super::freshness::Freshness;
use super::{Age, Candidate};
use crate::config::Permissions;
use crate::wire::cache_control::RequestDirectives;

/// The operator's limits on what a gateway's directives can cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectiveLimits {
    /// A smaller `max-age`, and `no-cache`, count as this: a younger entry is fresh enough for every gateway.
    pub max_age_floor: Duration,
    /// A larger `max-stale` counts as this.
    pub max_stale_ceiling: Duration,
}

impl DirectiveLimits {
    pub fn of(permissions: &Permissions) -> Self {
        Self { max_age_floor: permissions.max_age_floor, max_stale_ceiling: permissions.max_stale_ceiling }
    }
}

impl RequestDirectives {
    /// The same directives within the operator's limits.
    pub fn clamp(self, limits: &DirectiveLimits) -> Self {
        Self {
            max_age: self.max_age.map(|age| age.max(limits.max_age_floor)),
            max_stale: self.max_stale.map(|stale| stale.min(limits.max_stale_ceiling)),
            ..self
        }
    }

    /// Whether a response of this age may satisfy the request (RFC 9111 5.2.1.1).
    pub fn permit_age(&self, age: Duration) -> bool {
        self.max_age.is_none_or(|max| age <= max)
    }

    /// Whether a candidate of this age satisfies the request without a call.
    pub fn accept(&self, candidate: &Candidate, age: Age) -> bool {
        let young = self.permit_age(age.total);
        let fresh = candidate.freshness == Freshness::Fresh;
        // After a soft purge an entry of any age is not served without a call.
        let stale_enough = !candidate.entry.stale && self.max_stale.is_some_and(|max| age.stale <= max);
        young && (fresh || stale_enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Entry;
    use crate::cache::tests::entry;
    use std::sync::Arc;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn max_age(age: u64) -> RequestDirectives {
        RequestDirectives { max_age: Some(secs(age)), ..RequestDirectives::default() }
    }

    fn max_stale(stale: Duration) -> RequestDirectives {
        RequestDirectives { max_stale: Some(stale), ..RequestDirectives::default() }
    }

    #[test]
    fn limits_bound_what_a_gateway_can_cost() {
        let limits = DirectiveLimits { max_age_floor: secs(10), max_stale_ceiling: secs(60) };
        assert_eq!(max_age(0).clamp(&limits).max_age, Some(secs(10)));
        assert_eq!(max_age(30).clamp(&limits).max_age, Some(secs(30)));
        assert_eq!(max_stale(Duration::MAX).clamp(&limits).max_stale, Some(secs(60)));
    }

    #[test]
    fn a_candidate_satisfies_the_directives_or_not() {
        let candidate =
            |freshness| Candidate { entry: Arc::new(entry("00", 0)), freshness, lifetime: None, hits: 0 };
        let age = |total, stale| Age { total: secs(total), stale: secs(stale) };
        let fresh = candidate(Freshness::Fresh);
        let stale = candidate(Freshness::IfError);
        let none = RequestDirectives::default();
        assert!(none.accept(&fresh, age(50, 0)));
        assert!(!none.accept(&stale, age(70, 10)));
        assert!(!max_age(40).accept(&fresh, age(50, 0)));
        assert!(max_stale(secs(10)).accept(&stale, age(70, 10)));
        assert!(!max_stale(secs(9)).accept(&stale, age(70, 10)));
        let both = RequestDirectives { max_age: Some(secs(60)), ..max_stale(Duration::MAX) };
        assert!(!both.accept(&stale, age(70, 10)));
        let purged = Candidate { entry: Arc::new(Entry { stale: true, ..entry("00", 0) }), ..stale };
        assert!(!max_stale(Duration::MAX).accept(&purged, age(70, 10)));
    }
}
