//! The one thread that writes the audit: everything that has come is one transaction of the current segment.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cmiot_signer::{AppId, Card, CardKind};
use rusqlite::{Connection, Statement, TransactionBehavior, params};

use super::super::StoreError;
use super::super::queue::Taken;
use super::super::schema::{self, Kind, Synchronous};
use super::segment::{self, Month};
use super::{AuditRow, AuditUnavailable, Clip, Entry, Shared};
use crate::clock::{Clock, Time};

/// The pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts: how long a disk may be well again before it is noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    dir: PathBuf,
    synchronous: Synchronous,
    shared: Arc<Shared>,
    clock: Clock,
    /// The month written into, and where it ends. Never goes back.
    month: Month,
    ends: Time,
    /// None after a failure, until the pause is over.
    segment: Option<Segment>,
    trouble: Option<Trouble>,
}

/// Since the first failure after a success.
struct Trouble {
    pause: Duration,
    /// By the monotonic clock.
    retry_at: Duration,
}

impl Writer {
    /// Opens the segment of this month, or the newest if the clock is behind it.
    pub(super) fn open(
        dir: &Path,
        synchronous: Synchronous,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let this = Month::of(clock.now());
        let month = segment::list(dir)?.first().map_or(this, |&newest| newest.max(this));
        let segment = Some(Segment::open(dir, month, synchronous)?);
        let ends = month.end();
        Ok(Self { dir: dir.to_owned(), synchronous, shared, clock, month, ends, segment, trouble: None })
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let taker = shared.queue.taker();
        let mut batch = Vec::new();
        loop {
            match taker.take(&mut batch, self.trouble.as_ref().map(|trouble| trouble.pause)) {
                Taken::Items => self.settle(&mut batch),
                // No traffic may come while `/ready` says no: recover without it.
                Taken::Nothing => self.attempt(Segment::probe),
                Taken::Closed => break,
            }
        }
        if let Some(segment) = self.segment {
            segment.close();
        }
    }

    /// Commits a batch, in as many transactions as it has segments, and tells who waits.
    fn settle(&mut self, batch: &mut Vec<Entry>) {
        while let Some(first) = batch.first() {
            if first.row.at >= self.ends {
                self.roll(first.row.at);
            }
            let ends = self.ends;
            let count = batch.iter().position(|entry| entry.row.at >= ends).unwrap_or(batch.len());
            self.attempt(|segment| segment.commit(batch[..count].iter().map(|entry| &entry.row)));
            let result = if self.trouble.is_some() { Err(AuditUnavailable::Failed) } else { Ok(()) };
            batch.drain(..count).for_each(|entry| entry.ack.tell(result));
        }
    }

    /// Leaves the segment for that of a later month.
    fn roll(&mut self, at: Time) {
        if let Some(segment) = self.segment.take() {
            segment.close();
        }
        self.month = Month::of(at);
        self.ends = self.month.end();
    }

    /// Does something with the segment, opened if need be, unless it is too early after a failure.
    fn attempt(&mut self, act: impl FnOnce(&mut Segment) -> Result<(), StoreError>) {
        let now = self.clock.monotonic();
        if self.trouble.as_ref().is_some_and(|trouble| now < trouble.retry_at) {
            return;
        }
        let done = match &mut self.segment {
            Some(segment) => act(segment),
            closed => Segment::open(&self.dir, self.month, self.synchronous)
                .and_then(|segment| act(closed.insert(segment))),
        };
        match done {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    tracing::info!("audit records are written again");
                }
            }
            Err(error) => {
                // What the connection believes about the file may be wrong now.
                self.segment = None;
                let pause = match &self.trouble {
                    None => {
                        tracing::error!(%error, "audit records cannot be written");
                        FIRST_PAUSE
                    }
                    Some(trouble) => (trouble.pause * 2).min(LONGEST_PAUSE),
                };
                self.trouble = Some(Trouble { pause, retry_at: now.saturating_add(pause) });
            }
        }
        self.shared.healthy.store(self.trouble.is_none(), Ordering::Release);
    }
}

