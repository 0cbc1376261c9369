//! THE PATH of a look-up: parse → admit → look up → join → wait → settle → record → answer.
//!
//! [`Relay::answer`] holds a request's life: `look_up` is what is done at once, `ask` what waits. Each early return is a
//! [`Refusal`] with its reason. What happens without a request, since a flight outlives its askers, stands in
//! `relay/fly.rs`.

mod act;
mod again;
mod attend;
mod fly;
mod past;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cmiot_signer::AppId;
use hyper::{HeaderMap, Method, Uri, Version};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admit::actions::{Action, Actions};
use crate::admit::repeat::{Listener, Teller, Turn};
use crate::admit::replay::Number;
use crate::admit::{Admit, Admitted, Door, Origin, Passed};
use crate::audit::{Audit, Record};
use crate::cache::freshness::Freshness;
use crate::cache::wants::{Limits, Wants};
use crate::cache::{Cache, Entry, Held, Key};
use crate::carrier::Carrier;
use crate::carrier::verdict::Class;
use crate::clock::belief;
use crate::clock::{Clock, Moment, Time, timeout};
use crate::config::restart::Fixed;
use crate::config::{Client, Config};
use crate::flight::{Caps, Flights, Role, Seat, Who};
use crate::gateway::answer::{CacheStatus, Forwarded, Rendered};
use crate::gateway::request::{Hosts, Request, SentTransid, check_head};
use crate::metrics::Metrics;
use crate::outcome::{Outcome, Refusal};
use crate::store::audit::AuditReader;
use crate::urgency::Urgency;
pub use attend::Attended;
use fly::Brought;
pub use fly::Landing;
pub use past::Past;

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
    pub flights: Arc<Flights<Key, AppId, Landing>>,
    /// What goes on without its client: flights, and requests whose client has left.
    pub tasks: TaskTracker,
    /// Cancelled when the grace time of a drain is over: what is under way ends now.
    pub stopping: CancellationToken,
    /// Whom the flights ask.
    pub carrier: Carrier,
    /// What must be on disk before an answer leaves.
    pub audit: Audit,
    /// Deadlines and accounts, as last loaded.
    pub config: ArcSwap<Config>,
    /// What was recorded by earlier processes, and by this one.
    pub history: AuditReader,
    /// What was found when they were last read.
    pub past: Past,
    /// The time.
    pub clock: Clock,
    /// The numbers.
    pub metrics: Arc<Metrics>,
}

/// An HTTP request as the listener hands it over: its head, and its body or why there is none.
#[derive(Debug)]
pub struct Asked<'a> {
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
    pub origin: Origin,
    /// Cancelled when the client has left, where that is watched already.
    pub left: Option<CancellationToken>,
}

/// A seat in a flight.
type Place = Seat<Key, AppId, Landing>;

/// An answer of the carrier's, and how it came here.
#[derive(Clone, Debug)]
pub struct Found {
    outcome: Outcome,
    entry: Arc<Entry>,
    cache_status: CacheStatus,
}

impl Found {
    /// What is held stands in for a response of the carrier's.
    fn forwarded(mut self, why: Forwarded, status: u16, collapsed: bool) -> Self {
        self.cache_status.hit = false;
        self.cache_status.forwarded = Some(why);
        self.cache_status.forwarded_status = (status != 200).then_some(status);
        self.cache_status.collapsed = collapsed;
        self
    }
}

/// How far a request gets without waiting.
enum Step {
    /// To an answer.
    Known(Result<Found, Refusal>),
    /// To where it has to wait. Boxed: most need no room for it.
    Wait(Box<Wait>),
}

/// What a request waits for.
enum Wait {
    /// The response of the request that came first with this transid.
    Told(Listener, Arc<Client>, Key),
    /// An action, with its client's transid.
    Action(Arc<Client>, Key, Number),
    /// What is not in memory, or not as it is wanted.
    Answer(Arc<Client>, Key, Wants, Option<Held>),
}

