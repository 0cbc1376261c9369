//! From [`ConfigFile`] to [`Config`]: every rule that one value alone cannot show.
//!
//! An error is a sentence that names the table, the key and the remedy; the caller adds the file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use cmiot_signer::{AppId, Card, CardKind, Ebid};
use hyper::Uri;

use super::certificates::Validity;
use super::clients::{Clients, Groups};
use super::reader::{PasswordSource, SourceFiles};
use super::text::Entry;
use super::{Account, Carrier, Config, ConfigFile, admin, effect, file, operation, shares};
use crate::operation::{Operations, USER_STATUS};
use crate::tls;

impl Config {
    /// Checks what was read; relative paths are relative to `folder`.
    ///
    /// # Errors
    /// The first rule that does not hold, as a sentence.
    pub fn check(file: &ConfigFile, folder: &Path) -> Result<Self, String> {
        let mut reader = SourceFiles::new(folder, file.process.allow_world_readable_secrets);
        let rows = file.operations.iter().map(operation::RawOperation::check).collect::<Result<_, _>>()?;
        let mut operations = Operations::of(rows)?;
        let groups = groups(file, &operations, &mut reader)?;
        operations.serve(|one| groups.values().flatten().any(|account| account.ebid_of(one).is_some()));
        let aliases = aliases(file, &mut reader)?;
        check_limits(&file.gateway)?;
        let gateway = gateway(&file.gateway, groups.len(), &mut reader.warnings);
        let clients = Clients::check(file, &gateway, &groups, &operations, &mut reader)?;
        let carrier = carrier(&file.carrier, groups.len(), &mut reader)?;
        file.breaker.check()?;
        let is_served =
            |name: &str| operations.named(name).is_some_and(|one| operations.at(one.path).is_some());
        reader.warnings.extend(effect::warnings(file, &carrier, is_served));
        if file.cache.ttl_jitter_percent > 50 || file.cache.refresh_ahead_percent > 100 {
            return Err(
                "[cache] ttl_jitter_percent: at most 50, and refresh_ahead_percent: at most 100".to_owned()
            );
        }
        if file.cache.file_age.0.is_zero() || file.cache.file_entries == 0 {
            return Err(
                "[cache] file_age and file_entries: must be more than zero, such as \"720h\" and 2_000_000"
                    .to_owned(),
            );
        }
        if file.gateway.deadline.0.is_zero() {
            return Err("[gateway] deadline: must be longer than zero, such as \"20s\"".to_owned());
        }
        if file.gateway.deadline.0.as_secs() >= 25 {
            reader.warnings.push(format!(
                "[gateway] deadline = \"{}\": gateways give up after 25 s and would never see these answers",
                file.gateway.deadline
            ));
        }
        let mut config = Self {
            gateway,
            gateway_tls: tls(&GATEWAY_TLS, file.gateway.tls.as_ref(), &mut reader)?,
            admin: admin::check(
                &file.admin,
                tls(&ADMIN_TLS, file.admin.tls.as_ref(), &mut reader)?,
                &mut reader,
            )?,
            store_dir: folder.join(&file.store.dir),
            carrier,
            operations,
            aliases,
            breaker: file.breaker.clone(),
            cache: file.cache.clone(),
            lifetimes: file.freshness.clone(),
            audit: super::AuditConfig::check(&file.audit)?,
            log_format: file.log.format,
            groups,
            clients: clients.listed,
            derived: clients.derived,
            revoked: clients.revoked,
            process: file.process.clone(),
            lists: reader.seen([&file.gateway.clients_file, &file.gateway.revoked_file]),
            files: reader.files,
            certificates: reader.certificates,
            warnings: reader.warnings,
        };
        let refused = effect::certificates_not_asked_for(file, &config);
        config.warnings.extend(refused);
        Ok(config)
    }
}

