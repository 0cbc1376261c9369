//! The admin listener, checked: where it listens, which tokens and certificates it knows, and the roles of each.

use std::collections::HashSet;
use std::path::Path;

use super::file::{self, Role};
use super::listen::Listen;
use super::reader::SourceFiles;
use super::token;
use crate::tls;
use crate::units::Secret;

/// The admin listener, checked.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens.
    pub listen: Listen,
    /// The token of every role.
    pub token: Token,
    /// Names by which a request without a token may address it, in lower case.
    pub names: Vec<String>,
    /// Further tokens and certificates.
    pub access: Vec<Access>,
    /// TLS, where it is spoken.
    pub tls: Option<tls::ServerTls>,
}

/// The token of every role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    /// Of `token_file`.
    Given(Secret),
    /// `admin.token` of the store's folder; none until it has been read from there.
    Made(Option<Secret>),
    /// `token = "none"`: everybody who can connect has every role.
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

/// A token or a certificate, and what it allows.
#[derive(Clone, Debug)]
pub struct Access {
    /// The operator's name for it.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// How it is shown.
    pub by: By,
}

/// How an access is shown.
#[derive(Clone, Debug)]
pub enum By {
    /// By this bearer token.
    Token(Secret),
    /// By a client certificate with this DNS name, in lower case.
    Certificate(String),
}

pub(super) fn check(
    written: &file::Admin,
    tls: Option<tls::ServerTls>,
    reader: &mut SourceFiles<'_>,
) -> Result<Admin, String> {
    let token = match (&written.token_file, written.token) {
        (Some(_), Some(_)) => {
            return Err("[admin] token = \"none\" and token_file exclude each other: keep one".to_owned());
        }
        (Some(path), None) => Token::Given(read("[admin] token_file", path, reader)?),
        (None, None) => Token::Made(None),
        (None, Some(_)) if !written.listen.is_local() => {
            return Err(format!(
                "[admin] token = \"none\" with listen = \"{}\": other machines can connect there: listen on \
                 127.0.0.1 or on a Unix socket, or remove token",
                written.listen
            ));
        }
        (None, Some(_)) => Token::Off,
    };
    if !written.listen.is_local() && tls.is_none() {
        return Err(format!(
            "[admin] listen = \"{}\": other machines can connect there: set [admin.tls] (token_file, or the token \
             that the proxy makes, would cross the network in the clear), or listen on 127.0.0.1",
            written.listen
        ));
    }
    let certificates = written.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    let access = access(written, &token, certificates, reader)?;
    let names = written.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    Ok(Admin { listen: written.listen.clone(), token, names, access, tls })
}

fn access(
    written: &file::Admin,
    token: &Token,
    certificates: bool,
    reader: &mut SourceFiles<'_>,
) -> Result<Vec<Access>, String> {
    if *token == Token::Off && !written.access.is_empty() {
        return Err(
            "[admin] token = \"none\": everybody has every role already: remove it, or [[admin.access]]"
                .to_owned(),
        );
    }
    let mut names = HashSet::new();
    let mut all = Vec::new();
    for (index, one) in written.access.iter().enumerate() {
        let place = format!("[[admin.access]] {} (name = \"{}\")", index + 1, one.name);
        if one.name.is_empty() || !names.insert(&one.name) {
            return Err(format!("{place}: name: must not be empty, and each needs its own"));
        }
        let by = match (&one.token_file, &one.certificate) {
            (Some(path), None) => By::Token(read(&format!("{place}: token_file"), path, reader)?),
            (None, Some(name)) if certificates => By::Certificate(name.to_ascii_lowercase()),
            (None, Some(_)) => {
                return Err(format!("{place}: certificate: needs client_ca_file in [admin.tls]"));
            }
            _ => return Err(format!("{place}: needs either token_file or certificate")),
        };
        all.push(Access { name: one.name.clone(), role: one.role, by });
    }
    Ok(all)
}

fn read(place: &str, path: &Path, reader: &mut SourceFiles<'_>) -> Result<Secret, String> {
    let bytes = reader.secret(path).map_err(|e| format!("{place}: {e}"))?;
    token::parse(&bytes).ok_or_else(|| format!("{place}: {}: {}", path.display(), token::FORM))
}