impl Relay {
    /// Answers one request. The answer's audit record is committed when this returns.
    ///
    /// What can be done at once is done at once, in the order of the path: whoever only waits for a record needs no room
    /// for more, and has nothing left to do but to send what is rendered. Whatever waits is done to its end when its client
    /// has left, and so has its record.
    pub fn answer(self: Arc<Self>, asked: &Asked<'_>) -> impl Future<Output = Rendered> + Send + use<> {
        let came = self.clock.moment();
        let peer = asked.origin.address;
        let mut record = Record::begin(came.wall, peer);
        let mut teller = None;
        let step =
            self.look_up(asked, came, &mut record, &mut teller).unwrap_or_else(|r| Step::Known(Err(r)));
        match step {
            Step::Known(found) => {
                self.tell(teller, &found);
                Either::Left(self.settle(found, came, came.wall, peer, record))
            }
            Step::Wait(wait) => {
                let tasks = self.tasks.clone();
                Either::Right(Attended::new(&tasks, asked.left.clone(), |left| async move {
                    let found = self.wait(*wait, came.ticks, &left, &mut record).await;
                    self.tell(teller, &found);
                    if left.is_cancelled() {
                        record.client_gone();
                    }
                    let now = self.clock.now();
                    self.settle(found, came, now, peer, record).await
                }))
            }
        }
    }

    /// From the request to what memory knows.
    fn look_up(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        came: Moment,
        record: &mut Record,
        teller: &mut Option<Teller>,
    ) -> Result<Step, Refusal> {
        // Parse: in the form of a look-up, whoever asks.
        let (door, config) = (self.admit.door(), self.config.load());
        door.check_peer(asked.origin.address)?;
        check_head(asked.method, asked.uri, asked.version, asked.headers, &self.hosts)?;
        let body = asked.body.clone()?;
        let (operations, lenient) = (&config.operations, door.reads_lenient());
        let request = Request::parse(asked.uri, asked.headers, body, operations, lenient, record.claims())?;

        // Admit: who asks, and may they. The transid is burnt from here on.
        let Admitted { client, passed } = admit(&door, &request, &asked.origin, came, record)
            .map_err(|refusal| self.refuse_action(&request, refusal))?;
        let key = Key {
            parameters: request.parameters.clone(),
            ..Key::new(&client.group, request.operation, &config.canonical(&request.card))
        };

        // Repeat: who may ask again with one transid gets the response of the first time.
        match passed {
            Passed::New => {}
            Passed::Observed => record.repeated(),
            Passed::Repeatable(Turn::First(first)) => *teller = Some(first),
            Passed::Repeatable(Turn::Wait(told)) => {
                record.repeated();
                return Ok(Step::Wait(Box::new(Wait::Told(told, client, key))));
            }
            Passed::Repeatable(Turn::Kept(response)) => {
                record.repeated();
                return Ok(Step::Known(self.repeat(&client, &key, response, came.wall)));
            }
            Passed::Repeatable(Turn::Used) => return Err(Refusal::ReusedTransid),
        }
        if !request.operation.is_lookup() {
            // Such a client has no actions: see `admit`.
            let SentTransid::Strict(transid) = &request.transid else { return Err(Refusal::Operation) };
            return Ok(Step::Wait(Box::new(Wait::Action(client, key, Number::of(transid)))));
        }

        // Look up: what will do is answered at once.
        let wants = request.wants.within(&Limits::of(&client.rights));
        match self.cache.recall(&key, came.wall) {
            Some(held) if will_do(&held, &wants, came.wall) => {
                self.refresh_ahead(&config, &client, &key, &held, came.wall);
                Ok(Step::Known(Ok(cached(&held, None, came.wall))))
            }
            held => Ok(Step::Wait(Box::new(Wait::Answer(client, key, wants, held)))),
        }
    }

    /// Waits for what is not known at once.
    async fn wait(
        self: &Arc<Self>,
        wait: Wait,
        started: Duration,
        left: &CancellationToken,
        record: &mut Record,
    ) -> Result<Found, Refusal> {
        match wait {
            // It waits for what another request brings: nothing is lost when it ends early.
            Wait::Told(told, client, key) => {
                let told = timeout(self.patience(started, false), told.hear());
                let heard = left.run_until_cancelled(told).await.ok_or(Refusal::Gone)?;
                let response = heard.map_err(|_| Refusal::Deadline)?.ok_or(Refusal::Lost)?;
                self.repeat(&client, &key, response, self.clock.now())
            }
            Wait::Action(client, key, number) => self.act(&client, &key, number, started, record).await,
            Wait::Answer(client, key, wants, held) => {
                self.ask(&client, &key, &wants, held, started, record).await
            }
        }
    }

