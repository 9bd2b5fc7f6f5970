//! The dispatcher: events go in, and the work to do comes out.

use crate::batch::Bounded;
use crate::limits::{
    HEARTBEAT_INTERVAL, HELD_BYTES_MAX, READ_AHEAD_TASKS_MAX, RETAINED_BYTES_MAX, ROLL_CALL_GRACE,
    WORKERS_MAX,
};
use crate::message::{
    Card, HaltOn, InputEnd, Layout, Report, Start, Status, ToSink, ToVentilator, ToWorker,
};
use crate::{
    CallId, JobId, JobKey, LaneId, Payload, Seq, SeqRanges, SeqSet, SessionId, TaskHash, Time,
};

use super::course::{Course, Ended, Stopped};
use super::explain::History;
use super::halt::{HaltWhen, Halting};
use super::health::Notice;
use super::ledger::{GivenUp, Ledger, TaskState};
use super::marks::Suspicions;
use super::outbox::{Outbox, Transmit};
use super::overdue::Overdue;
use super::policy::{Policy, TaskLimits};
use super::receipts::settled;
use super::resume::{Phase as ResumePhase, Resume};
use super::rng::Rng;
use super::roll::{Call, Roll};
use super::roster::Roster;
use super::run_times::RunTimes;
use super::sink_link::SinkLink;
use super::snapshot::{DispatcherSnapshot, WorkerSnapshot};
use super::source::Source;
use super::tail::{Compared, Tail};
use super::worker::{Phase, Worker};

/// Settings of a job.
#[derive(Clone, Debug)]
pub struct DispatcherConfig {
    /// Id of the job.
    pub job: JobId,
    /// Name of the job, for display.
    pub name: String,
    /// Name of the stage whose workers get the job's tasks; may be empty.
    pub stage: String,
    /// Start of the job: new or resumed.
    pub start: Start,
    /// Layout of the job's tasks.
    pub layout: Layout,
    /// Limits of the job's tasks and workers.
    pub policy: Policy,
    /// Bytes of the largest message that is sent, named where a task is too large for all workers.
    pub message_bytes_max: u64,
    /// Seed of the jitter of backoffs.
    pub seed: u64,
}

/// The ventilator's state machine.
#[derive(Debug)]
pub struct Dispatcher {
    pub(super) config: DispatcherConfig,
    pub(super) source: Source,
    pub(super) ledger: Ledger,
    pub(super) roster: Roster,
    pub(super) suspicions: Suspicions,
    pub(super) sink: SinkLink,
    pub(super) roll: Roll,
    pub(super) halting: Halting,
    pub(super) course: Course,
    pub(super) outbox: Outbox,
    pub(super) run_times: RunTimes,
    pub(super) tail: Tail,
    pub(super) history: History,
    /// Tasks that are to be cancelled as soon as they are read.
    pub(super) unread_cancels: SeqSet,
    /// Payload bytes that are kept, unless they are a single task.
    retained_bytes_max: u64,
    pub(super) is_paused: bool,
    /// Latest time that was passed in.
    pub(super) seen: Time,
    pub(super) next_beat: Time,
    last_beat: Time,
    pub(super) rng: Rng,
}

impl Dispatcher {
    /// Creates the dispatcher of a job that has no task yet.
    #[must_use]
    pub fn new(config: DispatcherConfig) -> Self {
        let source =
            Source::input((config.start != Start::New).then(|| Resume::new(Seq(0), false)));
        Self::with_source(config, source)
    }

    /// Has the input begin at a seq, and not at 0: every task below it is settled, and was trimmed from the
    /// log that the input is. To be called before anything else.
    ///
    /// The sink has to know of these tasks as well: each is [stored](crate::collector::Opened) there.
    #[must_use]
    pub fn with_first(mut self, first: Seq) -> Self {
        self.ledger = Ledger::starting_at(first);
        if let Some(resume) = self.source.resume_mut() {
            *resume = Resume::new(first, resume.is_own);
        }
        self
    }

