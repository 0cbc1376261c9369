//! The admin listener, checked: its address and limits, the tokens and certificates that it accepts, and their roles.

use std::collections::HashSet;
use std::path::Path;

use super::error::{self, ConfigError};
use super::file::{self, ConfigFile, Role};
use super::listen::Listen;
use super::listener::{ListenConfig, Timeouts};
use super::reader::SourceFiles;
use super::{tls_files, token};
use crate::language::{Text, text};
use crate::units::Secret;

/// Connections to the admin listener: its clients are people and scrapers, not fleets.
const MAX_CONNECTIONS: usize = 64;

/// The admin listener, checked.
#[derive(Clone, Debug)]
pub struct Admin {
    pub listen: Listen,
    /// The token of every role.
    pub token: Token,
    /// Names by which a request without a token may address it, in lower case.
    pub names: Vec<String>,
    /// Further tokens and certificates.
    pub access: Vec<Access>,
    /// Its limits: those of the gateways, for few connections and without proxies in front.
    pub limits: ListenConfig,
}

/// The token of every role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    /// Of `token_file`.
    Given(Secret),
    /// `admin.token` of the store's folder; none until it has been read from there.
    Made(Option<Secret>),
    /// `token = "none"`: every client that can connect has every role.
    Off,
}

impl Token {
    /// The token, where there is one and it is known.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Given(secret) | Self::Made(Some(secret)) => Some(secret),
            Self::Made(None) | Self::Off => None,
        }
    }
}

/// A token or a certificate, and its role.
#[derive(Clone, Debug)]
pub struct Access {
    /// The operator's name for it.
    pub name: String,
    pub role: Role,
    /// The credential that a request presents.
    pub by: By,
}

/// A credential for the admin listener.
#[derive(Clone, Debug)]
pub enum By {
    /// A bearer token.
    Token(Secret),
    /// A client certificate with this DNS name, in lower case.
    Certificate(String),
}

/// Checks `[admin]`.
pub(super) fn check(file: &ConfigFile, reader: &mut SourceFiles<'_>) -> Option<Admin> {
    let raw = &file.admin;
    let before = reader.problems.len();
    let tls = tls_files::server(&tls_files::ADMIN, raw.tls.as_ref(), reader);
    let token = token(raw, reader);
    if !raw.listen.is_local() && raw.tls.is_none() {
        let error = ConfigError::new(format!("[admin] listen = \"{}\"", raw.listen), is_reachable());
        reader.problems.push(error.remedy(text!(
            "set [admin.tls] (token_file, or the token that the proxy makes, would cross the network in the clear), or \
             listen on 127.0.0.1",
            "请设置 [admin.tls]（否则 token_file 或代理生成的令牌会以明文经过网络），或监听 127.0.0.1"
        )));
    }
    let access = access(raw, reader);
    let names = raw.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    if reader.problems.len() > before {
        return None;
    }
    let limits = ListenConfig {
        max_connections: MAX_CONNECTIONS,
        max_connections_per_peer: MAX_CONNECTIONS,
        max_requests: file.gateway.max_requests_per_connection,
        max_streams: file.gateway.max_streams,
        timeouts: Timeouts::of(&file.gateway),
        trusted_proxies: Vec::new(),
        proxy_protocol: false,
        tls,
    };
    Some(Admin { listen: raw.listen.clone(), token: token?, names, access, limits })
}

/// The token of every role; none after a problem.
fn token(raw: &file::Admin, reader: &mut SourceFiles<'_>) -> Option<Token> {
    match (&raw.token_file, raw.token) {
        (Some(_), Some(_)) => {
            let problem = text!("excludes token_file", "不能与 token_file 同时使用");
            let error = ConfigError::new("[admin] token = \"none\"", problem);
            reader.problems.push(error.remedy(error::keep_one()));
            None
        }
        (Some(path), None) => read("[admin] token_file", path, reader).map(Token::Given),
        (None, None) => Some(Token::Made(None)),
        (None, Some(_)) if !raw.listen.is_local() => {
            let key = format!("[admin] token = \"none\" with listen = \"{}\"", raw.listen);
            let error = ConfigError::new(key, is_reachable());
            reader.problems.push(error.remedy(text!(
                "listen on 127.0.0.1 or on a Unix socket, or remove token",
                "请监听 127.0.0.1 或 Unix 套接字，或删除 token"
            )));
            None
        }
        (None, Some(_)) => Some(Token::Off),
    }
}

/// `[[admin.access]]`, without those that are wrong.
fn access(raw: &file::Admin, reader: &mut SourceFiles<'_>) -> Vec<Access> {
    if raw.token.is_some() && !raw.access.is_empty() {
        let problem = text!("gives every role to each request", "使每个请求具有所有角色");
        let error = ConfigError::new("[admin] token = \"none\"", problem);
        reader
            .problems
            .push(error.remedy(text!("remove it, or [[admin.access]]", "请删除它，或删除 [[admin.access]]")));
    }
    let certificates = raw.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    let mut names = HashSet::new();
    let mut all = Vec::new();
    for (index, one) in raw.access.iter().enumerate() {
        let table = format!("[[admin.access]] {} (name = \"{}\")", index + 1, one.name);
        if one.name.is_empty() || !names.insert(&one.name) {
            reader.problem(
                format!("{table}: name"),
                text!("must not be empty, and must differ from all others", "不能为空，也不能与其他的重复"),
            );
        }
        let by = match (&one.token_file, &one.certificate) {
            (Some(path), None) => read(&format!("{table}: token_file"), path, reader).map(By::Token),
            (None, Some(name)) => {
                if !certificates {
                    reader.problem(
                        format!("{table}: certificate"),
                        text!("needs client_ca_file in [admin.tls]", "需要 [admin.tls] 中的 client_ca_file"),
                    );
                }
                Some(By::Certificate(name.to_ascii_lowercase()))
            }
            _ => {
                reader.problem(
                    table,
                    text!(
                        "needs either token_file or certificate",
                        "需要 token_file 或 certificate，两者选一"
                    ),
                );
                None
            }
        };
        all.extend(by.map(|by| Access { name: one.name.clone(), role: one.role, by }));
    }
    all
}

/// The problem of an address that protects nothing.
fn is_reachable() -> Text {
    text!("other machines can connect there", "其他机器可以连接到该地址")
}

fn read(key: &str, path: &Path, reader: &mut SourceFiles<'_>) -> Option<Secret> {
    let bytes = reader.secret(key, path)?;
    let wrong = || ConfigError::new(key, token::form().about(path.display()));
    reader.keep(token::parse(&bytes).ok_or_else(wrong))
}
