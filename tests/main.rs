//! What the proxy promises, tried on the real executable: over raw sockets, the command line and the SQLite files.
//!
//! Simplest first. Where a clock must be set by hand the same `App` runs inside the test.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

mod support;

mod cache;
mod clients; // the sample clients of the carrier's page, byte for byte
mod look_up; // one card, one answer: its body and its headers
mod refusals; // what the proxy itself says, and in which code
mod replay; // a transid is good for one answer
mod rights; // who may ask for what, and how fast
mod wire; // the ways in which real clients send a look-up // what is kept, for whom, through a restart
