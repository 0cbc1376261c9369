//! Tokens of API v5: one request however many calls need one, one retry per lookup, and no loop.

use std::cell::Cell;
use std::time::Duration;

use cmiot_simulator::v5::{self, Refresh, Ttl};
use cmiot_simulator::{Answer, Config, Gate, Rule, Simulator};
use tokio::task::JoinSet;

use super::{APPID, PASSWORD, account, carrier, setup};
use crate::support::{
    Clocked, MSISDN, Proxy, Response, card_number, eventually, memory, run, secrets, within, write_config,
    write_secret,
};

/// Looks up these cards at once.
fn start_lookups(proxy: &Proxy, cards: std::ops::Range<u32>) -> JoinSet<Response> {
    let mut lookups = JoinSet::new();
    for n in cards {
        let client = (**proxy).clone();
        lookups.spawn(async move { client.look_up(&card_number(n)).await });
    }
    lookups
}

/// Waits until so many tokens were requested.
async fn requested(carrier: &Simulator, fetches: u64) {
    eventually("the request for a token", async || (carrier.v5().counts().fetches == fetches).then_some(()))
        .await;
}

/// Looks up one card after another until a call has the second token.
async fn wait_for_second_token(carrier: &Simulator, proxy: &Clocked) {
    let card = Cell::new(10);
    eventually("the new token in use", async || {
        proxy.look_up(&card_number(card.replace(card.get() + 1))).await.assert_normal();
        (carrier.v5().tokens(APPID)[1].queries > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_thousand_lookups_that_meet_a_dead_token_cost_one_request() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier)
        .set("carrier.max_flights", 4_000)
        .set("carrier.max_waiters_per_client", 2_000)
        .set("gateway.max_connections_per_peer", 2_000)
        .start()
        .await;
    proxy.look_up(&MSISDN).await.assert_normal();
    carrier.v5().end_tokens(APPID);
    let gate = Gate::new();
    carrier.set_rules([Rule::token().gate(&gate)]);
    let lookups = start_lookups(&proxy, 0..1_000);
    // The first of them has met the dead token, and its request for another one is held.
    requested(&carrier, 2).await;
    gate.open();
    for response in within("all responses", lookups.join_all()).await {
        response.assert_normal();
    }
    let counts = carrier.v5().counts();
    assert_eq!(counts.fetches, 2, "one before, and one for all: {counts:?}");
    assert!((1..=1_000).contains(&counts.queries_refused), "{counts:?}");
    assert_eq!(counts.queries - counts.queries_refused, 1_001, "each is answered once: {counts:?}");
    assert_eq!(carrier.duplicates().len(), 0, "each call has a transid of its own");
}

#[tokio::test]
async fn a_token_that_is_always_refused_costs_two_requests_and_two_calls_and_then_the_breaker() {
    let carrier = carrier(account()).await;
    carrier.set_rules([Rule::any().code("12021")]);
    let proxy =
        setup(&carrier).set("breaker.failures", 2).set("breaker.open", "1h").set("breaker.max_open", "1h");
    let proxy = proxy.start().await;
    let refused = proxy.look_up(&card_number(0)).await;
    refused.assert_refusal_for("73", "carrier refuses a token");
    assert!(refused.header("retry-after").is_some());
    let counts = carrier.v5().counts();
    assert!(counts.fetches <= 2 && counts.queries <= 3, "{counts:?}");
    proxy.look_up(&card_number(1)).await.assert_refusal_for("73", "carrier refuses a token");
    let before = carrier.v5().counts();
    assert!(before.fetches <= 4 && before.queries <= 6, "{before:?}");
    proxy.look_up(&card_number(2)).await.assert_refusal_for("73", "failed too often");
    assert_eq!(carrier.v5().counts(), before, "the breaker is open");
    let row = proxy.audit().remove(0);
    assert_eq!((row.reason.as_deref(), row.carrier_code.as_deref()), (Some("carrier-token"), Some("12021")));
}

#[tokio::test]
async fn a_token_that_ends_early_is_replaced_and_counted_and_then_an_alarm() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).start().await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    for n in 1..3 {
        assert!(!proxy.admin("/ready", "").await.text().contains("shared-appid"));
        carrier.v5().fetch_elsewhere(APPID);
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    let ready = proxy.admin("/ready", "").await;
    assert!(
        ready.text().contains("shared-appid") && ready.text().contains("account fleet"),
        "{}",
        ready.text()
    );
    let ended = ("account", "fleet");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.value("cmiot_tokens_ended_early_total", [ended]), Some(2.0));
    let issued = [ended, ("result", "issued")];
    assert_eq!(
        metrics.value("cmiot_token_requests_total", issued),
        Some(carrier.v5().counts().fetches as f64)
    );
    assert_eq!(carrier.v5().counts().queries_refused, 2, "one retry each");
}

