//! Interns carrier replies: a fleet has few distinct ones, which all its cards share.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::carrier::charset::ContentType;
use crate::carrier::verdict::{Translated, Verdict};

/// The body of a carrier reply in the form that gateways get, and its meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CarrierReply {
    /// The carrier's bytes, unless the reply is `translated`.
    pub body: Bytes,
    pub content_type: ContentType,
    pub verdict: Verdict,
    /// The carrier's code and note, if the body was made from a reply in another dialect.
    pub translated: Option<Arc<Translated>>,
}

/// Equal replies have equal bodies. Replies with one body may differ: accounts of both APIs write the same STATUS, and cards
/// of both platforms have it for different states of the carrier.
impl Hash for CarrierReply {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.body.hash(state);
    }
}

/// Replies that are shared. If there are more distinct ones, they are not the statuses of a fleet: further ones are not
/// shared.
const MAX_REPLIES: usize = 4_096;

/// The longest body that is shared, in bytes: a shared reply stays for a while after its last entry.
const MAX_REPLY_LEN: usize = 1 << 10;

/// The shared replies.
#[derive(Debug, Default)]
pub(super) struct ReplyInterner(Mutex<HashSet<Arc<CarrierReply>>>);

impl ReplyInterner {
    /// The shared one of equal replies. The body is copied: the bytes of a response are part of a larger read buffer, which
    /// they would keep in memory.
    pub(super) fn intern(&self, reply: CarrierReply) -> Arc<CarrierReply> {
        let copy = |reply: CarrierReply| {
            Arc::new(CarrierReply { body: Bytes::copy_from_slice(&reply.body), ..reply })
        };
        if reply.body.len() > MAX_REPLY_LEN {
            return copy(reply);
        }
        // Nothing under this lock can panic half-way through a change.
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shared.get(&reply) {
            return Arc::clone(known);
        }
        let reply = copy(reply);
        if shared.len() >= MAX_REPLIES {
            shared.retain(|reply| Arc::strong_count(reply) > 1);
        }
        if shared.len() < MAX_REPLIES {
            shared.insert(Arc::clone(&reply));
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;
    use crate::carrier::verdict::Usage;
    use crate::inline_str::InlineStr;

    fn reply(body: Bytes, verdict: &Verdict) -> CarrierReply {
        CarrierReply { body, content_type: ContentType::UTF_8, verdict: verdict.clone(), translated: None }
    }

    fn body(n: usize) -> Bytes {
        Bytes::from(format!("body {n}"))
    }

    #[test]
    fn equal_replies_are_shared_and_unused_ones_make_room() {
        let (replies, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let intern = |body, verdict: &Verdict| replies.intern(reply(body, verdict));
        let first = intern(body(0), &verdict);
        assert!(Arc::ptr_eq(&first, &intern(body(0), &verdict)));
        for n in 1..2 * MAX_REPLIES {
            intern(body(n), &verdict);
        }
        assert!(Arc::ptr_eq(&first, &intern(body(0), &verdict)), "it is in use, and stays");
        let other = entry("02", 0).reply.verdict.clone();
        assert_eq!(intern(body(0), &other).verdict, other, "another operation may classify it differently");
    }

    #[test]
    fn replies_with_one_body_are_shared_by_what_the_carrier_wrote() {
        let (replies, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let states = [None, Some("00"), Some("2")];
        let intern = || {
            states.map(|state| {
                let translated = state.map(|state| {
                    let state = Some(InlineStr::new(state));
                    Arc::new(Translated { code: verdict.code, state, usage: Usage::Unknown, note: None })
                });
                replies.intern(CarrierReply { translated, ..reply(body(0), &verdict) })
            })
        };
        let (first, again) = (intern(), intern());
        for (at, reply) in first.iter().enumerate() {
            assert!(Arc::ptr_eq(reply, &again[at]), "equal ones are shared");
            let state = reply.translated.as_ref().and_then(|one| one.state);
            assert_eq!(state.as_ref().map(InlineStr::as_str), states[at], "different ones are not");
        }
    }

    #[test]
    fn a_long_reply_is_not_shared() {
        let (replies, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let [short, long] = [MAX_REPLY_LEN, MAX_REPLY_LEN + 1]
            .map(|bytes| Arc::downgrade(&replies.intern(reply(vec![b'x'; bytes].into(), &verdict))));
        assert!(short.upgrade().is_some() && long.upgrade().is_none());
    }

    #[test]
    fn further_distinct_replies_are_not_shared() {
        let (replies, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let held: Vec<_> = (0..MAX_REPLIES + 10).map(|n| replies.intern(reply(body(n), &verdict))).collect();
        assert_eq!(held.last().unwrap().body, body(MAX_REPLIES + 9));
    }
}
