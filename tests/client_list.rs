//! `cmiot-proxy client`: its edits of the client list apply in the running proxy.

use std::path::Path;

use crate::support::{
    MSISDN, Output, Proxy, Setup, carrier, command, eventually, run, within, write_config, write_secret,
};

#[tokio::test]
async fn clients_come_change_and_go_while_the_proxy_runs() {
    let carrier = carrier().await;
    for (name, text) in [("clients.csv", "# depot\nappid,group,password\n"), ("clients.toml", "# depot\n")] {
        let folder = tempfile::tempdir().unwrap();
        write_secret(&folder.path().join(name), text);
        write_secret(&folder.path().join("revoked"), "");
        let setup = Setup::with_carrier(&carrier)
            .set("gateway.clients_file", name)
            .set("gateway.revoked_file", "revoked");
        let proxy = Proxy::start_in(folder, setup).await;
        let folder = proxy.config().parent().unwrap().to_owned();
        let client = async |words: &[&str]| {
            let words = [&["client", words[0], "--config", "cmiot-proxy.toml"], &words[1..]].concat();
            let output = run(&folder, &words, &[]).await.success();
            let applied = output.err.contains("taken by the running proxy")
                && output.err.contains(&proxy.pid().to_string());
            assert!(applied || words[1] == "list", "{output:#?}");
            output.out.trim().to_owned()
        };
        let code_is = async |password: &str, code: &str| {
            let gateway = proxy.gateway.named("GW2", password);
            assert_eq!(proxy.get(&gateway.sign(&MSISDN)).await.code(), code, "at once");
        };

        let first = client(&["add", "GW2", "--group", "fleet", "--rate", "1000"]).await;
        code_is(&first, "0").await;
        let second = client(&["rotate", "GW2"]).await;
        code_is(&second, "0").await;
        code_is(&first, "0").await;
        client(&["rotate", "GW2", "--finish"]).await;
        code_is(&first, "7").await;
        code_is(&second, "0").await;
        let list = client(&["list"]).await;
        assert!(list.contains("GW2") && !list.contains(&second), "{list}");
        client(&["revoke", "GW2"]).await;
        code_is(&second, "7").await;
        assert!(std::fs::read_to_string(folder.join(name)).unwrap().contains("# depot"));

        write_secret(&folder.join("more.csv"), "appid,group,password,cards\nGW3,fleet,third,1476 1064\n");
        assert_eq!(client(&["import", "--from", "more.csv"]).await, "", "nothing on standard output");
        let again =
            run(&folder, &["client", "import", "--config", "cmiot-proxy.toml", "--from", "more.csv"], &[])
                .await;
        again.failed(1, ["GW3", "already"]);
        // An edit that makes the configuration invalid does not change the list.
        let before = std::fs::read_to_string(folder.join(name)).unwrap();
        let wrong = ["client", "add", "--config", "cmiot-proxy.toml", "GW4", "--group", "nobody"];
        run(&folder, &wrong, &[]).await.failed(1, ["nobody"]);
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), before);
        assert_eq!(
            std::fs::read_dir(&folder)
                .unwrap()
                .filter(|file| {
                    file.as_ref().unwrap().file_name().to_string_lossy().starts_with("clients")
                })
                .count(),
            1
        );
    }
}

/// A folder with a configuration and these lists, without a running proxy.
fn lists(clients: &str, revoked: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("clients.csv"), clients);
    write_secret(&folder.path().join("revoked"), revoked);
    write_config(
        &folder.path().join("cmiot-proxy.toml"),
        &with_lists(Setup::calling("http://127.0.0.1:9")).text(),
    );
    folder
}

fn with_lists(setup: Setup) -> Setup {
    setup.set("gateway.clients_file", "clients.csv").set("gateway.revoked_file", "revoked")
}

async fn client(folder: &Path, words: &[&str]) -> Output {
    run(folder, &[&["client", words[0], "--config", "cmiot-proxy.toml"], &words[1..]].concat(), &[]).await
}

