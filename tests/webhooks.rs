//! Webhooks: what is sent, how often, and what a receiver that fails costs.

use std::path::Path;
use std::time::Duration;

use cmiot_proxy::clock::Time;
use cmiot_simulator::{Account, Config, Rule, Simulator};
use tempfile::TempDir;

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Card, EBID, GatewayClient, MSISDN, Output, Pki, Proxy, Received,
    Receiver, Reply, Setup, WEBHOOK_KEY, WEBHOOK_SECRET, card_number, carrier, eventually, run, segments,
    write_config, write_secret,
};

/// A setup under which each lookup with `no-cache` calls the carrier.
fn setup(carrier: &Simulator) -> Setup {
    Setup::with_carrier(carrier).set("cache.max_age_floor", "0s")
}

/// The table of a webhook.
fn webhook(name: &str, url: &str, events: &str, more: &str) -> String {
    format!("name = \"{name}\"\nurl = \"{url}\"\nsecret_file = \"secret\"\nevents = {events}\n{more}")
}

/// A folder with the secret.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("secret"), &format!("{WEBHOOK_SECRET}\n"));
    folder
}

/// A proxy with one webhook for STATUS changes.
async fn start(carrier: &Simulator, receiver: &Receiver, more: &str) -> Proxy {
    let table = webhook("desk", &receiver.url(), "[\"status\"]", more);
    Proxy::start_in(folder(), setup(carrier).add("webhook", &table)).await
}

/// A lookup that calls the carrier.
async fn ask(proxy: &GatewayClient, card: &Card<&str>) {
    let response = proxy.get_with(&proxy.sign(card), "Cache-Control: no-cache\r\n").await;
    assert_eq!(response.code(), "0", "{}", response.text());
}

/// Has the carrier answer with another STATUS from now on, and asks.
async fn change(proxy: &GatewayClient, carrier: &Simulator, status: &str) {
    carrier.set_rules([Rule::any().status(status)]);
    ask(proxy, &MSISDN).await;
}

/// The value of `cmiot_webhook_messages_total`.
async fn messages(proxy: &Proxy, result: &str) -> f64 {
    let labels = [("webhook", "desk"), ("result", result)];
    proxy.metrics().await.value("cmiot_webhook_messages_total", labels).expect("a series from the start")
}

/// `cmiot-proxy webhook ...` with the proxy's configuration.
async fn command(proxy: &Proxy, arguments: &[&str]) -> Output {
    let config = proxy.config();
    let config = config.to_str().unwrap();
    run(Path::new("/"), &[&["webhook"], arguments, &["--config", config]].concat(), &[]).await
}

/// The ids of messages, each once, in order.
fn ids(received: &[Received]) -> Vec<String> {
    let mut ids: Vec<_> = received.iter().map(|one| one.id().to_owned()).collect();
    ids.dedup();
    ids
}

