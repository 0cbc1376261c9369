//! What the audit keeps, one type a table: owned and cheap to move, with nothing secret in it.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cmiot_signer::{AppId, Card};

use super::columns::{self, Value, kind_number};
use super::identity::{IdentityKey, masked};
use crate::clock::Time;
use crate::inline_str::InlineStr;

/// One request, answered or about to be. Never holds a password, a token or a URL.
#[derive(Clone, Debug)]
pub struct LookupRow {
    /// When the request came.
    pub at: Time,
    /// Whose request it is, or claims to be: see `authenticated`.
    pub client: Option<AppId>,
    /// The client's group, if the client is known.
    pub group: Option<Arc<str>>,
    /// The account that the carrier was asked with.
    pub account: Option<Arc<str>>,
    /// The address that it came from.
    pub peer: IpAddr,
    /// The look-up asked for, if its path is one.
    pub operation: Option<&'static str>,
    /// The card asked about, if it is well-formed.
    pub card: Option<Card>,
    /// The gateway's transid, well-formed or not.
    pub transid: Option<InlineStr<48>>,
    /// What became of it: one of a closed set, which is kept once per file.
    pub outcome: &'static str,
    /// Why there is no answer of the carrier's: one of a closed set.
    pub reason: Option<&'static str>,
    /// The code answered to the gateway.
    pub code: InlineStr<16>,
    /// The code that the carrier answered with, if it did.
    pub carrier_code: Option<InlineStr<16>>,
    /// The STATUS answered, if there is one.
    pub status: Option<InlineStr<16>>,
    /// How old the carrier's answer was.
    pub age: Option<Duration>,
    /// The transid of the carrier call that gave this answer, or of the last attempt.
    pub carrier_transid: Option<InlineStr<48>>,
    /// From the request's arrival until the record was made.
    pub latency: Duration,
    /// Whether the token was right.
    pub authenticated: bool,
    /// Whether it is of an action that was begun.
    pub action: bool,
}

impl LookupRow {
    /// It was not committed in time: says what its client was told instead of what it would have been told.
    pub(crate) fn withdraw(&mut self) {
        let (reason, code) = if self.action { Withdrawn::ACTION } else { Withdrawn::LOOKUP };
        (self.outcome, self.reason, self.code) = (Withdrawn::OUTCOME, Some(reason), code.into());
        (self.status, self.age) = (None, None);
    }
}

/// What a client is told whose record was not committed in time.
pub struct Withdrawn;

impl Withdrawn {
    /// What became of its request.
    pub const OUTCOME: &'static str = "failed";
    /// Reason and code.
    pub const LOOKUP: (&'static str, &'static str) = ("audit", "73");
    /// Reason and code, where it asked for an action.
    pub const ACTION: (&'static str, &'static str) = ("action-begun", "99");
}

/// One attempt at the carrier, written by whoever made it.
#[derive(Clone, Debug)]
pub struct CallRow {
    /// When it began.
    pub at: Time,
    /// Its own transid; none when the proxy could not number it.
    pub transid: Option<InlineStr<48>>,
    /// The transid of the attempt before it in the same flight.
    pub previous: Option<InlineStr<48>>,
    /// The card asked about.
    pub card: Card,
    /// The account that signed it.
    pub account: Arc<str>,
    /// What was asked.
    pub operation: &'static str,
    /// The code that the carrier answered with, if it did.
    pub code: Option<InlineStr<16>>,
    /// Why there is no code: one of a closed set.
    pub fault: Option<&'static str>,
    /// The STATUS answered, if there is one.
    pub status: Option<InlineStr<16>>,
    /// How long it took.
    pub latency: Duration,
    /// How long the carrier's answer was, in bytes.
    pub bytes: Option<usize>,
}

/// Requests that were not admitted and were only counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Where they came from; none for peers too many to tell apart.
    pub peer: Option<IpAddr>,
    /// Why they were refused: one of a closed set.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Time,
    /// The last of them.
    pub last: Time,
}

/// Requests without a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The first of them, by when it was found out.
    pub(crate) first: Time,
    /// The last of them.
    pub(crate) last: Time,
    /// How many were answered all the same.
    pub(crate) answered: u64,
    /// How many were refused for it.
    pub(crate) refused: u64,
}

