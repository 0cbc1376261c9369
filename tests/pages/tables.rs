//! Numbers of the pages, the rows behind them, and files.

use cmiot_simulator::Rule;

use super::client::Browser;
use super::{proxy, with_token};
use crate::support::{MSISDN, Proxy, Setup, card_number, carrier, eventually, write_config};

/// The value of a figure on a page.
fn figure(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("<dt>{name}</dt>")).unwrap_or_else(|| panic!("{name}: {page}"));
    let value = rest.split_once("<dd>").unwrap().1.split_once("</dd>").unwrap().0;
    let text = value.rsplit_once("</a>").map_or(value, |(link, _)| link.rsplit_once('>').unwrap().1);
    text.to_owned()
}

#[tokio::test]
async fn the_numbers_of_the_overview_lead_to_their_rows_and_these_to_their_calls() {
    let proxy = proxy().await;
    for card in [MSISDN.number.to_owned(), card_number(1).number, MSISDN.number.to_owned()] {
        proxy.look_up(&crate::support::Card::new("msisdn", card)).await.assert_normal();
    }
    let wrong = proxy.gateway.sign(&MSISDN).with("token", &"0".repeat(64));
    proxy.get(&wrong).await.assert_refusal("7");
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let page = browser.text("/").await;
    let numbers =
        ["Lookups", "Hit share", "Carrier calls", "Refused", "Failed"].map(|name| figure(&page, name));
    assert_eq!(numbers, ["4", "33.3 %", "2", "1", "0"], "{page}");
    assert!(page.contains("<svg class=\"chart\"") && page.contains("miss 2"), "{page}");
    for (conditions, count) in [
        ("outcome=hit", 1),
        ("outcome=miss", 2),
        ("kind=calls", 2),
        ("outcome=refused&reason=token", 1),
        ("reason=rate", 0),
    ] {
        assert_eq!(browser.row_ids(conditions).await.len(), count, "{conditions}");
    }
    let row = browser.row_ids("outcome=miss").await.remove(0);
    let page = browser.text(&format!("/page/audit/row?id={row}")).await;
    assert!(page.contains("Carrier calls") && page.contains("latency_ms"), "{page}");
    assert!(!page.contains("It cost no call"), "{page}");
    let accounts = browser.text("/page/accounts").await;
    assert_eq!(figure(&accounts, "Calls of the last 24 hours"), "2");
    assert!(accounts.contains("makes calls") && accounts.contains("1 of 1"), "{accounts}");
}

/// The links of a page to the audit, without entities.
fn audit_links(page: &str) -> Vec<String> {
    let links = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    links
        .filter(|link| link.starts_with("/page/audit"))
        .map(|link| link.replace("&amp;", "&").replace("&#38;", "&"))
        .collect()
}

