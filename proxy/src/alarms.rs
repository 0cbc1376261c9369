//! Conditions that need the operator: raised where they are noticed, listed by `/ready`, counted by `/metrics`.
//!
//! A leaf: it imports nothing. A condition is raised at most once at a time; its text says what is wrong and which
//! command or change ends it. Nothing here makes the proxy unready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A condition, of which there is at most one at a time.
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
    /// Rows that an anchor knows are missing from the audit.
    RowsLost,
    /// `state.db` takes no commit: no call to the carrier can be numbered.
    State,
    /// Requests are refused since a share of the replay table is full.
    ReplayFull,
    /// Keys of the configuration were changed that only a restart applies.
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

/// The conditions that hold now; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Alarms(Arc<Mutex<BTreeMap<Condition, String>>>);

impl Alarms {
    /// Raises a condition, or changes its text. An ERROR is logged when it is new.
    pub fn raise(&self, condition: Condition, text: impl Into<String>) {
        let text = text.into();
        if self.lock().insert(condition, text.clone()).is_none() {
            tracing::error!(alarm = condition.name(), "{text}");
        }
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
        self.lock().iter().map(|(condition, text)| (*condition, text.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Condition, String>> {
        // The map is whole at every step.
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
}
