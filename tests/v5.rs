//! Accounts of API v5 behind gateways that speak v2.

mod fallback;
mod stop_reason;
mod tokens;
mod translation;

use cmiot_simulator::{Config, Simulator, v5};

use crate::support::{EBID, Setup};

/// Credentials of API v5 that the carrier issued.
const APPID: &str = "200001";
const PASSWORD: &str = "the-carriers-side-of-v5";

fn account() -> v5::Account {
    v5::Account::new(APPID, PASSWORD)
}

/// A carrier with this account of API v5 only.
async fn carrier(account: v5::Account) -> Simulator {
    let config = Config { v5_accounts: vec![account], ..Config::new([]) };
    Simulator::start_local(config).await.expect("a free port of the loopback")
}

/// A proxy whose only account is of API v5.
fn setup(carrier: &Simulator) -> Setup {
    Setup::with_carrier(carrier)
        .unset("account.0.ebid")
        .set("account.0.api", "v5")
        .set("account.0.appid", APPID)
        .set("account.0.password", PASSWORD)
        .set("client.0.ebid", EBID)
}
