//! The queue of the log: no event waits for standard error or fails because of it.
//!
//! The line of an event is copied into a bounded buffer, which a dedicated thread writes out. While standard error is a
//! full pipe, closed or on a full disk, lines that exceed the buffer are dropped and counted (`cmiot_log_lines_dropped_total`,
//! and a WARN once lines are written again). INFO and below may fill `CAPACITY`; WARN has a `RESERVE` in addition, and
//! ERROR and audit anchors have another one. Each line is made printable: one event is one line. A text line to the journal
//! begins with its priority (sd-daemon(3)), which journald removes and stores as a field.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::printable;

/// Bytes of lines that may wait: about 6,000 lines of requests.
const CAPACITY: usize = 1 << 20;

/// Further bytes for WARN, and as many again for ERROR and anchors.
const RESERVE: usize = 128 << 10;

/// Time to collect lines before they are written: the thread wakes at most a few hundred times per second.
const COLLECT: Duration = Duration::from_millis(2);

/// Time between writes to a descriptor that another process has made non-blocking.
const AGAIN: Duration = Duration::from_millis(10);

/// The log of this process, once it is set up.
static PROCESS: OnceLock<Log> = OnceLock::new();

/// A queue of lines and the thread that writes them; clones share both.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// There are lines to write.
    filled: Condvar,
    /// All lines have been written or dropped.
    written: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Whole lines.
    lines: Vec<u8>,
    /// The thread waits for `filled`.
    idle: bool,
    /// A batch is being written.
    writing: bool,
    /// Lines that exceeded the buffer or could not be written.
    dropped: u64,
}

/// Format of a line, which decides how it is escaped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogForm {
    /// Text; `true` with the colours of a terminal.
    Text(bool),
    /// Text for the journal: each line begins with its priority.
    Journal,
    /// A JSON object per line.
    Json,
}

/// Makes the writers of events, for `tracing-subscriber`.
#[derive(Clone)]
pub struct Lines {
    log: Log,
    form: LogForm,
}

/// Receives the line of one event.
pub struct Line<'a> {
    lines: &'a Lines,
    /// The priority of the event's level, or nothing.
    prefix: &'static str,
    limit: usize,
}

impl Log {
    /// The log of the process, to standard error. Only the first call has an effect.
    ///
    /// # Errors
    /// When no descriptor or thread is free.
    pub fn to_stderr() -> io::Result<Self> {
        // A separate descriptor: a write that blocks holds no lock that the message of a panic needs.
        let log = Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))?;
        Ok(PROCESS.get_or_init(|| log).clone())
    }

    /// A log whose thread writes to `sink`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn to(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), written: Condvar::new() });
        let log = Self { shared: Arc::clone(&shared) };
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_to(sink))?;
        Ok(log)
    }

    pub fn lines(&self, form: LogForm) -> Lines {
        Lines { log: self.clone(), form }
    }

    /// Waits until all lines are written, for at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let queue = self.shared.lock();
        // After the timeout there is nothing to do about the lines that remain.
        let _ = self
            .shared
            .written
            .wait_timeout_while(queue, timeout, |queue| queue.writing || !queue.lines.is_empty());
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Queues one line, with its line break, unless more than `limit` bytes would wait.
    fn push(&self, prefix: &str, line: &[u8], limit: usize) {
        let mut queue = self.shared.lock();
        if queue.lines.len().saturating_add(prefix.len()).saturating_add(line.len()) > limit {
            queue.dropped = queue.dropped.saturating_add(1);
            return;
        }
        queue.lines.extend_from_slice(prefix.as_bytes());
        queue.lines.extend_from_slice(line);
        if std::mem::take(&mut queue.idle) {
            drop(queue);
            self.shared.filled.notify_one();
        }
    }
}

/// Whether a stream leads to the systemd journal: `JOURNAL_STREAM` has the device and the inode of the stream that
/// systemd has opened. The variable alone says nothing, since a child may have redirected its streams
/// (systemd.exec(5)).
pub fn is_journal(stream: impl AsFd) -> bool {
    let Some(named) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    rustix::fs::fstat(stream).is_ok_and(|found| is_stream(&named, found.st_dev, found.st_ino))
}

/// Whether `DEVICE:INODE`, in decimal digits, names this file.
fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    let Some((named_device, named_inode)) = named.split_once(':') else { return false };
    named_device.parse() == Ok(device) && named_inode.parse() == Ok(inode)
}

/// The prefix by which journald takes the priority of a line (sd-daemon(3); the numbers are those of syslog(3)).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// A text for standard error, of one line or several: with the priority before each line if standard error leads to the
/// journal, and unchanged otherwise.
pub fn for_stderr(text: &str, level: Level) -> Cow<'_, str> {
    if is_journal(io::stderr()) { Cow::Owned(prefixed(text, level)) } else { Cow::Borrowed(text) }
}

