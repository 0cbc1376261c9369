//! `cmiot-proxy check`: the effective configuration, errors with their location, `--live`.

use cmiot_simulator::{Account, Gate, Rule};
use tempfile::TempDir;

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, GATEWAY_PASSWORD, Output, Proxy, Setup, carrier, run,
    write_config, write_secret,
};

/// Checks a configuration with further arguments.
async fn check(written: &str, arguments: &[&str]) -> (TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    let output = check_in(&folder, written, arguments).await;
    (folder, output)
}

/// Checks a configuration in a folder that may contain databases.
async fn check_in(folder: &TempDir, written: &str, arguments: &[&str]) -> Output {
    write_config(&folder.path().join("proxy.toml"), written);
    run(folder.path(), &[&["check", "--config", "proxy.toml"], arguments].concat(), &[]).await
}

#[tokio::test]
async fn it_prints_every_default_and_no_secret() {
    let setup = Setup::calling("http://127.0.0.1:1");
    let (folder, checked) = check(&setup.text(), &[]).await;
    let checked = checked.success();
    for line in [
        "deadline = \"20s\"",
        "max_body = \"64KiB\"",
        "base_url = \"http://127.0.0.1:1\"",
        "password = \"[redacted]\"",
        "fresh = \"60s\"",
        "durability = \"power\"",
    ] {
        // `check` may print a duration in a larger unit.
        let found = checked.out.contains(line) || checked.out.contains(&line.replace("60s", "1m"));
        assert!(found, "{line} is not in {}", checked.out);
    }
    for secret in [ACCOUNT_PASSWORD, GATEWAY_PASSWORD] {
        assert!(!checked.out.contains(secret) && !checked.err.contains(secret));
    }
    assert!(
        checked.err.contains("password_file"),
        "a warning about the password in the file: {}",
        checked.err
    );
    assert!(!folder.path().join("data").exists(), "check creates no database");
}

#[tokio::test]
async fn it_ends_with_counts() {
    let second = format!("name='second'\nappid='200002'\nebid='{EBID}'\npassword='of-the-second'");
    let setup =
        Setup::calling("http://127.0.0.1:1").add("account", &second).set("gateway.clients_file", "c.csv");
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..1_234).map(|number| format!("N{number},second,the-password-of-all\n")).collect();
    write_secret(&folder.path().join("c.csv"), &format!("appid,group,password\n{rows}"));
    let checked = check_in(&folder, &setup.text(), &[]).await.success();
    assert_eq!(
        checked.err.lines().last(),
        Some("2 accounts, 1,235 clients, 2 groups: ok"),
        "{}",
        checked.err
    );
    write_secret(&folder.path().join("derive.key"), &"k".repeat(32));
    let derive = "group = 'fleet'\nappid_prefix = 'GW9'\nkey_file = 'derive.key'\nepoch = 0";
    let checked = check_in(&folder, &setup.add("derive", derive).text(), &[]).await.success();
    assert!(checked.err.contains("1,235 clients, 1 derived prefix, 2 groups: ok"), "{}", checked.err);
}

#[tokio::test]
async fn what_it_prints_is_a_configuration() {
    let setup = Setup::calling("http://127.0.0.1:1");
    // An empty list names clients, so that the accounts' own credentials are not accepted.
    let none = setup.clone().without("client").text();
    for (list, kept) in [("", ""), ("client = []\n", "client = []\n"), ("derive = []\n", "client = []\n")] {
        let written = if list.is_empty() { setup.text() } else { format!("{list}{none}") };
        let (_, first) = check(&written, &[]).await;
        let printed = first.success().out;
        assert!(printed.starts_with(kept) && printed.contains("client = []") != kept.is_empty(), "{printed}");
        let (_, second) = check(&printed, &[]).await;
        assert_eq!(second.success().out, printed);
    }
}

#[tokio::test]
async fn a_pipe_in_the_place_of_the_file_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let text = Setup::calling("http://127.0.0.1:1").text();
    std::fs::write(folder.path().join("text"), &text).unwrap();
    let mut piped = std::process::Command::new("mkfifo");
    assert!(piped.arg(folder.path().join("pipe")).status().unwrap().success());
    for path in ["pipe", "/dev/null"] {
        let failed = run(folder.path(), &["check", "--config", path], &[]).await;
        failed.failed(1, [path, "a pipe or a device", "write the configuration into a file"]);
    }
    run(folder.path(), &["check", "--config", "."], &[]).await.failed(1, ["is a folder"]);
}

#[tokio::test]
async fn an_unknown_key_is_an_error_at_its_line_and_column() {
    let written = Setup::calling("http://127.0.0.1:1").text();
    let lines = written.lines().count();
    let (_, checked) = check(&format!("{written}\n[store]\ndri = \"data\"\n"), &[]).await;
    let location = format!("proxy.toml:{}:1", lines + 3);
    checked.failed(1, [&location, "dri", "dir"]);
    let (_, checked) = check(&format!("{written}\n[cash]\n"), &[]).await;
    checked.failed(1, [&format!("proxy.toml:{}:2", lines + 2), "cash"]);
}

