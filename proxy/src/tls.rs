//! TLS: certificate and key towards gateways and operators; towards the carrier, which certificates to trust.
//!
//! The configuration holds the finished [`ServerTls`]; a reload reads the files again, and later connections use the new
//! ones. TLS 1.2 and 1.3, as rustls allows; HTTP/2 and HTTP/1.1 by ALPN (RFC 7301).

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsAcceptor;

/// TLS configuration of a listener.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

/// Contents of the PEM files for a [`ServerTls`].
#[derive(Debug)]
pub struct Pem<'a> {
    /// The certificate and its intermediates.
    pub chain: &'a [u8],
    /// The private key of the certificate.
    pub key: &'a [u8],
    /// The roots of client certificates; if absent, none is requested.
    pub client_roots: Option<&'a [u8]>,
    /// Whether a client without a certificate may connect; its permissions decide what it may request.
    pub certificate_optional: bool,
}

impl ServerTls {
    /// From PEM.
    ///
    /// # Errors
    /// The problem, without a byte of the key.
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

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// Trust in the carrier's certificate.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClientTrust {
    /// Roots in addition to the platform's.
    pub roots: Vec<CertificateDer<'static>>,
    /// The only certificate that is accepted, whatever its signature.
    pub pinned: Option<CertificateDer<'static>>,
    pub min_version: MinVersion,
}

/// The lowest TLS version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MinVersion {
    #[default]
    Tls12,
    Tls13,
}

/// TLS towards the carrier: a pinned certificate, or the platform's roots and further ones; the bundled roots if the
/// platform has none.
///
/// # Errors
/// When the roots are not valid.
pub(crate) fn client(trust: &ClientTrust) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[_] = match trust.min_version {
        MinVersion::Tls12 => rustls::ALL_VERSIONS,
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    if let Some(pinned) = &trust.pinned {
        let only = Arc::new(Pinned { certificate: pinned.clone(), provider });
        return Ok(builder.dangerous().with_custom_certificate_verifier(only).with_no_client_auth());
    }
    match Verifier::new_with_extra_roots(trust.roots.iter().cloned(), provider) {
        Ok(verifier) => {
            Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
        }
        Err(error) => {
            tracing::info!(%error, "no root certificates on this platform: using the bundled ones");
            let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            for root in &trust.roots {
                roots.add(root.clone())?;
            }
            Ok(builder.with_root_certificates(roots).with_no_client_auth())
        }
    }
}

/// Accepts one certificate and no other. Its name, dates and issuer do not matter, but the other side must have its key.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    /// Whether the handshake with a server with this certificate and key succeeds.
    async fn handshake(trust: &ClientTrust, certificate: &rcgen::Certificate, key: &KeyPair) -> bool {
        let pem = certificate.pem();
        let key = key.serialize_pem();
        let server = ServerTls::new(&Pem {
            chain: pem.as_bytes(),
            key: key.as_bytes(),
            client_roots: None,
            certificate_optional: false,
        });
        let (near, far) = tokio::io::duplex(16 << 10);
        let accepting = server.unwrap().acceptor().accept(far);
        let name = ServerName::try_from("carrier.example").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client(trust).unwrap()));
        let (connected, _) = tokio::join!(connector.connect(name, near), accepting);
        connected.is_ok()
    }

    #[tokio::test]
    async fn the_carrier_is_trusted_by_a_further_root_or_its_pinned_certificate() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names = || CertificateParams::new(vec!["carrier.example".to_owned()]).unwrap();
        let (key, own_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let signed = names().signed_by(&key, &root).unwrap();
        let alone = names().self_signed(&own_key).unwrap();

        let none = ClientTrust::default();
        let rooted = ClientTrust { roots: vec![root.der().clone()], ..ClientTrust::default() };
        let pinned = ClientTrust {
            pinned: Some(alone.der().clone()),
            min_version: MinVersion::Tls13,
            ..ClientTrust::default()
        };
        for (trust, known, itself) in [(none, false, false), (rooted, true, false), (pinned, false, true)] {
            assert_eq!(handshake(&trust, &signed, &key).await, known, "{trust:?}");
            assert_eq!(handshake(&trust, &alone, &own_key).await, itself, "{trust:?}");
        }
    }
}
