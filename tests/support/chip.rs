//! Gateway firmware on an emulated chip: QEMU bridges its UART to a TCP port, as a modem in transparent mode does.
//!
//! Each test builds the images from `signer/firmware` (the C gateway also from `signer/capi`), so that no test runs an
//! outdated image. `cargo xtask test` builds them first and installs QEMU.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{EBID, GATEWAY_APPID, GATEWAY_PASSWORD, MSISDN, secrets, within};

/// A board that QEMU emulates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Board {
    /// QEMU's machine name.
    machine: &'static str,
    /// rustc's target triple.
    target: &'static str,
}

/// Cortex-M0.
pub(crate) const M0: Board = Board { machine: "microbit", target: "thumbv6m-none-eabi" };
/// Cortex-M3.
pub(crate) const M3: Board = Board { machine: "lm3s6965evb", target: "thumbv7m-none-eabi" };
/// Cortex-M4F.
pub(crate) const M4F: Board = Board { machine: "mps2-an386", target: "thumbv7em-none-eabihf" };

/// Connection of the UART.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bridge {
    /// To this port, until the connection closes.
    Plain(SocketAddr),
    /// To this port, with a reconnect one second after each break; bytes sent in between are lost.
    Reconnecting(SocketAddr),
}

/// A running gateway.
pub(crate) struct Gateway {
    qemu: Child,
    console: Lines<BufReader<ChildStdout>>,
    /// All lines of its console so far.
    pub(crate) said: Vec<String>,
}

/// A gateway firmware.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// `signer/firmware/src/bin/gateway`; `settings.rs` there lists its settings.
    Rust(Board),
    /// `signer/capi/examples/bare/gateway.c`, written for the UART of the M3 board; its header comment lists its settings.
    C,
}

impl Program {
    /// Starts the firmware with further settings.
    pub(crate) async fn gateway(self, bridge: Bridge, settings: &[&str]) -> Gateway {
        match self {
            Self::Rust(board) => board.start(&board.build_rust().await, bridge, settings),
            Self::C => M3.start(&build_c().await, bridge, settings),
        }
    }
}

impl Board {
    fn start(self, image: &Path, bridge: Bridge, settings: &[&str]) -> Gateway {
        secrets::register(MSISDN.number);
        secrets::register(GATEWAY_PASSWORD);
        let (address, option) = match bridge {
            Bridge::Plain(address) => (address, ""),
            Bridge::Reconnecting(address) => (address, ",reconnect=1"),
        };
        let common = [
            format!("appid={GATEWAY_APPID}"),
            format!("ebid={EBID}"),
            format!("msisdn={}", MSISDN.number),
            format!("host={address}"),
        ];
        // The first value per name counts, so the test's settings precede the defaults.
        let usual = [format!("password={GATEWAY_PASSWORD}"), format!("clock={}", now())];
        let words = common.iter().map(String::as_str).chain(settings.iter().copied());
        let words: String =
            words.chain(usual.iter().map(String::as_str)).map(|word| format!(",arg={word}")).collect();
        let mut qemu = Command::new("qemu-system-arm")
            .args([
                "-M",
                self.machine,
                "-display",
                "none",
                "-monitor",
                "none",
                "-chardev",
                "stdio,id=console",
            ])
            .args(["-semihosting-config", &format!("enable=on,target=native,chardev=console{words}")])
            .args([
                "-chardev",
                &format!("socket,id=modem,host={},port={}{option}", address.ip(), address.port()),
            ])
            .args(["-serial", "chardev:modem", "-kernel"])
            .arg(image)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("qemu-system-arm, which `cargo xtask test` brings");
        let console = BufReader::new(qemu.stdout.take().expect("a pipe")).lines();
        Gateway { qemu, console, said: Vec::new() }
    }

    async fn build_rust(self) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("firmware");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--bin",
            "gateway",
            "--target",
            self.target,
        ]);
        cargo.arg("--target-dir").arg(&folder).env_remove("RUSTFLAGS").current_dir(signer("firmware"));
        succeeds(cargo).await;
        folder.join(self.target).join("release/gateway")
    }
}

impl Gateway {
    /// Waits for a console line with this prefix.
    pub(crate) async fn says(&mut self, beginning: &str) {
        while !self
            .next()
            .await
            .unwrap_or_else(|| panic!("{beginning}: not on the console, which has\n{}", self.text()))
            .starts_with(beginning)
        {}
    }

    /// Waits for its end and returns its exit code. Prints its console to the test's output.
    pub(crate) async fn ends(&mut self) -> Option<i32> {
        while self.next().await.is_some() {}
        println!("{}", self.text());
        within("QEMU's end", self.qemu.wait()).await.expect("a process of ours").code()
    }

    /// Number of lookups that returned a normal card.
    pub(crate) fn statuses(&self) -> usize {
        let normal = |line: &&String| {
            let status = line.strip_prefix("lookup").and_then(|rest| rest.split_once(": "));
            status.is_some_and(|(_, status)| status == "00" || status.starts_with("normal"))
        };
        self.said.iter().filter(normal).count()
    }

    /// The transids of its requests in order; of the C gateway, their sequences.
    pub(crate) fn transids(&self) -> Vec<&str> {
        self.said.iter().filter_map(|line| line.strip_prefix("ask ")).collect()
    }

    /// Whether its console has a line with this prefix.
    pub(crate) fn has_said(&self, beginning: &str) -> bool {
        self.said.iter().any(|line| line.starts_with(beginning))
    }

    /// Its whole console.
    pub(crate) fn text(&self) -> String {
        self.said.join("\n")
    }

    async fn next(&mut self) -> Option<String> {
        let line = within("a line of the console", self.console.next_line()).await.expect("a pipe");
        self.said.extend(line.clone());
        line
    }
}

/// Builds the C gateway and the library that it links.
async fn build_c() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--quiet", "--package", "cmiot-signer-capi", "--lib", "--crate-type", "staticlib"]);
    cargo
        .args(["--profile", "chip", "--target", M3.target, "--target-dir"])
        .arg(&folder)
        .env_remove("RUSTFLAGS");
    succeeds(cargo).await;
    let image = folder.join("gateway.elf");
    let mut gcc = Command::new("arm-none-eabi-gcc");
    gcc.args([
        "-mcpu=cortex-m3",
        "-mthumb",
        "-Os",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-ffreestanding",
    ]);
    gcc.args([
        "-ffunction-sections",
        "-nostdlib",
        "-Wl,--gc-sections",
        "-Iinclude",
        "-Texamples/bare/link.ld",
    ]);
    gcc.args(["examples/bare/gateway.c", "examples/bare/startup.c"]);
    gcc.arg(folder.join(M3.target).join("chip/libcmiot_signer_capi.a")).arg("-o").arg(&image);
    gcc.current_dir(signer("capi"));
    succeeds(gcc).await;
    image
}

/// The host's time in Unix seconds.
fn now() -> u64 {
    cmiot_proxy::clock::Clock::system().now().as_secs()
}

/// A folder below `signer/`.
fn signer(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("signer").join(folder)
}

async fn succeeds(mut command: Command) {
    let output = within("a build", command.output()).await.expect("a program that `cargo xtask test` brings");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
