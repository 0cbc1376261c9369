//! Repeated requests: the same response or a refusal, through reloads, moves to another group, purges and time.

use std::time::Duration;

use cmiot_simulator::{Account, Rule};

use crate::support::{ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, ICCID, MSISDN, Setup, carrier};

const MODES: [&str; 3] = ["refuse", "same-answer", "observe"];

#[tokio::test]
async fn a_change_of_the_mode_brings_no_transid_back() {
    let carrier = carrier().await;
    let mode = |mode: &str| Setup::with_carrier(&carrier).set("client.0.replay", mode);
    for (before, after) in MODES.iter().flat_map(|before| MODES.map(|after| (*before, after))) {
        let proxy = mode(before).start_clocked().await;
        let query = proxy.sign(&MSISDN);
        let other = query.clone().without("msisdn").with(ICCID.kind, ICCID.number);
        proxy.get(&query).await.assert_normal();
        let calls = carrier.count();
        proxy.reload(&mode(after));
        let (same, moved) = (proxy.get(&query).await, proxy.get(&other).await);
        match (before, after) {
            // `observe` never refuses; the audit notes that the transid was used.
            (_, "observe") => {
                same.assert_normal();
                moved.assert_normal();
            }
            ("same-answer", "same-answer") => {
                same.assert_normal();
                moved.assert_refusal_for("7", "used before");
            }
            _ => {
                same.assert_refusal_for("7", "used before");
                moved.assert_refusal_for("7", "used before");
            }
        }
        let asked_for_the_other = u64::from(after == "observe");
        assert_eq!(carrier.count(), calls + asked_for_the_other, "{before}, then {after}");
        // A refused transid stays refused in the other modes.
        proxy.reload(&mode("refuse"));
        proxy.get(&query).await.assert_refusal_for("7", "used before");
        proxy.reload(&mode("same-answer"));
        proxy.get(&query).await.assert_refusal_for("7", "used before");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_restart_in_another_mode_brings_no_transid_back() {
    let carrier = carrier().await;
    for mode in MODES {
        let setup = Setup::with_carrier(&carrier).set("client.0.replay", mode);
        let mut proxy = setup.start().await;
        let query = proxy.sign(&MSISDN);
        proxy.get(&query).await.assert_normal();
        std::fs::write(proxy.config(), setup.set("client.0.replay", "refuse").text()).unwrap();
        proxy.restart().await;
        proxy.get(&query).await.assert_refusal_for("7", "used before");
    }
}

#[tokio::test]
async fn a_client_that_comes_back_after_a_restart_brings_no_transid_back() {
    let carrier = carrier().await;
    let with = Setup::with_carrier(&carrier);
    let without = with.clone().set("client.0.appid", "GW9999");
    let mut proxy = with.start().await;
    let query = proxy.sign(&MSISDN);
    proxy.get(&query).await.assert_normal();
    std::fs::write(proxy.config(), without.text()).unwrap();
    proxy.restart().await;
    proxy.get(&query).await.assert_refusal_for("7", "appid or token wrong");
    std::fs::write(proxy.config(), with.text()).unwrap();
    proxy.restart().await;
    proxy.get(&query).await.assert_refusal_for("7", "used before");
}

#[tokio::test]
async fn a_client_that_moves_to_another_group_gets_no_response_of_the_first() {
    let carrier = carrier().await;
    carrier.set_accounts([
        Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD),
        Account::new("100002", EBID, "second-secret"),
    ]);
    carrier.set_rules([Rule::parse("appid=100002 status=02").unwrap()]);
    let second = format!("name='second'\nappid='100002'\nebid='{EBID}'\npassword='second-secret'");
    for mode in MODES {
        let first = Setup::with_carrier(&carrier)
            .add("account", &second)
            .add("client", "group='second'\nappid='OTHER'\npassword='others-password'")
            .set("client.0.replay", mode);
        let moved = first.clone().set("client.0.group", "second").set("client.1.group", "fleet");
        let proxy = first.start_clocked().await;
        let query = proxy.sign(&MSISDN);
        proxy.get(&query).await.assert_normal();
        proxy.reload(&moved);
        let again = proxy.get(&query).await;
        if mode == "observe" {
            assert_eq!(again.json()["result"][0]["STATUS"], "02", "with the accounts of its new group");
        } else {
            again.assert_refusal_for("7", "used before");
        }
        assert_eq!(proxy.look_up(&MSISDN).await.json()["result"][0]["STATUS"], "02");
        proxy.reload(&first);
        if mode != "observe" {
            proxy.get(&query).await.assert_refusal_for("7", "used before");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_repeated_response_says_how_old_it_is_and_ends_with_its_bounds() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier)
        .set("client.0.replay", "same-answer")
        .set("gateway.clock_skew", "1h")
        .freshness("normal", "60s", "20s", "120s");
    let proxy = setup.start_clocked().await;
    let query = proxy.sign(&MSISDN);
    proxy.get(&query).await.assert_normal();
    // The cache gets a newer reply; the response to this request stays the same.
    carrier.set_rules([Rule::any().status("02")]);
    for (seconds, cache) in [(10, "hit; ttl=50"), (60, "hit; ttl=-10"), (100, "hit; ttl=-110")] {
        proxy.clock.advance(Duration::from_secs(seconds));
        let again = proxy.get(&query).await;
        again.assert_normal();
        assert_eq!(again.cache(), cache);
    }
    assert_eq!(proxy.get(&query).await.age(), 170);
    let calls = carrier.count();
    proxy.clock.advance(Duration::from_secs(10));
    proxy.get(&query).await.assert_refusal_for("7", "used before");
    assert_eq!(carrier.count(), calls, "no second fetch");
    proxy.stop().await;

    // The client's own max_stale_ceiling is a bound too.
    carrier.set_rules([]);
    let proxy = setup.set("client.0.max_stale_ceiling", "5s").start_clocked().await;
    let query = proxy.sign(&MSISDN);
    proxy.get(&query).await;
    proxy.clock.advance(Duration::from_secs(65));
    assert_eq!(proxy.get(&query).await.cache(), "hit; ttl=-5");
    proxy.clock.advance(Duration::from_secs(1));
    proxy.get(&query).await.assert_refusal_for("7", "used before");
    proxy.stop().await;
}

#[tokio::test]
async fn a_purged_response_is_not_repeated_and_not_fetched_again() {
    let carrier = carrier().await;
    for (selection, covers) in [
        ("\"all\": true", true),
        ("\"msisdn\": \"14765004176\"", true),
        ("\"status\": \"00\"", true),
        ("\"status\": \"02\"", false),
    ] {
        for soft in [false, true] {
            let proxy =
                Setup::with_carrier(&carrier).set("client.0.replay", "same-answer").start_clocked().await;
            let query = proxy.sign(&MSISDN);
            proxy.get(&query).await.assert_normal();
            let calls = carrier.count();
            let purged =
                proxy.admin_post("/cache/purge", &format!("{{{selection}, \"soft\": {soft}}}")).await;
            assert_eq!(purged.status, 200, "{selection}: {}", purged.text());
            let again = proxy.get(&query).await;
            if covers {
                again.assert_refusal_for("7", "used before");
            } else {
                again.assert_normal();
            }
            assert_eq!(carrier.count(), calls, "{selection}");
            proxy.stop().await;
        }
    }
}

#[tokio::test]
async fn what_was_observed_without_a_window_is_refused_with_one() {
    let carrier = carrier().await;
    let observed = Setup::with_carrier(&carrier)
        .set("client.0.replay", "observe")
        .set("client.0.format", "lenient")
        .set("client.0.clock_skew", "any");
    let proxy = observed.start_clocked().await;
    let query = proxy.sign(&MSISDN);
    proxy.get(&query).await.assert_normal();
    proxy.get(&query).await.assert_normal();
    proxy.reload(&Setup::with_carrier(&carrier));
    proxy.get(&query).await.assert_refusal_for("7", "used before");
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.stop().await;
}
