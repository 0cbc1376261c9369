//! The columns of the audit: per table the row type, its columns in order, and the value that a row has in each; per view
//! the columns that queries, exports and the command line show.
//!
//! Insertion, digest and everything that reads rows back take their order from one list per table, so they cannot disagree
//! about it. A later version of the rows only adds columns at the end of a table; the lists of earlier versions are the
//! beginnings of the present ones. A new column is an entry here, a version and a migration.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cmiot_signer::{AppId, Card};

use super::body::Body;
use super::identity::RowIdentity;
use super::value::{Value, blob, count, int, kind_number, micros, name, text};
use crate::clock::Time;
use crate::inline_str::InlineStr;

/// The version of the rows that this proxy writes into a new segment. Rows of a segment have its schema's version.
pub(crate) const VERSION: i64 = 2;

/// The first version in which calls have bodies.
const WITH_BODIES: i64 = 2;

/// A table of rows, which share one count of row numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Table {
    Record,
    Call,
    Refused,
    Gap,
    Note,
}

/// A column of a table.
#[derive(Debug)]
pub(crate) struct Column {
    /// Ready for SQL.
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    pub(crate) nullable: bool,
}

/// The type of a column's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Int,
    /// UTF-8.
    Text,
    /// Numbers of the table `name`.
    Name,
    /// Bytes.
    Blob,
}

impl Table {
    pub(crate) const ALL: [Self; 5] = [Self::Record, Self::Call, Self::Refused, Self::Gap, Self::Note];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Call => "call",
            Self::Refused => "refused",
            Self::Gap => "gap",
            Self::Note => "note",
        }
    }

    /// The letter that a row of this table begins with in the digest.
    pub(crate) const fn tag(self) -> u8 {
        match self {
            Self::Record => b'r',
            Self::Call => b'c',
            Self::Refused => b'p',
            Self::Gap => b'g',
            Self::Note => b'n',
        }
    }

    /// Its columns after `id` in this version, in the order of insertion and digest.
    pub(crate) const fn columns(self, version: i64) -> &'static [Column] {
        match self {
            Self::Call if version < WITH_BODIES => CALL_ROW.split_at(CALL_ROW.len() - 1).0,
            Self::Record => LOOKUP_ROW,
            Self::Call => CALL_ROW,
            Self::Refused => REFUSED_ROW,
            Self::Gap => GAP_ROW,
            Self::Note => NOTE_ROW,
        }
    }

    /// The position of a column in [`Self::select_sql`], in all versions that have it. In a constant, a column that the table lacks does not compile.
    ///
    /// # Panics
    /// When the table has no such column.
    pub(crate) const fn position(self, name: &str) -> usize {
        let columns = self.columns(VERSION);
        let mut at = 0;
        while at < columns.len() {
            if is_same(columns[at].name, name) {
                return at + 1;
            }
            at += 1;
        }
        panic!("no such column")
    }

    /// `INSERT` of so many whole rows of this version, `id` first. A failure rolls the transaction back.
    pub(crate) fn insert_sql(self, rows: usize, version: i64) -> String {
        let row = format!("({})", vec!["?"; self.columns(version).len() + 1].join(", "));
        let rows = vec![row; rows].join(", ");
        format!("INSERT OR ROLLBACK INTO {} (id, {}) VALUES {rows}", self.name(), self.column_list(version))
    }

    /// `SELECT` of whole rows, `id` first, ordered by number, from the table itself: it reads no index. `version` is that
    /// of the segment's schema.
    pub(crate) fn select_sql(self, version: i64) -> String {
        format!(
            "SELECT id, {} FROM {} NOT INDEXED WHERE id >= ?1 ORDER BY id",
            self.column_list(version),
            self.name()
        )
    }

    /// Its columns after `id` in this version, for SQL.
    pub(crate) fn column_list(self, version: i64) -> String {
        self.columns(version).iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }
}