/// The text with the priority before each line.
fn prefixed(text: &str, level: Level) -> String {
    let lines: Vec<_> = text.split('\n').map(|line| format!("{}{line}", priority(level))).collect();
    lines.join("\n")
}

/// Lines of the process's log that were dropped.
pub fn dropped() -> u64 {
    PROCESS.get().map_or(0, Log::dropped)
}

/// Waits until the process's log is written, for at most `timeout`.
pub fn flush(timeout: Duration) {
    if let Some(log) = PROCESS.get() {
        log.flush(timeout);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can panic half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: takes the lines that were collected, and writes them.
    fn write_to(&self, mut sink: impl Write) {
        let (mut batch, mut torn, mut reported) = (Vec::new(), false, 0);
        loop {
            self.take(&mut batch);
            let result = write_all(&mut sink, &batch, &mut torn);
            let dropped = {
                let mut queue = self.lock();
                queue.dropped = queue.dropped.saturating_add(result.err().unwrap_or(0));
                queue.writing = false;
                queue.dropped
            };
            if result.is_ok() && dropped > reported {
                tracing::warn!(
                    dropped = dropped - reported,
                    "lines of the log were dropped: standard error could not be written, or not fast enough"
                );
                reported = dropped;
            }
        }
    }

    /// Waits for lines, collects more for a moment, and takes them.
    fn take(&self, batch: &mut Vec<u8>) {
        batch.clear();
        let mut queue = self.lock();
        while queue.lines.is_empty() {
            self.written.notify_all();
            queue.idle = true;
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.idle = false;
        drop(queue);
        thread::sleep(COLLECT);
        let mut queue = self.lock();
        std::mem::swap(&mut queue.lines, batch);
        queue.writing = true;
    }
}

/// Writes whole lines; an error has the number of those that were not written. `torn` tells whether the last line was
/// written in part: then the next one starts after a line break.
fn write_all(sink: &mut impl Write, batch: &[u8], torn: &mut bool) -> Result<(), u64> {
    let mut rest = batch;
    let mut start: &[u8] = if *torn { b"\n" } else { b"" };
    while !rest.is_empty() {
        let next = if start.is_empty() { rest } else { start };
        match sink.write(next) {
            Ok(0) => return Err(count(rest)),
            Ok(written) if start.is_empty() => {
                *torn = rest[written - 1] != b'\n';
                rest = &rest[written..];
            }
            Ok(_) => (start, *torn) = (b"", false),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
                _ => return Err(count(rest)),
            },
        }
    }
    Ok(())
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, prefix: self.form.prefix(Level::INFO), limit: CAPACITY }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        let prefix = self.form.prefix(*event.level());
        let limit = match *event.level() {
            Level::ERROR => CAPACITY + 2 * RESERVE,
            Level::WARN => CAPACITY + RESERVE,
            // In the log auditors find the anchors that no process of this machine can change.
            Level::INFO if event.fields().field("anchor").is_some() => CAPACITY + 2 * RESERVE,
            _ => CAPACITY,
        };
        Line { lines: self, prefix, limit }
    }
}

