//! Connections to the carrier: direct, or through the HTTP proxy of `[carrier]` `proxy`.
//!
//! Through a proxy, `https` is tunnelled (CONNECT, RFC 9110 9.3.6), so the proxy sees host and port only; `http` is sent to
//! it in absolute form (RFC 9112 3.2.2), including the token. No environment variable is read.
//!
//! A connection records whether anything was read since the last write, which distinguishes a reset before the response
//! from one in the middle of it. It fails when more is read than a response may have, which ends endless interim (1xx)
//! responses.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

#[derive(Clone, Debug)]
pub(super) struct Connector {
    http: HttpConnector,
    proxy: Option<Uri>,
    max_response: usize,
}

/// A connection, direct or through a proxy.
#[derive(Debug)]
pub(super) struct ProxyStream {
    stream: TokioIo<Counted>,
    /// The other end is a proxy, which needs the target in absolute form.
    absolute: bool,
    received: BytesReceived,
}

/// A socket that counts the bytes that are read after a write.
#[derive(Debug)]
struct Counted {
    tcp: TcpStream,
    /// Bytes that were read since the last write.
    read: usize,
    /// Limit of `read`.
    max_response: usize,
    received: BytesReceived,
}

/// Whether anything was read from a connection since the last write.
#[derive(Clone, Debug, Default)]
pub(super) struct BytesReceived(Arc<AtomicBool>);

impl BytesReceived {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// More bytes were received than a response may have.
#[derive(Debug, thiserror::Error)]
#[error("{0} bytes and no end of the response")]
pub(super) struct Interim(pub(super) usize);

type Failure = Box<dyn Error + Send + Sync>;

impl Connector {
    /// Makes connections on which a response may have `max_response` bytes in total.
    pub(super) fn new(http: HttpConnector, proxy: Option<Uri>, max_response: usize) -> Self {
        Self { http, proxy, max_response }
    }
}

impl ProxyStream {
    fn new(stream: TokioIo<TcpStream>, absolute: bool, max_response: usize) -> Self {
        let received = BytesReceived::default();
        let counted = Counted { tcp: stream.into_inner(), read: 0, max_response, received: received.clone() };
        Self { stream: TokioIo::new(counted), absolute, received }
    }
}

impl Counted {
    /// A write: the bytes that are read from now on are the response to it.
    fn start_request(&mut self) {
        self.read = 0;
        self.received.0.store(false, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read > self.max_response {
            return Poll::Ready(Err(io::Error::other(Interim(self.read))));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        let received = buf.filled().len() - before;
        if received > 0 {
            self.read = self.read.saturating_add(received);
            self.received.0.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.start_request();
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.start_request();
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }
}

impl Service<Uri> for Connector {
    type Response = ProxyStream;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<ProxyStream, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, carrier: Uri) -> Self::Future {
        let max_response = self.max_response;
        match self.proxy.clone() {
            None => {
                let connecting = self.http.call(carrier);
                Box::pin(async move { Ok(ProxyStream::new(connecting.await?, false, max_response)) })
            }
            Some(proxy) if carrier.scheme_str() == Some("https") => {
                let tunnelling = Tunnel::new(proxy, self.http.clone()).call(carrier);
                Box::pin(async move {
                    let stream = tunnelling.await.map_err(|error| refused(&error))?;
                    Ok(ProxyStream::new(stream, false, max_response))
                })
            }
            Some(proxy) => {
                let connecting = self.http.call(proxy);
                Box::pin(async move {
                    let stream = connecting.await.map_err(|error| refused(&error))?;
                    Ok(ProxyStream::new(stream, true, max_response))
                })
            }
        }
    }
}

/// An error of the HTTP proxy as an I/O error, from which a [`Fault`](super::fault::Fault) is made; its text names the proxy.
fn refused(error: &(dyn Error + 'static)) -> io::Error {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let kind = cause.downcast_ref::<io::Error>().map_or(io::ErrorKind::Other, io::Error::kind);
    io::Error::new(kind, format!("[carrier] proxy: {cause}"))
}

impl Connection for ProxyStream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.absolute).extra(self.received.clone())
    }
}

impl Read for ProxyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for ProxyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
