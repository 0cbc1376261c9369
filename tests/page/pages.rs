//! Steps that several tests make: log in, and the list of the pages.

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