/// Compares in a constant, where `==` cannot.
const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Defines a table: its columns in order, and a function that writes a row's values in that order.
macro_rules! table {
    (
        $columns:ident, $values:ident<$row:lifetime>($($argument:ident: $type:ty),+);
        $($name:literal: $class:ident $(or $null:tt)? = $value:expr;)+
    ) => {
        const $columns: &[Column] = &[$(
            Column { name: $name, class: Class::$class, nullable: table!(@nullable $($null)?) },
        )+];

        pub(super) fn $values<$row>($($argument: $type,)+ to: &mut Vec<Value<$row>>) {
            to.extend([$($value),+]);
        }
    };
    (@nullable) => { false };
    (@nullable null) => { true };
}

/// One request, answered or about to be. Never holds a password, a token or a URL.
#[derive(Clone, Debug)]
pub struct LookupRow {
    /// The arrival of the request.
    pub at: Time,
    /// The client; only claimed unless `authenticated`.
    pub client: Option<AppId>,
    /// The client's group, if the client is known.
    pub group: Option<Arc<str>>,
    /// The account of the carrier call.
    pub account: Option<Arc<str>>,
    /// The address that the request came from.
    pub peer: IpAddr,
    /// The operation, if the path names one.
    pub operation: Option<&'static str>,
    /// The card, if it is well-formed.
    pub card: Option<Card>,
    /// The gateway's transid, well-formed or not.
    pub transid: Option<InlineStr<48>>,
    /// The outcome: one of a closed set, which is stored once per file.
    pub outcome: &'static str,
    /// The reason for a response that is not the carrier's: one of a closed set.
    pub reason: Option<&'static str>,
    /// The code in the response.
    pub code: InlineStr<16>,
    /// The code in the carrier's reply, if there was one.
    pub carrier_code: Option<InlineStr<16>>,
    /// The STATUS in the response, if there is one.
    pub status: Option<InlineStr<16>>,
    /// The age of the carrier's reply.
    pub age: Option<Duration>,
    /// The transid of the carrier call that gave this reply, or of the last attempt.
    pub carrier_transid: Option<InlineStr<48>>,
    /// From the request's arrival until the record was made.
    pub latency: Duration,
    /// Whether the token was right.
    pub authenticated: bool,
    /// Whether it records an action.
    pub action: bool,
}

table! {
    LOOKUP_ROW, lookup_values<'a>(row: &'a LookupRow, identity: &'a RowIdentity);
    "at": Int = Value::Int(row.at.as_micros());
    "card": Text or null = text(identity.card(row.card.as_ref()));
    "kind": Int or null = int(row.card.as_ref().map(|card| kind_number(card.kind())));
    "masked": Text or null = text(identity.masked());
    "key": Name or null = name(identity.key());
    "outcome": Name = Value::Name(row.outcome);
    "reason": Name or null = name(row.reason);
    "authenticated": Int = Value::Int(row.authenticated.into());
    "\"group\"": Name or null = name(row.group.as_deref());
    "account": Name or null = name(row.account.as_deref());
    "operation": Name or null = name(row.operation);
    "client": Text or null = text(row.client.as_ref().map(AppId::as_bytes));
    "peer": Text = text(identity.peer());
    "transid": Text or null = text(row.transid.as_ref().map(InlineStr::as_bytes));
    "code": Text = Value::Text(row.code.as_bytes());
    "carrier_code": Text or null = text(row.carrier_code.as_ref().map(InlineStr::as_bytes));
    "status": Text or null = text(row.status.as_ref().map(InlineStr::as_bytes));
    "age": Int or null = int(row.age.map(micros));
    "carrier_transid": Text or null = text(row.carrier_transid.as_ref().map(InlineStr::as_bytes));
    "latency": Int = Value::Int(micros(row.latency));
}

/// One attempt at the carrier. The carrier module writes it when the attempt ends.
#[derive(Clone, Debug)]
pub struct CallRow {
    /// When the attempt began.
    pub at: Time,
    /// The transid of the attempt; none when the proxy could not number it.
    pub transid: Option<InlineStr<48>>,
    /// The transid of the previous attempt in the same flight.
    pub previous: Option<InlineStr<48>>,
    /// The card of the call; none of a request for a token.
    pub card: Option<Card>,
    /// The account that made it.
    pub account: Arc<str>,
    /// The operation.
    pub operation: &'static str,
    /// The code in the carrier's reply, if there was one.
    pub code: Option<InlineStr<16>>,
    /// The reason for a missing code: one of a closed set.
    pub fault: Option<&'static str>,
    /// The STATUS in the reply, if there is one.
    pub status: Option<InlineStr<16>>,
    /// The duration of the attempt.
    pub latency: Duration,
    /// The length of the carrier's reply in bytes.
    pub bytes: Option<usize>,
    /// The reply itself, as far as it is kept.
    pub body: Option<Body>,
}