fn text(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[tokio::test]
async fn without_a_proxy_an_edit_counts_at_the_next_start() {
    let folder = lists("appid,group,password\nGW1,fleet,one\n", "");
    for words in
        [&["add", "GW2", "--group", "fleet"][..], &["rotate", "GW2"], &["revoke", "GW1"], &["revoke", "GW1"]]
    {
        let done = client(folder.path(), words).await.success();
        assert!(done.err.contains("takes effect at the next start"), "{done:#?}");
        assert_eq!(
            done.out.lines().count(),
            usize::from(words[0] != "revoke"),
            "only the password: {done:#?}"
        );
    }
    assert_eq!(text(folder.path(), "revoked"), "GW1\n");
}

#[tokio::test]
async fn of_edits_at_once_none_is_lost() {
    let folder = lists("appid,group,password\nA,fleet,x\n", "");
    for edit in ["add", "revoke"] {
        let mut running = Vec::new();
        for n in 0..8 {
            let name = format!("N{n}");
            let mut one = command(folder.path());
            one.args(["client", edit, "--config", "cmiot-proxy.toml", &name]);
            if edit == "add" {
                one.args(["--group", "fleet"]);
            }
            running.push(
                one.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap(),
            );
        }
        for mut one in running {
            assert!(within("an edit", one.wait()).await.unwrap().success());
        }
    }
    assert_eq!(text(folder.path(), "clients.csv").lines().count(), 2 + 8);
    assert_eq!(text(folder.path(), "revoked").lines().count(), 8);
}

#[tokio::test]
async fn an_unknown_appid_is_not_revoked_and_one_that_stands_twice_is_not_imported() {
    let folder = lists("appid,group,password\nGW1,fleet,one\n", "");
    client(folder.path(), &["revoke", "GW9"]).await.failed(1, ["GW9", "no client has this appid"]);
    assert_eq!(text(folder.path(), "revoked"), "");
    write_secret(&folder.path().join("derive.key"), &"k".repeat(32));
    let derived = with_lists(Setup::calling("http://127.0.0.1:9"))
        .add("derive", "group = 'fleet'\nappid_prefix = 'GW9'\nkey_file = 'derive.key'\nepoch = 0");
    write_config(&folder.path().join("cmiot-proxy.toml"), &derived.text());
    client(folder.path(), &["revoke", "GW9"]).await.success();

    let before = text(folder.path(), "clients.csv");
    let csv = "# depot\nappid,group,password\nX1,fleet,aaaaaaaaaaaaaaaa\nX2,fleet,bbbbbbbbbbbbbbbb\nX1,fleet,cccccccccccccccc\n";
    write_secret(&folder.path().join("in.csv"), csv);
    let refused = client(folder.path(), &["import", "--from", "in.csv"]).await;
    refused.failed(1, ["in.csv:5", "X1", "line 3"]);
    let toml = "[[client]]\nappid = 'X1'\ngroup = 'fleet'\npassword = 'aaaaaaaaaaaaaaaa'\n";
    write_secret(&folder.path().join("in.toml"), &format!("{toml}{toml}"));
    client(folder.path(), &["import", "--from", "in.toml"]).await.failed(1, ["in.toml:6", "X1", "line 2"]);
    assert_eq!(text(folder.path(), "clients.csv"), before);
}

#[tokio::test]
async fn an_import_names_its_own_lines_and_reads_inline_tables() {
    let folder = lists("appid,group,password\nGW1,fleet,one\n", "");
    write_secret(&folder.path().join("in.csv"), "appid,group,password\n\nX1,nowhere,aaaaaaaaaaaaaaaa\n");
    let refused = client(folder.path(), &["import", "--from", "in.csv"]).await;
    refused.failed(1, ["in.csv:3: appid \"X1\"", "nowhere"]);
    write_secret(
        &folder.path().join("in.toml"),
        "client = [{appid='X2',group='fleet',password='aaaaaaaaaaaaaaaa'}]\n",
    );
    write_secret(&folder.path().join("IN.CSV"), "appid,group,password\nX3,fleet,aaaaaaaaaaaaaaaa\n");
    for (name, appid) in [("in.toml", "X2"), ("IN.CSV", "X3")] {
        let done = client(folder.path(), &["import", "--from", name]).await.success();
        assert_eq!(done.out, "");
        assert!(done.err.contains("1 clients added"), "{done:?}");
        assert!(text(folder.path(), "clients.csv").contains(&format!("{appid},fleet,")));
    }
}

#[tokio::test]
async fn edits_at_once_are_taken_by_the_proxy_and_one_on_another_folder_is_asked_too() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("clients.csv"), "appid,group,password\nGW1,fleet,one\n");
    write_secret(&folder.path().join("revoked"), "");
    write_secret(&folder.path().join("admin.secret"), "one-token-for-both-folders");
    let setup = with_lists(Setup::with_carrier(&carrier)).set("admin.token_file", "admin.secret");
    let proxy = Proxy::start_in(folder, setup.clone()).await;
    let folder = proxy.config().parent().unwrap().to_owned();
    let mut running = Vec::new();
    for n in 0..6 {
        let mut one = command(&folder);
        one.args(["client", "add", "--config", "cmiot-proxy.toml", &format!("N{n}"), "--group", "fleet"]);
        one.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        running.push(one.spawn().unwrap());
    }
    for mut one in running {
        assert_eq!(within("an edit", one.wait()).await.unwrap().code(), Some(0));
    }

    let moved = setup
        .set("store.dir", "elsewhere")
        .set("admin.listen", proxy.admin_address().to_string())
        .set("gateway.listen", proxy.address.to_string());
    write_config(&folder.join("cmiot-proxy.toml"), &moved.text());
    let revoked = client(&folder, &["revoke", "GW1"]).await.success();
    assert!(revoked.err.contains("taken by the running proxy"), "{revoked:?}");
    let gateway = proxy.gateway.named("GW1", "one");
    assert_eq!(proxy.get(&gateway.sign(&MSISDN)).await.code(), "7", "at once");
    // A listener that does not know the token: not known to be in effect.
    write_secret(&folder.join("admin.other"), "not-the-token-of-it");
    write_config(&folder.join("theirs.toml"), &moved.set("admin.token_file", "admin.other").text());
    let unknown = run(&folder, &["client", "revoke", "--config", "theirs.toml", "N1"], &[]).await;
    unknown.failed(3, ["no proxy runs on", "401"]);
}

