//! A month of history for the operators' page: lookups of twelve gateways, over a clock that is late by a month and
//! catches up with the machine's.
//!
//! Each lookup takes the real path, from a signed request to its audit record; only the clock does not wait. A step of the
//! clock is half an hour less the latencies of its calls, which the simulated carrier holds meanwhile, so that the audit
//! has the latencies and not the time that this machine needed. The same lookups are made each time: the random numbers
//! have a fixed seed. The hours of the day and the time of the start are the machine's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use cmiot_proxy::clock::{Clock, ManualClock};
use cmiot_signer::{Card, CardKind, Stamp};
use cmiot_simulator::{Account, Config, Counts, Gate, Rule};
use tokio::task::JoinSet;

use super::environment::Environment;
use super::gateways::{ACCOUNTS, Fault, SENDERS, Sender, group, tables};
use crate::cli::http_client::{Address, HttpClient};

/// The length of the history.
const DAYS: u64 = 30;
/// The step of the clock.
const STEP: Duration = Duration::from_secs(1_800);
const STEPS_PER_DAY: u64 = 48;
/// The most lookups that a demo makes, those while it serves included.
const MOST_LOOKUPS: u32 = 20_000;
/// Cards of each account.
const CARDS: u64 = 70;
/// One card in this many is unknown to the carrier.
const UNKNOWN_IN: u64 = 70;
/// The day from which on two gateways are at fault.
const DAY_OF_FAULTS: u64 = 26;
/// The steps in which the carrier cannot be reached, and those in which it throttles.
const OUTAGE: std::ops::Range<u64> = 21 * STEPS_PER_DAY + 20..21 * STEPS_PER_DAY + 25;
const THROTTLED: std::ops::Range<u64> = 29 * STEPS_PER_DAY + 30..29 * STEPS_PER_DAY + 32;
/// The steps at which an operator purges a card.
const PURGES: [u64; 3] = [9 * STEPS_PER_DAY + 5, 17 * STEPS_PER_DAY + 31, 29 * STEPS_PER_DAY + 40];
/// Lookups that neither an answer nor a call follows within this real time wait for another one's call.
const COLLAPSED_AFTER: Duration = Duration::from_millis(20);
/// The interval of lookups while the demo serves.
const INTERVAL: Duration = Duration::from_secs(2);

/// The environment with its history, and the source of further lookups.
pub(super) struct History {
    pub(super) environment: Environment,
    hand: ManualClock,
    random: Random,
    /// The cards with another STATUS than 00.
    statuses: Arc<Mutex<HashMap<String, &'static str>>>,
    sequence: u32,
    pub(super) lookups: u32,
}

