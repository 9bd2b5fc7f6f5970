//! The sink's decisions: which result becomes the record, in which order, and what the ventilator
//! is told.
//!
//! The first final result of a seq that arrives is its record; later ones are counted and
//! answered like the first, so that nobody waits for them. Records leave through
//! [`Collector::poll_write`], and when they are in the output,
//! [`handle_written`](Collector::handle_written) makes them stored.
//!
//! In the order of seqs a record may have to wait for one before it. Beyond a number of bytes such
//! records leave through [`Collector::poll_spool`] instead, and are stored when they are in the
//! spool. When their turn comes [`Collector::poll_unspool`] says so.

mod invariants;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::batch::{Batch, Bounded};
use crate::limits::{
    ERROR_BYTES_MAX, HEARTBEAT_INTERVAL, READ_AHEAD_TASKS_MAX, ROLL_CALL_GRACE, SPOOL_BYTES_MAX,
    UNSETTLED_TASKS_MAX, WAITING_BYTES_MAX, WORKERS_MAX,
};
use crate::message::{
    Failure, InputEnd, News, Outcome, RECEIVED_MAX, Received, Report, Start, Status, TaskResult,
    ToSink, ToVentilator, changed_input,
};
use crate::{Attempt, JobId, Seq, SeqRange, SeqRanges, SeqSet, SessionId, TaskHash, Time};

pub use crate::message::Opening;

/// The order of the records in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By seq: a record waits for all before it.
    Seq,
    /// As they arrive.
    Completion,
}

/// What a sink was told by its user.
#[derive(Clone, Copy, Debug)]
pub struct CollectorConfig {
    /// This start of the sink.
    pub session: SessionId,
    /// The order of the records.
    pub order: Order,
    /// What results are to carry.
    pub report: Report,
}

/// How much may wait for an earlier record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of records that wait in memory, beyond which they are spooled.
    pub waiting_bytes_max: u64,
    /// Bytes that the spool may have. More is not spooled, but held until the ventilator stops.
    pub spool_bytes_max: u64,
}

/// Records that are written one after the other. They travel together as they came, so that
/// nobody has to touch each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// The name of the worker that made them; empty if none did.
    pub worker: Arc<str>,
    /// The stage that the tasks ended in; empty if it has no name.
    pub stage: Arc<str>,
    /// How the tasks ended.
    pub results: Vec<TaskResult>,
}

/// A task's one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The name of the worker that made it; empty if none did.
    pub worker: &'a str,
    /// The stage that the task ended in; empty if it has no name.
    pub stage: &'a str,
    /// How it ended.
    pub result: &'a TaskResult,
}

/// How many records there are of each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `ok`
    pub ok: u64,
    /// `failed`
    pub failed: u64,
    /// `timed_out`
    pub timed_out: u64,
    /// `lost`
    pub lost: u64,
    /// `cancelled`
    pub cancelled: u64,
    /// `skipped`
    pub skipped: u64,
}

/// A sink as its collector sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorSnapshot {
    /// The job's name, once one is open.
    pub job: Option<String>,
    /// How many tasks it has, once that is known.
    pub total: Option<u64>,
    /// Records that are stored.
    pub stored: Counts,
    /// Bytes of records that are held and not stored.
    pub held_bytes: u64,
    /// Records that are stored in the spool, and not in the output yet.
    pub spooled: u64,
    /// Results that came again after their record.
    pub duplicates: u64,
    /// Results of another job.
    pub unexpected_results: u64,
    /// Workers that are connected.
    pub workers: u64,
}

/// The sink's state machine.
#[derive(Debug)]
pub struct Collector {
    config: CollectorConfig,
    /// Without these nothing is spooled.
    spool: Option<SpoolLimits>,
    job: Option<Job>,
    /// A job that the ventilator wants to open, until the output is ready for it.
    opening: Option<(Opening, bool)>,
    /// The job that was last asked for.
    asked: Option<JobId>,
    inputs: VecDeque<Inputs>,
    /// The first task that is not what it was.
    changed: Option<Seq>,
    workers: BTreeMap<SessionId, Arc<str>>,
    is_ventilator_connected: bool,
    receipt: PendingReceipt,
    transmits: VecDeque<ToVentilator>,
    next_beat: Time,
    /// When all workers have had the time to connect.
    settles_in: Option<Time>,
    is_settled_in: bool,
    /// The output cannot be written.
    is_stuck: bool,
    duplicates: u64,
    unexpected_results: u64,
    no_worker: Arc<str>,
    /// What is known from further down, if the records are not written here but handed on.
    downstream: Option<DownstreamState>,
}

/// What a relay's collector is told of what becomes of the results that it handed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DownstreamState {
    /// Bytes that the relay keeps, and that are not stored.
    pub held_bytes: u64,
    /// Records stored so far of tasks that did not do what they should.
    pub failed: u64,
}

