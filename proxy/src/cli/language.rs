//! The language of this process: selected once at start, then the same for every message and heading.

use std::error::Error;
use std::sync::OnceLock;

use cmiot_proxy::app::StartError;
use cmiot_proxy::config::{ConfigError, ConfigErrors};
use cmiot_proxy::language::{Language, Text};

static SELECTED: OnceLock<Language> = OnceLock::new();

/// Selects the language of the process; the first call counts.
pub(crate) fn select(language: Language) {
    SELECTED.get_or_init(|| language);
}

/// The language of the process, English before it is selected.
pub(super) fn selected() -> Language {
    SELECTED.get().copied().unwrap_or_default()
}

/// A message in the language of the process.
pub(super) fn said(text: Text) -> String {
    match selected() {
        Language::English => text.english,
        Language::Chinese => text.chinese,
    }
}

/// An error and its causes: those of the configuration in the language of the process.
pub(crate) fn error(error: &anyhow::Error) -> String {
    let one = |cause: &(dyn Error + 'static)| {
        let errors = cause.downcast_ref().map(ConfigErrors::text);
        let of_start = || match cause.downcast_ref() {
            Some(StartError::Token(error)) => Some(error.text()),
            _ => None,
        };
        let error = errors.or_else(of_start).or_else(|| cause.downcast_ref().map(ConfigError::text));
        error.map_or_else(|| cause.to_string(), said)
    };
    error.chain().map(one).collect::<Vec<_>>().join(": ")
}

/// The Chinese headings of the columns and the kinds of rows in the audit, and of the list of clients.
const COLUMNS: [(&str, &str); 45] = [
    ("id", "编号"),
    ("time", "时间"),
    ("client", "客户端"),
    ("group", "分组"),
    ("account", "账号"),
    ("peer", "来源地址"),
    ("operation", "能力"),
    ("kind", "类型"),
    ("card", "卡号"),
    ("transid", "事务编码"),
    ("outcome", "结果"),
    ("reason", "原因"),
    ("code", "返回码"),
    ("meaning", "含义"),
    ("carrier_code", "运营商返回码"),
    ("status", "状态"),
    ("card_is", "卡状态"),
    ("age_s", "缓存秒"),
    ("carrier_transid", "运营商事务编码"),
    ("latency_ms", "耗时毫秒"),
    ("authenticated", "已鉴权"),
    ("masked", "掩码"),
    ("previous", "前次事务编码"),
    ("fault", "故障"),
    ("bytes", "字节数"),
    ("body", "正文"),
    ("from", "原状态"),
    ("to", "新状态"),
    ("after", "晚于"),
    ("before", "不晚于"),
    ("lookup", "查询编号"),
    ("what", "事项"),
    ("detail", "详情"),
    ("first", "首次"),
    ("last", "末次"),
    ("count", "次数"),
    ("answered", "已响应"),
    ("refused", "被拒绝"),
    ("carrier call", "运营商调用"),
    ("note", "事项记录"),
    ("count of refused requests", "被拒绝请求的计数"),
    ("count of requests without a record", "无记录请求的计数"),
    ("appid", "应用编码"),
    ("rate", "频率"),
    ("replay", "重放"),
];

/// The heading of a column for people; a name without a Chinese heading is its own.
pub(super) fn heading(column: &'static str) -> &'static str {
    heading_in(selected(), column)
}

fn heading_in(language: Language, column: &'static str) -> &'static str {
    let chinese = || COLUMNS.iter().find(|(name, _)| *name == column).map(|(_, chinese)| *chinese);
    match language {
        Language::English => column,
        Language::Chinese => chinese().unwrap_or(column),
    }
}

#[cfg(test)]
mod tests {
    use cmiot_proxy::store::audit::query::{CALL, CHANGE, GAP, LOOKUP, NOTE, REFUSED};

    use super::*;

    #[test]
    fn every_column_has_a_chinese_heading_of_its_own() {
        for view in [LOOKUP, CALL, NOTE, REFUSED, GAP, CHANGE] {
            let mut seen = std::collections::BTreeSet::new();
            for column in view {
                let chinese = heading_in(Language::Chinese, column.name);
                assert!(!chinese.is_ascii(), "{}", column.name);
                assert!(seen.insert(chinese), "{chinese} stands for two columns");
                assert_eq!(heading_in(Language::English, column.name), column.name);
            }
        }
    }
}
