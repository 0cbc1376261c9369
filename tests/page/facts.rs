//! The facts of the pages, against the simulator's counts.

use crate::browser::{Browser, Settings};
use crate::pages::log_in_to;
use crate::support::{ICCID, IMSI, MSISDN, Proxy, Setup, carrier};

#[tokio::test]
async fn the_overview_says_what_the_carrier_counted() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier).set("account.0.calls_per_day", 8);
    let proxy = Proxy::start(setup).await;
    for card in [&MSISDN, &ICCID, &MSISDN] {
        proxy.look_up(card).await.assert_normal();
    }
    let browser = Browser::start(proxy.admin_address(), Settings::default()).await;
    log_in_to(&browser, &proxy).await;
    let left = |made: u64| format!("{} % of today's calls left", (8 - made) * 100 / 8);
    let headline = browser.text(".headline").await;
    assert!(headline.starts_with("Answering.") && headline.contains(&left(carrier.count())), "{headline}");

    carrier.kill().await;
    proxy.look_up(&IMSI).await.assert_refusal("73");
    browser.reload().await;
    browser.check().await;
    browser.find(".headline").await;
    carrier.restart().await.unwrap();
}
