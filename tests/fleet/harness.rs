//! The harness of the fleet tests: a PostgreSQL server ([`Postgres`]) and sockets in front of it that a test stalls, cuts
//! or delays ([`Partition`]).
//!
//! Both end with the test, also when it panics. They signal only processes that they started.

mod partition;
mod postgres;
mod process;
mod template;

pub(crate) use partition::{Mode, Partition};
pub(crate) use postgres::{DATABASE, Postgres, own_address};