fn groups(
    file: &ConfigFile,
    operations: &Operations,
    reader: &mut SourceFiles<'_>,
) -> Result<Groups, String> {
    if file.accounts.is_empty() {
        return Err(
            "no [[account]]: add one with the name, appid, ebid and password that the carrier issued"
                .to_owned(),
        );
    }
    let mut groups = Groups::new();
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, written) in file.accounts.iter().enumerate() {
        let place = format!("[[account]] {} (name = \"{}\")", index + 1, written.name);
        if written.name.is_empty() {
            return Err(format!("[[account]] {}: name: must not be empty", index + 1));
        }
        if let Some(first) = names.insert(&written.name, index + 1) {
            return Err(format!("{place}: name: taken by [[account]] {first}: give each account its own"));
        }
        let group: Arc<str> = written.group.as_deref().unwrap_or(&written.name).into();
        let password = PasswordSource {
            key: "password",
            file: written.password_file.as_deref(),
            env: written.password_env.as_deref(),
            text: written.password.as_ref(),
        };
        if written.password.is_some() {
            let warning = format!("{place}: password: stands in the configuration; prefer password_file");
            reader.warnings.push(warning);
        }
        let next = PasswordSource {
            key: "next_password",
            file: written.next_password_file.as_deref(),
            env: written.next_password_env.as_deref(),
            text: None,
        };
        let mut passwords = vec![password.read(&place, reader)?];
        passwords.extend(next.read_optional(&place, reader)?);
        let mut ebids = HashMap::new();
        for (name, ebid) in &written.ebids {
            let operation =
                operations.named(name).filter(|one| one.name != USER_STATUS.name).ok_or_else(|| {
                    format!("{place}: ebids: \"{name}\" is no other operation; known: {}", operations.names())
                })?;
            let ebid = Ebid::parse(ebid).map_err(|e| format!("{place}: ebids: {name}: {e}"))?;
            ebids.insert(operation.name, ebid);
        }
        let account = Account {
            ebids,
            name: written.name.as_str().into(),
            group: Arc::clone(&group),
            appid: AppId::parse(&written.appid).map_err(|e| format!("{place}: appid: {e}"))?,
            ebid: Ebid::parse(&written.ebid).map_err(|e| format!("{place}: ebid: {e}"))?,
            passwords,
            calls_per_second: written.calls_per_second,
            calls_at_once: written.calls_at_once,
            calls_per_day: written.calls_per_day,
        };
        groups.entry(group).or_default().push(Arc::new(account));
    }
    Ok(groups)
}

/// Each number of a line, with the line's first.
fn aliases(file: &ConfigFile, reader: &mut SourceFiles<'_>) -> Result<HashMap<Card, Card>, String> {
    let Some(path) = &file.cache.alias_file else { return Ok(HashMap::new()) };
    let lines = reader.list(path).map_err(|e| format!("[cache] alias_file: {e}"))?;
    let mut aliases = HashMap::new();
    for Entry { line: number, text: line } in lines {
        let wrong = |why: &str| format!("[cache] alias_file: {}:{number}: {why}", path.display());
        let mut first = None;
        for column in line.split(',').map(str::trim).filter(|column| !column.is_empty()) {
            let (kind, number) = column
                .split_once(':')
                .and_then(|(kind, number)| {
                    Some((
                        [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi]
                            .into_iter()
                            .find(|one| one.as_str() == kind)?,
                        number,
                    ))
                })
                .ok_or_else(|| wrong("a number must begin with msisdn:, iccid: or imsi:"))?;
            // The number itself is not repeated: it would stand in a log.
            let card = Card::parse(kind, number).map_err(|e| wrong(&format!("{}: {e}", kind.as_str())))?;
            let canonical = *first.get_or_insert(card);
            if aliases.insert(card, canonical).is_some_and(|known| known != canonical) {
                return Err(wrong(&format!("{} stands in two lines", card.masked())));
            }
        }
    }
    Ok(aliases)
}

/// `[gateway]` with the shares of the replay table that count.
fn gateway(written: &file::Gateway, groups: usize, warnings: &mut Vec<String>) -> file::Gateway {
    let group = shares::of_group(
        "[gateway] replay_group_share",
        written.replay_group_share,
        "replay_entries",
        written.replay_entries,
        groups,
        warnings,
    );
    let client =
        shares::of_client("[gateway] replay_share", written.replay_share, "a group's share", group, warnings);
    file::Gateway { replay_share: client, replay_group_share: Some(group), ..written.clone() }
}

