//! A fetch in a fleet: another node's answer, another node's flight, or the lead of a flight that all nodes share.
//!
//! A response of another node comes into memory and `cache.db` with its true age, and its freshness follows from the
//! configuration of this node. Without the database, and after a failure of a statement, the node makes its own call.

use std::sync::Arc;
use std::time::Duration;

use cmiot_signer::{Status, Transid};

use super::Relay;
use super::fetch::{FetchResult, Made};
use crate::cache::freshness::Freshness;
use crate::cache::{Entry, FillToken, Key};
use crate::carrier::charset::ContentType;
use crate::carrier::dialect::read_gateway_form;
use crate::carrier::fault::Fault;
use crate::carrier::verdict::Translated;
use crate::carrier::{Attempt, CarrierResponse, NotSent};
use crate::clock::{Time, timeout};
use crate::config::Config;
use crate::fleet::Fleet;
use crate::fleet::flights::{
    CallResponse, CallResult, Ending, Follower, Known, Lease, Lookup, Position, SharedResponse, known,
};
use crate::refusal::Refusal;
use crate::urgency::SharedUrgency;

/// Attempts to find a leader, after which the node makes its own call.
const ROUNDS: usize = 8;

/// Time in addition to the longest call, after which another node may take the lead.
const LEASE_MARGIN: Duration = Duration::from_secs(2);

impl Relay {
    /// The work of a flight in a fleet. `known` is the time of the response that does not suffice.
    pub(super) async fn fetch_in_fleet(
        &self,
        fleet: &Arc<Fleet>,
        key: &Key,
        urgency: &SharedUrgency,
        known_at: Option<Time>,
    ) -> FetchResult {
        let lookup = fleet.lookup(&key.group, key.operation.name, &key.card, key.parameters.as_str());
        if let Some(lookup) = lookup
            && let Some(result) = self.share(fleet, &lookup, key, urgency, known_at).await
        {
            return result;
        }
        self.metrics.fleet_lookup("alone");
        self.call_carrier(key, urgency).await
    }

    /// The result that the fleet shares; none if the database is away.
    async fn share(
        &self,
        fleet: &Arc<Fleet>,
        lookup: &Lookup,
        key: &Key,
        urgency: &SharedUrgency,
        known_at: Option<Time>,
    ) -> Option<FetchResult> {
        let mut known = known(known_at, self.clock.now());
        for _ in 0..ROUNDS {
            // Taken before the question, so that a purge since then keeps the answer out of the cache.
            let token = self.cache.fill_token();
            match fleet.enter(lookup, known, self.lease_time(key)).await {
                Position::Alone => return None,
                Position::Answer(answer) => match self.accept(key, &token, &answer) {
                    Some(entry) => {
                        self.metrics.fleet_lookup("answer");
                        return Some(FetchResult::FromFleet(entry));
                    }
                    None => known = Known::Version(answer.version),
                },
                Position::Lead(lease) => {
                    self.metrics.fleet_lookup(if lease.takeover { "takeover" } else { "lead" });
                    return Some(self.lead(fleet, lease, key, urgency).await);
                }
                Position::Follow(follower) => {
                    self.metrics.fleet_lookup("follow");
                    match self.follow(follower, key, &token).await {
                        Followed::Result(result) => return Some(result),
                        Followed::Lost => {}
                        Followed::Alone => return None,
                    }
                }
            }
        }
        None
    }

    /// The longest time of a call: attempts with their waits for the budget, one per account, one as a retry, one with another
    /// password, one with another token, and two requests for a token. A leader that ends is recognized by its life, long before.
    fn lease_time(&self, key: &Key) -> Duration {
        let config = self.config.load();
        let carrier = &config.carrier;
        let accounts = config.accounts().filter(|account| account.group == key.group).count();
        let attempts = u32::try_from(accounts).unwrap_or(u32::MAX).saturating_add(5);
        let attempt = carrier.queue_timeout.saturating_add(carrier.timeout);
        attempt.saturating_mul(attempts).saturating_add(LEASE_MARGIN)
    }

    /// Stores an answer of another node, if it is fresh by the configuration of this one.
    fn accept(&self, key: &Key, token: &FillToken, answer: &SharedResponse) -> Option<Arc<Entry>> {
        let entry = self.cache.entry(read(&self.config.load(), key, answer)?);
        let candidate = self.cache.evaluate(key, Arc::clone(&entry), self.clock.now())?;
        (candidate.freshness == Freshness::Fresh && candidate.lifetime.is_some()).then_some(())?;
        self.cache.insert(token, key, &entry);
        Some(entry)
    }

