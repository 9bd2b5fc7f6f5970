//! The ventilator's decisions: who gets which task, what is kept, what is settled, when it is over.
//!
//! Input comes in with [`Dispatcher::handle_task`] as long as there is
//! [room](Dispatcher::input_room). Everything else that happens has its `handle_*`. After each,
//! [`Dispatcher::poll_transmit`] and [`Dispatcher::poll_close`] say what to do until they say
//! nothing more, and [`Dispatcher::poll_timeout`] when to call
//! [`handle_timeout`](Dispatcher::handle_timeout) at the latest.
//!
//! Every message may be lost with the connection that carried it, and may come twice. So nothing
//! is counted up or down by a message alone: each effect hangs on the state of a seq, and what was
//! lost is found again by the roll call that follows each new lane and each new sink.

mod entry;
mod sink_link;
mod snapshot;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::limits::{
    BATCH_BYTES_MAX, BATCH_TASKS_MAX, HEARTBEAT_INTERVAL, HELD_BYTES_MAX, LOSSES_MAX,
    READ_AHEAD_TASKS_MAX, REORDER_WINDOW_TASKS, RETAINED_BYTES_MAX, RETRY_BACKOFF_MAX,
    RETRY_BACKOFF_MIN, WORKER_TIMEOUT,
};
use crate::message::{
    Card, Failure, Limits, News, Received, Status, Task, ToSink, ToVentilator, ToWorker,
};
use crate::{Attempt, CallId, JobId, LaneId, Seq, SeqRanges, SessionId, Time};

use self::entry::{Entry, State};
use self::sink_link::SinkLink;
use self::worker::{Phase, Worker};

pub use self::snapshot::{DispatcherSnapshot, WorkerSnapshot};

/// What a job asks for.
#[derive(Clone, Debug)]
pub struct DispatcherConfig {
    /// The job's id.
    pub job: JobId,
    /// Its name, for people.
    pub name: String,
    /// How often a failed task is tried again.
    pub retries: u32,
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
    /// Decides the jitter of backoffs.
    pub seed: u64,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Down a worker's lane.
    Worker(LaneId, ToWorker),
    /// To the sink.
    Sink(ToSink),
}

/// How the job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every task that was taken in has its record.
    Complete,
    /// The sink would not have the job.
    Refused(String),
}

/// The ventilator's state machine.
#[derive(Debug)]
pub struct Dispatcher {
    config: DispatcherConfig,
    entries: VecDeque<Entry>,
    /// The seq of the first entry: the lowest that is not settled.
    base: Seq,
    /// The lowest seq that was never dispatched.
    fresh: Seq,
    /// Seqs below `fresh` that wait to be dispatched again.
    requeued: BTreeSet<Seq>,
    /// Failed tasks and when they may be tried again.
    delayed: BTreeSet<(Time, Seq)>,
    /// Records that the sink is to write itself, until it has.
    given_up: BTreeMap<Seq, GivenUp>,
    retained_bytes: u64,
    settled: u64,
    total: Option<u64>,
    workers: BTreeMap<SessionId, Worker>,
    sessions: BTreeMap<LaneId, SessionId>,
    sink: SinkLink,
    transmits: VecDeque<Transmit>,
    closes: VecDeque<LaneId>,
    /// Sessions that have settled seqs to be told.
    to_settle: Vec<SessionId>,
    next_call: CallId,
    next_beat: Time,
    stopped: Option<Stopped>,
    ended: Option<Ended>,
    rng: Rng,
}

#[derive(Clone, Debug)]
struct GivenUp {
    attempt: Attempt,
    status: Status,
    error: String,
}

/// Why no more input is taken, if not for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    Draining,
    Cancelled,
}

