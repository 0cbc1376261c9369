//! Interns carrier replies: a fleet has few distinct ones, which all its cards share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::carrier::charset::ContentType;
use crate::carrier::verdict::Verdict;

/// The body of a carrier reply, byte for byte, and its meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CarrierReply {
    pub body: Bytes,
    pub content_type: ContentType,
    pub verdict: Verdict,
}

/// Replies that are shared. If there are more distinct ones, they are not the statuses of a fleet: further ones are not
/// shared.
const MAX_REPLIES: usize = 4_096;

/// The longest body that is shared, in bytes: a shared reply stays for a while after its last entry.
const MAX_REPLY_LEN: usize = 1 << 10;

/// The shared replies, by body.
#[derive(Debug, Default)]
pub(super) struct ReplyInterner(Mutex<HashMap<Bytes, Arc<CarrierReply>>>);

impl ReplyInterner {
    /// The shared reply with this body and meaning. The body is copied: the bytes of a response are part of a larger read
    /// buffer, which they would keep in memory.
    pub(super) fn intern(
        &self,
        body: &Bytes,
        content_type: ContentType,
        verdict: Verdict,
    ) -> Arc<CarrierReply> {
        if body.len() > MAX_REPLY_LEN {
            return Arc::new(CarrierReply { body: Bytes::copy_from_slice(body), content_type, verdict });
        }
        // Nothing under this lock can panic half-way through a change.
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) =
            shared.get(body).filter(|reply| reply.verdict == verdict && reply.content_type == content_type)
        {
            return Arc::clone(reply);
        }
        let reply = Arc::new(CarrierReply { body: Bytes::copy_from_slice(body), content_type, verdict });
        if shared.len() >= MAX_REPLIES {
            shared.retain(|_, reply| Arc::strong_count(reply) > 1);
        }
        if shared.len() < MAX_REPLIES {
            shared.insert(reply.body.clone(), Arc::clone(&reply));
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    fn body(n: usize) -> Bytes {
        Bytes::from(format!("body {n}"))
    }

    #[test]
    fn equal_replies_are_shared_and_unused_ones_make_room() {
        let (replies, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let first = replies.intern(&body(0), ContentType::UTF_8, verdict.clone());
        assert!(Arc::ptr_eq(&first, &replies.intern(&body(0), ContentType::UTF_8, verdict.clone())));
        for n in 1..2 * MAX_REPLIES {
            replies.intern(&body(n), ContentType::UTF_8, verdict.clone());
        }
        assert!(
            Arc::ptr_eq(&first, &replies.intern(&body(0), ContentType::UTF_8, verdict.clone())),
            "it is in use, and stays"
        );
        let other = entry("02", 0).reply.verdict.clone();
        assert_eq!(
            replies.intern(&body(0), ContentType::UTF_8, other.clone()).verdict,
            other,
            "another operation may classify it differently"
        );
    }

    #[test]
    fn a_long_reply_is_not_shared() {
        let (replies, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let [short, long] = [MAX_REPLY_LEN, MAX_REPLY_LEN + 1].map(|bytes| {
            Arc::downgrade(&replies.intern(&vec![b'x'; bytes].into(), ContentType::UTF_8, verdict.clone()))
        });
        assert!(short.upgrade().is_some() && long.upgrade().is_none());
    }

    #[test]
    fn further_distinct_replies_are_not_shared() {
        let (replies, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let held: Vec<_> = (0..MAX_REPLIES + 10)
            .map(|n| replies.intern(&body(n), ContentType::UTF_8, verdict.clone()))
            .collect();
        assert_eq!(held.last().unwrap().body, body(MAX_REPLIES + 9));
    }
}
