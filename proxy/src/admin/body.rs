//! The body of an admin request: JSON of at most 4 KiB, within the timeout `[gateway]` `body`.

use std::time::Duration;

use cmiot_signer::{Card, CardKind};
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};

/// Maximum size of a body; every valid request is shorter.
const MAX_BYTES: usize = 4 << 10;

/// Reads a body that must arrive within `timeout`; an error is a message for the client.
pub(super) async fn json<T: DeserializeOwned>(
    request: Request<Incoming>,
    timeout: Duration,
) -> Result<T, String> {
    let body = Limited::new(request.into_body(), MAX_BYTES).collect();
    let body = crate::clock::timeout(timeout, body).await.map_err(|_| "the body is too late".to_owned())?;
    let body = body.map_err(|_| "the body is longer than 4 KiB, or incomplete".to_owned())?.to_bytes();
    object(&body)
}

/// Reads an object; serde would read an array by position.
fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err("invalid request body: not an object, such as {\"msisdn\":\"1064...\"}".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("invalid request body: {error}"))
}

/// The card of a request that may name one of them.
pub(super) fn card(
    msisdn: Option<&str>,
    iccid: Option<&str>,
    imsi: Option<&str>,
) -> Result<Option<Card>, String> {
    let named = [(CardKind::Msisdn, msisdn), (CardKind::Iccid, iccid), (CardKind::Imsi, imsi)];
    let mut named = named.into_iter().filter_map(|(kind, number)| Some((kind, number?)));
    let Some((kind, number)) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        return Err("name one card: msisdn, iccid or imsi".to_owned());
    }
    Card::parse(kind, number).map(Some).map_err(|error| format!("{}: {error}", kind.as_str()))
}

/// Reads an optional value that must not be `null`, since `null` would select everything.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Reads an optional whole number, which JSON may write as `100.0`, and which must not be `null`.
pub(super) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i64>>(from: D) -> Result<Option<T>, D::Error> {
    /// A double represents every whole number up to this one exactly.
    const EXACT: f64 = (1_u64 << 53) as f64;
    let number = serde_json::Number::deserialize(from)?;
    let exact = || number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT);
    let whole = number.as_i64().or_else(|| exact().map(|number| number as i64));
    let fitting = whole.and_then(|whole| T::try_from(whole).ok());
    fitting.map(Some).ok_or_else(|| D::Error::custom("not a whole number in range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_is_read() {
        #[derive(serde::Deserialize, Debug, PartialEq)]
        struct Wanted {
            #[serde(default)]
            card: Option<String>,
        }
        assert_eq!(object(b" \r\n\t{\"card\":\"1\"}"), Ok(Wanted { card: Some("1".into()) }));
        for text in ["[\"1\"]", "[]", " [\"1\"]", "\"1\"", "null", "1", ""] {
            assert!(object::<Wanted>(text.as_bytes()).unwrap_err().contains("not an object"), "{text}");
        }
    }
}
