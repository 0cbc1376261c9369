//! The simulator over real sockets, seen through a client that speaks raw TCP.

mod client;

mod calls; // what a well-behaved caller gets, in every framing known from the wild
mod checks; // what the carrier refuses, and in which order
mod faults; // what a caller must survive
mod life; // stop, kill, restart
mod script; // rules, gates, limits, changed while running
