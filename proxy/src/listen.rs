//! Sockets: accepts connections within limits, serves HTTP/1 and HTTP/2 on each, and lets them finish when told to stop.
//!
//! The way of a connection: accept → a place among all → whom a trusted balancer connects for → a place of that peer →
//! TLS → which HTTP → requests. Whoever finds no place is turned away with one small write and no task. What hyper's
//! parser refuses gets its bare 4xx and is counted to the peer. Rules are read anew for each connection, so that a
//! reload needs no restart.

mod bind;
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
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::timeout;
use crate::config::ListenConfig;
use crate::config::listen::Listen;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::tls;
use limits::{ConnectionPermit, LimitReached as NoPlace};
use poll_on_wake::PollOnWake;
use stream::{Socket, Stream};
use timeout::TimeoutStream;

pub use bind::ActivatedSockets;
pub use limits::{ConnectionLimiter, PeerStats};

/// The response to connections over the limit of the admin listener, whose clients read HTTP's own status.
pub const ADMIN_OVERLOAD_RESPONSE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 53\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\n\
    too many connections to the admin listener: try again";

/// Bytes of a request's head. It may have hyper's own 100 headers: any other limit costs each request an allocation and
/// a tenth of its parsing.
const MAX_HEAD: usize = 16 << 10;

/// A listener.
pub struct Listener {
    socket: Socket,
    bound: BoundAddress,
    config: Arc<ArcSwap<ListenConfig>>,
    /// The response to a connection over the limit.
    overload_response: &'static [u8],
    limiter: ConnectionLimiter,
    metrics: Arc<Metrics>,
}

/// What a listener listens on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BoundAddress {
    /// Address and port: the real one, where 0 was asked for.
    Tcp(SocketAddr),
    /// A socket file; none when it has no name.
    Unix(Option<PathBuf>),
}

impl BoundAddress {
    /// Address and port, where there are such.
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
    /// Binds an address; needs a tokio runtime.
    ///
    /// # Errors
    /// The kernel's, with the address in its text.
    pub fn bind(
        address: &Listen,
        inherited: &mut ActivatedSockets,
        rules: Arc<ArcSwap<ListenConfig>>,
        overload_response: &'static [u8],
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let socket = bind::bind(address, inherited)?;
        let bound = match &socket {
            Socket::Tcp(socket) => BoundAddress::Tcp(socket.local_addr()?),
            Socket::Unix(socket) => BoundAddress::Unix(socket.local_addr()?.as_pathname().map(PathBuf::from)),
        };
        let limiter = ConnectionLimiter::default();
        Ok(Self { socket, bound, config: rules, overload_response, limiter, metrics })
    }

    /// What was bound.
    pub fn bound(&self) -> &BoundAddress {
        &self.bound
    }

    /// Who is connected.
    pub fn limiter(&self) -> &ConnectionLimiter {
        &self.limiter
    }

    /// Serves until `stop`; connections run on `tasks` and finish the requests that they are in.
    pub async fn serve<H, F>(self, handle: H, stop: CancellationToken, tasks: TaskTracker)
    where
        H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(connection) = self.admit(stream, peer) {
                        tasks.spawn(connection.run(handle.clone(), stop.clone()));
                    }
                }
                Err(error) => {
                    // Out of file descriptors, mostly: connections that end give some back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// A place for a connection, or one small write and no more.
    fn admit(&self, stream: Stream, peer: IpAddr) -> Option<Connection> {
        let rules = self.config.load_full();
        let trusted = rules.trusted_proxies.iter().any(|network| network.contains(&peer));
        let place = self.limiter.acquire(rules.max_connections).and_then(|place| match trusted {
            true => Ok(place),
            false => place.for_peer(peer, rules.max_connections_per_peer, rules.max_connections),
        });
        match place {
            Ok(place) => {
                let metrics = Arc::clone(&self.metrics);
                Some(Connection { stream, peer, trusted, permit: place, rules, metrics })
            }
            Err(full) => {
                self.metrics.connection_ended(full.reason());
                if rules.tls.is_none() {
                    stream.write_at_once(self.overload_response);
                }
                None
            }
        }
    }
}

impl NoPlace {
    fn reason(self) -> &'static str {
        match self {
            Self::All => "full",
            Self::Peer => "full-peer",
        }
    }
}

/// A connection that has its place.
struct Connection {
    stream: Stream,
    peer: IpAddr,
    trusted: bool,
    permit: ConnectionPermit,
    rules: Arc<ListenConfig>,
    metrics: Arc<Metrics>,
}

impl Connection {
    /// Serves it to its end. Thousands of them rest most of the time: what happens once, and what a request needs, is
    /// boxed, so that its room is free again afterwards.
    async fn run<H, F>(self, handle: H, stop: CancellationToken)
    where
        H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let metrics = Arc::clone(&self.metrics);
        let ended = match Box::pin(self.handshake(&stop)).await {
            Ok(Some(begun)) => begun.serve(handle, &stop).await,
            Ok(None) => Ok(()),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = ended {
            metrics.connection_ended(reason);
        }
    }

