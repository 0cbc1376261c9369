//! The pages of cards, clients, refusals and of the audit: roles, masks, acts and their notes.

use cmiot_simulator::Rule;

use super::client::Browser;
use super::{proxy, with_token};
use crate::support::{MSISDN, Proxy, Setup, carrier, eventually};

/// Every page that is opened by its path.
const PAGES: [&str; 12] = [
    "/",
    "/page/card",
    "/page/accounts",
    "/page/clients",
    "/page/refusals",
    "/page/audit",
    "/page/audit?kind=calls",
    "/page/audit?kind=notes",
    "/page/audit?kind=refusals",
    "/page/audit?format=csv",
    "/page/audit/verify",
    "/page/live",
];

#[tokio::test]
async fn each_role_opens_its_pages_and_a_missing_one_is_named() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let (setup, view) = with_token(Setup::with_carrier(&carrier), folder.path(), "view");
    let (setup, operate) = with_token(setup, folder.path(), "operate");
    let (setup, audit) = with_token(setup, folder.path(), "audit");
    let proxy = Proxy::start_in(folder, setup).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    for (token, operates, audits) in [(&view, false, false), (&operate, true, false), (&audit, false, true)] {
        let mut browser = Browser::of(&proxy);
        browser.log_in_with(token).await;
        for path in PAGES {
            let expected =
                if audits || !(path.starts_with("/page/audit") || path == "/page/live") { 200 } else { 403 };
            let page = browser.get(path).await;
            assert_eq!(page.status, expected, "{token} {path}");
            assert_eq!(expected == 403, page.text().contains("the role audit"), "{token} {path}");
            assert!(!page.text().contains(MSISDN.number), "{token} {path}: {}", page.text());
        }
        let path = browser.enter("msisdn", MSISDN.number).await;
        let page = browser.text(&path).await;
        assert_eq!(page.contains("Entry in the cache"), operates || audits, "{token}");
        assert_eq!(page.contains("Lookups and their calls"), audits, "{token}");
        assert!(page.contains("1476****176") && !page.contains(MSISDN.number), "{token}: {page}");
        if audits {
            let id = browser.row_ids("outcome=miss").await.remove(0);
            let row = browser.text(&format!("/page/audit/row?id={id}")).await;
            assert!(row.contains("1476****176") && !row.contains(MSISDN.number), "{token}: {row}");
        }
        assert_eq!(page.contains("/page/card/purge"), operates, "{token}");
        let of = path.split_once("of=").unwrap().1;
        let acts = [
            ("/page/card/refresh", operates),
            ("/page/card/purge", operates),
            ("/page/audit/reveal", audits),
        ];
        for (act, may) in acts {
            let status = browser.post(act, &[("of", of), ("mode", "hard"), ("id", "1")]).await.status;
            assert_eq!(status != 403, may, "{token} {act}: {status}");
        }
    }
}

#[tokio::test]
async fn no_page_and_no_url_has_a_card_until_it_is_shown_by_asking_which_is_a_note() {
    let proxy = proxy().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let card = format!("{{\"msisdn\":\"{}\"}}", MSISDN.number);
    assert_eq!(proxy.admin_post("/cache/purge", "", &card).await.status, 200);
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let of = browser.enter("msisdn", MSISDN.number).await;
    let id = browser.row_ids("outcome=miss").await.remove(0);
    let row = format!("/page/audit/row?id={id}");
    for path in PAGES.into_iter().chain([of.as_str(), row.as_str()]) {
        assert!(!path.contains(MSISDN.number));
        let page = browser.text(path).await;
        assert!(!page.contains(MSISDN.number), "{path}: {page}");
    }
    let notes = browser.text("/page/audit?kind=notes").await;
    assert!(notes.contains("msisdn=1476****176"), "the note of the purge: {notes}");
    let page = browser.text(&row).await;
    assert!(page.contains("1476****176") && page.contains("Show the card"), "{page}");
    let shown = browser.post("/page/audit/reveal", &[("id", &id)]).await;
    assert!(shown.text().contains(MSISDN.number), "{}", shown.text());
    let segment = rusqlite::Connection::open(proxy.audit_file()).unwrap();
    let note: String =
        segment.query_row("SELECT detail FROM note ORDER BY id DESC", [], |row| row.get(0)).unwrap();
    assert_eq!(note, format!("by=token from=127.0.0.1 row={id} msisdn={}", MSISDN.number));
    assert!(!browser.text(&row).await.contains(MSISDN.number), "shown once");
}

#[tokio::test]
async fn a_keyed_audit_shows_no_card_even_by_asking() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("audit.identifiers", "keyed").start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let id = browser.row_ids("outcome=miss").await.remove(0);
    let page = browser.text(&format!("/page/audit/row?id={id}")).await;
    assert!(page.contains("147********") && !page.contains("Show the card"), "{page}");
    assert_eq!(browser.post("/page/audit/reveal", &[("id", &id)]).await.status, 404);
    let of = browser.enter("msisdn", MSISDN.number).await;
    assert!(browser.text(&of).await.contains("147********"), "its rows are found by the key");
}