#[tokio::test]
async fn a_carrier_that_returns_the_refused_token_is_asked_for_another_one_only_if_configured() {
    for (refresh, answered) in [("keep", false), ("force", true)] {
        let carrier = carrier(account().returns_dead_tokens()).await;
        let proxy = setup(&carrier)
            .set("account.0.token_refresh", refresh)
            .set("account.0.max_concurrent_calls", 1)
            .start()
            .await;
        proxy.look_up(&card_number(0)).await.assert_normal();
        carrier.v5().end_tokens(APPID);
        let response = proxy.look_up(&card_number(1)).await;
        if answered {
            response.assert_normal();
            assert_eq!(carrier.v5().counts().fetches, 3, "the first, the same one again, another one");
        } else {
            response.assert_refusal_for("73", "token");
            assert_eq!(carrier.v5().counts().fetches, 2);
        }
        assert_eq!(carrier.v5().counts().queries, 3);
        assert_eq!(carrier.max_in_flight(), 1);
    }
}

#[tokio::test]
async fn a_forced_request_waits_for_no_call_that_waits_for_it() {
    for at_once in [1_u32, 3] {
        let carrier = carrier(account().returns_dead_tokens()).await;
        let proxy = setup(&carrier)
            .set("account.0.token_refresh", "force")
            .set("account.0.max_concurrent_calls", at_once)
            // Longer than any wait of a gateway: a call that waits for itself is never answered.
            .set("carrier.queue_timeout", "1h")
            .start()
            .await;
        proxy.look_up(&MSISDN).await.assert_normal();
        carrier.v5().end_tokens(APPID);
        for response in within("all responses", start_lookups(&proxy, 0..40).join_all()).await {
            response.assert_normal();
        }
        let counts = carrier.v5().counts();
        assert_eq!(counts.fetches, 3, "the first, the same one again, another one: {counts:?}");
        assert!(carrier.max_in_flight() <= u64::from(at_once), "{}", carrier.max_in_flight());
        assert_eq!(counts.queries - counts.queries_refused, 41, "{counts:?}");
    }
}

