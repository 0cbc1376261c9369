//! The check that no output contains a secret.
//!
//! The harness registers each secret with [`register`]: passwords of all configurations and lists, keys, bearer tokens,
//! each token that a gateway signed, each card that a test looked up. It computes the tokens of the proxy's own calls
//! from the calls that the carrier received. It passes all output to [`assert_no_secret`]: standard output and error of
//! a proxy (with its panics) and its metrics when the [`Proxy`](super::Proxy) is dropped, the output of a command at its
//! end, the log of a proxy inside the test when it is drained. So no test calls this module for that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use cmiot_simulator::Simulator;
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::ACCOUNT_PASSWORD;

static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

static IS_CHECKED: AtomicBool = AtomicBool::new(true);

/// Ends the check, for a measurement: each output is searched for each secret, and its load has tens of thousands.
#[allow(dead_code, reason = "another test binary uses it")]
pub(crate) fn stop_checks() {
    IS_CHECKED.store(false, Ordering::Relaxed);
}

/// Registers a secret.
pub(crate) fn register(secret: &str) {
    if !IS_CHECKED.load(Ordering::Relaxed) {
        return;
    }
    let mut secrets = lock(&SECRETS);
    // Shorter ones (wrong passwords of some tests) are parts of ordinary words.
    if secret.len() >= 4 && !secrets.iter().any(|known| known == secret) {
        secrets.push(secret.to_owned());
    }
}

/// Registers all passwords of a configuration.
pub(crate) fn register_passwords(configuration: &Table) {
    for (key, value) in configuration {
        match value {
            Value::String(secret) if key.ends_with("password") => register(secret),
            Value::Table(table) => register_passwords(table),
            Value::Array(list) => list.iter().filter_map(Value::as_table).for_each(register_passwords),
            _ => {}
        }
    }
}

/// Registers the words of a secret file, cells of a list included. Ignores PEM.
pub(crate) fn register_file(text: &str) {
    if text.starts_with("-----BEGIN") {
        return;
    }
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(|line| line.split([',', '"', '\'', ' ', '=']));
    // Shorter ones are names and numbers that occur elsewhere.
    words.filter(|word| word.len() >= 12).for_each(register);
}

/// Registers the tokens of all calls that a carrier received.
pub(crate) fn register_tokens_of(carrier: &Simulator) {
    for call in carrier.calls() {
        register(&token(&call.appid, ACCOUNT_PASSWORD, &call.transid));
    }
    let appids: std::collections::BTreeSet<_> = carrier.calls().into_iter().map(|call| call.appid).collect();
    let issued = appids.iter().flat_map(|appid| carrier.v5().tokens(appid));
    issued.for_each(|token| register(token.expose()));
}

/// `hex(SHA-256(appid + password + transid))`.
pub(crate) fn token(appid: &str, password: &str, transid: &str) -> String {
    let hash = Sha256::digest(format!("{appid}{password}{transid}"));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asserts that this output of `who` contains no secret.
#[track_caller]
pub(crate) fn assert_no_secret(who: &str, output: &str) {
    if !IS_CHECKED.load(Ordering::Relaxed) {
        return;
    }
    let secrets = lock(&SECRETS);
    for secret in secrets.iter().map(String::as_str).chain([ACCOUNT_PASSWORD, "token="]) {
        if let Some(at) = output.find(secret) {
            let from = output[..at].rfind('\n').map_or(0, |end| end + 1);
            let line = output[from..].lines().next().unwrap_or_default();
            panic!("{who} shows {secret}: {line}");
        }
    }
}

/// The log of the proxies inside the test.
static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Captures the log of this test from now on.
pub(crate) fn capture_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
        log.with_writer(|| Writer).init();
    });
}

/// Whether the log since [`capture_log`] contains a text.
pub(crate) fn logged(text: &str) -> bool {
    String::from_utf8_lossy(&lock(&LOGGED)).contains(text)
}

/// Asserts that the log of this test contains no secret.
#[track_caller]
pub(crate) fn assert_no_secret_logged() {
    assert_no_secret("the log inside the test", &String::from_utf8_lossy(&lock(&LOGGED)));
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
