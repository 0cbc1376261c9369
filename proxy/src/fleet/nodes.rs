//! The lives of a node: a life begins at the start, the heartbeat renews it, and the drain ends it.
//!
//! The heartbeat has a connection of its own and runs each [`BEAT`]. A life whose lease has ended never returns: the node
//! begins another one. The reply says what happened meanwhile, and [`judge`] decides:
//!
//! - the count of heartbeats is not larger than the last one, or the life is unknown: the database lost commits in a
//!   failover. Grants pause, and a new life begins;
//! - another life of this node: a copy of its store runs elsewhere. This node stays alone, and alarms;
//! - another database, or another schema: it stays alone.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Cause, Fleet};
use crate::alarms::{Condition, Severity};
use crate::clock::Moment;
use crate::language::text;
use crate::store::audit::ActRow;
use crate::store::fleet::migrate;
use crate::store::fleet::nodes::{About, Beat, Begun};
use crate::store::fleet::{Dedicated, Link, LinkError};

/// Interval of heartbeats.
const BEAT: Duration = Duration::from_millis(1_500);

/// Lease of a life.
const LEASE: Duration = Duration::from_secs(6);

/// Time for one statement of the heartbeat; the first one of a new connection is slow on a busy server. Opening the
/// connection has a limit of its own.
const LIMIT: Duration = Duration::from_secs(2);

/// Shortest time between two probes that an opened breaker causes.
const MIN_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Interval of attempts while another process has a lease at the start.
const HELD_INTERVAL: Duration = Duration::from_millis(500);

/// The pause of grants after lost commits: longer than a lease, so that no other life of before is still in use.
const PAUSE: Duration = Duration::from_secs(10);

/// The time for which the alarm about lost commits holds.
const LOST_ALARM: Duration = Duration::from_secs(3_600);

/// Offset between the clocks of this machine and of the database from which on an alarm holds.
const MAX_OFFSET: Duration = Duration::from_secs(1);

/// Applies what the others did while this node was alone, such as purges. Called with the new life before it is used.
pub type CatchUp =
    Box<dyn Fn(i64) -> Pin<Box<dyn Future<Output = Result<(), LinkError>> + Send>> + Send + Sync>;

/// The number of this node is in use: it must not start.
#[derive(Debug, thiserror::Error)]
#[error("this proxy does not start: {0}")]
pub struct Refused(String);

/// The state of the heartbeat.
pub(super) struct Heart {
    connection: Dedicated,
    /// The life that is renewed, with its last count.
    life: Option<(i64, i64)>,
    /// The identity of the database, once it is known.
    fleet: Option<String>,
    /// Whether the last attempt failed, which is logged once.
    is_failing: bool,
    /// The end of the alarm about lost commits, by the monotonic clock.
    lost_until: Option<Duration>,
    probed: Duration,
}

impl Heart {
    pub(super) fn new(link: &Link) -> Self {
        Self {
            connection: link.dedicated("heartbeat", LIMIT),
            life: None,
            fleet: None,
            is_failing: false,
            lost_until: None,
            probed: Duration::ZERO,
        }
    }

    /// Logs an error once, and returns the cause to be alone.
    fn failed(&mut self, error: &LinkError) -> Cause {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, "no heartbeat is stored in the database of the fleet");
        }
        cause_of(error)
    }
}

/// Meaning of a heartbeat's reply.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    /// The lease is renewed; the new count.
    Renewed(i64),
    /// The life has ended without a successor.
    Ended,
    /// The database lost commits.
    Lost,
    /// The node stays alone.
    Alone(Cause),
}

/// Decides what a reply means for a life with this count of heartbeats, in the fleet of the start.
fn judge(beat: &Beat, count: i64, fleet: &str) -> Verdict {
    if let Some(cause) = refuse_database(&beat.about, fleet) {
        return Verdict::Alone(cause);
    }
    match beat.beats {
        Some(now) if now > count => Verdict::Renewed(now),
        Some(_) => Verdict::Lost,
        // Without the binding, an operator has released the number.
        None if !beat.known && beat.bound => Verdict::Lost,
        None => match &beat.other {
            Some(holder) => Verdict::Alone(Cause::OtherProcess(holder.clone())),
            None => Verdict::Ended,
        },
    }
}

