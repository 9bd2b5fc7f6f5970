//! Messages between ventilators, relays, workers and sinks.
//!
//! `P` is what a payload is: `Payload` in the machines, a slice of the received frame while a
//! message is being decoded.

mod compact;
mod job;

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Bounded};
use crate::limits::{
    MESSAGE_OVERHEAD_BYTES, RANGES_MAX, SLOTS_MAX, UNSETTLED_TASKS_MAX, WORKERS_MAX,
};
use crate::{Attempt, CallId, JobId, Payload, Rare, Seq, SeqRanges, SessionId, TaskHash};

pub(crate) use self::job::changed_input;
pub use self::job::{HaltOn, Opening};

/// Who is calling: travels in the ZMTP identity of whoever opens a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// What the caller is.
    pub role: Role,
    /// This start of the caller's process.
    pub session: SessionId,
    /// How many tasks it runs at once; 0 unless it is a worker.
    pub slots: u32,
    /// Bytes of the largest message that it takes.
    pub message_bytes_max: u64,
    /// Its name, at most [`NAME_BYTES_MAX`](crate::limits::NAME_BYTES_MAX) bytes.
    pub name: String,
}

impl Card {
    /// Bytes of the largest payload that fits into a message to its owner.
    #[must_use]
    pub fn largest_payload(&self) -> u64 {
        self.message_bytes_max.saturating_sub(MESSAGE_OVERHEAD_BYTES)
    }
}

/// The three programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Hands out tasks.
    Ventilator,
    /// Runs them.
    Worker,
    /// Stores their records.
    Sink,
}

/// From the ventilator to a worker, over the worker's lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker<P = Payload> {
    /// Say what you hold ([`News::Holding`]) and push again what you retain. Comes first on every
    /// lane, and again when the sink is new.
    RollCall {
        /// The ventilator's job; whatever the worker has of another one is obsolete.
        job: JobId,
        /// Which call this is, to be repeated in the answer.
        call: CallId,
        /// What the job's tasks are made of.
        layout: Layout,
    },
    /// Run these.
    Tasks {
        /// The job they belong to.
        job: JobId,
        /// What an attempt may take.
        limits: Limits,
        /// The tasks.
        tasks: Batch<Task<P>>,
    },
    /// The records of these are stored, or not wanted: forget the results.
    Settled {
        /// The job they belong to.
        job: JobId,
        /// Everything below is settled.
        below: Seq,
        /// These above it are too.
        ranges: SeqRanges,
    },
    /// Hand back what has not started, and say so ([`News::Recalled`]), be it nothing.
    Recall {
        /// The job in question.
        job: JobId,
        /// Which call this is, to be repeated in the answer.
        call: CallId,
        /// So many of those that would start first it may keep.
        keep: u64,
    },
    /// Stop the job's tasks, running ones too.
    Cancel {
        /// The job in question.
        job: JobId,
    },
    /// Take no more, hand back what has not started, finish, leave.
    Drain,
    /// Still here.
    Ping,
    /// The job is over and all of its records are stored.
    Done {
        /// The job in question.
        job: JobId,
    },
    /// What an attempt may take has changed, for those under way too.
    Limits {
        /// The job in question.
        job: JobId,
        /// What holds from now on.
        limits: Limits,
    },
}

/// What an attempt may take, and what its result should tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The attempt is stopped after so many microseconds.
    pub timeout_us: Option<u64>,
    /// What the sink wants to know besides.
    pub report: Report,
}

/// What results carry beside the outcome, because the sink asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The command that was run: for a joblog.
    pub command: bool,
    /// The task itself.
    pub task: bool,
}

/// What a job's tasks are made of: how a command's replacement strings find their fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// The ventilator does not know: the worker's own flags hold.
    #[default]
    Unsaid,
    /// A task is a line, or as much text as there is, without parts.
    Whole,
    /// A task is a JSON object or array.
    Json,
    /// A task is several texts with this byte between them.
    Group(u8),
    /// A task is a line of columns, which this regular expression separates.
    Columns(String),
    /// A line of the input, without the newline at its end.
    Line,
}

