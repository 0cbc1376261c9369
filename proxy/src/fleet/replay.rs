//! Replays across the fleet: a transid of a client is accepted once by all nodes together.
//!
//! The node's own replay cache decides first, so that its own replays need no statement. Requests that it accepts wait for
//! [`SharedReplay::check`], a group commit: up to [`STATEMENTS`] statements are in flight, and the next one takes all
//! requests that have arrived meanwhile. A statement inserts its transids, and names those that were there.
//!
//! A statement without a reply may have inserted them. The request is then treated as if the node were alone, and its
//! transid may be checked again: a process may repeat its own insertion, so that each transid still is accepted by one
//! process only, and the process's own cache accepts it once.
//!
//! Under `when_alone = "serve"` a node that is alone accepts transids by its own cache, and lists them
//! ([`SharedReplay::accept_alone`]). After the database is back it inserts them, so that the other nodes refuse them, and
//! notes those that another node has accepted too. The list has room for [`MAX_ALONE`]; the oldest are removed first.
//!
//! Rows stay as long as any node may accept their stamps: [`SharedReplay::sweep`].

mod maintenance;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::oneshot;

use super::Fleet;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::fleet::LinkError;
use crate::store::fleet::replay::{NotInserted, Process, Transids};
use maintenance::Floor;
pub use maintenance::Upkeep;

/// Statements in flight at most. The second one carries what arrives during the first one's round trip.
pub const STATEMENTS: usize = 2;

/// Transids of one statement at most.
pub const BATCH: usize = 1_000;

/// Attempts of one statement that ends with an error: as many as open the breaker.
const ATTEMPTS: usize = 3;

/// Transids that are listed while the node is alone, at most: 40 MB.
pub const MAX_ALONE: usize = 1_000_000;

/// The transids that the fleet has accepted, as one node checks them.
pub struct SharedReplay {
    fleet: Arc<Fleet>,
    process: Process,
    queue: Mutex<Queue>,
    alone: Mutex<Alone>,
    floor: Mutex<Option<Floor>>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// A transid that a client has used: stamp and sequence as one number, in the order of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UsedTransid {
    /// Stamp and sequence.
    pub number: i64,
    /// The client.
    pub client: AppId,
}

/// The result of a check.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// No other node has accepted it, and none will.
    New,
    /// Another node has accepted it.
    Used,
    /// It is so old that its use may no longer be stored.
    Expired,
    /// The database did not reply; whether the transid is stored is not known.
    Alone,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Self; 4] = [Self::New, Self::Used, Self::Expired, Self::Alone];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Alone => "alone",
        }
    }
}

/// A check in progress. Dropping it leaves open whether the transid is stored.
#[must_use = "a request may be answered only after its transid was checked"]
#[derive(Debug)]
pub struct Check(oneshot::Receiver<Verdict>);

impl Check {
    /// Waits for the verdict.
    pub async fn verdict(self) -> Verdict {
        // Without a verdict the task of the statement has panicked.
        self.0.await.unwrap_or(Verdict::Alone)
    }
}

/// Requests that wait for a statement.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Tasks that run statements.
    tasks: usize,
}

struct Waiting {
    transid: UsedTransid,
    /// The start of its wait, by the monotonic clock.
    since: Duration,
    verdict: oneshot::Sender<Verdict>,
}

/// Transids that were accepted while the node was alone.
#[derive(Default)]
struct Alone {
    /// Those that are not inserted yet, oldest first.
    listed: VecDeque<UsedTransid>,
    /// Counts since all were inserted.
    report: AloneReport,
}

/// Counts of the transids that a node accepted while it was alone.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AloneReport {
    /// Those that were inserted later. A restarted node lists more than it accepted alone: those are there already.
    pub inserted: usize,
    /// Those that another node has accepted too.
    pub twice: usize,
    /// Those that the list had no room for.
    pub unlisted: usize,
}

impl SharedReplay {
    /// The checks of one process of this node.
    pub fn new(fleet: Arc<Fleet>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let mut random = [0; 4];
        // Without randomness the time tells two starts apart.
        if SystemRandom::new().fill(&mut random).is_err() {
            random.copy_from_slice(&clock.now().as_micros().to_be_bytes()[4..]);
        }
        let process = Process { node: fleet.node.into(), process: i32::from_be_bytes(random) };
        Self {
            fleet,
            process,
            queue: Mutex::default(),
            alone: Mutex::default(),
            floor: Mutex::default(),
            metrics,
            clock,
        }
    }

