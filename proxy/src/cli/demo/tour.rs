//! The tour: requests of a gateway, their responses, and the number of carrier calls for each.
//!
//! Each step has an expected result; the last column and the exit code say whether all were as expected.

use std::time::Duration;

use anyhow::Context;
use cmiot_signer::{Card, CardKind, Reply as Envelope};
use cmiot_simulator::{Operation, Rule, v5};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use tokio::task::JoinSet;

use super::environment::{Environment, GATEWAY};
use super::summary::summarize;
use crate::cli::http_client::Reply;
use crate::cli::language::heading;

/// The tour's cards, kind and number: the ones of the carrier's page.
const MSISDN: (&str, &str) = ("msisdn", "14765004176");
/// By circuit id.
const ICCID: (&str, &str) = ("iccid", "898600D6991330004146");
/// By subscriber id.
const IMSI: (&str, &str) = ("imsi", "460079650004176");

/// Concurrent lookups of one card.
const CONCURRENT: u32 = 100;

/// Runs the tour and prints it; false if a step had another result than expected.
pub(super) async fn run(environment: &Environment) -> anyhow::Result<bool> {
    let mut tour = Tour::new(environment);
    let msisdn = Card::parse(CardKind::Msisdn, MSISDN.1)?;

    tour.one("msisdn", &msisdn, "0", "fwd=uri-miss; stored").await?;
    tour.one("iccid", &Card::parse(CardKind::Iccid, ICCID.1)?, "0", "fwd=uri-miss; stored").await?;
    tour.one("imsi", &Card::parse(CardKind::Imsi, IMSI.1)?, "0", "fwd=uri-miss; stored").await?;
    tour.one(&said!("the first card again", "再查第一张卡"), &msisdn, "0", "hit").await?;
    tour.many(&Card::parse(CardKind::Msisdn, "14765004177")?).await?;
    tour.newer_platform(&Card::parse(CardKind::Msisdn, "14765004178")?).await?;
    tour.wrong_token(&msisdn).await?;
    tour.replay(&msisdn).await?;
    tour.outage(&msisdn).await?;

    out!("{}", tour.table);
    say!("\nThe audit, committed before each answer left:\n", "\n审计，在每个响应发出之前提交：\n");
    let (audit, made) = audit(environment)?;
    out!("{audit}");
    let (received, tokens) = (received(environment), environment.carrier.v5().counts().fetches);
    say!(
        "\n{made} carrier calls: {received} were received, {lost} found no carrier. Requests for a token of API v5: {tokens}.",
        "\n{made} 次运营商调用：{received} 次被收到，{lost} 次没有找到运营商。获取 v5 接口 token 的请求：{tokens} 次。",
        lost = made.saturating_sub(received)
    );
    Ok(tour.went_well)
}

struct Tour<'a> {
    environment: &'a Environment,
    sequence: u32,
    calls: u64,
    table: Table,
    went_well: bool,
}

impl<'a> Tour<'a> {
    fn new(environment: &'a Environment) -> Self {
        let mut table = table();
        table.set_header([
            said!("a gateway sends", "网关发出"),
            said!("code", "返回码"),
            "STATUS".to_owned(),
            "Cache-Status / Proxy-Status".to_owned(),
            "Age".to_owned(),
            said!("calls", "调用"),
            String::new(),
        ]);
        Self { environment, sequence: 1, calls: 0, table, went_well: true }
    }

    /// One lookup, with the code and Cache-Status that its response must have.
    async fn one(&mut self, what: &str, card: &Card, code: &str, cache_status: &str) -> anyhow::Result<()> {
        let url = self.sign(card)?;
        let reply = self.environment.ask(&url).await?;
        let as_expected = code_of(&reply)? == code && reply.header("cache-status").contains(cache_status);
        self.show(what, &reply, as_expected)
    }

    /// Many lookups of one card at once, while the carrier is slow: one call.
    async fn many(&mut self, card: &Card) -> anyhow::Result<()> {
        self.environment.carrier.set_latency(Duration::from_millis(300));
        let mut lookups = JoinSet::new();
        for _ in 0..CONCURRENT {
            let url = self.sign(card)?;
            let gateway = self.environment.gateways.clone();
            lookups.spawn(async move { gateway.get_url(&url, &[]).await });
        }
        let mut last = None;
        let mut answered = 0;
        while let Some(lookup) = lookups.join_next().await {
            let reply = lookup.context("a lookup panicked")??;
            answered += u32::from(code_of(&reply)? == "0");
            if reply.header("cache-status").contains("collapsed") {
                last = Some(reply);
            }
        }
        self.environment.carrier.set_latency(Duration::ZERO);
        let as_expected = answered == CONCURRENT && self.environment.carrier.count_for(card.as_str()) == 1;
        let reply = last.context("no lookup was collapsed")?;
        self.show(
            &said!("{CONCURRENT} at once, one card", "同时 {CONCURRENT} 次，同一张卡"),
            &reply,
            as_expected,
        )
    }

