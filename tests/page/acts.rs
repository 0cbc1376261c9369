//! The acts of an operator on the pages: finding a card, refreshing and purging it, showing its number, verifying the audit.

use crate::browser::{Browser, LARGE, SMALL, Settings};
use crate::pages::log_in_to;
use crate::support::{MSISDN, Proxy, carrier};

/// Each act, with scripts and without: a purge asks first, and all of them are notes in the audit.
#[tokio::test]
async fn a_card_is_found_refreshed_purged_and_shown_and_each_act_is_noted() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (scripts, size) in [(true, LARGE), (false, SMALL)] {
        let settings = Settings { scripts, size, ..Settings::default() };
        let browser = Browser::start(proxy.admin_address(), settings).await;
        log_in_to(&browser, &proxy).await;
        proxy.look_up(&MSISDN).await.assert_normal();
        let before = carrier.count();

        browser.open("/page/card").await;
        browser.fill("#number", MSISDN.number).await;
        browser.click("form.filter button").await;
        browser.find("dl.panel").await;
        browser.check().await;
        assert!(!browser.text("main").await.contains(MSISDN.number), "the card is masked");

        browser.click("form[action='/page/card/refresh'] button").await;
        browser.find("p[role=status]").await;
        assert_eq!(carrier.count(), before + 1, "a refresh spends a call");

        browser.click("form[action='/page/card/purge']:last-child button").await;
        browser.find("button.danger").await;
        browser.check().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        assert_eq!(carrier.count(), before + 1, "it only asks");
        browser.click("form.actions a").await;
        browser.find("form[action='/page/card/refresh']").await;
        browser.click("form[action='/page/card/purge']:last-child button").await;
        browser.click("button.danger").await;
        browser.find("p[role=status]").await;
        browser.check().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        assert_eq!(carrier.count(), before + 2, "the entry is gone");

        browser.open("/page/audit").await;
        browser.click("main tbody tr a").await;
        browser.click("form[action='/page/audit/reveal'] button").await;
        browser.find("dd strong").await;
        assert!(browser.text("main").await.contains(MSISDN.number), "the card is shown");
        browser.check().await;

        browser.open("/page/audit?kind=notes").await;
        let notes = browser.text("main table").await;
        for note in ["purge", "warm", "reveal"] {
            assert!(notes.contains(note), "{note} is not in {notes}");
        }
        assert!(!notes.contains(MSISDN.number), "the card of a note is masked");
    }
}

#[tokio::test]
async fn the_audit_is_verified_in_the_background() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let browser = Browser::start(proxy.admin_address(), Settings::default()).await;
    log_in_to(&browser, &proxy).await;
    browser.open("/page/audit").await;
    let before = browser.text("#verification").await;
    browser.click("#verification button").await;
    let done = |text: &str| text != before && !text.contains('%') && text.contains("Verify");
    browser.wait_for_text("#verification", done).await;
    let verdict = browser.text("#verification").await;
    assert!(verdict.contains("chain ok"), "{verdict}");
    browser.check().await;
    browser.open("/").await;
}

#[tokio::test]
async fn lookups_appear_live_as_they_happen_until_the_page_is_paused() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let browser = Browser::start(proxy.admin_address(), Settings::default()).await;
    log_in_to(&browser, &proxy).await;
    browser.open("/page/live").await;
    let rows = async |count: usize| browser.wait_for_count("#rows tr", count).await;
    // The stream runs once it shows a lookup.
    proxy.look_up(&MSISDN).await.assert_normal();
    rows(1).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    rows(2).await;
    let shown = browser.texts("#rows tr").await;
    assert!(shown[0].contains("hit") && shown[1].contains("miss"), "the newest is the first: {shown:?}");
    assert!(!shown.concat().contains(MSISDN.number), "cards are masked");
    browser.click("#pause").await;
    proxy.look_up(&MSISDN).await.assert_normal();
    browser.wait_for_text("#pause", |text| text.contains("(1)")).await;
    assert_eq!(browser.count("#rows tr").await, 2);
    browser.check().await;
    browser.click("#pause").await;
    proxy.look_up(&MSISDN).await.assert_normal();
    rows(3).await;
}
