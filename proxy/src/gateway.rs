//! The HTTP adapter between the gateway listener and the [`Relay`]: it reads a request's body, and finds the client's
//! address behind trusted proxies.

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

/// Serves one HTTP request of `peer`. A body that is not complete within `[gateway]` `body_timeout` counts as truncated.
///
/// A request without a body, as nearly all are, is looked up before anything waits. A request whose body is truncated, by
/// its client or by the end of a drain, has its record too.
pub fn serve(
    relay: Arc<Relay>,
    request: Request<Incoming>,
    peer: Peer,
) -> impl Future<Output = HttpResponse> + Send + use<> {
    let (peer, body_timeout) = {
        let gateway = &relay.config.load().gateway;
        let address =
            x_forwarded_for::client_address(peer.address, request.headers(), &gateway.limits.trusted_proxies);
        (Peer { address, ..peer }, gateway.limits.timeouts.body)
    };
    if request.body().is_end_stream() {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let version = request.version();
        let http = HttpRequest { method, uri, version, headers, body: Ok(&[]), peer, client_gone: None };
        Either::Left(relay.handle(&http))
    } else {
        let (tasks, shutdown) = (relay.tasks.clone(), relay.shutdown.clone());
        Either::Right(RunToCompletion::new(&tasks, None, |client_gone| async move {
            let (head, body) = request.into_parts();
            let body = tokio::select! {
                biased;
                body = read(&head.method, body, body_timeout) => body,
                () = shutdown.cancelled() => Err(Refusal::Malformed(Malformed::BodyTruncated)),
            };
            let body = body.as_deref().map_err(Clone::clone);
            let Parts { method, uri, headers, version, .. } = &head;
            let (version, client_gone) = (*version, Some(client_gone));
            relay.handle(&HttpRequest { method, uri, version, headers, body, peer, client_gone }).await
        }))
    }
}

async fn read(method: &Method, body: Incoming, body_timeout: Duration) -> Result<Bytes, Refusal> {
    if method == Method::GET {
        return Err(Refusal::Malformed(Malformed::GetBody));
    }
    match timeout(body_timeout, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::Malformed(Malformed::BodyTooLong)),
        Ok(Err(_)) | Err(_) => Err(Refusal::Malformed(Malformed::BodyTruncated)),
    }
}
