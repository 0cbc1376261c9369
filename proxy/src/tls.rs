//! TLS towards gateways and operators: certificate chain and key from PEM files, optionally client certificates.
//!
//! A configuration holds the finished [`Server`]; a reload reads the files anew, and connections made from then on use
//! the new ones. TLS 1.2 and 1.3, as rustls allows; HTTP/2 and HTTP/1.1 by ALPN (RFC 7301).

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// What a listener needs to speak TLS.
#[derive(Clone)]
pub struct Server(Arc<ServerConfig>);

/// The bytes of the PEM files that a [`Server`] is made of.
#[derive(Debug)]
pub struct Pem<'a> {
    /// The certificate and those between it and a root.
    pub chain: &'a [u8],
    /// Its private key.
    pub key: &'a [u8],
    /// The roots that client certificates must come from; without it none is asked for.
    pub client_roots: Option<&'a [u8]>,
    /// A client without a certificate is let in; what it may ask is for its rights to say.
    pub certificate_optional: bool,
}

impl Server {
    /// From PEM.
    ///
    /// # Errors
    /// What is wrong, without a byte of the key.
    pub fn new(pem: &Pem<'_>) -> Result<Self, String> {
        let chain = certificates(pem.chain).map_err(|e| format!("cert_file: {e}"))?;
        let key = PrivateKeyDer::from_pem_slice(pem.key)
            .map_err(|_| "key_file: holds no private key in PEM".to_owned())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let builder = match pem.client_roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let mut store = RootCertStore::empty();
                for root in certificates(roots).map_err(|e| format!("client_ca_file: {e}"))? {
                    store.add(root).map_err(|e| format!("client_ca_file: {e}"))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
                let verifier =
                    if pem.certificate_optional { verifier.allow_unauthenticated() } else { verifier };
                builder
                    .with_client_cert_verifier(verifier.build().map_err(|e| format!("client_ca_file: {e}"))?)
            }
        };
        let mut config =
            builder.with_single_cert(chain, key).map_err(|e| format!("cert_file, key_file: {e}"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Accepts connections with it.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

/// The DNS names of a certificate (RFC 5280 4.2.1.6), in lower case.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    parsed.valid_dns_names().map(str::to_ascii_lowercase).collect()
}

/// The certificates of a PEM file; there must be one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("holds no certificate in PEM".to_owned()),
    }
}
