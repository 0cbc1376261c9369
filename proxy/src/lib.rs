//! The edge proxy of a fleet for SIM-card look-ups on China Mobile's IoT platform (CMIOT_API2002).
//!
//! It speaks the carrier's own wire format to gateways, checks every signature, answers from memory or SQLite while
//! fresh, collapses identical look-ups into one carrier call, signs that call itself, and commits an audit record
//! before each answer leaves. One room, one job; arrows go down:
//!
//! | room | its one job |
//! | --- | --- |
//! | [`app`] | build order, ownership of tasks, drain order |
//! | [`listen`], [`tls`] | sockets and their limits |
//! | [`gateway`], [`admin`] | HTTP towards gateways and operators |
//! | [`relay`] | the path of a look-up |
//! | [`admit`] | who asks, may they |
//! | [`cache`], [`flight`], [`carrier`], [`audit`] | what is known, who asks for whom, the call, the record |
//! | [`sequence`] | the transids of carrier calls |
//! | [`log`] | lines to standard error, without waiting for it |
//! | [`process`] | what the kernel is asked for |
//! | [`store`] | the only SQL |
//! | [`operation`], [`outcome`], [`metrics`], [`config`], [`clock`], [`gcra`], [`alarms`], [`peer`], [`printable`] | leaves that all of them use |

pub mod admin;
pub mod admit;
pub mod alarms;
pub mod app;
pub mod audit;
pub mod cache;
pub mod carrier;
pub mod clock;
pub mod config;
pub mod flight;
pub mod gateway;
pub mod gcra;
pub mod inline_str;
pub mod lifetimes;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod operation;
pub mod outcome;
pub mod peer;
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
pub mod wire;
