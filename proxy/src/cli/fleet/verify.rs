//! `cmiot-proxy fleet verify`: checks that the copies of the nodes' audits are as the nodes have copied them.

use std::process::ExitCode;

use anyhow::bail;
use cmiot_proxy::printable::escape;
use cmiot_proxy::store::audit::anchor::PublicKey;
use cmiot_proxy::store::audit::copied::CopyReport;
use cmiot_proxy::store::fleet::central::{StoreAnchors, Verification};
use cmiot_proxy::store::fleet::operate::OperateError;
use serde_json::json;

use super::{Database, Format, settings};
use crate::cli::audit::bar;

/// The most lines of one chain's damage; more is counted.
const MOST_LINES: usize = 10;

/// Verify the copies of the nodes' audits in the database: rows, batches, segments, positions, signatures and anchors.
///
/// A batch of which all rows are copied is hashed again from them. Of the others, the copied rows are compared with a digest
/// that the node has signed; what is not copied is not shown to be there. A node's role may not read the rows: name a role
/// that may, by `SELECT audit.grant_reader('ROLE')` of the owner.
///
/// Exits 0 when everything in scope is as it was copied. Exits 1 on damage, and when nothing in scope is copied.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy fleet verify --config cmiot-proxy.toml --user cmiot_auditor --password-file auditor.password
  cmiot-proxy fleet verify --config cmiot-proxy.toml --user cmiot_owner --node 3 --public-key 5f1c...")]
pub(super) struct Verify {
    #[command(flatten)]
    at: Database,
    /// Only this node
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(0..=99))]
    node: Option<i16>,
    /// Key of a store, as in its audit-anchor.pub: 64 hex digits; repeat the option for each. Copies of other stores are
    /// damage then
    #[arg(long, value_name = "HEX")]
    public_key: Vec<String>,
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl Verify {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let key = |text: &String| {
            PublicKey::parse(text)
                .ok_or_else(|| anyhow::anyhow!("--public-key {text}: it is not 64 hex digits"))
        };
        let keys = self.public_key.iter().map(key).collect::<anyhow::Result<Vec<_>>>()?;
        let mut session = self.at.connect(&settings(&self.at.config)?).await?;
        let bar = bar();
        let verified = session
            .verify_copies(self.node, |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            })
            .await;
        bar.finish_and_clear();
        let verification = match verified {
            Err(OperateError::Rights(reason)) => bail!(said!(
                "this role may not read the copies ({reason}): name another one by --user; \
                 SELECT audit.grant_reader('ROLE') gives it the right",
                "该角色无权读取副本（{reason}）：请用 --user 指定其他角色；SELECT audit.grant_reader('ROLE') 可授予权限"
            )),
            verified => verified?,
        };
        let unknown: Vec<&StoreAnchors> = verification
            .anchors
            .iter()
            .filter(|one| !keys.is_empty() && !keys.contains(&one.store))
            .collect();
        let is_empty =
            verification.chains.is_empty() && verification.anchors.iter().all(|one| one.anchors.is_empty());
        let is_good = verification.is_good() && unknown.is_empty() && !is_empty;
        match self.format {
            Format::Json => out!("{:#}", to_json(&verification, &unknown, is_good)),
            Format::Table => {
                say_all(&verification, &unknown)?;
                let verdict = match (is_good, is_empty) {
                    (true, _) => said!("copies ok", "副本完好"),
                    (false, true) => {
                        said!("nothing verified: nothing is copied", "没有校验任何内容：没有副本")
                    }
                    (false, false) => said!("copies DAMAGED", "副本已损坏"),
                };
                let chains = verification.chains.len();
                let rows: u64 = verification.chains.iter().map(|chain| chain.rows).sum();
                say!("{chains} chains, {rows} rows: {verdict}", "{chains} 条链，{rows} 行：{verdict}");
            }
        }
        Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn say_all(verification: &Verification, unknown: &[&StoreAnchors]) -> anyhow::Result<()> {
    for chain in &verification.chains {
        say_chain(chain)?;
    }
    for StoreAnchors { node, store, anchors } in &verification.anchors {
        let key = &store.to_string()[..16];
        let (all, compared) = (anchors.len(), anchors.confirmed());
        say!(
            "node {node}, store {key}: {all} anchors signed by it, {compared} of them compared with rows that are here",
            "节点 {node}，存储 {key}：{all} 个锚点由其签名，其中 {compared} 个已与此处的记录比对"
        );
        for anchor in &anchors.unsigned {
            say!(
                "DAMAGE node {node}: the anchor of {time} at row {last} is not signed by the key of the store",
                "损坏 节点 {node}：{time} 第 {last} 行的锚点不是由该存储的密钥签名",
                time = anchor.time,
                last = anchor.last
            );
        }
        for what in anchors.contradictions().take(MOST_LINES) {
            say!("DAMAGE node {node}: {what}", "损坏 节点 {node}：{what}");
        }
    }
    for what in &verification.damage {
        say!("DAMAGE {what}", "损坏 {what}");
    }
    for StoreAnchors { node, store, .. } in unknown {
        say!(
            "DAMAGE node {node}: its store {store} is none of --public-key",
            "损坏 节点 {node}：其存储 {store} 不在 --public-key 之中"
        );
    }
    Ok(())
}

