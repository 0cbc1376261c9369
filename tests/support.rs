//! Small builders, so that a test reads as the sentence it proves.
//!
//! A carrier is simulated inside the test; the proxy in front of it is the real executable ([`Proxy`]), or, where a
//! hand must set its clock, the same [`App`](cmiot_proxy::app::App) inside the test ([`Clocked`]). A gateway is a
//! socket and a few lines over sha2, so that neither the proxy's HTTP nor its signer is tested by itself. Every wait
//! ends after [`PATIENCE`], which only a broken proxy reaches.

mod audit;
pub(crate) mod chip;
mod clocked;
mod command;
mod gateway;
mod gateway_client;
mod http;
mod machine;
mod pki;
mod proxy;
mod scripted;
pub(crate) mod secrets;
mod setup;

use std::time::Duration;

use cmiot_simulator::{Account, Config, Simulator};

pub(crate) use audit::{Row, rows, segments};
pub(crate) use clocked::Clocked;
pub(crate) use command::{Finished, run};
pub(crate) use gateway::{Card, Gateway, Query, card_number};
pub(crate) use gateway_client::Door;
pub(crate) use http::{Answer, Line};
pub(crate) use machine::Ground;
pub(crate) use pki::Pki;
pub(crate) use proxy::{Proxy, command};
pub(crate) use scripted::{say, scripted};
pub(crate) use secrets::logged;
pub(crate) use setup::Setup;

/// How long anything may take before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the carrier issued.
pub(crate) const ACCOUNT_APPID: &str = "100001";
pub(crate) const ACCOUNT_PASSWORD: &str = "the-carriers-side-of-it";
pub(crate) const EBID: &str = "0001000000009";

/// What the gateways sign with.
pub(crate) const GATEWAY_APPID: &str = "GW0001";
pub(crate) const GATEWAY_PASSWORD: &str = "the-gateways-side-of-it";

/// The carrier page's own examples of cards.
pub(crate) const MSISDN: Card = Card::new("msisdn", "14765004176");
pub(crate) const ICCID: Card = Card::new("iccid", "898600D6991330004146");
pub(crate) const IMSI: Card = Card::new("imsi", "460079650004176");

/// The carrier's answer for a card in order, byte for byte.
pub(crate) const NORMAL: &str = r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#;

pub(crate) const STATUS_PATH: &str = "/v2/userstatusrealsingle";

/// A carrier on a good day that knows the proxy's account.
pub(crate) async fn carrier() -> Simulator {
    let account = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD);
    Simulator::start_local(Config::new([account])).await.expect("a free port of the loopback")
}

/// Waits for something that happens soon in a proxy that works.
pub(crate) async fn soon<T>(what: &str, it: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, it).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Asks again and again until the answer is as wanted.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    soon(what, async {
        loop {
            if let Some(done) = ask().await {
                return done;
            }
            // Only so as not to spin: nothing depends on how long this is.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Writes a secret into a file that nobody else can read.
pub(crate) fn write_secret(path: &std::path::Path, text: &str) {
    secrets::keep_file(text);
    write_config(path, text);
}

/// Writes a configuration, whose passwords are known already, into a file that nobody else can read.
pub(crate) fn write_config(path: &std::path::Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a writable folder");
}
