//! The audit's tables of rows: which columns, in which order, and which of them hold names.
//!
//! One list a table serves the insertion, the chain and everything that reads rows back, so that they cannot disagree
//! about the order. It is version 1 of the rows; a later version is a further list, never a change of this one.

use cmiot_signer::CardKind;

/// The version of the rows that this proxy writes.
pub(crate) const VERSION: i64 = 1;

/// A table of numbered rows.
pub(crate) struct Table {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What the chain calls it.
    pub(crate) letter: u8,
    /// Its columns after `id`.
    pub(crate) columns: &'static [Column],
}

/// A column.
pub(crate) struct Column {
    /// What it is called, ready for SQL.
    pub(crate) name: &'static str,
    /// What its values are.
    pub(crate) class: Class,
    /// Whether it may hold NULL.
    pub(crate) nullable: bool,
}

/// What the values of a column are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Int,
    /// UTF-8.
    Text,
    /// Numbers of the table `name`.
    Name,
}

/// A value on its way into a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    /// UTF-8. Whoever has a `str` has proved it, and nobody here needs it proved again.
    Text(&'a [u8]),
    /// Kept once in the table `name`.
    Name(&'a str),
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Null, Self::Null) => true,
            (Self::Int(one), Self::Int(other)) => one == other,
            (Self::Text(one), Self::Text(other)) => alike(one, other),
            (Self::Name(one), Self::Name(other)) => alike(one.as_bytes(), other.as_bytes()),
            _ => false,
        }
    }
}

/// Eight bytes at once: these texts are short, and alike for long. musl compares byte by byte.
fn alike(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (others, others_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    one.len() == other.len()
        && words.iter().zip(others).all(|(one, other)| one == other)
        && rest.iter().zip(others_rest).all(|(one, other)| one == other)
}

/// Every table of rows. An index into this is how the rest speaks of a table.
pub(crate) const TABLES: [Table; 5] = [
    Table {
        name: "record",
        letter: b'r',
        columns: &[
            int("at"),
            text("card").or_null(),
            int("kind").or_null(),
            text("masked").or_null(),
            name("key").or_null(),
            name("outcome"),
            name("reason").or_null(),
            int("authenticated"),
            name("\"group\"").or_null(),
            name("account").or_null(),
            name("operation").or_null(),
            text("client").or_null(),
            text("peer"),
            text("transid").or_null(),
            text("code"),
            text("carrier_code").or_null(),
            text("status").or_null(),
            int("age").or_null(),
            text("carrier_transid").or_null(),
            int("latency"),
        ],
    },
    Table {
        name: "call",
        letter: b'c',
        columns: &[
            int("at"),
            text("transid").or_null(),
            text("previous").or_null(),
            text("card").or_null(),
            int("kind").or_null(),
            text("masked").or_null(),
            name("key").or_null(),
            name("account"),
            name("operation"),
            text("code").or_null(),
            name("fault").or_null(),
            text("status").or_null(),
            int("latency"),
            int("bytes").or_null(),
        ],
    },
    Table {
        name: "refused",
        letter: b'p',
        columns: &[text("peer").or_null(), name("reason"), int("count"), int("first"), int("last")],
    },
    Table {
        name: "gap",
        letter: b'g',
        columns: &[int("first"), int("last"), int("answered"), int("refused")],
    },
    Table { name: "note", letter: b'n', columns: &[int("at"), name("what"), text("detail")] },
];

pub(crate) const RECORD: usize = 0;
pub(crate) const CALL: usize = 1;
pub(crate) const REFUSED: usize = 2;
pub(crate) const GAP: usize = 3;
pub(crate) const NOTE: usize = 4;

const fn int(name: &'static str) -> Column {
    Column { name, class: Class::Int, nullable: false }
}

const fn text(name: &'static str) -> Column {
    Column { name, class: Class::Text, nullable: false }
}

const fn name(name: &'static str) -> Column {
    Column { name, class: Class::Name, nullable: false }
}

impl Column {
    const fn or_null(self) -> Self {
        Self { nullable: true, ..self }
    }
}

impl Table {
    /// `INSERT` of so many whole rows, `id` first; a failure takes back the transaction.
    pub(crate) fn insert_sql(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns.len() + 1].join(", "));
        let rows = vec![row; rows].join(", ");
        format!("INSERT OR ROLLBACK INTO {} (id, {}) VALUES {rows}", self.name, self.column_list())
    }

    /// `SELECT` of whole rows, `id` first, in the order of their numbers, from the table itself: no index is read.
    pub(crate) fn select_sql(&self) -> String {
        format!("SELECT id, {} FROM {} NOT INDEXED ORDER BY id", self.column_list(), self.name)
    }

    fn column_list(&self) -> String {
        self.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }
}

/// As in the views.
pub(crate) fn kind_number(kind: CardKind) -> i64 {
    match kind {
        CardKind::Msisdn => 1,
        CardKind::Iccid => 2,
        CardKind::Imsi => 3,
    }
}

/// The kind of this number, if it is one.
pub(crate) fn kind_of_number(number: i64) -> Option<CardKind> {
    match number {
        1 => Some(CardKind::Msisdn),
        2 => Some(CardKind::Iccid),
        3 => Some(CardKind::Imsi),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_alike_only_where_every_byte_is() {
        let whole = "0123456789abcdef0123456789abc";
        for length in 0..=whole.len() {
            let one = &whole.as_bytes()[..length];
            let copy = one.to_vec();
            assert_eq!(Value::Text(one), Value::Text(&copy));
            for at in 0..length {
                let mut other = one.to_vec();
                other[at] ^= 1;
                assert_ne!(Value::Text(one), Value::Text(&other), "{length} {at}");
                assert_ne!(Value::Text(one), Value::Text(&one[..at]), "{length} {at}");
                assert_ne!(Value::Name(&whole[..at]), Value::Name(&whole[..length]), "{length} {at}");
            }
        }
        assert_ne!(Value::Text(b"1"), Value::Name("1"));
        assert_ne!(Value::Text(b""), Value::Null);
        assert_ne!(Value::Int(0), Value::Null);
    }
}