/// A job as the output has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The job that the output belongs to: another one than asked for if that is to be resumed.
    pub job: JobId,
    /// Tasks whose records are in the output or in the spool from before.
    pub stored: SeqSet,
    /// Those of them that are in the spool, and not in the output.
    pub spooled: SeqSet,
    /// How the stored ones ended.
    pub counts: Counts,
    /// Tasks whose records are to be replaced: they run again, and are compared with what they
    /// were as those that are stored.
    pub again: SeqSet,
    /// How the job begins, if the output is yet to be changed for that: see
    /// [`Collector::poll_begin`].
    pub pending: Option<Start>,
}

/// What a resumed job's input has where there are records already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Tasks that have or had records, ascending, and what the input says that they are.
    pub stored: Vec<(Seq, TaskHash)>,
    /// All below this is compared when these are.
    pub below: Seq,
}

#[derive(Debug)]
struct Job {
    id: JobId,
    name: String,
    stage: Arc<str>,
    total: Option<u64>,
    /// Why that is the total, once it is known.
    end: Option<InputEnd>,
    /// Has a record, stored or not.
    taken: SeqSet,
    stored: SeqSet,
    /// Had records that are to be replaced.
    again: SeqSet,
    /// The output is as an earlier sink left it, until it is known that the input is too.
    pending: Option<Pending>,
    /// In the output, or given out to be written there, if that is in the order of seqs.
    given: SeqSet,
    /// Records that wait for one before them, by their first seq; each list without gaps.
    waiting: BTreeMap<Seq, (Records, Writing)>,
    waiting_bytes: u64,
    spool: Spool,
    /// Records whose turn has come.
    ready: Vec<(Records, Writing)>,
    /// What was given out to be written, in that order.
    writing: VecDeque<Writing>,
    held_bytes: u64,
    counts: Counts,
    flushed: bool,
    done: bool,
}

/// An output that is not to be changed before the input was compared.
#[derive(Debug)]
struct Pending {
    /// What the ventilator asked for.
    start: Start,
    /// All tasks below this are what they were.
    verified: Seq,
}

/// Records that are stored elsewhere until their turn comes.
#[derive(Debug, Default)]
struct Spool {
    /// What was given out to be spooled, in that order.
    spooling: VecDeque<Writing>,
    /// In the spool, and not in the output.
    seqs: SeqSet,
    /// What is to be moved from the spool to the output now, and whether that was said.
    unspooling: Option<(SeqRange, bool)>,
    /// What the spool has, and what was given out to be in it, in bytes.
    bytes: u64,
    spooling_bytes: u64,
    /// The last attempt failed, and it is not time for another one.
    is_failing: bool,
}

/// What remains to be known of records while they are written.
#[derive(Debug, Default)]
struct Writing {
    seqs: SeqRanges,
    held_bytes: u64,
    counts: Counts,
}

#[derive(Debug, Default)]
struct PendingReceipt {
    received: Vec<Received>,
    stored: SeqRanges,
    retry: Vec<Failure>,
}

impl Collector {
    /// A sink that knows no job yet.
    #[must_use]
    pub fn new(config: CollectorConfig) -> Self {
        Self {
            config,
            spool: None,
            job: None,
            opening: None,
            asked: None,
            inputs: VecDeque::new(),
            changed: None,
            workers: BTreeMap::new(),
            is_ventilator_connected: false,
            receipt: PendingReceipt::default(),
            transmits: VecDeque::new(),
            next_beat: Time(0),
            settles_in: None,
            is_settled_in: false,
            is_stuck: false,
            duplicates: 0,
            unexpected_results: 0,
            no_worker: Arc::from(""),
            downstream: None,
        }
    }

    /// The same with a spool for what waits.
    #[must_use]
    pub fn with_spool(self, limits: SpoolLimits) -> Self {
        Self { spool: Some(limits), ..self }
    }

    /// The collector of a relay: nothing is written here. What [`poll_write`](Self::poll_write)
    /// gives is handed on, as [`handle_forwarded`](Self::handle_forwarded) says, and is stored when
    /// [`handle_stored`](Self::handle_stored) says so.
    #[must_use]
    pub fn relay(session: SessionId) -> Self {
        let config =
            CollectorConfig { session, order: Order::Completion, report: Report::default() };
        Self { downstream: Some(DownstreamState::default()), ..Self::new(config) }
    }

    /// A worker connected; its name will stand in its records.
    pub fn handle_worker_connected(&mut self, session: SessionId, name: &str) {
        self.workers.insert(session, Arc::from(name));
    }

    /// A worker's connection ended.
    pub fn handle_worker_disconnected(&mut self, session: SessionId) {
        if self.workers.remove(&session).is_some() {
            self.handle_news(session, News::Gone);
        }
    }

    /// Bytes of a worker's arrive, of a message that is not complete yet: it lives, however long that
    /// takes. To be called at most once in a [heartbeat's](HEARTBEAT_INTERVAL) time.
    pub fn handle_alive(&mut self, session: SessionId) {
        if self.workers.contains_key(&session) {
            self.handle_news(session, News::Alive);
        }
    }

