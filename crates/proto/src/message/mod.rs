//! Messages between the ventilator, workers, relays and the sink.
//!
//! `P` is the type of a payload: `Payload` in the machines, a slice of the received frame while a
//! message is being decoded.

mod beside;
mod compact;
mod job;
mod text;

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Bounded};
use crate::limits::{BATCH_TASKS_MAX, MESSAGE_OVERHEAD_BYTES, RANGES_MAX, WORKERS_MAX};
use crate::{
    Attempt, CallId, JobId, JobKey, Payload, Rare, Seq, SeqRanges, SessionId, Tag, TaskHash, ranges,
};

pub(crate) use self::job::changed_input;
pub use self::job::{HaltOn, Opening};

/// Identity of the process that opens a connection; travels in the ZMTP identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Role of the process.
    pub role: Role,
    /// Session of the process.
    pub session: SessionId,
    /// Number of tasks that it runs at once; 0 unless it is a worker.
    pub slots: u32,
    /// Bytes of the largest message that it takes.
    pub message_bytes_max: u64,
    /// Name, at most [`NAME_BYTES_MAX`](crate::limits::NAME_BYTES_MAX) bytes.
    #[serde(deserialize_with = "text::deserialize")]
    pub name: String,
    /// Queue that it takes part in, at most [`QUEUE_BYTES_MAX`](crate::limits::QUEUE_BYTES_MAX) bytes; empty in a
    /// job, and where all queues of a program are listened for.
    #[serde(deserialize_with = "text::deserialize")]
    pub queue: String,
}

impl Card {
    /// Returns the bytes of the largest payload that fits into a message to the card's owner.
    #[must_use]
    pub fn largest_payload(&self) -> u64 {
        self.message_bytes_max.saturating_sub(MESSAGE_OVERHEAD_BYTES)
    }
}

/// Role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Dispatches tasks: a ventilator, or a relay towards its workers.
    Ventilator,
    /// Runs tasks.
    Worker,
    /// Stores records: a sink, or a relay towards the earlier stage.
    Sink,
}

/// From the ventilator to a worker, over the worker's lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "P: Serialize", deserialize = "P: Deserialize<'de>"))]
pub enum ToWorker<P = Payload> {
    /// Asks which tasks and results the worker holds ([`News::Holding`]), and for retained results
    /// to be pushed again. Comes first on every lane, and again when the sink is new.
    RollCall {
        /// Job of the ventilator; tasks and results of another job are obsolete.
        job: JobId,
        /// Id of the call, to be repeated in the answer.
        call: CallId,
        /// Layout of the job's tasks.
        layout: Layout,
    },
    /// Tasks to run.
    Tasks {
        /// Job of the tasks.
        job: JobId,
        /// Limits of an attempt.
        limits: Limits,
        /// The tasks.
        #[serde(with = "beside")]
        tasks: Batch<Task<P>>,
    },
    /// Tasks whose records are stored, or are not needed: the worker forgets the results.
    Settled {
        /// Job of the tasks.
        job: JobId,
        /// Every task below this seq is settled.
        below: Seq,
        /// Settled tasks above it.
        ranges: SeqRanges,
    },
    /// Asks for the tasks that have not started, to be handed back with [`News::Recalled`], even if
    /// there are none.
    Recall {
        /// Job of the tasks.
        job: JobId,
        /// Id of the recall, to be repeated in the answer.
        call: CallId,
        /// Number of tasks that the worker may keep, of those that would start first.
        keep: u64,
    },
    /// Stops the job's tasks, running ones too.
    Cancel {
        /// Job to cancel.
        job: JobId,
    },
    /// Asks the worker to take no more tasks, hand back those that have not started, finish the
    /// others, and leave.
    Drain,
    /// Heartbeat.
    Ping,
    /// Notes that the job is over and all of its records are stored.
    Done {
        /// Job that is over.
        job: JobId,
    },
    /// Changes the limits of attempts, also of those that run.
    Limits {
        /// Job of the attempts.
        job: JobId,
        /// Limits that hold from now on.
        limits: Limits,
    },
}

