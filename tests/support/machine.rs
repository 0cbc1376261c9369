//! Machines with faults: a single processor; a small disk that the test fills; a disk that turns read-only, stalls or
//! loses unsynced writes on command.
//!
//! The small disk is a tmpfs over the proxy's data folder, in a separate mount namespace. The test reaches it through
//! `/proc/PID/root` and reads copies of its files, since SQLite resolves that link. It needs root or user namespaces.
//! The faulty disk is an `LD_PRELOAD` library (`xtask/src/crash/disk.c`), since no kernel remounts a file system
//! read-only while files are open for writing, except after an error of a real disk.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use super::{Proxy, Setup};

/// The machine that a proxy runs on: a wrapper command and environment variables.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// The wrapper command: the words before the path of the executable.
    pub(super) wrapper: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Whether the data folder is in a separate mount namespace.
    pub(super) private: bool,
    /// The file DISK_FAULT or DISK_FAILS of the faulty disk, or CLOCK_STEP of a stepped clock.
    pub(super) fault: PathBuf,
    /// The folder DISK_KEPT: durable contents.
    kept: PathBuf,
    copies: Mutex<Vec<TempDir>>,
}

impl Machine {
    /// A tmpfs of this size, mounted over the data folder in `folder`.
    fn small_disk(folder: &Path, mebibytes: u32) -> Self {
        let data = folder.join("data");
        std::fs::create_dir(&data).expect("a folder of ours");
        let mount = format!("mount -t tmpfs -o size={mebibytes}m,mode=0700 tmpfs \"$0\" && exec \"$@\"");
        let wrapper = ["unshare", namespaces(), "sh", "-c", &mount]
            .map(OsString::from)
            .into_iter()
            .chain([data.into()]);
        Self { wrapper: wrapper.collect(), private: true, ..Self::default() }
    }

    /// On which each read of `file` hangs while `hang` exists in the same folder, and the resolver never responds.
    pub(crate) fn hanging(folder: &Path, file: &str) -> Self {
        let (source, library) = (folder.join("hang.c"), folder.join("hang.so"));
        std::fs::write(&source, HANG).expect("a folder of ours");
        let mut build = Command::new("cc");
        build.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl");
        assert!(build.status().expect("a C compiler").success());
        let environment = vec![
            ("LD_PRELOAD", library.into()),
            ("HANG_FILE", folder.join(file).into()),
            ("HANG", folder.join("hang").into()),
        ];
        Self { environment, ..Self::default() }
    }

    /// With a shell redirection: `2>pipe`, `>&-`.
    pub(crate) fn redirected(to: &str) -> Self {
        Self::wrapped_by(["sh", "-c", &format!("exec \"$0\" \"$@\" {to}")])
    }

    /// With these environment variables.
    pub(crate) fn with_variables<const N: usize>(variables: [(&'static str, OsString); N]) -> Self {
        Self { environment: variables.into(), ..Self::default() }
    }

    /// With a wrapper command.
    pub(crate) fn wrapped_by<const N: usize>(words: [&str; N]) -> Self {
        Self { wrapper: words.map(OsString::from).into(), ..Self::default() }
    }

    /// With a single processor, the first that this process may use.
    fn one_processor() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("every Linux has it");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let first = allowed.and_then(|list| list.trim().split([',', '-']).next()).expect("one at least");
        Self { wrapper: ["taskset", "-c", first].map(OsString::from).into(), ..Self::default() }
    }

    /// With a preload library that has this environment and reads its fault from a file.
    pub(super) fn preloading(environment: Vec<(&'static str, OsString)>, fault: PathBuf) -> Self {
        Self { environment, fault, ..Self::default() }
    }

    /// With a disk whose faults [`Proxy::set_disk_fault`] sets.
    fn failing_disk(folder: &Path) -> Self {
        let fault = folder.join("fault");
        Self::preloading(faulty_disk(folder, vec![("DISK_FAULT", &fault)]), fault)
    }

    /// With a disk that loses unsynced writes, and whose syncs fail as often as [`Proxy::fail_syncs`] sets.
    fn losing_disk(folder: &Path) -> Self {
        let (fault, kept) = (folder.join("fails"), folder.join("kept"));
        std::fs::create_dir(&kept).expect("a folder of ours");
        std::fs::write(&fault, [0; 8]).expect("a folder of ours");
        let environment = faulty_disk(folder, vec![("DISK_KEPT", &kept), ("DISK_FAILS", &fault)]);
        Self { environment, fault, kept, ..Self::default() }
    }
}

/// The preload library of [`Machine::hanging`].
const HANG: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t read(int fd, void *to, size_t most) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        while (!strcmp(path, getenv("HANG_FILE")) && !access(getenv("HANG"), F_OK)) usleep(10000);
    }
    return real(fd, to, most);
}

int getaddrinfo(const char *node, const char *service, const void *hints, void **found) {
    for (;;) pause();
}
"#;

