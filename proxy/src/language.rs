//! The language of text for people: English or Chinese. JSON, metrics, exit codes and log messages are always English.
//!
//! The macro [`text!`](crate::language::text) takes both texts of a message at one place, so that neither can be missing, and each of
//! its arguments has to appear in both.

use std::ffi::OsString;
use std::fmt;

/// A language that people read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

/// The variables that select the language of messages, the first that is set and not empty counts (POSIX.1-2017, 8.2).
const VARIABLES: [&str; 3] = ["LC_ALL", "LC_MESSAGES", "LANG"];

impl Language {
    /// The language that an environment selects: Chinese if the value begins with `zh`, English otherwise.
    pub fn of_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let value = VARIABLES.into_iter().filter_map(variable).find(|value| !value.is_empty());
        match value {
            Some(value) if value.as_encoded_bytes().starts_with(b"zh") => Self::Chinese,
            _ => Self::English,
        }
    }

    /// The language that an `Accept-Language` header prefers (RFC 9110 12.5.4): of the ranges that one of the two languages
    /// matches, the one of the greatest weight, and of equal weights the first; English without any.
    pub fn accepted(header: &str) -> Self {
        let mut best = (0.0, Self::English);
        for range in header.split(',') {
            let (range, parameters) = range.split_once(';').unwrap_or((range, ""));
            let primary = range.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let language = match primary.as_str() {
                "zh" => Self::Chinese,
                "en" | "*" => Self::English,
                _ => continue,
            };
            let weight =
                parameters.trim().strip_prefix("q=").map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    /// Its tag in HTTP (RFC 5646).
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }
}

/// A message for people in both languages; its `Display` is the English one, for logs and JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Text {
    /// The English text.
    pub english: String,
    /// The Chinese text. Names, numbers and errors of the system in it are as in English.
    pub chinese: String,
}

impl Text {
    /// The text in a language.
    pub fn of(&self, language: Language) -> &str {
        match language {
            Language::English => &self.english,
            Language::Chinese => &self.chinese,
        }
    }

    /// A text that has one language only, such as an error of a library.
    pub fn untranslated(text: impl fmt::Display) -> Self {
        let english = text.to_string();
        Self { chinese: english.clone(), english }
    }

    /// The text with its subject in front, such as a path: `p.toml: is a folder`.
    pub fn about(self, subject: impl fmt::Display) -> Self {
        Self {
            english: format!("{subject}: {}", self.english),
            chinese: format!("{subject}：{}", self.chinese),
        }
    }

    /// The texts as one, separated by semicolons; none without any.
    pub fn join(texts: &[Self]) -> Option<Self> {
        let all = |language: Language, separator| {
            texts.iter().map(|text| text.of(language)).collect::<Vec<_>>().join(separator)
        };
        (!texts.is_empty())
            .then(|| Self { english: all(Language::English, "; "), chinese: all(Language::Chinese, "；") })
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.english)
    }
}

/// A [`Text`](crate::language::Text): the English and the Chinese format string, and the arguments of both.
#[macro_export]
macro_rules! text {
    ($english:literal, $chinese:literal $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::language::Text {
            english: ::std::fmt::format(::std::format_args!($english $(, $name = $value)*)),
            chinese: ::std::fmt::format(::std::format_args!($chinese $(, $name = $value)*)),
        }
    };
}
pub use text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_is_set_and_not_empty_selects_the_language() {
        use Language::{Chinese, English};
        for (set, language) in [
            (&[][..], English),
            (&[("LC_ALL", "zh_CN.UTF-8")], Chinese),
            (&[("LC_MESSAGES", "zh_TW"), ("LANG", "en_US.UTF-8")], Chinese),
            (&[("LANG", "zh")], Chinese),
            (&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8")], English),
            (&[("LC_ALL", "POSIX"), ("LC_MESSAGES", "zh_CN")], English),
            (&[("LC_MESSAGES", "en_US.UTF-8"), ("LANG", "zh_CN.UTF-8")], English),
            (&[("LC_ALL", ""), ("LC_MESSAGES", ""), ("LANG", "zh_CN.UTF-8")], Chinese),
            (&[("LANG", "de_DE.UTF-8")], English),
            (&[("LC_CTYPE", "zh_CN.UTF-8")], English),
        ] {
            let variable =
                |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value));
            assert_eq!(Language::of_environment(variable), language, "{set:?}");
        }
    }

    #[test]
    fn accept_language_selects_by_weight_and_order() {
        use Language::{Chinese, English};
        for (header, language) in [
            ("", English),
            ("zh", Chinese),
            ("zh-CN,zh;q=0.9,en;q=0.8", Chinese),
            ("en-US,en;q=0.9,zh;q=0.8", English),
            ("en;q=0.5, ZH-Hans;q=0.9", Chinese),
            ("fr, zh;q=0.1", Chinese),
            ("*, zh;q=0.5", English),
            ("zh;q=0", English),
            ("zh;q=x", English),
            ("zhuang", English),
        ] {
            assert_eq!(Language::accepted(header), language, "{header}");
        }
    }

    #[test]
    fn a_message_has_both_texts() {
        let text = text!("{n} rows", "{n} 行", n = 3);
        assert_eq!((text.of(Language::English), text.of(Language::Chinese)), ("3 rows", "3 行"));
        assert_eq!(text.to_string(), "3 rows");
        let both = Text::join(&[text.clone(), text]);
        assert_eq!(both, Some(text!("3 rows; 3 rows", "3 行；3 行")));
        assert_eq!(Text::join(&[]), None);
    }
}
