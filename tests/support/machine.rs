//! Poor machines: one processor, and disks that fail on command: a small one that can be filled, one that turns
//! read-only or stalls, and one that keeps only what was synced.
//!
//! The small disk is a tmpfs over the proxy's data folder, in a mount namespace of its own, reached through
//! `/proc/PID/root`; what is in it is looked at in a copy, since SQLite takes that link by its word. It needs root, or
//! user namespaces. The other one is a preload (`faults.c`), since no kernel remounts a file system read-only while files
//! are open for writing, except after an error of a real disk.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use super::{Proxy, Setup};

/// What a proxy is started with, so that its disk can fail or its processors are few.
#[derive(Debug, Default)]
pub(crate) struct Ground {
    /// Words before the executable's own.
    pub(super) before: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Whether its data folder is in a mount namespace of its own.
    pub(super) private: bool,
    fault: PathBuf,
    /// Of the disk that keeps only what was synced: what it has.
    kept: PathBuf,
    copies: Mutex<Vec<TempDir>>,
}

impl Ground {
    /// A disk of so many MiB, in memory, under the data folder of `folder`.
    fn small(folder: &Path, mebibytes: u32) -> Self {
        let data = folder.join("data");
        std::fs::create_dir(&data).expect("a folder of ours");
        let mount = format!("mount -t tmpfs -o size={mebibytes}m,mode=0700 tmpfs \"$0\" && exec \"$@\"");
        let before = ["unshare", namespaces(), "sh", "-c", &mount]
            .map(OsString::from)
            .into_iter()
            .chain([data.into()]);
        Self { before: before.collect(), private: true, ..Self::default() }
    }

    /// Redirected as a shell does it: `2>pipe`, `>&-`.
    pub(crate) fn redirected(to: &str) -> Self {
        Self::before(["sh", "-c", &format!("exec \"$0\" \"$@\" {to}")])
    }

    /// Started by other words before the executable's own.
    pub(crate) fn before<const N: usize>(words: [&str; N]) -> Self {
        Self { before: words.map(OsString::from).into(), ..Self::default() }
    }

    /// One processor, the first that we may use ourselves.
    fn one_processor() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("every Linux has it");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let first = allowed.and_then(|list| list.trim().split([',', '-']).next()).expect("one at least");
        Self { before: ["taskset", "-c", first].map(OsString::from).into(), ..Self::default() }
    }

    /// A disk that does what [`Proxy::disk_is`] says.
    fn failing(folder: &Path) -> Self {
        let (fault, data) = (folder.join("fault"), folder.join("data"));
        let library = built(folder, "tests/support/faults.c");
        let environment = vec![
            ("LD_PRELOAD", library.into()),
            ("FAULT", fault.clone().into()),
            ("FAULT_DIR", data.into_os_string()),
        ];
        Self { environment, fault, ..Self::default() }
    }

    /// A disk that keeps only what was synced, and whose syncs fail as [`Proxy::fail_syncs`] says.
    fn losing(folder: &Path) -> Self {
        let (fault, kept) = (folder.join("fails"), folder.join("kept"));
        let library = built(folder, "xtask/src/crash/disk.c");
        std::fs::create_dir(&kept).expect("a folder of ours");
        std::fs::write(&fault, [0; 8]).expect("a folder of ours");
        let environment = vec![
            ("LD_PRELOAD", library.into()),
            ("DISK_DIR", folder.join("data").into_os_string()),
            ("DISK_KEPT", kept.clone().into()),
            ("DISK_FAILS", fault.clone().into()),
        ];
        Self { environment, fault, kept, ..Self::default() }
    }
}

/// A preload, built of one of the repository's files.
fn built(folder: &Path, source: &str) -> PathBuf {
    let library = folder.join("preload.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(source);
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(built.expect("a C compiler").success());
    library
}

impl Setup {
    /// Starts the executable where one processor has to do for all of it.
    pub(crate) async fn start_on_one_processor(&self) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Proxy::start_on(folder, self.clone(), Ground::one_processor()).await
    }

    /// Starts the executable with its data on a small disk of its own.
    pub(crate) async fn start_on_small_disk(&self, mebibytes: u32) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ground = Ground::small(folder.path(), mebibytes);
        Proxy::start_on(folder, self.clone(), ground).await
    }

    /// Starts the executable with its data on a disk that fails on command.
    pub(crate) async fn start_on_failing_disk(&self) -> Proxy {
        self.start_on_disk(Ground::failing).await
    }

    /// Starts the executable with its data on a disk that keeps only what was synced.
    pub(crate) async fn start_on_losing_disk(&self) -> Proxy {
        self.start_on_disk(Ground::losing).await
    }

    async fn start_on_disk(&self, ground: impl FnOnce(&Path) -> Ground) -> Proxy {
        // Paths are compared as the kernel tells them.
        let folder =
            tempfile::tempdir_in(std::env::temp_dir().canonicalize().expect("a folder of the system"));
        let folder = folder.expect("a temporary folder");
        let ground = ground(folder.path());
        Proxy::start_on(folder, self.clone(), ground).await
    }
}

