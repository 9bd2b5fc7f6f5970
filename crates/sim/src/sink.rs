//! The sink's shell, and its disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tradewind_proto::collector::{
    Collector, CollectorConfig, Inputs, Opening, Order, Record, Records, SpoolLimits,
};
use tradewind_proto::farewell::SinkFarewell;
use tradewind_proto::limits::QUEUE_HELD_BYTES_MAX;
use tradewind_proto::message::{Report, Status, TaskResult, ToSink};
use tradewind_proto::{JobKey, Seq, SeqRange, SessionId, TaskHash, Time};
use tradewind_testkit::{Accepts, CollectorAction, Machine};
use tradewind_wire::encode;

use crate::disk::{Disk, Under};
use crate::event::{ConnectionId, End, Event, Process, Route};
use crate::mutation::Mutation;
use crate::plan::Plan;
use crate::world::{Clock, POLLS_MAX, World};

pub(crate) struct Sink {
    pub(crate) collector: Collector,
    pub(crate) farewell: SinkFarewell,
    pub(crate) is_alive: bool,
    /// It has left by its own rules, and is not started again.
    pub(crate) has_left: bool,
    pub(crate) clock: Clock,
    pub(crate) intake: Intake,
    /// Of the process that runs now.
    session: u64,
    /// Lists of records that were given out and are not known to be on the disk.
    given: VecDeque<Records>,
    disk: Disk,
    /// Lists of records that were given out and that the disk has not begun with.
    waiting: usize,
    opening: Option<Opening>,
    /// Lists of records that the disk is writing.
    writing: usize,
    /// Bytes that may wait in memory and in the spool.
    limits: Option<SpoolLimits>,
    /// Records that were given out to be spooled, and a range to be moved to the output.
    spooling: VecDeque<Vec<Records>>,
    unspooling: Option<SeqRange>,
    /// Part of that which the disk is at.
    under: Under,
    flush: Flush,
}

/// Connections of a process that collects results.
#[derive(Default)]
pub(crate) struct Intake {
    /// The newest connection of each worker.
    pub(crate) workers: BTreeMap<SessionId, ConnectionId>,
    pub(crate) receipts: Option<ConnectionId>,
    /// Those of ventilators that stand.
    pub(crate) ventilators: BTreeSet<ConnectionId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    NotYet,
    Under,
    Done,
}

impl Sink {
    pub(crate) fn new(plan: &Plan, seed: u64) -> Self {
        let limits = limits(plan, seed);
        Self {
            collector: collector(plan, limits, SessionId(seed ^ 0x517e)),
            limits,
            spooling: VecDeque::new(),
            unspooling: None,
            under: Under::Nothing,
            farewell: SinkFarewell::default(),
            is_alive: true,
            has_left: false,
            session: seed ^ 0x517e,
            clock: Clock::default(),
            intake: Intake::default(),
            given: VecDeque::new(),
            disk: Disk::new(plan),
            waiting: 0,
            opening: None,
            writing: 0,
            flush: Flush::NotYet,
        }
    }
}

impl Sink {
    /// Tells the sink of a queue which workers may hold tasks, if that is known.
    pub(crate) fn know_workers(&mut self, plan: &Plan, workers: Option<Vec<SessionId>>) {
        let collector = collector(plan, None, SessionId(self.session));
        self.collector = collector.with_workers(workers).with_held_bytes_max(QUEUE_HELD_BYTES_MAX);
    }

    /// Notes that the disk is at this many lists of records still: it could not write them.
    pub(crate) fn hold_writing(&mut self, lists: usize) {
        self.writing = lists;
    }

    pub(crate) fn hear(&mut self, message: &ToSink, mutation: Option<Mutation>) {
        let is_pinged = matches!(message, ToSink::Ping);
        if !is_pinged || mutation != Some(Mutation::TrustStranger) {
            self.farewell.handle_message(message);
        }
    }
}

/// Worlds of a hundred in which there is room for a few results only, of those that are neither fair nor large.
const LITTLE_ROOM_PERCENT: u8 = 10;

