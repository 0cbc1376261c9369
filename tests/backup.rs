//! `cmiot-proxy backup` and `restore`, of a proxy that serves.

use std::path::Path;

use cmiot_simulator::Rule;

use crate::support::{
    ICCID, IMSI, MSISDN, Output, Proxy, Receiver, Reply, Setup, WEBHOOK_SECRET, card_number, carrier,
    eventually, run, write_config, write_secret,
};

async fn command(proxy: &Proxy, arguments: &[&str]) -> Output {
    let config = proxy.config();
    run(Path::new("/"), &[arguments, &["--config", config.to_str().unwrap()]].concat(), &[]).await
}

#[tokio::test]
async fn after_a_restore_no_transid_is_repeated_and_no_request_answered_again() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    let to = tempfile::tempdir().unwrap();
    let copy = to.path().join("copy");
    let copy = copy.to_str().unwrap();
    let before = proxy.sign(&MSISDN);
    proxy.get(&before).await.assert_normal();
    let output = command(&proxy, &["backup", copy]).await.success();
    assert!(output.out.contains("the audit ends at row ") && output.err.is_empty(), "{output:?}");
    let after = proxy.sign(&ICCID);
    proxy.get(&after).await.assert_normal();
    for n in 0..10 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    // A running proxy, and a folder with the files of one.
    command(&proxy, &["restore", copy]).await.failed(1, ["in use by process", &proxy.pid().to_string()]);
    proxy.kill9().await;
    command(&proxy, &["restore", copy]).await.failed(1, ["not empty", "move the files away"]);
    std::fs::remove_dir_all(proxy.data()).unwrap();
    let output = command(&proxy, &["restore", copy]).await.success();
    assert!(output.out.contains("carrier transids continue at 20"), "{output:?}");
    proxy.start_again().await;

    // The records since the backup are lost, and no request of that time is answered again.
    proxy.get(&after).await.assert_refusal("7");
    proxy.get(&before).await.assert_refusal("7");
    let ready = proxy.admin("/ready", "").await;
    assert!(ready.text().contains("audit rows are missing"), "{}", ready.text());
    let data = proxy.data();
    let acknowledge = ["audit", "acknowledge", "--dir", data.to_str().unwrap()];
    run(Path::new("/"), &acknowledge, &[]).await.success();
    eventually("a lookup", || async { (proxy.look_up(&IMSI).await.code() == "0").then_some(()) }).await;
    for n in 0..20 {
        proxy.look_up(&card_number(100 + n)).await.assert_normal();
    }
    assert_eq!(carrier.duplicates(), []);
    // The request from before the backup has its record.
    proxy.get(&before).await.assert_refusal_for("7", "used before");
    let verify = ["audit", "verify", "--dir", data.to_str().unwrap()];
    run(Path::new("/"), &verify, &[]).await.success();
}

#[tokio::test]
async fn after_a_restore_webhooks_begin_at_the_end_of_the_restored_audit() {
    let (carrier, failing, rejecting) = (carrier().await, Receiver::start().await, Receiver::start().await);
    failing.reply_always(Reply::Status(503));
    rejecting.reply_always(Reply::Status(503));
    let table = |name: &str, receiver: &Receiver, more: &str| {
        format!(
            "name = \"{name}\"\nurl = \"{}\"\nsecret_file = \"secret\"\nevents = [\"status\"]\n{more}",
            receiver.url()
        )
    };
    let setup = Setup::with_carrier(&carrier)
        .set("cache.max_age_floor", "0s")
        .add("webhook", &table("behind", &failing, ""))
        .add("webhook", &table("given-up", &rejecting, "give_up_after = \"1ms\""));
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("secret"), WEBHOOK_SECRET);
    let mut proxy = Proxy::start_in(folder, setup).await;
    let change = async |proxy: &Proxy, status: &str| {
        carrier.set_rules([Rule::any().status(status)]);
        let response = proxy.get_with(&proxy.sign(&MSISDN), "Cache-Control: no-cache\r\n").await;
        assert_eq!(response.code(), "0", "{}", response.text());
    };
    for status in ["00", "02"] {
        change(&proxy, status).await;
    }
    let letter = rejecting.wait_for(1).await[0].id().to_owned();
    failing.wait_for(1).await;
    let status = async |proxy: &Proxy| command(proxy, &["webhook", "status", "--wide"]).await.success().out;
    eventually("a dead letter", async || status(&proxy).await.contains(&letter).then_some(())).await;

    let to = tempfile::tempdir().unwrap();
    let copy = to.path().join("copy");
    command(&proxy, &["backup", copy.to_str().unwrap()]).await.success();
    proxy.kill9().await;
    std::fs::remove_dir_all(proxy.data()).unwrap();
    command(&proxy, &["restore", copy.to_str().unwrap()]).await.success();
    failing.reply_always(Reply::Status(200));
    let earlier = failing.received().len();
    proxy.start_again().await;
    assert!(!status(&proxy).await.contains(&letter), "{}", status(&proxy).await);
    let data = proxy.data();
    let acknowledge = ["audit", "acknowledge", "--dir", data.to_str().unwrap()];
    run(Path::new("/"), &acknowledge, &[]).await.success();
    eventually("a lookup", || async { (proxy.look_up(&IMSI).await.code() == "0").then_some(()) }).await;
    change(&proxy, "04").await;
    let sent = failing.wait_for(earlier + 1).await[earlier].json();
    assert_eq!((&sent["data"]["from"], &sent["data"]["to"]), (&"02".into(), &"04".into()), "{sent}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_backup_of_another_fleet_or_a_later_version_is_refused() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let to = tempfile::tempdir().unwrap();
    let copy = to.path().join("copy");
    let name = copy.to_str().unwrap();
    command(&proxy, &["backup", name, "--keys"]).await.success();
    let again = command(&proxy, &["backup", name]).await;
    again.failed(1, ["not empty", "name a folder that does not exist yet"]);
    let target = tempfile::tempdir().unwrap();
    let config = target.path().join("cmiot-proxy.toml");
    let restore = ["restore", name, "--config", config.to_str().unwrap()];
    let other = Setup::with_carrier(&carrier).set("account.0.appid", "999999");
    write_config(&config, &other.text());
    run(target.path(), &restore, &[]).await.failed(1, ["another fleet", "999999"]);
    write_config(&config, &Setup::with_carrier(&carrier).text());
    let manifest = copy.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let own = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&own), "{text}");
    std::fs::write(&manifest, text.replace(&own, "\"version\": \"99.0.0\"")).unwrap();
    run(target.path(), &restore, &[]).await.failed(1, ["99.0.0", "an older one"]);
    assert!(!target.path().join("data").exists(), "nothing was written");
    std::fs::write(&manifest, text).unwrap();
    run(target.path(), &restore, &[]).await.success();
}
