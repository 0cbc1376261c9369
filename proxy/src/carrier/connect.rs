//! How connections to the carrier are made: straight, or through the HTTP proxy that `[carrier]` `proxy` names.
//!
//! Through a proxy `https` is tunnelled (CONNECT, RFC 9110 9.3.6), so that it learns host and port and no more; `http` is
//! asked of it in absolute form (RFC 9112 3.2.2), token and all. No variable of the environment is looked at.
//!
//! A connection knows whether anything was read since the last write, which tells a reset before the response from one in
//! the middle of it; and it fails when more is read than a response may have, which ends interim (1xx) responses that
//! do not end by themselves.

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

/// Makes connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    http: HttpConnector,
    proxy: Option<Uri>,
    most: usize,
}

/// A connection, straight or through a proxy.
#[derive(Debug)]
pub(super) struct ProxyStream {
    stream: TokioIo<Counted>,
    /// The other end is a proxy, which must be told whom to ask.
    absolute: bool,
    heard: BytesReceived,
}

/// A socket that counts what is read from it after a write.
#[derive(Debug)]
struct Counted {
    tcp: TcpStream,
    /// Bytes that were read since the last write, and how many they may be.
    read: usize,
    most: usize,
    heard: BytesReceived,
}

/// Whether anything was read from a connection since something was last written to it.
#[derive(Clone, Debug, Default)]
pub(super) struct BytesReceived(Arc<AtomicBool>);

impl BytesReceived {
    /// Whether there was a byte.
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// More bytes came than a response may have, and no end of it.
#[derive(Debug, thiserror::Error)]
#[error("{0} bytes and no end of the response")]
pub(super) struct Interim(pub(super) usize);

type Failure = Box<dyn Error + Send + Sync>;

impl Connector {
    /// Connections on which a response may have `most` bytes, everything counted.
    pub(super) fn new(http: HttpConnector, proxy: Option<Uri>, most: usize) -> Self {
        Self { http, proxy, most }
    }
}

impl ProxyStream {
    fn new(stream: TokioIo<TcpStream>, absolute: bool, most: usize) -> Self {
        let heard = BytesReceived::default();
        let counted = Counted { tcp: stream.into_inner(), read: 0, most, heard: heard.clone() };
        Self { stream: TokioIo::new(counted), absolute, heard }
    }
}

impl Counted {
    /// Something is about to be written: what is read from here on answers it.
    fn ask(&mut self) {
        self.read = 0;
        self.heard.0.store(false, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read > self.most {
            return Poll::Ready(Err(io::Error::other(Interim(self.read))));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        if came > 0 {
            self.read = self.read.saturating_add(came);
            self.heard.0.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.ask();
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
        self.ask();
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
        let most = self.most;
        match self.proxy.clone() {
            None => {
                let connecting = self.http.call(carrier);
                Box::pin(async move { Ok(ProxyStream::new(connecting.await?, false, most)) })
            }
            Some(proxy) if carrier.scheme_str() == Some("https") => {
                let tunnelling = Tunnel::new(proxy, self.http.clone()).call(carrier);
                Box::pin(async move {
                    let stream = tunnelling.await.map_err(|error| refused(&error))?;
                    Ok(ProxyStream::new(stream, false, most))
                })
            }
            Some(proxy) => {
                let connecting = self.http.call(proxy);
                Box::pin(async move {
                    let stream = connecting.await.map_err(|error| refused(&error))?;
                    Ok(ProxyStream::new(stream, true, most))
                })
            }
        }
    }
}

/// As an I/O error, which is what [`Fault`](super::fault::Fault) is made of; and says that it is not the carrier's.
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
        Connected::new().proxy(self.absolute).extra(self.heard.clone())
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
