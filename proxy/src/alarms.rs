//! Conditions that need the operator: raised where they are detected, listed by `/ready`, counted by `/metrics`.
//!
//! Each condition is raised at most once at a time; its text says what is wrong and which command or change ends it.
//! No condition makes the proxy unready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A condition that is raised at most once at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Condition {
    /// Another process holds a lock on the audit, which cannot be written meanwhile.
    AuditLocked,
    /// A certificate has expired, expires soon, or is not valid yet.
    Certificate,
    /// The wall clock disagrees with the records, with the monotonic clock or with the carrier.
    Clock,
    /// A changed configuration is refused, and the old one is in use.
    Configuration,
    /// Rows that an anchor covers are missing from the audit.
    RowsLost,
    /// `state.db` takes no commit: no call to the carrier can be numbered.
    State,
    /// Requests are refused since a client's or group's share of the replay table is full.
    ReplayFull,
    /// Configuration keys were changed that only a restart applies.
    Restart,
}

impl Condition {
    /// Its name in `/ready`, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::AuditLocked => "audit-locked",
            Self::Certificate => "certificate",
            Self::Clock => "clock",
            Self::Configuration => "configuration",
            Self::RowsLost => "rows-lost",
            Self::State => "state",
            Self::ReplayFull => "replay-full",
            Self::Restart => "restart",
        }
    }
}

/// Log level of a condition when it is raised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Severity {
    /// Something will fail unless the operator acts in time.
    Warning,
    /// Something fails now.
    Error,
}

/// A condition that holds.
#[derive(Clone, Debug)]
struct Raised {
    severity: Severity,
    text: String,
}

/// The conditions that hold now; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Alarms(Arc<Mutex<BTreeMap<Condition, Raised>>>);

impl Alarms {
    /// Raises a condition, or changes its text. An ERROR is logged when it is new, or was a warning before.
    pub fn raise(&self, condition: Condition, text: impl Into<String>) {
        let text = text.into();
        if self.insert(condition, Severity::Error, &text) {
            tracing::error!(alarm = condition.name(), "{text}");
        }
    }

    /// Raises a condition under which nothing fails yet, or changes its text. A WARN is logged when it is new.
    pub fn raise_warning(&self, condition: Condition, text: impl Into<String>) {
        let text = text.into();
        if self.insert(condition, Severity::Warning, &text) {
            tracing::warn!(alarm = condition.name(), "{text}");
        }
    }

    /// Whether the condition is new, or more severe than before.
    fn insert(&self, condition: Condition, severity: Severity, text: &str) -> bool {
        let raised = Raised { severity, text: text.to_owned() };
        self.lock().insert(condition, raised).is_none_or(|before| before.severity < severity)
    }

    /// Ends a condition. An INFO is logged when it held.
    pub fn clear(&self, condition: Condition) {
        if self.lock().remove(&condition).is_some() {
            tracing::info!(alarm = condition.name(), "the alarm has ended");
        }
    }

    /// Whether a condition holds.
    pub fn holds(&self, condition: Condition) -> bool {
        self.lock().contains_key(&condition)
    }

    /// The conditions that hold, each with its text.
    pub fn list(&self) -> Vec<(Condition, String)> {
        self.lock().iter().map(|(condition, raised)| (*condition, raised.text.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Condition, Raised>> {
        // No change of the map can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_once_until_it_is_cleared() {
        let alarms = Alarms::default();
        let shared = alarms.clone();
        alarms.raise(Condition::RowsLost, "2 rows");
        alarms.raise(Condition::RowsLost, "3 rows");
        assert_eq!(shared.list(), [(Condition::RowsLost, "3 rows".to_owned())]);
        assert!(shared.holds(Condition::RowsLost) && !shared.holds(Condition::Clock));
        shared.clear(Condition::RowsLost);
        assert_eq!(alarms.list(), []);
    }

    #[test]
    fn a_warning_that_becomes_an_error_counts_as_new() {
        let alarms = Alarms::default();
        assert!(alarms.insert(Condition::Certificate, Severity::Warning, "expires soon"));
        assert!(!alarms.insert(Condition::Certificate, Severity::Warning, "expires tomorrow"));
        assert!(alarms.insert(Condition::Certificate, Severity::Error, "expired"));
        assert!(!alarms.insert(Condition::Certificate, Severity::Warning, "expires soon"));
        assert_eq!(alarms.list(), [(Condition::Certificate, "expires soon".to_owned())]);
    }
}
