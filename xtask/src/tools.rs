//! Required programs, and their installation.
//!
//! Taken for granted: rustup, a C compiler, git, and Debian's package manager. The rest is looked for and fetched:
//! the toolchain that `rust-toolchain.toml` names, cargo's tools, PyPI's and npm's (into `target/tools`, nowhere else), and
//! Debian's packages (as root; otherwise the line to run is the error). Nothing is fetched twice.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{Run, on_path, root, target};

/// A program that the tests start, and the Debian package that brings it.
struct Package {
    program: &'static str,
    package: &'static str,
    /// Reason for the tests.
    reason: &'static str,
}

/// All Debian packages; a test that starts another program adds its row.
const PACKAGES: &[Package] = &[
    Package {
        program: "sqlite3",
        package: "sqlite3",
        reason: "the README's audit queries are run as an auditor would run them",
    },
    Package {
        program: "qemu-system-arm",
        package: "qemu-system-arm",
        reason: "the signer's firmware runs on emulated chips",
    },
    Package {
        program: "qemu-system-riscv32",
        package: "qemu-system-misc",
        reason: "the signer's firmware runs on an emulated RISC-V chip",
    },
    Package {
        program: "arm-none-eabi-gcc",
        package: "gcc-arm-none-eabi",
        reason: "the signer is linked into firmware written in C, and its images are weighed",
    },
    Package {
        program: "riscv64-unknown-elf-gcc",
        package: "gcc-riscv64-unknown-elf",
        reason: "the same for RISC-V",
    },
    CPP,
    Package { program: "cmake", package: "cmake", reason: "the signer's CMake files are run as they stand" },
    Package { program: "make", package: "make", reason: "CMake builds with it" },
    Package {
        program: "promtool",
        package: "prometheus",
        reason: "the metrics are checked, and each alert rule is made to fire",
    },
];

/// The compiler of C++.
const CPP: Package = Package {
    program: "g++",
    package: "g++",
    reason: "the fuzz targets link libFuzzer, and the signer's C header is compiled as C++",
};

/// Peers and load generator of the benches; the tests need none of them.
const PEERS: &[Package] = &[
    Package { program: "wrk", package: "wrk", reason: "the benches load servers with it" },
    Package { program: "valgrind", package: "valgrind", reason: "it counts the instructions of a hit" },
    Package { program: "haproxy", package: "haproxy", reason: "a peer that the proxy is compared with" },
    Package { program: "nginx", package: "nginx-light", reason: "a peer that the proxy is compared with" },
    Package { program: "squid", package: "squid", reason: "a peer that the proxy is compared with" },
    Package { program: "varnishd", package: "varnish", reason: "a peer that the proxy is compared with" },
];

/// The balancer of the Compose file of a fleet, whose topology a test starts.
const BALANCER: &[Package] = &[Package {
    program: "haproxy",
    package: "haproxy",
    reason: "the topology of packaging/compose.fleet.yaml is started as processes",
}];

/// The browser of the tests of the operators' page.
const BROWSER: &[Package] = &[
    Package {
        program: "chromium",
        package: "chromium",
        reason: "the operators' page is tested in a browser",
    },
    Package {
        program: "chromedriver",
        package: "chromium-driver",
        reason: "the tests drive the browser by it",
    },
    Package {
        program: "npm",
        package: "npm",
        reason: "it installs axe-core, which checks the operators' page",
    },
];

/// axe-core (accessibility rules, run in a page by the tests of the operators' page), and the SHA-256 of its file.
const AXE_CORE: (&str, &str) = ("4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c");

/// A tool that cargo builds.
pub(crate) struct CargoTool {
    /// As in `cargo NAME`.
    subcommand: &'static str,
    /// The oldest version that will do, and the one to build when there is none.
    version: &'static str,
    /// Environment of its build.
    build_env: &'static [(&'static str, &'static str)],
}

/// Runs the tests: each in a process of its own, with a time limit.
pub(crate) const NEXTEST: CargoTool =
    CargoTool { subcommand: "nextest", version: "0.9.143", build_env: FAST_BUILD };

/// Checks dependencies: licences, bans, sources, advisories.
pub(crate) const DENY: CargoTool = CargoTool { subcommand: "deny", version: "0.20.2", build_env: FAST_BUILD };

/// Runs the fuzz targets.
pub(crate) const FUZZ: CargoTool = CargoTool { subcommand: "fuzz", version: "0.13.2", build_env: FAST_BUILD };

/// Builds a package with every set of its features.
pub(crate) const HACK: CargoTool = CargoTool { subcommand: "hack", version: "0.6.46", build_env: FAST_BUILD };

/// Builds executables that list their crates.
pub(crate) const AUDITABLE: CargoTool =
    CargoTool { subcommand: "auditable", version: "0.7.7", build_env: FAST_BUILD };

/// Their own release profiles ask for minutes of optimisation, which tools that run for seconds never earn back.
const FAST_BUILD: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
];

