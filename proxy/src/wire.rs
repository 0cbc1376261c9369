//! The carrier's wire format as gateways use it: [`request`] parses, [`response`] renders, and nothing else does either.

pub mod cache_control;
pub mod request;
pub mod response;
pub mod transid;
