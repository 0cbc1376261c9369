//! The operators' page over plain HTTP: log-in, roles, forms, headers, escaping, languages.

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Pki, Proxy, Setup, carrier, eventually, secrets, within, write_secret};
use client::Browser;

mod cards;
mod client;
mod tables;
mod troubles;

/// A token of this role, in its file.
fn with_token(setup: Setup, folder: &std::path::Path, role: &str) -> (Setup, String) {
    let token = format!("the-token-of-the-{role}-role");
    secrets::register(&token);
    write_secret(&folder.join(role), &token);
    let entry =
        format!("name = \"{role} person\"\nrole = \"{role}\"\ntoken_file = \"{role}\"").parse().unwrap();
    (setup.push("admin.access", entry), token)
}

async fn proxy() -> Proxy {
    Proxy::with_carrier(&carrier().await).await
}

#[tokio::test]
async fn a_page_without_a_session_leads_to_the_log_in_and_from_there_back() {
    let proxy = proxy().await;
    let mut browser = Browser::of(&proxy);
    let response = browser.get("/").await;
    assert_eq!((response.status, response.header("location")), (303, Some("/page/login")));
    let response = browser.get("/page/language?to=zh&back=//evil.example/").await;
    assert_eq!((response.status, response.header("location")), (303, Some("/")));
    let mut browser = Browser::of(&proxy);
    let response = browser.get("/page/nothing?a=b").await;
    assert_eq!(response.header("location"), Some("/page/login?next=%2Fpage%2Fnothing%3Fa%3Db"));
    let page = browser.get("/page/login?next=/page/nothing").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("name=\"next\" value=\"/page/nothing\""), "{}", page.text());
    let token = proxy.generated_token().unwrap();
    let wrong = browser.post("/page/login", &[("token", "0123456789abcdef"), ("next", "/")]).await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("set-cookie").is_none() && wrong.text().contains("not a token"), "{}", wrong.text());
    let right = browser.post("/page/login", &[("token", &token), ("next", "//evil.example")]).await;
    assert_eq!((right.status, right.header("location")), (303, Some("/")));
    let cookie = right.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    let page = browser.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Answering."), "{}", page.text());
    assert!(!page.text().contains(&token) && !cookie.contains(&token));
    assert_eq!(browser.get("/page/nothing").await.status, 404);
    let out = browser.post("/page/logout", &[]).await;
    assert_eq!((out.status, out.header("location")), (303, Some("/page/login")));
    assert_eq!(browser.get("/").await.status, 303);
    browser.set_cookie(cookie);
    assert_eq!(browser.get("/").await.status, 303, "the session has ended, not only its cookie");
}

#[tokio::test]
async fn under_tls_the_cookie_of_a_session_is_secure() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (folder, setup) = Setup::with_carrier(&carrier).tls(&pki, "admin", "localhost");
    let proxy = Proxy::start_in(folder, setup).await;
    let form = format!("token={}", proxy.generated_token().unwrap());
    let request = format!(
        "POST /page/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    );
    let tcp = TcpStream::connect(proxy.admin_address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = pki.client(None, b"http/1.1").connect(name, tcp).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    within("the response", stream.read_to_end(&mut response)).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 303 "), "{response}");
    let cookie = response.lines().find(|line| line.starts_with("set-cookie: ")).unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
}

#[tokio::test]
async fn two_proxies_at_two_ports_of_one_host_leave_each_other_logged_in() {
    let (one, other) = (proxy().await, proxy().await);
    assert_eq!(one.admin_address().ip(), other.admin_address().ip());
    let mut browser = Browser::of(&one);
    browser.log_in(&one).await;
    let mut browser = browser.at(&other);
    assert_eq!(browser.get("/").await.status, 303, "it has no session there");
    browser.log_in(&other).await;
    assert_eq!(browser.get("/").await.status, 200);
    let mut browser = browser.at(&one);
    assert_eq!(browser.get("/").await.status, 200, "the other log-in has not ended this session");
    assert_eq!(browser.post("/page/logout", &[]).await.status, 303);
    assert_eq!(browser.get("/").await.status, 303);
    assert_eq!(browser.at(&other).get("/").await.status, 200, "nor has the log-out");
}

#[tokio::test]
async fn a_form_of_no_session_or_of_another_origin_is_refused() {
    let proxy = proxy().await;
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let csrf = browser.csrf().await;
    let (form, right) = ("application/x-www-form-urlencoded", format!("csrf={csrf}"));
    for (media_type, body, headers) in [
        (form, String::new(), ""),
        (form, "csrf=".to_owned(), ""),
        (form, format!("csrf={}", "A".repeat(csrf.len())), ""),
        (form, format!("{right}&{right}"), ""),
        (form, right.clone(), "Origin: http://127.0.0.1:1\r\n"),
        (form, right.clone(), "Origin: null\r\n"),
        (form, right.clone(), "Sec-Fetch-Site: same-site\r\n"),
        (form, right.clone(), "Sec-Fetch-Site: cross-site\r\n"),
        ("text/plain", right.clone(), ""),
        ("application/json", format!("{{\"csrf\":\"{csrf}\"}}"), ""),
        (form, format!("{right}&x={}", "y".repeat(5_000)), ""),
    ] {
        let response = browser.post_raw("/page/logout", media_type, &body, headers).await;
        assert_eq!(response.status, 403, "{media_type} {body} {headers}: {}", response.text());
    }
    assert_eq!(browser.get("/").await.status, 200, "the session goes on");
    let mut other = Browser::of(&proxy);
    other.log_in(&proxy).await;
    assert_eq!(other.post_raw("/page/logout", form, &right, "").await.status, 403, "of another session");
    let origin = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", proxy.admin_address());
    assert_eq!(browser.post_raw("/page/logout", form, &right, &origin).await.status, 303);
}

#[tokio::test]
async fn a_page_that_another_host_or_site_leads_to_is_refused() {
    let proxy = proxy().await;
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    for headers in
        ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n", "Origin: http://evil.example\r\n"]
    {
        let response = browser.get_with("/", headers).await;
        assert_eq!(response.status, 403, "{headers}");
        assert!(response.text().contains("href=\"/\""), "a link that works: {}", response.text());
    }
    let response = browser.get_as("/", "evil.example").await;
    assert_eq!(response.status, 403, "a rebound name");
    assert_eq!(browser.get_as("/page/login", "evil.example").await.status, 403);
    let localhost = format!("localhost:{}", proxy.admin_address().port());
    assert_eq!(browser.get_as("/", &localhost).await.status, 200);
}

#[tokio::test]
async fn every_response_forbids_what_the_page_does_not_use() {
    let proxy = proxy().await;
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    for (path, status) in [
        ("/", 200),
        ("/page/login", 200),
        ("/page/nothing", 404),
        ("/page/assets/page.css", 200),
        ("/page/assets/htmx.min.js", 200),
        ("/page/assets/nothing", 404),
    ] {
        let response = browser.get(path).await;
        assert_eq!(response.status, status, "{path}");
        let policy = response.header("content-security-policy").unwrap();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.split("; ").any(|one| one == directive), "{path}: {directive}");
        }
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("referrer-policy"), Some("same-origin"));
        let text = response.text();
        if !path.ends_with(".js") {
            for inline in ["<script>", "style=", "onclick=", "javascript:", "http://", "https://"] {
                assert!(!text.contains(inline), "{path}: {inline}");
            }
        }
    }
}