    /// Sets the payload bytes that are kept, unless they are a single task.
    #[must_use]
    pub fn with_retained_bytes_max(self, retained_bytes_max: u64) -> Self {
        Self { retained_bytes_max, ..self }
    }

    /// Resumes a job by an id that the ventilator has kept, whether or not a sink has heard of it yet: a sink that
    /// is new begins it. One that has the records of another job refuses it, or says which it has: that is the
    /// caller's to look at. To be called before anything else.
    #[must_use]
    pub fn with_own_job(mut self) -> Self {
        self.config.start = Start::New;
        self.source = Source::input(Some(Resume::new(Seq(0), true)));
        self
    }

    /// Creates a dispatcher without tasks, for tasks from a source.
    pub(super) fn with_source(config: DispatcherConfig, source: Source) -> Self {
        let mut rng = Rng(config.seed);
        Self {
            // At random, so that no answer to the call of an earlier ventilator is taken for one to
            // ours.
            roll: Roll::new(CallId(rng.next_u64() >> 32)),
            rng,
            config,
            source,
            ledger: Ledger::default(),
            roster: Roster::default(),
            suspicions: Suspicions::default(),
            sink: SinkLink::default(),
            halting: Halting::default(),
            course: Course::default(),
            outbox: Outbox::default(),
            run_times: RunTimes::default(),
            tail: Tail::default(),
            history: History::default(),
            unread_cancels: SeqSet::new(),
            retained_bytes_max: RETAINED_BYTES_MAX,
            is_paused: false,
            seen: Time(0),
            next_beat: Time(0),
            last_beat: Time(0),
        }
    }

    /// Returns the number of tasks that may be taken in now.
    #[must_use]
    pub fn input_room(&self) -> u64 {
        if self.source.total.is_some() {
            return 0;
        }
        let room = self.ledger.room(self.retained_bytes_max);
        let ahead = READ_AHEAD_TASKS_MAX.saturating_sub(self.ledger.fresh_count());
        match self.source.resume() {
            None => room.min(ahead),
            Some(resume) => match resume.phase {
                ResumePhase::Going => room.min(ahead).min(resume.room()),
                ResumePhase::Reading => room.min(resume.room()),
                ResumePhase::Asking | ResumePhase::AskingAgain => 0,
            },
        }
    }

    /// Takes in a task that was read. More tasks than there is [room](Self::input_room) for are
    /// allowed and cost memory; a task after the end of input is dropped.
    pub fn handle_task(&mut self, payload: Payload) {
        self.take_in_task(payload, None);
    }

    /// Takes in a task that has limits of its own, as [`handle_task`](Self::handle_task) does one that has none.
    /// They are kept until the task's record is stored, whatever the policy becomes meanwhile, and hold for each
    /// of its attempts.
    ///
    /// A ventilator that resumes the job does not know of them: it is given them again, with the task. In a job of
    /// several stages they hold in the first one alone.
    pub fn handle_task_with(&mut self, payload: Payload, limits: TaskLimits) {
        let seq = self.ledger.end();
        self.handle_task(payload);
        self.ledger.limit(seq, limits);
    }

    /// Takes in a task with limits of its own whose hash is not that of its payload alone: of an input that has
    /// places, so that the same task elsewhere counts as another one when the job is resumed.
    pub fn handle_task_at(&mut self, payload: Payload, hash: TaskHash, limits: TaskLimits) {
        let seq = self.ledger.end();
        self.take_in_task(payload, Some(hash));
        self.ledger.limit(seq, limits);
    }

    fn take_in_task(&mut self, payload: Payload, hash: Option<TaskHash>) {
        if self.source.total.is_some() {
            return;
        }
        let seq = self.ledger.end();
        if self.read_again(seq, || hash.unwrap_or_else(|| TaskHash::of(&payload))) {
            self.ledger.take_in_settled();
        } else {
            self.ledger.take_in(payload, hash);
            self.adopt_ahead(seq);
        }
        self.cancel_if_due(seq);
        self.end_full_reading();
    }

