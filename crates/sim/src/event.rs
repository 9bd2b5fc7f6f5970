//! Events, and the queue that puts them in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;

use crate::serve::Turn;

/// Microseconds of the world's own clock.
pub(crate) type Instant = u64;

/// A program that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Ventilator,
    Sink,
    /// Between the stage of this number and the next.
    Relay(usize),
    /// One start of a worker.
    Worker(usize),
}

/// One of a job's stages, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) index: usize,
    pub(crate) is_last: bool,
}

impl Stage {
    /// Returns the process that dispatches its tasks.
    pub(crate) fn hub(self) -> Process {
        match self.index.checked_sub(1) {
            Some(relay) => Process::Relay(relay),
            None => Process::Ventilator,
        }
    }

    /// Returns the process that collects its results.
    pub(crate) fn collector(self) -> Process {
        if self.is_last { Process::Sink } else { Process::Relay(self.index) }
    }
}

/// Purpose of a connection, and the processes at its ends; the ventilator and the sink may be relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A worker dials the ventilator and is sent tasks.
    Tasks(usize, Stage),
    /// A worker dials the sink and sends results.
    Results(usize, Stage),
    /// The ventilator dials the sink and opens the job.
    Job(Stage),
    /// The sink dials the ventilator and sends receipts.
    Receipts(Stage),
}

/// An end of a connection, by what it does with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Sender,
    Receiver,
}

/// A connection: counted from 0, never used again.
pub(crate) type ConnectionId = usize;

/// The one list of things that can happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A process tries to connect.
    Dial(Route),
    /// An end learns that its connection stands.
    Opened(ConnectionId, End),
    /// An end learns that its connection is gone.
    Gone(ConnectionId, End),
    /// A frame is at the receiver.
    Arrived(ConnectionId, Bytes),
    /// Bytes of a frame are at the receiver, and not all of them.
    Trickled(ConnectionId),
    /// A frame that no process of this job sent is at a process.
    Injected(Process, Bytes),
    /// A machine asked to be told that it is so late.
    Wake(Process),
    /// A process that hung goes on.
    Resume(Process),
    /// The ventilator may read on.
    Input,
    /// A task's own process ended.
    TaskEnded { worker: usize, slot: usize, run: u64 },
    /// The child of a slot is there (again).
    ChildBack { worker: usize, slot: usize },
    /// The sink's output is ready for a job.
    OutputOpened,
    /// The sink's disk has done what it was given.
    Written,
    /// The sink's output is flushed.
    Flushed,
    /// A process that died starts again.
    Revive(Process),
    /// A worker starts in this seat.
    Spawn(usize),
    /// Something happens to a queue.
    Queue(Turn),
    /// Something goes wrong, or is asked for: a place in the plan's list.
    Fault(usize),
}

/// Events by time; what falls on the same moment happens in the order in which it was planned.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Planned>>,
    count: u64,
}

#[derive(Debug)]
struct Planned {
    at: Instant,
    tie: u64,
    event: Event,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Instant, event: Event) {
        self.count += 1;
        self.heap.push(Reverse(Planned { at, tie: self.count, event }));
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, Event)> {
        let Reverse(Planned { at, event, .. }) = self.heap.pop()?;
        Some((at, event))
    }
}

impl Planned {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.tie)
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
