//! The edge proxy of a fleet for SIM-card lookups on China Mobile's IoT platform (CMIOT_API2002).
//!
//! It speaks the carrier's own wire format to gateways, checks every token, serves fresh responses from memory or SQLite,
//! collapses identical lookups into one carrier call, signs that call itself, and commits an audit record before each
//! response leaves.
//!
//! # The life of a lookup
//!
//! [`listen`] accepts the connection within its limits, with [`tls`]. [`gateway`] reads the HTTP request, and passes it to
//! the [`relay`], which implements the path: [`wire`] parses the request, [`admit`] authenticates and authorizes its client,
//! [`cache`] looks up the response. On a miss a [`flight`] is joined or started, in which the [`carrier`] makes the call,
//! with a transid from [`sequence`]. The [`audit`] commits the record, and [`wire`] renders the response, or the
//! [`refusal`].
//!
//! # The other modules
//!
//! - [`app`] builds all parts, owns their tasks and drains them. [`config`] checks and reloads the configuration.
//! - [`admin`] serves the operators' endpoints, [`metrics`] and [`alarms`] among them.
//! - [`fleet`] lets several proxies act as one, through a database that they share.
//! - [`webhook`] sends messages about events in the audit.
//! - [`store`] holds all SQL, [`log`] the queue to standard error, [`process`] the requests to the operating system.
//! - Leaves: [`operation`], [`outcome`], [`proxy_code`], [`lifetimes`], [`units`], [`urgency`], [`gcra`], [`peer`],
//!   [`episode`], [`inline_str`], [`printable`], [`clock`], [`language`].
//!
//! ARCHITECTURE.md states the order of the modules: each imports from those below it only.

pub mod admin;
pub mod admit;
pub mod alarms;
pub mod app;
pub mod audit;
pub mod cache;
pub mod carrier;
pub mod clock;
pub mod config;
pub mod episode;
pub mod fleet;
pub mod flight;
pub mod gateway;
pub mod gcra;
pub mod inline_str;
pub mod language;
pub mod lifetimes;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod operation;
pub mod outcome;
pub mod peer;
pub mod plain_file;
pub mod printable;
pub mod process;
pub mod proxy_code;
pub mod refusal;
pub mod relay;
pub mod sequence;
pub mod store;
pub mod tls;
pub mod units;
pub mod urgency;
pub mod webhook;
pub mod wire;