#[tokio::test]
async fn a_renewal_tries_both_passwords_and_then_waits() {
    let carrier = carrier(account().refresh(Refresh::AlwaysNew).keeps_old_tokens()).await;
    let next = tempfile::tempdir().unwrap();
    let next_file = next.path().join("next");
    write_secret(&next_file, "the-carriers-next-one");
    let both = setup(&carrier).set("account.0.next_password_file", next_file.to_str().unwrap());
    let proxy = both.start_clocked().await;
    proxy.look_up(&card_number(0)).await.assert_normal();

    carrier.v5().set_password(APPID, "the-carriers-next-one");
    proxy.clock.advance(Duration::from_secs(3_300));
    requested(&carrier, 3).await;
    let counts = carrier.v5().counts();
    assert_eq!((counts.fetches_refused, carrier.v5().tokens(APPID).len()), (1, 2), "{counts:?}");
    wait_for_second_token(&carrier, &proxy).await;

    carrier.v5().set_password(APPID, "another-one-still");
    proxy.clock.advance(Duration::from_secs(3_300));
    requested(&carrier, 5).await;
    // The clock stands, so the cool-down does not end: ticks request nothing, and the present token serves.
    for n in 1..5 {
        proxy.look_up(&card_number(n)).await.assert_normal();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let counts = carrier.v5().counts();
    assert_eq!((counts.fetches, counts.fetches_refused, counts.queries_refused), (5, 3, 0), "{counts:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_is_used_whatever_the_form_of_its_time() {
    let forms = ["\"0\"", "0", "null", "\"soon\"", "\"-1\"", "[]"].map(|json| Ttl::Json(json.to_owned()));
    for form in [Ttl::Text, Ttl::Number, Ttl::Absent].into_iter().chain(forms) {
        for refresh in [Refresh::Honoured, Refresh::AlwaysNew, Refresh::AlwaysPresent] {
            let carrier = carrier(account().ttl_form(form.clone()).refresh(refresh)).await;
            let proxy = setup(&carrier).start().await;
            for n in 0..3 {
                proxy.look_up(&card_number(n)).await.assert_normal();
            }
            assert_eq!(carrier.v5().counts().fetches, 1, "{form:?}");
        }
    }
}

#[tokio::test]
async fn a_token_is_renewed_in_the_background_while_the_old_one_is_in_use() {
    let carrier = carrier(account().refresh(Refresh::AlwaysNew).keeps_old_tokens()).await;
    let proxy = setup(&carrier).start_clocked().await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    let gate = Gate::new();
    carrier.set_rules([Rule::token().gate(&gate)]);
    proxy.clock.advance(Duration::from_secs(3_300));
    requested(&carrier, 2).await;
    proxy.look_up(&card_number(1)).await.assert_normal();
    gate.open();
    wait_for_second_token(&carrier, &proxy).await;
    assert_eq!(carrier.v5().counts().fetches, 2);
    assert_eq!(carrier.v5().counts().queries_refused, 0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_for_a_token_that_fails_has_a_cool_down_of_its_own() {
    for (rule, said) in [
        (Rule::token().then(Answer::Hang), "http_response_timeout"),
        (Rule::token().then(Answer::Reset), "connection_terminated"),
        (Rule::token().then(Answer::html(502)), "http_protocol_error"),
        (Rule::token().status("-1"), "http_protocol_error"),
        (Rule::token().status(""), "http_protocol_error"),
    ] {
        let carrier = carrier(account()).await;
        carrier.set_rules([rule]);
        let proxy = setup(&carrier).set("carrier.timeout", "300ms").start().await;
        proxy.look_up(&card_number(0)).await.assert_refusal_for("73", said);
        let fetches = carrier.v5().counts().fetches;
        assert!((1..=2).contains(&fetches), "{said}: {fetches}");
        carrier.set_rules([]);
        eventually("the end of the cool-down", async || {
            let response = proxy.look_up(&card_number(1)).await;
            if response.code() == "73" {
                response.assert_refusal_for("73", "no-token");
                return None;
            }
            response.assert_normal();
            Some(())
        })
        .await;
        assert_eq!(carrier.v5().counts().fetches, fetches + 1, "{said}: none during the cool-down");
    }
}

#[tokio::test]
async fn while_an_account_gets_no_token_another_one_of_its_group_is_called() {
    let other = v5::Account::new("200002", "the-password-of-the-other");
    let config = Config { v5_accounts: vec![account(), other], ..Config::new([]) };
    let carrier = Simulator::start_local(config).await.unwrap();
    carrier.set_rules([Rule::token().appid(APPID).then(Answer::Hang)]);
    let second =
        "name='other'\ngroup='fleet'\napi='v5'\nappid='200002'\npassword='the-password-of-the-other'";
    let proxy = setup(&carrier).add("account", second).set("carrier.timeout", "300ms").start().await;
    let mut refused = 0;
    for n in 0..20 {
        let response = proxy.look_up(&card_number(n)).await;
        refused += u32::from(response.code() != "0");
    }
    // Those that met a request for a token themselves: the cool-down grows from one second.
    assert!(refused <= 3, "{refused}");
    assert_eq!(u32::try_from(carrier.v5().counts().queries), Ok(20 - refused));
}

#[tokio::test]
async fn both_passwords_are_tried_and_then_the_account_is_refused() {
    let carrier = carrier(account().refuses_with_token()).await;
    carrier.v5().set_password(APPID, "the-carriers-next-one");
    let next = tempfile::tempdir().unwrap();
    let next_file = next.path().join("next");
    write_secret(&next_file, "the-carriers-next-one");
    let both = setup(&carrier).set("account.0.next_password_file", next_file.to_str().unwrap());
    let proxy = both.start().await;
    for response in within("all responses", start_lookups(&proxy, 0..50).join_all()).await {
        response.assert_normal();
    }
    let counts = carrier.v5().counts();
    assert_eq!((counts.fetches, counts.fetches_refused), (2, 1), "each password once: {counts:?}");

    carrier.v5().set_password(APPID, "another-one-still");
    let proxy = both.start().await;
    carrier.reset_counts();
    let refused = proxy.look_up(&MSISDN).await;
    refused.assert_refusal_for("73", "credentials with code 12022");
    assert_eq!(carrier.v5().counts().fetches, 2);
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "credentials with code 12022");
    assert_eq!(carrier.v5().counts().fetches, 2, "the breaker is open");
    let ready = proxy.admin("/ready", "").await;
    assert!(ready.text().contains("12022"), "{}", ready.text());
}

#[tokio::test]
async fn one_call_at_once_is_enough_for_token_and_query() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).set("account.0.max_concurrent_calls", 1).set("account.0.calls_per_day", 4);
    let proxy = proxy.start().await;
    for response in within("all responses", start_lookups(&proxy, 0..3).join_all()).await {
        response.assert_normal();
    }
    assert_eq!(
        (carrier.max_in_flight(), carrier.count()),
        (1, 4),
        "the request for the token counts in the budget"
    );
    proxy.look_up(&card_number(9)).await.assert_refusal_for("72", "budget");
}

#[tokio::test]
async fn a_token_is_never_used_for_another_account() {
    let other = v5::Account::new("200002", "the-other-ones-password");
    let config = Config { v5_accounts: vec![account(), other], ..Config::new([]) };
    let carrier = Simulator::start_local(config).await.unwrap();
    let second = "name='other'\ngroup='fleet'\napi='v5'\nappid='200002'\npassword='the-other-ones-password'";
    let proxy = setup(&carrier)
        .add("account", second)
        .set("account.0.calls_per_day", 20)
        .set("account.1.calls_per_day", 20)
        .start()
        .await;
    for response in within("all responses", start_lookups(&proxy, 0..30).join_all()).await {
        response.assert_normal();
    }
    let counts = carrier.v5().counts();
    assert_eq!((counts.fetches, counts.foreign_tokens, counts.queries_refused), (2, 0, 0), "both are used");
}

#[tokio::test]
async fn no_output_and_no_file_has_a_password_or_a_token() {
    for method in ["post", "get"] {
        let carrier = carrier(account().token_prefix("T+/=&").token_length(512)).await;
        let setup = setup(&carrier).set("account.0.method", method).set("audit.bodies", "full");
        let proxy = Proxy::start_tracing(setup).await;
        proxy.look_up(&card_number(0)).await.assert_normal();
        // Pages that repeat the call, as front ends do.
        let token = carrier.v5().tokens(APPID)[0].expose().to_owned();
        let page = format!("<html>bad call token={token} password={PASSWORD}</html>");
        carrier.set_rules([Rule::any().then(Answer::body(page.clone()))]);
        proxy.look_up(&card_number(1)).await.assert_refusal_for("73", "http_protocol_error");
        carrier.set_rules([Rule::token().then(Answer::body(page.clone()))]);
        carrier.v5().end_tokens(APPID);
        proxy.look_up(&card_number(2)).await.assert_refusal("73");
        assert_eq!(carrier.v5().counts().secrets_in_urls > 0, method == "get");
        secrets::register(&token);
        secrets::register(PASSWORD);
        let data = proxy.data();
        for file in std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()) {
            let bytes = std::fs::read(&file).unwrap();
            for secret in [token.as_str(), PASSWORD] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} has a secret", file.display());
            }
        }
    }
}

