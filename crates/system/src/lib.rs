//! Services of the machine for a program: the time, random numbers, the environment of the programs that it
//! starts, and standard error.
//!
//! Without tasks, sockets and a runtime. Standard error is here because a reader that is stuck must
//! not stop a job: all lines go through one bounded queue.

mod clock;
mod cores;
mod environment;
mod process;
pub mod stderr;

pub use clock::{Clock, random_id, random_key, unix_us};
pub use cores::cores;
pub use environment::OwnVariables;
pub use process::{ProcessFigures, process_figures};
