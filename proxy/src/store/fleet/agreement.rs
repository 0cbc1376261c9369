//! Settings that all nodes need alike: a hash per name for each life, compared with those of the other lives.

use tokio_postgres::types::Type;

use super::UPKEEP_LIMIT;
use super::flights::SharedKey;
use super::link::{Link, LinkError, Parameter};

/// Stores the names and hashes of a life, and returns the names for which a current life has another hash, with the number
/// of its node.
macro_rules! compare {
    ($table:literal, $name:literal, $hash:literal) => {
        concat!(
            "WITH mine AS (SELECT * FROM unnest($2, $3) AS m(name, hash)),
             removed AS (DELETE FROM fleet.",
            $table,
            " g WHERE g.life = $1 AND g.",
            $name,
            " <> ALL ($2)),
             written AS (
               INSERT INTO fleet.",
            $table,
            " AS g (life, ",
            $name,
            ", ",
            $hash,
            ") SELECT $1, name, hash FROM mine
               ON CONFLICT (life, ",
            $name,
            ") DO UPDATE SET ",
            $hash,
            " = excluded.",
            $hash,
            "
               WHERE g.",
            $hash,
            " <> excluded.",
            $hash,
            ")
             SELECT m.name, l.node FROM mine m
             JOIN fleet.",
            $table,
            " g ON g.",
            $name,
            " = m.name AND g.",
            $hash,
            " <> m.hash AND g.life <> $1
             JOIN fleet.life l ON l.id = g.life AND NOT l.gone AND l.until > fleet.now()
             ORDER BY 1, 2"
        )
    };
}

/// A kind of names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// The groups of accounts.
    Groups,
    /// Settings of the whole node.
    Settings,
}

/// Stores the names and hashes of a life, and returns the names for which a current life has another hash, with the number
/// of its node.
///
/// # Errors
/// [`LinkError`].
pub async fn compare(
    link: &Link,
    life: i64,
    what: Compared,
    named: &[(&str, SharedKey)],
) -> Result<Vec<(String, i16)>, LinkError> {
    let statement = match what {
        Compared::Groups => compare!("grouping", "\"group\"", "accounts"),
        Compared::Settings => compare!("agreement", "subject", "digest"),
    };
    let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
    let hashes: Vec<&[u8]> = named.iter().map(|(_, hash)| hash.as_slice()).collect();
    let parameters: [Parameter<'_>; 3] =
        [(&life, Type::INT8), (&names, Type::TEXT_ARRAY), (&hashes, Type::BYTEA_ARRAY)];
    let rows = link.maintain(statement, &parameters, UPKEEP_LIMIT).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