#[tokio::test]
async fn a_value_without_its_unit_is_an_error_that_shows_how() {
    for (key, value, remedy) in [
        ("gateway.deadline", "20", "\"20s\""),
        ("gateway.deadline", "soon", "\"20s\""),
        ("carrier.max_body", "65536", "KiB"),
        ("carrier.max_body", "64kb", "KiB"),
        ("freshness.normal", "1", "\"20s\""),
    ] {
        let (_, checked) = check(&Setup::calling("http://127.0.0.1:1").set(key, value).text(), &[]).await;
        checked.failed(1, ["proxy.toml:", value, remedy]);
    }
    let (_, checked) =
        check(&Setup::calling("http://127.0.0.1:1").set("gateway.deadline", 20).text(), &[]).await;
    checked.failed(1, ["proxy.toml:", "unit"]);
}

#[tokio::test]
async fn what_is_wrong_is_named_with_key_and_remedy() {
    let good = || Setup::calling("http://127.0.0.1:1");
    for (setup, said) in [
        (good().without("account"), "[[account]]"),
        (good().set("account.0.appid", "no-appid"), "appid"),
        (good().set("account.0.password_file", "x.password"), "keep one"),
        (good().set("client.0.group", "flet"), "known: \"fleet\""),
        (good().set("client.0.operations", vec!["nosuch"]), "userstatusrealsingle"),
        (good().set("client.0.burst", 5), "rate"),
        (good().set("client.0.rate", 0), "at least 1"),
        (good().set("carrier.base_url", "api.iot.10086.cn"), "http://"),
        (good().set("carrier.base_url", "https://me:secret@api.iot.10086.cn"), "user name"),
        (good().set("carrier.node", 100), "0..=99"),
        (good().set("gateway.peers", vec!["10.0.0.0/33"]), "peers: `10.0.0.0/33` is not a network"),
        (good().set("client.0.peers", vec!["anywhere"]), "such as \"10.0.0.0/8\""),
        (good().set("admin.token_file", "nosuch.token"), "nosuch.token"),
        (good().set("audit.bodies", "full").set("audit.identifiers", "keyed"), "write \"hash\" or \"none\""),
    ] {
        let (_, checked) = check(&setup.text(), &[]).await;
        let checked = checked.failed(1, ["proxy.toml", said]);
        assert!(
            !checked.err.contains("secret@") && !checked.err.contains(ACCOUNT_PASSWORD),
            "{}",
            checked.err
        );
    }
}

#[tokio::test]
async fn all_problems_are_named_one_per_line_and_counted() {
    let setup = Setup::calling("http://127.0.0.1:1")
        .set("gateway.deadline", 20)
        .set("gateway.max_streams", 0)
        .set("carrier.node", 100)
        .set("client.0.rate", 0);
    let written = setup.text();
    let (folder, checked) = check(&written, &[]).await;
    let checked = checked.failed(1, ["deadline", "max_streams", "node", "rate", "4 problems"]);
    let lines: Vec<_> = checked.err.lines().filter(|line| line.contains("proxy.toml")).collect();
    assert_eq!(lines.len(), 4, "{}", checked.err);
    let started = run(folder.path(), &["serve", "--config", "proxy.toml"], &[]).await;
    started.failed(1, ["deadline", "max_streams", "node", "rate", "4 problems"]);
}

#[tokio::test]
async fn an_old_name_of_a_key_is_accepted_with_a_warning_and_refused_beside_the_new_one() {
    let setup = Setup::calling("http://127.0.0.1:1").set("gateway.grace", "7s");
    let (_, checked) = check(&setup.text(), &[]).await;
    let checked = checked.success();
    assert!(checked.err.contains("grace is now called drain_timeout"), "{}", checked.err);
    assert!(checked.out.contains("drain_timeout = \"7s\""), "{}", checked.out);
    let (_, checked) = check(&setup.set("gateway.drain_timeout", "7s").text(), &[]).await;
    checked.failed(1, ["proxy.toml:", "remove grace"]);
}

#[tokio::test]
async fn an_error_shows_no_secret_of_its_line() {
    let written = Setup::calling("http://127.0.0.1:1").text();
    for broken in [
        written.replace(&format!("\"{ACCOUNT_PASSWORD}\""), &format!("\"{ACCOUNT_PASSWORD}")),
        written.replace(
            &format!("password = \"{ACCOUNT_PASSWORD}\""),
            &format!("passwort = \"{ACCOUNT_PASSWORD}\""),
        ),
        written.replace(&format!("\"{ACCOUNT_PASSWORD}\""), &format!("[\"{ACCOUNT_PASSWORD}\"]")),
    ] {
        assert_ne!(broken, written);
        let (_, checked) = check(&broken, &[]).await;
        let checked = checked.failed(1, ["proxy.toml:"]);
        assert!(!checked.err.contains(ACCOUNT_PASSWORD), "{}", checked.err);
    }
}

