//! Configuration errors: the location, key, problem and remedy of each. All problems of a configuration are reported
//! together.

use std::fmt;
use std::path::{Path, PathBuf};

use cmiot_signer::{CardError, CredentialError};

use crate::language::{Language, Text, text};
use crate::printable;

/// One problem of a configuration. No field repeats a line of the file: it might hold a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file, and the position in it where one is known.
    pub location: Location,
    /// The key as the documentation writes it, such as `[gateway] deadline`; empty if the file as a whole is wrong.
    pub key: String,
    /// The rule that does not hold.
    pub problem: Text,
    /// The correction; none if the problem states it already. Boxed, since each result of a check has room for an error.
    pub remedy: Option<Box<Text>>,
}

impl ConfigError {
    pub(super) fn new(key: impl Into<String>, problem: Text) -> Self {
        Self { location: Location::default(), key: key.into(), problem, remedy: None }
    }

    /// A problem of a whole file.
    pub(super) fn of_file(path: &Path, problem: Text) -> Self {
        Self::new("", problem).at(Location::file(path))
    }

    pub(super) fn remedy(self, remedy: Text) -> Self {
        Self { remedy: Some(Box::new(remedy)), ..self }
    }

    pub(super) fn at(self, location: Location) -> Self {
        Self { location, ..self }
    }

    /// All parts, for people.
    pub fn text(&self) -> Text {
        let location = self.location.to_string();
        let shown = |language, separator| {
            let remedy = self.remedy.as_ref().map_or("", |remedy| remedy.of(language));
            let parts = [&location, &self.key, self.problem.of(language), remedy];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(separator)
        };
        Text { english: shown(Language::English, ": "), chinese: shown(Language::Chinese, "：") }
    }
}

impl std::error::Error for ConfigError {}

/// In English, for the log.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

/// The problem of a file that the system does not let the proxy read.
pub(super) fn cannot_be_read(error: &std::io::Error) -> Text {
    text!("cannot be read: {error}", "无法读取：{error}")
}

/// The problem of a file that the system does not let the proxy write.
pub(super) fn cannot_be_written(error: &std::io::Error) -> Text {
    text!("cannot be written: {error}", "无法写入：{error}")
}

/// The problem of a folder in the place of a file.
pub(super) fn is_a_folder() -> Text {
    text!("is a folder", "是文件夹")
}

/// The remedy of keys that exclude each other.
pub(super) fn keep_one() -> Text {
    text!("keep one", "请只保留一个")
}

/// The problem of a count of zero.
pub(super) fn at_least_one() -> Text {
    text!("must be at least 1", "至少为 1")
}

/// The problem of a number above a limit.
pub(super) fn at_most(limit: usize) -> Text {
    text!("must be at most {limit}", "最大为 {limit}")
}

/// The problem of a cell that is no number.
pub(super) fn whole_number(column: &str) -> Text {
    text!("{column}: must be a whole number", "{column}：必须是整数")
}

/// The problem of a time of zero, with a valid example.
pub(super) fn longer_than_zero(example: &str) -> Text {
    text!("must be longer than zero, such as \"{example}\"", "必须大于零，例如 \"{example}\"")
}

/// The problem of a size of zero, with a valid example as the configuration writes it.
pub(super) fn more_than_zero(example: &str) -> Text {
    text!("must be more than zero, such as {example}", "必须大于零，例如 {example}")
}

/// The problem of a URL with `USER:PASSWORD@`.
pub(super) fn has_credentials() -> Text {
    text!("must not hold a user name or password", "不能含有用户名或密码")
}

/// The problem of a text that is no URL.
pub(super) fn is_no_url() -> Text {
    text!("is not a URL", "不是 URL")
}

/// The problem of a key without a value.
pub(super) fn is_missing() -> Text {
    text!("is missing", "缺失")
}

/// The problem of a key without a value that a command needs.
pub(super) fn is_not_set() -> Text {
    text!("is not set", "没有设置")
}

/// The problem of a name that another entry has.
pub(super) fn taken_by(entry: &str) -> Text {
    text!("taken by {entry}", "已被 {entry} 使用")
}

/// The problem of bytes that are no text.
pub(super) fn is_not_utf8() -> Text {
    text!("is not UTF-8 text", "不是 UTF-8 文本")
}

/// The problem of an appid, ebid or password.
pub(super) fn credential(error: CredentialError) -> Text {
    let chinese = match error {
        CredentialError::Empty => "凭据为空：请填写运营商分配的值",
        CredentialError::TooLong => {
            "凭据过长（应用编码（appid）最多 26 字节，能力编码（ebid）最多 32 字节，密码最多 256 字节）：请检查是否粘贴了多余的内容"
        }
        CredentialError::BadCharacter => "凭据只能含有 0-9、A-Z 和 a-z：请检查其前后是否有空格或引号",
    };
    Text { english: error.to_string(), chinese: chinese.to_owned() }
}

