//! How connections to the carrier are made: straight, or through the HTTP proxy that `[carrier]` `proxy` names.
//!
//! Through a proxy `https` is tunnelled (CONNECT, RFC 9110 9.3.6), so that it learns host and port and no more; `http` is
//! asked of it in absolute form (RFC 9112 3.2.2), token and all. No variable of the environment is looked at.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

/// Makes connections.
#[derive(Clone, Debug)]
pub(super) struct Route {
    http: HttpConnector,
    proxy: Option<Uri>,
}

/// A connection, straight or through a proxy.
#[derive(Debug)]
pub(super) struct Road {
    stream: TokioIo<TcpStream>,
    /// The other end is a proxy, which must be told whom to ask.
    absolute: bool,
}

type Failure = Box<dyn Error + Send + Sync>;

impl Route {
    pub(super) fn new(http: HttpConnector, proxy: Option<Uri>) -> Self {
        Self { http, proxy }
    }
}

impl Service<Uri> for Route {
    type Response = Road;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Road, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, carrier: Uri) -> Self::Future {
        match self.proxy.clone() {
            None => {
                let connecting = self.http.call(carrier);
                Box::pin(async { Ok(Road { stream: connecting.await?, absolute: false }) })
            }
            Some(proxy) if carrier.scheme_str() == Some("https") => {
                let tunnelling = Tunnel::new(proxy, self.http.clone()).call(carrier);
                Box::pin(async {
                    let stream = tunnelling.await.map_err(|error| refused(&error))?;
                    Ok(Road { stream, absolute: false })
                })
            }
            Some(proxy) => {
                let connecting = self.http.call(proxy);
                Box::pin(async {
                    let stream = connecting.await.map_err(|error| refused(&error))?;
                    Ok(Road { stream, absolute: true })
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

impl Connection for Road {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.absolute)
    }
}

impl Read for Road {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for Road {
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
