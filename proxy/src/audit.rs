//! The audit: one record for every request, committed before its answer leaves.
//!
//! A [`Record`] is begun when a request arrives and filled in along the path; [`Audit::commit`] gives it to the store's
//! writer and returns when it is on disk. Without a committed record no answer leaves: the caller refuses instead, or,
//! under `on_failure = "answer"`, the answer goes out and is counted. Requests that are not admitted may be counted too
//! (see [`Refusals`]).
//! Passwords, tokens and URLs have no field here.

pub mod filter;
#[cfg(feature = "parquet")]
pub mod parquet;
mod refusals;
pub mod render;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cmiot_signer::Transid;

use crate::admit::actions::Action;
use crate::cache::Entry;
use crate::clock::{Clock, Time};
use crate::config::{Client, OnFailure};
use crate::inline_str::InlineStr;
use crate::outcome::Outcome;
use crate::refusal::Description;
use crate::refusal::Refusal;
use crate::store::audit::{AuditStore, AuditUnavailable, BegunRow, LookupRow, Lost, Noted, RefusedRow};
use crate::wire::request::Claims;
pub use refusals::Refusals;

/// What is known of a look-up so far.
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
            client_gone: false,
            action: None,
        }
    }

    /// Where the parser leaves what it could read.
    pub fn claims(&mut self) -> &mut Claims {
        &mut self.claims
    }

    /// The card, masked for the log.
    pub fn masked_card(&self) -> Option<String> {
        self.claims.card.as_ref().map(|card| card.masked().to_string())
    }

    /// The request was authenticated as this client's.
    pub fn authenticated(&mut self, client: &Arc<Client>) {
        self.client = Some(Arc::clone(client));
    }

    /// It was refused on its way in, whoever sent it: it has used up nothing, so that it may come again as it is.
    pub fn not_admitted(&mut self) {
        self.not_admitted = true;
    }

    /// Its transid was used before, and it is answered all the same.
    pub fn repeated(&mut self) {
        self.repeated = true;
    }

    /// Its client left before it could be answered.
    pub fn client_gone(&mut self) {
        self.client_gone = true;
    }

    /// It is about to be done: until a record says its end, it stays open. None when nothing was begun after all.
    pub fn set_action(&mut self, action: Option<Action>) {
        self.action = action.map(Box::new);
    }

    /// The action that it is the record of.
    pub fn action(&self) -> Option<Action> {
        self.action.as_deref().copied()
    }

    /// The row that says that the action asked for is about to be sent; none of a request that could not be read.
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

    /// A carrier call served it.
    pub fn called(&mut self, account: &Arc<str>, transid: Option<&Transid>) {
        self.account = Some(Arc::clone(account));
        self.carrier_transid = transid.copied();
    }

    /// The carrier's answer that it gets, `age` after it was given.
    pub fn answered(&mut self, entry: Arc<Entry>, age: Duration) {
        self.answer = Some(entry);
        self.age = Some(age);
    }

    fn into_row(self, outcome: Outcome, refusal: Option<&Description>, latency: Duration) -> LookupRow {
        let answer = self.answer;
        let verdict = answer.as_ref().map(|entry| &entry.reply.verdict);
        let carrier_code =
            refusal.and_then(|refusal| refusal.carrier_code).or_else(|| verdict.map(|verdict| verdict.code));
        // Every answer that is not a refusal is the carrier's, with its code.
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

/// Commits records.
pub struct Audit {
    store: Arc<AuditStore>,
    /// How long an answer waits for its record, in nanoseconds.
    timeout: AtomicU64,
    refusals: Refusals,
    clock: Clock,
}

/// How long an answer waits for its record where it may leave without.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is looked who has waited too long for a commit.
const EXPIRY_TICK: Duration = Duration::from_millis(100);

impl Audit {
    /// Over the store's writer; a record that is not on disk after `timeout` counts as unavailable.
    pub fn new(store: Arc<AuditStore>, patience: Duration, refusals: Refusals, clock: Clock) -> Self {
        let audit = Self { store, timeout: AtomicU64::new(0), refusals, clock };
        audit.set_timeout(patience);
        audit
    }

    /// Applies another timeout, from the next round on.
    pub fn set_timeout(&self, timeout: Duration) {
        let timeout = match self.store.on_failure() {
            OnFailure::Refuse => timeout,
            OnFailure::Answer => timeout.min(COMMIT_TIMEOUT),
        };
        self.timeout.store(timeout.as_nanos().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Hands the record to the writer at once; ready when it is committed, or need not be. Says too whether the refusal
    /// has no record and was only counted.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: no answer may leave. The record may still come to be written afterwards.
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

    /// Hands the intent of an action to the writer at once; ready with its row's number when it is committed.
    pub fn begin_action(&self, intent: BegunRow) -> Noted {
        self.store.append_begun(intent)
    }

    /// Tells of commits those who wait for them, and lets go of those who have waited long enough: up to a round longer than
    /// they had patience for. Runs until it is dropped.
    pub async fn watch(&self) {
        tokio::join!(self.store.notifier(), self.expire_waiters());
    }

    async fn expire_waiters(&self) {
        loop {
            let patience = Duration::from_nanos(self.timeout.load(Ordering::Relaxed));
            let round = patience.clamp(Duration::from_millis(1), EXPIRY_TICK);
            let most = u64::try_from(patience.as_nanos().div_ceil(round.as_nanos())).unwrap_or(u64::MAX);
            tokio::time::sleep(round).await;
            self.store.expire(most);
        }
    }

    /// Rows that are missing and that nobody has acknowledged.
    pub fn lost(&self) -> Option<Lost> {
        self.store.lost()
    }

    /// Whether rows were lost, and that is not acknowledged, since this process began.
    pub fn lost_while_running(&self) -> bool {
        self.store.lost_while_running()
    }

    /// How many acknowledgements of losses were written since the start.
    pub fn acknowledgements(&self) -> u64 {
        self.store.acknowledgements()
    }

    /// Writes down the counts of a period that is over.
    pub fn run_maintenance(&self) {
        self.write_counts(self.refusals.take_if_over(self.clock.monotonic()));
    }

    /// Writes down the counts so far, before the store is closed.
    pub fn flush(&self) {
        self.write_counts(self.refusals.take());
    }

    /// Into the audit and the log, in which counted refusals have no line of their own either.
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
    fn a_record_that_comes_too_late_says_what_its_client_is_told() {
        for (refusal, withdrawn) in
            [(Refusal::Audit, Withdrawn::LOOKUP), (Refusal::Begun(Some(1)), Withdrawn::ACTION)]
        {
            let refusal = refusal.describe();
            assert_eq!((refusal.reason, refusal.code.as_str()), withdrawn);
            assert_eq!(refusal.outcome.name(), Withdrawn::OUTCOME);
        }
    }
}
