//! Protocol detection: HTTP/2 starts with a preface with which no HTTP/1 request starts (RFC 9113, 3.4).
//!
//! hyper-util's server detects the protocol too, but reserves memory for the states of both, and passes hyper the bytes that
//! it has read on their own: after such a short first read hyper doubles its buffer for the life of the connection.

use std::io;

use hyper::Version;
use tokio::io::{AsyncRead, AsyncReadExt};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads at most a preface. Returns HTTP/1.1 or HTTP/2, and the bytes that were read.
pub(super) async fn detect_protocol(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Version, Vec<u8>)> {
    let mut start = [0; PREFACE.len()];
    let mut read = 0;
    while read < PREFACE.len() {
        let more = stream.read(&mut start[read..]).await?;
        read += more;
        if more == 0 || start[..read] != PREFACE[..read] {
            return Ok((Version::HTTP_11, start[..read].to_vec()));
        }
    }
    Ok((Version::HTTP_2, start.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// The result for pieces that arrive one after the other.
    async fn of(pieces: &[&[u8]]) -> (Version, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(64);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let sending = tokio::spawn(async move {
            for piece in pieces {
                far.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let detected = detect_protocol(&mut near).await.unwrap();
        sending.abort();
        detected
    }

    #[tokio::test]
    async fn a_preface_is_http_2_in_any_number_of_pieces() {
        let bytes: Vec<&[u8]> = PREFACE.chunks(1).collect();
        for pieces in [bytes.as_slice(), &[PREFACE], &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"]] {
            assert_eq!(of(pieces).await, (Version::HTTP_2, PREFACE.to_vec()), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn any_other_input_is_http_1_from_its_first_other_byte() {
        for pieces in [
            [b"GET / HTTP/1.1\r\n".as_slice()].as_slice(),
            &[b"P", b"OST"],
            &[b"PRI * HTTP/2.0\r\n\r\n", b"sm"],
            &[b"PRI"],
            &[],
        ] {
            assert_eq!(of(pieces).await, (Version::HTTP_11, pieces.concat()), "{pieces:?}");
        }
    }
}
