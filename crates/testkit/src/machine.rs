//! How one machine is driven.

use tradewind_proto::collector::{Collector, Inputs, Opening, Records};
use tradewind_proto::dispatcher::{Dispatcher, Notice, Transmit};
use tradewind_proto::executor::{Executor, Start, Stop};
use tradewind_proto::message::{ToSink, ToVentilator};
use tradewind_proto::{LaneId, SeqRange, Time};

/// A state machine of `tradewind-proto`.
///
/// A driver passes events to it (`handle_*`), and then asks for actions until there is none.
pub trait Machine {
    /// Something that the driver is to do.
    type Action;

    /// Returns the next action. What the driver does not accept stays in the machine.
    fn poll(&mut self, now: Time, accepts: Accepts) -> Option<Self::Action>;

    /// Returns the time at which [`handle_due`](Self::handle_due) has something to do.
    fn due(&self) -> Time;

    /// Tells the machine the time.
    fn handle_timeout(&mut self, now: Time);

    /// Panics if the machine contradicts itself.
    fn check(&self);

    /// Tells the machine the time if it is due, as the programs do.
    #[inline]
    fn handle_due(&mut self, now: Time) {
        if now >= self.due() {
            self.handle_timeout(now);
        }
    }
}

/// Actions that a driver accepts now. Those that are not named here are always accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// Whether messages can be sent.
    pub messages: bool,
    /// Whether records can be written, spooled and moved from the spool.
    pub records: bool,
}

impl Accepts {
    /// All actions.
    pub const ALL: Self = Self { messages: true, records: true };
    /// Neither messages nor records.
    pub const NEITHER: Self = Self { messages: false, records: false };
}

/// Action of a [`Dispatcher`].
#[derive(Debug)]
pub enum DispatcherAction {
    /// Send a message.
    Transmit(Transmit),
    /// Log a notice.
    Notice(Notice),
    /// Close a lane.
    Close(LaneId),
}

/// Action of a [`Collector`].
#[derive(Debug)]
pub enum CollectorAction {
    /// Make the output ready for a job. Comes before all else, and is asked for after each message.
    Open(Opening),
    /// Compare hashes of tasks with those of the stored records.
    Compare(Inputs),
    /// Make the output of a resumed job ready for more records.
    Begin,
    /// Write records to the spool.
    Spool(Vec<Records>),
    /// Write records to the output.
    Write(Vec<Records>),
    /// Move records from the spool to the output.
    Unspool(SeqRange),
    /// Send a message to the ventilator.
    Transmit(ToVentilator),
}

/// Action of an [`Executor`].
#[derive(Debug)]
pub enum ExecutorAction {
    /// Start a task.
    Start(Start),
    /// Stop a task.
    Stop(Stop),
    /// Send a message to the sink.
    Transmit(ToSink),
}

impl Machine for Dispatcher {
    type Action = DispatcherAction;

    #[inline]
    fn poll(&mut self, now: Time, accepts: Accepts) -> Option<DispatcherAction> {
        if accepts.messages
            && let Some(transmit) = self.poll_transmit(now)
        {
            return Some(DispatcherAction::Transmit(transmit));
        }
        if let Some(notice) = self.poll_notice() {
            return Some(DispatcherAction::Notice(notice));
        }
        self.poll_close().map(DispatcherAction::Close)
    }

    #[inline]
    fn due(&self) -> Time {
        self.poll_timeout()
    }

    #[inline]
    fn handle_timeout(&mut self, now: Time) {
        Self::handle_timeout(self, now);
    }

    fn check(&self) {
        self.check_invariants();
    }
}

impl Machine for Collector {
    type Action = CollectorAction;

    #[inline]
    fn poll(&mut self, _: Time, accepts: Accepts) -> Option<CollectorAction> {
        if let Some(opening) = self.poll_open() {
            return Some(CollectorAction::Open(opening));
        }
        if let Some(inputs) = self.poll_inputs() {
            return Some(CollectorAction::Compare(inputs));
        }
        if self.poll_begin() {
            return Some(CollectorAction::Begin);
        }
        if accepts.records {
            if let Some(records) = self.poll_spool() {
                return Some(CollectorAction::Spool(records));
            }
            if let Some(records) = self.poll_write() {
                return Some(CollectorAction::Write(records));
            }
            if let Some(range) = self.poll_unspool() {
                return Some(CollectorAction::Unspool(range));
            }
        }
        if !accepts.messages {
            return None;
        }
        self.poll_transmit().map(CollectorAction::Transmit)
    }

    #[inline]
    fn due(&self) -> Time {
        self.poll_timeout()
    }

    #[inline]
    fn handle_timeout(&mut self, now: Time) {
        Self::handle_timeout(self, now);
    }

    fn check(&self) {
        self.check_invariants();
    }
}

impl Machine for Executor {
    type Action = ExecutorAction;

    #[inline]
    fn poll(&mut self, now: Time, accepts: Accepts) -> Option<ExecutorAction> {
        if let Some(start) = self.poll_start(now) {
            return Some(ExecutorAction::Start(start));
        }
        if let Some(stop) = self.poll_stop() {
            return Some(ExecutorAction::Stop(stop));
        }
        if !accepts.messages {
            return None;
        }
        self.poll_transmit().map(ExecutorAction::Transmit)
    }

    #[inline]
    fn due(&self) -> Time {
        self.poll_timeout()
    }

    #[inline]
    fn handle_timeout(&mut self, now: Time) {
        Self::handle_timeout(self, now);
    }

    fn check(&self) {
        self.check_invariants();
    }
}
