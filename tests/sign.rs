//! `cmiot-proxy sign`: known answers, formats, usage errors.

use serde_json::Value;

use crate::support::{EBID, GATEWAY_APPID, GATEWAY_PASSWORD, MSISDN, NORMAL, Output, Proxy, carrier, run};

/// The first of the signer's known answers: the example transid of the carrier page, with another password.
const VECTOR: [&str; 11] = [
    "sign",
    "--appid",
    "100001",
    "--ebid",
    "2300000000000001",
    "--msisdn",
    "14765004176",
    "--at",
    "2014-10-16T15:30:30+08:00",
    "--sequence",
    "80000001",
];
const PASSWORD: (&str, &str) = ("CMIOT_PASSWORD", "example-password");
const TRANSID: &str = "1000012014101615303080000001";
const TOKEN: &str = "599a332d6caf2c44b76f1b02d786d3889c44fbf778fef24a58772c8c63ca8819";

async fn sign(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    run(tempfile::tempdir().unwrap().path(), arguments, environment).await
}

fn query() -> String {
    format!("appid=100001&transid={TRANSID}&ebid=2300000000000001&token={TOKEN}&msisdn=14765004176")
}

#[tokio::test]
async fn a_known_answer_comes_out_in_every_format() {
    let in_format = async |more: &[&str]| sign(&[&VECTOR, more].concat(), &[PASSWORD]).await.success().out;
    let url = format!("https://api.iot.10086.cn/v2/userstatusrealsingle?{}", query());

    let text = in_format(&[]).await;
    for said in [TRANSID, TOKEN, &query()] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
    assert_eq!(in_format(&["--format", "query"]).await, format!("{}\n", query()));
    assert_eq!(in_format(&["--format", "url"]).await, format!("{url}\n"));
    assert_eq!(in_format(&["--format", "curl"]).await, format!("curl -sS '{url}'\n"));
    let json: Value = serde_json::from_str(&in_format(&["--format", "json"]).await).unwrap();
    for (key, value) in [
        ("appid", "100001"),
        ("transid", TRANSID),
        ("ebid", "2300000000000001"),
        ("token", TOKEN),
        ("msisdn", "14765004176"),
        ("url", &url),
    ] {
        assert_eq!(json[key], value);
    }
    let elsewhere = in_format(&["--format", "url", "--base-url", "http://127.0.0.1:8080/iot/"]).await;
    assert_eq!(elsewhere, format!("http://127.0.0.1:8080/iot/v2/userstatusrealsingle?{}\n", query()));
}

#[tokio::test]
async fn every_known_answer_of_the_signers_is_reproduced() {
    let rows: Vec<Vec<&str>> = include_str!("../signer/tests/vectors.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect())
        .collect();
    assert!(rows.len() >= 60);
    let folder = tempfile::tempdir().unwrap();
    for row in &rows {
        let [appid, password, stamp, sequence, ebid, kind, card, _, _, query] = row[..] else {
            panic!("{row:?}")
        };
        let at = format!(
            "{}-{}-{}T{}:{}:{}+08:00",
            &stamp[..4],
            &stamp[4..6],
            &stamp[6..8],
            &stamp[8..10],
            &stamp[10..12],
            &stamp[12..]
        );
        // By a file, since an environment variable cannot have every password.
        std::fs::write(folder.path().join("it"), format!("{password}\n")).unwrap();
        let kind = format!("--{kind}");
        let arguments = [
            "sign",
            "--appid",
            appid,
            "--ebid",
            ebid,
            &kind,
            card,
            "--at",
            &at,
            "--sequence",
            sequence,
            "--password-file",
            "it",
            "--format",
            "query",
        ];
        assert_eq!(run(folder.path(), &arguments, &[]).await.success().out, format!("{query}\n"));
    }
}

#[tokio::test]
async fn what_it_signs_now_is_answered_now() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let arguments =
        ["sign", "--appid", GATEWAY_APPID, "--ebid", EBID, "--msisdn", MSISDN.number, "--format", "query"];
    for _ in 0..3 {
        let signed = sign(&arguments, &[("CMIOT_PASSWORD", GATEWAY_PASSWORD)]).await.success();
        let target = format!("/v2/userstatusrealsingle?{}", signed.out.trim_end());
        assert_eq!(proxy.get_target(&target, "").await.text(), NORMAL);
    }
}

#[tokio::test]
async fn wrong_usage_exits_2_and_what_fails_exits_1() {
    let bare = ["sign", "--appid", "100001", "--ebid", EBID];
    sign(&bare, &[PASSWORD]).await.failed(2, ["--msisdn"]);
    sign(&[&bare[..], &["--msisdn", "1", "--imsi", "1"]].concat(), &[PASSWORD]).await.failed(2, ["--imsi"]);
    sign(&["sign", "--appid", "no appid", "--ebid", EBID, "--msisdn", "1"], &[PASSWORD])
        .await
        .failed(2, ["--appid"]);
    sign(&[&VECTOR[..], &["--format", "xml"]].concat(), &[PASSWORD]).await.failed(2, ["--format", "json"]);
    sign(&VECTOR, &[]).await.failed(1, ["--password-file", "CMIOT_PASSWORD"]);
    sign(&[&VECTOR[..], &["--password-file", "nosuch"]].concat(), &[]).await.failed(1, ["nosuch"]);
    let card = [&bare[..], &["--msisdn", "1476500417x"]].concat();
    sign(&card, &[PASSWORD]).await.failed(1, ["msisdn"]);
    let zero = [&bare[..], &["--msisdn", "1", "--sequence", "0"]].concat();
    sign(&zero, &[PASSWORD]).await.failed(1, ["sequence"]);
}
