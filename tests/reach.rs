//! The commands reach the listeners that the configuration names: TLS, client certificates, Unix sockets.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

use crate::support::{
    MSISDN, NORMAL, Output, Pki, Proxy, Setup, carrier, command, eventually, run, within, write_config,
    write_secret,
};

/// A command with the configuration of a proxy.
async fn with_config(folder: &Path, words: &[&str], environment: &[(&str, &str)]) -> Output {
    let config = folder.join("cmiot-proxy.toml");
    run(folder, &[words, &["--config", config.to_str().unwrap()]].concat(), environment).await
}

fn with_clients(folder: &TempDir, setup: Setup) -> Setup {
    write_secret(&folder.path().join("clients.csv"), "appid,group,password\nGW1,fleet,one\n");
    write_secret(&folder.path().join("revoked"), "");
    setup.set("gateway.clients_file", "clients.csv").set("gateway.revoked_file", "revoked")
}

/// Every command that asks the admin listener succeeds.
async fn assert_all_reach(folder: &Path, name: &str, more: &[&str]) {
    let ask = async |words: &[&str]| with_config(folder, &[words, more].concat(), &[]).await.success();
    assert!(ask(&["cache", "stats"]).await.out.contains("\"memory\""));
    assert!(ask(&["cache", "purge", "--all"]).await.out.contains("\"generation\""));
    assert!(ask(&["status"]).await.out.starts_with("ready\n"));
    let added = ask(&["client", "add", name, "--group", "fleet"]).await;
    assert!(added.err.contains("taken by the running proxy"), "{added:?}");
    let checked = ask(&["check", "--live"]).await;
    assert!(checked.out.contains("accepts the account"), "{checked:?}");
}

#[tokio::test]
async fn the_certificate_that_the_configuration_names_is_accepted_and_others_need_a_root() {
    let (carrier, pki) = (carrier().await, Pki::new());
    // Neither its name nor its issuer is known to the commands.
    let (folder, setup) = Setup::with_carrier(&carrier).tls(&pki, "admin", "localhost");
    let setup = with_clients(&folder, setup);
    let proxy = Proxy::start_in(folder, setup.clone()).await;
    let folder = proxy.config().parent().unwrap().to_owned();
    assert_all_reach(&folder, "GW2", &[]).await;
    assert_eq!(with_config(&folder, &["health"], &[]).await.success().out, "ready\n");

    // A reload takes TLS away and brings it back, and the commands follow.
    let plain = setup.clone().unset("admin.tls");
    write_config(&folder.join("cmiot-proxy.toml"), &plain.text());
    proxy.signal("HUP").await;
    eventually("the reload", async || {
        (with_config(&folder, &["status"], &[]).await.code == Some(0)).then_some(())
    })
    .await;
    write_config(&folder.join("cmiot-proxy.toml"), &setup.text());
    proxy.signal("HUP").await;
    eventually("the reload", async || {
        (with_config(&folder, &["status"], &[]).await.code == Some(0)).then_some(())
    })
    .await;

    // A configuration with another certificate.
    let (_, _, certificate, key) = pki.issue("another.example");
    write_secret(&folder.join("other.pem"), &certificate);
    write_secret(&folder.join("other.key"), &key);
    std::fs::write(folder.join("root.pem"), pki.root_pem()).unwrap();
    let theirs = setup.set("admin.tls.cert_file", "other.pem").set("admin.tls.key_file", "other.key");
    write_config(&folder.join("theirs.toml"), &theirs.text());
    let root = folder.join("root.pem");
    let by_name = format!("https://localhost:{}", proxy.admin_address().port());
    let by_address = format!("https://{}", proxy.admin_address());
    let stats = async |more: &[&str], environment: &[(&str, &str)]| {
        let words = [&["cache", "stats", "--config", "theirs.toml"], more].concat();
        run(&folder, &words, environment).await
    };
    stats(&[], &[]).await.failed(1, ["certificate", "--ca"]);
    stats(&["--url", &by_name, "--ca", "root.pem"], &[]).await.success();
    stats(&["--url", &by_name], &[("SSL_CERT_FILE", root.to_str().unwrap())]).await.success();
    stats(&["--url", &by_address, "--ca", "root.pem"], &[]).await.failed(1, ["certificate"]);
    stats(&["--url", &by_name, "--ca", "nosuch.pem"], &[]).await.failed(1, ["nosuch.pem"]);
    let plain = format!("http://{}", proxy.admin_address());
    stats(&["--url", &plain], &[]).await.failed(1, ["if it uses TLS", "https://"]);
    let plain = format!("https://{}", proxy.address);
    stats(&["--url", &plain], &[]).await.failed(1, ["does not use TLS"]);
    stats(&["--url", "ftp://localhost"], &[]).await.failed(1, ["https://", "unix:"]);
}