impl Dispatcher {
    /// A job that has seen nothing yet.
    #[must_use]
    pub fn new(config: DispatcherConfig) -> Self {
        Self {
            rng: Rng(config.seed),
            config,
            entries: VecDeque::new(),
            base: Seq(0),
            fresh: Seq(0),
            requeued: BTreeSet::new(),
            delayed: BTreeSet::new(),
            given_up: BTreeMap::new(),
            retained_bytes: 0,
            settled: 0,
            total: None,
            workers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            sink: SinkLink::default(),
            transmits: VecDeque::new(),
            closes: VecDeque::new(),
            to_settle: Vec::new(),
            next_call: CallId(0),
            next_beat: Time(0),
            stopped: None,
            ended: None,
        }
    }

    /// How many tasks may come in now.
    #[must_use]
    pub fn input_room(&self) -> u64 {
        let full = self.retained_bytes >= RETAINED_BYTES_MAX && !self.entries.is_empty();
        if full || self.total.is_some() {
            return 0;
        }
        let ahead = self.end().0 - self.fresh.0;
        let window = self.end().0 - self.base.0;
        let room = READ_AHEAD_TASKS_MAX.saturating_sub(ahead);
        room.min((REORDER_WINDOW_TASKS + READ_AHEAD_TASKS_MAX).saturating_sub(window))
    }

    /// A task was read. More than there is [room](Self::input_room) for is allowed and costs
    /// memory; what comes after the end of input is dropped.
    pub fn handle_task(&mut self, payload: Bytes) {
        if self.total.is_some() {
            return;
        }
        self.retained_bytes += payload.len() as u64;
        self.entries.push_back(Entry::new(payload));
    }

    /// A task was read that cannot be sent anywhere: it gets a failed record.
    pub fn handle_unfit_task(&mut self, error: String) {
        if self.total.is_some() {
            return;
        }
        let seq = self.end();
        self.entries.push_back(Entry::new(Bytes::new()));
        self.give_up(seq, Status::Failed, error);
    }

    /// There is no more input.
    pub fn handle_input_end(&mut self) {
        self.close_at(self.end());
    }

    /// Take no more input, finish what is out.
    pub fn handle_drain(&mut self) {
        if self.stopped.is_none() {
            self.stopped = Some(Stopped::Draining);
        }
        if self.total.is_none_or(|total| total > self.fresh.0) {
            // What was read and never dispatched was not begun: the job ends before it.
            self.given_up.split_off(&self.fresh);
            for entry in self.entries.drain((self.fresh.0 - self.base.0) as usize..) {
                self.retained_bytes -= entry.payload.len() as u64;
            }
            self.close_at(self.fresh);
        }
    }

    /// Stop: whatever has no result yet gets a cancelled record.
    pub fn handle_cancel(&mut self) {
        self.handle_drain();
        self.stopped = Some(Stopped::Cancelled);
        let job = self.config.job;
        for worker in self.workers.values() {
            self.transmits.push_back(Transmit::Worker(worker.lane, ToWorker::Cancel { job }));
        }
        self.requeued.clear();
        self.delayed.clear();
        for seq in (self.base.0..self.end().0).map(Seq) {
            let entry = &self.entries[(seq.0 - self.base.0) as usize];
            if matches!(entry.state, State::Queued | State::Out(_)) {
                self.give_up(seq, Status::Cancelled, "the job was cancelled".to_owned());
            }
        }
    }

    /// Was the job stopped before its input ended?
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// A worker connected.
    pub fn handle_lane_opened(&mut self, now: Time, lane: LaneId, card: &Card) {
        if let Some(worker) = self.workers.get_mut(&card.session) {
            // The same session on a new lane: the old one is dead, whether or not we saw it end.
            // What it holds, it will say.
            let old = std::mem::replace(&mut worker.lane, lane);
            worker.phase = Phase::Called;
            worker.call = None;
            worker.heard = now;
            worker.window.handle_reset();
            worker.told_below = Seq(0);
            self.sessions.remove(&old);
            self.closes.push_back(old);
        } else {
            self.workers.insert(card.session, Worker::new(now, lane, card));
        }
        self.sessions.insert(lane, card.session);
        if self.ended.is_some() {
            let done = ToWorker::Done { job: self.config.job };
            self.transmits.push_back(Transmit::Worker(lane, done));
        } else if self.sink.is_open() {
            self.roll_call(card.session);
        }
    }

