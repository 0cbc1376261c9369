//! The parameters of a call of API v5: a JSON object of texts by POST, the URL by GET.

use hyper::Method;
use serde_json::{Map, Value};

use crate::request::{Parameters, Request};

/// Parameters whose presence in a URL counts as a secret there.
const SECRETS: [&str; 2] = ["password", "token"];

/// The parameters of `request` and whether its URL has a secret. `None` in place of the parameters for a POST whose body
/// is not a JSON object of texts and numbers.
pub(crate) fn parameters(request: &Request) -> (Option<Parameters>, bool) {
    let mut in_url = Parameters::default();
    in_url.add(request.query.as_bytes());
    let secret_in_url = SECRETS.iter().any(|name| in_url.optional(name) != Ok(None));
    if request.method != Method::POST {
        return (Some(in_url), secret_in_url);
    }
    (if request.is_json { json(&request.body) } else { None }, secret_in_url)
}

fn json(body: &[u8]) -> Option<Parameters> {
    let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let mut parameters = Parameters::default();
    for (name, value) in object {
        match value {
            Value::String(text) => parameters.push(name, text),
            Value::Number(number) => parameters.push(name, number.to_string()),
            _ => return None,
        }
    }
    Some(parameters)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(method: Method, query: &str, body: &'static str) -> Request {
        Request {
            method,
            path: String::new(),
            query: query.to_owned(),
            body: Bytes::from_static(body.as_bytes()),
            is_json: true,
            parameters: Parameters::default(),
        }
    }

    #[test]
    fn a_post_has_its_parameters_in_the_body_only() {
        let (read, secret) = parameters(&request(Method::POST, "transid=1", r#"{"appid":"2","refresh":0}"#));
        let read = read.unwrap();
        assert_eq!((read.optional("appid"), read.optional("refresh")), (Ok(Some("2")), Ok(Some("0"))));
        assert_eq!((read.optional("transid"), secret), (Ok(None), false));
    }

    #[test]
    fn a_get_has_its_parameters_in_the_url() {
        let (read, secret) = parameters(&request(Method::GET, "token=a%2Bb", r#"{"token":"c"}"#));
        assert_eq!((read.unwrap().optional("token"), secret), (Ok(Some("a+b")), true));
    }

    #[test]
    fn a_body_that_is_no_object_of_texts_has_no_parameters() {
        for body in ["", "[]", "\"a\"", r#"{"token":["a"]}"#, r#"{"token":null}"#, r#"{"a":"b"} x"#] {
            assert!(parameters(&request(Method::POST, "", body)).0.is_none(), "{body}");
        }
    }
}
