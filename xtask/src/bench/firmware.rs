//! `cargo xtask bench firmware`: the same job in C, with mbedTLS's and BearSSL's SHA-256, measured in the same run.
//!
//! The peers' sources are Debian's source packages, fetched into a temporary folder and never kept. The job in C and
//! its measurement are in `signer/firmware/peers`; they are built with `-Os` and link-time optimisation, as the Rust
//! images are with `z`, and linked with newlib-nano.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::firmware::image::{CHIPS, Chip, Size, size, target_dir};
use crate::firmware::measured;
use crate::run::Run;
use crate::tools;

/// Cost of the job.
struct Cost {
    who: String,
    flash: u64,
    stack: u64,
    instructions: u64,
}

/// A peer: its name, and the compiler arguments after `sign.c`. `{}` is the folder of the sources.
struct Peer {
    name: &'static str,
    arguments: &'static [&'static str],
}

const PEERS: &[Peer] = &[
    Peer {
        name: "mbedTLS, rolled up",
        arguments: &[
            "-DPEER_MBEDTLS",
            "-DMBEDTLS_SHA256_SMALLER",
            "-DMBEDTLS_CONFIG_FILE=\"mbedtls_config.h\"",
            "-I{}/mbedtls/include",
            "{}/mbedtls/library/sha256.c",
            "{}/mbedtls/library/platform_util.c",
        ],
    },
    Peer {
        name: "mbedTLS",
        arguments: &[
            "-DPEER_MBEDTLS",
            "-DMBEDTLS_CONFIG_FILE=\"mbedtls_config.h\"",
            "-I{}/mbedtls/include",
            "{}/mbedtls/library/sha256.c",
            "{}/mbedtls/library/platform_util.c",
        ],
    },
    Peer {
        name: "BearSSL",
        arguments: &[
            "-DPEER_BEARSSL",
            "-I{}/bearssl/inc",
            "-I{}/bearssl/src",
            "{}/bearssl/src/hash/sha2small.c",
            "{}/bearssl/src/codec/dec32be.c",
            "{}/bearssl/src/codec/enc32be.c",
        ],
    },
];

/// A way to build the signer.
struct Build {
    /// As the table says it.
    name: &'static str,
    profile: &'static str,
    /// Other features, changes to the profile.
    options: &'static [&'static str],
    /// Flags of the final build.
    flags: &'static str,
}

const COMPACT: &str = r#"--cfg sha2_backend="soft" --cfg sha2_backend_soft="compact""#;
const UNROLLED: &str = r#"--cfg sha2_backend="soft""#;

const BUILDS: &[Build] = &[
    Build { name: "signer", profile: "release", options: &[], flags: "" },
    Build { name: "signer at 3", profile: "three", options: &[], flags: "" },
    Build {
        name: "sha2, compact at s",
        profile: "release",
        options: &["--no-default-features", "--config", "profile.release.package.sha2.opt-level='s'"],
        flags: COMPACT,
    },
    Build {
        name: "sha2, unrolled",
        profile: "release",
        options: &["--no-default-features"],
        flags: UNROLLED,
    },
    Build {
        name: "sha2, unrolled at 3",
        profile: "three",
        options: &["--no-default-features"],
        flags: UNROLLED,
    },
];

/// Measures the signer and its peers on Cortex-M3 and M0, and prints a table a chip.
///
/// # Errors
/// When something cannot be fetched or built, or a job fails.
pub(super) fn command() -> Result<()> {
    tools::toolchain()?;
    tools::packages()?;
    tools::install(&["libnewlib-arm-none-eabi", "dpkg-dev", "xz-utils"])?;
    let folder = std::env::temp_dir().join(format!("cmiot-peers-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let tables = sources(&folder).and_then(|()| tables(&folder));
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    print!("{}", tables?);
    Ok(())
}

fn tables(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for chip in CHIPS.iter().filter(|chip| chip.name != "M4F") {
        let mut costs = Vec::new();
        for build in BUILDS {
            costs.push(signer(chip, build)?);
        }
        let none = compile(chip, folder, "none", &["none.c"])?.1;
        for peer in PEERS {
            costs.push(in_c(chip, folder, peer, &none)?);
        }
        text.push_str(&table(chip.name, &costs));
    }
    Ok(text)
}

/// Fetches Debian's source packages, under a list of sources of our own, so that the machine's stays as it is.
fn sources(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("lists/partial"))?;
    let suite = Run::new("sh").args(["-c", ". /etc/os-release && echo $VERSION_CODENAME"]).output()?;
    let line = format!("deb-src http://deb.debian.org/debian {} main\n", suite.trim());
    fs::write(folder.join("peers.list"), line)?;
    fs::create_dir_all(folder.join("cache/archives/partial"))?;
    // apt checks what it downloads, and downloads into where it is started.
    const FETCH: &str = r#"cd "$0" && apt() { apt-get -qq -o Dir::Etc::SourceList="$0/peers.list" \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$0/lists" -o Dir::Cache="$0/cache" \
        -o APT::Sandbox::User=root "$@"; } && apt update && apt source --download-only mbedtls bearssl &&
        dpkg-source -x mbedtls_*.dsc mbedtls && dpkg-source -x bearssl_*.dsc bearssl"#;
    println!("fetching Debian's source packages mbedtls and bearssl");
    Run::new("sh").args(["-c", FETCH]).args([folder]).output()?;
    Ok(())
}