    /// Takes in a task that cannot be sent to any worker: it gets a failed record.
    pub fn handle_unfit_task(&mut self, error: String) {
        if self.source.total.is_some() {
            return;
        }
        let seq = self.ledger.end();
        if self.read_again(seq, || TaskHash::of(b"")) {
            self.ledger.take_in_settled();
        } else {
            self.ledger.take_in(Payload::new(), None);
            self.give_up(seq, Status::Failed, error);
        }
        self.cancel_if_due(seq);
        self.end_full_reading();
    }

    /// Notes that there is no more input.
    pub fn handle_input_end(&mut self) {
        if self.source.total.is_none() {
            self.source.end = InputEnd::Whole;
        }
        self.close_at(self.ledger.end());
        self.end_reading(false);
    }

    /// Takes no more input, and finishes the tasks that are out, and those before one that was cancelled.
    pub fn handle_drain(&mut self) {
        if self.course.stopped.is_none() {
            self.course.stopped = Some(Stopped::Draining);
        }
        if self.is_resuming() {
            self.course.ended.get_or_insert(Ended::Untouched);
            return;
        }
        let begun = self.ledger.begun();
        if self.source.total.is_none_or(|total| total > begun.0) {
            // Tasks that were read and never dispatched were not begun: the job ends before them.
            self.ledger.cut_off(begun);
            self.suspicions.cut_off(begun);
            self.source.end = self.halted_by().map_or(InputEnd::CutShort, InputEnd::Halted);
            self.close_at(begun);
        }
    }

    /// Stops the job: every task that has no result yet gets a cancelled record.
    pub fn handle_cancel(&mut self) {
        self.handle_drain();
        self.course.stopped = Some(Stopped::Cancelled);
        if self.is_resuming() {
            return;
        }
        self.cancel_all();
    }

    /// Returns the low-water mark: the seq below which every task's record is stored. A log may be trimmed up to
    /// it. While a job is resumed, tasks whose input has yet to be compared lie above it: a log that is refused
    /// has lost nothing.
    #[must_use]
    pub fn low_water_mark(&self) -> Seq {
        let base = self.ledger.base();
        self.source.resume().map_or(base, |resume| resume.compared(base))
    }