    /// A worker's lane ended: its session is lost.
    pub fn handle_lane_gone(&mut self, lane: LaneId) {
        if let Some(session) = self.sessions.remove(&lane) {
            self.lose(session, true);
        }
    }

    /// Our connection to the sink stands.
    pub fn handle_sink_connected(&mut self) {
        self.sink.reset_outgoing(true);
        let job = self.config.job;
        self.transmits.retain(|transmit| !matches!(transmit, Transmit::Sink(_)));
        self.open_job();
        if let Some(total) = self.total {
            self.send_sink(ToSink::JobClose { job, total });
        }
        for (seq, given_up) in self.given_up.clone() {
            if seq < self.fresh {
                self.send_give_up(seq, &given_up);
            }
        }
        if self.ended.is_some() {
            self.send_sink(ToSink::JobDone { job });
        }
    }

    /// Our connection to the sink is gone.
    pub fn handle_sink_disconnected(&mut self) {
        self.sink.reset_outgoing(false);
    }

    /// The sink's connection to us stands.
    pub fn handle_receipts_connected(&mut self, now: Time) {
        self.sink.reset_incoming(now, true);
    }

    /// The sink's connection to us is gone.
    pub fn handle_receipts_disconnected(&mut self, now: Time) {
        self.sink.reset_incoming(now, false);
    }

    /// The sink said something.
    pub fn handle_message(&mut self, now: Time, message: ToVentilator) {
        self.hear_sink(now);
        match message {
            ToVentilator::SinkHello { job, sink, stored, report_command } => {
                if job == self.config.job {
                    self.handle_sink_hello(now, sink, &stored, report_command);
                }
            }
            ToVentilator::Receipt { job, received, stored, retry, held_bytes, failed } => {
                if job != self.config.job {
                    return;
                }
                self.sink.held_bytes = held_bytes;
                self.sink.failed = failed;
                for received in received.0 {
                    self.handle_received(now, &received);
                }
                self.handle_stored(&stored);
                for failure in retry.0 {
                    self.handle_failure(now, &failure);
                }
            }
            ToVentilator::Relay { session, news } => self.handle_news(now, session, news),
            ToVentilator::Complete { job } => {
                // Not before the end of the input: a sink that is wrong about the job must not
                // make tasks vanish.
                if job == self.config.job && self.total == Some(self.base.0) {
                    self.finish(Ended::Complete);
                }
            }
            ToVentilator::Refused { job, reason } => {
                if job == self.config.job {
                    self.finish(Ended::Refused(reason));
                }
            }
            ToVentilator::Ping => {}
        }
    }

    /// It is as late as [`poll_timeout`](Self::poll_timeout) said.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((due, seq)) = self.delayed.first().copied()
            && due <= now
        {
            self.delayed.pop_first();
            self.requeue(seq);
        }
        if now >= self.next_beat {
            self.next_beat = now + HEARTBEAT_INTERVAL;
            self.beat(now);
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        self.pass_over();
        if let Some(transmit) = self.transmits.pop_front() {
            return Some(transmit);
        }
        while let Some(session) = self.to_settle.pop() {
            let Some(worker) = self.workers.get_mut(&session) else { continue };
            if worker.settled.is_empty() && worker.told_below >= self.base {
                continue;
            }
            return Some(settled(self.config.job, self.base, worker));
        }
        self.dispatch(now)
    }

    /// The next lane to close.
    pub fn poll_close(&mut self) -> Option<LaneId> {
        self.closes.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.delayed.first().map_or(self.next_beat, |(due, _)| self.next_beat.min(*due))
    }

    /// How the job ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// How things stand.
    #[must_use]
    pub fn snapshot(&self) -> DispatcherSnapshot {
        DispatcherSnapshot {
            read: self.end().0,
            total: self.total,
            settled: self.settled,
            failed: self.sink.failed,
            is_sink_open: self.sink.is_open(),
            held_bytes: self.sink.held_bytes,
            workers: self.workers.iter().map(|(session, w)| w.snapshot(*session)).collect(),
        }
    }

