//! A dispatcher whose tasks are the results of an earlier stage.
//!
//! The tasks come in any order, with the seqs that they have in the whole job. A relay that starts
//! with empty memory hears from its workers and the sink which tasks are held or stored, before the
//! earlier stage pushes its results again. So a task may be out, or have its record, before it is
//! here ([`State::Absent`]). A record of an earlier stage is forwarded unchanged, and kept until it
//! is stored.

use std::sync::Arc;

use super::course::Stopped;
use super::ledger::{Forwarded, TaskState};
use super::source::Source;
use super::{Dispatcher, DispatcherConfig, Ended, Transmit};
use crate::batch::Batch;
use crate::message::Opening;
use crate::message::{InputEnd, Report, Start, TaskResult, ToSink, ToWorker};
use crate::{JobId, JobKey, Payload, Seq, SeqList, SeqRange, SeqRanges, TaskHash};

/// State of a relay's dispatcher beside its tasks.
#[derive(Debug, Default)]
pub(super) struct Relaying {
    /// A job was asked for.
    is_asked: bool,
    /// None of the job's tasks was dispatched in any stage when it was asked for.
    is_untouched: bool,
    /// Opening by another ventilator that resumes the job, until the sink has answered it.
    reopening: Option<Opening>,
    /// Hello with which the sink has opened the job.
    hello: Option<Hello>,
    was_opened: bool,
    /// Seqs that were stored since the last report.
    stored: SeqList,
    /// All results that the earlier stage will ever send are here.
    is_all_here: bool,
    /// The sink has sent `Complete`, perhaps before the total was known here.
    is_sink_complete: bool,
    refused: Option<String>,
    /// The refusal was reported.
    is_refusal_told: bool,
    /// The flush was reported.
    is_flush_told: bool,
    /// State of the stage that was last reported.
    told: Option<StageState>,
}

/// Report to the earlier stage.
#[derive(Debug)]
pub(crate) enum StageReport {
    /// The sink has opened the job, for the first time or again.
    Opened(Hello),
    /// The job cannot be run, for this reason.
    Refused(String),
    /// These records are in the output.
    Stored(SeqRanges),
    /// The state of the stage has changed.
    State(StageState),
    /// The sink has flushed all records.
    Flushed,
}

/// State of this stage and of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StageState {
    /// Bytes of tasks and records that are kept here until they are stored.
    pub(crate) kept_bytes: u64,
    /// Number of stored records that are neither `ok` nor `skipped`.
    pub(crate) failed: u64,
    /// Whether the sink reports that it cannot write.
    pub(crate) is_stuck: bool,
    /// Data that results are to carry.
    pub(crate) report: Report,
}

/// The sink's hello when it opened the job.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) job: JobId,
    pub(crate) stored: SeqRanges,
    pub(crate) again: SeqRanges,
    pub(crate) key: JobKey,
    /// Whether it is the first hello that this relay gets.
    pub(crate) is_first: bool,
}

impl Relaying {
    /// Returns whether all results that the earlier stage will ever send are here.
    pub(super) fn is_all_here(&self) -> bool {
        self.is_all_here
    }
}

impl Dispatcher {
    /// Creates the dispatcher of a relay. The job's id, name and start come with the
    /// [opening](Self::handle_opening).
    pub(crate) fn relay(config: DispatcherConfig) -> Self {
        Self::with_source(config, Source::stage())
    }

    /// Handles a ventilator's request to open a job.
    pub(crate) fn handle_opening(&mut self, opening: Opening) {
        let Some(relay) = self.source.relaying_mut() else { return };
        relay.is_asked = true;
        relay.is_untouched = opening.is_untouched;
        (relay.refused, relay.is_refusal_told) = (None, false);
        self.config.job = opening.job;
        self.config.name = opening.name;
        self.config.start = opening.start;
        self.open_job();
    }

    /// Handles the request of another ventilator to resume the job.
    pub(crate) fn handle_reopening(&mut self, opening: Opening) {
        let Some(relay) = self.source.relaying_mut() else { return };
        relay.reopening = Some(opening);
        (relay.is_all_here, relay.is_sink_complete, relay.refused) = (false, false, None);
        (relay.is_flush_told, relay.is_refusal_told) = (false, false);
        (self.source.total, self.source.end) = (None, InputEnd::CutShort);
        self.course.stopped = None;
        self.take_up_again();
        self.open_job();
    }

