//! Verifies segments: reads every row, hashes every batch again, and checks every link, index and anchor.
//!
//! It finds: an edited, removed, inserted or reordered row of any table, a value of another type, altered names, links,
//! views and triggers, anything added to the schema, an index that does not agree with its table, a page that cannot be
//! read, a month that is missing without a note of its pruning. The chain has no key, so a person who can write the
//! file can hash it again; only anchors show that, a tail that was truncated together with its batches, batches that
//! were merged or split, and a file replaced by another whole one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use rusqlite::Connection;

use super::anchor::{Anchor, PublicKey};
use crate::clock::Time;
use crate::store::audit::log::chain::{self, Hash, Manifest};
use crate::store::audit::log::link;
use crate::store::audit::log::month::{self, Month};
use crate::store::audit::log::notes::Notes;
use crate::store::schema::{self as files, Kind};
use crate::store::{Fault, StoreError};

use self::anchors::{AnchorsInScope, Contradiction, Evidence, SegmentAnchors};
use self::noted::Noted;
pub(crate) use self::window::fault_of_ended;

mod anchors;
mod index;
pub(crate) mod names;
mod noted;
mod rows;
mod schema;
pub(crate) mod source;
pub(crate) mod tables;
mod window;

/// The result of a verification.
#[derive(Debug, Default)]
pub struct Report {
    /// Segments read, oldest first.
    pub segments: Vec<Month>,
    /// Batches whose hash was computed.
    pub batches: u64,
    /// Rows in these batches.
    pub rows: u64,
    /// Pruned segments, with the time of the note that says so.
    pub pruned: Vec<(Manifest, Time)>,
    /// Anchors compared with the chain.
    pub anchors: u64,
    /// The newest segment that an anchor confirms, and the last row confirmed.
    pub confirmed: Option<(Month, i64)>,
    /// Losses that contradict the folder's own anchors and are noted and acknowledged.
    pub losses: Vec<String>,
    /// All damage, in the order found; the first of each segment is where it begins.
    pub damage: Vec<Damage>,
    /// The last row and the chain's head, if the newest segment could be read.
    pub head: Option<(i64, Hash)>,
}

/// A difference from the log as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: Month,
    /// The damaged batch, by the row numbers that it states; none if no single batch is damaged.
    pub batch: Option<BatchSpan>,
    /// The description.
    pub what: String,
}

/// The rows of a batch, and its least time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchSpan {
    /// Its first row's number.
    pub first: i64,
    /// Its last row's number.
    pub last: i64,
    /// The least time in it, in microseconds since 1970.
    pub begins: i64,
}

/// The segments to verify, and the anchors to compare them with.
#[derive(Default)]
pub struct Scope<'a> {
    /// The first month; none for the oldest.
    pub from: Option<Month>,
    /// The last month; none for the newest.
    pub to: Option<Month>,
    /// Anchors, read before the verification: those of months in scope must hold.
    pub anchors: &'a [Anchor],
    /// Whether they are the folder's own, or absent: then acknowledged losses are no damage.
    pub own_anchors: bool,
    /// One of these keys must have signed them; empty if any key may.
    pub public_keys: &'a [PublicKey],
}

impl Scope<'_> {
    fn has(&self, month: Month) -> bool {
        self.from.is_none_or(|from| month >= from) && self.to.is_none_or(|to| month <= to)
    }
}

impl Report {
    fn damage(&mut self, segment: Month, batch: Option<BatchSpan>, what: impl Into<String>) {
        self.damage.push(Damage { segment, batch, what: what.into() });
    }
}

/// Verifies the segments of a folder, live ones too. Calls `progress` with the number of rows read and the number in
/// total. Blocks.
///
/// # Errors
/// When the folder or a file cannot be read, or is newer than this program. Damage that can be read is in the report.
pub fn verify(
    dir: &Path,
    scope: &Scope<'_>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let mut in_scope = AnchorsInScope::new(scope, &mut report);
    let mut months = month::list(dir)?;
    let newest = months.first().copied();
    months.reverse();
    months.retain(|&month| scope.has(month));
    let mut segments = Vec::new();
    for &month in &months {
        segments.extend(open(dir, month, &mut report)?);
    }
    let total = segments.iter().map(|segment| segment.rows).sum();
    let mut noted = Noted::default();
    let mut known = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut link: Option<Continuity> = None;
    for &Segment { month, ref connection, .. } in &segments {
        let mut anchors = in_scope.take(month);
        let before = link.take();
        let path = month.path(dir);
        let mut verifier = SegmentVerifier {
            connection,
            month,
            progress: &mut |rows| progress(rows, total),
            noted: &mut noted,
            anchors: &mut anchors,
            report: &mut report,
        };
        let (verified, findings) =
            in_parallel(|| schema::check_integrity(&path), || verifier.verify(before.as_ref()));
        link = verified.unwrap_or_else(|error| {
            report.damage(month, None, format!("cannot be read: {error}"));
            None
        });
        for finding in findings {
            report.damage(month, None, format!("SQLite's own check: {finding}"));
        }
        report.anchors += anchors.compared;
        report.confirmed = anchors.confirmed.map(|last| (month, last)).or(report.confirmed);
        wrong.append(&mut anchors.wrong);
        for manifest in link.iter().flat_map(|link| &link.manifest) {
            if let Some(month) = Month::parse(&manifest.month) {
                known.entry(month).or_insert_with(|| manifest.clone());
            }
        }
        report.segments.push(month);
    }
    report.head = link.map(|link| (link.last, link.head));
    // Notes of commands that the proxy has not yet written as rows.
    for (_, note) in Notes::default().pending(dir) {
        noted.take(note.at, note.what, &note.detail);
    }
    let absent = |month: &Month| !months.contains(month) && scope.has(*month);
    missing(&known, absent, in_scope, |month| noted.pruned(month, newest), &mut wrong, &mut report);
    report_contradictions(wrong, &noted, scope.own_anchors, &mut report);
    Ok(report)
}

