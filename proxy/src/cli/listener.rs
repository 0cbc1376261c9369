//! The listener that a command asks: its address, and the certificates on both sides.
//!
//! Without `--url` the address is the one that the running proxy has written into the store's folder, so that port 0,
//! `systemd:` sockets and relative paths work; otherwise the configured one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail};
use cmiot_proxy::config::listen::Listen;
use cmiot_proxy::config::{Config, ListenConfig, read_secret};
use cmiot_proxy::{plain_file, store, tls};
use hyper::Uri;

use super::http_client::{Address, HttpClient};
use super::language;

/// The connection to a listener of the proxy.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct ConnectArgs {
    /// URL of the listener, http://, https:// or unix:PATH [default: of the running proxy, or as configured; no token is
    /// sent to a configured TCP port without TLS while no proxy is known to run, nor over a network without TLS]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// PEM file of the roots to trust [default: SSL_CERT_FILE, or the system's]; the certificate that the configuration
    /// names is trusted in any case
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of the certificate to present, if the listener requires one
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

/// A listener of the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listener {
    Gateway,
    Admin,
}

impl ConnectArgs {
    /// A client of a listener of this configuration.
    ///
    /// # Errors
    /// A listener whose address is unknown, or that expects a PROXY protocol header; certificates that cannot be used.
    pub(super) fn client(&self, config: &Config, listener: Listener) -> anyhow::Result<HttpClient> {
        self.client_at(&self.address(config, listener)?, config, listener)
    }

    /// A client of the listener at this address.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub(super) fn client_at(
        &self,
        address: &Address,
        config: &Config,
        listener: Listener,
    ) -> anyhow::Result<HttpClient> {
        let limits = listener.limits(config);
        refuse_proxy_protocol(address, listener.configured(config), limits)?;
        let read = |path: &PathBuf| {
            plain_file::read(path).with_context(|| format!("{}: cannot be read", path.display()))
        };
        let (mut roots, mut identity) = (None, None);
        if address.has_tls() {
            roots = self.ca.as_ref().map(read).transpose()?;
            if let (Some(certificate), Some(key)) = (&self.client_certificate, &self.client_key) {
                identity = Some((read(certificate)?, read_secret(key)?));
            }
        }
        let tls = tls::OperatorTls {
            own: limits.tls.as_ref().map(|tls| tls.certificate().clone()),
            roots: roots.as_deref(),
            identity: identity.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice())),
        };
        let tls = match address.has_tls() {
            true => tls::operator(&tls).map_err(language::said).map_err(anyhow::Error::msg).context("TLS"),
            // Without TLS the roots of the platform are not read.
            false => tls::operator_without_roots().map_err(anyhow::Error::msg),
        };
        HttpClient::new(address, tls?)
    }

    /// The address of `--url`, of the running proxy, or of the configuration.
    ///
    /// # Errors
    /// A socket of systemd while no proxy runs.
    pub(super) fn address(&self, config: &Config, listener: Listener) -> anyhow::Result<Address> {
        if let Some(url) = &self.url {
            return Ok(listener.address(config, url));
        }
        // A store of another user cannot be read; the configured address then has to do.
        if let Ok(Some(holder)) = store::holder(&config.store_dir) {
            let published = match listener {
                Listener::Gateway => holder.gateway,
                Listener::Admin => holder.admin,
            };
            if let Some(published) = published.filter(|published| published != "unix:") {
                return Ok(listener.published(config, &published));
            }
        }
        listener.configured_address(config).with_context(|| {
            let (name, listen) = (listener.name(), listener.configured(config));
            format!("[{name}] listen = \"{listen}\": the address is known only while the proxy runs; start it, or give --url")
        })
    }

    /// Whether `--url` gives the address.
    pub(super) fn has_url(&self) -> bool {
        self.url.is_some()
    }

    /// Whether a client certificate is to be presented.
    pub(super) fn has_identity(&self) -> bool {
        self.client_certificate.is_some()
    }
}

impl Listener {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Admin => "admin",
        }
    }

    fn configured(self, config: &Config) -> &Listen {
        match self {
            Self::Gateway => &config.gateway.listen,
            Self::Admin => &config.admin.listen,
        }
    }

    fn limits(self, config: &Config) -> &ListenConfig {
        match self {
            Self::Gateway => &config.gateway.limits,
            Self::Admin => &config.admin.limits,
        }
    }

    /// The configured address; none if only systemd knows it, or the kernel chooses the port.
    pub(super) fn configured_address(self, config: &Config) -> Option<Address> {
        let tls = self.limits(config).tls.is_some();
        match self.configured(config) {
            Listen::Systemd(_) => None,
            Listen::Tcp(address) if address.port() == 0 => None,
            Listen::Unix(path) => Some(Address::Unix { path: path.clone(), tls }),
            Listen::Tcp(address) => Some(url(*address, tls)),
        }
    }

    /// The address that a running proxy has published. TLS is as configured: a reload may have changed it since.
    pub(super) fn published(self, config: &Config, text: &str) -> Address {
        let address = text.split_once("://").and_then(|(_, address)| address.parse().ok());
        match address {
            Some(address) => url(address, self.limits(config).tls.is_some()),
            None => self.address(config, text),
        }
    }

    /// The address of a URL, or of `unix:` and a path, where TLS is as configured.
    fn address(self, config: &Config, text: &str) -> Address {
        let tls = self.limits(config).tls.is_some();
        if let Some(path) = text.strip_prefix("unix:") {
            return Address::Unix { path: path.trim_end_matches('/').into(), tls };
        }
        Address::Url(text.trim_end_matches('/').to_owned())
    }
}

fn is_everywhere(address: SocketAddr) -> bool {
    address.ip().is_unspecified()
}

/// The URL of an address; the loopback address for that of all interfaces.
fn url(mut address: SocketAddr, tls: bool) -> Address {
    if is_everywhere(address) {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Address::Url(format!("{}://{address}", if tls { "https" } else { "http" }))
}

/// Refuses to connect where the listener waits for a PROXY protocol header from this machine.
fn refuse_proxy_protocol(address: &Address, listen: &Listen, limits: &ListenConfig) -> anyhow::Result<()> {
    if !limits.proxy_protocol {
        return Ok(());
    }
    let own: IpAddr = match address {
        Address::Unix { .. } => Ipv4Addr::LOCALHOST.into(),
        Address::Url(url) => {
            let uri: Uri = url.parse().context("not a URL")?;
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            match (host.parse(), listen) {
                // Connections to an address of this machine come from the same address.
                (Ok(ip), Listen::Tcp(listen))
                    if listen.port() == 0 || uri.port_u16() == Some(listen.port()) =>
                {
                    ip
                }
                _ => return Ok(()), // a balancer
            }
        }
    };
    if limits.trusted_proxies.iter().any(|network| network.contains(&own)) {
        bail!(
            "[gateway] proxy_protocol: the listener expects a PROXY protocol header from {own}, which is in trusted_proxies, \
             and this command sends none: ask through the balancer with --url, or remove {own} from trusted_proxies"
        );
    }
    Ok(())
}