#[tokio::test]
async fn a_purge_asks_first_and_a_refresh_spends_a_call() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let path = browser.enter("msisdn", MSISDN.number).await;
    let of = path.split_once("of=").unwrap().1.to_owned();
    let page = browser.text(&path).await;
    assert!(page.contains("a gateway gets this, fresh") && page.contains("00 normal"), "{page}");
    let asked = browser.post("/page/card/purge", &[("of", &of), ("mode", "hard")]).await;
    assert!(asked.text().contains("Remove the entry of 1476****176?"), "{}", asked.text());
    assert!(browser.text(&path).await.contains("a gateway gets this, fresh"), "nothing was purged");
    let purged =
        browser.post("/page/card/purge", &[("of", &of), ("mode", "hard"), ("confirmed", "yes")]).await;
    assert_eq!((purged.status, purged.header("location")), (303, Some(path.as_str())));
    let page = browser.text(&path).await;
    assert!(page.contains("purged: 1 in memory, 1 in the file") && page.contains("No entry"), "{page}");
    assert!(!browser.text(&path).await.contains("purged: 1"), "a notice is shown once");
    carrier.set_rules([Rule::any().status("02")]);
    assert_eq!(browser.post("/page/card/refresh", &[("of", &of)]).await.status, 303);
    let page = browser.text(&path).await;
    assert!(page.contains("one call of the account is spent") && page.contains("02 barred"), "{page}");
    carrier.set_rules([Rule::any().status("00")]);
    assert_eq!(browser.post("/page/card/refresh", &[("of", &of)]).await.status, 303);
    assert!(browser.text(&path).await.contains("00 normal"), "a fresh entry is refreshed too");
    assert!(proxy.look_up(&MSISDN).await.cache().starts_with("hit"));
    let mut other = Browser::of(&proxy);
    other.log_in(&proxy).await;
    assert_eq!(other.get(&path).await.status, 404, "the handle of another session");
}

#[tokio::test]
async fn text_of_requests_and_of_the_carrier_is_text_on_every_page() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier).set("audit.bodies", "full");
    let proxy = setup.start().await;
    let body = r#"{"status":"0","message":"<script>alert(1)</script>","result":[{"STATUS":"00"}]}"#;
    carrier.set_rules([Rule::any().body(body)]);
    assert_eq!(proxy.look_up(&MSISDN).await.code(), "0");
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let of = browser.enter("msisdn", MSISDN.number).await;
    let row = format!("/page/audit/row?id={}", browser.row_ids("outcome=miss").await[0]);
    for path in [of, row] {
        let page = browser.text(&path).await;
        assert!(page.contains("script&#62;alert(1)") && !page.contains("<script>"), "{path}: {page}");
    }
    let script = "%3Cscript%3Ealert(1)%3C/script%3E";
    for path in [
        format!("/page/audit?client={script}"),
        format!("/page/audit?reason={script}"),
        format!("/page/clients?q={script}"),
        format!("/page/refusals?peer={script}"),
        format!("/page/live?client={script}"),
        format!("/page/login?next={script}"),
    ] {
        let page = browser.get(&path).await;
        assert!(!page.text().contains("<script>"), "{path}: {}", page.text());
    }
}

#[tokio::test]
async fn the_audit_is_verified_in_the_background_and_the_overview_has_the_result() {
    let proxy = proxy().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    assert!(browser.text("/").await.contains("not verified since the start"), "at first");
    let started = browser.post("/page/audit/verify", &[]).await;
    assert_eq!((started.status, started.header("location")), (303, Some("/page/audit#verification")));
    let cookie = browser.cookie().to_owned();
    let page = eventually("the result", || async {
        let page = Browser::with(&proxy, &cookie).text("/page/audit/verify").await;
        page.contains("chain ok").then_some(page)
    })
    .await;
    assert!(!page.contains("hx-get"), "it does not refresh itself any more: {page}");
    assert!(browser.text("/").await.contains("chain ok"));
}

#[tokio::test]
async fn the_live_page_without_scripts_has_the_last_100_rows_and_a_link_that_reloads_it() {
    let proxy = proxy().await;
    for _ in 0..101 {
        proxy.look_up(&MSISDN).await.assert_normal();
    }
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let first = browser.row_ids("outcome=miss").await.remove(0);
    let page = browser.text("/page/live").await;
    assert_eq!(page.matches("/page/audit/row?id=").count(), 100, "{page}");
    assert!(!page.contains(&format!("/page/audit/row?id={first}\"")), "the oldest of 101: {page}");
    assert!(!page.contains(MSISDN.number), "{page}");
    let (_, without_scripts) = page.split_once("<noscript>").unwrap();
    let (without_scripts, _) = without_scripts.split_once("</noscript>").unwrap();
    let link = "<a href=\"/page/live?client=&#38;outcome=\">Reload</a>";
    assert!(without_scripts.contains(link), "{without_scripts}");
    let page = browser.text("/page/live?client=&outcome=miss").await;
    assert_eq!(page.matches("/page/audit/row?id=").count(), 1, "{page}");
}

#[tokio::test]
async fn the_live_page_streams_masked_lookups_that_its_filter_takes() {
    let proxy = proxy().await;
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let mut all = browser.stream("/page/live/stream").await;
    let mut hits = browser.stream("/page/live/stream?outcome=hit").await;
    let head = all.until(": started").await;
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    hits.until(": started").await;
    for _ in 0..2 {
        proxy.look_up(&MSISDN).await.assert_normal();
    }
    let read = hits.until("<td>hit</td>").await;
    assert!(read.contains("event: rows") && read.contains("1476****176"), "{read}");
    assert!(!read.contains("<td>miss</td>") && !read.contains(MSISDN.number), "{read}");
    assert!(all.until("<td>hit</td>").await.contains("1476****176"));
    browser.post("/page/logout", &[]).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    all.until("0\r\n\r\n").await;
}
