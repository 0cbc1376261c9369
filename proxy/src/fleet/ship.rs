//! Copies the audit of this node to the fleet's database, after its commit here and off the path of every request.
//!
//! The task has a connection of its own. Four times per second it reads the rows after the position that the database states,
//! from the segments, and copies them in shipments. The position is known there alone: a restart, a lost reply and a restored
//! store send no row twice, and none is left out. While the node is alone nothing is sent, and the lag grows; the rows are
//! copied afterwards.
//!
//! Rows that are no longer in the audit when they would be copied are stated at the database, in the log and by a note. If the
//! audit does not continue its copy, another chain begins there after the last common row.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Fleet;
use crate::alarms::{Condition, Severity};
use crate::clock::{Time, timeout};
use crate::config::fleet::FleetAudit;
use crate::language::{Text, text};
use crate::store::audit::anchor::{AnchorLog, CopyKey};
use crate::store::audit::copy::{self, Next, Position, Shipment};
use crate::store::audit::month::Month;
use crate::store::audit::{ActRow, query};
use crate::store::fleet::ship::{ChainAt, NewChain};
use crate::store::fleet::{Dedicated, LinkError};
use crate::store::{StoreError, blocking};

/// Interval of the looks at the audit.
const INTERVAL: Duration = Duration::from_millis(250);

/// The server's own end of a statement of the copy, and our end of a transaction.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(35);

/// Rows of one shipment, about: a transaction of a fraction of a second, and some megabytes of memory.
const ROWS: i64 = 8_192;

/// Anchors of one statement.
const ANCHORS: usize = 500;

/// The pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Interval at which the lag is measured.
const MEASURE: Duration = Duration::from_secs(1);

/// Time for the last rows at a drain.
const DRAIN: Duration = Duration::from_secs(2);

/// The lag at which the alarm begins.
const LATE: Duration = Duration::from_secs(600);

/// The copy of one node's audit.
pub struct Shipper {
    fleet: Arc<Fleet>,
    dir: PathBuf,
    key: CopyKey,
    connection: Dedicated,
    /// The chain at the database; none until it was asked for.
    chain: Option<ChainAt>,
    anchors: AnchorLog,
    /// Whether the log of anchors is at the first one that is not copied.
    knows_anchors: bool,
    /// Months that have room at the database.
    months: BTreeSet<Month>,
    /// Up to this time every row was copied.
    copied_until: Time,
    /// The last failure since a success.
    failure: Option<Failure>,
}

/// A reason not to copy.
#[derive(Clone, Debug)]
struct Failure {
    text: String,
    /// Whether it will not end by itself.
    is_lasting: bool,
    pause: Duration,
}

#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the segments of the audit do not follow each other: `cmiot-proxy audit verify` shows where")]
    Broken,
}

impl Shipper {
    /// The copy of the audit in `dir`; none if nothing is to be copied.
    ///
    /// # Errors
    /// When the key of the audit's anchors cannot be read.
    pub fn of(fleet: &Arc<Fleet>, dir: &Path) -> Result<Option<Self>, StoreError> {
        if fleet.settings.audit == FleetAudit::None {
            return Ok(None);
        }
        Ok(Some(Self {
            key: CopyKey::open(dir)?,
            connection: fleet.link.dedicated("copy", STATEMENT_TIMEOUT),
            chain: None,
            anchors: AnchorLog::of(dir),
            knows_anchors: false,
            months: BTreeSet::new(),
            copied_until: fleet.local.clock.now(),
            failure: None,
            fleet: Arc::clone(fleet),
            dir: dir.to_owned(),
        }))
    }