/// Limits of an attempt, and data that its result should carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Run time after which the attempt is stopped, in microseconds.
    pub timeout_us: Option<u64>,
    /// Data that the sink asks for.
    pub report: Report,
}

/// Data that results carry beside the outcome, because the sink asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The command that was run: for a joblog.
    pub command: bool,
    /// The task itself.
    pub task: bool,
}

/// Layout of a job's tasks: how the replacement strings of a command find their fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Unknown to the ventilator: the worker's own flags hold.
    #[default]
    Unsaid,
    /// A line, or any amount of text, without parts.
    Whole,
    /// A JSON object or array.
    Json,
    /// Several texts with this byte between them.
    Group(u8),
    /// A line of columns, separated by matches of this regular expression.
    Columns(#[serde(deserialize_with = "text::deserialize_whole")] String),
    /// A line of the input, without the newline at its end.
    Line,
}

/// A task as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task<P = Payload> {
    /// Number of the task in the job.
    pub seq: Seq,
    /// Number of this attempt.
    pub attempt: Attempt,
    /// Whether this attempt is the last: its failure is the task's record.
    pub last: bool,
    /// Proof for the sink that the worker was given the task; its result brings it back.
    pub tag: Tag,
    /// Hash of the task in the user's input; its result brings that back too.
    pub hash: TaskHash,
    /// The task's text in the user's input; in a later stage, the output of the earlier stage.
    pub payload: P,
}

/// Messages to the sink, from workers and from the ventilator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "P: Serialize + AsRef<[u8]>",
    deserialize = "P: Deserialize<'de> + Default"
))]
pub enum ToSink<P = Payload> {
    /// Results of a worker.
    Results {
        /// Job of the results.
        job: JobId,
        /// Session of the worker.
        session: SessionId,
        /// The results.
        #[serde(with = "beside")]
        results: Batch<TaskResult<P>>,
    },
    /// News of a worker for the ventilator; the sink forwards it.
    News {
        /// Session of the worker.
        session: SessionId,
        /// The news.
        news: News,
    },
    /// Opens a job. Comes first on every lane from the ventilator to the sink.
    JobOpen {
        /// Id of the job.
        job: JobId,
        /// Name of the job, for display.
        #[serde(deserialize_with = "text::deserialize")]
        name: String,
        /// Start of the job: what it means for the output.
        start: Start,
        /// Stage to whose workers the sender dispatches tasks; empty if it has no name.
        #[serde(deserialize_with = "text::deserialize")]
        stage: String,
        /// Whether none of the job's tasks was ever dispatched, so that no worker can hold one.
        is_untouched: bool,
    },
    /// Announces that no more tasks will come.
    JobClose {
        /// Job that is closed.
        job: JobId,
        /// Number of the job's tasks, at most [`SEQS_MAX`](crate::limits::SEQS_MAX).
        #[serde(deserialize_with = "job::deserialize_total")]
        total: u64,
        /// Reason why there are no more.
        end: InputEnd,
    },
    /// Asks the sink to write this task's record itself: no worker will run it (again).
    GiveUp {
        /// Job of the task.
        job: JobId,
        /// The task.
        seq: Seq,
        /// Last attempt; 0 if there was none.
        attempt: Attempt,
        /// Hash of the task in the user's input.
        task_hash: TaskHash,
        /// Status of the record.
        status: Status,
        /// Reason.
        #[serde(deserialize_with = "text::deserialize")]
        error: String,
    },
    /// Notes that the ventilator knows that everything is stored.
    JobDone {
        /// Job that is over.
        job: JobId,
    },
    /// Heartbeat.
    Ping,
    /// Part of a resumed job's input, for the sink to compare with its records.
    Inputs {
        /// Job that is resumed.
        job: JobId,
        /// Seq of the first task.
        from: Seq,
        /// Hashes of that task and those that follow it.
        hashes: Batch<TaskHash>,
    },
    /// Forwards records of tasks that ended in an earlier stage.
    Forwarded {
        /// Job of the tasks.
        job: JobId,
        /// Name of the stage in which the tasks ended.
        #[serde(deserialize_with = "text::deserialize")]
        stage: String,
        /// Name of the worker that ran the tasks; empty if no worker did.
        #[serde(deserialize_with = "text::deserialize")]
        worker: String,
        /// Outcomes of the tasks, which travel without their tags.
        results: Batch<TaskResult<P>>,
    },
    /// Cancels the job: tasks without a result in any sink end as cancelled, in every stage.
    Cancel {
        /// Job to cancel.
        job: JobId,
    },
}