#[tokio::test]
async fn a_listener_that_requires_client_certificates_is_reached_with_one() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (folder, setup) = Setup::with_carrier(&carrier).tls(&pki, "admin", "admin.example");
    write_secret(&folder.path().join("root.pem"), &pki.root_pem());
    let (_, _, certificate, key) = pki.issue("ops.example");
    write_secret(&folder.path().join("ops.pem"), &certificate);
    write_secret(&folder.path().join("ops.key"), &key);
    let setup = with_clients(&folder, setup).set("admin.tls.client_ca_file", "root.pem");
    let proxy = Proxy::start_in(folder, setup).await;
    let folder = proxy.config().parent().unwrap().to_owned();
    let without = with_config(&folder, &["cache", "stats"], &[]).await;
    without.failed(1, ["--client-certificate", "--client-key"]);
    let edited = with_config(&folder, &["client", "revoke", "GW1"], &[]).await;
    edited.failed(3, ["the list is changed", "--client-certificate"]);
    let identity = ["--client-certificate", "ops.pem", "--client-key", "ops.key"];
    assert_all_reach(&folder, "GW3", &identity).await;
    let health = [&["health"][..], &identity].concat();
    with_config(&folder, &health, &[]).await.success();
    with_config(&folder, &["health", "--client-key", "ops.key"], &[])
        .await
        .failed(2, ["--client-certificate"]);
}

/// Starts `serve` in a folder, and waits until its listener answers `health` from elsewhere.
async fn serve(folder: &TempDir, setup: &Setup) -> Child {
    write_config(&folder.path().join("cmiot-proxy.toml"), &setup.text());
    let mut serve = command(folder.path());
    serve.args(["serve", "--config", "cmiot-proxy.toml"]).stdout(Stdio::null()).stderr(Stdio::null());
    let child = serve.spawn().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let config = folder.path().join("cmiot-proxy.toml");
    eventually("the listener", async || {
        let health = ["health", "--config", config.to_str().unwrap()];
        (run(elsewhere.path(), &health, &[]).await.code == Some(0)).then_some(())
    })
    .await;
    child
}

#[tokio::test]
async fn unix_sockets_are_reached_from_any_folder_with_tls_and_without() {
    let (carrier, pki) = (carrier().await, Pki::new());
    for tls in [false, true] {
        let setup = Setup::with_carrier(&carrier);
        let (folder, setup) = match tls {
            false => (tempfile::tempdir().unwrap(), setup),
            true => setup.tls(&pki, "admin", "admin.example"),
        };
        let setup = with_clients(&folder, setup)
            .set("admin.listen", "unix:admin.sock")
            .set("gateway.listen", "unix:gateway.sock");
        let mut child = serve(&folder, &setup).await;
        assert_all_reach(folder.path(), "GW4", &[]).await;
        let elsewhere = tempfile::tempdir().unwrap();
        let config = folder.path().join("cmiot-proxy.toml");
        let ask = async |words: &[&str]| {
            let words = [words, &["--config", config.to_str().unwrap()]].concat();
            run(elsewhere.path(), &words, &[]).await.success()
        };
        ask(&["cache", "stats"]).await;
        let found = ask(&["lookup", MSISDN.number]).await;
        assert!(found.out.starts_with(NORMAL), "{found:?}");
        let socket = format!("unix:{}", folder.path().join("admin.sock").display());
        ask(&["cache", "stats", "--url", &socket]).await;
        child.kill().await.unwrap();
        let stopped = with_config(folder.path(), &["cache", "stats"], &[]).await;
        stopped.failed(1, ["asking unix:admin.sock"]);
    }
}