/// An open segment.
struct Segment {
    connection: Connection,
    path: PathBuf,
    /// Numbers of the names in the file.
    names: HashMap<Box<str>, i64>,
    /// The last record's number.
    last: i64,
    /// The last batch's horizon, in microseconds since 1970.
    horizon: i64,
}

impl Segment {
    fn open(dir: &Path, month: Month, synchronous: Synchronous) -> Result<Self, StoreError> {
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let connection = schema::open(&path, Kind::Audit, synchronous)?;
        let last = match last_record(&connection).map_err(sqlite)? {
            Some(last) => last,
            None => last_before(dir, month)?,
        };
        let horizon = connection
            .query_row("SELECT horizon FROM batch ORDER BY last DESC LIMIT 1", [], |row| row.get(0))
            .or_else(
                |error| if error == rusqlite::Error::QueryReturnedNoRows { Ok(i64::MIN) } else { Err(error) },
            )
            .map_err(sqlite)?;
        let names = connection
            .prepare("SELECT text, id FROM name")
            .and_then(|mut all| all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(sqlite)?;
        Ok(Self { connection, names, last, horizon, path })
    }

    /// Appends rows in one transaction. After an error the segment is to be opened anew.
    fn commit<'a>(&mut self, rows: impl Iterator<Item = &'a AuditRow>) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let batch =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let appended = append(&batch, &mut self.names, self.last, self.horizon, rows).map_err(sqlite)?;
        batch.commit().map_err(sqlite)?;
        (self.last, self.horizon) = appended;
        Ok(())
    }

    /// Commits nothing, to learn whether a commit works.
    fn probe(&mut self) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let probe =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        schema::touch(&probe).map_err(sqlite)?;
        probe.commit().map_err(sqlite)
    }

    fn close(self) {
        schema::checkpoint(&self.connection, &self.path);
    }
}

/// Inserts rows and their batch; returns the new last number and horizon.
fn append<'a>(
    connection: &Connection,
    names: &mut HashMap<Box<str>, i64>,
    last: i64,
    horizon: i64,
    rows: impl Iterator<Item = &'a AuditRow>,
) -> rusqlite::Result<(i64, i64)> {
    let mut insert = connection.prepare_cached(
        r#"INSERT INTO record (id, at, outcome, reason, authenticated, "group", account, operation, client, peer,
                               kind, card, transid, code, carrier_code, status, age, carrier_transid, latency)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)"#,
    )?;
    let first = last + 1;
    let (mut last, mut horizon) = (last, horizon);
    let mut peer = String::new();
    for row in rows {
        last += 1;
        horizon = horizon.max(row.at.as_micros());
        peer.clear();
        // Writing to a String does not fail.
        let _: std::fmt::Result = write!(peer, "{}", row.peer);
        insert_row(&mut insert, last, row, &peer, |text| number(connection, names, text))?;
    }
    connection
        .prepare_cached("INSERT INTO batch (last, first, horizon) VALUES (?1, ?2, ?3)")?
        .execute([last, first, horizon])?;
    Ok((last, horizon))
}

fn insert_row(
    insert: &mut Statement<'_>,
    id: i64,
    row: &AuditRow,
    peer: &str,
    mut number: impl FnMut(&str) -> rusqlite::Result<i64>,
) -> rusqlite::Result<usize> {
    let outcome = number(row.outcome)?;
    let reason = row.reason.map(&mut number).transpose()?;
    let group = row.group.as_deref().map(&mut number).transpose()?;
    let account = row.account.as_deref().map(&mut number).transpose()?;
    let operation = row.operation.as_deref().map(&mut number).transpose()?;
    insert.execute(params![
        id,
        row.at.as_micros(),
        outcome,
        reason,
        row.authenticated,
        group,
        account,
        operation,
        row.client.as_ref().map(AppId::as_str),
        peer,
        row.card.as_ref().map(|card| kind_number(card.kind())),
        row.card.as_ref().map(Card::as_str),
        row.transid.as_ref().map(Clip::as_str),
        row.code.as_str(),
        row.carrier_code.as_ref().map(Clip::as_str),
        row.status.as_ref().map(Clip::as_str),
        row.age.map(micros),
        row.carrier_transid.as_ref().map(Clip::as_str),
        micros(row.latency),
    ])
}

