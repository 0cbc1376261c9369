//! Tables as CSV (RFC 4180): what a page shows, with masked cards. A text that a spreadsheet would run is made text.

use axum::body::Body;
use hyper::Response;
use hyper::header::{self, HeaderValue};

use crate::audit::render;
use crate::store::audit::query::Field;

/// A file with a header line.
pub(super) fn response<const N: usize>(
    name: &'static str,
    head: &[&str; N],
    lines: impl Iterator<Item = [String; N]>,
) -> Response<Body> {
    file(name, head, lines.map(|line| line.map(Field::Text).to_vec()))
}

/// A file with a header line, of rows of any number of fields.
pub(super) fn file(name: &str, head: &[&str], lines: impl Iterator<Item = Vec<Field>>) -> Response<Body> {
    let mut text = head.join(",") + "\r\n";
    for line in lines {
        text.push_str(&render::csv_line(&line));
        text.push_str("\r\n");
    }
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}
