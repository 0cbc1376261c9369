//! The carrier's envelope: `{"status":"0","message":"正确","result":[{"STATUS":"00"}]}`.
//!
//! Compact UTF-8 JSON, `status` a string, `result` an array that is empty on failure; the texts are those of
//! the carrier's table of codes.

use std::fmt::Write as _;

/// The carrier's content type.
pub(crate) const CONTENT_TYPE: &str = "application/json;charset=UTF-8";

/// An envelope, to be written as JSON.
pub(crate) struct Envelope<'a> {
    pub(crate) code: &'a str,
    /// The fields of `result[0]`; none for a failure.
    pub(crate) fields: Vec<(&'static str, String)>,
    /// Write text outside ASCII as `\uXXXX`.
    pub(crate) escaped: bool,
    /// Write `status` as a number if the code is one.
    pub(crate) numeric: bool,
}

impl Envelope<'_> {
    pub(crate) fn write(&self) -> String {
        let mut out = head(self.code, text(self.code), self.escaped, self.numeric);
        out.push('[');
        for (at, (name, value)) in self.fields.iter().enumerate() {
            out.push(if at == 0 { '{' } else { ',' });
            string(&mut out, name, self.escaped);
            out.push(':');
            string(&mut out, value, self.escaped);
        }
        out.push_str(if self.fields.is_empty() { "]}" } else { "}]}" });
        out
    }
}

/// An envelope up to its result: `{"status":"0","message":"正确","result":`.
pub(crate) fn head(code: &str, text: &str, escaped: bool, numeric: bool) -> String {
    let mut out = String::from("{\"status\":");
    match code.parse::<u64>() {
        Ok(number) if numeric => out.push_str(&number.to_string()),
        _ => string(&mut out, code, escaped),
    }
    out.push_str(",\"message\":");
    string(&mut out, text, escaped);
    out.push_str(",\"result\":");
    out
}

/// Writes a JSON string; `escaped` writes text outside ASCII as `\uXXXX`.
pub(crate) fn string(out: &mut String, text: &str, escaped: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' || (escaped && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The carrier's text for a code; a general text for codes whose real text is unknown.
pub(crate) fn text(code: &str) -> &'static str {
    match code {
        "0" => "正确",
        "3" => "订购关系鉴权不通过",
        "4" => "应用信息错误，请检查应用状态",
        "5" => "集团状态不正常",
        "6" => "IP地址鉴权不通过",
        "7" => "TOKEN鉴权不通过",
        "8" => "白名单鉴权不通过",
        "10" => "请求参数不正确，请参考能力调用文档",
        "20" => "暂时查询不到数据，请早上9点后再试",
        "38" => "码号信息错误，请检查MSISDN、ICCID、IMSI是否正确",
        "71" | "73" => "系统忙，请稍后再试",
        "72" => "已超出单位时间客户调用限制，请稍后再试",
        "75" => "已超出单位时间内客户总调用量的限制",
        _ => "调用失败",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(code: &str) -> Envelope<'_> {
        Envelope { code, fields: Vec::new(), escaped: false, numeric: false }
    }

    #[test]
    fn a_success_is_written_as_on_the_carriers_page() {
        let fields = vec![("STATUS", "00".to_owned())];
        let body = Envelope { fields, ..envelope("0") }.write();
        assert_eq!(body, r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#);
    }

    #[test]
    fn a_failure_has_an_empty_result() {
        let body = envelope("10").write();
        assert_eq!(body, r#"{"status":"10","message":"请求参数不正确，请参考能力调用文档","result":[]}"#);
    }

    #[test]
    fn text_can_be_escaped() {
        let body = Envelope { escaped: true, ..envelope("0") }.write();
        assert_eq!(body, r#"{"status":"0","message":"\u6b63\u786e","result":[]}"#);
    }

    #[test]
    fn status_can_be_a_number_where_it_is_one() {
        assert!(Envelope { numeric: true, ..envelope("01016") }.write().starts_with(r#"{"status":1016,"#));
        assert!(Envelope { numeric: true, ..envelope("x") }.write().starts_with(r#"{"status":"x","#));
    }

    #[test]
    fn quotes_and_controls_stay_json() {
        let fields = vec![("STATUS", "a\"b\\c\n𠀀".to_owned()), ("IP", String::new())];
        for escaped in [false, true] {
            let body = Envelope { fields: fields.clone(), escaped, ..envelope("0") }.write();
            let read: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(read["result"][0]["STATUS"], "a\"b\\c\n𠀀");
            assert_eq!(read["result"][0]["IP"], "");
        }
    }
}
