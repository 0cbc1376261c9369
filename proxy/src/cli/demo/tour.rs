//! The tour: what a gateway does, what it gets, and how many carrier calls that cost.
//!
//! Each stop says what it must show; the last column says whether it did, and so does the exit code.

use std::time::Duration;

use anyhow::Context;
use cmiot_signer::{Card, CardKind, Reply as Envelope};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use tokio::task::JoinSet;

use super::environment::Environment;
use super::summary::summarize;
use crate::cli::http_client::Reply;

/// The demo's cards, kind and number: the ones of the carrier's page.
pub(super) const MSISDN: (&str, &str) = ("msisdn", "14765004176");
/// By circuit id.
pub(super) const ICCID: (&str, &str) = ("iccid", "898600D6991330004146");
/// By subscriber id.
pub(super) const IMSI: (&str, &str) = ("imsi", "460079650004176");

/// Askers of one card at once.
const ASKERS: u32 = 100;

/// Walks the tour and prints it; false when a stop did not show what it must.
pub(super) async fn walk(environment: &Environment) -> anyhow::Result<bool> {
    let mut tour = Tour::new(environment);
    let msisdn = Card::parse(CardKind::Msisdn, MSISDN.1)?;

    tour.one("msisdn", &msisdn, "0", "fwd=uri-miss; stored").await?;
    tour.one("iccid", &Card::parse(CardKind::Iccid, ICCID.1)?, "0", "fwd=uri-miss; stored").await?;
    tour.one("imsi", &Card::parse(CardKind::Imsi, IMSI.1)?, "0", "fwd=uri-miss; stored").await?;
    tour.one("the first card again", &msisdn, "0", "hit").await?;
    tour.many(&Card::parse(CardKind::Msisdn, "14765004177")?).await?;
    tour.wrong_token(&msisdn).await?;
    tour.replay(&msisdn).await?;
    tour.outage(&msisdn).await?;

    out!("{}", tour.table);
    out!("\nThe audit, committed before each answer left:\n");
    let (audit, made) = audit(environment)?;
    out!("{audit}");
    let received = environment.carrier.count();
    out!(
        "\n{made} carrier calls: {received} were received, {} found no carrier.",
        made.saturating_sub(received)
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
            "a gateway asks",
            "answer",
            "STATUS",
            "Cache-Status / Proxy-Status",
            "Age",
            "calls received",
            "",
        ]);
        Self { environment, sequence: 1, calls: 0, table, went_well: true }
    }

    /// One look-up that must be answered with this code and this Cache-Status.
    async fn one(&mut self, what: &str, card: &Card, code: &str, cache_status: &str) -> anyhow::Result<()> {
        let url = self.sign(card)?;
        let reply = self.environment.ask(&url).await?;
        let as_hoped = code_of(&reply)? == code && reply.header("cache-status").contains(cache_status);
        self.show(what, &reply, as_hoped)
    }

    /// Many askers of one card at once, while the carrier takes its time: one call.
    async fn many(&mut self, card: &Card) -> anyhow::Result<()> {
        self.environment.carrier.set_latency(Duration::from_millis(300));
        let mut askers = JoinSet::new();
        for _ in 0..ASKERS {
            let url = self.sign(card)?;
            let gateway = self.environment.gateway.clone();
            askers.spawn(async move { gateway.get_url(&url, &[]).await });
        }
        let mut last = None;
        let mut answered = 0;
        while let Some(asker) = askers.join_next().await {
            let reply = asker.context("an asker died")??;
            answered += u32::from(code_of(&reply)? == "0");
            if reply.header("cache-status").contains("collapsed") {
                last = Some(reply);
            }
        }
        self.environment.carrier.set_latency(Duration::ZERO);
        let as_hoped = answered == ASKERS && self.environment.carrier.count_for(card.as_str()) == 1;
        let reply = last.context("nobody's look-up was collapsed")?;
        self.show(&format!("{ASKERS} at once, one card"), &reply, as_hoped)
    }

    async fn wrong_token(&mut self, card: &Card) -> anyhow::Result<()> {
        let url = self.sign(card)?;
        let (before, after) = url.split_once("token=").context("a URL without a token")?;
        let forged = format!("{before}token={}{}", "0".repeat(64), &after[64..]);
        let reply = self.environment.ask(&forged).await?;
        let as_hoped = code_of(&reply)? == "7";
        self.show("with a wrong token", &reply, as_hoped)
    }

    async fn replay(&mut self, card: &Card) -> anyhow::Result<()> {
        let url = self.sign(card)?;
        let first = self.environment.ask(&url).await?;
        self.show("a URL that is captured", &first, code_of(&first)? == "0")?;
        let reply = self.environment.ask(&url).await?;
        let as_hoped = code_of(&reply)? == "7" && reply.header("proxy-status").contains("used before");
        self.show("a captured URL again", &reply, as_hoped)
    }

    /// The carrier goes away after the entry has gone stale.
    async fn outage(&mut self, card: &Card) -> anyhow::Result<()> {
        self.environment.carrier.kill().await;
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        let url = self.sign(card)?;
        let reply = self.environment.ask(&url).await?;
        let as_hoped = code_of(&reply)? == "0" && reply.header("cache-status").contains("hit; ttl=-");
        self.show("while the carrier is down", &reply, as_hoped)?;
        self.environment.carrier.restart().await.context("simulated carrier")?;
        Ok(())
    }

    fn sign(&mut self, card: &Card) -> anyhow::Result<String> {
        self.sequence += 1;
        self.environment.sign(card, self.sequence)
    }

    fn show(&mut self, what: &str, reply: &Reply, as_hoped: bool) -> anyhow::Result<()> {
        let calls = self.environment.carrier.count();
        let envelope = Envelope::parse(&reply.body).context("the proxy's answer")?;
        let status = envelope
            .status()
            .map_or(String::new(), |status| format!("{} {}", status.code(), status.as_str()));
        let handled = [reply.header("cache-status"), reply.header("proxy-status")].concat();
        self.table.add_row([
            what.to_owned(),
            format!("code {}", envelope.code()),
            status,
            handled.trim_start_matches("cmiot-proxy; ").to_owned(),
            reply.header("age").to_owned(),
            (calls - self.calls).to_string(),
            if as_hoped { "ok" } else { "NOT as promised" }.to_owned(),
        ]);
        self.calls = calls;
        self.went_well &= as_hoped;
        Ok(())
    }
}

fn code_of(reply: &Reply) -> anyhow::Result<String> {
    Ok(Envelope::parse(&reply.body).context("the proxy's answer")?.code().to_owned())
}

/// The rows of the audit, equal lookups counted together, and the number of carrier calls in total.
fn audit(environment: &Environment) -> anyhow::Result<(Table, u64)> {
    let mut table = table();
    let (mut look_ups, mut calls) = (0, 0);
    table.set_header(["look-ups", "carrier calls", "client", "card", "outcome", "reason", "code", "STATUS"]);
    let segment = environment.audit_file()?;
    for group in summarize(segment.parent().context("the folder of the segment")?)? {
        look_ups += group.lookups;
        calls += group.carrier_calls;
        let counts = [group.lookups.to_string(), group.carrier_calls.to_string()];
        table.add_row(counts.into_iter().chain(group.values));
    }
    table.add_row([look_ups.to_string(), calls.to_string(), "in all".to_owned()]);
    Ok((table, calls))
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table
}