    /// Our connection to the ventilator's receipts port stands.
    pub fn handle_ventilator_connected(&mut self) {
        self.is_ventilator_connected = true;
        self.send_hello();
    }

    /// Our connection to the ventilator's receipts port is gone.
    pub fn handle_ventilator_disconnected(&mut self) {
        self.is_ventilator_connected = false;
        self.transmits.clear();
        self.receipt = PendingReceipt::default();
    }

    /// Somebody said something.
    pub fn handle_message(&mut self, message: ToSink) {
        match message {
            ToSink::Results { job, session, results } => {
                self.handle_results(job, session, results.0);
            }
            ToSink::News { session, news } => self.handle_news(session, news),
            ToSink::JobOpen { job, name, start, stage, is_untouched } => {
                self.handle_open(Opening { job, name, start, stage, is_untouched });
            }
            ToSink::JobClose { job, total, end } => {
                if let Some(current) = self.job_mut(job) {
                    (current.total, current.end) = (Some(total), Some(end));
                    // What was said with the hello meant nothing to a relay that did not know the
                    // total yet.
                    if current.flushed && current.is_all_stored() {
                        self.send(ToVentilator::Complete { job });
                    }
                }
            }
            ToSink::GiveUp { job, seq, attempt, task_hash, status, error } => {
                let outcome = Outcome::error(status, error);
                self.handle_give_up(job, seq, attempt, task_hash, outcome);
            }
            ToSink::Inputs { job, from, hashes } => {
                if self.job_mut(job).is_some() {
                    self.handle_inputs(from, hashes.0);
                }
            }
            ToSink::JobDone { job } => {
                if let Some(current) = self.job_mut(job) {
                    current.done = true;
                }
            }
            ToSink::Forwarded { job, stage, worker, results } => {
                self.handle_forwarded_records(job, &stage, &worker, results.0);
            }
            // What has no result is given up one by one, and what has is written.
            ToSink::Cancel { .. } | ToSink::Ping => {}
        }
    }

    /// The output is ready for the job that [`poll_open`](Self::poll_open) gave, and has these
    /// records of it from before.
    pub fn handle_opened(&mut self, opened: Opened) {
        let Some((opening, _)) = self.opening.take() else { return };
        let mut job = Job::new(opened.job, opening.name, &opening.stage);
        job.taken = opened.stored.clone();
        job.given = opened.stored.clone();
        for range in opened.spooled.to_ranges().as_slice() {
            job.given.remove_range(*range);
        }
        job.stored = opened.stored;
        job.spool.seqs = opened.spooled;
        job.counts = opened.counts;
        job.again = opened.again;
        job.pending = opened.pending.map(|start| Pending { start, verified: Seq(0) });
        job.release_due();
        self.job = Some(job);
        self.send_hello();
    }

    /// The output cannot take the job that [`poll_open`](Self::poll_open) gave.
    pub fn handle_open_refused(&mut self, reason: String) {
        if let Some((opening, _)) = self.opening.take() {
            self.send(ToVentilator::Refused { job: opening.job, reason });
        }
    }

    /// The input below this was [compared](Self::poll_inputs), and is what it was.
    pub fn handle_verified(&mut self, below: Seq) {
        let Some(job) = &mut self.job else { return };
        if let Some(pending) = &mut job.pending {
            pending.verified = pending.verified.max(below);
        }
        let job = job.id;
        self.send(ToVentilator::Verified { job, below });
    }

    /// The input is not what it was when this task ran.
    pub fn handle_changed(&mut self, seq: Seq) {
        let Some(job) = self.job.as_ref().map(|job| job.id) else { return };
        self.changed = Some(seq);
        self.send(ToVentilator::Refused { job, reason: changed_input(seq) });
    }

    /// The first `count` lists of records that were given out and not yet written are in the
    /// output now.
    pub fn handle_written(&mut self, count: usize) {
        let Some(job) = &mut self.job else { return };
        for written in job.writing.drain(..count) {
            let receipt = self.is_ventilator_connected.then_some(&mut self.receipt);
            written.note_stored(&mut job.held_bytes, &mut job.counts, &mut job.stored, receipt);
        }
    }

    /// The first `count` lists of records that were given out to be spooled are in the spool now,
    /// which has `spool_bytes` with them.
    pub fn handle_spooled(&mut self, count: usize, spool_bytes: u64) {
        let Some(job) = &mut self.job else { return };
        let spool = &mut job.spool;
        (spool.bytes, spool.is_failing) = (spool_bytes, false);
        for spooled in spool.spooling.drain(..count) {
            spool.spooling_bytes -= spooled.held_bytes;
            spooled.seqs.as_slice().iter().for_each(|range| spool.seqs.insert_range(*range));
            let receipt = self.is_ventilator_connected.then_some(&mut self.receipt);
            spooled.note_stored(&mut job.held_bytes, &mut job.counts, &mut job.stored, receipt);
        }
        job.release_due();
    }

