//! Keys that are set without effect, or with an unexpected one: warnings of `check` and of the start.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Config, ConfigFile, file};
use crate::language::{Text, text};

/// A sentence for each key that has no effect as it is written.
pub(super) fn warnings(file: &ConfigFile, config: &Config) -> Vec<Text> {
    let (carrier, operations) = (&config.carrier, &config.operations);
    let is_served = |name: &str| operations.named(name).is_some_and(|one| operations.at(one.path).is_some());
    let mut warnings = Vec::new();
    for (key, names) in [("[gateway] names", &file.gateway.names), ("[admin] names", &file.admin.names)] {
        let without = names.iter().filter(|name| !is_host(name));
        warnings.extend(without.map(|name| {
            text!(
                "{key}: \"{name}\" has no effect: write the host alone, such as \"gw.example\", without scheme, port or path",
                "{key}：\"{name}\" 不起作用：只写主机名，例如 \"gw.example\"，不带协议、端口和路径"
            )
        }));
    }
    let path = carrier.base_url.path().to_ascii_lowercase();
    if path.ends_with("/v2") || path.contains("/v2/") {
        warnings.push(text!(
            "[carrier] base_url = \"{url}\": the path of each operation begins with /v2 already, so that calls would go to \
             {path}/v2/userstatusrealsingle: end it before /v2",
            "[carrier] base_url = \"{url}\"：每个能力的路径已经以 /v2 开头，调用会发往 {path}/v2/userstatusrealsingle：\
             请写到 /v2 之前为止",
            url = file.carrier.base_url
        ));
    }
    if let Some(tls) = &file.carrier.tls {
        if carrier.base_url.scheme_str() == Some("http") {
            warnings.push(text!(
                "[carrier.tls] has no effect: base_url begins with http://",
                "[carrier.tls] 不起作用：base_url 以 http:// 开头"
            ));
        }
        if tls.pin_file.is_some() && tls.ca_file.is_some() {
            warnings.push(text!(
                "[carrier.tls] ca_file has no effect together with pin_file: remove one",
                "[carrier.tls] ca_file 与 pin_file 同时使用时不起作用：请删除其中一个"
            ));
        }
    }
    for (table, tls) in [("[gateway.tls]", &file.gateway.tls), ("[admin.tls]", &file.admin.tls)] {
        let optional = tls.as_ref().is_some_and(|tls| tls.client_certificate_optional);
        if optional && !requests_certificates(tls.as_ref()) {
            warnings.push(text!(
                "{table} client_certificate_optional has no effect without client_ca_file",
                "{table} client_certificate_optional 在没有 client_ca_file 时不起作用"
            ));
        }
    }
    if file.gateway.max_connections_per_peer > file.gateway.max_connections
        && file.gateway.max_connections_per_peer != file::Gateway::default().max_connections_per_peer
    {
        warnings.push(text!(
            "[gateway] max_connections_per_peer has no effect above max_connections",
            "[gateway] max_connections_per_peer 大于 max_connections 时不起作用"
        ));
    }
    for row in file.operations.iter().filter(|row| !is_served(&row.name)) {
        warnings.push(text!(
            "[[operation]] (name = \"{name}\"): has no effect: no account has an ebid for it; add ebids = {{ {name} = \"...\" \
             }} to its [[account]]",
            "[[operation]]（name = \"{name}\"）：不起作用：没有账号具有它的能力编码（ebid）；请在其 [[account]] 中添加 \
             ebids = {{ {name} = \"...\" }}",
            name = row.name
        ));
    }
    warnings.extend(limits_below_nodes(config));
    warnings.extend(permitted_without_ebid(config));
    warnings.extend(certificates_not_requested(file, config));
    warnings
}

/// Limits of accounts that cannot be divided among the nodes of the fleet.
fn limits_below_nodes(config: &Config) -> BTreeSet<Text> {
    let Some(fleet) = &config.fleet else { return BTreeSet::new() };
    let nodes = fleet.nodes;
    let mut warnings = BTreeSet::new();
    for account in config.groups.values().flatten() {
        let name = &account.name;
        if let Some(limit) = account.max_concurrent_calls.filter(|limit| limit.get() < nodes) {
            warnings.insert(text!(
                "[[account]] (name = \"{name}\"): max_concurrent_calls = {limit} is less than [fleet] nodes = {nodes}: each \
                 node makes one call at once, so that there may be {nodes}",
                "[[account]]（name = \"{name}\"）：max_concurrent_calls = {limit} 小于 [fleet] nodes = {nodes}：每个节点\
                 同时进行一个调用，总数可能达到 {nodes}"
            ));
        }
        if let Some(limit) = account.calls_per_second.filter(|limit| limit.get() < nodes) {
            warnings.insert(text!(
                "[[account]] (name = \"{name}\"): calls_per_second = {limit} is less than [fleet] nodes = {nodes}: while the \
                 database of the fleet is away no call of the account is sent",
                "[[account]]（name = \"{name}\"）：calls_per_second = {limit} 小于 [fleet] nodes = {nodes}：无法访问集群\
                 数据库期间，不发送该账号的调用"
            ));
        }
    }
    warnings
}

