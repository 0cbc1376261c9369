//! `[[operation]]`: a row of the table of operations, as written, and checked against the built-in operation of its name.
//!
//! A row names an operation and sets the keys that differ from the built-in one; a new operation needs at least its
//! verdict.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{self, ConfigError};
use super::reader::SourceFiles;
use crate::language::text;
use crate::lifetimes::Lifetime;
use crate::operation::{BUILT_IN, FreshnessRule, Kind, Operation};
use crate::units::HumanDuration;

/// `[[operation]]`.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawOperation {
    /// The last part of its path.
    #[schemars(regex(pattern = "^[0-9A-Za-z]+$"))]
    pub name: String,
    /// Its path under the base URL; `/v2/NAME` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^/[0-9A-Za-z/_.-]*$"))]
    pub path: Option<String>,
    /// Whether a request changes something; by default as the built-in operation, otherwise `lookup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The field of `result[0]` that is its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Parameters in addition to the card: sent to the carrier, and part of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub parameters: Option<Vec<String>>,
    /// Time for which a response is fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<HumanDuration>,
    /// Instead of `fresh`: until the next 09:00 at UTC+8, when the carrier has yesterday's figures.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub until_morning: bool,
    /// After `fresh`, how long a response is served stale while the proxy revalidates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<HumanDuration>,
    /// After `fresh`, how long a response is served stale if the carrier fails or is slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<HumanDuration>,
}

/// The parameters of every operation.
const COMMON: [&str; 7] = ["appid", "transid", "ebid", "token", "msisdn", "iccid", "imsi"];

/// The lifetime of a new operation whose row sets none: too short to mislead.
const SHORT: Lifetime = Lifetime {
    fresh: HumanDuration::secs(10),
    stale_while_revalidate: HumanDuration::secs(0),
    stale_if_error: HumanDuration::secs(0),
};

impl RawOperation {
    /// The operation; none if a problem was noted.
    pub(super) fn check(&self, reader: &mut SourceFiles<'_>) -> Option<Operation> {
        let before = reader.problems.len();
        let table = format!("[[operation]] (name = \"{}\")", self.name);
        let mut wrong = |error: ConfigError| {
            reader.problems.push(ConfigError { key: format!("{table}: {}", error.key), ..error });
        };
        if self.name.is_empty() || !self.name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let problem = text!(
                "must be letters and digits, as the last part of a path",
                "必须由字母和数字组成，与路径的最后一段相同"
            );
            wrong(ConfigError::new("name", problem));
        }
        let built_in = BUILT_IN.iter().find(|one| one.name == self.name);
        let verdict = match (&self.verdict, built_in) {
            (Some(verdict), _) => intern(verdict),
            (None, Some(built_in)) => built_in.verdict,
            (None, None) => {
                let problem = text!(
                    "name the field of result[0] that is its result",
                    "请指定 result[0] 中作为结果的字段"
                );
                wrong(ConfigError::new("verdict", problem));
                ""
            }
        };
        let path = match (&self.path, built_in) {
            (Some(path), _) => intern(path),
            (None, Some(built_in)) => built_in.path,
            (None, None) => intern(&format!("/v2/{}", self.name)),
        };
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b))
        {
            let problem = text!(
                "must begin with / and contain only letters, digits, -, _, . and /",
                "必须以 / 开头，只含字母、数字、-、_、. 和 /"
            );
            wrong(ConfigError::new(format!("path = \"{path}\""), problem));
        }
        let freshness = self.freshness(built_in).map_err(&mut wrong);
        let parameters = self.parameters().map_err(&mut wrong);
        if reader.problems.len() > before {
            return None;
        }
        let kind = self.kind.or(built_in.map(|one| one.kind)).unwrap_or(Kind::Lookup);
        Some(Operation {
            name: intern(&self.name),
            path,
            v5: built_in.is_some_and(|one| one.v5),
            kind,
            verdict,
            keep: freshness.ok()?,
            parameters: parameters.ok()?,
            strict: built_in.is_none() || self.parameters.is_some(),
        })
    }

    fn parameters(&self) -> Result<&'static [&'static str], ConfigError> {
        const MAX: usize = 8;
        let names = self.parameters.as_deref().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        for (at, name) in names.iter().enumerate() {
            let why = if !(1..=32).contains(&name.len()) || !name.bytes().all(plain) {
                text!(
                    "\"{name}\" must be 1-32 letters, digits, _ and -",
                    "\"{name}\" 必须为 1 至 32 个字母、数字、_ 和 -"
                )
            } else if COMMON.contains(&name.as_str()) {
                text!("\"{name}\" is a parameter of every operation", "\"{name}\" 是每个能力都有的参数")
            } else if names[..at].contains(name) {
                text!("\"{name}\" is there twice", "\"{name}\" 出现两次")
            } else {
                continue;
            };
            return Err(ConfigError::new("parameters", why));
        }
        if names.len() > MAX {
            return Err(ConfigError::new("parameters", error::at_most(MAX)));
        }
        Ok(intern_list(names.iter().map(|name| intern(name)).collect()))
    }

    fn freshness(&self, built_in: Option<&Operation>) -> Result<FreshnessRule, ConfigError> {
        let before = built_in.map(|one| one.keep);
        if self.until_morning {
            if self.fresh.is_some() || self.stale_while_revalidate.is_some() {
                let problem = text!(
                    "excludes fresh and stale_while_revalidate",
                    "不能与 fresh 和 stale_while_revalidate 同时使用"
                );
                return Err(ConfigError::new("until_morning", problem));
            }
            return Ok(FreshnessRule::UntilNineAm(
                self.stale_if_error.unwrap_or(HumanDuration::secs(86_400)),
            ));
        }
        if let (Some(before), None, None, None) =
            (before, self.fresh, self.stale_while_revalidate, self.stale_if_error)
        {
            return Ok(before);
        }
        if before == Some(FreshnessRule::ByStatus) {
            let problem = text!(
                "its freshness is set per STATUS in [freshness]",
                "它的新鲜期在 [freshness] 中按 STATUS 设置"
            );
            return Err(ConfigError::new("fresh", problem));
        }
        let before = if let Some(FreshnessRule::Fixed(lifetime)) = before { lifetime } else { SHORT };
        Ok(FreshnessRule::Fixed(Lifetime {
            fresh: self.fresh.unwrap_or(before.fresh),
            stale_while_revalidate: self.stale_while_revalidate.unwrap_or(before.stale_while_revalidate),
            stale_if_error: self.stale_if_error.unwrap_or(before.stale_if_error),
        }))
    }
}

