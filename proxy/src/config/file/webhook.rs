//! `[[webhook]]` as written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::HumanDuration;
use crate::units::schema::{FilePath, Name, Positive};

/// `[[webhook]]` as written.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawWebhook {
    /// Its name in logs, metrics and `state.db`, which keeps its position in the audit by this name.
    #[schemars(with = "Name")]
    pub name: String,
    /// The address that messages are posted to: `https`, or `http` on this machine.
    pub url: String,
    /// File with the secret: `whsec_` and 24 to 64 bytes in Base64, or `"credential:NAME"`. While receivers change to
    /// another secret, both, one per line.
    #[schemars(with = "FilePath")]
    pub secret_file: PathBuf,
    /// The events to send: `"status"`, `"breaker"`, `"alarm"`.
    pub events: Vec<EventClass>,
    /// The groups whose cards and accounts are reported; empty means all. Alarms concern the whole proxy and are sent
    /// whatever the groups are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Certificates that identify the receiver, in PEM, in addition to the platform's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub ca_file: Option<PathBuf>,
    /// Time for one attempt, at most 60 s.
    #[serde(default = "default_timeout")]
    #[schemars(with = "Positive")]
    pub timeout: HumanDuration,
    /// A message that is not delivered within this time after its event is given up.
    #[serde(default = "default_give_up_after")]
    #[schemars(with = "Positive")]
    pub give_up_after: HumanDuration,
}

fn default_timeout() -> HumanDuration {
    HumanDuration::secs(10)
}

fn default_give_up_after() -> HumanDuration {
    HumanDuration::secs(3 * 86_400)
}

/// The events that a webhook can be configured for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventClass {
    /// The carrier answers another STATUS for a card than the last known one.
    Status,
    /// A breaker of an account opens or closes.
    Breaker,
    /// An alarm is raised or ends.
    Alarm,
}