/// Operations that are permitted to clients whose group has no ebid for them, each once per group.
fn permitted_without_ebid(config: &Config) -> BTreeSet<Text> {
    let listed = config.clients.values().map(|client| (&client.group, &client.permissions));
    let derived = config.derived.iter().map(|derived| (&derived.group, &derived.rights));
    let mut seen = BTreeSet::new();
    for (group, permissions) in listed.chain(derived) {
        for name in &permissions.operations {
            let ebid = config.operations.named(name).is_some_and(|operation| {
                let accounts = config.groups.get(group).map(Vec::as_slice).unwrap_or_default();
                accounts.iter().any(|account| account.serves(operation))
            });
            if !ebid {
                seen.insert(text!(
                    "operations = [\"{name}\"] has no effect for clients of group \"{group}\": none of its accounts has an \
                     ebid for it; add ebids = {{ {name} = \"...\" }} to an [[account]]",
                    "operations = [\"{name}\"] 对分组 \"{group}\" 的客户端不起作用：该分组没有账号具有它的能力编码（ebid）；\
                     请在 [[account]] 中添加 ebids = {{ {name} = \"...\" }}"
                ));
            }
        }
    }
    seen
}

/// Clients that cannot present their certificate, since the listener requests none.
fn certificates_not_requested(file: &ConfigFile, config: &Config) -> Option<Text> {
    if requests_certificates(file.gateway.tls.as_ref()) {
        return None;
    }
    let mut named = config.clients.values().filter(|client| client.certificate.is_some());
    let (first, more) = (named.next()?, named.count());
    Some(text!(
        "appid \"{appid}\" and {more} more clients are refused: they have a `certificate`, which needs client_ca_file in \
         [gateway.tls]",
        "应用编码（appid）\"{appid}\" 和另外 {more} 个客户端会被拒绝：它们有 `certificate`，需要 [gateway.tls] 中的 \
         client_ca_file",
        appid = first.appid.as_str()
    ))
}

fn requests_certificates(tls: Option<&file::Tls>) -> bool {
    tls.is_some_and(|tls| tls.client_ca_file.is_some())
}

/// Whether a name can be the host of a request's target: a DNS name, or an IP address without brackets.
fn is_host(name: &str) -> bool {
    let is_dns = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    name.parse::<IpAddr>().is_ok() || !name.is_empty() && name.bytes().all(is_dns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn warnings(more: &str) -> Vec<String> {
        let account = "[[account]]\nname='a'\nappid='A1'\nebid='0001000000009'\npassword='pw'\ncarrier_credentials=true\n";
        let file = ConfigFile::parse(Path::new("p.toml"), &format!("{account}{more}")).unwrap();
        let warnings = Config::check(&file, Path::new(".")).unwrap().warnings;
        warnings
            .into_iter()
            .map(|text| text.english)
            .filter(|text| !text.contains("prefer password_file"))
            .collect()
    }

    #[test]
    fn a_key_without_effect_is_named() {
        for (more, said) in [
            ("[gateway]\nnames = ['https://gw.example']\n", "https://gw.example"),
            ("[gateway]\nnames = ['gw.example:8443']\n", "gw.example:8443"),
            ("[gateway]\nnames = ['*.example']\n", "*.example"),
            ("[admin]\nnames = ['[::1]']\n", "[admin] names"),
            ("[carrier]\nbase_url = 'https://api.example/v2/'\n", "before /v2"),
            ("[carrier]\nbase_url = 'https://api.example/V2'\n", "before /v2"),
            ("[carrier]\nbase_url = 'https://api.example/v2/userstatusrealsingle'\n", "before /v2"),
            (
                "[carrier]\nbase_url = 'http://api.example'\n[carrier.tls]\nmin_version = '1.3'\n",
                "[carrier.tls]",
            ),
            ("[gateway]\nmax_connections_per_peer = 20000\n", "max_connections_per_peer"),
            ("[[operation]]\nname = 'x1'\nverdict = 'a'\n", "\"x1\""),
            (
                "[[client]]\ngroup='a'\nappid='C'\npassword='p'\noperations=['smsstatusreset']\n",
                "[\"smsstatusreset\"] has no effect for clients of group \"a\"",
            ),
            ("[[client]]\ngroup='a'\nappid='C'\npassword='p'\ncertificate='c.example'\n", "client_ca_file"),
        ] {
            let warned = warnings(more);
            assert!(warned.iter().any(|text| text.contains(said)), "{more}: {warned:?}");
        }
        let fine = "[gateway]\nnames = ['gw.example', '10.0.0.1', '::1']\n[carrier]\nbase_url = 'https://x/v2beta'\n";
        assert_eq!(warnings(fine), [] as [String; 0]);
    }

    #[test]
    fn a_timeout_of_zero_is_an_error() {
        let account = "[[account]]\nname = 'a'\nappid = 'A1'\nebid = '0001000000009'\npassword = 'pw'\n";
        for (table, key, value) in [
            ("carrier", "timeout", "0s"),
            ("carrier", "connect_timeout", "0s"),
            ("carrier", "drift_alarm", "0s"),
            ("carrier", "max_body", "0B"),
            ("gateway", "deadline", "0s"),
            ("gateway", "idle", "0s"),
        ] {
            let text = format!("{account}[{table}]\n{key} = '{value}'\n");
            let file = ConfigFile::parse(Path::new("p.toml"), &text).unwrap();
            let error = Config::check(&file, Path::new(".")).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("than zero"), "{error}");
        }
    }
}
