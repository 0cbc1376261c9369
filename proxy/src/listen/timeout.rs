//! How long a connection may take: an I/O wrapper that ends it when nothing comes, or nothing goes, for too long.
//!
//! | from | to | limit |
//! | --- | --- | --- |
//! | accept | first byte | `first_byte_timeout` |
//! | first byte of a request | its head is complete | `header` |
//! | last answer | next byte | `idle` |
//! | a write that does not proceed | it does | `body` |
//!
//! While a request is being answered, reading has no limit here: its body has one of its own, and the answer has the
//! deadline. hyper's own header time-out cannot do this, since it also ends connections that only rest. On HTTP/2 what
//! comes between requests (pings, window updates) is not the begin of one, so that `idle` goes on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::poll_on_wake::PollOnWake;
use crate::clock::grace;
use crate::config::Timeouts;

/// What a connection waits for, shared between its I/O and its requests.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// An [`Phase`] in the two lowest bits, and above them a number that grows with every change, so that a timer knows
    /// which one it was set for.
    phase: AtomicU64,
    active: AtomicUsize,
    http2: AtomicBool,
    timed_out: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    FirstByte,
    Head,
    Answering,
    Idle,
}

/// The bits that an [`Phase`] takes.
const AT_BITS: u32 = 2;

/// A request under way; the connection rests when the last one is dropped.
#[derive(Debug)]
pub(super) struct RequestGuard(Arc<ConnectionState>);

impl ConnectionState {
    /// A request's head is complete.
    pub(super) fn begin(self: &Arc<Self>, http2: bool) -> RequestGuard {
        self.http2.store(http2, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::AcqRel);
        self.change(Phase::Answering);
        RequestGuard(Arc::clone(self))
    }

    /// Whether the connection was ended for taking too long.
    pub(super) fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Whether a byte has come.
    pub(super) fn has_started(&self) -> bool {
        !matches!(self.phase(), Phase::FirstByte)
    }

    fn bytes_received(&self) {
        match self.phase() {
            Phase::FirstByte => self.change(Phase::Head),
            Phase::Idle if !self.http2.load(Ordering::Relaxed) => self.change(Phase::Head),
            _ => {}
        }
    }

    fn limit(&self, patience: &Timeouts) -> Option<Duration> {
        match self.phase() {
            Phase::FirstByte => Some(patience.first_byte),
            Phase::Head => Some(patience.header),
            Phase::Answering => None,
            Phase::Idle => Some(patience.idle),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) & ((1 << AT_BITS) - 1) {
            0 => Phase::FirstByte,
            1 => Phase::Head,
            2 => Phase::Answering,
            _ => Phase::Idle,
        }
    }

    /// How often it has changed.
    fn changes(&self) -> u64 {
        self.phase.load(Ordering::Acquire) >> AT_BITS
    }

    fn change(&self, to: Phase) {
        let next = |at: u64| ((at >> AT_BITS) + 1) << AT_BITS | to as u64;
        self.phase.update(Ordering::AcqRel, Ordering::Acquire, next);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.change(Phase::Idle);
        }
    }
}

/// A stream with limits.
#[derive(Debug)]
pub(super) struct TimeoutStream<S> {
    inner: S,
    phase: Arc<ConnectionState>,
    timeouts: Timeouts,
    read: Timer,
    /// None until a write does not proceed, as few ever do.
    write: Option<Timer>,
    /// What was read before and is read again.
    rewound: Vec<u8>,
}

/// A timer that is set once for each thing it waits for.
///
/// Moving tokio's own timer takes the lock of its wheel twice, a request. So it is moved forward at once, but back only
/// when it rings too early: once in `idle` instead of once a request.
#[derive(Debug)]
struct Timer {
    sleep: PollOnWake<Pin<Box<Sleep>>>,
    set_for: Option<u64>,
    due: Instant,
    /// It has fired late, and was prolonged.
    late: bool,
}

impl Timer {
    fn new() -> Self {
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        let due = sleep.deadline();
        Self { sleep: PollOnWake::new(sleep), set_for: None, due, late: false }
    }

    /// Ready when `limit` has passed since this was first asked for `what`.
    fn poll(&mut self, what: u64, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if self.set_for != Some(what) {
            (self.set_for, self.late) = (Some(what), false);
            self.due = Instant::now() + limit;
            if self.due < self.sleep.get().deadline() {
                self.sleep.change().as_mut().reset(self.due);
            }
        }
        loop {
            ready!(Pin::new(&mut self.sleep).poll(cx));
            if self.sleep.get().deadline() >= self.due {
                // Found expired after a pause of the process: what has come meanwhile may not be readable here yet.
                match grace(self.due).filter(|_| !self.late) {
                    Some(more) => (self.due, self.late) = (Instant::now() + more, true),
                    None => return Poll::Ready(()),
                }
            }
            self.sleep.change().as_mut().reset(self.due);
        }
    }
}

impl<S> TimeoutStream<S> {
    pub(super) fn new(inner: S, patience: Timeouts) -> Self {
        Self {
            inner,
            phase: Arc::default(),
            timeouts: patience,
            read: Timer::new(),
            write: None,
            rewound: Vec::new(),
        }
    }

