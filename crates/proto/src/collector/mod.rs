//! The sink's decisions: which result becomes the record, in which order, and which receipts the
//! ventilator gets.
//!
//! The first final result of a seq that arrives is its record; later ones are counted and answered
//! like the first, so that no worker waits for them. Records leave through
//! [`Collector::poll_write`], and when they are in the output,
//! [`handle_written`](Collector::handle_written) makes them stored.
//!
//! In the order of seqs a record may have to wait for an earlier one. Beyond a number of bytes such
//! records leave through [`Collector::poll_spool`] instead, and are stored when they are in the
//! spool. [`Collector::poll_unspool`] returns them when their turn comes.
//!
//! The bytes of all records that are held are bounded. A result for which there is no room is not taken: its
//! worker has it still, and sends it again when the ventilator calls the roll, for which the collector asks
//! when there is room.

mod invariants;
mod remembered;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::batch::{Batch, Bounded};
use crate::limits::{
    ERROR_BYTES_MAX, HEARTBEAT_INTERVAL, HELD_BYTES_MAX, READ_AHEAD_TASKS_MAX, READ_TASKS_MAX,
    ROLL_CALL_GRACE, SPOOL_BYTES_MAX, TAKEN_BYTES_MAX, UNSETTLED_TASKS_MAX, WAITING_BYTES_MAX,
    WORKERS_MAX,
};
use crate::message::{
    Failure, InputEnd, News, Outcome, RECEIVED_MAX, Received, Report, Start, Status, TaskResult,
    ToSink, ToVentilator, changed_input,
};
use crate::tag::KeptTagger;
use crate::{
    Attempt, JobId, JobKey, Seq, SeqList, SeqRange, SeqRanges, SeqSet, SessionId, Tag, TaskHash,
    Time, move_out,
};

use self::remembered::Remembered;
pub use crate::message::Opening;

/// Order of the records in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By seq: a record waits for all earlier ones.
    Seq,
    /// In the order of arrival.
    Completion,
}

/// Settings of a sink.
#[derive(Clone, Copy, Debug)]
pub struct CollectorConfig {
    /// Session of the sink.
    pub session: SessionId,
    /// Order of the records.
    pub order: Order,
    /// Data that results are to carry.
    pub report: Report,
    /// Key of the tags of a job whose output has none. It is to be random.
    pub key: JobKey,
}

/// Bounds of the records that wait for an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of records that wait in memory, beyond which they are spooled.
    pub waiting_bytes_max: u64,
    /// Bytes that the spool may have. Further records are held in memory until the ventilator
    /// stops.
    pub spool_bytes_max: u64,
}

/// Records that are written one after the other. They travel together as they came, so that none of
/// them is touched by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// Name of the worker that made the records; empty if no worker did.
    pub worker: Arc<str>,
    /// Stage that the tasks ended in; empty if it has no name.
    pub stage: Arc<str>,
    /// Outcomes of the tasks.
    pub results: Vec<TaskResult>,
}

/// The one record of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Name of the worker that made the record; empty if no worker did.
    pub worker: &'a str,
    /// Stage that the task ended in; empty if it has no name.
    pub stage: &'a str,
    /// Outcome of the task.
    pub result: &'a TaskResult,
}

/// Number of records of each status.
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

/// State of a sink, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorSnapshot {
    /// Name of the job, once one is open.
    pub job: Option<String>,
    /// Number of the job's tasks, once it is known.
    pub total: Option<u64>,
    /// Number of records that are stored, by status.
    pub stored: Counts,
    /// Bytes of records that are held and not stored.
    pub held_bytes: u64,
    /// Number of records that are stored in the spool, and not in the output yet.
    pub spooled: u64,
    /// Number of results that arrived again after their record.
    pub duplicates: u64,
    /// Number of results of another job, or of tasks that cannot exist.
    pub unexpected_results: u64,
    /// Number of results of tasks that their worker was not given.
    pub refused_results: u64,
    /// Number of connected workers.
    pub workers: u64,
}

/// Job whose output is not ready yet.
#[derive(Debug)]
struct Unopened {
    opening: Opening,
    /// The output was asked for.
    is_asked_for: bool,
    /// End of the job, if the ventilator has said it already. One that has no other process to tell leaves
    /// then.
    close: Option<(u64, InputEnd)>,
    is_done: bool,
}

/// The sink's state machine.
#[derive(Debug)]
pub struct Collector {
    config: CollectorConfig,
    /// Bounds of the spool; `None` if no record is spooled.
    spool: Option<SpoolLimits>,
    /// Bytes of records that are held, beyond which hardly any result is taken.
    taken_bytes_max: u64,
    /// Bytes of records in memory from which on the ventilator is told that they are many.
    held_bytes_max: u64,
    job: Option<Job>,
    /// Job that the ventilator wants to open, until the output is ready for it.
    opening: Option<Unopened>,
    /// Job that the ventilator asked for last.
    asked: Option<JobId>,
    inputs: VecDeque<Inputs>,
    /// First task whose input has changed.
    changed: Option<Seq>,
    workers: BTreeMap<SessionId, Worker>,
    /// Workers that may hold tasks, if the next sink is to know of them.
    remembered: Option<Remembered>,
    is_ventilator_connected: bool,
    receipt: PendingReceipt,
    transmits: VecDeque<ToVentilator>,
    next_beat: Time,
    /// Time at which all workers have had the time to connect.
    settles_in: Option<Time>,
    is_settled_in: bool,
    /// The output cannot be written.
    is_stuck: bool,
    duplicates: u64,
    unexpected_results: u64,
    refused: Refused,
    no_worker: Arc<str>,
    /// State of the downstream stages, if records are forwarded and not written here.
    downstream: Option<DownstreamState>,
}

