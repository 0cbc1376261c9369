//! Conditions that need the operator: raised where they are detected, listed by `/ready`, exported by `/metrics`, logged
//! when they begin and when they end.
//!
//! Each condition is raised at most once at a time; its text says what is wrong and which command or change ends it. A
//! remedy must not make the condition worse. No condition makes the proxy unready. docs/operations.md has an entry for
//! each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Moment, Time};
use crate::episode::whole_millis;
use crate::language::Text;

/// A condition that is raised at most once at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Condition {
    /// The carrier refuses an account's credentials or subscription, or does not have a path that the account calls.
    Account,
    /// This node acts without the other nodes of its fleet.
    Alone,
    /// Audit records cannot be written.
    Audit,
    /// Audit records wait long for their commit.
    AuditLag,
    /// Another process holds a lock on the audit, which cannot be written meanwhile.
    AuditLocked,
    /// A certificate has expired, expires soon, or is not valid yet.
    Certificate,
    /// The wall clock disagrees with the records, with the monotonic clock or with the carrier.
    Clock,
    /// A changed configuration is refused, and the old one is in use.
    Configuration,
    /// The free space of the audit's disk is below `min_free`, or near it.
    Disk,
    /// The audit is not copied to the fleet's database.
    FleetAudit,
    /// The clock of the fleet's database disagrees with this machine's.
    FleetClock,
    /// Another node of the fleet means other accounts by the name of a group, which is not shared.
    FleetGroups,
    /// The database of the fleet lost commits.
    FleetLost,
    /// More nodes of the fleet are alive than its configuration allows for.
    FleetNodes,
    /// Another node of the fleet calls another carrier, or has other aliases of cards.
    FleetSettings,
    /// An account uses a password other than its first.
    Password,
    /// Requests are refused since a client's or group's share of the replay table is full.
    ReplayFull,
    /// Configuration keys were changed that only a restart applies.
    Restart,
    /// Rows that an anchor covers are missing from the audit.
    RowsLost,
    /// Another program uses the appid of an account: the carrier refuses its tokens before their ttl has ended.
    SharedAppid,
    /// Most lookups are refused since their stamps are outside the window.
    StaleTransids,
    /// `state.db` takes no commit: no call to the carrier can be numbered.
    State,
}

impl Condition {
    /// All conditions.
    pub const ALL: [Self; 22] = [
        Self::Account,
        Self::Alone,
        Self::Audit,
        Self::AuditLag,
        Self::AuditLocked,
        Self::Certificate,
        Self::Clock,
        Self::Configuration,
        Self::Disk,
        Self::FleetAudit,
        Self::FleetClock,
        Self::FleetGroups,
        Self::FleetLost,
        Self::FleetNodes,
        Self::FleetSettings,
        Self::Password,
        Self::ReplayFull,
        Self::Restart,
        Self::RowsLost,
        Self::SharedAppid,
        Self::StaleTransids,
        Self::State,
    ];

    /// Its name in `/ready`, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Alone => "alone",
            Self::Audit => "audit",
            Self::AuditLag => "audit-lag",
            Self::AuditLocked => "audit-locked",
            Self::Certificate => "certificate",
            Self::Clock => "clock",
            Self::Configuration => "configuration",
            Self::Disk => "disk",
            Self::FleetAudit => "fleet-audit",
            Self::FleetClock => "fleet-clock",
            Self::FleetGroups => "fleet-groups",
            Self::FleetLost => "fleet-lost",
            Self::FleetNodes => "fleet-nodes",
            Self::FleetSettings => "fleet-settings",
            Self::Password => "password",
            Self::ReplayFull => "replay-full",
            Self::Restart => "restart",
            Self::RowsLost => "rows-lost",
            Self::SharedAppid => "shared-appid",
            Self::StaleTransids => "stale-transids",
            Self::State => "state",
        }
    }
}

/// Severity of a condition, and its log level when it is raised. Its number is the value of the metric.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Something will fail unless the operator acts in time.
    Warning = 1,
    /// Something fails now.
    Error = 2,
}

impl Severity {
    /// Its name in `/ready`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A condition that holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// The condition.
    pub condition: Condition,
    /// Its severity now.
    pub severity: Severity,
    /// The wall time at which it was raised.
    pub since: Time,
    /// The problem and its remedy.
    pub text: Text,
}

#[derive(Clone, Debug)]
struct Raised {
    severity: Severity,
    at: Moment,
    text: Text,
}

/// The conditions that hold now; clones share them.
#[derive(Clone, Debug)]
pub struct Alarms(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    raised: Mutex<BTreeMap<Condition, Raised>>,
}

