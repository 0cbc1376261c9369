//! The content of responses: a whole body, or a stream that ends long after its response has started.

use std::error::Error;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;

use super::timeout::RequestGuard;

/// A request in flight: while it exists, its connection is not idle.
#[derive(Debug)]
pub struct InFlight(#[expect(dead_code, reason = "it is held for its Drop")] RequestGuard);

impl InFlight {
    pub(super) fn new(guard: RequestGuard) -> Self {
        Self(guard)
    }
}

/// The content of a response.
pub trait Content:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Default + Send + 'static
{
    /// The content, for whose time the request counts as in flight if it is a stream.
    #[must_use]
    fn holding(self, request: InFlight) -> Self;
}

impl Content for Full<Bytes> {
    /// The request ends with its response.
    fn holding(self, _: InFlight) -> Self {
        self
    }
}
