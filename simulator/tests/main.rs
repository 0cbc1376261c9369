//! The simulator over real sockets, with a client over raw TCP.

mod client;

mod calls; // responses to valid calls, in every framing that real clients use
mod checks; // refusals and the order of the checks
mod faults; // the bytes of each fault
mod life; // stop, kill, restart
mod script; // rules, gates, limits, changed while running
mod v5; // API v5: tokens and queries
