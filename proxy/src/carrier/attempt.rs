//! One attempt: transid → sign → send → read, its row in the audit, and its counts.

use std::sync::Arc;

use cmiot_signer::{Password, Transid};

use super::dialect::Dialect;
use super::fault::Fault;
use super::{Attempt, Call, Carrier, CarrierResponse};
use crate::clock::Time;
use crate::config::Account;
use crate::inline_str::InlineStr;
use crate::store::audit::{AuditStore, CallRow};

impl Carrier {
    /// One attempt with one password, without budget and breakers: transid → sign → send → read. Takes at most the
    /// client's timeout. `previous` is the transid of the attempt that it follows, for the audit.
    pub async fn attempt(
        &self,
        account: &Account,
        password: &Password,
        call: Call<'_>,
        previous: Option<Transid>,
    ) -> Attempt {
        let at = self.clock.now();
        let started = self.clock.monotonic();
        let (transid, result) = match self.transid(account).await {
            Ok(transid) => (Some(transid), self.send(account, password, transid, call).await),
            Err(fault) => (None, Err(fault)),
        };
        let latency = self.clock.monotonic().saturating_sub(started);
        let attempt = Attempt { account: Arc::clone(&account.name), transid, latency, result };
        self.audit.append_call(call_row(&self.audit, call, at, previous, &attempt));
        self.report(account.dialect(), call, &attempt);
        attempt
    }

    async fn transid(&self, account: &Account) -> Result<Transid, Fault> {
        if let Some(transid) = self.transids.try_next(&account.appid) {
            return Ok(transid);
        }
        let transids = Arc::clone(&self.transids);
        let appid = account.appid;
        // Leasing the next block of numbers waits for the disk, which an async worker must not do.
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
        password: &Password,
        transid: Transid,
        call: Call<'_>,
    ) -> Result<CarrierResponse, Fault> {
        let dialect = account.dialect();
        let signed = dialect.sign(account, password, transid, call).ok_or(Fault::NoEbid)?;
        let sent = self.clock.moment();
        // Called when the head of a response has been received, whatever its status.
        let dated = |carrier_time: Time| {
            let drift = self.clock.compare(sent, carrier_time);
            self.metrics.clock_drift(drift.seconds);
            self.publish_clock();
        };
        let received = self.stopping.run_until_cancelled(self.client.get(&signed, dated)).await;
        let response = received.unwrap_or(Err(Fault::Shutdown))?;
        let at = self.clock.now();
        match dialect.read_reply(&response.body, call.operation.verdict) {
            Ok(verdict) => {
                Ok(CarrierResponse { body: response.body, content_type: response.content_type, verdict, at })
            }
            Err(why) => Err(Fault::not_an_envelope(why, &response.body)),
        }
    }

    /// Counts every attempt, and logs those that failed.
    fn report(&self, dialect: Dialect, call: Call<'_>, attempt: &Attempt) {
        let operation = call.operation.name;
        let code = match &attempt.result {
            Ok(response) => dialect.label(&response.verdict.code),
            Err(fault) => fault.name(),
        };
        self.metrics.carrier_call(&attempt.account, code, attempt.latency);
        match &attempt.result {
            Ok(CarrierResponse { verdict, .. }) if verdict.class.refuses_account() => {
                tracing::error!(
                    account = %attempt.account, operation, code = %verdict.code,
                    "the carrier refuses the account's credentials: run `cmiot-proxy check --live`"
                );
            }
            Ok(_) => {}
            Err(fault) => {
                let card = call.card.masked();
                tracing::warn!(account = %attempt.account, operation, %card, %fault, "carrier call failed");
            }
        }
    }
}

/// The audit's row of an attempt.
fn call_row(
    audit: &AuditStore,
    call: Call<'_>,
    at: Time,
    previous: Option<Transid>,
    attempt: &Attempt,
) -> CallRow {
    let transid = |transid: Transid| InlineStr::new(transid.as_str());
    let response = attempt.result.as_ref().ok();
    CallRow {
        at,
        transid: attempt.transid.map(transid),
        previous: previous.map(transid),
        card: *call.card,
        account: Arc::clone(&attempt.account),
        operation: call.operation.name,
        code: response.map(|response| InlineStr::new(response.verdict.code.as_str())),
        fault: attempt.result.as_ref().err().map(Fault::name),
        status: response
            .and_then(|response| response.verdict.status.as_ref())
            .map(|status| InlineStr::new(status.code())),
        latency: attempt.latency,
        bytes: response.map(|response| response.body.len()),
        body: response.and_then(|response| audit.body(&response.body)),
    }
}
