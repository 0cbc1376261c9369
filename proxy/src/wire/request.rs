//! The parser of a gateway's HTTP request: it accepts what the carrier's clients send, and nothing ambiguous.
//!
//! Parameters are in the URL, in a form body, or in both, in any order. An empty value means absent. Unknown parameters are
//! ignored, unless the operation declares its parameters. Content-Type is ignored, since clients send it at random.
//!
//! Refused are a known parameter twice, or in URL and body with different values; broken percent-encoding, NUL and invalid
//! UTF-8; a GET with a body; and any Transfer-Encoding (hyper drops a Content-Length next to it, so that the two cannot be
//! compared).

use std::borrow::Cow;
use std::net::IpAddr;

use cmiot_signer::{AppId, Card, CardKind, Transid};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Uri, Version};

use super::cache_control::RequestDirectives;
use super::transid::SentTransid;
use crate::config::file::Format;
use crate::inline_str::InlineStr;
use crate::operation::{self, Operation, Operations};
use crate::refusal::{Malformed, ParameterName, Refusal};

/// The maximum length of a request target, in bytes.
pub const MAX_TARGET: usize = 2 << 10;
/// The maximum length of a body, in bytes.
pub const MAX_BODY: usize = 4 << 10;

/// A parsed request. Its client is not authenticated yet.
#[derive(Debug)]
pub struct Request<'a> {
    pub operation: &'static Operation,
    pub appid: AppId,
    pub transid: SentTransid,
    pub ebid: Option<Cow<'a, str>>,
    /// A secret.
    pub token: Token<'a>,
    pub card: Card,
    /// The parameters that the operation declares in addition to the card.
    pub parameters: operation::Parameters,
    pub directives: RequestDirectives,
}

/// The parts of an HTTP request that are parsed. Its head has passed [`check_head`].
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a, 'h> {
    pub uri: &'a Uri,
    pub headers: &'h HeaderMap,
    pub body: &'a [u8],
}

/// The requests that a configuration accepts.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    pub operations: &'a Operations,
    /// [`Format::Lenient`] if some client may send lenient transids.
    pub format: Format,
}

/// A token as a gateway sent it. Its `Debug` form is redacted.
pub struct Token<'a>(Cow<'a, str>);

impl Token<'_> {
    /// The secret text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The unverified parameters that could be read, for the audit record: refused requests are recorded too.
#[derive(Debug, Default)]
pub struct Claims {
    pub operation: Option<&'static Operation>,
    /// The appid, if it is well-formed.
    pub appid: Option<AppId>,
    /// The leading letters and digits of the transid, unless it is longer than a transid may be.
    pub transid: Option<InlineStr<48>>,
    /// `transid` is the whole transid, in its exact form.
    pub exact: bool,
    /// The card, if the request names exactly one, and it is well-formed.
    pub card: Option<Card>,
}

/// The host names that an absolute-form target may have.
#[derive(Clone, Debug)]
pub struct Hosts {
    names: Vec<String>,
    /// All IP addresses are allowed too.
    addresses: bool,
}

impl Hosts {
    /// These host names, in any case.
    pub fn new(hosts: impl IntoIterator<Item = String>) -> Self {
        Self { names: hosts.into_iter().collect(), addresses: false }
    }

    /// Allows every IP address too: a listener may not know the addresses by which it is reached.
    pub fn with_addresses(self) -> Self {
        Self { addresses: true, ..self }
    }

    fn has(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.names.iter().any(|ours| ours.eq_ignore_ascii_case(host))
            || self.addresses && host.parse::<IpAddr>().is_ok()
    }
}

/// Checks the head of a request.
///
/// # Errors
/// The refusal, for which the body does not matter.
pub fn check_head(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    hosts: &Hosts,
) -> Result<(), Refusal> {
    let length = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if length > MAX_TARGET {
        return Err(Refusal::Malformed(Malformed::TargetTooLong));
    }
    if method != Method::GET && method != Method::POST {
        return Err(Refusal::Malformed(Malformed::Method));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::Malformed(Malformed::TransferEncoding));
    }
    if !has_one_host(uri, version, headers) {
        return Err(Refusal::Malformed(Malformed::Host));
    }
    // In HTTP/2 the host is that of `:authority`, which corresponds to Host (RFC 9113 8.3.1), not an absolute-form target.
    if version != Version::HTTP_2 && uri.host().is_some_and(|host| !hosts.has(host)) {
        return Err(Refusal::ForeignHost);
    }
    Ok(())
}

