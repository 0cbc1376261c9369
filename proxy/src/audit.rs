//! The audit: one record per request, committed before its response leaves.
//!
//! A [`Record`] is created when a request arrives and filled along the path; [`Audit::commit`] queues it for the
//! store's writer and is ready when it is on disk. No response leaves without a committed record: the caller refuses
//! instead, or, under `on_failure = "answer"`, responds and counts the request. Requests that are not admitted may be
//! only counted (see [`Refusals`]). Passwords, tokens and URLs have no field here.

pub mod filter;
#[cfg(feature = "parquet")]
pub mod parquet;
mod refusals;
pub mod render;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cmiot_signer::{AppId, Card, Transid};

use crate::admit::actions::Action;
use crate::alarms::{Alarms, Condition};
use crate::cache::Entry;
use crate::carrier::verdict::Code;
use crate::clock::{Clock, Time};
use crate::config::{Client, OnFailure};
use crate::inline_str::InlineStr;
use crate::language::text;
use crate::outcome::Outcome;
use crate::refusal::Description;
use crate::refusal::Refusal;
use crate::store::audit::{AuditStore, AuditUnavailable, BegunRow, LookupRow, Noted, OpenLoss, RefusedRow};
use crate::wire::request::Claims;
pub use refusals::Refusals;

/// The record of a request so far.
#[derive(Debug)]
pub struct Record {
    at: Time,
    peer: IpAddr,
    claims: Claims,
    client: Option<Arc<Client>>,
    account: Option<Arc<str>>,
    carrier_transid: Option<Transid>,
    answer: Option<Arc<Entry>>,
    age: Option<Duration>,
    not_admitted: bool,
    repeated: bool,
    alone: bool,
    client_gone: bool,
    action: Option<Box<Action>>,
}

impl Record {
    /// A request that arrived at `at` from `peer`.
    pub fn start(at: Time, peer: IpAddr) -> Self {
        Self {
            at,
            peer,
            claims: Claims::default(),
            client: None,
            account: None,
            carrier_transid: None,
            answer: None,
            age: None,
            not_admitted: false,
            repeated: false,
            alone: false,
            client_gone: false,
            action: None,
        }
    }

    /// The claims, for the parser to fill.
    pub fn claims(&mut self) -> &mut Claims {
        &mut self.claims
    }

    /// The transid of the request, if it has the exact form.
    pub fn exact_transid(&self) -> Option<InlineStr<{ Transid::MAX_LEN }>> {
        self.claims.transid.filter(|_| self.claims.exact)
    }

    /// The authenticated client, the appid that the request claims, and its card: for the log.
    pub fn parties(&self) -> (Option<Arc<Client>>, Option<AppId>, Option<Card>) {
        (self.client.clone(), self.claims.appid, self.claims.card)
    }

    /// The request was authenticated as this client's.
    pub fn authenticated(&mut self, client: &Arc<Client>) {
        self.client = Some(Arc::clone(client));
    }

    /// It was refused before admission, by any client: its transid is not marked used, so it may be sent again
    /// unchanged.
    pub fn not_admitted(&mut self) {
        self.not_admitted = true;
    }

    /// Its transid was used before, and it is answered again.
    pub fn repeated(&mut self) {
        self.repeated = true;
    }

    /// Its transid was accepted while this node was alone: another node of the fleet may have accepted it too.
    pub fn accepted_alone(&mut self) {
        self.alone = true;
    }

    /// Its client disconnected before the response.
    pub fn client_gone(&mut self) {
        self.client_gone = true;
    }

    /// Sets the action: until a record states its end, it stays open. None if no intent was committed.
    pub fn set_action(&mut self, action: Option<Action>) {
        self.action = action.map(Box::new);
    }

    /// The action that it records.
    pub fn action(&self) -> Option<Action> {
        self.action.as_deref().copied()
    }

    /// The intent of the action, a row that is committed before the action is sent; none of a request that could not be
    /// read.
    pub fn intent(&self) -> Option<BegunRow> {
        let Claims { operation, transid, card, .. } = &self.claims;
        Some(BegunRow {
            at: self.at,
            client: self.client.as_ref()?.appid,
            transid: (*transid)?,
            operation: (*operation)?.name,
            card: (*card)?,
        })
    }

