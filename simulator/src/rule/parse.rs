//! Rules as text, for a command line: `card=14765004176 code=71 times=3`.
//!
//! [`Rule::parse`] lists the words. The error for an unknown word names it and lists the known ones.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::behaviour::Answer;
use crate::operation::Operation;
use crate::rule::{CardMatch, Rule};

impl Rule {
    /// Reads a rule from text: words separated by blanks, in any order.
    ///
    /// | word | meaning |
    /// | --- | --- |
    /// | `card=N`, `prefix=N` | only this card, only cards with this prefix (neither: every card) |
    /// | `token` | only fetches of a token of API v5, which no other rule matches |
    /// | `op=NAME` | only this operation, by path name or number (`userstatusrealsingle`, `2002`, `25S04`) |
    /// | `appid=A` | only this account |
    /// | `times=N` | used up after N calls |
    /// | `status=S`, `code=C` | the answer: a STATUS, or an error code |
    /// | `http=N` | an HTML error page with HTTP status N |
    /// | `hang`, `reset`, `close`, `garbage` | as the variants of [`Answer`] |
    /// | `truncate=SIZE`, `stall=SIZE`, `oversized=SIZE` | likewise; `64`, `64KiB`, `4MiB` |
    /// | `body=...` | the rest of the line, blanks included, as the body |
    /// | `latency=TIME` | `300ms`, `2s`, `10m` |
    /// | `date=TIME` | the `Date` header is off by `5m` or `-90s` |
    /// | `escaped`, `numeric` | the form of the envelope |
    ///
    /// ```
    /// use cmiot_simulator::{Answer, Rule};
    /// let rule = Rule::parse("card=14765004176 code=71 times=3")?;
    /// assert_eq!(rule.then.answer, Answer::Code("71".to_owned()));
    /// assert_eq!(rule.times, Some(3));
    /// # Ok::<(), cmiot_simulator::RuleError>(())
    /// ```
    ///
    /// # Errors
    /// An unknown word or invalid value; the error names the valid ones.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let mut rule = Self::any();
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(RuleError::new("", format!("the rule is empty; {WORDS}")));
        }
        while !rest.is_empty() {
            if let Some(body) = rest.strip_prefix("body=") {
                rule.answer_once("body", Answer::body(body.to_owned()))?;
                break;
            }
            let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            rule.read_word(word)?;
            rest = after.trim_start();
        }
        Ok(rule)
    }

    fn read_word(&mut self, word: &str) -> Result<(), RuleError> {
        let Some((key, value)) = word.split_once('=') else { return self.read_flag(word) };
        let wrong = |expected: &'static str| RuleError::new(word, format!("requires {expected}"));
        if value.is_empty() {
            return Err(wrong("a value after the ="));
        }
        let size = || bytes(value).ok_or_else(|| wrong("a size such as 64, 64KiB or 4MiB"));
        let length = || size().and_then(|size| usize::try_from(size).map_err(|_| wrong("a smaller size")));
        match key {
            "card" => self.card_once(word, CardMatch::Is(value.to_owned())),
            "prefix" => self.card_once(word, CardMatch::Prefix(value.to_owned())),
            "op" => {
                let found = Operation::find(value);
                self.when.operation = Some(found.ok_or_else(|| {
                    wrong("an operation's name or number, such as userstatusrealsingle or 2002")
                })?);
                Ok(())
            }
            "appid" => {
                self.when.appid = Some(value.to_owned());
                Ok(())
            }
            "times" => {
                self.times = Some(value.parse().map_err(|_| wrong("a number of calls"))?);
                Ok(())
            }
            "status" => self.answer_once(word, Answer::Status(value.to_owned())),
            "code" => self.answer_once(word, Answer::Code(value.to_owned())),
            "http" => {
                let status = value.parse().ok().filter(|status| (200..=599).contains(status));
                self.answer_once(word, Answer::html(status.ok_or_else(|| wrong("200 to 599"))?))
            }
            "truncate" => self.answer_once(word, Answer::Truncate(length()?)),
            "stall" => self.answer_once(word, Answer::Stall(length()?)),
            "oversized" => self.answer_once(word, Answer::Oversized(size()?)),
            "latency" => {
                self.then.latency =
                    Some(duration(value).ok_or_else(|| wrong("a time such as 300ms, 2s or 10m"))?);
                Ok(())
            }
            "date" => {
                self.then.date_offset =
                    offset(value).ok_or_else(|| wrong("a time in whole seconds such as 5m or -90s"))?;
                Ok(())
            }
            _ => Err(RuleError::new(word, format!("is not known; {WORDS}"))),
        }
    }

    fn read_flag(&mut self, word: &str) -> Result<(), RuleError> {
        match word {
            "token" => self.card_once(word, CardMatch::Token),
            "hang" => self.answer_once(word, Answer::Hang),
            "reset" => self.answer_once(word, Answer::Reset),
            "close" => self.answer_once(word, Answer::Close),
            "garbage" => self.answer_once(word, Answer::Garbage),
            "escaped" => {
                self.then.escaped = true;
                Ok(())
            }
            "numeric" => {
                self.then.numeric = true;
                Ok(())
            }
            _ => Err(RuleError::new(word, format!("is not known; {WORDS}"))),
        }
    }

    fn card_once(&mut self, word: &str, card: CardMatch) -> Result<(), RuleError> {
        if !matches!(self.when.card, CardMatch::Any) {
            return Err(RuleError::new(word, "a rule has one of card=, prefix= and token".to_owned()));
        }
        self.when.card = card;
        Ok(())
    }

    fn answer_once(&mut self, word: &str, answer: Answer) -> Result<(), RuleError> {
        if self.then.answer != Answer::Default {
            return Err(RuleError::new(word, "a rule has one answer, and this is a second one".to_owned()));
        }
        self.then.answer = answer;
        Ok(())
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        Self::parse(text)
    }
}

