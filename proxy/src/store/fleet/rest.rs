//! Cool-downs and refusals of accounts that one node has met, for all of them.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Link, LinkError, Parameter, UPKEEP_LIMIT, micros};

/// A cool-down or a refusal of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rest {
    /// The account, its breaker, and the credentials that it concerns.
    pub key: RestKey,
    /// The carrier's code, where the breaker keeps one.
    pub code: Option<String>,
    /// The node that met it.
    pub node: u8,
    /// Microseconds until it ends; negative after that.
    pub left: i64,
}

/// The name of a rest.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RestKey {
    /// The account.
    pub appid: String,
    /// The breaker, with the operation where it concerns only one.
    pub what: String,
    /// An HMAC over the credentials; empty if the rest does not depend on them.
    pub credentials: Vec<u8>,
}

impl Rest {
    /// The time for which a rest that has ended is still listed: the node that met it sends the first call.
    pub const LISTED: Duration = Duration::from_secs(3);
}

impl Link {
    /// Stores a rest that ends after `wait`.
    ///
    /// # Errors
    /// [`LinkError`]; it may be stored.
    pub async fn put_rest(
        &self,
        node: u8,
        key: &RestKey,
        wait: Duration,
        code: Option<&str>,
    ) -> Result<(), LinkError> {
        const SQL: &str = "INSERT INTO fleet.rest AS r (appid, what, credentials, until, code, node)
            VALUES ($1, $2, $3, fleet.now() + $4 * interval '1 microsecond', $5, $6)
            ON CONFLICT (appid, what, credentials) DO UPDATE SET
              (until, code, node) = (excluded.until, excluded.code, excluded.node)
            WHERE r.until < excluded.until OR r.node = excluded.node";
        self.maintain(
            SQL,
            &[
                (&key.appid, Type::TEXT),
                (&key.what, Type::TEXT),
                (&key.credentials, Type::BYTEA),
                (&micros(wait), Type::INT8),
                (&code, Type::TEXT),
                (&i16::from(node), Type::INT2),
            ],
            UPKEEP_LIMIT,
        )
        .await
        .map(drop)
    }

    /// Ends a rest. Removes those that have long ended.
    ///
    /// # Errors
    /// [`LinkError`]; it may have ended.
    pub async fn end_rest(&self, key: &RestKey) -> Result<(), LinkError> {
        const SQL: &str = "DELETE FROM fleet.rest WHERE (appid, what, credentials) = ($1, $2, $3)
            OR until < fleet.now() - interval '1 day'";
        let parameters: [Parameter<'_>; 3] =
            [(&key.appid, Type::TEXT), (&key.what, Type::TEXT), (&key.credentials, Type::BYTEA)];
        self.maintain(SQL, &parameters, UPKEEP_LIMIT).await.map(drop)
    }
}

/// A rest from six columns; none where the first is absent.
pub(super) fn rest(row: &Row, column: usize) -> Result<Option<Rest>, LinkError> {
    let Some(appid) = row.try_get::<_, Option<String>>(column)? else { return Ok(None) };
    let key = RestKey { appid, what: row.try_get(column + 1)?, credentials: row.try_get(column + 2)? };
    Ok(Some(Rest {
        key,
        code: row.try_get(column + 3)?,
        node: u8::try_from(row.try_get::<_, i16>(column + 4)?).unwrap_or(u8::MAX), // 0 to 99
        left: row.try_get(column + 5)?,
    }))
}
