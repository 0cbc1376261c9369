//! `cmiot-proxy lookup`, `simulate` and `demo`; help and exit codes.

use std::process::Stdio;

use cmiot_proxy::printable;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Connection, EBID, GATEWAY_APPID, ICCID, IMSI, MSISDN, NORMAL, Proxy,
    Setup, carrier, command, run, say, scripted, within, write_config,
};

#[tokio::test]
async fn lookup_asks_a_running_proxy_as_a_gateway_would() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let url = format!("http://{}", proxy.address);
    let config = proxy.config();
    let config = config.to_str().unwrap();
    for card in [MSISDN, ICCID, IMSI] {
        let named = format!("{}:{}", card.kind, card.number);
        for card in [card.number, &named] {
            let found =
                run(&proxy.data(), &["lookup", card, "--config", config, "--url", &url], &[]).await.success();
            assert!(found.out.starts_with(NORMAL), "{found:?}");
            assert!(found.out.contains("STATUS 00"), "{found:?}");
        }
    }
    assert_eq!(carrier.count(), 3);
    let audit = proxy.audit();
    assert_eq!(audit.len(), 6, "each has its record");
    assert!(audit.iter().all(|row| row.client.as_deref() == Some(GATEWAY_APPID)));

    carrier.kill().await;
    let failed = run(&proxy.data(), &["lookup", "1064", "--config", config, "--url", &url], &[]).await;
    assert_eq!(failed.code, Some(1));
    assert!(failed.out.contains("code 73") && failed.out.contains("proxy-status:"), "{failed:?}");
    let nobody = run(&proxy.data(), &["lookup", "1064", "--config", config, "--client", "NOBODY"], &[]).await;
    nobody.failed(1, ["--client"]);
    run(&proxy.data(), &["lookup", "1476500417x", "--config", config], &[]).await.failed(2, ["1476500417x"]);
    run(&proxy.data(), &["lookup", "--config", config], &[]).await.failed(2, ["CARD"]);
}

/// Fails at a character that controls a terminal, other than a line break.
#[track_caller]
fn assert_printable(text: &str) {
    let controls = text.chars().find(|&one| one != '\n' && !printable::is_printable(one));
    assert_eq!(controls, None, "{text:?}");
}

#[tokio::test]
async fn no_output_or_error_of_a_command_controls_the_terminal() {
    const HOSTILE: &str = "\u{1b}[31m\u{9b}2J\u{202e}\r\u{7}\nSTATUS 00";
    // As escapes of JSON, and the C1 and format characters as they are.
    let reply = |status: &str| {
        let status = serde_json::to_string(status).unwrap();
        format!("{{\"status\":\"0\",\"message\":{status},\"result\":[{{\"STATUS\":{status}}}]}}")
    };
    let url = scripted(move |head, _, _, stream| {
        let body = reply(if head.contains("14765000002") { "=1+1,\"\u{202e}" } else { HOSTILE });
        async move { say(stream, &body).await }
    })
    .await;
    let proxy = Setup::calling(&url).start().await;
    let folder = proxy.config().parent().unwrap().to_owned();
    let ask = format!("http://{}", proxy.address);
    let admin = format!("http://{}", proxy.admin_address());
    let command = async |words: &[&str], url: &str| {
        let config = ["--config", "cmiot-proxy.toml", "--url", url];
        let output = run(&folder, &[words, &config].concat(), &[]).await;
        assert_printable(&output.out);
        assert_printable(&output.err);
        output
    };
    let found = command(&["lookup", "14765000001"], &ask).await.success();
    assert_eq!(found.out.lines().filter(|line| line.starts_with("STATUS 00")).count(), 0, "{found:?}");
    let shown = command(&["cache", "show", "14765000001"], &admin).await.success();
    assert!(shown.out.contains("\\u202e"), "{shown:?}");
    serde_json::from_str::<serde_json::Value>(&shown.out).expect("still JSON");
    command(&["cache", "stats"], &admin).await.success();
    std::fs::write(folder.join("cards.csv"), "14765000001\n14765000002\n").unwrap();
    for fetched in ["2 cards, 0 done before", "2 cards, 2 done before"] {
        let warmed = command(&["cache", "warm", "--file", "cards.csv"], &admin).await.success();
        assert!(warmed.out.contains(fetched), "{warmed:?}");
        let result = std::fs::read_to_string(folder.join("cards.result.csv")).unwrap();
        assert_printable(&result);
        assert_eq!(result.lines().count(), 3, "{result}");
        assert!(result.contains(",\"'=1+1,\"\"\\u{202e}\","), "{result}");
    }

    // Errors repeat arguments, paths and what a configuration has.
    command(&["lookup", "1064\u{1b}[2J\u{9b}"], &ask).await.failed(2, ["1064", "\\u{9b}"]);
    command(&["\u{202e}"], &ask).await.failed(2, []);
    let absent = run(&folder, &["check", "--config", "\u{1b}[2J\nforged"], &[]).await;
    assert_printable(&absent.err);
    absent.failed(1, ["\\u{1b}[2J\\nforged: cannot be read"]);
    let wrong =
        Setup::calling(&url).set("gateway.a\u{9b}\u{202e}\n", 1).set("client.0.group", "\u{1b}[2J\nforged");
    write_config(&folder.join("wrong.toml"), &wrong.text());
    let wrong = run(&folder, &["check", "--config", "wrong.toml"], &[]).await;
    assert_printable(&wrong.err);
    assert_eq!(wrong.err.lines().count(), 3, "a line for each problem, and their number: {wrong:?}");
}

