//! Status changes: where a card's STATUS changed, and between which two carrier replies.
//!
//! The time of the carrier's reply counts: an older reply, served stale, is no change.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use cmiot_signer::CardKind;
use rusqlite::Row;

use super::{Deadline, Field, Fields, Filter, open, stored_forms};
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::audit::index::find::for_card;
use crate::store::audit::log::month;
use crate::store::audit::log::value::kind_of_number;

/// The STATUS values seen so far.
type Seen = HashMap<Key, LastStatus>;

#[derive(PartialEq, Eq, Hash)]
struct Key {
    /// The card as it is stored.
    card: String,
    kind: i64,
    /// Its text: each segment numbers its names itself.
    operation: String,
}

/// The last STATUS, and the time of the carrier's reply in microseconds since 1970.
struct LastStatus {
    status: String,
    replied: i64,
}

/// Visits the changes of a card, or of all, within the filter's times, oldest first, across segments. It ignores the rest
/// of the filter. Blocks; without a card it reads every row.
///
/// # Errors
/// When a segment cannot be read, or the deadline has passed.
pub fn changes(
    dir: &Path,
    filter: &Filter,
    deadline: Option<&Deadline>,
    mut visit: impl FnMut(Fields) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut seen = Seen::new();
    let mut months = month::list(dir)?;
    months.reverse();
    for month in months {
        let path = month.path(dir);
        let connection = open(dir, month, deadline)?;
        let mut scan = || -> rusqlite::Result<ControlFlow<()>> {
            let mut spans = vec![(i64::MIN, i64::MAX)];
            if let Some(card) = &filter.card {
                spans.clear();
                for_card(&connection, &stored_forms(dir, month, card), &(0..=i64::MAX), &mut |id| {
                    spans.push((id, id));
                    Ok(ControlFlow::Continue(()))
                })?;
                spans.reverse();
            }
            let mut replies = connection.prepare(
                "SELECT record.id, card, kind, name.text, status, at - coalesce(age, 0)
                 FROM record JOIN name ON name.id = record.operation
                 WHERE record.id BETWEEN ?1 AND ?2 AND status IS NOT NULL AND card IS NOT NULL
                 ORDER BY record.id",
            )?;
            for span in spans {
                let mut rows = replies.query(span)?;
                while let Some(row) = rows.next()? {
                    if let Some(change) = change(row, &mut seen, filter)?
                        && visit(change).is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        if scan().map_err(StoreError::sqlite(&path))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The change that a row shows, if it is within the filter's times.
fn change(row: &Row<'_>, seen: &mut Seen, filter: &Filter) -> rusqlite::Result<Option<Fields>> {
    let (id, card, kind, operation) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let key = Key { card, kind, operation };
    let now = LastStatus { status: row.get(4)?, replied: row.get(5)? };
    let Some(last) = seen.get_mut(&key) else {
        seen.insert(key, now);
        return Ok(None);
    };
    if now.replied <= last.replied {
        return Ok(None);
    }
    let (status, replied) = (now.status.clone(), now.replied);
    let before = std::mem::replace(last, now);
    let in_time = filter.since.is_none_or(|since| replied >= since.as_micros())
        && filter.until.is_none_or(|until| replied < until.as_micros());
    if before.status == status || !in_time {
        return Ok(None);
    }
    let kind = kind_of_number(key.kind).map_or("", CardKind::as_str);
    let time = |micros| Field::Text(Time::from_micros(micros).to_string());
    // In the order of `CHANGE`.
    Ok(Some(vec![
        Field::Text(key.card),
        Field::Text(kind.into()),
        Field::Text(before.status),
        Field::Text(status),
        time(before.replied),
        time(replied),
        Field::Int(id),
    ]))
}
