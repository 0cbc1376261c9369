//! The carrier's newer API, v5 (`/v5/ec/...`), on the same port as v2.
//!
//! One secret authorizes every query: a token that the caller fetches with appid and password. The facts come from
//! public clients, since the carrier's own document of v5 is not published; where clients disagree, an [`Account`]
//! chooses between the possible carriers.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use cmiot_simulator::{Config, Operation, Rule, Simulator, v5};
//!
//! let account = v5::Account::new("200001", "example-password").dies_after_calls(3);
//! let carrier = Simulator::start_local(Config { v5_accounts: vec![account], ..Config::new([]) }).await?;
//! carrier.set_rules([
//!     Rule::token().code("12022").times(1),              // the first fetch of a token is refused
//!     Rule::prefix("14400").status("2"),                 // cards of the newer platform (CT)
//!     Rule::any().operation(Operation::V5(v5::Operation::OnOffStatus)).code("12021").times(1),
//! ]);
//! // ... a client fetches a token and looks up cards at `carrier.base_url()` ...
//! carrier.v5().end_tokens("200001");                     // the present token dies before its ttl
//! carrier.v5().fetch_elsewhere("200001");                // another program fetches a token
//! assert_eq!(carrier.v5().counts().fetches, 2);
//! # Ok(()) }
//! ```
//!
//! # Checks of a fetch, in their order
//! Parameters there (11000) → appid known (12004) → password (12022) → form of the transid, and `refresh` 0, 1 or
//! absent (11000) → limits (13000) → script ([`Rule::token`](crate::Rule::token)).
//!
//! # Checks of a query, in their order
//! Token and transid there (11000) → token known and alive, and of the account that the transid names (12021) → form of
//! the transid, exactly one well-formed card (11000) → limits (13000) → script.
//!
//! A POST has its parameters in a JSON object, a GET in its URL.

mod account;
mod counts;
mod handle;
mod operation;
mod parameters;
mod reply;
mod state;
mod tokens;

pub use account::{Account, AccountError, Refresh, Ttl};
pub use counts::Counts;
pub use handle::Handle;
pub use operation::Operation;
pub use tokens::IssuedToken;

pub(crate) use parameters::parameters;
pub(crate) use reply::Reply;
pub(crate) use state::{Checked, State};
