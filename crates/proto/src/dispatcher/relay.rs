//! A dispatcher whose tasks are the results of an earlier stage.
//!
//! They come in any order, with the seqs that they have in the whole job. A relay that starts anew
//! knows nothing: which of them its workers still hold, and which are stored, it hears before the
//! earlier stage pushes its results again. So a task may be out, or have its record, before it is
//! here ([`State::Absent`]). What ended in an earlier stage is passed on as it is, and kept until it
//! is stored.

use std::sync::Arc;

use super::course::Stopped;
use super::ledger::{Forwarded, TaskState};
use super::source::Source;
use super::{Dispatcher, DispatcherConfig, Ended, Transmit};
use crate::batch::Batch;
use crate::message::Opening;
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
    /// All that the earlier stage will ever send is here.
    is_all_here: bool,
    /// The sink has said that it has flushed all there is, perhaps before it was known here how much
    /// that is.
    is_sink_complete: bool,
    refused: Option<String>,
    /// The refusal was reported.
    is_refusal_told: bool,
    /// That all is flushed was reported.
    is_flush_told: bool,
    /// How things stood when that was last reported.
    told: Option<StageState>,
}

/// What the stage before is to hear of this one.
#[derive(Debug)]
pub(crate) enum StageReport {
    /// The sink has opened the job, for the first time or again.
    Opened(Hello),
    /// The job cannot go on.
    Refused(String),
    /// These records are in the output.
    Stored(SeqRanges),
    /// How things stand has changed.
    State(StageState),
    /// The sink has flushed all there is.
    Flushed,
}

/// How things stand in this stage and in those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StageState {
    /// Bytes of tasks and records that are kept here until they are stored.
    pub(crate) kept_bytes: u64,
    /// Records stored so far of tasks that did not do what they should.
    pub(crate) failed: u64,
    /// The sink says that it cannot write.
    pub(crate) is_stuck: bool,
    /// What results are to carry.
    pub(crate) report: Report,
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

impl Relaying {
    /// Is all here that the earlier stage will ever send?
    pub(super) fn is_all_here(&self) -> bool {
        self.is_all_here
    }
}

impl Dispatcher {
    /// The dispatcher of a relay. The job's id and name, and how it begins, come with the
    /// [opening](Self::handle_opening).
    pub(crate) fn relay(config: DispatcherConfig) -> Self {
        Self::with_source(config, Source::stage())
    }

    /// A ventilator wants the job opened.
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

    /// Another ventilator goes on with the job.
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

    /// A result of the earlier stage came: what it made is a task.
    pub(crate) fn handle_arrival(&mut self, seq: Seq, payload: Payload, origin: TaskHash) {
        self.ledger.reach(SeqRange::one(seq));
        let is_unheld = self.ledger.arrive(&mut self.roster, seq, payload, origin);
        if is_unheld && !self.give_up_if_hopeless(seq) {
            let is_fresh = self.ledger.state(seq) == Some(TaskState::Fresh);
            if !is_fresh || !self.is_due(seq) {
                self.requeue(seq);
            }
        }
    }

    /// A task ended in an earlier stage: its record goes on as it is.
    ///
    /// A worker may hold the task all the same, of an attempt whose result was lost with a worker of the
    /// earlier stage: the sink takes what comes first.
    pub(crate) fn handle_forwarded(
        &mut self,
        stage: Arc<str>,
        worker: Arc<str>,
        result: TaskResult,
    ) {
        self.ledger.reach(SeqRange::one(result.seq));
        self.ledger.forward(&mut self.roster, Forwarded { stage, worker, result });
    }

    /// The job has so many tasks.
    pub(crate) fn handle_total(&mut self, total: u64, end: InputEnd) {
        self.source.end = end;
        self.cut_off(Seq(total));
        self.close_at(Seq(total));
    }

