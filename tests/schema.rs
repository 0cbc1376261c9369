//! `cmiot-proxy check --schema` and `--keys`: the schema accepts what the proxy accepts, and the page is up to date.

use std::path::Path;

use jsonschema::Validator;
use serde_json::Value;

use crate::support::{Setup, run, write_config, write_secret};

const PAGE: &str = include_str!("../docs/configuration.md");

/// The output of `check` with one option.
async fn printed(option: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["check", option], &[]).await.success().out
}

async fn schema() -> Validator {
    let schema: Value = serde_json::from_str(&printed("--schema").await).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    jsonschema::draft7::meta::validate(&schema).unwrap();
    jsonschema::draft7::new(&schema).unwrap()
}

/// The problems of a configuration in TOML.
fn problems(schema: &Validator, written: &str) -> Vec<String> {
    let table: toml::Table = written.parse().unwrap_or_else(|e| panic!("{e}: {written}"));
    let json = serde_json::to_value(table).unwrap();
    schema.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|one| one == extension));
    files.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

#[tokio::test]
async fn the_page_of_all_keys_is_what_the_program_prints() {
    assert!(
        printed("--keys").await == PAGE,
        "docs/configuration.md is out of date: cargo run -- check --keys > docs/configuration.md"
    );
}

#[tokio::test]
async fn every_configuration_of_the_documents_fits_the_schema() {
    let schema = schema().await;
    let mut pages = [files(".", "md"), files("docs", "md")].concat();
    pages.retain(|(page, _)| !page.ends_with("firmware.md")); // a Cargo.toml
    let blocks = pages.iter().flat_map(|(page, text)| {
        text.split("```toml\n").skip(1).map(move |part| (page, part.split("```").next().unwrap().to_owned()))
    });
    let blocks: Vec<_> = blocks.collect();
    for readme in ["README.md", "README.zh-CN.md"] {
        assert!(blocks.iter().any(|(page, text)| page.ends_with(readme) && text.contains("[[account]]")));
    }
    for (page, block) in blocks {
        assert_eq!(problems(&schema, &block), [] as [String; 0], "{page}: {block}");
    }
    for (path, text) in files("packaging", "toml") {
        assert_eq!(problems(&schema, &text), [] as [String; 0], "{path}");
    }
}

#[tokio::test]
async fn the_printed_configuration_fits_the_schema() {
    let schema = schema().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("derive.key"), &"k".repeat(32));
    write_secret(&folder.path().join("viewer.token"), "the-token-of-a-viewer");
    let viewer = "name = 'viewer'\nrole = 'view'\ntoken_file = 'viewer.token'".parse().unwrap();
    let setup = Setup::calling("http://127.0.0.1:1")
        .set("gateway.clock_skew", "1h 30m")
        .set("gateway.peers", vec!["10.0.0.0/8", "::1"])
        .set("admin.listen", "unix:/run/admin.sock")
        .set("freshness.normal", "30s")
        .set("account.0.calls_per_day", 100_000)
        .set("account.0.ebids.smsstatusreset", "0001000000010")
        .set("client.0.rate", 5)
        .set("client.0.replay", "same-answer")
        .set("client.0.cards", vec!["1064"])
        .add(
            "client",
            "group='fleet'\nappid='GW2'\npassword='of-another-gateway'\nreplay='observe'\nclock_skew='any'",
        )
        .add(
            "derive",
            "group='fleet'\nappid_prefix='GW9'\nkey_file='derive.key'\nepoch=0\npermissions={rate=1}",
        )
        .add("operation", "name='x1'\nverdict='used'\nfresh='5m'\nparameters=['query_date']")
        .push("admin.access", viewer);
    assert_eq!(problems(&schema, &setup.text()), [] as [String; 0]);
    write_config(&folder.path().join("c.toml"), &setup.text());
    let printed = run(folder.path(), &["check", "--config", "c.toml"], &[]).await.success().out;
    assert_eq!(problems(&schema, &printed), [] as [String; 0], "{printed}");
}

#[tokio::test]
async fn a_wrong_key_type_or_value_is_refused_by_both() {
    let schema = schema().await;
    let good = Setup::calling("http://127.0.0.1:1");
    for wrong in [
        good.clone().set("gateway.dedline", "20s"),
        good.clone().set("cash.memory_entries", 5),
        good.clone().set("gateway.deadline", 20),
        good.clone().set("gateway.deadline", "20"),
        good.clone().set("gateway.deadline", "soon"),
        good.clone().set("gateway.deadline", "0s"),
        good.clone().set("gateway.listen", "8080"),
        good.clone().set("gateway.max_streams", 0),
        good.clone().set("gateway.max_streams", "many"),
        good.clone().set("gateway.peers", vec!["anywhere"]),
        good.clone().set("gateway.proxy_protocol", "yes"),
        good.clone().set("carrier.node", 100),
        good.clone().set("carrier.max_body", "64kb"),
        good.clone().set("carrier.base_url", "api.iot.10086.cn"),
        good.clone().set("carrier.tls.min_version", "1.1"),
        good.clone().set("cache.ttl_jitter_percent", 51),
        good.clone().set("freshness.normal", 60),
        good.clone().set("freshness.normal.frsh", "60s"),
        good.clone().set("freshness.norml", "60s"),
        good.clone().set("audit.durability", "none"),
        good.clone().set("account.0.appid", "no-appid"),
        good.clone().unset("account.0.ebid"),
        good.clone().set("account.0.api", "v5"),
        good.clone().set("account.0.api", "v6"),
        good.clone().unset("account.0.ebid").set("account.0.api", "v5").set("account.0.method", "put"),
        good.clone().set("account.0.calls_per_second", 0),
        good.clone().set("client.0.replay", "never"),
        good.clone().set("client.0.rate", 0),
        good.clone().set("client.0.cards", toml::Value::Array(Vec::new())),
        good.clone().set("client.0.cards", vec![""]),
        good.clone().set("admin.token", "a-token-itself"),
    ] {
        let text = wrong.text();
        assert_ne!(problems(&schema, &text), [] as [String; 0], "{text}");
        let folder = tempfile::tempdir().unwrap();
        write_config(&folder.path().join("c.toml"), &text);
        let checked = run(folder.path(), &["check", "--config", "c.toml"], &[]).await;
        assert_eq!(checked.code, Some(1), "{text}");
    }
    assert_eq!(problems(&schema, &good.text()), [] as [String; 0]);
}
