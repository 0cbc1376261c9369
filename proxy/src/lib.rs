//! Edge proxy for SIM-card lookups on China Mobile's IoT platform (CMIOT_API2002).
//!
//! It speaks the carrier's own wire format to gateways, verifies every signature, responds from memory or SQLite while
//! an entry is fresh, collapses concurrent identical lookups into one carrier call, signs that call itself, and commits an
//! audit record before each response leaves. Imports point down this list (ARCHITECTURE.md has the whole order):
//!
//! | modules | purpose |
//! | --- | --- |
//! | [`app`] | build order, ownership of tasks, drain order |
//! | [`gateway`], [`admin`] | HTTP towards gateways and operators |
//! | [`relay`] | the path of a lookup |
//! | [`audit`] | audit records |
//! | [`admit`] | authentication and authorization |
//! | [`cache`], [`wire`], [`refusal`] | entries; the carrier's format; refused requests |
//! | [`carrier`], [`flight`], [`listen`], [`sequence`] | calls; their collapsing; sockets; transids of calls |
//! | [`store`] | all SQL |
//! | [`metrics`], [`process`], [`config`] | metrics; restrictions of the process; the configuration |
//! | all others | leaves that any module may use |

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
