//! A client of the admin API of a running proxy, with the token of its configuration.

use anyhow::{Context, bail};
use cmiot_proxy::config::admin::Token;
use cmiot_proxy::config::{Config, ConfigError, token};
use serde_json::Value;

use super::http;

/// The address of an admin listener, and the token for it.
pub(super) struct AdminClient {
    base: String,
    authorization: Option<String>,
}

/// A response of the admin API.
pub(super) struct AdminResponse {
    /// Whether the request succeeded.
    pub(super) ok: bool,
    /// The seconds after which a retry may succeed.
    pub(super) retry_after: Option<u64>,
    pub(super) body: Value,
}

impl AdminClient {
    /// A client of the listener at `base`, a URL without a closing slash, with the token of this configuration.
    ///
    /// # Errors
    /// [`ConfigError`] if the token that the proxy made cannot be read.
    pub(super) fn new(config: &Config, base: &str) -> Result<Self, ConfigError> {
        let made = match config.admin.token {
            Token::Made(None) => token::read(&config.store_dir)?,
            _ => None,
        };
        let token = config.admin.token.secret().or(made.as_ref());
        let authorization = token.map(|token| format!("Bearer {}", String::from_utf8_lossy(token.expose())));
        Ok(Self { base: base.to_owned(), authorization })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<http::Reply> {
        http::get(&format!("{}{path}", self.base), &self.headers()).await
    }

    pub(super) async fn post(&self, path: &str, body: String) -> anyhow::Result<http::Reply> {
        http::post(&format!("{}{path}", self.base), &self.headers(), body.into()).await
    }

    fn headers(&self) -> Vec<(&'static str, &str)> {
        self.authorization.iter().map(|token| ("authorization", token.as_str())).collect()
    }
}

impl AdminResponse {
    /// The JSON of a response.
    ///
    /// # Errors
    /// A response without JSON, and one that refuses the token or the role.
    pub(super) fn of(reply: &http::Reply) -> anyhow::Result<Self> {
        if reply.status == hyper::StatusCode::UNAUTHORIZED {
            bail!(
                "the proxy does not accept this token: check [admin] token_file, or admin.token in [store] dir"
            );
        }
        if reply.status == hyper::StatusCode::FORBIDDEN {
            bail!("{}", String::from_utf8_lossy(&reply.body).trim_end());
        }
        Ok(Self {
            ok: reply.status.is_success(),
            retry_after: reply.header("retry-after").parse().ok(),
            body: serde_json::from_slice(&reply.body).context("the proxy's response is not JSON")?,
        })
    }
}