/// A task as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task<P = Payload> {
    /// Its place in the job.
    pub seq: Seq,
    /// Which run this is.
    pub attempt: Attempt,
    /// Should this attempt fail, there will be no other: its failure is the task's record.
    pub last: bool,
    /// What the user's input said; in a later stage, what the stage before made of it.
    pub payload: P,
    /// What the task was in the user's input, where that is not the payload: in a later stage.
    pub origin: Option<TaskHash>,
}

/// To the sink, from workers and from the ventilator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "P: Serialize + AsRef<[u8]>",
    deserialize = "P: Deserialize<'de> + Default"
))]
pub enum ToSink<P = Payload> {
    /// A worker's results.
    Results {
        /// The job they belong to.
        job: JobId,
        /// The worker's session.
        session: SessionId,
        /// The results.
        results: Batch<TaskResult<P>>,
    },
    /// Something for the ventilator to know, from a worker; the sink passes it on.
    News {
        /// The worker's session.
        session: SessionId,
        /// What there is to know.
        news: News,
    },
    /// The ventilator opens a job. Comes first on every lane between the two.
    JobOpen {
        /// The job's id.
        job: JobId,
        /// Its name, for people.
        name: String,
        /// What it means for the output.
        start: Start,
        /// The stage whose workers the sender hands out tasks to; empty if it has no name.
        stage: String,
        /// None of its tasks was ever handed out, so nobody can hold one.
        is_untouched: bool,
    },
    /// No more tasks will come.
    JobClose {
        /// The job in question.
        job: JobId,
        /// How many tasks it has.
        total: u64,
        /// Why there are no more.
        end: InputEnd,
    },
    /// Write this task's record yourself: nobody will run it (again).
    GiveUp {
        /// The job it belongs to.
        job: JobId,
        /// The task.
        seq: Seq,
        /// Its last attempt, 0 if there was none.
        attempt: Attempt,
        /// What the task was.
        task_hash: TaskHash,
        /// How it ended.
        status: Status,
        /// Why.
        error: String,
    },
    /// The ventilator knows that everything is stored.
    JobDone {
        /// The job in question.
        job: JobId,
    },
    /// Still here.
    Ping,
    /// What a resumed job's input has where there are records already, for the sink to compare.
    Inputs {
        /// The job in question.
        job: JobId,
        /// The first task.
        from: Seq,
        /// What it is, and those that follow it.
        hashes: Batch<TaskHash>,
    },
    /// Records of an earlier stage: these tasks ended there.
    Forwarded {
        /// The job they belong to.
        job: JobId,
        /// Where they ended.
        stage: String,
        /// The name of the worker that they ended at; empty if none did.
        worker: String,
        /// How they ended.
        results: Batch<TaskResult<P>>,
    },
    /// The job is cancelled: what no sink has a result of ends as that, in every stage.
    Cancel {
        /// The job in question.
        job: JobId,
    },
}

/// Why no more tasks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputEnd {
    /// That was all of the input.
    Whole,
    /// Enough tasks had ended in a way that the job was to be halted for.
    Halted(HaltOn),
    /// The job was drained or cancelled, or the input could not be read on.
    CutShort,
}

/// How a job begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// It is a new job: the output must have nothing of another one.
    #[default]
    Anew,
    /// It goes on with the job that the output has, if there is one.
    Resume,
    /// The same, and tasks whose records are not `ok` are run again.
    RetryFailed,
}

