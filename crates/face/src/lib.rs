//! What a program shows of itself over HTTP: the page, its state as JSON, a stream of it, metrics.
//!
//! It runs on a thread of its own and asks the program's loop once a second ([`Ask`](tradewind_seen::Ask)); all who look
//! are shown the same account. Nothing here changes anything.
//!
//! | module | |
//! | --- | --- |
//! | `args` | flags |
//! | `port`, `trust` | who may ask, and what carries the requests |
//! | `face` | the thread that asks the loop |
//! | `routes`, `events` | what can be asked |
//! | `page` | the page, in one piece |
//! | `metrics` | names and numbers for Prometheus |

mod args;
mod events;
mod face;
mod metrics;
mod page;
mod port;
mod routes;
#[cfg(test)]
mod tests;
mod trust;

pub use args::HttpArgs;
pub use face::{Face, Shown, show};
pub use port::{HttpKeys, HttpPort, http_keys};
pub use trust::{NoGateway, ParseTrusted, Trusted};
