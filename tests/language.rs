//! The language of text for people: `LC_ALL`, `LC_MESSAGES` and `LANG` of a command, `Accept-Language` of a request. JSON,
//! CSV and exit codes do not depend on it.

use std::path::{Path, PathBuf};

use cmiot_simulator::Rule;
use unicode_width::UnicodeWidthStr as _;

use crate::support::{
    EBID, ICCID, MSISDN, Machine, NORMAL, Output, Proxy, Setup, WEBHOOK_SECRET, carrier, run, write_config,
    write_secret,
};

const CHINESE: &[(&str, &str)] = &[("LC_ALL", "zh_CN.UTF-8")];

fn folder_of(proxy: &Proxy) -> PathBuf {
    proxy.config().parent().unwrap().to_owned()
}

/// Runs a command on the configuration of a proxy.
async fn with_config(folder: &Path, words: &[&str], environment: &[(&str, &str)]) -> Output {
    run(folder, &[words, &["--config", "cmiot-proxy.toml"]].concat(), environment).await
}

/// Whether a text has a Chinese character.
fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

#[tokio::test]
async fn the_first_variable_that_is_set_selects_the_language() {
    let setup = Setup::calling("http://127.0.0.1:1").set("gateway.deadline", "30s");
    let folder = tempfile::tempdir().unwrap();
    write_config(&folder.path().join("cmiot-proxy.toml"), &setup.text());
    let (english, chinese) = ("1 account, 1 client, 1 group: ok", "1 个账号，1 个客户端，1 个分组：正常");
    let mut printed = Vec::new();
    for (environment, summary, warning) in [
        (&[][..], english, "warning: [gateway] deadline = \"30s\": gateways give up"),
        (CHINESE, chinese, "警告：[gateway] deadline = \"30s\"：网关等待 25 秒后放弃"),
        (&[("LANG", "zh_CN.UTF-8")], chinese, "警告："),
        (&[("LC_ALL", ""), ("LC_MESSAGES", "zh_CN"), ("LANG", "en_US.UTF-8")], chinese, "警告："),
        (&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8")], english, "warning: "),
        (&[("LANG", "de_DE.UTF-8")], english, "warning: "),
    ] {
        let checked = with_config(folder.path(), &["check"], environment).await.success();
        assert_eq!(checked.err.lines().last(), Some(summary), "{environment:?}: {}", checked.err);
        assert!(checked.err.contains(warning), "{environment:?}: {}", checked.err);
        let prefix = if summary == english { "warning: " } else { "警告：" };
        let lines: Vec<_> = checked.err.lines().collect();
        assert!(lines[..lines.len() - 1].iter().all(|line| line.starts_with(prefix)), "{}", checked.err);
        printed.push(checked.out);
    }
    printed.dedup();
    assert_eq!(printed.len(), 1, "the configuration has no language");
}

#[tokio::test]
async fn the_problems_of_a_configuration_are_in_chinese_and_the_log_is_not() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier);
    let wrong = setup.clone().set("gateway.max_streams", 0).set("audit.audit_group", "no-such-group").text();
    let machine = Machine::with_variables([("LC_ALL", "zh_CN.UTF-8".into())]);
    let proxy = Proxy::start_on_machine(tempfile::tempdir().unwrap(), setup, machine).await;
    let folder = folder_of(&proxy);
    write_config(&proxy.config(), &wrong);
    let chinese = "cmiot-proxy: cmiot-proxy.toml：[gateway] max_streams：至少为 1\n\
                   cmiot-proxy.toml：[audit] audit_group = \"no-such-group\"：不在 /etc/group 中：请执行 `groupadd \
                   no-such-group`，或写组的编号\n2 个问题\n";
    let english = "cmiot-proxy: cmiot-proxy.toml: [gateway] max_streams: must be at least 1\n\
                   cmiot-proxy.toml: [audit] audit_group = \"no-such-group\": not in /etc/group: `groupadd \
                   no-such-group`, or write its number\n2 problems\n";
    for command in ["check", "serve", "status"] {
        for (environment, errors) in [(CHINESE, chinese), (&[], english)] {
            let refused = with_config(&folder, &[command], environment).await;
            assert_eq!((refused.code, refused.err.as_str()), (Some(1), errors), "{command}");
        }
    }
    let json = "Content-Type: application/json\r\n";
    let reload = proxy.admin_post("/config/reload", json, "").await;
    assert!(reload.text().contains("must be at least 1") && !is_chinese(reload.text()), "{}", reload.text());
    let ready = proxy.admin("/ready", "Accept-Language: zh\r\n").await;
    for said in ["max_streams：至少为 1；", "或写组的编号（共 2 个问题）；请改正"] {
        assert!(ready.text().contains(said), "{said}: {}", ready.text());
    }
    let log = proxy.log();
    assert!(log.contains("must be at least 1") && !is_chinese(&log), "{log}");
}