/// What a worker tells the ventilator by way of the sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// Still here.
    Heartbeat {
        /// Tasks that run.
        running: u32,
        /// Tasks that wait for a slot.
        queued: u32,
        /// Tasks that it runs at once. Fewer than its card says where its host lacks something.
        slots: u32,
    },
    /// The answer to a roll call.
    Holding {
        /// The job it was called for.
        job: JobId,
        /// Which call this answers.
        call: CallId,
        /// Runs or waits for a slot.
        unfinished: SeqRanges,
        /// Has a result that is not settled.
        finished: SeqRanges,
        /// What these tasks are, all together, ascending by seq.
        hashes: Bounded<TaskHash, RANGES_MAX>,
    },
    /// These are handed back because the worker leaves, or because nobody wants them any more.
    Returned {
        /// The job they belong to.
        job: JobId,
        /// The tasks.
        ranges: SeqRanges,
    },
    /// The connection to the sink is new, and what was said on the one before may be lost: call
    /// the roll again.
    Reconnected,
    /// The worker takes no more and will leave when what it holds is settled.
    Draining {
        /// Why, for people; empty if it was asked to. At most
        /// [`ERROR_BYTES_MAX`](crate::limits::ERROR_BYTES_MAX) bytes.
        reason: String,
    },
    /// The worker leaves of its own accord and holds nothing.
    Goodbye,
    /// The answer to a recall: these were not started and are handed back.
    Recalled {
        /// The job it was called for.
        job: JobId,
        /// Which call this answers.
        call: CallId,
        /// The tasks.
        ranges: SeqRanges,
    },
    /// Bytes of it arrive, of a message that is not complete yet. Said by the sink.
    Alive,
    /// Its connection to the sink has ended, after all that it said. Said by the sink.
    Gone,
}

/// How one attempt of one task ended.
#[derive(Debug, PartialEq, Eq)]
pub struct TaskResult<P = Payload> {
    /// The task.
    pub seq: Seq,
    /// Which run this was.
    pub attempt: Attempt,
    /// As the task had it: a failure is to be stored, not to be tried again.
    pub last: bool,
    /// When it started: microseconds since 1970, by the worker's clock.
    pub started_us: u64,
    /// How long it ran, in microseconds.
    pub ran_us: u64,
    /// Bytes of the task's payload.
    pub task_bytes: u64,
    /// What the task was in the user's input.
    pub task_hash: TaskHash,
    /// How it ended.
    pub outcome: Outcome<P>,
    /// What the sink has [asked](Limits::report) for.
    pub reported: Option<Box<Reported<P>>>,
}

/// What a result carries on demand. What was not asked for is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported<P = Payload> {
    /// The command that was run.
    pub command: P,
    /// The task.
    pub task: P,
}

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome<P = Payload> {
    /// How it ended.
    pub status: Status,
    /// How its process ended, if it had one.
    pub exit: Exit,
    /// What it wrote to stdout, or what the handler returned.
    pub output: P,
    /// The end of what it wrote to stderr, at most
    /// [`STDERR_BYTES_MAX`](crate::limits::STDERR_BYTES_MAX) bytes.
    pub stderr: Rare<P>,
    /// Empty when all went well; else the reason, at most
    /// [`ERROR_BYTES_MAX`](crate::limits::ERROR_BYTES_MAX) bytes.
    pub error: String,
}

/// How a task, or one attempt of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// It did what it should.
    Ok,
    /// It ended with a non-zero exit code, a signal or an error.
    Failed,
    /// It took longer than the job's timeout and was stopped.
    TimedOut,
    /// Its workers kept dying.
    Lost,
    /// The job was cancelled first.
    Cancelled,
    /// Its handler said that nothing more is to be done about it: later stages do not see it.
    Skipped,
}

/// How a task's process ended.
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

