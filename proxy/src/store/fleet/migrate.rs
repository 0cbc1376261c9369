//! The schema of the fleet's database: `migrations/fleet/NNNN_name.sql`, applied by an operator's command only.
//!
//! Each step is applied in one transaction, with its number in `fleet.about`; an advisory lock covers all steps. Nodes never
//! migrate.

use tokio_postgres::{Client, Error};

/// One step of the schema.
struct Migration {
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares it with the folder"))]
    file: &'static str,
    sql: &'static str,
}

macro_rules! migration {
    ($file:literal) => {
        Migration { file: $file, sql: include_str!(concat!("../../../../migrations/fleet/", $file)) }
    };
}

const MIGRATIONS: &[Migration] = &[
    migration!("0001_fleet.sql"),
    migration!("0002_audit.sql"),
    migration!("0003_agreement.sql"),
    migration!("0004_carrier.sql"),
];

/// The key of the advisory lock under which the schema changes: "cmiotflt" in ASCII.
const LOCK: i64 = i64::from_be_bytes(*b"cmiotflt");

/// The version of the schema that this proxy needs.
pub fn version() -> i32 {
    // The list does not have 2^31 elements.
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// The SQL of the steps after `version`, for an operator whose own role may not create schemas.
pub fn sql_after(version: i32) -> String {
    let skip = usize::try_from(version).unwrap_or(0); // a version is never negative
    let steps = MIGRATIONS.iter().enumerate().skip(skip);
    steps
        .map(|(index, one)| format!("{}\nUPDATE fleet.about SET version = {};\n", one.sql, index + 1))
        .collect()
}

/// Applies the steps that are missing, and grants the role of the nodes its rights; returns the versions before and after.
/// Another migration waits meanwhile.
///
/// # Errors
/// When the role may not change the schema, or the server fails; nothing of the failed step is applied.
pub async fn migrate(client: &mut Client, node_role: &str) -> Result<(i32, i32), Error> {
    // In place of the limits of a request.
    client.batch_execute("SET statement_timeout = 0; SET lock_timeout = '60s'").await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let result = apply(client, node_role).await;
    // The lock ends with the session, too.
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
    result
}

async fn apply(client: &mut Client, node_role: &str) -> Result<(i32, i32), Error> {
    let before = applied(client).await?;
    for (number, migration) in (1_i32..).zip(MIGRATIONS).filter(|(number, _)| *number > before) {
        let transaction = client.transaction().await?;
        transaction.batch_execute(migration.sql).await?;
        transaction.execute("UPDATE fleet.about SET version = $1", &[&number]).await?;
        transaction.commit().await?;
    }
    client.execute("SELECT fleet.grant_node($1)", &[&node_role]).await?;
    Ok((before, before.max(version())))
}

/// The number of steps that were applied; zero without the schema.
///
/// # Errors
/// When the server fails.
pub async fn applied(client: &impl tokio_postgres::GenericClient) -> Result<i32, Error> {
    // Not by to_regclass: its answer is from the caches of the session, which may not know yet what another migration has
    // committed while this one waited for the lock.
    const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
                                         WHERE s.nspname = 'fleet' AND c.relname = 'about')";
    if !client.query_one(EXISTS, &[]).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    Ok(client.query_one("SELECT version FROM fleet.about", &[]).await?.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_step_in_its_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/fleet");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, MIGRATIONS.iter().map(|one| one.file).collect::<Vec<_>>());
    }
}