    /// Returns whether the job was stopped by a drain or a cancel before its input ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.course.stopped.is_some() && !self.course.halted
    }

    /// Returns the id of the job.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        self.config.job
    }

    /// Returns the number of tasks that have their records.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.ledger.settled()
    }

    /// Returns whether there is a sink that knows the job.
    #[must_use]
    pub fn is_sink_open(&self) -> bool {
        self.sink.is_open()
    }

    /// Returns whether there is no worker to run the tasks that are out, or no sink to store their
    /// records.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.roster.is_empty() || !self.sink.is_open()
    }

    /// Returns whether the sink reports that it cannot write.
    #[must_use]
    pub fn is_output_stuck(&self) -> bool {
        self.sink.is_stuck
    }

    /// Returns whether enough tasks ended in the way for which the job was to be halted.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.course.halted
    }

    /// Returns the ends for which the job was halted, if it was.
    #[must_use]
    pub fn halted_by(&self) -> Option<HaltOn> {
        self.config.policy.halt.filter(|_| self.course.halted).map(|halt| halt.on)
    }

    pub(super) fn halt_if_due(&mut self) {
        let Some(halt) = self.config.policy.halt else { return };
        if self.course.halted
            || self.course.stopped.is_some()
            || !halt.is_due(self.sink.failed, self.ledger.settled())
        {
            return;
        }
        self.course.halted = true;
        match halt.when {
            HaltWhen::Now => self.handle_cancel(),
            HaltWhen::Soon => self.handle_drain(),
        }
    }

    /// Notes that a worker connected.
    pub fn handle_lane_opened(&mut self, now: Time, lane: LaneId, card: &Card) {
        self.seen = now;
        self.take_back_losses(card.session);
        if let Some(old) = self.roster.move_to(card.session, lane) {
            // The same session on a new lane: the old lane is dead, whether or not its end was
            // seen. The roll call will show which tasks the worker holds.
            self.outbox.closes.push_back(old);
            if let Some(worker) = self.roster.get_mut(card.session) {
                worker.phase = Phase::Called;
                worker.call = None;
                worker.recall = None;
                worker.heard = now;
                worker.window.handle_reset();
                worker.announced_below = Seq(0);
                worker.deaf_since = None;
                worker.overdue = Overdue::default();
            }
        } else {
            let mut worker = Worker::new(now, lane, card);
            let is_distrusted = self.roster.is_distrusted(card.session);
            worker.health.is_distrusted = is_distrusted;
            self.roster.insert(card.session, worker);
            if is_distrusted {
                self.review_health(now);
            }
        }
        self.roster.payload_bytes_min = self.roster.payload_bytes_min.min(card.largest_payload());
        if self.course.ended.is_some() {
            let done = ToWorker::Done { job: self.config.job };
            self.outbox.transmits.push_back(Transmit::Worker(lane, done));
        } else if self.sink.is_open() {
            self.roll_call(card.session);
        }
    }

    /// Returns the number of tasks that the worker on this lane was given and has not finished.
    #[must_use]
    pub fn out_at(&self, lane: LaneId) -> Option<u64> {
        let session = self.roster.session(lane)?;
        self.roster.get(session).map(|worker| worker.out.count())
    }

    /// Notes that a worker's lane ended: its session is lost.
    pub fn handle_lane_gone(&mut self, lane: LaneId) {
        if let Some(session) = self.roster.session(lane) {
            self.lose(session, true);
        }
    }

    /// Notes that the connection to the sink stands.
    pub fn handle_sink_connected(&mut self) {
        self.sink.reset_outgoing(true);
        self.outbox.forget_sink();
        self.open_job();
        self.resend();
    }

    /// Notes that the connection to the sink is gone.
    pub fn handle_sink_disconnected(&mut self) {
        self.sink.reset_outgoing(false);
    }

    /// Notes that the sink's connection to the receipts port stands.
    pub fn handle_receipts_connected(&mut self, now: Time) {
        self.sink.reset_incoming(now, true);
    }

    /// Notes that the sink's connection to the receipts port is gone.
    pub fn handle_receipts_disconnected(&mut self, now: Time) {
        self.sink.reset_incoming(now, false);
    }

    /// Handles a message from the sink.
    pub fn handle_message(&mut self, now: Time, message: ToVentilator) {
        self.seen = now;
        self.note_sink_alive(now);
        match message {
            ToVentilator::SinkHello { asked, job, sink, stored, again, workers, report, key } => {
                let is_own = self.source.resume().is_some_and(|resume| resume.is_own);
                if self.is_asking() && job == self.config.job && !is_own {
                    // There was no job to resume: it is a new one.
                    self.source.forget_resume();
                }
                if self.is_reading_again() {
                    if job == self.config.job || (self.is_asking() && asked == self.config.job) {
                        self.handle_early_hello(job, &stored, &again);
                    }
                } else if self.accept_hello(asked, job, &stored, &again, key)
                    && job == self.config.job
                {
                    let sink_end = stored.end().max(again.end());
                    self.handle_sink_hello(now, sink, &stored, workers, report, key);
                    self.handle_sink_end(sink_end);
                }
            }
            ToVentilator::Receipt { job, received, stored, retry, held_bytes, failed } => {
                if job != self.config.job || self.is_resuming() {
                    return;
                }
                // The message is about a job that another relay had opened: the next hello covers
                // all of it.
                if self.source.relaying().is_some() && !self.sink.is_open() {
                    return;
                }
                self.sink.held_bytes = held_bytes;
                self.sink.failed = failed;
                for received in received.0 {
                    self.handle_received(now, &received);
                }
                let settled = self.ledger.settled();
                self.handle_stored(&stored);
                if self.ledger.settled() > settled {
                    self.history.stored_at = Some(now);
                }
                for failure in retry.0 {
                    self.handle_failure(now, &failure);
                }
                self.halt_if_due();
            }
            ToVentilator::Relay { session, news } => self.handle_news(now, session, news),
            ToVentilator::Complete { job } => {
                if job == self.config.job && !self.note_complete() && self.is_all_settled() {
                    self.course.is_complete = true;
                    self.finish_if_complete();
                }
            }
            ToVentilator::Refused { job, reason } => {
                if job == self.config.job {
                    self.refuse(reason);
                }
            }
            ToVentilator::Verified { job, below } => {
                if job == self.config.job {
                    self.handle_verified(below);
                }
            }
            ToVentilator::Ping { is_stuck } => self.sink.is_stuck = is_stuck,
        }
    }

    /// Handles the time that [`poll_timeout`](Self::poll_timeout) named.
    pub fn handle_timeout(&mut self, now: Time) {
        self.seen = now;
        while let Some(seq) = self.ledger.recovered(now) {
            self.requeue(seq);
        }
        self.roll.call.take_if(|roll| roll.until <= now);
        self.tail.handle_timeout(now);
        if now >= self.next_beat {
            let before = std::mem::replace(&mut self.last_beat, now);
            self.next_beat = now + HEARTBEAT_INTERVAL;
            self.beat(now, before);
        }
    }

    /// Returns the next message to send.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        self.seen = now;
        self.note_first(now);
        self.pass_over();
        if let Some(transmit) = self.outbox.transmits.pop_front() {
            return Some(transmit);
        }
        if let Some(inputs) = self.next_inputs() {
            return Some(Transmit::Sink(inputs));
        }
        if let Some(forwarded) = self.next_forwarded() {
            return Some(forwarded);
        }
        while let Some(session) = self.roster.next_to_settle() {
            let Some(worker) = self.roster.get_mut(session) else { continue };
            if worker.settled.is_empty() && worker.announced_below >= self.ledger.base() {
                continue;
            }
            return Some(settled(self.config.job, self.ledger.base(), worker));
        }
        self.dispatch(now)
    }

    /// Returns the next lane to close.
    pub fn poll_close(&mut self) -> Option<LaneId> {
        self.outbox.closes.pop_front()
    }

    /// Returns the next notice to log.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.outbox.notices.pop_front()
    }

    /// Returns the time at which to call [`handle_timeout`](Self::handle_timeout), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let due = self.ledger.next_backoff().into_iter();
        let due =
            due.chain(self.roll.call.as_ref().map(|roll| roll.until)).chain(self.tail.next_check());
        due.fold(self.next_beat, Time::min)
    }

    /// Returns how the job ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<&Ended> {
        self.course.ended.as_ref()
    }

    /// Returns the state of the job and its workers for display.
    #[must_use]
    pub fn snapshot(&self) -> DispatcherSnapshot {
        DispatcherSnapshot {
            read: self.ledger.end().0,
            total: self.source.total,
            settled: self.ledger.settled(),
            low_water_mark: self.low_water_mark(),
            entries: self.ledger.entries(),
            own_limits: self.ledger.own_limits(),
            failed: self.sink.failed,
            is_sink_open: self.sink.is_open(),
            is_paused: self.is_paused(),
            is_calling_roll: self.is_resuming()
                || self.is_job_unknown()
                || self.roll.call.is_some(),
            kept_bytes: self.ledger.kept_bytes(),
            held_bytes: self.sink.held_bytes,
            is_output_stuck: self.sink.is_stuck || self.sink.held_bytes >= HELD_BYTES_MAX,
            workers: self.worker_snapshots(),
            now: self.seen,
            queued: self.ledger.queued(),
            delayed: self.ledger.delayed(),
            delayed_until: self.ledger.next_backoff(),
            dispatched: self.roster.values().map(|worker| worker.out.count()).sum(),
            running: self.roster.values().map(|worker| u64::from(worker.running)).sum(),
            received: self.ledger.received(),
            given_up: self.ledger.records().count(),
            straggler: self.straggler(),
            retries: self.history.retries,
            recalled: self.history.recalled,
            workers_lost: self.history.workers_lost,
            roll_calls: self.history.roll_calls,
            stored_at: self.history.stored_at,
        }
    }

    fn worker_snapshots(&self) -> Vec<WorkerSnapshot> {
        let (now, waiting) = (self.seen, self.waiting());
        let all = self.all_left(now, waiting);
        let few = self.left(now).filter(|_| waiting > 0);
        let workers = self.roster.iter().map(|(session, worker)| {
            let compared = all.as_ref().and_then(|all| all.compared(worker));
            let is_idle = worker.can_start() && worker.idle_slots() > 0;
            let held_until = few.as_ref().filter(|_| is_idle);
            let held_until = held_until.and_then(|left| left.hold_back_until(worker));
            let is_slow = compared.is_some_and(Compared::is_slow);
            worker.snapshot(*session, compared.map(Compared::factor), is_slow, held_until)
        });
        workers.collect()
    }

    pub(super) fn send_sink(&mut self, message: ToSink) {
        if self.sink.is_connected {
            self.outbox.transmits.push_back(Transmit::Sink(message));
        }
    }

    pub(super) fn open_job(&mut self) {
        let stage = self.config.stage.clone();
        let is_untouched = !self.is_touched();
        let DispatcherConfig { job, name, start, .. } = &self.config;
        let (job, name, start) = match self.relayed_opening() {
            Some(opening) => (opening.job, opening.name, opening.start),
            // Only this: a sink that has everything must not wait for one that knows of nothing.
            None if self.source.relaying().is_some() => return self.send_sink(ToSink::Ping),
            None => (*job, name.clone(), *start),
        };
        self.send_sink(ToSink::JobOpen { job, name, start, stage, is_untouched });
    }

    /// Sends messages again that a sink may have missed, or not handled while its output was being
    /// made ready.
    pub(super) fn resend(&mut self) {
        self.send_close();
        let has_no_order = self.source.has_no_order();
        let given_up = self.ledger.given_up_in_turn(has_no_order);
        let given_up: Vec<(Seq, GivenUp)> = given_up.map(|(seq, it)| (seq, it.clone())).collect();
        for (seq, given_up) in given_up {
            self.send_give_up(seq, given_up);
        }
        self.ledger.pass_again();
        if self.is_cancelled() {
            self.send_sink(ToSink::Cancel { job: self.config.job });
        }
        if self.course.ended.is_some() && !self.is_resuming() {
            self.send_sink(ToSink::JobDone { job: self.config.job });
        }
    }

    pub(super) fn send_give_up(&mut self, seq: Seq, given_up: GivenUp) {
        let GivenUp { attempt, task_hash, status, error, .. } = given_up;
        let job = self.config.job;
        self.send_sink(ToSink::GiveUp { job, seq, attempt, task_hash, status, error });
    }

    pub(super) fn close_at(&mut self, end: Seq) {
        self.source.total = Some(end.0);
        self.send_close();
    }

    pub(super) fn send_close(&mut self) {
        let job = self.config.job;
        if let Some(total) = self.source.total {
            self.send_sink(ToSink::JobClose { job, total, end: self.source.end });
        }
    }

    pub(super) fn end_transmits(&mut self) {
        let job = self.config.job;
        for worker in self.roster.values() {
            self.outbox.transmits.push_back(Transmit::Worker(worker.lane, ToWorker::Done { job }));
        }
        self.send_sink(ToSink::JobDone { job });
    }

    pub(super) fn finish(&mut self, ended: Ended) {
        if self.course.ended.is_none() {
            self.course.ended = Some(ended);
            self.end_transmits();
        }
    }

    /// Returns whether there is no more input, and all of it has its records.
    ///
    /// Before the end of the input a sink that is wrong about the job must not make tasks vanish.
    pub(super) fn is_all_settled(&self) -> bool {
        self.source.total == Some(self.ledger.end().0)
            && !self.is_resuming()
            && self.ledger.is_all_settled()
    }

    pub(super) fn finish_if_complete(&mut self) {
        let is_verified = self.source.resume().is_none_or(Resume::is_all_verified);
        if self.course.is_complete && is_verified && self.ledger.is_all_settled() {
            self.finish(Ended::Complete);
        }
    }

    pub(super) fn refuse(&mut self, reason: String) {
        if self.refuse_relayed(&reason) {
            // The earlier stage hears of the refusal first.
        } else if self.is_resuming() {
            // The job may still be resumed: workers do not hear that it is over.
            self.course.ended.get_or_insert(Ended::Refused(reason));
        } else {
            self.finish(Ended::Refused(reason));
        }
    }

    pub(super) fn give_up(&mut self, seq: Seq, status: Status, error: String) {
        let given_up = self.ledger.give_up(&mut self.roster, seq, status, error, false);
        if let Some(given_up) = given_up
            && (seq < self.ledger.fresh() || self.source.has_no_order())
        {
            self.send_give_up(seq, given_up);
        }
    }

    /// Has a task that no worker holds dispatched again. A relay only keeps tasks beyond the job's
    /// end: the sink will not take their records.
    pub(super) fn requeue(&mut self, seq: Seq) {
        if !self.is_due(seq) {
            self.ledger.set_idle(seq);
        } else if self.is_unassigned(seq) {
            // The last loss may have been proven a death during the task's backoff.
            if self.give_up_if_hopeless(seq) {
                return;
            }
            let class = self.class(seq);
            self.ledger.requeue(seq, class);
        }
    }

    /// Returns whether the task is here, with no worker that answers for it and no record.
    pub(super) fn is_unassigned(&self, seq: Seq) -> bool {
        self.ledger.state(seq).is_some_and(TaskState::is_unassigned)
    }

    pub(super) fn is_due(&self, seq: Seq) -> bool {
        self.source.total.is_none_or(|total| seq.0 < total)
    }

    /// Returns a record that was stored, and that a sink with these records does not have.
    pub(super) fn first_lost(&self, stored: &SeqRanges) -> Option<Seq> {
        self.ledger.first_settled_beyond(&stored.to_set())
    }

    pub(super) fn handle_sink_hello(
        &mut self,
        now: Time,
        sink: SessionId,
        stored: &SeqRanges,
        workers: Option<Bounded<SessionId, WORKERS_MAX>>,
        report: Report,
        key: JobKey,
    ) {
        if let Some(seq) = self.first_lost(stored) {
            let reason = format!(
                "the sink no longer has the record of task {seq}: its output is not the one that \
                 this job began with"
            );
            if !self.refuse_relayed(&reason) {
                self.finish(Ended::Refused(reason));
            }
            return;
        }
        self.compare_again();
        let is_resumed = self.is_resuming();
        let was_open = self.sink.is_open();
        let is_new = self.sink.handle_hello(now, sink, report, key);
        self.handle_stored(stored);
        let is_roll_due = self.is_roll_due();
        self.history.roll_calls += u64::from(is_new || is_resumed || is_roll_due);
        if is_resumed {
            self.resume(stored);
        }
        if is_resumed || is_roll_due {
            // A sink that has been there for a while has all workers; a new one has yet to see
            // them.
            let wait = workers.as_ref().map_or(self.config.policy.resume_wait, |_| ROLL_CALL_GRACE);
            self.roll.call = Some(Call {
                until: now + wait,
                is_open_ended: workers.is_none(),
                expected: workers.into_iter().flat_map(|workers| workers.0).collect(),
            });
        }
        if is_new {
            self.roll.call = Some(Call {
                until: now + ROLL_CALL_GRACE,
                is_open_ended: false,
                expected: self.roster.sessions().into_iter().collect(),
            });
            self.forget_received();
        }
        self.resend();
        self.roster.values_mut().for_each(|worker| worker.heard = now);
        // When a hello is only repeated, workers that have yet to answer need not answer twice:
        // each answer may have large results before it.
        let is_again = was_open && !is_new && !is_resumed && !is_roll_due;
        for session in self.roster.sessions() {
            if is_again && self.roster.get(session).is_some_and(|worker| worker.call.is_some()) {
                continue;
            }
            self.roll_call(session);
        }
    }

    /// Returns the seq from which on no task was ever dispatched.
    pub(super) fn dispatched_end(&self) -> Seq {
        match self.source.total {
            _ if !self.source.may_be_held() => self.ledger.fresh(),
            Some(total) => self.ledger.end().min(Seq(total)),
            None => self.ledger.end(),
        }
    }
}
