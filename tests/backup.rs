//! `cmiot-proxy backup` and `restore`, of a proxy that serves.

use std::path::Path;

use crate::support::{
    ICCID, IMSI, MSISDN, Output, Proxy, Setup, card_number, carrier, eventually, run, write_config,
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