    /// These lists of records, the first that were given out to be spooled, are not in the spool,
    /// for want of room perhaps: they wait here again. It is not tried again before the next
    /// heartbeat.
    pub fn handle_spool_failed(&mut self, records: Vec<Records>) {
        let Some(job) = &mut self.job else { return };
        job.spool.is_failing = true;
        for records in records {
            let Some(writing) = job.spool.spooling.pop_front() else { return };
            job.spool.spooling_bytes -= writing.held_bytes;
            job.wait(records, writing);
        }
        job.release_due();
    }

    /// The records below this seq that [`poll_unspool`](Self::poll_unspool) gave are in the output
    /// now. The spool has so many bytes without them.
    pub fn handle_unspooled(&mut self, below: Seq, spool_bytes: u64) {
        let Some(job) = &mut self.job else { return };
        let Some((range, _)) = job.spool.unspooling.take() else { return };
        let range = range.clamped(range.start, below);
        job.given.insert_range(range);
        job.spool.seqs.remove_range(range);
        job.spool.bytes = spool_bytes;
        job.release_due();
    }

    /// The first `count` lists of records that were given out are somebody else's to keep now.
    pub fn handle_forwarded(&mut self, count: usize) {
        let Some(job) = &mut self.job else { return };
        for handed_on in job.writing.drain(..count) {
            job.held_bytes -= handed_on.held_bytes;
        }
    }

    /// These records are in the output, far from here.
    pub fn handle_stored(&mut self, stored: &SeqRanges) {
        let Some(job) = &mut self.job else { return };
        let before = job.stored.count();
        for range in stored.as_slice() {
            job.taken.insert_range(*range);
            job.stored.insert_range(*range);
            if self.is_ventilator_connected {
                self.receipt.stored.push_range(*range);
            }
        }
        job.counts.ok += job.stored.count() - before;
    }

    /// How things stand further down.
    pub fn handle_downstream_state(
        &mut self,
        downstream: DownstreamState,
        is_stuck: bool,
        report: Report,
    ) {
        self.downstream = Some(downstream);
        self.is_stuck = is_stuck;
        self.config.report = report;
    }

    /// Says hello again: what the ventilator has said meanwhile may have been lost further down.
    /// The records of these tasks are to be replaced.
    pub fn handle_opened_again(&mut self, again: SeqSet) {
        if let Some(job) = &mut self.job {
            job.again = again;
        }
        self.send_hello();
    }

    /// The job cannot go on, says whoever is to store its records.
    pub fn handle_refused(&mut self, reason: String) {
        if self.opening.is_some() {
            self.handle_open_refused(reason);
        } else if let Some(job) = self.job.as_ref().map(|job| job.id) {
            self.send(ToVentilator::Refused { job, reason });
        }
    }

    /// The output cannot be written, or can be again: for whoever wonders why nothing goes on.
    pub fn handle_stuck(&mut self, is_stuck: bool) {
        self.is_stuck = is_stuck;
    }

    /// The output is flushed, after all records of the job were [stored](Self::is_all_stored).
    pub fn handle_flushed(&mut self) {
        let Some(job) = self.job.as_mut().filter(|job| job.is_all_stored()) else { return };
        job.flushed = true;
        let id = job.id;
        self.send(ToVentilator::Complete { job: id });
    }

    /// It is as late as [`poll_timeout`](Self::poll_timeout) said.
    pub fn handle_timeout(&mut self, now: Time) {
        let settles_in = *self.settles_in.get_or_insert(now + ROLL_CALL_GRACE);
        self.is_settled_in |= now >= settles_in;
        if now >= self.next_beat {
            self.next_beat = now + HEARTBEAT_INTERVAL;
            self.job.iter_mut().for_each(|job| job.spool.is_failing = false);
            self.send(ToVentilator::Ping { is_stuck: self.is_stuck });
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.next_beat
    }

    /// A job for which the output is to be made ready. To be asked after each message: what
    /// follows belongs to the job already.
    pub fn poll_open(&mut self) -> Option<Opening> {
        let (opening, is_asked_for) = self.opening.as_mut()?;
        (!std::mem::replace(is_asked_for, true)).then(|| opening.clone())
    }

    /// What to compare with what the tasks were when their records were stored; ends in
    /// [`handle_verified`](Self::handle_verified) or [`handle_changed`](Self::handle_changed).
    pub fn poll_inputs(&mut self) -> Option<Inputs> {
        self.inputs.pop_front()
    }

    /// The job, once it is open.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        self.job.as_ref().map(|job| job.id)
    }

