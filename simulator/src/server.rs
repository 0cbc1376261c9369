//! The carrier's socket: connections, calls, and the faults that HTTP alone cannot express.
//!
//! hyper answers whatever is HTTP. For the rest the service ends with an error after leaving a [`Fault`] for its
//! connection, which takes the TCP stream back from hyper and does the damage itself.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::behaviour::Answer;
use crate::calls::Outcome;
use crate::reply::{self, Payload};
use crate::request::Request;
use crate::state::{Plan, Shared};

/// One period of listening, from a start to a stop or kill.
#[derive(Clone)]
pub(crate) struct Session {
    /// No more connections; calls under way are finished, held ones broken off.
    pub(crate) stop: CancellationToken,
    /// Everything is dropped.
    pub(crate) kill: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Session {
    /// Accepts on `listener` until stopped, or until `root` is cancelled.
    pub(crate) fn begin(listener: TcpListener, shared: Arc<Shared>, root: &CancellationToken) -> Self {
        let kill = root.child_token();
        let session = Self { stop: kill.child_token(), kill, tasks: TaskTracker::new() };
        session.tasks.spawn(accept(listener, shared, session.clone()));
        session
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, session: Session) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = session.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                shared.with(|state| state.ledger.connected());
                session.tasks.spawn(connection(stream, Arc::clone(&shared), session.clone()));
            }
            // Out of descriptors, most likely: let some be closed before the next try.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, session: Session) {
    let kill = session.kill.clone();
    tokio::select! {
        biased;
        () = kill.cancelled() => {}
        () = serve(stream, shared, session) => {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, session: Session) {
    // Without it, small answers may wait for acknowledgements; a stream already gone is found out below.
    let _ = stream.set_nodelay(true);
    let fault = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let call = call(request, Arc::clone(&shared), session.stop.clone(), Arc::clone(&fault));
        Box::pin(call) as Pin<Box<dyn Future<Output = _> + Send>>
    });
    let mut http = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            // How it ended is in the fault; a caller that left is no news.
            _ = poll_fn(|cx| http.poll_without_shutdown(cx)) => break,
            () = session.stop.cancelled(), if !stopping => {
                stopping = true;
                Pin::new(&mut http).graceful_shutdown();
            }
        }
    }
    let stream = http.into_parts().io.into_inner();
    let fault = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
    finish(stream, fault, &session.stop).await;
}

/// What is left to do on a connection that hyper has given back.
enum Fault {
    Reset,
    Close,
    /// These bytes, then a close.
    Cut(Vec<u8>),
    /// These bytes, then silence for as long as the ticket's caller stays.
    Stall(Vec<u8>, Ticket),
}

/// Errors here mean that the caller is gone, which is where all of this leads.
async fn finish(mut stream: TcpStream, fault: Option<Fault>, stop: &CancellationToken) {
    match fault {
        Some(Fault::Reset) => {
            let _ = stream.set_zero_linger();
        }
        Some(Fault::Close) => {}
        Some(Fault::Cut(bytes)) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Some(Fault::Stall(bytes, ticket)) => {
            let _ = stream.write_all(&bytes).await;
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => Outcome::Broken,
                () = until_closed(&mut stream) => Outcome::Abandoned,
            };
            ticket.end(outcome);
        }
        None => {
            let _ = stream.shutdown().await;
        }
    }
}

async fn until_closed(stream: &mut TcpStream) {
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await.is_ok_and(|bytes| bytes > 0) {}
}

/// Why a service ends without a response: its fault, or a caller that left.
#[derive(Debug)]
struct NoResponse;

impl std::fmt::Display for NoResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection ends without a response")
    }
}

impl std::error::Error for NoResponse {}

/// One call: read, judged and entered, waited with, answered.
async fn call(
    request: HttpRequest<Incoming>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    fault: Arc<Mutex<Option<Fault>>>,
) -> Result<Response<Payload>, NoResponse> {
    let request = Request::read(request).await.ok_or(NoResponse)?;
    let plan = shared.receive(&request);
    let ticket = Ticket { shared: Arc::clone(&shared), number: plan.number, open: true };
    if !plan.latency.is_zero() {
        tokio::time::sleep(plan.latency).await;
    }
    let held = async {
        if let Some(gate) = &plan.behaviour.gate {
            gate.pass().await;
        }
        if plan.behaviour.answer == Answer::Hang {
            std::future::pending::<()>().await;
        }
    };
    let answered = tokio::select! {
        biased;
        () = held => answer(&plan, ticket, shared.now()),
        () = stop.cancelled() => {
            ticket.end(Outcome::Broken);
            Err(Fault::Close)
        }
    };
    answered.map_err(|broken| {
        *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(broken);
        NoResponse
    })
}

/// The answer of a call whose time has come.
fn answer(plan: &Plan, ticket: Ticket, now: Duration) -> Result<Response<Payload>, Fault> {
    let broken = |ticket: Ticket, fault| {
        ticket.end(Outcome::Broken);
        Err(fault)
    };
    match &plan.behaviour.answer {
        Answer::Reset => broken(ticket, Fault::Reset),
        // A hang comes here only if its wait ended, which it does not.
        Answer::Close | Answer::Hang => broken(ticket, Fault::Close),
        Answer::Garbage => broken(ticket, Fault::Cut(reply::GARBAGE.to_vec())),
        Answer::Truncate(bytes) => broken(ticket, Fault::Cut(reply::cut(plan, now, *bytes))),
        Answer::Stall(bytes) => Err(Fault::Stall(reply::cut(plan, now, *bytes), ticket)),
        _ => Ok(reply::response(plan, now, ticket)),
    }
}

/// A call in flight; dropped before its end, it was abandoned.
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    number: u64,
    open: bool,
}

impl Ticket {
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.open = false;
        self.shared.end(self.number, outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.shared.end(self.number, Outcome::Abandoned);
        }
    }
}
