//! A configuration in the making: what every test needs, and what one changes.

use cmiot_simulator::Simulator;
use toml::{Table, Value};

use super::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Clocked, EBID, GATEWAY_APPID, GATEWAY_PASSWORD, Proxy, secrets,
};

/// One account, one client, free ports of the loopback, freshness to the second, everything else by default.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    table: Table,
    /// Who knows what the proxy signed.
    carrier: Option<Simulator>,
}

impl Setup {
    /// A proxy in front of this carrier.
    pub(crate) fn before(carrier: &Simulator) -> Self {
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

    /// Sets a key by its place: `gateway.deadline`, `client.0.rate`.
    pub(crate) fn set(mut self, place: &str, value: impl Into<Value>) -> Self {
        let (table, key) = self.table_of(place);
        table.insert(key.to_owned(), value.into());
        self
    }

    /// Without the key at a place.
    pub(crate) fn forget(mut self, place: &str) -> Self {
        let (table, key) = self.table_of(place);
        table.remove(key).expect("a key that was set");
        self
    }

    /// Adds a table to a list: one more `[[account]]`, one more `[[client]]`.
    pub(crate) fn add(mut self, list: &str, written: &str) -> Self {
        let table: Table = written.parse().expect("TOML");
        let list = self.table.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut().expect("a list").push(Value::Table(table));
        self
    }

    /// Adds a table to a list by its place: one more `[[admin.access]]`.
    pub(crate) fn push(mut self, place: &str, entry: Table) -> Self {
        let (table, key) = self.table_of(place);
        let list = table.entry(key).or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut().expect("a list").push(Value::Table(entry));
        self
    }

    /// Without a table or a list.
    pub(crate) fn without(mut self, table: &str) -> Self {
        self.table.remove(table);
        self
    }

    /// How long answers of this kind serve: fresh, then stale at once while asking, then stale if the carrier fails.
    pub(crate) fn keep(self, kind: &str, fresh: &str, while_asking: &str, if_error: &str) -> Self {
        self.set(&format!("freshness.{kind}.fresh"), fresh)
            .set(&format!("freshness.{kind}.stale_while_revalidate"), while_asking)
            .set(&format!("freshness.{kind}.stale_if_error"), if_error)
    }

    /// As it will stand in a file.
    pub(crate) fn text(&self) -> String {
        secrets::keep_passwords(&self.table);
        self.table.to_string()
    }

    /// Starts the executable with it.
    pub(crate) async fn start(&self) -> Proxy {
        Proxy::start(self.clone()).await
    }

    /// Starts it inside the test, with a clock that only the test moves.
    pub(crate) async fn start_clocked(&self) -> Clocked {
        Clocked::start(self).await
    }

    /// Notes the tokens that the proxy has signed so far.
    pub(crate) fn keep_tokens(&self) {
        self.carrier.iter().for_each(secrets::keep_tokens_of);
    }

    fn table_of<'a>(&mut self, place: &'a str) -> (&mut Table, &'a str) {
        let mut words: Vec<&str> = place.split('.').collect();
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
