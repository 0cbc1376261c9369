//! Compares the index of cards with what the rows say: a run or a block that lacks a row would hide it.

use rusqlite::{Connection, Row};

use super::Report;
use crate::inline_str::InlineStr;
use crate::store::audit::index::IndexEntry;
use crate::store::audit::log::columns::Table;
use crate::store::audit::log::month::Month;

/// The index, while the rows pass by in the order of their numbers.
pub(super) struct Index<'c> {
    levels: [Level<'c>; 2],
    wrong: Vec<String>,
}

/// Runs or blocks.
struct Level<'c> {
    connection: &'c Connection,
    /// What one is called.
    what: &'static str,
    entries: &'static str,
    /// Number, first row, last row.
    parts: Vec<(i64, i64, i64)>,
    /// The part that the rows are in.
    next: usize,
    /// Its rows so far that have a card.
    carded: Vec<IndexEntry>,
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
        let strays: i64 = connection.query_row(
            // A greater number than any block's is that of a block in the making.
            "SELECT (SELECT count(*) FROM card_entry WHERE run NOT IN (SELECT id FROM card_run))
                  + (SELECT count(*) FROM card_block_entry WHERE block NOT IN (SELECT id FROM card_block)
                     AND block < (SELECT max(id) FROM card_block))",
            [],
            |row| row.get(0),
        )?;
        if strays > 0 {
            wrong.push(format!("{strays} entries of the card index belong to no run or block"));
        }
        // A block is listed along with its last entries.
        let unlisted: bool = connection.query_row(
            "WITH listed (last) AS (SELECT coalesce(max(id), 0) FROM card_block),
                  begun (last, entries) AS (SELECT max(block), count(*) FROM card_block_entry, listed WHERE block > listed.last)
             SELECT entries > 0 AND entries >= (SELECT count(*) FROM card_entry WHERE run > listed.last AND run <= begun.last)
             FROM listed, begun",
            [],
            |row| row.get(0),
        )?;
        if unlisted {
            wrong.push("the last block of the card index is not listed".to_owned());
        }
        // What is looked for behind the last block begins with the run after the block's own number.
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

    /// A row passes by.
    pub(super) fn note(&mut self, table: Table, id: i64, row: &Row<'_>) -> rusqlite::Result<()> {
        let place = match table {
            Table::Record => Some(const { Table::Record.position("card") }),
            Table::Call => Some(const { Table::Call.position("card") }),
            Table::Refused | Table::Gap | Table::Note => None,
        };
        // Text as it was written; anything else does not hash to what was committed.
        let card = place.map(|place| row.get_ref(place)).transpose()?.and_then(|card| card.as_str().ok());
        for level in &mut self.levels {
            level.note(id, card, &mut self.wrong)?;
        }
        Ok(())
    }

    /// All rows have passed.
    pub(super) fn finish(self, month: Month, report: &mut Report) -> rusqlite::Result<()> {
        for level in self.levels {
            if let Some((number, ..)) = level.parts.get(level.next) {
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
        let parts: Vec<(i64, i64, i64)> = connection
            .prepare(parts)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?;
        if let Some(pair) = parts.windows(2).find(|pair| pair[0].2 + 1 != pair[1].1 || pair[0].0 >= pair[1].0)
        {
            wrong.push(format!("{what}s {} and {} of the card index do not meet", pair[0].0, pair[1].0));
        }
        Ok(Self { connection, what, entries, parts, next: 0, carded: Vec::new() })
    }

    fn note(&mut self, id: i64, card: Option<&str>, wrong: &mut Vec<String>) -> rusqlite::Result<()> {
        let Some(&(number, first, last)) = self.parts.get(self.next) else { return Ok(()) };
        if let Some(card) = card.filter(|_| (first..=last).contains(&id)) {
            self.carded.push(IndexEntry { card: InlineStr::new(card), id });
        }
        if id >= last {
            if !self.is_as_its_rows(number)? {
                let what = self.what;
                wrong.push(format!("{what} {number} of the card index does not have its rows' cards"));
            }
            self.carded.clear();
            self.next += 1;
        }
        Ok(())
    }

    fn is_as_its_rows(&mut self, number: i64) -> rusqlite::Result<bool> {
        self.carded.sort_unstable();
        let mut statement = self.connection.prepare_cached(self.entries)?;
        let mut entries = statement.query([number])?;
        let mut expected = self.carded.iter();
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
