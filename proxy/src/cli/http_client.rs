//! HTTP client of the commands: requests to one listener of a proxy, over TCP or a Unix socket, with TLS or without.
//!
//! Errors name the address alone, since a URL may hold a token, and end with the remedy where there is one.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{AlertDescription, ClientConfig};
use tokio::net::UnixStream;
use tower_service::Service;

/// The timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The address of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    /// A URL, `http` or `https`, without a closing slash.
    Url(String),
    /// A socket file, with TLS or without.
    Unix { path: PathBuf, tls: bool },
}

/// A client of one listener. Clones share the connections.
#[derive(Clone)]
pub(super) struct HttpClient {
    transport: Transport,
    /// Scheme, authority and path prefix of each request.
    base: String,
    /// The address for errors.
    name: String,
}

#[derive(Clone)]
enum Transport {
    Tcp(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
    Unix(Client<HttpsConnector<UnixConnector>, Full<Bytes>>),
}

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

impl Address {
    /// Whether TLS is used there.
    pub(super) fn has_tls(&self) -> bool {
        match self {
            Self::Url(url) => url.starts_with("https://"),
            Self::Unix { tls, .. } => *tls,
        }
    }

    /// Whether any process could listen here in place of the proxy: neither a certificate nor the rights of a socket file's
    /// folder show who does.
    pub(super) fn proves_nothing(&self) -> bool {
        matches!(self, Self::Url(_)) && !self.has_tls()
    }

    /// Whether requests leave this machine without TLS.
    pub(super) fn crosses_network_in_clear(&self) -> bool {
        match self {
            Self::Url(url) => !self.has_tls() && !is_loopback(url),
            Self::Unix { .. } => false,
        }
    }
}

/// Whether the host of a URL is localhost or a loopback address.
fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl HttpClient {
    /// A client of the listener at this address, which connects at its first request.
    ///
    /// # Errors
    /// An address that is no URL with a host.
    pub(super) fn new(address: &Address, tls: ClientConfig) -> anyhow::Result<Self> {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        match address {
            Address::Unix { path, tls } => {
                let scheme = if *tls { "https" } else { "http" };
                let transport =
                    Transport::Unix(client(connector.wrap_connector(UnixConnector(path.clone()))));
                let name = format!("unix:{}", path.display());
                Ok(Self { transport, base: format!("{scheme}://localhost"), name })
            }
            Address::Url(url) => {
                let uri: Uri = url.parse().context("not a URL")?;
                if !matches!(uri.scheme_str(), Some("http" | "https")) {
                    bail!("the URL must begin with http://, https:// or unix:");
                }
                let authority = uri.authority().context("a URL without a host")?.as_str();
                if authority.contains('@') {
                    bail!("the URL must have no user name or password");
                }
                let mut http = HttpConnector::new();
                http.enforce_http(false);
                http.set_nodelay(true);
                http.set_connect_timeout(Some(CONNECT_TIMEOUT));
                let transport = Transport::Tcp(client(connector.wrap_connector(http)));
                Ok(Self { transport, base: url.trim_end_matches('/').to_owned(), name: authority.to_owned() })
            }
        }
    }

    /// Scheme, authority and path prefix of each request.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// GETs a path below [`Self::base`].
    pub(super) async fn get(&self, path: &str, headers: &[(&'static str, &str)]) -> anyhow::Result<Reply> {
        self.get_url(&format!("{}{path}", self.base), headers).await
    }

    /// GETs a URL that begins with [`Self::base`].
    pub(super) async fn get_url(&self, url: &str, headers: &[(&'static str, &str)]) -> anyhow::Result<Reply> {
        self.send(Method::GET, url, headers, Bytes::new()).await
    }

    /// POSTs JSON to a path below [`Self::base`].
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Reply> {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        self.send(Method::POST, &format!("{}{path}", self.base), &headers, body).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Reply> {
        let request = Request::builder().method(method).uri(url);
        let request = headers.iter().fold(request, |all, (name, value)| all.header(*name, *value));
        let request = request.body(Full::new(body)).context("a URL or a token that HTTP does not allow")?;
        let exchange = async {
            let response = match &self.transport {
                Transport::Tcp(client) => client.request(request).await,
                Transport::Unix(client) => client.request(request).await,
            };
            let (head, body) = response?.into_parts();
            anyhow::Ok(Reply {
                status: head.status,
                headers: head.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        exchange.await.map_err(|error| match remedy(&error, &self.base) {
            Some(remedy) => anyhow::anyhow!("asking {}: {error:#}: {remedy}", self.name),
            None => error.context(format!("asking {}", self.name)),
        })
    }
}

fn client<C: Connect + Clone>(connector: C) -> Client<C, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build(connector)
}

/// The remedy for an error of TLS, or for its absence, at this base of URLs.
fn remedy(error: &anyhow::Error, base: &str) -> Option<&'static str> {
    let ended = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<hyper::Error>().is_some_and(|e| e.is_incomplete_message() || e.is_parse())
            || cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionReset)
    };
    if !base.starts_with("https:") && error.chain().any(ended) {
        return Some("the listener sends no HTTP response: if it uses TLS, write https:// in --url");
    }
    let tls = error.chain().find_map(|mut cause| {
        while let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            cause = inner;
        }
        cause.downcast_ref::<rustls::Error>()
    });
    match tls? {
        rustls::Error::InvalidCertificate(_) => Some(
            "the certificate is not the one that the configuration names, and no trusted root signed it for this name: \
             name its root with --ca FILE or SSL_CERT_FILE",
        ),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::HandshakeFailure,
        ) => Some(
            "the listener requires a certificate of its client_ca_file: give --client-certificate FILE and --client-key FILE",
        ),
        rustls::Error::InvalidMessage(_) if is_loopback(base) => {
            Some("the listener does not use TLS: write http:// instead of https://")
        }
        // Over a network http:// would show the token.
        rustls::Error::InvalidMessage(_) => {
            Some("the listener does not use TLS: configure [admin.tls] there")
        }
        _ => None,
    }
}

/// Connects to a socket file, whatever the URL names.
#[derive(Clone, Debug)]
struct UnixConnector(PathBuf);

impl Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<UnixStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_crosses_the_network_unless_the_host_is_loopback() {
        let crosses = |url: &str| Address::Url(url.to_owned()).crosses_network_in_clear();
        for own in [
            "http://127.0.0.1:8081",
            "http://[::1]:8081",
            "http://LOCALHOST:8081",
            "https://proxy.example",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(!crosses(own), "{own}");
        }
        for other in [
            "http://proxy.example:8081",
            "http://192.0.2.1:8081",
            "http://localhost.example",
            "HTTP://192.0.2.1",
            "http://127.0.0.1.example",
        ] {
            assert!(crosses(other), "{other}");
        }
        assert!(!Address::Unix { path: "/run/admin.sock".into(), tls: false }.crosses_network_in_clear());
    }
}