    /// The seq that the next task will have.
    fn end(&self) -> Seq {
        Seq(self.base.0 + self.entries.len() as u64)
    }

    fn entry(&mut self, seq: Seq) -> Option<&mut Entry> {
        let index = seq.0.checked_sub(self.base.0)?;
        self.entries.get_mut(usize::try_from(index).ok()?)
    }

    fn send_sink(&mut self, message: ToSink) {
        if self.sink.is_connected {
            self.transmits.push_back(Transmit::Sink(message));
        }
    }

    fn open_job(&mut self) {
        let (job, name) = (self.config.job, self.config.name.clone());
        self.send_sink(ToSink::JobOpen { job, name });
    }

    fn send_give_up(&mut self, seq: Seq, given_up: &GivenUp) {
        let GivenUp { attempt, status, error } = given_up.clone();
        self.send_sink(ToSink::GiveUp { job: self.config.job, seq, attempt, status, error });
    }

    fn close_at(&mut self, end: Seq) {
        self.total = Some(end.0);
        self.send_sink(ToSink::JobClose { job: self.config.job, total: end.0 });
    }

    fn end_transmits(&mut self) {
        let job = self.config.job;
        for worker in self.workers.values() {
            self.transmits.push_back(Transmit::Worker(worker.lane, ToWorker::Done { job }));
        }
        self.send_sink(ToSink::JobDone { job });
    }

    fn finish(&mut self, ended: Ended) {
        if self.ended.is_none() {
            self.ended = Some(ended);
            self.end_transmits();
        }
    }

