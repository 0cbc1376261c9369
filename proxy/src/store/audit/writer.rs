//! The one thread that writes the audit: everything that has come is one transaction of the current segment.
//!
//! Between batches it keeps house: a step of the index where there is one, and every `anchor_every` a signed head,
//! the sealing of segments that are over, and notes that commands left for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::StoreError;
use super::super::queue::Taken;
use super::anchor::Notary;
use super::file::Segment;
use super::row::Row;
use super::seal::Sealer;
use super::segment::{self, Month};
use super::{AuditUnavailable, Entry, Options, Shared, notes, reserve};
use crate::clock::{Clock, Time};

/// The pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts: how long a disk may be well again before it is noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the disk is asked for its free space while all is well.
const RESERVE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    dir: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    clock: Clock,
    notary: Notary,
    sealer: Sealer,
    /// The month written into, and where it ends. Never goes back.
    month: Month,
    ends: Time,
    /// None after a failure, until the pause is over.
    segment: Option<Segment>,
    trouble: Option<Trouble>,
    /// By the monotonic clock: when the house is kept next, and when the disk is asked.
    house_at: Duration,
    reserve_at: Duration,
    /// The last row that an anchor covers.
    anchored: Option<i64>,
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
        options: Options,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let this = Month::of(clock.now());
        let month = segment::list(dir)?.first().map_or(this, |&newest| newest.max(this));
        let segment = Some(Segment::open(dir, month, &options)?);
        let (house_at, reserve_at) = (clock.monotonic(), Duration::ZERO);
        Ok(Self {
            dir: dir.to_owned(),
            options,
            shared,
            clock,
            notary: Notary::open(dir, options.mode())?,
            sealer: Sealer::default(),
            month,
            ends: month.end(),
            segment,
            trouble: None,
            house_at,
            reserve_at,
            anchored: None,
        })
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let taker = shared.queue.taker();
        let mut batch = Vec::new();
        loop {
            self.keep_house();
            let pause = self.trouble.as_ref().map(|trouble| trouble.pause);
            let patience = pause.unwrap_or(Duration::MAX).min(self.options.anchor_every);
            match taker.take(&mut batch, Some(patience)) {
                Taken::Items => self.settle(&mut batch),
                // No traffic may come while `/ready` says no: recover without it.
                Taken::Nothing if self.trouble.is_some() => self.recover(),
                Taken::Nothing => {}
                Taken::Closed => break,
            }
        }
        self.finish();
    }

    /// Commits a batch, in as many transactions as it has segments, and tells who waits.
    fn settle(&mut self, batch: &mut Vec<Entry>) {
        while let Some(first) = batch.first() {
            if first.row.at() >= self.ends {
                self.roll(first.row.at());
            }
            let ends = self.ends;
            let count = batch.iter().position(|entry| entry.row.at() >= ends).unwrap_or(batch.len());
            // What was missed is the first row written after it.
            let missed = self.shared.take_gap().map(Row::Gap);
            let rows = || missed.iter().chain(batch[..count].iter().map(|entry| &entry.row));
            self.attempt(|segment| segment.commit(rows()));
            let result = if self.trouble.is_some() { Err(AuditUnavailable::Failed) } else { Ok(()) };
            if result.is_err() {
                if let Some(Row::Gap(gap)) = missed {
                    self.shared.miss(gap);
                }
                let lost = batch[..count].iter().filter(|entry| entry.ack.is_some()).count();
                self.shared.missed(lost, self.clock.now());
            }
            batch.drain(..count).filter_map(|entry| entry.ack).for_each(|ack| ack.tell(result));
            // After the askers were told: nobody waits for the index.
            if result.is_ok() && self.segment.as_ref().is_some_and(Segment::index_is_behind) {
                self.attempt(Segment::index);
            }
        }
    }

    /// Tries whether the disk is well again; what was missed meanwhile is written down at once.
    fn recover(&mut self) {
        let missed = self.shared.take_gap().map(Row::Gap);
        self.attempt(|segment| match &missed {
            Some(_) => segment.commit(missed.iter()),
            None => segment.probe(),
        });
        if let (Some(_), Some(Row::Gap(gap))) = (&self.trouble, missed) {
            self.shared.miss(gap);
        }
    }

    /// Leaves the segment for that of a later month.
    fn roll(&mut self, at: Time) {
        if let Some(segment) = self.segment.take() {
            self.anchor(&segment);
            segment.close();
        }
        self.month = Month::of(at);
        self.ends = self.month.end();
        // The segment left is sealed once its successor stands.
        self.house_at = self.clock.monotonic();
    }

    /// Does something with the segment, opened if need be, unless it is too early after a failure.
    fn attempt(&mut self, act: impl FnOnce(&mut Segment) -> Result<(), StoreError>) {
        let now = self.clock.monotonic();
        if self.trouble.as_ref().is_some_and(|trouble| now < trouble.retry_at) {
            return;
        }
        let done = self.check_reserve(now).and_then(|()| match &mut self.segment {
            Some(segment) => act(segment),
            closed => Segment::open(&self.dir, self.month, &self.options)
                .and_then(|segment| act(closed.insert(segment))),
        });
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

    /// Stops before SQLite has to: a full disk hurts whatever else lives on it too.
    fn check_reserve(&mut self, now: Duration) -> Result<(), StoreError> {
        if now < self.reserve_at && self.trouble.is_none() {
            return Ok(());
        }
        self.reserve_at = now.saturating_add(RESERVE_EVERY);
        reserve::check(&self.dir, self.options.min_free)
    }

    /// What is done now and then. None of it may keep a look-up from being answered: failures are logged.
    fn keep_house(&mut self) {
        let now = self.clock.monotonic();
        if now < self.house_at || self.trouble.is_some() {
            return;
        }
        self.house_at = now.saturating_add(self.options.anchor_every);
        if let Some(segment) = self.segment.take() {
            self.anchor(&segment);
            self.shared.wal_bytes.store(segment.wal_bytes(), Ordering::Relaxed);
            self.segment = Some(segment);
        }
        self.sealer.begin(&self.dir, self.month, self.options);
        self.take_notes();
    }

    /// Writes down what commands did to the audit while it was not theirs to write.
    fn take_notes(&mut self) {
        let notes: Vec<_> = notes::pending(&self.dir);
        if notes.is_empty() {
            return;
        }
        let rows: Vec<Row> = notes.iter().map(|(_, note)| Row::Note(note.clone())).collect();
        self.attempt(|segment| segment.commit(rows.iter()));
        if self.trouble.is_none() {
            notes.iter().for_each(|(path, _)| notes::done(path));
        }
    }

    fn anchor(&mut self, segment: &Segment) {
        let head = segment.head();
        if self.anchored == Some(head.last) {
            return;
        }
        let month = segment.month.to_string();
        match self.notary.anchor(self.clock.now(), month, head.last, head.hash) {
            Ok(()) => self.anchored = Some(head.last),
            Err(error) => tracing::error!(%error, "the audit's head is signed, but only in the log"),
        }
    }

    /// The last words: what was missed, and the head.
    fn finish(mut self) {
        if let Some(missed) = self.shared.take_gap().map(Row::Gap) {
            self.attempt(|segment| segment.commit(std::iter::once(&missed)));
        }
        if let Some(segment) = self.segment.take() {
            self.anchor(&segment);
            segment.close();
        }
        self.sealer.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;
    use tokio::sync::oneshot;

    use super::super::super::Fault;
    use super::super::tests::{NOON, row, transids};
    use super::super::{Ack, AuditReader, AuditRow};
    use super::*;
    use crate::clock::Hand;

    /// A writer without its thread.
    fn writer(dir: &Path, now: Time) -> (Writer, Hand) {
        writer_with(dir, now, Options::default())
    }

    fn writer_with(dir: &Path, now: Time, options: Options) -> (Writer, Hand) {
        let shared = Arc::new(Shared::new(&options));
        let (clock, hand) = Clock::manual(now);
        (Writer::open(dir, options, shared, clock).unwrap(), hand)
    }

    /// Settles one batch; what each of its rows was told.
    fn settle(writer: &mut Writer, rows: Vec<AuditRow>) -> Vec<Result<(), AuditUnavailable>> {
        let (mut batch, waiting): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .map(|row| {
                let (ack, result) = oneshot::channel();
                (Entry { row: Row::LookUp(row), ack: Some(Ack(ack)) }, result)
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

    /// Number, answered, refused.
    fn gaps(dir: &Path, month: &str) -> Vec<(i64, i64, i64)> {
        let connection = Connection::open(dir.join(format!("audit-{month}.db"))).unwrap();
        let mut all = connection.prepare("SELECT id, answered, refused FROM gap ORDER BY id").unwrap();
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
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
        assert_eq!(gaps(dir.path(), "2026-01"), [(2, 0, 200)]);
        assert_eq!(records(dir.path(), "2026-01"), numbered([(1, "before"), (3, "after")]));
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
            writer.recover();
            assert_eq!(pause(&writer), Some(expected), "too early: not tried");
            hand.advance(Duration::from_micros(1));
            writer.recover();
            expected = (expected * 2).min(LONGEST_PAUSE);
        }
        assert_eq!(expected, LONGEST_PAUSE);
        fs::remove_dir(&path).unwrap();
        hand.advance(LONGEST_PAUSE);
        writer.recover();
        assert_eq!(pause(&writer), None);
        assert!(writer.shared.healthy.load(Ordering::Acquire));
        assert_eq!(settle(&mut writer, vec![row(february, "c")]), [Ok(())]);
        // The recovery wrote what was missed.
        assert_eq!(gaps(dir.path(), "2026-02"), [(2, 0, 1)]);
        assert_eq!(records(dir.path(), "2026-02"), numbered([(3, "c")]));
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
                let card = row(NOON, "").card.unwrap();
                let is_it = past.card.is_some_and(|past| past.is(&card));
                first.push((past.client.as_str().to_owned(), past.at, past.outcome.to_owned(), is_it));
                std::ops::ControlFlow::Break(())
            })
            .unwrap();
        assert_eq!(first, [("GW0001".to_owned(), february, "hit".to_owned(), true)]);
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
        let shared = Arc::new(Shared::new(&Options::default()));
        let (clock, _hand) = Clock::manual(NOON);
        let error = Writer::open(dir.path(), Options::default(), shared, clock).err().unwrap();
        assert!(matches!(error.fault(), Fault::Newer { found: 99, .. }), "{error}");
    }
}