/// Worker that is connected.
#[derive(Debug)]
struct Worker {
    name: Arc<str>,
    tagger: KeptTagger,
}

/// Results that were refused, because their worker was not given the tasks.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    /// Numbers by the worker's name. Beyond a number of names they are counted without one.
    by_worker: BTreeMap<Arc<str>, u64>,
}

/// Number of workers whose refused results are counted by their name.
const REFUSED_WORKERS_MAX: usize = 64;

impl Refused {
    fn add(&mut self, worker: &Arc<str>, count: u64) {
        self.count += count;
        let is_full = self.by_worker.len() >= REFUSED_WORKERS_MAX;
        if let Some(sum) = self.by_worker.get_mut(worker) {
            *sum += count;
        } else if !is_full {
            self.by_worker.insert(worker.clone(), count);
        }
    }
}

/// State of the downstream stages, as reported to a relay's collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DownstreamState {
    /// Bytes that the relay keeps, and that are not stored.
    pub held_bytes: u64,
    /// Number of stored records that are neither `ok` nor `skipped`.
    pub failed: u64,
}

/// A job as the output has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Job that the output belongs to; differs from the requested one if the job is resumed.
    pub job: JobId,
    /// Seq below which every task counts as stored, and is not compared: of these the output need have neither
    /// records nor hashes. 0 unless the input is a log that was trimmed.
    pub first: Seq,
    /// Tasks whose records are in the output or in the spool from before.
    pub stored: SeqSet,
    /// Stored tasks whose records are in the spool, and not in the output.
    pub spooled: SeqSet,
    /// Number of stored records of each status, from the first task on.
    pub counts: Counts,
    /// Tasks whose records are to be replaced. They run again, and their input is compared like
    /// that of stored tasks.
    pub again: SeqSet,
    /// Key of the tags of the job's tasks, if the output has one.
    pub key: Option<JobKey>,
    /// Start of the job, if the output has yet to be changed for it: see [`Collector::poll_begin`].
    pub pending: Option<Start>,
}

/// Part of a resumed job's input to compare with the records that exist already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Tasks that have or had records, ascending, with their hashes in the input that was read now.
    pub stored: Vec<(Seq, TaskHash)>,
    /// Every task below this seq is compared once these are.
    pub below: Seq,
}

#[derive(Debug)]
struct Job {
    id: JobId,
    /// Seq below which every task counts as stored.
    first: Seq,
    key: JobKey,
    name: String,
    stage: Arc<str>,
    total: Option<u64>,
    /// Reason for the total, once it is known.
    end: Option<InputEnd>,
    /// Tasks with a record, stored or not.
    taken: SeqSet,
    stored: SeqSet,
    /// Tasks whose results were left to their workers for want of room.
    left: BTreeMap<Seq, SessionId>,
    /// Tasks with records that are to be replaced.
    again: SeqSet,
    /// Set while the output is as an earlier sink left it, until the input is known to be
    /// unchanged.
    pending: Option<Pending>,
    /// Tasks in the output, or given out to be written there, if that is in the order of seqs.
    given: SeqSet,
    /// Records that wait for an earlier one, by their first seq; each list without gaps.
    waiting: BTreeMap<Seq, (Records, Writing)>,
    waiting_bytes: u64,
    spool: Spool,
    /// Records whose turn has come.
    ready: Vec<(Records, Writing)>,
    /// Records that were given out to be written, in that order.
    writing: VecDeque<Writing>,
    held_bytes: u64,
    counts: Counts,
    flushed: bool,
    done: bool,
}

/// An output that is not changed before the input was compared.
#[derive(Debug)]
struct Pending {
    /// Start that the ventilator asked for.
    start: Start,
    /// Every task below this seq is unchanged.
    verified: Seq,
}

/// Records that are stored elsewhere until their turn comes.
#[derive(Debug, Default)]
struct Spool {
    /// Records that were given out to be spooled, in that order.
    spooling: VecDeque<Writing>,
    /// Tasks in the spool, and not in the output.
    seqs: SeqSet,
    /// Range to be moved from the spool to the output now, and whether [`Collector::poll_unspool`]
    /// has returned it.
    unspooling: Option<(SeqRange, bool)>,
    /// Bytes of the spool, and of the records that were given out to be spooled.
    bytes: u64,
    spooling_bytes: u64,
    /// The last attempt to spool failed, and the next one is not due.
    is_failing: bool,
}

/// Facts about records that are kept while they are written.
#[derive(Debug, Default)]
struct Writing {
    seqs: SeqList,
    held_bytes: u64,
    counts: Counts,
}

/// Bytes up to which lists of records that wait are put together.
const WAITING_LIST_BYTES_MAX: u64 = 64 << 10;

/// Bytes of a result beside its payloads.
const RESULT_BYTES: u64 = size_of::<TaskResult>() as u64;

/// Records in a list that is short: what a list takes for itself matters beside them.
const SHORT_LIST_RECORDS: usize = 4;

#[derive(Debug, Default)]
struct PendingReceipt {
    received: Vec<Received>,
    stored: SeqList,
    retry: Vec<Failure>,
    /// The sink is full, or no longer, and the ventilator does not know.
    has_news: bool,
}

