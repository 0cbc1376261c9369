//! Notes about acts of operators: the user, the address and the selection.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::support::{MSISDN, Output, Proxy, Setup, carrier, eventually, run, segments, write_secret};

/// The details of the notes of a kind in the newest segment.
fn notes(data: &Path, what: &str) -> Vec<String> {
    let segment = segments(data).pop().expect("a segment");
    let connection = Connection::open_with_flags(segment, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut all = connection
        .prepare("SELECT detail FROM note JOIN name ON name.id = what WHERE text = ?1 ORDER BY note.id")
        .unwrap();
    all.query_map([what], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The first note of a kind, which the proxy writes within seconds.
async fn note(data: &Path, what: &str) -> String {
    eventually(what, || async { notes(data, what).pop() }).await
}

fn user() -> String {
    let id = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    String::from_utf8(id).unwrap().trim().to_owned()
}

async fn audit(dir: &Path, arguments: &[&str]) -> Output {
    let dir = dir.to_str().unwrap();
    run(Path::new("/"), &[&["audit"], arguments, &["--dir", dir]].concat(), &[]).await
}

#[tokio::test]
async fn acts_over_the_admin_listener_name_the_caller_and_the_selection() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("token"), "the-token-of-operate");
    let entry = "name = \"night shift\"\nrole = \"operate\"\ntoken_file = \"token\"".parse().unwrap();
    let setup = Setup::with_carrier(&carrier).push("admin.access", entry);
    let proxy = Proxy::start_in(folder, setup).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let card = format!("{{\"msisdn\":\"{}\"}}", MSISDN.number);
    let purged = proxy.admin_post("/cache/purge", "", &card).await;
    assert!(purged.text().contains("\"recorded\":true"), "{}", purged.text());
    let data = proxy.data();
    let expected = format!("by=token from=127.0.0.1 memory=1 file=1 mode=hard msisdn={}", MSISDN.number);
    assert_eq!(notes(&data, "purge"), [expected]);
    let token = "Authorization: Bearer the-token-of-operate\r\n";
    let all = "{\"status\":\"00\",\"soft\":true,\"group\":\"fleet\"}";
    assert_eq!(proxy.admin_post("/cache/purge", token, all).await.status, 200);
    assert_eq!(
        notes(&data, "purge")[1],
        "by=night_shift from=127.0.0.1 memory=0 file=0 mode=soft group=fleet status=00"
    );
    // Only a fetch that called the carrier is an act.
    for _ in 0..2 {
        assert_eq!(proxy.admin_post("/cache/fetch", token, &card).await.status, 200);
    }
    let expected = format!(
        "by=night_shift from=127.0.0.1 group=fleet operation=userstatusrealsingle msisdn={}",
        MSISDN.number
    );
    assert_eq!(notes(&data, "warm"), [expected]);
    assert_eq!(proxy.admin_post("/accounts/check", token, &card).await.status, 200);
    let expected =
        format!("by=night_shift from=127.0.0.1 operation=userstatusrealsingle msisdn={}", MSISDN.number);
    assert_eq!(notes(&data, "check"), [expected]);
    assert_eq!(proxy.admin_post("/config/reload", token, "").await.status, 200);
    assert_eq!(notes(&data, "reload"), ["by=night_shift from=127.0.0.1 result=accepted"]);
    proxy.signal("HUP").await;
    eventually("the note of the signal", || async { (notes(&data, "reload").len() == 2).then_some(()) })
        .await;
    assert_eq!(notes(&data, "reload")[1], "by=signal from=local result=accepted");
}

#[tokio::test]
async fn a_keyed_audit_has_no_card_in_a_note() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("audit.identifiers", "keyed").start().await;
    let card = format!("{{\"msisdn\":\"{}\"}}", MSISDN.number);
    assert_eq!(proxy.admin_post("/cache/purge", "", &card).await.status, 200);
    let noted = notes(&proxy.data(), "purge").remove(0);
    let hash = audit(&proxy.data(), &["hash", MSISDN.number]).await.success().out;
    let hash = hash.split_whitespace().last().unwrap();
    assert!(noted.ends_with(&format!(" msisdn={hash}")) && !noted.contains(MSISDN.number), "{noted}");
}

#[tokio::test]
async fn acts_by_commands_name_the_user_and_a_copy_records_none() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let (data, user, to) = (proxy.data(), user(), tempfile::tempdir().unwrap());
    let segment = proxy.audit_file();
    let month = segment.file_stem().unwrap().to_str().unwrap().strip_prefix("audit-").unwrap();
    let (copy, csv) = (to.path().join(segment.file_name().unwrap()), to.path().join("month.csv"));
    let export = ["export", "--month", month, csv.to_str().unwrap()];
    let exported = audit(&data, &export).await.success();
    assert_eq!(exported.err, "");
    let noted = note(&data, "export").await;
    let hash = exported.out.split_whitespace().nth(3).unwrap().to_owned();
    assert!(noted.starts_with(&format!("by={user} ")), "{noted}");
    let ends = format!("from=local month={month} sha256={hash} file={}", csv.display());
    assert!(noted.ends_with(&ends), "{noted}");
    assert_eq!(audit(&data, &["backup", copy.to_str().unwrap()]).await.success().err, "");
    assert!(note(&data, "backup").await.ends_with(&format!("month={month} file={}", copy.display())));
    std::fs::remove_file(&csv).unwrap();
    let exported = audit(to.path(), &export).await.success();
    assert!(exported.err.contains("not recorded in the audit"), "{}", exported.err);
    assert!(
        std::fs::read_dir(to.path())
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_str().unwrap().starts_with("note-") })
    );
    audit(&data, &["verify"]).await.success();
}

#[tokio::test]
async fn an_edit_of_the_clients_that_changes_nothing_is_no_act() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("clients.csv"), "appid,group,password\nGW1,fleet,one\n");
    let setup = Setup::with_carrier(&carrier).set("gateway.clients_file", "clients.csv");
    let proxy = Proxy::start_in(folder, setup).await;
    let (data, folder) = (proxy.data(), proxy.config().parent().unwrap().to_owned());
    write_secret(&folder.join("in.csv"), "appid,group,password\nGW1,fleet,one\n");
    let edit = async |words: &[&str]| {
        let words = [&["client", words[0], "--config", "cmiot-proxy.toml"], &words[1..]].concat();
        run(&folder, &words, &[]).await.success()
    };
    edit(&["add", "GW1", "--group", "fleet", "--if-absent"]).await;
    edit(&["import", "--from", "in.csv", "--skip-existing"]).await;
    edit(&["set", "GW1", "--rate", "5"]).await;
    assert!(note(&data, "clients").await.ends_with("set=GW1"));
    assert_eq!(notes(&data, "clients").len(), 1, "{:?}", notes(&data, "clients"));
}