/// Reason why no more tasks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputEnd {
    /// All of the input was read.
    Whole,
    /// Enough tasks had ended in the way for which the job was to be halted.
    Halted(HaltOn),
    /// The job was drained or cancelled, or reading the input failed.
    CutShort,
}

/// Start of a job: what it means for the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// A new job: the output must have no records of another one.
    #[default]
    New,
    /// Resumes the job that the output has, if there is one.
    Resume,
    /// Resumes the job, and runs tasks again whose records are not `ok`.
    RetryFailed,
}

/// News of a worker for the ventilator, by way of the sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// Heartbeat.
    Heartbeat {
        /// Number of tasks that run.
        running: u32,
        /// Number of tasks that wait for a slot.
        queued: u32,
        /// Number of tasks that the worker runs at once. Fewer than its card says where its host
        /// lacks something.
        slots: u32,
    },
    /// Answer to a roll call.
    Holding {
        /// Job that the call was for.
        job: JobId,
        /// Id of the call.
        call: CallId,
        /// Tasks that run or wait for a slot.
        unfinished: SeqRanges,
        /// Tasks with a result that is not settled.
        finished: SeqRanges,
        /// Hashes of these tasks, all together, ascending by seq.
        hashes: Bounded<TaskHash, RANGES_MAX>,
        /// Tags of these tasks, in the same order.
        tags: Bounded<Tag, RANGES_MAX>,
    },
    /// Tasks that are handed back because the worker leaves, or because they are not needed any
    /// more.
    Returned {
        /// Job of the tasks.
        job: JobId,
        /// The tasks.
        ranges: SeqRanges,
    },
    /// The connection to the sink is new, and messages on the one before may be lost: the
    /// ventilator is to call the roll again.
    Reconnected,
    /// The worker takes no more tasks and will leave when those that it holds are settled.
    Draining {
        /// Reason, for display; empty if the worker was asked to leave. At most
        /// [`ERROR_BYTES_MAX`](crate::limits::ERROR_BYTES_MAX) bytes.
        #[serde(deserialize_with = "text::deserialize")]
        reason: String,
    },
    /// The worker leaves of its own accord and holds no task.
    Goodbye,
    /// Answer to a recall: tasks that were not started and are handed back.
    Recalled {
        /// Job that the recall was for.
        job: JobId,
        /// Id of the recall.
        call: CallId,
        /// The tasks.
        ranges: SeqRanges,
    },
    /// Bytes of a worker's message arrive that is not complete yet. Sent by the sink.
    Alive,
    /// The worker's connection to the sink has ended, after all messages on it. Sent by the sink.
    Gone,
}

/// Result of one attempt of one task.
#[derive(Debug, PartialEq, Eq)]
pub struct TaskResult<P = Payload> {
    /// The task.
    pub seq: Seq,
    /// Number of the attempt.
    pub attempt: Attempt,
    /// Whether this attempt was the last, as the task had it: a failure is stored, not retried.
    pub last: bool,
    /// The task's tag. 0 in a record: it was taken already.
    pub tag: Tag,
    /// Start of the attempt in microseconds since 1970, by the worker's clock.
    pub started_us: u64,
    /// Run time in microseconds.
    pub ran_us: u64,
    /// Bytes of the task's payload.
    pub task_bytes: u64,
    /// Hash of the task in the user's input.
    pub task_hash: TaskHash,
    /// Outcome of the attempt.
    pub outcome: Outcome<P>,
    /// Data that the sink has [asked](Limits::report) for.
    pub reported: Option<Box<Reported<P>>>,
}

