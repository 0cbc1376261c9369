//! `[gateway.tls]` and `[admin.tls]`: from PEM files to the TLS configuration of a listener.

use super::certificates::Validity;
use super::error::ConfigError;
use super::file;
use super::reader::SourceFiles;
use crate::tls;

/// A table of TLS keys, and the names of the two keys whose certificates expire.
pub(super) struct TlsKeys {
    table: &'static str,
    chain: &'static str,
    roots: &'static str,
}

pub(super) const GATEWAY: TlsKeys = TlsKeys {
    table: "[gateway.tls]",
    chain: "[gateway.tls] cert_file",
    roots: "[gateway.tls] client_ca_file",
};
pub(super) const ADMIN: TlsKeys =
    TlsKeys { table: "[admin.tls]", chain: "[admin.tls] cert_file", roots: "[admin.tls] client_ca_file" };

/// Reads the files; none if no TLS is configured, or if a problem was found and noted.
pub(super) fn server(
    keys: &TlsKeys,
    raw: Option<&file::Tls>,
    reader: &mut SourceFiles<'_>,
) -> Option<tls::ServerTls> {
    let raw = raw?;
    let chain = reader.bytes(keys.chain, &raw.cert_file);
    let key = reader.secret(&format!("{} key_file", keys.table), &raw.key_file);
    let roots = raw.client_ca_file.as_ref().map(|path| reader.bytes(keys.roots, path));
    let (chain, key, roots) = (chain?, key?, roots.map_or(Some(None), |roots| roots.map(Some))?);
    let pem = tls::Pem {
        chain: &chain,
        key: &key,
        client_roots: roots.as_deref(),
        certificate_optional: raw.client_certificate_optional,
    };
    let server = tls::ServerTls::new(&pem).map_err(|e| ConfigError::new(keys.table, e));
    let server = reader.keep(server)?;
    for (key, pem) in [(keys.chain, Some(&chain)), (keys.roots, roots.as_ref())] {
        let certificates = pem.and_then(|pem| tls::certificates(pem).ok());
        reader.certificates.extend(certificates.and_then(|read| Validity::of(key, &read)));
    }
    Some(server)
}
