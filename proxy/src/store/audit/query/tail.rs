//! The newest lookups as they are committed, with masked cards, for people who watch.
//!
//! Reading them costs the path of a lookup nothing: they are read from the segment, at most some hundred per call, and the
//! others are only counted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmiot_signer::Card;
use rusqlite::{Connection, Row};

use super::events::bounds;
use super::fold::names;
use super::open;
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::audit::log::month::{self, Month};
use crate::store::audit::log::value::kind_of_number;

/// Reads a folder's audit from its present end on.
pub struct Tail {
    dir: PathBuf,
    /// The last row that was read or counted.
    position: i64,
    names: Option<(Month, HashMap<i64, Arc<str>>)>,
}

/// A lookup, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct TailRow {
    /// The number of its row.
    pub id: i64,
    /// Its arrival.
    pub at: Time,
    /// The client; only claimed unless `authenticated`.
    pub client: Option<String>,
    /// Whether the token was right.
    pub authenticated: bool,
    /// The address that it came from.
    pub peer: String,
    /// The masked card.
    pub card: Option<String>,
    /// The outcome.
    pub outcome: Arc<str>,
    /// The reason, if it was refused or failed.
    pub reason: Option<Arc<str>>,
    /// The code in the response.
    pub code: String,
    /// The STATUS in the response.
    pub status: Option<String>,
    /// Microseconds from its arrival until its record.
    pub latency: i64,
}

/// Some new lookups.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRows {
    /// The last of them, oldest first.
    pub rows: Vec<TailRow>,
    /// The last row of the result before.
    pub after: i64,
    /// The first row that was read: at most the rows between both are lookups that were not.
    pub first: i64,
    /// The last row that was read.
    pub last: i64,
}

impl Tail {
    /// Begins at the present end of the audit. Blocks.
    ///
    /// # Errors
    /// When the newest segment cannot be read.
    pub fn new(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { dir: dir.to_owned(), position: super::head(dir)?, names: None })
    }

    /// The lookups among the `most` newest rows since the last call. Blocks.
    ///
    /// # Errors
    /// When the newest segment cannot be read.
    pub fn read(&mut self, most: i64) -> Result<NewRows, StoreError> {
        let after = self.position;
        let none = NewRows { rows: Vec::new(), after, first: after + 1, last: after };
        let Some(newest) = month::list(&self.dir)?.into_iter().next() else { return Ok(none) };
        let path = newest.path(&self.dir);
        let connection = open(&self.dir, newest, None)?;
        let bounds = bounds(&connection).map_err(StoreError::sqlite(&path))?;
        if bounds.last <= self.position {
            return Ok(none);
        }
        // Rows of the month before that came since the last call are not read.
        let first = (bounds.last - most).max(self.position).max(bounds.before) + 1;
        let rows = self.rows(&connection, newest, first, bounds.last).map_err(StoreError::sqlite(&path))?;
        self.position = bounds.last;
        Ok(NewRows { rows, after, first, last: bounds.last })
    }

    fn rows(
        &mut self,
        connection: &Connection,
        month: Month,
        first: i64,
        last: i64,
    ) -> rusqlite::Result<Vec<TailRow>> {
        let names = self.names.take().filter(|(of, _)| *of == month).map(|(_, names)| names);
        let mut names = match names {
            Some(names) => names,
            None => super::fold::names(connection)?,
        };
        let mut lookups = connection.prepare(
            "SELECT id, at, client, authenticated, peer, kind, card, masked, outcome, reason, code, status, latency
             FROM record WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
        )?;
        let mut found = lookups.query((first, last))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let named = [row.get::<_, Option<i64>>(8)?, row.get(9)?];
            // A new name, of which there are few in the life of a segment.
            if named.iter().flatten().any(|number| !names.contains_key(number)) {
                names = self::names(connection)?;
            }
            rows.push(tail_row(row, &names)?);
        }
        self.names = Some((month, names));
        Ok(rows)
    }
}

fn tail_row(row: &Row<'_>, names: &HashMap<i64, Arc<str>>) -> rusqlite::Result<TailRow> {
    let name = |number: i64| names.get(&number).cloned().unwrap_or_default();
    let masked: Option<String> = row.get(7)?;
    let card = match (masked, row.get::<_, Option<i64>>(5)?, row.get_ref(6)?.as_str_or_null()?) {
        (Some(masked), _, _) => Some(masked),
        (None, Some(kind), Some(number)) => {
            let card = kind_of_number(kind).and_then(|kind| Card::parse(kind, number).ok());
            card.map(|card| card.masked().to_string())
        }
        _ => None,
    };
    Ok(TailRow {
        id: row.get(0)?,
        at: Time::from_micros(row.get(1)?),
        client: row.get(2)?,
        authenticated: row.get(3)?,
        peer: row.get(4)?,
        card,
        outcome: name(row.get(8)?),
        reason: row.get::<_, Option<i64>>(9)?.map(name),
        code: row.get(10)?,
        status: row.get(11)?,
        latency: row.get(12)?,
    })
}