/// Runs both in parallel if a thread can be started, else one after the other; returns the second result first.
fn in_parallel<A: Send, B>(other: impl Fn() -> A + Sync, own: impl FnOnce() -> B) -> (B, A) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("audit-check".into()).spawn_scoped(scope, &other);
        let own = own();
        // Its thread has reported a panic; it recurs here if it recurs.
        let other = thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(&other);
        (own, other)
    })
}

/// An open segment, read in one state.
struct Segment {
    month: Month,
    connection: Connection,
    rows: u64,
}

/// Opens a segment in one state, and counts its rows. None when the file is no segment: that is damage.
fn open(dir: &Path, month: Month, report: &mut Report) -> Result<Option<Segment>, StoreError> {
    let connection = match files::open_read_only(&month.path(dir), Kind::Audit) {
        Ok(connection) => connection,
        Err(error) if error.is_corrupt() || matches!(error.fault(), Fault::Foreign) => {
            report.damage(month, None, format!("is no segment: {}", error.fault()));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // A failure shows again when rows are read.
    let _: rusqlite::Result<()> =
        connection.execute_batch("PRAGMA trusted_schema = off; PRAGMA cell_size_check = on; BEGIN");
    let rows = link::head(&connection).ok().flatten().map_or(0, |head| {
        let first = connection.query_row("SELECT coalesce(min(first), 1) FROM batch", [], |row| row.get(0));
        u64::try_from(head.last.saturating_sub(first.unwrap_or(head.last)).saturating_add(1)).unwrap_or(0)
    });
    Ok(Some(Segment { month, connection, rows }))
}

/// The state that the next segment must continue.
struct Continuity {
    last: i64,
    head: Hash,
    /// The manifest that the next segment must have.
    manifest: Vec<Manifest>,
}

/// One segment, while it is verified.
struct SegmentVerifier<'w, 'a> {
    connection: &'w Connection,
    month: Month,
    /// Called with the number of rows read so far, over all segments.
    progress: &'w mut dyn FnMut(u64),
    noted: &'w mut Noted,
    anchors: &'w mut SegmentAnchors<'a>,
    report: &'w mut Report,
}

impl SegmentVerifier<'_, '_> {
    /// Verifies the segment after `before`, the segment before it. None when its own row is damaged.
    fn verify(&mut self, before: Option<&Continuity>) -> rusqlite::Result<Option<Continuity>> {
        let (connection, month) = (self.connection, self.month);
        schema::compare(connection, month, self.report)?;
        let own: Vec<(String, Vec<u8>, i64, Vec<u8>)> = connection
            .prepare("SELECT month, previous, before, seed FROM segment")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let [(name, previous, last_before, seed)] = own.as_slice() else {
            let what = format!("table segment has {} rows instead of one", own.len());
            self.report.damage(month, None, what);
            return Ok(None);
        };
        let manifest = link::manifest(connection)?;
        let (Some(previous), Some(seed), Some(mut manifest)) =
            (Hash::from_slice(previous), Hash::from_slice(seed), manifest)
        else {
            self.report.damage(month, None, "a hash in table segment or manifest is not one");
            return Ok(None);
        };
        if *name != month.to_string() {
            self.report.damage(month, None, format!("the file holds the segment of {name}"));
        }
        if seed != chain::seed(name, &previous, *last_before, &manifest) {
            self.report.damage(month, None, "table segment or manifest was altered");
        }
        if let Some((what, rows)) = link_fault(before, &previous, *last_before, &manifest) {
            self.anchors.missing_before(what, rows);
        }
        self.anchors.check_head(*last_before, &[&seed, &previous], None);
        let scanned = self.rows(seed, *last_before)?;
        self.anchors.finish(scanned.last);
        if let Some(span) = scanned.span {
            manifest.push(Manifest {
                month: name.clone(),
                first: span.first,
                last: scanned.last,
                count: scanned.last.saturating_sub(span.first).saturating_add(1),
                since: scanned.since,
                until: scanned.until,
                head: scanned.head,
            });
        }
        Ok(Some(Continuity { last: scanned.last, head: scanned.head, manifest }))
    }
}

/// The fault in a segment's statements about those before it, and the rows that are missing in between.
fn link_fault(
    before: Option<&Continuity>,
    previous: &Hash,
    last_before: i64,
    manifest: &[Manifest],
) -> Option<(String, RangeInclusive<i64>)> {
    const APART: &str = "does not follow the segment before: one of the two was replaced or cut off";
    let known = match before {
        Some(link) => link.last,
        None => manifest.last().map_or(0, |last| last.last),
    };
    let rows = known.saturating_add(1)..=last_before;
    let what = match before {
        _ if known < last_before => {
            format!(
                "its first row follows row {last_before}, and rows {} to {last_before} are nowhere",
                rows.start()
            )
        }
        _ if known > last_before => APART.to_owned(),
        Some(link) if link.head != *previous => APART.to_owned(),
        Some(link) if link.manifest != manifest => {
            "its manifest is not that of the segments before".to_owned()
        }
        _ => return None,
    };
    Some((what, rows))
}

/// Reports months in scope that a manifest or an anchor knows and that are missing: each needs the note of its pruning,
/// and its rows must be in a manifest. `pruned` gives the time of the note.
fn missing<'a>(
    known: &BTreeMap<Month, Manifest>,
    absent: impl Fn(&Month) -> bool,
    mut in_scope: AnchorsInScope<'a>,
    pruned: impl Fn(Month) -> Option<Time>,
    wrong: &mut Vec<Contradiction<'a>>,
    report: &mut Report,
) {
    let mut months: Vec<Month> = in_scope.months().chain(known.keys().copied().filter(absent)).collect();
    months.sort_unstable();
    months.dedup();
    for month in months {
        let anchors: Vec<&Anchor> = in_scope.take(month).rest().collect();
        let manifest = known.get(&month);
        let rows_before = known.range(..month).next_back().map_or(0, |(_, before)| before.last);
        let is_unlisted =
            manifest.is_none() && anchors.last().is_some_and(|anchor| anchor.last > rows_before);
        let Some(pruned) = pruned(month).filter(|_| !is_unlisted) else {
            const GONE: &str = "the segment is missing, and no note in the segments verified explains that: a month is \
                                pruned after a later one has started, whose manifest lists its rows";
            match anchors.last() {
                Some(anchor) => {
                    report.anchors += anchors.len() as u64;
                    let what = format!("{GONE}; the anchor of {} knows its row {}", anchor.time, anchor.last);
                    wrong.push(Contradiction { month, batch: None, by: Evidence::Anchor(anchor), what });
                }
                None => report.damage(
                    month,
                    None,
                    format!("{GONE}; a later manifest knows it (--from verifies later months alone)"),
                ),
            }
            continue;
        };
        let Some(manifest) = manifest else { continue };
        for anchor in anchors.into_iter().filter(|anchor| anchor.last >= manifest.last) {
            report.anchors += 1;
            if anchor.last > manifest.last || anchor.head != manifest.head.to_string() {
                let what =
                    format!("its manifest contradicts the anchor of {} at row {}", anchor.time, anchor.last);
                wrong.push(Contradiction { month, batch: None, by: Evidence::Anchor(anchor), what });
            }
        }
        report.pruned.push((manifest.clone(), pruned));
    }
}

/// Reports contradictions as damage, with the text of the note if the proxy itself found the rows missing. The folder's
/// own anchors prove no more than its own notes, so against them an acknowledged loss is no damage.
fn report_contradictions(wrong: Vec<Contradiction<'_>>, noted: &Noted, own: bool, report: &mut Report) {
    for Contradiction { month, batch, by, what } in wrong {
        let loss = match by {
            Evidence::Anchor(anchor) => noted.loss(|loss| anchor.is_covered_by(loss)),
            Evidence::MissingRows(rows) => {
                let (first, last) = rows.into_inner();
                noted.loss(|loss| first <= last && loss.covers_rows(month, first, last))
            }
        };
        match loss {
            Some(loss) if own && loss.acknowledged.is_some() => {
                let words = loss.to_string();
                if !report.losses.contains(&words) {
                    report.losses.push(words);
                }
            }
            Some(loss) => report.damage(month, batch, format!("{what}; {loss}")),
            None => report.damage(month, batch, what),
        }
    }
}

#[cfg(test)]
mod tests;
