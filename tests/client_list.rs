//! `cmiot-proxy client`: its edits of the client list apply in the running proxy.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    EBID, GATEWAY_APPID, MSISDN, Output, Proxy, Setup, carrier, command, eventually, run, within,
    write_config, write_secret,
};

#[tokio::test]
async fn names_and_paths_are_shown_without_what_steers_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let name = "f\u{1b}[2K\u{202e}\nGW9";
    let setup = Setup::calling("http://127.0.0.1:1").set("account.0.name", name).set("client.0.group", name);
    write_config(&folder.path().join("proxy.toml"), &setup.text());
    let path = folder.path().join("\u{1b}[2Knone\u{202e}");
    let (none, config) = (path.to_str().unwrap(), "proxy.toml");
    for command in [
        &["client", "list", "--config", config][..],
        &["check", "--config", config],
        &["audit", "verify", "--dir", none],
        &["audit", "backup", "--dir", none, none],
        &["check", "--config", none],
    ] {
        let shown = run(folder.path(), command, &[]).await;
        for text in [&shown.out, &shown.err] {
            let steers = |one: &char| *one != '\n' && (one.is_control() || *one == '\u{202e}');
            assert_eq!(text.chars().find(steers), None, "{command:?}: {text:?}");
        }
        if command[1] == "list" {
            let row = shown.out.lines().find(|line| line.contains("GW0001")).unwrap();
            assert!(row.contains("f\\u{1b}[2K\\u{202e}\\nGW9"), "{row}");
        }
    }
}

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
        client(&["unrevoke", "GW2"]).await;
        code_is(&second, "0").await;
        client(&["set", "GW2", "--cards", "9"]).await;
        code_is(&second, "8").await;
        client(&["set", "GW2", "--unset", "cards"]).await;
        code_is(&second, "0").await;
        client(&["remove", "GW2"]).await;
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
    // Any process may listen there: no token is sent without --url.
    client(&folder, &["revoke", "N0"]).await.failed(3, ["no proxy runs on", "--url"]);
    let url = format!("http://{}", proxy.admin_address());
    let revoked = client(&folder, &["revoke", "GW1", "--url", &url]).await.success();
    assert!(revoked.err.contains("taken by the running proxy"), "{revoked:?}");
    let gateway = proxy.gateway.named("GW1", "one");
    assert_eq!(proxy.get(&gateway.sign(&MSISDN)).await.code(), "7", "at once");
    // A listener that does not know the token: not known to be in effect.
    write_secret(&folder.join("admin.other"), "not-the-token-of-it");
    write_config(&folder.join("theirs.toml"), &moved.set("admin.token_file", "admin.other").text());
    let unknown =
        run(&folder, &["client", "revoke", "--config", "theirs.toml", "N1", "--url", &url], &[]).await;
    unknown.failed(3, ["--url", "401"]);
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

#[tokio::test]
async fn set_changes_what_it_names_and_nothing_else() {
    let csv = "# depot\nappid,group,password,rate,cards\nGW1,fleet,one,5,1476\n# x\nGW2,fleet,two,,\n";
    let folder = lists(csv, "");
    client(folder.path(), &["set", "GW1", "--rate", "7", "--burst", "9", "--unset", "cards"]).await.success();
    let csv = "# depot\nappid,group,password,rate,cards,burst\nGW1,fleet,one,7,,9\n# x\nGW2,fleet,two,,,\n";
    assert_eq!(text(folder.path(), "clients.csv"), csv);
    client(folder.path(), &["set", "GW2", "--appid", "GW3", "--peers", "10.0.0.0/8", "--peers", "::1"])
        .await
        .success();
    assert!(text(folder.path(), "clients.csv").ends_with("GW3,fleet,two,,,,10.0.0.0/8 ::1\n"));
    let csv = text(folder.path(), "clients.csv");
    for (words, said) in [
        (&["set", "GW3", "--group", "nobody"][..], "known: \"fleet\""),
        (&["set", "GW3", "--appid", "GW1"], "another client signs with it already"),
        (&["set", "GW3", "--rate", "0"], "at least 1"),
        (&["set", "GW9", "--rate", "1"], "not in the clients file: `client list`"),
        (&["set", GATEWAY_APPID, "--rate", "1"], "edit it there"),
        (&["set", "GW3"], "no change"),
        (&["set", "GW3", "--rate", "1", "--unset", "rate"], "rate: is set and removed"),
        (&["remove", GATEWAY_APPID], "edit it there"),
        (&["remove", "GW9"], "`client list`"),
        (&["unrevoke", "GW3"], "is not revoked"),
    ] {
        client(folder.path(), words).await.failed(1, [said]);
    }
    // An empty cell means that everything is permitted.
    for words in [&["set", "GW3", "--cards", ""][..], &["add", "GW4", "--group", "fleet", "--cards", " "]] {
        client(folder.path(), words).await.failed(2, ["--cards", "must not be empty"]);
    }
    assert_eq!(text(folder.path(), "clients.csv"), csv);
}

