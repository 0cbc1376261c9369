//! The READMEs in both languages: the configuration is valid, the curl line gets a response, the queries run.

use crate::support::{
    EBID, GATEWAY_APPID, GATEWAY_PASSWORD, ICCID, IMSI, MSISDN, NORMAL, Proxy, carrier, run, write_config,
    write_secret,
};

const READMES: [&str; 2] = [include_str!("../README.md"), include_str!("../README.zh-CN.md")];

/// The fenced blocks of this language.
fn blocks(readme: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = readme.split(&fence).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn the_auditors_queries_run_as_printed() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for card in [MSISDN, MSISDN, ICCID, IMSI] {
        proxy.look_up(&card).await.assert_normal();
    }
    proxy.get(&proxy.sign(&MSISDN).with("token", "x")).await.assert_refusal("7");
    let audit = proxy.audit_file();
    let connection =
        rusqlite::Connection::open_with_flags(audit, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    for readme in READMES {
        let queries = blocks(readme, "sql");
        assert_eq!(queries.len(), 3);
        let rows: Vec<Vec<Vec<rusqlite::types::Value>>> = queries
            .iter()
            .map(|query| {
                let mut query = connection.prepare(query).unwrap();
                let columns = query.column_count();
                let rows = query.query_map([], |row| (0..columns).map(|n| row.get(n)).collect());
                rows.unwrap().map(Result::unwrap).collect()
            })
            .collect();
        let text = |text: &str| rusqlite::types::Value::Text(text.to_owned());
        let number = rusqlite::types::Value::Integer;
        // The card's three lookups (one of them forged), newest first.
        assert_eq!(rows[0].len(), 3);
        assert_eq!(rows[0][1][1..5], [text(GATEWAY_APPID), text("hit"), text("00"), text("normal")]);
        // One day (two around midnight): five lookups, one of them forged, and three calls.
        let sum = |column: usize| -> i64 {
            let numbers = rows[1].iter().map(|row| match &row[column] {
                rusqlite::types::Value::Integer(number) => *number,
                other => panic!("{other:?}"),
            });
            numbers.sum()
        };
        assert_eq!((sum(1), sum(2)), (5, 3));
        // One kind of refusal.
        assert_eq!(rows[2].len(), 1);
        assert_eq!(
            rows[2][0][..5],
            [text(GATEWAY_APPID), text("127.0.0.1"), text("token"), text("7"), number(1)]
        );
    }
}

#[tokio::test]
async fn the_configuration_counts_in_both_languages() {
    let mut printed = Vec::new();
    for readme in READMES {
        let configurations = blocks(readme, "toml");
        let [configuration] = &configurations[..] else { panic!("{configurations:?}") };
        let folder = tempfile::tempdir().unwrap();
        write_config(&folder.path().join("cmiot-proxy.toml"), configuration);
        write_secret(&folder.path().join("fleet.password"), "the-carriers\n");
        write_secret(&folder.path().join("gw0001.password"), "the-gateways\n");
        let checked = run(folder.path(), &["check", "--config", "cmiot-proxy.toml"], &[]).await.success();
        assert_eq!(checked.err, "1 account, 1 client, 1 group: ok\n", "no warning");
        printed.push(checked.out);
    }
    assert_eq!(printed[0], printed[1]);
}

#[tokio::test]
async fn the_gateways_line_is_answered_as_shown() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    std::fs::write(proxy.data().join("gw0001.password"), GATEWAY_PASSWORD).unwrap();
    for readme in READMES {
        let line = blocks(readme, "sh").into_iter().find(|block| block.contains("cmiot-proxy sign")).unwrap();
        let (_, line) = line.split_once("cmiot-proxy ").unwrap();
        let (line, _) = line.split_once(")\"").unwrap();
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "\\").collect();
        for said in [GATEWAY_APPID, EBID, MSISDN.number, "http://10.20.0.5:8080"] {
            assert!(words.contains(&said), "{said} is not in {words:?}");
        }
        let signed = run(&proxy.data(), &words, &[]).await.success();
        let target = signed.out.trim_end().strip_prefix("http://10.20.0.5:8080").unwrap();
        proxy.get_target(target, "").await.assert_normal();

        let shown = blocks(readme, "http").concat();
        assert!(shown.trim_end().ends_with(NORMAL), "{shown}");
        let hit = proxy.look_up(&MSISDN).await;
        let names = shown.lines().filter_map(|line| Some(line.split_once(": ")?.0));
        for name in names.filter(|name| !name.starts_with('{')) {
            assert!(hit.header(name).is_some(), "{name}: {:?}", hit.headers);
        }
    }
}
