//! The state *alone*: the node acts without the others. A note in the audit begins and ends it, and an alarm holds.
//!
//! A drain ends it too, and after a crash the next start.
//!
//! It begins when the breaker of the link opens, or when no heartbeat was stored for [`ALONE_AFTER`](super::ALONE_AFTER).
//! It ends when a heartbeat is stored, the pool has answered a probe, and the purges of the meantime are applied.

use std::path::Path;
use std::sync::PoisonError;

use super::{Fleet, Membership};
use crate::alarms::{Condition, Severity};
use crate::clock::Time;
use crate::language::{Text, text};
use crate::store::audit::ActRow;
use crate::store::audit::query::{self, Field, Filter, Listed, NOTE};
use crate::store::blocking;
use crate::store::fleet::nodes::{About, Holder};

/// Reason for being alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The process has started, and no heartbeat was stored yet.
    Start,
    /// The breaker is open: a statement of a request timed out, or several failed.
    Breaker,
    /// No heartbeat was stored for some time.
    Heartbeat,
    /// A caller found that the database is away.
    Caller,
    /// The schema is missing.
    NoSchema,
    /// The schema is too old for this proxy, or too new.
    Schema {
        /// The database.
        about: About,
        /// The version that this proxy needs.
        needs: i32,
    },
    /// The database is that of another fleet than at the start.
    OtherFleet,
    /// The number of this node is bound to another store.
    OtherStore(Holder),
    /// Another process with a copy of this store has the life of this node.
    OtherProcess(Holder),
}

impl Cause {
    /// Its name in the audit and in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Breaker => "breaker",
            Self::Heartbeat => "heartbeat",
            Self::Caller => "statement",
            Self::NoSchema => "no-schema",
            Self::Schema { .. } => "schema",
            Self::OtherFleet => "other-fleet",
            Self::OtherStore(_) => "other-store",
            Self::OtherProcess(_) => "other-process",
        }
    }

    /// An error if two processes may use the same transids at the carrier: a warning would be too little.
    fn severity(&self) -> Severity {
        match self {
            Self::OtherStore(_) | Self::OtherProcess(_) => Severity::Error,
            _ => Severity::Warning,
        }
    }

    /// The reason and its remedy.
    pub fn text(&self, node: u8) -> Text {
        match self {
            Self::Start | Self::Breaker | Self::Heartbeat | Self::Caller => text!(
                "the database of the fleet does not answer, or not in time: restore the database or the network to it; the \
                 log and cmiot_fleet_database_failures_total have the errors",
                "集群数据库没有响应，或响应过慢：请恢复数据库或通往它的网络；错误见日志和 cmiot_fleet_database_failures_total"
            ),
            Self::NoSchema => text!(
                "the database has no tables of a fleet: run `cmiot-proxy fleet migrate --config FILE`",
                "数据库中没有集群的表：请运行 `cmiot-proxy fleet migrate --config FILE`"
            ),
            Self::Schema { about, needs } if about.version < *needs => text!(
                "the schema of the database has version {found}, and this proxy needs {needs}: run `cmiot-proxy fleet \
                 migrate --config FILE`",
                "数据库的表结构版本是 {found}，本代理需要 {needs}：请运行 `cmiot-proxy fleet migrate --config FILE`",
                found = about.version
            ),
            Self::Schema { about, needs } => text!(
                "the schema of the database is for proxies of version {oldest} or later, and this one has {needs}: upgrade \
                 this proxy",
                "数据库的表结构要求代理版本不低于 {oldest}，本代理的版本是 {needs}：请升级本代理",
                oldest = about.oldest
            ),
            Self::OtherFleet => text!(
                "the database belongs to another fleet than the one at the start of this process: correct [fleet] hosts, or \
                 restart the proxy if the new database is meant",
                "数据库属于另一个集群，与本进程启动时不同：请更正 [fleet] hosts；如果确实要使用新数据库，请重启代理"
            ),
            Self::OtherStore(holder) => text!(
                "node {node} of the fleet belongs to another store, with the public key {store}, last used at {place}: give \
                 this proxy another [carrier] node, or run `cmiot-proxy fleet release-node {node} --config FILE` if that \
                 store is gone for good",
                "集群的节点 {node} 属于另一个存储，其公钥为 {store}，最近一次使用位置：{place}：请为本代理设置另一个 [carrier] \
                 node；如果那个存储已永久停用，请运行 `cmiot-proxy fleet release-node {node} --config FILE`",
                store = holder.store,
                place = holder.shown_place()
            ),
            Self::OtherProcess(holder) => text!(
                "node {node} of the fleet runs at {place} with a copy of this store: stop one of the two at once, since both \
                 number calls to the carrier alike; a second proxy needs an empty [store] dir and another [carrier] node",
                "集群的节点 {node} 正在 {place} 运行，使用的是本存储的副本：请立即停止其中一个，因为两者会以相同的事务编码调用\
                 运营商；第二个代理需要空的 [store] dir 和另一个 [carrier] node",
                place = holder.shown_place()
            ),
        }
    }
}

