//! `cmiot-proxy demo --serve` and the screenshots of it in README and docs/page.md, which `cargo xtask screenshots` writes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::browser::{Browser, LARGE, SMALL, Settings};
use crate::pages::log_in;
use crate::support::{command, secrets, within};

/// The time for the history, on a machine with much other work.
const TIMEOUT: Duration = Duration::from_secs(480);

/// A screenshot: its file, its path, the size, and whether the theme is dark.
type Shot = (&'static str, &'static str, (u32, u32), bool);

/// The screenshots by language, each in both sizes and both themes.
const SHOTS: [(&str, [Shot; 4]); 2] = [
    (
        "en-US,en",
        [
            ("page-overview.png", "/#last-day", LARGE, false),
            ("page-accounts.dark.png", "/page/accounts", LARGE, true),
            ("page-live.small.png", "/page/live", SMALL, false),
            ("page-refusals.small.dark.png", "/page/refusals", SMALL, true),
        ],
    ),
    (
        "zh-CN,zh",
        [
            ("page-overview.zh-CN.png", "/", LARGE, false),
            ("page-audit.dark.zh-CN.png", "/page/audit?kind=notes", LARGE, true),
            ("page-accounts.small.zh-CN.png", "/page/accounts", SMALL, false),
            ("page-clients.zh-CN.png", "/page/clients", SMALL, true),
        ],
    ),
];

/// The greatest length of a file in the repository, in bytes.
const MAX_LENGTH: usize = 150 << 10;

#[tokio::test]
async fn the_demo_serves_a_page_with_a_month_of_history() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path()).await;
    let [lookups, calls] = demo.counts;
    assert!((5_000..=20_000).contains(&lookups), "{lookups} lookups");
    assert!(calls > 0 && calls < lookups, "{calls} calls of {lookups} lookups");
    // Every other test leaves the repository as it is.
    let to = std::env::var_os("CMIOT_SCREENSHOTS").map_or(folder.path().to_owned(), PathBuf::from);
    for (language, shots) in SHOTS {
        let settings = Settings { language, size: LARGE, dark: false, scripts: true };
        let browser = Browser::start(demo.page, settings).await;
        log_in(&browser, &demo.token).await;
        for (file, path, size, dark) in shots {
            browser.show_as(size, dark).await;
            browser.open(path).await;
            let png = browser.screenshot().await;
            assert!(png.starts_with(b"\x89PNG") && png.len() < MAX_LENGTH, "{file}: {} bytes", png.len());
            std::fs::write(to.join(file), png).unwrap();
        }
    }
    demo.interrupt().await;
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert!(left.iter().all(|one| one.path().extension().is_some_and(|it| it == "png")), "{left:?}");
}

/// A running `cmiot-proxy demo --serve`.
struct Demo {
    child: Child,
    page: std::net::SocketAddr,
    token: String,
    /// Lookups and carrier calls of the history.
    counts: [u32; 2],
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Demo {
    /// Starts it with this folder for its temporary files.
    async fn start(folder: &std::path::Path) -> Self {
        let mut command = command(folder);
        let mut child =
            command.args(["demo", "--serve"]).env("TMPDIR", folder).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let counts = line(&mut lines, |line| {
            let (lookups, rest) = line.split_once(" lookups, ")?;
            let calls = rest.strip_suffix(" carrier calls.")?;
            Some([lookups.parse().ok()?, calls.parse().ok()?])
        });
        let counts = counts.await;
        let address =
            |line: &str| line.strip_prefix("Operators' page http://")?.trim_end_matches('/').parse().ok();
        let page = line(&mut lines, address).await;
        let token = line(&mut lines, |line| line.strip_prefix("Token to log in ").map(str::to_owned)).await;
        secrets::register(&token);
        Self { child, page, token, counts, _lines: lines }
    }

    /// Ends it by Ctrl-C.
    async fn interrupt(&mut self) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
        assert!(within("the end", self.child.wait()).await.unwrap().success());
    }
}

/// The first line that `read` understands.
async fn line<T>(lines: &mut Lines<BufReader<ChildStdout>>, read: impl Fn(&str) -> Option<T>) -> T {
    let read = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(found) = read(&line) {
                return found;
            }
        }
        panic!("the demo ended");
    };
    tokio::time::timeout(TIMEOUT, read).await.expect("a line of the demo")
}