fn collector(plan: &Plan, limits: Option<SpoolLimits>, session: SessionId) -> Collector {
    // As random as a session, and one of this process unless the journal has another.
    let key =
        JobKey::new(u128::from(session.0).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c).to_le_bytes());
    let config = CollectorConfig { session, order: plan.order, report: Report::default(), key };
    let mut collector = Collector::new(config);
    leave_little_room(plan, &mut collector);
    match limits {
        Some(limits) => collector.with_spool(limits),
        None => collector,
    }
}

/// In some worlds a sink or relay has room for a few results only, and leaves the others to their workers. By
/// dice of their own.
pub(crate) fn leave_little_room(plan: &Plan, collector: &mut Collector) {
    let mut rng = fastrand::Rng::with_seed(plan.seed ^ 0x7a4e_b17e);
    // On a slow link each result would come again and again.
    let is_fit = !plan.is_fair && plan.tasks.len() < 150 && plan.result_rate.is_none();
    if rng.u8(0..100) < LITTLE_ROOM_PERCENT && is_fit {
        collector.set_taken_bytes_max(rng.u64(500..20_000));
    }
}

/// In three of four worlds that have an order little may wait in memory. By dice of their own: without them a
/// world is what it was before.
fn limits(plan: &Plan, seed: u64) -> Option<SpoolLimits> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5b00_1ed5);
    let (is_spooling, waiting, spool) = (rng.u8(0..4) > 0, rng.u64(0..3000), rng.u64(0..400_000));
    let limits = SpoolLimits { waiting_bytes_max: waiting, spool_bytes_max: spool };
    // With so little memory each record costs a write or two: nothing to judge a job's time by.
    (is_spooling && plan.order == Order::Seq && !plan.is_fair).then_some(limits)
}

impl World {
    pub(crate) fn drive_sink(&mut self) -> Option<Time> {
        // The disk has begun with what there is to write when messages are sent.
        self.drive_intake(Process::Sink, Accepts { messages: false, records: true });
        // Another ventilator may have more for it.
        if self.sink.flush == Flush::Done && !self.sink.collector.is_all_stored() {
            self.sink.flush = Flush::NotYet;
        }
        self.write_on();
        self.note_end();
        self.note_workers();
        self.drive_intake(Process::Sink, Accepts { messages: true, records: false });
        let now = self.time_of(Process::Sink);
        let is_connected = self.has_ventilator(Process::Sink);
        let Sink { collector, farewell, flush, .. } = &mut self.sink;
        let is_flushed = *flush == Flush::Done && collector.is_all_stored();
        farewell.review(now, is_flushed, is_connected);
        if let Some(exit) = farewell.exit(now, collector) {
            self.trace.say(self.now, || format!("the sink leaves: {exit:?}"));
            self.check.progressed(self.now);
            self.check.left("the sink");
            (self.sink.is_alive, self.sink.has_left) = (false, true);
            self.call_back();
            self.abandon(Process::Sink, false);
            return None;
        }
        Some(collector.poll_timeout().min(farewell.poll_timeout()))
    }

    /// Schedules the faults of the end when everything is stored for the first time.
    fn note_end(&mut self) {
        if self.was_stored || !self.sink.collector.is_all_stored() {
            return;
        }
        self.was_stored = true;
        for (after, fault) in std::mem::take(&mut self.plan.at_end) {
            let at = self.now + after;
            self.queue.push(at, Event::Fault(self.plan.faults.len()));
            self.plan.calm_at = self.plan.calm_at.max(at + fault.lasts_us());
            self.plan.faults.push((at, fault));
        }
    }

    /// Returns whether there is a connection to or from a ventilator.
    pub(crate) fn has_ventilator(&mut self, process: Process) -> bool {
        let Intake { receipts, ventilators, .. } = self.intake(process);
        let (receipts, has_callers) = (*receipts, !ventilators.is_empty());
        has_callers || receipts.is_some_and(|id| self.is_open(id, End::Sender))
    }