/// The number of a name in this file, given out at its first use.
fn number(connection: &Connection, names: &mut HashMap<Box<str>, i64>, text: &str) -> rusqlite::Result<i64> {
    if let Some(&number) = names.get(text) {
        return Ok(number);
    }
    connection.prepare_cached("INSERT INTO name (text) VALUES (?1)")?.execute([text])?;
    let number = connection.last_insert_rowid();
    names.insert(text.into(), number);
    Ok(number)
}

/// As in the view `lookup`.
fn kind_number(kind: CardKind) -> i64 {
    match kind {
        CardKind::Msisdn => 1,
        CardKind::Iccid => 2,
        CardKind::Imsi => 3,
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn last_record(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.query_row("SELECT max(id) FROM record", [], |row| row.get(0))
}

/// The last record's number in the segments before `month`; 0 when there is none.
fn last_before(dir: &Path, month: Month) -> Result<i64, StoreError> {
    for earlier in segment::list(dir)?.into_iter().filter(|&earlier| earlier < month) {
        let path = earlier.path(dir);
        let connection = schema::open_read_only(&path, Kind::Audit)?;
        if let Some(last) = last_record(&connection).map_err(StoreError::sqlite(&path))? {
            return Ok(last);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::AtomicBool;

    use tokio::sync::oneshot;

    use super::super::super::Fault;
    use super::super::super::queue::Queue;
    use super::super::tests::{NOON, row, transids};
    use super::super::{Ack, AuditReader};
    use super::*;
    use crate::clock::Hand;

    /// A writer without its thread.
    fn writer(dir: &Path, now: Time) -> (Writer, Hand) {
        let shared = Arc::new(Shared { queue: Queue::new(100), healthy: AtomicBool::new(true) });
        let (clock, hand) = Clock::manual(now);
        (Writer::open(dir, Synchronous::Full, shared, clock).unwrap(), hand)
    }

    /// Settles one batch; what each of its rows was told.
    fn settle(writer: &mut Writer, rows: Vec<AuditRow>) -> Vec<Result<(), AuditUnavailable>> {
        let (mut batch, waiting): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .map(|row| {
                let (ack, result) = oneshot::channel();
                (Entry { row, ack: Ack(ack) }, result)
            })
            .unzip();
        writer.settle(&mut batch);
        assert!(batch.is_empty());
        waiting.into_iter().map(|mut result| result.try_recv().unwrap()).collect()
    }

    fn records(dir: &Path, month: &str) -> Vec<(i64, String)> {
        let connection = Connection::open(dir.join(format!("audit-{month}.db"))).unwrap();
        let mut all = connection.prepare("SELECT id, transid FROM record ORDER BY id").unwrap();
        all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    }

    fn numbered<const N: usize>(records: [(i64, &str); N]) -> Vec<(i64, String)> {
        records.map(|(id, transid)| (id, transid.to_owned())).into()
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_later_month_begins_a_segment_and_an_earlier_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = writer(dir.path(), NOON);
        let (february, april) = (NOON.plus(30 * DAY), NOON.plus(90 * DAY));
        let rows = vec![
            row(NOON, "a"),
            row(february, "b"),
            row(NOON, "c"), // The clock was stepped back.
            row(april, "d"),
            row(february, "e"),
        ];
        assert_eq!(settle(&mut writer, rows), [Ok(()); 5]);
        drop(writer);
        assert_eq!(records(dir.path(), "2026-01"), numbered([(1, "a")]));
        assert_eq!(records(dir.path(), "2026-02"), numbered([(2, "b"), (3, "c")]));
        assert_eq!(records(dir.path(), "2026-04"), numbered([(4, "d"), (5, "e")]));

        // A start with the clock behind goes on in the newest; numbers and horizons go on too.
        let (mut writer, _) = self::writer(dir.path(), NOON);
        assert_eq!(settle(&mut writer, vec![row(NOON, "f")]), [Ok(())]);
        assert_eq!(records(dir.path(), "2026-04"), numbered([(4, "d"), (5, "e"), (6, "f")]));
        // A start in a later month begins it, after whichever segment has the last record.
        let (mut writer, _) = self::writer(dir.path(), NOON.plus(130 * DAY));
        drop(self::writer(dir.path(), NOON.plus(160 * DAY)));
        assert_eq!(settle(&mut writer, vec![row(NOON, "g")]), [Ok(())]);
        assert_eq!(records(dir.path(), "2026-05"), numbered([(7, "g")]));
        assert_eq!(records(dir.path(), "2026-06"), numbered([]));
    }

    #[test]
    fn a_full_disk_refuses_the_batch_and_leaves_the_file_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, hand) = writer(dir.path(), NOON);
        assert_eq!(settle(&mut writer, vec![row(NOON, "before")]), [Ok(())]);
        let connection = &writer.segment.as_ref().unwrap().connection;
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        connection.pragma_update(None, "max_page_count", pages).unwrap();
        let many: Vec<_> = (0..200).map(|n| row(NOON, &format!("lost {n}"))).collect();
        assert_eq!(settle(&mut writer, many), [Err(AuditUnavailable::Failed); 200]);
        assert!(!writer.shared.healthy.load(Ordering::Acquire));
        // Opened anew after the pause, without the limit.
        hand.advance(FIRST_PAUSE);
        assert_eq!(settle(&mut writer, vec![row(NOON, "after")]), [Ok(())]);
        assert!(writer.shared.healthy.load(Ordering::Acquire));
        drop(writer);
        assert_eq!(records(dir.path(), "2026-01"), numbered([(1, "before"), (2, "after")]));
    }

    #[test]
    fn pauses_double_and_a_probe_ends_the_trouble_without_traffic() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, hand) = writer(dir.path(), NOON);
        // A folder where the next month's file should be.
        let february = NOON.plus(30 * DAY);
        let path = dir.path().join("audit-2026-02.db");
        fs::create_dir(&path).unwrap();
        assert_eq!(
            settle(&mut writer, vec![row(NOON, "a"), row(february, "b")]),
            [Ok(()), Err(AuditUnavailable::Failed)]
        );
        let pause = |writer: &Writer| writer.trouble.as_ref().map(|trouble| trouble.pause);
        let mut expected = FIRST_PAUSE;
        for _ in 0..8 {
            assert_eq!(pause(&writer), Some(expected));
            hand.advance(expected - Duration::from_micros(1));
            writer.attempt(Segment::probe);
            assert_eq!(pause(&writer), Some(expected), "too early: not tried");
            hand.advance(Duration::from_micros(1));
            writer.attempt(Segment::probe);
            expected = (expected * 2).min(LONGEST_PAUSE);
        }
        assert_eq!(expected, LONGEST_PAUSE);
        fs::remove_dir(&path).unwrap();
        hand.advance(LONGEST_PAUSE);
        writer.attempt(Segment::probe);
        assert_eq!(pause(&writer), None);
        assert!(writer.shared.healthy.load(Ordering::Acquire));
        assert_eq!(settle(&mut writer, vec![row(february, "c")]), [Ok(())]);
        assert_eq!(records(dir.path(), "2026-02"), numbered([(2, "c")]));
    }

    #[test]
    fn names_of_a_failed_batch_are_given_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, hand) = writer(dir.path(), NOON);
        let other = Connection::open(dir.path().join("audit-2026-01.db")).unwrap();
        other
            .execute_batch(
                "CREATE TRIGGER broken BEFORE INSERT ON batch BEGIN SELECT RAISE(ABORT, 'no'); END",
            )
            .unwrap();
        let named = |name: &str| AuditRow { group: Some(name.into()), ..row(NOON, name) };
        assert_eq!(settle(&mut writer, vec![named("first")]), [Err(AuditUnavailable::Failed)]);
        other.execute_batch("DROP TRIGGER broken").unwrap();
        hand.advance(FIRST_PAUSE);
        assert_eq!(settle(&mut writer, vec![named("second"), named("first"), named("second")]), [Ok(()); 3]);
        let groups: Vec<String> = other
            .prepare(r#"SELECT "group" FROM lookup ORDER BY id"#)
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(groups, ["second", "first", "second"]);
    }

    #[test]
    fn everything_since_a_moment_is_found_whatever_the_clock_did() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = writer(dir.path(), NOON);
        let at = |seconds: u64| NOON.plus(Duration::from_secs(seconds));
        // Stepped back by 1,000 s for a while, then set right.
        for (seconds, transid) in [(0, "a"), (1_100, "b"), (100, "c"), (110, "d"), (1_120, "e"), (1_110, "f")]
        {
            assert_eq!(settle(&mut writer, vec![row(at(seconds), transid)]), [Ok(())]);
        }
        for (since, found) in [
            (0, vec!["f", "e", "d", "c", "b", "a"]),
            (1, vec!["f", "e", "d", "c", "b"]),
            (1_100, vec!["f", "e", "b"]),
            (1_101, vec!["f", "e"]),
            (1_120, vec!["e"]),
            (1_121, vec![]),
        ] {
            assert_eq!(transids(dir.path(), at(since)), found, "since {since}");
        }
        // The month before is read too, and what was not authenticated is not.
        let february = NOON.plus(30 * DAY);
        let bad = AuditRow { authenticated: false, ..row(february, "bad") };
        assert_eq!(settle(&mut writer, vec![row(february, "g"), bad]), [Ok(()); 2]);
        assert_eq!(transids(dir.path(), at(1_120)), ["g", "e"]);
        let mut first = Vec::new();
        AuditReader::new(dir.path())
            .authenticated_since(NOON, |past| {
                first.push((past.client.as_str().to_owned(), past.at, past.outcome.to_owned(), past.card));
                std::ops::ControlFlow::Break(())
            })
            .unwrap();
        assert_eq!(first, [("GW0001".to_owned(), february, "hit".to_owned(), row(NOON, "").card)]);
    }

    #[test]
    fn the_highest_stamp_sent_to_the_carrier_is_found_in_any_segment() {
        let dir = tempfile::tempdir().unwrap();
        let reader = AuditReader::new(dir.path());
        let highest = || reader.highest_carrier_stamp().unwrap().map(cmiot_signer::Stamp::to_unix);
        assert_eq!(highest(), None);
        let (mut writer, _) = writer(dir.path(), NOON);
        let carrier = |transid: &str| AuditRow { carrier_transid: Some(transid.into()), ..row(NOON, "t") };
        let none = AuditRow { carrier_transid: None, ..row(NOON, "t") };
        assert_eq!(settle(&mut writer, vec![none]), [Ok(())]);
        assert_eq!(highest(), None);
        let rows = vec![carrier("Z2026011511000000000009"), carrier("0NZ2026011512000000000001")];
        assert_eq!(settle(&mut writer, rows), [Ok(()); 2]);
        let later = AuditRow { at: NOON.plus(30 * DAY), ..carrier("1000012026011511593300000001") };
        assert_eq!(settle(&mut writer, vec![later]), [Ok(())]);
        assert_eq!(highest(), Some(NOON.as_secs()));
    }

    #[test]
    fn a_newer_segment_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(writer(dir.path(), NOON));
        Connection::open(dir.path().join("audit-2026-01.db"))
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        let shared = Arc::new(Shared { queue: Queue::new(1), healthy: AtomicBool::new(true) });
        let (clock, _hand) = Clock::manual(NOON);
        let error = Writer::open(dir.path(), Synchronous::Full, shared, clock).err().unwrap();
        assert!(matches!(error.fault(), Fault::Newer { found: 99, .. }), "{error}");
    }
}
