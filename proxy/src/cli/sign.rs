//! `cmiot-proxy sign`: the carrier's "token tool" for the command line, the page's "token生成工具".

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use cmiot_proxy::clock::Clock;
use cmiot_proxy::operation;
use cmiot_signer::{AppId, Card, CardKind, Ebid, Password, Sequence, SignedRequest, Signer, Stamp};
use zeroize::Zeroizing;

use super::card;

/// Sign one lookup and print it.
///
/// The password comes from --password-file or the environment variable CMIOT_PASSWORD, never from an argument: other
/// users of the machine can read those.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  CMIOT_PASSWORD=secret cmiot-proxy sign --appid 100001 --ebid 0001000000009 --msisdn 14765004176
  cmiot-proxy sign --appid GW0001 --ebid 0001000000009 --iccid 898602B0011430000544 \\
      --password-file gw0001.password --format curl --base-url http://127.0.0.1:8080")]
pub(super) struct Sign {
    /// Application id, 1-26 letters and digits
    #[arg(long, value_parser = parse::<AppId>)]
    appid: AppId,
    /// Ability id, issued with the appid
    #[arg(long, value_parser = parse::<Ebid>)]
    ebid: Ebid,
    #[command(flatten)]
    card: CardArgument,
    /// File with the password; one closing line break is not part of it
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The transid's moment, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<jiff::Timestamp>,
    /// The transid's eight digits, 1-99999999 [default: from the clock's microseconds]
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u32>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Scheme, host, port and path prefix for url and curl
    #[arg(long, value_name = "URL", default_value = "https://api.iot.10086.cn")]
    base_url: String,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct CardArgument {
    /// Card by its number, at most 13 digits; - reads it from standard input, as for the other two
    #[arg(long)]
    msisdn: Option<String>,
    /// Card by its circuit id, 20 characters
    #[arg(long)]
    iccid: Option<String>,
    /// Card by its subscriber id, at most 15 digits
    #[arg(long)]
    imsi: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Transid, token and query, one per line
    Text,
    /// The query alone
    Query,
    /// The full URL
    Url,
    /// One JSON object
    Json,
    /// A curl command
    Curl,
}

impl Sign {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let password = self.password()?;
        let card = self.card.card()?;
        let now = Clock::system().now();
        let seconds = match self.at {
            Some(at) => u64::try_from(at.as_second())
                .with_context(|| said!("--at: before 1970", "--at：早于 1970 年"))?,
            None => now.as_secs(),
        };
        let stamp = Stamp::from_unix(seconds).context("--at")?;
        let number = self.sequence.unwrap_or_else(|| {
            // Distinct within a second to 1/99 µs: enough for a hand at a keyboard.
            u32::try_from(now.as_micros().rem_euclid(1_000_000)).unwrap_or(0) * 99 + 1
        });
        let sequence = Sequence::new(number).context("--sequence")?;
        let signed = Signer::new(&self.appid, &self.ebid, &password).sign(stamp, sequence, &card);
        self.print(&signed, &card)?;
        Ok(ExitCode::SUCCESS)
    }

    fn password(&self) -> anyhow::Result<Password> {
        let bytes = match &self.password_file {
            Some(path) => cmiot_proxy::config::read_secret(path)?,
            None => match std::env::var_os("CMIOT_PASSWORD") {
                Some(password) => Zeroizing::new(password.into_encoded_bytes()),
                None => bail!(said!(
                    "no password: give --password-file FILE or set CMIOT_PASSWORD",
                    "没有密码：请给出 --password-file FILE，或设置 CMIOT_PASSWORD"
                )),
            },
        };
        Password::new(&bytes).with_context(|| said!("password", "密码"))
    }

    fn print(&self, signed: &SignedRequest<'_>, card: &Card) -> anyhow::Result<()> {
        let query = signed.query();
        let mut url = String::new();
        signed.write_url(self.base_url.trim_end_matches('/'), operation::USER_STATUS.path, &mut url)?;
        match self.format {
            Format::Text => {
                let (transid, token) = (signed.transid(), signed.token().as_str());
                say!(
                    "transid {transid}\ntoken   {token}\nquery   {query}",
                    "事务编码 {transid}\ntoken    {token}\n查询参数 {query}"
                );
            }
            Format::Query => out!("{query}"),
            Format::Url => out!("{url}"),
            Format::Curl => out!("curl -sS '{url}'"),
            Format::Json => out!(
                "{}",
                serde_json::json!({
                    "appid": self.appid.as_str(),
                    "transid": signed.transid().as_str(),
                    "ebid": self.ebid.as_str(),
                    "token": signed.token().as_str(),
                    card.kind().as_str(): card.as_str(),
                    "query": query.as_str(),
                    "url": url,
                })
            ),
        }
        Ok(())
    }
}

impl CardArgument {
    fn card(&self) -> anyhow::Result<Card> {
        let given =
            [(CardKind::Msisdn, &self.msisdn), (CardKind::Iccid, &self.iccid), (CardKind::Imsi, &self.imsi)];
        let (kind, number) = given
            .iter()
            .find_map(|(kind, number)| number.as_deref().map(|number| (*kind, number)))
            .context("one of --msisdn, --iccid and --imsi is needed")?;
        let number = if number == "-" { card::line()? } else { number.to_owned() };
        Card::parse(kind, &number).with_context(|| format!("--{}", kind.as_str()))
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: T::Err| e.to_string())
}