#[tokio::test]
async fn log_ins_that_fail_are_limited_per_peer() {
    let proxy = proxy().await;
    let mut browser = Browser::of(&proxy);
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(browser.post("/page/login", &[("token", "0123456789abcdef")]).await.status);
    }
    assert_eq!((statuses[0], statuses[9], statuses[11]), (401, 401, 429), "{statuses:?}");
    let token = proxy.generated_token().unwrap();
    let refused = browser.post("/page/login", &[("token", &token)]).await;
    assert_eq!(refused.status, 429, "the right token tells no guesser that it is right");
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn a_session_ends_when_a_reload_removes_its_token() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let (setup, token) = with_token(Setup::with_carrier(&carrier), folder.path(), "view");
    let proxy = Proxy::start_in(folder, setup).await;
    let mut browser = Browser::of(&proxy);
    browser.log_in_with(&token).await;
    let page = browser.get("/").await;
    assert!(page.text().contains("view_person"), "{}", page.text());
    write_secret(&proxy.config().parent().unwrap().join("view"), "another-token-of-this-role");
    assert_eq!(proxy.admin_post("/config/reload", "", "").await.status, 200);
    eventually("the end of the session", || async {
        (Browser::get_once(&proxy, "/", browser.cookie()).await == 303).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_token_the_page_is_open_and_its_forms_still_need_their_session() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("admin.token", "none").start().await;
    let mut browser = Browser::of(&proxy);
    let page = browser.get("/").await;
    assert_eq!(page.status, 200);
    assert!(!page.text().contains("/page/logout"), "there is nothing to log out of");
    assert!(page.header("set-cookie").unwrap().contains("HttpOnly"));
    let form = "application/x-www-form-urlencoded";
    assert_eq!(browser.post_raw("/page/nothing", form, "", "").await.status, 403);
    assert!(browser.get("/").await.header("set-cookie").is_none(), "one session per browser");
}

#[tokio::test]
async fn the_page_is_in_the_language_of_the_browser_until_it_is_switched() {
    let proxy = proxy().await;
    let mut browser = Browser::of(&proxy);
    browser.log_in(&proxy).await;
    let chinese = browser.get_with("/", "Accept-Language: zh-CN,zh;q=0.9\r\n").await;
    assert!(
        chinese.text().contains("<html lang=\"zh-CN\">") && chinese.text().contains("正常应答。"),
        "{}",
        chinese.text()
    );
    let english = browser.get("/").await;
    assert!(english.text().contains("<html lang=\"en\">") && english.text().contains("Answering."));
    let switched = browser.get("/page/language?to=zh&back=/").await;
    assert_eq!((switched.status, switched.header("location")), (303, Some("/")));
    assert!(browser.get_with("/", "Accept-Language: en\r\n").await.text().contains("正常应答。"));
}