    /// Is the output of a resumed job to be made ready for more records now? True once. Until then
    /// there is nothing to write, and a job that is refused has changed nothing: it is when all
    /// tasks that have records are known to be what they were, or when there is a record of one
    /// that is.
    pub fn poll_begin(&mut self) -> bool {
        let Some(job) = &mut self.job else { return false };
        let Some(Pending { verified, .. }) = job.pending else { return false };
        let is_compared = verified >= job.known_end();
        let is_due = |(_, writing): &(Records, Writing)| {
            writing.seqs.as_slice().first().is_some_and(|range| range.start < verified)
        };
        let is_begun = is_compared || job.ready.iter().any(is_due);
        if is_begun {
            job.pending = None;
        }
        is_begun
    }

    /// The next records to write, in the order in which they are to be written.
    pub fn poll_write(&mut self) -> Option<Vec<Records>> {
        let job = self.job.as_mut()?;
        if job.ready.is_empty() || job.pending.is_some() {
            return None;
        }
        let (records, writing) = job.ready.drain(..).unzip::<_, _, Vec<_>, Vec<_>>();
        job.writing.extend(writing);
        Some(records)
    }

    /// The next records to spool, ascending: they wait for one that is not here, and there are too
    /// many of them. Ends in [`handle_spooled`](Self::handle_spooled) or
    /// [`handle_spool_failed`](Self::handle_spool_failed).
    pub fn poll_spool(&mut self) -> Option<Vec<Records>> {
        let SpoolLimits { waiting_bytes_max, spool_bytes_max } = self.spool?;
        let job = self.job.as_mut().filter(|job| job.pending.is_none())?;
        let spool = &mut job.spool;
        let is_full = spool.bytes + spool.spooling_bytes >= spool_bytes_max;
        if job.waiting_bytes <= waiting_bytes_max || is_full || spool.is_failing {
            return None;
        }
        // The lowest stay: it is their turn first.
        let mut spooled = Vec::new();
        while job.waiting_bytes > waiting_bytes_max / 2
            && let Some((_, (records, writing))) = job.waiting.pop_last()
        {
            job.waiting_bytes -= writing.held_bytes;
            spool.spooling_bytes += writing.held_bytes;
            spooled.push((records, writing));
        }
        let (records, writing) = spooled.into_iter().rev().unzip::<_, _, Vec<_>, Vec<_>>();
        spool.spooling.extend(writing);
        Some(records)
    }

    /// The records that are to be moved from the spool to the output now, after all that
    /// [`poll_write`](Self::poll_write) gave. Ends in
    /// [`handle_unspooled`](Self::handle_unspooled), which need not have come to the end of them.
    pub fn poll_unspool(&mut self) -> Option<SeqRange> {
        let job = self.job.as_mut()?;
        if job.pending.is_some() || !job.ready.is_empty() {
            return None;
        }
        let (range, is_asked_for) = job.spool.unspooling.as_mut()?;
        (!std::mem::replace(is_asked_for, true)).then_some(*range)
    }

    /// The next message for the ventilator.
    pub fn poll_transmit(&mut self) -> Option<ToVentilator> {
        if !self.is_ventilator_connected {
            return None;
        }
        if self.transmits.is_empty() {
            self.flush_receipt();
        }
        self.transmits.pop_front()
    }

    /// Are all records of the job in the output?
    #[must_use]
    pub fn is_all_stored(&self) -> bool {
        self.job.as_ref().is_some_and(Job::is_all_stored)
    }

