//! The other commands: look-up, simulator, demo; help and exit codes.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, GATEWAY_APPID, ICCID, IMSI, MSISDN, NORMAL, Proxy, Setup, carrier,
    command, run, within, write_config,
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
    assert_eq!(audit.len(), 6, "audited like any other");
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
    let said = within("its address", lines.next_line()).await.unwrap().unwrap();
    let base_url = said.split(' ').find(|word| word.starts_with("http://")).expect("a URL").to_owned();
    let proxy = Setup::calling(&base_url).start().await;
    assert_eq!(proxy.look_up(&MSISDN).await.json()["result"][0]["STATUS"], "02");
    proxy.look_up(&ICCID).await.assert_normal();
    simulator.kill().await.unwrap();
    run(folder.path(), &["simulate"], &[]).await.failed(2, ["--account"]);
    run(folder.path(), &["simulate", "--account", "x"], &[]).await.failed(2, ["APPID:EBID:PASSWORD"]);
    run(folder.path(), &["simulate", "--account", &account, "--rule", "cod=1"], &[])
        .await
        .failed(2, ["cod=1"]);
}

#[tokio::test]
async fn the_demo_goes_well_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let tmp = folder.path().to_str().unwrap().to_owned();
    let demo = run(folder.path(), &["demo"], &[("TMPDIR", &tmp)]).await.success();
    assert!(demo.out.contains("100 at once"), "{}", demo.out);
    assert!(!demo.out.contains("NOT as promised"), "{}", demo.out);
    the_columns_add_up(&demo.out);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "an empty folder");
}

/// What the demo's two tables count is the same, and what the line below them says.
fn the_columns_add_up(demo: &str) {
    let rows: Vec<Vec<&str>> = demo
        .lines()
        .filter(|line| line.starts_with('│'))
        .map(|line| line.split(['│', '┆']).map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let number = |cell: &str| cell.parse::<u64>().ok();
    // The tour: a look-up a row, but for the hundred at once. Its last cell but one is what the carrier received.
    let (mut asked, mut received) = (0, 0);
    for row in rows.iter().filter(|row| row.last() == Some(&"ok")) {
        asked += if row[0].starts_with("100 at once") { 100 } else { 1 };
        received += number(row[row.len() - 2]).unwrap();
    }
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
async fn help_has_an_example_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let help = run(folder.path(), &["--help"], &[]).await.success();
    for name in ["serve", "demo", "check", "lookup", "sign", "simulate"] {
        assert!(help.out.contains(name), "{name}");
        let of_it = run(folder.path(), &[name, "--help"], &[]).await.success();
        assert!(of_it.out.contains("Example"), "{name}: {}", of_it.out);
        assert!(of_it.out.contains(&format!("cmiot-proxy {name}")), "{name}: {}", of_it.out);
    }
    let version = run(folder.path(), &["--version"], &[]).await.success();
    assert!(version.out.starts_with("cmiot-proxy "));
}

#[tokio::test]
async fn wrong_usage_exits_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&[][..], &["nosuch"], &["serve"], &["serve", "--nosuch"], &["check", "--card", "1064"]]
    {
        let finished = run(folder.path(), arguments, &[]).await;
        assert_eq!(finished.code, Some(2), "{arguments:?}: {finished:?}");
        assert!(finished.err.contains("Usage"), "{finished:?}");
    }
}
