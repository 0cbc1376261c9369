//! The body of an operator's request: JSON, within 4 KiB and `[gateway]` `body`.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};

/// More than any of these requests needs.
const LONGEST: usize = 4 << 10;

/// Reads a body that must be there after `patience`; an error is for whoever sent it.
pub(super) async fn json<T: DeserializeOwned>(
    request: Request<Incoming>,
    patience: Duration,
) -> Result<T, String> {
    let body = Limited::new(request.into_body(), LONGEST).collect();
    let body = crate::clock::timeout(patience, body).await.map_err(|_| "the body is late".to_owned())?;
    let body = body.map_err(|_| "the body is longer than 4 KiB, or was cut off".to_owned())?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| format!("not the JSON that is wanted here: {error}"))
}

/// Reads a value that may be left out, and is not `null` where it is there: `null` would select everything.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// The same for a whole number, which JSON may write as `100.0`.
pub(super) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i64>>(from: D) -> Result<Option<T>, D::Error> {
    /// Every whole number up to here is itself as a double.
    const EXACT: f64 = (1_u64 << 53) as f64;
    let number = serde_json::Number::deserialize(from)?;
    let written = || number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT);
    let whole = number.as_i64().or_else(|| written().map(|number| number as i64));
    let fitting = whole.and_then(|whole| T::try_from(whole).ok());
    fitting.map(Some).ok_or_else(|| D::Error::custom("a whole number is wanted"))
}