    /// The node.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Starts the check of a transid that this process has accepted.
    pub fn check(self: &Arc<Self>, transid: UsedTransid) -> Check {
        let (verdict, check) = oneshot::channel();
        let since = self.clock.monotonic();
        let mut queue = lock(&self.queue);
        queue.waiting.push_back(Waiting { transid, since, verdict });
        if queue.tasks < STATEMENTS {
            queue.tasks += 1;
            drop(queue);
            tokio::spawn(Task(Arc::clone(self)).run());
        }
        Check(check)
    }

    /// Lists a transid that was accepted without a verdict, for a later insertion.
    pub fn accept_alone(&self, transid: UsedTransid) {
        let mut alone = lock(&self.alone);
        if alone.listed.len() >= MAX_ALONE {
            alone.listed.pop_front();
            alone.report.unlisted += 1;
        }
        alone.listed.push_back(transid);
    }

    /// The number of transids that were accepted while the node was alone, and are not inserted yet.
    pub fn alone_count(&self) -> usize {
        lock(&self.alone).listed.len()
    }

    /// Checks one batch.
    async fn check_batch(&self, mut batch: Vec<Waiting>) {
        batch.sort_unstable_by_key(|waiting| waiting.transid);
        let verdicts = self.insert(&batch).await;
        if verdicts.is_none() {
            // The note in the audit that this node is alone precedes the records of these requests.
            self.fleet.continue_alone();
        }
        for Waiting { transid, verdict, .. } in batch {
            let result = match &verdicts {
                None => Verdict::Alone,
                Some(others) => {
                    others.get(&(transid.number, transid.client)).copied().unwrap_or(Verdict::New)
                }
            };
            self.metrics.fleet_transid(result.name());
            let _: Result<(), Verdict> = verdict.send(result); // the request may have ended
        }
    }

    /// Inserts the transids of a sorted batch. Returns the verdicts on those that were not inserted; none without a reply.
    async fn insert(&self, batch: &[Waiting]) -> Option<HashMap<(i64, AppId), Verdict>> {
        let transids = columns(batch.iter().map(|waiting| &waiting.transid));
        let oldest = batch.iter().map(|waiting| waiting.since).min()?;
        let timeout = self.fleet.settings.timeout;
        for _ in 0..ATTEMPTS {
            // A request has one time limit for the statement before its own and its own together. A statement gets half of
            // it at least: a slow one must not end the next one.
            let waited = self.clock.monotonic().saturating_sub(oldest);
            let limit = timeout.saturating_sub(waited).max(timeout / 2);
            match self.fleet.link.insert_transids(self.process, &transids, limit).await {
                Ok(others) => return Some(verdicts(&others)),
                Err(LinkError::Away | LinkError::TimedOut(_)) => return None,
                Err(error) => tracing::debug!(%error, "transids are checked again"),
            }
        }
        None
    }

    /// The next batch. Without one, the task has ended.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut queue = lock(&self.queue);
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(waiting) = queue.waiting.pop_front()
        {
            if !waiting.verdict.is_closed() {
                batch.push(waiting);
            }
        }
        if batch.is_empty() {
            // Under the same lock: a request that is queued now starts another task.
            queue.tasks -= 1;
            return None;
        }
        Some(batch)
    }
}

/// A task that runs statements until no request waits.
struct Task(Arc<SharedReplay>);

impl Task {
    async fn run(self) {
        let guard = Guard(Some(self.0));
        while let Some(shared) = &guard.0
            && let Some(batch) = shared.take()
        {
            shared.check_batch(batch).await;
        }
        guard.disarm();
    }
}

/// Counts a task that ends early: one that panics, or that the runtime drops.
struct Guard(Option<Arc<SharedReplay>>);

impl Guard {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            lock(&shared.queue).tasks -= 1;
        }
    }
}

impl fmt::Debug for SharedReplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReplay").field("process", &self.process).finish_non_exhaustive()
    }
}

/// Sorted transids as columns, each once.
fn columns<'a>(transids: impl Iterator<Item = &'a UsedTransid>) -> Transids<'a> {
    let mut columns = Transids::default();
    let mut last = None;
    for transid in transids {
        if last.replace(transid) != Some(transid) {
            columns.numbers.push(transid.number);
            columns.appids.push(transid.client.as_str());
        }
    }
    columns
}

fn verdicts(others: &[NotInserted]) -> HashMap<(i64, AppId), Verdict> {
    let verdict = |other: &NotInserted| if other.below_floor { Verdict::Expired } else { Verdict::Used };
    // An appid that this process sent can be parsed.
    let key = |other: &NotInserted| Some((other.number, AppId::parse(&other.appid).ok()?));
    others.iter().filter_map(|other| Some((key(other)?, verdict(other)))).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No step under these locks leaves the data inconsistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
