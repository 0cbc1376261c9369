//! The files that outlive the process: the only SQL of the proxy.
//!
//! | file | holds | lost |
//! | --- | --- | --- |
//! | `cache.db` | the carrier's last answers | at will: it is begun anew |
//! | `state.db` | how far the carrier-side transids have got | an error that names the remedy |
//! | `audit-YYYY-MM.db` | one row a request, by month | never by the proxy |
//! | `store.lock` | the process that works here | nothing |
//!
//! One process a folder. Each file has one writer (a thread for cache and audit); readers have connections of
//! their own. The folder is created for its owner alone (0700), and so are the files (0600).

pub mod atomic_file;
pub mod audit;
mod blocks;
pub mod cache;
mod disk;
mod error;
mod failure;
mod files;
mod folder;
mod key_file;
mod locks;
mod queue;
mod schema;
pub mod state;
mod wal;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::audit::{AuditReader, AuditStore, OnFailure};
use self::cache::CacheStore;
pub use self::error::{Fault, StoreError};
pub use self::failure::Failure;
pub use self::folder::{Holder, holder};
use self::state::{OnStateLoss, StateStore};
use crate::alarms::Alarms;
use crate::clock::Clock;

/// How the store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreOptions {
    /// How the audit is written.
    pub audit: audit::Options,
    /// Answers that may wait to be stored; beyond, they are not.
    pub cache_queue: usize,
    /// How long answers stay in the cache's file, and how many.
    pub retention: cache::Retention,
    /// Start a lost `state.db` over, above every transid in the audit and above now.
    pub accept_lost_state: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            audit: audit::Options::default(),
            cache_queue: 16_384,
            retention: cache::Retention::default(),
            accept_lost_state: false,
        }
    }
}

/// The store of one folder, for as long as this value lives.
pub struct Store {
    /// The carrier's last answers.
    pub cache: Arc<CacheStore>,
    /// How far the carrier-side transids have got.
    pub state: Arc<StateStore>,
    /// One row a request.
    pub audit: Arc<AuditStore>,
    /// Reads the audit back.
    pub history: AuditReader,
    /// Conditions that need the operator, of the whole process.
    pub alarms: Alarms,
    /// Why nothing more is written until the process is started again.
    pub failure: Failure,
    /// Released by the system when the process ends, however it ends.
    lock: File,
}

/// A state that is started over begins this long after the newest transid known: a call in flight at the loss
/// may have had a later one, by as much as a lease reaches ahead.
const START_OVER_MARGIN: Duration = Duration::from_secs(120);

impl Store {
    /// Opens everything in `dir`, which is created if need be. Blocks.
    ///
    /// # Errors
    /// The error names the file and the remedy: another process works there; `state.db` is lost; a file is
    /// another program's, is newer than this proxy, or cannot be written.
    pub fn open(dir: &Path, options: StoreOptions, clock: &Clock) -> Result<Self, StoreError> {
        schema::check_library(dir)?;
        schema::create_folder(dir)?;
        folder::check(dir)?;
        if let Some(size) = blocks::small(dir)? {
            tracing::warn!(
                folder = %dir.display(), size,
                "the file system has small blocks, and SQLite's memory-mapped index can end the process (SIGBUS) when it is full: \
                 use one with blocks of 4096 bytes (mkfs.ext4 -b 4096), and keep [audit] min_free"
            );
        }
        if let Some(group) = options.audit.group {
            folder::share(dir, group)?;
        }
        let lock = folder::lock(dir)?;
        let history = AuditReader::new(dir);
        // First, since the files of the others are how it knows that it must exist.
        let lost = if options.accept_lost_state { start_over(&history, clock)? } else { OnStateLoss::Refuse };
        let failure = Failure::default();
        let state = StateStore::open_with(dir, lost, clock.clone(), failure.clone())?;
        let audit = AuditStore::open_with(dir, options.audit, clock.clone(), failure.clone())?;
        let cache = CacheStore::open_with(
            dir,
            options.cache_queue,
            options.retention,
            clock.clone(),
            failure.clone(),
        )?;
        Ok(Self {
            cache: Arc::new(cache),
            state: Arc::new(state),
            alarms: audit.alarms().clone(),
            audit: Arc::new(audit),
            history,
            failure,
            lock,
        })
    }

    /// Says to the commands that run beside this process where its admin listener is. A failure is only logged: they say
    /// then that they cannot reach it.
    pub fn announce(&self, admin: &str) {
        if let Err(error) = folder::announce(&self.lock, admin) {
            tracing::warn!(%error, "store.lock does not say where the admin listener is");
        }
    }

