//! The heads of the audit's columns and the kinds of its rows. In English they are the names of SQL, CSV and JSON.

use crate::language::Language;

/// The head of a column of the audit.
pub(super) fn of_column(name: &'static str, language: Language) -> &'static str {
    match language {
        Language::English => name,
        Language::Chinese => chinese(name).unwrap_or(name),
    }
}

/// The kind of an audit row, as [`crate::store::audit::query::ShownRow`] names it.
pub(super) fn of_kind(kind: &'static str, language: Language) -> &'static str {
    match (language, kind) {
        (Language::Chinese, "lookup") => "查询",
        (Language::Chinese, "carrier call") => "运营商调用",
        (Language::Chinese, "count of refused requests") => "仅计数的拒绝",
        (Language::Chinese, "count of requests without a record") => "没有记录的请求",
        (Language::Chinese, "note") => "备注",
        (_, kind) => kind,
    }
}

/// The Chinese head of a column; none for an unknown one.
fn chinese(name: &str) -> Option<&'static str> {
    Some(match name {
        "id" => "编号",
        "time" => "时间",
        "client" => "客户端",
        "group" => "分组",
        "account" => "账号",
        "peer" => "来源地址",
        "operation" => "能力",
        "kind" => "卡号类型",
        "card" => "卡号",
        "masked" => "掩码卡号",
        "transid" => "事务编码",
        "previous" => "前一次的事务编码",
        "outcome" => "结果",
        "reason" => "原因",
        "code" => "返回码",
        "meaning" => "返回码含义",
        "carrier_code" => "运营商返回码",
        "status" => "卡状态",
        "card_is" => "卡状态含义",
        "age_s" => "时长（秒）",
        "carrier_transid" => "运营商调用的事务编码",
        "latency_ms" => "延迟（毫秒）",
        "authenticated" => "已认证",
        "fault" => "故障",
        "bytes" => "字节数",
        "body" => "正文",
        "what" => "事项",
        "detail" => "详情",
        "first" => "最早",
        "last" => "最近",
        "count" => "次数",
        "answered" => "无记录的应答",
        "refused" => "因此拒绝",
        "from" => "原状态",
        "to" => "新状态",
        "after" => "晚于",
        "before" => "早于",
        "lookup" => "查询编号",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::query::{CALL, CHANGE, GAP, LOOKUP, NOTE, REFUSED};

    #[test]
    fn every_column_has_a_head_in_both_languages() {
        for column in [LOOKUP, CALL, NOTE, REFUSED, GAP, CHANGE].concat() {
            assert!(chinese(column.name).is_some(), "{}", column.name);
            assert_eq!(of_column(column.name, Language::English), column.name);
        }
        for kind in [
            "lookup",
            "carrier call",
            "note",
            "count of refused requests",
            "count of requests without a record",
        ] {
            assert_ne!(of_kind(kind, Language::Chinese), of_kind(kind, Language::English));
        }
    }
}
