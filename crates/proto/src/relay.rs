//! A relay's decisions: the sink of one stage and the ventilator of the next.
//!
//! A relay is made of the two machines that these have, and of what flows between them: a result of
//! the earlier stage is a task of the next, a failure or a skip is forwarded to the sink as the
//! task's record, and a record that the sink has stored is stored for the earlier stage. A relay
//! keeps nothing that is not kept elsewhere too: a worker of the earlier stage has the result until
//! the last sink has stored the record.

use crate::collector::{Collector, Counts, DownstreamState, Opened, Opening, Records};
use crate::dispatcher::{Dispatcher, DispatcherConfig, Policy, StageReport};
use crate::message::{Layout, Start, Status, ToSink, ToVentilator};
use crate::{JobId, SessionId, Time};

/// Settings of a relay.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Session of the relay.
    pub session: SessionId,
    /// Name of the stage whose workers get the relay's tasks; may be empty.
    pub stage: String,
    /// Limits of this stage's tasks and workers, without a halt.
    pub policy: Policy,
    /// Bytes of the largest message that this relay sends, named where a task is too large for all
    /// workers.
    pub message_bytes_max: u64,
    /// Whether a task is the output of the earlier stage to the byte. Else text loses the newline
    /// at its end.
    pub keep_newline: bool,
    /// Seed of the jitter of backoffs.
    pub seed: u64,
}

/// The relay's state machine.
///
/// Events of connections go to the two machines directly, to [`upstream`](Self::upstream) as to a
/// sink's and to [`downstream`](Self::downstream) as to a ventilator's. Messages come through
/// [`handle_from_upstream`](Self::handle_from_upstream) and
/// [`handle_from_downstream`](Self::handle_from_downstream). Then both machines are asked for the
/// work to do.
#[derive(Debug)]
pub struct Relay {
    upstream: Collector,
    downstream: Dispatcher,
    keep_newline: bool,
    is_done: bool,
    /// A refusal was forwarded.
    is_refused: bool,
}

impl Relay {
    /// Creates a relay that knows no job yet.
    #[must_use]
    pub fn new(config: RelayConfig) -> Self {
        let RelayConfig { session, stage, policy, message_bytes_max, keep_newline, seed } = config;
        let downstream = Dispatcher::relay(DispatcherConfig {
            layout: Layout::Unsaid,
            job: JobId(0),
            name: String::new(),
            stage,
            start: Start::New,
            policy: Policy { halt: None, ..policy },
            message_bytes_max,
            seed,
        });
        let upstream = Collector::relay(session);
        Self { upstream, downstream, keep_newline, is_done: false, is_refused: false }
    }

    /// Returns the machine that collects the results of the earlier stage.
    #[must_use]
    pub fn upstream(&self) -> &Collector {
        &self.upstream
    }

    /// Returns the machine that collects the results of the earlier stage.
    pub fn upstream_mut(&mut self) -> &mut Collector {
        &mut self.upstream
    }

    /// Returns the machine that dispatches the tasks of the next stage.
    #[must_use]
    pub fn downstream(&self) -> &Dispatcher {
        &self.downstream
    }

    /// Returns the machine that dispatches the tasks of the next stage.
    pub fn downstream_mut(&mut self) -> &mut Dispatcher {
        &mut self.downstream
    }

    /// Handles a message from the earlier stage: from its workers, or from its ventilator or relay.
    pub fn handle_from_upstream(&mut self, message: ToSink) {
        let is_ours = |job: JobId| self.upstream.job() == Some(job);
        match message {
            // Only the sink has the hashes with which a resumed job's input is compared.
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
                    let key = None;
                    let opening = Opening { job, name, start, stage, is_untouched, key };
                    self.downstream.handle_reopening(opening);
                }
                self.is_refused = false;
                self.upstream.handle_message(message);
            }
            message => self.upstream.handle_message(message),
        }
        self.flow();
    }

    /// Handles a message from the sink, or from the relay that stands in its place.
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

    /// Handles the time that [`poll_timeout`](Self::poll_timeout) named, for one machine or for both.
    pub fn handle_timeout(&mut self, now: Time) {
        if now >= self.upstream.poll_timeout() {
            self.upstream.handle_timeout(now);
        }
        if now >= self.downstream.poll_timeout() {
            self.downstream.handle_timeout(now);
        }
    }

    /// Returns the time at which to call [`handle_timeout`](Self::handle_timeout), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.upstream.poll_timeout().min(self.downstream.poll_timeout())
    }

    /// Returns whether the job is over, and all stages before this relay know.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Returns whether the output is flushed, with all records of the job in it.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.upstream.is_flushed()
    }

    /// Treats the ventilator as gone for good after all records were stored: its last message counts as
    /// received, so that the workers and the sink of the next stage hear of the end.
    pub fn handle_ventilator_given_up(&mut self) {
        self.is_done = true;
        self.flow();
    }

    /// Returns whether all records of the job are in the output.
    #[must_use]
    pub fn is_all_stored(&self) -> bool {
        self.upstream.is_all_stored()
    }

    /// Panics if one of the machines contradicts itself; see [`Dispatcher::check_invariants`].
    pub fn check_invariants(&self) {
        self.upstream.check_invariants();
        self.downstream.check_invariants();
    }

    /// Exchanges reports between the two machines.
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

    /// Applies the reports of this stage to the earlier one.
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
                        key: Some(hello.key.stage_before()),
                        ..Opened::default()
                    });
                    // The ventilator may have said how the job ends before it was open here, and left.
                    self.is_done |= upstream.is_done();
                    if let Some((total, end)) = upstream.close() {
                        self.downstream.handle_total(total, end);
                    }
                }
                StageReport::Opened(hello) => {
                    upstream.handle_stored(&hello.stored);
                    let key = hello.key.stage_before();
                    upstream.handle_opened_again(hello.again.to_set(), key);
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

    /// Makes the results of the earlier stage tasks of this one, or forwards them unchanged.
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

/// Returns the job's id in the next stage. Each stage has an id of its own, so that messages for
/// one stage that reach another by mistake are ignored: a worker that reaches the relay before its
/// own instead of the one after it would else see its results run again.
fn next_stage(job: JobId) -> JobId {
    JobId(job.0.wrapping_add(1))
}

/// Returns the job's id in the earlier stage.
fn stage_before(job: JobId) -> JobId {
    JobId(job.0.wrapping_sub(1))
}