/// Brings the toolchain of `rust-toolchain.toml`, its components and targets; takes no time when all are there.
///
/// # Errors
/// When there is no rustup, or something cannot be fetched.
pub(crate) fn toolchain() -> Result<()> {
    ensure!(on_path("rustup").is_some(), "rustup is missing: it installs what rust-toolchain.toml names");
    // Under `cargo run` this variable names the toolchain, and rustup would leave the file's targets out.
    Run::new("rustup")
        .args(["toolchain", "install", "--no-self-update"])
        .without_env("RUSTUP_TOOLCHAIN")
        .run()
}

/// Brings the Debian packages that the tests need.
///
/// # Errors
/// When one is missing and we are not root, or it cannot be installed.
pub(crate) fn packages() -> Result<()> {
    install_packages(PACKAGES)
}

/// Brings the Debian packages that the benches need.
///
/// # Errors
/// As [`packages`].
pub(crate) fn peers() -> Result<()> {
    install_packages(PEERS)
}

/// Brings the load generator of the benches alone.
///
/// # Errors
/// As [`packages`].
pub(crate) fn wrk() -> Result<()> {
    install_packages(&PEERS[..1])
}

/// Brings the compiler of C++ alone, which every build with the fuzz targets needs.
///
/// # Errors
/// As [`packages`].
pub(crate) fn cpp() -> Result<()> {
    install_packages(&[CPP])
}

/// Brings the shell of SQLite alone.
///
/// # Errors
/// As [`packages`].
pub(crate) fn sqlite() -> Result<()> {
    install_packages(&PACKAGES[..1])
}

/// Brings the server programs of PostgreSQL, without the server that Debian's package would create and start.
///
/// # Errors
/// As [`packages`].
pub(crate) fn postgres() -> Result<()> {
    /// As docs/fleet.md says.
    const OLDEST: u32 = 15;
    const CONFIG: &str = "/etc/postgresql-common/createcluster.conf";
    const NO_SERVER: &str = "create_main_cluster = false";
    let is_there = || {
        let folders = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let is_new =
            |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok().filter(|n| *n >= OLDEST);
        folders
            .map(|folder| folder.path())
            .any(|folder| is_new(&folder).is_some() && folder.join("bin/postgres").is_file())
    };
    // The harness ends the processes of a server by `ps`.
    install(&["procps"])?;
    install_packages(BALANCER)?;
    if is_there() {
        return Ok(());
    }
    println!(
        "PostgreSQL {OLDEST} or newer is missing (Debian's package postgresql): the tests of several proxies share one"
    );
    ensure!(
        is_root()?,
        "install what is missing, as root: mkdir -p /etc/postgresql-common && echo '{NO_SERVER}' > {CONFIG} && \
         apt-get update && apt-get install -y postgresql"
    );
    // One of an administrator stays, and so do the servers that it asks for.
    if !Path::new(CONFIG).exists() {
        fs::create_dir_all(Path::new(CONFIG).with_file_name(""))?;
        fs::write(CONFIG, format!("{NO_SERVER}\n")).context(CONFIG)?;
    }
    install(&["postgresql"])?;
    ensure!(
        is_there(),
        "package postgresql is installed, but no server program of version {OLDEST} or newer is in /usr/lib/postgresql"
    );
    Ok(())
}