impl History {
    /// Starts carrier and proxy a month ago.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let length = STEP * u32::try_from(DAYS * STEPS_PER_DAY).context("a month")?;
        let (clock, hand) = Clock::late(length);
        let accounts = ACCOUNTS.map(|(_, appid, ebid, password, _)| Account::new(appid, ebid, password));
        let carriers = clock.clone();
        let carrier = Config {
            clock: cmiot_simulator::Clock::new(move || Duration::from_secs(carriers.now().as_secs())),
            ..Config::new(accounts)
        };
        let environment = Environment::start(&tables(), carrier, clock).await?;
        let (random, statuses) = (Random(20_260_115), Arc::default());
        Ok(Self { environment, hand, random, statuses, sequence: 0, lookups: 0 })
    }

    /// Writes the history; afterwards the clock is the machine's.
    pub(super) async fn write(&mut self) -> anyhow::Result<()> {
        let carrier = self.environment.carrier.clone();
        for step in 0..DAYS * STEPS_PER_DAY {
            if step == OUTAGE.start {
                carrier.kill().await;
            } else if step == OUTAGE.end {
                carrier.restart().await.context("simulated carrier")?;
            }
            if self.random.one_in(20) {
                self.change_status();
            }
            if PURGES.contains(&step) {
                self.purge().await?;
            }
            let gate = Gate::new();
            carrier.set_rules(self.rules(THROTTLED.contains(&step), Some(&gate)));
            let spent = self.step(step, &gate).await?;
            self.hand.advance(STEP.saturating_sub(spent));
        }
        carrier.set_rules(self.rules(false, None));
        Ok(())
    }

    /// Makes one lookup after another, until their number is reached.
    pub(super) async fn go_on(&mut self) -> anyhow::Result<()> {
        while self.lookups < MOST_LOOKUPS {
            tokio::time::sleep(INTERVAL).await;
            let latency = self.random.latency();
            self.environment.carrier.set_latency(latency);
            let sender = self.sender();
            let card = self.card(sender)?;
            let (url, peer) = self.request(sender, &card, DAYS)?;
            self.environment.gateways.get_url(&url, &[("x-forwarded-for", peer)]).await?;
            self.lookups += 1;
        }
        std::future::pending().await
    }

    /// The lookups of one step; returns the time by which it has advanced the clock.
    async fn step(&mut self, step: u64, gate: &Gate) -> anyhow::Result<Duration> {
        let mut answers = JoinSet::new();
        for (url, peer) in self.requests(step)? {
            let gateways = self.environment.gateways.clone();
            answers.spawn(async move { gateways.get_url(&url, &[("x-forwarded-for", peer)]).await });
        }
        let carrier = self.environment.carrier.clone();
        let mut spent = Duration::ZERO;
        loop {
            // The calls of one step are in flight together, so that each adds a part of its latency.
            let latency = if spent.is_zero() { self.random.latency() } else { self.random.latency() / 6 };
            let waiting = answers.len() as u64;
            tokio::select! {
                biased;
                answer = answers.join_next() => match answer {
                    Some(answer) => drop(answer.context("a lookup panicked")??),
                    None => break,
                },
                _ = carrier.wait_until(|counts| counts.in_flight >= waiting) => {
                    self.end_call(gate, latency).await;
                    spent += latency;
                }
                () = tokio::time::sleep(COLLAPSED_AFTER) => {
                    if carrier.counts().in_flight > 0 {
                        self.end_call(gate, latency).await;
                        spent += latency;
                    }
                }
            }
        }
        carrier.wait_until_idle().await;
        Ok(spent)
    }

    /// Lets the carrier answer one of the calls that it holds, after this latency.
    async fn end_call(&self, gate: &Gate, latency: Duration) {
        let carrier = &self.environment.carrier;
        let ended = |counts: &Counts| counts.calls - counts.in_flight;
        let before = ended(&carrier.counts());
        self.hand.advance(latency);
        gate.release(1);
        carrier.wait_until(|counts| ended(counts) > before).await;
    }

    /// The signed requests of one step, each with the address that it comes from.
    fn requests(&mut self, step: u64) -> anyhow::Result<Vec<(String, &'static str)>> {
        let mut requests = Vec::new();
        for _ in 0..self.rate() {
            let sender = self.sender();
            let card = self.card(sender)?;
            let request = self.request(sender, &card, step / STEPS_PER_DAY)?;
            match sender.fault {
                Fault::Repeats if self.random.one_in(60) => requests.push(request.clone()),
                Fault::Bursts if self.random.one_in(40) => {
                    for _ in 0..4 {
                        requests.push(self.request(sender, &card, 0)?);
                    }
                }
                Fault::Rate if self.random.one_in(25) => {
                    for _ in 0..3 {
                        let card = self.card(sender)?;
                        requests.push(self.request(sender, &card, 0)?);
                    }
                }
                _ => {}
            }
            requests.push(request);
        }
        self.lookups += u32::try_from(requests.len())?;
        Ok(requests)
    }

    /// Lookups of this step: more on a working day, fewer at night (UTC+8).
    fn rate(&mut self) -> u64 {
        let hours = (self.environment.clock.now().as_secs() + 8 * 3_600) / 3_600;
        let (hour, day) = (hours % 24, hours / 24);
        // 1970-01-01 was a Thursday.
        let weekend = (day + 3) % 7 >= 5;
        let usual = match hour {
            0..=5 => 2,
            6 | 7 | 20..=23 => 3,
            9..=11 | 14..=17 => 6,
            _ => 4,
        };
        let usual = if weekend { usual * 2 / 3 } else { usual };
        usual + self.random.below(usual + 1)
    }

    fn sender(&mut self) -> &'static Sender {
        let mut at = self.random.below(SENDERS.iter().map(|sender| sender.weight).sum());
        let found = SENDERS.iter().find(|sender| {
            let is_it = at < sender.weight;
            at = at.saturating_sub(sender.weight);
            is_it
        });
        found.unwrap_or(&SENDERS[0])
    }

    /// A card of the sender's account. Some are looked up much more often than others.
    fn card(&mut self, sender: &Sender) -> anyhow::Result<Card> {
        let most = self.random.below(CARDS) + 1;
        let number = self.random.below(most);
        let offset = if group(sender.credentials) == "fleet" { 0 } else { 500_000 };
        Ok(Card::parse(CardKind::Msisdn, &format!("1064830{:06}", 100_000 + offset + number * 37))?)
    }

    /// A signed request of a sender on a day of the history, with the faults that it has by then.
    fn request(&mut self, sender: &Sender, card: &Card, day: u64) -> anyhow::Result<(String, &'static str)> {
        self.sequence += 1;
        let mut gateway = sender.credentials;
        let mut at = self.environment.clock.now().as_secs();
        match sender.fault {
            Fault::OldPassword if day >= DAY_OF_FAULTS => gateway.password = "demo-old-password",
            Fault::LateClock if day >= DAY_OF_FAULTS => at -= 420,
            _ => {}
        }
        let url = self.environment.sign_at(Stamp::from_unix(at)?, gateway, card, self.sequence)?;
        Ok((url, sender.peer))
    }

    /// Changes the STATUS of a card.
    fn change_status(&mut self) {
        let status = ["00", "00", "01", "02", "02", "03", "04"][self.random.index(7)];
        let sender = self.sender();
        if let Ok(card) = self.card(sender) {
            let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
            statuses.insert(card.as_str().to_owned(), status);
        }
    }

    /// An operator purges a card, which is a note in the audit.
    async fn purge(&mut self) -> anyhow::Result<()> {
        let sender = self.sender();
        let card = self.card(sender)?;
        let url = Address::Url(format!("http://{}", self.environment.app.admin()));
        let admin = HttpClient::new(&url, cmiot_proxy::tls::operator_without_roots()?)?;
        let authorization = format!("Bearer {}", self.token()?);
        let body = Bytes::from(format!("{{\"msisdn\":\"{}\"}}", card.as_str()));
        let purged = admin.post("/cache/purge", &[("authorization", &authorization)], body).await?;
        ensure!(purged.status.is_success(), "the purge failed: {}", purged.status);
        Ok(())
    }

    /// The token of the admin listener.
    pub(super) fn token(&self) -> anyhow::Result<String> {
        let path = self.environment.data().join("admin.token");
        let token = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(token.trim_end().to_owned())
    }

    /// The carrier's script; it holds its answers at the gate.
    fn rules(&self, throttled: bool, gate: Option<&Gate>) -> Vec<Rule> {
        let mut rules = Vec::new();
        if throttled {
            rules.push(Rule::any().code("71"));
        }
        rules.push(Rule::matching(|lookup| is_unknown(&lookup.card.number)).code("12"));
        for status in ["01", "02", "03", "04"] {
            let statuses = Arc::clone(&self.statuses);
            let has = move |number: &str| {
                let statuses = statuses.lock().unwrap_or_else(PoisonError::into_inner);
                statuses.get(number).is_some_and(|now| *now == status)
            };
            rules.push(Rule::matching(move |lookup| has(&lookup.card.number)).status(status));
        }
        rules.push(Rule::any());
        match gate {
            Some(gate) => rules.into_iter().map(|rule| rule.gate(gate)).collect(),
            None => rules,
        }
    }
}

fn is_unknown(number: &str) -> bool {
    number.parse::<u64>().is_ok_and(|number| number % UNKNOWN_IN == 3)
}

/// SplitMix64 (Steele, Lea and Flood 2014): a fixed sequence of numbers that look random.
struct Random(u64);

impl Random {
    /// A number below `limit`, or 0 if that is 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(limit).unwrap_or(0)
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap_or(0)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// The latency of a call: mostly 40 to 160 ms, sometimes half a second more.
    fn latency(&mut self) -> Duration {
        let slow = if self.one_in(30) { 300 + self.below(400) } else { 0 };
        Duration::from_millis(40 + self.below(60) + self.below(60) + slow)
    }
}