/// Builds the preload library of the faulty disk; the environment of a process on that disk.
fn faulty_disk(folder: &Path, settings: Vec<(&'static str, &PathBuf)>) -> Vec<(&'static str, OsString)> {
    let library = folder.join("disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/src/crash/disk.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(built.expect("a C compiler").success());
    let common = [("LD_PRELOAD", library.into()), ("DISK_DIR", folder.join("data").into_os_string())];
    common.into_iter().chain(settings.into_iter().map(|(name, path)| (name, path.into()))).collect()
}

impl Setup {
    /// Starts the executable on a single processor.
    pub(crate) async fn start_on_one_processor(&self) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Proxy::start_on_machine(folder, self.clone(), Machine::one_processor()).await
    }

    /// Starts the executable with its data on a small disk.
    pub(crate) async fn start_on_small_disk(&self, mebibytes: u32) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let machine = Machine::small_disk(folder.path(), mebibytes);
        Proxy::start_on_machine(folder, self.clone(), machine).await
    }

    /// Starts the executable with its data on a disk that fails on command ([`Proxy::set_disk_fault`]).
    pub(crate) async fn start_on_failing_disk(&self) -> Proxy {
        self.start_on_disk(Machine::failing_disk).await
    }

    /// Starts the executable with its data on a disk that loses unsynced writes.
    pub(crate) async fn start_on_losing_disk(&self) -> Proxy {
        self.start_on_disk(Machine::losing_disk).await
    }

    async fn start_on_disk(&self, machine: impl FnOnce(&Path) -> Machine) -> Proxy {
        // The preload compares resolved paths.
        let folder =
            tempfile::tempdir_in(std::env::temp_dir().canonicalize().expect("a folder of the system"));
        let folder = folder.expect("a temporary folder");
        let machine = machine(folder.path());
        Proxy::start_on_machine(folder, self.clone(), machine).await
    }
}

impl Proxy {
    /// Fills the small disk except for `free` bytes.
    pub(crate) fn fill_disk(&self, free: u64) {
        let mut ballast = File::create(self.ballast()).expect("the proxy's folder");
        let block = [0x5a; 4_096];
        while ballast.write_all(&block).is_ok() {}
        let length = ballast.metadata().expect("an open file").len();
        ballast.set_len(length.saturating_sub(free)).expect("a shorter file");
    }

    /// Frees the space that [`Self::fill_disk`] took.
    pub(crate) fn empty_disk(&self) {
        std::fs::remove_file(self.ballast()).expect("a file of ours");
    }

    /// Sets the fault of the failing disk: `readonly`, `stall`, or another word for none.
    pub(crate) fn set_disk_fault(&self, word: &str) {
        // By a rename, since the library could read half a word.
        let fault = &self.machine().fault;
        let _ = std::fs::remove_file(fault.with_extension("stalled")); // an error if no sync has stalled
        let fresh = fault.with_extension("new");
        std::fs::write(&fresh, word).and_then(|()| std::fs::rename(fresh, fault)).expect("the test's folder");
    }

    /// Whether a sync has stalled since the last [`Self::set_disk_fault`].
    pub(crate) fn disk_stalls(&self) -> bool {
        self.machine().fault.with_extension("stalled").exists()
    }

    /// Makes the next `left` syncs of the audit or the state fail; their writes are lost.
    pub(crate) fn fail_syncs(&self, left: i32) {
        // In place, since the library has the file mapped.
        let fails = File::options().write(true).open(&self.machine().fault).expect("the test's folder");
        fails.write_all_at(&left.to_ne_bytes(), 0).expect("the test's folder");
    }

    /// Kills the process and replaces each file by its durable content.
    pub(crate) async fn lose_power(&mut self) {
        self.kill9().await;
        for entry in std::fs::read_dir(self.data()).expect("the proxy's folder") {
            let path = entry.expect("an entry").path();
            // The WAL index is shared memory.
            if path.to_string_lossy().ends_with("-shm") {
                std::fs::remove_file(path).expect("a file of ours");
                continue;
            }
            let inode = std::fs::metadata(&path).expect("a file of ours").ino();
            // A file that was never synced is empty.
            let kept = std::fs::read(self.machine().kept.join(inode.to_string())).unwrap_or_default();
            // In place, since the library identifies a file by its inode.
            File::create(&path).and_then(|mut file| file.write_all(&kept)).expect("a file of ours");
        }
    }

    fn ballast(&self) -> PathBuf {
        self.disk().join("ballast")
    }

    /// The path of the small disk from outside its mount namespace.
    pub(super) fn disk(&self) -> PathBuf {
        let data = self.config().with_file_name("data");
        Path::new(&format!("/proc/{}/root", self.pid()))
            .join(data.strip_prefix("/").expect("an absolute path"))
    }

    /// A copy of the current databases of the small disk; it lives as long as the proxy.
    pub(super) fn copied(&self) -> PathBuf {
        let copy = tempfile::tempdir().expect("a temporary folder");
        for entry in std::fs::read_dir(self.disk()).expect("the proxy's folder") {
            let name = entry.expect("an entry").file_name();
            let text = name.to_string_lossy();
            // SQLite rebuilds the WAL index.
            if text != "ballast" && !text.ends_with("-shm") {
                // A WAL may be removed at the same time.
                let _ = std::fs::copy(self.disk().join(&name), copy.path().join(&name));
            }
        }
        let path = copy.path().to_owned();
        self.machine().copies.lock().expect("nothing panics with it").push(copy);
        path
    }
}

/// The option of `unshare` by which this host creates a mount namespace.
fn namespaces() -> &'static str {
    let works = |flags: &str| {
        let tried = Command::new("unshare")
            .args([flags, "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    ["-m", "-Urm"].into_iter().find(|flags| works(flags)).expect(
        "to mount a tmpfs: run the tests as root with CAP_SYS_ADMIN (docker run --cap-add SYS_ADMIN), or allow user \
         namespaces: sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0",
    )
}