/// The signer, built in this way.
fn signer(chip: &Chip, build: &Build) -> Result<Cost> {
    let Build { name, profile, options, flags } = build;
    let folder = target_dir().join("bench");
    Run::cargo("build --quiet --locked --bin measure_none --bin measure_sign --target")
        .args([chip.target, "--profile", profile])
        .args(*options)
        .args([Path::new("--target-dir"), &folder])
        .within("signer/firmware")
        .env("RUSTFLAGS", flags)
        .run()?;
    let image = |name: &str| folder.join(chip.target).join(profile).join(name);
    cost(chip, name, &image("measure_sign"), &size(&image("measure_none"))?)
}

fn in_c(chip: &Chip, folder: &Path, peer: &Peer, none: &Size) -> Result<Cost> {
    let arguments: Vec<_> =
        peer.arguments.iter().map(|argument| argument.replace("{}", &folder.display().to_string())).collect();
    let arguments: Vec<_> = ["sign.c"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let (image, _) = compile(chip, folder, "peer", &arguments)?;
    cost(chip, peer.name, &image, none)
}

/// An image in C, and its size.
fn compile(chip: &Chip, folder: &Path, name: &str, arguments: &[&str]) -> Result<(PathBuf, Size)> {
    let image = folder.join(format!("{name}-{}.elf", chip.name));
    let cpu = format!("-mcpu=cortex-{}", chip.name.to_ascii_lowercase());
    Run::new("arm-none-eabi-gcc")
        .args([&cpu, "-mthumb", "-Os", "-flto", "-std=c11", "-ffreestanding", "-ffunction-sections"])
        .args([
            "-fdata-sections",
            "-nostartfiles",
            "-specs=nano.specs",
            "-Wl,--gc-sections,--no-warn-execstack",
        ])
        .args(["-T../../capi/examples/bare/link.ld", "-I../../capi/examples/bare", "-I."])
        .args(["measure.c", "../../capi/examples/bare/startup.c"])
        .args(arguments)
        .args([Path::new("-o"), &image])
        .within("signer/firmware/peers")
        .run()?;
    let size = size(&image)?;
    Ok((image, size))
}

fn cost(chip: &Chip, who: &str, image: &Path, none: &Size) -> Result<Cost> {
    let flash = size(image)?.flash.checked_sub(none.flash).context("the job made the image smaller")?;
    let [stack, instructions] = measured(&chip.run_file(image, &["-icount", "shift=0"])?, "sign")?;
    Ok(Cost { who: who.to_owned(), flash, stack, instructions })
}

/// A row for each, with ratios to the smallest peer's flash and to mbedTLS's instructions.
fn table(chip: &str, costs: &[Cost]) -> String {
    let peers = || costs.iter().filter(|cost| PEERS.iter().any(|peer| peer.name == cost.who));
    let smallest = peers().map(|cost| cost.flash).min().unwrap_or(1);
    let mbedtls = peers().find(|cost| cost.who == "mbedTLS").map_or(1, |cost| cost.instructions);
    let mut text = format!(
        "\n{:<22}{:>9}{:>16}{:>9}{:>14}{:>12}\n",
        format!("sign + query on {chip}"),
        "flash B",
        "of smallest C",
        "stack B",
        "instructions",
        "of mbedTLS"
    );
    for Cost { who, flash, stack, instructions } in costs {
        let ratio = |value: u64, of: u64| format!("{:.2}", value as f64 / of as f64);
        text.push_str(&format!(
            "{who:<22}{flash:>9}{:>16}{stack:>9}{instructions:>14}{:>12}\n",
            ratio(*flash, smallest),
            ratio(*instructions, mbedtls)
        ));
    }
    text
}
