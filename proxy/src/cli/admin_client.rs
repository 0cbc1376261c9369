//! A client of the admin API of a proxy, with the token of its configuration.

use std::path::PathBuf;

use anyhow::{Context, bail};
use cmiot_proxy::config::admin::Token;
use cmiot_proxy::config::{Config, read_secret, token};
use cmiot_proxy::store;
use hyper::StatusCode;
use serde_json::Value;
use zeroize::Zeroizing;

use super::http_client::{Address, HttpClient, Reply};
use super::language;
use super::listener::{ConnectArgs, Listener};

/// The connection to the admin listener, and the token for it.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    /// File with the bearer token [default: that of the configuration, or admin.token in [store] dir]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The proxy of a configuration, asked at its admin listener.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ProxyArgs {
    /// Configuration file of the proxy
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    admin: AdminArgs,
}

impl ProxyArgs {
    /// A client of the admin listener.
    ///
    /// # Errors
    /// A configuration with errors; otherwise as [`AdminArgs::client`].
    pub(super) fn client(&self) -> anyhow::Result<AdminClient> {
        self.admin.client(&Config::load(&self.config)?.0)
    }
}

/// A client of an admin listener, with the token for it. Clones share the connections.
#[derive(Clone)]
pub(super) struct AdminClient {
    http: HttpClient,
    authorization: Option<Zeroizing<String>>,
}

/// A response of the admin API.
pub(super) struct AdminResponse {
    /// Whether the request succeeded.
    pub(super) ok: bool,
    /// The seconds after which a retry may succeed.
    pub(super) retry_after: Option<u64>,
    pub(super) body: Value,
}

impl AdminArgs {
    /// Whether `--token-file` is given.
    pub(super) fn names_token(&self) -> bool {
        self.token_file.is_some()
    }

    /// A client of the admin listener of this configuration.
    ///
    /// # Errors
    /// An address or certificates that cannot be used; a token that cannot be read, or that would be sent to a plain TCP
    /// port while no proxy is known to serve there.
    pub(super) fn client(&self, config: &Config) -> anyhow::Result<AdminClient> {
        let address = self.connect.address(config, Listener::Admin)?;
        let has_token = self.token_file.is_some() || !matches!(config.admin.token, Token::Off);
        if has_token && !self.connect.has_url() {
            refuse_unknown_listener(&address, config)?;
        }
        self.client_at(&address, config)
    }

    /// A client of the admin listener at this address.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub(super) fn client_at(&self, address: &Address, config: &Config) -> anyhow::Result<AdminClient> {
        let http = self.connect.client_at(address, config, Listener::Admin)?;
        let token = match &self.token_file {
            Some(path) => Some(read_secret(path)?),
            None => self.configured_token(config)?,
        };
        if token.is_some() && self.connect.has_url() && address.crosses_network_in_clear() {
            bail!(said!(
                "--url: the token would cross the network unencrypted: write https://, or run the command on the proxy's machine",
                "--url：令牌会以明文经过网络：请改用 https://，或在代理所在的机器上执行"
            ));
        }
        let authorization =
            token.map(|token| Zeroizing::new(format!("Bearer {}", String::from_utf8_lossy(&token))));
        Ok(AdminClient { http, authorization })
    }

    /// The token of the configuration. Where a client certificate is presented, the one that the proxy made may be
    /// unreadable.
    fn configured_token(&self, config: &Config) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
        let made = match config.admin.token {
            Token::Made(None) => match token::read(&config.store_dir) {
                Err(_) if self.connect.has_identity() => None,
                read => read?,
            },
            _ => None,
        };
        let token = config.admin.token.secret().or(made.as_ref());
        Ok(token.map(|token| Zeroizing::new(token.expose().to_vec())))
    }
}

/// Refuses a plain TCP port of the configuration unless the lock of the store's folder shows that a proxy serves there: any
/// process of this machine could listen at that port and read the token.
fn refuse_unknown_listener(address: &Address, config: &Config) -> anyhow::Result<()> {
    if !address.proves_nothing() {
        return Ok(());
    }
    let dir = config.store_dir.display();
    match store::holder(&config.store_dir) {
        Ok(None) => bail!(said!(
            "no proxy runs on {dir}, and the token is not sent to another process: start the proxy, or give --url",
            "{dir} 上没有代理在运行，令牌不会发送给其他进程：请启动代理，或给出 --url"
        )),
        Ok(Some(holder)) if holder.admin.is_none() => bail!(said!(
            "a proxy runs on {dir} (process {process}), but does not serve yet: its log says when it does",
            "{dir} 上有代理在运行（进程 {process}），但尚未提供服务：开始时其日志会说明",
            process = holder.process
        )),
        Ok(Some(_)) => Ok(()),
        Err(error) => bail!(said!(
            "it is unknown whether a proxy runs on {dir}, and the token is not sent to another process: {error}; run the \
             command as the proxy's user or as root, or give --url",
            "无法确定 {dir} 上是否有代理在运行，令牌不会发送给其他进程：{error}；请以代理的用户或 root 执行此命令，或给出 --url"
        )),
    }
}

impl AdminClient {
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.http.get(path, &self.headers()).await
    }

    pub(super) async fn post(&self, path: &str, body: String) -> anyhow::Result<Reply> {
        self.http.post(path, &self.headers(), body.into()).await
    }

    fn headers(&self) -> Vec<(&'static str, &str)> {
        let token = self.authorization.iter().map(|token| ("authorization", token.as_str()));
        token.chain([("accept-language", language::selected().tag())]).collect()
    }
}

impl AdminResponse {
    /// The JSON of a response.
    ///
    /// # Errors
    /// A response without JSON, and one that refuses the token or the role.
    pub(super) fn of(reply: &Reply) -> anyhow::Result<Self> {
        if reply.status == StatusCode::UNAUTHORIZED {
            bail!(
                "the proxy does not accept this token: check [admin] token_file, or admin.token in [store] dir"
            );
        }
        if reply.status == StatusCode::FORBIDDEN {
            bail!("{}", String::from_utf8_lossy(&reply.body).trim_end());
        }
        let body = serde_json::from_slice(&reply.body);
        if body.is_err() && !reply.status.is_success() {
            bail!("the proxy: {}: {}", reply.status, String::from_utf8_lossy(&reply.body).trim_end());
        }
        Ok(Self {
            ok: reply.status.is_success(),
            retry_after: reply.header("retry-after").parse().ok(),
            body: body.context("the proxy's response is not JSON")?,
        })
    }
}
