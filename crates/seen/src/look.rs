//! What a program says of its job at a moment: what all else here is made of.

use std::time::Duration;

use tradewind_proto::JobId;
use tradewind_proto::dispatcher::DispatcherSnapshot;

use crate::Runs;

/// A job at a moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// Id of the job.
    pub job: JobId,
    /// State of the dispatcher.
    pub snapshot: DispatcherSnapshot,
    /// Number of tasks of the whole input as its size lets expect, until it has ended.
    pub about: Option<u64>,
    /// Time for which the loop has been busy since the program began.
    pub busy: Duration,
    /// What people or programs asked for.
    pub asked: Asked,
    /// How the job ended, once it has.
    pub end: Option<End>,
    /// Run times of attempts, as far as they are known.
    pub runs: Runs,
    /// Records that are not `ok`, in groups.
    pub failures: Vec<Failures>,
    /// Longest time of an attempt.
    pub timeout: Option<Duration>,
}

/// What was asked of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// To go on.
    #[default]
    Nothing,
    /// To finish what was handed out.
    Drain,
    /// To stop what runs.
    Cancel,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every task that was taken in has its record.
    Complete,
    /// It was stopped, or halted by its own rule, before its input was done.
    Early,
    /// It was refused, for this reason.
    Refused(String),
    /// Its program could not go on, for this reason.
    Failed(String),
}

/// Failures that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Failures {
    /// Name of the group, the same for as long as it is there.
    pub id: String,
    /// Number of records.
    pub count: u64,
    /// What they have in common.
    pub message: String,
    /// How they ended: `exit code 1`.
    pub how: String,
    /// Seconds since the first and since the last of them.
    pub ago: (f64, f64),
    /// Workers with the number of theirs, the ones with most first.
    pub workers: Vec<(String, u64)>,
    /// Number of workers.
    pub workers_count: u64,
    /// The end of what one of them wrote.
    pub example: String,
    /// Seqs of some.
    pub seqs: Vec<u64>,
}

/// What does not change while a program runs.
#[derive(Clone, Debug)]
pub struct About {
    /// Its role: `ventilator`, `run`, `relay` or `serve`.
    pub role: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Name of its host.
    pub host: String,
    /// Name of the job or the queue.
    pub name: String,
    /// Address of the sink.
    pub sink: String,
    /// Address to which workers connect.
    pub tasks: String,
    /// Is it a queue, whose input has no end?
    pub is_queue: bool,
}