    /// Does what a collector asks for.
    pub(crate) fn drive_intake(&mut self, process: Process, accepts: Accepts) {
        let now = self.time_of(process);
        for polls in 0.. {
            if polls == POLLS_MAX {
                self.check.fail(|| "the collector never stops talking".to_owned());
                return;
            }
            let Some(action) = self.collector(process).poll(now, accepts) else { break };
            match action {
                CollectorAction::Transmit(message) => {
                    if let Some(id) = self.intake(process).receipts {
                        self.send(id, encode(&message));
                    }
                }
                action if process != Process::Sink => panic!("a relay has no output: {action:?}"),
                CollectorAction::Open(opening) => self.open_output(opening),
                CollectorAction::Compare(inputs) => self.compare(&inputs),
                CollectorAction::Begin => self.begin_output(),
                CollectorAction::Spool(records) => self.sink.spooling.push_back(records),
                CollectorAction::Write(records) => self.give_out(records),
                CollectorAction::Unspool(range) => self.sink.unspooling = Some(range),
            }
        }
    }

    fn give_out(&mut self, records: Vec<Records>) {
        self.sink.waiting += records.len();
        for record in records.iter().flat_map(Records::iter) {
            self.trace.say(self.now, || {
                let result = record.result;
                let (seq, status) = (result.seq, result.outcome.status.as_str());
                format!("record {seq} {status}, attempt {}", result.attempt)
            });
        }
        self.sink.given.extend(records);
    }

    /// The connections of a process that collects results.
    pub(crate) fn intake(&mut self, process: Process) -> &mut Intake {
        match process {
            Process::Relay(relay) => &mut self.relays[relay].intake,
            _ => &mut self.sink.intake,
        }
    }

    /// The machine of a process that collects results.
    pub(crate) fn collector(&mut self, process: Process) -> &mut Collector {
        match process {
            Process::Relay(relay) => self.relays[relay].relay.upstream_mut(),
            _ => &mut self.sink.collector,
        }
    }

    /// One group commit at a time; or the flush, when there is nothing left to write.
    fn write_on(&mut self) {
        let is_busy = self.sink.writing > 0 || self.sink.under != Under::Nothing;
        if is_busy || self.sink.flush != Flush::NotYet {
            return;
        }
        let (least, mut most) = self.plan.write_us;
        if self.now < self.slow_disk_until {
            most = 2_000_000;
        }
        let takes = self.rng.u64(least..=most);
        if self.sink.waiting > 0 {
            self.sink.writing = std::mem::take(&mut self.sink.waiting);
            if self.mutation == Some(Mutation::EarlyReceipt) {
                self.sink.collector.handle_written(self.sink.writing);
            }
            self.queue.push(self.now + takes, Event::Written);
        } else if let Some(range) = self.sink.unspooling.take() {
            self.sink.under = Under::Unspool(range);
            self.queue.push(self.now + takes, Event::Written);
        } else if let Some(records) = self.sink.spooling.pop_front() {
            if self.mutation == Some(Mutation::EarlySpooled) {
                let spool_bytes = self.sink.disk.spool_bytes();
                self.sink.collector.handle_spooled(records.len(), spool_bytes);
            }
            self.sink.under = Under::Spool(records);
            self.queue.push(self.now + takes, Event::Written);
        } else if self.sink.collector.is_all_stored() {
            self.sink.flush = Flush::Under;
            self.queue.push(self.now + takes, Event::Flushed);
        }
    }