impl Collector {
    /// Creates the collector of a sink that knows no job yet.
    #[must_use]
    pub fn new(config: CollectorConfig) -> Self {
        Self {
            config,
            spool: None,
            taken_bytes_max: TAKEN_BYTES_MAX,
            held_bytes_max: HELD_BYTES_MAX,
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
            remembered: None,
            settles_in: None,
            is_settled_in: false,
            is_stuck: false,
            duplicates: 0,
            unexpected_results: 0,
            refused: Refused::default(),
            no_worker: Arc::from(""),
            downstream: None,
        }
    }

    /// Keeps track of the workers that may hold tasks, for the sink after this one: see
    /// [`poll_workers`](Self::poll_workers). `before` are those of the sink before it, if that is known: with them
    /// this one knows all workers from its start.
    #[must_use]
    pub fn with_workers(self, before: Option<Vec<SessionId>>) -> Self {
        Self { remembered: Some(Remembered::new(before)), ..self }
    }

    /// Adds a spool for records that wait.
    #[must_use]
    pub fn with_spool(self, limits: SpoolLimits) -> Self {
        Self { spool: Some(limits), ..self }
    }

    /// Sets the bytes of records in memory from which on the ventilator is told that they are
    /// [many](HELD_BYTES_MAX).
    #[must_use]
    pub fn with_held_bytes_max(self, held_bytes_max: u64) -> Self {
        Self { held_bytes_max, ..self }
    }

    /// Sets the bytes of records that are held, beyond which no further result is taken but that of the lowest
    /// task without a stored record.
    pub fn set_taken_bytes_max(&mut self, taken_bytes_max: u64) {
        self.taken_bytes_max = taken_bytes_max;
    }

    /// Creates the collector of a relay, where no record is written. Records from
    /// [`poll_write`](Self::poll_write) are forwarded, which
    /// [`handle_forwarded`](Self::handle_forwarded) confirms, and are stored when
    /// [`handle_stored`](Self::handle_stored) says so.
    #[must_use]
    pub fn relay(session: SessionId) -> Self {
        // A relay opens no job without the key that the sink's hello has for it.
        let (report, key) = (Report::default(), JobKey::new([0; 16]));
        let config = CollectorConfig { session, order: Order::Completion, report, key };
        Self { downstream: Some(DownstreamState::default()), ..Self::new(config) }
    }

    /// Notes that a worker connected. Its name will stand in its records.
    pub fn handle_worker_connected(&mut self, session: SessionId, name: &str) {
        self.workers
            .insert(session, Worker { name: Arc::from(name), tagger: KeptTagger::default() });
        self.remembered.iter_mut().for_each(|it| it.handle_connected(session));
    }

    /// Notes that a worker's connection ended.
    pub fn handle_worker_disconnected(&mut self, session: SessionId) {
        if self.workers.remove(&session).is_some() {
            self.remembered.iter_mut().for_each(|it| it.handle_disconnected(session));
            self.handle_news(session, News::Gone);
        }
    }

    /// Returns the workers that may hold tasks, if they are others than the last time. The sink after this one is to
    /// [know](Self::with_workers) of them.
    pub fn poll_workers(&mut self) -> Option<Vec<SessionId>> {
        self.remembered.as_mut()?.poll()
    }

    /// Notes that bytes of a worker's message arrive that is not complete yet: the worker lives,
    /// however long the message takes. To be called at most once per [heartbeat
    /// interval](HEARTBEAT_INTERVAL).
    pub fn handle_alive(&mut self, session: SessionId) {
        if self.workers.contains_key(&session) {
            self.handle_news(session, News::Alive);
        }
    }

    /// Notes that the connection to the ventilator's receipts port stands.
    pub fn handle_ventilator_connected(&mut self) {
        self.is_ventilator_connected = true;
        self.send_hello();
    }

    /// Notes that the connection to the ventilator's receipts port is gone.
    pub fn handle_ventilator_disconnected(&mut self) {
        self.is_ventilator_connected = false;
        self.transmits.clear();
        self.receipt = PendingReceipt::default();
    }

    /// Handles a message.
    pub fn handle_message(&mut self, message: ToSink) {
        match message {
            ToSink::Results { job, session, results } => {
                self.handle_results(job, session, results.0);
            }
            ToSink::News { session, news } => {
                if news == News::Goodbye {
                    self.remembered.iter_mut().for_each(|it| it.handle_goodbye(session));
                }
                self.handle_news(session, news);
            }
            ToSink::JobOpen { job, name, start, stage, is_untouched } => {
                let key = Some(self.config.key);
                self.handle_open(Opening { job, name, start, stage, is_untouched, key });
            }
            ToSink::JobClose { job, total, end } => {
                if let Some(current) = self.job_mut(job) {
                    (current.total, current.end) = (Some(total), Some(end));
                    // The `Complete` sent with the hello meant nothing to a relay that did not know
                    // the total yet.
                    if current.flushed && current.is_all_stored() {
                        self.send(ToVentilator::Complete { job });
                    }
                } else if let Some(unopened) = self.unopened_mut(job) {
                    unopened.close = Some((total, end));
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
                } else if let Some(unopened) = self.unopened_mut(job) {
                    unopened.is_done = true;
                }
            }
            ToSink::Forwarded { job, stage, worker, results } => {
                self.handle_forwarded_records(job, &stage, &worker, results.0);
            }
            // Tasks without a result are given up one by one, and results that exist are written.
            ToSink::Cancel { .. } | ToSink::Ping => {}
        }
    }

