//! A relay's decisions: the sink of one stage and the ventilator of the next.
//!
//! It is made of the two machines that these have, and of what flows between them: a result of the
//! earlier stage is a task of the next, a failure or a skip goes on to the sink as the task's
//! record, and what the sink has stored is stored for the earlier stage. A relay keeps nothing that
//! is not kept elsewhere too: a worker of the earlier stage has the result until the last sink has
//! stored the record.

use crate::collector::{Collector, Counts, DownstreamState, Opened, Opening, Records};
use crate::dispatcher::{Dispatcher, DispatcherConfig, Policy, StageReport};
use crate::message::{Layout, Start, Status, ToSink, ToVentilator};
use crate::{JobId, SessionId, Time};

/// What a relay was told by its user.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// This start of the relay.
    pub session: SessionId,
    /// The name of the stage whose workers get its tasks; may be empty.
    pub stage: String,
    /// What this stage allows its tasks and workers; it has no halt.
    pub policy: Policy,
    /// Bytes of the largest message that is sent here, to be named where a task is too large for
    /// all workers.
    pub message_bytes_max: u64,
    /// A task is what the stage before has written, to the byte. Else text goes without the newline
    /// at its end.
    pub keep_newline: bool,
    /// Decides the jitter of backoffs.
    pub seed: u64,
}

/// The relay's state machine.
///
/// What happens on connections goes to the two machines directly, to
/// [`upstream`](Self::upstream) as to a sink's and to [`downstream`](Self::downstream) as to a
/// ventilator's. Messages come through [`handle_from_upstream`](Self::handle_from_upstream) and
/// [`handle_from_downstream`](Self::handle_from_downstream). Then both machines are asked what to
/// do.
#[derive(Debug)]
pub struct Relay {
    upstream: Collector,
    downstream: Dispatcher,
    keep_newline: bool,
    is_done: bool,
    /// A refusal was passed on.
    is_refused: bool,
}

impl Relay {
    /// A relay that knows no job yet.
    #[must_use]
    pub fn new(config: RelayConfig) -> Self {
        let RelayConfig { session, stage, policy, message_bytes_max, keep_newline, seed } = config;
        let downstream = Dispatcher::relay(DispatcherConfig {
            layout: Layout::Unsaid,
            job: JobId(0),
            name: String::new(),
            stage,
            start: Start::Anew,
            policy: Policy { halt: None, ..policy },
            message_bytes_max,
            seed,
        });
        let upstream = Collector::relay(session);
        Self { upstream, downstream, keep_newline, is_done: false, is_refused: false }
    }

    /// What collects the results of the earlier stage.
    #[must_use]
    pub fn upstream(&self) -> &Collector {
        &self.upstream
    }

    /// What collects the results of the earlier stage.
    pub fn upstream_mut(&mut self) -> &mut Collector {
        &mut self.upstream
    }

    /// What hands out the tasks of the next stage.
    #[must_use]
    pub fn downstream(&self) -> &Dispatcher {
        &self.downstream
    }

    /// What hands out the tasks of the next stage.
    pub fn downstream_mut(&mut self) -> &mut Dispatcher {
        &mut self.downstream
    }

    /// The earlier stage said something: its workers, or whoever hands out tasks to them.
    pub fn handle_from_upstream(&mut self, message: ToSink) {
        let is_ours = |job: JobId| self.upstream.job() == Some(job);
        match message {
            // Only the sink has what a resumed job's input is compared with.
            ToSink::Inputs { job, from, hashes } => {
                if is_ours(job) {
                    let job = next_stage(job);
                    self.downstream.forward(ToSink::Inputs { job, from, hashes });
                }
            }
            ToSink::Cancel { job } => {
                if is_ours(job) {
                    self.downstream.handle_cancelled();
                }
            }
            ToSink::JobDone { job } => {
                self.is_done |= is_ours(job) || self.is_refused;
                self.upstream.handle_message(message);
            }
            ToSink::JobClose { job, total, end } => {
                if is_ours(job) {
                    self.downstream.handle_total(total, end);
                }
                self.upstream.handle_message(message);
            }
            ToSink::JobOpen { job, start: Start::Resume, .. }
                if self.upstream.job().is_some_and(|open| open != job) =>
            {
                if let ToSink::JobOpen { job, name, start, stage, is_untouched } = message.clone() {
                    let job = next_stage(job);
                    let opening = Opening { job, name, start, stage, is_untouched };
                    self.downstream.handle_reopening(opening);
                }
                self.is_refused = false;
                self.upstream.handle_message(message);
            }
            message => self.upstream.handle_message(message),
        }
        self.flow();
    }

