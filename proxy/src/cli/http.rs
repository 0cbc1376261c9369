//! One HTTP request on a connection of its own, for the commands that ask a proxy.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What came back.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// A header's text, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// GETs an `http` URL. Errors name the host alone: the URL holds a token.
pub(super) async fn get(url: &str, headers: &[(&'static str, &str)]) -> anyhow::Result<Reply> {
    send(Method::GET, url, headers, Bytes::new()).await
}

/// POSTs JSON to an `http` URL.
pub(super) async fn post(url: &str, headers: &[(&'static str, &str)], body: Bytes) -> anyhow::Result<Reply> {
    let headers = [headers, &[("content-type", "application/json")]].concat();
    send(Method::POST, url, &headers, body).await
}

async fn send(
    method: Method,
    url: &str,
    headers: &[(&'static str, &str)],
    body: Bytes,
) -> anyhow::Result<Reply> {
    let uri: Uri = url.parse().context("not a URL")?;
    if uri.scheme_str() != Some("http") {
        bail!("only http:// can be asked here");
    }
    let authority = uri.authority().context("a URL without a host")?.as_str();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let asked = || format!("asking {authority}");
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await.with_context(asked)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(asked)?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(uri.path_and_query().map_or("/", |target| target.as_str()))
        .header(header::HOST, authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(body))?).await.with_context(asked)?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.with_context(asked)?.to_bytes();
    drop(sender);
    connection.abort();
    Ok(Reply { status: head.status, headers: head.headers, body })
}
