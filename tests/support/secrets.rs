//! What must never be told, and the looking for it in everything that is told.
//!
//! Whoever makes a secret notes it with [`keep`]: passwords of every configuration and list, keys, bearer tokens, each
//! token that a gateway signed, each card that was asked about. Tokens that the proxy signs for its own calls are
//! reckoned from what the carrier saw. Whatever the executable writes comes to [`hold_none`], for the standard output and
//! error of a proxy (with the text of its panics) and what its metrics say when it is dropped, for a command when it
//! ends, for a proxy inside the test when it is drained: no test has to think of it.

use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use cmiot_simulator::Simulator;
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::ACCOUNT_PASSWORD;

static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes something that must not be told.
pub(crate) fn keep(secret: &str) {
    let mut secrets = lock(&SECRETS);
    // Shorter ones, the wrong passwords of some tests, stand in every text.
    if secret.len() >= 4 && !secrets.iter().any(|known| known == secret) {
        secrets.push(secret.to_owned());
    }
}

/// Notes every password that a configuration holds.
pub(crate) fn keep_passwords(configuration: &Table) {
    for (key, value) in configuration {
        match value {
            Value::String(secret) if key.ends_with("password") => keep(secret),
            Value::Table(table) => keep_passwords(table),
            Value::Array(list) => list.iter().filter_map(Value::as_table).for_each(keep_passwords),
            _ => {}
        }
    }
}

/// Notes what stands in a secret file: each line as it is, and each cell of a list. PEM has no line worth looking for.
pub(crate) fn keep_file(text: &str) {
    if text.starts_with("-----BEGIN") {
        return;
    }
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(|line| line.split([',', '"', '\'', ' ', '=']));
    // Shorter ones are names and numbers that stand elsewhere too.
    words.filter(|word| word.len() >= 12).for_each(keep);
}

/// Notes the tokens of every call that a carrier has seen.
pub(crate) fn keep_tokens_of(carrier: &Simulator) {
    for call in carrier.calls() {
        keep(&token(&call.appid, ACCOUNT_PASSWORD, &call.transid));
    }
}

/// `hex(SHA-256(appid + password + transid))`.
pub(crate) fn token(appid: &str, password: &str, transid: &str) -> String {
    let hash = Sha256::digest(format!("{appid}{password}{transid}"));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asserts that none of it stands in what `who` told.
#[track_caller]
pub(crate) fn hold_none(who: &str, told: &str) {
    let secrets = lock(&SECRETS);
    for secret in secrets.iter().map(String::as_str).chain([ACCOUNT_PASSWORD, "token="]) {
        if let Some(at) = told.find(secret) {
            let from = told[..at].rfind('\n').map_or(0, |end| end + 1);
            let line = told[from..].lines().next().unwrap_or_default();
            panic!("{who} shows {secret}: {line}");
        }
    }
}

/// What proxies inside the test log.
static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Has what is logged inside this test kept, from now on.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
        log.with_writer(|| Writer).init();
    });
}

/// Whether this was logged since [`listen`].
pub(crate) fn logged(text: &str) -> bool {
    String::from_utf8_lossy(&lock(&LOGGED)).contains(text)
}

/// Asserts that nothing of what was logged inside this test is secret.
#[track_caller]
pub(crate) fn logged_none() {
    hold_none("the log inside the test", &String::from_utf8_lossy(&lock(&LOGGED)));
}

struct Writer;

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&LOGGED).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
