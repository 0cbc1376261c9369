//! The exposition, and the old names in it.

use super::aliases::{ALIASES, Change};
use super::*;
use crate::alarms::{Condition, Severity};
use crate::language::Text;

/// The exposition after every metric was used once.
fn exposition() -> String {
    exposition_as(Format::OpenMetrics)
}

fn exposition_as(format: Format) -> String {
    let metrics = Metrics::new();
    metrics.lookup(Outcome::Hit, "", Duration::from_millis(1));
    metrics.lookup(Outcome::Refused, "token", Duration::from_millis(1));
    metrics.carrier_call("fleet", "71", Duration::from_millis(30));
    metrics.clock_drift(-2.5);
    metrics.started(Time::from_secs(1_768_449_600));
    metrics.reload_accepted(Time::from_secs(1_768_449_660));
    metrics.certificate_expiry.replace([(["[gateway.tls] cert_file".into()], 1_800_000_000)]);
    let gauges = Gauges {
        cache_entries: 3,
        audit_unrecorded: 4,
        log_lines_dropped: 5,
        used_transids: 6,
        used_transids_by_group: vec![("fleet".into(), 6)],
        max_transids: 70,
        max_transids_per_group: 7,
        alarm: vec![Alarm {
            condition: Condition::Disk,
            severity: Severity::Warning,
            since: Time::EPOCH,
            text: Text::default(),
        }],
        ..Gauges::default()
    };
    let account = AccountGauges {
        account: "fleet".into(),
        budget: BudgetGauges {
            waiting: 1,
            per_second: Some(50),
            per_day: Some(9),
            remaining_today: Some(8),
            attainable_today: Some(9),
            reserve_today: None,
        },
        breakers: BreakerGauges { cool_down: BreakerState::Open, ..BreakerGauges::default() },
    };
    metrics.render(format, &gauges, &[account])
}

/// The lines of one metric: its head, and its samples after `prefix`.
fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let is_help =
        |line: &&str| line.strip_prefix("# HELP ").is_some_and(|help| help.starts_with(&format!("{name} ")));
    let mut found: Vec<_> = text.lines().skip_while(|line| !is_help(line)).collect();
    let end = found.iter().skip(1).position(|line| line.starts_with("# HELP ") || *line == "# EOF");
    found.truncate(end.map_or(found.len(), |end| end + 1));
    found
}

#[test]
fn each_metric_is_exported_with_its_unit_and_labels() {
    let text = exposition();
    for line in [
        "cmiot_lookups_total{outcome=\"hit\",reason=\"\"} 1",
        "cmiot_lookups_total{outcome=\"stale\",reason=\"\"} 0",
        "cmiot_lookups_total{outcome=\"refused\",reason=\"token\"} 1",
        "cmiot_lookups_total{outcome=\"failed\",reason=\"deadline\"} 0",
        "cmiot_lookup_duration_seconds_count{outcome=\"hit\"} 1",
        "cmiot_carrier_calls_total{account=\"fleet\",code=\"71\"} 1",
        "cmiot_carrier_call_duration_seconds_count 1",
        "cmiot_clock_drift_seconds -2.5",
        "cmiot_cache_entries 3",
        "cmiot_audit_wal_bytes 0",
        "cmiot_breaker{account=\"fleet\",breaker=\"cool-down\"} 2",
        "cmiot_config_reloads_total{result=\"refused\"} 0",
        "cmiot_connections_ended_total{reason=\"full-peer\"} 0",
        "cmiot_alarm{alarm=\"clock\"} 0",
        "cmiot_alarm{alarm=\"disk\"} 1",
        "cmiot_audit_last_anchor_timestamp_seconds NaN",
        "cmiot_budget_limit_per_second{account=\"fleet\"} 50",
        "cmiot_budget_limit_today{account=\"fleet\"} 9",
        "cmiot_config_last_reload_success_timestamp_seconds 1768449660.0",
        "cmiot_config_last_reload_successful 1",
        "cmiot_lookup_duration_seconds_bucket{le=\"0.0025\",outcome=\"hit\"} 1",
        "process_start_time_seconds 1768449600.0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} not in:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(text.matches("# EOF").count(), 1);
}

#[test]
fn series_of_accounts_and_groups_that_are_gone_are_removed() {
    let metrics = Metrics::new();
    let account = |name: &str, remaining_today| AccountGauges {
        account: name.into(),
        budget: BudgetGauges { waiting: 1, remaining_today, ..BudgetGauges::default() },
        breakers: BreakerGauges::default(),
    };
    let groups = |names: &[&str]| Gauges {
        used_transids_by_group: names.iter().map(|name| ((*name).into(), 1)).collect(),
        ..Gauges::default()
    };
    let series = |text: &str, label: &str| text.lines().filter(|line| line.contains(label)).count();
    let text = metrics.render(
        Format::OpenMetrics,
        &groups(&["a", "b"]),
        &[account("a", Some(5)), account("b", Some(5))],
    );
    let of_a = series(&text, "\"a\"");
    assert!(of_a > 0 && of_a == series(&text, "\"b\""), "{text}");
    let text = metrics.render(Format::OpenMetrics, &groups(&["a"]), &[account("a", None)]);
    assert_eq!(series(&text, "\"b\""), 0, "{text}");
    assert_eq!(series(&text, "budget_remaining_today{account"), 0, "a limit that was removed: {text}");
    let text = metrics.render(
        Format::OpenMetrics,
        &groups(&["a", "b"]),
        &[account("b", Some(5)), account("a", Some(5))],
    );
    assert_eq!(series(&text, "\"a\""), of_a, "it is exported again: {text}");
    assert_eq!(series(&text, "\"b\""), of_a, "{text}");
}

#[test]
fn each_alias_has_the_values_of_the_renamed_metric() {
    let text = exposition();
    for alias in ALIASES {
        let (old, new) = (lines(&text, alias.old), lines(&text, alias.new));
        assert!(new.len() >= 3, "{alias:?} has no samples in:\n{text}");
        assert_eq!(old.len(), new.len(), "{alias:?}");
        assert!(old[0].contains(&format!(" Deprecated, renamed to {}. ", alias.new)), "{}", old[0]);
        for (old, new) in old.iter().zip(&new).filter(|(old, _)| !old.starts_with('#')) {
            let total = if alias.change == Change::WasGauge { "_total" } else { "" };
            let new = new.replacen(&format!("{}{total}", alias.new), alias.old, 1);
            let new = match alias.change {
                Change::Value { old: before, new: now } => new.replacen(now, before, 1),
                _ => new,
            };
            assert_eq!(*old, new);
        }
    }
}

#[test]
fn no_name_is_exported_twice() {
    let text = exposition();
    let mut names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(text.contains("# TYPE cmiot_audit_missed gauge\ncmiot_audit_missed 4\n"), "{text}");
    assert!(text.contains("\ncmiot_reloads_total{result=\"taken\"} 1\n"), "{text}");
}
