//! The gateways' side of the wire: HTTP in, a look-up; an answer, HTTP out.
//!
//! [`crate::wire`] parses and renders; [`Relay`] calls both.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, Request};
use tokio_util::either::Either;

use crate::clock::timeout;
use crate::listen::x_forwarded_for;
use crate::peer::Peer;
use crate::refusal::{Malformed, Refusal};
use crate::relay::{HttpRequest, Relay, RunToCompletion};
use crate::wire::request::MAX_BODY;
use crate::wire::response::HttpResponse;

/// Answers one HTTP request from `peer`. A body that is not there within `[gateway]` `body_timeout` counts as cut off.
///
/// A request without a body, as nearly all are, is looked up before anything waits. One that is cut off in its body, by its
/// client or by the end of a drain, has its record too.
pub fn serve(
    relay: Arc<Relay>,
    request: Request<Incoming>,
    origin: Peer,
) -> impl Future<Output = HttpResponse> + Send + use<> {
    let (origin, patience) = {
        let gateway = &relay.config.load().gateway;
        let address =
            x_forwarded_for::origin(origin.address, request.headers(), &gateway.limits.trusted_proxies);
        (Peer { address, ..origin }, gateway.limits.timeouts.body)
    };
    if request.body().is_end_stream() {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let version = request.version();
        let http =
            HttpRequest { method, uri, version, headers, body: Ok(&[]), peer: origin, client_gone: None };
        Either::Left(relay.handle(&http))
    } else {
        let (tasks, stopping) = (relay.tasks.clone(), relay.shutdown.clone());
        Either::Right(RunToCompletion::new(&tasks, None, |left| async move {
            let (head, body) = request.into_parts();
            let body = tokio::select! {
                biased;
                body = read(&head.method, body, patience) => body,
                () = stopping.cancelled() => Err(Refusal::Malformed(Malformed::BodyTruncated)),
            };
            let body = body.as_deref().map_err(Clone::clone);
            let Parts { method, uri, headers, version, .. } = &head;
            let version = *version;
            relay
                .handle(&HttpRequest {
                    method,
                    uri,
                    version,
                    headers,
                    body,
                    peer: origin,
                    client_gone: Some(left),
                })
                .await
        }))
    }
}

async fn read(method: &Method, body: Incoming, patience: Duration) -> Result<Bytes, Refusal> {
    if method == Method::GET {
        return Err(Refusal::Malformed(Malformed::GetBody));
    }
    match timeout(patience, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::Malformed(Malformed::BodyTooLong)),
        Ok(Err(_)) | Err(_) => Err(Refusal::Malformed(Malformed::BodyTruncated)),
    }
}
