//! `[[operation]]`: a row of the table of operations, as written, and checked against the built-in one of its name.
//!
//! A row names an operation and says what differs from the built-in one; a new one needs at least its verdict.

use serde::{Deserialize, Serialize};

use crate::lifetimes::Lifetime;
use crate::operation::{BUILT_IN, FreshnessRule, Kind, Operation};
use crate::units::HumanDuration;

/// `[[operation]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawOperation {
    /// The last part of its path.
    pub name: String,
    /// Its path under the base URL; `/v2/NAME` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `lookup`, or `action` for what changes something: never kept, shared or asked for once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The field of `result[0]` that is its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Further parameters beside the card: sent to the carrier, and part of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Vec<String>>,
    /// How long an answer is fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<HumanDuration>,
    /// Instead of `fresh`: until the next 09:00 at UTC+8, when the carrier has yesterday's figures.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub until_morning: bool,
    /// After that, for how long it is answered stale at once while the proxy asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<HumanDuration>,
    /// After `fresh`, for how long it is answered stale when the carrier fails or is slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<HumanDuration>,
}

/// What every operation has.
const COMMON: [&str; 7] = ["appid", "transid", "ebid", "token", "msisdn", "iccid", "imsi"];

/// What a new operation is, where its row does not say: fresh for so short that nobody is misled.
const SHORT: Lifetime = Lifetime {
    fresh: HumanDuration::secs(10),
    stale_while_revalidate: HumanDuration::secs(0),
    stale_if_error: HumanDuration::secs(0),
};

impl RawOperation {
    /// The operation.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn check(&self) -> Result<Operation, String> {
        let place = format!("[[operation]] (name = \"{}\")", self.name);
        if self.name.is_empty() || !self.name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(format!("{place}: name: must be letters and digits, as the last part of a path"));
        }
        let built_in = BUILT_IN.iter().find(|one| one.name == self.name);
        let verdict = match (&self.verdict, built_in) {
            (Some(verdict), _) => text(verdict),
            (None, Some(built_in)) => built_in.verdict,
            (None, None) => {
                return Err(format!("{place}: verdict: name the field of result[0] that is its answer"));
            }
        };
        let path = match (&self.path, built_in) {
            (Some(path), _) => text(path),
            (None, Some(built_in)) => built_in.path,
            (None, None) => text(&format!("/v2/{}", self.name)),
        };
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b))
        {
            return Err(format!(
                "{place}: path = \"{path}\": must begin with / and hold letters, digits, -, _, . and /"
            ));
        }
        let kind = self.kind.or(built_in.map(|one| one.kind)).unwrap_or(Kind::Lookup);
        Ok(Operation {
            name: text(&self.name),
            path,
            kind,
            verdict,
            keep: self.keep(&place, built_in)?,
            parameters: self.parameters(&place)?,
            strict: built_in.is_none() || self.parameters.is_some(),
        })
    }

    fn parameters(&self, place: &str) -> Result<&'static [&'static str], String> {
        const MOST: usize = 8;
        let names = self.parameters.as_deref().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        for (at, name) in names.iter().enumerate() {
            let why = if !(1..=32).contains(&name.len()) || !name.bytes().all(plain) {
                "must be 1-32 letters, digits, _ and -"
            } else if COMMON.contains(&name.as_str()) {
                "is a parameter of every operation"
            } else if names[..at].contains(name) {
                "stands twice"
            } else {
                continue;
            };
            return Err(format!("{place}: parameters: \"{name}\" {why}"));
        }
        if names.len() > MOST {
            return Err(format!("{place}: parameters: {MOST} at most"));
        }
        Ok(list(names.iter().map(|name| text(name)).collect()))
    }

    fn keep(&self, place: &str, built_in: Option<&Operation>) -> Result<FreshnessRule, String> {
        let before = built_in.map(|one| one.keep);
        if self.until_morning {
            if self.fresh.is_some() || self.stale_while_revalidate.is_some() {
                return Err(format!("{place}: until_morning: excludes fresh and stale_while_revalidate"));
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
            return Err(format!("{place}: its freshness stands in [freshness], by STATUS"));
        }
        let before = if let Some(FreshnessRule::Fixed(lifetime)) = before { lifetime } else { SHORT };
        Ok(FreshnessRule::Fixed(Lifetime {
            fresh: self.fresh.unwrap_or(before.fresh),
            stale_while_revalidate: self.stale_while_revalidate.unwrap_or(before.stale_while_revalidate),
            stale_if_error: self.stale_if_error.unwrap_or(before.stale_if_error),
        }))
    }
}

/// A list that lives as long as the operation, for ever and once too.
fn list(names: Vec<&'static str>) -> &'static [&'static str] {
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

/// Text that lives as long as the operation that it becomes a part of: for ever, and once.
fn text(text: &str) -> &'static str {
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
        toml::from_str::<RawOperation>(written).unwrap().check()
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