    /// Notes that the output is ready for the job that [`poll_open`](Self::poll_open) returned,
    /// with the records that it has from before.
    pub fn handle_opened(&mut self, mut opened: Opened) {
        let Some(Unopened { opening, close, is_done, .. }) = self.opening.take() else { return };
        let key = opened.key.unwrap_or(self.config.key);
        let mut job = Job::new(opened.job, key, opening.name, &opening.stage);
        if opened.job == opening.job {
            (job.total, job.end) = close.unzip();
            job.done = is_done;
        }
        job.first = opened.first;
        opened.stored.insert_range(SeqRange { start: Seq(0), end: opened.first });
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

    /// Notes that the output cannot take the job that [`poll_open`](Self::poll_open) returned.
    pub fn handle_open_refused(&mut self, reason: String) {
        if let Some(Unopened { opening, .. }) = self.opening.take() {
            self.send(ToVentilator::Refused { job: opening.job, reason });
        }
    }

    /// Notes that the input below a seq was [compared](Self::poll_inputs), and is unchanged.
    pub fn handle_verified(&mut self, below: Seq) {
        let Some(job) = &mut self.job else { return };
        if let Some(pending) = &mut job.pending {
            pending.verified = pending.verified.max(below);
        }
        let job = job.id;
        self.send(ToVentilator::Verified { job, below });
    }

    /// Notes that the input has changed since this task ran.
    pub fn handle_changed(&mut self, seq: Seq) {
        let Some(job) = self.job.as_ref().map(|job| job.id) else { return };
        self.changed = Some(seq);
        self.send(ToVentilator::Refused { job, reason: changed_input(seq) });
    }

    /// Notes that the first `count` lists of records that were given out and not yet written are in
    /// the output now.
    pub fn handle_written(&mut self, count: usize) {
        let Some(job) = &mut self.job else { return };
        for written in job.writing.drain(..count) {
            let receipt = self.is_ventilator_connected.then_some(&mut self.receipt);
            written.note_stored(&mut job.held_bytes, &mut job.counts, &mut job.stored, receipt);
        }
    }

    /// Notes that `count` of the records that were `ok` are [written](Self::handle_written) as `failed`: they were larger
    /// than the output takes.
    pub fn handle_failed(&mut self, count: u64) {
        let Some(job) = &mut self.job else { return };
        let count = count.min(job.counts.ok);
        job.counts.ok -= count;
        job.counts.failed += count;
    }

    /// Notes that the first `count` lists of records that were given out to be spooled are in the
    /// spool now, which has `spool_bytes` with them.
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

    /// Takes back lists of records, the first that were given out to be spooled, that did not get
    /// into the spool, perhaps for want of room. They wait here again, and are not spooled before
    /// the next heartbeat.
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

    /// Notes that the records below a seq that [`poll_unspool`](Self::poll_unspool) returned are in
    /// the output now, and that the spool has `spool_bytes` without them.
    pub fn handle_unspooled(&mut self, below: Seq, spool_bytes: u64) {
        let Some(job) = &mut self.job else { return };
        let Some((range, _)) = job.spool.unspooling.take() else { return };
        let range = range.clamped(range.start, below);
        job.given.insert_range(range);
        job.spool.seqs.remove_range(range);
        job.spool.bytes = spool_bytes;
        job.release_due();
    }

    /// Notes that the first `count` lists of records that were given out have been forwarded:
    /// another process keeps them now.
    pub fn handle_forwarded(&mut self, count: usize) {
        let Some(job) = &mut self.job else { return };
        for handed_on in job.writing.drain(..count) {
            job.held_bytes -= handed_on.held_bytes;
        }
    }

    /// Notes that these records are in the output of a downstream sink.
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

    /// Sets the state of the downstream stages.
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

    /// Sends the hello again, since messages of the ventilator may have been lost downstream
    /// meanwhile. The records of the tasks in `again` are to be replaced. The sink may have another
    /// `key` than before.
    pub fn handle_opened_again(&mut self, again: SeqSet, key: JobKey) {
        if let Some(job) = &mut self.job {
            (job.again, job.key) = (again, key);
        }
        self.send_hello();
    }

    /// Notes that the downstream sink refused the job.
    pub fn handle_refused(&mut self, reason: String) {
        if self.opening.is_some() {
            self.handle_open_refused(reason);
        } else if let Some(job) = self.job.as_ref().map(|job| job.id) {
            self.send(ToVentilator::Refused { job, reason });
        }
    }

    /// Notes whether the output cannot be written, so that the ventilator can report it.
    pub fn handle_stuck(&mut self, is_stuck: bool) {
        self.is_stuck = is_stuck;
    }

    /// Notes that the output is flushed, after all records of the job were
    /// [stored](Self::is_all_stored).
    pub fn handle_flushed(&mut self) {
        let Some(job) = self.job.as_mut().filter(|job| job.is_all_stored()) else { return };
        job.flushed = true;
        let id = job.id;
        self.send(ToVentilator::Complete { job: id });
    }

    /// Handles the time that [`poll_timeout`](Self::poll_timeout) named.
    pub fn handle_timeout(&mut self, now: Time) {
        let settles_in = *self.settles_in.get_or_insert(now + ROLL_CALL_GRACE);
        self.is_settled_in |= now >= settles_in;
        self.remembered.iter_mut().for_each(|it| it.handle_timeout(now));
        if now >= self.next_beat {
            self.next_beat = now + HEARTBEAT_INTERVAL;
            self.job.iter_mut().for_each(|job| job.spool.is_failing = false);
            self.ask_for_left();
            self.send(ToVentilator::Ping { is_stuck: self.is_stuck });
        }
    }

    /// Returns the time at which to call [`handle_timeout`](Self::handle_timeout), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.next_beat
    }

