//! Reasons of refusals and failures, in words that a person can act on.

use crate::language::{Text, text};

/// The cause and the remedy of a reason in audit and metrics; the reason itself if it is a new one.
pub(super) fn of_reason(reason: &str) -> Text {
    match reason {
        "unknown-path" | "foreign-host" => text!(
            "the path is no operation, or the target names another host: check the gateway's URL; further names belong into \
             [gateway] names",
            "路径不是所支持的能力，或目标指向其他主机：检查网关的 URL；主机别名写入 [gateway] names"
        ),
        "method" | "get-body" | "transfer-encoding" | "host" | "encoding" | "target-too-long"
        | "body-too-long" | "body-cut-off" => text!(
            "the request is not well-formed HTTP for this interface: check the gateway and what is between it and the proxy",
            "请求的 HTTP 形式不符合要求：检查网关和中间设备"
        ),
        "missing-parameter"
        | "doubled-parameter"
        | "undeclared-parameter"
        | "parameter-format"
        | "no-card"
        | "several-cards"
        | "appid-format"
        | "transid-format" => text!(
            "a parameter is missing, repeated or malformed: the gateway's software must change",
            "参数缺失、重复或格式错误：需要修改网关软件"
        ),
        "card-format" => text!(
            "the card number breaks the rule of its kind: correct it in the gateway",
            "卡号不符合其类型的规则：在网关中改正"
        ),
        "token" => text!(
            "the appid is unknown or revoked, or the password differs: compare the client list with the gateway's password",
            "appid 未知或已吊销，或密码不一致：核对客户端名单和网关的密码"
        ),
        "transid-stale" => text!(
            "the gateway's clock is off by more than clock_skew: set it, for instance from the Date of a response",
            "网关时钟的偏差超过 clock_skew：请校时，例如使用响应的 Date"
        ),
        "transid-reused" => text!(
            "the gateway sent a transid again: each request needs a new sequence number",
            "网关重复发送了同一 transid：每次请求需要新的序列号"
        ),
        "ebid" | "operation" => text!(
            "the ebid is wrong, or the client may not use this operation: check ebid and operations of the client",
            "能力编码错误，或客户端没有该能力的权限：检查该客户端的 ebid 和 operations"
        ),
        "peer" | "certificate" => text!(
            "the address or the certificate is not this client's: check peers and certificate of the client",
            "来源地址或证书不属于该客户端：检查该客户端的 peers 和 certificate"
        ),
        "card" => text!(
            "the client may not ask for this card: check its cards and cards_file",
            "该客户端不能查询这张卡：检查其 cards 和 cards_file"
        ),
        "rate" => text!(
            "the client asks faster than its rate: slow the gateway down, or raise rate",
            "该客户端的请求频率超过 rate：降低网关频率，或提高 rate"
        ),
        "replay-full" => text!(
            "the replay table has no place left for the client or its group: give the client a rate, or raise \
             max_transids_per_client or max_transids_per_group",
            "防重放表中该客户端或其分组的份额已满：为其设置 rate，或提高 max_transids_per_client、max_transids_per_group"
        ),
        "only-if-cached" => text!(
            "the request accepts a cached response only, and there was none",
            "请求只接受缓存，但没有可用的缓存"
        ),
        "budget" => text!(
            "the account's calls are spent: check calls_per_day and calls_per_second",
            "账号的调用额度已用完：检查 calls_per_day 和 calls_per_second"
        ),
        "cool-down" => text!(
            "the carrier throttles the account: lower calls_per_second to the carrier's limit",
            "运营商正在限流：把 calls_per_second 降到运营商的限额"
        ),
        "breaker" | "connect" | "connect-timeout" | "tls" | "closed-early" | "broken" | "timeout"
        | "http-status" | "interim" | "too-long" | "not-an-envelope" => text!(
            "the carrier cannot be reached or does not reply as it should: run `cmiot-proxy check --live`",
            "无法连接运营商，或其响应异常：请运行 `cmiot-proxy check --live`"
        ),
        "carrier-credentials" | "no-ebid" => text!(
            "the carrier refuses the account, or the account has no ebid for the operation: run `cmiot-proxy check --live`",
            "运营商拒绝该账号，或账号没有该能力的 ebid：请运行 `cmiot-proxy check --live`"
        ),
        "carrier-token" | "no-token" => text!(
            "the carrier issues no token to the account, or refuses the one that it has just issued: look for another program \
             that uses the appid, and run `cmiot-proxy check --live`",
            "运营商不向该账号发放 token，或拒绝刚刚发放的 token：请查找使用同一应用编码（appid）的其他程序，并运行 \
             `cmiot-proxy check --live`"
        ),
        "crowded" | "deadline" => text!(
            "too many requests wait, or the carrier is slow: check the carrier's latency, max_flights and deadline",
            "等待的请求过多，或运营商响应慢：检查运营商延迟、max_flights 和 deadline"
        ),
        "audit" | "sequence" | "budget-uncounted" | "descriptors" => text!(
            "this machine lacks disk space, file descriptors or a working disk: the alarms name it",
            "本机缺少磁盘空间、文件描述符，或磁盘故障：见告警"
        ),
        "alone" => text!(
            "the database of the fleet was away: the gateway may send the same transid again",
            "集群数据库不可用：网关可以用同一 transid 重试"
        ),
        "client-gone" => text!(
            "the gateway closed the connection before its response: check its timeout",
            "网关在收到响应之前断开：检查其超时时间"
        ),
        "action-begun" => text!(
            "an action was sent, and its result is unknown: look at its carrier calls; do not repeat it with another transid",
            "变更类操作已发出，结果未知：查看其运营商调用；不要换用新的事务编码重发"
        ),
        "shutdown" => text!("the proxy was stopping", "代理正在停止"),
        "lost" => text!("an internal error: please report it", "内部错误：请报告缺陷"),
        other => text!("{other}", "{other}"),
    }
}

/// The meaning of a code of STATUS.
pub(super) fn of_status(status: &str) -> Text {
    match status {
        "00" => text!("normal", "正常"),
        "01" => text!("one-way barred", "单向停机"),
        "02" => text!("barred", "停机"),
        "03" => text!("pre-cancelled", "预销号"),
        "04" => text!("cancelled", "销号"),
        "05" => text!("transferred", "过户"),
        "06" => text!("dormant", "休眠"),
        "07" => text!("awaiting activation", "待激活"),
        "99" => text!("no such number", "号码不存在"),
        other => text!("{other}", "{other}"),
    }
}

/// An outcome in words.
pub(super) fn of_outcome(outcome: &str) -> Text {
    match outcome {
        "hit" => text!("hit", "命中"),
        "stale" => text!("stale", "陈旧"),
        "miss" => text!("miss", "未命中"),
        "collapsed" => text!("collapsed", "合并"),
        "refused" => text!("refused", "拒绝"),
        "failed" => text!("failed", "失败"),
        other => text!("{other}", "{other}"),
    }
}
