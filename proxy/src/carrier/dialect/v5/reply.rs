//! Replies of API v5, and the replies of API v2 that are made from them.
//!
//! Texts drift and codes do not: no text decides anything. Bytes that are not UTF-8 are replaced, since the fields that
//! count are ASCII.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::tables::{self, GatewayCode, ResultForm, TWINS};
use crate::carrier::Call;
use crate::carrier::dialect::{Read, TokenReply, v2};
use crate::carrier::verdict::{Class, Code, NotAnEnvelope, Translated, Usage, Verdict};
use crate::config::TokenAccess;
use crate::inline_str::InlineStr;

/// The fields of an envelope.
struct Envelope {
    code: Code,
    message: String,
    /// `result[0]`, if it is an object.
    result: Option<Map<String, Value>>,
}

impl Envelope {
    /// # Errors
    /// [`NotAnEnvelope`] for a body that is no JSON object with a `status`.
    fn read(body: &[u8]) -> Result<Self, NotAnEnvelope> {
        Self::parse(&String::from_utf8_lossy(body))
    }

    /// # Errors
    /// As [`Self::read`].
    fn parse(text: &str) -> Result<Self, NotAnEnvelope> {
        let text = text.trim_start_matches('\u{feff}').trim_end_matches('\0');
        let Ok(Value::Object(mut fields)) = serde_json::from_str(text) else {
            return Err(NotAnEnvelope::NotAnObject);
        };
        let code = fields.get("status").and_then(text_of).and_then(|code| Code::parse(&code));
        let result = match fields.remove("result") {
            Some(Value::Array(list)) => list.into_iter().next(),
            other => other,
        };
        Ok(Self {
            code: code.ok_or(NotAnEnvelope::Code)?,
            message: fields.get("message").and_then(text_of).unwrap_or_default(),
            result: match result {
                Some(Value::Object(fields)) => Some(fields),
                _ => None,
            },
        })
    }
}

/// A text or a number as text, without blanks around it.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        // Never as a number, which would lose a leading zero.
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Reads the reply to a query, and makes the one of v2 from it.
///
/// # Errors
/// [`NotAnEnvelope`] for a body that is not a carrier reply: HTML, truncated, without a status.
pub(super) fn read(body: &[u8], call: Call<'_>, access: &TokenAccess) -> Result<Read, NotAnEnvelope> {
    let Envelope { code, message, result } = Envelope::read(body)?;
    let operation = call.operation;
    let meaning = tables::meaning(code.as_str(), !operation.is_lookup());
    let is_known = meaning.is_some();
    let meaning = meaning.unwrap_or(tables::UNKNOWN);
    if meaning.class != Class::Ok {
        let gateway = match meaning.gateway {
            GatewayCode::Same => code.as_str(),
            GatewayCode::Fixed(gateway) => gateway,
            GatewayCode::Card => tables::card_code(call.card),
        };
        let gateway = Code::parse(gateway).unwrap_or(code);
        let text = match meaning.gateway {
            GatewayCode::Same => message.as_str(),
            _ => tables::text_of(gateway.as_str()),
        };
        let said = if is_known { String::new() } else { message.clone() };
        return Ok(Read {
            body: Some(failure(gateway.as_str(), text)),
            verdict: Verdict { code: gateway, class: meaning.class, status: None },
            translated: Some(Arc::new(Translated::failure(code, &said))),
        });
    }
    let form = TWINS.iter().find(|twin| twin.operation == operation.name).map(|twin| &twin.result);
    let fields = result.unwrap_or_default();
    let text = |name: &str| fields.get(name).and_then(text_of);
    let state = matches!(form, Some(ResultForm::CardState)).then(|| text(tables::CARD_STATE)).flatten();
    let state = state.filter(|state| !state.is_empty());
    let made: Vec<(&str, String)> = match form {
        Some(ResultForm::CardState) => match &state {
            Some(state) => {
                let decided = || access.untranslatable.get(state.as_str()).map(String::as_str);
                let Some(status) = tables::status_of(state).or_else(decided) else {
                    return Ok(untranslatable(code, state));
                };
                vec![("STATUS", status.to_owned())]
            }
            None => Vec::new(),
        },
        Some(ResultForm::Sessions) => session(&fields),
        Some(ResultForm::Fields(named)) => named
            .iter()
            .filter_map(|(name, names)| Some((*name, names.iter().find_map(|name| text(name))?)))
            .collect(),
        Some(ResultForm::Done(name, value)) => vec![(*name, (*value).to_owned())],
        None => Vec::new(),
    };
    let body = success(&made);
    Ok(Read {
        // The reader of v2 decides, as it does for a stored reply: a success without the field is not stored.
        verdict: v2::read_reply(&body, operation.verdict)?,
        body: Some(body),
        translated: Some(Arc::new(Translated::success(code, state.as_deref()))),
    })
}

