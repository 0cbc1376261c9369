//! `cargo xtask screenshots`: the pictures of the operators' page in README and docs/page.md, out of
//! `cmiot-proxy demo --serve` in a browser.
//!
//! A test of `tests/page/` takes them (`tests/page/screenshots.rs` has the pages, sizes, themes and languages); only this
//! command writes them into `docs/`.

use anyhow::Result;

use crate::run::root;
use crate::tools;

/// Debian's package of a font for the Chinese pages.
const CHINESE_FONT: &str = "fonts-wqy-microhei";

/// The test that takes them.
const TEST: &str = "the_demo_serves_a_page_with_a_month_of_history";

/// The command.
///
/// # Errors
/// When the browser cannot be installed, or the test fails.
pub(crate) fn command() -> Result<()> {
    tools::browser()?;
    tools::install(&[CHINESE_FONT])?;
    let folder = root().join("docs");
    let folder = folder.to_string_lossy();
    tools::NEXTEST
        .ready()?
        // As the stage `page` selects it, so that nothing is compiled again.
        .args(["run", "--workspace", "--lib", "--bins", "--examples", "--test", "*"])
        .args(["-E", &format!("binary(=page) and test({TEST})")])
        .env("CMIOT_SCREENSHOTS", &folder)
        .run()
}
