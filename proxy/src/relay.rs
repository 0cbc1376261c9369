//! THE PATH of a look-up: parse → admit → look up → join → wait → settle → record → answer.
//!
//! [`Relay::answer`] holds a request's life: `look_up` is what is done at once, `ask` what waits. Each early return is a
//! [`Refusal`] with its reason. What happens without a request, since a flight outlives its askers, stands in
//! `relay/fly.rs`.

mod action;
mod fetch;
mod finish;
mod replay_restore;
mod retry;
mod run_to_completion;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cmiot_signer::AppId;
use hyper::{HeaderMap, Method, Uri, Version};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admit::actions::{Action, Actions};
use crate::admit::idempotency::{Completer, ResultReceiver, RetryState};
use crate::admit::replay::TransidKey;
use crate::admit::{AdmissionSnapshot, Admit, Admitted, ReplayCheck};
use crate::audit::{Audit, Record};
use crate::cache::cache_control::DirectiveLimits;
use crate::cache::freshness::Freshness;
use crate::cache::{Cache, Candidate, Entry, Key};
use crate::carrier::Carrier;
use crate::carrier::verdict::Class;
use crate::clock::belief;
use crate::clock::{Clock, Moment, Time, timeout};
use crate::config::restart::Fixed;
use crate::config::{Client, Config};
use crate::flight::{Flights, Owner, Role, Waiter};
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::store::audit::AuditReader;
use crate::urgency::Urgency;
use crate::wire::cache_control::RequestDirectives;
use crate::wire::request::{Hosts, Request, SentTransid, check_head};
use crate::wire::response::{CacheStatus, Forward, ForwardReason, HttpResponse};
pub use fetch::FetchResult;
use fetch::FetchedEntry;
pub use replay_restore::ReplayRestore;
pub use run_to_completion::RunToCompletion;

/// Everything that a look-up passes through, in its order.
pub struct Relay {
    /// The hosts that are ours.
    pub hosts: Hosts,
    /// Who asks, may they.
    pub admit: Admit,
    /// What may have been done.
    pub actions: Actions,
    /// What is known.
    pub cache: Cache,
    /// Who asks the carrier for whom.
    pub flights: Arc<Flights<Key, AppId, FetchResult>>,
    /// What goes on without its client: flights, and requests whose client has left.
    pub tasks: TaskTracker,
    /// Cancelled when the grace time of a drain is over: what is under way ends now.
    pub shutdown: CancellationToken,
    /// Whom the flights ask.
    pub carrier: Carrier,
    /// What must be on disk before an answer leaves.
    pub audit: Audit,
    /// Deadlines and accounts, as last loaded.
    pub config: ArcSwap<Config>,
    /// What was recorded by earlier processes, and by this one.
    pub audit_reader: AuditReader,
    /// What was found when they were last read.
    pub replay_restore: ReplayRestore,
    /// The time.
    pub clock: Clock,
    /// The numbers.
    pub metrics: Arc<Metrics>,
}

/// An HTTP request as the listener hands it over: its head, and its body or why there is none.
#[derive(Debug)]
pub struct HttpRequest<'a> {
    /// GET or POST, if it is a look-up.
    pub method: &'a Method,
    /// The target, whole; in HTTP/2 with `:authority`.
    pub uri: &'a Uri,
    /// Which HTTP it is.
    pub version: Version,
    /// What it wants of the cache.
    pub headers: &'a HeaderMap,
    /// The body, read within its limits.
    pub body: Result<&'a [u8], Refusal>,
    /// Who is at the other end.
    pub peer: Peer,
    /// Cancelled when the client has left, where that is watched already.
    pub client_gone: Option<CancellationToken>,
}

/// A seat in a flight.
type FetchWaiter = Waiter<Key, AppId, FetchResult>;

/// An answer of the carrier's, and how it came here.
#[derive(Clone, Debug)]
pub struct Selected {
    outcome: Outcome,
    entry: Arc<Entry>,
    cache_status: CacheStatus,
}

impl Selected {
    /// The stale entry replaces a carrier response that was received with this HTTP status.
    fn instead_of_response(mut self, forward: Forward, status: u16) -> Self {
        if let CacheStatus::Hit { ttl, detail } = self.cache_status {
            self.cache_status = CacheStatus::StaleInstead { forward, status, ttl, detail };
        }
        self
    }
}

/// How far a request gets without waiting.
enum Step {
    /// To an answer.
    Known(Result<Selected, Refusal>),
    /// To where it has to wait. Boxed: most need no room for it.
    Wait(Box<Pending>),
}