    /// Takes in a result of the earlier stage: its output is a task.
    pub(crate) fn handle_arrival(&mut self, seq: Seq, payload: Payload, origin: TaskHash) {
        self.ledger.reach(SeqRange::one(seq));
        let is_unassigned = self.ledger.arrive(&mut self.roster, seq, payload, origin);
        if is_unassigned && !self.give_up_if_hopeless(seq) {
            let is_fresh = self.ledger.state(seq) == Some(TaskState::Fresh);
            if !is_fresh || !self.is_due(seq) {
                self.requeue(seq);
            }
        }
    }

    /// Takes in the record of a task that ended in an earlier stage, to be forwarded unchanged.
    ///
    /// A worker may hold the task nevertheless, of an attempt whose result was lost with a worker
    /// of the earlier stage: the sink takes the result that comes first.
    pub(crate) fn handle_forwarded(
        &mut self,
        stage: Arc<str>,
        worker: Arc<str>,
        result: TaskResult,
    ) {
        self.ledger.reach(SeqRange::one(result.seq));
        self.ledger.forward(&mut self.roster, Forwarded { stage, worker, result });
    }

    /// Sets the number of the job's tasks.
    pub(crate) fn handle_total(&mut self, total: u64, end: InputEnd) {
        self.source.end = end;
        self.cut_off(Seq(total));
        self.close_at(Seq(total));
    }

    /// Cuts off tasks beyond the end. A ventilator may have dispatched more than the one that
    /// resumed the job, and was stopped. The sink takes none of these and will send no receipt:
    /// they take up no credit. They are kept, should yet another ventilator resume the job.
    fn cut_off(&mut self, end: Seq) {
        let cut: Vec<Seq> = self.ledger.live_from(end).map(|(seq, _)| seq).collect();
        for seq in cut {
            self.ledger.release(&mut self.roster, seq);
            self.ledger.set_idle(seq);
        }
        let gone = SeqRange { start: end, end: Seq(u64::MAX) };
        self.roster.values_mut().for_each(|worker| worker.out.remove_range(gone));
    }

    /// Makes tasks that were cut off available for dispatch again.
    fn take_up_again(&mut self) {
        let idle = self.ledger.live().filter(|(_, entry)| entry.state() == TaskState::Idle);
        for seq in idle.map(|(seq, _)| seq).collect::<Vec<_>>() {
            self.requeue(seq);
        }
    }

    /// Handles the cancel of the job.
    pub(crate) fn handle_cancelled(&mut self) {
        self.course.stopped = Some(Stopped::Cancelled);
        self.cancel_all();
    }

    /// Sets whether all results that the earlier stage will ever send are here.
    pub(crate) fn handle_all_here(&mut self, is_all_here: bool) {
        if let Some(relay) = self.source.relaying_mut() {
            relay.is_all_here = is_all_here;
        }
    }

    /// Notes that the first ventilator knows that everything is stored, or has given the job up.
    pub(crate) fn handle_job_done(&mut self) {
        let refused = self.source.relaying_mut().and_then(|relay| relay.refused.take());
        self.finish(refused.map_or(Ended::Complete, Ended::Refused));
    }

    /// Forwards a message of the ventilator to the sink unchanged. It is lost if there is no
    /// connection: the ventilator sends it again after each hello.
    pub(crate) fn forward(&mut self, message: ToSink) {
        self.send_sink(message);
    }

    /// Returns the next report to the earlier stage.
    pub(crate) fn poll_report(&mut self) -> Option<StageReport> {
        let is_all_flushed = self.is_all_flushed();
        let state = StageState {
            kept_bytes: self.ledger.kept_bytes(),
            failed: self.sink.failed,
            is_stuck: self.sink.is_stuck,
            report: self.sink.report,
        };
        let relay = self.source.relaying_mut()?;
        if let Some(hello) = relay.hello.take() {
            // The hello has all stored seqs.
            relay.stored = SeqList::new();
            return Some(StageReport::Opened(hello));
        }
        if let Some(reason) = relay.refused.clone()
            && !std::mem::replace(&mut relay.is_refusal_told, true)
        {
            return Some(StageReport::Refused(reason));
        }
        if !relay.stored.is_empty() {
            return Some(StageReport::Stored(relay.stored.take()));
        }
        if relay.told.replace(state) != Some(state) {
            return Some(StageReport::State(state));
        }
        let is_news = is_all_flushed && !std::mem::replace(&mut relay.is_flush_told, true);
        is_news.then_some(StageReport::Flushed)
    }

    /// Returns whether the sink has flushed all records.
    fn is_all_flushed(&self) -> bool {
        let is_sink_complete = self.source.relaying().is_some_and(|relay| relay.is_sink_complete);
        // Tasks that were cut off may be here.
        is_sink_complete && self.source.total.is_some_and(|total| self.ledger.base().0 >= total)
    }

