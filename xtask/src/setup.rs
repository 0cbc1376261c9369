//! The account, the client and the configuration of the systems that commands start: a simulated carrier and a proxy.
//!
//! `bench/benches/scale.rs` has the group and the account too: it writes the files that `bench scale` and
//! `bench month` start the proxy over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::run::write_private;

/// A free port of loopback.
pub(crate) const LISTEN: &str = "127.0.0.1:0";

/// The name of the account, and of its group.
pub(crate) const GROUP: &str = "fleet";
pub(crate) const APPID: &str = "100001";
pub(crate) const EBID: &str = "0001000000009";
pub(crate) const PASSWORD: &str = "account-password";

/// The appid and the password of a client.
#[derive(Clone, Copy)]
pub(crate) struct Credentials {
    pub(crate) appid: &'static str,
    pub(crate) password: &'static str,
}

/// A client of the group.
pub(crate) const GATEWAY: Credentials = Credentials { appid: "GW0001", password: "gateway-password" };

/// The account as `simulate` and the load read it: APPID:EBID:PASSWORD.
pub(crate) fn account() -> String {
    format!("{APPID}:{EBID}:{PASSWORD}")
}

/// Adds the arguments that start the simulated carrier with the account. It prints `simulated carrier URL`.
pub(crate) fn simulate(command: &mut Command) -> &mut Command {
    command.args(["simulate", "--listen", LISTEN, "--account", &account()])
}

/// A configuration with the account, on free ports; `settings` are further keys, with their table's name before a dot.
pub(crate) fn config(base_url: &str, settings: &str) -> String {
    format!(
        "gateway.listen = \"{LISTEN}\"\nadmin.listen = \"{LISTEN}\"\ncarrier.base_url = \"{base_url}\"\n{settings}\n{}",
        account_table()
    )
}

/// The `[[account]]` of a configuration; further keys of it may follow.
pub(crate) fn account_table() -> String {
    format!(
        "[[account]]\nname = \"{GROUP}\"\nappid = \"{APPID}\"\nebid = \"{EBID}\"\npassword = \"{PASSWORD}\"\n"
    )
}

/// A `[[client]]` of a configuration; further keys of it may follow.
pub(crate) fn client_table(Credentials { appid, password }: Credentials) -> String {
    format!("[[client]]\ngroup = \"{GROUP}\"\nappid = \"{appid}\"\npassword = \"{password}\"\n")
}

/// A self-signed certificate for `localhost`, its key, and both in one file.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) pair: PathBuf,
}

impl Certificate {
    /// Makes one in a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, private) = (made.cert.pem(), made.signing_key.serialize_pem());
        let [chain, key, pair] = ["cert.pem", "key.pem", "pair.pem"].map(|name| folder.join(name));
        fs::write(&chain, &certificate)?;
        write_private(&key, &private)?;
        write_private(&pair, &format!("{certificate}{private}"))?;
        Ok(Self { chain, key, pair })
    }

    /// The settings of the proxy that use it.
    pub(crate) fn settings(&self) -> String {
        let (chain, key) = (self.chain.display(), self.key.display());
        format!("gateway.tls.cert_file = \"{chain}\"\ngateway.tls.key_file = \"{key}\"\n")
    }
}