    /// Why a request would be refused whatever is asked; none while records are taken, or need not be.
    pub fn unready(&self) -> Option<Unready> {
        if let Some(why) = self.failure.get() {
            return Some(Unready::Failed(why.to_owned()));
        }
        let refuses = self.audit.on_failure() == OnFailure::Refuse;
        (refuses && !self.audit.can_record()).then_some(Unready::Audit)
    }

    /// Writes what is queued, checkpoints, and ends the writer threads. Blocks until that is done.
    pub fn close(&self) {
        self.close_when(true);
    }

    /// The same where calls were sent that have no row: they are found at the next start.
    pub fn close_with_calls_under_way(&self) {
        self.close_when(false);
    }

    fn close_when(&self, calls_ended: bool) {
        self.audit.close();
        if calls_ended && self.audit.is_complete() {
            let leased = self.state.leased().map(|leased| leased.last().map(|block| block.id));
            if let Err(error) =
                leased.and_then(|last| last.map_or(Ok(()), |last| self.state.account_for(last)))
            {
                tracing::warn!(%error, "the next start will look for calls without a row");
            }
        }
        self.cache.close();
        self.state.close();
    }
}

/// Why the store takes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The store has failed for good: the process ends.
    #[error("the store has failed, and the process ends: {0}")]
    Failed(String),
    /// The audit's last commit failed, or takes too long; it is tried again by itself.
    #[error("audit records cannot be written; the log says why")]
    Audit,
}

fn start_over(history: &AuditReader, clock: &Clock) -> Result<OnStateLoss, StoreError> {
    let highest = history.highest_carrier_stamp()?.map_or(0, cmiot_signer::Stamp::to_unix);
    let floor = highest.max(clock.now().as_secs()).saturating_add(START_OVER_MARGIN.as_secs());
    Ok(OnStateLoss::StartOver { floor })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use cmiot_signer::{AppId, Stamp};

    use super::*;
    use crate::clock::Time;
    use crate::sequence::TransidSource;

    /// 2026-01-15T12:00:00+08:00
    const NOON: Time = Time::from_secs(1_768_449_600);

    fn open(dir: &Path, options: StoreOptions) -> Result<Store, StoreError> {
        Store::open(dir, options, &Clock::manual(NOON).0)
    }

    #[test]
    fn a_folder_is_made_for_its_owner_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/data");
        let store = open(&data, StoreOptions::default()).unwrap();
        assert_eq!(store.unready(), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        for entry in fs::read_dir(&data).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        store.close();
        drop(store);
        let mut left: Vec<String> = fs::read_dir(&data)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "anchors.log",
                "audit-2026-01.db",
                "audit-anchor.key",
                "audit-anchor.pub",
                "cache.db",
                "state.db",
                "store.lock"
            ],
            "no WAL stays behind"
        );
        assert!(open(&data, StoreOptions::default()).is_ok());
    }

    #[test]
    fn a_folder_in_use_says_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), StoreOptions::default()).unwrap();
        let error = open(dir.path(), StoreOptions::default()).err().unwrap();
        assert_eq!(error.fault(), &Fault::Locked { holder: std::process::id().to_string() });
        assert!(error.to_string().contains("stop that process"), "{error}");
        drop(store);
        assert!(open(dir.path(), StoreOptions::default()).is_ok());
    }

    #[test]
    fn a_lost_state_starts_over_above_the_audit_and_the_clock() {
        for (audited, above) in [(NOON.as_secs() + 86_400, NOON.as_secs() + 86_400), (5, NOON.as_secs())] {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path(), StoreOptions::default()).unwrap();
            let stamp = Stamp::from_unix(audited).unwrap_or(Stamp::FIRST);
            let transid = cmiot_signer::Transid::new(
                &AppId::parse("100001").unwrap(),
                stamp,
                cmiot_signer::Sequence::FIRST,
            );
            let row = audit::LookupRow {
                carrier_transid: Some(transid.as_str().into()),
                ..audit::tests::row(NOON, "t")
            };
            assert_eq!(store.audit.append(row).wait(), Ok(()));
            drop(store);
            for file in ["state.db", "state.db-wal", "state.db-shm"] {
                let _: std::io::Result<()> = fs::remove_file(dir.path().join(file));
            }
            let error = open(dir.path(), StoreOptions::default()).err().unwrap();
            assert_eq!(error.fault(), &Fault::StateLost);
            let accept = StoreOptions { accept_lost_state: true, ..StoreOptions::default() };
            let store = open(dir.path(), accept).unwrap();
            let source = TransidSource::new(Arc::clone(&store.state), 0, Clock::manual(NOON).0);
            let first = source.next(&AppId::parse("100001").unwrap()).unwrap();
            assert!(first.stamp().to_unix() > above, "{first:?}");
        }
    }
}
