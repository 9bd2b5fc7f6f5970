//! A dispatcher whose tasks are the results of an earlier stage.
//!
//! They come in any order, with the seqs that they have in the whole job. A relay that starts anew
//! knows nothing: which of them its workers still hold, and which are stored, it hears before the
//! earlier stage pushes its results again. So a task may be out, or have its record, before it is
//! here ([`State::Absent`]). What ended in an earlier stage is passed on as it is, and kept until it
//! is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Entry, State};
use super::{Dispatcher, DispatcherConfig, Ended, Stopped, Transmit};
use crate::batch::Batch;
use crate::collector::Opening;
use crate::limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX, READ_AHEAD_TASKS_MAX, REORDER_WINDOW_TASKS};
use crate::message::{InputEnd, Report, Start, TaskResult, ToSink, ToWorker};
use crate::{JobId, Payload, Seq, SeqRange, SeqRanges, TaskHash};

/// What a dispatcher knows beside its tasks if it is a relay's.
#[derive(Debug, Default)]
pub(super) struct Relaying {
    /// A job was asked for.
    is_asked: bool,
    /// None of its tasks was handed out in any stage when it was asked for.
    is_untouched: bool,
    /// Another ventilator goes on with the job, and the sink has not answered that yet.
    reopening: Option<Opening>,
    /// The sink has opened the job.
    hello: Option<Hello>,
    was_opened: bool,
    /// Stored since somebody asked.
    stored: SeqRanges,
    /// Records of earlier stages, until they are stored.
    passed: BTreeMap<Seq, Passed>,
    passed_bytes: u64,
    /// Of these, the ones that the sink has yet to be told.
    unsent: BTreeSet<Seq>,
    /// All that the earlier stage will ever send is here.
    is_all_here: bool,
    /// The sink has said that it has flushed all there is, perhaps before it was known here how much
    /// that is.
    is_sink_complete: bool,
    refused: Option<String>,
}

/// What the sink said when it opened the job.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) job: JobId,
    pub(crate) stored: SeqRanges,
    pub(crate) again: SeqRanges,
    /// It is the first one that this relay hears.
    pub(crate) is_first: bool,
}

#[derive(Debug)]
struct Passed {
    stage: Arc<str>,
    worker: Arc<str>,
    result: TaskResult,
}

impl Relaying {
    /// Checks the records of earlier stages; returns how many there are.
    pub(super) fn check_invariants(&self) -> usize {
        let bytes: u64 = self.passed.values().map(|passed| passed.result.held_bytes()).sum();
        assert_eq!(self.passed_bytes, bytes, "bytes of what is passed on");
        assert!(self.unsent.iter().all(|seq| self.passed.contains_key(seq)), "unsent records");
        self.passed.len()
    }
}

impl Dispatcher {
    /// The dispatcher of a relay. The job's id and name, and how it begins, come with the
    /// [opening](Self::handle_opening).
    pub(crate) fn relay(config: DispatcherConfig) -> Self {
        Self { relay: Some(Relaying::default()), resume: None, ..Self::new(config) }
    }

    /// A ventilator wants the job opened.
    pub(crate) fn handle_opening(&mut self, opening: Opening) {
        let Some(relay) = &mut self.relay else { return };
        relay.is_asked = true;
        relay.is_untouched = opening.is_untouched;
        relay.refused = None;
        self.config.job = opening.job;
        self.config.name = opening.name;
        self.config.start = opening.start;
        self.open_job();
    }

    /// Another ventilator goes on with the job.
    pub(crate) fn handle_reopening(&mut self, opening: Opening) {
        let Some(relay) = &mut self.relay else { return };
        relay.reopening = Some(opening);
        (relay.is_all_here, relay.is_sink_complete, relay.refused) = (false, false, None);
        (self.total, self.input_end) = (None, InputEnd::CutShort);
        self.stopped = None;
        self.take_up_again();
        self.open_job();
    }