#[tokio::test]
async fn each_change_of_a_status_is_one_signed_message() {
    let (carrier, receiver) = (carrier().await, Receiver::start().await);
    let proxy = start(&carrier, &receiver, "").await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "00").await;
    let all = receiver.wait_for(2).await;
    for one in &all {
        one.assert_signed();
        assert_eq!(one.header("content-type"), "application/json");
    }
    let first = all[0].json();
    assert_eq!(first["type"], "status.changed");
    let data = &first["data"];
    for (key, value) in [
        ("card", MSISDN.number),
        ("kind", "msisdn"),
        ("account", "fleet"),
        ("group", "fleet"),
        ("operation", "userstatusrealsingle"),
        ("from", "00"),
        ("to", "02"),
        ("carrier_transid", &carrier.calls()[1].transid),
    ] {
        assert_eq!(data[key], value, "{key}: {first}");
    }
    assert!(data["row"].as_i64().is_some_and(|row| row > 0) && data.get("masked").is_none(), "{first}");
    assert_eq!(
        (all[1].json()["data"]["from"].as_str(), all[1].json()["data"]["to"].as_str()),
        (Some("02"), Some("00"))
    );
    eventually("both delivered", async || (messages(&proxy, "delivered").await == 2.0).then_some(())).await;
    assert_eq!(ids(&receiver.received()).len(), 2, "no message for a STATUS that stays");
    assert_eq!(receiver.received().len(), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn a_message_is_repeated_with_its_id_through_a_crash_until_it_is_accepted_and_then_no_more() {
    let (carrier, receiver) = (carrier().await, Receiver::start().await);
    receiver.reply_always(Reply::Status(500));
    let mut proxy = start(&carrier, &receiver, "").await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    receiver.wait_for(1).await;
    proxy.kill9().await;
    receiver.reply_always(Reply::Status(200));
    let before = receiver.received().len();
    proxy.start_again().await;
    let all = receiver.wait_for(before + 1).await;
    assert_eq!(ids(&all).len(), 1, "{all:?}");
    all.iter().for_each(Received::assert_signed);
    eventually("the delivery", async || (messages(&proxy, "delivered").await == 1.0).then_some(())).await;
    proxy.restart().await;
    let before = receiver.received().len();
    change(&proxy, &carrier, "00").await;
    let all = receiver.wait_for(before + 1).await;
    assert_eq!(ids(&all).len(), 2, "only the new one after the restart: {all:?}");
    assert_eq!(all[before].json()["data"]["to"], "00");
    proxy.stop().await;
}

#[tokio::test]
async fn a_redirect_is_refused_and_a_failure_is_tried_again() {
    let (carrier, receiver, elsewhere) = (carrier().await, Receiver::start().await, Receiver::start().await);
    receiver.reply([Reply::Redirect(elsewhere.url()), Reply::Status(500), Reply::Status(200)]);
    let proxy = start(&carrier, &receiver, "").await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    let all = receiver.wait_for(3).await;
    assert_eq!(ids(&all).len(), 1, "{all:?}");
    assert_eq!(elsewhere.received().len(), 0);
    eventually("the delivery", async || (messages(&proxy, "delivered").await == 1.0).then_some(())).await;
    assert_eq!(messages(&proxy, "failed").await, 2.0);
    assert!(proxy.log().contains("HTTP 302: redirects are not followed"), "{}", proxy.log());
    proxy.stop().await;
}

#[tokio::test]
async fn a_receiver_that_never_answers_delays_neither_lookups_nor_another_webhook_nor_a_drain() {
    let (carrier, silent, other) = (carrier().await, Receiver::start().await, Receiver::start().await);
    silent.reply_always(Reply::Silence);
    let setup = setup(&carrier)
        .add("webhook", &webhook("silent", &silent.url(), "[\"status\"]", "timeout = \"60s\""))
        .add("webhook", &webhook("desk", &other.url(), "[\"status\"]", ""));
    let mut proxy = Proxy::start_in(folder(), setup).await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    silent.wait_for(1).await;
    other.wait_for(1).await;
    for n in 0..20 {
        assert_eq!(proxy.look_up(&card_number(n)).await.code(), "0");
    }
    let log = proxy.log();
    proxy.signal("TERM").await;
    assert!(proxy.ended().await.success());
    let log = &proxy.log()[log.len()..];
    assert!(log.contains("drained") && !log.contains("not stored"), "{log}");
    silent.reply_always(Reply::Status(200));
    proxy.start_again().await;
    let all = silent.wait_for(2).await;
    assert_eq!(ids(&all).len(), 1, "the message that had no response");
    assert_eq!(other.received().len(), 1, "an accepted one is not repeated");
    proxy.stop().await;
}

#[tokio::test]
async fn a_message_that_is_given_up_is_a_dead_letter_in_the_log_the_metrics_and_the_status() {
    let (carrier, receiver) = (carrier().await, Receiver::start().await);
    receiver.reply([Reply::Status(503)]);
    let proxy = start(&carrier, &receiver, "give_up_after = \"1ms\"").await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    eventually("the dead letter", async || (messages(&proxy, "dead").await == 1.0).then_some(())).await;
    let id = receiver.received()[0].id().to_owned();
    let status = eventually("the stored dead letter", async || {
        let out = command(&proxy, &["status", "--wide"]).await.success().out;
        out.contains(&id).then_some(out)
    })
    .await;
    assert!(status.contains("status.changed") && status.contains("HTTP 503"), "{status}");
    assert!(proxy.log().contains("the message is given up (dead letter)"), "{}", proxy.log());
    assert!(!proxy.log().contains(MSISDN.number));
    proxy.stop().await;
}

#[tokio::test]
async fn a_hashed_card_is_hashed_in_the_message_too() {
    let (carrier, receiver) = (carrier().await, Receiver::start().await);
    let table = webhook("desk", &receiver.url(), "[\"status\"]", "");
    let setup = setup(&carrier).set("audit.identifiers", "keyed").add("webhook", &table);
    let proxy = Proxy::start_in(folder(), setup).await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    let message = receiver.wait_for(1).await[0].json();
    let data = &message["data"];
    assert!(!message.to_string().contains(MSISDN.number), "{message}");
    assert_eq!(proxy.audit()[0].card.as_deref(), data["card"].as_str(), "{message}");
    assert!(data["masked"].is_string() && data["key"].is_string(), "{message}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_webhook_gets_the_cards_of_its_groups_alone() {
    let (carrier, all, none) = (carrier().await, Receiver::start().await, Receiver::start().await);
    let second =
        "name = \"second\"\nappid = \"100002\"\nebid = \"0001000000009\"\npassword = \"the-other-accounts\"";
    let setup = setup(&carrier)
        .add("account", second)
        .add("webhook", &webhook("all", &all.url(), "[\"status\"]", "groups = [\"second\", \"fleet\"]"))
        .add("webhook", &webhook("second", &none.url(), "[\"status\"]", "groups = [\"second\"]"));
    let proxy = Proxy::start_in(folder(), setup).await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    all.wait_for(1).await;
    // Both have read every row.
    eventually("both at the end", async || {
        let metrics = proxy.metrics().await;
        let is_at_end = |name| metrics.value("cmiot_webhook_behind", [("webhook", name)]) == Some(0.0);
        let out = command(&proxy, &["status"]).await.success().out;
        (is_at_end("all") && is_at_end("second") && out.contains("second")).then_some(())
    })
    .await;
    assert_eq!(none.received().len(), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_change_over_the_end_of_a_month_is_one_message_through_a_restart() {
    let (carrier, receiver, secrets) = (carrier().await, Receiver::start().await, folder());
    let secret = secrets.path().join("secret");
    let table = webhook("desk", &receiver.url(), "[\"status\"]", "");
    let table = table.replace("\"secret\"", &format!("{:?}", secret.to_str().unwrap()));
    let setup = setup(&carrier).add("webhook", &table);
    let proxy = setup.start_clocked().await;
    ask(&proxy, &MSISDN).await;
    // 2026-02-01T00:00:01+08:00. The later process has read nothing of January.
    let february = Time::from_secs(1_769_875_201);
    let proxy = proxy.restart_at(february, &setup).await;
    change(&proxy, &carrier, "02").await;
    let message = receiver.wait_for(1).await[0].json();
    let data = &message["data"];
    assert_eq!((&data["from"], &data["to"]), (&"00".into(), &"02".into()), "{message}");
    assert!(data["from_seen"].as_str().is_some_and(|seen| seen.starts_with("2026-01-15T")), "{message}");
    assert!(message["timestamp"].as_str().is_some_and(|at| at.starts_with("2026-02-01T")), "{message}");
    // A month passes while it runs.
    proxy.clock.advance(Duration::from_secs(28 * 86_400));
    change(&proxy, &carrier, "04").await;
    let message = receiver.wait_for(2).await[1].json();
    assert_eq!((&message["data"]["from"], &message["data"]["to"]), (&"02".into(), &"04".into()), "{message}");
    assert_eq!(segments(&proxy.data()).len(), 3);
    assert_eq!(receiver.received().len(), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn the_last_known_status_of_a_card_is_that_of_the_same_group() {
    let accounts = [ACCOUNT_APPID, "100002"].map(|appid| Account::new(appid, EBID, ACCOUNT_PASSWORD));
    let carrier = Simulator::start_local(Config::new(accounts)).await.unwrap();
    let (fleets, seconds) = (Receiver::start().await, Receiver::start().await);
    let second = format!(
        "name = \"second\"\nappid = \"100002\"\nebid = \"{EBID}\"\npassword = \"{ACCOUNT_PASSWORD}\""
    );
    let client = "group = \"second\"\nappid = \"GW0002\"\npassword = \"another-gateways\"";
    let setup = setup(&carrier)
        .add("account", &second)
        .add("client", client)
        .add("webhook", &webhook("fleet", &fleets.url(), "[\"status\"]", "groups = [\"fleet\"]"))
        .add("webhook", &webhook("second", &seconds.url(), "[\"status\"]", "groups = [\"second\"]"));
    let mut proxy = Proxy::start_in(folder(), setup).await;
    let other =
        GatewayClient { address: proxy.address, gateway: proxy.gateway.named("GW0002", "another-gateways") };
    let changed = |message: &Received| {
        let data = &message.json()["data"];
        ["group", "from", "to"].map(|key| data[key].as_str().unwrap().to_owned())
    };
    ask(&proxy, &MSISDN).await;
    // The first answer of the second group, and another one than the first group has: no change for either.
    change(&other, &carrier, "02").await;
    change(&proxy, &carrier, "04").await;
    assert_eq!(changed(&fleets.wait_for(1).await[0]), ["fleet", "00", "04"]);
    change(&other, &carrier, "05").await;
    assert_eq!(changed(&seconds.wait_for(1).await[0]), ["second", "02", "05"]);
    // Without what the process remembers.
    proxy.restart().await;
    change(&proxy, &carrier, "00").await;
    assert_eq!(changed(&fleets.wait_for(2).await[1]), ["fleet", "04", "00"]);
    assert_eq!((fleets.received().len(), seconds.received().len()), (2, 1));
    proxy.stop().await;
}

#[tokio::test]
async fn a_receiver_is_identified_by_the_roots_of_ca_file() {
    let (carrier, pki, folder) = (carrier().await, Pki::new(), folder());
    let receiver = Receiver::start_tls(pki.server("127.0.0.1")).await;
    std::fs::write(folder.path().join("root.pem"), pki.root_pem()).unwrap();
    let with = |more| setup(&carrier).add("webhook", &webhook("desk", &receiver.url(), "[\"status\"]", more));
    let proxy = Proxy::start_in(folder, with("ca_file = \"root.pem\"")).await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    receiver.wait_for(1).await[0].assert_signed();
    // Without the root nothing is sent.
    write_config(&proxy.config(), &with("").text());
    let refused = command(&proxy, &["test"]).await.failed(1, []);
    assert!(refused.out.contains("not accepted") && refused.out.contains("certificate"), "{}", refused.out);
    assert_eq!(receiver.received().len(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn two_secrets_are_two_signatures_until_one_is_removed() {
    let (carrier, receiver) = (carrier().await, Receiver::start().await);
    let (folder, next) = (folder(), "whsec_dGhlLW5leHQta2V5LW9mLXRoZS13ZWJob29rcyE=");
    let next_key = b"the-next-key-of-the-webhooks!";
    let secret = folder.path().join("secret");
    write_secret(&secret, &format!("{WEBHOOK_SECRET}\n{next}\n"));
    let table = webhook("desk", &receiver.url(), "[\"status\"]", "");
    let proxy = Proxy::start_in(folder, setup(&carrier).add("webhook", &table)).await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    let both = receiver.wait_for(1).await.remove(0);
    let expected = format!("{} {}", both.signature(WEBHOOK_KEY), both.signature(next_key));
    assert_eq!(both.header("webhook-signature"), expected);
    write_secret(&secret, next);
    crate::reload::reload(&proxy, proxy.setup()).await;
    // The webhook is started with its new keys at its next look.
    let statuses = std::cell::RefCell::new(["00", "02"].into_iter().cycle());
    eventually("the new key alone", async || {
        let (count, status) = (receiver.received().len(), statuses.borrow_mut().next()?);
        change(&proxy, &carrier, status).await;
        let last = receiver.wait_for(count + 1).await.pop()?;
        (last.header("webhook-signature") == last.signature(next_key)).then_some(())
    })
    .await;
    proxy.stop().await;
}

#[tokio::test]
async fn breakers_and_alarms_are_messages_when_they_begin_and_when_they_end() {
    let (carrier, receiver) = (carrier().await, Receiver::start().await);
    let table = webhook("desk", &receiver.url(), "[\"breaker\", \"alarm\"]", "");
    let setup = setup(&carrier).set("breaker.cool_down", "1s").add("webhook", &table);
    let proxy = Proxy::start_in(folder(), setup.clone()).await;
    carrier.set_rules([Rule::any().code("72").times(1)]);
    proxy.look_up(&card_number(0)).await;
    let opened = receiver.wait_for(1).await[0].json();
    assert_eq!(opened["type"], "breaker.opened");
    assert_eq!(
        (&opened["data"]["account"], &opened["data"]["breaker"]),
        (&"fleet".into(), &"cool-down".into())
    );
    let data = &opened["data"];
    assert_eq!((&data["group"], &data["code"]), (&"fleet".into(), &"72".into()), "{opened}");
    assert_eq!((&data["operation"], data.get("fault")), (&"userstatusrealsingle".into(), None), "{opened}");
    eventually("an answer", async || (proxy.look_up(&card_number(1)).await.code() == "0").then_some(()))
        .await;
    let closed = receiver.wait_for(2).await[1].json();
    assert_eq!(
        (&closed["type"], &closed["data"]["breaker"]),
        (&"breaker.closed".into(), &"cool-down".into())
    );

    write_config(&proxy.config(), "wrong");
    let raised = receiver.wait_for(3).await[2].json();
    assert_eq!(
        (&raised["type"], &raised["data"]["alarm"]),
        (&"alarm.raised".into(), &"configuration".into())
    );
    assert!(raised["data"]["text"].as_str().is_some_and(|text| text.contains("refused")), "{raised}");
    write_config(&proxy.config(), &setup.text());
    let ended = receiver.wait_for(4).await[3].json();
    assert_eq!((&ended["type"], &ended["data"]["alarm"]), (&"alarm.ended".into(), &"configuration".into()));
    proxy.stop().await;
}

#[tokio::test]
async fn an_alarm_whose_severity_changes_is_raised_again() {
    let (carrier, receiver, pki) = (carrier().await, Receiver::start().await, Pki::new());
    let (folder, setup) = setup(&carrier).tls(&pki, "gateway", "gw.example");
    write_secret(&folder.path().join("secret"), &format!("{WEBHOOK_SECRET}\n"));
    let table = webhook("desk", &receiver.url(), "[\"alarm\"]", "");
    let proxy = Proxy::start_in(folder, setup.add("webhook", &table)).await;
    let folder = proxy.config().parent().unwrap().to_owned();
    let day = Duration::from_secs(86_400);
    for (count, (pem, key), kind, severity) in [
        (1, Pki::expiring("gw.example", day), "alarm.raised", "warning"),
        (2, Pki::expired("gw.example"), "alarm.raised", "error"),
        (3, Pki::expiring("gw.example", 365 * day), "alarm.ended", "error"),
    ] {
        write_secret(&folder.join("cert.pem"), &pem);
        write_secret(&folder.join("key.pem"), &key);
        proxy.signal("HUP").await;
        let message = receiver.wait_for(count).await[count - 1].json();
        let data = &message["data"];
        assert_eq!(
            (&message["type"], &data["alarm"], &data["severity"]),
            (&kind.into(), &"certificate".into(), &severity.into()),
            "{message}"
        );
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_webhook_that_is_added_by_a_reload_begins_there() {
    let (carrier, receiver) = (carrier().await, Receiver::start().await);
    let without = setup(&carrier);
    let proxy = Proxy::start_in(folder(), without.clone()).await;
    ask(&proxy, &MSISDN).await;
    change(&proxy, &carrier, "02").await;
    let with = without.clone().add("webhook", &webhook("desk", &receiver.url(), "[\"status\"]", ""));
    write_config(&proxy.config(), &with.text());
    eventually("the new webhook", async || {
        command(&proxy, &["status"]).await.success().out.contains("not started").then_some(()).xor(Some(()))
    })
    .await;
    change(&proxy, &carrier, "04").await;
    let first = receiver.wait_for(1).await[0].json();
    assert_eq!((&first["data"]["from"], &first["data"]["to"]), (&"02".into(), &"04".into()), "{first}");
    let behind = async || proxy.metrics().await.value("cmiot_webhook_behind", [("webhook", "desk")]);
    eventually("the rows to read", behind).await;
    write_config(&proxy.config(), &without.text());
    eventually("no webhook", async || behind().await.is_none().then_some(())).await;
    proxy.stop().await;
}

#[tokio::test]
async fn the_test_command_sends_one_signed_message() {
    let (carrier, receiver) = (carrier().await, Receiver::start().await);
    let proxy = start(&carrier, &receiver, "").await;
    let done = command(&proxy, &["test", "desk"]).await.success();
    assert_eq!(done.out, "desk: accepted (HTTP 204)\n");
    let all = receiver.received();
    all[0].assert_signed();
    assert_eq!((all.len(), &all[0].json()["type"]), (1, &"test".into()));
    receiver.reply([Reply::Status(401)]);
    let refused = command(&proxy, &["test"]).await.failed(1, []);
    assert_eq!(refused.out, "desk: not accepted: HTTP 401\n");
    command(&proxy, &["test", "absent"]).await.failed(1, ["no [[webhook]] of the name absent"]);
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_webhook_is_named() {
    let carrier = carrier().await;
    let folder = folder();
    write_secret(&folder.path().join("short"), "whsec_c2hvcnQ=");
    let table = |name: &str, more: &str| format!("name = \"{name}\"\n{more}");
    let setup = setup(&carrier)
        .add("webhook", &webhook("plain", "http://10.0.0.1/?token=abcdefgh", "[\"status\"]", ""))
        .add(
            "webhook",
            &webhook("none", "https://x.example/", "[]", "groups = [\"absent\"]\ntimeout = \"0s\""),
        )
        .add("webhook", &webhook("none", "https://x.example/", "[\"alarm\"]", ""))
        .add(
            "webhook",
            &table("a b", "url = \"https://x/\"\nsecret_file = \"missing\"\nevents = [\"alarm\"]"),
        )
        .add(
            "webhook",
            &table("short", "url = \"https://x/\"\nsecret_file = \"short\"\nevents = [\"alarm\"]"),
        );
    let config = folder.path().join("proxy.toml");
    write_config(&config, &setup.text());
    let checked = run(folder.path(), &["check", "--config", "proxy.toml"], &[]).await.failed(
        1,
        [
            "(name = \"plain\"): url: http would send card numbers in the clear",
            "2 (name = \"none\"): events: none",
            "2 (name = \"none\"): groups: no account has the group \"absent\"",
            "2 (name = \"none\"): timeout: must be longer than zero",
            "3 (name = \"none\"): name: must differ",
            "4 (name = \"a b\"): name: 1 to 64",
            "4 (name = \"a b\"): secret_file",
            "5 (name = \"short\"): secret_file: short: not a signing secret",
        ],
    );
    assert!(!checked.err.contains("abcdefgh"), "{}", checked.err);
}
