//! Operations other than the user-status lookup: their ebids, freshness, parameters; actions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cmiot_simulator::{Account, Answer, Config, Gate, Operation, Rule, Simulator};
use tokio::task::JoinSet;

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, GatewayClient, MSISDN, Response, Setup, carrier, say, scripted,
    within,
};

const OTHERS: [(&str, Operation, &str); 3] = [
    ("gprsusedinfosingle", Operation::DataUsed, "0001000000002"),
    ("onandoffrealsingle", Operation::Power, "0001000000003"),
    ("smsstatusreset", Operation::SmsReset, "0001000000004"),
];

/// A carrier with an ebid per operation, and a setup that has all of them and whose client may use all of them.
async fn issued() -> (Simulator, Setup) {
    let account = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD);
    let account = OTHERS.iter().fold(account, |account, (_, one, ebid)| account.with_ebid(*one, *ebid));
    let carrier = Simulator::start_local(Config::new([account])).await.unwrap();
    let setup = OTHERS.iter().fold(Setup::with_carrier(&carrier), |setup, (name, _, ebid)| {
        setup.set(&format!("account.0.ebids.{name}"), *ebid)
    });
    let all: Vec<&str> = OTHERS.iter().map(|(name, ..)| *name).chain(["userstatusrealsingle"]).collect();
    (carrier, setup.set("client.0.operations", all))
}

async fn request(client: &GatewayClient, name: &str, ebid: &str) -> Response {
    let query = client.sign(&MSISDN).with("ebid", ebid);
    client.get_target(&format!("/v2/{name}?{}", query.text()), "").await
}

#[tokio::test]
async fn each_operation_is_asked_with_its_own_ebid_and_kept_apart() {
    let (carrier, setup) = issued().await;
    let proxy = setup.start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    for (name, operation, ebid) in OTHERS {
        let response = request(&proxy, name, ebid).await;
        assert_eq!(response.code(), "0", "{name}: {response:?}");
        assert_eq!(carrier.count_operation(operation), 1, "{name}");
    }
    assert_eq!(
        request(&proxy, "onandoffrealsingle", "0001000000003").await.json()["result"][0]["status"],
        "1"
    );
    assert!(request(&proxy, "onandoffrealsingle", "0001000000003").await.cache().starts_with("hit"));
    // The ebid of another operation is refused.
    request(&proxy, "onandoffrealsingle", EBID).await.assert_refusal_for("3", "ebid");
}

#[tokio::test]
async fn what_nobody_has_an_ebid_for_is_no_path() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).start().await;
    for name in ["gprsrealsingle", "nonsense"] {
        request(&proxy, name, EBID).await.assert_refusal("10006");
    }
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn an_action_is_sent_each_time_shared_with_nobody_and_kept_nowhere() {
    let (carrier, setup) = issued().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = setup.start().await;
    let mut requests = JoinSet::new();
    for _ in 0..3 {
        let client = (*proxy).clone();
        requests.spawn(async move { request(&client, "smsstatusreset", "0001000000004").await });
    }
    carrier.wait_for_calls(3).await;
    gate.open();
    for response in within("the responses", requests.join_all()).await {
        assert_eq!((response.code().as_str(), response.cache()), ("0", "fwd=bypass"));
    }
    assert_eq!(carrier.count(), 3);
}

#[tokio::test]
async fn an_action_needs_its_name_among_the_clients_operations() {
    let (carrier, setup) = issued().await;
    for (operations, reached) in [(None, 0), (Some("onandoffrealsingle"), 0), (Some("smsstatusreset"), 1)] {
        let setup = setup.clone();
        let setup = match operations {
            Some(operation) => setup.set("client.0.operations", vec![operation]),
            None => setup.unset("client.0.operations"),
        };
        let proxy = setup.start().await;
        let response = request(&proxy, "smsstatusreset", "0001000000004").await;
        if reached == 0 {
            response.assert_refusal_for("3", "operation");
        }
        assert_eq!(carrier.count_operation(Operation::SmsReset), reached, "{operations:?}");
        // Without a list the client may use every lookup.
        let lookup = request(&proxy, "onandoffrealsingle", "0001000000003").await;
        assert_eq!(lookup.code() == "0", operations != Some("smsstatusreset"), "{operations:?}");
    }
}

