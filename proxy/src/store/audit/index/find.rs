//! Finds the rows of a card through the index.

use std::ops::{ControlFlow, RangeInclusive};

use rusqlite::Connection;

/// The numbers of a card's rows, the newest first: what is in no run yet, run by run, then block by block. Numbers of
/// calls are among them. To be asked within one transaction: meanwhile the tail may become a run.
pub(crate) fn for_card(
    connection: &Connection,
    card: &[String; 2],
    ids: &RangeInclusive<i64>,
    visit: &mut dyn FnMut(i64) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<()> {
    for (places, entries) in [
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
        let (mut places, mut entries) = (connection.prepare(places)?, connection.prepare(entries)?);
        let mut places = places.query((ids.start(), ids.end()))?;
        while let Some(place) = places.next()? {
            let place: i64 = place.get(0)?;
            let mut rows = entries.query((place, &card[0], &card[1], ids.start(), ids.end()))?;
            while let Some(row) = rows.next()? {
                if visit(row.get(0)?)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
