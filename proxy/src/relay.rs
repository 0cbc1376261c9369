//! The path of a lookup:
//! `parse` → `authenticate` → `deduplicate` → `look_up` → `fetch` → `select` → `audit_and_respond`.
//!
//! Each phase is a function of that name; an early return is a [`Refusal`]. Up to the lookup in memory no phase waits, so
//! these phases are plain functions (`Relay::respond_now`): a hit must not pay for the future of a miss, which is several
//! KiB large. `Relay::respond_later` waits for the file, the carrier or another request, and completes even if its client
//! disconnects. A fetch runs in a task of its own (`relay/fetch.rs`).

mod action;
mod fetch;
mod fleet;
mod fleet_purges;
mod lookup_log;
mod maintenance;
mod replay_restore;
mod respond;
mod retry;
mod run_to_completion;
mod select;
mod shared_replay;
mod stale_watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cmiot_signer::{AppId, Transid};
use hyper::{HeaderMap, Method, Uri, Version};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admit::actions::Actions;
use crate::admit::idempotency::{Completer, Response, ResultReceiver, RetryState};
use crate::admit::{AdmissionSnapshot, Admit, Admitted, Denied, ReplayCheck};
use crate::audit::{Audit, Record};
use crate::cache::cache_control::DirectiveLimits;
use crate::cache::freshness::Freshness;
use crate::cache::{Cache, Candidate, Key};
use crate::carrier::Carrier;
use crate::clock::{Clock, Moment, Time, timeout};
use crate::config::{Client, Config};
use crate::fleet::Fleet;
use crate::fleet::replay::SharedReplay;
use crate::flight::{Flights, Owner, Role, Waiter};
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::store::audit::AuditReader;
use crate::urgency::Urgency;
use crate::wire::cache_control::RequestDirectives;
use crate::wire::request::{Accepted, Hosts, Request, RequestParts, check_head};
use crate::wire::response::HttpResponse;
use crate::wire::transid::{self, TransidKey};
pub use fetch::FetchResult;
pub use fleet_purges::{AppliedPurges, PurgeFailure};
pub use lookup_log::LookupLog;
pub use replay_restore::ReplayRestore;
pub use run_to_completion::RunToCompletion;
use select::{Selected, from_cache};
use shared_replay::FleetCheck;
pub use stale_watch::StaleWatch;

/// The parts through which a lookup passes.
pub struct Relay {
    /// The host names of this proxy and of the carrier.
    pub hosts: Hosts,
    pub admit: Admit,
    /// Actions whose result is unknown.
    pub actions: Actions,
    pub cache: Cache,
    /// Carrier calls in flight; identical lookups share one.
    pub flights: Arc<Flights<Key, AppId, FetchResult>>,
    /// Flights, and requests whose client has disconnected: a drain waits for them.
    pub tasks: TaskTracker,
    /// Cancelled at the end of a drain's grace time, to end what is still in flight.
    pub shutdown: CancellationToken,
    pub carrier: Carrier,
    pub audit: Audit,
    /// The configuration as last loaded.
    pub config: ArcSwap<Config>,
    pub audit_reader: AuditReader,
    pub replay_restore: ReplayRestore,
    /// The transids that the fleet has accepted; none without a fleet.
    pub shared_replay: Option<Arc<SharedReplay>>,
    /// The lines of lookups in the log.
    pub lookup_log: LookupLog,
    /// The share of lookups that are refused as stale.
    pub stale_watch: StaleWatch,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// The fleet that this proxy is a node of.
    pub fleet: Option<Arc<Fleet>>,
    /// The purges of the fleet that the cache has applied.
    pub applied_purges: tokio::sync::Mutex<AppliedPurges>,
}

/// An HTTP request in the form in which the gateway listener passes it on.
#[derive(Debug)]
pub struct HttpRequest<'a> {
    pub method: &'a Method,
    /// The whole target; in HTTP/2 with `:authority`.
    pub uri: &'a Uri,
    pub version: Version,
    pub headers: &'a HeaderMap,
    /// The body, read within its limits, or the reason why it could not be read.
    pub body: Result<&'a [u8], Refusal>,
    pub peer: Peer,
    /// Cancelled when the client has disconnected, if the caller already watches the connection.
    pub client_gone: Option<CancellationToken>,
}

/// The context of one request, from its arrival to its response.
struct Exchange {
    arrived: Moment,
    peer: IpAddr,
    record: Record,
    /// Set if later requests with this transid get the response of this one.
    retry_slot: Option<Completer>,
    /// The transid of a request that was refused before its parameters were read. Boxed, since it is rare.
    unread_transid: Option<Box<Transid>>,
}

