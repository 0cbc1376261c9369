//! The harness of the fleet tests: proxies ([`Nodes`]) over a PostgreSQL server ([`Postgres`]), each through a socket that
//! a test stalls, cuts or delays ([`Partition`]).
//!
//! All end with the test, also when it panics. They signal only processes that they started.

mod links;
mod nodes;
mod partition;
mod postgres;
mod process;
mod template;

pub(crate) use links::{configuration, create_tables, lift_time_limits, link_of};
pub(crate) use nodes::{Node, Nodes, config_in, fleet_setup, folder_of};
pub(crate) use partition::{Mode, Partition};
pub(crate) use postgres::{DATABASE, Postgres, own_address};