/// Whether the request names its host once: one `Host` (RFC 9112 3.2), and in HTTP/2 the same as `:authority`, which has
/// no user name (RFC 9113 8.3.1).
pub fn has_one_host(uri: &Uri, version: Version, headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::HOST).iter();
    let (host, None) = (named.next(), named.next()) else { return false };
    match uri.authority() {
        Some(authority) if version == Version::HTTP_2 => {
            let authority = authority.as_str().as_bytes();
            !authority.contains(&b'@')
                && host.is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(authority))
        }
        _ => true,
    }
}

impl<'a> Request<'a> {
    /// Parses a request. `claims` gets the readable parameters, also of a request that is refused.
    ///
    /// # Errors
    /// [`Refusal::UnknownPath`], [`Refusal::Malformed`] or [`Refusal::Card`].
    pub fn parse(
        RequestParts { uri, headers, body }: RequestParts<'a, '_>,
        accepted: &Accepted<'_>,
        claims: &mut Claims,
    ) -> Result<Self, Refusal> {
        let operation = accepted.operations.at(uri.path()).ok_or(Refusal::UnknownPath)?;
        claims.operation = Some(operation);
        let parameters =
            Parameters::read(uri.query().unwrap_or_default(), body, operation).map_err(Refusal::Malformed)?;
        claims.appid = parameters.appid.as_deref().and_then(|appid| AppId::parse(appid).ok());
        claims.transid = parameters
            .transid
            .as_deref()
            .filter(|text| text.len() <= Transid::MAX_LEN)
            .and_then(legal_transid);
        let exact = parameters.transid.as_deref().and_then(|text| Transid::parse(text).ok());
        claims.exact = exact.is_some();
        let card = parameters.card();
        claims.card = card.as_ref().ok().cloned();

        let missing = |name| Refusal::Malformed(Malformed::Missing(name));
        parameters.appid.as_deref().ok_or(missing("appid"))?;
        let appid = claims.appid.ok_or(Refusal::Malformed(Malformed::AppId))?;
        let transid = parameters.transid.as_deref().ok_or(missing("transid"))?;
        let transid = SentTransid::of(exact, transid, &appid)
            .filter(|transid| accepted.format == Format::Lenient || transid.key().is_some())
            .ok_or(Refusal::Malformed(Malformed::Transid))?;
        let card = card?;
        Ok(Self {
            operation,
            appid,
            transid,
            ebid: parameters.ebid,
            token: Token(parameters.token.ok_or(missing("token"))?),
            card,
            parameters: operation::Parameters::of(operation, &parameters.declared)
                .map_err(|name| Refusal::Malformed(Malformed::Parameter(name)))?,
            directives: RequestDirectives::read(headers),
        })
    }
}

