//! Positions of the webhooks in the audit, their dead letters, and the conditions whose end is not noted yet.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params_from_iter};

use super::super::StoreError;
use super::super::schema::{self, Kind};
use super::{FILE, StateStore};
use crate::clock::Time;

/// Dead letters that are kept per webhook; the oldest are removed.
pub const KEPT_DEAD_LETTERS: usize = 1_000;

/// The progress of a webhook in the audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The row of the audit up to which every event is delivered or dead.
    pub position: i64,
    /// Messages that were delivered.
    pub delivered: u64,
    /// Messages that were given up.
    pub dead: u64,
}

/// A message that was given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// The row of its event.
    pub audit_row: i64,
    /// Its `webhook-id`.
    pub message: String,
    /// Its type.
    pub kind: String,
    /// When it was given up.
    pub at: Time,
    /// The result of the last attempt.
    pub error: String,
}

/// The content of `state.db` about a webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookState {
    /// Its name.
    pub name: String,
    /// Its progress in the audit.
    pub progress: Progress,
    /// Its last dead letters, the newest first.
    pub dead: Vec<DeadLetter>,
}

impl StateStore {
    /// The progress of a webhook; none if it is new.
    ///
    /// # Errors
    /// When `state.db` cannot be read.
    pub fn webhook(&self, name: &str) -> Result<Option<Progress>, StoreError> {
        read(&self.lock().connection, name).map_err(StoreError::sqlite(&self.path))
    }

    /// Stores how far a webhook has got, with messages that were given up. Blocks until it is on the disk.
    ///
    /// # Errors
    /// When it was not committed.
    pub fn save_webhook(&self, name: &str, to: Progress, dead: &[DeadLetter]) -> Result<(), StoreError> {
        self.change(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO webhook (name, position, delivered, dead) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET position = excluded.position, delivered = excluded.delivered,
                                               dead = excluded.dead",
                )?
                .execute((name, to.position, number(to.delivered), number(to.dead)))?;
            for letter in dead {
                connection.execute(
                    "INSERT INTO dead_letter (webhook, audit_row, message, kind, at, error)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT DO UPDATE SET at = excluded.at, error = excluded.error",
                    (name, letter.audit_row, &letter.message, &letter.kind, letter.at.as_micros(), &letter.error),
                )?;
            }
            if !dead.is_empty() {
                connection.execute(
                    "DELETE FROM dead_letter WHERE webhook = ?1 AND audit_row NOT IN
                         (SELECT audit_row FROM dead_letter WHERE webhook = ?1 ORDER BY audit_row DESC LIMIT ?2)",
                    (name, number(KEPT_DEAD_LETTERS as u64)),
                )?;
            }
            Ok(())
        })
    }

    /// Forgets the webhooks that are not among these: one that is configured again begins at the end of the audit. Blocks
    /// until a change is on the disk.
    ///
    /// # Errors
    /// When it was not committed.
    pub fn keep_webhooks(&self, names: &[&str]) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let others = format!("name NOT IN ({})", vec!["?"; names.len()].join(", "));
        let any: bool = self
            .lock()
            .connection
            .query_row(
                &format!("SELECT EXISTS (SELECT 1 FROM webhook WHERE {others})"),
                params_from_iter(names),
                |row| row.get(0),
            )
            .map_err(sqlite)?;
        if !any {
            return Ok(());
        }
        self.change(|connection| {
            connection.execute(&format!("DELETE FROM webhook WHERE {others}"), params_from_iter(names))?;
            let letters = "DELETE FROM dead_letter WHERE webhook NOT IN (SELECT name FROM webhook)";
            connection.execute(letters, []).map(drop)
        })
    }

    /// The conditions of which the audit has the beginning and not the end, each with the detail of its note.
    ///
    /// # Errors
    /// When `state.db` cannot be read.
    pub fn conditions(&self) -> Result<Vec<(String, String)>, StoreError> {
        let database = self.lock();
        let read = || -> rusqlite::Result<Vec<_>> {
            let mut all = database.connection.prepare("SELECT name, detail FROM condition")?;
            all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        read().map_err(StoreError::sqlite(&self.path))
    }

    /// Stores a condition whose beginning is in the audit; without a detail, forgets the one whose end is. Blocks until it
    /// is on the disk.
    ///
    /// # Errors
    /// When it was not committed.
    pub fn set_condition(&self, name: &str, detail: Option<&str>) -> Result<(), StoreError> {
        self.change(|connection| match detail {
            Some(detail) => connection
                .execute("INSERT OR REPLACE INTO condition (name, detail) VALUES (?1, ?2)", (name, detail))
                .map(drop),
            None => connection.execute("DELETE FROM condition WHERE name = ?1", [name]).map(drop),
        })
    }

    fn change(&self, mut change: impl FnMut(&Connection) -> rusqlite::Result<()>) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        self.commit(|connection| {
            let changing =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            change(&changing).and_then(|()| changing.commit()).map_err(sqlite)
        })
    }
}