#[tokio::test]
async fn an_action_is_never_open_to_an_accounts_own_credentials() {
    let (carrier, setup) = issued().await;
    for setup in [setup.clone().without("client"), setup.set("account.0.carrier_credentials", true)] {
        let proxy = setup.start().await;
        let account = proxy.gateway.named(ACCOUNT_APPID, ACCOUNT_PASSWORD);
        proxy.get(&account.sign(&MSISDN)).await.assert_normal();
        let query = account.sign(&MSISDN).with("ebid", "0001000000004");
        let target = format!("/v2/smsstatusreset?{}", query.text());
        proxy.get_target(&target, "").await.assert_refusal_for("3", "operation");
    }
    assert_eq!(carrier.count_operation(Operation::SmsReset), 0);
}

#[tokio::test]
async fn an_action_is_done_once_a_transid_whatever_its_clients_mode() {
    let (carrier, setup) = issued().await;
    for mode in ["refuse", "same-answer", "observe"] {
        let proxy = setup.clone().set("client.0.replay", mode).start().await;
        let done = carrier.count();
        let query = proxy.sign(&MSISDN).with("ebid", "0001000000004");
        let target = format!("/v2/smsstatusreset?{}", query.text());
        assert_eq!(proxy.get_target(&target, "").await.code(), "0", "{mode}");
        for _ in 0..2 {
            proxy.get_target(&target, "").await.assert_refusal_for("7", "transid");
        }
        assert_eq!(carrier.count(), done + 1, "{mode}");
    }
    // Without a window or a stamp, replays cannot be refused: such a client may use no action.
    let free = setup
        .set("client.0.replay", "observe")
        .set("client.0.clock_skew", "any")
        .set("client.0.format", "lenient")
        .start()
        .await;
    let done = carrier.count();
    for transid in ["GW000120161121001".to_owned(), free.gateway.transid()] {
        let query = free.gateway.sign_transid(&MSISDN, &transid).with("ebid", "0001000000004");
        free.get_target(&format!("/v2/smsstatusreset?{}", query.text()), "")
            .await
            .assert_refusal_for("3", "operation");
    }
    assert_eq!(carrier.count(), done);
}

#[tokio::test]
async fn an_action_is_never_sent_twice() {
    let (carrier, setup) = issued().await;
    for failure in ["code=73", "close", "reset", "code=7"] {
        let proxy = setup.start().await;
        carrier.set_rules([Rule::parse(failure).unwrap()]);
        let calls = carrier.count();
        assert_ne!(request(&proxy, "smsstatusreset", "0001000000004").await.code(), "0");
        assert_eq!(carrier.count(), calls + 1, "{failure}");
    }
}