    pub(crate) fn handle_written(&mut self) {
        if self.serve.as_ref().is_some_and(|serve| serve.is_retrying()) {
            // It is what the process before this one was writing.
            return;
        }
        match std::mem::take(&mut self.sink.under) {
            Under::Nothing | Under::Store(_) => {}
            Under::Spool(records) => {
                match self.sink.disk.spool(&records) {
                    Ok(_) if self.mutation == Some(Mutation::EarlySpooled) => {}
                    Ok(bytes) => self.sink.collector.handle_spooled(records.len(), bytes),
                    Err(problem) => self.check.fail(|| problem),
                }
                self.drive(Process::Sink);
                return;
            }
            Under::Unspool(range) => {
                match self.sink.disk.unspool(range, self.mutation) {
                    Ok(records) => {
                        self.note_records(records.iter().flat_map(Records::iter));
                        let last = records.iter().flat_map(|list| &list.results).next_back();
                        let below = last.map_or(range.start, |last| last.seq.next());
                        let spool_bytes = self.sink.disk.spool_bytes();
                        self.sink.collector.handle_unspooled(below, spool_bytes);
                    }
                    Err(problem) => self.check.fail(|| problem),
                }
                self.drive(Process::Sink);
                return;
            }
        }
        let mut count = std::mem::take(&mut self.sink.writing);
        if count == 0 {
            // What the sink before this one was writing.
            return;
        }
        if self.mutation == Some(Mutation::ForgetWritten) && self.rng.u8(0..50) == 0 {
            count -= 1;
        }
        let mut records: Vec<Records> = self.sink.given.drain(..count).collect();
        if self.serve.is_some() {
            return self.store_records(records);
        }
        if self.mutation == Some(Mutation::RecordCancelled) && self.check.is_cancelled() {
            let results = records.iter_mut().flat_map(|list| &mut list.results);
            results.for_each(|result| result.outcome.status = Status::Cancelled);
        }
        if let Err(problem) = self.sink.disk.store(&records) {
            self.check.fail(|| problem);
        }
        self.note_records(records.iter().flat_map(Records::iter));
        if self.mutation != Some(Mutation::EarlyReceipt) {
            self.sink.collector.handle_written(count);
        }
        self.drive(Process::Sink);
    }

    /// Tells the account which results the collector has taken.
    pub(crate) fn note_claims(&mut self, message: &ToSink) {
        let (ToSink::Results { job, .. }
        | ToSink::Forwarded { job, .. }
        | ToSink::GiveUp { job, .. }) = message
        else {
            return;
        };
        if self.sink.collector.job() != Some(*job) {
            return;
        }
        let ToSink::Results { job, session, results } = message else {
            return self.check.claimed(message);
        };
        let collector = &self.sink.collector;
        let is_taken = |result: &&TaskResult| {
            collector.tag_of(*session, result) == Some(result.tag)
                && collector.has_taken(result.seq)
        };
        let taken = results.0.iter().filter(is_taken);
        let results = taken.cloned().collect::<Vec<_>>().into();
        self.check.claimed(&ToSink::Results { job: *job, session: *session, results });
    }

    /// For [`Mutation::ForgetDuplicates`].
    pub(crate) fn write_duplicates(&mut self, message: &ToSink) {
        let (true, ToSink::Results { results, .. }) =
            (self.mutation == Some(Mutation::ForgetDuplicates), message)
        else {
            return;
        };
        let is_again = |result: &&TaskResult| {
            result.is_final() && self.sink.disk.hash(result.seq) == Some(result.task_hash)
        };
        let again = results.0.iter().filter(is_again).cloned();
        let records =
            Records { worker: "again".into(), stage: "".into(), results: again.collect() };
        self.note_records(records.iter());
    }