/// The reply of v2 for a card state that v2 does not have.
fn untranslatable(code: Code, state: &str) -> Read {
    let gateway = Code::parse(tables::UNTRANSLATABLE).unwrap_or(code);
    Read {
        body: Some(failure(gateway.as_str(), tables::text_of(gateway.as_str()))),
        verdict: Verdict { code: gateway, class: Class::NotFound, status: None },
        translated: Some(Arc::new(Translated::state(code, state))),
    }
}

/// The session of v2: the first one that is online, or else the first; none is a card that is offline.
fn session(fields: &Map<String, Value>) -> Vec<(&'static str, String)> {
    let Some(Value::Array(sessions)) = fields.get(tables::SESSIONS) else { return Vec::new() };
    let field = |session: &Value, name: &str| session.get(name).and_then(text_of);
    let is_online = |session: &&Value| {
        field(session, tables::SESSION_STATUS).is_some_and(|status| status == tables::ONLINE)
    };
    let chosen = sessions.iter().find(is_online).or(sessions.first());
    let status = match chosen {
        Some(session) => field(session, tables::SESSION_STATUS),
        None => Some(tables::OFFLINE.to_owned()),
    };
    let Some(status) = status else { return Vec::new() };
    let others = tables::SESSION_FIELDS
        .iter()
        .map(|(name, named)| (*name, chosen.and_then(|session| field(session, named)).unwrap_or_default()));
    std::iter::once(("GPRSSTATUS", status)).chain(others).collect()
}

