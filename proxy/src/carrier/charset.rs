//! The content type of a relayed body. The charset is the one that the carrier named, since the bytes are relayed as they
//! are. If the carrier named none, a body that is valid UTF-8 is labelled UTF-8, and any other body has no charset.

use hyper::header::{self, HeaderMap, HeaderValue};

/// The longest charset name that is relayed; IANA's have 45 characters at most.
const LONGEST: usize = 48;

/// A `Content-Type` for JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContentType(HeaderValue);

impl ContentType {
    /// JSON in UTF-8, as the carrier writes it.
    pub const UTF_8: Self = Self(HeaderValue::from_static("application/json;charset=UTF-8"));

    /// JSON in an encoding that is not known.
    const UNNAMED: Self = Self(HeaderValue::from_static("application/json"));

    /// The content type of a carrier response.
    pub fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let named = headers.get(header::CONTENT_TYPE).and_then(|value| named(value.to_str().ok()?));
        match named {
            Some(charset) => Self::with(charset),
            None if std::str::from_utf8(body).is_ok() => Self::UTF_8,
            None => Self::UNNAMED,
        }
    }

    /// From the charset that [`Self::charset`] returned.
    pub fn stored(charset: Option<&str>) -> Self {
        match charset {
            None => Self::UTF_8,
            Some(charset) if is_name(charset) => Self::with(charset),
            Some(_) => Self::UNNAMED,
        }
    }

    /// The charset; `None` for UTF-8, and empty if there is none.
    pub fn charset(&self) -> Option<&str> {
        if *self == Self::UTF_8 {
            return None;
        }
        let text = self.0.to_str().unwrap_or_default();
        Some(text.split_once("charset=").map_or("", |(_, charset)| charset))
    }

    pub fn value(&self) -> HeaderValue {
        self.0.clone()
    }

    fn with(charset: &str) -> Self {
        if charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8") {
            return Self::UTF_8;
        }
        // A token (RFC 9110 5.6.2) is valid in a header.
        HeaderValue::from_str(&format!("application/json;charset={charset}")).map_or(Self::UNNAMED, Self)
    }
}

/// The `charset` parameter of a media type (RFC 9110 8.3.1), if it is a valid name.
fn named(media_type: &str) -> Option<&str> {
    let mut parameters = media_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Some(value.trim().trim_matches('"')).filter(|charset| is_name(charset))
}

/// Letters, digits and the other characters that RFC 2978 allows.
fn is_name(charset: &str) -> bool {
    (1..=LONGEST).contains(&charset.len())
        && charset.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&+-^_`{}~.:()".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content_type: Option<&str>, body: &[u8]) -> ContentType {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        ContentType::of(&headers, body)
    }

    #[test]
    fn the_named_charset_is_relayed_and_none_is_invented() {
        const GBK: &[u8] = b"\xd5\xfd\xc8\xb7";
        for (content_type, body, relayed) in [
            (Some("application/json;charset=GBK"), GBK, "application/json;charset=GBK"),
            (Some("text/html; Charset = \"gb2312\""), GBK, "application/json;charset=gb2312"),
            (Some("application/json;charset=utf-8"), b"{}", "application/json;charset=UTF-8"),
            (Some("application/json;charset=UTF-8"), GBK, "application/json;charset=UTF-8"),
            (Some("application/json"), b"{}", "application/json;charset=UTF-8"),
            (Some("application/json"), GBK, "application/json"),
            (None, GBK, "application/json"),
            (Some("application/json;charset=a b"), b"{}", "application/json;charset=UTF-8"),
        ] {
            let found = of(content_type, body);
            assert_eq!(found.value(), relayed, "{content_type:?}");
            assert_eq!(ContentType::stored(found.charset()), found, "{content_type:?}");
        }
    }
}
