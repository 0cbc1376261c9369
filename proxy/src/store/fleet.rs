//! The database of a fleet: its SQL, and the link to it. PostgreSQL is reached through [`Link`] only.

pub mod link;
pub mod migrate;
pub mod operate;

pub use link::{Link, LinkError};