impl Proxy {
    /// Fills the small disk, but for so many bytes.
    pub(crate) fn fill_disk(&self, but: u64) {
        let mut ballast = File::create(self.ballast()).expect("the proxy's folder");
        let block = [0x5a; 4_096];
        while ballast.write_all(&block).is_ok() {}
        let length = ballast.metadata().expect("an open file").len();
        ballast.set_len(length.saturating_sub(but)).expect("to make room");
    }

    /// Makes room again.
    pub(crate) fn empty_disk(&self) {
        std::fs::remove_file(self.ballast()).expect("a file of ours");
    }

    /// Says what the failing disk does from now on: `readonly`, `stall`, or nothing.
    pub(crate) fn disk_is(&self, what: &str) {
        // Renamed into place: half a word would be none.
        let fault = &self.ground().fault;
        let fresh = fault.with_extension("new");
        std::fs::write(&fresh, what).and_then(|()| std::fs::rename(fresh, fault)).expect("the test's folder");
    }

    /// So many of the next syncs of the audit or the state fail; what they were to keep is lost.
    pub(crate) fn fail_syncs(&self, left: i32) {
        // In place: the preload has the file mapped.
        let fails = File::options().write(true).open(&self.ground().fault).expect("the test's folder");
        fails.write_all_at(&left.to_ne_bytes(), 0).expect("the test's folder");
    }

    /// Kills it and has its files be what was synced of them.
    pub(crate) async fn lose_power(&mut self) {
        self.kill9().await;
        for entry in std::fs::read_dir(self.data()).expect("the proxy's folder") {
            let path = entry.expect("an entry").path();
            // The index of a WAL is memory.
            if path.to_string_lossy().ends_with("-shm") {
                std::fs::remove_file(path).expect("a file of ours");
                continue;
            }
            let inode = std::fs::metadata(&path).expect("a file of ours").ino();
            // What was never synced is there in name alone.
            let kept = std::fs::read(self.ground().kept.join(inode.to_string())).unwrap_or_default();
            // In place: by its number the disk knows the file.
            File::create(&path).and_then(|mut file| file.write_all(&kept)).expect("a file of ours");
        }
    }

    fn ballast(&self) -> PathBuf {
        self.disk().join("ballast")
    }

    /// Where the test reaches the small disk.
    pub(super) fn disk(&self) -> PathBuf {
        let data = self.config().with_file_name("data");
        Path::new(&format!("/proc/{}/root", self.pid()))
            .join(data.strip_prefix("/").expect("an absolute path"))
    }

    /// A copy of the small disk's databases as they are now, which lives as long as the proxy.
    pub(super) fn copied(&self) -> PathBuf {
        let copy = tempfile::tempdir().expect("a temporary folder");
        for entry in std::fs::read_dir(self.disk()).expect("the proxy's folder") {
            let name = entry.expect("an entry").file_name();
            let text = name.to_string_lossy();
            // The index of a WAL is built anew.
            if text != "ballast" && !text.ends_with("-shm") {
                // A WAL may be gone by now.
                let _ = std::fs::copy(self.disk().join(&name), copy.path().join(&name));
            }
        }
        let path = copy.path().to_owned();
        self.ground().copies.lock().expect("nothing panics with it").push(copy);
        path
    }
}

/// How this machine gives a process its own mounts.
fn namespaces() -> &'static str {
    let may = |flags: &str| {
        let tried = Command::new("unshare")
            .args([flags, "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    ["-m", "-Urm"].into_iter().find(|flags| may(flags)).expect(
        "to mount a tmpfs: run the tests as root with CAP_SYS_ADMIN (docker run --cap-add SYS_ADMIN), or allow user \
         namespaces: sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0",
    )
}
