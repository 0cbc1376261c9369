//! `lookup --why`: the reasons why a card is stopped, over an account of API v5.

use cmiot_simulator::{Account, Config, Operation, Rule, Simulator, v5};
use rusqlite::Connection;

use super::{APPID, PASSWORD, account, carrier, setup};
use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, ICCID, MSISDN, Output, Proxy, Setup, eventually, run, write_secret,
};

const QUERY: Operation = Operation::V5(v5::Operation::StopReason);
const CHINESE: &[(&str, &str)] = &[("LC_ALL", "zh_CN.UTF-8")];

/// `lookup CARD --why` with more arguments.
async fn why(proxy: &Proxy, card: &str, more: &[&str], environment: &[(&str, &str)]) -> Output {
    let config = proxy.config();
    let config = config.to_str().unwrap();
    let arguments = [&["lookup", card, "--why", "--config", config], more].concat();
    run(&proxy.data(), &arguments, environment).await
}

#[tokio::test]
async fn each_reason_is_named_in_the_language_of_the_environment() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).start().await;
    for (digits, position, english, chinese) in [
        ("200000000000", 1, "the narrow-band product has expired", "窄带商品到期停机"),
        ("020000000000", 2, "the card was moved to another device", "机卡分离停机"),
        ("000200000000", 4, "stopped by the management of M2M", "M2M管理停机"),
        ("000020000000", 5, "credit control", "信控停机"),
        ("000000002000", 9, "both ways, by the customer's own wish", "主动双向停机"),
        ("000000000200", 10, "outside its region", "区域限制停机"),
        ("000000000020", 11, "both ways, forced", "强制双向停机"),
    ] {
        carrier.set_rules([Rule::any().status(digits)]);
        let found = why(&proxy, MSISDN.number, &[], &[]).await.success().out;
        let expected = format!("stop reason {digits}, platform PB\ndigit {position} is 2: {english}\n");
        assert_eq!(found, expected);
        let found = why(&proxy, MSISDN.number, &[], CHINESE).await.success().out;
        assert_eq!(found, format!("停机原因 {digits}，平台 PB\n第 {position} 位为 2：{chinese}\n"));
    }
    assert_eq!(carrier.count_operation(QUERY), 14, "no reply is cached");
    assert_eq!(proxy.admin_post("/cache/stats", "", "").await.status, 405);
    let stats = proxy.admin("/cache/stats", "").await.json();
    assert_eq!((&stats["memory"], &stats["file"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn reasons_are_combined_and_unknown_digits_are_unknown() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).start().await;
    let ask = async |written: &str| {
        carrier.set_rules([Rule::any().status(written)]);
        why(&proxy, &format!("iccid:{}", ICCID.number), &[], &[]).await.success().out
    };
    assert_eq!(
        ask("000020002000").await,
        "stop reason 000020002000, platform PB\ndigit 5 is 2: credit control\ndigit 9 is 2: both ways, by the customer's own \
         wish\n"
    );
    assert_eq!(
        ask("000000000000").await,
        "stop reason 000000000000, platform PB\nthe carrier names no reason\n"
    );
    assert_eq!(
        ask("002010000000").await,
        "stop reason 002010000000, platform PB\ndigit 3 is 2: unknown\ndigit 5 is 1: unknown\n"
    );
    assert_eq!(ask("20").await, "stop reason 20, platform PB\nunknown: it does not have 12 digits\n");
    let text = format!(
        r#"{{"status":"0","message":"x","result":[{{"stopReason":"000000000020","platformType":"CT","shutdownReasonDesc":"{} 停机\u001b[2J"}}]}}"#,
        ICCID.number
    );
    carrier.set_rules([Rule::any().operation(QUERY).body(text)]);
    let found = why(&proxy, &format!("iccid:{}", ICCID.number), &[], &[]).await.success().out;
    assert!(found.starts_with("stop reason 000000000020, platform CT\ndigit 11 is 2: "), "{found}");
    assert!(found.contains("the carrier's text: ") && found.contains(" 停机\\u{1b}[2J"), "{found}");
    assert!(!found.contains(ICCID.number), "masked: {found}");
}

#[tokio::test]
async fn a_reply_without_a_reason_names_the_code_and_exits_with_1() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).set("breaker.failures", 100).start().await;
    for (code, said) in [("11011", "carrier code 11011"), ("77777", "carrier code 77777")] {
        carrier.set_rules([Rule::any().operation(QUERY).code(code)]);
        let output = why(&proxy, MSISDN.number, &[], &[]).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.out.starts_with(&format!("code {code}: {said}")), "{output:?}");
    }
    carrier.set_rules([Rule::any().operation(QUERY).status(" ")]);
    let output = why(&proxy, MSISDN.number, &[], &[]).await;
    assert_eq!((output.code, output.out.as_str()), (Some(1), "code 0: the reply has no stop reason\n"));
    carrier.set_rules([Rule::any().operation(QUERY).code("12022")]);
    let output = why(&proxy, MSISDN.number, &[], &[]).await;
    assert_eq!((output.code, output.out.as_str()), (Some(1), "code 73: carrier-credentials\n"));
}

