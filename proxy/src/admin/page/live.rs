//! `/page/live`: lookups as they are committed, with a filter. Without scripts it shows the last hundred rows.
//!
//! One task reads the newest rows for all viewers, twice per second, while there is a viewer. It reads at most [`MOST`] rows
//! at once; a viewer that falls behind misses reads. The rows that a viewer has missed are counted by their numbers, so that
//! no more lookups are missing than the page says. The path of a lookup does nothing for it.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use bytes::Bytes;
use hyper::body::Frame;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::Parts;
use super::audit::explain;
use super::moment;
use super::rows::Table;
use super::view::{self, View, Viewer, encoded};
use super::words;
use crate::audit::filter;
use crate::config::file::Role;
use crate::outcome::Outcome;
use crate::printable::escape;
use crate::store::audit::query::{self, Filter, LOOKUP, NewRows, Tail, TailRow};

/// The interval of reads.
const INTERVAL: Duration = Duration::from_millis(500);
/// Rows of one read.
const MOST: i64 = 200;
/// Reads that a viewer may be behind.
const BEHIND: usize = 8;
/// Messages that wait for a viewer's connection.
const QUEUED: usize = 4;
/// Streams at once.
const MAX_VIEWERS: usize = 32;
/// Lookups of the page without scripts.
const PAGE: usize = 100;
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Reads without a message after which a stream shows that it is alive.
const QUIET: u32 = 30;

/// The task that reads for all viewers.
pub(super) struct Live {
    reads: broadcast::Sender<Arc<Read>>,
    /// Whether the task runs. It ends under this lock, after it has seen that there is no viewer.
    is_reading: Mutex<bool>,
}

/// One read, for all viewers.
struct Read {
    new: NewRows,
    /// All of its rows as HTML, which the first viewer without a filter renders.
    html: OnceLock<String>,
}

impl Read {
    /// The rows that a filter takes, as HTML, and their number.
    fn html(&self, asked: &Asked) -> (Cow<'_, str>, u64) {
        if asked.takes_all() {
            let html = self.html.get_or_init(|| rendered(self.new.rows.iter()));
            return (Cow::Borrowed(html), self.new.rows.len() as u64);
        }
        let taken: Vec<_> = self.new.rows.iter().filter(|row| asked.takes(row)).collect();
        let rows = taken.len() as u64;
        (Cow::Owned(rendered(taken.into_iter())), rows)
    }
}

/// Rows as HTML, newest first.
fn rendered<'a>(rows: impl DoubleEndedIterator<Item = &'a TailRow>) -> String {
    // A String takes any text: rendering does not fail.
    LiveRows { rows: rows.rev().map(Shown::of).collect() }.render().unwrap_or_default()
}

impl Live {
    pub(super) fn new() -> Self {
        Self { reads: broadcast::channel(BEHIND).0, is_reading: Mutex::default() }
    }

    /// Whether the caller has to start the task: a viewer that has subscribed before is never without one.
    fn starts(&self) -> bool {
        !std::mem::replace(&mut *self.is_reading(), true)
    }

    /// Whether the task ends, since there is no viewer, or for another reason.
    fn ends(&self, is_over: bool) -> bool {
        let mut is_reading = self.is_reading();
        let ends = is_over || self.reads.receiver_count() == 0;
        if ends {
            *is_reading = false;
        }
        ends
    }

    fn is_reading(&self) -> MutexGuard<'_, bool> {
        self.is_reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    client: String,
    outcome: String,
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    view: View,
    asked: Asked,
    outcomes: Vec<(&'static str, String)>,
    table: Table,
    problem: Option<String>,
    stream: String,
    reload: String,
    csv: String,
}

#[derive(Template)]
#[template(path = "live_rows.html")]
struct LiveRows<'a> {
    rows: Vec<Shown<'a>>,
}

/// A lookup, for its template.
struct Shown<'a> {
    row: &'a TailRow,
    time: String,
    client: String,
    latency: String,
}

impl Asked {
    fn takes_all(&self) -> bool {
        self.client.trim().is_empty() && self.outcome.is_empty()
    }

    fn takes(&self, row: &TailRow) -> bool {
        let client = self.client.trim();
        (client.is_empty() || row.client.as_deref() == Some(client))
            && (self.outcome.is_empty() || *self.outcome == *row.outcome)
    }

    fn query(&self) -> String {
        format!("client={}&outcome={}", encoded(&self.client), encoded(&self.outcome))
    }
}

pub(super) async fn show(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let filter = filter::checked(Filter {
        client: some(&asked.client),
        outcome: some(&asked.outcome),
        ..Filter::default()
    });
    let found = match filter {
        Ok(filter) => {
            let read = parts
                .read(PAGE_TIMEOUT, move |dir, deadline| query::lookups(dir, &filter, PAGE, Some(deadline)));
            let problem = |error| explain(&error).of(viewer.language).to_owned();
            read.await.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, problem(error)))
        }
        Err(problem) => Err((StatusCode::BAD_REQUEST, problem.of(viewer.language).to_owned())),
    };
    let status = found.as_ref().map_or_else(|(status, _)| *status, |_| StatusCode::OK);
    let (rows, problem) = found.map_or_else(|(_, problem)| (Vec::new(), Some(problem)), |rows| (rows, None));
    let page = LivePage {
        outcomes: Outcome::ALL
            .map(|outcome| (outcome.name(), words::of_outcome(outcome.name()).of(viewer.language).to_owned()))
            .into(),
        table: Table::of(LOOKUP, &rows, viewer.language),
        problem,
        stream: format!("/page/live/stream?{}", asked.query()),
        reload: format!("/page/live?{}", asked.query()),
        csv: format!("/page/audit?{}&format=csv", asked.query()),
        asked,
        view: viewer.view(),
    };
    view::html(status, &page)
}