/// A list with the lifetime of the process, shared by all operations that have the same.
fn intern_list(names: Vec<&'static str>) -> &'static [&'static str] {
    use std::sync::{Mutex, PoisonError};
    static LISTS: Mutex<Vec<&'static [&'static str]>> = Mutex::new(Vec::new());
    let mut lists = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lists.iter().find(|known| **known == names) {
        return known;
    }
    let kept: &'static [&'static str] = Vec::leak(names);
    lists.push(kept);
    kept
}

/// Text with the lifetime of the process, as operations have it, kept once.
fn intern(text: &str) -> &'static str {
    use std::sync::{Mutex, PoisonError};
    static TEXTS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = texts.iter().find(|known| **known == text) {
        return known;
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    texts.push(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str) -> Result<Operation, String> {
        let mut reader = SourceFiles::new(std::path::Path::new("."), false);
        let operation = toml::from_str::<RawOperation>(written).unwrap().check(&mut reader);
        let problems: Vec<_> = reader.problems.iter().map(ToString::to_string).collect();
        operation.ok_or_else(|| problems.join("\n"))
    }

    #[test]
    fn a_row_says_what_differs() {
        let balance = check("name = \"balancerealsingle\"\nfresh = \"5m\"").unwrap();
        let FreshnessRule::Fixed(lifetime) = balance.keep else { panic!("{balance:?}") };
        assert_eq!(lifetime.fresh, HumanDuration::secs(300));
        assert_eq!((balance.path, balance.verdict), ("/v2/balancerealsingle", "balance"));
        let used = check("name = \"x2\"\nverdict = \"used\"\nuntil_morning = true").unwrap();
        assert_eq!(
            (used.path, used.keep),
            ("/v2/x2", FreshnessRule::UntilNineAm(HumanDuration::secs(86_400)))
        );
        let dated = check("name = \"x4\"\nverdict = \"sms\"\nparameters = [\"query_date\"]").unwrap();
        assert_eq!((dated.parameters, dated.strict), (&["query_date"][..], true));
        assert!(!balance.strict, "a built-in operation ignores what it does not know");
        let action = check("name = \"x3\"\nverdict = \"done\"\nkind = \"action\"").unwrap();
        assert!(!action.is_lookup());
    }

    #[test]
    fn what_makes_no_operation_is_refused_by_its_key() {
        for (written, key) in [
            ("name = \"a/b\"\nverdict = \"x\"", "name"),
            ("name = \"new\"", "verdict"),
            ("name = \"new\"\nverdict = \"x\"\npath = \"v2\"", "path"),
            ("name = \"new\"\nverdict = \"x\"\nuntil_morning = true\nfresh = \"1s\"", "until_morning"),
            ("name = \"new\"\nverdict = \"x\"\nparameters = [\"a=b\"]", "a=b"),
            ("name = \"new\"\nverdict = \"x\"\nparameters = [\"msisdn\"]", "msisdn"),
            ("name = \"new\"\nverdict = \"x\"\nparameters = [\"d\", \"d\"]", "twice"),
            ("name = \"userstatusrealsingle\"\nfresh = \"1s\"", "[freshness]"),
        ] {
            let error = check(written).unwrap_err();
            assert!(error.contains(key), "{written}: {error}");
        }
    }
}
