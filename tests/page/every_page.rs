//! The rules of every page: in both languages, at three sizes, in both themes, without scripts, by the keyboard alone.

use cmiot_simulator::Simulator;
use fantoccini::key::Key;
use serde_json::json;

use crate::browser::{Browser, LARGE, SMALL, Settings, WIDE};
use crate::pages::{log_in_to, paths};
use crate::support::{ICCID, MSISDN, Proxy, carrier};

const CHINESE: &str = "zh-CN,zh";

/// A proxy with a hit, a miss and a refusal in its audit.
async fn used_proxy(carrier: &Simulator) -> Proxy {
    let proxy = Proxy::with_carrier(carrier).await;
    for card in [&MSISDN, &ICCID, &MSISDN] {
        proxy.look_up(card).await.assert_normal();
    }
    proxy.get(&proxy.sign(&MSISDN).with("token", "x")).await.assert_refusal("7");
    proxy
}

#[tokio::test]
async fn every_page_keeps_the_rules_in_both_languages_sizes_and_themes() {
    let carrier = carrier().await;
    let proxy = used_proxy(&carrier).await;
    for language in [Settings::default().language, CHINESE] {
        let settings = Settings { language, ..Settings::default() };
        let browser = Browser::start(proxy.admin_address(), settings).await;
        log_in_to(&browser, &proxy).await;
        for path in paths(&browser).await {
            for (size, dark) in [(LARGE, false), (SMALL, true), (WIDE, false)] {
                browser.show_as(size, dark).await;
                browser.open(&path).await;
                let titles = browser.texts("h1, h2, label, button, legend, dt, nav a").await;
                assert!(!titles.is_empty(), "{path}");
                if language == CHINESE {
                    let other: Vec<_> = titles.iter().filter(|title| !is_chinese(title)).collect();
                    assert!(other.is_empty(), "{path}: not in Chinese: {other:?}");
                } else {
                    assert!(
                        !titles.iter().any(|title| has_chinese(title)),
                        "{path}: not in English: {titles:?}"
                    );
                }
            }
        }
    }
}

/// Whether a text has a Chinese character, or is a name that has no translation, or nothing to read at all.
fn is_chinese(text: &str) -> bool {
    ["STATUS", "transid", "p50", "p99", "fleet"].contains(&text)
        || !text.chars().any(char::is_alphabetic)
        || has_chinese(text)
}

fn has_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

#[tokio::test]
async fn every_page_works_without_scripts() {
    let carrier = carrier().await;
    let proxy = used_proxy(&carrier).await;
    let settings = Settings { scripts: false, size: SMALL, ..Settings::default() };
    let browser = Browser::start(proxy.admin_address(), settings).await;
    log_in_to(&browser, &proxy).await;
    let with_content = |text: &str| text.trim().len() > 20;
    for path in paths(&browser).await {
        browser.open(&path).await;
        browser.wait_for_text("main", with_content).await;
    }
    browser.click("header form button").await;
    browser.find("#token").await;
    browser.open("/").await;
    browser.find("#token").await;
}

#[tokio::test]
async fn the_keyboard_alone_logs_in_reaches_everything_and_purges_a_card() {
    let carrier = carrier().await;
    let proxy = used_proxy(&carrier).await;
    let browser = Browser::start(proxy.admin_address(), Settings::default()).await;
    browser.open("/").await;
    browser.tab_to("#token").await;
    browser.type_text("not the token").await;
    browser.press(&[Key::Enter]).await;
    browser.find("[role=alert]").await;
    // The response to a wrong token is an error, 401, which the browser logs.
    assert_eq!(browser.console().await.len(), 1);
    browser.tab_to("#token").await;
    browser.type_text(&proxy.generated_token().unwrap()).await;
    browser.press(&[Key::Enter]).await;
    browser.find(".headline").await;
    for path in paths(&browser).await {
        browser.open(&path).await;
        let count = browser.run(MARK, &[]).await.as_u64().unwrap();
        // A field of a date has several parts, each of which is a stop of the keyboard.
        let mut left = json!(null);
        for _ in 0..2 * count + 40 {
            browser.press(&[Key::Tab]).await;
            left = browser.run(REACH, &[]).await;
            if left == json!([]) {
                break;
            }
        }
        assert_eq!(left, json!([]), "{path}: out of the keyboard's reach");
    }
    for which in ["soft", "hard"] {
        find_by_keyboard(&browser).await;
        purge_by_keyboard(&browser, &proxy, &carrier, which).await;
    }
}

/// Follows the link to the page of a card, and submits its number.
async fn find_by_keyboard(browser: &Browser) {
    browser.tab_to("header nav a[href='/page/card']").await;
    browser.press(&[Key::Enter]).await;
    browser.find("#number").await;
    browser.tab_to("#number").await;
    browser.type_text(MSISDN.number).await;
    browser.press(&[Key::Enter]).await;
    browser.find("dl.panel").await;
    browser.check().await;
}

/// Purges the card that is shown, after the confirmation was cancelled once. Nothing is purged before it is given.
async fn purge_by_keyboard(browser: &Browser, proxy: &Proxy, carrier: &Simulator, mode: &str) {
    let before = carrier.count();
    let form = format!("form[action='/page/card/purge']:has(input[value={mode}]) button");
    for confirmed in [false, true] {
        browser.tab_to(&form).await;
        browser.press(&[Key::Enter]).await;
        browser.find("button.danger").await;
        browser.check().await;
        let hit = proxy.look_up(&MSISDN).await;
        assert!(hit.cache().starts_with("hit"), "{mode}: it only asks: {hit:?}");
        browser.tab_to(if confirmed { "button.danger" } else { "form.actions a" }).await;
        browser.press(&[Key::Enter]).await;
        browser.find("form[action='/page/card/refresh']").await;
    }
    browser.find("p[role=status]").await;
    browser.check().await;
    assert_eq!(carrier.count(), before, "{mode}: a purge spends no call");
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(carrier.count(), before + 1, "{mode}: the entry is gone, or stale");
}

/// Marks the element that has the focus, and returns those that have not had it.
const REACH: &str = "document.activeElement.dataset.reached = '';
    return [...document.querySelectorAll('[data-reachable]:not([data-reached])')].map(it => it.outerHTML);";

/// Marks all elements that act, and returns their number. Of buttons of one choice, the keyboard reaches one.
const MARK: &str = "const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary')]
        .filter(it => it.checkVisibility() && !it.disabled && (it.type !== 'radio' || it.checked));
    all.forEach(it => it.dataset.reachable = '');
    return all.length;";
