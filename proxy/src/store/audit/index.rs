//! The card index, a two-level LSM tree: the tail in memory, sorted runs (level 0) and blocks of merged runs (level 1).
//! It is written when idle, or with the rows of the next commit.
//!
//! An index that is updated per row would dirty a page per row. Instead, committed rows wait in the *tail*; after
//! [`Options::run`](super::Options::run) rows the tail is sorted into a *run* (`card_run`, `card_entry`), and
//! [`Options::block`](super::Options::block) runs are merged into a *block* (`card_block`, `card_block_entry`), in
//! small steps, since each step delays the next commit. A search reads every block, every run after the last block, and
//! the tail. Nothing is deleted: runs that a block covers stay, unread.
//!
//! A block has the number of its last run. Entries of a number greater than every block's belong to an unfinished
//! block, which continues where it stopped, after a crash too.

mod compaction;
pub(crate) mod find;
mod packed;

use std::collections::VecDeque;

use rusqlite::{Connection, Row, Transaction, TransactionBehavior};

use self::compaction::Compaction;
use self::packed::Packed;
use super::log::insert::Insert;
use super::log::value::Value;
use crate::inline_str::InlineStr;

/// Entries per statement.
const WIDE: usize = 32;

/// Entries per step when no commit waits.
const IDLE_STEP: usize = 8_192;

/// The index of a segment, in memory. After an error the segment must be opened again.
pub(super) struct Index {
    /// Rows per run, and runs per block.
    run: i64,
    block: i64,
    /// The last row in a run; the last run; the last run in a block.
    indexed: i64,
    last_run: i64,
    blocked: i64,
    /// The entries after the last run.
    tail: Vec<IndexEntry>,
    /// Runs in no block that this process sorted: reading them back would be a third of the index's work.
    fresh: VecDeque<Sorted>,
    /// The unfinished block.
    compaction: Option<Compaction>,
}

/// A sorted run with its number.
struct Sorted {
    run: i64,
    entries: Packed,
}

/// An entry: a row that has a card. Ordered by card, then number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct IndexEntry {
    /// The card as it is stored; a keyed hash is the longest form.
    pub(super) card: InlineStr<32>,
    pub(super) id: i64,
}

/// Selects the rows after one that have a card.
const TAIL: &str = "
    SELECT card, id FROM record WHERE id > ?1 AND card IS NOT NULL
    UNION ALL
    SELECT card, id FROM call WHERE id > ?1 AND card IS NOT NULL";

impl Index {
    /// Opens the index of a segment whose last row is `last`.
    pub(super) fn open(connection: &Connection, last: i64, run: u32, block: u32) -> rusqlite::Result<Self> {
        connection.set_prepared_statement_cache_capacity(32);
        let most = |sql| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
        let indexed = match most("SELECT max(last) FROM card_run")? {
            Some(indexed) => indexed,
            None => most("SELECT min(first) - 1 FROM batch")?.unwrap_or(last),
        };
        let blocked = most("SELECT max(id) FROM card_block")?.unwrap_or(0);
        let unfinished = most("SELECT max(block) FROM card_block_entry")?.filter(|&block| block > blocked);
        Ok(Self {
            run: run.max(1).into(),
            block: block.max(1).into(),
            indexed,
            last_run: most("SELECT max(id) FROM card_run")?.unwrap_or(0),
            blocked,
            tail: connection
                .prepare(TAIL)?
                .query_map([indexed], read_entry)?
                .collect::<rusqlite::Result<_>>()?,
            fresh: VecDeque::new(),
            compaction: unfinished
                .map(|through| Compaction::open(connection, blocked, through, &mut VecDeque::new()))
                .transpose()?,
        })
    }

    /// Adds an appended row to the tail, with its card as it is stored.
    pub(super) fn note(&mut self, card: &str, id: i64) {
        self.tail.push(IndexEntry { card: InlineStr::new(card), id });
    }

    /// Whether a step is pending; the last row is `last`.
    pub(super) fn is_pending(&self, last: i64) -> bool {
        last - self.indexed >= self.run
            || self.compaction.is_some()
            || self.last_run - self.blocked >= self.block
    }

    /// Makes one step after `rows` more rows, of which the last is `last`: enough to keep up.
    pub(super) fn step(
        &mut self,
        transaction: &Transaction<'_>,
        last: i64,
        rows: i64,
    ) -> rusqlite::Result<()> {
        if last - self.indexed >= self.run {
            self.append_run(transaction, last)?;
        }
        if self.compaction.is_some() || self.last_run - self.blocked >= self.block {
            // One entry per row would suffice.
            let entries = usize::try_from(rows + rows / 4).unwrap_or(0).max(64);
            self.extend_block(transaction, self.blocked + self.block, entries)?;
        }
        Ok(())
    }

