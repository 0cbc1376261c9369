//! Verifies segments: every row is read, every batch hashed anew, every link and index looked at.
//!
//! What shows: an edited, removed, inserted or reordered row of any table, altered names, links, views and triggers, an
//! index that would hide a row, a page that cannot be read. What shows only against anchors: a tail that was cut off
//! together with its batches, and a file replaced by another whole one.

use std::collections::HashSet;
use std::path::Path;

use rusqlite::Connection;

use super::super::StoreError;
use super::super::schema::{self, Kind};
use super::anchor::{Anchor, PublicKey};
use super::chain::{self, Hash, Manifest};
use super::file;
use super::segment::{self, Month};

mod index;
mod rows;

/// What was looked at and what was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Segments read, oldest first.
    pub segments: Vec<Month>,
    /// Batches whose hash was computed.
    pub batches: u64,
    /// Rows in them.
    pub rows: u64,
    /// Segments that are no longer there, as the oldest one's manifest has them.
    pub pruned: Vec<Manifest>,
    /// Anchors compared with the chain.
    pub anchors: u64,
    /// Everything that is wrong, in the order found; the first of each segment is where it begins.
    pub damage: Vec<Damage>,
    /// The last row and the chain's head, where the newest segment could be read.
    pub head: Option<(i64, Hash)>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub segment: Month,
    /// The batch, by the numbers of its rows as it has them, where one is at fault.
    pub batch: Option<BatchSpan>,
    /// What.
    pub what: String,
}

/// A batch: which rows, and from when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchSpan {
    /// Its first row's number.
    pub first: i64,
    /// Its last row's number.
    pub last: i64,
    /// The least time in it, in microseconds since 1970.
    pub begins: i64,
}

/// Which segments, and what to hold them against.
#[derive(Default)]
pub struct Scope<'a> {
    /// The first month; none for the oldest.
    pub from: Option<Month>,
    /// The last month; none for the newest.
    pub to: Option<Month>,
    /// Signed heads that were kept elsewhere.
    pub anchors: &'a [Anchor],
    /// Whose signature they must have.
    pub public_key: Option<&'a PublicKey>,
}

impl Report {
    fn damage(&mut self, segment: Month, batch: Option<BatchSpan>, what: impl Into<String>) {
        self.damage.push(Damage { segment, batch, what: what.into() });
    }
}

/// Verifies the segments of a folder, live ones too. `progress` is told how many rows of how many are done. Blocks.
///
/// # Errors
/// When a segment is not one, or cannot be opened. What can be opened and is not as it was written is in the report.
pub fn verify(
    dir: &Path,
    scope: &Scope<'_>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let mut months = segment::list(dir)?;
    months.reverse();
    months.retain(|month| {
        scope.from.is_none_or(|from| *month >= from) && scope.to.is_none_or(|to| *month <= to)
    });
    let mut anchors: Vec<&Anchor> = Vec::new();
    for anchor in scope.anchors {
        match (Month::parse(&anchor.segment), scope.public_key) {
            (Some(month), Some(key)) if !anchor.is_signed_by(key) => {
                report.damage(
                    month,
                    None,
                    format!("the anchor of {} is not signed by this key", anchor.time),
                );
            }
            (Some(_), _) => anchors.push(anchor),
            (None, _) => {}
        }
    }
    let mut opened = Vec::new();
    let mut total = 0;
    for &month in &months {
        let path = month.path(dir);
        let connection = schema::open_read_only(&path, Kind::Audit)?;
        // One state of the file, however long it takes; a failure shows again where rows are read.
        let _: rusqlite::Result<()> = connection.execute_batch("BEGIN");
        total += file::head(&connection).ok().flatten().map_or(0, |head| {
            let first =
                connection.query_row("SELECT coalesce(min(first), 1) FROM batch", [], |row| row.get(0));
            u64::try_from(head.last - first.unwrap_or(head.last) + 1).unwrap_or(0)
        });
        opened.push((month, connection));
    }
    let mut link: Option<Link> = None;
    for (month, connection) in &opened {
        let mine: Vec<&Anchor> =
            anchors.iter().filter(|anchor| anchor.segment == month.to_string()).copied().collect();
        let before = link.take();
        link = match verify_segment(connection, *month, before.as_ref(), &mine, &mut report, &mut |rows| {
            progress(rows, total);
        }) {
            Ok(link) => link,
            Err(error) => {
                report.damage(*month, None, format!("cannot be read: {error}"));
                None
            }
        };
        report.segments.push(*month);
    }
    if let Some(link) = &link {
        report.head = Some((link.last, link.head));
    }
    missing_segments(&opened, &anchors, scope, &mut report);
    Ok(report)
}

