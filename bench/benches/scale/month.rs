//! The mode `month`: one month of audit, as a proxy of a large fleet writes it.
//!
//! The store's clock moves with the rows, so that anchors have their interval. While this month is younger than two
//! days the previous one is filled, and a row of this month follows, so that the previous one is sealed. Prints the
//! rate, then `RESULT month day next-day cards`: a whole day of the month, and the number of its cards, from
//! [`FIRST_CARD`] on.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::operation::USER_STATUS;
use cmiot_proxy::store::audit::month::Month;
use cmiot_proxy::store::audit::{self, Appended, AuditStore, CallRow, Durability, LookupRow};
use cmiot_signer::{AppId, Card, CardKind, Sequence, Stamp, Transid};

use super::{APPID, BODY, GROUP, Result, begin};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The first card's msisdn, as in `xtask/src/bench/month/operations.rs`. The load asks about other ones.
const FIRST_CARD: u64 = 14_766_000_000;
/// Cards at most. Each has at least a hundred rows.
const MOST_CARDS: u64 = 300_000;

/// Sequence numbers of carrier calls start here, those of requests at 1.
const FIRST_CALL: u64 = 50_000_000;

/// Fills the audit of one month; `batch` rows are given to the writer together. Of a hundred rows, six belong to misses
/// (the lookup and its carrier call), one is a refusal, and the others are hits.
///
/// # Errors
/// When the store cannot be written.
pub(super) fn fill(store: &Path, rows: u64, batch: u64) -> Result<()> {
    begin(store)?;
    let machine = Clock::system();
    let started = machine.monotonic();
    let (since, until) = span(machine.now());
    let step = until.since(since) / u32::try_from(rows)?.max(1);
    let (clock, hand) = Clock::manual(since);
    let options =
        audit::Options { durability: Durability::Process, queue: 100_000, ..audit::Options::default() };
    let file = AuditStore::open(store, options, clock.clone())?;
    let fleet = Fleet::new((rows / 100).clamp(1, MOST_CARDS))?;
    let mut n = 0;
    while n < rows {
        let chunk = batch.min(rows - n);
        // The clock is never behind a row.
        hand.advance(step * u32::try_from(chunk)?);
        let end = n + chunk;
        let mut last: Option<Appended> = None;
        while n < end {
            let at = since.plus(step * u32::try_from(n)?);
            let kind = Kind::of(n, end);
            if kind == Kind::Miss {
                file.append_call(fleet.call(n, at, &file));
                n += 1;
            }
            last = Some(file.append(fleet.lookup(n, at, kind)));
            n += 1;
        }
        last.map_or(Ok(()), Appended::wait)?;
    }
    let month = Month::of(since);
    if Month::of(machine.now()) > month {
        hand.advance(machine.now().since(clock.now()));
        file.append(fleet.lookup(n, clock.now(), Kind::Hit)).wait()?;
    }
    file.close();
    assert_eq!(file.missed(), 0, "every row is in the audit");
    let took = machine.monotonic().saturating_sub(started).as_secs_f64();
    let bytes = fs::metadata(month.path(store))?.len();
    println!(
        "{rows} rows of {month}, {} cards, {:.1} MiB, {} bytes per row, written at {:.0} rows/s",
        fleet.cards,
        bytes as f64 / 1_048_576.0,
        bytes / rows.max(1),
        rows as f64 / took
    );
    let day = since.plus(DAY * u32::try_from(until.since(since).as_secs() / DAY.as_secs() / 2)?);
    println!("RESULT {month} {} {} {}", date(day), date(day.plus(DAY)), fleet.cards);
    Ok(())
}

/// The times between which the rows are: this month until now, or the previous month while this one is younger than two
/// days.
fn span(now: Time) -> (Time, Time) {
    let month = Month::of(now);
    let begin = month.minus(1).end();
    if now.since(begin) >= DAY * 2 { (begin, now) } else { (month.minus(2).end(), begin) }
}

/// `2026-01-15`
fn date(at: Time) -> String {
    at.to_string().chars().take("2026-01-15".len()).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hit,
    /// Two rows: its carrier call comes first.
    Miss,
    Refused,
}

impl Kind {
    /// The kind of the lookup at this row; a miss needs two rows before `end`.
    fn of(n: u64, end: u64) -> Self {
        match n % 100 {
            10 | 40 | 70 if n + 1 < end => Self::Miss,
            90 => Self::Refused,
            _ => Self::Hit,
        }
    }
}

/// The client and the cards of all rows.
struct Fleet {
    cards: u64,
    client: AppId,
    group: Arc<str>,
}

impl Fleet {
    fn new(cards: u64) -> Result<Self> {
        Ok(Self { cards, client: AppId::parse(APPID)?, group: GROUP.into() })
    }

    fn card(&self, n: u64) -> Card {
        // A multiplicative hash spreads the cards; which is all that randomness is for here.
        let card = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % self.cards;
        Card::parse(CardKind::Msisdn, &(FIRST_CARD + card).to_string()).expect("eleven digits")
    }

    fn transid(&self, at: Time, sequence: u64) -> Transid {
        let stamp = Stamp::from_unix(at.as_secs()).expect("a moment of this century");
        let sequence = u32::try_from(sequence).ok().and_then(|number| Sequence::new(number).ok());
        Transid::new(&self.client, stamp, sequence.expect("eight digits, not zero"))
    }

    /// The lookup at a row; the row before a miss is its call.
    fn lookup(&self, n: u64, at: Time, kind: Kind) -> LookupRow {
        let is_refused = kind == Kind::Refused;
        let has_call = kind == Kind::Miss;
        let answered = |text: &str| (!is_refused).then(|| text.into());
        LookupRow {
            at,
            client: Some(self.client),
            group: Some(Arc::clone(&self.group)),
            account: has_call.then(|| Arc::clone(&self.group)),
            peer: [192, 0, 2, 7].into(),
            operation: Some(USER_STATUS.name),
            card: Some(self.card(n)),
            transid: Some(self.transid(at, n % FIRST_CALL + 1).as_str().into()),
            outcome: match kind {
                Kind::Hit => "hit",
                Kind::Miss => "miss",
                Kind::Refused => "refused",
            },
            reason: is_refused.then_some("transid-reused"),
            code: if is_refused { "7".into() } else { "0".into() },
            carrier_code: answered("0"),
            status: answered(if n.is_multiple_of(1_000) { "02" } else { "00" }),
            age: (!is_refused).then(|| match kind {
                Kind::Hit => Duration::from_micros(27_250_000 + n % 1_000),
                _ => Duration::ZERO,
            }),
            carrier_transid: has_call.then(|| self.called(n - 1, at).as_str().into()),
            latency: Duration::from_micros(if has_call { 40_000 + n % 10_000 } else { 100 + n % 900 }),
            authenticated: true,
            action: false,
        }
    }

    /// The transid of the call at a row.
    fn called(&self, n: u64, at: Time) -> Transid {
        self.transid(at, FIRST_CALL + n % (FIRST_CALL - 1) + 1)
    }

    /// The call at a row, of the card of the next one.
    fn call(&self, n: u64, at: Time, file: &AuditStore) -> CallRow {
        CallRow {
            at,
            transid: Some(self.called(n, at).as_str().into()),
            previous: None,
            card: Some(self.card(n + 1)),
            account: Arc::clone(&self.group),
            operation: USER_STATUS.name,
            code: Some("0".into()),
            fault: None,
            status: Some("00".into()),
            latency: Duration::from_micros(39_000 + n % 10_000),
            bytes: Some(BODY.len()),
            body: file.body(BODY.as_bytes()),
        }
    }
}