impl Holder {
    fn shown_place(&self) -> &str {
        if self.place.is_empty() { "?" } else { &self.place }
    }
}

impl Fleet {
    /// Makes this node alone until the next heartbeat and probe, because a request continues without the database: the
    /// note in the audit is queued before this returns.
    pub fn continue_alone(&self) {
        self.link.trip();
        self.leave(&Cause::Caller);
    }

    /// Begins to be alone, if the node is not, and raises the alarm with this cause.
    pub(super) fn leave(&self, cause: &Cause) {
        let mut is_noted = self.is_noted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.local.clock.now();
        let left = self.membership.send_if_modified(|membership| {
            let Membership::Member { life } = *membership else { return false };
            // Queued before any request sees that the node is alone.
            self.note(now, format!("begins node={} life={life} cause={}", self.node, cause.name()));
            *membership = Membership::Alone { since: now };
            true
        });
        if left {
            *is_noted = true;
            self.local.metrics.fleet_alone(true);
        }
        self.raise_alone(cause);
    }

    /// Notes that the node is alone from its start on.
    pub(super) fn start_alone(&self, cause: &Cause) {
        let mut is_noted = self.is_noted.lock().unwrap_or_else(PoisonError::into_inner);
        *is_noted = true;
        self.note(self.local.clock.now(), format!("begins node={} cause={}", self.node, cause.name()));
        self.local.metrics.fleet_alone(true);
        self.raise_alone(cause);
    }

    /// Changes the text of the alarm, unless the cause says less than the one before.
    pub(super) fn raise_alone(&self, cause: &Cause) {
        let Membership::Alone { since } = *self.membership.borrow() else { return };
        if *cause == Cause::Caller && self.local.alarms.holds(Condition::Alone) {
            return;
        }
        let Text { english, chinese } = cause.text(self.node);
        let text = Text {
            english: format!("alone since {since}: {english}"),
            chinese: format!("自 {since} 起独自运行：{chinese}"),
        };
        self.local.alarms.set(Condition::Alone, cause.severity(), text);
    }

    /// Ends being alone under this life.
    pub(super) fn join(&self, life: i64) {
        let mut is_noted = self.is_noted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.membership.send_replace(Membership::Member { life });
        if let Membership::Alone { .. } = before {
            if std::mem::take(&mut *is_noted) {
                self.note(self.local.clock.now(), format!("ends node={} life={life}", self.node));
            }
            self.local.metrics.fleet_alone(false);
            self.local.alarms.clear(Condition::Alone);
            tracing::info!(node = self.node, life, "this node acts with its fleet");
        }
    }

    /// Notes the end of being alone at a drain: the process makes no decision without the others any more.
    pub(super) fn end_at_drain(&self) {
        let mut is_noted = self.is_noted.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *is_noted) {
            self.note(self.local.clock.now(), format!("ends node={} cause=drain", self.node));
        }
    }

    /// Notes the end of being alone of a process before, if its last note in the audit is the begin.
    pub(super) async fn end_of_crash(&self, dir: &Path) {
        let dir = dir.to_owned();
        let filter = Filter { reason: Some("alone".to_owned()), ..Filter::default() };
        match blocking(move || query::list(&dir, Listed::Notes, &filter, 1, None)).await {
            Ok(rows) if rows.first().is_some_and(|note| is_begin(note)) => {
                self.note(self.local.clock.now(), format!("ends node={} cause=restart", self.node));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the last note about being alone cannot be read"),
        }
    }

    fn note(&self, at: Time, detail: String) {
        self.local.audit.append_act_later(ActRow { at, what: "alone", detail, card: None });
    }
}

/// Whether a note is that of a begin.
fn is_begin(note: &[Field]) -> bool {
    const DETAIL: usize = query::position(NOTE, "detail");
    matches!(note.get(DETAIL), Some(Field::Text(detail)) if detail.starts_with("begins "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_says_who_else_has_the_number_and_what_to_do() {
        let holder = Holder { store: "ab12".to_owned(), place: "edge-1:/var/lib/cmiot-proxy".to_owned() };
        let Text { english, chinese } = Cause::OtherStore(holder.clone()).text(7);
        for part in ["node 7", "ab12", "edge-1:/var/lib/cmiot-proxy", "release-node 7"] {
            assert!(english.contains(part), "{english}");
        }
        assert!(chinese.contains("ab12") && chinese.contains("节点 7"), "{chinese}");
        assert_eq!(Cause::OtherProcess(holder).severity(), Severity::Error);
        assert_eq!(Cause::Heartbeat.severity(), Severity::Warning);
    }

    #[test]
    fn a_schema_that_is_too_old_is_migrated_and_for_one_that_is_too_new_the_proxy_is_upgraded() {
        let about = |version, oldest| About { fleet: String::new(), version, oldest };
        let text = |about| Cause::Schema { about, needs: 3 }.text(1).english;
        assert!(text(about(2, 1)).contains("fleet migrate"));
        assert!(text(about(5, 4)).contains("upgrade this proxy"));
    }
}
