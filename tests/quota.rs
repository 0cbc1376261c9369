//! The carrier's quota and outages: the budget's limits, cool-down, breaker, passwords, freshness that clients request.

use std::time::Duration;

use cmiot_simulator::{Account, Answer, Config, Gate, Rule, Simulator};
use tokio::task::JoinSet;

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Clocked, EBID, GatewayClient, MSISDN, Proxy, Response, Setup,
    card_number, carrier, eventually, within, write_secret,
};

/// Starts concurrent lookups of this many cards.
fn start_lookups(client: &GatewayClient, cards: u32) -> JoinSet<Response> {
    let mut lookups = JoinSet::new();
    for n in 0..cards {
        let client = client.clone();
        lookups.spawn(async move { client.look_up(&card_number(n)).await });
    }
    lookups
}

/// Looks up this many cards concurrently.
async fn look_up_all(client: &GatewayClient, cards: u32) -> Vec<Response> {
    within("all responses", start_lookups(client, cards).join_all()).await
}

/// Moves the clock until the carrier has received `calls` calls after the first `before` ones, and asserts that it
/// received no more than `limit` per second.
async fn spend_budget(proxy: &Clocked, carrier: &Simulator, before: u64, calls: u64, limit: u64) {
    for tenths in 0_u64.. {
        // The clock does not move here: each call was sent, or waits.
        let sent = eventually("every call to be sent or to wait", async || {
            let waiting = proxy.metrics().await.value("cmiot_budget_waiting", [("account", "fleet")])?;
            let sent = carrier.count() - before;
            (sent as f64 + waiting == calls as f64).then_some(sent)
        })
        .await;
        assert!(sent <= limit * (tenths / 10 + 1), "{sent} calls in {tenths} tenths of a second");
        if sent == calls {
            return;
        }
        proxy.clock.advance(Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_fleet_that_expires_at_once_is_served_within_the_carriers_limit() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .freshness("normal", "60s", "1h", "1h")
        .set("account.0.calls_per_second", 40)
        .set("carrier.max_queued_calls", 200)
        .set("carrier.queue_timeout", "30s")
        .start_clocked()
        .await;
    let misses = start_lookups(&proxy, 60);
    spend_budget(&proxy, &carrier, 0, 60, 40).await;
    for response in within("all responses", misses.join_all()).await {
        response.assert_normal();
    }
    proxy.clock.advance(Duration::from_secs(70));
    for response in look_up_all(&proxy, 60).await {
        response.assert_normal();
        assert!(response.cache().starts_with("hit; ttl=-"), "{response:?}");
    }
    spend_budget(&proxy, &carrier, 60, 60, 40).await;
    assert_eq!(carrier.count(), 120, "each card is refreshed once");
    for response in look_up_all(&proxy, 60).await {
        response.assert_normal();
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_days_calls_are_spent_once_through_a_restart() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).set("account.0.calls_per_day", 2).start().await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    proxy.look_up(&card_number(1)).await.assert_normal();
    for _ in 0..2 {
        let refused = proxy.look_up(&card_number(2)).await;
        refused.assert_refusal_for("72", "budget");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&wait), "until midnight at UTC+8: {wait}");
        proxy.look_up(&card_number(0)).await.assert_normal();
        proxy.restart().await;
    }
    assert_eq!(carrier.count(), 2);
    // Before the first call of this process.
    eventually("no calls left in the metrics", || async {
        let left = proxy.metrics().await.value("cmiot_budget_remaining_today", [("account", "fleet")])?;
        (left == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn so_many_calls_at_once_and_the_others_wait() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Setup::with_carrier(&carrier)
        .set("account.0.max_concurrent_calls", 2)
        .set("carrier.max_queued_calls", 3)
        .set("carrier.queue_timeout", "30s")
        .start()
        .await;
    let mut lookups = JoinSet::new();
    for n in 0..6 {
        let client = (*proxy).clone();
        lookups.spawn(async move { client.look_up(&card_number(n)).await });
    }
    // Two are in flight, three wait, one is refused.
    let refused = within("a refusal", lookups.join_next()).await.unwrap().unwrap();
    refused.assert_refusal_for("72", "budget");
    carrier.wait_for_calls(2).await;
    gate.open();
    for response in within("the others", lookups.join_all()).await {
        response.assert_normal();
    }
    assert_eq!((carrier.count(), carrier.max_in_flight()), (5, 2));
}

#[tokio::test]
async fn a_throttled_account_is_in_cool_down_for_a_while() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .set("breaker.cool_down", "200ms")
        .set("breaker.max_cool_down", "200ms")
        .start()
        .await;
    carrier.set_rules([Rule::any().code("71").times(1)]);
    assert_eq!(proxy.look_up(&MSISDN).await.code(), "71", "the carrier's code, once");
    eventually("the end of the cool-down", || async {
        let response = proxy.look_up(&MSISDN).await;
        if response.code() == "72" {
            response.assert_refusal_for("72", "cool-down");
            assert!(response.header("retry-after").is_some());
            return None;
        }
        response.assert_normal();
        Some(())
    })
    .await;
    assert_eq!(carrier.count(), 2, "no call in between");
}

#[tokio::test]
async fn known_cards_are_answered_through_every_kind_of_outage_and_a_restart() {
    const CARDS: u32 = 10;
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier)
        .freshness("normal", "1s", "0s", "1h")
        .set("carrier.stale_timeout", "50ms")
        .set("carrier.timeout", "2s")
        .start()
        .await;
    for response in look_up_all(&proxy, CARDS).await {
        response.assert_normal();
    }
    let stale = async |proxy: &Proxy| {
        eventually("staleness", || async {
            let responses = look_up_all(proxy, CARDS).await;
            responses.iter().for_each(Response::assert_normal);
            responses.iter().all(|response| response.cache().starts_with("hit; ttl=-")).then_some(())
        })
        .await;
    };
    for fault in [Answer::Reset, Answer::Hang, Answer::html(503)] {
        carrier.set_rules([Rule::any().then(fault)]);
        stale(&proxy).await;
    }
    carrier.kill().await;
    stale(&proxy).await;
    proxy.restart().await;
    stale(&proxy).await;
    carrier.restart().await.unwrap();
    carrier.set_rules([]);
    eventually("fresh responses again", || async {
        let responses = look_up_all(&proxy, CARDS).await;
        responses.iter().for_each(Response::assert_normal);
        responses.iter().all(|response| !response.cache().contains("ttl=-")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_breaker_spares_a_carrier_that_fails_and_lets_one_call_find_out() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().then(Answer::html(503))]);
    let proxy =
        Setup::with_carrier(&carrier).set("breaker.failures", 3).set("breaker.open", "200ms").start().await;
    for n in 0..3 {
        proxy.look_up(&card_number(n)).await.assert_refusal_for("73", "http-status");
    }
    let open = proxy.look_up(&card_number(3)).await;
    open.assert_refusal_for("73", "too often in a row");
    assert!(open.header("retry-after").is_some());
    assert_eq!(carrier.count(), 3);
    carrier.set_rules([]);
    eventually("the probe", || async { (proxy.look_up(&card_number(3)).await.code() == "0").then_some(()) })
        .await;
    assert_eq!(carrier.count(), 4);
}

#[tokio::test]
async fn a_call_that_is_retried_counts_once_at_the_breaker_by_its_last_result() {
    let carrier = carrier().await;
    let proxy =
        Setup::with_carrier(&carrier).set("breaker.failures", 2).set("breaker.open", "30s").start().await;
    for n in 0..3 {
        carrier.set_rules([Rule::any().code("73").times(1)]);
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    carrier.set_rules([Rule::any().code("73")]);
    for n in 3..5 {
        assert_eq!(proxy.look_up(&card_number(n)).await.code(), "73");
        assert_eq!(carrier.count(), 2 * (u64::from(n) + 1), "the second failure is that of another call");
    }
    proxy.look_up(&card_number(5)).await.assert_refusal_for("73", "too often in a row");
    assert_eq!(carrier.count(), 10);
}

/// A proxy that also has the account's next password.
async fn rotating(carrier: &Simulator) -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("next"), "the-next-password");
    Proxy::start_in(folder, Setup::with_carrier(carrier).set("account.0.next_password_file", "next")).await
}

#[tokio::test]
async fn a_changed_password_costs_one_call_and_no_answer() {
    let carrier = carrier().await;
    let proxy = rotating(&carrier).await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    assert!(carrier.set_password(ACCOUNT_APPID, "the-next-password"));
    proxy.look_up(&card_number(1)).await.assert_normal();
    proxy.look_up(&card_number(2)).await.assert_normal();
    assert_eq!((carrier.count(), carrier.count_code("7")), (4, 1), "the new one is used from then on");
    let ready = proxy.admin("/ready", "").await;
    assert!(ready.text().starts_with("ready\nalarm: password: "), "{}", ready.text());
    assert_eq!(ready.text().lines().count(), 2, "{}", ready.text());
    assert!(carrier.set_password(ACCOUNT_APPID, "neither-of-them"));
    proxy.look_up(&card_number(3)).await.assert_refusal_for("73", "code 7");
    let calls = carrier.count();
    proxy.look_up(&card_number(4)).await.assert_refusal_for("73", "code 7");
    assert_eq!(carrier.count(), calls, "both were tried, then the breaker opened");
    let ready = proxy.admin("/ready", "").await;
    assert!(
        ready.text().contains("alarm: account: the carrier refuses account fleet with code 7"),
        "{}",
        ready.text()
    );
}

#[tokio::test]
async fn a_group_goes_on_with_its_other_account() {
    let account = |appid: &str| Account::new(appid, EBID, ACCOUNT_PASSWORD);
    let accounts = [account(ACCOUNT_APPID), account("100002")];
    let carrier = Simulator::start_local(Config::new(accounts)).await.unwrap();
    let second = format!(
        "name = \"second\"\ngroup = \"fleet\"\nappid = \"100002\"\nebid = \"{EBID}\"\npassword = \"{ACCOUNT_PASSWORD}\""
    );
    let proxy = Setup::with_carrier(&carrier)
        .set("account.0.calls_per_day", 10)
        .add("account", &format!("{second}\ncalls_per_day = 10"))
        .start()
        .await;
    let by = |appid: &str| carrier.calls().iter().filter(|call| call.appid == appid).count();
    for n in 0..4 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    assert_eq!(
        (by(ACCOUNT_APPID), by("100002")),
        (2, 2),
        "the account with the larger remaining budget is used"
    );
    carrier.set_rules([Rule::any().appid("100002").code("6")]);
    for n in 4..8 {
        let response = proxy.look_up(&card_number(n)).await;
        assert!(["0", "73"].contains(&response.code().as_str()));
    }
    // One call shows that the second account is refused. Key, cache and flight belong to the group.
    assert_eq!(carrier.count_code("6"), 1);
    assert!(proxy.look_up(&card_number(1)).await.cache().starts_with("hit"));
    for n in 8..10 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
}

#[tokio::test]
async fn what_is_asked_for_often_is_refreshed_before_it_is_stale() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("account.0.calls_per_second", 100).start_clocked().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    for _ in 0..5 {
        proxy.look_up(&MSISDN).await.assert_normal();
    }
    proxy.clock.advance(Duration::from_secs(50));
    carrier.set_rules([Rule::any().status("02")]);
    proxy.look_up(&MSISDN).await.assert_normal();
    carrier.wait_for_calls(2).await;
    eventually("the refreshed one", || async { (proxy.look_up(&MSISDN).await.age() == 0).then_some(()) })
        .await;
    assert_eq!(carrier.count(), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn a_gateway_may_ask_for_more_or_less_freshness_within_limits() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).freshness("normal", "60s", "0s", "1h").start_clocked().await;
    let ask = async |directives: &str| {
        proxy.get_with(&proxy.sign(&MSISDN), &format!("Cache-Control: {directives}\r\n")).await
    };
    assert_eq!(ask("no-cache").await.cache(), "fwd=uri-miss; stored");
    assert_eq!(ask("no-cache").await.cache(), "hit; ttl=60", "younger than max_age_floor");
    proxy.clock.advance(Duration::from_secs(11));
    assert_eq!(ask("max-age=20").await.cache(), "hit; ttl=49");
    assert_eq!(ask("no-cache").await.cache(), "fwd=request; stored");
    proxy.clock.advance(Duration::from_secs(70));
    assert_eq!(ask("max-stale=10").await.cache(), "hit; ttl=-10");
    assert_eq!(ask("only-if-cached, max-stale").await.cache(), "hit; ttl=-10");
    ask("only-if-cached, max-stale=9").await.assert_refusal_for("73", "504");
    assert_eq!(carrier.count(), 2);
    assert_eq!(ask("max-stale=9").await.cache(), "fwd=stale; stored");
    // After a failure the cached response is served, even to a request for a fresher one.
    proxy.clock.advance(Duration::from_secs(30));
    carrier.kill().await;
    assert_eq!(ask("no-cache").await.cache(), "hit; ttl=30; detail=connect");
    proxy.stop().await;
}

