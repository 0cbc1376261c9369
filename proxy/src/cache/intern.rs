//! What the carrier said, kept once for all cards of which it said the same: a fleet's answers are few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::carrier::charset::ContentType;
use crate::carrier::verdict::Verdict;

/// A body of the carrier's and its meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CarrierReply {
    /// Byte for byte.
    pub body: Bytes,
    /// How it is encoded.
    pub content_type: ContentType,
    /// What it means.
    pub verdict: Verdict,
}

/// Bodies that are shared. Beyond so many different ones, which are then not a fleet's statuses, each is its card's own.
const MAX_REPLIES: usize = 4_096;

/// The longest body that is shared, in bytes: what is shared stays for a while when its cards have gone.
const MAX_REPLY_LEN: usize = 1 << 10;

/// What is shared now, by body.
#[derive(Debug, Default)]
pub(super) struct ReplyInterner(Mutex<HashMap<Bytes, Arc<CarrierReply>>>);

impl ReplyInterner {
    /// The same, shared if it was said before. Its bytes are its own: those of a response are a part of all that was read
    /// with it.
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
        if let Some(said) =
            shared.get(body).filter(|said| said.verdict == verdict && said.content_type == content_type)
        {
            return Arc::clone(said);
        }
        let said = Arc::new(CarrierReply { body: Bytes::copy_from_slice(body), content_type, verdict });
        if shared.len() >= MAX_REPLIES {
            shared.retain(|_, said| Arc::strong_count(said) > 1);
        }
        if shared.len() < MAX_REPLIES {
            shared.insert(said.body.clone(), Arc::clone(&said));
        }
        said
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
    fn the_same_is_kept_once_and_what_nobody_holds_makes_room() {
        let (sayings, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let first = sayings.intern(&body(0), ContentType::UTF_8, verdict.clone());
        assert!(Arc::ptr_eq(&first, &sayings.intern(&body(0), ContentType::UTF_8, verdict.clone())));
        for n in 1..2 * MAX_REPLIES {
            sayings.intern(&body(n), ContentType::UTF_8, verdict.clone());
        }
        assert!(
            Arc::ptr_eq(&first, &sayings.intern(&body(0), ContentType::UTF_8, verdict.clone())),
            "it is held, and stays"
        );
        let other = entry("02", 0).reply.verdict.clone();
        assert_eq!(
            sayings.intern(&body(0), ContentType::UTF_8, other.clone()).verdict,
            other,
            "another operation may read it otherwise"
        );
    }

    #[test]
    fn a_long_one_is_let_go_with_its_card() {
        let (sayings, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let [short, long] = [MAX_REPLY_LEN, MAX_REPLY_LEN + 1].map(|bytes| {
            Arc::downgrade(&sayings.intern(&vec![b'x'; bytes].into(), ContentType::UTF_8, verdict.clone()))
        });
        assert!(short.upgrade().is_some() && long.upgrade().is_none());
    }

    #[test]
    fn too_many_different_ones_are_told_all_the_same() {
        let (sayings, verdict) = (ReplyInterner::default(), entry("00", 0).reply.verdict.clone());
        let held: Vec<_> = (0..MAX_REPLIES + 10)
            .map(|n| sayings.intern(&body(n), ContentType::UTF_8, verdict.clone()))
            .collect();
        assert_eq!(held.last().unwrap().body, body(MAX_REPLIES + 9));
    }
}
