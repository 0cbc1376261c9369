//! `cmiot-proxy client`: the list that it edits counts in a running proxy.

use crate::support::{MSISDN, Proxy, Setup, carrier, run, until, write_secret};

#[tokio::test]
async fn clients_come_change_and_go_while_the_proxy_runs() {
    let carrier = carrier().await;
    for (name, text) in [("clients.csv", "# depot\nappid,group,password\n"), ("clients.toml", "# depot\n")] {
        let folder = tempfile::tempdir().unwrap();
        write_secret(&folder.path().join(name), text);
        write_secret(&folder.path().join("revoked"), "");
        let setup =
            Setup::before(&carrier).set("gateway.clients_file", name).set("gateway.revoked_file", "revoked");
        let proxy = Proxy::start_in(folder, setup).await;
        let folder = proxy.config().parent().unwrap().to_owned();
        let client = async |words: &[&str]| {
            let words = [&["client", words[0], "--config", "cmiot-proxy.toml"], &words[1..]].concat();
            let said = run(&folder, &words, &[]).await.did_it().out.trim().to_owned();
            // Only so as not to wait until the change is noticed by itself.
            proxy.signal("HUP").await;
            said
        };
        let answers = async |password: &str, code: &str| {
            let gateway = proxy.gateway.named("GW2", password);
            until("the change to count", async || {
                (proxy.get(&gateway.sign(&MSISDN)).await.code() == code).then_some(())
            })
            .await;
        };

        let first = client(&["add", "GW2", "--group", "fleet", "--rate", "1000"]).await;
        answers(&first, "0").await;
        let second = client(&["rotate", "GW2"]).await;
        answers(&second, "0").await;
        answers(&first, "0").await;
        client(&["rotate", "GW2", "--finish"]).await;
        answers(&first, "7").await;
        answers(&second, "0").await;
        let list = client(&["list"]).await;
        assert!(list.contains("GW2") && !list.contains(&second), "{list}");
        client(&["revoke", "GW2"]).await;
        answers(&second, "7").await;
        assert!(std::fs::read_to_string(folder.join(name)).unwrap().contains("# depot"));

        write_secret(&folder.join("more.csv"), "appid,group,password,cards\nGW3,fleet,third,1476 1064\n");
        assert_eq!(client(&["import", "--from", "more.csv"]).await, "1 clients added");
        let again =
            run(&folder, &["client", "import", "--config", "cmiot-proxy.toml", "--from", "more.csv"], &[])
                .await;
        again.failed(1, ["GW3", "already"]);
        // What would be no configuration leaves the list as it is.
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
