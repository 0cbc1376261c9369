//! One HTTP request per connection, for the commands that send requests to a proxy.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A response.
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

/// POSTs JSON to an `http` URL, or to `unix:SOCKET//PATH`.
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
    let (host, target) = match url.strip_prefix("unix:") {
        // The path within the URL follows the first `//`.
        Some(rest) => {
            let (socket, path) = rest.split_once("//").context("not a URL")?;
            let asked = || format!("asking unix:{socket}");
            let stream = UnixStream::connect(socket).await.with_context(asked)?;
            let request = request(method, &format!("/{path}"), "localhost", headers, body)?;
            return exchange(stream, request).await.with_context(asked);
        }
        None => {
            let uri: Uri = url.parse().context("not a URL")?;
            if uri.scheme_str() != Some("http") {
                bail!("only http:// can be asked here");
            }
            let authority = uri.authority().context("a URL without a host")?;
            // Without what may be a password before the host.
            let host = authority.as_str().rsplit('@').next().unwrap_or_default().to_owned();
            (host, uri)
        }
    };
    let asked = || format!("asking {host}");
    let name = target.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, target.port_u16().unwrap_or(80))).await.with_context(asked)?;
    let path = target.path_and_query().map_or("/", |target| target.as_str());
    exchange(stream, request(method, path, &host, headers, body)?).await.with_context(asked)
}

fn request(
    method: Method,
    target: &str,
    host: &str,
    headers: &[(&'static str, &str)],
    body: Bytes,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let request = Request::builder().method(method).uri(target).header(header::HOST, host);
    let request = headers.iter().fold(request, |all, (name, value)| all.header(*name, *value));
    Ok(request.body(Full::new(body))?)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Reply>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    drop(sender);
    connection.abort();
    Ok(Reply { status: head.status, headers: head.headers, body })
}