    /// Returns a job for which the output is to be made ready. Call it after each message: the next
    /// message belongs to the job already.
    pub fn poll_open(&mut self) -> Option<Opening> {
        let unopened = self.opening.as_mut()?;
        let is_asked_for = std::mem::replace(&mut unopened.is_asked_for, true);
        (!is_asked_for).then(|| unopened.opening.clone())
    }

    /// Returns the next tasks whose hashes are to be compared with those of the stored records. The
    /// comparison ends in [`handle_verified`](Self::handle_verified) or
    /// [`handle_changed`](Self::handle_changed).
    pub fn poll_inputs(&mut self) -> Option<Inputs> {
        self.inputs.pop_front()
    }

    /// Returns the id of the job, once it is open.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        self.job.as_ref().map(|job| job.id)
    }

    /// Returns whether the output of a resumed job is to be made ready for more records now; true
    /// once. That is when all tasks with records are known to be unchanged, or when there is a new
    /// record of one that is. Until then no record is written, so a job that is refused has changed
    /// nothing.
    pub fn poll_begin(&mut self) -> bool {
        let Some(job) = &mut self.job else { return false };
        let Some(Pending { verified, .. }) = job.pending else { return false };
        // A ventilator that was stopped while it read its input again has no more to compare.
        let is_cut = job.end.is_some_and(|end| end != InputEnd::Whole);
        let stopped_at = job.total.filter(|_| is_cut).map_or(Seq(u64::MAX), Seq);
        let is_compared = verified >= job.known_end().min(stopped_at);
        let is_due = |(_, writing): &(Records, Writing)| {
            writing.seqs.as_slice().first().is_some_and(|range| range.start < verified)
        };
        let is_begun = is_compared || job.ready.iter().any(is_due);
        if is_begun {
            job.pending = None;
        }
        is_begun
    }

    /// Returns the next records to write, in the order in which they are to be written.
    pub fn poll_write(&mut self) -> Option<Vec<Records>> {
        let job = self.job.as_mut()?;
        if job.ready.is_empty() || job.pending.is_some() {
            return None;
        }
        let (records, writing) = job.ready.drain(..).unzip::<_, _, Vec<_>, Vec<_>>();
        job.writing.extend(writing);
        Some(records)
    }

    /// Returns the next records to spool, ascending: they wait for one that is not here, and have
    /// too many bytes. Ends in [`handle_spooled`](Self::handle_spooled) or
    /// [`handle_spool_failed`](Self::handle_spool_failed).
    pub fn poll_spool(&mut self) -> Option<Vec<Records>> {
        let SpoolLimits { waiting_bytes_max, spool_bytes_max } = self.spool?;
        let job = self.job.as_mut().filter(|job| job.pending.is_none())?;
        let spool = &mut job.spool;
        let is_full = spool.bytes + spool.spooling_bytes >= spool_bytes_max;
        if job.waiting_bytes <= waiting_bytes_max || is_full || spool.is_failing {
            return None;
        }
        // The lowest stay: their turn comes first.
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

    /// Returns the range of records to move from the spool to the output now, after all records
    /// that [`poll_write`](Self::poll_write) returned. Ends in
    /// [`handle_unspooled`](Self::handle_unspooled), which may cover only the first part of the
    /// range.
    pub fn poll_unspool(&mut self) -> Option<SeqRange> {
        let job = self.job.as_mut()?;
        if job.pending.is_some() || !job.ready.is_empty() {
            return None;
        }
        let (range, is_asked_for) = job.spool.unspooling.as_mut()?;
        (!std::mem::replace(is_asked_for, true)).then_some(*range)
    }

    /// Returns the next message for the ventilator.
    pub fn poll_transmit(&mut self) -> Option<ToVentilator> {
        if !self.is_ventilator_connected {
            return None;
        }
        if self.transmits.is_empty() {
            self.flush_receipt();
        }
        self.transmits.pop_front()
    }

    /// Returns whether all records of the job are in the output.
    #[must_use]
    pub fn is_all_stored(&self) -> bool {
        self.job.as_ref().is_some_and(Job::is_all_stored)
    }

    /// Returns whether the output is flushed, with all records of the job in it.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.flushed && job.is_all_stored())
    }

    /// Returns whether every task of the job has its record, stored or not.
    #[must_use]
    pub fn is_all_taken(&self) -> bool {
        let is_all = |job: &Job| job.total.is_some_and(|end| job.taken.first_missing().0 >= end);
        self.job.as_ref().is_some_and(is_all)
    }

    /// Returns whether all of the input is stored: the job was not stopped before the end of the
    /// input.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.input_end() == Some(InputEnd::Whole) && self.is_all_stored()
    }

    /// Returns the reason why no more tasks come, once that is so. A job that was [cut
    /// short](InputEnd::CutShort) has not done all of its work, though every task that it began has
    /// its record.
    #[must_use]
    pub fn input_end(&self) -> Option<InputEnd> {
        self.job.as_ref().and_then(|job| job.end)
    }

    /// Returns the number of tasks and the reason for it, once the ventilator has said so.
    pub(crate) fn close(&self) -> Option<(u64, InputEnd)> {
        self.job.as_ref().and_then(|job| job.total.zip(job.end))
    }

    /// Returns whether the ventilator knows that everything is stored.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.done)
    }

    /// Returns whether a task has a record, stored or not.
    #[must_use]
    pub fn has_taken(&self, seq: Seq) -> bool {
        self.job.as_ref().is_some_and(|job| job.taken.contains(seq))
    }

    /// Returns the tag that a session's result has if the session was given its task; `None` without a job.
    #[must_use]
    pub fn tag_of(&self, session: SessionId, result: &TaskResult) -> Option<Tag> {
        let tagger = self.job.as_ref()?.key.tagger(session);
        Some(tagger.tag(result.seq, result.task_hash))
    }

    /// Returns the workers whose results were [refused](CollectorSnapshot::refused_results), with
    /// their numbers.
    pub fn refused_by_worker(&self) -> impl Iterator<Item = (&str, u64)> {
        self.refused.by_worker.iter().map(|(worker, count)| (&**worker, *count))
    }

    /// Returns the state of the sink for display.
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
            refused_results: self.refused.count,
            workers: self.workers.len() as u64,
        }
    }

    fn job_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.job.as_mut().filter(|job| job.id == id)
    }

    fn unopened_mut(&mut self, id: JobId) -> Option<&mut Unopened> {
        self.opening.as_mut().filter(|unopened| unopened.opening.job == id)
    }

    fn send(&mut self, message: ToVentilator) {
        // Without a connection the message is dropped: the next hello makes up for it.
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
            key: job.key,
        };
        let complete = job.flushed.then_some(ToVentilator::Complete { job: job.id });
        self.send(hello);
        if let Some(complete) = complete {
            self.send(complete);
        }
    }

    fn known_workers(&self) -> Option<Bounded<SessionId, WORKERS_MAX>> {
        let before = self.remembered.as_ref().and_then(|it| it.before.as_ref());
        let sessions: BTreeSet<SessionId> =
            self.workers.keys().chain(before.into_iter().flatten()).copied().collect();
        let is_known = before.is_some() || self.is_settled_in;
        is_known.then(|| Bounded(sessions.into_iter().take(WORKERS_MAX).collect()))
    }

    fn handle_open(&mut self, opening: Opening) {
        self.asked = Some(opening.job);
        let reason = match (&mut self.job, opening.start) {
            (Some(job), _) if job.id == opening.job => {
                self.send_hello();
                return;
            }
            (Some(job), start) if job.pending.as_ref().is_some_and(|p| p.start == start) => {
                // The opening before this one came to nothing.
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
                // Another ventilator reads the input again, and will say where it ends.
                self.changed = None;
                (job.total, job.end, job.flushed) = (None, None, false);
                self.send_hello();
                return;
            }
            (Some(job), Start::RetryFailed) => {
                format!("the sink is still at work on {} ({}): first resume it", job.name, job.id)
            }
            (Some(job), _) if self.remembered.is_some() => {
                format!(
                    "the records of queue {} at the sink are those of another job ({}): one of the two directories \
                     is not the one that belongs to the other",
                    job.name, job.id
                )
            }
            (Some(job), _) => {
                format!(
                    "the sink has another job open: {} ({}); --resume continues it",
                    job.name, job.id
                )
            }
            // The ventilator asks again every second until the output is ready.
            (None, _) => {
                if self.downstream.is_some() {
                    // The ventilator that asked for another job is gone.
                    self.opening.take_if(|unopened| unopened.opening.job != opening.job);
                }
                self.opening.get_or_insert(Unopened {
                    opening,
                    is_asked_for: false,
                    close: None,
                    is_done: false,
                });
                return;
            }
        };
        self.send(ToVentilator::Refused { job: opening.job, reason });
    }

    fn handle_results(&mut self, id: JobId, session: SessionId, mut results: Vec<TaskResult>) {
        let is_connected = self.is_ventilator_connected;
        let order = self.config.order;
        let Some(job) = self.job.as_mut().filter(|job| job.id == id) else {
            self.unexpected_results += results.len() as u64;
            return;
        };
        let mut unknown = KeptTagger::default();
        let (worker, kept) = match self.workers.get_mut(&session) {
            Some(Worker { name, tagger }) => (name.clone(), tagger),
            None => (self.no_worker.clone(), &mut unknown),
        };
        let tagger = kept.get(job.key, session);
        let is_given = |result: &TaskResult| tagger.tag(result.seq, result.task_hash) == result.tag;
        let mut is_all_given = true;
        let task = |result: &TaskResult| (result.seq, result.task_hash);
        tagger.tag_each(&mut results, task, |result, tag| is_all_given &= result.tag == tag);
        let came_bytes: u64 = results.iter().map(TaskResult::payload_bytes).sum();
        if !is_all_given {
            let count = results.len();
            results.retain(is_given);
            self.refused.add(&worker, (count - results.len()) as u64);
        }
        let mut bytes = came_bytes;
        let held_bytes = held_bytes(job, self.downstream);
        let mut room = self.taken_bytes_max.saturating_sub(held_bytes);
        let has_room = came_bytes + results.len() as u64 * RESULT_BYTES <= room;
        let is_failure = |result: &TaskResult| !result.outcome.status.is_success();
        let mut failed = 0;
        let mut ran_us: Vec<u64> = Vec::with_capacity(results.len());
        let mut ranges = SeqList::new();
        if is_all_given
            && has_room
            && let Some(range) = job.all_new(&results)
        {
            // As nearly always: no result needs a decision of its own.
            ran_us.extend(results.iter().map(|result| result.ran_us));
            failed = results.iter().filter(|result| is_failure(result)).count() as u64;
            ranges.push_range(range);
            job.taken.insert_range(range);
            let stage = job.stage.clone();
            job.put(order, Records { worker, stage, results });
        } else {
            let mut run = Vec::new();
            let stage = job.stage.clone();
            let base = job.stored.first_missing();
            // What is said of results counts those that came before only if all of them did: then the
            // answer was lost, or they are repeated to make it count once more.
            let (mut ran_before_us, mut bytes_before) = (Vec::new(), 0);
            bytes = 0;
            for result in results {
                let TaskResult { seq, attempt, .. } = result;
                let (took_us, size) = (result.ran_us, result.payload_bytes());
                if !job.can_have(seq) {
                    self.unexpected_results += 1;
                    continue;
                }
                if job.taken.contains(seq) {
                    self.duplicates += 1;
                    if job.stored.contains(seq) && is_connected {
                        self.receipt.stored.push(seq);
                    }
                    ran_before_us.push(took_us);
                    bytes_before += size;
                    ranges.push(seq);
                } else if !result.is_final() {
                    if is_connected {
                        self.receipt.retry.push(Failure { session, seq, attempt, ran_us: took_us });
                    }
                    continue;
                } else if result.held_bytes() > room && seq != base {
                    self.receipt.has_news |= job.left.is_empty();
                    job.left.insert(seq, session);
                    continue;
                } else {
                    room = room.saturating_sub(result.held_bytes());
                    if run.last().is_some_and(|last: &TaskResult| last.seq.next() != seq) {
                        let results = std::mem::take(&mut run);
                        let (worker, stage) = (worker.clone(), stage.clone());
                        job.put_part(order, Records { worker, stage, results }, came_bytes);
                    }
                    job.taken.insert(seq);
                    failed += u64::from(is_failure(&result));
                    run.push(result);
                    ran_us.push(took_us);
                    bytes += size;
                    ranges.push(seq);
                }
            }
            if ran_us.is_empty() {
                (ran_us, bytes) = (ran_before_us, bytes_before);
            }
            job.put_part(order, Records { worker, stage, results: run }, came_bytes);
        }
        if is_connected && !ranges.is_empty() {
            let ran_us_max = ran_us.iter().copied().max().unwrap_or_default();
            let middle = ran_us.len() / 2;
            let ran_us_median = *ran_us.select_nth_unstable(middle).1;
            let ran_us_mean =
                ran_us.iter().fold(0, |sum: u64, us| sum.saturating_add(*us)) / ran_us.len() as u64;
            // Results come in the order in which their tasks ended.
            let ranges = ranges.take();
            let received =
                Received { session, ranges, ran_us_max, ran_us_median, ran_us_mean, bytes, failed };
            self.receipt.received.push(received);
        }
        // A message brings at most a batch of failures and one more worker: so neither list ever
        // grows beyond its bound.
        if self.receipt.received.len() == RECEIVED_MAX || !self.receipt.retry.is_empty() {
            self.flush_receipt();
        }
    }

    /// Asks for the results that were left to their workers, if there is room for them by now, or if one of them
    /// is the one that all others wait for.
    fn ask_for_left(&mut self) {
        if !self.is_ventilator_connected {
            return;
        }
        let Some(job) = &mut self.job else { return };
        let base = job.stored.first_missing();
        let was_full = !job.left.is_empty();
        job.left = job.left.split_off(&base);
        let mut sessions = BTreeSet::new();
        if held_bytes(job, self.downstream) <= self.taken_bytes_max / 2 {
            sessions.extend(std::mem::take(&mut job.left).into_values());
        } else if let Some(session) = job.left.get(&base).copied() {
            job.left.retain(|_, other| *other != session);
            sessions.insert(session);
        }
        self.receipt.has_news |= was_full && job.left.is_empty();
        // Its answer to the roll call that this brings about comes with all of its results.
        for session in sessions {
            if self.workers.contains_key(&session) {
                self.handle_news(session, News::Reconnected);
            }
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
            tag: Tag::default(),
            started_us: 0,
            ran_us: 0,
            task_bytes: 0,
            task_hash,
            outcome,
            reported: None,
        };
        self.take(&worker, &stage, result);
    }

    /// Handles records of an earlier stage. They are answered when they are stored.
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
        let has_record = |seq| job.stored.contains(seq) || job.again.contains(seq);
        let is_known = |seq| seq >= job.first && has_record(seq);
        let stored = tasks.filter(|(seq, _)| is_known(*seq)).collect();
        self.inputs.push_back(Inputs { stored, below });
    }

    fn handle_news(&mut self, session: SessionId, news: News) {
        // Sent after the receipt for the worker's earlier results: a list of the tasks that the
        // worker holds must not overtake the results of tasks that it no longer holds.
        self.send(ToVentilator::Relay { session, news });
    }

    fn flush_receipt(&mut self) {
        let Some(job) = &self.job else { return };
        let PendingReceipt { received, mut stored, retry, has_news } =
            std::mem::take(&mut self.receipt);
        if received.is_empty() && stored.is_empty() && retry.is_empty() && !has_news {
            return;
        }
        let stored = stored.take();
        let held_bytes = held_bytes(job, self.downstream);
        let is_little = held_bytes < self.held_bytes_max;
        // However little it holds: the ventilator is to send what it waits for.
        let held_bytes = if is_little && job.left.is_empty() {
            held_bytes
        } else {
            held_bytes.max(HELD_BYTES_MAX)
        };
        self.transmits.push_back(ToVentilator::Receipt {
            job: job.id,
            received: Bounded(received),
            stored,
            retry: Batch::from(retry),
            held_bytes,
            failed: self.downstream.map_or(job.counts.not_ok(), |downstream| downstream.failed),
        });
    }
}

