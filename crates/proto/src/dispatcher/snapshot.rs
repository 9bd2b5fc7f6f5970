//! State of a ventilator, for display and for programs that watch it.

use std::time::Duration;

use super::Place;
use crate::{Seq, SessionId, Time};

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
    /// Time of the last event: what the times here are compared with.
    pub now: Time,
    /// Number of tasks that were read and wait to be dispatched, for the first time or again.
    pub queued: u64,
    /// Number of tasks that failed, and are not dispatched again before a time.
    pub delayed: u64,
    /// Time at which the first of these may be dispatched.
    pub delayed_until: Option<Time>,
    /// Number of tasks at workers: those that run, and those that wait there. A task that two workers hold counts
    /// twice.
    pub dispatched: u64,
    /// Number of running tasks, by the last heartbeats of the workers.
    pub running: u64,
    /// Number of tasks of which the sink has a result that is not stored.
    pub received: u64,
    /// Number of tasks that were given up, or ended in an earlier stage, and whose record is not stored.
    pub given_up: u64,
    /// First task that was read and whose record is not stored.
    pub straggler: Option<Straggler>,
    /// Number of attempts that failed and after which the task was to be tried again.
    pub retries: u64,
    /// Number of tasks that workers were asked for and handed back.
    pub recalled: u64,
    /// Number of workers that were lost: by a connection that ended, by silence, or because they owed an answer.
    pub workers_lost: u64,
    /// Number of times that tasks had to wait until all workers had answered a roll call.
    pub roll_calls: u64,
    /// Time at which the sink said last that a record is stored.
    pub stored_at: Option<Time>,
}

/// First task that was read and whose record is not stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Straggler {
    /// Seq of the task.
    pub seq: Seq,
    /// Time since which it is the first.
    pub since: Time,
    /// Where it is.
    pub place: Place,
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
    /// Whether it gets tasks, and if not, why.
    pub state: WorkerState,
    /// Time at which it was heard last.
    pub heard: Time,
    /// Time at which its session connected for the first time.
    pub joined: Time,
    /// First task that it holds: the one that it runs, or starts next.
    pub first: Option<Seq>,
    /// Number of tasks that failed at it, retried ones too.
    pub failed: u64,
    /// Number of failures since the last message about a success.
    pub failed_in_row: u64,
    /// Usual run time of a task at it, of the latest.
    pub usual: Option<Duration>,
    /// Run time of its tasks as a multiple of that at the other workers, once both are known.
    pub factor: Option<f64>,
    /// Whether that is so much that it gets no task that the others would finish sooner.
    pub is_slow: bool,
}

/// Whether a worker gets tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// It has yet to answer which tasks it holds.
    Called,
    /// It gets tasks.
    Ready,
    /// It leaves.
    Draining,
    /// It is slow, and the others will finish the tasks that are left before it would finish one.
    HeldBack {
        /// Time until which it gets none, if nothing changes before.
        until: Time,
    },
    /// It is kept for a task that may be what kills workers.
    Reserved {
        /// Suspect that it was given last.
        suspect: Option<Seq>,
    },
    /// It gets only a task now and then, as a probe.
    SetAside {
        /// Why.
        why: Aside,
        /// Time from which on the next probe is due.
        probe_at: Time,
    },
}

/// Reason for which a worker is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Many more of its tasks fail than at the others.
    Failures {
        /// Number of tasks that failed there.
        failed: u64,
        /// Number of tasks that ended there.
        ended: u64,
    },
    /// It was lost because it owed an answer or a result, and has done nothing well since.
    Owed,
}
