//! `cargo xtask bench firmware`: the same job in C, with SHA-256 of other libraries, measured in the same run.
//!
//! The peers' sources are in the folder that `PEERS_DIR` names, one subfolder per peer; `docs/firmware.md` says where they
//! come from. Nothing of them is kept. The job in C and its measurement are in `signer/firmware/peers`; they are built
//! with `-Os` and link-time optimisation, as the Rust images are with `z`, and linked with newlib-nano.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::firmware::image::{CHIPS, Chip, Size, size, target_dir};
use crate::firmware::measured;
use crate::run::Run;
use crate::tools;

/// The chips whose figures are compared: newlib-nano is for Arm, and an M4F runs the code of an M3.
const COMPARED: &[&str] = &["M3", "M0"];

/// Cost of the job.
struct Cost {
    who: String,
    flash: u64,
    stack: u64,
    instructions: u64,
}

/// A peer.
struct Peer {
    name: &'static str,
    /// The folder of its sources in `PEERS_DIR`.
    folder: &'static str,
    /// The compiler's arguments; `{}` is the folder of the sources.
    arguments: &'static [&'static str],
}

const MBEDTLS: &[&str] = &[
    "-DPEER_MBEDTLS",
    "-DMBEDTLS_CONFIG_FILE=\"sha256_mbedtls.h\"",
    "-I{}/include",
    "{}/library/sha256.c",
    "{}/library/platform_util.c",
];
const WOLFCRYPT: &[&str] =
    &["-DPEER_WOLFCRYPT", "-DWOLFSSL_USER_SETTINGS", "-I{}", "{}/wolfcrypt/src/sha256.c"];

const PEERS: &[Peer] = &[
    Peer {
        name: "TinyCrypt",
        folder: "tinycrypt",
        arguments: &[
            "-DPEER_TINYCRYPT",
            "-I{}/lib/include",
            "{}/lib/source/sha256.c",
            "{}/lib/source/utils.c",
        ],
    },
    Peer { name: "mbedTLS 2.28", folder: "mbedtls-2.28", arguments: MBEDTLS },
    Peer { name: "mbedTLS 3.6", folder: "mbedtls-3.6", arguments: MBEDTLS },
    Peer {
        name: "BearSSL",
        folder: "bearssl",
        arguments: &[
            "-DPEER_BEARSSL",
            "-I{}/inc",
            "-I{}/src",
            "{}/src/hash/sha2small.c",
            "{}/src/codec/dec32be.c",
            "{}/src/codec/enc32be.c",
        ],
    },
    Peer { name: "wolfCrypt", folder: "wolfssl", arguments: WOLFCRYPT },
    Peer {
        name: "cifra",
        folder: "cifra",
        arguments: &[
            "-DPEER_CIFRA",
            "-std=gnu11",
            "-DFULL_FAT_ASSERT",
            "-DNDEBUG",
            "-I{}/src",
            "-I{}/src/ext",
            "{}/src/sha256.c",
            "{}/src/blockwise.c",
        ],
    },
];