    /// Is the output known to be flushed, with all records of the job in it?
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.flushed && job.is_all_stored())
    }

    /// Has every task of the job its record, stored or not?
    #[must_use]
    pub fn is_all_taken(&self) -> bool {
        let is_all = |job: &Job| job.total.is_some_and(|end| job.taken.first_missing().0 >= end);
        self.job.as_ref().is_some_and(is_all)
    }

    /// Is all of the input stored: was the job not stopped before its end?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.input_end() == Some(InputEnd::Whole) && self.is_all_stored()
    }

    /// Why no more tasks come, once that is so. A job that was [cut short](InputEnd::CutShort) has not
    /// done what it was to do, though every task that it began has its record.
    #[must_use]
    pub fn input_end(&self) -> Option<InputEnd> {
        self.job.as_ref().and_then(|job| job.end)
    }

    /// Does the ventilator know that everything is stored?
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.done)
    }

    /// How things stand.
    #[must_use]
    pub fn snapshot(&self) -> CollectorSnapshot {
        let job = self.job.as_ref();
        CollectorSnapshot {
            job: job.map(|job| job.name.clone()),
            total: job.and_then(|job| job.total),
            stored: job.map(|job| job.counts).unwrap_or_default(),
            held_bytes: job.map_or(0, |job| job.held_bytes),
            spooled: job.map_or(0, |job| job.spool.seqs.count()),
            duplicates: self.duplicates,
            unexpected_results: self.unexpected_results,
            workers: self.workers.len() as u64,
        }
    }

    fn job_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.job.as_mut().filter(|job| job.id == id)
    }

    fn send(&mut self, message: ToVentilator) {
        // Whatever is not said for want of a connection is made up for by the hello to come.
        if self.is_ventilator_connected {
            self.flush_receipt();
            self.transmits.push_back(message);
        }
    }

    fn send_hello(&mut self) {
        let Some(job) = &self.job else { return };
        let hello = ToVentilator::SinkHello {
            asked: self.asked.unwrap_or(job.id),
            job: job.id,
            sink: self.config.session,
            stored: job.stored.to_ranges(),
            again: job.again.to_ranges(),
            workers: self.known_workers(),
            report: self.config.report,
        };
        let complete = job.flushed.then_some(ToVentilator::Complete { job: job.id });
        self.send(hello);
        if let Some(complete) = complete {
            self.send(complete);
        }
    }

    fn known_workers(&self) -> Option<Bounded<SessionId, WORKERS_MAX>> {
        let sessions = self.workers.keys().copied().take(WORKERS_MAX);
        self.is_settled_in.then(|| Bounded(sessions.collect()))
    }

    fn handle_open(&mut self, opening: Opening) {
        self.asked = Some(opening.job);
        let reason = match (&mut self.job, opening.start) {
            (Some(job), _) if job.id == opening.job => {
                self.send_hello();
                return;
            }
            (Some(job), start) if job.pending.as_ref().is_some_and(|p| p.start == start) => {
                // Nothing came of the one before.
                self.changed = None;
                job.pending = Some(Pending { start, verified: Seq(0) });
                (job.total, job.end) = (None, None);
                self.send_hello();
                return;
            }
            (Some(job), Start::Resume | Start::RetryFailed) if job.pending.is_some() => {
                "the sink was told to resume its job in another way, with or without \
                 --retry-failed: give the same flags again, or start the sink again"
                    .to_owned()
            }
            (Some(job), Start::Resume) => {
                // Another ventilator has another go at the input, and will say where it ends.
                self.changed = None;
                (job.total, job.end, job.flushed) = (None, None, false);
                self.send_hello();
                return;
            }
            (Some(job), Start::RetryFailed) => {
                format!("the sink is still at work on {} ({}): first resume it", job.name, job.id)
            }
            (Some(job), _) => {
                format!(
                    "the sink has another job open: {} ({}); --resume goes on with it",
                    job.name, job.id
                )
            }
            // It is asked again every second until the output is ready.
            (None, _) => {
                let is_other = |(old, _): &mut (Opening, bool)| old.job != opening.job;
                if self.downstream.is_some() {
                    // Whoever asked for another one is gone.
                    self.opening.take_if(is_other);
                }
                self.opening.get_or_insert((opening, false));
                return;
            }
        };
        self.send(ToVentilator::Refused { job: opening.job, reason });
    }

    fn handle_results(&mut self, id: JobId, session: SessionId, results: Vec<TaskResult>) {
        let worker = self.workers.get(&session).unwrap_or(&self.no_worker).clone();
        let is_connected = self.is_ventilator_connected;
        let order = self.config.order;
        let Some(job) = self.job.as_mut().filter(|job| job.id == id) else {
            self.unexpected_results += results.len() as u64;
            return;
        };
        let bytes = results.iter().map(TaskResult::payload_bytes).sum();
        let is_failure = |result: &TaskResult| !result.outcome.status.is_success();
        let mut failed = 0;
        let mut ran_us: Vec<u64> = Vec::with_capacity(results.len());
        let mut ranges = SeqRanges::new();
        if let Some(range) = job.all_new(&results) {
            // As nearly always: nothing is to be decided about any one of them.
            ran_us.extend(results.iter().map(|result| result.ran_us));
            failed = results.iter().filter(|result| is_failure(result)).count() as u64;
            ranges.push_range(range);
            job.taken.insert_range(range);
            let stage = job.stage.clone();
            job.put(order, Records { worker, stage, results });
        } else {
            let mut run = Vec::new();
            let stage = job.stage.clone();
            for result in results {
                let TaskResult { seq, attempt, .. } = result;
                let took_us = result.ran_us;
                if !job.can_have(seq) {
                    self.unexpected_results += 1;
                    continue;
                }
                if job.taken.contains(seq) {
                    self.duplicates += 1;
                    if job.stored.contains(seq) && is_connected {
                        self.receipt.stored.push(seq);
                    }
                } else if !result.is_final() {
                    if is_connected {
                        self.receipt.retry.push(Failure { session, seq, attempt, ran_us: took_us });
                    }
                    continue;
                } else {
                    if run.last().is_some_and(|last: &TaskResult| last.seq.next() != seq) {
                        let results = std::mem::take(&mut run);
                        let (worker, stage) = (worker.clone(), stage.clone());
                        job.put(order, Records { worker, stage, results });
                    }
                    job.taken.insert(seq);
                    failed += u64::from(is_failure(&result));
                    run.push(result);
                }
                ran_us.push(took_us);
                ranges.push(seq);
            }
            job.put(order, Records { worker, stage, results: run });
        }
        if is_connected && !ranges.is_empty() {
            let ran_us_max = ran_us.iter().copied().max().unwrap_or_default();
            let middle = ran_us.len() / 2;
            let ran_us_median = *ran_us.select_nth_unstable(middle).1;
            let ran_us_mean =
                ran_us.iter().fold(0, |sum: u64, us| sum.saturating_add(*us)) / ran_us.len() as u64;
            let received =
                Received { session, ranges, ran_us_max, ran_us_median, ran_us_mean, bytes, failed };
            self.receipt.received.push(received);
        }
        // A message brings at most a batch of failures and one more worker: so neither list ever
        // grows beyond what fits.
        if self.receipt.received.len() == RECEIVED_MAX || !self.receipt.retry.is_empty() {
            self.flush_receipt();
        }
    }

    fn handle_give_up(
        &mut self,
        id: JobId,
        seq: Seq,
        attempt: Attempt,
        task_hash: TaskHash,
        outcome: Outcome,
    ) {
        let worker = self.no_worker.clone();
        let Some(stage) = self.job_mut(id).map(|job| job.stage.clone()) else { return };
        let result = TaskResult {
            seq,
            attempt,
            last: true,
            started_us: 0,
            ran_us: 0,
            task_bytes: 0,
            task_hash,
            outcome,
            reported: None,
        };
        self.take(&worker, &stage, result);
    }

    /// Records of an earlier stage. That they came is answered when they are stored.
    fn handle_forwarded_records(
        &mut self,
        id: JobId,
        stage: &str,
        worker: &str,
        results: Vec<TaskResult>,
    ) {
        if self.job_mut(id).is_none() {
            self.unexpected_results += results.len() as u64;
            return;
        }
        let (worker, stage) = (Arc::from(worker), Arc::from(stage));
        for result in results {
            self.take(&worker, &stage, result);
        }
    }

    /// Makes a result the record of its seq, if that has none.
    fn take(&mut self, worker: &Arc<str>, stage: &Arc<str>, result: TaskResult) {
        let Some(job) = &mut self.job else { return };
        let seq = result.seq;
        if !job.can_have(seq) {
            self.unexpected_results += 1;
        } else if !job.taken.insert(seq) {
            if job.stored.contains(seq) && self.is_ventilator_connected {
                self.receipt.stored.push(seq);
            }
        } else {
            let (worker, stage) = (worker.clone(), stage.clone());
            job.put(self.config.order, Records { worker, stage, results: vec![result] });
        }
    }

    fn handle_inputs(&mut self, from: Seq, hashes: Vec<TaskHash>) {
        let Some(job) = &self.job else { return };
        if let Some(seq) = self.changed {
            // The answer was lost.
            self.handle_changed(seq);
            return;
        }
        let below = Seq(from.0.saturating_add(hashes.len() as u64));
        let tasks = (from.0..below.0).map(Seq).zip(hashes);
        let is_known = |seq| job.stored.contains(seq) || job.again.contains(seq);
        let stored = tasks.filter(|(seq, _)| is_known(*seq)).collect();
        self.inputs.push_back(Inputs { stored, below });
    }

    fn handle_news(&mut self, session: SessionId, news: News) {
        // After the receipt for what the worker said before: an account of what it holds must not
        // overtake the results that it no longer holds.
        self.send(ToVentilator::Relay { session, news });
    }

    fn flush_receipt(&mut self) {
        let Some(job) = &self.job else { return };
        let PendingReceipt { received, stored, retry } = std::mem::take(&mut self.receipt);
        if received.is_empty() && stored.is_empty() && retry.is_empty() {
            return;
        }
        self.transmits.push_back(ToVentilator::Receipt {
            job: job.id,
            received: Bounded(received),
            stored,
            retry: Batch::from(retry),
            held_bytes: job.held_bytes
                + self.downstream.map_or(0, |downstream| downstream.held_bytes),
            failed: self.downstream.map_or(job.counts.not_ok(), |downstream| downstream.failed),
        });
    }
}

