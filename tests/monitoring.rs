//! The files for Prometheus and Grafana, and docs/operations.md: each names what the proxy exports, and each rule fires.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cmiot_proxy::alarms::Condition;
use serde_json::Value;

use crate::support::{ICCID, MSISDN, Pki, Proxy, Setup, carrier, write_secret};

const RULES: &str = include_str!("../packaging/prometheus/rules.yml");
const RULE_TESTS: &str = include_str!("../packaging/prometheus/rules_test.yml");
const DASHBOARD: &str = include_str!("../packaging/grafana/dashboard.json");
const RUNBOOKS: [(&str, &str); 2] = [
    ("docs/operations.md", include_str!("../docs/operations.md")),
    ("docs/operations.zh-CN.md", include_str!("../docs/operations.zh-CN.md")),
];

/// A folder of `packaging/`.
fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

/// A proxy that has exported every metric, and an audit with rows of all kinds.
async fn in_use() -> Proxy {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    // A certificate with a date.
    std::fs::write(folder.path().join("root.pem"), Pki::new().root_pem()).unwrap();
    write_secret(&folder.path().join("desk.secret"), &format!("whsec_{}", "QUFB".repeat(8)));
    // No program listens on this port.
    let webhook =
        "name = \"desk\"\nurl = \"http://127.0.0.1:1/\"\nsecret_file = \"desk.secret\"\nevents = [\"alarm\"]";
    let setup = Setup::with_carrier(&carrier)
        .add("webhook", webhook)
        .set("carrier.tls.ca_file", "root.pem")
        .set("account.0.calls_per_day", 100)
        .set("account.0.calls_per_second", 50)
        .set("audit.anchor_every", "1s");
    let proxy = Proxy::start_in(folder, setup).await;
    for card in [MSISDN, MSISDN, ICCID] {
        proxy.look_up(&card).await.assert_normal();
    }
    proxy.get(&proxy.sign(&MSISDN).with("token", &"ab".repeat(32))).await.assert_refusal("7");
    let late = proxy.gateway.transid_at(proxy.gateway.now() - 7_200);
    proxy.get(&proxy.gateway.sign_transid(&MSISDN, &late)).await.assert_refusal_for("7", "transid");
    proxy
}

/// The names of the samples that a proxy exports.
async fn exported() -> BTreeSet<String> {
    let proxy = in_use().await;
    let text = proxy.admin("/metrics", "").await.text().to_owned();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// The metrics that a query names.
fn metrics_of(query: &str) -> BTreeSet<&str> {
    // Texts in quotes and lists of labels name no metrics.
    let mut outside = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(['{', '[']) {
        outside.push(&rest[..start]);
        let end = rest[start..].find(['}', ']']).expect("a closed bracket") + start;
        rest = &rest[end + 1..];
    }
    outside.push(rest);
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == ':';
    let words = outside.into_iter().flat_map(|part| part.split(move |char| !is_word(char)));
    words.filter(|word| ["cmiot_", "process_"].iter().any(|prefix| word.starts_with(prefix))).collect()
}

/// The values of a key in a YAML file of ours: one line, or the indented lines after `|`.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<String> {
    let mut lines = yaml.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(value) = line.trim_start().trim_start_matches("- ").strip_prefix(key) else { continue };
        let indent = line.len() - line.trim_start().len();
        let mut value: String = value.trim().to_owned();
        while let Some(more) = lines.next_if(|next: &&'a str| {
            value.starts_with('|') && next.len() - next.trim_start().len() > indent && !next.trim().is_empty()
        }) {
            value = format!("{value} {}", more.trim());
        }
        found.push(value.trim_start_matches('|').trim().to_owned());
    }
    found
}

