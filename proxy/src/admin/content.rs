//! The content of a response on the admin listener: a whole body, or the stream of a page.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::listen::{self, InFlight};

/// The content of a response.
#[derive(Debug, Default)]
pub struct Content {
    body: Body,
    /// The request is in flight until the last frame.
    request: Option<InFlight>,
}

impl From<Body> for Content {
    fn from(body: Body) -> Self {
        Self { body, request: None }
    }
}

impl From<Full<Bytes>> for Content {
    fn from(body: Full<Bytes>) -> Self {
        Body::new(body).into()
    }
}

impl hyper::body::Body for Content {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl listen::Content for Content {
    fn holding(mut self, request: InFlight) -> Self {
        // A whole body is written at once.
        if self.body.size_hint().exact().is_none() {
            self.request = Some(request);
        }
        self
    }
}