impl Job {
    fn new(id: JobId, name: String, stage: &str) -> Self {
        Self {
            id,
            name,
            stage: Arc::from(stage),
            total: None,
            end: None,
            taken: SeqSet::new(),
            stored: SeqSet::new(),
            again: SeqSet::new(),
            pending: None,
            given: SeqSet::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            spool: Spool::default(),
            ready: Vec::new(),
            writing: VecDeque::new(),
            held_bytes: 0,
            counts: Counts::default(),
            flushed: false,
            done: false,
        }
    }

    fn is_all_stored(&self) -> bool {
        self.pending.is_none()
            && self.spool.seqs.is_empty()
            && self.total.is_some_and(|total| self.stored.first_missing().0 >= total)
    }

    /// No task from here on has or had a record.
    fn known_end(&self) -> Seq {
        [&self.stored, &self.again].into_iter().map(SeqSet::end).max().unwrap_or_default()
    }

    /// Can there be such a task? Whatever is not stored is the ventilator's to keep, and of that there is
    /// a bound.
    fn can_have(&self, seq: Seq) -> bool {
        let unsettled = UNSETTLED_TASKS_MAX + READ_AHEAD_TASKS_MAX;
        let end = self.stored.count() + unsettled;
        seq.0 < end.min(self.total.unwrap_or(u64::MAX))
    }