table! {
    CALL_ROW, call_values<'a>(row: &'a CallRow, identity: &'a RowIdentity);
    "at": Int = Value::Int(row.at.as_micros());
    "transid": Text or null = text(row.transid.as_ref().map(InlineStr::as_bytes));
    "previous": Text or null = text(row.previous.as_ref().map(InlineStr::as_bytes));
    "card": Text or null = text(identity.card(row.card.as_ref()));
    "kind": Int or null = int(row.card.map(|card| kind_number(card.kind())));
    "masked": Text or null = text(identity.masked());
    "key": Name or null = name(identity.key());
    "account": Name = Value::Name(&row.account);
    "operation": Name = Value::Name(row.operation);
    "code": Text or null = text(row.code.as_ref().map(InlineStr::as_bytes));
    "fault": Name or null = name(row.fault);
    "status": Text or null = text(row.status.as_ref().map(InlineStr::as_bytes));
    "latency": Int = Value::Int(micros(row.latency));
    "bytes": Int or null = int(row.bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
    "body": Blob or null = blob(identity.body());
}

/// Requests that were not admitted and were only counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// The address that they came from; none when there were several, or too many to tell apart.
    pub peer: Option<IpAddr>,
    /// The reason for the refusals: one of a closed set.
    pub reason: &'static str,
    /// The number of refusals.
    pub count: u64,
    /// The first of them.
    pub first: Time,
    /// The last of them.
    pub last: Time,
}

table! {
    REFUSED_ROW, refused_values<'a>(row: &'a RefusedRow, identity: &'a RowIdentity);
    "peer": Text or null = text(identity.peer());
    "reason": Name = Value::Name(row.reason);
    "count": Int = Value::Int(count(row.count));
    "first": Int = Value::Int(row.first.as_micros());
    "last": Int = Value::Int(row.last.as_micros());
}

/// Requests without a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The first of them, by the time when its loss was found.
    pub(crate) first: Time,
    /// The last of them.
    pub(crate) last: Time,
    /// The number of those that were answered without a record.
    pub(crate) answered: u64,
    /// The number of those that were refused for it.
    pub(crate) refused: u64,
}

table! {
    GAP_ROW, gap_values<'a>(gap: &'a Gap);
    "first": Int = Value::Int(gap.first.as_micros());
    "last": Int = Value::Int(gap.last.as_micros());
    "answered": Int = Value::Int(count(gap.answered));
    "refused": Int = Value::Int(count(gap.refused));
}

/// Something done to the audit itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteRow {
    /// When it was done.
    pub at: Time,
    /// The kind of note: one of a closed set.
    pub what: &'static str,
    /// The object of the action.
    pub detail: String,
}

table! {
    NOTE_ROW, note_values<'a>(at: Time, what: &'static str, detail: &'a str);
    "at": Int = Value::Int(at.as_micros());
    "what": Name = Value::Name(what);
    "detail": Text = Value::Text(detail.as_bytes());
}

/// A column of a view, as queries, exports and the command line show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ViewColumn {
    /// The name in SQL, CSV, JSON and Parquet.
    pub name: &'static str,
    /// The type in Parquet.
    pub kind: ViewKind,
    /// Whether the command line's table shows it: a terminal has no room for all.
    pub narrow: bool,
}

/// The type of a view's column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ViewKind {
    /// The row's number, never null.
    Id,
    /// A number.
    Number,
    /// A time as RFC 3339.
    Time,
    /// A text.
    Text,
    /// A number with a fraction.
    Real,
    /// 0 or 1.
    Flag,
}