/// From the sink to the ventilator, over the receipts port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToVentilator {
    /// The answer to [`ToSink::JobOpen`], and the first message on every receipts lane after it.
    SinkHello {
        /// The job that the ventilator asked for.
        asked: JobId,
        /// The job that was opened: another one if that is to be resumed.
        job: JobId,
        /// This start of the sink.
        sink: SessionId,
        /// What is stored already.
        stored: SeqRanges,
        /// Tasks whose records are to be replaced: they run again, if they are what they were.
        again: SeqRanges,
        /// The workers that are connected to it; none if it is so new that they may have had no
        /// time to connect.
        workers: Option<Bounded<SessionId, WORKERS_MAX>>,
        /// What results are to carry.
        report: Report,
    },
    /// What became of the results.
    Receipt {
        /// The job they belong to.
        job: JobId,
        /// Records that the sink has or had already: their credit is free.
        received: Bounded<Received, RECEIVED_MAX>,
        /// Records that are in the output: their tasks are settled.
        stored: SeqRanges,
        /// Failed attempts that were not the last: their credit is free too.
        retry: Batch<Failure>,
        /// Bytes of records that the sink holds and has not stored.
        held_bytes: u64,
        /// Records stored so far whose status is not `ok`.
        failed: u64,
    },
    /// A worker's news.
    Relay {
        /// The worker's session.
        session: SessionId,
        /// What there is to know.
        news: News,
    },
    /// All records of the job are stored, and flushed as far as the sink was told to.
    Complete {
        /// The job in question.
        job: JobId,
    },
    /// The sink will not take the job.
    Refused {
        /// The job in question.
        job: JobId,
        /// Why, for people.
        reason: String,
    },
    /// Still here.
    Ping {
        /// The output cannot be written at the moment.
        is_stuck: bool,
    },
    /// The input was [compared](ToSink::Inputs) and is what it was.
    Verified {
        /// The job in question.
        job: JobId,
        /// Everything below this.
        below: Seq,
    },
}

/// Workers in one receipt.
pub const RECEIVED_MAX: usize = SLOTS_MAX as usize;

const _: () = assert!(RECEIVED_MAX as u64 <= UNSETTLED_TASKS_MAX);

/// Results of one worker that the sink has received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The worker's session.
    pub session: SessionId,
    /// The tasks.
    pub ranges: SeqRanges,
    /// The longest of the run times, in microseconds.
    pub ran_us_max: u64,
    /// The median of the run times, in microseconds.
    pub ran_us_median: u64,
    /// The mean of the run times, in microseconds.
    pub ran_us_mean: u64,
    /// Bytes of the results.
    pub bytes: u64,
    /// Results of tasks that did not do what they should.
    pub failed: u64,
}

/// An attempt that failed and was not the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The worker's session.
    pub session: SessionId,
    /// The task.
    pub seq: Seq,
    /// Which run it was.
    pub attempt: Attempt,
    /// How long it ran, in microseconds.
    pub ran_us: u64,
}

impl Status {
    /// Did the handler do what it should? Such a task is not tried again.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Ok | Self::Skipped)
    }

    /// The word that stands in records.
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

impl Task {
    /// What the task was in the user's input.
    #[must_use]
    pub fn hash(&self) -> TaskHash {
        self.origin.unwrap_or_else(|| TaskHash::of(&self.payload))
    }
}

impl<P> TaskResult<P> {
    /// Is this the task's record, or will there be another attempt?
    pub fn is_final(&self) -> bool {
        self.last || self.outcome.status.is_success()
    }
}

// Derived, neither would be inlined, and every result is cloned on its way: a worker sends it and
// keeps it. Hardly any has more than an output.
impl<P: Clone> Clone for TaskResult<P> {
    #[inline]
    fn clone(&self) -> Self {
        let Self { seq, attempt, last, started_us, ran_us, task_bytes, task_hash, .. } = *self;
        let outcome = self.outcome.clone();
        let reported = self.reported.clone();
        Self { seq, attempt, last, started_us, ran_us, task_bytes, task_hash, outcome, reported }
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
    /// Bytes that the result keeps in memory, about.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.payload_bytes() + size_of::<Self>() as u64
    }

    /// Bytes of what the user sees of it.
    #[must_use]
    #[inline(always)]
    pub fn payload_bytes(&self) -> u64 {
        let Outcome { output, stderr, error, .. } = &self.outcome;
        let reported = self.reported.as_ref().map_or(0, |it| it.command.len() + it.task.len());
        (output.len() + stderr.len() + error.len() + reported) as u64
    }
}

impl<P: Default> Outcome<P> {
    /// All went well.
    pub fn ok(output: P) -> Self {
        let (exit, stderr) = (Exit::None, Rare::default());
        Self { status: Status::Ok, exit, output, stderr, error: String::new() }
    }

    /// There is no output, only a reason.
    pub fn error(status: Status, error: impl Into<String>) -> Self {
        let (output, stderr) = (P::default(), Rare::default());
        Self { status, exit: Exit::None, output, stderr, error: error.into() }
    }
}