    /// Makes the call for all nodes.
    async fn lead(&self, fleet: &Fleet, lease: Lease, key: &Key, urgency: &SharedUrgency) -> FetchResult {
        let (attempt, token) = match self.make_call(key, urgency).await {
            Ok(made) => made,
            Err(not_sent) => {
                // The reason is this node's own: another one may call.
                lease.release().await;
                return FetchResult::Failed { call: None, refusal: Refusal::NotSent(not_sent) };
            }
        };
        let result = self.read_call(key, &token, &attempt);
        let Some(call) = self.to_share(key, &attempt, &result) else {
            lease.release().await;
            return result;
        };
        let landing = self.tasks.spawn(async move { lease.land(&call).await });
        // A response that is in memory answers later requests of this node. Otherwise they ask the fleet again, and must
        // not find this flight.
        if !matches!(result, FetchResult::Response { stored: true, .. }) {
            let _ = timeout(fleet.settings.timeout, landing).await;
        }
        result
    }

    /// The result of an attempt for the other nodes; none if they should make their own.
    fn to_share(&self, key: &Key, attempt: &Attempt, result: &FetchResult) -> Option<CallResult> {
        let entry = match result {
            FetchResult::Response { entry, .. } => Some(entry),
            _ => None,
        };
        let response = match &attempt.result {
            Ok(response) => Ok(CallResponse {
                body: response.body.clone(),
                charset: response.content_type.charset().map(str::to_owned),
                carrier: entry
                    .map_or(&response.translated, |entry| &entry.reply.translated)
                    .as_ref()
                    .map(|translated| translated.written()),
                status: response.verdict.status.as_ref().map(Status::code).map(str::to_owned),
                answered_at: response.at,
                fresh: match result {
                    FetchResult::Response { entry, stored: true, .. } => {
                        let candidate = self.cache.assume_fresh(key, Arc::clone(entry));
                        candidate.lifetime.map(|lifetime| lifetime.fresh.0)
                    }
                    _ => None,
                },
            }),
            Err(fault) => Err(fault.shared()?),
        };
        let transid = attempt.transid.map(|transid| transid.as_str().to_owned());
        Some(CallResult { account: Arc::clone(&attempt.account), transid, result: response })
    }

    /// Waits for the flight of another node.
    async fn follow(&self, follower: Follower, key: &Key, token: &FillToken) -> Followed {
        let made = |account, transid: Option<String>| Made {
            account,
            transid: transid.and_then(|transid| Transid::parse(&transid).ok()),
            elsewhere: true,
        };
        let result = match self.shutdown.run_until_cancelled(follower.ending()).await {
            Some(Ending::Response(response)) => match read(&self.config.load(), key, &response) {
                Some(read) => {
                    let call = made(response.account, response.transid);
                    self.read_response(key, token, call, read)
                }
                None => return Followed::Lost,
            },
            Some(Ending::Fault { fault, account, transid }) => match Fault::of_other_node(&fault) {
                Some(fault) => FetchResult::Failed {
                    call: Some(made(account, transid)),
                    refusal: Refusal::Carrier(fault),
                },
                None => return Followed::Lost,
            },
            Some(Ending::Lost) => return Followed::Lost,
            Some(Ending::Alone) => return Followed::Alone,
            None => FetchResult::Failed { call: None, refusal: Refusal::NotSent(NotSent::Shutdown) },
        };
        Followed::Result(result)
    }
}

/// The end of a flight of another node.
enum Followed {
    Result(FetchResult),
    /// There is no such flight any more, or its result cannot be read here.
    Lost,
    /// The database is away.
    Alone,
}

/// The response of another node; none for a body that it cannot read.
fn read(config: &Config, key: &Key, response: &SharedResponse) -> Option<CarrierResponse> {
    let verdict = read_gateway_form(&response.body, key.operation.verdict).ok()?;
    let translated = match &response.carrier {
        Some(written) => Some(Translated::read(written)?),
        // A node of an earlier version does not tell the carrier's own code. The accounts of a group are the same at all nodes.
        None => {
            let account = config.accounts().find(|account| account.name == response.account);
            let is_translated = account.is_some_and(|account| account.dialect().is_translated());
            is_translated.then(|| Translated::read(verdict.code.as_str())).flatten()
        }
    };
    Some(CarrierResponse {
        body: response.body.clone(),
        translated: translated.map(Arc::new),
        content_type: ContentType::stored(response.charset.as_deref()),
        verdict,
        at: response.answered_at,
    })
}
