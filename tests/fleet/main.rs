//! End-to-end tests of a fleet: several proxies over one PostgreSQL server, each reached through a partition of its own.
//!
//! Server, partitions and proxies are processes and sockets of the test; `cargo xtask ci fleet` installs PostgreSQL and
//! runs these tests. The simplest tests come first.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

// The path makes this folder the parent of `support.rs`, whose modules are in `tests/support/`.
#[path = ".."]
mod shared {
    #[allow(dead_code, unused_imports, reason = "the other end-to-end tests use the rest")]
    pub(crate) mod support;
}
use shared::support;

// The server, the partitions and the proxies that the tests start.
mod harness;

// The harness itself: a killed or paused server, and each mode of a partition.
mod harness_tests;

// Answers and flights in the database: leads, fences, landings, and what a purge or a crash does to them.
mod flights;

// Responses and flights that three nodes share: one call for all, whatever becomes of it.
mod sharing;

// Replies of accounts of API v5 at nodes that did not make the call.
mod translated;

// The link to the database: time limits, the breaker, connections that are closed.
mod link;

// The identity of the server and of the node: TLS, password, client certificate, user of a socket.
mod connect;

// Nodes: numbers, lives, heartbeats, and the times when a node is alone.
mod nodes;

// Purges: in one order on all nodes.
mod purge;

// Payloads of notifications.
mod payloads;

// The budget: its statements, then proxies that share a day, a rate and the rests of an account.
mod budget;

// Proxies that share the limits of an account.
mod limits;

// A transid is accepted once by all nodes together.
mod replay;

// Changes of STATUS over all nodes, and their messages.
mod statuses;

// The Compose file of a fleet, as processes.
mod compose;

// Captured requests at the other nodes, while the database is killed, stalled or cut off.
mod captured;

// Random schedules of faults against a reference model.
mod schedule;

// The copy of the audit at the database, and its verification.
mod central;