#[tokio::test]
async fn yesterdays_figures_serve_until_nine_in_the_morning() {
    let (carrier, setup) = issued().await;
    let proxy = setup.start_clocked().await; // at noon
    let used = async || request(&proxy, "gprsusedinfosingle", "0001000000002").await;
    assert_eq!(used().await.cache(), "fwd=uri-miss; stored");
    proxy.clock.advance(Duration::from_secs(21 * 3_600 - 1));
    assert_eq!(used().await.cache(), "hit; ttl=1");
    proxy.clock.advance(Duration::from_secs(1));
    assert_eq!(used().await.cache(), "fwd=stale; stored");
    assert_eq!(carrier.count(), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn a_row_of_configuration_is_an_operation() {
    let carrier = carrier().await;
    let row = "name = \"balancerealsingle\"\npath = \"/v2/balancerealsingle\"\nfresh = \"5m\"";
    let proxy = Setup::with_carrier(&carrier)
        .add("operation", row)
        .set("account.0.ebids.balancerealsingle", EBID)
        .start_clocked()
        .await;
    assert_eq!(request(&proxy, "balancerealsingle", EBID).await.json()["result"][0]["balance"], "12.50");
    proxy.clock.advance(Duration::from_secs(299));
    assert_eq!(request(&proxy, "balancerealsingle", EBID).await.cache(), "hit; ttl=1");
    proxy.stop().await;
}

#[tokio::test]
async fn declared_parameters_are_sent_and_part_of_the_key_and_others_are_refused() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&asked);
    let url = scripted(move |head, _, _, stream| {
        let sent = head.split("&msisdn=14765004176").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let body = format!(r#"{{"status":"0","message":"","result":[{{"sms":"sent:{sent}"}}]}}"#);
        calls.lock().unwrap().push(sent);
        async move { say(stream, &body).await }
    })
    .await;
    let setup = Setup::calling(&url)
        .set("account.0.ebids.smsusedbydate", "40")
        .set("client.0.operations", vec!["smsusedbydate", "userstatusrealsingle"])
        .set("client.0.replay", "same-answer")
        .add("operation", "name = \"smsusedbydate\"\nverdict = \"sms\"\nfresh = \"5m\"\nparameters = [\"query_date\", \"kind\"]");
    let mut proxy = setup.start().await;
    let query = |more: &str| {
        let query = proxy.sign(&MSISDN).with("ebid", "40");
        format!("/v2/smsusedbydate?{}{more}", query.text())
    };
    for (more, sent) in [
        ("&query_date=20260101", "&query_date=20260101"),
        ("&query_date=20260102", "&query_date=20260102"),
        ("&kind=2&query_date=20260102", "&query_date=20260102&kind=2"),
        ("&query_date=", ""),
    ] {
        for cache in ["fwd=uri-miss; stored", "hit"] {
            let response = proxy.get_target(&query(more), "").await;
            assert!(response.cache().starts_with(cache), "{more}: {response:?}");
            assert_eq!(response.json()["result"][0]["sms"], format!("sent:{sent}"));
        }
    }
    assert_eq!(asked.lock().unwrap().len(), 4);
    // The parameters of a repeated request must be the same.
    let first = query("&query_date=20260101");
    assert_eq!(proxy.get_target(&first, "").await.code(), "0");
    assert_eq!(proxy.get_target(&first, "").await.code(), "0");
    proxy.get_target(&first.replace("20260101", "20260102"), "").await.assert_refusal("7");

    for (more, why) in [
        ("&query_data=20260101", "parameter query_data is not declared"),
        ("&%1b%22=1", "parameter ?? is not declared"),
        ("&query_date=2026%2001", "query_date is not"),
        ("&query_date=1&query_date=2", "query_date given twice"),
    ] {
        proxy.get_target(&query(more), "").await.assert_refusal_for("10", why);
    }
    // A built-in operation ignores unknown parameters.
    let status = format!("{}?{}&query_data=1", crate::support::STATUS_PATH, proxy.sign(&MSISDN).text());
    assert_eq!(proxy.get_target(&status, "").await.code(), "0");

    proxy.restart().await;
    let query = proxy.sign(&MSISDN).with("ebid", "40");
    let after =
        proxy.get_target(&format!("/v2/smsusedbydate?{}&query_date=20260102", query.text()), "").await;
    assert!(after.cache().starts_with("hit"), "{after:?}");
    assert_eq!(after.json()["result"][0]["sms"], "sent:&query_date=20260102");
}

#[tokio::test]
async fn the_charset_that_the_carrier_named_is_relayed_through_memory_and_file() {
    let carrier = carrier().await;
    let gbk = b"{\"status\":\"0\",\"message\":\"\xd5\xfd\xc8\xb7\",\"result\":[{\"STATUS\":\"00\"}]}";
    for (named, relayed) in
        [("application/json;charset=GBK", "application/json;charset=GBK"), ("text/plain", "application/json")]
    {
        carrier.set_rules([Rule::any().then(Answer::Body {
            http_status: 200,
            content_type: named.to_owned(),
            bytes: gbk.to_vec().into(),
        })]);
        let mut proxy = Setup::with_carrier(&carrier).start().await;
        for cache in ["fwd", "hit"] {
            let response = proxy.look_up(&MSISDN).await;
            assert_eq!((&response.body[..], response.header("content-type")), (&gbk[..], Some(relayed)));
            assert!(response.cache().starts_with(cache));
        }
        proxy.restart().await;
        let response = proxy.look_up(&MSISDN).await;
        assert!(response.cache().starts_with("hit"));
        assert_eq!(response.header("content-type"), Some(relayed));
    }
}