/// The columns of a lookup, in the order of its fields: those of the view `lookup`.
pub const LOOKUP: &[ViewColumn] = &[
    shown("id", ViewKind::Id).narrow(),
    shown("time", ViewKind::Time).narrow(),
    shown("client", ViewKind::Text).narrow(),
    shown("group", ViewKind::Text),
    shown("account", ViewKind::Text),
    shown("peer", ViewKind::Text),
    shown("operation", ViewKind::Text),
    shown("kind", ViewKind::Text),
    shown("card", ViewKind::Text).narrow(),
    shown("transid", ViewKind::Text),
    shown("outcome", ViewKind::Text).narrow(),
    shown("reason", ViewKind::Text).narrow(),
    shown("code", ViewKind::Text).narrow(),
    shown("meaning", ViewKind::Text),
    shown("carrier_code", ViewKind::Text),
    shown("status", ViewKind::Text).narrow(),
    shown("card_is", ViewKind::Text),
    shown("age_s", ViewKind::Real).narrow(),
    shown("carrier_transid", ViewKind::Text),
    shown("latency_ms", ViewKind::Real),
    shown("authenticated", ViewKind::Flag),
    shown("masked", ViewKind::Text),
];

/// The columns of a carrier call, in the order of its fields: those of the view `carrier_call`.
pub const CALL: &[ViewColumn] = &[
    shown("id", ViewKind::Id),
    shown("time", ViewKind::Time),
    shown("transid", ViewKind::Text),
    shown("previous", ViewKind::Text),
    shown("account", ViewKind::Text),
    shown("operation", ViewKind::Text),
    shown("kind", ViewKind::Text),
    shown("card", ViewKind::Text),
    shown("code", ViewKind::Text),
    shown("fault", ViewKind::Text),
    shown("status", ViewKind::Text),
    shown("latency_ms", ViewKind::Real),
    shown("bytes", ViewKind::Number),
    shown("masked", ViewKind::Text),
    shown("body", ViewKind::Text),
];

/// The columns of a note, in the order of its fields.
pub const NOTE: &[ViewColumn] = &[
    shown("id", ViewKind::Id),
    shown("time", ViewKind::Time),
    shown("what", ViewKind::Text),
    shown("detail", ViewKind::Text),
];

/// The columns of a count of refused requests, in the order of its fields.
pub const REFUSED: &[ViewColumn] = &[
    shown("id", ViewKind::Id),
    shown("first", ViewKind::Time),
    shown("last", ViewKind::Time),
    shown("peer", ViewKind::Text),
    shown("reason", ViewKind::Text),
    shown("count", ViewKind::Number),
];

/// The columns of a count of requests without a record, in the order of its fields.
pub const GAP: &[ViewColumn] = &[
    shown("id", ViewKind::Id),
    shown("first", ViewKind::Time),
    shown("last", ViewKind::Time),
    shown("answered", ViewKind::Number),
    shown("refused", ViewKind::Number),
];

/// The columns of a status change, in the order of its fields.
pub const CHANGE: &[ViewColumn] = &[
    shown("card", ViewKind::Text).narrow(),
    shown("kind", ViewKind::Text).narrow(),
    shown("from", ViewKind::Text).narrow(),
    shown("to", ViewKind::Text).narrow(),
    shown("after", ViewKind::Time).narrow(),
    shown("before", ViewKind::Time).narrow(),
    shown("lookup", ViewKind::Number).narrow(),
];

const fn shown(name: &'static str, kind: ViewKind) -> ViewColumn {
    ViewColumn { name, kind, narrow: false }
}

impl ViewColumn {
    const fn narrow(self) -> Self {
        Self { narrow: true, ..self }
    }
}

/// The position of a column in a view. In a constant, a column that the view lacks does not compile.
///
/// # Panics
/// When the view has no such column.
pub const fn position(columns: &[ViewColumn], name: &str) -> usize {
    let mut at = 0;
    while at < columns.len() {
        if is_same(columns[at].name, name) {
            return at;
        }
        at += 1;
    }
    panic!("no such column")
}

/// The columns as a list for `SELECT` from a segment of this version, with NULL for columns of later versions.
pub(crate) fn select_list(columns: &[ViewColumn], version: i64) -> String {
    let one = |column: &ViewColumn| match column.name {
        "body" if version < WITH_BODIES => "NULL AS body".to_owned(),
        name => format!("\"{name}\""),
    };
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}
