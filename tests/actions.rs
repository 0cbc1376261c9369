//! Actions: the audit records the start of an action before the call, and the proxy sends each action once. After a crash
//! or a deadline the response names the audit row and has no Retry-After.

use cmiot_simulator::{Account, Config, Gate, Operation, Rule, Simulator};
use rusqlite::{Connection, OpenFlags};

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, MSISDN, Proxy, Query, Response, Setup, eventually,
};

const RESET: &str = "0001000000004";

/// A carrier with the reset action, and a setup whose client may request it.
async fn resets() -> (Simulator, Setup) {
    let account = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD).with_ebid(Operation::SmsReset, RESET);
    let carrier = Simulator::start_local(Config::new([account])).await.unwrap();
    let setup = Setup::with_carrier(&carrier)
        .set("account.0.ebids.smsstatusreset", RESET)
        .set("client.0.operations", vec!["userstatusrealsingle", "smsstatusreset"]);
    (carrier, setup)
}

fn sign(proxy: &Proxy) -> Query {
    proxy.sign(&MSISDN).with("ebid", RESET)
}

async fn act(proxy: &Proxy, query: &Query) -> Response {
    proxy.get_target(&format!("/v2/smsstatusreset?{}", query.text()), "").await
}

/// The number of the audit row with the start of an action, if there is one.
fn start_row(proxy: &Proxy, query: &Query) -> Option<i64> {
    let segment = Connection::open_with_flags(proxy.audit_file(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sql = "SELECT note.id FROM note JOIN name ON name.id = what
               WHERE text = 'begun' AND instr(detail, 'transid=' || ?1 || ' ') > 0";
    segment.query_row(sql, [query.transid()], |row| row.get(0)).ok()
}

/// Asserts a refusal that names the audit row and has no Retry-After.
#[track_caller]
fn assert_open(response: &Response, row: i64) {
    response.assert_refusal_for("99", &format!("action begun: audit row {row}\""));
    assert_eq!(response.header("retry-after"), None);
}

#[tokio::test]
async fn an_action_past_its_deadline_names_its_row_again_and_again() {
    let (carrier, setup) = resets().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    for mode in ["refuse", "same-answer", "observe"] {
        let setup = setup.clone().set("gateway.deadline", "200ms").set("client.0.replay", mode);
        let mut proxy = setup.start().await;
        let calls = carrier.count();
        let query = sign(&proxy);
        let response = act(&proxy, &query).await;
        let row = start_row(&proxy, &query).expect("the start, before the response");
        assert_open(&response, row);
        assert_open(&act(&proxy, &query).await, row);
        // The call continues and has its row; the record of the request has no result.
        gate.release(1);
        carrier.wait_until_idle().await;
        assert_open(&act(&proxy, &query).await, row);
        proxy.restart().await;
        for _ in 0..2 {
            assert_open(&act(&proxy, &query).await, row);
        }
        assert_eq!(carrier.count(), calls + 1, "{mode}");
        let reasons: Vec<_> = proxy.audit().into_iter().filter_map(|row| row.reason).collect();
        assert_eq!(reasons, ["action-begun"; 5]);
    }
}

#[tokio::test]
async fn an_action_under_way_at_a_crash_is_not_sent_again() {
    let (carrier, setup) = resets().await;
    carrier.set_rules([Rule::any().gate(&Gate::new())]);
    let setup = setup.set("audit.identifiers", "keyed");
    let mut proxy = setup.start().await;
    let query = sign(&proxy);
    let mut connection = proxy.connect().await;
    connection.send(format!("GET /v2/smsstatusreset?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text())).await;
    carrier.wait_for_calls(1).await;
    let row = start_row(&proxy, &query).expect("the start, before the call");
    proxy.kill9().await;
    for _ in 0..2 {
        proxy.start_again().await;
        for _ in 0..2 {
            assert_open(&act(&proxy, &query).await, row);
        }
        // The transid is used, whatever the new request is for.
        proxy.get(&query.clone().with("ebid", EBID)).await.assert_refusal_for("7", "transid used before");
        proxy.kill9().await;
    }
    assert_eq!(carrier.count(), 1);
    proxy.start_again().await;
}

#[tokio::test]
async fn an_action_whose_end_is_recorded_is_a_replay() {
    let (carrier, setup) = resets().await;
    let mut proxy = setup.start().await;
    // Success and refusal by the carrier both are a result, which invites no gateway to send the action again.
    for code in ["0", "73", "99", "20", "72"] {
        carrier.set_rules([Rule::any().code(code)]);
        let (query, calls) = (sign(&proxy), carrier.count());
        let response = act(&proxy, &query).await;
        assert_eq!((response.code().as_str(), response.header("retry-after")), (code, None));
        assert!(start_row(&proxy, &query).is_some());
        act(&proxy, &query).await.assert_refusal_for("7", "transid used before");
        proxy.restart().await;
        act(&proxy, &query).await.assert_refusal_for("7", "transid used before");
        assert_eq!(carrier.count(), calls + 1);
    }
}

#[tokio::test]
async fn an_action_that_may_have_reached_the_carrier_is_not_to_be_asked_again() {
    let (carrier, setup) = resets().await;
    let proxy = setup.start().await;
    for failure in ["close", "reset"] {
        carrier.set_rules([Rule::parse(failure).unwrap()]);
        let query = sign(&proxy);
        let response = act(&proxy, &query).await;
        assert_open(&response, start_row(&proxy, &query).unwrap());
    }
    // Without a connection the carrier cannot have received the action.
    carrier.stop().await;
    let response = act(&proxy, &sign(&proxy)).await;
    response.assert_refusal_for("73", "carrier call failed");
    assert!(response.header("retry-after").is_some());
}

#[tokio::test]
async fn an_action_whose_client_leaves_has_its_end_in_the_audit() {
    let (carrier, setup) = resets().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = setup.start().await;
    let query = sign(&proxy);
    let mut connection = proxy.connect().await;
    connection.send(format!("GET /v2/smsstatusreset?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text())).await;
    carrier.wait_for_calls(1).await;
    assert_open(&act(&proxy, &query).await, start_row(&proxy, &query).unwrap());
    connection.reset();
    gate.open();
    eventually("its record", || async {
        proxy.audit().into_iter().find(|row| row.outcome == "miss" && row.code == "0")
    })
    .await;
    act(&proxy, &query).await.assert_refusal_for("7", "transid used before");
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn an_action_is_not_sent_while_nothing_can_be_recorded() {
    let (carrier, setup) = resets().await;
    for policy in ["refuse", "answer"] {
        let setup = setup.clone().set("audit.on_failure", policy).set("audit.min_free", "1000000GiB");
        let proxy = setup.start().await;
        for _ in 0..3 {
            let query = sign(&proxy);
            act(&proxy, &query).await.assert_refusal_for("73", "audit unavailable");
            // Its transid is used, whether or not this refusal can be recorded.
            act(&proxy, &query).await.assert_refusal(if policy == "answer" { "7" } else { "73" });
        }
    }
    assert_eq!(carrier.count(), 0);
}