    /// Copies until `stop`, and then what was committed meanwhile, if that takes no longer than two seconds.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(result) = stop.run_until_cancelled(self.pass()).await {
            let pause = self.judge(result);
            if stop.run_until_cancelled(self.pause(pause)).await.is_none() {
                break;
            }
        }
        // A shipment may have been interrupted.
        self.forget();
        let rest = async { while self.pass().await.is_ok_and(|is_more| is_more) {} };
        if timeout(DRAIN, rest).await.is_err() {
            tracing::info!("the last rows of the audit are copied after the next start");
        }
    }

    /// Copies the next anchors and the next shipment. Returns whether there is more.
    async fn pass(&mut self) -> Result<bool, ShipError> {
        if self.fleet.life().is_none() {
            return Ok(false);
        }
        let more_anchors = self.copy_anchors().await?;
        let with_records = match self.fleet.settings.audit {
            FleetAudit::None | FleetAudit::Anchors => {
                self.copied_until = self.fleet.local.clock.now();
                return Ok(more_anchors);
            }
            FleetAudit::Calls => false,
            FleetAudit::All => true,
        };
        let Some(ChainAt { id, position }) = self.position().await? else { return Ok(more_anchors) };
        let now = self.fleet.local.clock.now();
        let (dir, from) = (self.dir.clone(), position.clone());
        match blocking(move || copy::next(&dir, &from, with_records, ROWS)).await? {
            Next::Nothing => {
                self.copied_until = now;
                self.measure(position.last, position.last);
                Ok(more_anchors)
            }
            Next::Fork => {
                self.fork(id, &position).await?;
                Ok(true)
            }
            Next::Shipment(shipment) => {
                self.ship(id, &shipment).await?;
                self.copied_until = shipment.next_since.unwrap_or(now).min(now);
                self.measure(shipment.known, shipment.to.last);
                Ok(more_anchors || shipment.to.last < shipment.known)
            }
        }
    }

    /// The chain at the database, which is created if it does not exist; none without a segment.
    async fn position(&mut self) -> Result<Option<ChainAt>, ShipError> {
        if self.chain.is_none() {
            let store = self.fleet.local.identity.store;
            self.chain = self.connection.copy_position(self.fleet.node, &store, LIMIT).await?;
        }
        if self.chain.is_none() {
            let dir = self.dir.clone();
            let Some((last, head)) = blocking(move || copy::origin(&dir)).await? else { return Ok(None) };
            self.begin(None, Position::base(last, head)).await?;
        }
        Ok(self.chain.clone())
    }

    async fn begin(&mut self, parent: Option<i64>, base: Position) -> Result<(), ShipError> {
        let new = NewChain {
            node: self.fleet.node,
            store: &self.fleet.local.identity.store,
            parent,
            base: &base,
            signature: &self.key.sign(base.last, &base.head, &base.digest),
        };
        let id = self.connection.begin_chain(&new, LIMIT).await?;
        tracing::info!(chain = id, after = base.last, "the copy of the audit begins");
        self.chain = Some(ChainAt { id, position: base });
        Ok(())
    }

    /// Begins another chain after the last row that the copy and the audit have in common.
    async fn fork(&mut self, chain: i64, position: &Position) -> Result<(), ShipError> {
        let mut common = None;
        let dir = self.dir.clone();
        // Rows before it were pruned here: nothing is known about them.
        let origin = blocking(move || copy::origin(&dir)).await?;
        let first = origin.as_ref().map_or(0, |(last, _)| *last);
        // From there on the heads are the same up to the last common row, and differ after it: a binary search.
        let (mut low, mut high) = (first, position.last);
        while low <= high {
            let middle = low + (high - low) / 2;
            let Some(head) = self.connection.copied_head_at(chain, middle, LIMIT).await? else {
                low = middle + 1;
                continue;
            };
            if head.last < first {
                low = middle + 1;
                continue;
            }
            let (dir, at) = (self.dir.clone(), (head.last, head.head));
            if blocking(move || copy::has(&dir, at.0, at.1)).await? {
                low = middle + 1;
                common = Some(head);
            } else {
                high = head.last - 1;
            }
        }
        if common.as_ref().is_some_and(|common| common.last == position.last) {
            return Err(ShipError::Broken);
        }
        let base = match &common {
            Some(common) => Some((common.last, common.head)),
            None => origin,
        };
        let Some((last, head)) = base else { return Ok(()) };
        tracing::warn!(
            copied = position.last,
            common = last,
            "the audit does not continue its copy at the fleet's database: it was restored, set back or replaced"
        );
        self.begin(common.map(|common| common.chain), Position::base(last, head)).await
    }

    async fn ship(&mut self, chain: i64, shipment: &Shipment) -> Result<(), ShipError> {
        let month = shipment.month;
        if !shipment.batches.is_empty() && !self.months.contains(&month) {
            self.connection.add_month(month, LIMIT).await?;
            self.months.insert(month);
        }
        let to = &shipment.to;
        let signature = self.key.sign(to.last, &to.head, &to.digest);
        self.connection.ship(chain, shipment, &signature, LIMIT).await?;
        self.chain = Some(ChainAt { id: chain, position: to.clone() });
        if let Some(missing) = &shipment.missing
            && missing.first <= missing.last
        {
            let (first, last) = (missing.first, missing.last);
            tracing::warn!(
                first,
                last,
                "these rows were not copied to the fleet's database: they are no longer in the audit"
            );
            self.fleet.local.audit.append_act_later(ActRow {
                at: self.fleet.local.clock.now(),
                what: "uncopied",
                detail: format!("rows={first}-{last} before={month}"),
                card: None,
            });
        }
        Ok(())
    }

    /// Copies anchors that were written since the last ones; whether there are more.
    async fn copy_anchors(&mut self) -> Result<bool, ShipError> {
        let store = self.fleet.local.identity.store;
        if !self.knows_anchors {
            if let Some((at, segment, last)) = self.connection.last_copied_anchor(&store, LIMIT).await? {
                let mut log = AnchorLog::of(&self.dir);
                self.anchors = blocking(move || log.go_behind(at, &segment, last).map(|()| log)).await?;
            }
            self.knows_anchors = true;
        }
        let log = self.anchors.clone();
        let (anchors, behind) = blocking(move || log.next(ANCHORS)).await?;
        if !anchors.is_empty() {
            self.connection.copy_anchors(self.fleet.node, &store, &anchors, LIMIT).await?;
        }
        self.anchors.go_to(behind);
        Ok(anchors.len() == ANCHORS)
    }

    /// Asks the database again where it is.
    fn forget(&mut self) {
        self.connection.close();
        self.chain = None;
        self.knows_anchors = false;
        self.months.clear();
    }

    /// The pause after this result.
    fn judge(&mut self, result: Result<bool, ShipError>) -> Duration {
        let error = match result {
            Ok(is_more) => {
                // While the node is alone nothing was tried.
                if self.fleet.life().is_some() && self.failure.take().is_some() {
                    tracing::info!("the audit is copied to the fleet's database again");
                }
                return if is_more { Duration::ZERO } else { INTERVAL };
            }
            Err(error) => error,
        };
        self.forget();
        let is_lasting = match &error {
            ShipError::Store(_) | ShipError::Broken => true,
            // Classes of errors in the statement, its data or its rights.
            ShipError::Link(error) => error
                .sqlstate()
                .is_some_and(|code| ["22", "23", "42"].iter().any(|class| code.starts_with(class))),
        };
        if self.failure.is_none() {
            tracing::warn!(%error, "the audit is not copied to the fleet's database");
        }
        let pause = self.failure.as_ref().map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
        self.failure = Some(Failure { text: error.to_string(), is_lasting, pause });
        pause
    }

    /// Waits, and measures the lag meanwhile.
    async fn pause(&mut self, pause: Duration) {
        let mut left = pause;
        loop {
            let step = left.min(MEASURE);
            tokio::time::sleep(step).await;
            left = left.saturating_sub(step);
            if self.failure.is_some() || self.fleet.life().is_none() {
                self.measure_alone().await;
            }
            self.report();
            if left.is_zero() {
                return;
            }
        }
    }

    /// Measures the lag while nothing is copied.
    async fn measure_alone(&self) {
        let Some(position) = self.chain.as_ref().map(|chain| chain.position.last) else { return };
        let dir = self.dir.clone();
        if let Ok(known) = blocking(move || query::head(&dir)).await {
            self.measure(known, position);
        }
    }

    fn measure(&self, known: i64, copied: i64) {
        self.fleet.local.metrics.fleet_audit_rows_behind(known.saturating_sub(copied).max(0).unsigned_abs());
    }

    /// Exports the lag, and raises or ends the alarm.
    fn report(&self) {
        let lag = self.fleet.local.clock.now().since(self.copied_until);
        self.fleet.local.metrics.fleet_audit_lag(lag);
        let failure = self.failure.as_ref();
        let is_lasting = failure.is_some_and(|failure| failure.is_lasting);
        let alarm = (lag > LATE || is_lasting).then(|| late(self.copied_until, failure));
        self.fleet.local.alarms.set_if(Condition::FleetAudit, Severity::Warning, alarm);
    }
}

fn late(since: Time, failure: Option<&Failure>) -> Text {
    let error = failure.map_or("", |failure| &failure.text);
    text!(
        "rows of the audit since {since} are not copied to the fleet's database: {error}; they are copied when the cause has \
         ended, so prune no month before; the log has the errors",
        "自 {since} 起的审计记录尚未复制到集群数据库：{error}；原因消除后会自动复制，在此之前不要清理（prune）任何月份；错误见日志"
    )
}
