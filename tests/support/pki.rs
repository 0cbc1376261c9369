//! TLS certificates: a private root and the certificates that it issues.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cmiot_proxy::clock::Clock;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A private root, and certificates from it.
pub(crate) struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { root: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// The root in PEM.
    pub(crate) fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// Certificate and key for a name, as DER and as PEM.
    pub(crate) fn issue(
        &self,
        name: &str,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>, String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        // With the subject of the root, OpenSSL would take it for a root.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.root).unwrap();
        let (pem, key_pem) = (certificate.pem(), key.serialize_pem());
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap(), pem, key_pem)
    }

    /// A self-signed certificate that expired on 2020-01-01 UTC, and its key, in PEM.
    pub(crate) fn expired(name: &str) -> (String, String) {
        Self::self_signed(name, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))
    }

    /// A self-signed certificate that expires after this time, and its key, in PEM.
    pub(crate) fn expiring(name: &str, after: Duration) -> (String, String) {
        let now = Duration::from_secs(Clock::system().now().as_secs());
        Self::self_signed(name, |params| params.not_after = (SystemTime::UNIX_EPOCH + now + after).into())
    }

    fn self_signed(name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        change(&mut params);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// A TLS server with a certificate for `name`.
    pub(crate) fn server(&self, name: &str) -> TlsAcceptor {
        let (certificate, key, ..) = self.issue(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A TLS client that trusts the root and presents this certificate.
    pub(crate) fn client(
        &self,
        presents: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
        alpn: &[u8],
    ) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match presents {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}
