//! Dialects of the carrier's API. Only a dialect knows the carrier's codes and fields, and how a call is written.
//!
//! A dialect is a module with these functions. A second API version would be a second module, chosen per account:
//!
//! | function | result |
//! | --- | --- |
//! | `SignedCall::new`, `SignedCall::url` | a call of one account about one card, and its URL |
//! | `read_reply` | the [`Verdict`](super::verdict::Verdict) of a reply |
//! | `stored_verdict` | the verdict of a reply that was stored |
//! | `label` | a code as a metric label |
//! | `refusal_hint` | the likely cause of a refused account |
//!
//! The paths of the operations are in the table of [`operation`](crate::operation), which the configuration changes.

pub mod v2;
