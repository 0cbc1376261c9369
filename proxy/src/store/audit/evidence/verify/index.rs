//! Compares the card index with the rows: a run or a block that lacks a row would hide it.

use rusqlite::{Connection, Row};

use super::Report;
use crate::inline_str::InlineStr;
use crate::store::audit::index::IndexEntry;
use crate::store::audit::log::columns::Table;
use crate::store::audit::log::month::Month;

/// The index, while the rows are read in order of their numbers.
pub(super) struct Index<'c> {
    levels: [Level<'c>; 2],
    wrong: Vec<String>,
}

/// A run or a block.
struct Part {
    number: i64,
    first: i64,
    last: i64,
}

/// One level of the index: runs or blocks.
struct Level<'c> {
    connection: &'c Connection,
    /// `run` or `block`.
    what: &'static str,
    entries: &'static str,
    /// Its runs or blocks, ordered by first row.
    parts: Vec<Part>,
    /// The part that the current row is in.
    next: usize,
    /// The entries of the part's rows so far.
    expected: Vec<IndexEntry>,
}

impl<'c> Index<'c> {
    pub(super) fn open(connection: &'c Connection) -> rusqlite::Result<Self> {
        let mut wrong = Vec::new();
        let levels = [
            Level::open(
                connection,
                "run",
                "SELECT id, first, last FROM card_run ORDER BY first",
                "SELECT card, id FROM card_entry WHERE run = ?1 ORDER BY card, id",
                &mut wrong,
            )?,
            Level::open(
                connection,
                "block",
                "SELECT id, first, last FROM card_block ORDER BY first",
                "SELECT card, id FROM card_block_entry WHERE block = ?1 ORDER BY card, id",
                &mut wrong,
            )?,
        ];
        let orphans: i64 = connection.query_row(
            // A number greater than every block's belongs to an unfinished block.
            "SELECT (SELECT count(*) FROM card_entry WHERE run NOT IN (SELECT id FROM card_run))
                  + (SELECT count(*) FROM card_block_entry WHERE block NOT IN (SELECT id FROM card_block)
                     AND block < (SELECT max(id) FROM card_block))",
            [],
            |row| row.get(0),
        )?;
        if orphans > 0 {
            wrong.push(format!("{orphans} entries of the card index belong to no run or block"));
        }
        // A block is listed in the transaction of its last entries.
        let unlisted: bool = connection.query_row(
            "WITH listed (last) AS (SELECT coalesce(max(id), 0) FROM card_block),
                  unfinished (last, entries) AS (SELECT max(block), count(*) FROM card_block_entry, listed WHERE block > listed.last)
             SELECT entries > 0 AND entries >= (SELECT count(*) FROM card_entry WHERE run > listed.last AND run <= unfinished.last)
             FROM listed, unfinished",
            [],
            |row| row.get(0),
        )?;
        if unlisted {
            wrong.push("the last block of the card index is not listed".to_owned());
        }
        // A search after the last block begins with the run after the block's own number.
        let apart: i64 = connection.query_row(
            "SELECT count(*) FROM card_block WHERE last IS NOT (SELECT last FROM card_run WHERE card_run.id = card_block.id)",
            [],
            |row| row.get(0),
        )?;
        if apart > 0 {
            wrong.push(format!("{apart} blocks of the card index do not end with their run"));
        }
        Ok(Self { levels, wrong })
    }

    /// Adds a row.
    pub(super) fn note(&mut self, table: Table, id: i64, row: &Row<'_>) -> rusqlite::Result<()> {
        let index = match table {
            Table::Record => Some(const { Table::Record.position("card") }),
            Table::Call => Some(const { Table::Call.position("card") }),
            Table::Refused | Table::Gap | Table::Note => None,
        };
        // A text as it was written; any other value does not hash to the committed batch.
        let card = index.map(|index| row.get_ref(index)).transpose()?.and_then(|card| card.as_str().ok());
        for level in &mut self.levels {
            level.note(id, card, &mut self.wrong)?;
        }
        Ok(())
    }

    /// Reports the damage, after the last row.
    pub(super) fn finish(self, month: Month, report: &mut Report) -> rusqlite::Result<()> {
        for level in self.levels {
            if let Some(Part { number, .. }) = level.parts.get(level.next) {
                let what = level.what;
                report.damage(
                    month,
                    None,
                    format!("{what} {number} of the card index has rows that are not there"),
                );
            }
        }
        for wrong in self.wrong {
            report.damage(month, None, wrong);
        }
        Ok(())
    }
}

impl<'c> Level<'c> {
    fn open(
        connection: &'c Connection,
        what: &'static str,
        parts: &str,
        entries: &'static str,
        wrong: &mut Vec<String>,
    ) -> rusqlite::Result<Self> {
        let parts: Vec<Part> = connection
            .prepare(parts)?
            .query_map([], |row| Ok(Part { number: row.get(0)?, first: row.get(1)?, last: row.get(2)? }))?
            .collect::<rusqlite::Result<_>>()?;
        let has_gap = |pair: &&[Part]| pair[0].last + 1 != pair[1].first || pair[0].number >= pair[1].number;
        if let Some(pair) = parts.windows(2).find(has_gap) {
            let (one, other) = (pair[0].number, pair[1].number);
            wrong.push(format!("{what}s {one} and {other} of the card index do not meet"));
        }
        Ok(Self { connection, what, entries, parts, next: 0, expected: Vec::new() })
    }

    fn note(&mut self, id: i64, card: Option<&str>, wrong: &mut Vec<String>) -> rusqlite::Result<()> {
        let Some(&Part { number, first, last }) = self.parts.get(self.next) else { return Ok(()) };
        if let Some(card) = card.filter(|_| (first..=last).contains(&id)) {
            self.expected.push(IndexEntry { card: InlineStr::new(card), id });
        }
        if id >= last {
            if !self.is_as_its_rows(number)? {
                let what = self.what;
                wrong.push(format!("{what} {number} of the card index does not have its rows' cards"));
            }
            self.expected.clear();
            self.next += 1;
        }
        Ok(())
    }

    fn is_as_its_rows(&mut self, number: i64) -> rusqlite::Result<bool> {
        self.expected.sort_unstable();
        let mut statement = self.connection.prepare_cached(self.entries)?;
        let mut entries = statement.query([number])?;
        let mut expected = self.expected.iter();
        loop {
            match (entries.next()?, expected.next()) {
                (None, None) => return Ok(true),
                (Some(entry), Some(expected))
                    if entry.get_ref(0)?.as_str().ok() == Some(expected.card.as_str())
                        && entry.get::<_, i64>(1)? == expected.id => {}
                _ => return Ok(false),
            }
        }
    }
}