    /// The sink said something, or the relay that stands where it does.
    pub fn handle_from_downstream(&mut self, now: Time, message: ToVentilator) {
        match message {
            ToVentilator::Verified { job, below }
                if self.upstream.job() == Some(stage_before(job)) =>
            {
                self.upstream.handle_verified(below);
            }
            message => self.downstream.handle_message(now, message),
        }
        self.flow();
    }

    /// It is as late as [`poll_timeout`](Self::poll_timeout) said, for one of the machines or for both.
    pub fn handle_timeout(&mut self, now: Time) {
        if now >= self.upstream.poll_timeout() {
            self.upstream.handle_timeout(now);
        }
        if now >= self.downstream.poll_timeout() {
            self.downstream.handle_timeout(now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.upstream.poll_timeout().min(self.downstream.poll_timeout())
    }

    /// Is the job over, and do all that were before this relay know?
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Is the output known to be flushed, with all records of the job in it?
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.upstream.is_flushed()
    }

    /// The ventilator is taken to be gone for good, after all records were stored: what it would have said
    /// at the end counts as said, so that the workers and the sink of the stage after hear of the end.
    pub fn handle_ventilator_given_up(&mut self) {
        self.is_done = true;
        self.flow();
    }

    /// Are all records of the job in the output?
    #[must_use]
    pub fn is_all_stored(&self) -> bool {
        self.upstream.is_all_stored()
    }

    /// Panics if one of the machines contradicts itself; see [`Dispatcher::check_invariants`].
    pub fn check_invariants(&self) {
        self.upstream.check_invariants();
        self.downstream.check_invariants();
    }

    /// What one machine says is news for the other.
    fn flow(&mut self) {
        if let Some(opening) = self.upstream.poll_open() {
            self.is_refused = false;
            let job = next_stage(opening.job);
            self.downstream.handle_opening(Opening { job, ..opening });
        }
        self.apply_reports();
        self.forward();
        self.apply_reports();
        self.downstream.handle_all_here(self.upstream.is_all_taken());
        if self.is_done && self.downstream.ended().is_none() {
            self.downstream.handle_job_done();
        }
    }

    /// The stage before hears what there is to hear of this one.
    fn apply_reports(&mut self) {
        let upstream = &mut self.upstream;
        while let Some(report) = self.downstream.poll_report() {
            match report {
                StageReport::Opened(hello) if hello.is_first => {
                    let (stored, again) = (hello.stored.to_set(), hello.again.to_set());
                    let counts = Counts { ok: stored.count(), ..Counts::default() };
                    let job = stage_before(hello.job);
                    upstream.handle_opened(Opened {
                        job,
                        stored,
                        counts,
                        again,
                        ..Opened::default()
                    });
                }
                StageReport::Opened(hello) => {
                    upstream.handle_stored(&hello.stored);
                    upstream.handle_opened_again(hello.again.to_set());
                }
                StageReport::Refused(reason) => {
                    self.is_refused = true;
                    upstream.handle_refused(reason);
                }
                StageReport::Stored(stored) => upstream.handle_stored(&stored),
                StageReport::State(state) => {
                    let (held_bytes, failed) = (state.kept_bytes, state.failed);
                    let downstream = DownstreamState { held_bytes, failed };
                    upstream.handle_downstream_state(downstream, state.is_stuck, state.report);
                }
                StageReport::Flushed => upstream.handle_flushed(),
            }
        }
    }

    /// What the stage before has made is a task of this one, or goes on as it is.
    fn forward(&mut self) {
        let Self { upstream, downstream, keep_newline, .. } = self;
        while let Some(lists) = upstream.poll_write() {
            let count = lists.len();
            for Records { worker, stage, results } in lists {
                for result in results {
                    if result.outcome.status == Status::Ok {
                        let output = result.outcome.output;
                        let output = if *keep_newline { output } else { output.without_newline() };
                        downstream.handle_arrival(result.seq, output, result.task_hash);
                    } else {
                        downstream.handle_forwarded(stage.clone(), worker.clone(), result);
                    }
                }
            }
            upstream.handle_forwarded(count);
        }
    }
}

/// The job's id in the stage after. Each stage has one of its own, so that what was meant for one
/// counts for nothing in another, wherever it comes by mistake: a worker that reaches the relay before
/// it instead of the one after it would else see its results run again.
fn next_stage(job: JobId) -> JobId {
    JobId(job.0.wrapping_add(1))
}

/// The job's id in the stage before.
fn stage_before(job: JobId) -> JobId {
    JobId(job.0.wrapping_sub(1))
}