/// The reason not to use this database, if there is one.
fn refuse_database(about: &About, fleet: &str) -> Option<Cause> {
    let needs = migrate::version();
    if about.fleet != fleet {
        Some(Cause::OtherFleet)
    } else if about.version < needs || about.oldest > needs {
        Some(Cause::Schema { about: about.clone(), needs })
    } else {
        None
    }
}

/// The cause to be alone after a failed statement.
fn cause_of(error: &LinkError) -> Cause {
    // Undefined table, function or schema.
    match error.sqlstate() {
        Some("42P01" | "42883" | "3F000") => Cause::NoSchema,
        _ => Cause::Heartbeat,
    }
}

/// The lead of the database's clock in microseconds, and its uncertainty: half of the round trip.
fn offset(sent: Moment, received: Moment, database: i64) -> (i64, Duration) {
    let trip = received.monotonic.saturating_sub(sent.monotonic);
    let middle = sent.wall.plus(trip / 2).as_micros();
    (database.saturating_sub(middle), trip / 2)
}

impl Fleet {
    /// Sets the function that must succeed before this node acts with the others again. Only the first call counts.
    pub fn set_catch_up(&self, catch_up: CatchUp) {
        let _ = self.catch_up.set(catch_up); // see above
    }

    /// Begins the first life. Without a database the node starts alone. While a process with a copy of this store has a
    /// lease, this waits for its end. `dir` has the audit, which gets the note of the end of a time alone that a crash has left
    /// out.
    ///
    /// # Errors
    /// [`Refused`] when the number belongs to another store, or when the other process renews its lease.
    pub async fn start(&self, dir: &Path) -> Result<(), Refused> {
        self.end_of_crash(dir).await;
        let mut heart = self.heart.lock().await;
        let mut held: Option<i64> = None;
        let cause = loop {
            match self.begin(&mut heart).await {
                Ok(Begun::Life(life)) => match self.return_to(&mut heart, life).await {
                    Ok(()) => return Ok(()),
                    Err(error) => break heart.failed(&error),
                },
                Ok(Begun::Bound(holder)) => return Err(self.refuse(&Cause::OtherStore(holder))),
                Ok(Begun::Held { holder, beats, left }) => {
                    if held.is_some_and(|before| beats > before) {
                        return Err(self.refuse(&Cause::OtherProcess(holder)));
                    }
                    if held.is_none() {
                        tracing::warn!(
                            place = holder.place,
                            ?left,
                            "another process with this store has the number of this node: waiting for its end"
                        );
                    }
                    held = Some(beats);
                    tokio::time::sleep(HELD_INTERVAL).await;
                }
                Err(cause) => break cause,
            }
        };
        self.start_alone(&cause);
        Ok(())
    }

    fn refuse(&self, cause: &Cause) -> Refused {
        Refused(cause.text(self.node).english)
    }

