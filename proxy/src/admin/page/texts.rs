//! The words of the page in both languages, one row per text: a row without one of them does not compile. Sentences with
//! values are in the pages, as `text!`.

use crate::language::Language;

/// Defines the words, and their tables in both languages.
macro_rules! texts {
    ($($name:ident: $english:literal, $chinese:literal;)+) => {
        /// The words in one language.
        #[derive(Debug)]
        pub(super) struct Texts {
            $(pub(super) $name: &'static str,)+
        }

        static ENGLISH: Texts = Texts { $($name: $english,)+ };
        static CHINESE: Texts = Texts { $($name: $chinese,)+ };

        #[cfg(test)]
        const ALL: &[(&str, &str, &str)] = &[$((stringify!($name), $english, $chinese),)+];
    };
}

texts! {
    product: "cmiot-proxy", "cmiot-proxy";
    overview: "Overview", "总览";
    log_in: "Log in", "登录";
    log_out: "Log out", "退出";
    token: "Token", "令牌";
    token_hint: "The token of [admin] token_file, of admin.token in [store] dir, or of an entry in [[admin.access]].",
        "[admin] token_file、[store] dir 中的 admin.token，或 [[admin.access]] 中某一项的令牌。";
    skip: "Skip to the content", "跳到正文";
    navigation: "Pages", "页面";
    language: "Language", "语言";
    viewer: "Viewer", "当前用户";
    back_to_overview: "To the overview", "返回总览";
    conditions: "Conditions that need you", "需要处理的情况";
    no_conditions: "No condition needs you.", "没有需要处理的情况。";
    since: "since", "始于";
    warning: "warning", "警告";
    error: "error", "错误";
    today: "Now", "现在";
    cached: "Entries in memory", "内存中的条目";
    flights: "Calls in flight", "进行中的调用";
    connections: "Gateway connections", "网关连接";
    waiting_rows: "Audit rows that wait", "等待写入的审计行";
    last_anchor: "Last anchor", "最近的锚点";
    none_yet: "none yet", "尚无";
    calls_left: "Calls left today", "今日剩余调用";
}

impl Texts {
    /// The words in a language.
    pub(super) fn of(language: Language) -> &'static Self {
        match language {
            Language::English => &ENGLISH,
            Language::Chinese => &CHINESE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that are the same in both languages.
    const NAMES: [&str; 1] = ["product"];

    #[test]
    fn every_word_is_in_both_languages() {
        for (name, english, chinese) in ALL {
            assert!(!english.is_empty() && english.is_ascii(), "{name}: {english}");
            let is_chinese = chinese.chars().any(|character| ('\u{4e00}'..='\u{9fff}').contains(&character));
            assert!(is_chinese || NAMES.contains(name), "{name}: {chinese}");
        }
        assert!(std::ptr::eq(Texts::of(Language::Chinese).overview, CHINESE.overview));
    }
}
