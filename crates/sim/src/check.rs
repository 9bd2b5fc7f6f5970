//! The promise, checked at every step by an account of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tradewind_proto::Payload;
use tradewind_proto::collector::{CollectorSnapshot, Order, Record};
use tradewind_proto::dispatcher::{DispatcherSnapshot, TaskLimits};
use tradewind_proto::limits::{
    BATCH_BYTES_MAX, BATCH_TASKS_MAX, CREDIT_BYTES_MAX, CREDIT_TASKS_MAX, HELD_BYTES_MAX,
    RETAINED_BYTES_MAX, UNSETTLED_TASKS_MAX,
};
use tradewind_proto::message::{News, Status, Task, ToSink, ToVentilator};
use tradewind_proto::{Attempt, Seq, SeqRanges, SessionId};

use crate::event::Instant;
use crate::plan::{Fate, Plan, TaskPlan};
use crate::ventilator::stage_name;
use crate::worker::output;

pub(crate) struct Check {
    order: Order,
    limits: TaskLimits,
    /// The highest number of retries that ever holds.
    retries_most: u32,
    /// Tasks of a queue that may be cancelled.
    cancelled_tasks: BTreeSet<u64>,
    /// By seq, limits in the first stage.
    own_limits: BTreeMap<u64, TaskLimits>,
    /// No worker hangs, and none of their clocks jumps: no attempt is stopped later than it is due.
    is_timely: bool,
    losses_max: u32,
    /// Only what kills its worker is lost.
    is_bloodless: bool,
    /// Nothing may fail.
    is_sparing: bool,
    /// Bytes of the largest task in any stage, and of the largest result with all that is kept of
    /// it.
    largest_bytes: u64,
    /// Bytes of results that workers may have under way, whatever the ventilator does now.
    under_way_bytes: u64,
    tasks: Vec<History>,
    /// By task, the status of the result that the sink heard of first: that is the record. `None` if an
    /// earlier sink may have heard of another one.
    claims: BTreeMap<Seq, Option<Status>>,
    violation: Option<String>,
    /// Records so far.
    records: u64,
    /// Everything below has a record.
    first_missing: u64,
    /// Tasks that were dispatched and have no record.
    unsettled: u64,
    is_stopped: bool,
    is_cancelled: bool,
    /// Counts what may excuse a second run.
    clock: u64,
    /// By stage, starts of its ventilator or relay: each counts attempts from one.
    starts: Vec<u64>,
    /// By worker: when it was last declared lost, or died.
    lost: Vec<u64>,
    /// Workers that say their results again and again.
    repeating: BTreeSet<usize>,
    progressed: Instant,
    /// The time of the last record.
    last_record: Instant,
    /// Start of the ventilator from which on the job is the one that it is.
    job_began: u64,
    /// Runs that were not their task's first.
    reruns: u64,
    /// Records that say `lost`.
    lost_records: u64,
}

struct History {
    plan: TaskPlan,
    stages: Vec<StageHistory>,
    record: Option<Status>,
}

/// History of a task in one stage.
struct StageHistory {
    payload: Payload,
    dispatches: Vec<Dispatch>,
    runs: Vec<Run>,
    /// Number of losses of workers that had it, as far as its dispatcher could know.
    losses: u32,
}

struct Dispatch {
    worker: usize,
    start: u64,
    attempt: Attempt,
    at: u64,
    /// The worker has said that it does not have the task any more.
    is_over: bool,
}

