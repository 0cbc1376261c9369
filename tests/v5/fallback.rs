//! Groups with accounts of both APIs: the one that has the card answers.

use cmiot_simulator::{Account, Config, Rule, Simulator, v5};

use super::{APPID, PASSWORD, account};
use crate::support::{ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, MSISDN, Setup, card_number};

/// A carrier with an account of each API.
async fn carrier() -> Simulator {
    let older = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD);
    let config = Config { v5_accounts: vec![account()], ..Config::new([older]) };
    Simulator::start_local(config).await.unwrap()
}

/// A group with both accounts, that of v2 first.
fn setup(carrier: &Simulator) -> Setup {
    let newer = format!(
        "name='newer'\ngroup='fleet'\napi='v5'\nappid='{APPID}'\npassword='{PASSWORD}'\nfallback='not-found'"
    );
    Setup::with_carrier(carrier).add("account", &newer).freshness("normal", "0.01s", "0s", "1h")
}

const STATUS_V5: cmiot_simulator::Operation = cmiot_simulator::Operation::V5(v5::Operation::SimStatus);

#[tokio::test]
async fn the_account_that_has_the_card_answers_and_is_called_first_next_time() {
    let carrier = carrier().await;
    let mut proxy = setup(&carrier).start().await;
    let older = |code: &str| Rule::any().appid(ACCOUNT_APPID).code(code);
    for (n, code) in (0..).zip(["11", "12", "24", "25"]) {
        carrier.set_rules([older(code), Rule::any().status("2")]);
        carrier.reset_counts();
        let response = proxy.look_up(&card_number(n)).await;
        response.assert_normal();
        assert_eq!(response.cache(), "fwd=uri-miss; stored; detail=translated");
        assert_eq!(carrier.v5().counts().queries, 1, "{code}");
        let calls = carrier.count_for(card_number(n).number.as_str());
        assert_eq!(calls, 2, "one call to each");
    }
    carrier.reset_counts();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let refreshed = proxy.get_with(&proxy.sign(&card_number(0)), "Cache-Control: max-age=0\r\n").await;
    refreshed.assert_normal();
    assert_eq!(carrier.count(), 1, "the one that answered is called first");
    proxy.restart().await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    carrier.reset_counts();
    proxy.get_with(&proxy.sign(&card_number(1)), "Cache-Control: max-age=0\r\n").await.assert_normal();
    assert_eq!(carrier.count_operation(STATUS_V5), 1);
    assert_eq!(carrier.count_operation(cmiot_simulator::Operation::Status), 0, "the file has it too");
}

#[tokio::test]
async fn a_card_state_that_v2_does_not_have_says_which_account_has_the_card() {
    let carrier = carrier().await;
    let proxy = setup(&carrier).set("cache.max_age_floor", "0s").start().await;
    carrier.set_rules([Rule::any().appid(ACCOUNT_APPID).code("12"), Rule::any().status("6")]);
    assert_eq!(proxy.look_up(&MSISDN).await.code(), "81");
    assert_eq!(carrier.count_for(MSISDN.number), 2);
    let again = proxy.get_with(&proxy.sign(&MSISDN), "Cache-Control: max-age=0\r\n").await;
    assert_eq!(again.code(), "81");
    assert_eq!(carrier.count_for(MSISDN.number), 3, "the one that has it is called first");
}

#[tokio::test]
async fn if_neither_has_the_card_the_first_refusal_is_relayed() {
    let carrier = carrier().await;
    let proxy = setup(&carrier).start().await;
    carrier.set_rules([Rule::any().appid(ACCOUNT_APPID).code("11"), Rule::any().code("12009")]);
    let response = proxy.look_up(&MSISDN).await;
    assert_eq!((response.code().as_str(), response.cache()), ("11", "fwd=uri-miss; stored; detail=negative"));
    proxy.look_up(&MSISDN).await;
    assert_eq!(carrier.count_for("14765004176"), 2, "it is stored");
}

#[tokio::test]
async fn a_failure_of_the_second_account_is_not_taken_for_a_card_that_is_not_there() {
    let carrier = carrier().await;
    let proxy = setup(&carrier).start().await;
    carrier.set_rules([Rule::any().appid(ACCOUNT_APPID).code("12"), Rule::any().code("19010")]);
    let response = proxy.look_up(&MSISDN).await;
    assert_eq!((response.code().as_str(), response.cache()), ("1", "fwd=uri-miss; detail=translated"));
    carrier.set_rules([Rule::any().appid(ACCOUNT_APPID).code("12")]);
    proxy.look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn other_codes_of_the_first_account_cost_no_second_call() {
    let carrier = carrier().await;
    let proxy = setup(&carrier).start().await;
    for (n, code) in (0..).zip(["9", "10", "103"]) {
        carrier.set_rules([Rule::any().appid(ACCOUNT_APPID).code(code)]);
        assert_eq!(proxy.look_up(&card_number(n)).await.code(), code);
    }
    assert_eq!(carrier.v5().counts().queries, 0);
}