#[tokio::test]
async fn a_missing_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["check", "--config", "nosuch.toml"], &[])
        .await
        .failed(1, ["nosuch.toml", "--config"]);
    run(folder.path(), &["check"], &[]).await.failed(2, ["--config"]);
}

#[tokio::test]
async fn live_says_what_the_carrier_answers_each_account() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let live =
        async |setup: &Setup| check_in(&folder, &setup.text(), &["--live", "--card", "14765004176"]).await;
    let setup = Setup::with_carrier(&carrier);
    let checked = live(&setup).await.success();
    assert!(checked.out.contains("fleet") && checked.out.contains("code 0"), "{checked:?}");

    // A reply about an unknown card also shows that the account works.
    carrier.set_rules([Rule::any().code("12")]);
    assert!(live(&setup).await.success().out.contains("accepts the account"));

    for (code, hint) in [("6", "allow-list"), ("7", "password"), ("3", "ebid"), ("4", "refuses")] {
        carrier.set_rules([Rule::any().code(code)]);
        let checked = live(&setup).await.failed(1, []);
        assert!(checked.out.contains(&format!("code {code}")) && checked.out.contains(hint), "{checked:?}");
    }

    // One refused account is a failure.
    carrier.set_rules([]);
    carrier.set_accounts([
        Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD),
        Account::new("200002", EBID, "the-carrier-changed-it"),
    ]);
    let second =
        format!("name = \"second\"\nappid = \"200002\"\nebid = \"{EBID}\"\npassword = \"as-it-was-before\"");
    let checked = live(&setup.clone().add("account", &second)).await.failed(1, []);
    assert!(checked.out.contains("fleet") && checked.out.contains("second"), "{checked:?}");

    carrier.kill().await;
    let checked = live(&setup).await.failed(1, []);
    assert!(checked.out.contains("no connection"), "{checked:?}");
    assert!(!checked.out.contains("token=") && !checked.err.contains("token="));
    assert_eq!(carrier.duplicates(), [], "its transids continue the proxy's sequence");
}

#[tokio::test]
async fn live_without_a_store_leaves_no_file() {
    let carrier = carrier().await;
    let (folder, checked) = check(&Setup::with_carrier(&carrier).text(), &["--live"]).await;
    checked.success();
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["proxy.toml"]);
}

#[tokio::test]
async fn a_password_file_holds_one_line_of_text() {
    for (bytes, problem) in [
        (&b"   \n"[..], "nothing but blanks"),
        (b"one\ntwo\n", "more than one line"),
        (b"one\n\n", "more than one line"),
        (b"caf\xe9\n", "not UTF-8"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_secret(&folder.path().join("fleet.password"), "");
        std::fs::write(folder.path().join("fleet.password"), bytes).unwrap();
        let setup = Setup::calling("http://127.0.0.1:9").unset("account.0.password");
        let setup = setup.set("account.0.password_file", "fleet.password");
        let wrong = check_in(&folder, &setup.text(), &[]).await;
        wrong.failed(1, ["password_file", problem, "write the password alone"]);
        let of_folder = setup.set("account.0.password_file", ".");
        check_in(&folder, &of_folder.text(), &[]).await.failed(1, ["password_file", "is a folder"]);
    }
}

#[tokio::test]
async fn two_derivations_with_one_prefix_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("derive.key"), &"k".repeat(32));
    let derive = "group = 'fleet'\nappid_prefix = 'GW9'\nkey_file = 'derive.key'\nepoch = 0";
    let setup = Setup::calling("http://127.0.0.1:9").add("derive", derive);
    check_in(&folder, &setup.text(), &[]).await.success();
    let wrong = check_in(&folder, &setup.add("derive", derive).text(), &[]).await;
    wrong.failed(1, ["[[derive]] 2 (appid_prefix = \"GW9\")", "taken by [[derive]] 1"]);
}

