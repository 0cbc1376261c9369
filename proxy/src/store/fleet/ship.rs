//! The copy of a node's audit: positions, shipments, anchors.
//!
//! A shipment is one transaction: it moves the position of its chain from where the shipment begins, and then copies the rows
//! by `COPY`. A second shipment of the same rows waits for the first one, and fails. So the database alone knows what is
//! copied, whatever replies were lost.

use std::borrow::Cow;
use std::pin::pin;
use std::time::Duration;

use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Transaction};

use super::link::{Dedicated, LinkError};
use crate::clock::timeout_exact;
use crate::store::audit::anchor::Anchor;
use crate::store::audit::chain::Hash;
use crate::store::audit::copy::{Class, Table, VERSION};
use crate::store::audit::copy::{CopiedRow, CopiedValue, EnteredSegment, MissingRows, Position, Shipment};
use crate::store::audit::month::Month;

/// A chain of this store at the database, and its position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChainAt {
    /// Its number.
    pub(crate) id: i64,
    /// The row up to which it is copied.
    pub(crate) position: Position,
}

/// A chain that begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NewChain<'a> {
    /// The node.
    pub(crate) node: u8,
    /// The public key of its store.
    pub(crate) store: &'a [u8],
    /// The chain that it continues.
    pub(crate) parent: Option<i64>,
    /// The row and the head that it begins after.
    pub(crate) base: &'a Position,
    /// The signature of that.
    pub(crate) signature: &'a [u8],
}

/// A head of a chain that is copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CopiedHead {
    /// The chain.
    pub(crate) chain: i64,
    /// The row.
    pub(crate) last: i64,
    /// The head there.
    pub(crate) head: Hash,
}

impl Dedicated {
    /// The latest chain of a store. All its chains have the number of this node from now on.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn copy_position(
        &mut self,
        node: u8,
        store: &[u8],
        limit: Duration,
    ) -> Result<Option<ChainAt>, LinkError> {
        let number = i16::from(node);
        self.query("SELECT audit.renumber($1, $2)", &[(&store, Type::BYTEA), (&number, Type::INT2)], limit)
            .await?;
        let sql = "SELECT id, last, head, digest FROM audit.chain WHERE store = $1 ORDER BY id DESC LIMIT 1";
        let rows = self.query(sql, &[(&store, Type::BYTEA)], limit).await?;
        let read = |row: &Row| {
            let (head, digest) = (hash(row, 2)?, hash(row, 3)?);
            Ok(ChainAt { id: row.try_get(0)?, position: Position { last: row.try_get(1)?, head, digest } })
        };
        rows.first().map(read).transpose()
    }

    /// Begins a chain; its number.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn begin_chain(
        &mut self,
        chain: &NewChain<'_>,
        limit: Duration,
    ) -> Result<i64, LinkError> {
        let NewChain { node, store, parent, base, signature } = chain;
        let (head, digest) = (&base.head.as_bytes()[..], &base.digest.as_bytes()[..]);
        let rows = self
            .query(
                "SELECT audit.begin_chain($1, $2, $3, $4, $5, $6, $7)",
                &[
                    (&i16::from(*node), Type::INT2),
                    (store, Type::BYTEA),
                    (parent, Type::INT8),
                    (&base.last, Type::INT8),
                    (&head, Type::BYTEA),
                    (&digest, Type::BYTEA),
                    (signature, Type::BYTEA),
                ],
                limit,
            )
            .await?;
        Ok(rows.first().map_or(Ok(0), |row| row.try_get(0))?)
    }

    /// The last head at or before a row, of a chain or of those that it continues; none before their first one.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn copied_head_at(
        &mut self,
        chain: i64,
        row: i64,
        limit: Duration,
    ) -> Result<Option<CopiedHead>, LinkError> {
        let sql = "SELECT chain, last, head FROM audit.head_at($1, $2) WHERE last IS NOT NULL";
        let rows = self.query(sql, &[(&chain, Type::INT8), (&row, Type::INT8)], limit).await?;
        let read =
            |row: &Row| Ok(CopiedHead { chain: row.try_get(0)?, last: row.try_get(1)?, head: hash(row, 2)? });
        rows.first().map(read).transpose()
    }

    /// Makes room for the rows of a month.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn add_month(&mut self, month: Month, limit: Duration) -> Result<(), LinkError> {
        self.query("SELECT audit.add_month($1)", &[(&month.number(), Type::INT4)], limit).await.map(drop)
    }

    /// Copies a shipment of a chain; `signature` is that of the position after it. After a time-out it may be copied.
    ///
    /// # Errors
    /// [`LinkError`]; its SQLSTATE is 40001 if the chain has another position.
    pub(crate) async fn ship(
        &mut self,
        chain: i64,
        shipment: &Shipment,
        signature: &[u8],
        limit: Duration,
    ) -> Result<(), LinkError> {
        let copy = async {
            let transaction = self.session().await?.client.transaction().await?;
            advance(&transaction, chain, shipment, signature).await?;
            if let Some(missing) = &shipment.missing {
                insert_missing(&transaction, chain, missing).await?;
            }
            if let Some(segment) = &shipment.entered {
                insert_segment(&transaction, chain, segment).await?;
            }
            let month = shipment.month.number();
            copy_batches(&transaction, chain, month, shipment).await?;
            for table in Table::ALL {
                copy_rows(&transaction, chain, month, table, &shipment.rows[table as usize]).await?;
            }
            Ok(transaction.commit().await?)
        };
        let result = timeout_exact(limit, Box::pin(copy)).await.unwrap_or(Err(LinkError::TimedOut(limit)));
        if result.is_err() {
            // Whatever is left of the transaction ends with the connection.
            self.close();
        }
        result
    }

    /// The last anchor of a store that is copied: its time, segment and row.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn last_copied_anchor(
        &mut self,
        store: &[u8],
        limit: Duration,
    ) -> Result<Option<(i64, String, i64)>, LinkError> {
        let sql =
            "SELECT at, segment, last FROM audit.anchor WHERE store = $1 ORDER BY at DESC, last DESC LIMIT 1";
        let rows = self.query(sql, &[(&store, Type::BYTEA)], limit).await?;
        let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        rows.first().map(read).transpose()
    }

    /// Copies anchors; those that are there already stay.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn copy_anchors(
        &mut self,
        node: u8,
        store: &[u8],
        anchors: &[Anchor],
        limit: Duration,
    ) -> Result<(), LinkError> {
        let (mut at, mut segment, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let (mut head, mut signature) = (Vec::new(), Vec::new());
        for anchor in anchors {
            at.push(anchor.at);
            segment.push(anchor.segment.as_str());
            last.push(anchor.last);
            head.push(anchor.head_bytes());
            signature.push(anchor.signature_bytes());
        }
        self.query(
            "INSERT INTO audit.anchor (store, node, at, segment, last, head, signature)
             SELECT $1, $2, * FROM unnest($3::bigint[], $4::text[], $5::bigint[], $6::bytea[], $7::bytea[])
             ON CONFLICT DO NOTHING",
            &[
                (&store, Type::BYTEA),
                (&i16::from(node), Type::INT2),
                (&at, Type::INT8_ARRAY),
                (&segment, Type::TEXT_ARRAY),
                (&last, Type::INT8_ARRAY),
                (&head, Type::BYTEA_ARRAY),
                (&signature, Type::BYTEA_ARRAY),
            ],
            limit,
        )
        .await
        .map(drop)
    }
}

