//! Listeners: they accept connections within limits, serve HTTP/1 and HTTP/2 on each, and drain them on shutdown.
//!
//! The life of a connection: accept → global limit → PROXY header of a trusted balancer → limit per peer → TLS → protocol
//! detection → requests. A connection over a limit is shed with one small write and no task. Input that hyper's parser
//! rejects gets its bare 4xx, and counts against the peer. Each connection reads the configuration again, so that a reload
//! needs no restart.

mod bind;
mod content;
mod detect;
mod limits;
mod poll_on_wake;
mod proxy_protocol;
mod stream;
mod timeout;
pub mod x_forwarded_for;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::header;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::timeout;
use crate::config::ListenConfig;
use crate::config::listen::Listen;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::tls;
use limits::{ConnectionPermit, LimitReached};
use poll_on_wake::PollOnWake;
use stream::{Socket, Stream};
use timeout::{ConnectionState, TimeoutStream};

pub use bind::ActivatedSockets;
pub use content::{Content, InFlight};
pub use limits::{ConnectionLimiter, PeerStats};

/// The response to connections over the limit of the admin listener, whose clients read HTTP's own status.
pub const ADMIN_OVERLOAD_RESPONSE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 53\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\n\
    too many connections to the admin listener: try again";

/// The maximum length of a request's head, in bytes. Its maximum number of headers is hyper's own, 100: any other limit costs
/// each request an allocation and a tenth of its parsing.
const MAX_HEAD: usize = 16 << 10;

/// The interval of checks for requests in flight on a connection that is to be closed.
const CUT_INTERVAL: Duration = Duration::from_millis(100);

pub struct Listener {
    socket: Socket,
    bound: BoundAddress,
    config: Arc<ArcSwap<ListenConfig>>,
    /// The response to a connection over the limit.
    overload_response: &'static [u8],
    limiter: ConnectionLimiter,
    metrics: Arc<Metrics>,
}

/// The address of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BoundAddress {
    /// Address and port; the port that the kernel chose, if the configured one is 0.
    Tcp(SocketAddr),
    /// A socket file; `None` if the socket has no name.
    Unix(Option<PathBuf>),
}

impl BoundAddress {
    /// Address and port of a TCP listener.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:"),
        }
    }
}

impl Listener {
    /// Binds an address; requires a tokio runtime.
    ///
    /// # Errors
    /// The kernel's error, with the address in its text.
    pub fn bind(
        address: &Listen,
        inherited: &mut ActivatedSockets,
        config: Arc<ArcSwap<ListenConfig>>,
        overload_response: &'static [u8],
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let socket = bind::bind(address, inherited)?;
        let bound = match &socket {
            Socket::Tcp(socket) => BoundAddress::Tcp(socket.local_addr()?),
            Socket::Unix(socket) => BoundAddress::Unix(socket.local_addr()?.as_pathname().map(PathBuf::from)),
        };
        let limiter = ConnectionLimiter::default();
        Ok(Self { socket, bound, config, overload_response, limiter, metrics })
    }

    pub fn bound(&self) -> &BoundAddress {
        &self.bound
    }

    pub fn limiter(&self) -> &ConnectionLimiter {
        &self.limiter
    }

