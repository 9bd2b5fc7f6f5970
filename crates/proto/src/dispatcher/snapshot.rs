//! State of a ventilator, for display and for programs that watch it.

use crate::{Seq, SessionId};

/// State of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct DispatcherSnapshot {
    /// Number of tasks read so far.
    pub read: u64,
    /// Number of tasks of the job, once the end of the input is known.
    pub total: Option<u64>,
    /// Number of tasks whose records are stored.
    pub settled: u64,
    /// Seq below which every task's record is stored: see [`Dispatcher::low_water_mark`].
    ///
    /// [`Dispatcher::low_water_mark`]: super::Dispatcher::low_water_mark
    pub low_water_mark: Seq,
    /// Number of tasks that take up memory: those that are not settled, and some that are.
    pub entries: u64,
    /// Number of retries and timeouts that unsettled tasks have of their own.
    pub own_limits: u64,
    /// Number of settled tasks whose status is not `ok`.
    pub failed: u64,
    /// Whether there is a sink that has opened the job.
    pub is_sink_open: bool,
    /// Whether no task is dispatched because of a pause.
    pub is_paused: bool,
    /// Whether tasks wait until workers have answered the roll call.
    pub is_calling_roll: bool,
    /// Bytes of the tasks, and of an earlier stage's records, that are kept until they are stored.
    pub kept_bytes: u64,
    /// Bytes of records that the sink holds and has not stored.
    pub held_bytes: u64,
    /// Whether the sink's output is slower than its results, or cannot be written at all.
    pub is_output_stuck: bool,
    /// Connected workers.
    pub workers: Vec<WorkerSnapshot>,
}

/// State of a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerSnapshot {
    /// Session of the worker.
    pub session: SessionId,
    /// Name of the worker.
    pub name: String,
    /// Number of tasks that it runs at once.
    pub slots: u64,
    /// Number of tasks that it may hold.
    pub window: u64,
    /// Number of tasks that it was given and has not finished.
    pub out: u64,
    /// Payload bytes of the tasks for which it alone answers.
    pub out_bytes: u64,
    /// Number of running tasks, by its last heartbeat.
    pub running: u32,
    /// Number of tasks that wait for a slot, by its last heartbeat.
    pub queued: u32,
    /// Number of tasks that it has finished.
    pub done: u64,
    /// Rate in tasks per second.
    pub rate: Option<f64>,
    /// Whether it has answered the roll call.
    pub is_ready: bool,
}
