//! The ventilator's decisions: who gets which task, what is kept, what is settled, when it is over.
//!
//! Input comes in with [`Dispatcher::handle_task`] as long as there is
//! [room](Dispatcher::input_room). Everything else that happens has its `handle_*`. After each,
//! [`Dispatcher::poll_transmit`] and [`Dispatcher::poll_close`] say what to do until they say
//! nothing more, and [`Dispatcher::poll_timeout`] when to call
//! [`handle_timeout`](Dispatcher::handle_timeout) at the latest.
//!
//! Every message may be lost with the connection that carried it, and may come twice. So nothing
//! is counted up or down by a message alone: each effect hangs on the state of a seq, and what was
//! lost is found again by the roll call that follows each new lane and each new sink.

mod course;
mod deaf;
mod dispatch;
mod halt;
mod health;
mod holders;
mod invariants;
mod ledger;
mod machine;
mod marks;
mod outbox;
mod policy;
mod receipts;
mod relay;
mod resume;
mod rng;
mod roll;
mod roster;
mod run_times;
mod sink_link;
mod snapshot;
mod source;
mod suspects;
mod tail;
mod worker;

pub use self::course::Ended;
pub use self::halt::{Halt, HaltError, HaltLimit, HaltWhen, PERCENT_TASKS_MIN};
pub use self::health::Notice;
pub use self::ledger::LedgerBug;
pub use self::machine::{Dispatcher, DispatcherConfig};
pub use self::outbox::Transmit;
pub use self::policy::Policy;
pub(crate) use self::relay::StageReport;
pub use self::run_times::Timeout;
pub use self::snapshot::{DispatcherSnapshot, WorkerSnapshot};
pub use crate::message::HaltOn;

/// Tasks of a kind that are looked at for one message.
const SCAN_MAX: usize = 64;
