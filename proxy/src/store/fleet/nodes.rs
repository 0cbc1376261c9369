//! Nodes and their lives: the number that is bound to a store, and the rows that a heartbeat renews.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::link::{Dedicated, LinkError};
use super::micros;

/// A node, as it presents itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The number, `[carrier] node`.
    pub node: u8,
    /// The public key of the store's audit.
    pub store: [u8; 32],
    /// The folder of the store on this machine since its boot: no other folder has the same, not even a copy.
    pub folder: [u8; 32],
    /// The same for people: host and path.
    pub place: String,
}

/// The database, as `fleet.about` describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// The identity of the fleet.
    pub fleet: String,
    /// The version of the schema.
    pub version: i32,
    /// The oldest version of a node that may use it.
    pub oldest: i32,
}

/// The result of an attempt to begin a life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Begun {
    /// This life has started; a life of this node that was not gone before is gone.
    Life(i64),
    /// The number is bound to another store.
    Bound(Holder),
    /// Another process with this store has a life whose lease has not ended.
    Held {
        /// That process.
        holder: Holder,
        /// Its heartbeats.
        beats: i64,
        /// The rest of its lease.
        left: Duration,
    },
}

/// The store that has a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The public key of its audit, in hexadecimal.
    pub store: String,
    /// Host and folder of its last process; empty if it never had a life.
    pub place: String,
}

/// The reply to a heartbeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// The database that has replied.
    pub about: About,
    /// Its time, in microseconds since the Unix epoch.
    pub now: i64,
    /// The heartbeats of this life, this one included; none if the life is gone, its lease has ended, or it is unknown.
    pub beats: Option<i64>,
    /// Whether the database knows the life at all.
    pub known: bool,
    /// Whether the number of the node is bound to its store.
    pub bound: bool,
    /// The life that this node has now, if it is another one.
    pub other: Option<Holder>,
    /// The nodes that have a life now, this one included.
    pub alive: i64,
}

impl Dedicated {
    /// Reads the identity and the versions of the database.
    ///
    /// # Errors
    /// [`LinkError`]; a statement error with SQLSTATE 42P01 or 3F000 if there is no schema.
    pub async fn about(&mut self, limit: Duration) -> Result<About, LinkError> {
        let rows = self.query("SELECT fleet::text, version, oldest FROM fleet.about", &[], limit).await?;
        one(&rows).and_then(|row| About::read(row, 0))
    }

    /// Begins a life for a node, whose lease ends after `lease` without a heartbeat.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn begin_life(
        &mut self,
        node: &Identity,
        lease: Duration,
        limit: Duration,
    ) -> Result<Begun, LinkError> {
        let rows = self
            .query(
                "SELECT result, life, encode(store, 'hex'), coalesce(place, ''), coalesce(beats, 0), \
                 coalesce((extract(epoch FROM remains) * 1000000)::bigint, 0) \
                 FROM fleet.begin_life($1, $2, $3, $4, $5 * interval '1 microsecond')",
                &[
                    (&i16::from(node.node), Type::INT2),
                    (&node.store.as_slice(), Type::BYTEA),
                    (&node.folder.as_slice(), Type::BYTEA),
                    (&node.place, Type::TEXT),
                    (&micros(lease), Type::INT8),
                ],
                limit,
            )
            .await?;
        let row = one(&rows)?;
        let holder = || Ok::<_, LinkError>(Holder { store: row.try_get(2)?, place: row.try_get(3)? });
        Ok(match row.try_get(0)? {
            "begun" => Begun::Life(row.try_get(1)?),
            "bound" => Begun::Bound(holder()?),
            _ => Begun::Held {
                holder: holder()?,
                beats: row.try_get(4)?,
                left: Duration::from_micros(u64::try_from(row.try_get::<_, i64>(5)?).unwrap_or(0)),
            },
        })
    }

    /// Renews the lease of a life.
    ///
    /// # Errors
    /// [`LinkError`]; after [`LinkError::TimedOut`] the lease may have been renewed.
    pub async fn beat(
        &mut self,
        node: &Identity,
        life: i64,
        lease: Duration,
        limit: Duration,
    ) -> Result<Beat, LinkError> {
        let rows = self
            .query(
                "WITH beat AS (UPDATE fleet.life SET until = fleet.now() + $2 * interval '1 microsecond', \
                 beats = beats + 1 WHERE id = $1 AND node = $3 AND folder = $4 AND NOT gone AND until > fleet.now() \
                 RETURNING beats) \
                 SELECT about.fleet::text, about.version, about.oldest, \
                 (extract(epoch FROM fleet.now()) * 1000000)::bigint, (SELECT beats FROM beat), \
                 EXISTS (SELECT FROM fleet.life WHERE id = $1 AND folder = $4), encode(node.store, 'hex'), other.place, \
                 coalesce(node.store = $5, false), \
                 (SELECT count(*) FROM fleet.life WHERE NOT gone AND until > fleet.now()) \
                 FROM fleet.about \
                 LEFT JOIN fleet.life other ON other.node = $3 AND NOT other.gone AND other.id <> $1 \
                 LEFT JOIN fleet.node ON node.node = $3",
                &[(&life, Type::INT8), (&micros(lease), Type::INT8), (&i16::from(node.node), Type::INT2),
                    (&node.folder.as_slice(), Type::BYTEA), (&node.store.as_slice(), Type::BYTEA)],
                limit,
            )
            .await?;
        let row = one(&rows)?;
        let place: Option<String> = row.try_get(7)?;
        let store: Option<String> = row.try_get(6)?;
        Ok(Beat {
            about: About::read(row, 0)?,
            now: row.try_get(3)?,
            beats: row.try_get(4)?,
            known: row.try_get(5)?,
            bound: row.try_get(8)?,
            alive: row.try_get(9)?,
            other: place.map(|place| Holder { store: store.unwrap_or_default(), place }),
        })
    }

    /// Ends a life: it is gone, and the others take over its flights at once.
    ///
    /// # Errors
    /// [`LinkError`]; the lease then ends by itself.
    pub async fn end_life(&mut self, life: i64, limit: Duration) -> Result<(), LinkError> {
        let sql = "UPDATE fleet.life SET gone = true WHERE id = $1";
        self.query(sql, &[(&life, Type::INT8)], limit).await.map(drop)
    }
}

impl About {
    fn read(row: &Row, first: usize) -> Result<Self, LinkError> {
        Ok(Self {
            fleet: row.try_get(first)?,
            version: row.try_get(first + 1)?,
            oldest: row.try_get(first + 2)?,
        })
    }
}

/// The only row; without one, as without a database.
fn one(rows: &[Row]) -> Result<&Row, LinkError> {
    rows.first().ok_or(LinkError::Away)
}