#[tokio::test]
async fn readiness_and_alarms_are_in_chinese_by_accept_language_and_by_the_environment() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    carrier.set_rules([Rule::any().code("4")]);
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "code 4");
    let chinese = "就绪\n告警：account：运营商以返回码 4 拒绝账号 fleet：请运行 `cmiot-proxy check --live`\n";
    let ready = proxy.admin("/ready", "Accept-Language: zh-CN,zh;q=0.9,en;q=0.8\r\n").await;
    assert_eq!((ready.status, ready.text()), (200, chinese));
    assert_eq!(ready.header("content-language"), Some("zh-CN"));
    assert_eq!(ready.header("vary"), Some("Accept, Accept-Language"));
    let english = proxy.admin("/ready", "Accept-Language: en-US,zh;q=0.5\r\n").await;
    assert!(english.text().starts_with("ready\nalarm: account: the carrier refuses"), "{}", english.text());
    assert_eq!(english.header("content-language"), Some("en"));
    let json = proxy.admin("/ready?format=json", "").await;
    let asked = proxy.admin("/ready?format=json", "Accept-Language: zh\r\n").await;
    assert_eq!(asked.text(), json.text());

    let folder = folder_of(&proxy);
    let health = with_config(&folder, &["health"], CHINESE).await.success();
    assert_eq!(health.out, chinese);
    let status = with_config(&folder, &["status"], CHINESE).await.success().out;
    assert!(status.starts_with(chinese) && status.contains("cache.db 中 0 条"), "{status}");
    assert!(status.lines().all(is_chinese), "{status}");
    let live = with_config(&folder, &["check", "--live"], CHINESE).await;
    assert_eq!(live.code, Some(1), "{live:?}");
    assert!(live.out.contains("返回码 4：运营商拒绝该账号"), "{}", live.out);
    assert!(live.err.ends_with("以上调用由运行中的代理发出\n"), "{}", live.err);
}