    /// A ventilator may have handed out more than the one that went on with the job, and was
    /// stopped. The sink takes none of that and will not say what becomes of it: it takes up no
    /// credit. It is kept, should yet another ventilator go on.
    fn cut_off(&mut self, end: Seq) {
        let cut: Vec<Seq> = self.ledger.live_from(end).map(|(seq, _)| seq).collect();
        for seq in cut {
            self.ledger.release(&mut self.roster, seq);
            self.ledger.set_idle(seq);
        }
        let gone = SeqRange { start: end, end: Seq(u64::MAX) };
        self.roster.values_mut().for_each(|worker| worker.out.remove_range(gone));
    }

    /// What was cut off may be dispatched after all.
    fn take_up_again(&mut self) {
        let idle = self.ledger.live().filter(|(_, entry)| entry.state() == TaskState::Idle);
        for seq in idle.map(|(seq, _)| seq).collect::<Vec<_>>() {
            self.requeue(seq);
        }
    }

    /// The job was cancelled.
    pub(crate) fn handle_cancelled(&mut self) {
        self.course.stopped = Some(Stopped::Cancelled);
        self.cancel_all();
    }

    /// All that the earlier stage will ever send is here, or not.
    pub(crate) fn handle_all_here(&mut self, is_all_here: bool) {
        if let Some(relay) = self.source.relaying_mut() {
            relay.is_all_here = is_all_here;
        }
    }

    /// The first ventilator knows that everything is stored, or has given the job up.
    pub(crate) fn handle_job_done(&mut self) {
        let refused = self.source.relaying_mut().and_then(|relay| relay.refused.take());
        self.finish(refused.map_or(Ended::Complete, Ended::Refused));
    }

    /// Something that the sink is to hear from the ventilator as it is. It is lost if there is no
    /// connection: the ventilator says it again after each hello.
    pub(crate) fn forward(&mut self, message: ToSink) {
        self.send_sink(message);
    }

    /// The next thing that the stage before is to hear.
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
            // It says all that is stored.
            relay.stored = SeqRanges::new();
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

    /// The sink has flushed all there is.
    fn is_all_flushed(&self) -> bool {
        let is_sink_complete = self.source.relaying().is_some_and(|relay| relay.is_sink_complete);
        // There may be more here that was cut off.
        is_sink_complete && self.source.total.is_some_and(|total| self.ledger.base().0 >= total)
    }

    /// The sink has flushed all there is; false if that is not for a relay to note.
    pub(super) fn note_complete(&mut self) -> bool {
        let Some(relay) = self.source.relaying_mut() else { return false };
        relay.is_sink_complete = true;
        true
    }

    /// May a worker hold a task of the job that this dispatcher did not hand out?
    pub(super) fn is_touched(&self) -> bool {
        match self.source.relaying() {
            Some(relay) => !relay.is_untouched || self.ledger.fresh() > Seq(0),
            None => self.is_resumed() || self.ledger.fresh() > Seq(0),
        }
    }

    /// Does a relay not know yet which job it is?
    pub(super) fn is_job_unknown(&self) -> bool {
        self.source.relaying().is_some_and(|relay| !relay.was_opened)
    }

    /// How a relay asks for the job, once it knows which.
    pub(super) fn relayed_opening(&self) -> Option<Opening> {
        let relay = self.source.relaying().filter(|relay| relay.is_asked)?;
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
        let Some(relay) = self.source.relaying_mut() else { return true };
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
        let hello = self.source.relaying().and_then(|relay| relay.hello.as_ref());
        hello.is_some_and(is_first) && self.is_touched()
    }

    /// The relay cannot go on, and says so to whoever is before it. The workers are not told: the
    /// job may still be resumed.
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

    /// Remembers what was stored, for the earlier stage to be told.
    pub(super) fn note_stored(&mut self, stored: &SeqRanges) {
        if let Some(relay) = self.source.relaying_mut() {
            stored.as_slice().iter().for_each(|range| relay.stored.push_range(*range));
        }
    }

    /// The next records of earlier stages for the sink.
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

    /// Stops what runs and gives up what has no result.
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
