//! A browser without scripts: it keeps cookies, and posts forms with the token of its session.

use std::net::SocketAddr;

use crate::support::{Connection, Proxy, Response};

/// A browser.
pub(super) struct Browser {
    address: SocketAddr,
    /// `name=value`.
    cookies: Vec<String>,
}

impl Browser {
    pub(super) fn of(proxy: &Proxy) -> Self {
        Self { address: proxy.admin_address(), cookies: Vec::new() }
    }

    /// The same browser at another proxy of its host.
    pub(super) fn at(self, proxy: &Proxy) -> Self {
        Self { address: proxy.admin_address(), ..self }
    }

    /// A browser with the cookie of a session.
    pub(super) fn with(proxy: &Proxy, cookie: &str) -> Self {
        Self { cookies: vec![cookie.to_owned()], ..Self::of(proxy) }
    }

    /// Logs in with the token that the proxy generated.
    pub(super) async fn log_in(&mut self, proxy: &Proxy) {
        self.log_in_with(&proxy.generated_token().expect("a generated token")).await;
    }

    pub(super) async fn log_in_with(&mut self, token: &str) {
        let response = self.post("/page/login", &[("token", token)]).await;
        assert_eq!(response.status, 303, "{}", response.text());
    }

    pub(super) async fn get(&mut self, path: &str) -> Response {
        self.get_with(path, "").await
    }

    /// GETs with more header lines.
    pub(super) async fn get_with(&mut self, path: &str, headers: &str) -> Response {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}", self.address);
        self.send(head, "").await
    }

    /// GETs with this host.
    pub(super) async fn get_as(&mut self, path: &str, host: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n"), "").await
    }

    /// The status of one GET with this cookie.
    pub(super) async fn get_once(proxy: &Proxy, path: &str, cookie: &str) -> u16 {
        Self::with(proxy, cookie).get(path).await.status
    }

    /// The token of the session's forms, as the page has it.
    pub(super) async fn csrf(&mut self) -> String {
        let page = self.get("/").await;
        let (_, rest) = page.text().split_once("name=\"csrf\" value=\"").expect("a form");
        rest.split('"').next().expect("a value").to_owned()
    }

    /// Posts a form of the session.
    pub(super) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Response {
        let csrf = if path == "/page/login" { String::new() } else { self.csrf().await };
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields.iter().filter(|(name, _)| *name != "csrf"));
        if !csrf.is_empty() {
            form.append_pair("csrf", &csrf);
        }
        self.post_raw(path, "application/x-www-form-urlencoded", &form.finish(), "").await
    }

    /// Posts a body as it is.
    pub(super) async fn post_raw(
        &mut self,
        path: &str,
        media_type: &str,
        body: &str,
        headers: &str,
    ) -> Response {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n{headers}",
            self.address,
            body.len()
        );
        self.send(head, body).await
    }

    /// Enters a card, and returns the path of its page.
    pub(super) async fn enter(&mut self, kind: &str, number: &str) -> String {
        let found = self.post("/page/card", &[("kind", kind), ("number", number)]).await;
        assert_eq!(found.status, 303, "{}", found.text());
        found.header("location").expect("a page").to_owned()
    }

    /// The text of a page.
    pub(super) async fn text(&mut self, path: &str) -> String {
        let page = self.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        page.text().to_owned()
    }

    /// The numbers of the rows that a page of the audit lists, as they are listed.
    pub(super) async fn row_ids(&mut self, query: &str) -> Vec<String> {
        let page = self.text(&format!("/page/audit?{query}")).await;
        let rows = page.split("/page/audit/row?id=").skip(1);
        rows.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect()).collect()
    }

    /// The connection of a stream.
    pub(super) async fn stream(&self, path: &str) -> Connection {
        let mut connection = Connection::to(self.address).await;
        let (host, cookies) = (self.address, self.cookies.join("; "));
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n\r\n")).await;
        connection
    }

    /// The cookie of the session.
    pub(super) fn cookie(&self) -> &str {
        self.cookies.iter().find(|cookie| cookie.starts_with("cmiot_session_")).expect("a session")
    }

    /// Takes a cookie as a response sets it.
    pub(super) fn set_cookie(&mut self, header: &str) {
        let pair = header.split(';').next().expect("a pair").to_owned();
        let (name, value) = pair.split_once('=').expect("a name and a value");
        self.cookies.retain(|cookie| !cookie.starts_with(&format!("{name}=")));
        if !value.is_empty() {
            self.cookies.push(pair);
        }
    }

    async fn send(&mut self, head: String, body: &str) -> Response {
        let mut connection = Connection::to(self.address).await;
        let cookies = match self.cookies.is_empty() {
            true => String::new(),
            false => format!("Cookie: {}\r\n", self.cookies.join("; ")),
        };
        connection.send(format!("{head}{cookies}\r\n{body}")).await;
        let response = connection.response().await;
        if let Some(cookie) = response.header("set-cookie") {
            let cookie = cookie.to_owned();
            self.set_cookie(&cookie);
        }
        response
    }
}
