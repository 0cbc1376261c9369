//! Profile-guided optimisation: an executable that counts is shown the work, and what it counted lays out the next one.
//!
//! The work is what a proxy does all day, look-ups of known cards, and what it does besides: those of unknown ones, the
//! demo. An executable for another processor counts under an emulator, slowly; counts know no time. (An emulator without
//! SHA-256's instructions would have them taken for what is never used: qemu's aarch64 has them.)

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::{Run, target};
use crate::serving::Serving;
use crate::tools;

const ACCOUNT: &str = "100001:0001000000009:training-password";

/// An executable that counts, or that was laid out by what one counted.
pub(super) struct Trainee {
    program: PathBuf,
    /// What runs it, where this processor cannot.
    emulator: Option<PathBuf>,
    /// Of its own.
    folder: PathBuf,
}

impl Trainee {
    /// For the processor that its target's name begins with.
    pub(super) fn new(program: PathBuf, triple: &str) -> Result<Self> {
        let arch = triple.split('-').next().unwrap_or(triple);
        let foreign = arch != std::env::consts::ARCH;
        let emulator = foreign.then(|| tools::emulator(arch)).transpose()?;
        Ok(Self { program, emulator, folder: target().join("training").join(triple) })
    }

    /// Shows it the work, and returns what it counted, as rustc's and clang's `profile-use` take it.
    pub(super) fn train(&self) -> Result<PathBuf> {
        let _ = fs::remove_dir_all(&self.folder); // of an earlier run
        fs::create_dir_all(&self.folder)?;
        // The carrier's counts are of no use, and it does not drain: half a file is all that it would leave.
        let mut carrier = self.command(&[]);
        carrier.args(["simulate", "--listen", "127.0.0.1:0", "--account", ACCOUNT]);
        let mut carrier = Serving::start(carrier.env("LLVM_PROFILE_FILE", "/dev/null"))?;
        let base_url = carrier.told("simulated carrier ")?;
        // With one processor the runtime is another (`proxy/src/cli.rs`).
        self.serve("many", &[], &base_url)?;
        self.serve("one", &["taskset", "-c", &first_processor()?], &base_url)?;
        self.demo()?;
        self.merge()
    }

    /// Runs the demo, whether it counts or not.
    pub(super) fn demo(&self) -> Result<()> {
        let demo = self.command(&[]).arg("demo").stdout(Stdio::null()).status()?;
        ensure!(demo.success(), "the demo of {} failed: {demo}", self.program.display());
        Ok(())
    }

    /// Serves look-ups from a folder of this name.
    fn serve(&self, name: &str, before: &[&str], base_url: &str) -> Result<()> {
        let folder = self.folder.join(name);
        fs::create_dir(&folder)?;
        let config = super::configure(&folder, base_url, ACCOUNT)?;
        let mut serve = self.command(before);
        let mut proxy =
            Serving::start(serve.args(["serve", "--config"]).arg(&config).env("RUST_LOG", "warn"))?;
        let address = proxy.told("gateway http://")?;
        // A transid is good for five minutes, and all are signed at once.
        load(&address, if self.emulator.is_some() { "1" } else { "3" })?;
        proxy.drain()
    }

    /// The executable, after these words, to count into files of its own.
    fn command(&self, before: &[&str]) -> Command {
        let words =
            before.iter().map(PathBuf::from).chain(self.emulator.clone()).chain([self.program.clone()]);
        let mut words: Vec<_> = words.collect();
        let mut command = Command::new(words.remove(0));
        command.args(words).env("LLVM_PROFILE_FILE", self.folder.join("%p.profraw"));
        command
    }

    /// What all its runs counted, in one file.
    fn merge(&self) -> Result<PathBuf> {
        let counted =
            fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let counted: Vec<_> = counted
            .into_iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "profraw"))
            .collect();
        ensure!(!counted.is_empty(), "{} counted nothing", self.program.display());
        let merged = self.folder.join("merged");
        // The version before the newest: zig's clang is older than rustc's LLVM, which reads both. A compiler that cannot
        // read it says so. Its counts pass through rustc's runtime: whoever moves the toolchain (rust-toolchain.toml) or zig
        // (xtask/data/zig.txt) should see that SQLite is in them still.
        let merge = Run::new(tools::profdata()?).args(["merge", "--write-prev-version", "-o"]);
        merge.args([&merged]).args(counted).run()?;
        // Named by what it holds: that is how cargo knows whether to build anew.
        let mut hasher = DefaultHasher::new();
        fs::read(&merged)?.hash(&mut hasher);
        let named = self.folder.join(format!("{:016x}.profdata", hasher.finish()));
        fs::rename(merged, &named)?;
        Ok(named)
    }
}

/// Look-ups of ten thousand cards, each unknown once, that fall due faster than they can be answered: so they meet in
/// batches.
fn load(address: &str, seconds: &str) -> Result<()> {
    let said = Run::new(target().join("release/examples/load"))
        .args(["--address", address, "--account", ACCOUNT, "--connections", "256", "--cards", "10000"])
        .args(["--rate", "100000", "--seconds", seconds, "--first", "0"])
        .output()?;
    let result =
        said.lines().find_map(|line| line.strip_prefix("RESULT ")).context("the load said nothing")?;
    ensure!(result.split(' ').nth(1) == Some("0"), "look-ups failed: {result}");
    Ok(())
}

/// The first processor that we may use.
fn first_processor() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = allowed.and_then(|list| list.trim().split([',', '-']).next());
    first.map(str::to_owned).context("Cpus_allowed_list in /proc/self/status")
}