/// Brings the browser of the tests of the operators' page, and axe-core into `target/tools/axe-core`.
///
/// # Errors
/// As [`packages`]; or axe-core cannot be fetched, or is not the one that this file names.
pub(crate) fn browser() -> Result<()> {
    install_packages(BROWSER)?;
    let (version, sum) = AXE_CORE;
    let folder = target().join("tools/axe-core");
    let file = folder.join("node_modules/axe-core/axe.min.js");
    let is_it = || {
        let printed = Run::new("sha256sum").args([&file]).output();
        printed.is_ok_and(|printed| printed.split_whitespace().next() == Some(sum))
    };
    if is_it() {
        return Ok(());
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Run::new("npm")
        .args([
            "install",
            "--silent",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--no-package-lock",
        ])
        .args(["--prefix"])
        .args([&folder])
        .args([format!("axe-core@{version}")])
        .run()?;
    ensure!(is_it(), "{} is not axe-core {version}: its SHA-256 is not {sum}", file.display());
    Ok(())
}

/// Emulator for executables of this processor, from its Debian package.
///
/// # Errors
/// As [`packages`].
pub(crate) fn emulator(arch: &str) -> Result<PathBuf> {
    let program = format!("qemu-{arch}");
    if on_path(&program).is_none() {
        install(&["qemu-user"])?;
    }
    on_path(&program)
        .with_context(|| format!("package qemu-user is installed, but `{program}` is not on PATH"))
}

/// The toolchain's own program that reads what counting executables wrote.
///
/// # Errors
/// When its component cannot be fetched.
pub(crate) fn profdata() -> Result<PathBuf> {
    Run::new("rustup").args(["component", "add", "llvm-tools"]).run()?;
    let folder = Run::new("rustc").args(["--print", "target-libdir"]).output()?;
    let program = Path::new(folder.trim()).with_file_name("bin").join("llvm-profdata");
    ensure!(program.is_file(), "component llvm-tools is installed, but {} is not there", program.display());
    Ok(program)
}

fn install_packages(packages: &[Package]) -> Result<()> {
    let missing = || packages.iter().filter(|package| on_path(package.program).is_none());
    if missing().next().is_none() {
        return Ok(());
    }
    for Package { program, package, reason } in missing() {
        println!("`{program}` is missing (Debian's package {package}): {reason}");
    }
    let names: Vec<_> = missing().map(|package| package.package).collect();
    install(&names)?;
    if let Some(package) = missing().next() {
        bail!("package {} is installed, but `{}` is still not on PATH", package.package, package.program);
    }
    Ok(())
}

/// Installs Debian packages; takes no time when all are there.
///
/// # Errors
/// When one is missing and we are not root, or it cannot be installed.
pub(crate) fn install(names: &[&str]) -> Result<()> {
    let is_there = |name: &&str| Run::new("dpkg").args(["-s", name]).output().is_ok();
    if names.iter().all(is_there) {
        return Ok(());
    }
    ensure!(
        is_root()? && on_path("apt-get").is_some(),
        "install what is missing, as root: apt-get update && apt-get install -y {}",
        names.join(" ")
    );
    Run::new("apt-get").args(["update"]).run()?;
    // Another installation may be in progress, such as the daily one of Debian.
    Run::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"])
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()
}

fn is_root() -> Result<bool> {
    Ok(Run::new("id").args(["-u"]).output()?.trim() == "0")
}

/// Brings what `xtask/data/NAME.txt` names, packages of PyPI at their versions, into a virtual environment of its own
/// below the target folder, and returns that: programs are in its `bin`. Takes no time when all is there.
///
/// # Errors
/// When Debian's `python3-venv` is missing and cannot be installed, or a package is not available.
pub(crate) fn python(name: &str) -> Result<PathBuf> {
    let requirements = root().join("xtask/data").join(name).with_extension("txt");
    let environment = target().join("tools").join(name);
    let installed = environment.join("installed.txt");
    let wanted = fs::read_to_string(&requirements).with_context(|| requirements.display().to_string())?;
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(environment);
    }
    install(&["python3-venv"])?;
    Run::new("python3").args(["-m", "venv", "--clear"]).args([&environment]).run()?;
    Run::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .args([&requirements])
        .run()?;
    fs::write(installed, wanted)?;
    Ok(environment)
}

impl CargoTool {
    /// The tool, ready for its arguments: the machine's own when new enough, else one built into `target/tools`.
    ///
    /// # Errors
    /// When it has to be built and cannot be.
    pub(crate) fn ready(&self) -> Result<Run> {
        // What cargo starts is the file of this name, so what was found is started without cargo in between.
        let name = format!("cargo-{}", self.subcommand);
        if let Some(found) = on_path(&name)
            && self.is_new_enough(Run::new(found))
        {
            return Ok(Run::cargo(self.subcommand));
        }
        let built = self.built_path();
        if !self.is_new_enough(Run::new(&built)) {
            let tools = root().join("target/tools");
            let install = Run::cargo("install --locked --force --root").args([&tools]).args([
                name.as_str(),
                "--version",
                self.version,
            ]);
            self.build_env.iter().fold(install, |run, (name, value)| run.env(name, value)).run()?;
            ensure!(self.is_new_enough(Run::new(&built)), "{} was built but does not run", built.display());
        }
        Ok(Run::new(built).args([self.subcommand]))
    }

    fn built_path(&self) -> PathBuf {
        root().join("target/tools/bin").join(format!("cargo-{}", self.subcommand))
    }

    /// A tool that does not start, or prints no version, is as good as missing.
    fn is_new_enough(&self, tool: Run) -> bool {
        let Ok(printed) = tool.args([self.subcommand, "--version"]).output() else { return false };
        let found = printed.split_whitespace().nth(1).map(version);
        matches!((found, version(self.version)), (Some(Ok(found)), Ok(wanted)) if found >= wanted)
    }
}

/// `0.9.143` as numbers that compare.
fn version(text: &str) -> Result<Vec<u32>> {
    text.split('.').map(|part| part.parse().with_context(|| format!("`{text}` is no version"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("0.9.143").unwrap() > version("0.9.99").unwrap());
        assert!(version("0.20.2").unwrap() > version("0.9.143").unwrap());
        version("0.9.x").unwrap_err();
    }

    #[test]
    fn a_tool_counts_only_when_it_says_a_new_enough_version() {
        let says = |line: &str| Run::new("echo").args([line]);
        // `echo` repeats its arguments, so that the "tool" prints this line and then ours.
        assert!(NEXTEST.is_new_enough(says("cargo-nextest 0.9.143")));
        assert!(NEXTEST.is_new_enough(says("cargo-nextest 1.0.0")));
        assert!(!NEXTEST.is_new_enough(says("cargo-nextest 0.9.142")));
        assert!(!NEXTEST.is_new_enough(says("cargo-nextest unknown")));
        assert!(!NEXTEST.is_new_enough(Run::new("no-such-program")));
    }
}