#[tokio::test]
async fn a_clients_own_limits_go_before_those_of_all() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .freshness("normal", "60s", "0s", "1h")
        .set("client.0.max_age_floor", "40s")
        .set("client.0.max_stale_ceiling", "0s")
        .start_clocked()
        .await;
    let ask = async |directives: &str| {
        proxy.get_with(&proxy.sign(&MSISDN), &format!("Cache-Control: {directives}\r\n")).await
    };
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.clock.advance(Duration::from_secs(39));
    assert_eq!(ask("no-cache").await.cache(), "hit; ttl=21");
    proxy.clock.advance(Duration::from_secs(31));
    assert_eq!(ask("max-stale").await.cache(), "fwd=stale; stored");
    proxy.stop().await;
}

#[tokio::test]
async fn numbers_of_one_card_share_its_entry_where_a_file_says_so() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("cards.csv"),
        "# one card a line\nmsisdn:14765004176,iccid:898600D6991330004146,imsi:460079650004176\n",
    )
    .unwrap();
    let proxy =
        Proxy::start_in(folder, Setup::with_carrier(&carrier).set("cache.alias_file", "cards.csv")).await;
    proxy.look_up(&crate::support::ICCID).await.assert_normal();
    for card in [MSISDN, crate::support::IMSI, crate::support::ICCID] {
        assert!(proxy.look_up(&card).await.cache().starts_with("hit"), "{card:?}");
    }
    assert_eq!((carrier.count(), carrier.count_for(MSISDN.number)), (1, 1));
}
