//! The persistent files; the only SQL of the proxy.
//!
//! | file | contents | if it is lost |
//! | --- | --- | --- |
//! | `cache.db` | the latest carrier responses | created again, empty |
//! | `state.db` | the high-water marks of the carrier-side transids | an error that names the remedy |
//! | `audit-YYYY-MM.db` | one row per request, by month | the proxy never removes it |
//! | `store.lock` | the process that uses the folder | nothing |
//!
//! One process per folder. Each file has one writer (a thread for cache and audit); readers have their own connections.
//! Only the owner has access to the folder (0700) and to its files (0600).

pub mod atomic_file;
pub mod audit;
pub mod backup;
mod blocking;
mod blocks;
pub mod cache;
mod checkpoint;
mod disk;
mod error;
mod failure;
mod files;
pub mod fleet;
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
pub(crate) use self::blocking::blocking;
use self::cache::CacheStore;
pub use self::error::{Fault, StoreError};
pub use self::failure::Failure;
pub use self::folder::{Holder, holder};
use self::state::{OnStateLoss, StateStore};
use crate::alarms::Alarms;
use crate::clock::Clock;
use crate::language::Text;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreOptions {
    pub audit: audit::Options,
    /// Responses that may be queued to be stored; further ones are dropped.
    pub cache_queue: usize,
    /// Limits on the responses in `cache.db`.
    pub retention: cache::Retention,
    /// Replace a lost `state.db` by a new one that starts above every transid in the audit and above the current time.
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

/// The open store of one folder.
pub struct Store {
    pub cache: Arc<CacheStore>,
    pub state: Arc<StateStore>,
    pub audit: Arc<AuditStore>,
    pub audit_reader: AuditReader,
    /// Conditions of the whole process that need the operator.
    pub alarms: Alarms,
    /// A permanent failure: nothing more is written until the process is restarted.
    pub failure: Failure,
    /// The system releases the lock when the process ends, in any way.
    lock: File,
}

/// A replaced state starts this long after the newest known transid: a call in flight at the time of the loss may have had
/// a later transid, by at most the time that a lease covers in advance.
const START_OVER_MARGIN: Duration = Duration::from_secs(120);

/// The version of SQLite.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

impl Store {
    /// Opens every file in `dir`, which is created if needed. Blocks.
    ///
    /// # Errors
    /// The error names the file and the remedy: another process uses the folder; `state.db` is lost; another program or a
    /// newer proxy wrote a file; a file cannot be written.
    pub fn open(dir: &Path, options: StoreOptions, clock: &Clock) -> Result<Self, StoreError> {
        schema::check_library(dir)?;
        schema::create_folder(dir)?;
        folder::check(dir)?;
        if let Some(size) = blocks::small(dir)? {
            tracing::warn!(
                folder = %dir.display(), size,
                "the file system has small blocks: when it is full, SQLite's memory-mapped index can end the process (SIGBUS); \
                 use one with blocks of 4096 bytes (mkfs.ext4 -b 4096), and keep [audit] min_free"
            );
        }
        if let Some(group) = options.audit.group {
            folder::share_with_group(dir, group)?;
        }
        let lock = folder::lock(dir)?;
        folder::check_restored(dir)?;
        let audit_reader = AuditReader::new(dir);
        let on_loss =
            if options.accept_lost_state { start_over(&audit_reader, clock)? } else { OnStateLoss::Refuse };
        let failure = Failure::default();
        // First: the other two create their files, and the state of a folder with such files must exist.
        let state = StateStore::open_with(dir, on_loss, clock.clone(), failure.clone())?;
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
            audit_reader,
            failure,
            lock,
        })
    }

    /// Publishes the addresses of the listeners to the commands that run at the same time. A failure is only logged: the
    /// commands then ask at the configured addresses.
    pub fn announce(&self, admin: &str, gateway: &str) {
        if let Err(error) = folder::announce(&self.lock, admin, gateway) {
            tracing::warn!(%error, "cannot write the addresses of the listeners to store.lock");
        }
    }

    /// The reason for which the store would refuse every request; none while audit records can be written or are optional.
    pub fn unready(&self) -> Option<Unready> {
        if let Some(reason) = self.failure.get() {
            return Some(Unready::Failed(reason.to_owned()));
        }
        let refuses = self.audit.on_failure() == OnFailure::Refuse;
        (refuses && !self.audit.can_record()).then_some(Unready::Audit)
    }

    /// Writes the queued rows, checkpoints, and ends the writer threads. Blocks until that is done.
    pub fn close(&self) {
        self.audit.close();
        if self.audit.is_complete()
            && let Err(error) = self.account_for_all_calls()
        {
            tracing::warn!(%error, "the next start will search for calls without a row");
        }
        self.close_cache_and_state();
    }

    /// Does the same while calls without a row are in flight: the next start finds them.
    pub fn close_with_calls_in_flight(&self) {
        self.audit.close();
        self.close_cache_and_state();
    }

    fn account_for_all_calls(&self) -> Result<(), StoreError> {
        let last = self.state.leased()?.last().map(|block| block.id);
        last.map_or(Ok(()), |last| self.state.account_for(last))
    }

    fn close_cache_and_state(&self) {
        self.cache.close();
        self.state.close();
    }
}

/// The reason for which the store would refuse every request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The store has failed permanently: the process ends.
    #[error("the store has failed, and the process ends: {0}")]
    Failed(String),
    /// The audit's last commit failed or takes too long; the writer retries it.
    #[error("audit records cannot be written; the log has the reason")]
    Audit,
}

impl Unready {
    /// The reason, for people.
    pub fn text(&self) -> Text {
        let english = self.to_string();
        let chinese = match self {
            Self::Failed(reason) => format!("存储已发生故障，进程即将结束：{reason}"),
            Self::Audit => "审计记录无法写入；原因在日志中".to_owned(),
        };
        Text { english, chinese }
    }
}

fn start_over(audit_reader: &AuditReader, clock: &Clock) -> Result<OnStateLoss, StoreError> {
    let highest = audit_reader.highest_carrier_stamp()?.map_or(0, cmiot_signer::Stamp::to_unix);
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
    fn a_folder_is_created_for_its_owner_alone_and_opens_again() {
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
            "no WAL is left"
        );
        assert!(open(&data, StoreOptions::default()).is_ok());
    }

    #[test]
    fn a_folder_in_use_names_the_process() {
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
