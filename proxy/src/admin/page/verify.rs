//! `POST /page/audit/verify`: verifies the audit in the background, one verification at a time; its last result stays.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, State};
use hyper::{Response, StatusCode};

use super::Parts;
use super::moment;
use super::see_other;
use super::view::{self, View, Viewer};
use crate::clock::Time;
use crate::language::{Language, Text, text};
use crate::printable::escape;
use crate::store::StoreError;
use crate::store::audit::anchor;
use crate::store::audit::verify::{Report, Scope, verify};

/// Damages that a page names.
const MAX_LINES: usize = 10;

/// The verification that runs, and the result of the last one.
#[derive(Clone, Default)]
pub(super) struct Verification(Arc<Mutex<State_>>);

#[derive(Default)]
struct State_ {
    /// Rows that are read, and all rows.
    running: Option<(u64, u64)>,
    last: Option<(Time, Outcome)>,
}

/// The result of a verification.
struct Outcome {
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
        let state = self.state();
        let said = |text: &Text| text.of(language).to_owned();
        if let Some((done, total)) = state.running {
            let text = text!("verifying: {done} of {total} rows", "正在校验：第 {done} 行，共 {total} 行");
            let percent = done.saturating_mul(100) / total.max(1);
            return Progress { is_running: true, percent, class: "", text: said(&text), lines: Vec::new() };
        }
        let (class, text, lines) = match &state.last {
            None => {
                let text = text!("not verified since the start of this process", "本进程启动以来没有校验过");
                ("hint", said(&text), Vec::new())
            }
            Some((at, outcome)) => {
                let at = moment::shown(*at);
                let class = if outcome.is_whole { "badge good" } else { "badge error" };
                (class, format!("{at}: {}", said(&outcome.text)), outcome.lines.clone())
            }
        };
        Progress { is_running: false, percent: 0, class, text, lines }
    }

    /// Whether this call starts one.
    fn start(&self) -> bool {
        let mut state = self.state();
        let starts = state.running.is_none();
        state.running.get_or_insert((0, 0));
        starts
    }

    fn state(&self) -> MutexGuard<'_, State_> {
        // Nothing under this lock can panic in the middle of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn start(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
) -> Response<Body> {
    if parts.verification.start() {
        parts.admin.note("verify", &viewer.who, "", None).await;
        let (verification, clock) = (parts.verification.clone(), parts.admin.relay.clock.clone());
        let dir = parts.admin.relay.config.load().store_dir.clone();
        tokio::task::spawn_blocking(move || {
            // Read before the segments: a later anchor would name rows that are not read.
            let report = anchors(&dir).and_then(|anchors| {
                let scope = Scope { anchors: &anchors, own_anchors: true, ..Scope::default() };
                verify(&dir, &scope, |done, total| verification.state().running = Some((done, total)))
            });
            let outcome = match report {
                Ok(report) => Outcome::of(&report),
                Err(error) => Outcome {
                    is_whole: false,
                    text: text!("the audit cannot be read: {error}", "无法读取审计：{error}"),
                    lines: Vec::new(),
                },
            };
            let mut state = verification.state();
            (state.running, state.last) = (None, Some((clock.now(), outcome)));
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

fn anchors(dir: &std::path::Path) -> Result<Vec<anchor::Anchor>, StoreError> {
    let log = dir.join(anchor::LOG);
    if log.exists() { Ok(anchor::read(&log)?.anchors) } else { Ok(Vec::new()) }
}

impl Outcome {
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