#[tokio::test]
async fn unrevoke_and_remove_take_their_own_line_and_no_other() {
    let folder =
        lists("appid,group,password\nGW1,fleet,one\nGW10,fleet,ten\n", "# lost\nGW1 # in May\n\nGW10\nGW1\n");
    let removed = client(folder.path(), &["remove", "GW1"]).await.success();
    assert!(removed.err.contains("GW1 is still in the list of revoked appids"), "{removed:?}");
    assert_eq!(text(folder.path(), "clients.csv"), "appid,group,password\nGW10,fleet,ten\n");
    client(folder.path(), &["unrevoke", "GW1"]).await.success();
    assert_eq!(text(folder.path(), "revoked"), "# lost\n\nGW10\n");
    client(folder.path(), &["unrevoke", "GW1"]).await.failed(1, ["is not revoked"]);
}

#[tokio::test]
async fn add_and_import_can_be_repeated() {
    let folder = lists("appid,group,password,rate\nGW1,fleet,one,5\n", "");
    let add = ["add", "GW2", "--group", "fleet", "--if-absent"];
    let first = client(folder.path(), &add).await.success();
    assert_eq!(first.out.trim().len(), 32, "the password");
    let before = text(folder.path(), "clients.csv");
    for words in [&add[..], &["add", GATEWAY_APPID, "--group", "fleet", "--if-absent"]] {
        let again = client(folder.path(), words).await.success();
        assert!(
            again.out.is_empty() && again.err.contains("is a client already: nothing is changed"),
            "{again:?}"
        );
    }
    assert_eq!(text(folder.path(), "clients.csv"), before);

    let toml =
        |appid, password| format!("[[client]]\nappid='{appid}'\ngroup='fleet'\npassword='{password}'\n");
    let rows = [toml("GW1", "new-one"), toml(GATEWAY_APPID, "new"), toml("GW3", "three")];
    write_secret(&folder.path().join("in.toml"), &rows.concat());
    let refused = client(folder.path(), &["import", "--from", "in.toml"]).await;
    refused.failed(1, ["in.toml:2", "GW1", "--skip-existing"]);
    // A client of the configuration itself cannot be replaced here.
    let refused = client(folder.path(), &["import", "--from", "in.toml", "--replace"]).await;
    refused.failed(1, [GATEWAY_APPID, "another client signs with it already"]);
    assert_eq!(text(folder.path(), "clients.csv"), before);
    for said in ["1 clients added, 2 skipped", "0 clients added, 3 skipped"] {
        let done = client(folder.path(), &["import", "--from", "in.toml", "--skip-existing"]).await.success();
        assert!(done.err.contains(said), "{done:?}");
        assert_eq!(text(folder.path(), "clients.csv"), format!("{before}GW3,fleet,three,\n"));
    }
    write_secret(&folder.path().join("in.toml"), &[toml("GW1", "new-one"), toml("GW4", "four")].concat());
    let done = client(folder.path(), &["import", "--from", "in.toml", "--replace"]).await.success();
    assert!(done.err.contains("1 clients added, 1 replaced"), "{done:?}");
    let after = text(folder.path(), "clients.csv");
    assert!(
        after.contains("\nGW1,fleet,new-one,\n") && after.ends_with("GW4,fleet,four,\n"),
        "no rate: {after}"
    );
    let both = ["import", "--from", "in.toml", "--replace", "--skip-existing"];
    client(folder.path(), &both).await.failed(2, ["cannot be used with"]);
}