fn say_chain(report: &CopyReport) -> anyhow::Result<()> {
    let CopyReport { chain, batches, whole, rows, uncopied, .. } = report;
    let (node, id, base, last) = (chain.node, chain.id, chain.base, chain.last);
    say!(
        "node {node}, chain {id}: after row {base} up to row {last}: {rows} rows copied, {uncopied} not; {whole} of {batches} \
         batches hashed again",
        "节点 {node}，链 {id}：第 {base} 行之后至第 {last} 行：已复制 {rows} 行，未复制 {uncopied} 行；{batches} 个批次中 {whole} 个已\
         重新计算哈希"
    );
    if let Some(parent) = chain.parent {
        say!(
            "node {node}, chain {id}: continues chain {parent} after row {base}",
            "节点 {node}，链 {id}：从第 {base} 行之后接续链 {parent}"
        );
    }
    if let Some(note) = &report.explained
        && chain.is_later
    {
        say!(
            "node {node}, chain {id}: the audit was another one before; its note: {note}",
            "节点 {node}，链 {id}：此前的审计不同；其注记：{note}",
            note = escape(note)
        );
    }
    for (first, last) in &report.missing {
        say!(
            "node {node}, chain {id}: rows {first} to {last} were no longer at the node",
            "节点 {node}，链 {id}：第 {first} 至 {last} 行复制时已不在节点上"
        );
    }
    for month in &report.dropped {
        say!(
            "node {node}, chain {id}: {month} was removed here (audit.drop_month): not verified",
            "节点 {node}，链 {id}：{month} 已在此处删除（audit.drop_month）：未校验"
        );
    }
    for what in report.damage.iter().take(MOST_LINES) {
        say!(
            "DAMAGE node {node}, chain {id}: {what}",
            "损坏 节点 {node}，链 {id}：{what}",
            what = escape(what)
        );
    }
    if let Some(more) = report.damage.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
        say!("DAMAGE node {node}, chain {id}: {more} more", "损坏 节点 {node}，链 {id}：另有 {more} 处");
    }
    Ok(())
}

fn to_json(verification: &Verification, unknown: &[&StoreAnchors], is_good: bool) -> serde_json::Value {
    let chains = verification.chains.iter().map(|report| {
        let chain = &report.chain;
        json!({
            "node": chain.node,
            "store": chain.store.to_string(),
            "chain": chain.id,
            "parent": chain.parent,
            "after": chain.base,
            "last": chain.last,
            "rows": report.rows,
            "uncopied": report.uncopied,
            "batches": report.batches,
            "hashed": report.whole,
            "missing": report.missing,
            "dropped": report.dropped.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "note": report.explained,
            "damage": report.damage,
        })
    });
    let anchors = verification.anchors.iter().map(|StoreAnchors { node, store, anchors }| {
        json!({
            "node": node,
            "store": store.to_string(),
            "signed": anchors.len(),
            "compared": anchors.confirmed(),
            "unsigned": anchors.unsigned.len(),
            "contradictions": anchors.contradictions().collect::<Vec<_>>(),
        })
    });
    json!({
        "ok": is_good,
        "chains": chains.collect::<Vec<_>>(),
        "anchors": anchors.collect::<Vec<_>>(),
        "damage": verification.damage,
        "unknown_stores": unknown.iter().map(|one| one.store.to_string()).collect::<Vec<_>>(),
    })
}
