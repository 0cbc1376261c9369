//! What the proxy promises, tried on the real executable: over raw sockets, the command line and the SQLite files.
//!
//! Simplest first. Where a clock must be set by hand the same `App` runs inside the test.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

mod support;

mod admin; // live, ready, metrics
mod audit; // a record for every request, before its answer
mod cache; // what is kept, for whom, through a restart
mod carrier_faults; // what is not the carrier's answer never becomes one
mod check; // the configuration, and the carrier's word on it
mod clients; // the sample clients of the carrier's page, byte for byte
mod collapse; // many askers, one call
mod commands; // look-up, simulator, demo, help, exit codes
mod crash; // killed in mid-load, started again
mod databases; // newer, lost, taken
mod drain; // told to stop
mod freshness; // how long it serves, on a clock set by hand
mod logs;
mod look_up; // one card, one answer: its body and its headers
mod refusals; // what the proxy itself says, and in which code
mod replay; // a transid is good for one answer
mod rights; // who may ask for what, and how fast
mod sign; // the token tool
mod stale; // better old than nothing, and always marked
mod transids; // what the carrier sees of us
mod wire; // the ways in which real clients send a look-up // what a log tells, and what it never does
