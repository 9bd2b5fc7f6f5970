//! The table of workers: what there is to remark on each, and which of them are asked for.

use tradewind_proto::dispatcher::{Aside, DispatcherSnapshot, WorkerSnapshot, WorkerState};

use crate::look::Look;
use crate::status::{Sort, Tone, Wanted, Worker};
use crate::words::{many, number, time};

/// Seconds of silence that are remarked on.
const SILENT: f64 = 3.0;

/// Number of failures in a row that are remarked on where others succeed.
const FAILED_IN_ROW: u64 = 20;

/// Characters of a name that are shown.
const NAME_MAX: usize = 100;

/// Returns all workers, in the order of the dispatcher.
pub(crate) fn rows(look: &Look) -> Vec<Worker> {
    let snapshot = &look.snapshot;
    snapshot.workers.iter().map(|worker| row(snapshot, worker)).collect()
}

fn row(snapshot: &DispatcherSnapshot, worker: &WorkerSnapshot) -> Worker {
    let heard = snapshot.now.since(worker.heard).as_secs_f64();
    let (tone, remark) = remark(snapshot, worker, heard);
    let trouble = match tone {
        Tone::Plain => u64::from(!remark.is_empty()),
        Tone::Warn => 3,
        Tone::Bad => 6,
    };
    Worker {
        name: worker.name.chars().take(NAME_MAX).collect(),
        host: String::new(),
        version: String::new(),
        slots: worker.slots,
        busy: u64::from(worker.running).min(worker.slots).min(worker.out),
        rate: worker.rate.unwrap_or(0.0),
        median_seconds: worker.usual.map(|usual| usual.as_secs_f64()),
        done: worker.done,
        failed: worker.failed,
        heard_seconds: heard,
        remark,
        tone,
        trouble,
    }
}

fn remark(snapshot: &DispatcherSnapshot, worker: &WorkerSnapshot, heard: f64) -> (Tone, String) {
    if heard > SILENT {
        return (Tone::Bad, format!("silent for {}", time(heard)));
    }
    if let WorkerState::SetAside { why, .. } = worker.state {
        let why = match why {
            Aside::Failures { failed, ended } => {
                format!(
                    "sick: {} of its last {} tasks failed; gets one now and then",
                    number(failed),
                    number(ended)
                )
            }
            Aside::Owed => "did not give back what it owed; gets a task now and then".to_owned(),
        };
        return (Tone::Bad, why);
    }
    let others_succeed = snapshot
        .workers
        .iter()
        .any(|other| other.session != worker.session && other.done > other.failed);
    if worker.failed_in_row >= FAILED_IN_ROW && others_succeed {
        return (Tone::Bad, format!("its last {} failed", many(worker.failed_in_row, "task")));
    }
    if let Some(factor) = worker.factor.filter(|_| worker.is_slow) {
        return (Tone::Warn, format!("slow: {factor:.1} × the others"));
    }
    match worker.state {
        WorkerState::Called => (Tone::Plain, "is asked what it holds".to_owned()),
        WorkerState::Draining => (Tone::Plain, "draining".to_owned()),
        WorkerState::HeldBack { .. } => {
            (Tone::Plain, "gets none: the others finish the rest sooner".to_owned())
        }
        WorkerState::Reserved { .. } => {
            (Tone::Plain, "kept for a task that may kill workers".to_owned())
        }
        WorkerState::Ready | WorkerState::SetAside { .. } => (Tone::Plain, String::new()),
    }
}

/// Returns a letter: how it is, times nine, and the eighths of its slots that are busy.
pub(crate) fn letter(worker: &Worker) -> char {
    let tone = match worker.tone {
        Tone::Plain => 0,
        Tone::Warn => 1,
        Tone::Bad => 2,
    };
    let eighths = (worker.busy * 8).div_ceil(worker.slots.max(1)).min(8);
    char::from(b'0' + tone * 9 + eighths as u8)
}

/// Returns a sentence about all of them.
pub(crate) fn text(workers: &[Worker]) -> String {
    let sum = |of: fn(&Worker) -> u64| workers.iter().map(of).sum::<u64>();
    let mut text = format!(
        "{}, {} of {} slots busy",
        many(workers.len() as u64, "worker"),
        number(sum(|worker| worker.busy)),
        number(sum(|worker| worker.slots))
    );
    for (tone, word) in [(Tone::Bad, "in trouble"), (Tone::Warn, "slow")] {
        let count = workers.iter().filter(|worker| worker.tone == tone).count();
        if count > 0 {
            text += &format!(", {} {word}", number(count as u64));
        }
    }
    text
}

/// Returns those that are asked for, and how many there are of them in all.
pub(crate) fn wanted(mut workers: Vec<Worker>, wanted: &Wanted) -> (Vec<Worker>, u64) {
    let need = wanted.need.to_lowercase();
    workers.retain(|worker| {
        worker.name.to_lowercase().contains(&need) || worker.host.to_lowercase().contains(&need)
    });
    workers.sort_by(|a, b| {
        let order = match wanted.sort {
            Sort::Name => a.name.cmp(&b.name),
            Sort::Trouble => a.trouble.cmp(&b.trouble),
            Sort::Busy => a.busy.cmp(&b.busy),
            Sort::Rate => a.rate.total_cmp(&b.rate),
            Sort::Median => {
                a.median_seconds.unwrap_or(-1.0).total_cmp(&b.median_seconds.unwrap_or(-1.0))
            }
            Sort::Done => a.done.cmp(&b.done),
            Sort::Failed => a.failed.cmp(&b.failed),
            Sort::Heard => a.heard_seconds.total_cmp(&b.heard_seconds),
            Sort::Host => a.host.cmp(&b.host),
            Sort::Version => a.version.cmp(&b.version),
        };
        let order = if wanted.is_down { order.reverse() } else { order };
        order.then_with(|| a.name.cmp(&b.name))
    });
    let found = workers.len() as u64;
    workers.truncate(wanted.rows);
    (workers, found)
}