/// What a request waits for.
enum Pending {
    /// The response of the request that came first with this transid.
    Told(ResultReceiver, Arc<Client>, Key),
    /// An action, with its client's transid.
    Action(Arc<Client>, Key, TransidKey),
    /// What is not in memory, or not as it is wanted.
    Answer(Arc<Client>, Key, RequestDirectives, Option<Candidate>),
}

impl Relay {
    /// Answers one request. The answer's audit record is committed when this returns.
    ///
    /// What can be done at once is done at once, in the order of the path: whoever only waits for a record needs no room
    /// for more, and has nothing left to do but to send what is rendered. Whatever waits is done to its end when its client
    /// has left, and so has its record.
    pub fn answer(
        self: Arc<Self>,
        asked: &HttpRequest<'_>,
    ) -> impl Future<Output = HttpResponse> + Send + use<> {
        let came = self.clock.moment();
        let peer = asked.peer.address;
        let mut record = Record::start(came.wall, peer);
        let mut teller = None;
        let step =
            self.look_up(asked, came, &mut record, &mut teller).unwrap_or_else(|r| Step::Known(Err(r)));
        match step {
            Step::Known(found) => {
                self.publish_result(teller, &found);
                Either::Left(self.finish(found, came, came.wall, peer, record))
            }
            Step::Wait(wait) => {
                let tasks = self.tasks.clone();
                Either::Right(RunToCompletion::new(&tasks, asked.client_gone.clone(), |left| async move {
                    let found = self.wait(*wait, came.monotonic, &left, &mut record).await;
                    self.publish_result(teller, &found);
                    if left.is_cancelled() {
                        record.client_gone();
                    }
                    let now = self.clock.now();
                    self.finish(found, came, now, peer, record).await
                }))
            }
        }
    }

    /// From the request to what memory knows.
    fn look_up(
        self: &Arc<Self>,
        asked: &HttpRequest<'_>,
        came: Moment,
        record: &mut Record,
        teller: &mut Option<Completer>,
    ) -> Result<Step, Refusal> {
        // Parse: in the form of a look-up, whoever asks.
        let (door, config) = (self.admit.snapshot(), self.config.load());
        door.check_peer(asked.peer.address)?;
        check_head(asked.method, asked.uri, asked.version, asked.headers, &self.hosts)?;
        let body = asked.body.clone()?;
        let (operations, lenient) = (&config.operations, door.reads_lenient());
        let request = Request::parse(asked.uri, asked.headers, body, operations, lenient, record.claims())?;

        // Admit: who asks, and may they. The transid is burnt from here on.
        let Admitted { client, replay_check: passed } = admit(&door, &request, &asked.peer, came, record)
            .map_err(|refusal| self.refuse_action(&request, refusal))?;
        let key = Key {
            parameters: request.parameters.clone(),
            ..Key::new(&client.group, request.operation, &config.canonical(&request.card))
        };

        // Repeat: who may ask again with one transid gets the response of the first time.
        match passed {
            ReplayCheck::New => {}
            ReplayCheck::Observed => record.repeated(),
            ReplayCheck::Repeatable(RetryState::New(first)) => *teller = Some(first),
            ReplayCheck::Repeatable(RetryState::InFlight(told)) => {
                record.repeated();
                return Ok(Step::Wait(Box::new(Pending::Told(told, client, key))));
            }
            ReplayCheck::Repeatable(RetryState::Kept(response)) => {
                record.repeated();
                return Ok(Step::Known(self.retried_response(&client, &key, response, came.wall)));
            }
            ReplayCheck::Repeatable(RetryState::Mismatch) => return Err(Refusal::ReusedTransid),
        }
        if !request.operation.is_lookup() {
            // Such a client has no actions: see `admit`.
            let SentTransid::Strict(transid) = &request.transid else { return Err(Refusal::Operation) };
            return Ok(Step::Wait(Box::new(Pending::Action(client, key, TransidKey::of(transid)))));
        }

        // Look up: what will do is answered at once.
        let wants = request.directives.clamp(&DirectiveLimits::of(&client.permissions));
        match self.cache.get_in_memory(&key, came.wall) {
            Some(held) if satisfies(&held, &wants, came.wall) => {
                self.refresh_ahead(&config, &client, &key, &held, came.wall);
                Ok(Step::Known(Ok(from_cache(&held, None, came.wall))))
            }
            held => Ok(Step::Wait(Box::new(Pending::Answer(client, key, wants, held)))),
        }
    }