#[tokio::test]
async fn a_core_has_the_present_token_and_password_and_no_earlier_one() {
    let password = |n: u32| format!("password-{n}-of-v5-9f3a7c51e2d4");
    let carrier = carrier(v5::Account::new(APPID, password(0)).token_prefix("T/").token_length(96)).await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("account.password"), &password(0));
    let setup = setup(&carrier)
        .unset("account.0.password")
        .set("account.0.password_file", "account.password")
        .set("admin.token", "none")
        .set("process.allow_core_dumps", true);
    let proxy = Proxy::start_in(folder, setup).await;
    for n in 0..4 {
        proxy.look_up(&card_number(n)).await.assert_normal();
        carrier.v5().end_tokens(APPID);
    }
    carrier.v5().set_password(APPID, password(1));
    write_secret(&proxy.config().with_file_name("account.password"), &password(1));
    let json = "Content-Type: application/json\r\n";
    assert_eq!(proxy.admin_post("/config/reload", json, "").await.status, 200);
    proxy.look_up(&card_number(4)).await.assert_normal();
    let issued = carrier.v5().tokens(APPID);
    let [earlier @ .., present] = &issued[..] else { panic!("a token") };
    assert_eq!(earlier.len(), 4);
    let in_memory = |text: &str| memory::count(proxy.pid(), text);
    eventually("one copy of the token", async || (in_memory(present.expose()) == 1).then_some(())).await;
    // Once to sign, and once for the requests for a token.
    assert_eq!(in_memory(&password(1)), 2);
    assert_eq!(in_memory(&password(0)), 0);
    for token in earlier {
        assert_eq!(in_memory(token.expose()), 0);
    }
}

#[tokio::test]
async fn a_check_requests_a_token_with_the_password() {
    let carrier = carrier(account().refuses_with_token()).await;
    let check = async || {
        let folder = tempfile::tempdir().unwrap();
        write_config(&folder.path().join("c.toml"), &setup(&carrier).text());
        run(folder.path(), &["check", "--config", "c.toml", "--live"], &[]).await
    };
    let accepted = check().await.success();
    assert!(accepted.out.contains("accepts the account"), "{accepted:?}");
    assert_eq!((carrier.v5().counts().fetches, carrier.v5().counts().queries), (1, 1));
    carrier.v5().set_password(APPID, "another-one-still");
    let refused = check().await.failed(1, []);
    assert!(refused.out.contains("code 12022: the password is wrong"), "{refused:?}");
    assert_eq!(carrier.v5().counts().queries, 1, "without a token nothing is looked up");
    carrier.v5().set_password(APPID, PASSWORD);
    carrier.set_rules([Rule::any().code("12021")]);
    assert!(check().await.failed(1, []).out.contains("code 12021"));
}
