//! axe-core in a page: the rules that it finds broken, except minor and moderate ones.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::json;

use super::Browser;

/// Runs all rules, and returns per broken one its name, its help and the elements.
const SCRIPT: &str = "const done = arguments[arguments.length - 1];
    axe.run(document, { resultTypes: ['violations'] }).then(
        found => done(found.violations
            .filter(rule => ['serious', 'critical'].includes(rule.impact))
            .map(rule => rule.id + ': ' + rule.help + ': ' + rule.nodes.map(node => node.target + ' ' + node.failureSummary).join('; '))),
        error => done(['axe-core failed: ' + error]));";

/// Fails when a serious rule is broken.
pub(super) async fn check(browser: &Browser, url: &str) {
    browser.run(source(), &[]).await;
    let found = browser.run_until_done(SCRIPT).await;
    assert_eq!(found, json!([]), "{url}, {:?}", browser.settings);
}

/// The text of axe-core, with a last statement that returns nothing.
fn source() -> &'static str {
    static SOURCE: OnceLock<String> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
        let path = target.join("axe-core/node_modules/axe-core/axe.min.js");
        let read = std::fs::read_to_string(&path);
        let text = read
            .unwrap_or_else(|error| panic!("{}: {error}: `cargo xtask ci page` installs it", path.display()));
        text + "\nreturn null;"
    })
}
