//! A row of any table: owned and cheap to move, without anything secret.

use std::net::IpAddr;
use std::rc::Rc;

use cmiot_signer::{AppId, Card};

use super::columns::{self, CallRow, Gap, LookupRow, NoteRow, RefusedRow, Table};
use super::identity::{IdentityKey, RowIdentity};
use super::value::Value;
use crate::clock::Time;
use crate::inline_str::InlineStr;
use crate::outcome::Outcome;
use crate::proxy_code::ProxyCode;

impl LookupRow {
    /// Changes a row that was not committed in time: it records the response that its client got.
    pub(crate) fn withdraw(&mut self) {
        let Withdrawn { reason, code } = if self.action { Withdrawn::ACTION } else { Withdrawn::LOOKUP };
        (self.outcome, self.reason) = (Withdrawn::OUTCOME.name(), Some(reason));
        self.code = code.as_str().into();
        (self.status, self.age) = (None, None);
    }

    /// Whether its client gets a refusal, whether or not the row is committed.
    pub(crate) fn is_refusal(&self) -> bool {
        [Outcome::Refused, Outcome::Failed].iter().any(|outcome| outcome.name() == self.outcome)
    }
}

/// The refusal that a client gets whose record was not committed in time. `Refusal::describe` states the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Withdrawn {
    /// The reason, as a word.
    pub reason: &'static str,
    /// The code.
    pub code: ProxyCode,
}

impl Withdrawn {
    /// The outcome of both.
    pub const OUTCOME: Outcome = Outcome::Failed;
    /// The refusal of a lookup.
    pub const LOOKUP: Self = Self { reason: "audit", code: ProxyCode::Busy };
    /// The refusal of an action.
    pub const ACTION: Self = Self { reason: "action-begun", code: ProxyCode::Other };
}

/// The intent of an action, a note: committed before the action is sent to the carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BegunRow {
    /// The arrival of the request.
    pub at: Time,
    /// The client.
    pub client: AppId,
    /// The client's transid.
    pub transid: InlineStr<48>,
    /// The operation.
    pub operation: &'static str,
    /// The card.
    pub card: Card,
}

impl BegunRow {
    /// The kind of its note.
    pub(crate) const WHAT: &'static str = "begun";

    /// The text of its note. `card` is the card's form in this segment.
    pub(crate) fn detail(&self, card: &str) -> String {
        let Self { client, transid, operation, card: asked, .. } = self;
        let (client, transid, kind) = (client.as_str(), transid.as_str(), asked.kind().as_str());
        format!("client={client} transid={transid} operation={operation} {kind}={card}")
    }

    /// Reads client and transid from such a text.
    pub(crate) fn read(detail: &str) -> Option<(AppId, &str)> {
        let mut words = detail.split(' ');
        let client = words.next()?.strip_prefix("client=")?;
        let transid = words.next()?.strip_prefix("transid=")?;
        Some((AppId::parse(client).ok()?, transid))
    }
}

/// An act of an operator, a note: written after it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActRow {
    /// The time of the act.
    pub at: Time,
    /// The kind of its note: one of a closed set.
    pub what: &'static str,
    /// The user, the address and the selection.
    pub detail: String,
    /// The card that was selected, which is written in the form of this segment.
    pub card: Option<Card>,
}

impl ActRow {
    /// The text of its note. `card` is the card's form in this segment.
    fn detail(&self, card: &str) -> String {
        match &self.card {
            Some(selected) => format!("{} {}={card}", self.detail, selected.kind().as_str()),
            None => self.detail.clone(),
        }
    }
}

/// A row of any table.
#[derive(Debug)]
pub(crate) enum Row {
    Lookup(LookupRow),
    Call(CallRow),
    Refused(RefusedRow),
    Gap(Gap),
    Note(NoteRow),
    Begun(BegunRow),
    Act(ActRow),
}

impl Row {
    /// The time that decides its segment.
    pub(crate) fn at(&self) -> Time {
        match self {
            Self::Lookup(row) => row.at,
            Self::Call(row) => row.at,
            Self::Refused(row) => row.last,
            Self::Gap(gap) => gap.last,
            Self::Note(note) => note.at,
            Self::Begun(row) => row.at,
            Self::Act(row) => row.at,
        }
    }

    /// Whether it records a refusal that its client gets.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Lookup(row) if row.is_refusal())
    }

    /// The card by which the index finds it.
    pub(crate) fn card(&self) -> Option<&Card> {
        match self {
            Self::Lookup(row) => row.card.as_ref(),
            Self::Call(row) => row.card.as_ref(),
            Self::Refused(_) | Self::Gap(_) | Self::Note(_) | Self::Begun(_) | Self::Act(_) => None,
        }
    }

    /// The address of the peer.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Lookup(row) => Some(row.peer),
            Self::Refused(row) => row.peer,
            Self::Call(_) | Self::Gap(_) | Self::Note(_) | Self::Begun(_) | Self::Act(_) => None,
        }
    }

    /// Writes its values in the order of its table's columns, and returns the table.
    pub(super) fn values<'a>(&'a self, identity: &'a RowIdentity, to: &mut Vec<Value<'a>>) -> Table {
        to.clear();
        match self {
            Self::Lookup(row) => columns::lookup_values(row, identity, to),
            Self::Call(row) => columns::call_values(row, identity, to),
            Self::Refused(row) => columns::refused_values(row, identity, to),
            Self::Gap(gap) => columns::gap_values(gap, to),
            Self::Note(note) => columns::note_values(note.at, note.what, &note.detail, to),
            Self::Begun(row) => columns::note_values(row.at, BegunRow::WHAT, identity.detail(), to),
            Self::Act(row) => columns::note_values(row.at, row.what, identity.detail(), to),
        }
        self.table()
    }

    fn table(&self) -> Table {
        match self {
            Self::Lookup(_) => Table::Record,
            Self::Call(_) => Table::Call,
            Self::Refused(_) => Table::Refused,
            Self::Gap(_) => Table::Gap,
            Self::Note(_) | Self::Begun(_) | Self::Act(_) => Table::Note,
        }
    }
}

/// The written forms of rows. Consecutive rows of one peer share the text of its address.
pub(super) fn identities<'a>(
    rows: impl Iterator<Item = &'a Row>,
    key: Option<&IdentityKey>,
) -> Vec<RowIdentity> {
    let mut last: Option<(IpAddr, Rc<str>)> = None;
    rows.map(|row| {
        let peer = row.peer().map(|peer| match &last {
            Some((before, text)) if *before == peer => Rc::clone(text),
            _ => Rc::clone(&last.insert((peer, peer.to_string().into())).1),
        });
        let form = |card: &Card| {
            key.map_or_else(|| card.as_str().to_owned(), |key| key.hash(card.kind(), card.as_str()))
        };
        let detail = match row {
            Row::Begun(row) => Some(row.detail(&form(&row.card))),
            Row::Act(row) => Some(row.detail(&row.card.as_ref().map(form).unwrap_or_default())),
            _ => None,
        };
        let body = match row {
            Row::Call(row) => row.body.as_ref().map(|body| body.written(key)),
            _ => None,
        };
        RowIdentity::new(key, row.card(), peer, detail.map(String::into_boxed_str), body)
    })
    .collect()
}