/// The stream of new lookups (text/event-stream, HTML 9.2): events `rows`, and `dropped` with the greatest number of lookups
/// that this viewer can have missed so far.
pub(super) async fn stream(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    if parts.live.reads.receiver_count() >= MAX_VIEWERS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    let reads = parts.live.reads.subscribe();
    if parts.live.starts() {
        // A task of its own at once: this request may be cancelled at any await.
        let (ready, at_end) = oneshot::channel();
        tokio::spawn(read(Arc::clone(&parts), ready));
        // The response comes after it, so that a lookup after the response is among the new rows.
        let _ = at_end.await;
    }
    let (sender, receiver) = mpsc::channel(QUEUED);
    tokio::spawn(send(parts, viewer, asked, reads, sender));
    let mut response = Response::new(Body::new(Messages(receiver)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// Reads the rows after the present end of the audit while there is a viewer; `ready` receives a message when that end is
/// known.
async fn read(parts: Arc<Parts>, ready: oneshot::Sender<()>) {
    let dir = parts.admin.relay.config.load().store_dir.clone();
    let of = dir.clone();
    let mut tail = tokio::task::spawn_blocking(move || Tail::new(&of)).await.ok().and_then(Result::ok);
    let _ = ready.send(()); // the request may be gone
    let mut is_over = false;
    while !parts.live.ends(is_over) {
        let (from, dir) = (tail.take(), dir.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let mut tail = match from {
                Some(tail) => tail,
                None => Tail::new(&dir)?,
            };
            let rows = tail.read(MOST)?;
            Ok::<_, crate::store::StoreError>((tail, rows))
        });
        match reading.await {
            Ok(Ok((at, rows))) => {
                tail = Some(at);
                // Without a receiver the loop ends.
                let _ = parts.live.reads.send(Arc::new(Read { new: rows, html: OnceLock::new() }));
            }
            Ok(Err(error)) => tracing::debug!(%error, "the live page cannot read the audit"),
            Err(_) => is_over = true,
        }
        let pause = parts.admin.stop.run_until_cancelled(tokio::time::sleep(INTERVAL));
        is_over |= pause.await.is_none();
    }
}

/// Sends the rows that a viewer's filter takes, until it leaves, its session ends or the proxy stops.
async fn send(
    parts: Arc<Parts>,
    viewer: Arc<Viewer>,
    asked: Asked,
    mut reads: broadcast::Receiver<Arc<Read>>,
    sender: mpsc::Sender<Bytes>,
) {
    let (mut dropped, mut told, mut quiet) = (0_u64, 0_u64, 0_u32);
    // The last row that was shown or counted.
    let mut seen = None;
    // Shows at once that the stream has started.
    let mut pending = Some((": started\n\n".to_owned(), 0));
    loop {
        if let Some((message, rows)) = pending.take() {
            // A connection that does not keep up misses rows, and holds none of them here.
            match sender.try_send(Bytes::from(message)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => (dropped, told) = (dropped + rows, u64::MAX),
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
        let received = tokio::select! {
            received = reads.recv() => received,
            () = sender.closed() => return,
            () = parts.admin.stop.cancelled() => return,
        };
        let is_open = viewer.session.is_none_or(|id| parts.sessions.is_open(id));
        if !is_open || !viewer.still_has(&parts.admin, Role::Audit) {
            return;
        }
        let read = match received {
            Ok(read) => read,
            // The next read says by its first row how many were missed.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        dropped += missed(seen, &read.new);
        seen = Some(read.new.last);
        let mut message = String::new();
        let (html, rows) = read.html(&asked);
        if rows > 0 {
            event(&mut message, "rows", &html);
        }
        if dropped != told {
            told = dropped;
            event(&mut message, "dropped", &dropped.to_string());
        }
        quiet = if message.is_empty() { quiet + 1 } else { 0 };
        if quiet >= QUIET {
            quiet = 0;
            message.push_str(": alive\n\n");
        }
        pending = Some((message, rows)).filter(|(message, _)| !message.is_empty());
    }
}

/// The rows between those that a viewer has seen and a read.
fn missed(seen: Option<i64>, new: &NewRows) -> u64 {
    u64::try_from(new.first - 1 - seen.unwrap_or(new.after)).unwrap_or_default()
}

impl<'a> Shown<'a> {
    fn of(row: &'a TailRow) -> Self {
        Self {
            time: moment::shown(row.at),
            client: row.client.as_deref().map(|client| escape(client).into_owned()).unwrap_or_default(),
            latency: format!("{:.1}", row.latency as f64 / 1_000.0),
            row,
        }
    }
}

fn event(to: &mut String, name: &str, data: &str) {
    to.push_str(&format!("event: {name}\n"));
    for line in data.lines() {
        to.push_str(&format!("data: {line}\n"));
    }
    to.push('\n');
}

/// The messages of a stream as the content of its response.
struct Messages(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Messages {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_misses_the_rows_between_two_reads_that_it_has_received() {
        let read = |after, first, last| NewRows { rows: Vec::new(), after, first, last };
        assert_eq!(missed(None, &read(100, 101, 150)), 0, "the first read of a viewer");
        assert_eq!(missed(None, &read(100, 301, 500)), 200, "rows that were not read");
        assert_eq!(missed(Some(500), &read(500, 501, 500)), 0, "no new row");
        assert_eq!(missed(Some(500), &read(900, 901, 1_000)), 400, "a read that it has not received");
        assert_eq!(missed(Some(500), &read(900, 1_001, 1_200)), 500, "both");
    }
}
