//! Pages of other origins, and text of others that looks like a script.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::browser::{Browser, Settings};
use crate::pages::{log_in_to, paths};
use crate::support::{MSISDN, Proxy, Setup, carrier};

#[tokio::test]
async fn a_page_of_another_origin_cannot_act() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let browser = Browser::start(proxy.admin_address(), Settings::default()).await;
    log_in_to(&browser, &proxy).await;
    browser.open("/page/card").await;
    browser.fill("#number", MSISDN.number).await;
    browser.click("form.filter button").await;
    let purge = "form[action='/page/card/purge']:last-child";
    let hidden = async |name: &str| {
        let field = browser.find(&format!("{purge} [name={name}]")).await;
        field.attr("value").await.unwrap().unwrap()
    };
    // Another port of this host is the same site, so that the browser sends the session's cookie along; and even with the
    // token of the form, and with its handle of the card.
    let form = format!(
        "<!doctype html><title>other</title><form method=post action=\"http://{}/page/card/purge\">\
         <input name=csrf value=\"{}\"><input name=of value=\"{}\"><input name=mode value=hard>\
         <input name=confirmed value=yes><button>go</button></form>",
        proxy.admin_address(),
        hidden("csrf").await,
        hidden("of").await
    );
    browser.go(&serve(form).await).await;
    browser.click("button").await;
    browser.find("[role=alert]").await;
    // The refusal is an error, 403, which the browser logs.
    assert!(browser.console().await.iter().any(|line| line.contains("403")));
    assert!(proxy.look_up(&MSISDN).await.cache().starts_with("hit"), "nothing was purged");

    let framed = format!(
        "<!doctype html><title>other</title><iframe src=\"http://{}/\"></iframe>",
        proxy.admin_address()
    );
    browser.go(&serve(framed).await).await;
    let console = browser.console().await;
    assert!(console.iter().any(|line| line.contains("frame")), "{console:?}");
    browser.open("/").await;
    browser.find(".headline").await;
}

/// Serves a page on a free port until the test ends, and returns its URL.
async fn serve(html: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (html, mut request) = (html.clone(), [0; 4096]);
            tokio::spawn(async move {
                let read = stream.read(&mut request).await.unwrap_or(0);
                let is_page = request[..read].starts_with(b"GET / ");
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n\r\n";
                // A browser also asks for an icon, and may leave before the end.
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(if is_page { html.as_bytes() } else { b"" }).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn a_script_in_the_text_of_others_is_text() {
    const SCRIPT: &str = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">";
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier)
        .set("account.0.name", SCRIPT)
        .set("account.0.group", "fleet")
        .set("account.0.calls_per_day", 100);
    let proxy = Proxy::start(setup).await;
    let status = format!(
        "{{\"status\":\"0\",\"message\":\"x\",\"result\":[{{\"STATUS\":{}}}]}}",
        serde_json::json!(SCRIPT)
    );
    carrier.set_rules([cmiot_simulator::Rule::any().body(status)]);
    proxy.look_up(&MSISDN).await;
    let claimed = proxy.sign(&MSISDN).with("appid", SCRIPT).with("transid", SCRIPT);
    proxy.get(&claimed).await;
    let browser = Browser::start(proxy.admin_address(), Settings::default()).await;
    log_in_to(&browser, &proxy).await;
    let mut pages = paths(&browser).await;
    browser.open("/page/audit").await;
    pages.extend(browser.attributes("main tbody td:first-child a", "href").await);
    let mut shown = 0;
    for path in pages {
        browser.open(&path).await;
        assert_eq!(browser.count("main script, main img").await, 0, "{path}");
        shown += usize::from(browser.text("main").await.contains("<script>"));
    }
    assert!(
        shown >= 3,
        "the name of the account, the body of the carrier and the claimed transid are shown: {shown}"
    );
}
