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
    zone: "Times and days are those of UTC+8.", "时间和日期均为 UTC+8。";
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
    card: "Card", "卡";
    account: "Account", "账号";
    accounts: "Accounts", "账号";
    clients: "Clients", "客户端";
    refusals: "Refusals", "拒绝";
    audit: "Audit", "审计";
    live: "Live", "实时";
    group: "Group", "分组";
    calls_today: "Calls today", "今日调用";
    reserve: "reserve of this node", "本节点储备";
    no_limit: "no limit", "无限制";
    per_second: "Calls per second", "每秒调用";
    last_minute: "mean of the last whole minute", "最近一个整分钟的平均值";
    queue: "Calls that wait", "排队的调用";
    password: "Password in use", "使用的密码";
    calls_last_day: "Calls of the last 24 hours", "最近 24 小时的调用";
    breakers: "Breakers", "熔断器";
    breaker: "Breaker", "熔断器";
    operation: "Operation", "能力";
    opened_by: "Opened by", "打开原因";
    next_call: "Next call", "下一次调用";
    incomplete: "incomplete: older or newer rows are still being read, reload in a moment", "不完整：仍在读取较早或较新的行，请稍后刷新";
    appid_or_group: "Appid or group", "appid 或分组";
    order: "Order", "排序";
    only_trouble: "In trouble only", "只看有问题的";
    in_trouble: "in trouble", "有问题";
    revoked: "revoked", "已吊销";
    show: "Show", "显示";
    as_csv: "As CSV", "导出 CSV";
    client: "Client", "客户端";
    requests: "Requests", "请求";
    hits: "Hits", "命中";
    stale: "Stale", "陈旧";
    misses: "Misses", "未命中";
    refused: "Refused", "拒绝";
    failed: "Failed", "失败";
    reasons: "Reasons", "原因";
    last_seen: "Last seen", "最近一次";
    clock_ahead: "Clock ahead", "时钟偏快";
    previous: "Previous", "上一页";
    next: "Next", "下一页";
    replay_fill: "Replay table by group", "各分组的防重放表";
    commands: "Commands", "命令";
    commands_hint: "Passwords are changed on the machine, and never cross this page:", "密码在本机上修改，不经过此页面：";
    peer: "Peer", "来源地址";
    reason: "Reason", "原因";
    any: "any", "任意";
    count: "Count", "次数";
    counts: "counts", "计数";
    what_to_do: "Cause and remedy", "原因与处理";
    several_peers: "several peers", "多个来源";
    no_refusals: "No request was refused.", "没有请求被拒绝。";
    cut: "only the most frequent are shown", "只显示最频繁的";
    rows: "Rows", "行";
    row: "Row", "行";
    until: "until", "直到";
    outcome: "Outcome", "结果";
    code: "Code", "返回码";
    by_card: "The rows of one card are on the page", "单张卡的行见页面";
    no_rows: "No row.", "没有行。";
    older: "Older rows", "更早的行";
    verification: "Verification", "校验";
    verify: "Verify the audit", "校验审计";
    reload: "Reload", "刷新";
    noted: "noted in the audit", "已记入审计";
    reveal: "Show the card", "显示卡号";
    reveal_hint: "A note in the audit will name you.", "审计中会记下您的名字。";
    carrier_calls: "Carrier calls", "运营商调用";
    no_calls: "It cost no call.", "没有用去调用。";
    card_kind: "Kind", "类型";
    card_number: "Number", "卡号";
    entry: "Entry in the cache", "缓存中的条目";
    age: "Age", "时长";
    fresh_until: "Fresh until", "新鲜至";
    stale_until: "Stale until", "陈旧可用至";
    tier: "Tier", "存放于";
    body: "Body", "正文";
    no_entry: "No entry: the next lookup costs a call.", "没有条目：下一次查询会用去一次调用。";
    refresh: "Refresh (spends a call)", "刷新（用去一次调用）";
    purge_soft: "Mark stale", "标记为陈旧";
    purge_hard: "Remove", "删除";
    purge: "Purge", "清除";
    cancel: "Cancel", "取消";
    changes: "Changes of STATUS", "STATUS 变化";
    no_changes: "No change is recorded.", "没有变化记录。";
    lookups_and_calls: "Lookups and their calls", "查询及其调用";
    pause: "Pause", "暂停";
    resume: "Resume", "继续";
    dropped: "Lookups that were not shown, at most", "未显示的查询（至多）";
    live_without_scripts: "Without scripts these are the last 100 rows.", "未启用脚本：以下是最近 100 行。";
    last_day: "The last 24 hours", "最近 24 小时";
    last_month: "The last 30 days", "最近 30 天";
    lookups: "Lookups", "查询";
    hit_share: "Hit share", "命中率";
    counted: "Refused and only counted", "仅计数的拒绝";
    chart_lookups: "Lookups by outcome", "按结果的查询";
    chart_calls: "Carrier calls", "运营商调用";
    chart_hits: "Hit share in percent", "命中率（百分比）";
    chart_latency: "Latency in milliseconds", "延迟（毫秒）";
    fleet: "Fleet", "集群";
    nodes: "Nodes", "节点";
    node: "Node", "节点";
    this_node: "this node", "本节点";
    state: "State", "状态";
    seconds: "Seconds since its start", "启动以来的秒数";
    heartbeats: "Heartbeats", "心跳";
    purges: "Last purge applied", "已应用的清除";
    fleet_days: "Calls of today, all nodes", "所有节点的今日调用";
    reserves: "reserves", "储备";
    fleet_clients: "Clients, all nodes", "所有节点的客户端";
    own_figures: "The figures and charts of this page are those of this node alone.", "本页的数字和图表只包括本节点。";
    own_requests: "The table above has the requests of this node.", "上表只有本节点的请求。";
    accepted: "Transids among the newest 50,000 of the fleet", "集群最新 50,000 个 transid 中的个数";
    order_trouble: "trouble first", "有问题的在前";
    order_requests: "requests", "请求";
    order_refused: "refused", "拒绝";
    order_failed: "failed", "失败";
    order_last: "last seen", "最近一次";
    order_ahead: "clock", "时钟偏差";
    order_name: "appid", "按 appid";
    order_group: "group", "分组";
    kind_lookups: "lookups", "查询";
    kind_calls: "carrier calls", "运营商调用";
    kind_notes: "notes", "备注";
    kind_refusals: "counted refusals", "仅计数的拒绝";
    calls_left: "Calls left today", "今日剩余调用";
}

impl Texts {
    /// The orders of clients.
    pub(super) fn client_orders(&self) -> [(&'static str, &'static str); 8] {
        [
            ("trouble", self.order_trouble),
            ("requests", self.order_requests),
            ("refused", self.order_refused),
            ("failed", self.order_failed),
            ("last", self.order_last),
            ("ahead", self.order_ahead),
            ("name", self.order_name),
            ("group", self.order_group),
        ]
    }

    /// The kinds of audit rows.
    pub(super) fn row_kinds(&self) -> [(&'static str, &'static str); 4] {
        [
            ("lookups", self.kind_lookups),
            ("calls", self.kind_calls),
            ("notes", self.kind_notes),
            ("refusals", self.kind_refusals),
        ]
    }

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