/// A rule's text is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    word: String,
    reason: String,
}

impl RuleError {
    fn new(word: &str, reason: String) -> Self {
        Self { word: word.to_owned(), reason }
    }

    /// The word at fault.
    #[must_use]
    pub fn word(&self) -> &str {
        &self.word
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.word, self.reason)
    }
}

impl std::error::Error for RuleError {}

/// The words of a rule, for the text of an error.
const WORDS: &str = "a rule is made of card= prefix= token op= appid= times= \
    status= code= http= truncate= stall= oversized= body= hang reset close garbage \
    latency= date= escaped numeric";

/// `64`, `64B`, `64KiB`, `4MiB`.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `300ms`, `2s`, `10m`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).map(Duration::from_millis)
}

/// `5m`, `+5m`, `-90s`, in seconds.
fn offset(text: &str) -> Option<i64> {
    let (sign, size) = match text.strip_prefix('-') {
        Some(size) => (-1, size),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let time = duration(size).filter(|time| time.subsec_millis() == 0)?;
    i64::try_from(time.as_secs()).ok().map(|seconds| sign * seconds)
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_it_is_written() {
        let rule = Rule::parse(" prefix=1476  status=02 latency=300ms op=2002 appid=0NZ times=3 ").unwrap();
        assert!(matches!(&rule.when.card, CardMatch::Prefix(prefix) if prefix == "1476"));
        assert_eq!(rule.when.operation, Some(Operation::Status));
        assert_eq!(rule.when.appid.as_deref(), Some("0NZ"));
        assert_eq!(rule.then.answer, Answer::Status("02".to_owned()));
        assert_eq!(rule.then.latency, Some(Duration::from_millis(300)));
        assert_eq!(rule.times, Some(3));
    }

    #[test]
    fn a_rule_can_be_for_tokens_of_v5() {
        let rule = Rule::parse("token appid=200001 code=12022").unwrap();
        assert!(rule.when.holds_fetch("200001") && !rule.when.holds_fetch("200002"));
        assert_eq!(Rule::parse("op=25S04").unwrap().when.operation, Operation::find("sim-status"));
    }

    #[test]
    fn every_answer_has_its_word() {
        for (text, answer) in [
            ("latency=1s", Answer::Default),
            ("code=01016", Answer::Code("01016".to_owned())),
            ("http=502", Answer::html(502)),
            ("hang", Answer::Hang),
            ("reset", Answer::Reset),
            ("close", Answer::Close),
            ("garbage", Answer::Garbage),
            ("truncate=10", Answer::Truncate(10)),
            ("stall=0", Answer::Stall(0)),
            ("oversized=4MiB", Answer::Oversized(4 << 20)),
            ("body={\"status\": \"0\"}", Answer::body("{\"status\": \"0\"}")),
        ] {
            assert_eq!(text.parse::<Rule>().map(|rule| rule.then.answer), Ok(answer), "{text}");
        }
    }

    #[test]
    fn how_it_is_written_and_dated_can_be_said() {
        let rule = Rule::parse("escaped numeric date=-5m").unwrap();
        assert!(rule.then.escaped && rule.then.numeric);
        assert_eq!(rule.then.date_offset, -300);
        assert_eq!(Rule::parse("date=+90s").unwrap().then.date_offset, 90);
        assert_eq!(Rule::parse("date=90s").unwrap().then.date_offset, 90);
    }

    #[test]
    fn what_is_wrong_is_named_with_the_remedy() {
        for (text, word, remedy) in [
            (" ", "", "empty"),
            ("cod=71", "cod=71", "code="),
            ("sleep", "sleep", "hang"),
            ("card=", "card=", "a value"),
            ("latency=300", "latency=300", "300ms"),
            ("latency=18446744073709551615m", "latency=18446744073709551615m", "10m"),
            ("times=-1", "times=-1", "number"),
            ("op=2003", "op=2003", "2002"),
            ("http=99", "http=99", "200 to 599"),
            ("truncate=4GB", "truncate=4GB", "KiB"),
            ("date=10ms", "date=10ms", "whole seconds"),
            ("card=1 prefix=1", "prefix=1", "one of"),
            ("card=1 token", "token", "one of"),
            ("status=02 hang", "hang", "one answer"),
            ("code=71 body=x y", "body", "one answer"),
        ] {
            let error = Rule::parse(text).unwrap_err();
            assert_eq!(error.word(), word, "{text}");
            assert!(error.to_string().contains(remedy), "{text}: {error}");
        }
    }
}
