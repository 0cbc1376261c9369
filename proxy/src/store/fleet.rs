//! The database of a fleet: its SQL, and the link to it. PostgreSQL is reached through [`Link`] only.

use std::time::Duration;

/// The channel on which the nodes hear of landings and purges, for SQL.
macro_rules! channel {
    () => {
        "cmiot_fleet"
    };
}

pub mod agreement;
pub mod central;
pub mod connect;
pub mod flights;
pub mod link;
pub mod listen;
pub mod migrate;
pub mod nodes;
pub mod operate;
pub mod pace;
pub mod purge;
pub mod quota;
pub mod replay;
pub mod rest;
pub mod ship;
pub mod status;

pub use connect::{ConnectError, Session};
pub use link::{Dedicated, Link, LinkError, Parameter};

/// The channel on which the nodes hear of landings and purges. Its payloads name keys and numbers, never a card.
pub const CHANNEL: &str = channel!();

/// Limit of a statement that no request waits for, below the server's own ([`connect::STATEMENT_TIMEOUT`]).
const UPKEEP_LIMIT: Duration = Duration::from_millis(900);

/// Microseconds, as statements take durations. Two of them can be added.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_announce_on_the_channel_that_nodes_hear() {
        let migration = include_str!("../../../migrations/fleet/0001_fleet.sql");
        assert!(migration.contains(&format!("pg_notify('{CHANNEL}', 'purge ' ||")));
    }

    #[test]
    fn a_statement_that_no_request_waits_for_ends_before_the_server_ends_it() {
        assert!(UPKEEP_LIMIT < connect::STATEMENT_TIMEOUT);
        assert!(micros(Duration::MAX).checked_add(micros(Duration::MAX)).is_some());
        assert_eq!(micros(Duration::from_millis(3)), 3_000);
    }
}
