//! The rows of a node's audit and of the shared tables, as the model reads them.

use std::collections::BTreeSet;

use rusqlite::{Connection, OpenFlags};

use super::model::{AloneNote, NodeAudit, Record};
use crate::harness::{Node, Postgres};
use crate::support::segments;

/// Reads the audit of a node, which may run.
pub(super) fn read(node: &Node, is_stepped: bool) -> NodeAudit {
    let mut audit = NodeAudit { is_stepped, ..NodeAudit::default() };
    for segment in segments(&node.data()) {
        let segment = Connection::open_with_flags(segment, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        audit.records.extend(records(&segment));
        audit.notes.extend(notes(&segment));
    }
    audit
}

fn records(segment: &Connection) -> Vec<Record> {
    let mut rows = segment
        .prepare(
            "SELECT record.id, at, latency, transid, code, outcome.text IN ('hit', 'stale', 'miss', 'collapsed'),
                    coalesce(reason.text = 'alone', false)
             FROM record JOIN name AS outcome ON outcome.id = outcome LEFT JOIN name AS reason ON reason.id = reason
             WHERE transid IS NOT NULL ORDER BY record.id",
        )
        .unwrap();
    let rows = rows.query_map([], |row| {
        Ok(Record {
            id: row.get(0)?,
            at: row.get(1)?,
            latency: row.get(2)?,
            transid: row.get(3)?,
            code: row.get(4)?,
            is_answered: row.get(5)?,
            is_alone: row.get(6)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn notes(segment: &Connection) -> Vec<AloneNote> {
    let mut rows = segment
        .prepare(
            "SELECT note.id, at, detail LIKE 'begins %' FROM note JOIN name ON name.id = what
             WHERE text = 'alone' ORDER BY note.id",
        )
        .unwrap();
    let rows =
        rows.query_map([], |row| Ok(AloneNote { id: row.get(0)?, at: row.get(1)?, begins: row.get(2)? }));
    rows.unwrap().map(Result::unwrap).collect()
}

/// The transids that two nodes have accepted, by the table that lists them.
pub(super) async fn listed(server: &Postgres) -> BTreeSet<String> {
    // The number is the seconds since 2000 at UTC+8 and the sequence.
    let rows = server
        .sql(
            "SELECT DISTINCT appid || to_char(to_timestamp((number >> 27) + 946656000) AT TIME ZONE 'Asia/Shanghai', \
             'YYYYMMDDHH24MISS') || lpad((number & 134217727)::text, 8, '0') FROM fleet.accepted_twice",
        )
        .await;
    rows.into_iter().flatten().flatten().collect()
}
