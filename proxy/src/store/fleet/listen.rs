//! The connection on which a node hears the notifications of the others.
//!
//! A notification is a hint, and its loss costs time only: a follower that waits for one also polls. The connection is
//! separate from the pool, since `LISTEN` belongs to a session.

use std::time::Duration;

use super::connect::Session;
use super::link::{Dedicated, LinkError};
use crate::clock::{timeout, timeout_exact};

/// Time for the server to begin to listen, and to show that the connection still works.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval of these checks: a connection may end without a sign.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Passes each payload to `hear` until the connection ends, and first none: what was sent before was not heard.
///
/// # Errors
/// [`LinkError`] when the connection cannot be opened, or does not reply; nothing else ends it but its end.
pub async fn listen(
    connection: &mut Dedicated,
    hear: &(dyn Fn(Option<&str>) + Send + Sync),
) -> Result<(), LinkError> {
    let session = connection.session().await?;
    let result = hear_all(session, hear).await;
    connection.close();
    result
}

async fn hear_all(
    session: &mut Session,
    hear: &(dyn Fn(Option<&str>) + Send + Sync),
) -> Result<(), LinkError> {
    run(session, concat!("LISTEN ", channel!())).await?;
    hear(None);
    loop {
        match timeout(CHECK_INTERVAL, session.notifications.recv()).await {
            Ok(Some(notification)) => hear(Some(notification.payload())),
            Ok(None) => return Ok(()),
            Err(_) => run(session, "SELECT").await?,
        }
    }
}

async fn run(session: &Session, sql: &str) -> Result<(), LinkError> {
    match timeout_exact(REPLY_TIMEOUT, session.client.batch_execute(sql)).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(LinkError::TimedOut(REPLY_TIMEOUT)),
    }
}
