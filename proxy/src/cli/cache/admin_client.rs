//! The operators' listener of a running proxy, as the commands ask it.

use anyhow::{Context, bail};
use cmiot_proxy::config::admin::Token;
use cmiot_proxy::config::{Config, token};
use serde_json::Value;

use super::AdminArgs;
use crate::cli::http;

/// Where to ask, and with which token.
pub(super) struct AdminClient {
    base: String,
    authorization: Option<String>,
}

/// What came back.
pub(super) struct AdminResponse {
    /// Whether it did what was asked.
    pub(super) ok: bool,
    /// How long to wait before asking again, where that helps.
    pub(super) retry_after: Option<u64>,
    /// The JSON.
    pub(super) body: Value,
}

impl AdminClient {
    /// The listener of this configuration.
    pub(super) fn of(at: &AdminArgs) -> anyhow::Result<Self> {
        let (config, _) = Config::load(&at.config)?;
        let base = at.url.clone().unwrap_or_else(|| format!("http://{}", config.admin.listen));
        let made = match config.admin.token {
            Token::Made(None) => token::read(&config.store_dir)?,
            _ => None,
        };
        let token = config.admin.token.secret().or(made.as_ref());
        let authorization = token.map(|token| format!("Bearer {}", String::from_utf8_lossy(token.expose())));
        Ok(Self { base: base.trim_end_matches('/').to_owned(), authorization })
    }

    pub(super) async fn get(&self, page: &str) -> anyhow::Result<AdminResponse> {
        AdminResponse::of(&http::get(&self.url(page), &self.headers()).await?)
    }

    pub(super) async fn post(&self, page: &str, wanted: &Value) -> anyhow::Result<AdminResponse> {
        AdminResponse::of(&http::post(&self.url(page), &self.headers(), wanted.to_string().into()).await?)
    }

    fn url(&self, page: &str) -> String {
        format!("{}/cache/{page}", self.base)
    }

    fn headers(&self) -> Vec<(&'static str, &str)> {
        self.authorization.iter().map(|token| ("authorization", token.as_str())).collect()
    }
}

impl AdminResponse {
    fn of(reply: &http::Reply) -> anyhow::Result<Self> {
        if reply.status == hyper::StatusCode::UNAUTHORIZED {
            bail!("the proxy wants another token: check [admin] token_file, or admin.token in [store] dir");
        }
        if reply.status == hyper::StatusCode::FORBIDDEN {
            bail!("{}", String::from_utf8_lossy(&reply.body).trim_end());
        }
        Ok(Self {
            ok: reply.status.is_success(),
            retry_after: reply.header("retry-after").parse().ok(),
            body: serde_json::from_slice(&reply.body).context("the proxy's answer is not JSON")?,
        })
    }
}