    /// Notes that the sink has flushed all records; returns false if this is no relay.
    pub(super) fn note_complete(&mut self) -> bool {
        let Some(relay) = self.source.relaying_mut() else { return false };
        relay.is_sink_complete = true;
        true
    }

    /// Returns whether a worker may hold a task of the job that this dispatcher did not dispatch.
    pub(super) fn is_touched(&self) -> bool {
        match self.source.relaying() {
            Some(relay) => !relay.is_untouched || self.ledger.fresh() > Seq(0),
            None => self.is_resumed() || self.ledger.fresh() > Seq(0),
        }
    }

    /// Returns whether this is a relay that does not know its job yet.
    pub(super) fn is_job_unknown(&self) -> bool {
        self.source.relaying().is_some_and(|relay| !relay.was_opened)
    }

    /// Returns the opening with which a relay asks for the job, once it knows which.
    pub(super) fn relayed_opening(&self) -> Option<Opening> {
        let relay = self.source.relaying().filter(|relay| relay.is_asked)?;
        let current = || Opening {
            job: self.config.job,
            name: self.config.name.clone(),
            start: self.config.start,
            stage: String::new(),
            is_untouched: false,
            key: None,
        };
        Some(relay.reopening.clone().unwrap_or_else(current))
    }

    /// Returns whether this hello is for the job that the relay asked for. The sink's job is the
    /// relay's from then on.
    pub(super) fn accept_hello(
        &mut self,
        asked: JobId,
        job: JobId,
        stored: &SeqRanges,
        again: &SeqRanges,
        key: JobKey,
    ) -> bool {
        let Some(relay) = self.source.relaying_mut() else { return true };
        let is_ours = relay.is_asked
            && (job == self.config.job || (!relay.was_opened && asked == self.config.job));
        if is_ours {
            relay.reopening.take_if(|reopening| reopening.job == asked);
            // There was no job to resume: it is a new one, of which no worker can hold a task.
            relay.is_untouched |= job == asked && self.config.start != Start::New;
            let is_first = !std::mem::replace(&mut relay.was_opened, true);
            relay.is_sink_complete = false;
            let (stored, again) = (stored.clone(), again.clone());
            relay.hello = Some(Hello { job, stored, again, key, is_first });
            self.config.job = job;
            self.config.start = Start::New;
        }
        is_ours
    }

    /// Returns whether this is a relay that is new to a job. It calls the roll before it dispatches
    /// any task: an earlier relay may have dispatched it.
    pub(super) fn is_roll_due(&self) -> bool {
        let is_first = |hello: &Hello| hello.is_first;
        let hello = self.source.relaying().and_then(|relay| relay.hello.as_ref());
        hello.is_some_and(is_first) && self.is_touched()
    }

    /// Reports a refusal to the earlier stage, if this is a relay. Workers are not told: the job
    /// may still be resumed.
    pub(super) fn refuse_relayed(&mut self, reason: &str) -> bool {
        let Some(relay) = self.source.relaying_mut() else { return false };
        relay.refused = Some(reason.to_owned());
        true
    }

    /// Makes room for tasks that a relay hears of before they come.
    pub(super) fn reach(&mut self, ranges: &SeqRanges) {
        if self.source.relaying().is_some() {
            ranges.as_slice().iter().for_each(|range| self.ledger.reach(*range));
        }
    }

    /// Remembers stored seqs, to be reported to the earlier stage.
    pub(super) fn note_stored(&mut self, stored: &SeqRanges) {
        if let Some(relay) = self.source.relaying_mut() {
            stored.as_slice().iter().for_each(|range| relay.stored.push_range(*range));
        }
    }

    /// Returns the next records of earlier stages for the sink.
    pub(super) fn next_forwarded(&mut self) -> Option<Transmit> {
        if self.source.relaying().is_none() || !self.sink.is_open() || !self.sink.is_connected {
            return None;
        }
        let (stage, worker, results) = self.ledger.next_forwarded()?;
        let job = self.config.job;
        Some(Transmit::Sink(ToSink::Forwarded {
            job,
            stage,
            worker,
            results: Batch::from(results),
        }))
    }

    /// Stops running tasks and gives up those without a result.
    pub(super) fn cancel_all(&mut self) {
        let job = self.config.job;
        for worker in self.roster.values() {
            self.outbox
                .transmits
                .push_back(Transmit::Worker(worker.lane, ToWorker::Cancel { job }));
        }
        for seq in self.ledger.live().map(|(seq, _)| seq).collect::<Vec<_>>() {
            self.ledger.release(&mut self.roster, seq);
            self.give_up_if_hopeless(seq);
        }
        self.send_sink(ToSink::Cancel { job });
    }
}
