//! A simulated carrier for tests of lookup clients: over real sockets, cheap, deterministic and scriptable.
//!
//! It implements the carrier's HTTP/1.1 interface (`/v2/userstatusrealsingle` and similar paths, and [API v5](v5)), checks signatures with
//! its own code, answers any code and STATUS, simulates every kind of network fault, and counts the calls it receives. By
//! default it is as tolerant as the real carrier appears to be.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use cmiot_simulator::{Account, Answer, Config, Gate, Rule, Simulator};
//!
//! let account = Account::new("100001", "0001000000009", "example-password");
//! let carrier = Simulator::start_local(Config::new([account])).await?;
//! let gate = Gate::new();
//! carrier.set_rules([
//!     Rule::card("14765004176").gate(&gate),         // held until the test opens the gate
//!     Rule::prefix("1476").code("71").times(3),      // throttled three times, then fine
//!     Rule::matching(|it| it.appid == "0NZ").then(Answer::Reset),
//! ]);
//! // ... 100 callers look up 14765004176 at `carrier.base_url()` ...
//! carrier.wait_for_calls(1).await;
//! gate.open();
//! carrier.wait_until_idle().await;
//! assert_eq!(carrier.count_for("14765004176"), 1);
//!
//! carrier.kill().await;                              // an outage: connecting is refused
//! carrier.restart().await?;                          // back at the same port
//! # Ok(()) }
//! ```
//!
//! # Layers
//!
//! | file | responsibility |
//! | --- | --- |
//! | `simulator` | the handle: start, script, count, stop, kill, restart |
//! | `config`, `account`, `clock` | configuration |
//! | `server` | sockets, and the faults below HTTP |
//! | `request` | path and parameters from URL and body |
//! | `state` | the carrier's checks in the carrier's order, under one lock |
//! | `throttle` | limits per second and per day |
//! | `rule`, `rule/parse`, `behaviour` | the script, also as text |
//! | `response`, `envelope`, `operation` | the bytes of a response |
//! | `calls` | log and counters of calls |
//! | `lookup`, `card`, `transid` | a checked call |
//! | `v5`, `v5/` | API v5: accounts, tokens, checks and responses |

#![warn(missing_docs)]

mod account;
mod behaviour;
mod calls;
mod card;
mod clock;
mod config;
mod envelope;
mod lookup;
mod operation;
mod request;
mod response;
mod rule;
mod server;
mod simulator;
mod state;
mod throttle;
mod transid;
pub mod v5;

pub use account::{Account, AccountError};
pub use behaviour::{Answer, Behaviour, Gate};
pub use calls::{Call, Counts, Outcome, Repeated};
pub use card::{Card, CardKind};
pub use clock::Clock;
pub use config::Config;
pub use lookup::Lookup;
pub use operation::Operation;
pub use rule::{CardMatch, Match, Rule, RuleError};
pub use simulator::Simulator;
pub use throttle::Throttle;
