//! An I/O wrapper that enforces read and write timeouts on a connection.
//!
//! | from | to | timeout |
//! | --- | --- | --- |
//! | accept | first byte | `first_byte_timeout` |
//! | first byte of a request | its head is complete | `header` |
//! | last response | next byte | `idle` |
//! | a write that blocks | it proceeds | `body` |
//!
//! While a request is served, reads have no timeout here: its body has one of its own, and its response has the deadline.
//! hyper's own header timeout does not fit, since it also ends idle connections. On HTTP/2, input between requests (pings,
//! window updates) does not start a request, so that `idle` continues.

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

/// The state of a connection, shared by its I/O and its requests.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// A [`Phase`] in the two lowest bits, and above them the number of changes, which identifies the phase that a timer was
    /// set for.
    phase: AtomicU64,
    active: AtomicUsize,
    http2: AtomicBool,
    timed_out: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    FirstByte,
    Head,
    Serving,
    Idle,
}

/// The bits that a [`Phase`] takes.
const PHASE_BITS: u32 = 2;

/// A request in flight; the connection is idle once the last guard is dropped.
#[derive(Debug)]
pub(super) struct RequestGuard(Arc<ConnectionState>);

impl ConnectionState {
    /// Starts a request, whose head is complete.
    pub(super) fn begin(self: &Arc<Self>, http2: bool) -> RequestGuard {
        self.http2.store(http2, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::AcqRel);
        self.change(Phase::Serving);
        RequestGuard(Arc::clone(self))
    }

