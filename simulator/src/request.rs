//! A request as the carrier reads it: a path, and parameters from the URL and from a form body.
//!
//! Order is irrelevant, unknown parameters are ignored, an empty value counts as absent, and a repeated equal value
//! counts once; two different values of one parameter are an error (code 10).

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, header};

use crate::card::{Card, CardKind};

/// The largest body read. A call's parameters are some 250 bytes.
const MAX_BODY: usize = 64 << 10;

/// One request, read to its end.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The URL's query, as sent.
    pub(crate) query: String,
    pub(crate) body: Bytes,
    /// Whether the body's content type is JSON.
    pub(crate) is_json: bool,
    /// The parameters as API v2 reads them.
    pub(crate) parameters: Parameters,
}

impl Request {
    /// Reads head and body; `None` when the caller disconnected early or sent more than 64 KiB.
    pub(crate) async fn read(request: hyper::Request<Incoming>) -> Option<Self> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.ok()?.to_bytes();
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let is_json = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        let mut parameters = Parameters::default();
        let query = head.uri.query().unwrap_or_default().to_owned();
        parameters.add(query.as_bytes());
        if head.method == Method::POST && !is_json {
            parameters.add(&body);
        }
        let path = head.uri.path().to_owned();
        Some(Self { method: head.method, path, query, body, is_json, parameters })
    }
}

/// The parameters that have a value.
#[derive(Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Adds the parameters of an `application/x-www-form-urlencoded` text.
    pub(crate) fn add(&mut self, form: &[u8]) {
        let pairs = form_urlencoded::parse(form).filter(|(_, value)| !value.is_empty());
        self.0.extend(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())));
    }

    /// Adds one parameter, unless its value is empty.
    pub(crate) fn push(&mut self, name: String, value: String) {
        if !value.is_empty() {
            self.0.push((name, value));
        }
    }

    /// The value of `name`, if any; code 10 if there are two.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<&str>, &'static str> {
        let mut values = self.0.iter().filter(|(one, _)| one == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.any(|other| Some(other) != first) { Err("10") } else { Ok(first) }
    }

    /// The value of `name` for the log: empty if there is none, or two.
    pub(crate) fn sent(&self, name: &str) -> String {
        self.optional(name).ok().flatten().unwrap_or_default().to_owned()
    }

    /// The value of `name`; code 10 unless there is exactly one.
    pub(crate) fn required(&self, name: &str) -> Result<&str, &'static str> {
        self.optional(name)?.ok_or("10")
    }

    /// The one card; code 10 for none or several, 38 for a malformed one.
    pub(crate) fn card(&self) -> Result<Card, &'static str> {
        let mut card = None;
        for kind in CardKind::ALL {
            if let Some(value) = self.optional(kind.parameter())?
                && card.replace((kind, value)).is_some()
            {
                return Err("10");
            }
        }
        let (kind, value) = card.ok_or("10")?;
        Card::read(kind, value).ok_or("38")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(forms: &[&str]) -> Parameters {
        let mut parameters = Parameters::default();
        for form in forms {
            parameters.add(form.as_bytes());
        }
        parameters
    }

    #[test]
    fn url_and_body_are_one_set() {
        let parameters = of(&["appid=0NZ&x=1", "token=a%2Bb+c&appid=0NZ"]);
        assert_eq!(parameters.required("appid"), Ok("0NZ"));
        assert_eq!(parameters.required("token"), Ok("a+b c"));
        assert_eq!(parameters.required("ebid"), Err("10"));
    }

    #[test]
    fn two_different_values_are_refused() {
        assert_eq!(of(&["appid=1&appid=2"]).optional("appid"), Err("10"));
        assert_eq!(of(&["appid=1", "appid=2"]).required("appid"), Err("10"));
    }

    #[test]
    fn an_empty_value_is_an_absent_one() {
        let card = of(&["msisdn=&iccid=898600D6991330004146&imsi="]).card();
        assert_eq!(card.map(|card| card.kind), Ok(CardKind::Iccid));
        assert_eq!(of(&["appid="]).optional("appid"), Ok(None));
    }

    #[test]
    fn there_is_exactly_one_card() {
        for (form, code) in [
            ("", "10"),
            ("msisdn=1&imsi=2", "10"),
            ("imsi=1&imsi=2", "10"),
            ("msisdn=x", "38"),
            ("iccid=1", "38"),
        ] {
            assert_eq!(of(&[form]).card(), Err(code), "{form}");
        }
    }
}