/// Returns the bytes that are held for a job, here and downstream.
fn held_bytes(job: &Job, downstream: Option<DownstreamState>) -> u64 {
    job.held_bytes + downstream.map_or(0, |downstream| downstream.held_bytes)
}

impl Job {
    fn new(id: JobId, key: JobKey, name: String, stage: &str) -> Self {
        Self {
            id,
            first: Seq(0),
            key,
            name,
            stage: Arc::from(stage),
            total: None,
            end: None,
            taken: SeqSet::new(),
            stored: SeqSet::new(),
            left: BTreeMap::new(),
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

    /// Returns the seq from which on no task has or had a record.
    fn known_end(&self) -> Seq {
        [&self.stored, &self.again].into_iter().map(SeqSet::end).max().unwrap_or_default()
    }

    /// Returns whether there can be such a task. The ventilator keeps every task that is not
    /// stored, and there is a bound to those.
    fn can_have(&self, seq: Seq) -> bool {
        let unsettled = UNSETTLED_TASKS_MAX + READ_AHEAD_TASKS_MAX + READ_TASKS_MAX;
        let end = self.stored.count() + unsettled;
        seq.0 < end.min(self.total.unwrap_or(u64::MAX))
    }

    /// Returns the seqs of these results, if there is no gap between them and each is to become the
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

    /// Makes a part of a message's results, which has so many bytes in all, the records of their seqs.
    fn put_part(&mut self, order: Order, mut records: Records, came_bytes: u64) {
        let bytes: u64 = records.results.iter().map(TaskResult::payload_bytes).sum();
        if 2 * bytes < came_bytes {
            // They would keep the memory of the others.
            move_out(records.results.iter_mut().flat_map(TaskResult::payloads_mut));
        }
        self.put(order, records);
    }

    /// Makes results the records of their seqs, which have no gap between them and are taken.
    fn put(&mut self, order: Order, mut records: Records) {
        let Some(first) = records.results.first().map(|result| result.seq) else { return };
        let mut writing = Writing::default();
        for result in &mut records.results {
            truncate(&mut result.outcome.error, ERROR_BYTES_MAX);
            // It has proven what it was to prove.
            result.tag = Tag::default();
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

    /// Keeps records until their turn comes.
    fn wait(&mut self, mut records: Records, mut writing: Writing) {
        let Some(mut first) = records.results.first().map(|result| result.seq) else { return };
        self.waiting_bytes += writing.held_bytes;
        if records.results.len() > SHORT_LIST_RECORDS {
            self.waiting.insert(first, (records, writing));
            return;
        }
        // The shortest had room for four results.
        records.results.shrink_to_fit();
        // A list takes several hundred bytes that are not counted: results that come one by one are put
        // together where they are neighbours.
        let before = self.waiting.range(..first).next_back();
        if let Some((&start, (list, earlier))) = before
            && list.is_followed_by(&records)
            && earlier.held_bytes + writing.held_bytes <= WAITING_LIST_BYTES_MAX
            && let Some((mut list, mut earlier)) = self.waiting.remove(&start)
        {
            list.results.append(&mut records.results);
            earlier.add(&writing);
            (first, records, writing) = (start, list, earlier);
        }
        let end = records.results.last().map_or(first, |result| result.seq.next());
        if let Some((list, later)) = self.waiting.get(&end)
            && records.is_followed_by(list)
            && writing.held_bytes + later.held_bytes <= WAITING_LIST_BYTES_MAX
            && let Some((mut list, later)) = self.waiting.remove(&end)
        {
            records.results.append(&mut list.results);
            writing.add(&later);
        }
        self.waiting.insert(first, (records, writing));
    }

    /// Moves records whose turn has come to those that are ready.
    fn give(&mut self, records: Records, writing: Writing) {
        writing.seqs.as_slice().iter().for_each(|range| self.given.insert_range(*range));
        self.ready.push((records, writing));
    }

    /// Releases the records whose turn has come, from memory and from the spool.
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
    /// Adds what remains to be known of the records after these.
    fn add(&mut self, later: &Self) {
        later.seqs.as_slice().iter().for_each(|range| self.seqs.push_range(*range));
        self.held_bytes += later.held_bytes;
        self.counts.add_all(&later.counts);
    }

    /// Notes that the records are stored: they survive this process.
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
    /// Returns the records one by one.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let Self { worker, stage, results } = self;
        results.iter().map(|result| Record { worker, stage, result })
    }

    /// Returns whether these records could follow ours in the same list.
    fn is_followed_by(&self, later: &Self) -> bool {
        let (ours, theirs) = (self.results.last(), later.results.first());
        ours.zip(theirs).is_some_and(|(last, first)| last.seq.next() == first.seq)
            && self.worker == later.worker
            && self.stage == later.stage
    }
}

/// Cuts a text at a character boundary.
fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.shrink_to_fit();
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

    /// Adds the counts of others.
    pub fn add_all(&mut self, others: &Self) {
        self.ok += others.ok;
        self.failed += others.failed;
        self.timed_out += others.timed_out;
        self.lost += others.lost;
        self.cancelled += others.cancelled;
        self.skipped += others.skipped;
    }

    /// Returns the number of all records.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ok + self.skipped + self.not_ok()
    }

    /// Returns the number of records that are neither `ok` nor `skipped`.
    #[must_use]
    pub fn not_ok(&self) -> u64 {
        self.failed + self.timed_out + self.lost + self.cancelled
    }
}