#[tokio::test]
async fn an_edit_says_when_the_proxy_refuses_it_or_cannot_be_asked() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("clients.csv"), "appid,group,password\nGW1,fleet,one\n");
    write_secret(&folder.path().join("revoked"), "");
    let setup = with_lists(Setup::with_carrier(&carrier).unset("client.0.password"));
    // The configuration of the commands takes the password from their environment below.
    let setup = setup.set("client.0.password_file", "gw.password");
    write_secret(&folder.path().join("gw.password"), "the-gateways-side");
    let proxy = Proxy::start_in(folder, setup.clone()).await;
    let folder = proxy.config().parent().unwrap().to_owned();

    // The commands read another, valid configuration of the same store and lists.
    write_config(&folder.join("theirs.toml"), &setup.text());
    std::fs::remove_file(folder.join("gw.password")).unwrap();
    let own = setup.clone().unset("client.0.password_file").set("client.0.password_env", "GATEWAY_SECRET");
    write_config(&folder.join("theirs.toml"), &own.text());
    let words = ["client", "revoke", "--config", "theirs.toml", "GW1"];
    let refused = run(&folder, &words, &[("GATEWAY_SECRET", "the-gateways-side")]).await;
    refused.failed(1, ["the list is changed", "refuses its configuration", "gw.password"]);
    let ready = proxy.admin("/ready", "").await;
    assert_eq!(ready.status, 200);
    assert!(
        ready.text().contains("alarm: configuration: ") && ready.text().contains("gw.password"),
        "{}",
        ready.text()
    );

    // The proxy applies the repaired configuration without a signal.
    write_secret(&folder.join("gw.password"), "the-gateways-side");
    eventually("the alarm to end", async || {
        (proxy.admin("/ready", "").await.text() == "ready\n").then_some(())
    })
    .await;
    let gateway = proxy.gateway.named("GW1", "one");
    assert_eq!(proxy.get(&gateway.sign(&MSISDN)).await.code(), "7", "revoked");

    // With a wrong token the command cannot reach the admin listener.
    write_secret(&folder.join("other.token"), "not-the-token-of-it");
    let blind = own.set("admin.token_file", "other.token");
    write_config(&folder.join("theirs.toml"), &blind.text());
    let words = ["client", "add", "--config", "theirs.toml", "GW5", "--group", "fleet"];
    let unknown = run(&folder, &words, &[("GATEWAY_SECRET", "the-gateways-side")]).await;
    unknown.failed(3, ["the list is changed", "401", "SIGHUP"]);
}