    /// What comes before the first request: for whom a balancer connects, TLS, and which HTTP is spoken. None where the
    /// peer ends the connection before it has sent anything of its own, as the health checks of balancers do.
    async fn handshake(mut self, stop: &CancellationToken) -> Result<Option<Established>, &'static str> {
        let patience = self.rules.timeouts;
        if self.trusted && self.rules.proxy_protocol {
            let header = async {
                if !self.stream.begins().await {
                    return Ok(None);
                }
                proxy_protocol::read(&mut self.stream).await.map(Some)
            };
            match timeout(patience.first_byte, header).await {
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(None))) => {}
                Ok(Ok(Some(Some(peer)))) => {
                    let place = self.permit.for_peer(
                        peer,
                        self.rules.max_connections_per_peer,
                        self.rules.max_connections,
                    );
                    (self.permit, self.peer) = (place.map_err(NoPlace::reason)?, peer);
                }
                Ok(Err(error)) => {
                    tracing::debug!(peer = %self.peer, %error, "connection ended");
                    return Err("proxy-protocol");
                }
                Err(_) => return Err("timeout"),
            }
        }
        let mut origin = Peer { address: self.peer, names: None };
        if let Some(tls) = &self.rules.tls {
            let handshake = async {
                if !self.stream.begins().await {
                    return Ok(None);
                }
                tls.acceptor().accept(self.stream).await.map(Some)
            };
            match timeout(patience.header, handshake).await {
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(stream))) => {
                    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    origin.names = certificate.map(|certificate| tls::names(certificate).into());
                    self.stream = Stream::Tls(Box::new(stream));
                }
                Ok(Err(error)) => {
                    tracing::debug!(peer = %self.peer, %error, "no TLS connection came about");
                    return Err("tls");
                }
                Err(_) => return Err("timeout"),
            }
        }
        let mut stream = TimeoutStream::new(self.stream, patience);
        let spoken = tokio::select! {
            biased;
            spoken = detect::detect_protocol(&mut stream) => spoken,
            () = stop.cancelled() => return Ok(None),
        };
        match spoken {
            Ok((version, read)) => {
                stream.rewind(read);
                Ok(Some(Established { stream, version, origin, place: self.permit, rules: self.rules }))
            }
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "connection ended");
                let phase = stream.phase();
                match (phase.timed_out(), phase.has_started()) {
                    (true, _) => Err("timeout"),
                    (_, true) => Err("broken"),
                    (_, false) => Ok(None),
                }
            }
        }
    }
}

/// A connection on which the first request begins.
struct Established {
    stream: TimeoutStream<Stream>,
    version: Version,
    origin: Peer,
    place: ConnectionPermit,
    rules: Arc<ListenConfig>,
}

impl Established {
    /// HTTP until the peer leaves, a limit ends it, or all of it is drained.
    async fn serve<H, F>(self, handle: H, stop: &CancellationToken) -> Result<(), &'static str>
    where
        H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let Self { stream, version, origin, place, rules } = self;
        let (peer, phase) = (origin.address, stream.phase());
        // Cancelled with the last request that this connection may make, or when all stop.
        let spent = stop.child_token();
        let service = {
            let (phase, spent, most) = (Arc::clone(&phase), spent.clone(), rules.max_requests);
            let served = AtomicU64::new(0);
            service_fn(move |request: Request<Incoming>| {
                let turn = phase.begin(request.version() == Version::HTTP_2);
                if served.fetch_add(1, Ordering::Relaxed) + 1 >= most {
                    spent.cancel();
                }
                let is_head = request.method() == Method::HEAD;
                // Boxed: hyper keeps the room of a request's future while there is none.
                let response = Box::pin(handle(request, origin.clone()));
                async move {
                    let response = response.await;
                    drop(turn);
                    let response = if is_head { without_content(response) } else { response };
                    Ok::<_, Infallible>(response)
                }
            })
        };
        let ended = if version == Version::HTTP_2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(rules.max_streams)
                .max_header_list_size(MAX_HEAD.try_into().expect("16 KiB fits 32 bits"));
            drive(Box::pin(builder.serve_connection(TokioIo::new(stream), service)), &spent).await
        } else {
            let mut builder = http1::Builder::new();
            // Our I/O keeps the time. `half_close`: a client that has said all still gets its answer. `writev`: head
            // and body are so small that gluing them together costs less than the kernel's reading a list of two.
            builder.half_close(true).writev(false).max_buf_size(MAX_HEAD).header_read_timeout(None);
            drive(Box::pin(builder.serve_connection(TokioIo::new(stream), service)), &spent).await
        };
        let Err(error) = ended else { return Ok(()) };
        // What a peer sends or leaves out is its own affair; hyper has answered with a bare 4xx where it could.
        tracing::debug!(%peer, %error, "connection ended");
        if error.is_parse() && place.count_parse_error() {
            tracing::warn!(%peer, "this peer sends what is not HTTP; further cases are only counted");
        }
        Err(match (phase.timed_out(), error.is_parse()) {
            (true, _) => "timeout",
            (_, true) => "unparsed",
            _ => "broken",
        })
    }
}

/// The response to HEAD: that to GET without its content (RFC 9110 9.3.2). hyper leaves it out of HTTP/1 alone.
fn without_content(response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let (mut head, content) = response.into_parts();
    if let Some(length) = content.size_hint().exact() {
        head.headers.entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(head, Full::default())
}

/// Drives a connection to its end; once `spent`, it takes no further request.
async fn drive<C: GracefulConnection>(
    mut connection: Pin<Box<C>>,
    spent: &CancellationToken,
) -> Result<(), C::Error> {
    let spent = pin!(spent.cancelled());
    let spent = PollOnWake::new(spent);
    tokio::select! {
        // A connection that is over is over, whoever stops.
        biased;
        ended = connection.as_mut() => ended,
        () = spent => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