#[tokio::test]
async fn the_call_and_its_caller_are_in_the_audit_and_the_budget() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).set("account.0.calls_per_day", 400).start().await;
    carrier.set_rules([Rule::any().status("000000000020")]);
    why(&proxy, MSISDN.number, &[], &[]).await.success();
    let audit = Connection::open(proxy.audit_file()).unwrap();
    // Both are committed with the rows that follow.
    let row: (String, String, String) = eventually("the call", async || {
        let sql = "SELECT card, account, code FROM carrier_call WHERE operation = 'sim-stop-reason'";
        audit.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).ok()
    })
    .await;
    assert!(row.0.ends_with(MSISDN.number), "{row:?}");
    assert_eq!(row.2, "0");
    let note: String = eventually("the note", async || {
        let sql = "SELECT detail FROM note JOIN name ON name.id = what WHERE text = 'stop-reason'";
        audit.query_row(sql, [], |row| row.get(0)).ok()
    })
    .await;
    let expected =
        format!("by=token from=127.0.0.1 group=fleet operation=sim-stop-reason msisdn={}", MSISDN.number);
    assert_eq!(note, expected);
    assert_eq!(
        proxy.metrics().await.value("cmiot_budget_remaining_today", [("account", &*row.1)]),
        Some(398.0)
    );
    assert!(!proxy.log().contains(MSISDN.number));
}

#[tokio::test]
async fn a_group_of_two_apis_asks_its_v5_account_and_a_group_of_v2_is_refused() {
    let older = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD);
    let config = Config { v5_accounts: vec![account()], ..Config::new([older]) };
    let carrier = Simulator::start_local(config).await.unwrap();
    let of_v2 = Setup::with_carrier(&carrier).start().await;
    let refused = "group \"fleet\" has no account of API v5";
    why(&of_v2, MSISDN.number, &[], &[]).await.failed(1, [refused]);
    let body = format!(r#"{{"msisdn":"{}"}}"#, MSISDN.number);
    assert_eq!(of_v2.admin_post("/cards/stop-reason", "", &body).await.status, 404);
    for wrong in ["{}", r#"{"msisdn":"x"}"#, r#"{"msisdn":"14765004176","operation":"x"}"#] {
        assert_eq!(of_v2.admin_post("/cards/stop-reason", "", wrong).await.status, 400, "{wrong}");
    }
    assert_eq!(
        of_v2.admin_post("/cards/stop-reason", "Authorization: Bearer x\r\n", &body).await.status,
        401
    );
    assert_eq!(of_v2.admin("/cards/stop-reason", "").await.status, 405);
    assert_eq!(carrier.count(), 0);
    let newer = format!(
        "name='newer'\ngroup='fleet'\napi='v5'\nappid='{APPID}'\npassword='{PASSWORD}'\nfallback='not-found'"
    );
    let mixed = Setup::with_carrier(&carrier).add("account", &newer).start().await;
    let found = why(&mixed, MSISDN.number, &[], &[]).await.success().out;
    assert!(found.contains("the carrier names no reason"), "{found}");
    assert_eq!(carrier.count_operation(QUERY), 1);
    why(&mixed, MSISDN.number, &["--client", "NOBODY"], &[]).await.failed(1, ["--client"]);
}

#[tokio::test]
async fn the_client_names_the_group_and_the_act_needs_the_role_operate() {
    let older = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD);
    let config = Config { v5_accounts: vec![account()], ..Config::new([older]) };
    let carrier = Simulator::start_local(config).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("token"), "the-token-of-view-only");
    let entry = "name = \"watcher\"\nrole = \"view\"\ntoken_file = \"token\"".parse().unwrap();
    let newer = format!("name='newer'\ngroup='newer'\napi='v5'\nappid='{APPID}'\npassword='{PASSWORD}'");
    let client = format!("appid='ZZ0001'\ngroup='newer'\nebid='{EBID}'\npassword='a-password-of-ZZ0001'");
    let setup = Setup::with_carrier(&carrier)
        .add("account", &newer)
        .add("client", &client)
        .push("admin.access", entry);
    let proxy = Proxy::start_in(folder, setup).await;
    let refused = "the running proxy: group \"fleet\" has no account of API v5";
    why(&proxy, MSISDN.number, &[], &[]).await.failed(1, [refused]);
    let found = why(&proxy, MSISDN.number, &["--client", "ZZ0001"], &[]).await.success().out;
    assert!(found.contains("the carrier names no reason"), "{found}");
    let token = proxy.config().with_file_name("token");
    let view = ["--client", "ZZ0001", "--token-file", token.to_str().unwrap()];
    let denied = why(&proxy, MSISDN.number, &view, &[]).await;
    assert!(denied.code == Some(1) && denied.err.contains("operate"), "{denied:?}");
    assert_eq!(carrier.count_operation(QUERY), 1);
    let config = proxy.config();
    let arguments = ["lookup", MSISDN.number, "--config", config.to_str().unwrap(), "--token-file", view[3]];
    run(&proxy.data(), &arguments, &[]).await.failed(1, ["it is for --why"]);
}
