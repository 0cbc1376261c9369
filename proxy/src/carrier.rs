//! The carrier's side: signs one call with an account's credentials, makes it, and says what came of it.
//!
//! One [`Attempt`] is one call with one transid of its own. What the carrier said is a [`Verdict`]; what kept it from
//! saying anything is a [`Fault`]. Only this room knows the carrier's JSON and error codes.

pub mod client;
pub mod fault;
pub mod verdict;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmiot_signer::{Card, Signer, Transid};

use crate::clock::{Clock, Time};
use crate::config::Account;
use crate::metrics::Metrics;
use crate::operation::Operation;
use crate::sequence::TransidSource;
use client::Client;
use fault::Fault;
use verdict::{Class, Verdict};

/// One call to the carrier and its end.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The account that signed it.
    pub account: Arc<str>,
    /// Its own transaction number; absent when none could be had.
    pub transid: Option<Transid>,
    /// How long it took.
    pub latency: Duration,
    /// What the carrier said, or what kept it from saying anything.
    pub end: Result<Answered, Fault>,
}

/// The carrier's answer, byte for byte, and what it means.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The body as it came.
    pub body: Bytes,
    /// What it means.
    pub verdict: Verdict,
    /// When it came.
    pub at: Time,
}

/// Makes the calls.
pub struct Carrier {
    client: Client,
    transids: Arc<TransidSource>,
    clock: Clock,
    drift: Drift,
    metrics: Arc<Metrics>,
}

impl Carrier {
    /// A carrier that calls through `client`.
    pub fn new(
        client: Client,
        transids: Arc<TransidSource>,
        clock: Clock,
        drift_alarm: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { client, transids, clock, drift: Drift { alarm: drift_alarm }, metrics }
    }

    /// Asks about one card: transid → sign → send → read. Takes as long as the client's timeout at most.
    pub async fn ask(&self, account: &Account, operation: &Operation, card: &Card) -> Attempt {
        let started = self.clock.monotonic();
        let mut attempt = Attempt {
            account: Arc::clone(&account.name),
            transid: None,
            latency: Duration::ZERO,
            end: Err(Fault::Sequence),
        };
        match self.transid(account).await {
            Ok(transid) => {
                attempt.transid = Some(transid);
                attempt.end = self.send(account, operation, card, transid).await;
            }
            Err(fault) => attempt.end = Err(fault),
        }
        attempt.latency = self.clock.monotonic().saturating_sub(started);
        self.report(operation, card, &attempt);
        attempt
    }

    async fn transid(&self, account: &Account) -> Result<Transid, Fault> {
        if let Some(transid) = self.transids.try_next(&account.appid) {
            return Ok(transid);
        }
        let transids = Arc::clone(&self.transids);
        let appid = account.appid;
        // Leasing the next block of numbers waits for the disk: not on an async worker.
        match tokio::task::spawn_blocking(move || transids.next(&appid)).await {
            Ok(Ok(transid)) => Ok(transid),
            Ok(Err(error)) => {
                tracing::error!(account = %account.name, %error, "no transid for a carrier call");
                Err(Fault::Sequence)
            }
            Err(_) => Err(Fault::Sequence),
        }
    }

    async fn send(
        &self,
        account: &Account,
        operation: &Operation,
        card: &Card,
        transid: Transid,
    ) -> Result<Answered, Fault> {
        let signed =
            Signer::new(&account.appid, &account.ebid, &account.password).sign_transid(transid, card);
        let response = self.client.get(operation.path, &signed).await?;
        let at = self.clock.now();
        if let Some(date) = response.date {
            self.drift.compare(at, date, &self.metrics);
        }
        match Verdict::read(&response.body) {
            Ok(verdict) => Ok(Answered { body: response.body, verdict, at }),
            Err(why) => Err(Fault::not_an_envelope(why, &response.body)),
        }
    }

    fn report(&self, operation: &Operation, card: &Card, attempt: &Attempt) {
        let code = match &attempt.end {
            Ok(answered) => answered.verdict.code.as_str().to_owned(),
            Err(fault) => fault.name().to_owned(),
        };
        self.metrics.carrier_call(&attempt.account, &code, attempt.latency);
        match &attempt.end {
            Ok(Answered { verdict, .. }) if verdict.class == Class::Credentials => {
                tracing::error!(
                    account = %attempt.account, operation = operation.name, code = %verdict.code,
                    "the carrier refuses the account's credentials: run `cmiot-proxy check --live`"
                );
            }
            Ok(_) => {}
            Err(fault) => {
                tracing::warn!(account = %attempt.account, operation = operation.name, card = %card.masked(), %fault, "carrier call failed");
            }
        }
    }
}

/// Compares the proxy's clock with the carrier's `Date`: a transid with a wrong stamp is refused over there.
struct Drift {
    alarm: Duration,
}

impl Drift {
    fn compare(&self, ours: Time, theirs: Time, metrics: &Metrics) {
        // Date has whole seconds: less than one apart is no drift.
        let behind = theirs.since(ours);
        let ahead = ours.since(theirs).saturating_sub(Duration::from_secs(1));
        let drift = if behind > Duration::ZERO { behind.as_secs_f64() } else { -ahead.as_secs_f64() };
        metrics.clock_drift(drift);
        if behind.max(ahead) > self.alarm {
            tracing::error!(
                drift_seconds = drift,
                "this machine's clock differs from the carrier's Date: set it (NTP), transids carry its time"
            );
        }
    }
}