/// Options of a peer for less flash, as a second row of the table: the folder, the name's end, the compiler's argument.
const SMALLER: &[(&str, &str, &str)] = &[
    ("mbedtls-2.28", "smaller", "-DMBEDTLS_SHA256_SMALLER"),
    ("mbedtls-3.6", "smaller", "-DMBEDTLS_SHA256_SMALLER"),
    ("wolfssl", "slow", "-DUSE_SLOW_SHA256"),
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

/// Measures the signer and the peers that are there on Cortex-M3 and M0, and prints a table per chip.
///
/// # Errors
/// When `PEERS_DIR` names a folder without any peer, something cannot be built, or a job fails.
pub(super) fn command() -> Result<()> {
    tools::toolchain()?;
    tools::packages()?;
    let peers = match std::env::var_os("PEERS_DIR") {
        Some(folder) => found(Path::new(&folder))?,
        None => {
            println!("PEERS_DIR is not set, so no peer is measured: docs/firmware.md says what it contains");
            Vec::new()
        }
    };
    if !peers.is_empty() {
        tools::install(&["libnewlib-arm-none-eabi"])?;
    }
    let mut text = String::new();
    for chip in CHIPS.iter().filter(|chip| COMPARED.contains(&chip.name)) {
        let mut costs = BUILDS.iter().map(|build| signer(chip, build)).collect::<Result<Vec<_>>>()?;
        costs.extend(in_c(chip, &peers)?);
        text.push_str(&table(chip.name, &costs));
    }
    print!("{text}");
    Ok(())
}

/// The peers whose sources are in a folder, each with their place. Prints the others.
///
/// # Errors
/// When there is none, or the path is not absolute.
fn found(folder: &Path) -> Result<Vec<(&'static Peer, PathBuf)>> {
    let mut peers = Vec::new();
    for peer in PEERS {
        let sources = std::path::absolute(folder.join(peer.folder))?;
        if sources.is_dir() {
            peers.push((peer, sources));
        } else {
            println!("{}: skipped, since there is no folder {}", peer.name, sources.display());
        }
    }
    if peers.is_empty() {
        let names: Vec<_> = PEERS.iter().map(|peer| peer.folder).collect();
        bail!("PEERS_DIR={} has none of the folders {}", folder.display(), names.join(", "));
    }
    Ok(peers)
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

/// The cost of each peer's rows.
fn in_c(chip: &Chip, peers: &[(&Peer, PathBuf)]) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    if peers.is_empty() {
        return Ok(costs);
    }
    let none = compile(chip, "none", &["../firmware/peers/none.c"])?.1;
    for (peer, sources) in peers {
        let sources = sources.display().to_string();
        let arguments: Vec<_> =
            peer.arguments.iter().map(|argument| argument.replace("{}", &sources)).collect();
        let smaller = SMALLER.iter().filter(|(folder, ..)| *folder == peer.folder);
        let smaller = smaller.map(|(_, end, option)| (format!("{}, {end}", peer.name), Some(*option)));
        for (name, option) in smaller.chain([(peer.name.to_owned(), None)]) {
            let with = arguments.iter().map(String::as_str).chain(option).chain(["../firmware/peers/sign.c"]);
            let (image, _) = compile(chip, "peer", &with.collect::<Vec<_>>())?;
            costs.push(cost(chip, &name, &image, &none)?);
        }
    }
    Ok(costs)
}

/// An image in C, and its size.
fn compile(chip: &Chip, name: &str, arguments: &[&str]) -> Result<(PathBuf, Size)> {
    let image = target_dir().join(format!("bench/{name}-{}.elf", chip.name));
    chip.gcc()
        .args(["-flto", "-specs=nano.specs", "-I../firmware/peers", "../firmware/peers/measure.c"])
        .args(arguments)
        .args([Path::new("-o"), &image])
        .run()?;
    let size = size(&image)?;
    Ok((image, size))
}

fn cost(chip: &Chip, who: &str, image: &Path, none: &Size) -> Result<Cost> {
    let flash = size(image)?.flash.checked_sub(none.flash).context("the job made the image smaller")?;
    let [stack, instructions] = measured(&chip.run_file(image, &["-icount", "shift=0"])?, "sign")?;
    Ok(Cost { who: who.to_owned(), flash, stack, instructions })
}

/// A row for each, with ratios to TinyCrypt's, the smallest peer's.
fn table(chip: &str, costs: &[Cost]) -> String {
    let reference = costs.iter().find(|cost| cost.who == "TinyCrypt");
    let mut text = format!(
        "\n{:<22}{:>9}{:>9}{:>14}{:>24}\n",
        format!("sign + query on {chip}"),
        "flash B",
        "stack B",
        "instructions",
        "each, of TinyCrypt's"
    );
    for Cost { who, flash, stack, instructions } in costs {
        let ratio = |value: &u64, of: u64| format!("{:.2}", *value as f64 / of as f64);
        let ratios = reference.map_or(String::new(), |of| {
            [ratio(flash, of.flash), ratio(stack, of.stack), ratio(instructions, of.instructions)].join(" / ")
        });
        text.push_str(&format!("{who:<22}{flash:>9}{stack:>9}{instructions:>14}{ratios:>24}\n"));
    }
    text
}
