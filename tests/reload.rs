//! Reload: keys that apply at once, and keys that need a restart.

use crate::support::{
    GATEWAY_PASSWORD, Machine, NORMAL, Proxy, STATUS_PATH, Setup, card_number, carrier, eventually, run, say,
    scripted, write_config, write_secret,
};

/// Reloads a running proxy with a valid configuration.
pub(crate) async fn reload(proxy: &Proxy, setup: &Setup) {
    write_config(&proxy.config(), &setup.text());
    let json = "Content-Type: application/json\r\n";
    assert_eq!(proxy.admin_post("/config/reload", json, "").await.status, 200, "{}", proxy.log());
}

#[tokio::test]
async fn timeouts_and_body_limits_of_the_carrier_count_at_once() {
    let url = scripted(|target, _, _, stream| async move {
        if target.contains(&card_number(1).number) {
            std::future::pending::<()>().await;
        }
        say(stream, NORMAL).await
    })
    .await;
    let setup = Setup::calling(&url);
    let proxy = setup.start().await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    reload(&proxy, &setup.clone().set("carrier.timeout", "100ms")).await;
    proxy.look_up(&card_number(1)).await.assert_refusal_for("73", "http_response_timeout");
    reload(&proxy, &setup.clone().set("carrier.max_body", "10B")).await;
    proxy.look_up(&card_number(2)).await.assert_refusal_for("73", "http_response_body_size");
    reload(&proxy, &setup).await;
    proxy.look_up(&card_number(3)).await.assert_normal();
}

#[tokio::test]
async fn caps_and_limits_of_connections_count_at_once() {
    let url = scripted(|_, _, _, stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let setup = Setup::calling(&url).set("carrier.max_flights", 1);
    let proxy = setup.start().await;
    // This lookup waits for a carrier that does not respond.
    let mut first = proxy.connect().await;
    let target = format!("{STATUS_PATH}?{}", proxy.sign(&card_number(0)).text());
    first.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    eventually("the call", async || (proxy.metrics().await.value("cmiot_flights", [])? == 1.0).then_some(()))
        .await;
    proxy.look_up(&card_number(1)).await.assert_refusal_for("73", "too many wait already");
    reload(&proxy, &setup.clone().set("carrier.max_flights", 5).set("carrier.timeout", "100ms")).await;
    proxy.look_up(&card_number(1)).await.assert_refusal_for("73", "http_response_timeout");
    reload(&proxy, &setup.clone().set("gateway.max_connections", 1)).await;
    // Refused immediately, since `first` is still open.
    let response = proxy.connect().await.response().await;
    assert_eq!(response.code(), "73");
    assert!(response.header("proxy-status").unwrap().contains("connection_limit_reached"));
}

#[tokio::test]
async fn keys_that_need_a_restart_are_named_until_they_are_changed_back() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier);
    let mut proxy = setup.start().await;
    let changed = setup.clone().set("carrier.node", 7).set("audit.min_free", "65MiB");
    reload(&proxy, &changed).await;
    // A second reload without further changes keeps the alarm.
    reload(&proxy, &changed).await;
    let ready = proxy.admin("/ready", "").await;
    assert_eq!(ready.status, 200);
    let metrics = proxy.metrics().await;
    for key in ["[carrier] node", "[audit] min_free"] {
        assert!(ready.text().contains("alarm: restart: ") && ready.text().contains(key), "{}", ready.text());
        assert!(proxy.log().contains(&format!("takes effect at the next start key=\"{key}\"")));
        assert_eq!(metrics.value("cmiot_restart_needed", [("key", key)]), Some(1.0));
    }
    reload(&proxy, &setup).await;
    assert!(!proxy.admin("/ready", "").await.text().contains("restart"));
    assert!(proxy.metrics().await.all("cmiot_restart_needed").all(|sample| sample.value == 0.0));
    reload(&proxy, &changed).await;
    proxy.restart().await;
    assert!(!proxy.admin("/ready", "").await.text().contains("restart"));
}

#[tokio::test]
async fn an_account_that_is_removed_has_no_metrics_of_its_state() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier);
    let account =
        "name='second'\nappid='100002'\nebid='0001000000009'\npassword='second-password'\ncalls_per_day=9";
    let proxy = setup.clone().add("account", account).start().await;
    let second = async || {
        let metrics = proxy.metrics().await;
        ["cmiot_breaker", "cmiot_budget_waiting", "cmiot_budget_remaining_today"]
            .map(|name| metrics.all(name).filter(|sample| sample.label("account") == Some("second")).count())
    };
    assert_eq!(second().await, [4, 1, 1]);
    reload(&proxy, &setup).await;
    assert_eq!(second().await, [0, 0, 0]);
}

