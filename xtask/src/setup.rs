//! The account, the client and the configuration of the systems that commands start: a simulated carrier and a proxy.
//!
//! `bench/benches/scale.rs` has the group and the account too: it writes the files that `bench scale` starts the proxy over.

use std::process::Command;

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