/// The SQL of a page.
fn queries(page: &'static str) -> Vec<&'static str> {
    page.split("```sql\n").skip(1).map(|part| part.split("```").next().unwrap_or_default()).collect()
}

fn rules() -> Vec<String> {
    values(RULES, "alert:")
}

/// Runs promtool, with an input, and asserts that it accepts it.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(packaging("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Debian's prometheus, which `cargo xtask test` installs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    let proxy = in_use().await;
    let text = proxy.admin("/metrics", "").await.text().to_owned();
    let said = promtool(&["check", "metrics"], &text);
    assert_eq!(said, "", "{text}");
    let metrics = proxy.metrics().await;
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
        assert!(metrics.value(name, []).unwrap() > 0.0, "{name}");
    }
    let build = metrics.all("cmiot_build_info").next().unwrap();
    assert_eq!((build.value, build.label("version")), (1.0, Some(env!("CARGO_PKG_VERSION"))));
    assert!(build.label("commit").is_some() && build.label("target").is_some());
    assert!(metrics.value("cmiot_audit_last_anchor_timestamp_seconds", []).unwrap() > 1_700_000_000.0);
    assert!(
        metrics.value("cmiot_config_last_reload_success_timestamp_seconds", []).unwrap() > 1_700_000_000.0
    );
    assert!(metrics.value("cmiot_store_free_bytes", []).unwrap() > 0.0);
    assert_eq!(metrics.value("cmiot_max_transids", []), Some(4_000_000.0));
    assert_eq!(metrics.value("cmiot_budget_limit_today", [("account", "fleet")]), Some(100.0));
    assert_eq!(metrics.value("cmiot_budget_limit_per_second", [("account", "fleet")]), Some(50.0));
}

#[test]
fn each_rule_fires_in_its_test_and_not_before() {
    promtool(&["check", "rules", "rules.yml"], "");
    promtool(&["test", "rules", "rules_test.yml"], "");
    let fired: BTreeSet<String> = values(RULE_TESTS, "alertname:").into_iter().collect();
    let rules = rules();
    assert!(rules.len() > 20, "{rules:?}");
    for rule in rules {
        assert!(fired.contains(&rule), "{rule} has no test");
        assert!(RULE_TESTS.contains(&format!("{{ alertname: {rule}, eval_time:")), "{rule} may always fire");
    }
}

#[tokio::test]
async fn each_rule_and_each_panel_names_metrics_that_exist() {
    let exported = exported().await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let shown: Vec<String> = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(shown.len() >= 15, "{shown:?}");
    for query in shown.iter().chain(&values(RULES, "expr:")) {
        let names = metrics_of(query);
        assert!(!names.is_empty() || query.starts_with("up{"), "{query}");
        for name in names {
            assert!(exported.contains(name), "{name} of {query} is not exported");
        }
    }
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
}

#[tokio::test]
async fn each_alarm_and_each_rule_has_an_entry_in_both_runbooks_whose_queries_run() {
    let proxy = in_use().await;
    let segment = proxy.audit_file();
    for (page, text) in RUNBOOKS {
        for name in Condition::ALL.map(|condition| condition.name().to_owned()).into_iter().chain(rules()) {
            let heading = format!("### `{name}`");
            let entry = text.split(&heading).nth(1).unwrap_or_else(|| panic!("{page} has no {heading}"));
            let entry =
                entry.split("\n### ").next().unwrap_or_default().split("\n## ").next().unwrap_or_default();
            assert!(!entry.trim().is_empty(), "{page}: {heading} is empty");
        }
        for query in queries(text) {
            let mut shell = Command::new("sqlite3");
            let output = shell.args(["-readonly", "-bail"]).arg(&segment).arg(query).output();
            let output = output.expect("Debian's sqlite3, which `cargo xtask test` installs");
            assert!(output.status.success(), "{page}: {query}: {}", String::from_utf8_lossy(&output.stderr));
            if query.contains("seconds_ahead") {
                let found = String::from_utf8(output.stdout).unwrap();
                let ahead = found.trim().strip_prefix("GW0001|1|1|").unwrap_or_else(|| panic!("{found}"));
                // Two hours late; the request took less than a minute.
                assert!((-7_260.0..=-7_200.0).contains(&ahead.parse::<f64>().unwrap()), "{found}");
            }
        }
    }
    assert_eq!(queries(RUNBOOKS[0].1), queries(RUNBOOKS[1].1), "both pages have the same queries");
}
