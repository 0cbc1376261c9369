//! `[[webhook]]`: the receivers of events, their keys, and the events that each of them gets.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use hyper::Uri;
use zeroize::Zeroizing;

use super::account::Accounts;
use super::certificates::Validity;
use super::error::{self, ConfigError};
use super::file::ConfigFile;
pub use super::file::{EventClass, RawWebhook};
use super::reader::SourceFiles;
use crate::language::{Text, text};
use crate::tls;

/// The most webhooks of one configuration.
const MOST: usize = 16;

/// The longest name.
const LONGEST_NAME: usize = 64;

/// The longest time for one attempt.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The most keys of one webhook: the present one, and the next or the former one.
const MOST_KEYS: usize = 2;

/// Bytes of a key, as Standard Webhooks requires.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A receiver of events, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Webhook {
    /// Its name.
    pub name: Arc<str>,
    /// The address that messages are posted to.
    pub url: Uri,
    /// The keys of the signatures; one at least. Each message has a signature with each.
    pub keys: Vec<SigningKey>,
    /// The events to send; not empty.
    pub events: Vec<EventClass>,
    /// The groups that are reported; empty means all.
    pub groups: Vec<Arc<str>>,
    /// The certificates that identify the receiver.
    pub tls: tls::ClientTrust,
    /// Time for one attempt.
    pub timeout: Duration,
    /// Time after the event at which a message is given up.
    pub give_up_after: Duration,
}

impl Webhook {
    /// Whether it gets events of this class.
    pub fn wants(&self, class: EventClass) -> bool {
        self.events.contains(&class)
    }

    /// Whether it gets the events of a group; none is an account that the configuration does not have.
    pub fn reports(&self, group: Option<&str>) -> bool {
        self.groups.is_empty() || group.is_some_and(|group| self.groups.iter().any(|one| &**one == group))
    }
}

/// A key of the signatures of one webhook.
#[derive(Clone, PartialEq)]
pub struct SigningKey(Zeroizing<Vec<u8>>);

impl SigningKey {
    /// Reads `whsec_` and Base64; none if it is not that, or the key has the wrong length.
    pub fn parse(secret: &[u8]) -> Option<Self> {
        let key = Zeroizing::new(BASE64.decode(secret.strip_prefix(b"whsec_")?).ok()?);
        KEY_BYTES.contains(&key.len()).then_some(Self(key))
    }

    /// Reads a file of one or two such secrets, one per line; none if any line is not one. Empty lines are passed over.
    pub fn parse_all(file: &[u8]) -> Option<Vec<Self>> {
        let lines = file.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let keys: Option<Vec<_>> = lines.filter(|line| !line.is_empty()).map(Self::parse).collect();
        keys.filter(|keys| (1..=MOST_KEYS).contains(&keys.len()))
    }

    /// Its bytes. Mind where they go.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Checks every `[[webhook]]`; those that are wrong are left out.
pub(super) fn check(
    file: &ConfigFile,
    accounts: &Accounts,
    reader: &mut SourceFiles<'_>,
) -> Vec<Arc<Webhook>> {
    if file.webhooks.len() > MOST {
        reader.problem("[[webhook]]", text!("more than {MOST}", "超过 {MOST} 个"));
    }
    let mut names = HashSet::new();
    file.webhooks
        .iter()
        .enumerate()
        .filter_map(|(index, raw)| {
            let table = format!("[[webhook]] {} (name = \"{}\")", index + 1, raw.name);
            let before = reader.problems.len();
            if !is_name(&raw.name) {
                let problem = text!(
                    "1 to {LONGEST_NAME} letters, digits, '-' and '_'",
                    "应为 1 至 {LONGEST_NAME} 个字母、数字、“-”和“_”"
                );
                reader.problem(format!("{table}: name"), problem);
            } else if !names.insert(raw.name.as_str()) {
                reader.problem(
                    format!("{table}: name"),
                    text!("must differ from all others", "不能与其他的重复"),
                );
            }
            let webhook = check_one(&table, raw, accounts, reader);
            webhook.filter(|_| reader.problems.len() == before).map(Arc::new)
        })
        .collect()
}

fn check_one(
    table: &str,
    raw: &RawWebhook,
    accounts: &Accounts,
    reader: &mut SourceFiles<'_>,
) -> Option<Webhook> {
    let url = reader.keep(url(table, &raw.url));
    let key = format!("{table}: secret_file");
    let secret = reader.secret(&key, &raw.secret_file).and_then(|secret| {
        let wrong = || {
            let problem = text!("not a signing secret", "不是签名密钥").about(raw.secret_file.display());
            ConfigError::new(key, problem).remedy(text!(
                "write `whsec_` and 24 to 64 random bytes in Base64: `echo whsec_$(head -c 32 /dev/urandom | base64 -w0)`; \
                 while receivers change to another secret, both, one per line",
                "请写 `whsec_` 和 24 至 64 个随机字节的 Base64：`echo whsec_$(head -c 32 /dev/urandom | base64 -w0)`；\
                 接收端更换密钥期间写两个，每行一个"
            ))
        };
        reader.keep(SigningKey::parse_all(&secret).ok_or_else(wrong))
    });
    if raw.events.is_empty() {
        let problem = text!("none, so nothing would be sent", "为空，不会发送任何消息");
        let error = ConfigError::new(format!("{table}: events"), problem);
        reader.problems.push(error.remedy(text!(
            "name some of \"status\", \"breaker\", \"alarm\"",
            "请从 \"status\"、\"breaker\"、\"alarm\" 中选择"
        )));
    }
    for group in &raw.groups {
        let is_known =
            accounts.groups.contains_key(group.as_str()) || accounts.incomplete.contains(group.as_str());
        if !is_known {
            reader.problem(
                format!("{table}: groups"),
                text!("no account has the group \"{group}\"", "没有账号属于分组 \"{group}\""),
            );
        }
    }
    for (key, time) in [("timeout", raw.timeout.0), ("give_up_after", raw.give_up_after.0)] {
        if time.is_zero() {
            reader.problem(format!("{table}: {key}"), error::longer_than_zero("10s"));
        }
    }
    if raw.timeout.0 > LONGEST_TIMEOUT {
        reader.problem(
            format!("{table}: timeout"),
            text!("at most {LONGEST_TIMEOUT:?}", "最长 {LONGEST_TIMEOUT:?}"),
        );
    }
    let tls = trust(table, raw, reader);
    Some(Webhook {
        name: raw.name.as_str().into(),
        url: url?,
        keys: secret?,
        events: raw.events.clone(),
        groups: raw.groups.iter().map(|group| group.as_str().into()).collect(),
        tls: tls?,
        timeout: raw.timeout.0,
        give_up_after: raw.give_up_after.0,
    })
}

/// Whether a text can be a name: it is a label of metrics and a word of the log.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(allowed)
}