impl Alarms {
    /// None holds. The clock dates them.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Shared { clock, raised: Mutex::default() }))
    }

    /// Raises a condition, or changes its text. An ERROR is logged when it is new, or was a warning before.
    pub fn raise(&self, condition: Condition, text: Text) {
        self.set(condition, Severity::Error, text);
    }

    /// Raises a condition under which nothing fails yet, or changes its text. A WARN is logged when it is new.
    pub fn raise_warning(&self, condition: Condition, text: Text) {
        self.set(condition, Severity::Warning, text);
    }

    /// Raises a condition with this severity, or changes severity and text.
    pub fn set(&self, condition: Condition, severity: Severity, text: Text) {
        let Some(text) = self.insert(condition, severity, text) else { return };
        match severity {
            Severity::Warning => tracing::warn!(alarm = condition.name(), "{text}"),
            Severity::Error => tracing::error!(alarm = condition.name(), "{text}"),
        }
    }

    /// Raises a condition with this severity if there is a text, and ends it otherwise.
    pub fn set_if(&self, condition: Condition, severity: Severity, text: Option<Text>) {
        match text {
            Some(text) => self.set(condition, severity, text),
            None => self.clear(condition),
        }
    }

    /// Returns the text for the log if the condition is new, or more severe than before.
    fn insert(&self, condition: Condition, severity: Severity, text: Text) -> Option<String> {
        let now = self.0.clock.moment();
        let mut all = self.lock();
        let before = all.get(&condition).map(|before| (before.severity, before.at));
        let at = before.map_or(now, |(_, at)| at);
        let is_new = before.is_none_or(|(before, _)| before < severity);
        let english = is_new.then(|| text.english.clone());
        all.insert(condition, Raised { severity, at, text });
        english
    }

    /// Ends a condition. An INFO with its start is logged when it held.
    pub fn clear(&self, condition: Condition) {
        self.clear_up_to(condition, Severity::Error);
    }

    /// Ends a condition if it holds as a warning; an error stays.
    pub fn clear_warning(&self, condition: Condition) {
        self.clear_up_to(condition, Severity::Warning);
    }

    fn clear_up_to(&self, condition: Condition, most: Severity) {
        let mut all = self.lock();
        let ends = all.get(&condition).is_some_and(|raised| raised.severity <= most);
        let ended = if ends { all.remove(&condition) } else { None };
        drop(all);
        if let Some(Raised { at, .. }) = ended {
            let lasted = whole_millis(self.0.clock.monotonic().saturating_sub(at.monotonic));
            tracing::info!(alarm = condition.name(), since = %at.wall, ?lasted, "the alarm has ended");
        }
    }

    /// Whether a condition holds with this severity, or a worse one.
    pub fn holds_as(&self, condition: Condition, severity: Severity) -> bool {
        self.lock().get(&condition).is_some_and(|raised| raised.severity >= severity)
    }

    /// Whether a condition holds.
    pub fn holds(&self, condition: Condition) -> bool {
        self.lock().contains_key(&condition)
    }

    /// The conditions that hold.
    pub fn list(&self) -> Vec<Alarm> {
        let alarm = |(condition, raised): (&Condition, &Raised)| Alarm {
            condition: *condition,
            severity: raised.severity,
            since: raised.at.wall,
            text: raised.text.clone(),
        };
        self.lock().iter().map(alarm).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Condition, Raised>> {
        // No change of the map can panic half-way.
        self.0.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::language::text;

    const START: Time = Time::from_secs(1_768_449_600);

    fn texts(alarms: &Alarms) -> Vec<(Condition, String)> {
        alarms.list().into_iter().map(|alarm| (alarm.condition, alarm.text.english)).collect()
    }

    #[test]
    fn a_condition_holds_once_until_it_is_cleared() {
        let (clock, hand) = Clock::manual(START);
        let alarms = Alarms::new(clock);
        let shared = alarms.clone();
        alarms.raise(Condition::RowsLost, text!("2 rows", "2 行"));
        hand.advance(Duration::from_secs(5));
        alarms.raise(Condition::RowsLost, text!("3 rows", "3 行"));
        assert_eq!(texts(&shared), [(Condition::RowsLost, "3 rows".to_owned())]);
        assert_eq!(shared.list()[0].since, START, "its start stays");
        assert!(shared.holds(Condition::RowsLost) && !shared.holds(Condition::Clock));
        shared.clear(Condition::RowsLost);
        assert_eq!(alarms.list(), []);
    }

    #[test]
    fn a_warning_that_becomes_an_error_counts_as_new() {
        let alarms = Alarms::new(Clock::manual(START).0);
        let insert = |severity, text| alarms.insert(Condition::Certificate, severity, text).is_some();
        assert!(insert(Severity::Warning, text!("expires soon", "即将过期")));
        assert!(!insert(Severity::Warning, text!("expires tomorrow", "明天过期")));
        assert!(insert(Severity::Error, text!("expired", "已过期")));
        assert!(!insert(Severity::Warning, text!("expires soon", "即将过期")));
        assert_eq!(texts(&alarms), [(Condition::Certificate, "expires soon".to_owned())]);
    }

    #[test]
    fn an_error_stays_when_a_warning_is_cleared() {
        let alarms = Alarms::new(Clock::manual(START).0);
        alarms.raise_warning(Condition::Configuration, text!("slow", "慢"));
        assert!(!alarms.holds_as(Condition::Configuration, Severity::Error));
        alarms.clear_warning(Condition::Configuration);
        assert_eq!(alarms.list(), []);
        alarms.raise(Condition::Configuration, text!("refused", "被拒绝"));
        alarms.clear_warning(Condition::Configuration);
        assert!(alarms.holds_as(Condition::Configuration, Severity::Error));
        alarms.clear(Condition::Configuration);
        assert_eq!(alarms.list(), []);
    }

    #[test]
    fn every_condition_is_listed_once_by_its_name() {
        let names: std::collections::BTreeSet<_> = Condition::ALL.map(Condition::name).into();
        assert_eq!(names.len(), Condition::ALL.len());
        // The last one in the order of the declaration.
        assert_eq!(Condition::ALL.iter().max(), Some(&Condition::State));
        assert_eq!(Condition::State as usize + 1, Condition::ALL.len());
    }
}
