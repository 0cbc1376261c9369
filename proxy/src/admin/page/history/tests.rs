//! Each row is summed once, in chunks of any size, and sums end with their period.

use cmiot_signer::{AppId, Card, CardKind};

use super::*;
use crate::clock::ManualClock;
use crate::outcome::Outcome;
use crate::store::audit::{AuditStore, LookupRow, Options};

/// 2026-01-15T12:30:00+08:00
const START: Time = Time::from_secs(1_768_451_400);

fn row(at: Time, number: usize) -> LookupRow {
    LookupRow {
        at,
        client: Some(AppId::parse(&format!("GW{:04}", number % 5)).unwrap()),
        group: Some("fleet".into()),
        account: None,
        peer: "192.0.2.7".parse().unwrap(),
        operation: Some("userstatusrealsingle"),
        card: Some(Card::parse(CardKind::Msisdn, "14765004176").unwrap()),
        transid: None,
        outcome: if number.is_multiple_of(2) { "hit" } else { "refused" },
        reason: (!number.is_multiple_of(2)).then_some("rate"),
        code: "0".into(),
        carrier_code: None,
        status: Some("00".into()),
        age: None,
        carrier_transid: None,
        latency: Duration::from_micros(900),
        authenticated: true,
        action: false,
    }
}

/// An audit with its sums.
struct Place {
    dir: tempfile::TempDir,
    hand: ManualClock,
    clock: Clock,
    store: AuditStore,
    history: History,
    /// Rows that were written.
    rows: usize,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(START);
        let options = Options { queue: 10_000, ..Options::default() };
        let store = AuditStore::open(dir.path(), options, clock.clone()).unwrap();
        let history = History::new(clock.clone(), CancellationToken::new());
        Self { dir, hand, clock, store, history, rows: 0 }
    }

    /// Writes so many rows, one per `apart`.
    fn write(&mut self, rows: usize, apart: Duration) {
        let mut written = Vec::new();
        for _ in 0..rows {
            self.hand.advance(apart);
            written.push(self.store.append(row(self.clock.now(), self.rows)));
            self.rows += 1;
        }
        assert!(written.into_iter().all(|row| row.wait() == Ok(())));
    }

    fn reader(&self, chunk: i64) -> Reader {
        let is_listed: IsListed = Arc::new(|_| true);
        Reader { chunk, ..self.history.reader(self.dir.path(), &is_listed) }
    }

    /// A deadline that leaves a page its whole time.
    fn deadline(&self) -> Deadline {
        Deadline { clock: self.clock.clone(), at: self.clock.monotonic().saturating_add(WAIT) }
    }

    /// The sums of all hours, if the last rows are summed.
    fn sums(&self) -> Snapshot {
        self.history.snapshot(Time::EPOCH, false)
    }

    fn lookups(&self) -> usize {
        self.sums().hours.values().map(|hour| usize::try_from(hour.lookups()).unwrap()).sum()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn each_row_is_summed_once_whatever_the_chunks() {
    for chunk in [1, 7, 50, 1_000] {
        let mut place = Place::new();
        place.write(50, 5 * MINUTE);
        let reader = place.reader(chunk);
        assert!(reader.advance(&place.deadline()).unwrap());
        assert_eq!(place.lookups(), 50, "chunks of {chunk}");
        assert!(!reader.has_older() && place.sums().is_complete(0..i64::MAX));
        place.write(23, MINUTE);
        assert!(reader.advance(&place.deadline()).unwrap());
        assert!(reader.advance(&place.deadline()).unwrap(), "without new rows");
        assert!(!reader.read_chunk().unwrap() && !reader.read_chunk_before().unwrap());
        assert_eq!(place.lookups(), 73, "chunks of {chunk}");
        let sums = place.sums();
        let hits: u64 = sums.hours.values().map(|hour| hour.outcome(Outcome::Hit)).sum();
        let refused: u64 = sums.hours.values().map(|hour| hour.outcome(Outcome::Refused)).sum();
        assert_eq!((hits, refused), (37, 36));
        let clients: u32 = sums
            .hours
            .values()
            .flat_map(|hour| hour.clients.values())
            .map(|client| client.outcomes.iter().sum::<u32>())
            .sum();
        assert_eq!(clients, 73, "the clients too");
        // Five hours and a half: a row per five minutes, and then one per minute.
        assert!(sums.hours.len() >= 5 && sums.hours.keys().all(|begin| begin % HOUR == 0));
    }
}

#[test]
fn rows_of_before_the_first_page_are_read_newest_first_and_say_from_where_on_they_are_complete() {
    let mut place = Place::new();
    // One row per half hour.
    place.write(20, 30 * MINUTE);
    let reader = place.reader(6);
    // As while the background reads: a page reads the rows since its start alone.
    place.history.is_reading_rest.store(true, Ordering::Release);
    assert!(reader.advance(&place.deadline()).unwrap());
    assert_eq!(place.lookups(), 0);
    assert!(!place.sums().is_complete_from(place.clock.now()), "nothing is known yet");
    let mut complete = Vec::new();
    let mut counts = Vec::new();
    while reader.has_older() {
        let has_more = reader.read_chunk().unwrap();
        assert_eq!(has_more, reader.has_older());
        counts.push(place.lookups());
        complete.push(place.sums().complete_from);
    }
    assert!(
        counts.iter().zip([0].iter().chain(&counts)).all(|(now, before)| now - before <= 6),
        "{counts:?}"
    );
    assert!(counts.len() >= 4 && counts.last() == Some(&20), "{counts:?}");
    assert!(complete.is_sorted_by(|later, earlier| later > earlier), "{complete:?}");
    assert_eq!(complete.last(), Some(&i64::MIN), "all is known");
    for from in &complete[..complete.len() - 1] {
        assert!(from % HOUR == 0 && *from > START.as_micros());
    }
}

#[test]
fn a_page_that_is_late_has_the_sums_of_before_and_no_row_twice() {
    let mut place = Place::new();
    place.write(10, MINUTE);
    let reader = place.reader(CHUNK);
    assert!(reader.advance(&place.deadline()).unwrap());
    assert_eq!(place.lookups(), 10);
    // Enough rows for SQLite to look at the clock.
    place.write(3_000, Duration::from_millis(1));
    let passed = Deadline { clock: place.clock.clone(), at: Duration::ZERO };
    assert!(!reader.advance(&passed).unwrap(), "the deadline has passed");
    assert_eq!(place.lookups(), 10, "a part of a chunk counts nothing");
    let behind = place.history.snapshot(Time::EPOCH, true);
    assert!(!behind.is_complete_from(Time::EPOCH));
    let hour = hour_of(place.clock.now().as_micros());
    assert!(!behind.is_complete(hour..hour + HOUR), "the running hour may lack rows");
    assert!(behind.is_complete(hour - HOUR..hour), "the hours before do not");
    assert!(reader.advance(&place.deadline()).unwrap());
    assert_eq!(place.lookups(), 3_010);
}

#[test]
fn details_end_after_a_day_and_sums_after_a_month() {
    let mut place = Place::new();
    place.write(10, MINUTE);
    let reader = place.reader(CHUNK);
    assert!(reader.advance(&place.deadline()).unwrap());
    let has_details = |place: &Place| place.sums().hours.values().any(|hour| hour.has_details());
    assert!(has_details(&place));
    let hours = |count: u64| Duration::from_secs(count * 3_600);
    place.hand.advance(hours(24));
    assert!(reader.advance(&place.deadline()).unwrap());
    assert!(has_details(&place), "the last 24 hours and the running one");
    place.hand.advance(hours(1));
    assert!(reader.advance(&place.deadline()).unwrap());
    assert!(!has_details(&place));
    assert_eq!(place.lookups(), 10);
    place.hand.advance(hours(24 * 31 - 26));
    assert!(reader.advance(&place.deadline()).unwrap());
    assert_eq!(place.lookups(), 10, "the first hour of 31 days");
    place.hand.advance(hours(1));
    assert!(reader.advance(&place.deadline()).unwrap());
    assert_eq!(place.lookups(), 0);
    // A first page does not read what it would not keep.
    let other = History::new(place.clock.clone(), CancellationToken::new());
    let is_listed: IsListed = Arc::new(|_| true);
    assert!(other.reader(place.dir.path(), &is_listed).advance(&place.deadline()).unwrap());
    assert!(other.snapshot(Time::EPOCH, false).hours.is_empty());
}
