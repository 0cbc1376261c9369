//! The facts of the pages, against the simulator's counts, and the way from a number to its rows.

use cmiot_simulator::{Rule, Simulator};

use crate::browser::{Browser, Settings};
use crate::pages::{cells, figure, follow_figure, log_in_to};
use crate::support::{ICCID, IMSI, MSISDN, Proxy, Setup, carrier};

/// Calls per day of the account.
const CALLS_PER_DAY: u64 = 8;

/// A proxy of which two clients have made lookups: two hits, three misses, one of them refused by the carrier, and a wrong
/// token.
async fn used_proxy(carrier: &Simulator) -> Proxy {
    let client = "group = \"fleet\"\nappid = \"GW0002\"\npassword = \"the-second-gateways-side\"";
    let setup = Setup::with_carrier(carrier)
        .set("account.0.calls_per_day", i64::try_from(CALLS_PER_DAY).unwrap())
        .add("client", client);
    let proxy = Proxy::start(setup).await;
    carrier.set_rules([Rule::card(IMSI.number).code("12")]);
    for card in [&MSISDN, &ICCID, &MSISDN, &MSISDN] {
        proxy.look_up(card).await.assert_normal();
    }
    let second = proxy.gateway.named("GW0002", "the-second-gateways-side");
    proxy.get(&second.sign(&IMSI)).await;
    proxy.get(&second.sign(&MSISDN).with("token", "x")).await.assert_refusal("7");
    proxy
}

#[tokio::test]
async fn every_page_says_what_the_carrier_counted_and_each_number_leads_to_its_rows() {
    let carrier = carrier().await;
    let proxy = used_proxy(&carrier).await;
    let made = carrier.count();
    assert_eq!(made, 3);
    let browser = Browser::start(proxy.admin_address(), Settings::default()).await;
    log_in_to(&browser, &proxy).await;

    let headline = browser.text(".headline").await;
    let left = format!("{} % of today's calls left", (CALLS_PER_DAY - made) * 100 / CALLS_PER_DAY);
    assert!(headline.starts_with("Answering.") && headline.contains(&left), "{headline}");
    for (name, value) in [("Lookups", "6"), ("Carrier calls", "3"), ("Refused", "1"), ("Failed", "0")] {
        assert_eq!(figure(&browser, name).await, value, "{name}");
    }
    // From a number to its rows, to one row, to its calls, and back.
    follow_figure(&browser, "Carrier calls").await;
    assert_eq!(browser.count("main tbody tr").await as u64, made);
    browser.click("main tbody tr a").await;
    browser.find("dl.pairs").await;
    browser.check().await;
    browser.back().await;
    browser.back().await;
    browser.find(".headline").await;

    browser.open("/page/accounts").await;
    let account = browser.text("main section").await;
    assert!(account.contains(&format!("{made} / {CALLS_PER_DAY}")), "{account}");

    browser.open("/page/clients?sort=name").await;
    let clients = cells(&browser).await;
    assert_eq!(clients.len(), 2);
    assert_eq!(clients[0][..8], ["GW0001", "fleet", "4", "2", "0", "2", "0", "0"]);
    assert_eq!(clients[1][1..7], ["fleet", "2", "0", "0", "1", "1"]);
    assert!(clients[1][0].contains("in trouble"), "{clients:?}");
    browser.select("#sort", "requests").await;
    browser.click("form.filter button").await;
    browser.find("#sort option[value=requests][selected]").await;
    assert_eq!(cells(&browser).await[0][0], "GW0001");
    browser.select("#sort", "refused").await;
    browser.click("form.filter button").await;
    browser.find("#sort option[value=refused][selected]").await;
    assert!(cells(&browser).await[0][0].starts_with("GW0002"));
    browser.click("#trouble").await;
    browser.click("form.filter button").await;
    browser.find("#trouble[checked]").await;
    assert_eq!(cells(&browser).await.len(), 1);
    browser.check().await;
    browser.back().await;
    browser.find("#trouble:not([checked])").await;
    assert_eq!(cells(&browser).await.len(), 2, "the filter is in the URL");

    browser.open("/page/refusals").await;
    let refusals = cells(&browser).await;
    assert_eq!((refusals.len(), refusals[0][1].as_str()), (1, "token"), "{refusals:?}");

    browser.open("/page/audit").await;
    assert_eq!(browser.count("main tbody tr").await, 6);
    browser.select("#outcome", "hit").await;
    browser.click("form.filter button").await;
    browser.find("#outcome option[value=hit][selected]").await;
    assert_eq!(browser.count("main tbody tr").await, 2);
    browser.reload().await;
    assert_eq!(browser.count("main tbody tr").await, 2);
    for card in [MSISDN, ICCID, IMSI] {
        assert!(!browser.text("main").await.contains(card.number), "cards are masked");
    }
}

#[tokio::test]
async fn the_page_says_in_words_that_the_carrier_is_down() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let browser = Browser::start(proxy.admin_address(), Settings::default()).await;
    log_in_to(&browser, &proxy).await;
    carrier.kill().await;
    for number in 0..6 {
        proxy.look_up(&crate::support::card_number(number)).await.assert_refusal("73");
    }
    browser.reload().await;
    browser.find(".headline.error").await;
    assert!(browser.count(".troubles li").await >= 1);
    browser.check().await;
}
