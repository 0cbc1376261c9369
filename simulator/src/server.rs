//! The carrier's socket: connections, calls, and the faults that HTTP alone cannot express.
//!
//! hyper sends every complete response. For other answers the service stores a [`Fault`] for its connection and ends
//! with an error; the connection then takes the TCP stream back from hyper and carries out the fault.

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
use crate::request::Request;
use crate::response::{self, Payload};
use crate::state::{CallGuard, Decision, Shared};

/// One period of listening, from a start to a stop or kill.
#[derive(Clone)]
pub(crate) struct Session {
    /// Accept no more connections; finish calls in flight, and break off held ones.
    pub(crate) stop: CancellationToken,
    /// Drop all connections.
    pub(crate) kill: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Session {
    /// Accepts on `listener` until stopped, or until `root` is cancelled.
    pub(crate) fn start(listener: TcpListener, shared: Arc<Shared>, root: &CancellationToken) -> Self {
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
                shared.with(|state| state.calls.connected());
                session.tasks.spawn(connection(stream, Arc::clone(&shared), session.clone()));
            }
            // Probably out of file descriptors: wait for some to be closed before the next try.
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
    // Otherwise small responses may wait for acknowledgements. The code below handles a closed stream.
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
            // The fault describes the end; a disconnected caller needs no handling.
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

/// The rest of an answer, on a connection that hyper has returned.
enum Fault {
    Reset,
    Close,
    /// These bytes, then a close.
    Partial(Vec<u8>),
    /// These bytes, then none until the caller disconnects.
    Stall(Vec<u8>, CallGuard),
}

/// Carries out a fault. Errors mean that the caller has disconnected, which also ends the connection.
async fn finish(mut stream: TcpStream, fault: Option<Fault>, stop: &CancellationToken) {
    match fault {
        Some(Fault::Reset) => {
            let _ = stream.set_zero_linger();
        }
        Some(Fault::Close) => {}
        Some(Fault::Partial(bytes)) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Some(Fault::Stall(bytes, guard)) => {
            let _ = stream.write_all(&bytes).await;
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => Outcome::Broken,
                () = until_closed(&mut stream) => Outcome::Abandoned,
            };
            guard.end(outcome);
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

/// The service ends without a response, because of a fault or a disconnected caller.
#[derive(Debug)]
struct NoResponse;

impl std::fmt::Display for NoResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection ends without a response")
    }
}

impl std::error::Error for NoResponse {}

/// One call: read the request, check and log it, wait, respond.
async fn call(
    request: HttpRequest<Incoming>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    fault: Arc<Mutex<Option<Fault>>>,
) -> Result<Response<Payload>, NoResponse> {
    let request = Request::read(request).await.ok_or(NoResponse)?;
    let decision = shared.receive(&request);
    let guard = CallGuard::new(Arc::clone(&shared), decision.number);
    if !decision.latency.is_zero() {
        tokio::time::sleep(decision.latency).await;
    }
    let held = async {
        if let Some(gate) = &decision.behaviour.gate {
            gate.acquire().await;
        }
        if decision.behaviour.answer == Answer::Hang {
            std::future::pending::<()>().await;
        }
    };
    let answered = tokio::select! {
        biased;
        () = held => answer(&decision, guard, shared.now()),
        () = stop.cancelled() => {
            guard.end(Outcome::Broken);
            Err(Fault::Close)
        }
    };
    answered.map_err(|broken| {
        *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(broken);
        NoResponse
    })
}

/// The answer of a call, after its wait.
fn answer(decision: &Decision, guard: CallGuard, now: Duration) -> Result<Response<Payload>, Fault> {
    let broken = |guard: CallGuard, fault| {
        guard.end(Outcome::Broken);
        Err(fault)
    };
    match &decision.behaviour.answer {
        Answer::Reset => broken(guard, Fault::Reset),
        // Unreachable for a hang, whose wait does not end.
        Answer::Close | Answer::Hang => broken(guard, Fault::Close),
        Answer::Garbage => broken(guard, Fault::Partial(response::GARBAGE.to_vec())),
        Answer::Truncate(bytes) => {
            broken(guard, Fault::Partial(response::partial_response(decision, now, *bytes)))
        }
        Answer::Stall(bytes) => Err(Fault::Stall(response::partial_response(decision, now, *bytes), guard)),
        _ => Ok(response::response(decision, now, guard)),
    }
}
