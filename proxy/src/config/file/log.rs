//! `[log]` as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[log]`: the lines on standard error.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The format of log lines.
    pub format: LogFormat,
    /// The level of the lines of lookups, whose target is `lookup`.
    pub lookups: LookupLevel,
    /// Lookups that each have a line in a second; of further ones every hundredth has one. At 200, journald's limit of
    /// 10,000 lines in 30 seconds leaves room for other lines.
    #[schemars(extend("x-unit" = "lookups per second"))]
    pub lookups_per_second: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::default(), lookups: LookupLevel::default(), lookups_per_second: 200 }
    }
}

/// The level of the lines of lookups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LookupLevel {
    /// There are no lines.
    Off,
    /// Only if `RUST_LOG` asks for them, such as `info,lookup=debug`.
    Debug,
    /// Without `RUST_LOG` too.
    #[default]
    Info,
}

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}
