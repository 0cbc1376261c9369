//! The text of `--version`: version, commit, target and SQLite.

use std::sync::LazyLock;

use cmiot_proxy::store;

static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (commit {}, {}, SQLite {})",
        env!("CARGO_PKG_VERSION"),
        env!("CMIOT_BUILD_COMMIT"),
        env!("CMIOT_BUILD_TARGET"),
        store::sqlite_version()
    )
});

/// The version, and what the executable was built from.
pub(super) fn text() -> &'static str {
    &VERSION
}