/// The error does not repeat the URL, which may hold a token.
fn url(table: &str, raw: &str) -> Result<Uri, ConfigError> {
    let wrong = |problem: Text| ConfigError::new(format!("{table}: url"), problem);
    let no_host = || wrong(text!("must begin with https:// and a host", "必须以 https:// 和主机开头"));
    if raw.contains('@') {
        return Err(wrong(error::has_credentials()));
    }
    let url: Uri = raw.parse().map_err(|_| wrong(error::is_no_url()))?;
    let host = url.host().filter(|host| !host.is_empty());
    let host = host.ok_or_else(no_host)?;
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback(host) => Ok(url),
        Some("http") => {
            let problem = text!("http would send card numbers in the clear", "http 会以明文发送卡号");
            Err(wrong(problem).remedy(text!(
                "use https, or a receiver on this machine (127.0.0.1, [::1], localhost)",
                "请使用 https，或本机的接收端（127.0.0.1、[::1]、localhost）"
            )))
        }
        _ => Err(no_host()),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The certificates that identify the receiver; they are tried here.
fn trust(table: &str, raw: &RawWebhook, reader: &mut SourceFiles<'_>) -> Option<tls::ClientTrust> {
    let Some(path) = &raw.ca_file else { return Some(tls::ClientTrust::default()) };
    let key = format!("{table}: ca_file");
    let pem = reader.bytes(&key, path)?;
    let wrong = |error: Text| ConfigError::new(&key, error.about(path.display()));
    let roots = reader.keep(tls::certificates(&pem).map_err(wrong))?;
    reader.certificates.extend(Validity::of("[[webhook]] ca_file", &roots));
    let trust = tls::ClientTrust { roots, ..tls::ClientTrust::default() };
    let usable = tls::client(&trust).map_err(|error| wrong(Text::untranslated(error)));
    reader.keep(usable).map(|_| trust)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_in_the_form_of_standard_webhooks() {
        let key = SigningKey::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(key.expose().len(), 24);
        assert_eq!(format!("{key:?}"), "[redacted]");
        for wrong in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjU", "whsec_!", ""] {
            assert_eq!(SigningKey::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_has_one_or_two_secrets() {
        let (one, two) =
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_dGhlLW5leHQta2V5LW9mLXRoZS13ZWJob29rcyE=");
        let count = |file: String| SigningKey::parse_all(file.as_bytes()).map(|keys| keys.len());
        assert_eq!(count(format!("{one}\n")), Some(1));
        assert_eq!(count(format!("{one}\r\n\n {two}")), Some(2));
        for wrong in
            [String::new(), format!("{one} {two}"), format!("{one}\nx"), format!("{one}\n{two}\n{one}")]
        {
            assert_eq!(count(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        for good in ["https://x.example/a?b=c", "http://127.0.0.1:9/", "http://[::1]/h", "http://localhost:1"]
        {
            assert!(url("t", good).is_ok(), "{good}");
        }
        for bad in
            ["http://10.0.0.1/", "http://localhost.example/", "ftp://x/", "/x", "https://u:p@x/", "x y"]
        {
            let error = url("t", bad).unwrap_err().to_string();
            assert!(!error.contains(bad), "{error}");
        }
    }
}