#[tokio::test]
async fn tables_and_results_are_in_chinese_and_json_is_not() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("secret"), WEBHOOK_SECRET);
    let webhook = "name='desk'\nurl='http://127.0.0.1:1/'\nsecret_file='secret'\nevents=['alarm']";
    let proxy = Proxy::start_in(folder, Setup::with_carrier(&carrier).add("webhook", webhook)).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let folder = folder_of(&proxy);
    for (words, first_column, said) in [
        (&["audit", "query", "--limit", "1"][..], "编号", "更早的：--before 2"),
        (&["audit", "query", "--wide"], "编号", "运营商事务编码"),
        (&["audit", "changes"], "卡号", "新状态"),
        (&["audit", "stats"], "起始", "1 次查询，1 次运营商调用，节省 0 次"),
        (&["client", "list"], "应用编码", "有效"),
        (&["webhook", "status"], "webhook", "已送达"),
    ] {
        let table = with_config(&folder, words, CHINESE).await.success().out;
        assert!(table.starts_with(first_column) && table.contains(said), "{words:?}: {table}");
        if !words.contains(&"--wide") {
            assert!(table.lines().all(|line| line.width() <= 100), "{words:?}: {table}");
        }
    }
    let show = with_config(&folder, &["audit", "show", "2"], CHINESE).await.success().out;
    assert!(show.contains("事务编码") && show.contains("运营商调用：1\n"), "{show}");
    let verified = with_config(&folder, &["audit", "verify"], CHINESE).await.success().out;
    assert!(verified.ends_with("行：哈希链完好\n") && verified.lines().all(is_chinese), "{verified}");
    std::fs::write(folder.join("cards.csv"), "14765004176\n").unwrap();
    let warm = with_config(&folder, &["cache", "warm", "--file", "cards.csv"], CHINESE).await.success().out;
    assert_eq!(warm, "1 张卡，此前已完成 0 张，失败 0 张：cards.result.csv\n");

    for words in [
        &["audit", "query", "--format", "json"][..],
        &["audit", "query", "--format", "csv"],
        &["audit", "changes", "--format", "json"],
        &["client", "list", "--format", "json"],
        &["client", "list", "--format", "csv"],
        &["cache", "purge", "--card", "14765004176", "--dry-run"],
    ] {
        let in_english = with_config(&folder, words, &[("LC_ALL", "C")]).await.success().out;
        let in_chinese = with_config(&folder, words, CHINESE).await.success().out;
        assert_eq!(in_chinese, in_english, "{words:?}");
    }
}

#[tokio::test]
async fn a_lookup_a_signature_and_the_demo_are_in_chinese() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let folder = folder_of(&proxy);
    let found = with_config(&folder, &["lookup", MSISDN.number], CHINESE).await.success().out;
    assert!(found.starts_with(NORMAL) && found.ends_with("STATUS 00 正常\n"), "{found}");
    carrier.set_rules([Rule::any().code("12")]);
    let refused = with_config(&folder, &["lookup", ICCID.number], CHINESE).await;
    assert!(refused.code == Some(1) && refused.out.ends_with("返回码 12\n"), "{refused:?}");
    let signed = ["sign", "--appid", "100001", "--ebid", EBID, "--msisdn", MSISDN.number];
    let unsigned = run(&folder, &signed, CHINESE).await;
    assert!(unsigned.code == Some(1) && unsigned.err.contains("没有密码"), "{unsigned:?}");
    let environment = [CHINESE, &[("CMIOT_PASSWORD", "example-password")]].concat();
    let signed = run(&folder, &signed, &environment).await.success().out;
    assert!(signed.starts_with("事务编码 100001") && signed.contains("\n查询参数 appid="), "{signed}");
    let demo = run(tempfile::tempdir().unwrap().path(), &["demo"], CHINESE).await.success().out;
    for said in ["模拟运营商 http://", "网关发出", "同时 100 次，同一张卡", "合计", "次没有找到运营商。"]
    {
        assert!(demo.contains(said), "{said}: {demo}");
    }
    assert!(!demo.contains("与承诺不符"), "{demo}");
}

#[tokio::test]
async fn exit_codes_and_the_log_do_not_depend_on_the_language() {
    let carrier = carrier().await;
    let machine = Machine::with_variables([("LC_ALL", "zh_CN.UTF-8".into())]);
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start_on_machine(folder, Setup::with_carrier(&carrier), machine).await;
    carrier.set_rules([Rule::any().code("4")]);
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "code 4");
    let folder = folder_of(&proxy);
    let code = async |words: &[&str], environment: &[(&str, &str)]| {
        with_config(&folder, words, environment).await.code
    };
    for words in [&["audit", "show", "4711"][..], &["audit", "verify", "--from", "2031-01"], &["health"]] {
        assert_eq!(code(words, CHINESE).await, code(words, &[]).await, "{words:?}");
    }
    let log = proxy.log();
    assert!(log.contains("the carrier refuses account fleet") && !is_chinese(&log), "{log}");
}