fn carrier(written: &file::Carrier, groups: usize, reader: &mut SourceFiles<'_>) -> Result<Carrier, String> {
    if written.base_url.contains('@') {
        return Err("[carrier] base_url: must not hold a user name or password".to_owned());
    }
    let wrong = |why: &str| format!("[carrier] base_url = \"{}\": {why}", written.base_url);
    let base_url: Uri = written.base_url.trim_end_matches('/').parse().map_err(|_| {
        wrong("is not a URL: write scheme, host and optional port and path prefix, such as \"https://api.iot.10086.cn\"")
    })?;
    match base_url.scheme_str() {
        Some("http" | "https") if base_url.host().is_some_and(|host| !host.is_empty()) => {}
        _ => return Err(wrong("must begin with http:// or https:// and a host")),
    }
    if base_url.query().is_some() {
        return Err(wrong("must not have a query: the proxy writes its own"));
    }
    if written.node > 99 {
        return Err(format!(
            "[carrier] node = {}: must be 0..=99, and different on each proxy of an account",
            written.node
        ));
    }
    let times = [
        ("connect_timeout", written.connect_timeout),
        ("timeout", written.timeout),
        ("drift_alarm", written.drift_alarm),
    ];
    if let Some((key, _)) = times.iter().find(|(_, time)| time.0.is_zero()) {
        return Err(format!("[carrier] {key}: must be longer than zero, such as \"10s\""));
    }
    if written.max_body.0 == 0 {
        return Err("[carrier] max_body: must be more than zero, such as \"64KiB\"".to_owned());
    }
    let counts = [
        written.max_waiters_per_card,
        written.max_waiters_per_client,
        written.max_flights,
        written.max_flights_per_group.unwrap_or(1),
    ];
    if counts.contains(&0) {
        return Err("[carrier] max_waiters_per_card, max_waiters_per_client, max_flights and \
                    max_flights_per_group: must be at least 1"
            .to_owned());
    }
    let max_flights_per_group = shares::of_group(
        "[carrier] max_flights_per_group",
        written.max_flights_per_group,
        "max_flights",
        written.max_flights,
        groups,
        &mut reader.warnings,
    );
    let max_waiters_per_client = shares::of_client(
        "[carrier] max_waiters_per_client",
        written.max_waiters_per_client,
        "a group's share of max_flights",
        max_flights_per_group,
        &mut reader.warnings,
    );
    Ok(Carrier {
        base_url,
        proxy: written.proxy.as_deref().map(http_proxy).transpose()?,
        connect_timeout: written.connect_timeout.0,
        timeout: written.timeout.0,
        node: written.node,
        bind: written.bind,
        max_body: usize::try_from(written.max_body.0).map_err(|_| {
            format!("[carrier] max_body = \"{}\": too large for this machine", written.max_body)
        })?,
        stale_wait: written.stale_wait.0,
        max_waiters_per_card: written.max_waiters_per_card,
        max_waiters_per_client,
        max_flights: written.max_flights,
        max_flights_per_group,
        queue: written.queue,
        queue_wait: written.queue_wait.0,
        drift_alarm: written.drift_alarm.0,
        tls: trust(written.tls.as_ref(), reader)?,
    })
}

/// Scheme, host and port: what a CONNECT is sent to.
fn http_proxy(written: &str) -> Result<Uri, String> {
    let wrong = "[carrier] proxy: write http://, host and port, such as \"http://10.0.0.1:3128\"";
    let proxy: Uri = written.parse().map_err(|_| wrong.to_owned())?;
    let bare = proxy.path() == "/" && proxy.query().is_none() && !written.contains('@');
    match proxy.scheme_str() {
        Some("http") if bare && proxy.host().is_some_and(|host| !host.is_empty()) => Ok(proxy),
        _ => Err(wrong.to_owned()),
    }
}

