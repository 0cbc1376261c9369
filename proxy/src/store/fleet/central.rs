//! Verifies the copies of the nodes' audits: reads their rows page by page, for the code that verifies segments.
//!
//! Each chain is verified up to the position that it has at the begin. Nodes may copy meanwhile.

use std::collections::BTreeSet;
use std::convert::Infallible;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::operate::{COPIES_SINCE, OperateError, Session};
use super::ship::unescape;
use crate::store::audit::anchor::{Anchor, PublicKey};
use crate::store::audit::chain::{Hash, Manifest};
use crate::store::audit::copied::{CopiedAnchors, CopiedChain, CopyReport, CopyVerifier};
use crate::store::audit::copy::{
    Cell, Class, CopiedBatch, CopiedValue, EnteredSegment, Limits, MissingRows, Source, Table, VERSION,
};
use crate::store::audit::month::Month;

/// Batches of a page, at most, and rows, about.
const BATCHES: i64 = 2_000;
const ROWS: i64 = 20_000;

/// The copies that were verified.
#[derive(Debug, Default)]
pub struct Verification {
    /// The chains, by node and number.
    pub chains: Vec<CopyReport>,
    /// The anchors of each store.
    pub anchors: Vec<StoreAnchors>,
    /// Damage that belongs to no chain.
    pub damage: Vec<String>,
}

/// The anchors of a store.
#[derive(Debug)]
pub struct StoreAnchors {
    /// The node.
    pub node: i16,
    /// The public key of its store.
    pub store: PublicKey,
    /// The anchors, compared with the chains of the store.
    pub anchors: CopiedAnchors,
}

impl Verification {
    /// Whether nothing is damaged.
    pub fn is_good(&self) -> bool {
        let anchors = self.anchors.iter().map(|one| &one.anchors);
        self.damage.is_empty()
            && self.chains.iter().all(|chain| chain.damage.is_empty())
            && anchors.into_iter().all(|one| one.unsigned.is_empty() && one.contradictions().next().is_none())
    }
}