/// Data that a result carries on demand; empty where it was not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported<P = Payload> {
    /// The command that was run.
    pub command: P,
    /// The task.
    pub task: P,
}

/// Outcome of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome<P = Payload> {
    /// Status of the attempt.
    pub status: Status,
    /// Exit of the attempt's process, if it had one.
    pub exit: Exit,
    /// Bytes that it wrote to stdout, or that the handler returned.
    pub output: P,
    /// End of its stderr, at most [`STDERR_BYTES_MAX`](crate::limits::STDERR_BYTES_MAX) bytes.
    pub stderr: Rare<P>,
    /// Reason for a status other than `ok`, at most
    /// [`ERROR_BYTES_MAX`](crate::limits::ERROR_BYTES_MAX) bytes; else empty.
    pub error: String,
}

/// Status of a task, or of one attempt of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// The task succeeded.
    Ok,
    /// It ended with a non-zero exit code, a signal or an error.
    Failed,
    /// It took longer than its timeout and was stopped.
    TimedOut,
    /// All workers that ran it were lost.
    Lost,
    /// The job was cancelled first.
    Cancelled,
    /// Its handler said that the task is to go no further: later stages do not see it.
    Skipped,
}

/// Exit of a task's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// There was no process.
    #[default]
    None,
    /// It exited with this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

/// Messages from the sink to the ventilator, over the receipts port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToVentilator {
    /// Answer to [`ToSink::JobOpen`], and the first message on every receipts lane after it.
    SinkHello {
        /// Job that the ventilator asked for.
        asked: JobId,
        /// Job that was opened: another one if that is resumed.
        job: JobId,
        /// Session of the sink.
        sink: SessionId,
        /// Tasks whose records are stored.
        stored: SeqRanges,
        /// Tasks whose records are to be replaced: they run again, if their input is unchanged.
        again: SeqRanges,
        /// Sessions of the workers that are connected to the sink; `None` if the sink is so new
        /// that workers may have had no time to connect.
        workers: Option<Bounded<SessionId, WORKERS_MAX>>,
        /// Data that results are to carry.
        report: Report,
        /// Key of the tags of the job's tasks.
        key: JobKey,
    },
    /// Receipt for results.
    Receipt {
        /// Job of the results.
        job: JobId,
        /// Results whose records the sink has or had already: their credit is free.
        received: Bounded<Received, RECEIVED_MAX>,
        /// Tasks whose records are in the output: they are settled.
        stored: SeqRanges,
        /// Failed attempts that were not the last: their credit is free too.
        retry: Batch<Failure>,
        /// Bytes of records that the sink holds and has not stored.
        held_bytes: u64,
        /// Number of stored records that are neither `ok` nor `skipped`.
        failed: u64,
    },
    /// News of a worker.
    Relay {
        /// Session of the worker.
        session: SessionId,
        /// The news.
        news: News,
    },
    /// All records of the job are stored, and flushed as far as the sink's flags ask for.
    Complete {
        /// Job that is complete.
        job: JobId,
    },
    /// The sink refuses the job.
    Refused {
        /// Job that is refused.
        job: JobId,
        /// Reason, for display.
        #[serde(deserialize_with = "text::deserialize")]
        reason: String,
    },
    /// Heartbeat.
    Ping {
        /// Whether the output cannot be written at the moment.
        is_stuck: bool,
    },
    /// The input was [compared](ToSink::Inputs) and is unchanged.
    Verified {
        /// Job that is resumed.
        job: JobId,
        /// Every task below this seq was compared.
        below: Seq,
    },
}