/// The carrier's parameters (its page, "公共参数" and "业务参数"); empty ones are absent.
#[derive(Default)]
struct Parameters<'a> {
    appid: Option<Cow<'a, str>>,
    transid: Option<Cow<'a, str>>,
    ebid: Option<Cow<'a, str>>,
    token: Option<Cow<'a, str>>,
    msisdn: Option<Cow<'a, str>>,
    iccid: Option<Cow<'a, str>>,
    imsi: Option<Cow<'a, str>>,
    /// The operation's declared parameters, in the order of its list; empty for most operations.
    declared: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Parameters<'a> {
    /// Parses the query and the body separately, so that a parameter may be in both with the same value.
    fn read(query: &'a str, body: &'a [u8], operation: &Operation) -> Result<Self, Malformed> {
        let mut parameters = Self::form(query, operation)?;
        if body.is_empty() {
            return Ok(parameters);
        }
        let body = std::str::from_utf8(body).map_err(|_| Malformed::Encoding)?;
        let Self { appid, transid, ebid, token, msisdn, iccid, imsi, declared } =
            Self::form(body, operation)?;
        merge("appid", &mut parameters.appid, appid)?;
        merge("transid", &mut parameters.transid, transid)?;
        merge("ebid", &mut parameters.ebid, ebid)?;
        merge("token", &mut parameters.token, token)?;
        merge("msisdn", &mut parameters.msisdn, msisdn)?;
        merge("iccid", &mut parameters.iccid, iccid)?;
        merge("imsi", &mut parameters.imsi, imsi)?;
        for ((name, url), body) in operation.parameters.iter().zip(&mut parameters.declared).zip(declared) {
            merge(name, url, body)?;
        }
        Ok(parameters)
    }

    fn form(text: &'a str, operation: &Operation) -> Result<Self, Malformed> {
        let mut parameters = Self { declared: vec![None; operation.parameters.len()], ..Self::default() };
        // Most texts need no decoding, which one scan shows.
        let plain = memchr::memchr3(0, b'%', b'+', text.as_bytes()).is_none();
        let decode = |part: &'a str| if plain { Ok(Cow::Borrowed(part)) } else { decode(part) };
        let mut rest = Some(text);
        while let Some(text) = rest {
            let (pair, more) = split_once_byte(text, b'&');
            rest = more;
            let (name, value) = split_once_byte(pair, b'=');
            let (name, value) = (decode(name)?, decode(value.unwrap_or_default())?);
            let (name, slot) = match name.trim_ascii() {
                "appid" => ("appid", &mut parameters.appid),
                "transid" => ("transid", &mut parameters.transid),
                "ebid" => ("ebid", &mut parameters.ebid),
                "token" => ("token", &mut parameters.token),
                "msisdn" => ("msisdn", &mut parameters.msisdn),
                "iccid" => ("iccid", &mut parameters.iccid),
                "imsi" => ("imsi", &mut parameters.imsi),
                _ if !operation.strict || (name.is_empty() && value.is_empty()) => continue,
                other => match operation.parameters.iter().position(|one| *one == other) {
                    Some(index) => (operation.parameters[index], &mut parameters.declared[index]),
                    None => return Err(Malformed::Undeclared(ParameterName::new(other))),
                },
            };
            if value.is_empty() {
                continue;
            }
            if slot.replace(value).is_some() {
                return Err(Malformed::Duplicate(name));
            }
        }
        Ok(parameters)
    }

    /// The only one of the three card numbers ("必须有且只有一项").
    fn card(&self) -> Result<Card, Refusal> {
        let given =
            [(CardKind::Msisdn, &self.msisdn), (CardKind::Iccid, &self.iccid), (CardKind::Imsi, &self.imsi)];
        let mut given = given.iter().filter_map(|(kind, value)| value.as_deref().map(|value| (*kind, value)));
        let (kind, value) = given.next().ok_or(Refusal::Malformed(Malformed::NoCard))?;
        if given.next().is_some() {
            return Err(Refusal::Malformed(Malformed::SeveralCards));
        }
        Card::parse(kind, value).map_err(|_| Refusal::Card)
    }
}

fn merge<'a>(
    name: &'static str,
    url: &mut Option<Cow<'a, str>>,
    body: Option<Cow<'a, str>>,
) -> Result<(), Malformed> {
    match (url.as_deref(), body) {
        (Some(url), Some(body)) if *url != *body => Err(Malformed::Duplicate(name)),
        (None, Some(body)) => {
            *url = Some(body);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Splits a text at the first `separator`, an ASCII character, if it has one.
fn split_once_byte(text: &str, separator: u8) -> (&str, Option<&str>) {
    match memchr::memchr(separator, text.as_bytes()) {
        Some(index) => (&text[..index], Some(&text[index + 1..])),
        None => (text, None),
    }
}

/// The leading letters and digits: other text of an unknown sender is not recorded.
fn legal_transid(text: &str) -> Option<InlineStr<48>> {
    let end = text.bytes().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(text.len());
    (end > 0).then(|| InlineStr::new(&text[..end]))
}

/// Decodes `application/x-www-form-urlencoded` text strictly.
fn decode(text: &str) -> Result<Cow<'_, str>, Malformed> {
    if text.bytes().any(|b| b == 0) {
        return Err(Malformed::Encoding);
    }
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) if (high, low) != (0, 0) => high << 4 | low,
                _ => return Err(Malformed::Encoding),
            },
            other => other,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Malformed::Encoding)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests;
