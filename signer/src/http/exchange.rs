//! Requests and responses over embedded-io, blocking and async. The two functions of a pair differ only in `await`.
//!
//! A stream that reports a timeout, an interruption or, contrary to embedded-io, `Ok(0)` before there is data loses
//! nothing: the caller holds the [`Decoder`] and calls [`receive_into`] again.
//!
//! Futures are not `Send`-bound and hold 64 bytes of buffer. A cancelled future leaves the connection in the middle
//! of an exchange: close it.

use embedded_io::{Error, ErrorKind};

use super::{Decoder, Endpoint, ExchangeError, Response};
use crate::request::SignedRequest;

/// Bytes per read and, without a larger buffer, per write: about the size of a UART's buffer.
const CHUNK: usize = 64;

/// Empty reads in a row after which a connection counts as closed. A closed connection returns nothing else; a driver
/// that returns `Ok(0)` between two bytes does so a few times.
const EMPTY_READS: u32 = 8;

/// Sends a lookup and reads its response; the body is written to `body`, which first holds the request, so that one
/// write sends it if it fits.
///
/// # Errors
/// When the connection fails, or the response is invalid or answers another request. Close the connection then: the
/// rest of a late response would be read as the beginning of the next one.
pub fn exchange<'b, IO: embedded_io::Read + embedded_io::Write>(
    io: &mut IO,
    endpoint: &Endpoint<'_>,
    request: &SignedRequest<'_>,
    body: &'b mut [u8],
) -> Result<Response<'b>, ExchangeError<IO::Error>> {
    if body.len() < CHUNK {
        send(io, endpoint, request)?;
    } else {
        send_through(io, endpoint, request, body)?;
    }
    receive(io, request, body)
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
    if body.len() < CHUNK {
        send_async(io, endpoint, request).await?;
    } else {
        send_through_async(io, endpoint, request, body).await?;
    }
    receive_async(io, request, body).await
}

/// Sends a lookup, 64 bytes per write.
///
/// # Errors
/// When the connection fails or accepts no more bytes.
pub fn send<IO: embedded_io::Write>(
    io: &mut IO,
    endpoint: &Endpoint<'_>,
    request: &SignedRequest<'_>,
) -> Result<(), ExchangeError<IO::Error>> {
    send_through(io, endpoint, request, &mut [0; CHUNK])
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
    send_through_async(io, endpoint, request, &mut [0; CHUNK]).await
}

/// Reads the response to `request`; its body is written to `body`.
///
/// # Errors
/// When the connection fails, or the response is invalid or answers another request.
pub fn receive<'b, IO: embedded_io::Read>(
    io: &mut IO,
    request: &SignedRequest<'_>,
    body: &'b mut [u8],
) -> Result<Response<'b>, ExchangeError<IO::Error>> {
    let mut decoder = Decoder::for_transid(request.transid());
    receive_into(io, &mut decoder, body)?;
    Ok(decoder.response(body))
}

/// [`receive`], async.
///
/// # Errors
/// As [`receive`].
pub async fn receive_async<'b, IO: embedded_io_async::Read>(
    io: &mut IO,
    request: &SignedRequest<'_>,
    body: &'b mut [u8],
) -> Result<Response<'b>, ExchangeError<IO::Error>> {
    let mut decoder = Decoder::for_transid(request.transid());
    receive_into_async(io, &mut decoder, body).await?;
    Ok(decoder.response(body))
}

/// Reads until the response in `decoder` is complete. After [`ExchangeError::Io`] or
/// [`HttpError::Truncated`](super::HttpError::Truncated) the caller may continue with the same decoder and the same `body`:
/// what was read is not lost. An interrupted read is repeated here.
///
/// # Errors
/// When the connection fails or ends, or the response is invalid or answers another request.
pub fn receive_into<IO: embedded_io::Read>(
    io: &mut IO,
    decoder: &mut Decoder,
    body: &mut [u8],
) -> Result<(), ExchangeError<IO::Error>> {
    let mut chunk = [0; CHUNK];
    let mut empty = 0;
    loop {
        let read = io.read(&mut chunk);
        if take(decoder, read, &chunk, body, &mut empty)? {
            return Ok(());
        }
    }
}

/// [`receive_into`], async.
///
/// # Errors
/// As [`receive_into`].
pub async fn receive_into_async<IO: embedded_io_async::Read>(
    io: &mut IO,
    decoder: &mut Decoder,
    body: &mut [u8],
) -> Result<(), ExchangeError<IO::Error>> {
    let mut chunk = [0; CHUNK];
    let mut empty = 0;
    loop {
        let read = io.read(&mut chunk).await;
        if take(decoder, read, &chunk, body, &mut empty)? {
            return Ok(());
        }
    }
}

/// Sends a lookup through a buffer that is not empty.
fn send_through<IO: embedded_io::Write>(
    io: &mut IO,
    endpoint: &Endpoint<'_>,
    request: &SignedRequest<'_>,
    buffer: &mut [u8],
) -> Result<(), ExchangeError<IO::Error>> {
    let mut sent = 0;
    loop {
        let len = endpoint.write_from(sent, request, buffer);
        let mut piece = buffer.get(..len).unwrap_or_default();
        if piece.is_empty() {
            return io.flush().map_err(ExchangeError::Io);
        }
        // Not `write_all`, which panics on a writer that accepts nothing.
        while !piece.is_empty() {
            let taken = io.write(piece).map_err(ExchangeError::Io)?;
            piece = remaining(piece, taken)?;
        }
        sent += len;
    }
}

async fn send_through_async<IO: embedded_io_async::Write>(
    io: &mut IO,
    endpoint: &Endpoint<'_>,
    request: &SignedRequest<'_>,
    buffer: &mut [u8],
) -> Result<(), ExchangeError<IO::Error>> {
    let mut sent = 0;
    loop {
        let len = endpoint.write_from(sent, request, buffer);
        let mut piece = buffer.get(..len).unwrap_or_default();
        if piece.is_empty() {
            return io.flush().await.map_err(ExchangeError::Io);
        }
        while !piece.is_empty() {
            let taken = io.write(piece).await.map_err(ExchangeError::Io)?;
            piece = remaining(piece, taken)?;
        }
        sent += len;
    }
}

/// The part of a piece that is still to be written.
fn remaining<E>(piece: &[u8], taken: usize) -> Result<&[u8], ExchangeError<E>> {
    if taken == 0 {
        return Err(ExchangeError::Closed);
    }
    piece.get(taken..).ok_or(ExchangeError::Closed)
}

/// Feeds the bytes of one read and returns whether the response is complete. `empty` counts the empty reads in a row.
fn take<E: Error>(
    decoder: &mut Decoder,
    read: Result<usize, E>,
    chunk: &[u8],
    body: &mut [u8],
    empty: &mut u32,
) -> Result<bool, ExchangeError<E>> {
    match read {
        Ok(0) => {
            *empty += 1;
            if *empty < EMPTY_READS {
                return Ok(false);
            }
            decoder.close()?;
            Ok(true)
        }
        Ok(read) => {
            *empty = 0;
            Ok(decoder.feed(chunk.get(..read).unwrap_or_default(), body)?)
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(ExchangeError::Io(error)),
    }
}