#[tokio::test]
async fn lookup_reaches_a_gateway_listener_with_tls_and_names_the_way_past_proxy_protocol() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (folder, setup) = Setup::with_carrier(&carrier).tls(&pki, "gateway", "gw.example");
    let proxy = Proxy::start_in(folder, setup).await;
    let folder = proxy.config().parent().unwrap().to_owned();
    let found = with_config(&folder, &["lookup", MSISDN.number], &[]).await.success();
    assert!(found.out.starts_with(NORMAL), "{found:?}");

    let behind = Setup::with_carrier(&carrier)
        .set("gateway.trusted_proxies", vec!["127.0.0.0/8"])
        .set("gateway.proxy_protocol", true)
        .start()
        .await;
    let folder = behind.config().parent().unwrap().to_owned();
    let refused = with_config(&folder, &["lookup", MSISDN.number], &[]).await;
    refused.failed(1, ["PROXY protocol", "127.0.0.1", "trusted_proxies", "--url"]);
    with_config(&folder, &["cache", "stats"], &[]).await.success();
}

/// Runs a command with this standard input.
async fn with_input(folder: &Path, words: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut asked = command(folder);
    asked.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut asked = asked.spawn().unwrap();
    let mut stdin = asked.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = within("the command", asked.wait_with_output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_card_is_read_from_standard_input() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let folder = proxy.config().parent().unwrap().to_owned();
    let line = format!("{}:{}\n", MSISDN.kind, MSISDN.number);
    let config = ["--config", "cmiot-proxy.toml"];
    for words in [
        &["lookup", "-"][..],
        &["cache", "show", "-"],
        &["audit", "query", "--card", "-"],
        &["audit", "changes", "--card", "-"],
        &["check", "--live", "--card", "-"],
        &["cache", "purge", "--card", "-"],
    ] {
        let words = [words, &config].concat();
        let (code, out, err) = with_input(&folder, &words, &line).await;
        assert_eq!(code, Some(0), "{words:?}: {out}{err}");
        let (code, _, err) = with_input(&folder, &words, "\n").await;
        assert_eq!(code, Some(1), "{words:?}: {err}");
        assert!(err.contains("standard input"), "{words:?}: {err}");
    }
    let words =
        ["sign", "--appid", "100001", "--ebid", "0001000000009", "--msisdn", "-", "--format", "query"];
    write_secret(&folder.join("pw"), "some-password");
    let words = [&words[..], &["--password-file", "pw"]].concat();
    let (code, out, err) = with_input(&folder, &words, &format!("{}\n", MSISDN.number)).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.trim_end().ends_with(&format!("msisdn={}", MSISDN.number)), "{out}");
    let warm = ["cache", "warm", "--file", "-", "--config", "cmiot-proxy.toml"];
    let (code, _, err) = with_input(&folder, &warm, &line).await;
    assert!(code == Some(1) && err.contains("--result"), "{err}");
    let (code, out, err) =
        with_input(&folder, &[&warm[..], &["--result", "outcomes.csv"]].concat(), &line).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let outcomes = std::fs::read_to_string(folder.join("outcomes.csv")).unwrap();
    assert!(outcomes.ends_with(&format!("fetched,0,00,,msisdn:{}\n", MSISDN.number)), "{outcomes}");
    let hash = ["audit", "hash", "-", "--config", "cmiot-proxy.toml"];
    let (_, _, err) = with_input(&folder, &hash, &line).await;
    assert!(err.contains("no key"), "{err}");
}