    /// Renews the lease until `stop`; then the life ends. Maintains what the flights share meanwhile.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let _flights = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self).run_flights()));
        let mut heart = self.heart.lock().await;
        let mut opened = self.link.opened();
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                // The sender lives as long as the link.
                _ = opened.changed() => {
                    // Begins the time alone at once.
                    self.life();
                    let since = self.local.clock.monotonic().saturating_sub(heart.probed);
                    if !*opened.borrow_and_update() || since < MIN_PROBE_INTERVAL {
                        continue;
                    }
                }
            }
            self.beat(&mut heart).await;
            opened.mark_unchanged();
        }
        self.end_at_drain();
        if let Some((life, _)) = heart.life.take()
            && let Err(error) = heart.connection.end_life(life, LIMIT).await
        {
            tracing::warn!(%error, "the end of this node's life is not stored: its lease ends by itself");
        }
        heart.connection.close();
    }

    /// Sends one heartbeat, or begins a life, and acts on the reply.
    async fn beat(&self, heart: &mut Heart) {
        match self.try_beat(heart).await {
            Ok(()) => heart.is_failing = false,
            // It may work the next time.
            Err(Cause::Heartbeat) => {}
            Err(cause) => self.leave(&cause),
        }
        // Begins the time alone when it is due.
        self.life();
        self.end_lost_alarm(heart);
    }

    async fn try_beat(&self, heart: &mut Heart) -> Result<(), Cause> {
        let Some((life, count)) = heart.life else { return self.renew(heart).await };
        heart.connection.session().await.map(drop).map_err(|error| heart.failed(&error))?;
        let sent = self.local.clock.moment();
        let beat = heart.connection.beat(&self.local.identity, life, LEASE, LIMIT).await;
        let beat = beat.map_err(|error| heart.failed(&error))?;
        self.compare_clocks(sent, beat.now);
        self.compare_count(beat.alive);
        let fleet = heart.fleet.clone().unwrap_or_default();
        match judge(&beat, count, &fleet) {
            Verdict::Renewed(count) => {
                heart.life = Some((life, count));
                self.beaten(sent);
                self.return_to(heart, life).await.map_err(|error| heart.failed(&error))
            }
            Verdict::Ended => {
                heart.life = None;
                self.leave(&Cause::Heartbeat);
                self.renew(heart).await
            }
            Verdict::Lost => {
                heart.life = None;
                self.leave(&Cause::Heartbeat);
                self.pause_grants(heart);
                self.renew(heart).await
            }
            Verdict::Alone(cause) => {
                if matches!(cause, Cause::OtherProcess(_)) {
                    heart.life = None;
                }
                Err(cause)
            }
        }
    }

    /// Begins another life after the one before has ended.
    async fn renew(&self, heart: &mut Heart) -> Result<(), Cause> {
        match self.begin(heart).await? {
            Begun::Life(life) => self.return_to(heart, life).await.map_err(|error| heart.failed(&error)),
            Begun::Bound(holder) => Err(Cause::OtherStore(holder)),
            Begun::Held { holder, .. } => Err(Cause::OtherProcess(holder)),
        }
    }

    async fn begin(&self, heart: &mut Heart) -> Result<Begun, Cause> {
        heart.connection.session().await.map(drop).map_err(|error| heart.failed(&error))?;
        let about = heart.connection.about(LIMIT).await.map_err(|error| heart.failed(&error))?;
        let fleet = heart.fleet.get_or_insert_with(|| about.fleet.clone());
        refuse_database(&about, fleet).map_or(Ok(()), Err)?;
        let sent = self.local.clock.moment();
        let begun = heart.connection.begin_life(&self.local.identity, LEASE, LIMIT).await;
        let begun = begun.map_err(|error| heart.failed(&error))?;
        if let Begun::Life(life) = begun {
            heart.life = Some((life, 0));
            self.beaten(sent);
        }
        Ok(begun)
    }

    /// Ends being alone: once the pool answers and the changes of the meantime are applied.
    async fn return_to(&self, heart: &mut Heart, life: i64) -> Result<(), LinkError> {
        if self.life() == Some(life) {
            return Ok(());
        }
        if self.link.is_open() {
            heart.probed = self.local.clock.monotonic();
            self.link.probe("SELECT 1", &[], LIMIT).await?;
        }
        if let Some(catch_up) = self.catch_up.get() {
            catch_up(life).await?;
        }
        self.join(life);
        Ok(())
    }

    fn beaten(&self, sent: Moment) {
        *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = sent.monotonic;
        self.local.metrics.fleet_beat(sent.wall);
    }

    fn compare_clocks(&self, sent: Moment, database: i64) {
        let (ahead, uncertainty) = offset(sent, self.local.clock.moment(), database);
        self.local.metrics.fleet_clock_offset(ahead as f64 / 1e6);
        let most = MAX_OFFSET.saturating_add(uncertainty).as_micros();
        let wrong = u128::from(ahead.unsigned_abs()) > most;
        let seconds = ahead as f64 / 1e6;
        let text = wrong.then(|| {
            text!(
                "the clock of the fleet's database differs from this machine's by {seconds:+.1} s: synchronize both (NTP)",
                "集群数据库的时钟与本机相差 {seconds:+.1} 秒：请同步两者的时钟（NTP）"
            )
        });
        self.local.alarms.set_if(Condition::FleetClock, Severity::Warning, text);
    }

    fn compare_count(&self, alive: i64) {
        let nodes = self.settings.nodes;
        let text = (alive > i64::from(nodes)).then(|| {
            text!(
                "{alive} nodes of the fleet are alive, and [fleet] nodes is {nodes}: nodes that are alone could make more \
                 calls together than the limits allow; set nodes to the greatest number of nodes on all of them, and restart \
                 them one after the other",
                "集群中有 {alive} 个节点在线，而 [fleet] nodes 为 {nodes}：各节点脱离集群独自运行时，调用之和可能超过限额；请在所有节点上\
                 把 nodes 设为节点的最大数量，并逐个重启"
            )
        });
        self.local.alarms.set_if(Condition::FleetNodes, Severity::Warning, text);
    }

    fn pause_grants(&self, heart: &mut Heart) {
        let now = self.local.clock.moment();
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = now.monotonic + PAUSE;
        heart.lost_until = Some(now.monotonic + LOST_ALARM);
        let detail = format!("node={}", self.node);
        self.local.audit.append_act_later(ActRow { at: now.wall, what: "fleet-lost", detail, card: None });
        let text = text!(
            "the database of the fleet lost commits in a failover at {at}: transids used and calls granted just before are \
             forgotten there; use synchronous replication (synchronous_standby_names)",
            "集群数据库在 {at} 的故障切换中丢失了已提交的事务：此前刚使用的事务编码和刚分配的调用额度在库中已丢失；请使用同步复制\
             （synchronous_standby_names）",
            at = now.wall
        );
        self.local.alarms.raise(Condition::FleetLost, text);
    }

    fn end_lost_alarm(&self, heart: &mut Heart) {
        if heart.lost_until.is_some_and(|until| self.local.clock.monotonic() >= until) {
            heart.lost_until = None;
            self.local.alarms.clear(Condition::FleetLost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::store::fleet::nodes::Holder;

    fn about(fleet: &str) -> About {
        About { fleet: fleet.to_owned(), version: migrate::version(), oldest: 1 }
    }

    fn beat(beats: Option<i64>) -> Beat {
        Beat { about: about("f"), now: 0, beats, known: true, bound: true, other: None, alive: 1 }
    }

    #[test]
    fn a_count_that_is_not_larger_shows_lost_commits() {
        assert_eq!(judge(&beat(Some(5)), 4, "f"), Verdict::Renewed(5));
        assert_eq!(judge(&beat(Some(9)), 4, "f"), Verdict::Renewed(9), "replies were lost in between");
        assert_eq!(judge(&beat(Some(4)), 4, "f"), Verdict::Lost);
        assert_eq!(judge(&beat(Some(1)), 4, "f"), Verdict::Lost);
        let unknown = Beat { known: false, ..beat(None) };
        assert_eq!(judge(&unknown, 4, "f"), Verdict::Lost);
        assert_eq!(
            judge(&Beat { bound: false, ..unknown }, 4, "f"),
            Verdict::Ended,
            "the number was released"
        );
    }

    #[test]
    fn a_life_that_was_not_renewed_has_ended_or_another_process_has_the_node() {
        assert_eq!(judge(&beat(None), 4, "f"), Verdict::Ended);
        let holder = Holder { store: "ab".to_owned(), place: "b:/data".to_owned() };
        let beat = Beat { other: Some(holder.clone()), ..beat(None) };
        assert_eq!(judge(&beat, 4, "f"), Verdict::Alone(Cause::OtherProcess(holder)));
    }

    #[test]
    fn another_fleet_and_a_schema_out_of_range_are_not_used() {
        let needs = migrate::version();
        assert_eq!(judge(&beat(Some(5)), 4, "g"), Verdict::Alone(Cause::OtherFleet));
        for (version, oldest, is_used) in [
            (needs, 1, true),
            (needs, needs, true),
            (needs + 1, needs, true),
            (needs - 1, 1, false),
            (needs + 2, needs + 1, false),
        ] {
            let about = About { version, oldest, ..about("f") };
            assert_eq!(refuse_database(&about, "f").is_none(), is_used, "{version} {oldest}");
        }
    }

    #[test]
    fn the_offset_of_a_clock_is_taken_in_the_middle_of_the_round_trip() {
        let moment = |wall: i64, monotonic| Moment {
            wall: Time::from_micros(wall),
            believed: Time::from_micros(wall),
            monotonic: Duration::from_micros(monotonic),
        };
        let (ahead, uncertainty) = offset(moment(1_000, 0), moment(1_200, 200), 6_100);
        assert_eq!((ahead, uncertainty), (5_000, Duration::from_micros(100)));
        assert_eq!(offset(moment(1_000, 0), moment(1_000, 0), 0).0, -1_000);
    }
}
