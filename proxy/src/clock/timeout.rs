//! Timeouts that read first: after a pause of the process, data that has arrived counts as arrived in time.
//!
//! A process that is paused (SIGSTOP, migration or snapshot of a virtual machine) has expired timers when it resumes, while
//! the responses of that time wait in the sockets' buffers. A timer that fires late therefore does not end the wait: the
//! tasks that read get as long again as the timer was late, within limits.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The shortest extension after a timer has fired: the tasks that read may be queued after the one that waits.
const MIN_GRACE: Duration = Duration::from_millis(50);

/// The longest extension.
const MAX_GRACE: Duration = Duration::from_secs(2);

/// A timeout that is never reached: thirty years, as tokio's own.
const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);

/// The timeout has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

/// Waits for `future` for at most `limit`, and longer only if the timer itself fires late.
///
/// # Errors
/// [`Elapsed`] when it is not ready by then.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let due = Instant::now() + limit.min(FAR);
    if let Ok(output) = timeout_at(due, future.as_mut()).await {
        return Ok(output);
    }
    let more = grace(due).unwrap_or(MIN_GRACE).max(MIN_GRACE);
    tokio::time::timeout(more, future).await.map_err(|_| Elapsed)
}

/// As [`timeout`], but without an extension if the timer fires in time: for a limit that the shortest extension would
/// double.
///
/// # Errors
/// [`Elapsed`] when it is not ready by then.
pub async fn timeout_exact<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let due = Instant::now() + limit.min(FAR);
    if let Ok(output) = timeout_at(due, future.as_mut()).await {
        return Ok(output);
    }
    let more = grace(due).ok_or(Elapsed)?;
    tokio::time::timeout(more, future).await.map_err(|_| Elapsed)
}

/// The extension after a timer that was due at `due` and has fired now; `None` if it fired in time.
pub fn grace(due: Instant) -> Option<Duration> {
    /// Timers have a resolution of a millisecond.
    const EXACT: Duration = Duration::from_millis(5);
    let late = Instant::now().saturating_duration_since(due);
    (late > EXACT).then(|| late.clamp(MIN_GRACE, MAX_GRACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_timer_in_time_decides_soon() {
        let start = Instant::now();
        assert_eq!(timeout(LIMIT, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(start.elapsed(), LIMIT + MIN_GRACE);
        let start = Instant::now();
        assert_eq!(timeout_exact(LIMIT, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(start.elapsed(), LIMIT);
        assert_eq!(timeout(LIMIT, async { 7 }).await, Ok(7));
        assert_eq!(timeout(Duration::MAX, async { 7 }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn data_that_arrived_during_a_pause_is_read_before_the_timeout() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(timeout(LIMIT, receiver));
        tokio::task::yield_now().await;
        // All tasks pause for 25 s; then the timer has expired, and the task that reads runs after it.
        tokio::time::advance(Duration::from_secs(25)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        sender.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(Ok(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_prolongs_by_two_seconds_at_most() {
        let waiting = tokio::spawn(timeout(LIMIT, std::future::pending::<()>()));
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_secs(3_600)).await;
        let resumed = Instant::now();
        assert_eq!(waiting.await.unwrap(), Err(Elapsed));
        assert_eq!(resumed.elapsed(), MAX_GRACE);
    }
}