/// An authenticated request in the terms of the cache.
struct Query {
    client: Arc<Client>,
    key: Key,
    /// The request's directives within the client's limits.
    directives: RequestDirectives,
}

/// The progress of a request after the phases that never wait.
enum Progress {
    Ready(Result<Selected, Refusal>),
    /// Boxed, since most requests do not need its space.
    Pending(Box<Pending>),
    /// The fleet has to accept the transid first.
    Shared(Box<(FleetCheck, Query)>),
}

/// A request that has to wait.
struct Pending {
    query: Query,
    awaited: Awaited,
}

enum Awaited {
    /// The response to the first request with this transid.
    Original(ResultReceiver),
    /// An action, with the client's transid.
    Action(TransidKey),
    /// A response that memory does not hold, or holds only as a candidate that does not satisfy the request.
    Fetch(Option<Candidate>),
}

/// The result of `deduplicate`.
enum Deduplicated {
    /// A new request, or one that may be repeated.
    LookUp,
    /// The stored response to the first request with this transid.
    Stored(Response),
    Await(Awaited),
}

type FetchWaiter = Waiter<Key, AppId, FetchResult>;

impl Relay {
    /// Handles one request. Its audit record is committed when the future completes.
    ///
    /// If the phases that never wait suffice, the future only waits for the audit record. Otherwise it completes even if
    /// the client disconnects, and so does its record.
    pub fn handle(
        self: Arc<Self>,
        http: &HttpRequest<'_>,
    ) -> impl Future<Output = HttpResponse> + Send + use<> {
        let mut exchange = Exchange::new(self.clock.moment(), http.peer.address);
        let progress = self.respond_now(http, &mut exchange).unwrap_or_else(|refusal| {
            if exchange.record.exact_transid().is_none() {
                let body = http.body.as_ref().copied().unwrap_or_default();
                let transid = transid::of_unread(http.uri.query().unwrap_or_default(), body);
                exchange.unread_transid = transid.map(Box::new);
            }
            Progress::Ready(Err(refusal))
        });
        let tasks = self.tasks.clone();
        let outer = || http.client_gone.clone();
        match progress {
            Progress::Ready(result) => {
                self.publish_result(&mut exchange, &result);
                let now = exchange.arrived.wall;
                Either::Left(self.audit_and_respond(exchange, result, now))
            }
            Progress::Pending(pending) => {
                Either::Right(RunToCompletion::new(&tasks, outer(), |client_gone| async move {
                    let result = self.respond_later(*pending, &client_gone, &mut exchange).await;
                    self.finish(exchange, result, &client_gone).await
                }))
            }
            Progress::Shared(shared) => {
                Either::Right(RunToCompletion::new(&tasks, outer(), |client_gone| async move {
                    let (check, query) = *shared;
                    let result = self.respond_if_new(check, query, &client_gone, &mut exchange).await;
                    self.finish(exchange, result, &client_gone).await
                }))
            }
        }
    }

    /// Publishes the result of a request that had to wait, commits its record, and responds.
    fn finish(
        self: Arc<Self>,
        mut exchange: Exchange,
        result: Result<Selected, Refusal>,
        client_gone: &CancellationToken,
    ) -> impl Future<Output = HttpResponse> + Send + use<> {
        self.publish_result(&mut exchange, &result);
        if client_gone.is_cancelled() {
            exchange.record.client_gone();
        }
        let now = self.clock.now();
        self.audit_and_respond(exchange, result, now)
    }

    /// Runs the phases that never wait.
    fn respond_now(
        self: &Arc<Self>,
        http: &HttpRequest<'_>,
        exchange: &mut Exchange,
    ) -> Result<Progress, Refusal> {
        let (snapshot, config) = (self.admit.snapshot(), self.config.load());
        let request = self.parse(http, &snapshot, &config, exchange)?;
        let Admitted { client, replay_check, exclusive } =
            self.authenticate(&request, &http.peer, &snapshot, exchange)?;
        let key = Key {
            parameters: request.parameters.clone(),
            ..Key::new(&client.group, request.operation, &config.canonical(&request.card))
        };
        let directives = request.directives.clamp(&DirectiveLimits::of(&client.permissions));
        let query = Query { client, key, directives };
        let deduplicated = deduplicate(replay_check, exchange)?;
        if let Some(check) = self.check_in_fleet(&query, exclusive, exchange)? {
            return Ok(Progress::Shared(Box::new((check, query))));
        }
        let awaited = match deduplicated {
            Deduplicated::LookUp => match self.look_up(&config, &query, exchange) {
                Ok(selected) => return Ok(Progress::Ready(Ok(selected))),
                Err(candidate) => Awaited::Fetch(candidate),
            },
            Deduplicated::Stored(response) => {
                let selected = self.stored_response(&query, response, exchange.arrived.wall);
                return Ok(Progress::Ready(selected));
            }
            Deduplicated::Await(awaited) => awaited,
        };
        Ok(Progress::Pending(Box::new(Pending { query, awaited })))
    }