    /// The seqs of these results, if there is no gap between them and each is to become the
    /// record of its seq.
    fn all_new(&self, results: &[TaskResult]) -> Option<SeqRange> {
        let (first, last) = (results.first()?.seq, results.last()?.seq);
        if first > last || !self.can_have(last) {
            return None;
        }
        let range = SeqRange { start: first, end: last.next() };
        let is_whole = range.seqs().eq(results.iter().map(|result| result.seq))
            && results.iter().all(TaskResult::is_final);
        (is_whole && self.taken.is_free(range)).then_some(range)
    }

    /// Makes results the records of their seqs, which have no gap between them and are taken.
    fn put(&mut self, order: Order, mut records: Records) {
        let Some(first) = records.results.first().map(|result| result.seq) else { return };
        let mut writing = Writing::default();
        for result in &mut records.results {
            truncate(&mut result.outcome.error, ERROR_BYTES_MAX);
            writing.seqs.push(result.seq);
            writing.held_bytes += result.held_bytes();
            writing.counts.add(result.outcome.status);
        }
        self.held_bytes += writing.held_bytes;
        if order == Order::Completion {
            self.ready.push((records, writing));
        } else if self.waiting.is_empty() && first == self.given.first_missing() {
            self.give(records, writing);
            self.release_due();
        } else {
            self.wait(records, writing);
            self.release_due();
        }
    }

    /// Keeps records until it is their turn.
    fn wait(&mut self, records: Records, writing: Writing) {
        let Some(first) = records.results.first().map(|result| result.seq) else { return };
        self.waiting_bytes += writing.held_bytes;
        self.waiting.insert(first, (records, writing));
    }

    /// It is the turn of these records.
    fn give(&mut self, records: Records, writing: Writing) {
        writing.seqs.as_slice().iter().for_each(|range| self.given.insert_range(*range));
        self.ready.push((records, writing));
    }

    /// Finds the records whose turn it is, in memory and in the spool.
    fn release_due(&mut self) {
        loop {
            let next = self.given.first_missing();
            if let Some(first) = self.waiting.first_entry()
                && *first.key() == next
            {
                let (records, writing) = first.remove();
                self.waiting_bytes -= writing.held_bytes;
                self.give(records, writing);
                continue;
            }
            if self.spool.unspooling.is_none() {
                let due = self.spool.seqs.range_from(next);
                self.spool.unspooling = due.map(|range| (range, false));
            }
            return;
        }
    }
}

impl Writing {
    /// The records are where they survive us.
    fn note_stored(
        &self,
        held_bytes: &mut u64,
        counts: &mut Counts,
        stored: &mut SeqSet,
        receipt: Option<&mut PendingReceipt>,
    ) {
        *held_bytes -= self.held_bytes;
        counts.add_all(&self.counts);
        self.seqs.as_slice().iter().for_each(|range| stored.insert_range(*range));
        if let Some(receipt) = receipt {
            self.seqs.as_slice().iter().for_each(|range| receipt.stored.push_range(*range));
        }
    }
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { waiting_bytes_max: WAITING_BYTES_MAX, spool_bytes_max: SPOOL_BYTES_MAX }
    }
}

impl Records {
    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let Self { worker, stage, results } = self;
        results.iter().map(|result| Record { worker, stage, result })
    }
}

/// Cuts a text at a character boundary.
fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
}

impl Counts {
    /// Counts one record.
    pub fn add(&mut self, status: Status) {
        let count = match status {
            Status::Ok => &mut self.ok,
            Status::Failed => &mut self.failed,
            Status::TimedOut => &mut self.timed_out,
            Status::Lost => &mut self.lost,
            Status::Cancelled => &mut self.cancelled,
            Status::Skipped => &mut self.skipped,
        };
        *count += 1;
    }

    /// Counts what others have counted.
    pub fn add_all(&mut self, others: &Self) {
        self.ok += others.ok;
        self.failed += others.failed;
        self.timed_out += others.timed_out;
        self.lost += others.lost;
        self.cancelled += others.cancelled;
        self.skipped += others.skipped;
    }

    /// All records.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ok + self.skipped + self.not_ok()
    }

    /// Records of tasks that did not do what they should.
    #[must_use]
    pub fn not_ok(&self) -> u64 {
        self.failed + self.timed_out + self.lost + self.cancelled
    }
}
