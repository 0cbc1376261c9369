//! `POST /config/reload`: reloads the configuration and the files that it names, and reports whether they are valid.
//!
//! The response has the lists of clients that were read, by device and inode, so that the author of a change can check that
//! the edited file is among them. An invalid configuration leaves the current one in place; the response has the reason.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{Admin, response};

/// A request for a reload: the channel for its result, which is the reason if the configuration is refused.
pub type ReloadRequest = oneshot::Sender<Result<(), String>>;

/// Maximum of queued reload requests.
const MAX_QUEUED: usize = 16;

/// Sends reload requests to the task that loads the configuration. Clones share the channel.
#[derive(Clone, Debug, Default)]
pub struct Reloads(Arc<OnceLock<mpsc::Sender<ReloadRequest>>>);

impl Reloads {
    /// Returns the receiver of reload requests; a second receiver gets none.
    pub fn receive(&self) -> mpsc::Receiver<ReloadRequest> {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        let _ = self.0.set(sender); // the first sender stays
        receiver
    }

    async fn request(&self) -> Option<Result<(), String>> {
        let (request, result) = oneshot::channel();
        self.0.get()?.send(request).await.ok()?;
        result.await.ok()
    }
}

pub(super) async fn reload(admin: &Admin, who: &str) -> Response<Full<Bytes>> {
    let json =
        |status, value: &serde_json::Value| response::typed(status, "application/json", format!("{value}\n"));
    let result = tokio::select! {
        // A draining proxy does not load a configuration.
        biased;
        () = admin.stop.cancelled() => None,
        result = admin.reloads.request() => result,
    };
    if let Some(result) = &result {
        let outcome = if result.is_ok() { "accepted" } else { "refused" };
        admin.note("reload", who, &format!(" result={outcome}"), None).await;
    }
    match result {
        Some(Ok(())) => {
            let config = admin.relay.config.load();
            let lists: Vec<_> = config
                .lists
                .iter()
                .filter_map(|list| {
                    let (device, inode) = list.id()?;
                    Some(json!({"path": list.path().display().to_string(), "device": device, "inode": inode}))
                })
                .collect();
            json(StatusCode::OK, &json!({ "lists": lists }))
        }
        Some(Err(error)) => json(StatusCode::CONFLICT, &json!({ "error": error })),
        None => {
            let error = "this process has no configuration file, or is stopping";
            json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error }))
        }
    }
}
