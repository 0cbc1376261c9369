//! Bodies of responses, read within a limit. A body with a secret is wiped, with the buffers into which the connection read
//! it; those of TLS are the TLS library's, and are not.

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use zeroize::{Zeroize, Zeroizing};

use crate::carrier::fault::Fault;

/// Turns of the runtime within which the connection lets go of the last buffer: it does so when it reads again, at once
/// after the end of the response.
const TURNS: usize = 256;

/// Reads a body of at most `max` bytes.
///
/// # Errors
/// [`Fault::TooLong`], or [`Fault::Broken`] if it does not end as it says.
pub(super) async fn read<B>(body: B, max: usize) -> Result<Bytes, Fault>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let collected = Limited::new(body, max).collect().await.map_err(|error| fault(&*error, max))?;
    Ok(collected.to_bytes())
}

/// Reads a body of at most `max` bytes that has a secret. The bytes returned are wiped when they are dropped. Wipes the
/// buffers of the connection, as far as no field of the head shares them: the caller has dropped the head.
///
/// # Errors
/// As [`read`].
pub(super) async fn read_secret<B>(body: B, max: usize) -> Result<Bytes, Fault>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut body = Limited::new(body, max);
    let (mut parts, mut result) = (Vec::new(), Ok(()));
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => parts.extend(frame.into_data()),
            Err(error) => {
                result = Err(fault(&*error, max));
                break;
            }
        }
    }
    drop(body);
    // A vector that never grows leaves no copy behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(parts.iter().map(Bytes::len).sum()));
    parts.iter().for_each(|part: &Bytes| whole.extend_from_slice(part));
    wipe(parts).await;
    result.map(|()| Bytes::from_owner(whole))
}

/// Wipes parts of buffers, each to the end of its buffer. Parts of one buffer are wiped with the first of them, when those
/// behind it are dropped.
async fn wipe(mut parts: Vec<Bytes>) {
    let mut turns = 0;
    while let Some(part) = parts.pop() {
        let mut shared = Some(part);
        while let Some(part) = shared.take() {
            match part.try_into_mut() {
                Ok(mut buffer) => {
                    buffer.resize(buffer.capacity(), 0);
                    buffer.zeroize();
                }
                Err(part) if turns < TURNS => {
                    turns += 1;
                    tokio::task::yield_now().await;
                    shared = Some(part);
                }
                Err(_) => {}
            }
        }
    }
}

fn fault(error: &(dyn Error + Send + Sync + 'static), max: usize) -> Fault {
    if error.is::<LengthLimitError>() {
        Fault::TooLong(max)
    } else {
        Fault::Broken("in the middle of the answer".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::BytesMut;
    use hyper::body::Frame;

    use super::*;

    struct Parts(std::vec::IntoIter<Bytes>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.next().map(|part| Ok(Frame::data(part))))
        }
    }

    fn body(parts: Vec<Bytes>) -> Parts {
        Parts(parts.into_iter())
    }

    #[tokio::test]
    async fn a_body_in_parts_is_read_within_its_limit() {
        // The buffer of a connection: its parts share it, and so does what the connection keeps.
        let mut buffer = BytesMut::from(&b"{\"token\":\"T0KEN\"}"[..]);
        let parts = vec![buffer.split_to(5).freeze(), buffer.split_to(7).freeze(), buffer.split().freeze()];
        let connection = tokio::spawn(async move {
            tokio::task::yield_now().await;
            drop(buffer);
        });
        assert_eq!(read_secret(body(parts.clone()), 64).await.unwrap(), "{\"token\":\"T0KEN\"}");
        connection.await.unwrap();
        assert_eq!(read(body(parts.clone()), 64).await.unwrap(), "{\"token\":\"T0KEN\"}");
        assert!(matches!(read_secret(body(parts.clone()), 10).await, Err(Fault::TooLong(10))));
        assert!(matches!(read(body(parts), 10).await, Err(Fault::TooLong(10))));
    }

    #[tokio::test]
    async fn memory_that_stays_shared_is_waited_for_no_longer_than_its_turns() {
        let kept = Bytes::from(b"T0KEN".to_vec());
        assert_eq!(read_secret(body(vec![kept.clone()]), 64).await.unwrap(), "T0KEN");
        assert_eq!(kept, "T0KEN");
    }
}