    /// Whether no request is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.active.load(Ordering::Acquire) == 0
    }

    /// Whether a timeout ended the connection.
    pub(super) fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Whether a byte was received.
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

    fn timeout(&self, timeouts: &Timeouts) -> Option<Duration> {
        match self.phase() {
            Phase::FirstByte => Some(timeouts.first_byte),
            Phase::Head => Some(timeouts.header),
            Phase::Serving => None,
            Phase::Idle => Some(timeouts.idle),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) & ((1 << PHASE_BITS) - 1) {
            0 => Phase::FirstByte,
            1 => Phase::Head,
            2 => Phase::Serving,
            _ => Phase::Idle,
        }
    }

    /// The number of changes of the phase.
    fn changes(&self) -> u64 {
        self.phase.load(Ordering::Acquire) >> PHASE_BITS
    }

    fn change(&self, to: Phase) {
        let next = |now: u64| ((now >> PHASE_BITS) + 1) << PHASE_BITS | to as u64;
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

/// A stream with timeouts.
#[derive(Debug)]
pub(super) struct TimeoutStream<S> {
    inner: S,
    state: Arc<ConnectionState>,
    timeouts: Timeouts,
    read: Timer,
    /// `None` until a write blocks, which is rare.
    write: Option<Timer>,
    /// Bytes that were read before and are read again.
    rewound: Vec<u8>,
}

/// A timer that is set once per phase.
///
/// A reset of tokio's timer takes the lock of its wheel, twice per request. So an earlier deadline is set at once, but a
/// later one only when the timer fires too early: once per `idle` timeout instead of once per request.
#[derive(Debug)]
struct Timer {
    sleep: PollOnWake<Pin<Box<Sleep>>>,
    set_for: Option<u64>,
    due: Instant,
    /// It fired late, and was extended.
    late: bool,
}

impl Timer {
    fn new() -> Self {
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        let due = sleep.deadline();
        Self { sleep: PollOnWake::new(sleep), set_for: None, due, late: false }
    }

    /// Ready when `timeout` has passed since the first call with this `phase`.
    fn poll(&mut self, phase: u64, timeout: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if self.set_for != Some(phase) {
            (self.set_for, self.late) = (Some(phase), false);
            self.due = Instant::now() + timeout;
            if self.due < self.sleep.get().deadline() {
                self.sleep.change().as_mut().reset(self.due);
            }
        }
        loop {
            ready!(Pin::new(&mut self.sleep).poll(cx));
            if self.sleep.get().deadline() >= self.due {
                // Expired during a pause of the process: input that arrived meanwhile may not be readable here yet.
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
    pub(super) fn new(inner: S, timeouts: Timeouts) -> Self {
        Self { inner, state: Arc::default(), timeouts, read: Timer::new(), write: None, rewound: Vec::new() }
    }

    /// Puts bytes back in front of the input.
    pub(super) fn rewind(&mut self, read: Vec<u8>) {
        self.rewound = read;
    }

    pub(super) fn state(&self) -> Arc<ConnectionState> {
        Arc::clone(&self.state)
    }

    fn timeout_error(&self) -> io::Error {
        self.state.timed_out.store(true, Ordering::Relaxed);
        io::ErrorKind::TimedOut.into()
    }

    /// Passes on the result of a write; one that blocks has a timeout.
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
    /// Reads the bytes that were put back together with new input: after a short first read hyper would enlarge its buffer.
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
                self.state.bytes_received();
            }
            return Poll::Ready(read);
        }
        let Some(timeout) = self.state.timeout(&self.timeouts) else { return Poll::Pending };
        let phase = self.state.changes();
        ready!(self.read.poll(phase, timeout, cx));
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

    const TIMEOUTS: Timeouts = Timeouts {
        first_byte: Duration::from_secs(1),
        header: Duration::from_secs(2),
        body: Duration::from_secs(3),
        idle: Duration::from_secs(100),
    };

    /// Reads until a timeout, and returns the elapsed time of the paused clock.
    async fn reads_for(stream: &mut TimeoutStream<tokio::io::DuplexStream>) -> (Duration, io::ErrorKind) {
        let start = Instant::now();
        let mut some = [0; 16];
        loop {
            match stream.read(&mut some).await {
                Ok(0) => panic!("the peer has closed"),
                Ok(_) => {}
                Err(error) => return (start.elapsed(), error.kind()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_timeout() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = TimeoutStream::new(near, TIMEOUTS);
        let state = stream.state();
        assert_eq!(reads_for(&mut stream).await, (TIMEOUTS.first_byte, io::ErrorKind::TimedOut));

        far.write_all(b"G").await.unwrap();
        assert_eq!(reads_for(&mut stream).await, (TIMEOUTS.header, io::ErrorKind::TimedOut));

        drop(state.begin(false));
        assert_eq!(reads_for(&mut stream).await, (TIMEOUTS.idle, io::ErrorKind::TimedOut));
        assert!(state.timed_out());
    }

    #[tokio::test(start_paused = true)]
    async fn input_that_arrived_during_a_pause_is_read_before_the_timeout() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = TimeoutStream::new(near, TIMEOUTS);
        let reading = tokio::spawn(async move {
            let mut some = [0; 16];
            stream.read(&mut some).await
        });
        tokio::task::yield_now().await;
        // Longer than `first_byte`; the input is found after the timer.
        tokio::time::advance(Duration::from_secs(25)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        far.write_all(b"GET").await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), 3);
    }

    #[tokio::test]
    async fn rewound_bytes_are_read_together_with_new_input() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = TimeoutStream::new(near, TIMEOUTS);
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
    async fn slow_bytes_do_not_extend_the_timeout_of_a_head() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = TimeoutStream::new(near, TIMEOUTS);
        let sending = tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        let (took, _) = reads_for(&mut stream).await;
        assert_eq!(took, TIMEOUTS.header);
        sending.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_may_take_long_but_must_be_read() {
        let (near, _far) = tokio::io::duplex(4);
        let mut stream = TimeoutStream::new(near, TIMEOUTS);
        let guard = stream.state().begin(false);
        let mut some = [0; 4];
        let waited = tokio::time::timeout(Duration::from_secs(3_600), stream.read(&mut some)).await;
        assert!(waited.is_err(), "no timeout while a request is served");
        let start = Instant::now();
        let blocked = stream.write_all(b"a response that is not read").await.unwrap_err();
        assert_eq!((start.elapsed(), blocked.kind()), (TIMEOUTS.body, io::ErrorKind::TimedOut));
        drop(guard);
    }
}