    /// A result of the earlier stage came: what it made is a task.
    pub(crate) fn handle_arrival(&mut self, seq: Seq, payload: Payload, origin: TaskHash) {
        self.reach_to(seq.next());
        let fresh = self.fresh;
        let Some(entry) = self.entry(seq).filter(|entry| !entry.is_here) else { return };
        let bytes = payload.len() as u64;
        let holder = match entry.state {
            State::Settled | State::GivenUp => return,
            State::Out(session) => Some(session),
            State::Received(_) | State::Queued => None,
            State::Absent => {
                entry.state = State::Queued;
                None
            }
        };
        let is_queued = entry.state == State::Queued;
        // What has been out before is not fresh, wherever it stands.
        let is_again = seq < fresh || !entry.is_fresh();
        (entry.payload, entry.origin, entry.is_here) = (payload, Some(origin), true);
        self.retained_bytes += bytes;
        if let Some(worker) = holder.and_then(|session| self.workers.get_mut(&session)) {
            worker.out_bytes += bytes;
        }
        if is_queued && !self.give_up_if_hopeless(seq) && is_again {
            self.requeue(seq);
        }
    }

    /// A task ended in an earlier stage: its record goes on as it is.
    pub(crate) fn handle_passed(&mut self, stage: Arc<str>, worker: Arc<str>, result: TaskResult) {
        let seq = result.seq;
        self.reach_to(seq.next());
        let Some(entry) = self.entry(seq) else { return };
        if matches!(entry.state, State::Settled | State::GivenUp) {
            return;
        }
        // A worker may hold it all the same, of an attempt whose result was lost with a worker of
        // the earlier stage: the sink takes what comes first.
        let bytes = entry.payload.len() as u64;
        let old = std::mem::replace(&mut entry.state, State::GivenUp);
        entry.payload = Payload::new();
        entry.is_here = true;
        self.retained_bytes -= bytes;
        self.uncharge(old, bytes);
        self.waiting.remove(seq);
        let Some(relay) = &mut self.relay else { return };
        relay.passed_bytes += result.held_bytes();
        relay.passed.insert(seq, Passed { stage, worker, result });
        relay.unsent.insert(seq);
    }

    /// The job has so many tasks.
    pub(crate) fn handle_total(&mut self, total: u64, end: InputEnd) {
        self.input_end = end;
        self.cut_off(Seq(total));
        self.close_at(Seq(total));
    }

    /// A ventilator may have handed out more than the one that went on with the job, and was
    /// stopped. The sink takes none of that and will not say what becomes of it: it takes up no
    /// credit. It is kept, should yet another ventilator go on.
    fn cut_off(&mut self, end: Seq) {
        for seq in (end.0.max(self.base.0)..self.end().0).map(Seq) {
            self.disown(seq);
        }
        self.waiting.cut_off(end);
        let gone = SeqRange { start: end, end: Seq(u64::MAX) };
        self.workers.values_mut().for_each(|worker| worker.out.remove_range(gone));
    }

    /// What was cut off may be dispatched after all.
    fn take_up_again(&mut self) {
        for seq in (self.base.0..self.end().0).map(Seq) {
            let fresh = self.fresh;
            if self.entry(seq).is_some_and(|entry| seq < fresh || !entry.is_fresh()) {
                self.requeue(seq);
            }
        }
    }

    /// The job was cancelled.
    pub(crate) fn handle_cancelled(&mut self) {
        self.stopped = Some(Stopped::Cancelled);
        self.cancel_all();
    }

    /// All that the earlier stage will ever send is here, or not.
    pub(crate) fn handle_all_here(&mut self, is_all_here: bool) {
        if let Some(relay) = &mut self.relay {
            relay.is_all_here = is_all_here;
        }
    }

    /// The first ventilator knows that everything is stored, or has given the job up.
    pub(crate) fn handle_job_done(&mut self) {
        let refused = self.relay.as_mut().and_then(|relay| relay.refused.take());
        self.finish(refused.map_or(Ended::Complete, Ended::Refused));
    }

    /// Something that the sink is to hear from the ventilator as it is. It is lost if there is no
    /// connection: the ventilator says it again after each hello.
    pub(crate) fn hand_on(&mut self, message: ToSink) {
        self.send_sink(message);
    }

    /// The sink has opened the job, for the first time or again.
    pub(crate) fn take_hello(&mut self) -> Option<Hello> {
        self.relay.as_mut()?.hello.take()
    }