    /// Serves until `stop`; connections run on `tasks` and finish their requests. From `cut` on, those without a request in
    /// flight are closed, whatever has been received of the next one.
    pub async fn serve<H, F, B>(
        self,
        handle: H,
        stop: CancellationToken,
        cut: CancellationToken,
        tasks: TaskTracker,
    ) where
        H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Content,
    {
        let mut errors = AcceptErrors::default();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(connection) = self.admit(stream, peer) {
                        tasks.spawn(connection.run(handle.clone(), stop.clone(), cut.clone()));
                    }
                }
                Err(error) => {
                    // Usually out of file descriptors: connections that end release some.
                    errors.report(&error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Takes a permit for a connection, or sheds it with one small write.
    fn admit(&self, stream: Stream, peer: IpAddr) -> Option<Connection> {
        let config = self.config.load_full();
        let trusted = config.trusted_proxies.iter().any(|network| network.contains(&peer));
        let permit = self.limiter.acquire(config.max_connections).and_then(|permit| {
            if trusted {
                return Ok(permit);
            }
            permit.for_peer(peer, config.max_connections_per_peer, config.max_connections)
        });
        match permit {
            Ok(permit) => {
                let metrics = Arc::clone(&self.metrics);
                Some(Connection { stream, peer, trusted, permit, config, metrics })
            }
            Err(limit) => {
                self.metrics.connection_ended(limit.reason());
                if config.tls.is_none() {
                    stream.write_at_once(self.overload_response);
                }
                None
            }
        }
    }
}

/// Errors of accept(2), of which at most one per [`Self::INTERVAL`] is logged.
#[derive(Debug, Default)]
struct AcceptErrors {
    logged: Option<Instant>,
    not_logged: u64,
}

impl AcceptErrors {
    const INTERVAL: Duration = Duration::from_secs(60);

    fn report(&mut self, error: &io::Error) {
        if self.logged.is_some_and(|at| at.elapsed() < Self::INTERVAL) {
            self.not_logged += 1;
            return;
        }
        self.logged = Some(Instant::now());
        let not_logged = std::mem::take(&mut self.not_logged);
        tracing::warn!(%error, not_logged, "cannot accept a connection; this is logged once per minute");
    }
}

impl LimitReached {
    fn reason(self) -> &'static str {
        match self {
            Self::All => "full",
            Self::Peer => "full-peer",
        }
    }
}

/// A connection with a permit.
struct Connection {
    stream: Stream,
    peer: IpAddr,
    trusted: bool,
    permit: ConnectionPermit,
    config: Arc<ListenConfig>,
    metrics: Arc<Metrics>,
}

impl Connection {
    /// Serves the connection until it ends. Thousands of connections are idle most of the time, so the handshake and the
    /// requests are boxed: their memory is freed afterwards.
    async fn run<H, F, B>(self, handle: H, stop: CancellationToken, cut: CancellationToken)
    where
        H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Content,
    {
        let metrics = Arc::clone(&self.metrics);
        let ended = match cut.run_until_cancelled(Box::pin(self.handshake(&stop))).await.unwrap_or(Ok(None)) {
            Ok(Some(established)) => established.serve(handle, &stop, &cut).await,
            Ok(None) => Ok(()),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = ended {
            metrics.connection_ended(reason);
        }
    }

    /// The part before the first request: PROXY header, TLS and protocol detection. `None` if the peer closes the connection
    /// before it has sent anything of its own, as the health checks of balancers do.
    async fn handshake(mut self, stop: &CancellationToken) -> Result<Option<Established>, &'static str> {
        let timeouts = self.config.timeouts;
        if self.trusted && self.config.proxy_protocol {
            let header = async {
                if !self.stream.begins().await {
                    return Ok(None);
                }
                proxy_protocol::read(&mut self.stream).await.map(Some)
            };
            match timeout(timeouts.first_byte, header).await {
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(None))) => {}
                Ok(Ok(Some(Some(peer)))) => {
                    let permit = self.permit.for_peer(
                        peer,
                        self.config.max_connections_per_peer,
                        self.config.max_connections,
                    );
                    (self.permit, self.peer) = (permit.map_err(LimitReached::reason)?, peer);
                }
                Ok(Err(error)) => {
                    tracing::debug!(peer = %self.peer, %error, "connection ended");
                    return Err("proxy-protocol");
                }
                Err(_) => return Err("timeout"),
            }
        }
        let mut peer = Peer { address: self.peer, names: None };
        if let Some(tls) = &self.config.tls {
            let handshake = async {
                if !self.stream.begins().await {
                    return Ok(None);
                }
                tls.acceptor().accept(self.stream).await.map(Some)
            };
            match timeout(timeouts.header, handshake).await {
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(stream))) => {
                    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    peer.names = certificate.map(|certificate| tls::names(certificate).into());
                    self.stream = Stream::Tls(Box::new(stream));
                }
                Ok(Err(error)) => {
                    tracing::debug!(peer = %self.peer, %error, "TLS handshake failed");
                    return Err("tls");
                }
                Err(_) => return Err("timeout"),
            }
        }
        let mut stream = TimeoutStream::new(self.stream, timeouts);
        let detected = tokio::select! {
            biased;
            detected = detect::detect_protocol(&mut stream) => detected,
            () = stop.cancelled() => return Ok(None),
        };
        match detected {
            Ok((version, read)) => {
                stream.rewind(read);
                Ok(Some(Established { stream, version, peer, permit: self.permit, config: self.config }))
            }
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "connection ended");
                let state = stream.state();
                match (state.timed_out(), state.has_started()) {
                    (true, _) => Err("timeout"),
                    (_, true) => Err("broken"),
                    (_, false) => Ok(None),
                }
            }
        }
    }
}

