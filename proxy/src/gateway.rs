//! The gateways' side of the wire: HTTP in, a look-up; an answer, HTTP out.
//!
//! [`request`] reads, [`answer`] renders, and nothing else does either. Between the two stands [`Relay`].

pub mod answer;
pub mod request;

mod forwarded;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::{Method, Request, Response};

use crate::admit::Origin;
use crate::outcome::{Malformed, Refusal};
use crate::relay::{Asked, Relay};
use request::MAX_BODY;

/// Answers one HTTP request from `origin`. A body that is not there within `[gateway]` `body` counts as cut off.
pub async fn serve(relay: &Arc<Relay>, request: Request<Incoming>, origin: Origin) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let (origin, patience) = {
        let gateway = &relay.config.load().gateway;
        let address = forwarded::origin(origin.address, &head.headers, &gateway.trusted_proxies);
        (Origin { address, ..origin }, gateway.body.0)
    };
    let body = read(&head.method, body, patience).await;
    relay.answer(Asked { head, body, origin }).await.into_response()
}

async fn read(method: &Method, body: Incoming, patience: Duration) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if method == Method::GET {
        return Err(Refusal::Malformed(Malformed::GetBody));
    }
    // Boxed: most requests have none, and need no room for it.
    let collected = Box::pin(tokio::time::timeout(patience, Limited::new(body, MAX_BODY).collect())).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::Malformed(Malformed::BodyTooLong)),
        Ok(Err(_)) | Err(_) => Err(Refusal::Malformed(Malformed::BodyCutOff)),
    }
}
