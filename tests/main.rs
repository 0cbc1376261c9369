//! What the proxy promises, tried on the real executable: over raw sockets, the command line and the SQLite files.
//!
//! Simplest first. Where a clock must be set by hand the same `App` runs inside the test.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

mod support;

// One card, one answer: its body and its headers.
mod look_up;

// The sample clients of the carrier's page, byte for byte.
mod clients;

// The ways in which real clients send a look-up.
mod wire;

// What the proxy itself says, and in which code.
mod refusals;

// Who may ask for what, and how fast.
mod rights;

// Limits, time-outs, balancers, sockets, TLS.
mod connections;

// Sockets from systemd, memory that nobody may see.
mod process;

// A changed configuration: what counts at once, and what after a restart.
mod reload;

// The list of clients, edited while the proxy runs.
mod client_list;

// A transid is good for one answer.
mod replay;

// What a client may send twice; derived and revoked ones.
mod replay_modes;

// What is kept, for whom, through a restart.
mod cache;

// How long it serves, on a clock set by hand.
mod freshness;

// Better old than nothing, and always marked.
mod stale;

// What is not the carrier's answer never becomes one.
mod carrier_faults;

// TLS towards the carrier, and the proxies on the way there.
mod carrier_connect;

// Connections to the carrier that die, and those that cannot be made.
mod carrier_connections;

// Many askers, one call.
mod collapse;

// Any order of look-ups, time and changes at the carrier.
mod model;

// What one group does is nothing to another.
mod isolation;

// The carrier's quota and its bad days.
mod quota;

// The sisters of the user-status look-up.
mod operations;

// What changes something, done once.
mod actions;

// By which names and addresses gateways ask, over HTTP/1 and HTTP/2.
mod hosts;

// A request that is sent again: through changes of its client, time and purges.
mod repeats;

// What one client may hold of what all share.
mod shares;

// Looking into the cache, purging it, filling it.
mod purge;

// What the carrier sees of us.
mod transids;

// A record for every request, before its answer.
mod audit;

// The same when the client leaves, or the proxy stops.
mod records;

// What docs/auditing.md prints, as an auditor runs it.
mod audit_docs;

// The audit's commands.
mod audit_commands;

// What its verification shows, and what it says when it cannot.
mod audit_evidence;

// The audit over the operators' listener.
mod audit_query;

// Disks and clocks that fail under the audit.
mod audit_faults;

// Syncs that fail, and power that is lost afterwards.
mod audit_syncs;

// A segment that is removed, renamed or replaced while it is written.
mod audit_place;

// Killed in mid-load, started again.
mod crash;

// Told to stop.
mod drain;

// Newer, lost, taken.
mod databases;

// Live, ready, metrics.
mod admin;

// The configuration, and the carrier's word on it.
mod check;

// The token tool.
mod sign;

// Look-up, simulator, demo, help, exit codes.
mod commands;

// What a log tells, and what it never does.
mod logs;

// What the READMEs print.
mod readme;

// A gateway's firmware on an emulated chip.
mod firmware;
