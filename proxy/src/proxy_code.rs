//! The codes, in the carrier's numbering, with which the proxy itself refuses a request.

/// A code of the carrier's table ("状态码"), and the carrier's text for it: gateways handle the proxy's refusals as they
/// handle the carrier's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyCode {
    /// The client has no subscription for this operation, or sent another ebid.
    Subscription,
    /// The peer's address or certificate is not allowed.
    Address,
    /// Appid, token or transid is not accepted.
    Token,
    /// The card is not on the client's list.
    Card,
    /// The request does not have the form of the API.
    Parameters,
    /// The card number breaks its kind's rule.
    CardNumber,
    /// Too many requests or calls within a time.
    Throttled,
    /// The carrier or the proxy has a problem; a later request may succeed.
    Busy,
    /// The result of an action is unknown.
    Other,
    /// The path is not an operation of the API.
    Interface,
}

impl ProxyCode {
    pub const fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// The carrier's envelope around the code and its text: `status` is a string and `result` an array, since gateways
    /// reject anything else.
    pub fn envelope(self) -> String {
        let (code, text) = self.entry();
        format!(r#"{{"status":"{code}","message":"{text}","result":[]}}"#)
    }

    const fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::Subscription => ("3", "订购关系鉴权不通过"),
            Self::Address => ("6", "IP地址鉴权不通过"),
            Self::Token => ("7", "TOKEN鉴权不通过"),
            Self::Card => ("8", "白名单鉴权不通过"),
            Self::Parameters => ("10", "请求参数不正确，请参考能力调用文档"),
            Self::CardNumber => ("38", "码号信息错误，请检查MSISDN、ICCID、IMSI是否正确"),
            Self::Throttled => ("72", "已超出单位时间客户调用限制，请稍后再试"),
            Self::Busy => ("73", "系统忙，请稍后再试"),
            Self::Other => ("99", "其他错误"),
            Self::Interface => ("10006", "请求的接口不存在"),
        }
    }
}