    /// Parses a request whose peer may send one. No parameter is trusted yet.
    fn parse<'a>(
        &self,
        http: &HttpRequest<'a>,
        snapshot: &AdmissionSnapshot<'_>,
        config: &Config,
        exchange: &mut Exchange,
    ) -> Result<Request<'a>, Refusal> {
        snapshot.check_peer(http.peer.address)?;
        check_head(http.method, http.uri, http.version, http.headers, &self.hosts)?;
        let body = http.body.clone()?;
        let parts = RequestParts { uri: http.uri, headers: http.headers, body };
        let accepted = Accepted { operations: &config.operations, format: snapshot.transid_format() };
        Request::parse(parts, &accepted, exchange.record.claims())
    }

    /// Authenticates and authorizes a request, and marks its transid used. The record names its client, admitted or not.
    fn authenticate(
        &self,
        request: &Request<'_>,
        peer: &Peer,
        snapshot: &AdmissionSnapshot<'_>,
        exchange: &mut Exchange,
    ) -> Result<Admitted, Refusal> {
        match snapshot.admit(request, peer, exchange.arrived) {
            Ok(admitted) => {
                exchange.record.authenticated(&admitted.client);
                Ok(admitted)
            }
            Err(Denied { client, refusal }) => {
                if let Some(client) = &client {
                    exchange.record.authenticated(client);
                }
                exchange.record.not_admitted();
                Err(self.refuse_action(request, refusal))
            }
        }
    }

    /// Looks the key up in memory. Returns a response, or the candidate that does not satisfy the request, if there is one.
    fn look_up(
        self: &Arc<Self>,
        config: &Config,
        query: &Query,
        exchange: &Exchange,
    ) -> Result<Selected, Option<Candidate>> {
        let now = exchange.arrived.wall;
        let candidate = self.cache.get_in_memory(&query.key, now).ok_or(None)?;
        self.serve_from_cache(config, query, &candidate, now).ok_or(Some(candidate))
    }

    /// Responds to a request that has to wait.
    async fn respond_later(
        self: &Arc<Self>,
        pending: Pending,
        client_gone: &CancellationToken,
        exchange: &mut Exchange,
    ) -> Result<Selected, Refusal> {
        let Pending { query, awaited } = pending;
        match awaited {
            Awaited::Original(receiver) => {
                // Another request fetches the response: if this one ends early, nothing is lost.
                let response = timeout(self.time_left(exchange, false), receiver.wait());
                let response = client_gone.run_until_cancelled(response).await.ok_or(Refusal::ClientGone)?;
                let response = response.map_err(|_| Refusal::Deadline)?.ok_or(Refusal::TaskFailed)?;
                self.stored_response(&query, response, self.clock.now())
            }
            Awaited::Action(transid) => self.forward_action(&query, transid, exchange).await,
            Awaited::Fetch(candidate) => self.fetch(&query, candidate, exchange).await,
        }
    }

    /// Fetches a response that memory does not have: from the file, or by a carrier call that identical lookups share.
    async fn fetch(
        self: &Arc<Self>,
        query: &Query,
        candidate: Option<Candidate>,
        exchange: &mut Exchange,
    ) -> Result<Selected, Refusal> {
        let candidate = match candidate {
            Some(candidate) => Some(candidate),
            None => self.cache.look_up(&query.key).await,
        };
        let now = self.clock.now();
        if let Some(candidate) = &candidate
            && let Some(selected) = self.serve_from_cache(&self.config.load(), query, candidate, now)
        {
            return Ok(selected);
        }
        if query.directives.only_if_cached {
            return Err(Refusal::OnlyIfCached);
        }

        let waiter = self.join(query, candidate.as_ref());
        // Stale while revalidate: the flight continues without this request.
        if let Some(candidate) = &candidate
            && candidate.freshness == Freshness::Revalidate
            && query.directives.max_age.is_none()
        {
            return Ok(from_cache(candidate, None, now));
        }
        let deadline = self.clock.monotonic().saturating_add(self.time_left(exchange, candidate.is_some()));
        let mut waiter = waiter;
        let fetched = loop {
            let left = deadline.saturating_sub(self.clock.monotonic());
            let fetched = match waiter {
                Ok(waiter) => wait_for_fetch(waiter, left).await,
                Err(refusal) => Err(refusal),
            };
            match &fetched {
                // The result of a flight that began for a request with a weaker directive.
                Ok((_, FetchResult::AlreadyCached(entry) | FetchResult::FromFleet(entry)))
                    if !query.directives.permit_age(self.clock.now().since(entry.answered_at)) =>
                {
                    waiter = self.join(query, candidate.as_ref());
                }
                _ => break fetched,
            }
        };
        match fetched {
            Ok((role, fetched)) => self.select(&query.key, role, fetched, candidate, exchange),
            Err(refusal) => self.serve_stale(candidate, refusal),
        }
    }

    /// Serves a candidate that satisfies the request, and refreshes it ahead of its expiry if it is in demand.
    fn serve_from_cache(
        self: &Arc<Self>,
        config: &Config,
        query: &Query,
        candidate: &Candidate,
        now: Time,
    ) -> Option<Selected> {
        if !query.directives.accept(candidate, candidate.age(now)) {
            return None;
        }
        self.refresh_ahead(config, query, candidate, now);
        Some(from_cache(candidate, None, now))
    }

    /// The time for which a request waits: until its deadline, or for `stale_timeout` if it has a stale candidate.
    fn time_left(&self, exchange: &Exchange, has_stale: bool) -> Duration {
        let config = self.config.load();
        let elapsed = self.clock.monotonic().saturating_sub(exchange.arrived.monotonic);
        let left = config.gateway.deadline.saturating_sub(elapsed);
        if has_stale { left.min(config.carrier.stale_timeout) } else { left }
    }

    /// Joins the flight of the request's key, or starts one.
    fn join(self: &Arc<Self>, query: &Query, candidate: Option<&Candidate>) -> Result<FetchWaiter, Refusal> {
        // A request that requires a fresher response cannot be served from the candidate.
        let refresh = candidate.is_some() && query.directives.max_age.is_none();
        let urgency = if refresh { Urgency::Refresh } else { Urgency::Miss };
        let (relay, key) = (Arc::clone(self), query.key.clone());
        // An answer that is older than the request permits is as good as a known one, whether memory or the fleet has it.
        let bound = query.directives.max_age.map(|max_age| self.clock.now().minus(max_age));
        let known = candidate.map(|candidate| candidate.entry.answered_at).max(bound);
        self.flights
            .join(&query.key, Some(query.owner()), urgency, |urgency| async move {
                relay.fetch_unless_cached(key, urgency, known).await
            })
            .map_err(|_| Refusal::Overloaded)
    }
}

