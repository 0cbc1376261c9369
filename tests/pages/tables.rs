//! Numbers of the pages, the rows behind them, and files.

use super::client::Browser;
use super::proxy;
use crate::support::{MSISDN, Setup, card_number, carrier, eventually};

/// The value of a figure on a page.
fn figure(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("<dt>{name}</dt>")).unwrap_or_else(|| panic!("{name}: {page}"));
    let value = rest.split_once("<dd>").unwrap().1.split_once("</dd>").unwrap().0;
    let text = value.rsplit_once("</a>").map_or(value, |(link, _)| link.rsplit_once('>').unwrap().1);
    text.to_owned()
}

#[tokio::test]
async fn the_numbers_of_the_overview_lead_to_their_rows_and_these_to_their_calls() {
    let proxy = proxy().await;
    for card in [MSISDN.number.to_owned(), card_number(1).number, MSISDN.number.to_owned()] {
        proxy.look_up(&crate::support::Card::new("msisdn", card)).await.assert_normal();
    }
    let wrong = proxy.gateway.sign(&MSISDN).with("token", &"0".repeat(64));
    proxy.get(&wrong).await.assert_refusal("7");
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let page = browser.text("/").await;
    let numbers =
        ["Lookups", "Hit share", "Carrier calls", "Refused", "Failed"].map(|name| figure(&page, name));
    assert_eq!(numbers, ["4", "33.3 %", "2", "1", "0"], "{page}");
    assert!(page.contains("<svg class=\"chart\"") && page.contains("miss 2"), "{page}");
    for (conditions, count) in [
        ("outcome=hit", 1),
        ("outcome=miss", 2),
        ("kind=calls", 2),
        ("outcome=refused&reason=token", 1),
        ("reason=rate", 0),
    ] {
        assert_eq!(browser.row_ids(conditions).await.len(), count, "{conditions}");
    }
    let row = browser.row_ids("outcome=miss").await.remove(0);
    let page = browser.text(&format!("/page/audit/row?id={row}")).await;
    assert!(page.contains("Carrier calls") && page.contains("latency_ms"), "{page}");
    assert!(!page.contains("It cost no call"), "{page}");
    let accounts = browser.text("/page/accounts").await;
    assert_eq!(figure(&accounts, "Calls of the last 24 hours"), "2");
    assert!(accounts.contains("makes calls") && accounts.contains("1 of 1"), "{accounts}");
}

#[tokio::test]
async fn clients_are_sorted_and_filtered_and_those_in_trouble_are_marked() {
    let carrier = carrier().await;
    let mut setup = Setup::with_carrier(&carrier);
    for n in 2..5 {
        let entry =
            format!("group = \"fleet\"\nappid = \"GW000{n}\"\npassword = \"the-side-of-gateway-{n}\"");
        setup = setup.push("client", entry.parse().unwrap());
    }
    let proxy = setup.start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let wrong = proxy.gateway.named("GW0003", "not-its-password");
    for _ in 0..2 {
        proxy.get(&wrong.sign(&MSISDN)).await.assert_refusal("7");
    }
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let page = browser.text("/page/clients").await;
    let at = |appid: &str| page.find(&format!(">{appid}</a>")).unwrap_or_else(|| panic!("{appid}: {page}"));
    assert!(at("GW0003") < at("GW0001") && at("GW0001") < at("GW0002"), "trouble, then requests: {page}");
    assert!(page.contains("token 2"), "the reason: {page}");
    let page = browser.text("/page/clients?trouble=1").await;
    assert!(page.contains("GW0003") && !page.contains("GW0001"), "{page}");
    let page = browser.text("/page/clients?q=gw0004").await;
    assert!(page.contains("GW0004") && !page.contains("GW0001"), "{page}");
    let page = browser.text("/page/clients?sort=name").await;
    assert!(page.find(">GW0001</a>") < page.find(">GW0003</a>"), "{page}");
    let refusals = browser.text("/page/refusals").await;
    assert!(refusals.contains("127.0.0.1") && refusals.contains("compare the client list"), "{refusals}");
    let none = browser.text("/page/refusals?peer=192.0.2.").await;
    assert!(none.contains("No request was refused"), "{none}");
}

#[tokio::test]
async fn tables_are_files_with_masked_cards() {
    let proxy = proxy().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.get(&proxy.gateway.sign(&MSISDN).with("token", &"0".repeat(64))).await.assert_refusal("7");
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let page = browser.text("/page/audit?outcome=miss").await;
    assert!(page.contains("href=\"/page/audit?outcome=miss&#38;format=csv\" download="), "{page}");
    let file = browser.get("/page/audit?format=csv").await;
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(file.header("content-disposition"), Some("attachment; filename=\"lookups.csv\""));
    let text = file.text();
    assert!(text.starts_with("id,time,client,") && text.contains(",1476****176,"), "{text}");
    assert!(!text.contains(MSISDN.number), "{text}");
    assert_eq!(text.lines().count(), 3);
    for path in ["/page/clients?format=csv", "/page/refusals?format=csv", "/page/audit?kind=calls&format=csv"]
    {
        let file = browser.get(path).await;
        assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"), "{path}");
        assert!(file.text().lines().count() > 1 && !file.text().contains(MSISDN.number), "{path}");
    }
}

#[tokio::test]
async fn rows_of_before_the_first_page_are_summed_in_the_background() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).start().await;
    for n in 0..20 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    proxy.restart().await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let cookie = browser.cookie().to_owned();
    eventually("all rows", || async {
        let page = Browser::with(&proxy, &cookie).text("/").await;
        (figure(&page, "Lookups") == "21" && !page.contains("incomplete")).then_some(())
    })
    .await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    assert_eq!(figure(&browser.text("/").await, "Lookups"), "22", "each row once");
}

#[tokio::test]
async fn a_filter_that_no_row_can_meet_is_explained() {
    let proxy = proxy().await;
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    for (query, said) in [
        ("outcome=hits", "collapsed"),
        ("since=yesterday", "since:"),
        ("status=normal", "00 normal"),
        ("since=2026-01-15T12:00&until=2026-01-15T11:00", "not before until"),
    ] {
        let page = browser.get(&format!("/page/audit?{query}")).await;
        assert_eq!(page.status, 400, "{query}");
        assert!(page.text().contains(said), "{query}: {}", page.text());
    }
    assert_eq!(browser.get("/page/audit/row?id=999").await.status, 404);
}