/// A connection that is ready for requests.
struct Established {
    stream: TimeoutStream<Stream>,
    version: Version,
    peer: Peer,
    permit: ConnectionPermit,
    config: Arc<ListenConfig>,
}

impl Established {
    /// Serves HTTP until the peer closes the connection, a limit ends it, or it is drained.
    async fn serve<H, F, B>(
        self,
        handle: H,
        stop: &CancellationToken,
        cut: &CancellationToken,
    ) -> Result<(), &'static str>
    where
        H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Content,
    {
        let Self { stream, version, peer, permit, config } = self;
        let (address, state) = (peer.address, stream.state());
        // Cancelled at the last request that this connection may send, or when the listener stops.
        let closing = stop.child_token();
        let service = {
            let (state, closing, max_requests) = (Arc::clone(&state), closing.clone(), config.max_requests);
            let served = AtomicU64::new(0);
            service_fn(move |request: Request<Incoming>| {
                let guard = state.begin(request.version() == Version::HTTP_2);
                if served.fetch_add(1, Ordering::Relaxed) + 1 >= max_requests {
                    closing.cancel();
                }
                let is_head = request.method() == Method::HEAD;
                // Boxed: hyper keeps the memory of a request's future while the connection is idle.
                let response = Box::pin(handle(request, peer.clone()));
                async move {
                    let response = response.await;
                    let response = if is_head { without_content(response) } else { response };
                    Ok::<_, Infallible>(response.map(|content| content.holding(InFlight::new(guard))))
                }
            })
        };
        let ended = if version == Version::HTTP_2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(config.max_streams)
                .max_header_list_size(MAX_HEAD.try_into().expect("16 KiB fits 32 bits"));
            drive(Box::pin(builder.serve_connection(TokioIo::new(stream), service)), &closing, cut, &state)
                .await
        } else {
            let mut builder = http1::Builder::new();
            // `TimeoutStream` enforces the timeouts. `half_close`: a client that has closed its side still gets its response.
            // `writev`: head and body are so small that one copy costs less than a vectored write.
            builder.half_close(true).writev(false).max_buf_size(MAX_HEAD).header_read_timeout(None);
            drive(Box::pin(builder.serve_connection(TokioIo::new(stream), service)), &closing, cut, &state)
                .await
        };
        let Err(error) = ended else { return Ok(()) };
        // The peer caused the error; hyper has responded with a bare 4xx if it could.
        tracing::debug!(peer = %address, %error, "connection ended");
        if error.is_parse() && permit.count_parse_error() {
            tracing::warn!(peer = %address, "this peer sends input that is not HTTP; further cases are only counted");
        }
        Err(match (state.timed_out(), error.is_parse()) {
            (true, _) => "timeout",
            (_, true) => "unparsed",
            _ => "broken",
        })
    }
}

/// The response to HEAD: that to GET without its content (RFC 9110 9.3.2). hyper omits the content in HTTP/1 only.
fn without_content<B: Content>(response: Response<B>) -> Response<B> {
    let (mut head, content) = response.into_parts();
    if let Some(length) = content.size_hint().exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(head, B::default())
}

/// Drives a connection to its end; once `closing`, it takes no further request, and from `cut` on it is closed as soon as no
/// request is in flight.
async fn drive<C: GracefulConnection>(
    mut connection: Pin<Box<C>>,
    closing: &CancellationToken,
    cut: &CancellationToken,
    state: &ConnectionState,
) -> Result<(), C::Error> {
    let closing = pin!(closing.cancelled());
    let closing = PollOnWake::new(closing);
    tokio::select! {
        // A connection that has ended needs no shutdown.
        biased;
        ended = connection.as_mut() => return ended,
        () = closing => connection.as_mut().graceful_shutdown(),
    }
    // Boxed: most connections never get here.
    Box::pin(async move {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = cut.cancelled() => {}
        }
        // Twice in a row, so that the last response has been written.
        let mut was_idle = state.is_idle();
        loop {
            let pause = tokio::time::sleep(CUT_INTERVAL);
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended,
                () = pause => {}
            }
            let is_idle = state.is_idle();
            if was_idle && is_idle {
                return Ok(());
            }
            was_idle = is_idle;
        }
    })
    .await
}