#[tokio::test]
async fn a_list_is_shown_as_table_json_or_csv_and_by_group() {
    let folder = lists(
        "appid,group,password,previous_password,rate,cards\nGW1,fleet,one,former,5,1476 1064\nGW2,=second,two,,,\n",
        "GW2\n",
    );
    write_secret(&folder.path().join("derive.key"), &"k".repeat(32));
    let second = format!("name='=second'\nappid='200002'\nebid='{EBID}'\npassword='of-the-second'");
    let setup = with_lists(Setup::calling("http://127.0.0.1:9"))
        .add("account", &second)
        .add("derive", "group = 'fleet'\nappid_prefix = 'GW9'\nkey_file = 'derive.key'\nepoch = 7");
    write_config(&folder.path().join("cmiot-proxy.toml"), &setup.text());
    let show = async |words: &[&str]| client(folder.path(), &[&["list"], words].concat()).await.success().out;

    let table = show(&[]).await;
    for said in ["GW1", "2, rotating", "revoked", "GW9*", "of epoch 7", GATEWAY_APPID] {
        assert!(table.contains(said), "{said}: {table}");
    }
    let json: serde_json::Value = serde_json::from_str(&show(&["--format", "json"]).await).unwrap();
    let appids: Vec<_> = json.as_array().unwrap().iter().map(|row| row["appid"].as_str().unwrap()).collect();
    assert_eq!(appids, [GATEWAY_APPID, "GW1", "GW2", "GW9*"]);
    assert_eq!(json[1]["cards"], serde_json::json!(["1476", "1064"]));
    assert_eq!((&json[1]["rate"], &json[1]["burst"], &json[0]["rate"]), (&5.into(), &5.into(), &().into()));
    assert_eq!((&json[2]["state"], &json[3]["epoch"]), (&"revoked".into(), &7.into()));

    let csv = show(&["--format", "csv"]).await;
    let mut lines = csv.lines();
    assert_eq!(
        lines.next().unwrap().split(',').take(4).collect::<Vec<_>>(),
        ["appid", "group", "ebid", "state"]
    );
    let row = format!("GW1,fleet,{EBID},valid,2,,5,5,1476 1064,,,,refuse,strict,5m,10s,24h,");
    assert!(csv.lines().any(|line| line == row), "{csv}");
    assert!(csv.contains("GW2,\"'=second\","), "no formula: {csv}");

    let json: serde_json::Value =
        serde_json::from_str(&show(&["--group", "=second", "--format", "json"]).await).unwrap();
    assert_eq!((json.as_array().unwrap().len(), &json[0]["appid"]), (1, &"GW2".into()));
    client(folder.path(), &["list", "--group", "nosuch"])
        .await
        .failed(1, ["nosuch", "known: \"=second\", \"fleet\""]);
}

/// A listener in place of the proxy, and the requests that it receives.
async fn impostor() -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or_default();
            let _ = sender.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        }
    });
    (address, received)
}

#[tokio::test]
async fn another_process_at_the_port_gets_no_token_while_the_lock_of_the_proxy_cannot_be_read() {
    let (address, mut received) = impostor().await;
    let folder = lists("appid,group,password\nGW1,fleet,one\n", "");
    write_secret(&folder.path().join("own.token"), "the-token-of-the-operators");
    let setup = with_lists(Setup::calling("http://127.0.0.1:9")).set("admin.listen", address.to_string());
    write_config(&folder.path().join("cmiot-proxy.toml"), &setup.text());
    let data = folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    // Not readable by any user, the superuser included.
    std::os::unix::fs::symlink("store.lock", data.join("store.lock")).unwrap();
    for words in [&["cache", "stats"][..], &["status"]] {
        let words = [words, &["--config", "cmiot-proxy.toml", "--token-file", "own.token"]].concat();
        run(folder.path(), &words, &[])
            .await
            .failed(1, ["unknown whether a proxy runs", "store.lock", "--url"]);
    }
    assert!(received.try_recv().is_err(), "no request at all");
    let asked = ["cache", "stats", "--config", "cmiot-proxy.toml", "--token-file", "own.token", "--url"];
    run(folder.path(), &[&asked[..], &[&format!("http://{address}")]].concat(), &[]).await.success();
    assert!(received.try_recv().is_ok_and(|request| request.contains("the-token-of-the-operators")));
}

#[tokio::test]
async fn another_process_at_the_port_of_a_stopped_proxy_gets_no_token() {
    let (address, mut received) = impostor().await;
    let folder = lists("appid,group,password\nGW1,fleet,one\n", "");
    write_secret(&folder.path().join("admin.secret"), "the-token-of-the-operators");
    let setup = with_lists(Setup::calling("http://127.0.0.1:9"))
        .set("admin.listen", address.to_string())
        .set("admin.token_file", "admin.secret");
    write_config(&folder.path().join("cmiot-proxy.toml"), &setup.text());
    for words in [&["cache", "stats"][..], &["status"]] {
        let words = [words, &["--config", "cmiot-proxy.toml"]].concat();
        run(folder.path(), &words, &[]).await.failed(1, ["no proxy runs on", "--url"]);
    }
    client(folder.path(), &["revoke", "GW1"]).await.failed(3, ["the list is changed", "no proxy runs on"]);
    let asked = ["cache", "stats", "--config", "cmiot-proxy.toml", "--url", "http://proxy.invalid:8081"];
    run(folder.path(), &asked, &[]).await.failed(1, ["unencrypted", "https://"]);
    let mut requests = Vec::new();
    while let Ok(request) = received.try_recv() {
        requests.push(request);
    }
    assert!(requests.iter().any(|request| request.starts_with("GET /live ")), "{requests:?}");
    assert!(requests.iter().all(|request| !request.contains("the-token-of")), "{requests:?}");
}
