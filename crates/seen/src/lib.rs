//! What people are told of a job: what limits it, when it will be done, where its tasks are, who is slow.
//!
//! The page, the terminal's views, metrics and the progress line all read the account that is made here, from
//! [looks](Look) at the ventilator's machine, about one a second. Nothing is counted twice: what the machine
//! knows is taken from it, and what is kept here is the past: rates, events, and since when something holds. Time is an
//! argument, in seconds since 1970.
//!
//! | module | |
//! | --- | --- |
//! | `look` | what a program says |
//! | `watch` | what is made of it |
//! | `limit` | what limits the job, in a sentence: the first rule that holds |
//! | `eta`, `runs`, `series` | when it will be done, how long attempts run, how it went |
//! | `status` | the account, by its schema |
//! | `text`, `words` | it as text |

mod ask;
mod eta;
mod events;
mod explain;
mod limit;
mod look;
mod runs;
mod series;
mod status;
#[cfg(test)]
mod tests;
mod text;
mod watch;
pub mod words;
mod workers;

pub use ask::{Answer, Ask};
pub use eta::{Eta, Pace};
pub use explain::{Step, Task};
pub use limit::By;
pub use look::{About, Asked, End, Failures, Look};
pub use runs::Runs;
pub use series::{Point, Series};
pub use status::{Queue, Sort, State, Status, Tone, Wanted};
pub use text::text;
pub use watch::Watch;