/// The content of a folder's `state.db` about webhooks, by name. The process that uses the folder may run.
///
/// # Errors
/// When it cannot be read.
pub fn webhook_states(dir: &Path) -> Result<Vec<WebhookState>, StoreError> {
    let path = dir.join(FILE);
    let connection = schema::open_read_only(&path, Kind::State)?;
    let read_all = || -> rusqlite::Result<Vec<_>> {
        // A file that an earlier version wrote has no such table before the next start.
        let has_table = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'webhook')";
        if !connection.query_row(has_table, [], |row| row.get(0))? {
            return Ok(Vec::new());
        }
        let mut names = connection.prepare("SELECT name FROM webhook ORDER BY name")?;
        let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let state = |name: String| -> rusqlite::Result<_> {
            let progress = read(&connection, &name)?.unwrap_or_default();
            let dead = dead_letters(&connection, &name)?;
            Ok(WebhookState { name, progress, dead })
        };
        names.into_iter().map(state).collect()
    };
    read_all().map_err(StoreError::sqlite(&path))
}

fn read(connection: &Connection, name: &str) -> rusqlite::Result<Option<Progress>> {
    connection
        .prepare_cached("SELECT position, delivered, dead FROM webhook WHERE name = ?1")?
        .query_row([name], |row| {
            let count = |column: usize| row.get::<_, i64>(column).map(i64::unsigned_abs);
            Ok(Progress { position: row.get(0)?, delivered: count(1)?, dead: count(2)? })
        })
        .optional()
}

fn dead_letters(connection: &Connection, name: &str) -> rusqlite::Result<Vec<DeadLetter>> {
    connection
        .prepare(
            "SELECT audit_row, message, kind, at, error FROM dead_letter WHERE webhook = ?1
             ORDER BY audit_row DESC",
        )?
        .query_map([name], |row| {
            Ok(DeadLetter {
                audit_row: row.get(0)?,
                message: row.get(1)?,
                kind: row.get(2)?,
                at: Time::from_micros(row.get(3)?),
                error: row.get(4)?,
            })
        })?
        .collect()
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::OnStateLoss;
    use super::*;

    #[test]
    fn a_position_and_its_dead_letters_are_kept_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let open = || StateStore::open(dir.path(), OnStateLoss::Refuse).unwrap();
        let state = open();
        assert_eq!(state.webhook("one"), Ok(None));
        let letter = |audit_row| DeadLetter {
            audit_row,
            message: format!("msg_{audit_row}"),
            kind: "status.changed".into(),
            at: Time::from_secs(5),
            error: "HTTP 500".into(),
        };
        let to = Progress { position: 2_000, delivered: 3, dead: 1_005 };
        let letters: Vec<_> = (1..=1_005).map(letter).collect();
        state.save_webhook("one", to, &letters).unwrap();
        state.save_webhook("one", to, &letters[1_004..]).unwrap();
        state.save_webhook("two", Progress::default(), &[]).unwrap();
        state.set_condition("alarm clock", Some("{}")).unwrap();
        drop(state);
        let state = open();
        assert_eq!(state.webhook("one"), Ok(Some(to)));
        let all = webhook_states(dir.path()).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].name.as_str(), all[0].dead.len()), ("one", 1_000));
        assert_eq!(all[0].dead[0], letter(1_005), "the newest first");
        assert_eq!(state.conditions(), Ok(vec![("alarm clock".to_owned(), "{}".to_owned())]));
        state.set_condition("alarm clock", None).unwrap();
        assert_eq!(state.conditions(), Ok(Vec::new()));
        state.keep_webhooks(&["two"]).unwrap();
        assert_eq!(state.webhook("two"), Ok(Some(Progress::default())));
        assert_eq!(webhook_states(dir.path()).unwrap().len(), 1);
        assert_eq!(state.webhook("one"), Ok(None));
        state.keep_webhooks(&[]).unwrap();
        assert_eq!(webhook_states(dir.path()), Ok(Vec::new()));
    }

    #[test]
    fn a_restored_state_has_no_position_and_no_condition() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateStore::open(dir.path(), OnStateLoss::Refuse).unwrap();
        state.save_webhook("one", Progress { position: 7, ..Progress::default() }, &[]).unwrap();
        state.set_condition("alarm clock", Some("{}")).unwrap();
        state.start_above(5, 0).unwrap();
        assert_eq!(state.webhook("one"), Ok(None));
        assert_eq!(state.conditions(), Ok(Vec::new()));
    }
}
