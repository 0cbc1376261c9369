//! Steps that several tests make: log in, the list of the pages, what tables and figures say.

use serde_json::json;

use crate::browser::Browser;
use crate::support::Proxy;

/// The link in the head of each page to every other one.
const LINKS: &str = "header nav a";

/// Logs in with a token, and arrives at the overview.
pub(crate) async fn log_in(browser: &Browser, token: &str) {
    browser.open("/").await;
    browser.fill("#token", token).await;
    browser.click("main form button").await;
    browser.find(".headline").await;
    browser.check().await;
}

/// Logs in with the token that a proxy has made.
pub(crate) async fn log_in_to(browser: &Browser, proxy: &Proxy) {
    log_in(browser, &proxy.generated_token().expect("a token")).await;
}

/// The paths of all pages that the present one leads to.
pub(crate) async fn paths(browser: &Browser) -> Vec<String> {
    browser.find(LINKS).await;
    browser.attributes(LINKS, "href").await
}

/// The texts of the cells of all rows of the page's tables.
pub(crate) async fn cells(browser: &Browser) -> Vec<Vec<String>> {
    let script = "return [...document.querySelectorAll('main tbody tr')]
        .map(row => [...row.cells].map(cell => cell.innerText.trim().replaceAll(/\\s+/g, ' ')))";
    serde_json::from_value(browser.run(script, &[]).await).expect("texts")
}

/// The value of a figure of the last 24 hours.
pub(crate) async fn figure(browser: &Browser, name: &str) -> String {
    let value = browser.run(FIGURE, &[json!(name), json!("text")]).await;
    value.as_str().unwrap_or_else(|| panic!("no figure {name}")).to_owned()
}

/// Follows the link of a figure.
pub(crate) async fn follow_figure(browser: &Browser, name: &str) {
    let link = browser.run(FIGURE, &[json!(name), json!("link")]).await;
    browser.open(link.as_str().unwrap_or_else(|| panic!("{name} leads nowhere"))).await;
}

const FIGURE: &str = "const found = [...document.querySelectorAll('section[aria-labelledby=last-day] .figures > div')]
        .find(it => it.querySelector('dt').innerText === arguments[0]);
    return found && (arguments[1] === 'text' ? found.querySelector('dd').innerText : found.querySelector('a')?.getAttribute('href'));";
