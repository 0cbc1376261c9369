//! The tests' harness: carrier, proxy, gateways, configuration, and checks of responses, audit, metrics and secrets.
//!
//! The carrier is simulated inside the test. The proxy is the real executable ([`Proxy`]), or the same
//! [`App`](cmiot_proxy::app::App) inside the test with a manual clock ([`Clocked`]). Gateways use raw sockets and sign
//! with sha2 directly, so that the proxy's HTTP code and signer do not check themselves. Every wait ends after
//! [`TIMEOUT`], which only a broken proxy reaches.

mod audit;
pub(crate) mod chip;
mod clocked;
mod command;
mod gateway;
mod gateway_client;
mod http;
mod machine;
#[allow(dead_code, reason = "not all test binaries use it")]
pub(crate) mod memory;
mod metrics;
mod pki;
mod proxy;
mod receiver;
mod scripted;
pub(crate) mod secrets;
mod setup;
mod started;
#[allow(dead_code, reason = "the tests of a fleet use it")]
mod stepped_clock;

use std::time::Duration;

use cmiot_simulator::{Account, Config, Simulator};

pub(crate) use audit::{LookupRow, dropping_triggers, rows, segments};
pub(crate) use clocked::Clocked;
pub(crate) use command::{Output, run};
pub(crate) use gateway::{Card, Gateway, Query, card_number};
pub(crate) use gateway_client::GatewayClient;
pub(crate) use http::{Connection, Response};
pub(crate) use machine::Machine;
pub(crate) use pki::Pki;
pub(crate) use proxy::{Proxy, command};
pub(crate) use receiver::{Received, Receiver, Reply, WEBHOOK_KEY, WEBHOOK_SECRET};
pub(crate) use scripted::{say, scripted};
pub(crate) use secrets::logged;
pub(crate) use setup::Setup;
pub(crate) use started::{Started, strings};

/// The test fails after this wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Credentials that the carrier issued.
pub(crate) const ACCOUNT_APPID: &str = "100001";
pub(crate) const ACCOUNT_PASSWORD: &str = "the-carriers-side-of-it";
pub(crate) const EBID: &str = "0001000000009";

/// Credentials that the gateways sign with.
pub(crate) const GATEWAY_APPID: &str = "GW0001";
pub(crate) const GATEWAY_PASSWORD: &str = "the-gateways-side-of-it";

/// Example cards of the carrier page.
pub(crate) const MSISDN: Card = Card::new("msisdn", "14765004176");
pub(crate) const ICCID: Card = Card::new("iccid", "898600D6991330004146");
pub(crate) const IMSI: Card = Card::new("imsi", "460079650004176");

/// The carrier's reply for a normal card, byte for byte.
pub(crate) const NORMAL: &str = r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#;

pub(crate) const STATUS_PATH: &str = "/v2/userstatusrealsingle";

/// A carrier without faults that knows the proxy's account.
pub(crate) async fn carrier() -> Simulator {
    let account = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD);
    Simulator::start_local(Config::new([account])).await.expect("a free port of the loopback")
}

/// Awaits a future; panics after [`TIMEOUT`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {TIMEOUT:?}"),
    }
}

/// Polls until the probe returns a value; panics after [`TIMEOUT`].
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    within(what, async {
        loop {
            if let Some(done) = probe().await {
                return done;
            }
            // To yield the processor; no test depends on this duration.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Writes a secret into a file with mode 0600, and registers it as a secret.
pub(crate) fn write_secret(path: &std::path::Path, text: &str) {
    secrets::register_file(text);
    write_config(path, text);
}

/// Writes a configuration, whose passwords are registered already, into a file with mode 0600.
pub(crate) fn write_config(path: &std::path::Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a writable folder");
}
