//! Counters of the calls of API v5.

/// The counters of all accounts of API v5, since the start or the latest
/// [`reset_counts`](crate::Simulator::reset_counts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Fetches of a token that callers sent, with any answer.
    pub fetches: u64,
    /// Those of them whose answer was not code 0.
    pub fetches_refused: u64,
    /// Fetches by [`fetch_elsewhere`](crate::v5::Handle::fetch_elsewhere).
    pub fetches_elsewhere: u64,
    /// New tokens, for callers and for other programs.
    pub tokens: u64,
    /// Queries and actions, with any answer.
    pub queries: u64,
    /// Those of them that were answered 12021.
    pub queries_refused: u64,
    /// Queries with a token of another account than the one that the transid names.
    pub foreign_tokens: u64,
    /// Calls whose transid is not an appid, 14 digits of time and 8 of sequence.
    pub malformed_transids: u64,
    /// Queries without exactly one well-formed card.
    pub malformed_cards: u64,
    /// Calls with a token or a password in their URL: all by GET, and mistakes by POST.
    pub secrets_in_urls: u64,
}
