//! Which HTTP a peer speaks: HTTP/2 begins with a preface that no request of HTTP/1 begins with (RFC 9113, 3.4).
//!
//! hyper-util's server finds that out too, but holds room for the states of both, and gives hyper the bytes that it
//! looked at by themselves: a first read of so few makes hyper double its buffer for as long as the connection stands.

use std::io;

use hyper::Version;
use tokio::io::{AsyncRead, AsyncReadExt};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear, at most a preface: HTTP/1.1 or HTTP/2, and the bytes that were read.
pub(super) async fn detect_protocol(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Version, Vec<u8>)> {
    let mut begun = [0; PREFACE.len()];
    let mut read = 0;
    while read < PREFACE.len() {
        let more = stream.read(&mut begun[read..]).await?;
        read += more;
        if more == 0 || begun[..read] != PREFACE[..read] {
            return Ok((Version::HTTP_11, begun[..read].to_vec()));
        }
    }
    Ok((Version::HTTP_2, begun.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// What is made of pieces that come one after the other.
    async fn of(pieces: &[&[u8]]) -> (Version, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(64);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let sending = tokio::spawn(async move {
            for piece in pieces {
                far.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let spoken = detect_protocol(&mut near).await.unwrap();
        sending.abort();
        spoken
    }

    #[tokio::test]
    async fn a_preface_is_http_2_in_however_many_pieces_it_comes() {
        let bytes: Vec<&[u8]> = PREFACE.chunks(1).collect();
        for pieces in [bytes.as_slice(), &[PREFACE], &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"]] {
            assert_eq!(of(pieces).await, (Version::HTTP_2, PREFACE.to_vec()), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn all_else_is_http_1_and_is_decided_at_the_first_other_byte() {
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
