//! TLS connections of the load generators: to a server for `localhost` with a certificate that `xtask/src/setup.rs` makes.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The name that the certificate is for.
pub(crate) const NAME: &str = "localhost";

/// A connection over TCP or TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

pub(crate) type Connection = Pin<Box<dyn Stream>>;

/// A client that trusts the certificate in this file, resumes sessions, and offers this protocol of ALPN.
pub(crate) fn connector(file: &Path, protocol: &[u8]) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).with_context(|| file.display().to_string())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects, with TLS if there is a client for it.
pub(crate) async fn connect(address: SocketAddr, tls: Option<&TlsConnector>) -> Result<Connection> {
    let stream = TcpStream::connect(address).await.context("connecting")?;
    stream.set_nodelay(true)?;
    Ok(match tls {
        None => Box::pin(stream),
        Some(tls) => Box::pin(tls.connect(ServerName::try_from(NAME)?, stream).await.context("TLS")?),
    })
}