    /// What was stored since this was asked last.
    pub(crate) fn take_stored(&mut self) -> SeqRanges {
        self.relay.as_mut().map(|relay| relay.stored.take()).unwrap_or_default()
    }

    /// Bytes of tasks and records that are kept here until they are stored.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.retained_bytes + self.relay.as_ref().map_or(0, |relay| relay.passed_bytes)
    }

    /// Records stored so far of tasks that did not do what they should.
    pub(crate) fn failed(&self) -> u64 {
        self.sink.failed
    }

    /// The sink says that it cannot write.
    pub(crate) fn is_sink_stuck(&self) -> bool {
        self.sink.is_stuck
    }

    /// What results are to carry.
    pub(crate) fn report(&self) -> Report {
        self.sink.report
    }

    /// The sink has flushed all there is.
    pub(crate) fn is_all_flushed(&self) -> bool {
        let is_sink_complete = self.relay.as_ref().is_some_and(|relay| relay.is_sink_complete);
        let Some(total) = self.total.filter(|_| is_sink_complete) else { return false };
        // There may be more here that was cut off.
        let due = total.saturating_sub(self.base.0);
        let mut settled = self.entries.iter().map(|entry| entry.state == State::Settled);
        (0..due).all(|_| settled.next() == Some(true))
    }

    /// The sink has flushed all there is; false if that is not for a relay to note.
    pub(super) fn note_complete(&mut self) -> bool {
        let Some(relay) = &mut self.relay else { return false };
        relay.is_sink_complete = true;
        true
    }

    /// Will nothing come in any more that has not come?
    pub(super) fn is_input_over(&self) -> bool {
        self.relay.as_ref().map_or(self.total.is_some(), |relay| relay.is_all_here)
    }

    /// May a worker hold a task of the job that this dispatcher did not hand out?
    pub(super) fn is_touched(&self) -> bool {
        match &self.relay {
            Some(relay) => !relay.is_untouched || self.fresh > Seq(0),
            None => self.is_resumed() || self.fresh > Seq(0),
        }
    }

    /// Does a relay not know yet which job it is?
    pub(super) fn is_job_unknown(&self) -> bool {
        self.relay.as_ref().is_some_and(|relay| !relay.was_opened)
    }

    /// How a relay asks for the job, once it knows which.
    pub(super) fn relayed_opening(&self) -> Option<Opening> {
        let relay = self.relay.as_ref().filter(|relay| relay.is_asked)?;
        let current = || Opening {
            job: self.config.job,
            name: self.config.name.clone(),
            start: self.config.start,
            stage: String::new(),
            is_untouched: false,
        };
        Some(relay.reopening.clone().unwrap_or_else(current))
    }

    /// Is this hello for the job that the relay asked for? From now on it is that of the sink.
    pub(super) fn accept_hello(
        &mut self,
        asked: JobId,
        job: JobId,
        stored: &SeqRanges,
        again: &SeqRanges,
    ) -> bool {
        let Some(relay) = &mut self.relay else { return true };
        let is_ours = relay.is_asked
            && (job == self.config.job || (!relay.was_opened && asked == self.config.job));
        if is_ours {
            relay.reopening.take_if(|reopening| reopening.job == asked);
            // There was nothing to resume: it is a new job, of which nobody can hold anything.
            relay.is_untouched |= job == asked && self.config.start != Start::Anew;
            let is_first = !std::mem::replace(&mut relay.was_opened, true);
            relay.is_sink_complete = false;
            let (stored, again) = (stored.clone(), again.clone());
            relay.hello = Some(Hello { job, stored, again, is_first });
            self.config.job = job;
            self.config.start = Start::Anew;
        }
        is_ours
    }

    /// A relay that is new to a job asks its workers what they hold before it hands out anything:
    /// an earlier relay may have handed it out.
    pub(super) fn is_roll_due(&self) -> bool {
        let is_first = |hello: &Hello| hello.is_first;
        let hello = self.relay.as_ref().and_then(|relay| relay.hello.as_ref());
        hello.is_some_and(is_first) && self.is_touched()
    }

    /// The relay cannot go on, and says so to whoever is before it. The workers are not told: the
    /// job may still be resumed.
    pub(super) fn refuse_relayed(&mut self, reason: &str) -> bool {
        let Some(relay) = &mut self.relay else { return false };
        relay.refused = Some(reason.to_owned());
        true
    }

    /// Why the job was refused, for as long as nobody has asked.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.relay.as_ref()?.refused.as_deref()
    }

    /// Makes room for tasks that a relay hears of before they come.
    pub(super) fn reach(&mut self, ranges: &SeqRanges) {
        if self.relay.is_some()
            && let Some(end) = ranges.as_slice().iter().map(|range| range.end).max()
        {
            self.reach_to(end);
        }
    }

    fn reach_to(&mut self, end: Seq) {
        let end = end.0.min(self.base.0 + REORDER_WINDOW_TASKS + READ_AHEAD_TASKS_MAX);
        while self.end().0 < end {
            self.entries.push_back(Entry::absent());
        }
    }

    /// Remembers what was stored, for the earlier stage to be told. A relay that is new may hear of
    /// more than it has room for: the front jumps over that, and what follows is settled then.
    pub(super) fn note_stored(&mut self, stored: &SeqRanges) {
        let Some(relay) = &mut self.relay else { return };
        for range in stored.as_slice() {
            relay.stored.push_range(*range);
        }
        let jump = |base: Seq| {
            let mut ranges = stored.as_slice().iter().copied();
            ranges.find(|range| range.start <= base && base < range.end)
        };
        while self.entries.is_empty()
            && let Some(range) = jump(self.base)
        {
            self.settled += range.end.0 - self.base.0;
            self.base = range.end;
            self.fresh = self.fresh.max(self.base);
            self.reach(stored);
            for range in stored.as_slice() {
                for seq in range.clamped(self.base, self.end()).seqs() {
                    self.settle(seq);
                }
            }
            self.forget_settled();
        }
    }

    /// Drops the record of an earlier stage that is stored.
    pub(super) fn forget_passed(&mut self, seq: Seq) {
        let Some(relay) = &mut self.relay else { return };
        relay.unsent.remove(&seq);
        if let Some(passed) = relay.passed.remove(&seq) {
            relay.passed_bytes -= passed.result.held_bytes();
        }
    }

    /// Everything that a sink may have missed will be sent (again).
    pub(super) fn pass_again(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.unsent = relay.passed.keys().copied().collect();
        }
    }

    /// The next records of earlier stages for the sink.
    pub(super) fn next_passed(&mut self) -> Option<Transmit> {
        if !self.sink.is_open() || !self.sink.is_connected {
            return None;
        }
        let relay = self.relay.as_mut()?;
        let mut results: Vec<TaskResult> = Vec::new();
        let (mut from, mut bytes) = (None, 0);
        while let Some(seq) = relay.unsent.first()
            && let Some(Passed { stage, worker, result }) = relay.passed.get(seq)
        {
            let (of_stage, of_worker) = from.get_or_insert_with(|| (stage.clone(), worker.clone()));
            bytes += result.payload_bytes();
            let is_full = results.len() == BATCH_TASKS_MAX || bytes > BATCH_BYTES_MAX as u64;
            let is_other = of_stage != stage || of_worker != worker;
            if (is_full || is_other) && !results.is_empty() {
                break;
            }
            results.push(result.clone());
            relay.unsent.pop_first();
        }
        let (stage, worker) = from.filter(|_| !results.is_empty())?;
        let (stage, worker) = (stage.to_string(), worker.to_string());
        let job = self.config.job;
        Some(Transmit::Sink(ToSink::Passed { job, stage, worker, results: Batch::from(results) }))
    }

    /// Stops what runs and gives up what has no result.
    pub(super) fn cancel_all(&mut self) {
        let job = self.config.job;
        for worker in self.workers.values() {
            self.transmits.push_back(Transmit::Worker(worker.lane, ToWorker::Cancel { job }));
        }
        self.waiting.clear();
        self.delayed.clear();
        for seq in (self.base.0..self.end().0).map(Seq) {
            self.disown(seq);
            self.give_up_if_hopeless(seq);
        }
        self.send_sink(ToSink::Cancel { job });
    }
}