    fn note_records<'a>(&mut self, records: impl Iterator<Item = Record<'a>>) {
        for record in records {
            self.check.recorded(record, self.now);
            if self.mutation == Some(Mutation::RepeatRecord) && self.rng.u8(0..100) == 0 {
                self.check.recorded(record, self.now);
            }
        }
    }

    /// Opens the output, which takes a while.
    fn open_output(&mut self, opening: Opening) {
        self.sink.opening = Some(opening);
        let (least, most) = self.plan.write_us;
        let takes = 5 * self.rng.u64(least..=most);
        self.queue.push(self.now + takes, Event::OutputOpened);
    }

    /// Returns what is wrong with the output, now that the job is over.
    pub(crate) fn judge_output(&self) -> Option<String> {
        self.sink.disk.judge(self.sink.has_left)
    }

    pub(crate) fn handle_output_opened(&mut self) {
        // A request of the sink before this one is not answered.
        if let Some(opening) = self.sink.opening.take() {
            if self.serve.is_some() {
                return self.open_logs(&opening);
            }
            match self.sink.disk.open(&opening, &self.plan, self.mutation) {
                Ok(opened) => self.sink.collector.handle_opened(opened),
                Err(problem) => self.check.fail(|| problem),
            }
            self.drive(Process::Sink);
        }
    }

    /// The input of a resumed job is what it was: the output is made ready for more records.
    fn begin_output(&mut self) {
        self.trace.say(self.now, || "the output of the resumed job is made ready".to_owned());
        if self.mutation != Some(Mutation::ForgetBegin) && self.serve.is_none() {
            self.sink.disk.begin(self.mutation);
        }
    }

    /// Compares the input of a resumed job with the records.
    fn compare(&mut self, inputs: &Inputs) {
        if self.serve.is_some() {
            // There are no hashes to compare with.
            return self.sink.collector.handle_verified(inputs.below);
        }
        let disk = &self.sink.disk;
        let differs = |(seq, hash): &&(Seq, TaskHash)| disk.hash(*seq) != Some(*hash);
        match inputs.stored.iter().find(differs) {
            Some((seq, _)) => self.sink.collector.handle_changed(*seq),
            None => self.sink.collector.handle_verified(inputs.below),
        }
    }

    /// Kills the sink. Some of the records that it was writing are on the disk, though it has not said so.
    pub(crate) fn kill_sink(&mut self, is_silent: bool) {
        if !self.sink.is_alive {
            return;
        }
        self.trace.say(self.now, || "the sink dies".to_owned());
        let count = self.sink.writing.min(self.sink.given.len());
        let mut records: Vec<Records> = self.sink.given.drain(..count).collect();
        if self.mutation == Some(Mutation::RecordCancelled) && self.check.is_cancelled() {
            let results = records.iter_mut().flat_map(|list| &mut list.results);
            results.for_each(|result| result.outcome.status = Status::Cancelled);
        }
        let under = match std::mem::take(&mut self.sink.under) {
            Under::Nothing if !records.is_empty() => Under::Store(records),
            under => under,
        };
        match self.sink.disk.crash(&under, is_silent, self.mutation, &mut self.rng) {
            Ok(made_it) => self.note_records(made_it.iter().flat_map(Records::iter)),
            Err(problem) => self.check.fail(|| problem),
        }
        self.abandon(Process::Sink, is_silent);
        self.sink.is_alive = false;
    }

    pub(crate) fn start_sink(&mut self) {
        if self.sink.is_alive || self.sink.has_left && !self.is_waiting() {
            return;
        }
        self.trace.say(self.now, || "the sink starts again".to_owned());
        self.check.forgot_claims();
        let sink = &mut self.sink;
        (sink.is_alive, sink.has_left) = (true, false);
        sink.clock.restart();
        sink.session = sink.session.wrapping_add(1 << 32);
        sink.collector = collector(&self.plan, sink.limits, SessionId(sink.session));
        sink.farewell = SinkFarewell::default();
        sink.intake = Intake::default();
        sink.given.clear();
        (sink.waiting, sink.writing, sink.opening) = (0, 0, None);
        sink.spooling.clear();
        (sink.unspooling, sink.under) = (None, Under::Nothing);
        sink.flush = Flush::NotYet;
        self.dial_anew(Route::Receipts(self.plan.stage(self.plan.stages - 1)));
        self.seat_again();
        self.drive(Process::Sink);
    }

    pub(crate) fn handle_flushed(&mut self) {
        // It may be what a sink has asked for that is dead.
        if self.sink.flush != Flush::Under {
            return;
        }
        // Another ventilator may have more for it meanwhile.
        let is_all = self.sink.collector.is_all_stored();
        self.sink.flush = if is_all { Flush::Done } else { Flush::NotYet };
        self.sink.collector.handle_flushed();
        self.drive(Process::Sink);
    }
}
