//! Builder for a configuration: the defaults of all tests, and the changes of one.

use cmiot_simulator::Simulator;
use tempfile::TempDir;
use toml::{Table, Value};

use super::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Clocked, EBID, GATEWAY_APPID, GATEWAY_PASSWORD, Pki, Proxy, secrets,
    write_secret,
};

/// A configuration with one account, one client, free loopback ports and no TTL jitter; otherwise defaults.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    table: Table,
    /// The carrier, which knows the transids that the proxy signed.
    carrier: Option<Simulator>,
}

impl Setup {
    /// A proxy in front of this carrier.
    pub(crate) fn with_carrier(carrier: &Simulator) -> Self {
        Self { carrier: Some(carrier.clone()), ..Self::calling(&carrier.base_url()) }
    }

    /// A proxy that calls this base URL.
    pub(crate) fn calling(base_url: &str) -> Self {
        let written = format!(
            r#"
            [gateway]
            listen = "127.0.0.1:0"
            [admin]
            listen = "127.0.0.1:0"
            [carrier]
            base_url = "{base_url}"
            [cache]
            ttl_jitter_percent = 0
            [[account]]
            name = "fleet"
            appid = "{ACCOUNT_APPID}"
            ebid = "{EBID}"
            password = "{ACCOUNT_PASSWORD}"
            [[client]]
            group = "fleet"
            appid = "{GATEWAY_APPID}"
            password = "{GATEWAY_PASSWORD}"
            "#
        );
        Self { table: written.parse().expect("TOML"), carrier: None }
    }

    /// Sets a key by its path: `gateway.deadline`, `client.0.rate`.
    pub(crate) fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let (table, key) = self.table_of(path);
        table.insert(key.to_owned(), value.into());
        self
    }

    /// Removes a key.
    pub(crate) fn unset(mut self, path: &str) -> Self {
        let (table, key) = self.table_of(path);
        table.remove(key).expect("a key that was set");
        self
    }

    /// Appends a table to a top-level list, such as `[[account]]` or `[[client]]`.
    pub(crate) fn add(mut self, list: &str, written: &str) -> Self {
        let table: Table = written.parse().expect("TOML");
        let list = self.table.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut().expect("a list").push(Value::Table(table));
        self
    }

    /// Appends a table to the list at a path, such as `[[admin.access]]`.
    pub(crate) fn push(mut self, path: &str, entry: Table) -> Self {
        let (table, key) = self.table_of(path);
        let list = table.entry(key).or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut().expect("a list").push(Value::Table(entry));
        self
    }

    /// Removes a top-level table or list.
    pub(crate) fn without(mut self, table: &str) -> Self {
        self.table.remove(table);
        self
    }

    /// Sets the freshness lifetime, stale-while-revalidate and stale-if-error of a kind of reply.
    pub(crate) fn freshness(self, kind: &str, fresh: &str, while_revalidate: &str, if_error: &str) -> Self {
        self.set(&format!("freshness.{kind}.fresh"), fresh)
            .set(&format!("freshness.{kind}.stale_while_revalidate"), while_revalidate)
            .set(&format!("freshness.{kind}.stale_if_error"), if_error)
    }

    /// Configures TLS for a listener (`gateway` or `admin`), with a certificate for `name` in a new folder.
    pub(crate) fn tls(self, pki: &Pki, listener: &str, name: &str) -> (TempDir, Self) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (_, _, certificate, key) = pki.issue(name);
        write_secret(&folder.path().join("cert.pem"), &certificate);
        write_secret(&folder.path().join("key.pem"), &key);
        let setup = self
            .set(&format!("{listener}.tls.cert_file"), "cert.pem")
            .set(&format!("{listener}.tls.key_file"), "key.pem");
        (folder, setup)
    }

    /// The configuration as TOML.
    pub(crate) fn text(&self) -> String {
        secrets::register_passwords(&self.table);
        self.table.to_string()
    }

    /// Starts the executable.
    pub(crate) async fn start(&self) -> Proxy {
        Proxy::start(self.clone()).await
    }

    /// Starts the proxy inside the test, with a manual clock.
    pub(crate) async fn start_clocked(&self) -> Clocked {
        Clocked::start(self).await
    }

    /// Registers the tokens that the proxy has signed so far.
    pub(crate) fn register_tokens(&self) {
        self.carrier.iter().for_each(secrets::register_tokens_of);
    }

    fn table_of<'a>(&mut self, path: &'a str) -> (&mut Table, &'a str) {
        let mut words: Vec<&str> = path.split('.').collect();
        let key = words.pop().expect("a key");
        let mut table = &mut self.table;
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            let found = match words.peek().and_then(|next| next.parse::<usize>().ok()) {
                Some(index) => {
                    words.next();
                    table.get_mut(word).and_then(|list| list.get_mut(index)).expect("a table of that list")
                }
                None => table.entry(word).or_insert_with(|| Value::Table(Table::new())),
            };
            table = found.as_table_mut().expect("a table");
        }
        (table, key)
    }
}
