//! Acts of operators by commands on files: each leaves a note for the audit.

use std::path::Path;

use cmiot_proxy::clock::Clock;
use cmiot_proxy::process;
use cmiot_proxy::store::audit::retention::note_act;

/// The user of this command, as notes name it.
pub(super) fn who() -> String {
    format!("by={} from=local", process::user())
}

/// Leaves the note about an act; on a copy, or in a folder that cannot be written, prints that it is not recorded.
pub(super) fn note(dir: &Path, what: &'static str, selection: &str) {
    let detail = format!("{} {selection}", who());
    if let Err(error) = note_act(dir, what, detail, Clock::system().now()) {
        super::warn(&said!("not recorded in the audit: {error}", "没有记入审计：{error}"));
    }
}
