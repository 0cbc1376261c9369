//! The envelope of API v5: that of v2, with nested lists and numbers in its result.

use crate::behaviour::{Answer, Behaviour};
use crate::card::Card;
use crate::envelope;
use crate::v5::Operation;

/// A field of a result.
pub(super) type Field = (&'static str, Value);

/// The value of a field.
pub(super) enum Value {
    /// A string.
    Text(String),
    /// JSON, as it is.
    Json(String),
    /// An array of objects.
    List(Vec<Vec<Field>>),
}

/// The result of a reply, without the changes that a script makes.
pub(crate) enum Reply {
    /// An empty array.
    Empty,
    /// The default result of a query.
    Query(Operation, Card),
    /// A token, and its ttl as JSON, if any.
    Token { text: String, ttl: Option<String> },
    /// The token `-1` of a refused fetch.
    NoToken,
}

impl Reply {
    /// The whole body, as `behaviour` says.
    pub(crate) fn write(&self, behaviour: &Behaviour) -> String {
        let code = behaviour.answer.code().unwrap_or("0");
        let verdict = match &behaviour.answer {
            Answer::Status(status) => Some(status.as_str()),
            _ => None,
        };
        let result = match self {
            Self::NoToken => vec![vec![("token", Value::Text("-1".to_owned()))]],
            _ if code != "0" => Vec::new(),
            Self::Empty => Vec::new(),
            Self::Query(operation, card) => one(operation.result(card, verdict)),
            Self::Token { text, ttl } => {
                let mut fields = vec![("token", Value::Text(verdict.unwrap_or(text).to_owned()))];
                fields.extend(ttl.clone().map(|ttl| ("ttl", Value::Json(ttl))));
                one(fields)
            }
        };
        let mut out = envelope::head(code, text(code), behaviour.escaped, behaviour.numeric);
        list(&mut out, &result, behaviour.escaped);
        out.push('}');
        out
    }
}

/// A result of one object, or an empty one without fields.
fn one(fields: Vec<Field>) -> Vec<Vec<Field>> {
    if fields.is_empty() { Vec::new() } else { vec![fields] }
}

fn list(out: &mut String, objects: &[Vec<Field>], escaped: bool) {
    out.push('[');
    for (at, fields) in objects.iter().enumerate() {
        out.push_str(if at == 0 { "{" } else { ",{" });
        for (at, (name, value)) in fields.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            envelope::string(out, name, escaped);
            out.push(':');
            match value {
                Value::Text(text) => envelope::string(out, text, escaped),
                Value::Json(json) => out.push_str(json),
                Value::List(objects) => list(out, objects, escaped),
            }
        }
        out.push('}');
    }
    out.push(']');
}

/// The text for a code of v5; a general text for codes whose real text is unknown.
fn text(code: &str) -> &'static str {
    match code {
        "0" => "正确",
        "11000" => "请求参数不正确",
        "11011" => "卡号不存在",
        "12004" => "APPID不正确",
        "12007" | "12008" | "12009" | "12010" => "卡号不属于该客户",
        "12021" => "TOKEN已过期",
        "12022" => "PASSWORD鉴权不通过",
        "13000" => "系统繁忙，请稍后再试",
        _ => "调用失败",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::CardKind;

    fn behaviour(answer: Answer) -> Behaviour {
        Behaviour { answer, ..Behaviour::default() }
    }

    fn query(operation: Operation) -> Reply {
        Reply::Query(operation, Card { kind: CardKind::Msisdn, number: "14400000001".to_owned() })
    }

    #[test]
    fn a_status_is_written_as_public_clients_read_it() {
        let body = query(Operation::SimStatus).write(&behaviour(Answer::Status("2".to_owned())));
        let expected = r#"{"status":"0","message":"正确","result":[{"cardStatus":"2","lastChangeDate":"20260516103000"}]}"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn a_session_is_a_list_in_the_result() {
        let body = query(Operation::SimSession).write(&behaviour(Answer::Default));
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read["result"][0]["simSessionList"][0]["status"], "01");
        let body = query(Operation::SimSession).write(&behaviour(Answer::Status(String::new())));
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read["result"][0]["simSessionList"], serde_json::json!([]));
    }

    #[test]
    fn a_failure_and_an_action_have_an_empty_result() {
        let failed = query(Operation::SimStatus).write(&behaviour(Answer::Code("12021".to_owned())));
        assert_eq!(failed, r#"{"status":"12021","message":"TOKEN已过期","result":[]}"#);
        let done = query(Operation::SmsReset).write(&behaviour(Answer::Default));
        assert_eq!(done, r#"{"status":"0","message":"正确","result":[]}"#);
    }

    #[test]
    fn a_token_has_its_ttl_as_configured() {
        for (ttl, end) in
            [(Some("\"3600\""), r#","ttl":"3600"}]}"#), (Some("-1"), r#","ttl":-1}]}"#), (None, r#""t"}]}"#)]
        {
            let reply = Reply::Token { text: "t".to_owned(), ttl: ttl.map(str::to_owned) };
            let body = reply.write(&behaviour(Answer::Default));
            assert!(body.contains(r#"[{"token":"t""#) && body.ends_with(end), "{body}");
        }
        let refused = Reply::NoToken.write(&behaviour(Answer::Code("12022".to_owned())));
        assert!(refused.ends_with(r#""result":[{"token":"-1"}]}"#), "{refused}");
    }
}