    /// From what memory does not know to what the carrier says.
    async fn ask(
        self: &Arc<Self>,
        client: &Client,
        key: &Key,
        wants: &Wants,
        held: Option<Held>,
        started: Duration,
        record: &mut Record,
    ) -> Result<Found, Refusal> {
        // Look up, in the file too: without leave to ask, that is all.
        let held = match held {
            Some(held) => Some(held),
            None => self.cache.look_up(key).await,
        };
        let now = self.clock.now();
        match &held {
            Some(held) if will_do(held, wants, now) => {
                self.refresh_ahead(&self.config.load(), client, key, held, now);
                return Ok(cached(held, None, now));
            }
            _ if wants.only_if_cached => return Err(Refusal::OnlyIfCached),
            _ => {}
        }

        // Join the flight of this key, or lead one.
        let seat = self.join(key, client, held.as_ref(), wants);
        if let Some(held) = held.as_ref().filter(|held| held.freshness == Freshness::Revalidate)
            && wants.max_age.is_none()
        {
            return Ok(cached(held, None, now));
        }

        // Wait: long for an answer, short when there is something to answer instead.
        let landed = land(seat, self.patience(started, held.is_some())).await;

        // Settle: what the carrier said, unless what was held is better.
        match landed {
            Ok((role, landing)) => self.take(key, role, landing, held, record),
            Err(refusal) => held.map(|held| self.stale(&held, refusal.reason())).ok_or(refusal),
        }
    }

    /// A transid that was used is refused; if it was used for an action that may have been done, with the row that says so.
    fn refuse_action(&self, request: &Request<'_>, refusal: Refusal) -> Refusal {
        match (&refusal, &request.transid) {
            (Refusal::ReusedTransid, SentTransid::Strict(transid)) if !request.operation.is_lookup() => {
                let action = Action { client: request.appid, number: Number::of(transid) };
                self.actions.refusal(action).unwrap_or(refusal)
            }
            _ => refusal,
        }
    }

    /// How long to wait for a flight: the rest of the deadline, less when there is something stale to answer.
    fn patience(&self, started: Duration, stale: bool) -> Duration {
        let config = self.config.load();
        let left = config.gateway.deadline.0.saturating_sub(self.clock.monotonic().saturating_sub(started));
        if stale { left.min(config.carrier.stale_wait) } else { left }
    }

    fn join(
        self: &Arc<Self>,
        key: &Key,
        client: &Client,
        held: Option<&Held>,
        wants: &Wants,
    ) -> Result<Place, Refusal> {
        // Who wants it fresher than it is does not make do with what is held.
        let refresh = held.is_some() && wants.max_age.is_none();
        let urgency = if refresh { Urgency::Refresh } else { Urgency::Miss };
        let (relay, flying) = (Arc::clone(self), key.clone());
        let known = held.map(|held| held.entry.answered_at);
        self.flights
            .join(key, Some(who(client)), urgency, |pressure| async move {
                relay.fly(flying, pressure, known).await
            })
            .map_err(|_| Refusal::Crowded)
    }

    /// Applies a changed configuration; what is cached, used and under way stays, and what is `fixed` until the next start.
    ///
    /// # Errors
    /// When TLS towards the carrier cannot be set up; nothing has changed then.
    pub fn reload(&self, config: &Arc<Config>, fixed: &Fixed) -> Result<(), rustls::Error> {
        self.carrier.reload(config, fixed.carrier(&config.carrier))?;
        self.flights.set_caps(Caps::of(&config.carrier));
        self.audit.set_timeout(config.gateway.deadline.0);
        self.admit.reload(config);
        self.cache.reload(config);
        self.config.store(Arc::clone(config));
        Ok(())
    }