/// What the next segment must link.
struct Link {
    last: i64,
    head: Hash,
    /// The manifest that the next segment must have.
    manifest: Vec<Manifest>,
}

fn verify_segment(
    connection: &Connection,
    month: Month,
    before: Option<&Link>,
    anchors: &[&Anchor],
    report: &mut Report,
    progress: &mut dyn FnMut(u64),
) -> rusqlite::Result<Option<Link>> {
    check_schema(connection, month, report)?;
    let own: Vec<(String, Vec<u8>, i64, Vec<u8>)> = connection
        .prepare("SELECT month, previous, before, seed FROM segment")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let [(name, previous, last_before, seed)] = own.as_slice() else {
        report.damage(month, None, format!("table segment has {} rows instead of one", own.len()));
        return Ok(None);
    };
    let manifest = file::manifest(connection)?;
    let (Some(previous), Some(seed), Some(mut manifest)) =
        (Hash::from_slice(previous), Hash::from_slice(seed), manifest)
    else {
        report.damage(month, None, "a hash in table segment or manifest is not one");
        return Ok(None);
    };
    if *name != month.to_string() {
        report.damage(month, None, format!("the file holds the segment of {name}"));
    }
    if seed != chain::seed(name, &previous, *last_before, &manifest) {
        report.damage(month, None, "table segment or manifest was altered");
    }
    match before {
        Some(link) if (link.head, link.last) != (previous, *last_before) => {
            report.damage(
                month,
                None,
                "does not follow the segment before: one of the two was replaced or cut off",
            );
        }
        Some(link) if link.manifest != manifest => {
            report.damage(month, None, "its manifest is not that of the segments before");
        }
        Some(_) => {}
        None => {
            if let Some(last) = manifest.last().filter(|last| last.head != previous) {
                report.damage(
                    month,
                    None,
                    format!("its manifest ends with {}, which it does not follow", last.month),
                );
            }
            report.pruned.clone_from(&manifest);
        }
    }
    let walked = rows::walk(connection, month, seed, *last_before, anchors, report, progress)?;
    if let Some(span) = walked.span {
        manifest.push(Manifest {
            month: name.clone(),
            first: span.first,
            last: walked.last,
            count: walked.last - span.first + 1,
            since: walked.since,
            until: walked.until,
            head: walked.head,
        });
    }
    Ok(Some(Link { last: walked.last, head: walked.head, manifest }))
}

/// Views and triggers are part of what an auditor trusts: they must be those of the migrations.
fn check_schema(connection: &Connection, month: Month, report: &mut Report) -> rusqlite::Result<()> {
    let read = |connection: &Connection| -> rusqlite::Result<HashSet<(String, String, Option<String>)>> {
        connection
            .prepare("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%'")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    };
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let expected = Connection::open_in_memory()?;
    schema::build_in_memory(&expected, Kind::Audit, version)?;
    let (found, expected) = (read(connection)?, read(&expected)?);
    for (kind, name, _) in found.symmetric_difference(&expected).collect::<HashSet<_>>() {
        report.damage(month, None, format!("{kind} {name} is not as the proxy made it"));
    }
    Ok(())
}

/// Segments that should be there: between two that are, and those that anchors know.
fn missing_segments(
    opened: &[(Month, Connection)],
    anchors: &[&Anchor],
    scope: &Scope<'_>,
    report: &mut Report,
) {
    let present: Vec<Month> = opened.iter().map(|(month, _)| *month).collect();
    let Some((newest, connection)) = opened.last() else { return };
    let known = file::manifest(connection).ok().flatten().unwrap_or_default();
    for gone in known.iter().filter_map(|manifest| Month::parse(&manifest.month)) {
        if present.first().is_some_and(|oldest| gone > *oldest) && !present.contains(&gone) {
            report.damage(gone, None, "the segment is missing between others");
        }
    }
    let mut reported = HashSet::new();
    for anchor in anchors {
        let Some(month) = Month::parse(&anchor.segment) else { continue };
        let in_scope = scope.to.is_none_or(|to| month <= to);
        if month > *newest && in_scope && reported.insert(month) {
            report.damage(
                month,
                None,
                format!("the segment is missing; the anchor of {} knows it", anchor.time),
            );
        }
        // A pruned segment's last anchor is compared with what the manifest says of it.
        let manifest = known.iter().find(|manifest| manifest.month == anchor.segment);
        if let Some(manifest) =
            manifest.filter(|manifest| !present.contains(&month) && manifest.last == anchor.last)
            && manifest.head.to_string() != anchor.head
        {
            report.damage(month, None, format!("its manifest contradicts the anchor of {}", anchor.time));
        }
    }
}

#[cfg(test)]
mod tests;