/// Something done to the audit itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteRow {
    /// When.
    pub at: Time,
    /// One of a closed set.
    pub what: &'static str,
    /// To what.
    pub detail: String,
}

/// An action that is about to be sent to the carrier: a note, committed before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BegunRow {
    /// When it was asked for.
    pub at: Time,
    /// Who asked for it.
    pub client: AppId,
    /// The client's transid.
    pub transid: InlineStr<48>,
    /// What is to be done.
    pub operation: &'static str,
    /// To which card.
    pub card: Card,
}

impl BegunRow {
    /// What its note is called.
    pub(crate) const WHAT: &'static str = "begun";

    /// The text of its note. `card` is how the card stands in this segment.
    pub(crate) fn detail(&self, card: &str) -> String {
        let Self { client, transid, operation, card: asked, .. } = self;
        let (client, transid, kind) = (client.as_str(), transid.as_str(), asked.kind().as_str());
        format!("client={client} transid={transid} operation={operation} {kind}={card}")
    }

    /// Reads client and transid back from such a text.
    pub(crate) fn read(detail: &str) -> Option<(AppId, &str)> {
        let mut words = detail.split(' ');
        let client = words.next()?.strip_prefix("client=")?;
        let transid = words.next()?.strip_prefix("transid=")?;
        Some((AppId::parse(client).ok()?, transid))
    }
}

/// How a row's card and peer are written, where that is not how they stand in the row.
pub(crate) struct RowIdentity {
    keyed: Option<Keyed>,
    /// Shared by the rows in a row that come from one peer.
    peer: Option<(IpAddr, Rc<str>)>,
    /// The text of a note that names a card.
    detail: Option<Box<str>>,
}

struct Keyed {
    card: String,
    masked: String,
    key: String,
}

impl RowIdentity {
    /// For each of the rows.
    pub(crate) fn all<'a>(rows: impl Iterator<Item = &'a Row>, key: Option<&IdentityKey>) -> Vec<Self> {
        let mut last: Option<(IpAddr, Rc<str>)> = None;
        rows.map(|row| {
            let peer = row.peer().map(|peer| match &last {
                Some((before, text)) if *before == peer => (peer, Rc::clone(text)),
                _ => last.insert((peer, peer.to_string().into())).clone(),
            });
            let keyed = row.card().zip(key).map(|(card, key)| Keyed {
                card: key.hash(card.kind(), card.as_str()),
                masked: masked(card.as_str()),
                key: key.id().to_owned(),
            });
            let detail = match row {
                Row::Begun(row) => Some(row.detail(&key.map_or_else(
                    || row.card.as_str().to_owned(),
                    |key| key.hash(row.card.kind(), row.card.as_str()),
                ))),
                _ => None,
            };
            Self { keyed, peer, detail: detail.map(String::into_boxed_str) }
        })
        .collect()
    }

    /// What stands for the card: itself, without a key.
    pub(crate) fn card<'a>(&'a self, card: Option<&'a Card>) -> Option<&'a str> {
        self.keyed.as_ref().map_or_else(|| card.map(Card::as_str), |keyed| Some(&keyed.card))
    }

    pub(crate) fn masked(&self) -> Option<&str> {
        self.keyed.as_ref().map(|keyed| &*keyed.masked)
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.keyed.as_ref().map(|keyed| &*keyed.key)
    }

    pub(crate) fn detail(&self) -> &str {
        self.detail.as_deref().unwrap_or_default()
    }

    pub(crate) fn peer(&self) -> Option<&str> {
        self.peer.as_ref().map(|(_, text)| &**text)
    }
}

/// A row of any table.
#[derive(Debug)]
pub(crate) enum Row {
    LookUp(LookupRow),
    Call(CallRow),
    Refused(RefusedRow),
    Gap(Gap),
    Note(NoteRow),
    Begun(BegunRow),
}

impl Row {
    /// The time by which its segment is chosen.
    pub(crate) fn at(&self) -> Time {
        match self {
            Self::LookUp(row) => row.at,
            Self::Call(row) => row.at,
            Self::Refused(row) => row.last,
            Self::Gap(gap) => gap.last,
            Self::Note(note) => note.at,
            Self::Begun(row) => row.at,
        }
    }