    /// Ends what is under way: calls with a fault, requests with a refusal, each with its row.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.carrier.stop();
    }

    /// Frees what is of no use any more; called on a ticker.
    pub fn tidy(self: &Arc<Self>) {
        let tick = self.carrier.watch_clock();
        if tick.set_back {
            self.cache.remove_future();
        }
        if tick.step == Some(belief::Step::Backwards) || self.has_new_acknowledgement() {
            self.read_past_again();
        }
        self.refuse_lost();
        self.admit.tidy();
        self.actions.sweep(self.clock.believed().minus(self.admit.memory()).as_secs());
    }

    /// What a landed flight means for one who waited for it.
    fn take(
        &self,
        key: &Key,
        role: Role,
        landing: Landing,
        held: Option<Held>,
        record: &mut Record,
    ) -> Result<Found, Refusal> {
        match landing.call {
            Some(call) => record.called(&call.account, call.transid.as_ref()),
            None => {
                if let Ok(brought) = landing.end {
                    return Ok(cached(&self.cache.fresh(key, brought.entry), None, self.clock.now()));
                }
            }
        }
        let forwarded = match held.as_ref().map(|held| held.freshness) {
            None => Forwarded::UriMiss,
            Some(Freshness::Fresh) => Forwarded::Request,
            Some(_) => Forwarded::Stale,
        };
        let collapsed = role == Role::Follower;
        match (landing.end, held) {
            (Ok(brought), Some(held)) if brought.entry.said.verdict.class.yields_to_stale() => {
                let found = self.stale(&held, brought.entry.said.verdict.class.name());
                Ok(found.forwarded(forwarded, 200, collapsed))
            }
            (Err(refusal), Some(held)) => {
                let found = self.stale(&held, refusal.reason());
                Ok(match refusal.carrier_status() {
                    Some(status) => found.forwarded(forwarded, status, collapsed),
                    None => found,
                })
            }
            (Err(refusal), None) => Err(refusal),
            (Ok(Brought { entry, stored }), _) => Ok(Found {
                outcome: if role == Role::Leader { Outcome::Miss } else { Outcome::Collapsed },
                cache_status: CacheStatus {
                    forwarded: Some(forwarded),
                    stored,
                    collapsed,
                    negative: entry.said.verdict.class == Class::NotFound,
                    ..CacheStatus::default()
                },
                entry,
            }),
        }
    }

    /// What is held, in place of something better.
    fn stale(&self, held: &Held, instead_of: &'static str) -> Found {
        cached(held, Some(instead_of), self.clock.now())
    }
}

/// Admits a request, and notes in its record whose it is, admitted or not.
fn admit(
    door: &Door<'_>,
    request: &Request<'_>,
    origin: &Origin,
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
fn who(client: &Client) -> Who<AppId> {
    Who { client: client.appid, group: Arc::clone(&client.group) }
}

/// Whether what is held will do without asking.
fn will_do(held: &Held, wants: &Wants, now: Time) -> bool {
    let (age, stale) = held.age(now);
    wants.accept(held, age, stale)
}

/// What is held, and in place of what.
fn cached(held: &Held, instead_of: Option<&'static str>, now: Time) -> Found {
    let Held { entry, freshness, .. } = held;
    Found {
        outcome: if *freshness == Freshness::Fresh { Outcome::Hit } else { Outcome::Stale },
        cache_status: CacheStatus {
            hit: true,
            ttl: held.ttl(now),
            negative: entry.said.verdict.class == Class::NotFound,
            instead_of,
            ..CacheStatus::default()
        },
        entry: Arc::clone(entry),
    }
}

/// Waits for a seat's landing, if there is a seat, for at most `patience`.
async fn land(seat: Result<Place, Refusal>, patience: Duration) -> Result<(Role, Landing), Refusal> {
    let mut seat = seat?;
    match timeout(patience, seat.landing()).await {
        Ok(Ok(landing)) => Ok((seat.role, landing)),
        Ok(Err(_)) => Err(Refusal::Lost),
        Err(_) => Err(Refusal::Deadline),
    }
}