async fn advance(
    transaction: &Transaction<'_>,
    chain: i64,
    Shipment { from, to, known, .. }: &Shipment,
    signature: &[u8],
) -> Result<(), LinkError> {
    let bytes = |hash: &Hash| hash.as_bytes().to_vec();
    transaction
        .query_typed(
            "SELECT audit.advance($1, $2, $3, $4, $5, $6, $7, $8)",
            &[
                (&chain, Type::INT8),
                (&from.last, Type::INT8),
                (&bytes(&from.head), Type::BYTEA),
                (&to.last, Type::INT8),
                (&bytes(&to.head), Type::BYTEA),
                (&bytes(&to.digest), Type::BYTEA),
                (&signature, Type::BYTEA),
                (known, Type::INT8),
            ],
        )
        .await?;
    Ok(())
}

async fn insert_missing(
    transaction: &Transaction<'_>,
    chain: i64,
    MissingRows { first, last, head }: &MissingRows,
) -> Result<(), LinkError> {
    transaction
        .query_typed(
            "INSERT INTO audit.missing (chain, first, last, head) VALUES ($1, $2, $3, $4)",
            &[
                (&chain, Type::INT8),
                (first, Type::INT8),
                (last, Type::INT8),
                (&&head.as_bytes()[..], Type::BYTEA),
            ],
        )
        .await?;
    Ok(())
}

async fn insert_segment(
    transaction: &Transaction<'_>,
    chain: i64,
    EnteredSegment { month, before, previous, seed, digest, manifest }: &EnteredSegment,
) -> Result<(), LinkError> {
    let seed = &seed.as_bytes()[..];
    transaction
        .query_typed(
            "INSERT INTO audit.segment (chain, seed, month, before, previous, digest) VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                (&chain, Type::INT8),
                (&seed, Type::BYTEA),
                (&month.number(), Type::INT4),
                (before, Type::INT8),
                (&&previous.as_bytes()[..], Type::BYTEA),
                (&&digest.as_bytes()[..], Type::BYTEA),
            ],
        )
        .await?;
    for one in manifest {
        transaction
            .query_typed(
                "INSERT INTO audit.manifest (chain, seed, month, first, last, count, since, until, head)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                &[
                    (&chain, Type::INT8),
                    (&seed, Type::BYTEA),
                    (&one.month, Type::TEXT),
                    (&one.first, Type::INT8),
                    (&one.last, Type::INT8),
                    (&one.count, Type::INT8),
                    (&one.since, Type::INT8),
                    (&one.until, Type::INT8),
                    (&&one.head.as_bytes()[..], Type::BYTEA),
                ],
            )
            .await?;
    }
    Ok(())
}