    /// Waits for what is not known at once.
    async fn wait(
        self: &Arc<Self>,
        wait: Pending,
        started: Duration,
        left: &CancellationToken,
        record: &mut Record,
    ) -> Result<Selected, Refusal> {
        match wait {
            // It waits for what another request brings: nothing is lost when it ends early.
            Pending::Told(told, client, key) => {
                let told = timeout(self.time_left(started, false), told.wait());
                let heard = left.run_until_cancelled(told).await.ok_or(Refusal::ClientGone)?;
                let response = heard.map_err(|_| Refusal::Deadline)?.ok_or(Refusal::TaskFailed)?;
                self.retried_response(&client, &key, response, self.clock.now())
            }
            Pending::Action(client, key, number) => {
                self.forward_action(&client, &key, number, started, record).await
            }
            Pending::Answer(client, key, wants, held) => {
                self.ask(&client, &key, &wants, held, started, record).await
            }
        }
    }

    /// From what memory does not know to what the carrier says.
    async fn ask(
        self: &Arc<Self>,
        client: &Client,
        key: &Key,
        wants: &RequestDirectives,
        held: Option<Candidate>,
        started: Duration,
        record: &mut Record,
    ) -> Result<Selected, Refusal> {
        // Look up, in the file too: without leave to ask, that is all.
        let held = match held {
            Some(held) => Some(held),
            None => self.cache.look_up(key).await,
        };
        let now = self.clock.now();
        match &held {
            Some(held) if satisfies(held, wants, now) => {
                self.refresh_ahead(&self.config.load(), client, key, held, now);
                return Ok(from_cache(held, None, now));
            }
            _ if wants.only_if_cached => return Err(Refusal::OnlyIfCached),
            _ => {}
        }

        // Join the flight of this key, or lead one.
        let seat = self.join(key, client, held.as_ref(), wants);
        if let Some(held) = held.as_ref().filter(|held| held.freshness == Freshness::Revalidate)
            && wants.max_age.is_none()
        {
            return Ok(from_cache(held, None, now));
        }

        // Wait: long for an answer, short when there is something to answer instead.
        let landed = wait_for_fetch(seat, self.time_left(started, held.is_some())).await;

        // Settle: what the carrier said, unless what was held is better.
        match landed {
            Ok((role, landing)) => self.select_response(key, role, landing, held, record),
            Err(refusal) => held.map(|held| self.stale(&held, refusal.describe().reason)).ok_or(refusal),
        }
    }

    /// A transid that was used is refused; if it was used for an action that may have been done, with the row that says so.
    fn refuse_action(&self, request: &Request<'_>, refusal: Refusal) -> Refusal {
        match (&refusal, &request.transid) {
            (Refusal::ReusedTransid, SentTransid::Strict(transid)) if !request.operation.is_lookup() => {
                let action = Action { client: request.appid, number: TransidKey::of(transid) };
                self.actions.refusal(action).unwrap_or(refusal)
            }
            _ => refusal,
        }
    }

    /// How long to wait for a flight: the rest of the deadline, less when there is something stale to answer.
    fn time_left(&self, started: Duration, stale: bool) -> Duration {
        let config = self.config.load();
        let left = config.gateway.deadline.saturating_sub(self.clock.monotonic().saturating_sub(started));
        if stale { left.min(config.carrier.stale_timeout) } else { left }
    }

    fn join(
        self: &Arc<Self>,
        key: &Key,
        client: &Client,
        held: Option<&Candidate>,
        wants: &RequestDirectives,
    ) -> Result<FetchWaiter, Refusal> {
        // Who wants it fresher than it is does not make do with what is held.
        let refresh = held.is_some() && wants.max_age.is_none();
        let urgency = if refresh { Urgency::Refresh } else { Urgency::Miss };
        let (relay, flying) = (Arc::clone(self), key.clone());
        let known = held.map(|held| held.entry.answered_at);
        self.flights
            .join(key, Some(flight_owner(client)), urgency, |pressure| async move {
                relay.fetch(flying, pressure, known).await
            })
            .map_err(|_| Refusal::Overloaded)
    }

    /// Applies a changed configuration; what is cached, used and under way stays, and what is `fixed` until the next start.
    ///
    /// # Errors
    /// When TLS towards the carrier cannot be set up; nothing has changed then.
    pub fn reload(&self, config: &Arc<Config>, fixed: &Fixed) -> Result<(), rustls::Error> {
        self.carrier.reload(config, fixed.carrier(&config.carrier))?;
        self.flights.set_limits(config.carrier.flights);
        self.audit.set_timeout(config.gateway.deadline);
        self.admit.reload(config);
        self.cache.reload(config);
        self.config.store(Arc::clone(config));
        Ok(())
    }

    /// Ends what is under way: calls with a fault, requests with a refusal, each with its row.
    pub fn stop(&self) {
        self.shutdown.cancel();
        self.carrier.stop();
    }