struct Run {
    worker: usize,
    /// By the start of the ventilator that dispatched it.
    start: u64,
    attempt: Attempt,
    dispatched: u64,
    began: Instant,
    end: Option<RunEnd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEnd {
    Ok,
    Failed,
    /// By a signal, because the executor asked for it.
    Stopped,
}

impl Check {
    pub(crate) fn new(plan: &Plan) -> Self {
        let stages = plan.stages;
        let queue = plan.queue.as_ref();
        let (retries, retries_most) =
            queue.map_or((plan.retries, plan.retries), |queue| queue.retries(plan.retries));
        // The tasks of a queue come later.
        let tasks = plan.tasks.iter().enumerate().take_while(|_| queue.is_none());
        let history = |(seq, task): (usize, &TaskPlan)| {
            let mut payload = format!("task {seq} ").into_bytes();
            payload.resize(payload.len() + task.payload_bytes, b'-');
            History::new(*task, payload.into(), stages)
        };
        let largest = |task: &TaskPlan| task.payload_bytes + stages * task.output_bytes + 1_000;
        let largest_bytes = plan.tasks.iter().map(largest).max().unwrap_or(0) as u64;
        let slots: u64 = plan.seats.iter().map(|seat| u64::from(seat.slots)).sum();
        let under_way = slots * largest_bytes + plan.seats.len() as u64 * CREDIT_BYTES_MAX;
        Self {
            largest_bytes,
            // A window that has not seen a result yet may have let in as much again.
            under_way_bytes: 2 * under_way,
            order: plan.order,
            limits: TaskLimits {
                retries: Some(retries),
                timeout: plan.timeout_us.map(Duration::from_micros),
            },
            own_limits: plan.own_limits.clone(),
            is_timely: plan.faults.iter().all(|(_, fault)| fault.is_timely()),
            losses_max: plan.losses_max,
            is_bloodless: plan.is_bloodless,
            is_sparing: plan.is_sparing,
            retries_most,
            cancelled_tasks: BTreeSet::new(),
            tasks: tasks.map(history).collect(),
            claims: BTreeMap::new(),
            violation: None,
            records: 0,
            first_missing: 0,
            unsettled: 0,
            is_stopped: false,
            is_cancelled: false,
            clock: 0,
            starts: vec![1; stages],
            lost: Vec::new(),
            repeating: BTreeSet::new(),
            progressed: 0,
            last_record: 0,
            job_began: 0,
            reruns: 0,
            lost_records: 0,
        }
    }