/// The envelope of v2 for a success.
fn success(fields: &[(&str, String)]) -> Bytes {
    let mut out = String::with_capacity(128);
    out.push_str(r#"{"status":"0","message":""#);
    out.push_str(tables::text_of(tables::OK));
    out.push_str(r#"","result":["#);
    for (at, (name, value)) in fields.iter().enumerate() {
        out.push_str(if at == 0 { "{" } else { "," });
        out.push_str(&json(name));
        out.push(':');
        out.push_str(&json(value));
    }
    out.push_str(if fields.is_empty() { "]}" } else { "}]}" });
    Bytes::from(out)
}

/// The envelope of v2 for a failure.
fn failure(code: &str, text: &str) -> Bytes {
    Bytes::from(format!(r#"{{"status":{},"message":{},"result":[]}}"#, json(code), json(text)))
}

/// A text as JSON.
fn json(text: &str) -> String {
    Value::from(text).to_string()
}

/// Reads the reply to a request for a token.
///
/// # Errors
/// [`NotAnEnvelope`] for a body that is not a carrier reply, or a success without a token.
pub(super) fn read_token(body: &[u8]) -> Result<TokenReply, NotAnEnvelope> {
    let envelope = Envelope::parse(&unescaped(body))?;
    let mut result = envelope.result.unwrap_or_default();
    let token = match result.remove("token") {
        Some(Value::String(token)) => Some(Zeroizing::new(token)),
        _ => None,
    };
    if envelope.code.as_str() != tables::OK {
        let known = tables::meaning(envelope.code.as_str(), false);
        let class = match known.as_ref().map(|meaning| meaning.class) {
            // A request for a token has none that could be refused. No account works without a token, whatever the code
            // means: the breaker counts it.
            None | Some(Class::Ok | Class::TokenRefused) => Class::Busy,
            Some(class) => class,
        };
        let gateway = Code::parse("73").unwrap_or(envelope.code);
        return Ok(TokenReply::Refused(Read {
            body: Some(failure(gateway.as_str(), tables::text_of(gateway.as_str()))),
            verdict: Verdict { code: gateway, class, status: None },
            translated: Some(Arc::new(Translated::failure(envelope.code, ""))),
        }));
    }
    let token = token.ok_or(NotAnEnvelope::NoToken)?;
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=tables::MAX_TOKEN).contains(&token.len()) || !is_plain || *token == tables::NO_TOKEN {
        return Err(NotAnEnvelope::NoToken);
    }
    Ok(TokenReply::Token { token, ttl: ttl(result.get("ttl")) })
}

/// A body of JSON in which no character of a token is escaped: the parser decodes an escaped text in memory that it does not
/// wipe. Bytes that are not ASCII are replaced by a control character, which no token has.
fn unescaped(body: &[u8]) -> Zeroizing<String> {
    const NOT_ASCII: char = '\u{7f}';
    let graphic = |digits: &[u8]| {
        let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        (byte.is_ascii_graphic() && byte != b'"' && byte != b'\\').then(|| char::from(byte))
    };
    let mut rest = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    // No character is longer than the bytes that it is made from, so the text never grows and leaves no copy behind.
    let mut text = Zeroizing::new(String::with_capacity(rest.len()));
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\\', [b'/', after @ ..]) => {
                text.push('/');
                rest = after;
            }
            (b'\\', [b'u', b'0', b'0', high, low, after @ ..]) if graphic(&[*high, *low]).is_some() => {
                text.extend(graphic(&[*high, *low]));
                rest = after;
            }
            (b'\\', [b'\\', after @ ..]) => {
                text.push_str(r"\\");
                rest = after;
            }
            (byte, _) => text.push(if byte.is_ascii() { char::from(*byte) } else { NOT_ASCII }),
        }
    }
    text
}

/// The seconds that a token is left: a text or a number. None if that is not said: absent, `0`, or no number.
fn ttl(value: Option<&Value>) -> Option<Duration> {
    let text = text_of(value?)?;
    // Decimals are cut off.
    let whole = text.split_once('.').map_or(text.as_str(), |(whole, _)| whole);
    let seconds: u64 = whole.parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

impl Translated {
    /// A failure with the carrier's code, and its text if the code is not known.
    fn failure(code: Code, message: &str) -> Self {
        let note = note(&format!("carrier code {code}"), message);
        Self { code, state: None, usage: Usage::Unknown, note: Some(note) }
    }

    /// A card state that v2 does not have.
    fn state(code: Code, state: &str) -> Self {
        let shown = note(&format!("carrier {}", tables::CARD_STATE), state);
        Self { note: Some(shown), ..Self::success(code, Some(state)) }
    }

    fn success(code: Code, state: Option<&str>) -> Self {
        let usage = state.and_then(tables::Platform::of).map(tables::Platform::usage).unwrap_or_default();
        Self { code, state: state.map(InlineStr::new), usage, note: None }
    }
}

/// A note for `details` of Proxy-Status (RFC 9209 2.1.5): printable ASCII without quote and backslash. Other bytes of the
/// carrier's text are percent-encoded.
fn note(start: &str, text: &str) -> Arc<str> {
    const LONGEST: usize = 60;
    let mut note = start.to_owned();
    let text = text.trim();
    let kept = &text[..text.floor_char_boundary(LONGEST)];
    for (at, byte) in kept.bytes().enumerate() {
        if at == 0 {
            note.push(' ');
        }
        match byte {
            b'"' | b'\\' | b'%' | ..b' ' | 0x7f.. => note.push_str(&format!("%{byte:02X}")),
            _ => note.push(char::from(byte)),
        }
    }
    note.into()
}

#[cfg(test)]
mod tests;
