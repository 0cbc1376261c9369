//! Timeouts that read first: after a pause of the process, what has come counts as come in time.
//!
//! A process that stands still (SIGSTOP, a virtual machine that is moved, a snapshot) finds its timers expired when it goes
//! on, while the responses of that time wait in the sockets' buffers. A timer that fires late therefore decides nothing
//! yet: the tasks that read get as long again as the timer was late, within bounds.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// What the tasks that read get at least, once a timer has fired: they may be queued behind the one that waits.
const LEAST: Duration = Duration::from_millis(50);

/// What they get at most.
const MOST: Duration = Duration::from_secs(2);

/// A limit that no deadline reaches: thirty years, as tokio's own.
const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);

/// The time is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

/// Waits for `future` for at most `limit`, and longer only where the timer itself fires late.
///
/// # Errors
/// [`Elapsed`] when it is not ready by then.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let due = Instant::now() + limit.min(FAR);
    if let Ok(output) = timeout_at(due, future.as_mut()).await {
        return Ok(output);
    }
    let more = grace(due).unwrap_or(LEAST).max(LEAST);
    tokio::time::timeout(more, future).await.map_err(|_| Elapsed)
}

/// How much longer to wait at a timer that was due at `due` and has fired now; none when it fired in time.
pub fn grace(due: Instant) -> Option<Duration> {
    /// Timers are exact to a millisecond.
    const EXACT: Duration = Duration::from_millis(5);
    let late = Instant::now().saturating_duration_since(due);
    (late > EXACT).then(|| late.clamp(LEAST, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_timer_in_time_decides_soon() {
        let start = Instant::now();
        assert_eq!(timeout(LIMIT, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(start.elapsed(), LIMIT + LEAST);
        assert_eq!(timeout(LIMIT, async { 7 }).await, Ok(7));
        assert_eq!(timeout(Duration::MAX, async { 7 }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_during_a_pause_is_read_before_the_timer_decides() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(timeout(LIMIT, receiver));
        tokio::task::yield_now().await;
        // All stand still for 25 s; then the timer is found expired, and the task that reads comes after it.
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
        assert_eq!(resumed.elapsed(), MOST);
    }
}
