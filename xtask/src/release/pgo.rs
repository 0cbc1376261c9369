//! Profile-guided optimisation (PGO): an instrumented executable runs the training workload; its profile optimises the
//! next build.
//!
//! The workload is mostly lookups of cached cards, some of unknown ones, over HTTP, TLS and HTTP/2, and the demo. An instrumented executable for
//! another processor runs under an emulator: profiles count executions, not time. The emulator must have the processor's
//! SHA-256 instructions, or the profile marks them as unused; qemu's aarch64 has them.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::{Run, target};
use crate::server_process::ServerProcess;
use crate::setup::{self, Certificate};
use crate::tools;

/// An instrumented or an optimised executable.
pub(super) struct Executable {
    program: PathBuf,
    /// Emulator for another processor.
    emulator: Option<PathBuf>,
    /// Folder of its profiles.
    folder: PathBuf,
}

impl Executable {
    /// An executable for this target triple.
    pub(super) fn new(program: PathBuf, triple: &str) -> Result<Self> {
        let arch = triple.split('-').next().unwrap_or(triple);
        let foreign = arch != std::env::consts::ARCH;
        let emulator = foreign.then(|| tools::emulator(arch)).transpose()?;
        Ok(Self { program, emulator, folder: target().join("training").join(triple) })
    }

    /// Runs the training workload, and returns the merged profile for `profile-use` of rustc and clang.
    pub(super) fn collect_profile(&self) -> Result<PathBuf> {
        let _ = fs::remove_dir_all(&self.folder); // of an earlier run
        fs::create_dir_all(&self.folder)?;
        // The carrier's profile is not needed, and it would be incomplete: the carrier does not drain.
        let mut carrier = self.command(&[]);
        setup::simulate(&mut carrier);
        let mut carrier = ServerProcess::start(carrier.env("LLVM_PROFILE_FILE", "/dev/null"))?;
        let base_url = carrier.wait_for_line("simulated carrier ")?;
        // With one processor the runtime is another (`proxy/src/cli.rs`).
        let certificate = Certificate::make(&self.folder)?;
        let ca = certificate.chain.to_str().context("the target folder's path is not UTF-8")?;
        let one = ["taskset", "-c", &first_processor()?];
        let tls = certificate.settings();
        self.serve("many", &[], &base_url, "", PLAIN)?;
        self.serve("one", &one, &base_url, "", PLAIN)?;
        self.serve(
            "tls",
            &one,
            &base_url,
            &tls,
            &["--connections", "256", "--tls", ca, "--reconnect", "100"],
        )?;
        self.serve("http2", &one, &base_url, &tls, &["--connections", "4", "--tls", ca, "--http2"])?;
        self.demo()?;
        self.merge()
    }

    /// Runs the demo.
    pub(super) fn demo(&self) -> Result<()> {
        let demo = self.command(&[]).arg("demo").stdout(Stdio::null()).status()?;
        ensure!(demo.success(), "the demo of {} failed: {demo}", self.program.display());
        Ok(())
    }

    /// Serves lookups from a folder of this name, with these settings, to a load with these options.
    fn serve(
        &self,
        name: &str,
        before: &[&str],
        base_url: &str,
        settings: &str,
        options: &[&str],
    ) -> Result<()> {
        let folder = self.folder.join(name);
        fs::create_dir(&folder)?;
        let config = super::configure(&folder, base_url, settings)?;
        let mut serve = self.command(before);
        let mut proxy =
            ServerProcess::start(serve.args(["serve", "--config"]).arg(&config).env("RUST_LOG", "warn"))?;
        let address = proxy.wait_for_line("gateway http")?;
        let address = address.trim_start_matches("s://").trim_start_matches("://");
        // A transid is valid for five minutes, and all are signed at the start.
        load(address, if self.emulator.is_some() { "1" } else { "3" }, options)?;
        proxy.drain()
    }

    /// The executable after these words; its profiles go into its folder.
    fn command(&self, before: &[&str]) -> Command {
        let words =
            before.iter().map(PathBuf::from).chain(self.emulator.clone()).chain([self.program.clone()]);
        let mut words: Vec<_> = words.collect();
        let mut command = Command::new(words.remove(0));
        command.args(words).env("LLVM_PROFILE_FILE", self.folder.join("%p.profraw"));
        command
    }

    /// Merges the profiles of all runs into one file.
    fn merge(&self) -> Result<PathBuf> {
        let profiles =
            fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let profiles: Vec<_> = profiles
            .into_iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "profraw"))
            .collect();
        ensure!(!profiles.is_empty(), "{} wrote no profile", self.program.display());
        let merged = self.folder.join("merged");
        // The version before the newest: zig's clang is older than rustc's LLVM, which reads both. A compiler that cannot
        // read it says so. Profiles of C code are written by rustc's runtime: after an update of the toolchain
        // (rust-toolchain.toml) or of zig (xtask/data/zig.txt), check that they still contain SQLite.
        let merge = Run::new(tools::profdata()?).args(["merge", "--write-prev-version", "-o"]);
        merge.args([&merged]).args(profiles).run()?;
        // Named by its contents, so that cargo builds again when they change.
        let mut hasher = DefaultHasher::new();
        fs::read(&merged)?.hash(&mut hasher);
        let named = self.folder.join(format!("{:016x}.profdata", hasher.finish()));
        fs::rename(merged, &named)?;
        Ok(named)
    }
}

/// The load's options without TLS.
const PLAIN: &[&str] = &["--connections", "256"];

/// Lookups of ten thousand cards, each unknown once, at a rate above saturation, so that they form batches.
fn load(address: &str, seconds: &str, options: &[&str]) -> Result<()> {
    let printed = Run::new(target().join("release/examples/load"))
        .args(["--address", address, "--account", &setup::account(), "--cards", "10000"])
        .args(options)
        .args(["--rate", "100000", "--seconds", seconds, "--first", "0"])
        .output()?;
    let result = printed
        .lines()
        .find_map(|line| line.strip_prefix("RESULT "))
        .context("the load printed no result")?;
    ensure!(result.split(' ').nth(1) == Some("0"), "lookups failed: {result}");
    Ok(())
}

/// The first processor that this process may use.
fn first_processor() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = allowed.and_then(|list| list.trim().split([',', '-']).next());
    first.map(str::to_owned).context("Cpus_allowed_list in /proc/self/status")
}
