//! A Chromium with a chromedriver of its own, and the checks that hold on every page.
//!
//! Both are Debian's, from one source package. They end with the test, also when the test's process is killed.

mod accessibility;
mod commands;
mod processes;

use std::net::SocketAddr;

use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::support::{ICCID, IMSI, MSISDN, eventually, within};
use commands::Command;
use processes::Processes;

/// The sizes of a page, in CSS pixels: a telephone and a laptop.
pub(crate) const SMALL: (u32, u32) = (390, 844);
pub(crate) const LARGE: (u32, u32) = (1280, 800);
pub(crate) const WIDE: (u32, u32) = (1600, 900);

/// The settings of a browser.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The value of Accept-Language.
    pub(crate) language: &'static str,
    pub(crate) size: (u32, u32),
    pub(crate) dark: bool,
    pub(crate) scripts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { language: "en-US,en", size: LARGE, dark: false, scripts: true }
    }
}

/// A browser with one window.
pub(crate) struct Browser {
    client: Client,
    origin: String,
    settings: Settings,
    /// Dropped last: it ends the processes.
    _processes: Processes,
}

impl Browser {
    /// Starts a browser for the pages of a listener.
    pub(crate) async fn start(listener: SocketAddr, settings: Settings) -> Self {
        let processes = Processes::start().await;
        let mut arguments = vec![format!("--user-data-dir={}", processes.profile().display())];
        arguments.extend(ARGUMENTS.map(str::to_owned));
        let mut preferences = json!({ "intl.accept_languages": settings.language });
        if !settings.scripts {
            preferences["profile.managed_default_content_settings.javascript"] = json!(2);
        }
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments, "prefs": preferences },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("written as an object") };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let connect = builder.capabilities(capabilities.into_iter().collect());
        let client = within("a session", connect.connect(&processes.driver())).await.expect("a browser");
        let browser = Self { client, origin: format!("http://{listener}"), settings, _processes: processes };
        browser.show_as(settings.size, settings.dark).await;
        browser
    }

    /// Sets the size of the page and the theme of the system.
    pub(crate) async fn show_as(&self, (width, height): (u32, u32), dark: bool) {
        // A window cannot be as narrow as a telephone.
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.developer("Emulation.setDeviceMetricsOverride", size).await;
        let theme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.developer("Emulation.setEmulatedMedia", media).await;
    }

    /// Opens a path of the listener, and checks the page.
    pub(crate) async fn open(&self, path: &str) {
        self.open_unchecked(path).await;
        self.check().await;
    }

    /// Opens a path of the listener.
    pub(crate) async fn open_unchecked(&self, path: &str) {
        self.go(&format!("{}{path}", self.origin)).await;
    }

    /// Opens a URL.
    pub(crate) async fn go(&self, url: &str) {
        within(url, self.client.goto(url)).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The URL of the page.
    pub(crate) async fn url(&self) -> String {
        within("the URL", self.client.current_url()).await.expect("a page").to_string()
    }

    /// The first element of a CSS selector; waits for it.
    pub(crate) async fn find(&self, selector: &str) -> Element {
        let what = format!("{selector} in {}", self.url().await);
        eventually(&what, || async { self.client.find(Locator::Css(selector)).await.ok() }).await
    }

    /// The number of elements now.
    pub(crate) async fn count(&self, selector: &str) -> usize {
        self.client.find_all(Locator::Css(selector)).await.expect("a page").len()
    }

    /// Waits until there are so many elements.
    pub(crate) async fn wait_for_count(&self, selector: &str, count: usize) {
        let what = format!("{count} of {selector}");
        eventually(&what, || async { (self.count(selector).await == count).then_some(()) }).await;
    }

    /// The visible text of the first element.
    pub(crate) async fn text(&self, selector: &str) -> String {
        self.find(selector).await.text().await.expect("an element")
    }

    /// The visible texts of all elements now.
    pub(crate) async fn texts(&self, selector: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for element in self.client.find_all(Locator::Css(selector)).await.expect("a page") {
            texts.push(element.text().await.expect("an element"));
        }
        texts
    }

    /// The values of an attribute of all elements now, as they are written.
    pub(crate) async fn attributes(&self, selector: &str, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        for element in self.client.find_all(Locator::Css(selector)).await.expect("a page") {
            values.extend(element.attr(name).await.expect("an element"));
        }
        values
    }

    /// Waits until the visible text of the first element satisfies `holds`.
    pub(crate) async fn wait_for_text(&self, selector: &str, holds: impl Fn(&str) -> bool) -> String {
        eventually(&format!("the text of {selector}"), || async {
            let element = self.client.find(Locator::Css(selector)).await.ok()?;
            element.text().await.ok().filter(|text| holds(text))
        })
        .await
    }

    /// Clicks an element.
    pub(crate) async fn click(&self, selector: &str) {
        let clicked = self.find(selector).await.click().await;
        clicked.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Replaces the text of a field.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let field = self.find(selector).await;
        field.clear().await.expect("a field");
        field.send_keys(text).await.expect("a field");
    }

    /// Selects an option of a list by its value.
    pub(crate) async fn select(&self, selector: &str, value: &str) {
        self.find(selector).await.select_by_value(value).await.expect("an option");
    }

    /// Presses and releases keys, one after another, wherever the focus is.
    pub(crate) async fn press(&self, keys: &[Key]) {
        let mut actions = KeyActions::new("keyboard".to_owned());
        for key in keys {
            actions = actions
                .then(KeyAction::Down { value: char::from(*key) })
                .then(KeyAction::Up { value: char::from(*key) });
        }
        self.client.perform_actions(actions).await.expect("a keyboard");
    }

    /// Types text wherever the focus is.
    pub(crate) async fn type_text(&self, text: &str) {
        let mut actions = KeyActions::new("keyboard".to_owned());
        for value in text.chars() {
            actions = actions.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        }
        self.client.perform_actions(actions).await.expect("a keyboard");
    }

    /// Moves the focus by the keyboard until it is on an element of the selector; fails when it does not come there.
    pub(crate) async fn tab_to(&self, selector: &str) {
        for _ in 0..300 {
            self.press(&[Key::Tab]).await;
            if self.run("return document.activeElement.matches(arguments[0])", &[json!(selector)]).await
                == json!(true)
            {
                return;
            }
        }
        panic!("{selector} in {}: the keyboard does not reach it", self.url().await);
    }

    /// Runs a script in the page; not without scripts.
    pub(crate) async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        within("a script", self.client.execute(script, arguments.to_vec()))
            .await
            .expect("a script that works")
    }

    /// Runs a script that calls its last argument with the result.
    async fn run_until_done(&self, script: &str) -> Value {
        within("a script", self.client.execute_async(script, Vec::new())).await.expect("a script that works")
    }

    /// Goes back in the history.
    pub(crate) async fn back(&self) {
        self.client.back().await.expect("an earlier page");
    }

    /// Loads the page again.
    pub(crate) async fn reload(&self) {
        self.client.refresh().await.expect("a page");
    }

    /// The page as a PNG file, of the window's size.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        within("a screenshot", self.client.screenshot()).await.expect("a page")
    }

    /// The warnings and errors of the console since the last call: errors of scripts, violations of the page's policy,
    /// responses that are errors. Without Chromium's hints for password managers.
    pub(crate) async fn console(&self) -> Vec<String> {
        let lines = self.command("se/log", json!({ "type": "browser" })).await;
        let lines = lines.as_array().expect("a list of lines").iter();
        let lines = lines.filter(|line| line["level"] == "WARNING" || line["level"] == "SEVERE");
        lines.map(|line| line["message"].as_str().expect("a text").to_owned()).collect()
    }

    /// Fails unless the page keeps to the rules of every page: an empty console, no card in its URL and title, its
    /// language, no text wider than the screen, and nothing that axe-core finds serious.
    pub(crate) async fn check(&self) {
        let url = self.url().await;
        assert_eq!(self.console().await, [""; 0], "{url}");
        let title = self.client.title().await.expect("a page");
        for text in [&url, &title] {
            assert!(!has_card(text), "a card in {text}");
        }
        let language = self.find("html").await.attr("lang").await.expect("an element");
        let expected = if self.settings.language.starts_with("zh") { "zh-CN" } else { "en" };
        assert_eq!(language.as_deref(), Some(expected), "{url}");
        if self.settings.scripts {
            let widths = self.run("return [document.documentElement.scrollWidth, innerWidth]", &[]).await;
            assert!(widths[0].as_u64() <= widths[1].as_u64(), "{url} is wider than the screen: {widths}");
            accessibility::check(self, &url).await;
        }
    }

    /// A command of Chromium's DevTools protocol.
    async fn developer(&self, command: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// A command of chromedriver that WebDriver does not have.
    async fn command(&self, path: &'static str, body: Value) -> Value {
        let command = Command { path, body };
        within(path, self.client.issue_cmd(command)).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// Without a sandbox, which the root user cannot have, and without connections of its own.
const ARGUMENTS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// Whether a text has the number of a card of the tests or of the demo. A transid, which a URL may have, is longer.
fn has_card(text: &str) -> bool {
    let mut words = text.split(|one: char| !one.is_ascii_alphanumeric());
    words.any(|word| {
        [MSISDN, ICCID, IMSI].iter().any(|card| card.number == word)
            || word.starts_with("1064") && [11, 13].contains(&word.len())
    })
}