#[tokio::test]
async fn every_figure_leads_to_its_rows_for_the_role_audit_and_to_no_forbidden_page_for_the_role_view() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::with_carrier(&carrier).set("account.0.calls_per_day", 50);
    let (setup, view) = with_token(setup, folder.path(), "view");
    let (setup, audit) = with_token(setup, folder.path(), "audit");
    let proxy = Proxy::start_in(folder, setup).await;
    for _ in 0..2 {
        proxy.look_up(&MSISDN).await.assert_normal();
    }
    proxy.get(&proxy.gateway.sign(&MSISDN).with("token", &"0".repeat(64))).await.assert_refusal("7");
    let mut browser = Browser::of(&proxy);
    browser.log_in_with(&audit).await;
    let overview = browser.text("/").await;
    for (name, to) in [
        ("Lookups", "/page/audit?since="),
        ("Hit share", "/page/audit?since="),
        ("Carrier calls", "/page/audit?since="),
        ("Refused", "/page/audit?since="),
        ("Failed", "/page/audit?since="),
        ("Refused and only counted", "/page/audit?since="),
        ("p50", "/page/audit?since="),
        ("p99", "/page/audit?since="),
        ("Last anchor", "/page/audit#verification"),
        ("Calls left today", "/page/accounts"),
    ] {
        assert!(overview.contains(&format!("<dt>{name}</dt><dd><a href=\"{to}")), "{name}: {overview}");
    }
    let clients = browser.text("/page/clients").await;
    let links: Vec<_> =
        audit_links(&clients).into_iter().filter(|link| link.contains("client=GW0001")).collect();
    let conditions = ["", "", "&outcome=hit", "&outcome=stale", "&outcome=miss", "&outcome=refused"];
    let conditions = conditions.iter().chain(&["&outcome=failed", "&reason=token"]);
    let expected: Vec<_> = conditions.map(|more| format!("{}{more}", links[0])).collect();
    assert_eq!(links, expected, "appid, requests, each outcome, the reason: {clients}");
    for (link, rows) in links[1..].iter().zip([3, 1, 0, 1, 1, 0, 1]) {
        let query = link.split_once('?').unwrap().1;
        assert_eq!(browser.row_ids(query).await.len(), rows, "{link}");
    }
    let accounts = browser.text("/page/accounts").await;
    let links = audit_links(&accounts);
    let calls: Vec<_> =
        links.iter().filter(|link| link.starts_with("/page/audit?kind=calls&account=fleet&since=")).collect();
    assert_eq!(calls.len(), 2, "today's and those of the last 24 hours: {accounts}");
    assert!(calls[0].ends_with("T00%3A00%3A00"), "since midnight at UTC+8: {calls:?}");
    let mut browser = Browser::of(&proxy);
    browser.log_in_with(&view).await;
    let card = browser.enter("msisdn", MSISDN.number).await;
    for path in
        ["/", &card, "/page/card", "/page/accounts", "/page/clients", "/page/refusals", "/page/nothing"]
    {
        let page = browser.get(path).await;
        assert!(page.text().contains("view_person"), "{path}: {}", page.text());
        assert_eq!(audit_links(page.text()), [""; 0], "{path}: {}", page.text());
    }
    assert!(browser.text("/page/clients").await.contains("<td class=\"wrap\">token 1</td>"));
}

#[tokio::test]
async fn clients_are_sorted_and_filtered_and_those_in_trouble_are_marked() {
    let carrier = carrier().await;
    let mut setup = Setup::with_carrier(&carrier);
    for n in 2..5 {
        let entry =
            format!("group = \"fleet\"\nappid = \"GW000{n}\"\npassword = \"the-side-of-gateway-{n}\"");
        setup = setup.push("client", entry.parse().unwrap());
    }
    let proxy = setup.start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let wrong = proxy.gateway.named("GW0003", "not-its-password");
    for _ in 0..2 {
        proxy.get(&wrong.sign(&MSISDN)).await.assert_refusal("7");
    }
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let page = browser.text("/page/clients").await;
    let at = |appid: &str| page.find(&format!(">{appid}</a>")).unwrap_or_else(|| panic!("{appid}: {page}"));
    assert!(at("GW0003") < at("GW0001") && at("GW0001") < at("GW0002"), "trouble, then requests: {page}");
    assert!(page.contains("token 2"), "the reason: {page}");
    let page = browser.text("/page/clients?trouble=1").await;
    assert!(page.contains("GW0003") && !page.contains("GW0001"), "{page}");
    let page = browser.text("/page/clients?q=gw0004").await;
    assert!(page.contains("GW0004") && !page.contains("GW0001"), "{page}");
    let page = browser.text("/page/clients?sort=name").await;
    assert!(page.find(">GW0001</a>") < page.find(">GW0003</a>"), "{page}");
    let refusals = browser.text("/page/refusals").await;
    assert!(refusals.contains("127.0.0.1") && refusals.contains("compare the client list"), "{refusals}");
    let none = browser.text("/page/refusals?peer=192.0.2.").await;
    assert!(none.contains("No request was refused"), "{none}");
}

