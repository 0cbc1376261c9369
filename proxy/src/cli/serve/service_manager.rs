//! Messages to the service manager (sd_notify(3)): ready, reloading, stopping, status, watchdog.
//!
//! They are sent only if NOTIFY_SOCKET is set, as systemd sets it for `Type=notify-reload`. A message that cannot be sent
//! is logged, and changes nothing else.

use std::time::Duration;

use cmiot_proxy::printable;
use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;

/// Sets the text that `systemctl status` shows.
pub(super) fn status(text: &str) {
    send(&[NotifyState::Status(&line(text))]);
}

/// The proxy serves: after its start, and after a reload that [`reloading`] announced, whether or not it was accepted.
pub(super) fn ready(text: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&line(text))]);
}

/// A reload that a signal requested begins.
pub(super) fn reloading() {
    // systemd 253 and later compares this time with that of its signal, and waits without end if it is absent.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => {
            send(&[NotifyState::Reloading, now, NotifyState::Status("loading the changed configuration")]);
        }
        Err(error) => tracing::warn!(%error, "the service manager is not notified of the reload: no clock"),
    }
}

/// The drain begins.
pub(super) fn stopping(text: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(&line(text))]);
}

/// Pings the watchdog of the service manager twice per period, if it has one. Each ping follows the end of a new task, so
/// a runtime whose workers are all blocked sends none, and the process is restarted.
pub(super) fn watchdog() -> Option<AbortOnDropHandle<()>> {
    let period = sd_notify::watchdog_enabled()?;
    Some(AbortOnDropHandle::new(tokio::spawn(ping(period / 2))))
}

async fn ping(interval: Duration) {
    loop {
        if tokio::spawn(async {}).await.is_ok() {
            send(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(interval).await;
    }
}

fn send(message: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(message) {
        tracing::warn!(%error, "the service manager cannot be notified: NOTIFY_SOCKET");
    }
}

/// One line: in a message each line is an assignment, and a path in an error might contain line breaks.
fn line(text: &str) -> String {
    /// More is of no use to a reader, and a datagram has a limit.
    const LONGEST: usize = 1_000;
    printable::escape(text).chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(line("a\nMAINPID=1"), "a\\nMAINPID=1");
        assert_eq!(line(&"码".repeat(5_000)).chars().count(), 1_000);
    }
}
