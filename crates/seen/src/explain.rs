//! One task: where it is, what it waits for, and what can be done.

use serde::Serialize;
use tradewind_proto::dispatcher::{Explained, Place, WaitsFor};

use crate::words::{many, number, time};
use crate::{Look, Watch};

/// Where a task is, by the schema of `/tasks/N`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Task {
    /// Its name: `#1,402`.
    pub name: String,
    /// Its number.
    pub seq: u64,
    /// Where it is, for programs.
    pub state: &'static str,
    /// Where it is, in a sentence.
    pub line: String,
    /// What it waits for, and what can be done.
    pub why: String,
    /// The worker that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// When it is tried again, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<f64>,
    /// Number of tasks that go before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// What has become of it so far.
    pub way: Vec<Step>,
}

/// A step of a task's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What happened.
    pub text: String,
    /// `bad`, `now` or nothing.
    pub tone: &'static str,
}

impl Watch {
    /// Returns a task as people and programs are told of it.
    #[must_use]
    pub fn task(&self, explained: &Explained) -> Option<Task> {
        let (at, look) = self.latest()?;
        Some(task(explained, look, at, &self.about().sink))
    }
}

fn task(explained: &Explained, look: &Look, at: f64, sink: &str) -> Task {
    let now = look.snapshot.now;
    let seq = explained.seq.0;
    let total = look.snapshot.total;
    let mut task = Task {
        name: format!("#{}", number(seq)),
        seq,
        state: "unknown",
        line: String::new(),
        why: String::new(),
        worker: None,
        until: None,
        ahead: None,
        way: way(explained),
    };
    let (state, line, why) = match &explained.place {
        Place::Unread if total.is_some_and(|total| seq >= total) => (
            "unknown",
            format!("There is no such task: the job has {}.", many(total.unwrap_or(0), "task")),
            String::new(),
        ),
        Place::Unread => (
            "unread",
            "It has not been read from the input yet.".to_owned(),
            format!(
                "{} are read so far; more is read as tasks end.",
                many(look.snapshot.read, "task")
            ),
        ),
        Place::CutOff => (
            "unknown",
            "It will not be run: the job ends before it.".to_owned(),
            "--resume goes on with it.".to_owned(),
        ),
        Place::Queued { before, waits_for } => {
            task.ahead = Some(*before);
            let why = waiting(*waits_for, *before, look);
            ("queued", "It waits to be handed out.".to_owned(), why)
        }
        Place::Delayed { until } => {
            let seconds = until.since(now).as_secs_f64();
            task.until = Some(at + seconds);
            (
                "delayed",
                format!("It failed, and is tried again in {}.", time(seconds)),
                "Each failure makes the wait longer.".to_owned(),
            )
        }
        Place::AtWorker { worker, since, is_running, .. } => {
            task.worker = Some(worker.clone());
            let long = since.map(|since| time(now.since(since).as_secs_f64()));
            let long = long.map_or_else(String::new, |long| format!(", handed out {long} ago"));
            let state = if *is_running { "running" } else { "held" };
            let line = if *is_running {
                format!("It runs at {worker}{long}.")
            } else {
                format!("It is at {worker}, where it waits for a slot{long}.")
            };
            (state, line, timeout(look))
        }
        Place::Received { worker, .. } => {
            task.worker.clone_from(worker);
            let whose = worker.as_ref().map_or_else(String::new, |worker| format!(" at {worker}"));
            (
                "unstored",
                format!("It has run{whose}, and its record is being stored."),
                format!("The sink at {sink} has the result."),
            )
        }
        Place::GivenUp => (
            "given_up",
            "It is not run any more, and its record is being stored.".to_owned(),
            format!("The sink at {sink} is told so."),
        ),
        Place::Stored => (
            "stored",
            "Its record is stored.".to_owned(),
            format!("The record is in the output of the sink at {sink}."),
        ),
    };
    (task.state, task.line, task.why) = (state, line, why);
    task
}

fn waiting(waits_for: WaitsFor, before: u64, look: &Look) -> String {
    let turn = || match before {
        0 => "It is the next one.".to_owned(),
        1 => "One task goes before it.".to_owned(),
        before => format!("{} tasks go before it.", number(before)),
    };
    match waits_for {
        WaitsFor::Turn if !look.snapshot.is_sink_open => "Nothing is handed out without a sink.".to_owned(),
        WaitsFor::Turn if look.snapshot.is_paused => "Nothing is handed out during a pause.".to_owned(),
        WaitsFor::Turn if look.snapshot.workers.is_empty() => "There are no workers.".to_owned(),
        WaitsFor::Turn => turn(),
        WaitsFor::NoSuspect => {
            "A worker was lost while it may have run there: it waits for one without another such task.".to_owned()
        }
        WaitsFor::EmptyWorker => {
            "Workers were lost while it may have run there: it waits for one that has no other task.".to_owned()
        }
        WaitsFor::Judgement => {
            "A worker at which it may have run is silent: it waits until that one is back or counts as lost.".to_owned()
        }
        WaitsFor::OtherWorker { .. } => "It failed at each worker that is free: it waits for another one.".to_owned(),
        WaitsFor::LargerWorker { .. } => {
            "No worker takes a task of its size: one with a larger --message-max does.".to_owned()
        }
    }
}

fn timeout(look: &Look) -> String {
    match look.timeout {
        Some(limit) => format!("It is stopped when it has run for {}.", time(limit.as_secs_f64())),
        None => "It may take as long as it likes: there is no --timeout.".to_owned(),
    }
}

fn way(explained: &Explained) -> Vec<Step> {
    let mut way = Vec::new();
    let step = |text: String, tone| Step { text, tone };
    if explained.attempts.0 > 0 {
        way.push(step(format!("handed out {}", times(u64::from(explained.attempts.0))), ""));
    }
    if explained.failures > 0 {
        way.push(step(format!("failed {}", times(u64::from(explained.failures))), "bad"));
    }
    if explained.losses > 0 {
        let text = format!(
            "{} lost while it may have run there",
            many(u64::from(explained.losses), "worker")
        );
        way.push(step(text, "bad"));
    }
    way
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{} times", number(count)),
    }
}