#[tokio::test]
async fn live_asks_through_the_running_proxy_with_the_configuration_as_it_is_now() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::with_carrier(&carrier).unset("account.0.password");
    let setup = setup.set("account.0.password_file", "fleet.password");
    write_secret(&folder.path().join("fleet.password"), ACCOUNT_PASSWORD);
    let proxy = Proxy::start_in(folder, setup.clone()).await;
    let folder = proxy.config().parent().unwrap().to_owned();
    let live = async || {
        let words = ["check", "--live", "--card", "14765004176", "--config", "cmiot-proxy.toml"];
        run(&folder, &words, &[]).await
    };
    let checked = live().await.success();
    assert!(checked.out.contains("fleet") && checked.out.contains("code 0"), "{checked:?}");
    assert!(checked.err.contains("the running proxy made these calls"), "{checked:?}");
    assert_eq!(carrier.count(), 1);

    // A password that was changed just now is the one that is checked.
    write_secret(&folder.join("fleet.password"), "not-what-the-carrier-has");
    let checked = live().await.failed(1, []);
    assert!(checked.out.contains("code 7") && checked.out.contains("password"), "{checked:?}");
    write_secret(&folder.join("fleet.password"), ACCOUNT_PASSWORD);
    live().await.success();
    assert_eq!(carrier.duplicates(), []);

    // What the proxy does not run with is said.
    let more = "name = \"second\"\nappid = \"200002\"\nebid = \"1\"\npassword = \"of-the-second-one\"";
    write_config(&folder.join("theirs.toml"), &setup.add("account", more).text());
    let checked = run(&folder, &["check", "--live", "--config", "theirs.toml"], &[]).await;
    checked.failed(1, ["no account second", "theirs.toml"]);
    std::fs::remove_file(folder.join("fleet.password")).unwrap();
    live().await.failed(1, ["fleet.password"]);
}

#[tokio::test]
async fn an_account_check_needs_the_role_operate_and_a_card_or_none() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let checked = proxy.admin_post("/accounts/check", "", "{}").await;
    assert_eq!(checked.status, 200, "{}", checked.text());
    let account = &checked.json()["accounts"][0];
    assert_eq!((account["account"].as_str(), account["password"].as_u64()), (Some("fleet"), Some(1)));
    assert_eq!((account["accepted"].as_bool(), account["code"].as_str()), (Some(true), Some("0")));
    for wrong in [r#"{"msisdn":"x"}"#, r#"{"msisdn":"1","imsi":"2"}"#, r#"{"card":"1"}"#, "", "[]"] {
        assert_eq!(proxy.admin_post("/accounts/check", "", wrong).await.status, 400, "{wrong}");
    }
    let none = proxy.admin_post("/accounts/check", "Authorization: Bearer x\r\n", "{}").await;
    assert_eq!(none.status, 401);
    assert_eq!(proxy.admin("/accounts/check", "").await.status, 405);
    assert_eq!(carrier.count(), 1, "one call for the one valid request");
}

#[tokio::test]
async fn one_check_of_the_accounts_runs_at_a_time() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = std::sync::Arc::new(Proxy::with_carrier(&carrier).await);
    let checking = {
        let proxy = std::sync::Arc::clone(&proxy);
        tokio::spawn(async move { proxy.admin_post("/accounts/check", "", "{}").await.status })
    };
    carrier.wait_for_calls(1).await;
    let second = proxy.admin_post("/accounts/check", "", "{}").await;
    assert_eq!(second.status, 409, "{}", second.text());
    assert!(second.text().contains("a check is running"), "{}", second.text());
    gate.open();
    assert_eq!(checking.await.unwrap(), 200);
    assert_eq!(proxy.admin_post("/accounts/check", "", "{}").await.status, 200, "it has ended");
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn passwords_come_from_files_and_the_environment() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::with_carrier(&carrier).unset("account.0.password").unset("client.0.password");
    write_secret(&folder.path().join("fleet.password"), &format!("{ACCOUNT_PASSWORD}\n"));
    let setup =
        setup.set("account.0.password_file", "fleet.password").set("client.0.password_env", "GATEWAY_SECRET");
    write_config(&folder.path().join("proxy.toml"), &setup.text());
    let arguments = ["check", "--config", "proxy.toml", "--live"];
    let checked = run(folder.path(), &arguments, &[("GATEWAY_SECRET", GATEWAY_PASSWORD)]).await.success();
    assert!(!checked.err.contains("warning"), "{}", checked.err);
    run(folder.path(), &arguments, &[]).await.failed(1, ["password_env", "GATEWAY_SECRET", "not set"]);
}

#[tokio::test]
async fn a_secret_that_everybody_can_read_is_refused_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("fleet.password");
    write_secret(&password, ACCOUNT_PASSWORD);
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let setup = Setup::calling("http://127.0.0.1:1")
        .without("account")
        .add("account", "name='fleet'\nappid='100001'\nebid='0001000000009'\npassword_file='fleet.password'");
    for (setup, code) in [(setup.clone(), 1), (setup.set("process.allow_world_readable_secrets", true), 0)] {
        write_config(&folder.path().join("proxy.toml"), &setup.text());
        let output = run(folder.path(), &["check", "--config", "proxy.toml"], &[]).await;
        assert_eq!(output.code, Some(code), "{output:#?}");
        assert_eq!(output.err.contains("chmod o= "), code == 1, "{output:#?}");
    }
}
