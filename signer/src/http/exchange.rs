//! Requests and responses over embedded-io, blocking and async. The two functions of a pair differ only in `await`.
//!
//! Futures are not `Send`-bound and hold 64 bytes of buffer. A cancelled future leaves the connection in the middle
//! of an exchange: close it.

use super::request::length;
use super::{Decoder, Endpoint, ExchangeError, Response};
use crate::request::SignedRequest;

/// Bytes per read: about the size of a UART's buffer.
const CHUNK: usize = 64;

/// Sends a lookup and reads its response; the body is written to `body`.
///
/// # Errors
/// When the connection fails or the response is invalid. Close the connection then.
pub fn exchange<'b, IO: embedded_io::Read + embedded_io::Write>(
    io: &mut IO,
    endpoint: &Endpoint<'_>,
    request: &SignedRequest<'_>,
    body: &'b mut [u8],
) -> Result<Response<'b>, ExchangeError<IO::Error>> {
    send(io, endpoint, request)?;
    receive(io, body)
}

/// [`exchange`], async.
///
/// # Errors
/// As [`exchange`].
pub async fn exchange_async<'b, IO: embedded_io_async::Read + embedded_io_async::Write>(
    io: &mut IO,
    endpoint: &Endpoint<'_>,
    request: &SignedRequest<'_>,
    body: &'b mut [u8],
) -> Result<Response<'b>, ExchangeError<IO::Error>> {
    send_async(io, endpoint, request).await?;
    receive_async(io, body).await
}

/// Sends a lookup.
///
/// # Errors
/// When the connection fails or accepts no more bytes.
pub fn send<IO: embedded_io::Write>(
    io: &mut IO,
    endpoint: &Endpoint<'_>,
    request: &SignedRequest<'_>,
) -> Result<(), ExchangeError<IO::Error>> {
    for mut piece in endpoint.pieces(request, &length(request)).into_iter().flatten() {
        // Not `write_all`, which panics on a writer that accepts nothing.
        while !piece.is_empty() {
            let taken = io.write(piece).map_err(ExchangeError::Io)?;
            piece = remaining(piece, taken)?;
        }
    }
    io.flush().map_err(ExchangeError::Io)
}

/// [`send`], async.
///
/// # Errors
/// As [`send`].
pub async fn send_async<IO: embedded_io_async::Write>(
    io: &mut IO,
    endpoint: &Endpoint<'_>,
    request: &SignedRequest<'_>,
) -> Result<(), ExchangeError<IO::Error>> {
    for mut piece in endpoint.pieces(request, &length(request)).into_iter().flatten() {
        while !piece.is_empty() {
            let taken = io.write(piece).await.map_err(ExchangeError::Io)?;
            piece = remaining(piece, taken)?;
        }
    }
    io.flush().await.map_err(ExchangeError::Io)
}

/// Reads one response; its body is written to `body`.
///
/// # Errors
/// When the connection fails or the response is invalid.
pub fn receive<'b, IO: embedded_io::Read>(
    io: &mut IO,
    body: &'b mut [u8],
) -> Result<Response<'b>, ExchangeError<IO::Error>> {
    let mut decoder = Decoder::new();
    let mut chunk = [0; CHUNK];
    loop {
        let read = io.read(&mut chunk).map_err(ExchangeError::Io)?;
        if feed_or_close(&mut decoder, chunk.get(..read).unwrap_or_default(), body)? {
            return Ok(decoder.response(body));
        }
    }
}

/// [`receive`], async.
///
/// # Errors
/// As [`receive`].
pub async fn receive_async<'b, IO: embedded_io_async::Read>(
    io: &mut IO,
    body: &'b mut [u8],
) -> Result<Response<'b>, ExchangeError<IO::Error>> {
    let mut decoder = Decoder::new();
    let mut chunk = [0; CHUNK];
    loop {
        let read = io.read(&mut chunk).await.map_err(ExchangeError::Io)?;
        if feed_or_close(&mut decoder, chunk.get(..read).unwrap_or_default(), body)? {
            return Ok(decoder.response(body));
        }
    }
}

/// The part of a piece that is still to be written.
fn remaining<E>(piece: &[u8], taken: usize) -> Result<&[u8], ExchangeError<E>> {
    if taken == 0 {
        return Err(ExchangeError::Closed);
    }
    piece.get(taken..).ok_or(ExchangeError::Closed)
}

/// Feeds the bytes that were read; no bytes mean the end of the connection. Returns whether the response is complete.
fn feed_or_close<E>(decoder: &mut Decoder, read: &[u8], body: &mut [u8]) -> Result<bool, ExchangeError<E>> {
    if read.is_empty() {
        decoder.close()?;
        return Ok(true);
    }
    Ok(decoder.feed(read, body)?)
}