impl Write for Line<'_> {
    /// Receives an event as `tracing-subscriber` writes it: whole, in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = event.strip_suffix(b"\n").unwrap_or(event);
        match self.lines.form.printable(line) {
            None => self.lines.log.push(self.prefix, event, self.limit),
            Some(mut line) => {
                line.push('\n');
                self.lines.log.push(self.prefix, line.as_bytes(), self.limit);
            }
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogForm {
    /// The text before each line of an event of this level.
    fn prefix(self, level: Level) -> &'static str {
        if self == Self::Journal { priority(level) } else { "" }
    }

    /// The escaped line, if it needs escapes.
    fn printable(self, line: &[u8]) -> Option<String> {
        if line.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return None;
        }
        let text = String::from_utf8_lossy(line);
        let escaped = match self {
            Self::Json => printable::escape_json(&text),
            Self::Text(false) | Self::Journal => printable::escape(&text),
            // Escape characters are the subscriber's own colours: it escapes those of others itself.
            Self::Text(true) => {
                let parts: Vec<_> = text.split('\x1b').map(printable::escape).collect();
                Cow::Owned(parts.join("\x1b"))
            }
        };
        Some(escaped.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A sink that accepts a batch, or fails, when the test says so.
    struct Gate {
        open: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().unwrap_or(Ok(()))?;
            let _ = self.written.send(bytes.to_vec()); // a test that has ended
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Log, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let ((open, gate), (written, sink)) = (channel(), channel());
        (Log::to(Gate { open: gate, written }).unwrap(), open, sink)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_blocked_sink_blocks_no_event_and_takes_limited_memory() {
        let (log, open, sink) = gated();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        // The first batch waits in the sink; far more lines than fit follow.
        for _ in 0..8 * CAPACITY / line.len() {
            log.push("", &line, CAPACITY);
        }
        let before = log.dropped();
        assert!(before > 0);
        log.push("", b"warning\n", CAPACITY + RESERVE);
        log.push("", b"anchor\n", CAPACITY + 2 * RESERVE);
        assert_eq!(log.dropped(), before, "the reserve is free when INFO has no space");
        log.flush(Duration::from_millis(1));
        drop(open);
        log.flush(LONG);
        let text: Vec<u8> = sink.try_iter().flatten().collect();
        assert!(text.ends_with(b"\nwarning\nanchor\n"));
        assert_eq!(count(&text) + log.dropped(), 8 * CAPACITY as u64 / line.len() as u64 + 2);
        assert!(text.len() <= 2 * (CAPACITY + 2 * RESERVE));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_later_ones_written() {
        let (log, open, sink) = gated();
        log.push("", b"one\n", CAPACITY);
        open.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        log.flush(LONG);
        assert_eq!(log.dropped(), 1);
        log.push("", b"two\n", CAPACITY);
        open.send(Err(io::ErrorKind::WouldBlock.into())).unwrap();
        open.send(Ok(())).unwrap();
        assert_eq!(sink.recv_timeout(LONG).unwrap(), b"two\n");
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn the_line_after_a_torn_one_starts_after_a_line_break() {
        /// A disk of limited size.
        struct Disk(Vec<u8>, usize);
        impl Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let fits = bytes.len().min(self.1 - self.0.len());
                self.0.extend_from_slice(&bytes[..fits]);
                if fits == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(fits) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut disk, mut torn) = (Disk(Vec::new(), 6), false);
        assert_eq!(write_all(&mut disk, b"one\ntwo\nthree\n", &mut torn), Err(2));
        assert_eq!(write_all(&mut disk, b"four\n", &mut torn), Err(1));
        disk.1 = 100;
        assert_eq!(write_all(&mut disk, b"five\n", &mut torn), Ok(()));
        assert_eq!(disk.0, b"one\ntw\nfive\n");
    }

    #[test]
    fn a_stream_is_the_journal_by_device_and_inode() {
        assert!(is_stream("8:4711", 8, 4711));
        for other in ["8:4712", "9:4711", "8", "", ":", "8:4711:1", "0x8:4711"] {
            assert!(!is_stream(other, 8, 4711), "{other}");
        }
    }

    #[test]
    fn each_line_to_the_journal_begins_with_the_priority_of_its_level() {
        use tracing::subscriber::with_default;
        /// The lines of one event per level.
        fn written(form: LogForm) -> String {
            let (log, open, sink) = gated();
            drop(open);
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(Level::TRACE)
                .with_writer(log.lines(form))
                .with_ansi(false)
                .without_time()
                .with_target(false)
                .finish();
            with_default(subscriber, || {
                tracing::error!("one\n<0>two");
                tracing::warn!("three");
                tracing::info!("four");
                tracing::debug!("five");
                tracing::trace!("six");
            });
            log.flush(LONG);
            String::from_utf8(sink.try_iter().flatten().collect()).unwrap()
        }
        assert_eq!(
            written(LogForm::Journal),
            "<3>ERROR one\\n<0>two\n<4> WARN three\n<6> INFO four\n<7>DEBUG five\n<7>TRACE six\n"
        );
        let text = written(LogForm::Text(false));
        assert!(text.starts_with("ERROR one") && text.contains("\n WARN three\n"), "{text}");
        assert_eq!(prefixed("a\nb", Level::ERROR), "<3>a\n<3>b");
    }

    #[test]
    fn an_event_is_one_printable_line() {
        assert_eq!(LogForm::Text(false).printable(b"plain"), None);
        let shown = |form: LogForm, line: &str| form.printable(line.as_bytes()).unwrap();
        assert_eq!(shown(LogForm::Text(false), "a\nb\x1b[2K\u{202e}"), "a\\nb\\u{1b}[2K\\u{202e}");
        assert_eq!(shown(LogForm::Text(true), "\x1b[32mINFO\x1b[0m a\nb"), "\x1b[32mINFO\x1b[0m a\\nb");
        assert_eq!(shown(LogForm::Json, "{\"a\":\"\u{202e}\"}"), "{\"a\":\"\\u202e\"}");
    }
}