#[tokio::test]
async fn help_and_errors_have_no_colours_unless_they_go_to_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    for words in [&["--help"][..], &["audit", "query", "--help"], &["nothing"]] {
        let mut command = command(folder.path());
        let output = command.args(words).env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1").output();
        let output = within("the help", output).await.unwrap();
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{output:?}");
        assert_eq!(output.status.code(), Some(if words == ["nothing"] { 2 } else { 0 }));
    }
}

#[tokio::test]
async fn lookup_says_when_no_proxy_runs() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    write_config(&folder.path().join("proxy.toml"), &Setup::calling("http://127.0.0.1:1").text());
    let url = format!("http://{port}");
    let failed = run(folder.path(), &["lookup", "1064", "--config", "proxy.toml", "--url", &url], &[]).await;
    let failed = failed.failed(1, [&port.to_string()]);
    assert!(!failed.err.contains("token="), "{}", failed.err);
}

#[tokio::test]
async fn simulate_is_a_carrier_to_put_a_proxy_before() {
    let folder = tempfile::tempdir().unwrap();
    let account = format!("{ACCOUNT_APPID}:{EBID}:{ACCOUNT_PASSWORD}");
    let mut simulator = command(folder.path())
        .args([
            "simulate",
            "--listen",
            "127.0.0.1:0",
            "--account",
            &account,
            "--rule",
            "card=14765004176 status=02",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(simulator.stdout.take().unwrap()).lines();
    let first = within("the first line", lines.next_line()).await.unwrap().unwrap();
    let base_url = first.split(' ').find(|word| word.starts_with("http://")).expect("a URL").to_owned();
    let proxy = Setup::calling(&base_url).start().await;
    assert_eq!(proxy.look_up(&MSISDN).await.json()["result"][0]["STATUS"], "02");
    proxy.look_up(&ICCID).await.assert_normal();
    let pid = simulator.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(within("the end", simulator.wait()).await.unwrap().code(), Some(0));
    run(folder.path(), &["simulate"], &[]).await.failed(2, ["--account"]);
    run(folder.path(), &["simulate", "--account", "x"], &[]).await.failed(2, ["APPID:EBID:PASSWORD"]);
    run(folder.path(), &["simulate", "--account", &account, "--rule", "cod=1"], &[])
        .await
        .failed(2, ["cod=1"]);
}

#[tokio::test]
async fn simulate_speaks_v5_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let account = format!("{ACCOUNT_APPID}:{ACCOUNT_PASSWORD}");
    let mut simulator = command(folder.path())
        .args(["simulate", "--api", "v5", "--listen", "127.0.0.1:0", "--account", &account])
        .args(["--rule", "token code=12022 times=1", "--rule", "op=25S04 status=2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(simulator.stdout.take().unwrap()).lines();
    let first = within("the first line", lines.next_line()).await.unwrap().unwrap();
    let address = first.split_once("http://").expect("a URL").1.parse().expect("an address");
    let post = async |path: &str, body: &str| {
        let mut connection = Connection::to(address).await;
        let head = format!("POST /v5/ec/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
        connection.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        connection.response().await.json()
    };
    let transid = format!("{ACCOUNT_APPID}2026010100000000000001");
    let fetch =
        format!(r#"{{"appid":"{ACCOUNT_APPID}","password":"{ACCOUNT_PASSWORD}","transid":"{transid}"}}"#);
    assert_eq!(post("get/token", &fetch).await["status"], "12022");
    let reply = post("get/token", &fetch).await;
    let token = reply["result"][0]["token"].as_str().expect("a token");
    let query = format!(r#"{{"transid":"{transid}","token":"{token}","msisdn":"14765004176"}}"#);
    let reply = post("query/sim-status", &query).await;
    assert_eq!(reply["result"][0]["cardStatus"], "2");
    let pid = simulator.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(within("the end", simulator.wait()).await.unwrap().code(), Some(0));
    let wrong = run(folder.path(), &["simulate", "--api", "v5", "--account", ACCOUNT_PASSWORD], &[]).await;
    wrong.failed(2, ["APPID:PASSWORD"]);
    run(folder.path(), &["simulate", "--account", &account], &[]).await.failed(2, ["APPID:EBID:PASSWORD"]);
}

#[tokio::test]
async fn the_demo_goes_well_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let tmp = folder.path().to_str().unwrap().to_owned();
    let demo = run(folder.path(), &["demo"], &[("TMPDIR", &tmp)]).await.success();
    assert!(!demo.out.contains("NOT as promised"), "{}", demo.out);
    assert_tables_agree(&demo.out);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "an empty folder");
}

/// Asserts that the demo's two tables and its last line have the same counts, and that 100 concurrent lookups of one card
/// cost one call: as the carrier counted, and as the audit has it.
fn assert_tables_agree(demo: &str) {
    let rows: Vec<Vec<&str>> = demo
        .lines()
        .filter(|line| line.starts_with('│'))
        .map(|line| line.split(['│', '┆']).map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let number = |cell: &str| cell.parse::<u64>().ok();
    // The tour: one lookup per row, except the hundred concurrent ones. The last cell but one has the calls that the
    // carrier received.
    let (mut asked, mut received) = (0, 0);
    for row in rows.iter().filter(|row| row.last() == Some(&"ok")) {
        asked += if row[0].starts_with("100 at once") { 100 } else { 1 };
        received += number(row[row.len() - 2]).unwrap();
    }
    let at_once: Vec<_> = rows.iter().filter(|row| row[0].starts_with("100 at once")).collect();
    assert_eq!(at_once.len(), 1, "{demo}");
    assert_eq!(at_once[0][at_once[0].len() - 2], "1", "calls received: {demo}");
    let collapsed: Vec<_> = rows.iter().filter(|row| row.contains(&"collapsed")).collect();
    assert_eq!(collapsed.len(), 1, "{demo}");
    assert_eq!(collapsed[0][..2], ["99", "0"], "lookups and calls in the audit: {demo}");
    let audit: Vec<(u64, u64, bool)> =
        rows.iter().filter_map(|row| Some((number(row[0])?, number(row[1])?, row[2] == "in all"))).collect();
    let sum = |of: fn(&(u64, u64, bool)) -> u64| -> u64 { audit.iter().filter(|row| !row.2).map(of).sum() };
    let (look_ups, made) = (sum(|row| row.0), sum(|row| row.1));
    assert_eq!((look_ups, made, true), *audit.last().unwrap(), "{demo}");
    assert_eq!(asked, look_ups, "{demo}");
    let line =
        format!("{made} carrier calls: {received} were received, {} found no carrier.", made - received);
    assert!(demo.contains(&line), "{line} not in {demo}");
}

#[tokio::test]
async fn help_of_every_command_starts_with_a_verb_and_has_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let help =
        async |words: &[&str]| run(folder.path(), &[words, &["--help"]].concat(), &[]).await.success().out;
    let mut checked = 0;
    for name in subcommands(&help(&[]).await) {
        let own = help(&[&name]).await;
        assert_starts_with_verb(&own);
        let below = subcommands(&own);
        if below.is_empty() {
            assert!(examples(&own).contains(&format!("cmiot-proxy {name}")), "{name}: {own}");
            checked += 1;
        }
        // The help of a group of commands, or of the command itself.
        for command in below {
            let help = help(&[&name, &command]).await;
            assert_starts_with_verb(&help);
            let both = examples(&own) + &examples(&help);
            let found = both.lines().any(|line| {
                let mut words = line.split_whitespace().skip_while(|word| *word != "cmiot-proxy").skip(1);
                words.next() == Some(&name) && words.next() == Some(&command)
            });
            assert!(found, "{name} {command}: {both}");
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked} commands");
    let version = run(folder.path(), &["--version"], &[]).await.success();
    let build = format!("cmiot-proxy {} (commit ", env!("CARGO_PKG_VERSION"));
    assert!(version.out.starts_with(&build), "{version:?}");
    for part in [std::env::consts::ARCH, "SQLite 3."] {
        assert!(version.out.contains(part), "{part}: {version:?}");
    }
    assert_eq!(version.out.lines().count(), 1, "{version:?}");
}

/// Asserts that a help text says in the imperative what the command does. A new command may add its verb.
fn assert_starts_with_verb(help: &str) {
    const VERBS: [&str; 33] = [
        "Accept",
        "Acknowledge",
        "Add",
        "Back",
        "Change",
        "Check",
        "Copy",
        "Count",
        "Create",
        "Delete",
        "Destroy",
        "Export",
        "Fetch",
        "Find",
        "Free",
        "Give",
        "Inspect,",
        "List,",
        "Look",
        "Prepare",
        "Print",
        "Read,",
        "Refuse",
        "Remove",
        "Report",
        "Restore",
        "Run",
        "Send",
        "Serve",
        "Show",
        "Sign",
        "Test",
        "Verify",
    ];
    let first = help.split_whitespace().next().unwrap_or_default();
    assert!(VERBS.contains(&first), "{help}");
}

/// The commands that clap lists in a help text.
fn subcommands(help: &str) -> Vec<String> {
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // The description of a command may have further lines, which are indented more.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

/// The part of a help text after "Example" or "Examples".
fn examples(help: &str) -> String {
    help.split_once("\nExample").map(|(_, examples)| examples.to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn wrong_usage_exits_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&[][..], &["nosuch"], &["serve"], &["serve", "--nosuch"], &["check", "--card", "1064"]]
    {
        let output = run(folder.path(), arguments, &[]).await;
        assert_eq!(output.code, Some(2), "{arguments:?}: {output:?}");
        assert!(output.err.contains("Usage"), "{output:?}");
    }
}