    /// The card that it is found by.
    pub(crate) fn card(&self) -> Option<&Card> {
        match self {
            Self::LookUp(row) => row.card.as_ref(),
            Self::Call(row) => Some(&row.card),
            Self::Refused(_) | Self::Gap(_) | Self::Note(_) | Self::Begun(_) => None,
        }
    }

    /// The address that is written as text.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::LookUp(row) => Some(row.peer),
            Self::Refused(row) => row.peer,
            Self::Call(_) | Self::Gap(_) | Self::Note(_) | Self::Begun(_) => None,
        }
    }

    /// Its table, and its values in the order of [`TABLES`](crate::store::audit::log::columns::TABLES). `shown` is how its card and peer
    /// are written.
    pub(crate) fn cells<'a>(&'a self, shown: &'a RowIdentity, to: &mut Vec<Value<'a>>) -> usize {
        to.clear();
        match self {
            Self::LookUp(row) => {
                to.extend([
                    Value::Int(row.at.as_micros()),
                    text(shown.card(row.card.as_ref())),
                    int(row.card.as_ref().map(|card| kind_number(card.kind()))),
                    text(shown.masked()),
                    name(shown.key()),
                    Value::Name(row.outcome),
                    name(row.reason),
                    Value::Int(row.authenticated.into()),
                    name(row.group.as_deref()),
                    name(row.account.as_deref()),
                    name(row.operation),
                    text(row.client.as_ref().map(AppId::as_bytes)),
                    text(shown.peer()),
                    text(row.transid.as_ref().map(InlineStr::as_bytes)),
                    Value::Text(row.code.as_bytes()),
                    text(row.carrier_code.as_ref().map(InlineStr::as_bytes)),
                    text(row.status.as_ref().map(InlineStr::as_bytes)),
                    int(row.age.map(micros)),
                    text(row.carrier_transid.as_ref().map(InlineStr::as_bytes)),
                    Value::Int(micros(row.latency)),
                ]);
                columns::RECORD
            }
            Self::Call(row) => {
                to.extend([
                    Value::Int(row.at.as_micros()),
                    text(row.transid.as_ref().map(InlineStr::as_bytes)),
                    text(row.previous.as_ref().map(InlineStr::as_bytes)),
                    text(shown.card(Some(&row.card))),
                    Value::Int(kind_number(row.card.kind())),
                    text(shown.masked()),
                    name(shown.key()),
                    Value::Name(&row.account),
                    Value::Name(row.operation),
                    text(row.code.as_ref().map(InlineStr::as_bytes)),
                    name(row.fault),
                    text(row.status.as_ref().map(InlineStr::as_bytes)),
                    Value::Int(micros(row.latency)),
                    int(row.bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX))),
                ]);
                columns::CALL
            }
            Self::Refused(row) => {
                to.extend([
                    text(shown.peer()),
                    Value::Name(row.reason),
                    Value::Int(count(row.count)),
                    Value::Int(row.first.as_micros()),
                    Value::Int(row.last.as_micros()),
                ]);
                columns::REFUSED
            }
            Self::Gap(gap) => {
                to.extend([
                    Value::Int(gap.first.as_micros()),
                    Value::Int(gap.last.as_micros()),
                    Value::Int(count(gap.answered)),
                    Value::Int(count(gap.refused)),
                ]);
                columns::GAP
            }
            Self::Note(note) => {
                to.extend([
                    Value::Int(note.at.as_micros()),
                    Value::Name(note.what),
                    Value::Text(note.detail.as_bytes()),
                ]);
                columns::NOTE
            }
            Self::Begun(row) => {
                to.extend([
                    Value::Int(row.at.as_micros()),
                    Value::Name(BegunRow::WHAT),
                    Value::Text(shown.detail().as_bytes()),
                ]);
                columns::NOTE
            }
        }
    }
}

fn text<T: AsRef<[u8]> + ?Sized>(text: Option<&T>) -> Value<'_> {
    text.map_or(Value::Null, |text| Value::Text(text.as_ref()))
}

fn name(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Null, Value::Name)
}

fn int(number: Option<i64>) -> Value<'static> {
    number.map_or(Value::Null, Value::Int)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