/// The response to a retry is that to the first request with its transid.
fn deduplicate(replay_check: ReplayCheck, exchange: &mut Exchange) -> Result<Deduplicated, Refusal> {
    let retry = match replay_check {
        ReplayCheck::New => return Ok(Deduplicated::LookUp),
        ReplayCheck::Action(transid) => return Ok(Deduplicated::Await(Awaited::Action(transid))),
        ReplayCheck::Repeatable(RetryState::New(completer)) => {
            exchange.retry_slot = Some(completer);
            return Ok(Deduplicated::LookUp);
        }
        ReplayCheck::Repeatable(RetryState::Mismatch) => return Err(Refusal::ReusedTransid),
        ReplayCheck::Observed => Deduplicated::LookUp,
        ReplayCheck::Repeatable(RetryState::InFlight(receiver)) => {
            Deduplicated::Await(Awaited::Original(receiver))
        }
        ReplayCheck::Repeatable(RetryState::Stored(response)) => Deduplicated::Stored(response),
    };
    exchange.record.repeated();
    Ok(retry)
}

impl Exchange {
    fn new(arrived: Moment, peer: IpAddr) -> Self {
        Self {
            arrived,
            peer,
            record: Record::start(arrived.wall, peer),
            retry_slot: None,
            unread_transid: None,
        }
    }
}

impl Query {
    /// The client and group whose limits a flight for this request counts against.
    fn owner(&self) -> Owner<AppId> {
        Owner { client: self.client.appid, group: Arc::clone(&self.client.group) }
    }
}

async fn wait_for_fetch(
    mut waiter: FetchWaiter,
    time_left: Duration,
) -> Result<(Role, FetchResult), Refusal> {
    match timeout(time_left, waiter.result()).await {
        Ok(Ok(fetched)) => Ok((waiter.role, fetched)),
        Ok(Err(_)) => Err(Refusal::TaskFailed),
        Err(_) => Err(Refusal::Deadline),
    }
}