#[tokio::test]
async fn tables_are_files_with_masked_cards() {
    let proxy = proxy().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.get(&proxy.gateway.sign(&MSISDN).with("token", &"0".repeat(64))).await.assert_refusal("7");
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let page = browser.text("/page/audit?outcome=miss").await;
    assert!(page.contains("href=\"/page/audit?outcome=miss&#38;format=csv\" download="), "{page}");
    assert!(page.contains("A file has the newest 10000 rows at most"), "{page}");
    let chinese = browser.get_with("/page/audit", "Accept-Language: zh-CN\r\n").await;
    assert!(chinese.text().contains("文件最多包含最新的 10000 行"), "{}", chinese.text());
    let live = browser.text("/page/live?client=GW0001&outcome=miss").await;
    let link = "/page/audit?client=GW0001&outcome=miss&format=csv";
    assert!(live.contains(&format!("href=\"{}\" download=", link.replace('&', "&#38;"))), "{live}");
    assert_eq!(browser.get(link).await.text().lines().count(), 2, "a head and the miss");
    let file = browser.get("/page/audit?format=csv").await;
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(file.header("content-disposition"), Some("attachment; filename=\"lookups.csv\""));
    let text = file.text();
    assert!(text.starts_with("id,time,client,") && text.contains(",1476****176,"), "{text}");
    assert!(!text.contains(MSISDN.number), "{text}");
    assert_eq!(text.lines().count(), 3);
    for path in ["/page/clients?format=csv", "/page/refusals?format=csv", "/page/audit?kind=calls&format=csv"]
    {
        let file = browser.get(path).await;
        assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"), "{path}");
        assert!(file.text().lines().count() > 1 && !file.text().contains(MSISDN.number), "{path}");
    }
}

#[tokio::test]
async fn what_the_overview_the_accounts_and_a_card_show_is_a_file_too() {
    let carrier = carrier().await;
    // A name that a spreadsheet would run.
    let setup = Setup::with_carrier(&carrier)
        .set("account.0.name", "=1+1")
        .set("account.0.group", "fleet")
        .set("account.0.calls_per_second", 5);
    let proxy = setup.start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    carrier.set_rules([Rule::any().status("02")]);
    assert_eq!(proxy.admin_post("/cache/purge", "", "{\"all\": true}").await.status, 200);
    assert_eq!(proxy.look_up(&MSISDN).await.code(), "0");
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let card = browser.enter("msisdn", MSISDN.number).await;
    for (page, link, name, head) in [
        ("/", "/?format=csv&amp;table=hours".to_owned(), "hours.csv", "begin,hit,stale,miss,"),
        ("/", "/?format=csv&amp;table=days".to_owned(), "days.csv", "begin,hit,stale,miss,"),
        ("/page/accounts", "/page/accounts?format=csv".to_owned(), "accounts.csv", "account,group,state,"),
        (&card, format!("{card}&#38;format=csv&#38;table=changes"), "changes.csv", "card,kind,from,to,"),
        (&card, format!("{card}&#38;format=csv"), "card.csv", "id,time,client,"),
    ] {
        let html = browser.text(page).await;
        assert!(html.contains(&format!("href=\"{link}\" download=\"{name}\"")), "{link}: {html}");
        let file = browser.get(&link.replace("&amp;", "&").replace("&#38;", "&")).await;
        assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"), "{link}");
        assert_eq!(
            file.header("content-disposition"),
            Some(&*format!("attachment; filename=\"{name}\"")),
            "{link}"
        );
        let text = file.text();
        assert!(text.starts_with(head) && text.lines().count() > 1, "{link}: {text}");
        assert!(!text.contains(MSISDN.number) && !text.contains(",=1+1"), "{link}: {text}");
    }
    let hours = browser.get("/?format=csv&table=hours").await;
    let last = hours.text().lines().last().unwrap().to_owned();
    assert_eq!(hours.text().lines().count(), 25, "a line per hour: {}", hours.text());
    assert!(last.contains("+08:00,0,0,2,0,0,0,0,2,0,"), "two misses, two calls: {last}");
    let accounts = browser.get("/page/accounts?format=csv").await;
    assert!(accounts.text().lines().nth(1).unwrap().starts_with("\"'=1+1\","), "{}", accounts.text());
    let changes = browser.get(&format!("{card}&format=csv&table=changes")).await;
    assert!(
        changes.text().lines().nth(1).unwrap().starts_with("1476****176,msisdn,00,02,"),
        "{}",
        changes.text()
    );
    // A condition, which is listed with its remedy.
    write_config(&proxy.config(), "[nonsense]\n");
    assert_eq!(proxy.admin_post("/config/reload", "", "").await.status, 409);
    assert!(browser.text("/").await.contains("download=\"conditions.csv\""));
    let file = browser.get("/?format=csv&table=conditions").await;
    assert!(file.text().lines().any(|line| line.starts_with("configuration,error,")), "{}", file.text());
}

