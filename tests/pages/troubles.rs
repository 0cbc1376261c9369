//! Under trouble the overview says so in words, with the remedy.

use cmiot_simulator::{Answer, Rule};

use super::client::Browser;
use crate::support::{MSISDN, Proxy, Setup, card_number, carrier, eventually, write_config};

async fn logged_in(proxy: &Proxy) -> Browser {
    let mut browser = Browser::of(proxy);
    browser.log_in(proxy).await;
    browser
}

#[tokio::test]
async fn a_carrier_that_is_down_throttles_or_refuses_the_password_is_named_with_the_remedy() {
    for (rule, headline, remedy) in [
        (
            Rule::any().then(Answer::html(503)),
            "from the cache alone",
            "the carrier does not respond as it should",
        ),
        (Rule::any().code("72"), "from the cache alone", "lower calls_per_second"),
        (Rule::any().code("4"), "from the cache alone", "with code 4: run `cmiot-proxy check --live`"),
    ] {
        let carrier = carrier().await;
        let proxy = Setup::with_carrier(&carrier).set("breaker.failures", 2).start().await;
        let mut browser = logged_in(&proxy).await;
        assert!(browser.text("/").await.contains("Answering."));
        carrier.set_rules([rule]);
        for n in 0..3 {
            assert_ne!(proxy.look_up(&card_number(n)).await.code(), "0");
        }
        let page = browser.text("/").await;
        assert!(page.contains(headline) && page.contains(remedy), "{remedy}: {page}");
        let accounts = browser.text("/page/accounts").await;
        assert!(
            accounts.contains("no calls now") && accounts.contains("the next call may leave in"),
            "{accounts}"
        );
    }
}

#[tokio::test]
async fn a_refused_reload_is_named_with_the_remedy() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut browser = logged_in(&proxy).await;
    let text = std::fs::read_to_string(proxy.config()).unwrap();
    write_config(&proxy.config(), &format!("{text}\n[nonsense]\n"));
    assert_eq!(proxy.admin_post("/config/reload", "", "").await.status, 409);
    let page = browser.text("/").await;
    assert!(
        page.contains("something needs you") && page.contains("<strong>configuration</strong>"),
        "{page}"
    );
    assert!(page.contains("do not restart the proxy before"), "{page}");
}

#[tokio::test]
async fn spent_calls_of_the_day_are_named_and_the_accounts_page_shows_the_budget() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("account.0.calls_per_day", 2).start().await;
    let mut browser = logged_in(&proxy).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let page = browser.text("/").await;
    assert!(page.contains("Account fleet: 50 % of today&#39;s calls left."), "{page}");
    proxy.look_up(&card_number(1)).await.assert_normal();
    assert_eq!(proxy.look_up(&card_number(2)).await.code(), "72");
    eventually("the spent day", || async {
        let page = Browser::with(&proxy, browser.cookie()).text("/").await;
        page.contains("the calls of today are spent").then_some(())
    })
    .await;
    let accounts = browser.text("/page/accounts").await;
    assert!(accounts.contains("<meter min=\"0\" max=\"2\" value=\"2\""), "{accounts}");
}

#[tokio::test]
async fn a_full_disk_stops_the_audit_and_the_page_says_so_with_the_remedy() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier).set("audit.min_free", "2MiB");
    let proxy = setup.start_on_small_disk(16).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.fill_disk(1 << 20);
    let page = eventually("the disk", || async {
        proxy.look_up(&MSISDN).await;
        let page = proxy.admin("/", "").await.text().to_owned();
        let is_named = page.contains("<strong>disk</strong>");
        (is_named && page.contains("Not answering: audit records cannot be written")).then_some(page)
    })
    .await;
    assert!(
        page.contains("below [audit] min_free (2 MiB): no record is written: enlarge the disk"),
        "{page}"
    );
    let chinese = proxy.admin("/", "Accept-Language: zh\r\n").await;
    let text = chinese.text();
    assert!(text.contains("无法应答：审计记录无法写入") && text.contains("请扩大磁盘"), "{text}");
    let answer = proxy.admin("/page/audit", "").await;
    assert_eq!(answer.status, 200, "the audit can still be read: {}", answer.text());
}

#[tokio::test]
async fn an_audit_that_takes_no_record_is_named_alone_with_the_remedy() {
    let carrier = carrier().await;
    for (policy, said) in [
        ("refuse", ["Not answering: audit records cannot be written", "无法应答：审计记录无法写入"]),
        (
            "answer",
            ["Answering without records: the audit cannot be written", "正在应答但没有记录：审计无法写入"],
        ),
    ] {
        let proxy = Setup::with_carrier(&carrier).set("audit.on_failure", policy).start().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        let mut browser = logged_in(&proxy).await;
        let segment = rusqlite::Connection::open(proxy.audit_file()).unwrap();
        let broken = "CREATE TRIGGER broken BEFORE INSERT ON record BEGIN SELECT RAISE(ABORT, 'broken by a test'); END";
        segment.execute_batch(broken).unwrap();
        let page = eventually("the trouble", || async {
            proxy.look_up(&MSISDN).await;
            let page = Browser::with(&proxy, browser.cookie()).text("/").await;
            page.contains(said[0]).then_some(page)
        })
        .await;
        let alone = page.matches("<li class=\"error\"><strong>").count();
        assert!(page.contains("<strong>audit</strong>") && alone == 1, "{page}");
        assert!(
            page.contains("broken by a test; check the disk and the mount; the proxy tries again"),
            "{page}"
        );
        let chinese = proxy.admin("/", "Accept-Language: zh\r\n").await;
        let text = chinese.text();
        assert!(text.contains(said[1]) && text.contains("；请检查磁盘和挂载；代理会自动重试"), "{text}");
        segment.execute_batch("DROP TRIGGER broken").unwrap();
        eventually("the end of the trouble", || async {
            proxy.look_up(&MSISDN).await;
            let page = Browser::with(&proxy, browser.cookie()).text("/").await;
            (page.contains("Answering.") && page.contains("No condition needs you.")).then_some(())
        })
        .await;
        // The rows behind the page are there again.
        assert_eq!(browser.get("/page/audit").await.status, 200);
    }
}

#[tokio::test]
async fn a_clock_that_was_set_is_named_with_the_remedy() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).start_clocked().await;
    assert!(proxy.admin("/").await.text().contains("Answering."));
    proxy.clock.step(3_600);
    let page = eventually("the alarm", || async {
        let page = proxy.admin("/").await.text().to_owned();
        page.contains("<strong>clock</strong>").then_some(page)
    })
    .await;
    assert!(page.contains("check the clock (`timedatectl`, `chronyc tracking`)"), "{page}");
    proxy.stop().await;
}
