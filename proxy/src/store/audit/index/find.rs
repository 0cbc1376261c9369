//! Finds the rows of a card through the index.

use std::ops::{ControlFlow, RangeInclusive};

use rusqlite::Connection;

/// Visits the numbers of a card's rows, newest first: the tail, then run by run, then block by block. Numbers of calls are
/// among them. The caller holds one transaction, since the tail may become a run meanwhile.
pub(crate) fn for_card(
    connection: &Connection,
    card: &[String; 2],
    ids: &RangeInclusive<i64>,
    visit: &mut dyn FnMut(i64) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<()> {
    for (parts, entries) in [
        (
            "SELECT coalesce(max(last), 0) FROM card_run WHERE ?1 <= ?2",
            "SELECT id FROM record WHERE id BETWEEN max(?1 + 1, ?4) AND ?5 AND card IN (?2, ?3) ORDER BY id DESC",
        ),
        (
            "SELECT id FROM card_run WHERE id > (SELECT coalesce(max(id), 0) FROM card_block)
             AND first <= ?2 AND last >= ?1 ORDER BY id DESC",
            "SELECT id FROM card_entry WHERE run = ?1 AND card IN (?2, ?3) AND id BETWEEN ?4 AND ?5 ORDER BY id DESC",
        ),
        (
            "SELECT id FROM card_block WHERE first <= ?2 AND last >= ?1 ORDER BY id DESC",
            "SELECT id FROM card_block_entry WHERE block = ?1 AND card IN (?2, ?3) AND id BETWEEN ?4 AND ?5
             ORDER BY id DESC",
        ),
    ] {
        let (mut parts, mut entries) = (connection.prepare(parts)?, connection.prepare(entries)?);
        let mut parts = parts.query((ids.start(), ids.end()))?;
        while let Some(part) = parts.next()? {
            let part: i64 = part.get(0)?;
            let mut rows = entries.query((part, &card[0], &card[1], ids.start(), ids.end()))?;
            while let Some(row) = rows.next()? {
                if visit(row.get(0)?)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
