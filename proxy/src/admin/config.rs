//! `POST /config/reload`: loads the configuration and the files that it names now, and says whether they were taken.
//!
//! The answer names the lists of clients that were read, by device and inode: so whoever edited one knows that it is
//! among them. A configuration that is refused leaves the old one in place; the answer has the reason.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{Admin, response};

/// Whoever asked for a reload, and waits for what became of it: nothing, or why it was refused.
pub type Asked = oneshot::Sender<Result<(), String>>;

/// Reloads that may wait at once.
const WAITING: usize = 16;

/// Takes requests for a reload to whoever holds the files. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Reloads(Arc<OnceLock<mpsc::Sender<Asked>>>);

impl Reloads {
    /// From now on requests come here; a second receiver gets none.
    pub fn receive(&self) -> mpsc::Receiver<Asked> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let _ = self.0.set(sender); // the first one stays
        receiver
    }

    async fn ask(&self) -> Option<Result<(), String>> {
        let (asked, told) = oneshot::channel();
        self.0.get()?.send(asked).await.ok()?;
        told.await.ok()
    }
}

pub(super) async fn reload(admin: &Admin) -> Response<Full<Bytes>> {
    let json =
        |status, value: &serde_json::Value| response::typed(status, "application/json", format!("{value}\n"));
    let told = tokio::select! {
        // Nothing is loaded any more once the proxy drains.
        biased;
        () = admin.stop.cancelled() => None,
        told = admin.reloads.ask() => told,
    };
    match told {
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
            let error = "this process does not load its configuration from a file, or is stopping";
            json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error }))
        }
    }
}