    /// A carrier call served the request.
    pub fn called(&mut self, account: &Arc<str>, transid: Option<&Transid>) {
        self.account = Some(Arc::clone(account));
        self.carrier_transid = transid.copied();
    }

    /// The carrier reply that answers it, and the age of that reply.
    pub fn answered(&mut self, entry: Arc<Entry>, age: Duration) {
        self.answer = Some(entry);
        self.age = Some(age);
    }

    fn into_row(self, outcome: Outcome, refusal: Option<&Description>, latency: Duration) -> LookupRow {
        let answer = self.answer;
        let verdict = answer.as_ref().map(|entry| &entry.reply.verdict);
        let carrier_code =
            refusal.and_then(|refusal| refusal.carrier_code).or_else(|| answer.as_deref().map(carrier_code));
        // Every response that is not a refusal is the carrier's, with its code.
        let code = match (refusal, verdict) {
            (Some(refusal), _) => InlineStr::new(refusal.code.as_str()),
            (None, Some(verdict)) => InlineStr::new(verdict.code.as_str()),
            (None, None) => InlineStr::new(""),
        };
        LookupRow {
            at: self.at,
            authenticated: self.client.is_some(),
            action: self.action.is_some(),
            client: self.client.as_ref().map(|client| client.appid).or(self.claims.appid),
            group: self.client.as_ref().map(|client| Arc::clone(&client.group)),
            account: self.account,
            peer: self.peer,
            operation: self.claims.operation.map(|operation| operation.name),
            card: self.claims.card,
            transid: self.claims.transid,
            outcome: outcome.name(),
            reason: refusal
                .map(|refusal| refusal.reason)
                .or_else(|| self.repeated.then(|| Refusal::ReusedTransid.describe().reason))
                .or_else(|| self.alone.then_some(Refusal::ALONE))
                .or_else(|| self.client_gone.then(|| Refusal::ClientGone.describe().reason)),
            code,
            carrier_code: carrier_code.map(|code| InlineStr::new(code.as_str())),
            status: verdict
                .and_then(|verdict| verdict.status.as_ref())
                .map(|status| InlineStr::new(status.code())),
            age: self.age,
            carrier_transid: self.carrier_transid.map(|transid| InlineStr::new(transid.as_str())),
            latency,
        }
    }
}

/// The code that the carrier wrote.
fn carrier_code(entry: &Entry) -> Code {
    let reply = &entry.reply;
    reply.translated.as_ref().map_or(reply.verdict.code, |translated| translated.code)
}

/// Commits records.
pub struct Audit {
    store: Arc<AuditStore>,
    /// The timeout of a commit, in nanoseconds.
    timeout: AtomicU64,
    refusals: Refusals,
    /// The last time that records waited long, by the monotonic clock; `None` without an alarm.
    behind: Mutex<Option<Duration>>,
    clock: Clock,
}

/// The timeout of a commit if a response may leave without its record.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The time without late commits after which the alarm about them ends.
const CAUGHT_UP: Duration = Duration::from_secs(30);

/// The longest tick of the waiters' timeouts.
const EXPIRY_TICK: Duration = Duration::from_millis(100);

impl Audit {
    /// Records go to the store's writer; one that is not on disk after `timeout` counts as unavailable.
    pub fn new(store: Arc<AuditStore>, timeout: Duration, refusals: Refusals, clock: Clock) -> Self {
        let audit = Self { store, timeout: AtomicU64::new(0), refusals, behind: Mutex::default(), clock };
        audit.set_timeout(timeout);
        audit
    }