#[tokio::test]
async fn the_audit_is_chinese_for_a_chinese_reader_with_the_heads_of_its_tables_and_its_errors() {
    let proxy = proxy().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let zh = "Accept-Language: zh-CN\r\n";
    for (path, head) in [
        ("/page/audit", "<th scope=\"col\">时间</th><th scope=\"col\">客户端</th>"),
        ("/page/audit?kind=calls", "<th scope=\"col\">时间</th><th scope=\"col\">账号</th>"),
        ("/page/audit?kind=notes", "时间和日期均为 UTC+8。"),
        ("/page/live", "<th scope=\"col\">延迟（毫秒）</th>"),
    ] {
        let page = browser.get_with(path, zh).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.text().contains(head), "{path}: {}", page.text());
        assert!(!page.text().contains("<th scope=\"col\">time</th>"), "{path}: {}", page.text());
    }
    let row = browser.row_ids("outcome=miss").await.remove(0);
    let page = browser.get_with(&format!("/page/audit/row?id={row}"), zh).await;
    assert!(page.text().contains("<dt>事务编码</dt>"), "{}", page.text());
    for (query, said) in [
        ("outcome=hits", "outcome（结果）：“hits”无效"),
        ("since=yesterday", "since："),
        ("status=normal", "不是 STATUS 的代码"),
        ("before=x", "before：应为行的编号"),
        ("kind=notes&client=GW0001", "这类行没有此字段"),
        ("since=2026-01-15T12:00&until=2026-01-15T11:00", "不早于"),
    ] {
        let page = browser.get_with(&format!("/page/audit?{query}"), zh).await;
        assert_eq!(page.status, 400, "{query}");
        assert!(page.text().contains(said), "{query}: {}", page.text());
    }
    let english = browser.text("/page/audit").await;
    assert!(english.contains("Times and days are those of UTC+8."), "{english}");
}

#[tokio::test]
async fn rows_of_before_the_first_page_are_summed_in_the_background() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).start().await;
    for n in 0..20 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    proxy.restart().await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let cookie = browser.cookie().to_owned();
    eventually("all rows", || async {
        let page = Browser::with(&proxy, &cookie).text("/").await;
        (figure(&page, "Lookups") == "21" && !page.contains("incomplete")).then_some(())
    })
    .await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    assert_eq!(figure(&browser.text("/").await, "Lookups"), "22", "each row once");
}

#[tokio::test]
async fn a_filter_that_no_row_can_meet_is_explained() {
    let proxy = proxy().await;
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    for (query, said) in [
        ("outcome=hits", "collapsed"),
        ("since=yesterday", "since:"),
        ("status=normal", "00 normal"),
        ("since=2026-01-15T12:00&until=2026-01-15T11:00", "not before until"),
    ] {
        let page = browser.get(&format!("/page/audit?{query}")).await;
        assert_eq!(page.status, 400, "{query}");
        assert!(page.text().contains(said), "{query}: {}", page.text());
    }
    assert_eq!(browser.get("/page/audit/row?id=999").await.status, 404);
}
