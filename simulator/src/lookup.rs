//! A checked call: an operation and one card, with the caller's appid.

use crate::card::Card;
use crate::operation::Operation;

/// A call that passed the carrier's checks; the predicates of rules receive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The operation called.
    pub operation: Operation,
    /// The caller's account.
    pub appid: String,
    /// The call's transid, as sent.
    pub transid: String,
    /// The card of the lookup.
    pub card: Card,
}
