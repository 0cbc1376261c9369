//! The carrier's wire format as gateways use it: [`request`] parses, [`response`] renders, and nothing else does either.

pub mod request;
pub mod response;
