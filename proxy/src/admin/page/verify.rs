//! `POST /page/audit/verify`: verifies the audit in the background, one verification at a time; its last result stays.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, State};
use hyper::{Response, StatusCode};

use super::Parts;
use super::moment;
use super::see_other;
use super::view::{self, View, Viewer};
use crate::clock::{Clock, Time};
use crate::language::{Language, Text, text};
use crate::printable::escape;
use crate::store::StoreError;
use crate::store::audit::anchor;
use crate::store::audit::verify::{Report, Scope, verify};

/// Damages that a page names.
const MAX_LINES: usize = 10;

/// The verification that runs, and the result of the last one.
#[derive(Clone, Default)]
pub(super) struct Verification(Arc<Mutex<Job>>);

#[derive(Default)]
struct Job {
    /// Rows that are read, and all rows.
    running: Option<(u64, u64)>,
    last: Option<(Time, Verdict)>,
}

/// The result of a verification.
struct Verdict {
    is_whole: bool,
    text: Text,
    lines: Vec<String>,
}

/// The verification, for its template.
pub(super) struct Progress {
    pub(super) is_running: bool,
    pub(super) percent: u64,
    pub(super) class: &'static str,
    pub(super) text: String,
    pub(super) lines: Vec<String>,
}

#[derive(Template)]
#[template(path = "verification_part.html")]
struct Part {
    view: View,
    verification: Progress,
}

impl Verification {
    /// The state, in words.
    pub(super) fn progress(&self, language: Language) -> Progress {
        let job = self.job();
        let said = |text: &Text| text.of(language).to_owned();
        if let Some((done, total)) = job.running {
            let text = text!("verifying: {done} of {total} rows", "正在校验：第 {done} 行，共 {total} 行");
            let percent = done.saturating_mul(100) / total.max(1);
            return Progress { is_running: true, percent, class: "", text: said(&text), lines: Vec::new() };
        }
        let (class, text, lines) = match &job.last {
            None => {
                let text = text!("not verified since the start of this process", "本进程启动以来没有校验过");
                ("hint", said(&text), Vec::new())
            }
            Some((at, verdict)) => {
                let at = moment::shown(*at);
                let class = if verdict.is_whole { "badge good" } else { "badge error" };
                (class, format!("{at}: {}", said(&verdict.text)), verdict.lines.clone())
            }
        };
        Progress { is_running: false, percent: 0, class, text, lines }
    }

    /// The verification that this call starts; none while another one runs.
    fn start(&self) -> Option<Running> {
        let mut job = self.job();
        if job.running.is_some() {
            return None;
        }
        job.running = Some((0, 0));
        Some(Running(self.clone()))
    }

    fn job(&self) -> MutexGuard<'_, Job> {
        // Nothing under this lock can panic in the middle of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A verification that runs. When it is dropped another one may start.
struct Running(Verification);

impl Running {
    /// Verifies the audit, and keeps the verdict. Blocks.
    fn run(self, dir: &Path, clock: &Clock) {
        // Read before the segments: a later anchor would name rows that are not read.
        let report = anchors(dir).and_then(|anchors| {
            let scope = Scope { anchors: &anchors, own_anchors: true, ..Scope::default() };
            verify(dir, &scope, |done, total| self.0.job().running = Some((done, total)))
        });
        let verdict = match report {
            Ok(report) => Verdict::of(&report),
            Err(error) => Verdict {
                is_whole: false,
                text: text!("the audit cannot be read: {error}", "无法读取审计：{error}"),
                lines: Vec::new(),
            },
        };
        self.0.job().last = Some((clock.now(), verdict));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.job().running = None;
    }
}

pub(super) async fn start(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
) -> Response<Body> {
    if let Some(running) = parts.verification.start() {
        // A task of its own at once: this request may be cancelled at any await.
        tokio::spawn(async move {
            parts.admin.note("verify", &viewer.who, "", None).await;
            let clock = parts.admin.relay.clock.clone();
            let dir = parts.admin.relay.config.load().store_dir.clone();
            tokio::task::spawn_blocking(move || running.run(&dir, &clock));
        });
    }
    see_other("/page/audit#verification")
}

/// The part of the page that refreshes itself.
pub(super) async fn show(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
) -> Response<Body> {
    let verification = parts.verification.progress(viewer.language);
    view::html(StatusCode::OK, &Part { view: viewer.view(), verification })
}

fn anchors(dir: &Path) -> Result<Vec<anchor::Anchor>, StoreError> {
    let log = dir.join(anchor::LOG);
    if log.exists() { Ok(anchor::read(&log)?.anchors) } else { Ok(Vec::new()) }
}

impl Verdict {
    fn of(report: &Report) -> Self {
        let (rows, anchors, damages) = (report.rows, report.anchors, report.damage.len());
        let is_whole = report.damage.is_empty() && !report.segments.is_empty();
        let text = match is_whole {
            true => text!(
                "chain ok: {rows} rows, {anchors} anchors of the folder compared",
                "哈希链完好：{rows} 行，已比对目录自身的 {anchors} 个锚点"
            ),
            false => text!(
                "chain DAMAGED: {damages} findings in {rows} rows; `cmiot-proxy audit verify` prints them",
                "哈希链已损坏：{rows} 行中发现 {damages} 处；`cmiot-proxy audit verify` 会全部列出"
            ),
        };
        let lines = report.damage.iter().take(MAX_LINES);
        let lines = lines.map(|damage| format!("{}: {}", damage.segment, escape(&damage.what)));
        Self { is_whole, text, lines: lines.collect() }
    }
}