fn trust(
    written: Option<&file::CarrierTls>,
    reader: &mut SourceFiles<'_>,
) -> Result<tls::ClientTrust, String> {
    let Some(written) = written else { return Ok(tls::ClientTrust::default()) };
    let mut read = |key: &str, path: Option<&Path>| -> Result<Vec<_>, String> {
        let Some(path) = path else { return Ok(Vec::new()) };
        let pem = reader.bytes(path).map_err(|e| format!("[carrier.tls] {key}: {e}"))?;
        tls::certificates(&pem).map_err(|e| format!("[carrier.tls] {key}: {}: {e}", path.display()))
    };
    let trust = tls::ClientTrust {
        roots: read("ca_file", written.ca_file.as_deref())?,
        pinned: read("pin_file", written.pin_file.as_deref())?.into_iter().next(),
        only_tls13: written.min_version == file::TlsVersion::V13,
    };
    // Here, so that a reload that cannot apply it is refused as a whole.
    if trust.pinned.is_none() {
        // Of a pinned certificate the dates do not matter.
        reader.certificates.extend(Validity::of("[carrier.tls] ca_file", &trust.roots));
    }
    tls::client(&trust).map_err(|e| format!("[carrier.tls] ca_file: {e}"))?;
    Ok(trust)
}

/// Limits of zero would let nobody in.
fn check_limits(gateway: &file::Gateway) -> Result<(), String> {
    let counts = [
        ("max_connections", gateway.max_connections),
        ("max_connections_per_peer", gateway.max_connections_per_peer),
        ("max_requests_per_connection", usize::try_from(gateway.max_requests_per_connection).unwrap_or(1)),
        ("max_streams", gateway.max_streams as usize),
        ("replay_entries", gateway.replay_entries),
        ("replay_share", gateway.replay_share),
        ("replay_group_share", gateway.replay_group_share.unwrap_or(1)),
    ];
    if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
        return Err(format!("[gateway] {key}: must be at least 1"));
    }
    let times = [
        ("first_byte", gateway.first_byte),
        ("header", gateway.header),
        ("body", gateway.body),
        ("idle", gateway.idle),
    ];
    if let Some((key, _)) = times.iter().find(|(_, time)| time.0.is_zero()) {
        return Err(format!("[gateway] {key}: must be longer than zero, such as \"10s\""));
    }
    if gateway.proxy_protocol && gateway.trusted_proxies.is_empty() {
        return Err(
            "[gateway] proxy_protocol: needs trusted_proxies: of nobody else is it believed".to_owned()
        );
    }
    Ok(())
}

/// A table of TLS, and its keys of certificates.
struct TlsKeys {
    table: &'static str,
    chain: &'static str,
    roots: &'static str,
}

const GATEWAY_TLS: TlsKeys = TlsKeys {
    table: "[gateway.tls]",
    chain: "[gateway.tls] cert_file",
    roots: "[gateway.tls] client_ca_file",
};
const ADMIN_TLS: TlsKeys =
    TlsKeys { table: "[admin.tls]", chain: "[admin.tls] cert_file", roots: "[admin.tls] client_ca_file" };

fn tls(
    keys: &TlsKeys,
    written: Option<&file::Tls>,
    reader: &mut SourceFiles<'_>,
) -> Result<Option<tls::ServerTls>, String> {
    let Some(written) = written else { return Ok(None) };
    let place = keys.table;
    let chain = reader.bytes(&written.cert_file).map_err(|e| format!("{place} cert_file: {e}"))?;
    let key = reader.secret(&written.key_file).map_err(|e| format!("{place} key_file: {e}"))?;
    let roots = match &written.client_ca_file {
        Some(path) => Some(reader.bytes(path).map_err(|e| format!("{place} client_ca_file: {e}"))?),
        None => None,
    };
    let pem = tls::Pem {
        chain: &chain,
        key: &key,
        client_roots: roots.as_deref(),
        certificate_optional: written.client_certificate_optional,
    };
    let server = tls::ServerTls::new(&pem).map_err(|e| format!("{place} {e}"))?;
    for (key, pem) in [(keys.chain, Some(&chain)), (keys.roots, roots.as_ref())] {
        let certificates = pem.and_then(|pem| tls::certificates(pem).ok());
        reader.certificates.extend(certificates.and_then(|read| Validity::of(key, &read)));
    }
    Ok(Some(server))
}