/// The problem of a card number.
pub(super) fn card(error: CardError) -> Text {
    let chinese = match error {
        CardError::Msisdn => "msisdn 为 1 至 13 位数字：请去掉“+”、空格和连字符",
        CardError::Iccid => "iccid 为 20 位数字或字母 A-F：请从卡面或运营商平台复制",
        CardError::Imsi => "imsi 为 1 至 15 位数字：请去掉空格和连字符",
    };
    Text { english: error.to_string(), chinese: chinese.to_owned() }
}

/// A file, and a line and column in it, both counted from 1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Location {
    /// Empty for a configuration that was not read from a file.
    pub path: PathBuf,
    /// The line, where it is known.
    pub line: Option<u32>,
    /// The column, where it is known.
    pub column: Option<u32>,
}

impl Location {
    pub(super) fn file(path: &Path) -> Self {
        Self { path: path.to_owned(), line: None, column: None }
    }

    pub(super) fn line(path: &Path, line: usize) -> Self {
        Self { path: path.to_owned(), line: number(line), column: None }
    }

    /// The position of a byte of a file's text.
    pub(super) fn byte(path: &Path, text: &str, byte: usize) -> Self {
        let before = &text.as_bytes()[..byte.min(text.len())];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        Self { path: path.to_owned(), line: number(line), column: number(column) }
    }
}

fn number(count: usize) -> Option<u32> {
    u32::try_from(count).ok()
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        Ok(())
    }
}

/// All problems of a configuration, in the order of its checks; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The problems that [`Self::summary`] names.
    const IN_SUMMARY: usize = 10;

    /// Fails if there is any problem.
    pub(super) fn check(problems: Vec<ConfigError>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    /// The problems.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// The problems in one line, for the log and for an alarm; the first ones if there are many.
    pub fn summary(&self) -> Text {
        let named: Vec<_> = self.0.iter().take(Self::IN_SUMMARY).map(ConfigError::text).collect();
        let named = Text::join(&named).unwrap_or_default();
        match self.0.len() {
            1 => named,
            count => Text {
                english: format!("{} ({count} problems)", named.english),
                chinese: format!("{}（共 {count} 个问题）", named.chinese),
            },
        }
    }

    /// The problems for people: one per line, with its control characters escaped, then their number if there are several.
    pub fn text(&self) -> Text {
        let texts: Vec<_> = self.0.iter().map(ConfigError::text).collect();
        let lines = |language| {
            let lines = texts.iter().map(|text| printable::escape(text.of(language)));
            lines.collect::<Vec<_>>().join("\n")
        };
        let (english, chinese) = (lines(Language::English), lines(Language::Chinese));
        match self.0.len() {
            1 => Text { english, chinese },
            count => Text {
                english: format!("{english}\n{count} problems"),
                chinese: format!("{chinese}\n{count} 个问题"),
            },
        }
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl std::error::Error for ConfigErrors {}

/// In English, for the log.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_parts_that_it_has() {
        let error = ConfigError::new("[gateway] deadline", text!("must not be zero", "不能为零"));
        assert_eq!(error.to_string(), "[gateway] deadline: must not be zero");
        let error = error.remedy(text!("write \"20s\"", "请写 \"20s\""));
        let error = error.at(Location::byte(Path::new("p.toml"), "a\nbc", 3));
        let shown = text!(
            "p.toml:2:2: [gateway] deadline: must not be zero: write \"20s\"",
            "p.toml:2:2：[gateway] deadline：不能为零：请写 \"20s\""
        );
        assert_eq!((error.to_string(), error.text()), (shown.english.clone(), shown));
        let file = ConfigError::of_file(Path::new("p.toml"), is_a_folder());
        assert_eq!(file.text(), text!("p.toml: is a folder", "p.toml：是文件夹"));
    }

    #[test]
    fn several_problems_are_lines_and_a_count_or_one_line() {
        let error = |key: &str| ConfigError::new(key, is_missing());
        let errors = ConfigErrors(vec![error("a"), error("b\u{1b}")]);
        let lines =
            text!("a: is missing\nb\\u{{1b}}: is missing\n2 problems", "a：缺失\nb\\u{{1b}}：缺失\n2 个问题");
        assert_eq!((errors.to_string(), errors.text()), (lines.english.clone(), lines));
        let one = ConfigErrors(vec![error("a"), error("b")]).summary();
        assert_eq!(
            one,
            text!("a: is missing; b: is missing (2 problems)", "a：缺失；b：缺失（共 2 个问题）")
        );
        assert_eq!(ConfigErrors::from(error("a")).text(), text!("a: is missing", "a：缺失"));
        assert_eq!(ConfigErrors::check(Vec::new()), Ok(()));
    }
}
