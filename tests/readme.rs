//! What the READMEs print runs as printed, and both say the same.

use std::process::Command;

use crate::support::{ICCID, MSISDN, Proxy, carrier};

const ENGLISH: &str = include_str!("../README.md");
const CHINESE: &str = include_str!("../README.zh-CN.md");

/// The code blocks of one language, in order.
fn blocks<'a>(readme: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    readme.split(&fence).skip(1).map(|rest| rest.split("```").next().expect("a closed block")).collect()
}

/// Runs a statement in the stock shell, read-only, as the README tells auditors to.
fn sqlite3(file: &std::path::Path, statement: &str) -> Vec<String> {
    let out = Command::new("sqlite3").arg("-readonly").arg(file).arg(statement).output().expect("Debian's sqlite3");
    assert!(out.status.success(), "{statement}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_auditors_queries_run_as_printed_on_a_live_database() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    proxy.ask(&MSISDN).await.is_normal();
    proxy.ask(&MSISDN).await.is_normal();
    proxy.ask(&ICCID).await.is_normal();
    let captured = proxy.sign(&MSISDN);
    proxy.get(&captured).await.is_normal();
    proxy.get(&captured).await.is_refusal("7");

    let queries = blocks(ENGLISH, "sql");
    assert_eq!(queries.len(), 3);
    let segment = std::fs::read_dir(proxy.data())
        .expect("the databases' folder")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("audit-") && name.ends_with(".db")
        })
        .expect("a segment");

    let card = sqlite3(&segment, queries[0]);
    assert_eq!(card.len(), 4, "three answers and a refusal: {card:#?}");
    assert!(card[0].contains("|GW0001|refused|"), "{card:#?}");
    assert!(card[3].contains("|GW0001|miss|00|normal|"), "{card:#?}");
    let days = sqlite3(&segment, queries[1]);
    let [day] = days.as_slice() else { panic!("one day: {days:#?}") };
    assert!(day.ends_with("|5|2|40.0"), "five authenticated look-ups, two calls, two hits: {day}");
    let refused = sqlite3(&segment, queries[2]);
    let [refused] = refused.as_slice() else { panic!("one refusal: {refused:#?}") };
    assert!(refused.starts_with("GW0001|127.0.0.1|transid-reused|7|1|"), "{refused}");
}

#[tokio::test]
async fn the_configuration_is_a_whole_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (readme, name) in [(ENGLISH, "en"), (CHINESE, "zh")] {
        let [configuration] = blocks(readme, "toml").try_into().expect("one configuration");
        let file = folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, configuration).unwrap();
        for password in ["fleet.password", "gw0001.password"] {
            std::fs::write(folder.path().join(password), "secret\n").unwrap();
        }
        let checked = Command::new(env!("CARGO_BIN_EXE_cmiot-proxy"))
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .expect("the executable that was built along with the tests");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        assert_eq!(String::from_utf8_lossy(&checked.stderr), "", "nothing to warn about");
    }
}

#[test]
fn both_languages_show_the_same_commands_and_queries() {
    assert_eq!(blocks(ENGLISH, "sql"), blocks(CHINESE, "sql"));
    assert_eq!(blocks(ENGLISH, "http"), blocks(CHINESE, "http"));
    let bare = |readme, language| -> Vec<String> {
        let without_comment = |line: &str| line.split(" #").next().unwrap_or_default().trim_end().to_owned();
        blocks(readme, language).iter().flat_map(|block| block.lines()).map(without_comment).collect()
    };
    for language in ["sh", "toml"] {
        assert_eq!(bare(ENGLISH, language), bare(CHINESE, language), "{language}");
    }
    assert!(ENGLISH.contains("(README.zh-CN.md)") && CHINESE.contains("(README.md)"));
}