    /// Puts what was read back before what comes.
    pub(super) fn rewind(&mut self, read: Vec<u8>) {
        self.rewound = read;
    }

    pub(super) fn phase(&self) -> Arc<ConnectionState> {
        Arc::clone(&self.phase)
    }

    fn timeout_error(&self) -> io::Error {
        self.phase.timed_out.store(true, Ordering::Relaxed);
        io::ErrorKind::TimedOut.into()
    }

    /// What came of a write: one that proceeds needs no timer, one that does not has a limit.
    fn poll_write_timeout<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if let Some(timer) = &mut self.write {
                timer.set_for = None;
            }
            return written;
        }
        ready!(self.write.get_or_insert_with(Timer::new).poll(0, self.timeouts.body, cx));
        Poll::Ready(Err(self.timeout_error()))
    }
}

impl<S: AsyncRead + Unpin> TimeoutStream<S> {
    /// What was read before, and what has come since: hyper would make its buffer larger for a first read of so little.
    fn poll_rewound(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut again = std::mem::take(&mut self.rewound);
        let fits = again.len().min(buf.remaining());
        buf.put_slice(&again[..fits]);
        if fits < again.len() {
            again.drain(..fits);
            self.rewound = again;
            return Poll::Ready(Ok(()));
        }
        match Pin::new(self).poll_read(cx, buf) {
            Poll::Pending => Poll::Ready(Ok(())),
            ready => ready,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.rewound.is_empty() {
            return self.poll_rewound(cx, buf);
        }
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buf) {
            if buf.filled().len() > before {
                self.phase.bytes_received();
            }
            return Poll::Ready(read);
        }
        let Some(limit) = self.phase.limit(&self.timeouts) else { return Poll::Pending };
        let change = self.phase.changes();
        ready!(self.read.poll(change, limit, cx));
        Poll::Ready(Err(self.timeout_error()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimeoutStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.poll_write_timeout(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.poll_write_timeout(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.poll_write_timeout(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.poll_write_timeout(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PATIENCE: Timeouts = Timeouts {
        first_byte: Duration::from_secs(1),
        header: Duration::from_secs(2),
        body: Duration::from_secs(3),
        idle: Duration::from_secs(100),
    };

    /// Reads until the limit ends it, and says how long that took on the paused clock.
    async fn reads_for(stream: &mut TimeoutStream<tokio::io::DuplexStream>) -> (Duration, io::ErrorKind) {
        let start = Instant::now();
        let mut some = [0; 16];
        loop {
            match stream.read(&mut some).await {
                Ok(0) => panic!("the peer stays"),
                Ok(_) => {}
                Err(error) => return (start.elapsed(), error.kind()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = TimeoutStream::new(near, PATIENCE);
        let phase = stream.phase();
        assert_eq!(reads_for(&mut stream).await, (PATIENCE.first_byte, io::ErrorKind::TimedOut));

        far.write_all(b"G").await.unwrap();
        assert_eq!(reads_for(&mut stream).await, (PATIENCE.header, io::ErrorKind::TimedOut));

        drop(phase.begin(false));
        assert_eq!(reads_for(&mut stream).await, (PATIENCE.idle, io::ErrorKind::TimedOut));
        assert!(phase.timed_out());
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_a_pause_has_made_late_reads_first() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = TimeoutStream::new(near, PATIENCE);
        let reading = tokio::spawn(async move {
            let mut some = [0; 16];
            stream.read(&mut some).await
        });
        tokio::task::yield_now().await;
        // Longer than `first_byte`; what came meanwhile is found after the timer.
        tokio::time::advance(Duration::from_secs(25)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        far.write_all(b"GET").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), 3);
    }

    #[tokio::test]
    async fn what_was_read_comes_again_with_what_follows_it() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = TimeoutStream::new(near, PATIENCE);
        far.write_all(b" / HTTP").await.unwrap();
        stream.rewind(b"GET".to_vec());
        let mut some = [0; 16];
        assert_eq!(stream.read(&mut some[..2]).await.unwrap(), 2);
        let read = stream.read(&mut some[2..]).await.unwrap();
        assert_eq!(&some[..2 + read], b"GET / HTTP");
        stream.rewind(b"X".to_vec());
        assert_eq!(stream.read(&mut some).await.unwrap(), 1, "nothing follows yet");
        drop(far);
        assert_eq!(stream.read(&mut some).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_does_not_prolong_a_head() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = TimeoutStream::new(near, PATIENCE);
        let dripping = tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        let (took, _) = reads_for(&mut stream).await;
        assert_eq!(took, PATIENCE.header);
        dripping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_its_time_but_must_be_read() {
        let (near, _far) = tokio::io::duplex(4);
        let mut stream = TimeoutStream::new(near, PATIENCE);
        let turn = stream.phase().begin(false);
        let mut some = [0; 4];
        let waited = tokio::time::timeout(Duration::from_secs(3_600), stream.read(&mut some)).await;
        assert!(waited.is_err(), "no limit while answering");
        let start = Instant::now();
        let stuck = stream.write_all(b"an answer that is not read").await.unwrap_err();
        assert_eq!((start.elapsed(), stuck.kind()), (PATIENCE.body, io::ErrorKind::TimedOut));
        drop(turn);
    }
}
