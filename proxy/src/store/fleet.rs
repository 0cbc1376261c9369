//! The database of a fleet: its SQL, and the link to it. PostgreSQL is reached through [`Link`] only.

pub mod central;
pub mod connect;
pub mod flights;
pub mod link;
pub mod listen;
pub mod migrate;
pub mod nodes;
pub mod operate;
pub mod pace;
pub mod purge;
pub mod quota;
pub mod replay;
pub mod rest;
pub mod ship;
pub mod status;

pub use connect::{ConnectError, Session};
pub use link::{Dedicated, Link, LinkError, Parameter, Request};
