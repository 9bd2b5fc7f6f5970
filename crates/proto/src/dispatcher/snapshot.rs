//! How things stand at a ventilator, for people and programs that watch it.

use crate::SessionId;

/// A job as its dispatcher sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct DispatcherSnapshot {
    /// Tasks read so far.
    pub read: u64,
    /// How many there are, once the end of the input is known.
    pub total: Option<u64>,
    /// Tasks whose records are stored.
    pub settled: u64,
    /// Tasks that memory is used for: those that are not settled, and some that are.
    pub entries: u64,
    /// Of the settled ones, those whose status is not `ok`.
    pub failed: u64,
    /// Is there a sink that has opened the job?
    pub is_sink_open: bool,
    /// Do tasks wait until workers have said what they hold?
    pub is_calling_roll: bool,
    /// Bytes of the tasks, and of an earlier stage's records, that are kept until they are stored.
    pub kept_bytes: u64,
    /// Bytes that the sink holds and has not stored.
    pub held_bytes: u64,
    /// Is the sink's output slower than its results, or cannot be written at all?
    pub is_output_stuck: bool,
    /// Those that are connected.
    pub workers: Vec<WorkerSnapshot>,
}

/// A worker as the dispatcher sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerSnapshot {
    /// Its session.
    pub session: SessionId,
    /// Its name.
    pub name: String,
    /// Tasks it runs at once.
    pub slots: u64,
    /// Tasks it may hold.
    pub window: u64,
    /// Tasks it was given and has not finished.
    pub out: u64,
    /// Payload bytes of the tasks that it alone answers for.
    pub out_bytes: u64,
    /// Tasks that it said run.
    pub running: u32,
    /// Tasks that it said wait for a slot.
    pub queued: u32,
    /// Tasks it has finished.
    pub done: u64,
    /// Tasks a second.
    pub rate: Option<f64>,
    /// Has it answered the roll call?
    pub is_ready: bool,
}