    /// Makes all remaining steps, for a segment that has ended: the rest, however small, becomes a run and a block.
    pub(super) fn complete(mut self, connection: &mut Connection, last: i64) -> rusqlite::Result<()> {
        if last > self.indexed {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            self.append_run(&transaction, last)?;
            transaction.commit()?;
        }
        while self.blocked < self.last_run {
            let through = self.last_run.min(self.blocked + self.block);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            self.extend_block(&transaction, through, IDLE_STEP)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// Sorts the tail into a run.
    fn append_run(&mut self, transaction: &Transaction<'_>, last: i64) -> rusqlite::Result<()> {
        self.tail.sort_unstable();
        transaction
            .prepare_cached("INSERT INTO card_run (first, last) VALUES (?1, ?2)")?
            .execute([self.indexed + 1, last])?;
        let run = transaction.last_insert_rowid();
        insert(transaction, "card_entry (run, card, id)", run, &self.tail)?;
        self.fresh.push_back(Sorted { run, entries: Packed::new(&self.tail) });
        self.tail.clear();
        (self.indexed, self.last_run) = (last, run);
        Ok(())
    }

    /// Merges `entries` more entries into the unfinished block, or into a new one of the runs up to `through`.
    fn extend_block(
        &mut self,
        transaction: &Transaction<'_>,
        through: i64,
        entries: usize,
    ) -> rusqlite::Result<()> {
        let compaction = match &mut self.compaction {
            Some(compaction) => compaction,
            none => none.insert(Compaction::open(transaction, self.blocked, through, &mut self.fresh)?),
        };
        let through = compaction.block();
        let merged = compaction.take(transaction, entries)?;
        insert(transaction, "card_block_entry (block, card, id)", through, &merged)?;
        if compaction.is_finished() {
            transaction.execute(
                "INSERT INTO card_block (id, first, last)
                 SELECT ?2, min(first), max(last) FROM card_run WHERE id BETWEEN ?1 AND ?2",
                [self.blocked + 1, through],
            )?;
            (self.blocked, self.compaction) = (through, None);
        }
        Ok(())
    }
}

/// Inserts the sorted entries of a run or a block, so consecutive rows are neighbours.
fn insert(connection: &Connection, into: &str, number: i64, entries: &[IndexEntry]) -> rusqlite::Result<()> {
    let (wide, single) = entries.split_at(entries.len() - entries.len() % WIDE);
    for (entries, width) in [(wide, WIDE), (single, 1)] {
        if entries.is_empty() {
            continue;
        }
        let rows = vec!["(?, ?, ?)"; width].join(", ");
        let sql = format!("INSERT OR ROLLBACK INTO {into} VALUES {rows}");
        let mut insert = Insert::new(connection.prepare_cached(&sql)?, 3 * width);
        for IndexEntry { card, id } in entries {
            for value in [Value::Int(number), Value::Text(card.as_bytes()), Value::Int(*id)] {
                insert.bind(value, None)?;
            }
            insert.execute_if_full()?;
        }
    }
    Ok(())
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<IndexEntry> {
    Ok(IndexEntry { card: InlineStr::new(row.get_ref(0)?.as_str()?), id: row.get(1)? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cmiot_signer::{Card, CardKind};

    use super::super::evidence::verify::{Scope, verify};
    use super::super::tests::{NOON, row};
    use super::super::{AuditStore, LookupRow, Options};
    use crate::clock::Clock;

    /// The blocks, entries and damage of a month that has ended, whose rows were written by one store after another, or
    /// by one; and the number of blocks and entries after each fifty.
    fn month(stores: usize) -> ((i64, i64), Vec<(i64, i64)>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit-2026-01.db");
        let counts = || -> (i64, i64) {
            rusqlite::Connection::open(&path)
                .unwrap()
                .query_row(
                    "SELECT (SELECT count(*) FROM card_block), (SELECT count(*) FROM card_block_entry)",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .unwrap()
        };
        let options = Options { run: 100, block: 3, ..Options::default() };
        let (clock, hand) = Clock::manual(NOON);
        let mut seen = Vec::new();
        for store in 0..stores {
            let opened = AuditStore::open(dir.path(), options, clock.clone()).unwrap();
            for n in (0..8).filter(|n| n % stores == store) {
                // Cards in an order of their own, so that there is something to sort.
                let card = |m: usize| format!("1476450{:06}", (m * 7_919 + n * 104_729) % 1_000_000);
                let row = |m| LookupRow {
                    card: Some(Card::parse(CardKind::Msisdn, &card(m)).unwrap()),
                    ..row(NOON, &format!("{n} {m}"))
                };
                let rows: Vec<_> = (0..50).map(|m| opened.append(row(m))).collect();
                assert!(rows.into_iter().all(|row| row.wait() == Ok(())));
                seen.push(counts());
            }
            opened.close();
        }
        let later = NOON.plus(Duration::from_secs(30 * 86_400));
        hand.set(later);
        let store = AuditStore::open(dir.path(), options, clock).unwrap();
        assert_eq!(store.append(LookupRow { at: later, ..row(later, "later") }).wait(), Ok(()));
        store.close();
        assert_eq!(verify(dir.path(), &Scope::default(), |_, _| {}).unwrap().damage, []);
        (counts(), seen)
    }

    #[test]
    fn a_block_goes_on_where_it_stopped_and_a_month_that_is_over_is_in_blocks_whole() {
        // Started again for each fifty: nothing of a block is only in memory.
        let ((blocks, entries), seen) = month(8);
        assert!(seen.iter().any(|(blocks, entries)| *blocks == 0 && *entries > 0), "{seen:?}");
        assert!(blocks >= 2 && entries == 400, "{blocks} blocks, {entries} entries");
    }

    #[test]
    fn runs_are_merged_from_memory_as_they_are_from_the_file() {
        let ((blocks, entries), seen) = month(1);
        assert!(seen.iter().any(|(_, entries)| *entries > 0), "merged before the month was over: {seen:?}");
        assert!(blocks >= 2 && entries == 400, "{blocks} blocks, {entries} entries");
    }
}