/// Number of messages with results that one receipt is for. A receipt names at most as many tasks as
/// these have together.
pub const RECEIVED_MAX: usize = RANGES_MAX / BATCH_TASKS_MAX;

/// Results of one worker that the sink has received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Session of the worker.
    pub session: SessionId,
    /// The tasks: those of one message, so at most [`BATCH_TASKS_MAX`].
    #[serde(deserialize_with = "ranges::deserialize_batch")]
    pub ranges: SeqRanges,
    /// Longest run time in microseconds.
    pub ran_us_max: u64,
    /// Median run time in microseconds.
    pub ran_us_median: u64,
    /// Mean run time in microseconds.
    pub ran_us_mean: u64,
    /// Bytes of the results.
    pub bytes: u64,
    /// Number of results that are neither `ok` nor `skipped`.
    pub failed: u64,
}

/// Failed attempt that was not the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Session of the worker.
    pub session: SessionId,
    /// The task.
    pub seq: Seq,
    /// Number of the attempt.
    pub attempt: Attempt,
    /// Run time in microseconds.
    pub ran_us: u64,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::Failed, Self::TimedOut, Self::Lost, Self::Cancelled, Self::Skipped];

    /// Returns whether the handler succeeded. Such a task is not retried.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Ok | Self::Skipped)
    }

    /// Returns the word for the status in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

impl<P> TaskResult<P> {
    /// Returns whether this is the task's record, and no further attempt follows.
    pub fn is_final(&self) -> bool {
        self.last || self.outcome.status.is_success()
    }
}

// Derived, neither would be inlined, and every result is cloned on its way: a worker sends it and
// keeps it. Hardly any has more than an output.
impl<P: Clone> Clone for TaskResult<P> {
    #[inline]
    fn clone(&self) -> Self {
        let Self { seq, attempt, last, tag, started_us, ran_us, task_bytes, task_hash, .. } = *self;
        let outcome = self.outcome.clone();
        let reported = self.reported.clone();
        Self {
            seq,
            attempt,
            last,
            tag,
            started_us,
            ran_us,
            task_bytes,
            task_hash,
            outcome,
            reported,
        }
    }
}

impl<P: Clone> Clone for Outcome<P> {
    #[inline(always)]
    fn clone(&self) -> Self {
        let Self { status, exit, output, stderr, error } = self;
        let error = if error.is_empty() { String::new() } else { error.clone() };
        let (output, stderr) = (output.clone(), stderr.clone());
        Self { status: *status, exit: *exit, output, stderr, error }
    }
}

impl TaskResult {
    /// Returns the payloads that the result has.
    pub fn payloads_mut(&mut self) -> impl Iterator<Item = &mut Payload> {
        let Outcome { output, stderr, .. } = &mut self.outcome;
        let reported = self.reported.as_deref_mut();
        let reported = reported.map(|Reported { command, task }| [command, task]);
        [output].into_iter().chain(stderr.get_mut()).chain(reported.into_iter().flatten())
    }

    /// Returns the bytes of memory that the result takes up, approximately.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.payload_bytes() + size_of::<Self>() as u64
    }

    /// Returns the bytes of the result that the user sees.
    #[must_use]
    #[inline(always)]
    pub fn payload_bytes(&self) -> u64 {
        let Outcome { output, stderr, error, .. } = &self.outcome;
        let reported = self.reported.as_ref().map_or(0, |it| it.command.len() + it.task.len());
        (output.len() + stderr.len() + error.len() + reported) as u64
    }
}

impl<P: Default> Outcome<P> {
    /// Returns the outcome of a success.
    pub fn ok(output: P) -> Self {
        let (exit, stderr) = (Exit::None, Rare::default());
        Self { status: Status::Ok, exit, output, stderr, error: String::new() }
    }

    /// Returns an outcome without output, with a reason.
    pub fn error(status: Status, error: impl Into<String>) -> Self {
        let (output, stderr) = (P::default(), Rare::default());
        Self { status, exit: Exit::None, output, stderr, error: error.into() }
    }
}
