//! `[audit]`: the guarantees and the limits of the audit.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{self, ConfigError};
use super::reader::SourceFiles;
use crate::language::text;
use crate::units::schema::Positive;
use crate::units::{HumanDuration, Size};

/// `[audit]` as written.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The failures that a committed record survives.
    pub durability: Durability,
    /// The response to a request whose record cannot be written.
    pub on_failure: OnFailure,
    /// Free space on the disk below which the audit stops writing.
    pub min_free: Size,
    /// The interval at which the chain's head is signed and recorded elsewhere: a truncated tail is undetected for at most
    /// this long.
    #[schemars(with = "Positive")]
    pub anchor_every: HumanDuration,
    /// The form of card numbers in the audit.
    pub identifiers: Identifiers,
    /// The part of the bodies of carrier replies that is kept with each call.
    pub bodies: Bodies,
    /// The group whose members may read the segments: its name, or its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_group: Option<String>,
    /// Requests that are not admitted and have one record each, per peer (or authenticated client), reason and period; further
    /// ones are counted.
    #[schemars(extend("x-unit" = "records"))]
    pub refusals: u32,
    /// The length of a period of `refusals`.
    #[schemars(with = "Positive")]
    pub refusal_period: HumanDuration,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            on_failure: OnFailure::default(),
            min_free: Size(64 << 20),
            anchor_every: HumanDuration::secs(300),
            identifiers: Identifiers::default(),
            bodies: Bodies::default(),
            audit_group: None,
            refusals: 20,
            refusal_period: HumanDuration::secs(60),
        }
    }
}

/// The failures that a committed audit record survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Power loss: each batch is synced before its responses leave.
    #[default]
    Power,
    /// The end of the process, `kill -9` included, but not that of the machine.
    Process,
}

/// The response to a request whose record cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is refused with code 73: no response without its record.
    #[default]
    Refuse,
    /// It is answered, and counted; the count is the first row written afterwards.
    Answer,
}

/// The form of card numbers in the audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Identifiers {
    /// As they are.
    #[default]
    Plain,
    /// As hashes under one key per month, next to a masked form.
    Keyed,
}

/// The part of the body of a carrier reply that is kept with its call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bodies {
    /// Its hash: SHA-256, or a keyed one where `identifiers` is `keyed`.
    #[default]
    Hash,
    /// Its first 4 KiB.
    Full,
    /// Nothing.
    None,
}

/// `[audit]`, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditConfig {
    /// The failures that a committed record survives.
    pub durability: Durability,
    /// The response to a request whose record cannot be written.
    pub on_failure: OnFailure,
    /// Free bytes below which the audit stops writing.
    pub min_free: u64,
    /// The interval at which the chain's head is signed.
    pub anchor_every: Duration,
    /// The form of card numbers in the audit.
    pub identifiers: Identifiers,
    /// The part of the bodies of carrier replies that is kept with each call.
    pub bodies: Bodies,
    /// The number of the group that may read the segments.
    pub group: Option<u32>,
    /// Requests that are not admitted and have a record each, a peer (or authenticated client) and reason in a period.
    pub refusals: u32,
    /// The length of such a period.
    pub refusal_period: Duration,
}

impl AuditConfig {
    pub(super) fn check(written: &Audit, reader: &mut SourceFiles<'_>) -> Option<Self> {
        let times = [("anchor_every", written.anchor_every), ("refusal_period", written.refusal_period)];
        let zero: Vec<_> = times.into_iter().filter(|(_, time)| time.0.is_zero()).collect();
        for (key, _) in &zero {
            reader.problem(format!("[audit] {key}"), error::longer_than_zero("60s"));
        }
        let reveals = written.bodies == Bodies::Full && written.identifiers == Identifiers::Keyed;
        if reveals {
            reader.problem(
                "[audit] bodies = \"full\"",
                text!(
                    "contradicts identifiers = \"keyed\": a body has the number of its card; write \"hash\" or \"none\"",
                    "与 identifiers = \"keyed\" 矛盾：响应正文含有卡号；请写 \"hash\" 或 \"none\""
                ),
            );
        }
        let group = written.audit_group.as_deref().map(group_number).transpose();
        let group = reader.keep(group)?;
        (zero.is_empty() && !reveals).then_some(Self {
            durability: written.durability,
            on_failure: written.on_failure,
            min_free: written.min_free.0,
            anchor_every: written.anchor_every.0,
            identifiers: written.identifiers,
            bodies: written.bodies,
            group,
            refusals: written.refusals,
            refusal_period: written.refusal_period.0,
        })
    }
}

/// The number of a group in /etc/group. Groups that only a directory service knows are written as numbers.
fn group_number(group: &str) -> Result<u32, ConfigError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    });
    number.ok_or_else(|| {
        let problem = text!("not in /etc/group", "不在 /etc/group 中");
        ConfigError::new(format!("[audit] audit_group = \"{group}\""), problem).remedy(text!(
            "`groupadd {group}`, or write its number",
            "请执行 `groupadd {group}`，或写组的编号"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_known_by_name_or_number() {
        assert_eq!(group_number("1234"), Ok(1_234));
        assert_eq!(group_number("root"), Ok(0));
        let error = group_number("no-such-group-here").unwrap_err().to_string();
        assert!(error.contains("groupadd no-such-group-here"), "{error}");
    }
}