    /// Frees what is of no use any more; called on a ticker.
    pub fn run_maintenance(self: &Arc<Self>) {
        let tick = self.carrier.watch_clock();
        if tick.set_back {
            self.cache.remove_future();
        }
        if tick.step == Some(belief::Step::Backwards) || self.has_new_acknowledgement() {
            self.restore_in_background();
        }
        self.refuse_lost_stamps();
        self.admit.run_maintenance();
        self.actions.sweep(self.clock.believed().minus(self.admit.replay_horizon()).as_secs());
    }

    /// What a landed flight means for one who waited for it.
    fn select_response(
        &self,
        key: &Key,
        role: Role,
        landing: FetchResult,
        held: Option<Candidate>,
        record: &mut Record,
    ) -> Result<Selected, Refusal> {
        match landing.call {
            Some(call) => record.called(&call.account, call.transid.as_ref()),
            None => {
                if let Ok(brought) = landing.result {
                    return Ok(from_cache(
                        &self.cache.assume_fresh(key, brought.entry),
                        None,
                        self.clock.now(),
                    ));
                }
            }
        }
        let reason = match held.as_ref().map(|held| held.freshness) {
            None => ForwardReason::UriMiss,
            Some(Freshness::Fresh) => ForwardReason::Request,
            Some(_) => ForwardReason::Stale,
        };
        let forward = Forward { reason, collapsed: role == Role::Follower };
        match (landing.result, held) {
            (Ok(brought), Some(held)) if brought.entry.reply.verdict.class.yields_to_stale() => {
                let found = self.stale(&held, brought.entry.reply.verdict.class.name());
                Ok(found.instead_of_response(forward, 200))
            }
            (Err(refusal), Some(held)) => {
                let refusal = refusal.describe();
                let found = self.stale(&held, refusal.reason);
                Ok(match refusal.carrier_status {
                    Some(status) => found.instead_of_response(forward, status),
                    None => found,
                })
            }
            (Err(refusal), None) => Err(refusal),
            (Ok(FetchedEntry { entry, stored }), _) => Ok(Selected {
                outcome: if role == Role::Leader { Outcome::Miss } else { Outcome::Collapsed },
                cache_status: CacheStatus::Forwarded { forward, stored, detail: negative(&entry) },
                entry,
            }),
        }
    }

    /// What is held, in place of something better.
    fn stale(&self, held: &Candidate, instead_of: &'static str) -> Selected {
        from_cache(held, Some(instead_of), self.clock.now())
    }
}

/// Admits a request, and notes in its record whose it is, admitted or not.
fn admit(
    door: &AdmissionSnapshot<'_>,
    request: &Request<'_>,
    origin: &Peer,
    came: Moment,
    record: &mut Record,
) -> Result<Admitted, Refusal> {
    match door.admit(request, origin, came) {
        Ok(admitted) => {
            record.authenticated(&admitted.client);
            Ok(admitted)
        }
        Err(refused) => {
            if let Some(client) = &refused.client {
                record.authenticated(client);
            }
            record.not_admitted();
            Err(refused.refusal)
        }
    }
}

/// Whose caps a flight counts against.
fn flight_owner(client: &Client) -> Owner<AppId> {
    Owner { client: client.appid, group: Arc::clone(&client.group) }
}

/// Whether what is held will do without asking.
fn satisfies(held: &Candidate, wants: &RequestDirectives, now: Time) -> bool {
    wants.accept(held, held.age(now))
}

/// What is held, and in place of what.
fn from_cache(held: &Candidate, instead_of: Option<&'static str>, now: Time) -> Selected {
    let Candidate { entry, freshness, .. } = held;
    Selected {
        outcome: if *freshness == Freshness::Fresh { Outcome::Hit } else { Outcome::Stale },
        cache_status: CacheStatus::Hit { ttl: held.ttl(now), detail: negative(entry).or(instead_of) },
        entry: Arc::clone(entry),
    }
}

fn negative(entry: &Entry) -> Option<&'static str> {
    (entry.reply.verdict.class == Class::NotFound).then_some(CacheStatus::NEGATIVE)
}

/// Waits for a seat's landing, if there is a seat, for at most `time_left`.
async fn wait_for_fetch(
    seat: Result<FetchWaiter, Refusal>,
    patience: Duration,
) -> Result<(Role, FetchResult), Refusal> {
    let mut seat = seat?;
    match timeout(patience, seat.result()).await {
        Ok(Ok(landing)) => Ok((seat.role, landing)),
        Ok(Err(_)) => Err(Refusal::TaskFailed),
        Err(_) => Err(Refusal::Deadline),
    }
}