async fn copy_batches(
    transaction: &Transaction<'_>,
    chain: i64,
    month: i32,
    shipment: &Shipment,
) -> Result<(), LinkError> {
    if shipment.batches.is_empty() {
        return Ok(());
    }
    let sink = transaction
        .copy_in(
            "COPY audit.batch (month, chain, last, first, version, begins, horizon, previous, hash, copied, digest)
             FROM STDIN BINARY",
        )
        .await?;
    let types = [
        [Type::INT4].as_slice(),
        &[const { Type::INT8 }; 6],
        &[const { Type::BYTEA }; 2],
        &[Type::INT8, Type::BYTEA],
    ]
    .concat();
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for batch in &shipment.batches {
        let limits = &batch.limits;
        let bytes = |hash: &'_ Hash| hash.as_bytes().to_vec();
        let values: [&(dyn ToSql + Sync); 11] = [
            &month,
            &chain,
            &limits.last,
            &limits.first,
            &limits.version,
            &limits.begins,
            &limits.horizon,
            &bytes(&batch.previous),
            &bytes(&batch.hash),
            &batch.copied,
            &bytes(&batch.digest),
        ];
        writer.as_mut().write(&values).await?;
    }
    writer.as_mut().finish().await?;
    Ok(())
}

async fn copy_rows(
    transaction: &Transaction<'_>,
    chain: i64,
    month: i32,
    table: Table,
    rows: &[CopiedRow],
) -> Result<(), LinkError> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = table.columns(VERSION);
    let sql = format!(
        "COPY audit.{} (month, chain, id, {}) FROM STDIN BINARY",
        table.name(),
        table.column_list(VERSION)
    );
    let sink = transaction.copy_in(&sql).await?;
    let mut types = vec![Type::INT4, Type::INT8, Type::INT8];
    types.extend(columns.iter().map(|column| match column.class {
        Class::Int => Type::INT8,
        Class::Text | Class::Name => Type::TEXT,
        Class::Blob => Type::BYTEA,
    }));
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for row in rows {
        let values: Vec<Field<'_>> =
            columns.iter().zip(&row.values).map(|(column, value)| Field::of(column.class, value)).collect();
        let mut fields: Vec<&(dyn ToSql + Sync)> = vec![&month, &chain, &row.id];
        fields.extend(values.iter().map(Field::as_sql));
        writer.as_mut().write(&fields).await?;
    }
    writer.as_mut().finish().await?;
    Ok(())
}

/// A value as its column takes it.
enum Field<'a> {
    Int(Option<i64>),
    Text(Option<Cow<'a, str>>),
    Blob(Option<&'a [u8]>),
}

impl<'a> Field<'a> {
    fn of(class: Class, value: &'a CopiedValue) -> Self {
        match (class, value) {
            (_, CopiedValue::Int(number)) => Self::Int(Some(*number)),
            (_, CopiedValue::Text(text)) => Self::Text(Some(escape(text))),
            (_, CopiedValue::Blob(bytes)) => Self::Blob(Some(bytes)),
            (Class::Int, CopiedValue::Null) => Self::Int(None),
            (Class::Text | Class::Name, CopiedValue::Null) => Self::Text(None),
            (Class::Blob, CopiedValue::Null) => Self::Blob(None),
        }
    }

    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Int(number) => number,
            Self::Text(text) => text,
            Self::Blob(bytes) => bytes,
        }
    }
}

/// A text as PostgreSQL can store it: a text there has no zero byte.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    match text.contains(['\\', '\0']) {
        true => text.replace('\\', "\\\\").replace('\0', "\\0").into(),
        false => text.into(),
    }
}

/// The text that was escaped; none if [`escape`] never writes it.
pub(super) fn unescape(text: &str) -> Option<Box<str>> {
    if !text.contains('\\') {
        return Some(text.into());
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(one) = chars.next() {
        plain.push(match one {
            '\\' => match chars.next()? {
                '\\' => '\\',
                '0' => '\0',
                _ => return None,
            },
            one => one,
        });
    }
    Some(plain.into())
}

fn hash(row: &Row, column: usize) -> Result<Hash, LinkError> {
    // One that is no hash is nowhere in the audit, so another chain begins.
    Ok(Hash::from_slice(row.try_get(column)?).unwrap_or(Hash::NONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_stored_without_a_zero_byte_and_read_as_it_was() {
        for text in ["", "plain", "\0", "a\\b", "\\0", "\\\\\0\\", "\0\0", "正确"] {
            let stored = escape(text);
            assert!(!stored.contains('\0'), "{text:?}");
            assert_eq!(unescape(&stored).as_deref(), Some(text));
        }
        for never in ["\\", "a\\", "\\1", "\\\\\\"] {
            assert_eq!(unescape(never), None, "{never:?}");
        }
    }
}
