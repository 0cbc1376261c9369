//! Old names of renamed metrics, exported until 0.3.0 so that dashboards and alerts can be changed after an upgrade.
//!
//! An alias is a copy of the new metric's lines in the rendered text: nothing is counted twice.

/// A metric's old name. Both names are those of the `# TYPE` line: a counter's samples add `_total`.
#[derive(Debug)]
pub(super) struct Alias {
    pub(super) old: &'static str,
    pub(super) new: &'static str,
    /// Further difference.
    pub(super) change: Change,
}

/// Differences between an old metric and the new one, except for the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    None,
    /// A label value was renamed.
    Value {
        old: &'static str,
        new: &'static str,
    },
    /// The old metric was a gauge, although it only grew; the new one is a counter.
    WasGauge,
}

const fn renamed(old: &'static str, new: &'static str) -> Alias {
    Alias { old, new, change: Change::None }
}

pub(super) const ALIASES: [Alias; 11] = [
    renamed("cmiot_look_ups", "cmiot_lookups"),
    renamed("cmiot_look_up_seconds", "cmiot_lookup_duration_seconds"),
    renamed("cmiot_carrier_call_seconds", "cmiot_carrier_call_duration_seconds"),
    renamed("cmiot_budget_left_today", "cmiot_budget_remaining_today"),
    renamed("cmiot_transids", "cmiot_used_transids"),
    renamed("cmiot_transids_by_group", "cmiot_used_transids_by_group"),
    renamed("cmiot_transids_group_share", "cmiot_max_transids_per_group"),
    renamed("cmiot_log_dropped", "cmiot_log_lines_dropped"),
    renamed("cmiot_certificate_expires_seconds", "cmiot_certificate_expiry_timestamp_seconds"),
    Alias {
        old: "cmiot_reloads",
        new: "cmiot_config_reloads",
        change: Change::Value { old: "result=\"taken\"", new: "result=\"accepted\"" },
    },
    Alias { old: "cmiot_audit_missed", new: "cmiot_audit_unrecorded_requests", change: Change::WasGauge },
];

/// Adds the renamed metrics of an exposition under their old names. It has no last line `# EOF` yet.
pub(super) fn append(text: &mut String) {
    let mut old = String::new();
    let mut alias: Option<&Alias> = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().unwrap_or_default();
            // The format of Prometheus has the suffix of a counter in this line too.
            alias = ALIASES.iter().find(|alias| alias.new == name.strip_suffix("_total").unwrap_or(name));
        }
        if let Some(alias) = alias {
            old.push_str(&alias.line(line));
            old.push('\n');
        }
    }
    text.push_str(&old);
}

impl Alias {
    /// A line of the new metric as one of the old metric.
    fn line(&self, line: &str) -> String {
        let Self { old, new, change } = self;
        let was_gauge = *change == Change::WasGauge;
        let words: Vec<_> = line.splitn(4, ' ').collect();
        let total = |name: &str| if name.ends_with("_total") && !was_gauge { "_total" } else { "" };
        match words[..] {
            ["#", "HELP", name, help] => {
                format!("# HELP {old}{} Deprecated, renamed to {new}. {help}", total(name))
            }
            ["#", "TYPE", _, "counter"] if was_gauge => format!("# TYPE {old} gauge"),
            ["#", keyword, name, value] => format!("# {keyword} {old}{} {value}", total(name)),
            _ => {
                let sample = line.strip_prefix(new).unwrap_or(line);
                match change {
                    Change::None => format!("{old}{sample}"),
                    Change::Value { old: before, new: now } => {
                        format!("{old}{}", sample.replacen(now, before, 1))
                    }
                    Change::WasGauge => format!("{old}{}", sample.strip_prefix("_total").unwrap_or(sample)),
                }
            }
        }
    }
}