    /// Sets another timeout, from the next tick on.
    pub fn set_timeout(&self, timeout: Duration) {
        let timeout = match self.store.on_failure() {
            OnFailure::Refuse => timeout,
            OnFailure::Answer => timeout.min(COMMIT_TIMEOUT),
        };
        self.timeout.store(timeout.as_nanos().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Queues the record at once. The future is ready when it is committed, or need not be. The first value is whether
    /// the refusal has no record and was only counted.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: no response may leave. The record may still be written afterwards.
    pub fn commit(
        &self,
        record: Record,
        outcome: Outcome,
        refusal: Option<&Description>,
        latency: Duration,
    ) -> (bool, impl Future<Output = Result<(), AuditUnavailable>> + Send + use<>) {
        let bounded = record.client.is_none() || record.not_admitted;
        let counted = refusal.is_some_and(|refusal| {
            let client = record.client.as_ref().map(|client| client.appid);
            bounded && !self.refusals.is_recorded(client, record.peer, refusal.reason, record.at)
        });
        let written = (!counted).then(|| self.store.append(record.into_row(outcome, refusal, latency)));
        let on_failure = self.store.on_failure();
        let committed = async move {
            let Some(written) = written else { return Ok(()) };
            match (written.await, on_failure) {
                (_, OnFailure::Answer) => Ok(()),
                (written, OnFailure::Refuse) => written,
            }
        };
        (counted, committed)
    }

    /// Queues the intent of an action at once; resolves to its row's number when it is committed.
    pub fn begin_action(&self, intent: BegunRow) -> Noted {
        self.store.append_begun(intent)
    }

    /// Delivers commit results and times out waiters, at most one tick late. Runs until it is dropped.
    pub async fn watch(&self) {
        tokio::join!(self.store.notifier(), self.expire_waiters());
    }

    async fn expire_waiters(&self) {
        loop {
            let timeout = Duration::from_nanos(self.timeout.load(Ordering::Relaxed));
            let tick = timeout.clamp(Duration::from_millis(1), EXPIRY_TICK);
            let most = u64::try_from(timeout.as_nanos().div_ceil(tick.as_nanos())).unwrap_or(u64::MAX);
            tokio::time::sleep(tick).await;
            self.store.expire(most);
        }
    }

    /// Rows that are missing, which is not acknowledged.
    pub fn lost(&self) -> Option<OpenLoss> {
        self.store.lost()
    }

    /// Whether rows were lost since this process started, which is not acknowledged.
    pub fn lost_while_running(&self) -> bool {
        self.store.lost_while_running()
    }

    /// The number of acknowledgements of losses since the start.
    pub fn acknowledgements(&self) -> u64 {
        self.store.acknowledgements()
    }

    /// The alarms that the audit raises.
    pub fn alarms(&self) -> &Alarms {
        self.store.alarms()
    }

    /// Writes the counts of a period that has ended, and keeps the alarm about late commits up to date; called on a ticker.
    pub fn run_maintenance(&self) {
        let now = self.clock.monotonic();
        self.write_counts(self.refusals.take_if_ended(now));
        self.report_lag(now);
    }

    /// Warns while records wait long for their commit, and until they have not for [`CAUGHT_UP`].
    fn report_lag(&self, now: Duration) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if self.store.is_behind() {
            *behind = Some(now);
            let text = text!(
                "audit records wait long for their commit, {queued} of them now: lookups get slower, and are refused with 73 once \
                 the queue is full; look for other load on the disk of [store] dir (`iostat -x`, a backup, a scrub), or give \
                 it a faster one",
                "审计记录等待提交的时间过长，目前有 {queued} 条：查询变慢，队列满后以返回码 73 拒绝；请检查 [store] dir 所在磁盘上的\
                 其他负载（`iostat -x`，备份，巡检），或换用更快的磁盘",
                queued = self.store.queued()
            );
            self.alarms().raise_warning(Condition::AuditLag, text);
        } else if behind.is_some_and(|last| now.saturating_sub(last) >= CAUGHT_UP) {
            *behind = None;
            self.alarms().clear(Condition::AuditLag);
        }
    }

    /// Writes the counts so far, before the store is closed.
    pub fn flush(&self) {
        self.write_counts(self.refusals.take());
    }

    /// Writes them into the audit and the log, which has no other line for counted refusals.
    fn write_counts(&self, counts: Vec<RefusedRow>) {
        for row in counts {
            let peer = row.peer.map(tracing::field::display);
            tracing::info!(reason = row.reason, peer, count = row.count, "further refusals");
            self.store.append_refused(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::Withdrawn;

    #[test]
    fn a_record_that_is_withdrawn_states_the_response_to_its_client() {
        for (refusal, withdrawn) in
            [(Refusal::Audit, Withdrawn::LOOKUP), (Refusal::Begun(Some(1)), Withdrawn::ACTION)]
        {
            let refusal = refusal.describe();
            assert_eq!(Withdrawn { reason: refusal.reason, code: refusal.code }, withdrawn);
            assert_eq!(refusal.outcome, Withdrawn::OUTCOME);
        }
    }
}