impl Session {
    /// Verifies the copies of all nodes, or of one. `progress` gets the rows that were read, and their number in total, about.
    ///
    /// # Errors
    /// [`OperateError`]; [`OperateError::Rights`] when the role may not read the rows.
    pub async fn verify_copies(
        &mut self,
        node: Option<i16>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Verification, OperateError> {
        match self.version().await? {
            0 => return Err(OperateError::NoSchema),
            before if before < COPIES_SINCE => return Err(OperateError::NoCopies),
            _ => {}
        }
        let client = self.client();
        let mut verification =
            Verification { anchors: stores(client, node).await?, ..Verification::default() };
        let chains = chains(client, node).await?;
        let total = chains.iter().map(|chain| chain.1.unsigned_abs()).sum();
        let mut done = 0;
        for (id, rows) in chains {
            let Some(verified) =
                chain(client, id, &mut verification.anchors, |rows| progress(done + rows, total)).await?
            else {
                verification.damage.push(format!("chain {id}: its store is no public key"));
                continue;
            };
            done += rows.unsigned_abs();
            verification.chains.push(verified);
        }
        if node.is_none() {
            verification.damage.extend(orphans(client).await?);
        }
        Ok(verification)
    }
}

/// Rows of chains that are not listed, one per table.
async fn orphans(client: &Client) -> Result<Vec<String>, OperateError> {
    let mut found = Vec::new();
    for table in Table::ALL.map(Table::name).into_iter().chain(["batch"]) {
        let sql = format!(
            "SELECT chain FROM audit.{table} r WHERE NOT EXISTS (SELECT FROM audit.chain c WHERE c.id = r.chain) LIMIT 1"
        );
        for row in client.query_typed(&sql, &[]).await? {
            let chain: i64 = row.try_get(0)?;
            found.push(format!("table {table} has rows of chain {chain}, which is not listed"));
        }
    }
    Ok(found)
}

/// The stores that have a chain or an anchor, with their anchors.
async fn stores(client: &Client, node: Option<i16>) -> Result<Vec<StoreAnchors>, OperateError> {
    let rows = client
        .query_typed(
            "SELECT node, store FROM (SELECT node, store FROM audit.chain UNION SELECT node, store FROM audit.anchor) s
             WHERE $1::smallint IS NULL OR node = $1 ORDER BY node, store",
            &[(&node, Type::INT2)],
        )
        .await?;
    let mut stores = Vec::new();
    for row in rows {
        let (node, bytes): (i16, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        let Some(store) = PublicKey::from_slice(bytes) else { continue };
        let rows = client
            .query_typed(
                "SELECT at, segment, last, head, signature FROM audit.anchor WHERE node = $1 AND store = $2",
                &[(&node, Type::INT2), (&bytes, Type::BYTEA)],
            )
            .await?;
        let anchor = |row: &Row| -> Result<Anchor, tokio_postgres::Error> {
            Ok(Anchor::of_parts(
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
                row.try_get(4)?,
            ))
        };
        let anchors = rows.iter().map(anchor).collect::<Result<Vec<_>, _>>()?;
        let anchors = CopiedAnchors::new(&store, anchors);
        stores.push(StoreAnchors { node, store, anchors });
    }
    Ok(stores)
}

/// The chains in their order, each with the number of its rows, copied or not.
async fn chains(client: &Client, node: Option<i16>) -> Result<Vec<(i64, i64)>, OperateError> {
    let rows = client
        .query_typed(
            "SELECT id, last - base FROM audit.chain WHERE $1::smallint IS NULL OR node = $1 ORDER BY node, id",
            &[(&node, Type::INT2)],
        )
        .await?;
    let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
    Ok(rows.iter().map(read).collect::<Result<_, tokio_postgres::Error>>()?)
}

/// Verifies one chain; none if it has a store that is no key.
async fn chain(
    client: &mut Client,
    id: i64,
    stores: &mut [StoreAnchors],
    mut progress: impl FnMut(u64),
) -> Result<Option<CopyReport>, OperateError> {
    let Some(Stated { chain, segments, missing, dropped }) = state(client, id).await? else {
        return Ok(None);
    };
    let owner = |one: &&mut StoreAnchors| one.node == chain.node && one.store == chain.store;
    let Some(anchors) = stores.iter_mut().find(owner) else { return Ok(None) };
    let (base, last) = (chain.base, chain.last);
    let mut verifier = CopyVerifier::new(chain, segments, missing, dropped, &mut anchors.anchors);
    let mut after = i64::MIN;
    loop {
        let batches = batches(client, id, after, last).await?;
        let Some(end) = batches.last().map(|batch| batch.limits.last) else { break };
        let mut rows = Page::read(client, id, after, end).await?;
        for batch in &batches {
            let Ok(()) = verifier.batch(batch, &mut rows);
        }
        for (table, row) in rows.unread() {
            verifier.stray(table, row);
        }
        after = end;
        progress(end.saturating_sub(base).max(0).unsigned_abs());
    }
    let rest = Page::read(client, id, after, last).await?;
    let mut unread = rest.unread();
    unread.extend(beyond(client, id).await?);
    verifier.count_batches(count(client, id, last).await?);
    Ok(Some(verifier.finish(unread)))
}

/// A chain, by the rows about it.
struct Stated {
    chain: CopiedChain,
    segments: Vec<EnteredSegment>,
    missing: Vec<MissingRows>,
    dropped: BTreeSet<Month>,
}

/// Reads the rows about a chain in one state.
async fn state(client: &mut Client, id: i64) -> Result<Option<Stated>, OperateError> {
    let transaction = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .start()
        .await?;
    let of = [(&id as &(dyn tokio_postgres::types::ToSql + Sync), Type::INT8)];
    let row = transaction
        .query_typed(
            "SELECT c.node, c.store, c.parent, c.base, c.base_head, c.last, c.head, c.digest, c.signature,
                    EXISTS (SELECT FROM audit.chain e WHERE e.store = c.store AND e.id < c.id)
             FROM audit.chain c WHERE c.id = $1",
            &of,
        )
        .await?;
    let Some(row) = row.first() else { return Ok(None) };
    let Some(store) = PublicKey::from_slice(row.try_get(1)?) else { return Ok(None) };
    let chain = CopiedChain {
        id,
        node: row.try_get(0)?,
        store,
        parent: row.try_get(2)?,
        is_later: row.try_get(9)?,
        base: row.try_get(3)?,
        base_head: hash(row, 4)?,
        last: row.try_get(5)?,
        head: hash(row, 6)?,
        digest: hash(row, 7)?,
        signature: row.try_get(8)?,
    };
    let mut segments = Vec::new();
    for row in transaction
        .query_typed("SELECT month, before, previous, seed, digest FROM audit.segment WHERE chain = $1", &of)
        .await?
    {
        let seed: &[u8] = row.try_get(3)?;
        let manifest = transaction
            .query_typed(
                "SELECT month, first, last, count, since, until, head FROM audit.manifest
                 WHERE chain = $1 AND seed = $2 ORDER BY month COLLATE \"C\"",
                &[of[0].clone(), (&seed, Type::BYTEA)],
            )
            .await?;
        let manifest = manifest
            .iter()
            .map(|row| {
                Ok(Manifest {
                    month: row.try_get(0)?,
                    first: row.try_get(1)?,
                    last: row.try_get(2)?,
                    count: row.try_get(3)?,
                    since: row.try_get(4)?,
                    until: row.try_get(5)?,
                    head: hash(row, 6)?,
                })
            })
            .collect::<Result<_, tokio_postgres::Error>>()?;
        let Some(month) = Month::of_number(row.try_get(0)?) else { continue };
        segments.push(EnteredSegment {
            month,
            before: row.try_get(1)?,
            previous: hash(&row, 2)?,
            seed: hash(&row, 3)?,
            digest: hash(&row, 4)?,
            manifest,
        });
    }
    let missing = transaction
        .query_typed("SELECT first, last, head FROM audit.missing WHERE chain = $1", &of)
        .await?
        .iter()
        .map(|row| Ok(MissingRows { first: row.try_get(0)?, last: row.try_get(1)?, head: hash(row, 2)? }))
        .collect::<Result<_, tokio_postgres::Error>>()?;
    let dropped = transaction
        .query_typed("SELECT month FROM audit.dropped", &[])
        .await?
        .iter()
        .map(|row| Ok(Month::of_number(row.try_get(0)?)))
        .collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
    transaction.commit().await?;
    Ok(Some(Stated { chain, segments, missing, dropped: dropped.into_iter().flatten().collect() }))
}

/// The next batches after a row, up to a row.
async fn batches(
    client: &Client,
    chain: i64,
    after: i64,
    last: i64,
) -> Result<Vec<CopiedBatch>, OperateError> {
    let rows = client
        .query_typed(
            "SELECT last, first, version, begins, horizon, previous, hash, copied, digest FROM audit.batch
             WHERE chain = $1 AND last > $2 AND last <= $3 ORDER BY last LIMIT $4",
            &[(&chain, Type::INT8), (&after, Type::INT8), (&last, Type::INT8), (&BATCHES, Type::INT8)],
        )
        .await?;
    let (mut page, mut count) = (Vec::new(), 0_i64);
    for row in &rows {
        if count >= ROWS {
            break;
        }
        let limits = Limits {
            last: row.try_get(0)?,
            first: row.try_get(1)?,
            version: row.try_get(2)?,
            begins: row.try_get(3)?,
            horizon: row.try_get(4)?,
        };
        let copied: i64 = row.try_get(7)?;
        count = count.saturating_add(copied.max(1));
        page.push(CopiedBatch {
            limits,
            previous: hash(row, 5)?,
            hash: hash(row, 6)?,
            copied,
            digest: hash(row, 8)?,
        });
    }
    Ok(page)
}

/// The number of batches up to a row.
async fn count(client: &Client, chain: i64, last: i64) -> Result<i64, OperateError> {
    let sql = "SELECT count(*) FROM audit.batch WHERE chain = $1 AND last <= $2";
    let rows = client.query_typed(sql, &[(&chain, Type::INT8), (&last, Type::INT8)]).await?;
    Ok(rows.first().map_or(Ok(0), |row| row.try_get(0))?)
}

/// One row of each table after the position that the chain has now: it belongs to no batch.
async fn beyond(client: &Client, chain: i64) -> Result<Vec<(Table, i64)>, OperateError> {
    let mut found = Vec::new();
    for table in Table::ALL {
        // One statement reads position and rows in one state.
        let sql = format!(
            "SELECT min(id) FROM audit.{} WHERE chain = $1 AND id > (SELECT last FROM audit.chain WHERE id = $1)",
            table.name()
        );
        let rows = client.query_typed(&sql, &[(&chain, Type::INT8)]).await?;
        let id: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
        found.extend(id.map(|id| (table, id)));
    }
    Ok(found)
}

/// Rows of a range of numbers.
struct Page {
    rows: [Vec<(i64, Vec<Option<CopiedValue>>)>; Table::ALL.len()],
    next: [usize; Table::ALL.len()],
}

impl Page {
    async fn read(client: &Client, chain: i64, after: i64, last: i64) -> Result<Self, OperateError> {
        let mut page = Self { rows: Default::default(), next: [0; Table::ALL.len()] };
        for table in Table::ALL {
            let sql = format!(
                "SELECT id, {} FROM audit.{} WHERE chain = $1 AND id > $2 AND id <= $3 ORDER BY id",
                table.column_list(VERSION),
                table.name()
            );
            let rows = client
                .query_typed(&sql, &[(&chain, Type::INT8), (&after, Type::INT8), (&last, Type::INT8)])
                .await?;
            for row in &rows {
                let values = table.columns(VERSION).iter().zip(1..).map(|(column, place)| {
                    Ok(match column.class {
                        Class::Int => {
                            let number: Option<i64> = row.try_get(place)?;
                            Some(number.map_or(CopiedValue::Null, CopiedValue::Int))
                        }
                        Class::Blob => {
                            let bytes: Option<&[u8]> = row.try_get(place)?;
                            Some(bytes.map_or(CopiedValue::Null, |bytes| CopiedValue::Blob(bytes.into())))
                        }
                        Class::Text | Class::Name => {
                            let text: Option<&str> = row.try_get(place)?;
                            match text {
                                Some(text) => unescape(text).map(CopiedValue::Text),
                                None => Some(CopiedValue::Null),
                            }
                        }
                    })
                });
                let values = values.collect::<Result<_, tokio_postgres::Error>>()?;
                page.rows[table as usize].push((row.try_get(0)?, values));
            }
        }
        Ok(page)
    }
}

impl Source for Page {
    type Error = Infallible;

    fn next(&self, table: Table) -> Option<i64> {
        self.rows[table as usize].get(self.next[table as usize]).map(|(id, _)| *id)
    }

    fn advance(&mut self, table: Table) -> Result<(), Infallible> {
        self.next[table as usize] += 1;
        Ok(())
    }

    fn cell(&self, table: Table, place: usize) -> Result<Cell<'_>, Infallible> {
        let row = self.rows[table as usize].get(self.next[table as usize]);
        let (value, column) = match (row, place.checked_sub(1)) {
            (Some((_, values)), Some(place)) => (values.get(place), table.columns(VERSION).get(place)),
            (Some((id, _)), None) => return Ok(Cell::Int(*id)),
            (None, _) => (None, None),
        };
        Ok(match (value, column.map(|column| column.class)) {
            (Some(Some(CopiedValue::Int(number))), _) => Cell::Int(*number),
            (Some(Some(CopiedValue::Text(name))), Some(Class::Name)) => Cell::Name(name),
            (Some(Some(CopiedValue::Text(text))), _) => Cell::Text(text.as_bytes()),
            (Some(Some(CopiedValue::Blob(bytes))), _) => Cell::Blob(bytes),
            (Some(None), _) => Cell::Other,
            (Some(Some(CopiedValue::Null)) | None, _) => Cell::Null,
        })
    }
}

/// A hash; zeros for bytes of another length, which are then damage.
fn hash(row: &Row, column: usize) -> Result<Hash, tokio_postgres::Error> {
    Ok(Hash::from_slice(row.try_get(column)?).unwrap_or(Hash::NONE))
}
