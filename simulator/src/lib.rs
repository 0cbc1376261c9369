//! A carrier to try a look-up client against: over real sockets, cheap, deterministic and scriptable.
//!
//! It speaks the carrier's HTTP/1.1 interface (`/v2/userstatusrealsingle` and its sisters), checks signatures
//! with its own code, answers any code and STATUS, fails in every way that a network allows, and counts what
//! reached it. It is as tolerant as the real carrier evidently is, unless told to be strict.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use cmiot_simulator::{Account, Answer, Config, Gate, Rule, Simulator};
//!
//! let account = Account::new("100001", "0001000000009", "example-password");
//! let carrier = Simulator::start_local(Config::new([account])).await?;
//! let gate = Gate::new();
//! carrier.set_rules([
//!     Rule::card("14765004176").gate(&gate),         // held until the test says so
//!     Rule::prefix("1476").code("71").times(3),      // throttled three times, then fine
//!     Rule::matching(|it| it.appid == "0NZ").then(Answer::Reset),
//! ]);
//! // ... 100 callers ask `carrier.base_url()` for 14765004176 ...
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
//! | file | its one job |
//! | --- | --- |
//! | `simulator` | the handle: start, script, count, stop, kill, restart |
//! | `config`, `account`, `clock` | what it is started with |
//! | `server` | sockets, and the faults below HTTP |
//! | `request` | path and parameters from URL and body |
//! | `state` | the carrier's checks in the carrier's order, under one lock |
//! | `throttle` | calls a second and a day |
//! | `rule`, `rule/parse`, `behaviour` | the script, also as text |
//! | `reply`, `answer`, `operation` | the bytes of an answer |
//! | `calls` | the book of calls |

mod account;
mod answer;
mod behaviour;
mod calls;
mod clock;
mod config;
mod lookup;
mod operation;
mod reply;
mod request;
mod rule;
mod server;
mod simulator;
mod state;
mod throttle;

pub use account::{Account, AccountError};
pub use behaviour::{Answer, Behaviour, Gate};
pub use calls::{Call, Counts, Outcome, Repeated};
pub use clock::Clock;
pub use config::Config;
pub use lookup::{Card, CardKind, Lookup};
pub use operation::Operation;
pub use rule::{CardMatch, Match, Rule, RuleError};
pub use simulator::Simulator;
pub use throttle::Throttle;