    /// The first violation is the one that counts.
    pub(crate) fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn payload(&self, seq: usize, stage: usize) -> Payload {
        self.tasks[seq].stages[stage].payload.clone()
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    pub(crate) fn reruns(&self) -> u64 {
        self.reruns
    }

    pub(crate) fn lost_records(&self) -> u64 {
        self.lost_records
    }

    pub(crate) fn last_record(&self) -> Instant {
        self.last_record
    }

    /// Returns the time of the last progress.
    pub(crate) fn last_progress(&self) -> Instant {
        self.progressed
    }

    pub(crate) fn progressed(&mut self, now: Instant) {
        self.progressed = now;
    }

    /// Notes a task that was submitted, with its limits.
    pub(crate) fn learn(&mut self, plan: TaskPlan, payload: Payload, limits: TaskLimits) {
        self.own_limits.insert(self.tasks.len() as u64, limits);
        self.tasks.push(History::new(plan, payload, self.starts.len()));
    }

    /// Notes that a task may be cancelled.
    pub(crate) fn cancelled_task(&mut self, seq: u64) {
        self.cancelled_tasks.insert(seq);
    }

    pub(crate) fn restarted(&mut self, stage: usize) {
        self.starts[stage] += 1;
    }

    pub(crate) fn stopped(&mut self) {
        self.is_stopped = true;
    }

    pub(crate) fn cancelled(&mut self) {
        self.is_cancelled = true;
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// Returns the limits of a task in a stage.
    fn limits(&self, seq: Seq, stage: usize) -> TaskLimits {
        let own = self.own_limits.get(&seq.0).filter(|_| stage == 0).copied().unwrap_or_default();
        TaskLimits {
            retries: own.retries.or(self.limits.retries),
            timeout: own.timeout.or(self.limits.timeout),
        }
    }

    /// Checks that the memory of a process that dispatches tasks is within its bounds.
    pub(crate) fn dispatcher(&mut self, snapshot: &DispatcherSnapshot, is_relay: bool) {
        // The tasks of a relay come as long as the sinks that it stands for hold little.
        let bound = if is_relay {
            HELD_BYTES_MAX + self.under_way_bytes
        } else {
            RETAINED_BYTES_MAX + self.largest_bytes
        };
        let kept = snapshot.kept_bytes;
        if kept > bound {
            self.fail(|| format!("{kept} bytes of tasks are kept, where {bound} may be"));
        }
    }

    /// Checks that the memory of a process that collects results is within its bounds.
    pub(crate) fn collector(&mut self, snapshot: &CollectorSnapshot) {
        let (held, bound) = (snapshot.held_bytes, HELD_BYTES_MAX + self.under_way_bytes);
        if held > bound {
            self.fail(|| format!("{held} bytes of records are held, where {bound} may be"));
        }
    }

    /// A worker that was just given a batch of tasks may hold that much.
    pub(crate) fn charged(&mut self, tasks: &[Task], held_bytes: u64) {
        let bytes: usize = tasks.iter().map(|task| task.payload.len()).sum();
        let is_full = tasks.len() > BATCH_TASKS_MAX || bytes > BATCH_BYTES_MAX;
        if is_full && tasks.len() > 1 {
            self.fail(|| format!("{} tasks of {bytes} bytes are in one message", tasks.len()));
        }
        if held_bytes > CREDIT_BYTES_MAX + self.largest_bytes {
            self.fail(|| format!("a worker that holds {held_bytes} bytes was given more"));
        }
    }

    pub(crate) fn dispatched(&mut self, worker: usize, stage: usize, tasks: &[Task]) {
        self.clock += 1;
        for task in tasks {
            let Some(history) = self.tasks.get_mut(task.seq.0 as usize) else {
                self.fail(|| format!("{} was dispatched and never read", task.seq));
                return;
            };
            let is_first = history.stages.iter().all(|stage| stage.dispatches.is_empty());
            self.unsettled += u64::from(is_first && history.record.is_none());
            history.stages[stage].dispatches.push(Dispatch {
                worker,
                start: self.starts[stage],
                attempt: task.attempt,
                at: self.clock,
                is_over: false,
            });
        }
        let unsettled = self.unsettled;
        if unsettled > UNSETTLED_TASKS_MAX {
            self.fail(|| format!("{unsettled} tasks were dispatched and have no record"));
        }
    }

    pub(crate) fn held(&mut self, count: u64) {
        if count > CREDIT_TASKS_MAX {
            self.fail(|| format!("a worker holds {count} tasks"));
        }
    }

    /// A worker died, left, or gave up what it ran as it was leaving.
    pub(crate) fn died(&mut self, worker: usize) {
        self.clock += 1;
        if self.lost.len() <= worker {
            self.lost.resize(worker + 1, 0);
        }
        self.lost[worker] = self.clock;
    }

    /// Notes that a worker says its results again and again. With a failure that is known it can make the
    /// ventilator stop its own later attempt.
    pub(crate) fn repeats(&mut self, worker: usize) {
        self.repeating.insert(worker);
    }

    /// Notes that a worker was told that the job is cancelled: a ventilator that resumes it has to run again
    /// what it had, in whatever stage.
    pub(crate) fn gave_up(&mut self, worker: usize) {
        if self.is_cancelled {
            self.died(worker);
        }
    }

    /// The ventilator declared a worker lost.
    pub(crate) fn lost(&mut self, worker: usize, is_needless: bool) {
        self.died(worker);
        if is_needless {
            self.fail(|| format!("worker {worker} was declared lost for no reason"));
        }
        for history in &mut self.tasks {
            let was_there = |dispatch: &Dispatch| dispatch.worker == worker && !dispatch.is_over;
            for stage in &mut history.stages {
                if history.record.is_none() && stage.dispatches.iter().any(was_there) {
                    stage.losses += 1;
                }
            }
        }
    }

    /// Notes that the dispatcher of a stage hears this of a worker: what that had, and does not have any
    /// more, or has after all.
    pub(crate) fn heard(
        &mut self,
        worker: usize,
        session: SessionId,
        stage: usize,
        message: &ToVentilator,
    ) {
        match message {
            ToVentilator::Receipt { retry, .. } => {
                let its = retry.0.iter().filter(|failure| failure.session == session);
                let failed: SeqRanges = its.map(|failure| failure.seq).collect();
                self.note_over(worker, stage, &failed, true);
            }
            ToVentilator::Relay { news: News::Returned { ranges, .. }, .. }
            | ToVentilator::Relay { news: News::Recalled { ranges, .. }, .. } => {
                self.note_over(worker, stage, ranges, true);
            }
            ToVentilator::Relay { news: News::Holding { unfinished, finished, .. }, .. } => {
                self.note_over(worker, stage, unfinished, false);
                self.note_over(worker, stage, finished, false);
            }
            _ => {}
        }
    }

    fn note_over(&mut self, worker: usize, stage: usize, ranges: &SeqRanges, is_over: bool) {
        let count = self.tasks.len() as u64;
        let ranges = ranges.as_slice().iter().map(|range| range.clamped(Seq(0), Seq(count)));
        for seq in ranges.flat_map(|range| range.seqs()) {
            let dispatches = &mut self.tasks[seq.0 as usize].stages[stage].dispatches;
            let its = dispatches.iter_mut().filter(|dispatch| dispatch.worker == worker);
            its.for_each(|dispatch| dispatch.is_over = is_over);
        }
    }

    /// The sink, which has the job open, hears of these results: the first of each task is its record.
    pub(crate) fn claimed(&mut self, message: &ToSink) {
        let mut claim = |seq: Seq, status| {
            self.claims.entry(seq).or_insert(Some(status));
        };
        match message {
            ToSink::Results { results, .. } | ToSink::Forwarded { results, .. } => {
                let results = results.0.iter();
                let of_stage = matches!(message, ToSink::Forwarded { .. });
                let results = results.filter(|result| of_stage || result.is_final());
                results.for_each(|result| claim(result.seq, result.outcome.status));
            }
            ToSink::GiveUp { seq, status, .. } => claim(*seq, *status),
            _ => {}
        }
    }

    /// Notes that the job is another one from this start of the ventilator on: nothing counts of what workers have.
    pub(crate) fn began_again(&mut self) {
        self.job_began = self.starts[0];
    }

    /// A sink that starts again has forgotten what is not on its disk.
    pub(crate) fn forgot_claims(&mut self) {
        self.claims.values_mut().for_each(|claim| *claim = None);
    }

    pub(crate) fn started(
        &mut self,
        worker: usize,
        stage: usize,
        seq: Seq,
        attempt: Attempt,
        payload: &Payload,
        now: Instant,
    ) {
        self.progressed = now;
        let TaskLimits { retries, timeout } = self.limits(seq, stage);
        let own = self.own_limits.get(&seq.0).filter(|_| stage == 0).and_then(|own| own.retries);
        let retries = own.or(retries.map(|_| self.retries_most));
        let Some(history) = self.tasks.get_mut(seq.0 as usize) else {
            self.fail(|| format!("{seq} started and was never read"));
            return;
        };
        let history = &mut history.stages[stage];
        let is_payload = history.payload == *payload;
        let is_known =
            |dispatch: &&Dispatch| dispatch.worker == worker && dispatch.attempt == attempt;
        let dispatch = history.dispatches.iter().rev().find(is_known);
        let (dispatched, start) = (dispatch.map(|d| d.at), dispatch.map_or(0, |d| d.start));
        let is_twice = history.runs.iter().any(|run| run.attempt == attempt && run.start == start);
        let (lost, repeating) = (&self.lost, &self.repeating);
        // What a cancelled ventilator has thrown away, the next one has to run again.
        let cancelled_before = if self.is_cancelled { self.starts[stage] } else { 0 };
        let job_began = self.job_began;
        let is_excused = |run: &Run| {
            let was_lost = lost.get(run.worker).is_some_and(|at| *at > run.dispatched);
            match run.end {
                _ if was_lost || run.start < cancelled_before.max(job_began) => true,
                _ if repeating.contains(&run.worker) => true,
                Some(RunEnd::Failed) => true,
                Some(RunEnd::Stopped) => timeout.is_some(),
                Some(RunEnd::Ok) | None => false,
            }
        };
        // It may have been sent before its worker was declared lost, and be read only now.
        let was_lost = lost.get(worker) > dispatched.as_ref();
        let needless = history.runs.iter().find(|run| !was_lost && !is_excused(run));
        let needless = needless.map(|run| (run.worker, run.attempt));
        // Of those that this ventilator must have heard of.
        let failures = history.runs.iter().filter(|run| {
            let was_lost = lost.get(run.worker).is_some_and(|at| *at > run.dispatched);
            let is_failed = matches!(run.end, Some(RunEnd::Failed | RunEnd::Stopped));
            is_failed && run.start == start && !was_lost
        });
        let failures = failures.count() as u32;
        let is_repeated = !repeating.is_empty();
        self.reruns += u64::from(!history.runs.is_empty());
        let dispatched_at = dispatched.unwrap_or_default();
        history.runs.push(Run {
            worker,
            start,
            attempt,
            dispatched: dispatched_at,
            began: now,
            end: None,
        });
        if !is_payload {
            self.fail(|| format!("{seq} ran with another payload than its own"));
        } else if dispatched.is_none() {
            self.fail(|| format!("{seq} started at worker {worker}, where it was never sent"));
        } else if is_twice {
            self.fail(|| format!("attempt {attempt} of {seq} started twice"));
        } else if let Some((other, earlier)) = needless {
            self.fail(|| {
                format!(
                    "{seq} started again at worker {worker} for no reason: \
                     worker {other} has attempt {earlier}"
                )
            });
        } else if !was_lost && !is_repeated && retries.is_some_and(|most| failures > most) {
            self.fail(|| format!("{seq} started again after {failures} failures: {retries:?}"));
        }
    }

    pub(crate) fn ended(
        &mut self,
        worker: usize,
        stage: usize,
        seq: Seq,
        began: Instant,
        end: RunEnd,
        now: Instant,
    ) {
        self.progressed = now;
        let timeout = self.limits(seq, stage).timeout.filter(|_| self.is_timely);
        let runs = &mut self.tasks[seq.0 as usize].stages[stage].runs;
        let is_this =
            |run: &&mut Run| run.worker == worker && run.began == began && run.end.is_none();
        if let Some(run) = runs.iter_mut().rev().find(is_this) {
            run.end = Some(end);
            let ran = Duration::from_micros(now - run.began);
            if end != RunEnd::Stopped && timeout.is_some_and(|timeout| ran > timeout) {
                self.fail(|| format!("{seq} ran for {ran:?}, its timeout is {timeout:?}"));
            }
        }
    }

    pub(crate) fn recorded(&mut self, record: Record<'_>, now: Instant) {
        self.progressed = now;
        self.last_record = now;
        self.records += 1;
        self.lost_records += u64::from(record.result.outcome.status == Status::Lost);
        let seq = record.result.seq;
        let limits = |place| self.limits(seq, place);
        let limits: Vec<TaskLimits> = (0..self.starts.len()).map(limits).collect();
        let Some(history) = self.tasks.get_mut(seq.0 as usize) else {
            self.fail(|| format!("{seq} has a record and was never read"));
            return;
        };
        let is_second = history.record.replace(record.result.outcome.status).is_some();
        let was_dispatched = history.stages.iter().any(|stage| !stage.dispatches.is_empty());
        self.unsettled -= u64::from(was_dispatched && !is_second);
        let (is_bloodless, is_sparing) = (self.is_bloodless, self.is_sparing);
        let is_poison = history.plan.fate == Fate::Poison;
        let status = record.result.outcome.status;
        let is_cancelled = self.is_cancelled || self.cancelled_tasks.contains(&seq.0);
        let problem = history.judge(record, &limits, self.losses_max, is_cancelled);
        match self.claims.get(&seq) {
            None => self.fail(|| format!("{seq} has a record, and no result was heard of")),
            Some(Some(claim)) if *claim != status => {
                let claim = *claim;
                self.fail(|| format!("{seq} is {status:?}, and {claim:?} was heard of first"));
            }
            Some(_) => {}
        }
        if is_second {
            self.fail(|| format!("{seq} has two records"));
        }
        if is_bloodless && status == Status::Lost && !is_poison {
            self.fail(|| format!("{seq} is lost, and it is innocent"));
        }
        if is_sparing && matches!(status, Status::Failed | Status::TimedOut | Status::Lost) {
            self.fail(|| format!("{seq} has failed, and a host was there that does it"));
        }
        if let Some(problem) = problem {
            self.fail(|| format!("the record of {seq} is wrong: {problem}"));
        }
        if self.order == Order::Seq && seq.0 + 1 != self.records {
            let due = self.records - 1;
            self.fail(|| format!("the record of {seq} came when {due} was due"));
        }
        while self.tasks.get(self.first_missing as usize).is_some_and(|task| task.record.is_some())
        {
            self.first_missing += 1;
        }
    }

    /// Notes that a process leaves because the job is over.
    pub(crate) fn left(&mut self, who: &str) {
        let (first, count) = (self.first_missing, self.tasks.len() as u64);
        if !self.is_stopped && first < count {
            self.fail(|| format!("{who} left while {first} had no record"));
        }
    }

    /// Notes that the job is over, and the number of its tasks.
    pub(crate) fn complete(&mut self, total: u64) {
        if !self.is_stopped && total != self.tasks.len() as u64 {
            let read = self.tasks.len();
            self.fail(|| format!("the job of {read} tasks ended with {total}"));
        }
        // One that was resumed and stopped soon after may have records of what it has not read
        // again.
        let is_all = self.first_missing == total && self.records == total;
        let is_cut_short = self.is_stopped && self.starts[0] > 1 && self.first_missing >= total;
        if !is_all && !is_cut_short {
            let records = self.records;
            self.fail(|| format!("{records} records for {total} tasks"));
        }
    }
}

impl History {
    fn new(plan: TaskPlan, payload: Payload, stages: usize) -> Self {
        let payloads = std::iter::successors(Some(payload), |payload| {
            Some(output(payload, plan.output_bytes))
        });
        let stage =
            |payload| StageHistory { payload, dispatches: Vec::new(), runs: Vec::new(), losses: 0 };
        Self { plan, stages: payloads.map(stage).take(stages).collect(), record: None }
    }

    /// Returns what is wrong with a record, with the task's limits by stage.
    fn judge(
        &self,
        record: Record<'_>,
        limits: &[TaskLimits],
        losses_max: u32,
        is_cancelled: bool,
    ) -> Option<String> {
        let result = record.result;
        let place = (0..self.stages.len()).find(|place| stage_name(*place) == record.stage);
        let Some(place) = place else {
            return Some(format!("it ended in a stage called {:?}", record.stage));
        };
        let StageHistory { payload, runs, losses, .. } = &self.stages[place];
        let ended = |end| runs.iter().filter(move |run| run.end == Some(end)).count();
        let failures = (ended(RunEnd::Failed) + ended(RunEnd::Stopped)) as u32;
        let retries = limits[place].retries.unwrap_or_default();
        let timeout = limits[place].timeout;
        let status = result.outcome.status;
        let fate = self.plan.fate_in(place);
        let is_fine = match status {
            Status::Ok => {
                let output = output(payload, self.plan.output_bytes);
                let is_last = place + 1 == self.stages.len();
                is_last && ended(RunEnd::Ok) > 0 && result.outcome.output == output
            }
            Status::Failed if fate == Fate::Unfit => result.attempt == Attempt(0),
            Status::Failed => ended(RunEnd::Failed) > 0 && failures > retries,
            Status::TimedOut => {
                let said = timeout.map(|timeout| format!("timed out after {timeout:?}"));
                let is_its = said.is_none_or(|said| said == result.outcome.error);
                ended(RunEnd::Stopped) > 0 && failures > retries && is_its
            }
            Status::Lost => *losses >= losses_max,
            Status::Cancelled => is_cancelled,
            Status::Skipped => fate == Fate::Skips && ended(RunEnd::Ok) > 0,
        };
        (!is_fine).then(|| {
            format!(
                "{status:?} with attempt {}, after {failures} failures of {} and {losses} losses",
                result.attempt,
                retries + 1
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use tradewind_proto::batch::{Batch, Bounded};
    use tradewind_proto::message::{Failure, Outcome, TaskResult};
    use tradewind_proto::{CallId, JobId, Tag, TaskHash};

    use super::*;

    const LOSSES_MAX: usize = 3;
    const JOB: JobId = JobId(1);

    fn check() -> Check {
        let mut plan = Plan::without_troubles(1);
        let task = TaskPlan {
            payload_bytes: 0,
            output_bytes: 0,
            run_us: 1,
            fate: Fate::FailsUpTo(0),
            fate_stage: 0,
        };
        (plan.tasks, plan.stages, plan.losses_max) = (vec![task; 2], 1, LOSSES_MAX as u32);
        (plan.is_bloodless, plan.is_sparing, plan.order) = (false, false, Order::Completion);
        Check::new(&plan)
    }

    fn result(seq: u64, status: Status) -> TaskResult {
        TaskResult {
            seq: Seq(seq),
            attempt: Attempt(1),
            last: true,
            tag: Tag::default(),
            started_us: 0,
            ran_us: 0,
            task_bytes: 0,
            task_hash: TaskHash(0),
            outcome: Outcome::error(status, "so it is"),
            reported: None,
        }
    }

    fn give_up(seq: u64, status: Status) -> ToSink {
        let (attempt, task_hash, error) = (Attempt(1), TaskHash(0), String::new());
        ToSink::GiveUp { job: JOB, seq: Seq(seq), attempt, task_hash, status, error }
    }

    fn record(check: &mut Check, seq: u64, status: Status) {
        let (result, stage) = (result(seq, status), stage_name(0));
        check.recorded(Record { worker: "", stage: &stage, result: &result }, 0);
    }

    fn news(news: News) -> ToVentilator {
        ToVentilator::Relay { session: SessionId(0), news }
    }

    fn seqs(seqs: &[u64]) -> SeqRanges {
        seqs.iter().copied().map(Seq).collect()
    }

    /// Returns what is wrong with a `lost` record of task 0, if each worker that is lost was sent tasks 0 and
    /// 1 and said this before.
    fn after_losses(said: &[ToVentilator]) -> Option<String> {
        let mut check = check();
        for worker in 0..LOSSES_MAX {
            let task = |seq| Task {
                seq: Seq(seq),
                attempt: Attempt(1 + worker as u32),
                last: true,
                payload: Payload::new(),
                hash: TaskHash::of(b""),
                tag: Tag::default(),
            };
            check.dispatched(worker, 0, &[task(0), task(1)]);
            said.iter().for_each(|message| check.heard(worker, SessionId(0), 0, message));
            check.lost(worker, false);
        }
        check.claimed(&give_up(0, Status::Lost));
        record(&mut check, 0, Status::Lost);
        check.violation().map(str::to_owned)
    }

    #[test]
    fn a_task_is_lost_only_with_workers_that_have_it() {
        let failed = |seq| {
            let (session, attempt) = (SessionId(0), Attempt(1));
            let failure = Failure { session, seq: Seq(seq), attempt, ran_us: 1 };
            ToVentilator::Receipt {
                job: JOB,
                received: Bounded(Vec::new()),
                stored: SeqRanges::new(),
                retry: Batch::from(vec![failure]),
                held_bytes: 0,
                failed: 0,
            }
        };
        let returned = |seq| news(News::Returned { job: JOB, ranges: seqs(&[seq]) });
        let recalled =
            |seq| news(News::Recalled { job: JOB, call: CallId(0), ranges: seqs(&[seq]) });
        let holding = || {
            let (unfinished, finished) = (seqs(&[0, 1]), SeqRanges::new());
            let hashes = Bounded(Vec::new());
            let tags = Bounded::default();
            news(News::Holding { job: JOB, call: CallId(0), unfinished, finished, hashes, tags })
        };
        assert_eq!(after_losses(&[]), None);
        for over in [failed, returned, recalled] as [fn(u64) -> ToVentilator; 3] {
            assert_eq!(after_losses(&[over(1)]), None, "that is the other task");
            assert!(after_losses(&[over(0)]).is_some(), "{:?}", over(0));
            assert_eq!(after_losses(&[over(0), holding()]), None, "it has it after all");
        }
    }

    #[test]
    fn a_worker_that_repeats_its_failures_may_run_a_task_again() {
        let again = |is_repeating: bool, other: usize| {
            let mut check = check();
            if is_repeating {
                check.repeats(0);
            }
            for (worker, attempt) in [(0, 1), (other, 2)] {
                let (attempt, payload) = (Attempt(attempt), check.payload(0, 0));
                let task = Task {
                    seq: Seq(0),
                    attempt,
                    last: true,
                    payload: payload.clone(),
                    hash: TaskHash::of(b""),
                    tag: Tag::default(),
                };
                check.dispatched(worker, 0, &[task]);
                check.started(worker, 0, Seq(0), attempt, &payload, 0);
            }
            check.violation().is_none()
        };
        assert_eq!([again(false, 0), again(false, 1)], [false; 2]);
        assert_eq!([again(true, 0), again(true, 1)], [true; 2]);
    }

    #[test]
    fn a_record_is_the_first_result_that_was_heard_of() {
        let of = |claims: &[ToSink], is_restarted: bool| {
            let mut check = check();
            check.cancelled();
            claims.iter().for_each(|claim| check.claimed(claim));
            if is_restarted {
                check.forgot_claims();
            }
            record(&mut check, 0, Status::Cancelled);
            check.violation().map(str::to_owned)
        };
        let results = || {
            let results = vec![result(0, Status::Skipped)];
            ToSink::Results { job: JOB, session: SessionId(0), results: results.into() }
        };
        let cancelled = || give_up(0, Status::Cancelled);
        assert_eq!(of(&[cancelled()], false), None);
        assert_eq!(of(&[cancelled(), results()], false), None);
        assert!(of(&[results(), cancelled()], false).is_some());
        assert!(of(&[], false).is_some());
        assert_eq!(of(&[results(), cancelled()], true), None, "the first sink may have lost it");
    }
}