    /// A card that only API v5 knows: a call of v2, a request for a token, and a call of v5.
    async fn newer_platform(&mut self, card: &Card) -> anyhow::Result<()> {
        self.environment.carrier.set_rules([
            Rule::card(card.as_str()).operation(Operation::Status).code("12"),
            Rule::card(card.as_str()).operation(Operation::V5(v5::Operation::SimStatus)).status("2"),
        ]);
        self.one(&said!("a card of the newer platform", "新平台的卡"), card, "0", "detail=translated")
            .await?;
        self.environment.carrier.set_rules([]);
        Ok(())
    }

    async fn wrong_token(&mut self, card: &Card) -> anyhow::Result<()> {
        let url = self.sign(card)?;
        let (before, after) = url.split_once("token=").context("a URL without a token")?;
        let forged = format!("{before}token={}{}", "0".repeat(64), &after[64..]);
        let reply = self.environment.ask(&forged).await?;
        let as_expected = code_of(&reply)? == "7";
        self.show(&said!("with a wrong token", "token 错误"), &reply, as_expected)
    }

    async fn replay(&mut self, card: &Card) -> anyhow::Result<()> {
        let url = self.sign(card)?;
        let first = self.environment.ask(&url).await?;
        self.show(&said!("a URL that is captured", "一个被截获的 URL"), &first, code_of(&first)? == "0")?;
        let reply = self.environment.ask(&url).await?;
        let as_expected = code_of(&reply)? == "7" && reply.header("proxy-status").contains("used before");
        self.show(&said!("a captured URL again", "再次使用被截获的 URL"), &reply, as_expected)
    }

    /// The carrier stops after the entry has become stale.
    async fn outage(&mut self, card: &Card) -> anyhow::Result<()> {
        self.environment.carrier.kill().await;
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        let url = self.sign(card)?;
        let reply = self.environment.ask(&url).await?;
        let as_expected = code_of(&reply)? == "0" && reply.header("cache-status").contains("hit; ttl=-");
        self.show(&said!("with the carrier down", "运营商停机时"), &reply, as_expected)?;
        self.environment.carrier.restart().await.context("simulated carrier")?;
        Ok(())
    }

    fn sign(&mut self, card: &Card) -> anyhow::Result<String> {
        self.sequence += 1;
        self.environment.sign(GATEWAY, card, self.sequence)
    }

    fn show(&mut self, what: &str, reply: &Reply, as_expected: bool) -> anyhow::Result<()> {
        let calls = received(self.environment);
        let envelope = Envelope::parse(&reply.body).context("the proxy's answer")?;
        let status = envelope
            .status()
            .map_or(String::new(), |status| format!("{} {}", status.code(), status.as_str()));
        let handled = [reply.header("cache-status"), reply.header("proxy-status")].concat();
        let handled = handled.split_once("details=").map_or(handled.as_str(), |(_, details)| details);
        self.table.add_row([
            what.to_owned(),
            envelope.code().to_owned(),
            status,
            handled.trim_start_matches("cmiot-proxy; ").trim_matches('"').to_owned(),
            reply.header("age").to_owned(),
            (calls - self.calls).to_string(),
            if as_expected { said!("ok", "符合") } else { said!("NOT as promised", "与承诺不符") },
        ]);
        self.calls = calls;
        self.went_well &= as_expected;
        Ok(())
    }
}

/// The calls about cards that the carrier has received.
fn received(environment: &Environment) -> u64 {
    environment.carrier.count().saturating_sub(environment.carrier.v5().counts().fetches)
}

fn code_of(reply: &Reply) -> anyhow::Result<String> {
    Ok(Envelope::parse(&reply.body).context("the proxy's answer")?.code().to_owned())
}

/// The rows of the audit, equal lookups counted together, and the number of carrier calls in total.
fn audit(environment: &Environment) -> anyhow::Result<(Table, u64)> {
    let mut table = table();
    let (mut lookups, mut calls) = (0, 0);
    let columns = ["client", "card", "outcome", "reason", "code"].map(|column| heading(column).to_owned());
    let counts = [said!("lookups", "查询"), said!("calls", "调用")];
    table.set_header(counts.into_iter().chain(columns).chain(["STATUS".to_owned()]));
    let segment = environment.audit_file()?;
    for group in summarize(segment.parent().context("the folder of the segment")?)? {
        lookups += group.lookups;
        calls += group.carrier_calls;
        let counts = [group.lookups.to_string(), group.carrier_calls.to_string()];
        table.add_row(counts.into_iter().chain(group.values));
    }
    table.add_row([lookups.to_string(), calls.to_string(), said!("in all", "合计")]);
    Ok((table, calls))
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table
}