    fn roll_call(&mut self, session: SessionId) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        let (lane, call) = (worker.lane, self.next_call);
        self.next_call = CallId(call.0 + 1);
        worker.phase = Phase::Called;
        worker.call = Some(call);
        let roll_call = ToWorker::RollCall { job: self.config.job, call };
        self.transmits.push_back(Transmit::Worker(lane, roll_call));
        if self.stopped == Some(Stopped::Cancelled) {
            let cancel = ToWorker::Cancel { job: self.config.job };
            self.transmits.push_back(Transmit::Worker(lane, cancel));
        }
    }

    fn give_up(&mut self, seq: Seq, status: Status, error: String) {
        let Some(entry) = self.entry(seq) else { return };
        let attempt = entry.attempt;
        let bytes = entry.payload.len() as u64;
        let old = std::mem::replace(&mut entry.state, State::GivenUp);
        entry.payload = Bytes::new();
        self.retained_bytes -= bytes;
        self.uncharge(old, bytes);
        let given_up = GivenUp { attempt, status, error };
        if seq < self.fresh {
            self.send_give_up(seq, &given_up);
        }
        self.given_up.insert(seq, given_up);
    }

    fn requeue(&mut self, seq: Seq) {
        if let Some(entry) = self.entry(seq)
            && entry.state == State::Queued
        {
            self.requeued.insert(seq);
        }
    }

    /// The worker no longer answers for these bytes.
    fn uncharge(&mut self, state: State, bytes: u64) {
        if let State::Out(session) = state
            && let Some(worker) = self.workers.get_mut(&session)
        {
            worker.out_bytes -= bytes;
        }
    }

    /// Takes back what a worker had. It may have died of a task, unless it said goodbye.
    fn lose(&mut self, session: SessionId, is_blaming: bool) {
        let Some(worker) = self.workers.remove(&session) else { return };
        self.sessions.remove(&worker.lane);
        // Tasks start in the order of their seqs: only the first ones can have been running, and
        // only what ran can have brought the worker down.
        let slots = worker.window.slots() as usize;
        for (place, seq) in worker.out.iter().enumerate() {
            self.take_back(session, seq, is_blaming && place < slots);
        }
    }

    /// Puts a task that was out back into the queue.
    fn take_back(&mut self, session: SessionId, seq: Seq, blamed: bool) {
        let is_cancelled = self.stopped == Some(Stopped::Cancelled);
        let Some(entry) = self.entry(seq) else { return };
        if entry.state != State::Out(session) {
            return;
        }
        entry.state = State::Queued;
        if blamed {
            entry.losses += 1;
            entry.blamed = Some(session);
        }
        let losses = entry.losses;
        let bytes = entry.payload.len() as u64;
        self.uncharge(State::Out(session), bytes);
        if is_cancelled {
            self.give_up(seq, Status::Cancelled, "the job was cancelled".to_owned());
        } else if losses >= LOSSES_MAX {
            self.give_up(seq, Status::Lost, format!("its worker was lost {losses} times"));
        } else {
            self.requeued.insert(seq);
        }
    }

    fn handle_sink_hello(
        &mut self,
        now: Time,
        sink: SessionId,
        stored: &SeqRanges,
        report_command: bool,
    ) {
        let is_new = self.sink.handle_hello(now, sink, report_command);
        self.handle_stored(stored);
        if is_new {
            self.forget_received();
        }
        self.workers.values_mut().for_each(|worker| worker.heard = now);
        let sessions: Vec<SessionId> = self.workers.keys().copied().collect();
        for session in sessions {
            self.roll_call(session);
        }
    }

    /// What only the old sink had in memory must come again: from the worker that retains it, or
    /// from another one if that worker is gone.
    fn forget_received(&mut self) {
        for seq in (self.base.0..self.end().0).map(Seq) {
            let entry = &mut self.entries[(seq.0 - self.base.0) as usize];
            let State::Received(session) = entry.state else { continue };
            if let Some(worker) = self.workers.get_mut(&session) {
                entry.state = State::Out(session);
                worker.out.insert(seq);
                worker.out_bytes += entry.payload.len() as u64;
            } else {
                entry.state = State::Queued;
                if self.stopped == Some(Stopped::Cancelled) {
                    self.give_up(seq, Status::Cancelled, "the job was cancelled".to_owned());
                } else {
                    self.requeued.insert(seq);
                }
            }
        }
    }

    fn handle_received(&mut self, now: Time, received: &Received) {
        let Some(worker) = self.workers.get_mut(&received.session) else {
            // Lost meanwhile; its result made it all the same.
            self.mark_received(received);
            return;
        };
        worker.heard = now;
        let before = worker.out.count();
        for range in received.ranges.as_slice() {
            // What was never dispatched is nobody's: a peer cannot make this loop long.
            let range = range.clamped(Seq(0), self.fresh);
            worker.out.remove_range(range);
        }
        let count = before - worker.out.count();
        let ran_max = Duration::from_micros(received.ran_us_max);
        worker.window.handle_received(now, &received.ranges, count, ran_max);
        worker.window.handle_result_bytes(count, received.bytes);
        worker.done += count;
        self.mark_received(received);
    }

    fn mark_received(&mut self, received: &Received) {
        for range in received.ranges.as_slice() {
            for seq in range.clamped(self.base, self.fresh).seqs() {
                let entry = &mut self.entries[(seq.0 - self.base.0) as usize];
                let old = entry.state;
                if matches!(old, State::Out(_) | State::Queued) {
                    entry.state = State::Received(received.session);
                    let bytes = entry.payload.len() as u64;
                    self.uncharge(old, bytes);
                    if old == State::Queued {
                        self.requeued.remove(&seq);
                    }
                }
            }
        }
    }

    fn handle_stored(&mut self, stored: &SeqRanges) {
        for range in stored.as_slice() {
            for seq in range.clamped(self.base, self.end()).seqs() {
                self.settle(seq);
            }
        }
        while self.entries.front().is_some_and(|entry| entry.state == State::Settled) {
            self.entries.pop_front();
            self.base = self.base.next();
        }
        // A resumed job may find its very first tasks stored before they were ever dispatched.
        self.fresh = self.fresh.max(self.base);
    }

    fn settle(&mut self, seq: Seq) {
        let Some(entry) = self.entry(seq) else { return };
        let old = std::mem::replace(&mut entry.state, State::Settled);
        let bytes = entry.payload.len() as u64;
        entry.payload = Bytes::new();
        match old {
            State::Settled => return,
            State::Queued => {
                self.requeued.remove(&seq);
            }
            State::GivenUp => {
                self.given_up.remove(&seq);
            }
            State::Out(session) | State::Received(session) => {
                self.uncharge(old, bytes);
                self.tell_settled(session, seq);
            }
        }
        self.retained_bytes -= bytes;
        self.settled += 1;
    }

    fn tell_settled(&mut self, session: SessionId, seq: Seq) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        if worker.settled.is_empty() {
            self.to_settle.push(session);
        }
        worker.settled.push(seq);
    }

    fn handle_failure(&mut self, now: Time, failure: &Failure) {
        let Failure { session, seq, attempt, ran_us } = *failure;
        let is_requeued = self.requeued.contains(&seq);
        let is_news = self.entry(seq).is_some_and(|entry| match entry.state {
            State::Out(holder) => holder == session && attempt >= entry.since,
            State::Queued => is_requeued && attempt > entry.failed,
            State::Received(_) | State::GivenUp | State::Settled => false,
        });
        if !is_news && self.state(seq) == Some(State::Out(session)) {
            // It came again, and the worker has had the task again since then.
            return;
        }
        if let Some(worker) = self.workers.get_mut(&session)
            && worker.out.remove(seq)
        {
            worker.heard = now;
            worker.done += 1;
            let one = [seq].into_iter().collect();
            worker.window.handle_received(now, &one, 1, Duration::from_micros(ran_us));
        }
        // Whatever becomes of the task, this result is of no more use.
        self.tell_settled(session, seq);

        if !is_news {
            return;
        }
        let backoff = self.backoff(attempt);
        let Some(entry) = self.entry(seq) else { return };
        let old = std::mem::replace(&mut entry.state, State::Queued);
        if attempt > entry.failed {
            entry.failed = attempt;
            entry.failures += 1;
        }
        let bytes = entry.payload.len() as u64;
        self.uncharge(old, bytes);
        self.requeued.remove(&seq);
        self.delayed.insert((now + backoff, seq));
    }

    /// Exponential, with the upper half of it left to chance.
    fn backoff(&mut self, attempt: Attempt) -> Duration {
        let doublings = attempt.0.saturating_sub(1).min(16);
        let full = (RETRY_BACKOFF_MIN * (1 << doublings)).min(RETRY_BACKOFF_MAX);
        full.mul_f64(0.5 + 0.5 * self.rng.unit())
    }

    fn handle_news(&mut self, now: Time, session: SessionId, news: News) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        worker.heard = now;
        match news {
            News::Heartbeat { running, queued } => {
                worker.running = running;
                worker.queued = queued;
                // A worker may retain what another's record has settled: let it forget.
                if worker.told_below < self.base && worker.settled.is_empty() {
                    self.to_settle.push(session);
                }
            }
            News::Holding { job, call, unfinished, finished } => {
                if job == self.config.job && worker.call.take_if(|due| *due == call).is_some() {
                    self.handle_holding(session, &unfinished, &finished);
                }
            }
            News::Returned { job, ranges } => {
                if job == self.config.job {
                    self.handle_returned(session, &ranges);
                }
            }
            News::Reconnected => self.roll_call(session),
            News::Draining => worker.phase = Phase::Draining,
            News::Goodbye => {
                let lane = worker.lane;
                self.lose(session, false);
                self.closes.push_back(lane);
            }
        }
    }

    /// A roll call's answer: the worker's account replaces ours.
    fn handle_holding(&mut self, session: SessionId, unfinished: &SeqRanges, finished: &SeqRanges) {
        let mut held = crate::SeqSet::new();
        for range in unfinished.as_slice().iter().chain(finished.as_slice()) {
            held.insert_range(range.clamped(self.base, self.fresh));
        }
        let Some(worker) = self.workers.get_mut(&session) else { return };
        worker.window.handle_reset();
        let out = std::mem::replace(&mut worker.out, held.clone());
        if worker.phase == Phase::Called {
            worker.phase = Phase::Ready;
        }
        for seq in out.iter().filter(|seq| !held.contains(*seq)) {
            self.take_back(session, seq, false);
        }
        for seq in held.iter() {
            if !out.contains(seq) {
                self.adopt(session, seq);
            } else if let Some(entry) = self.entry(seq)
                && entry.state == State::Out(session)
            {
                // What it holds may be an earlier attempt than the last that it was sent.
                entry.since = Attempt(0);
            }
        }
        // It may retain what is settled below, and what is settled above was told on a lane that
        // may have died with it.
        let settled: Vec<Seq> =
            held.iter().filter(|seq| self.state(*seq) == Some(State::Settled)).collect();
        for seq in settled {
            self.tell_settled(session, seq);
        }
        if let Some(worker) = self.workers.get_mut(&session)
            && worker.settled.is_empty()
        {
            self.to_settle.push(session);
        }
    }

    fn state(&self, seq: Seq) -> Option<State> {
        let index = seq.0.checked_sub(self.base.0)?;
        Some(self.entries.get(usize::try_from(index).ok()?)?.state)
    }

    /// A worker that was lost is back and has the task still: no need to run it again.
    fn adopt(&mut self, session: SessionId, seq: Seq) {
        // What failed and waits for its backoff is not adopted: the worker has just not heard that
        // its failure is known.
        if !self.requeued.contains(&seq) {
            return;
        }
        let Some(entry) = self.entry(seq) else { return };
        entry.state = State::Out(session);
        entry.since = Attempt(0);
        if entry.blamed.take_if(|blamed| *blamed == session).is_some() {
            entry.losses -= 1;
        }
        let bytes = entry.payload.len() as u64;
        self.requeued.remove(&seq);
        if let Some(worker) = self.workers.get_mut(&session) {
            worker.out_bytes += bytes;
        }
    }

    fn handle_returned(&mut self, session: SessionId, ranges: &SeqRanges) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        worker.window.handle_reset();
        let returned: Vec<Seq> = ranges
            .as_slice()
            .iter()
            .flat_map(|range| range.clamped(Seq(0), self.fresh).seqs())
            .filter(|seq| worker.out.remove(*seq))
            .collect();
        for seq in returned {
            self.take_back(session, seq, false);
        }
    }

    fn hear_sink(&mut self, now: Time) {
        // Workers are heard through the sink alone: its silence is not theirs.
        if self.sink.is_silent(now) {
            self.workers.values_mut().for_each(|worker| worker.heard = now);
        }
        self.sink.heard = now;
    }

    fn beat(&mut self, now: Time) {
        let pings = self.sessions.keys().map(|lane| Transmit::Worker(*lane, ToWorker::Ping));
        self.transmits.extend(pings);
        if self.sink.is_open() {
            self.send_sink(ToSink::Ping);
        } else {
            // Its hello may have come on a connection that we took for the older of two.
            self.open_job();
        }
        if !self.sink.is_open() || self.sink.is_silent(now) {
            self.workers.values_mut().for_each(|worker| worker.heard = now);
            return;
        }
        let silent: Vec<(SessionId, LaneId)> = self
            .workers
            .iter()
            .filter(|(_, worker)| now.since(worker.heard) > WORKER_TIMEOUT)
            .map(|(session, worker)| (*session, worker.lane))
            .collect();
        for (session, lane) in silent {
            self.lose(session, true);
            self.closes.push_back(lane);
        }
    }

    /// The next batch of tasks for whoever should have one.
    fn dispatch(&mut self, now: Time) -> Option<Transmit> {
        if !self.sink.is_open() || self.ended.is_some() {
            return None;
        }
        let first = self.next_to_dispatch()?;
        let ready = self.workers.values().filter(|worker| worker.phase == Phase::Ready).count();
        let (session, worker) = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.is_hungry())
            .min_by(|(_, a), (_, b)| a.load().total_cmp(&b.load()))?;
        let (session, lane) = (*session, worker.lane);

        // When there is little left it is spread, so that nobody waits for one loaded queue.
        let waiting = self.requeued.len() as u64 + self.fresh_room();
        let share = waiting.div_ceil(ready as u64).max(worker.idle_slots());
        let count = worker.free().min(share).min(BATCH_TASKS_MAX as u64);
        let room = worker.free_bytes();
        let (was_idle, mut bytes) = (worker.out.is_empty(), 0);
        let mut tasks = Vec::with_capacity(count as usize);
        let mut next = Some(first);
        while let Some(seq) = next
            && (tasks.len() as u64) < count
        {
            let index = (seq.0 - self.base.0) as usize;
            let size = self.entries[index].payload.len() as u64;
            let fits = bytes + size <= room.min(BATCH_BYTES_MAX as u64);
            // A task that is larger than any bound travels alone, to a worker that holds nothing
            // else or that has room for it.
            let alone = tasks.is_empty() && (was_idle || size <= room);
            if !fits && !alone {
                break;
            }
            bytes += size;
            tasks.push(self.take_for(session, seq));
            next = self.next_to_dispatch();
        }
        let last = tasks.last()?.seq;
        let worker = self.workers.get_mut(&session)?;
        worker.out_bytes += bytes;
        for task in &tasks {
            worker.out.insert(task.seq);
        }
        worker.window.handle_dispatched(now, last);
        let limits = Limits {
            timeout_us: self
                .config
                .timeout
                .map(|d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
            report_command: self.sink.report_command,
        };
        let tasks = ToWorker::Tasks { job: self.config.job, limits, tasks: tasks.into() };
        Some(Transmit::Worker(lane, tasks))
    }

    /// Fresh tasks that may go out.
    fn fresh_room(&self) -> u64 {
        let end = self.end().0.min(self.base.0 + REORDER_WINDOW_TASKS);
        end.saturating_sub(self.fresh.0)
    }

    /// Passes over fresh tasks that nobody has to run: those that cannot be, which are given up
    /// when their turn has come, and those that the sink has from before.
    fn pass_over(&mut self) {
        while let Some(state) = self.state(self.fresh)
            && state != State::Queued
        {
            if let Some(given_up) = self.given_up.get(&self.fresh).cloned() {
                self.send_give_up(self.fresh, &given_up);
            }
            self.fresh = self.fresh.next();
        }
    }

    /// The task to go out next: the lowest seq first, so that the order is held up least.
    fn next_to_dispatch(&mut self) -> Option<Seq> {
        self.pass_over();
        let fresh = (self.fresh_room() > 0).then_some(self.fresh);
        let seq = self.requeued.first().copied().or(fresh)?;
        // While the sink holds too much, only what it waits for may go: that is what lets it
        // write and forget.
        (self.sink.held_bytes < HELD_BYTES_MAX || seq == self.base).then_some(seq)
    }

    fn take_for(&mut self, session: SessionId, seq: Seq) -> Task {
        if seq == self.fresh {
            self.fresh = seq.next();
        } else {
            self.requeued.remove(&seq);
        }
        let retries = self.config.retries;
        let entry = &mut self.entries[(seq.0 - self.base.0) as usize];
        debug_assert_eq!(entry.state, State::Queued, "only what is queued is dispatched");
        entry.state = State::Out(session);
        entry.attempt = entry.attempt.next();
        entry.since = entry.attempt;
        Task {
            seq,
            attempt: entry.attempt,
            last: entry.failures >= retries,
            payload: entry.payload.clone(),
        }
    }
}

fn settled(job: JobId, base: Seq, worker: &mut Worker) -> Transmit {
    worker.told_below = base;
    let mut ranges = SeqRanges::new();
    for range in worker.settled.take().as_slice() {
        if range.end > base {
            ranges.push_range(range.clamped(base, range.end));
        }
    }
    Transmit::Worker(worker.lane, ToWorker::Settled { job, below: base, ranges })
}

/// A small generator of our own to keep entropy out of the machine: SplitMix64, by Steele, Lea and
/// Flood (2014).
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    /// From 0 up to, but without, 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}
