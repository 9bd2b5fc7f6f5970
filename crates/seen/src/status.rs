//! The account of a job that programs and pages read: `/status.json`, by its schema.

use serde::{Serialize, Serializer};

use crate::limit::By;

/// Version of the schema: fields are added to it, and none changes its meaning.
const SCHEMA: u32 = 1;

/// State of a job or a queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    schema: u32,
    /// When this was so, in seconds since 1970 as all times here.
    pub now: f64,
    /// The program that says it.
    pub program: Program,
    /// Name of a service that has several queues.
    pub service: Option<String>,
    /// Its queues.
    pub queues: Option<Vec<QueueRow>>,
    /// The job, the queue, or all queues of a service together.
    pub queue: Queue,
}

impl Status {
    /// Makes the account of one job.
    #[must_use]
    pub const fn of_job(now: f64, program: Program, queue: Queue) -> Self {
        Self { schema: SCHEMA, now, program, service: None, queues: None, queue }
    }
}

/// A program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Program {
    /// `ventilator`, `relay`, `sink`, `worker`, `serve` or `run`.
    pub role: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its host.
    pub host: String,
    /// When it began.
    pub began: f64,
}

/// A queue of a service, in a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueueRow {
    pub name: String,
    pub state: State,
    pub state_text: String,
    pub why: String,
    pub waiting: u64,
    pub oldest_seconds: Option<f64>,
    pub rate: f64,
    pub failed: u64,
    pub busy: u64,
    pub slots: u64,
    pub empty_in_seconds: Option<f64>,
    pub spark: Vec<f64>,
}

/// Whether a job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It goes on.
    Running,
    /// There is nothing to do.
    Idle,
    /// It waits for somebody.
    Waiting,
    /// Somebody has paused it.
    Paused,
    /// It finishes what was handed out.
    Draining,
    /// Nothing moves.
    Stuck,
    /// It has ended, and all went well.
    Done,
    /// It has ended, and some tasks are not ok.
    DoneFailed,
    /// It has ended before its end.
    Failed,
}

/// How much something matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Tone {
    /// As it should be.
    #[default]
    #[serde(rename = "")]
    Plain,
    /// To be looked at.
    #[serde(rename = "warn")]
    Warn,
    /// To be mended.
    #[serde(rename = "bad")]
    Bad,
}

/// A job or a queue.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the schema says what they are")]
pub struct Queue {
    pub id: String,
    pub name: String,
    pub kind: &'static str,
    pub endless: bool,
    pub state: State,
    pub state_text: String,
    pub about: Vec<String>,
    pub began: f64,
    pub ended: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_seconds: Option<f64>,
    pub limit: Limit,
    pub chain: Vec<Link>,
    pub notes: Vec<Note>,
    pub total: Option<u64>,
    pub total_is_estimate: bool,
    pub progress: Option<f64>,
    pub eta: Option<Eta>,
    pub no_eta: String,
    pub facts: Vec<(String, String)>,
    pub counts: Counts,
    #[serde(rename = "where")]
    pub places: Vec<Place>,
    pub where_text: String,
    pub rate: f64,
    pub fail_rate: f64,
    pub run: Run,
    pub stages: Option<Vec<Stage>>,
    pub fails: Vec<Fail>,
    pub fails_text: String,
    pub events: Vec<Event>,
    pub workers: Vec<Worker>,
    pub workers_found: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub map: String,
    pub workers_text: String,
    pub no_workers: String,
}

/// What limits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// It, for programs.
    pub by: By,
    /// Since when.
    pub since: f64,
    /// How much it matters.
    pub tone: Tone,
    /// It, in a sentence.
    pub line: String,
    /// What helps.
    pub more: String,
}

/// A link of the chain from the input to the sink: who, how it is, and whether it limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who.
    pub who: &'static str,
    /// How it is.
    pub word: String,
    /// Whether it limits, and how bad that is.
    pub limits: Option<Tone>,
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.limits {
            None => (self.who, &self.word).serialize(serializer),
            Some(Tone::Bad) => (self.who, &self.word, "limits bad").serialize(serializer),
            Some(_) => (self.who, &self.word, "limits").serialize(serializer),
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// How much it matters.
    pub tone: Tone,
    /// What it is.
    pub text: String,
    /// The panel of the page that says more.
    pub to: &'static str,
    /// Words of the link.
    pub link: &'static str,
}

/// The end, and how sure it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Eta {
    /// Seconds until then.
    pub seconds: f64,
    /// One of ten jobs ends sooner.
    pub low_seconds: f64,
    /// One of ten jobs ends later.
    pub high_seconds: f64,
    /// When that is.
    pub at: f64,
}

/// Tasks by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Those with a record.
    pub stored: u64,
    /// Of those, the ones that are neither `ok` nor `skipped`.
    pub not_ok: u64,
    /// Finished, without a record.
    pub unstored: u64,
    /// Running.
    pub running: u64,
    /// At workers, where they wait for a slot.
    pub held: u64,
    /// Failed, and waiting to be tried again.
    pub delayed: u64,
    /// Waiting to be handed out, or to be read.
    pub queued: u64,
}

/// A part of the bar of all tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    pub id: &'static str,
    pub n: u64,
    pub name: &'static str,
    pub about: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rare: bool,
}

/// How long attempts ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    pub buckets: Vec<(f64, u64)>,
    pub p50_seconds: Option<f64>,
    pub p95_seconds: Option<f64>,
    pub limit_seconds: Option<f64>,
    pub text: String,
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    pub name: String,
    pub slots: u64,
    pub busy: u64,
    pub rate: f64,
    pub median_seconds: Option<f64>,
    pub waiting: u64,
    pub failed: u64,
    pub limits: bool,
    pub word: String,
}

/// Failures that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fail {
    pub id: String,
    pub count: u64,
    pub message: String,
    pub when: String,
    pub about: String,
    pub example: String,
    pub seqs: Vec<u64>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub t: f64,
    /// What.
    pub text: String,
    /// Whether the plot shows it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mark: bool,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Worker {
    pub name: String,
    pub host: String,
    pub version: String,
    pub slots: u64,
    pub busy: u64,
    pub rate: f64,
    pub median_seconds: Option<f64>,
    pub done: u64,
    pub failed: u64,
    pub heard_seconds: f64,
    pub remark: String,
    pub tone: Tone,
    pub trouble: u64,
}

/// Which workers are asked for, in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Number of rows.
    pub rows: usize,
    /// Column by which they are sorted.
    pub sort: Sort,
    /// Whether the largest comes first.
    pub is_down: bool,
    /// What their name or host has in it.
    pub need: String,
}

/// Column of the table of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the columns")]
pub enum Sort {
    Name,
    #[default]
    Trouble,
    Busy,
    Rate,
    Median,
    Done,
    Failed,
    Heard,
    Host,
    Version,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { rows: 20, sort: Sort::default(), is_down: true, need: String::new() }
    }
}

impl std::str::FromStr for Sort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "name" => Self::Name,
            "trouble" => Self::Trouble,
            "busy" => Self::Busy,
            "rate" => Self::Rate,
            "median" => Self::Median,
            "done" => Self::Done,
            "failed" => Self::Failed,
            "heard" => Self::Heard,
            "host" => Self::Host,
            "version" => Self::Version,
            _ => return Err(()),
        })
    }
}