#[tokio::test]
async fn a_load_that_hangs_is_an_alarm_and_delays_no_signal() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir_in(std::env::temp_dir().canonicalize().unwrap()).unwrap();
    write_secret(&folder.path().join("gw.password"), GATEWAY_PASSWORD);
    let setup = Setup::with_carrier(&carrier).unset("client.0.password");
    let setup = setup.set("client.0.password_file", "gw.password");
    let machine = Machine::hanging(folder.path(), "gw.password");
    let hang = folder.path().join("hang");
    let mut proxy = Proxy::start_on_machine(folder, setup, machine).await;
    let alarm = async || {
        let ready = proxy.admin("/ready", "").await;
        assert_eq!(ready.status, 200);
        ready.text().contains("has been loading for")
    };
    std::fs::write(&hang, "").unwrap();
    proxy.signal("HUP").await;
    eventually("the alarm", async || alarm().await.then_some(())).await;
    std::fs::remove_file(&hang).unwrap();
    eventually("the end of the alarm", async || (!alarm().await).then_some(())).await;
    std::fs::write(&hang, "").unwrap();
    proxy.signal("HUP").await;
    eventually("the alarm", async || alarm().await.then_some(())).await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    proxy.signal("TERM").await;
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn a_slow_load_leaves_the_alarm_about_a_refused_configuration() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir_in(std::env::temp_dir().canonicalize().unwrap()).unwrap();
    write_secret(&folder.path().join("gw.password"), GATEWAY_PASSWORD);
    let setup = Setup::with_carrier(&carrier).unset("client.0.password");
    let setup = setup.set("client.0.password_file", "gw.password");
    let machine = Machine::hanging(folder.path(), "gw.password");
    let hang = folder.path().join("hang");
    let proxy = Proxy::start_on_machine(folder, setup.clone(), machine).await;
    // Refused after every file that it names was read.
    write_config(&proxy.config(), &setup.clone().set("gateway.deadline", "0s").text());
    proxy.signal("HUP").await;
    let errors =
        |text: &str| proxy.log().lines().filter(|line| line.contains("ERROR") && line.contains(text)).count();
    eventually("the refusal", async || (errors("refused as a whole") > 0).then_some(())).await;
    let alarm = async || proxy.admin("/ready", "").await.text().to_owned();
    let refused = "alarm: configuration: the changed configuration is refused";
    assert!(alarm().await.contains(refused), "{}", alarm().await);
    assert_eq!(errors("refused as a whole"), 1, "one line for the first refusal: {}", proxy.log());
    std::fs::write(&hang, "").unwrap();
    eventually("a slow load", async || proxy.log().contains("and slowly").then_some(())).await;
    assert!(alarm().await.contains(refused), "{}", alarm().await);
    std::fs::remove_file(&hang).unwrap();
    // Its end, and another load.
    let ended = async || proxy.metrics().await.value("cmiot_config_reloads_total", [("result", "refused")]);
    let before = ended().await;
    proxy.signal("HUP").await;
    eventually("another refusal", async || (ended().await > before).then_some(())).await;
    assert!(alarm().await.contains(refused), "{}", alarm().await);
    assert!(!proxy.log().contains("the alarm has ended"), "{}", proxy.log());
    write_config(&proxy.config(), &setup.text());
    eventually("the end of the alarm", async || {
        (!alarm().await.contains("alarm: configuration")).then_some(())
    })
    .await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_fifo_in_the_place_of_a_file_is_refused_at_once() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("revoked");
    write_config(&list, "");
    let setup = Setup::with_carrier(&carrier).set("gateway.revoked_file", "revoked");
    let mut proxy = Proxy::start_in(folder, setup).await;
    std::fs::remove_file(&list).unwrap();
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&list).status().unwrap();
    assert!(made.success());
    let json = "Content-Type: application/json\r\n";
    let response = proxy.admin_post("/config/reload", json, "").await;
    assert!(response.status != 200 && response.text().contains("not a plain file"), "{response:?}");
    let config = proxy.config();
    let arguments = ["client", "list", "--config", config.to_str().unwrap()];
    run(config.parent().unwrap(), &arguments, &[]).await.failed(1, ["revoked", "not a plain file"]);
    proxy.signal("TERM").await;
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
}
