//! TLS: certificate and key towards gateways and operators; the certificates that are trusted towards the carrier, and by
//! the operators' commands towards the proxy.
//!
//! The configuration holds the finished [`ServerTls`]; a reload reads the files again, and later connections use the new
//! ones. TLS 1.2 and 1.3, as rustls allows; HTTP/2 and HTTP/1.1 by ALPN (RFC 7301).

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
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

use crate::language::{Text, text};

/// TLS configuration of a listener.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

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
    pub fn new(pem: &Pem<'_>) -> Result<Self, Text> {
        let about = |key: &'static str| move |error: rustls::Error| Text::untranslated(error).about(key);
        let chain = certificates(pem.chain).map_err(|e| e.about("cert_file"))?;
        let certificate = chain[0].clone(); // `certificates` returns at least one
        let key = PrivateKeyDer::from_pem_slice(pem.key).map_err(|_| {
            text!("key_file: holds no private key in PEM", "key_file：其中没有 PEM 格式的私钥")
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(Text::untranslated)?;
        let builder = match pem.client_roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let mut store = RootCertStore::empty();
                for root in certificates(roots).map_err(|e| e.about("client_ca_file"))? {
                    store.add(root).map_err(about("client_ca_file"))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
                let verifier =
                    if pem.certificate_optional { verifier.allow_unauthenticated() } else { verifier };
                let verifier = verifier.build().map_err(|e| Text::untranslated(e).about("client_ca_file"))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(about("cert_file, key_file"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), certificate })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// The certificate that the listener presents.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
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
        let only = Arc::new(Pinned { certificate: Some(pinned.clone()), otherwise: None, provider });
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

/// Trust of an operator's command in the certificate of a proxy's listener, and the certificate of the command itself.
#[derive(Debug, Default)]
pub struct OperatorTls<'a> {
    /// The certificate of the configuration that the command reads: accepted whatever its name, dates and issuer.
    pub own: Option<CertificateDer<'static>>,
    /// The PEM file of the roots that replace the platform's.
    pub roots: Option<&'a [u8]>,
    /// The PEM files of the client certificate with its intermediates, and of its key.
    pub identity: Option<(&'a [u8], &'a [u8])>,
}

/// TLS towards a proxy's listener. Without roots, of the file or of the platform, only the own certificate is accepted.
///
/// # Errors
/// The problem of a file, without a byte of the key.
pub fn operator(tls: &OperatorTls<'_>) -> Result<ClientConfig, Text> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let otherwise: Option<Arc<dyn ServerCertVerifier>> = match tls.roots {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(pem)? {
                roots.add(root).map_err(Text::untranslated)?;
            }
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
            Some(verifier.map_err(Text::untranslated)?)
        }
        None => match Verifier::new(Arc::clone(&provider)) {
            Ok(verifier) => Some(Arc::new(verifier)),
            Err(_) => None, // this platform has no roots
        },
    };
    let verifier = Pinned { certificate: tls.own.clone(), otherwise, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Text::untranslated)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let chain = certificates(chain).map_err(|_| {
                text!(
                    "the client certificate holds no certificate in PEM",
                    "客户端证书文件中没有 PEM 格式的证书"
                )
            })?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
                text!(
                    "the key of the client certificate is no private key in PEM",
                    "客户端证书的密钥不是 PEM 格式的私钥"
                )
            })?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|e| text!("the client certificate and its key: {e}", "客户端证书及其私钥：{e}"))
        }
    }
}

/// TLS for a command that uses none: it accepts no certificate, and reads no root.
///
/// # Errors
/// When rustls supports none of its own versions.
pub fn operator_without_roots() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Accepts one certificate, whatever its name, dates and issuer; the other side must have its key. `otherwise` decides on
/// all others, which are refused without it.
#[derive(Debug)]
struct Pinned {
    certificate: Option<CertificateDer<'static>>,
    otherwise: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.otherwise {
            _ if self.certificate.as_ref() == Some(end_entity) => Ok(ServerCertVerified::assertion()),
            Some(verifier) => verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now),
            None => Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
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
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Text> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(text!("holds no certificate in PEM", "其中没有 PEM 格式的证书")),
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
