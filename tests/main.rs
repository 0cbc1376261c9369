//! End-to-end tests of the real executable: over raw sockets, the command line and the SQLite files.
//!
//! The simplest tests come first. Where a test sets the clock, the same `App` runs inside the test.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

mod support;

// A lookup: the body and the headers of its response.
mod look_up;

// The sample clients of the carrier page, byte for byte.
mod clients;

// The request forms of real clients: GET and POST, encodings, keep-alive, pipelining.
mod wire;

// The refusals of the proxy and their codes.
mod refusals;

// Authorization: networks, cards, operations, rates.
mod rights;

// Gateway connections: limits, timeouts, PROXY protocol, sockets, TLS, HTTP/2.
mod connections;

// The process: sockets from systemd, core dumps, passwords in memory, a single processor.
mod process;

// Messages to systemd, and its credentials.
mod service_manager;

// `packaging/`: the default configuration and the Compose file.
mod packaging;

// Reload: keys that apply at once, and keys that need a restart.
mod reload;

// `cmiot-proxy client`: edits of the client list while the proxy runs.
mod client_list;

// Replay protection: one response per transid, through restarts and clock steps.
mod replay;

// Replay modes, lenient formats, derived and revoked clients.
mod replay_modes;

// Repeated requests: through changes of their client, time and purges.
mod repeats;

// The cache: keys, groups, negative replies, restarts.
mod cache;

// Freshness lifetimes, with a manual clock.
mod freshness;

// Stale responses: when they are served, and how they are marked.
mod stale;

// Carrier faults: replies that are no valid envelope, timeouts, refused credentials.
mod carrier_faults;

// Connecting to the carrier: TLS and HTTP proxies.
mod carrier_connect;

// Connections to the carrier: resets, dead pools, exhausted file descriptors.
mod carrier_connections;

// Collapsing: many lookups of one card, one call.
mod collapse;

// Random sequences of lookups, time and carrier changes, against a reference model.
mod model;

// Isolation of groups: random sequences with and without the other group.
mod isolation;

// The carrier's quota: rate, day budget, cool-down, breaker, freshness requested by clients.
mod quota;

// Accounts of API v5: translated replies, codes and operations; tokens and their faults.
mod v5;

// Operations other than the user-status lookup.
mod operations;

// Actions: each is done once, and recorded before it is sent.
mod actions;

// Host names, addresses and HTTP versions of the gateways' and admin listeners.
mod hosts;

// Shares of clients and groups: replay table, flights, connections.
mod shares;

// `cmiot-proxy cache`: show, purge, stats, warm.
mod purge;

// Transids of the proxy's own calls.
mod transids;

// Audit records: one per request, durable before the response.
mod audit;

// Audit records of requests whose client leaves, and at drain and crash.
mod records;

// The queries and commands of docs/auditing.md, as printed.
mod audit_docs;

// `cmiot-proxy audit`: query, export, backup, prune, erase.
mod audit_commands;

// `cmiot-proxy audit verify`: anchors, damage, acknowledged losses.
mod audit_evidence;

// `POST /audit/query` of the admin listener.
mod audit_query;

// Audit: disk and clock faults.
mod audit_faults;

// Audit: failed syncs, and power loss after them.
mod audit_syncs;

// Audit: segments that are removed, renamed or replaced.
mod audit_place;

// SIGKILL under load.
mod crash;

// Drain.
mod drain;

// Databases: newer, lost, in use, foreign.
mod databases;

// `cmiot-proxy backup` and `restore`.
mod backup;

// Notes about acts of operators.
mod acts;

// The configuration and the databases of an earlier version.
mod upgrade;

// The admin listener: health, metrics, tokens, roles.
mod admin;

// The operators' page, without scripts.
mod pages;

// The rules for Prometheus, the dashboard, the metrics, docs/operations.md.
mod monitoring;

// The language of text for people: commands and `/ready`.
mod language;

// Alarms, their lines in the log, and the log under systemd.
mod watch;

// `cmiot-proxy check`, also `--live`.
mod check;

// `cmiot-proxy check --schema` and `--keys`.
mod schema;

// `cmiot-proxy sign`.
mod sign;

// `cmiot-proxy lookup`, `simulate`, `demo`; help and exit codes.
mod commands;

// The commands and the listeners that they ask: TLS, client certificates, Unix sockets, cards on standard input.
mod reach;

// Webhooks: signatures, repetitions, dead letters; `cmiot-proxy webhook`.
mod webhooks;

// The log: lines, format, secrets, a blocked or full output.
mod logs;

// The READMEs: configuration, commands and queries, as printed.
mod readme;

// Gateway firmware on emulated chips.
mod firmware;
