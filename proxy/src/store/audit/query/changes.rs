//! Where a STATUS was seen to change, and between which two answers of the carrier's it must have happened.
//!
//! What counts is when the carrier said it: an older answer, served stale, is no news.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use cmiot_signer::CardKind;
use rusqlite::Row;

use super::{Field, Filter, open, spellings};
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::audit::index::find::for_card;
use crate::store::audit::log::{columns, month};

/// Card as written, kind, operation; what was last said of it, and when.
type Known = HashMap<(String, i64, i64), (String, i64)>;

/// The changes of a card, or of all, within the filter's times, the oldest first, across segments; the rest of the filter
/// is not looked at. Blocks; without a card it reads every row.
///
/// # Errors
/// When a segment cannot be read.
pub fn changes(
    dir: &Path,
    filter: &Filter,
    mut visit: impl FnMut(Vec<Field>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut known = Known::new();
    let mut months = month::list(dir)?;
    months.reverse();
    for month in months {
        let path = month.path(dir);
        let connection = open(dir, month, None)?;
        let mut walk = || -> rusqlite::Result<ControlFlow<()>> {
            let mut spans = vec![(i64::MIN, i64::MAX)];
            if let Some(card) = &filter.card {
                spans.clear();
                for_card(&connection, &spellings(dir, month, card), &(0..=i64::MAX), &mut |id| {
                    spans.push((id, id));
                    Ok(ControlFlow::Continue(()))
                })?;
                spans.reverse();
            }
            let mut answers = connection.prepare(
                "SELECT id, card, kind, operation, status, at - coalesce(age, 0) FROM record
                 WHERE id BETWEEN ?1 AND ?2 AND status IS NOT NULL AND card IS NOT NULL AND operation IS NOT NULL
                 ORDER BY id",
            )?;
            for span in spans {
                let mut rows = answers.query(span)?;
                while let Some(row) = rows.next()? {
                    if let Some(change) = change(row, &mut known, filter)?
                        && visit(change).is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        if walk().map_err(StoreError::sqlite(&path))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// What an answer changes of what was known, if it is wanted.
fn change(row: &Row<'_>, known: &mut Known, filter: &Filter) -> rusqlite::Result<Option<Vec<Field>>> {
    let key = (row.get(1)?, row.get(2)?, row.get(3)?);
    let (status, told): (String, i64) = (row.get(4)?, row.get(5)?);
    let Some(last) = known.get_mut(&key) else {
        known.insert(key, (status, told));
        return Ok(None);
    };
    if told <= last.1 {
        return Ok(None);
    }
    let (from, after) = std::mem::replace(last, (status.clone(), told));
    let wanted = filter.since.is_none_or(|since| told >= since.as_micros())
        && filter.until.is_none_or(|until| told < until.as_micros());
    if from == status || !wanted {
        return Ok(None);
    }
    let kind = columns::kind_of_number(key.1).map_or("", CardKind::as_str);
    let time = |micros| Field::Text(Time::from_micros(micros).to_string());
    Ok(Some(vec![
        Field::Text(key.0),
        Field::Text(kind.into()),
        Field::Text(from),
        Field::Text(status),
        time(after),
        time(told),
        Field::Int(row.get(0)?),
    ]))
}
