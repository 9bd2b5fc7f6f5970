//! The ventilator's decisions: which worker gets which task, which tasks are kept or settled, when
//! the job is over.
//!
//! Input comes in with [`Dispatcher::handle_task`] while there is [room](Dispatcher::input_room).
//! Every other event has its `handle_*`. After each, [`Dispatcher::poll_transmit`] and
//! [`Dispatcher::poll_close`] return the work to do until there is no more, and
//! [`Dispatcher::poll_timeout`] the time at which to call
//! [`handle_timeout`](Dispatcher::handle_timeout) at the latest.
//!
//! Every message may be lost with the connection that carried it, and may come twice. So no count
//! changes by a message alone: each effect depends on the state of a seq, and lost messages are
//! made up for by the roll call that follows each new lane and each new sink.

mod cancel;
mod course;
mod deaf;
mod dispatch;
mod explain;
mod flow;
mod halt;
mod health;
mod holders;
mod invariants;
mod ledger;
mod machine;
mod marks;
mod outbox;
mod overdue;
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

pub use self::cancel::CancelAnswer;
pub use self::course::Ended;
pub use self::explain::{Explained, Place, WaitsFor};
pub use self::halt::{Halt, HaltError, HaltLimit, HaltWhen, PERCENT_TASKS_MIN};
pub use self::health::Notice;
pub use self::ledger::LedgerBug;
pub use self::machine::{Dispatcher, DispatcherConfig};
pub use self::outbox::Transmit;
pub use self::policy::{Policy, TaskLimits};
pub(crate) use self::relay::StageReport;
pub use self::run_times::Timeout;
pub use self::snapshot::{Aside, DispatcherSnapshot, Straggler, WorkerSnapshot, WorkerState};
pub use crate::message::HaltOn;

/// Number of tasks of a kind that are looked at for one message.
const SCAN_MAX: usize = 64;
