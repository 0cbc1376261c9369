//! Replay modes, lenient formats, derived and revoked clients.

use cmiot_simulator::Rule;
use sha2::{Digest, Sha256};

use crate::support::{ICCID, MSISDN, Setup, carrier, write_config, write_secret};

#[tokio::test]
async fn the_same_answer_is_told_again_for_the_same_card_alone() {
    for identifiers in ["plain", "keyed"] {
        let carrier = carrier().await;
        let setup = Setup::with_carrier(&carrier).set("client.0.replay", "same-answer");
        let mut proxy = setup.set("audit.identifiers", identifiers).start().await;
        let query = proxy.sign(&MSISDN);
        proxy.get(&query).await.assert_normal();
        proxy.get(&query).await.assert_normal();
        let moved = query.clone().without("msisdn").with("iccid", ICCID.number);
        proxy.get(&moved).await.assert_refusal_for("7", "used before");
        assert_eq!(carrier.count(), 1);
        assert_eq!(proxy.audit().len(), 3, "one record per request");

        proxy.restart().await;
        proxy.get(&moved).await.assert_refusal_for("7", "used before");
        proxy.get(&query).await.assert_refusal_for("7", "used before");
        assert_eq!(carrier.count(), 1, "no response is kept over a restart, and none is fetched again");
    }
}

#[tokio::test]
async fn a_second_one_at_once_joins_the_first() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().latency(std::time::Duration::from_millis(200))]);
    let proxy = Setup::with_carrier(&carrier).set("client.0.replay", "same-answer").start().await;
    let query = proxy.sign(&MSISDN);
    let (first, second) = tokio::join!(proxy.get(&query), proxy.get(&query));
    first.assert_normal();
    second.assert_normal();
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn an_observed_client_may_hard_code_the_pages_own_transid() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .set("client.0.replay", "observe")
        .set("client.0.format", "lenient")
        .set("client.0.clock_skew", "any")
        .start()
        .await;
    for transid in ["GW000120161121001", "2016071314451512365445", "GW00012014101615303080000001"] {
        for _ in 0..2 {
            proxy.get(&proxy.gateway.sign_transid(&MSISDN, transid)).await.assert_normal();
        }
    }
    let repeated = proxy.audit().iter().filter(|row| row.reason.as_deref() == Some("transid-reused")).count();
    assert_eq!(repeated, 3, "the second use of each is noted");
    // At most 48 letters and digits, which allows no length extension of the hash.
    for hostile in ["GW0001-20161121001", &"1".repeat(49)] {
        proxy.get(&proxy.gateway.sign_transid(&MSISDN, hostile)).await.assert_refusal_for("10", "transid");
    }
}

#[tokio::test]
async fn no_transid_of_a_lenient_client_is_held_to_the_window() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .set("client.0.replay", "observe")
        .set("client.0.format", "lenient")
        .add("client", "group='fleet'\nappid='STRICT'\npassword='strict-password'")
        .start()
        .await;
    // UTC instead of UTC+8, followed by nanoseconds: one in ten has the strict form by chance.
    let utc = proxy.gateway.transid_at(proxy.gateway.now() - 8 * 3600);
    let stamp = &utc["GW0001".len()..][..14];
    for nanoseconds in ["99999999", "100000000", "5"] {
        let transid = format!("GW0001{stamp}{nanoseconds}");
        proxy.get(&proxy.gateway.sign_transid(&MSISDN, &transid)).await.assert_normal();
    }
    // A strict client needs a stamp inside the window, which is checked after its token.
    let strict = proxy.gateway.named("STRICT", "strict-password");
    let late = format!("STRICT{stamp}00000001");
    proxy.get(&strict.sign_transid(&MSISDN, &late)).await.assert_refusal_for("7", "transid stamp");
    let forged = proxy.gateway.named("STRICT", "wrong");
    proxy.get(&forged.sign_transid(&MSISDN, &late)).await.assert_refusal_for("7", "appid or token wrong");
}

#[tokio::test]
async fn a_strict_client_beside_a_lenient_one_stays_strict() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .add(
            "client",
            "group='fleet'\nappid='OLD'\npassword='old-password'\nreplay='observe'\nformat='lenient'",
        )
        .start()
        .await;
    let old = proxy.gateway.named("OLD", "old-password");
    proxy.get(&old.sign_transid(&MSISDN, "OLD1")).await.assert_normal();
    proxy.get(&proxy.gateway.sign_transid(&MSISDN, "GW1")).await.assert_refusal_for("10", "transid");
    let wrong = proxy.gateway.named("GW0001", "wrong");
    let unknown = proxy.gateway.named("NOBODY", "wrong");
    for nobody in [wrong, unknown] {
        proxy.get(&nobody.sign_transid(&MSISDN, "GW1")).await.assert_refusal_for("7", "appid or token wrong");
    }
}

#[tokio::test]
async fn what_would_have_to_be_remembered_for_ever_is_refused_at_start() {
    let carrier = carrier().await;
    for (key, value) in
        [("client.0.clock_skew", "any"), ("gateway.clock_skew", "any"), ("client.0.format", "lenient")]
    {
        let folder = tempfile::tempdir().unwrap();
        write_config(&folder.path().join("c.toml"), &Setup::with_carrier(&carrier).set(key, value).text());
        crate::support::run(folder.path(), &["check", "--config", "c.toml"], &[])
            .await
            .failed(1, ["replay = \"observe\""]);
    }
}

#[tokio::test]
async fn a_full_share_says_when_there_is_room() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("gateway.max_transids_per_client", 2).start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.look_up(&MSISDN).await.assert_normal();
    let full = proxy.look_up(&MSISDN).await;
    full.assert_refusal_for("72", "too many transids");
    assert!(full.header("retry-after").is_some());
}

#[tokio::test]
async fn a_derived_gateway_needs_no_list_and_can_be_revoked() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let key = "0123456789abcdef0123456789abcdef";
    write_secret(&folder.path().join("derive.key"), key);
    write_secret(&folder.path().join("revoked"), "# lost in the field\nGW7000002\n");
    let setup = Setup::with_carrier(&carrier)
        .add("derive", "group='fleet'\nappid_prefix='GW7'\nkey_file='derive.key'\nepoch=3")
        .set("gateway.revoked_file", "revoked");
    let proxy = crate::support::Proxy::start_in(folder, setup).await;
    let derived = |appid: &str, epoch: u8| proxy.gateway.named(appid, &derive(key, epoch, appid));
    for epoch in [3, 2] {
        proxy.get(&derived("GW7000001", epoch).sign(&MSISDN)).await.assert_normal();
    }
    for nobody in
        [derived("GW7000001", 1), derived("GW7000001", 4), derived("GW7000002", 3), derived("GW8000001", 3)]
    {
        proxy.get(&nobody.sign(&MSISDN)).await.assert_refusal_for("7", "appid or token wrong");
    }
    proxy.look_up(&MSISDN).await.assert_normal();
}

/// HMAC-SHA256 (RFC 2104) over sha2, independent of the proxy's implementation.
fn derive(key: &str, epoch: u8, appid: &str) -> String {
    let pad = |with: u8| -> Vec<u8> {
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key.as_bytes());
        block.iter().map(|byte| byte ^ with).collect()
    };
    let text = [b"cmiot-derive-1".as_slice(), &[0, 0, 0, epoch], appid.as_bytes()].concat();
    let inner = Sha256::digest([pad(0x36), text].concat());
    let outer = Sha256::digest([pad(0x5c), inner.to_vec()].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}
