//! The history of one card: the changes of its STATUS, and its last lookups with their carrier calls.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use axum::body::Body;
use cmiot_signer::Card;
use hyper::Response;

use super::audit::explain;
use super::rows::{self, Table};
use super::{Parts, csv, words};
use crate::language::{Language, Text};
use crate::store::audit::query::{self, CALL, CHANGE, Field, Fields, Filter, LOOKUP};

/// Lookups and changes of a page.
const MAX_LOOKUPS: usize = 50;
const MAX_CHANGES: usize = 100;
const TIMEOUT: Duration = Duration::from_secs(5);

/// The history of a card, newest first.
#[derive(Default)]
pub(super) struct Timeline {
    changes: Vec<Fields>,
    /// Each with its carrier calls.
    lookups: Vec<(Fields, Vec<Fields>)>,
}

impl Timeline {
    /// Reads the history of a card from the audit.
    ///
    /// # Errors
    /// A failed or slow query, in words.
    pub(super) async fn read(parts: &Parts, card: Card) -> Result<Self, Text> {
        let read = parts.read(TIMEOUT, move |dir, deadline| {
            let filter = Filter { card: Some(card), ..Filter::default() };
            let lookups = query::lookups(dir, &filter, MAX_LOOKUPS, Some(deadline))?;
            let ids: Vec<_> = lookups.iter().filter_map(|row| query::id(row)).collect();
            let mut calls = query::calls_of(dir, &ids, Some(deadline))?;
            let mut changes = VecDeque::new();
            query::changes(dir, &filter, Some(deadline), |change| {
                changes.push_front(change);
                changes.truncate(MAX_CHANGES);
                ControlFlow::Continue(())
            })?;
            let with_calls = |row: Fields| {
                let calls = query::id(&row).and_then(|id| calls.remove(&id)).unwrap_or_default();
                (row, calls)
            };
            Ok(Self { lookups: lookups.into_iter().map(with_calls).collect(), changes: changes.into() })
        });
        read.await.map_err(|error| explain(&error))
    }

    /// The changes, in words.
    pub(super) fn changes(&self, language: Language) -> Vec<String> {
        let changes = self.changes.iter().map(|change| {
            let text = |name| rows::text(CHANGE, change, name);
            let (from, to) = (text("from"), text("to"));
            let (was, is) = (words::of_status(&from), words::of_status(&to));
            let (after, before) = (text("after"), text("before"));
            let english =
                format!("{from} {} → {to} {}, between {after} and {before}", was.english, is.english);
            let chinese =
                format!("{from} {} → {to} {}，在 {after} 与 {before} 之间", was.chinese, is.chinese);
            Text { english, chinese }.of(language).to_owned()
        });
        changes.collect()
    }

    /// A table per lookup, and one of its calls.
    pub(super) fn lookups(&self, language: Language) -> Vec<(Table, Table)> {
        let tables = self.lookups.iter().map(|(lookup, calls)| {
            (Table::of(LOOKUP, std::slice::from_ref(lookup), language), Table::of(CALL, calls, language))
        });
        tables.collect()
    }

    /// The changes as a file.
    pub(super) fn changes_file(&self) -> Response<Body> {
        let head: Vec<_> = CHANGE.iter().map(|column| column.name).collect();
        csv::file("changes.csv", &head, self.changes.iter().map(|row| rows::masked(CHANGE, row)))
    }

    /// The lookups as a file; its last column has the numbers of the calls.
    pub(super) fn lookups_file(&self) -> Response<Body> {
        let head: Vec<_> = LOOKUP.iter().map(|column| column.name).chain(["calls"]).collect();
        let lines = self.lookups.iter().map(|(lookup, calls)| {
            let ids: Vec<_> =
                calls.iter().filter_map(|call| query::id(call)).map(|id| id.to_string()).collect();
            let mut line = rows::masked(LOOKUP, lookup);
            line.push(Field::Text(ids.join(" ")));
            line
        });
        csv::file("card.csv", &head, lines)
    }
}
