//! docs/auditing.md: its queries run as printed; audit commands on a live folder and after tampering.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use cmiot_simulator::Rule;

use crate::support::{ICCID, MSISDN, Proxy, Setup, carrier, dropping_triggers, run};

const PAGE: &str = include_str!("../docs/auditing.md");

fn queries() -> Vec<&'static str> {
    PAGE.split("```sql\n").skip(1).map(|part| part.split("```").next().unwrap_or_default()).collect()
}

/// Unused numbers of a Unix group and a user.
const AUDITORS: &str = "61234";
const AUDITOR: &str = "61235";

/// The output of the sqlite3 shell for a query.
fn shell(segment: &Path, query: &str) -> String {
    run_query(&mut Command::new("sqlite3"), segment, query)
}

/// The output of the sqlite3 shell, run by a user who is only a member of the auditors' group.
fn shell_of_an_auditor(segment: &Path, query: &str) -> String {
    let mut shell = Command::new("setpriv");
    shell.args(["--reuid", AUDITOR, "--regid", AUDITORS, "--clear-groups", "sqlite3"]);
    run_query(&mut shell, segment, query)
}

fn run_query(shell: &mut Command, segment: &Path, query: &str) -> String {
    let mut shell = shell
        .args(["-readonly", "-bail"])
        .arg(segment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Debian's sqlite3, which `cargo xtask test` installs");
    shell.stdin.take().expect("a pipe").write_all(query.as_bytes()).expect("it reads");
    let output = shell.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn the_pages_queries_run_in_the_stock_shell_on_a_live_file() {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    assert_eq!(id, b"0\n", "only root becomes a member of a group: sudo -E env PATH=$PATH cargo xtask test");
    let carrier = carrier().await;
    // Others may traverse the parent folder; the data folder is open to its group only.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
    let proxy =
        Proxy::start_in(folder, Setup::with_carrier(&carrier).set("audit.audit_group", AUDITORS)).await;
    for card in [MSISDN, MSISDN, ICCID] {
        proxy.look_up(&card).await.assert_normal();
    }
    let segment = proxy.audit_file();
    let printed: Vec<String> =
        queries().into_iter().map(|query| shell_of_an_auditor(&segment, query)).collect();
    let lines: Vec<usize> = printed.iter().map(|printed| printed.lines().count()).collect();
    // Latest rows, rows of the card, calls of the last miss, calls with a body, clients, days (two around midnight),
    // changes, gaps, refusal counts, notes.
    assert_eq!(
        (&lines[..5], &lines[6..]),
        ([3, 2, 1, 2, 1].as_slice(), [0, 0, 0, 0].as_slice()),
        "{printed:?}"
    );
    assert!(printed[1].contains("|hit|0|00|normal"), "{}", printed[1]);
    assert!(printed[2].contains(&carrier.calls()[1].transid), "{}", printed[2]);
    // Auditors cannot read the cache and the keys.
    for other in ["cache.db", "state.db", "audit-anchor.key"] {
        let read = Command::new("setpriv")
            .args(["--reuid", AUDITOR, "--regid", AUDITORS, "--clear-groups", "cat"])
            .arg(proxy.data().join(other))
            .output()
            .unwrap();
        assert!(!read.status.success() && read.stdout.is_empty(), "{other}");
    }
}

#[tokio::test]
async fn a_retried_call_has_a_row_for_each_attempt() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().code("1").times(1)]);
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let printed = shell(&proxy.audit_file(), "SELECT transid, code FROM lookup_call ORDER BY earlier DESC");
    let sent: Vec<String> = carrier.calls().into_iter().map(|call| call.transid).collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(printed, format!("{}|1\n{}|0\n", sent[0], sent[1]));
}

#[tokio::test]
async fn the_commands_answer_on_a_live_folder_and_tampering_shows() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    for card in [MSISDN, MSISDN, ICCID] {
        proxy.look_up(&card).await.assert_normal();
    }
    let data = proxy.data();
    let dir = data.to_str().unwrap().to_owned();
    let audit = |arguments: &[&str]| {
        let all: Vec<String> = ["audit"]
            .iter()
            .chain(arguments)
            .map(|it| (*it).to_owned())
            .chain(["--dir".into(), dir.clone()])
            .collect();
        async move {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            run(Path::new("."), &all, &[]).await
        }
    };
    let query = audit(&["query", "--card", MSISDN.number, "--format", "csv"]).await.success();
    assert_eq!(query.out.lines().count(), 3, "{}", query.out);
    let stats = audit(&["stats", "--since", "1h"]).await.success();
    assert!(stats.out.contains("3 lookups, 2 carrier calls, 1 saved"), "{}", stats.out);
    let whole = audit(&["verify"]).await.success();
    assert!(
        whole.out.contains("chain ok") && whole.out.contains("of the folder itself compared"),
        "{}",
        whole.out
    );
    audit(&["prune", "--keep", "5mo"]).await.failed(1, ["6 months", "--force"]);

    let segment = proxy.audit_file();
    proxy.kill9().await;
    dropping_triggers(&segment, |connection| {
        connection.execute("UPDATE record SET status = '02' WHERE id = 2", []).unwrap();
    });
    let verified = audit(&["verify"]).await;
    assert!(verified.out.contains("DAMAGE") && verified.out.contains("chain DAMAGED"), "{}", verified.out);
}

#[tokio::test]
async fn forged_requests_without_number_write_few_records() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("audit.refusals", 2).start().await;
    for _ in 0..5 {
        proxy.get(&proxy.sign(&MSISDN).with("token", "x")).await.assert_refusal("7");
    }
    let segment = proxy.audit_file();
    let count = || shell(&segment, "SELECT count(*) FROM record");
    assert_eq!(count(), "2\n");
    let _folder = proxy.stop().await;
    assert_eq!(count(), "2\n");
    let counted = "SELECT peer, text, count FROM refused JOIN name ON name.id = reason";
    assert_eq!(shell(&segment, counted), "127.0.0.1|token|3\n");
}
