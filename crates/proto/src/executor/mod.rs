//! The worker's decisions: when each task runs, which results are kept, which messages are sent.
//!
//! Tasks start in the order of their seqs. A result is retained until it is settled, and pushed
//! again whenever the sink may have missed it: on each new connection to the sink and at each roll
//! call.
//!
//! A slot has one task at a time, unless tasks are [prefetched](Executor::with_prefetch) for a
//! process that stays up: then more of them lie in the slot, behind the task that runs. Prefetched
//! tasks have not started, but cannot be taken back; each of them runs and ends in that slot.

mod invariants;
mod queue;
mod shortage;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::batch::Bounded;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_TASKS_MAX, HEARTBEAT_INTERVAL, MESSAGE_OVERHEAD_BYTES, SLOTS_MAX,
    UNSETTLED_TASKS_MAX,
};
use crate::message::{
    Layout, Limits, News, Outcome, Report, Reported, Status, Task, TaskResult, ToSink, ToWorker,
};
use crate::seq_ring::SeqRing;
use crate::{
    Attempt, CallId, JobId, Seq, SeqList, SeqRange, SeqRanges, SessionId, Slot, Tag, TaskHash, Time,
};

use self::queue::Queue;
pub use self::shortage::PutBack;
use self::shortage::Shortage;

/// Number of results that are retained before the worker takes no more tasks: twice as many as there
/// are unsettled tasks, of some of which the worker may not have heard that they are settled.
const RETAINED_MAX: u64 = 2 * UNSETTLED_TASKS_MAX;

/// The worker's state machine.
#[derive(Debug)]
pub struct Executor {
    session: SessionId,
    slots: Vec<Option<Running>>,
    free_slots: Vec<Slot>,
    /// Tasks are prefetched.
    is_prefetching: bool,
    /// Prefetched tasks by slot.
    feeds: Vec<Feed>,
    /// Slot that is looked at first when a task is to be prefetched.
    next_prefetch: usize,
    /// Number of prefetched tasks that still lie behind another one.
    prefetched: usize,
    /// No task from this seq on has begun.
    begun_end: Seq,
    job: Option<Job>,
    /// Layout that the ventilator has sent last.
    layout: Layout,
    /// Tasks that wait for a slot.
    queue: Queue,
    /// Results that are not settled.
    retained: SeqRing<TaskResult>,
    /// Results that are retained and have yet to be sent to the sink, in the order in which their
    /// tasks ended.
    unsent: VecDeque<Seq>,
    news: VecDeque<News>,
    stops: VecDeque<Stop>,
    is_sink_connected: bool,
    /// Bytes of the largest message that the sink takes, and that this worker takes.
    message_bytes_max: [u64; 2],
    next_beat: Time,
    shortage: Shortage,
    draining: bool,
    /// Reason for leaving, unless the worker was asked to leave.
    leave_reason: String,
    /// Time at which a drain stops the tasks that still run.
    grace_ends: Option<Time>,
    said_goodbye: bool,
    jobs_done: u64,
    tasks_done: u64,
}

#[derive(Debug)]
struct Job {
    id: JobId,
    /// Every seq below this is settled.
    below: Seq,
    cancelled: bool,
}

#[derive(Debug)]
struct Queued {
    task: Task,
    limits: Limits,
}

#[derive(Debug)]
struct Running {
    job: JobId,
    seq: Seq,
    attempt: Attempt,
    /// Attempt that the result is for: later than the running attempt if the ventilator gave the
    /// task up for lost meanwhile and sent it again.
    answers: Attempt,
    last: bool,
    tag: Tag,
    task_bytes: u64,
    task_hash: TaskHash,
    /// Time from which the timeout counts; a prefetched task reports it later.
    started: Option<Time>,
    limits: Limits,
    stopped: Option<StopReason>,
}

/// Tasks that lie in a slot behind the task that runs there.
#[derive(Debug, Default)]
struct Feed {
    /// Number of tasks that the slot may have, the running one included.
    depth: u32,
    /// First attempts only, ascending by seq, also after the one that runs: a task that begins
    /// later has the higher seq. Empty if no task runs.
    behind: VecDeque<Running>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopReason {
    TimedOut,
    /// The result is not needed any more.
    Unwanted,
}

/// Task to run in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Slot, free until now unless its tasks are prefetched.
    pub slot: Slot,
    /// The task.
    pub task: Task,
    /// Data that the result should carry.
    pub report: Report,
}

/// Task to stop, if it still runs in this slot or lies there behind others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The slot.
    pub slot: Slot,
    /// The task.
    pub seq: Seq,
    /// Attempt to stop.
    pub attempt: Attempt,
}

/// Outcome of a [`Start`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Slot, free from now on unless other tasks were prefetched for it.
    pub slot: Slot,
    /// Start of the task, in microseconds since 1970.
    pub started_us: u64,
    /// Run time in microseconds.
    pub ran_us: u64,
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// Data that the start asked for.
    pub reported: Option<Box<Reported>>,
}

/// A worker as its executor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutorSnapshot {
    /// Number of tasks that run.
    pub running: u32,
    /// Number of tasks that wait, for a slot or in one.
    pub queued: u32,
    /// Number of slots that may be in use now.
    pub slots: u32,
    /// Number of results that are not settled.
    pub retained: u64,
    /// Number of tasks that ended here.
    pub tasks_done: u64,
    /// Number of jobs that ended while this worker was part of them.
    pub jobs_done: u64,
}

impl Executor {
    /// Creates a worker with a number of slots, at most [`SLOTS_MAX`].
    #[must_use]
    pub fn new(session: SessionId, slots: u32) -> Self {
        let slots = slots.clamp(1, SLOTS_MAX);
        Self {
            session,
            slots: (0..slots).map(|_| None).collect(),
            free_slots: (0..slots).rev().map(Slot).collect(),
            is_prefetching: false,
            feeds: Vec::new(),
            next_prefetch: 0,
            prefetched: 0,
            begun_end: Seq(0),
            job: None,
            layout: Layout::Unsaid,
            queue: Queue::default(),
            retained: SeqRing::new(),
            unsent: VecDeque::new(),
            news: VecDeque::new(),
            stops: VecDeque::new(),
            is_sink_connected: false,
            message_bytes_max: [u64::MAX; 2],
            next_beat: Time(0),
            shortage: Shortage::new(slots),
            draining: false,
            leave_reason: String::new(),
            grace_ends: None,
            said_goodbye: false,
            jobs_done: 0,
            tasks_done: 0,
        }
    }

    /// Prefetches tasks: slots take more of them before they have finished the one that runs, up to
    /// their [depth](Self::handle_depth), and [report](Self::handle_under_way) when a task has
    /// begun.
    ///
    /// A task that was dispatched to another worker before is never prefetched, and no task is
    /// prefetched behind it: it may be what kills workers, and the task to blame for that must be
    /// known.
    #[must_use]
    pub fn with_prefetch(mut self) -> Self {
        self.is_prefetching = true;
        self.feeds.resize_with(self.slots.len(), Feed::default);
        self
    }

    /// Returns the layout of the job's tasks, as far as the ventilator has sent it.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Handles a message from the ventilator.
    pub fn handle_message(&mut self, message: ToWorker) {
        match message {
            ToWorker::RollCall { job, call, layout } => {
                self.layout = layout;
                self.handle_roll_call(job, call);
            }
            ToWorker::Tasks { job, limits, tasks } => self.handle_tasks(job, limits, tasks.0),
            ToWorker::Settled { job, below, ranges } => self.handle_settled(job, below, &ranges),
            ToWorker::Recall { job, call, keep } => {
                if self.is_job(job) {
                    let ranges = self.queue.take_rest(keep);
                    self.send_news(News::Recalled { job, call, ranges });
                }
            }
            ToWorker::Cancel { job } => {
                if let Some(current) = self.job.as_mut().filter(|current| current.id == job) {
                    current.cancelled = true;
                    self.drop_work();
                }
            }
            ToWorker::Drain => self.drain(),
            ToWorker::Ping => {}
            ToWorker::Limits { job, limits } => self.handle_limits(job, limits),
            ToWorker::Done { job } => {
                // A worker that comes late may hear of the end before it hears of the job.
                if self.job.as_ref().is_none_or(|current| current.id == job) {
                    self.job = None;
                    self.drop_work();
                    self.jobs_done += 1;
                }
            }
        }
    }

    /// Notes that the connection to the sink stands, for the first time or again: messages sent on
    /// the one before may be lost.
    pub fn handle_sink_connected(&mut self) {
        self.is_sink_connected = true;
        if self.job.is_some() {
            self.send_news(News::Reconnected);
        }
        self.push_again();
    }

    /// Sets the bytes of the largest message that the sink and this worker take. A result that is
    /// larger than the sink takes is never sent, and its task has failed. Call it before the
    /// connection stands.
    pub fn handle_sink_limit(&mut self, sink_bytes_max: u64, own_bytes_max: u64) {
        // No honest sink takes less; one that says so must not leave room for nothing at all.
        let sink_bytes_max = sink_bytes_max.max(2 * MESSAGE_OVERHEAD_BYTES);
        self.message_bytes_max = [sink_bytes_max, own_bytes_max];
    }

    /// Notes that the connection to the sink is gone.
    pub fn handle_sink_disconnected(&mut self) {
        self.is_sink_connected = false;
        self.news.clear();
    }

    /// Notes that a free slot has begun a task on its own: the one with this seq of those that
    /// [wait](Self::waiting).
    pub fn handle_begun(&mut self, began: Time, slot: Slot, seq: Seq) {
        let is_queued = self.queue.has_any(SeqRange::one(seq));
        // The slot is the one that was freed last.
        let free = self.free_slots.iter().rposition(|free| *free == slot);
        let (true, Some(free), Some(job)) = (is_queued, free, &self.job) else {
            debug_assert!(false, "{seq:?} was not waiting, or {slot:?} was not free");
            return;
        };
        let job = job.id;
        self.free_slots.swap_remove(free);
        if let Some(queued) = self.queue.remove(seq) {
            self.begin(job, slot, &queued, began);
        }
    }

    /// Sets the number of tasks that a slot takes at once while they are prefetched for it.
    pub fn handle_depth(&mut self, slot: Slot, depth: u32) {
        if let Some(feed) = self.feeds.get_mut(slot.0 as usize) {
            feed.depth = depth;
        }
    }

    /// Notes that the first of a slot's prefetched tasks has begun. Its timeout counts from
    /// `since`, which may be still to come, and does not count before this call.
    pub fn handle_under_way(&mut self, slot: Slot, seq: Seq, attempt: Attempt, since: Time) {
        let running = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut);
        if let Some(running) = running
            && (running.seq, running.attempt) == (seq, attempt)
        {
            running.started = Some(since);
        }
    }

    /// Handles the end of a task that was started; of prefetched tasks, the first in the slot.
    pub fn handle_finished(&mut self, finished: Finished) {
        let Finished { slot, started_us, ran_us, mut outcome, reported } = finished;
        let Some(running) = self.slots.get_mut(slot.0 as usize).and_then(Option::take) else {
            debug_assert!(false, "{slot:?} was not running");
            return;
        };
        self.vacate(slot);
        // A task that was handed back ends elsewhere.
        self.tasks_done += u64::from(!running.is_unwanted());
        match running.stopped {
            Some(StopReason::Unwanted) => return,
            // The task may have ended well just before it was stopped.
            Some(StopReason::TimedOut) if !outcome.status.is_success() => {
                let limit = running.timeout().unwrap_or_default();
                outcome.status = Status::TimedOut;
                outcome.error = format!("timed out after {limit:?}");
            }
            Some(StopReason::TimedOut) | None => {}
        }
        if !self.is_job(running.job) {
            return;
        }
        let result = TaskResult {
            seq: running.seq,
            attempt: running.answers,
            last: running.last,
            tag: running.tag,
            started_us,
            ran_us,
            task_bytes: running.task_bytes,
            task_hash: running.task_hash,
            outcome,
            reported,
        };
        self.retain(result);
    }

    /// Handles the time that [`poll_timeout`](Self::poll_timeout) named.
    pub fn handle_timeout(&mut self, now: Time) {
        for (slot, running) in self.slots.iter_mut().enumerate() {
            let Some(running) = running else { continue };
            if running.stopped.is_none() && running.deadline().is_some_and(|due| due <= now) {
                running.stopped = Some(StopReason::TimedOut);
                self.stops.push_back(running.stop(slot));
            }
        }
        self.raise_slots(now);
        if self.grace_ends.take_if(|ends| *ends <= now).is_some() {
            self.give_up_running();
        }
        if now >= self.next_beat {
            self.next_beat = now + HEARTBEAT_INTERVAL;
            self.send_heartbeat();
        }
    }

    /// Takes no more tasks, hands back those that have not started, and finishes the rest. A task
    /// that has not finished within the grace is stopped and handed back too.
    pub fn handle_drain(&mut self, now: Time, grace: Duration) {
        self.grace_ends = Some(now + grace);
        self.drain();
    }

    fn drain(&mut self) {
        self.draining = true;
        self.send_news(News::Draining { reason: self.leave_reason.clone() });
        self.return_unstarted();
    }

    /// Returns the next task to start.
    pub fn poll_start(&mut self, now: Time) -> Option<Start> {
        let job = self.job.as_ref()?.id;
        let first = self.queue.front()?;
        let (seq, attempt) = (first.task.seq, first.task.attempt);
        let is_slot_allowed = self.running() < self.slots_now();
        let free = if is_slot_allowed { self.free_slots.pop() } else { None };
        let slot = free.or_else(|| self.slot_to_prefetch(seq, attempt))?;
        let queued = self.queue.pop_front()?;
        self.begin(job, slot, &queued, now);
        let Queued { task, limits } = queued;
        Some(Start { slot, task, report: limits.report })
    }

    /// Returns the tasks that wait for a slot, in the order in which they are to start. A slot that
    /// has ended a task may begin the next of these, if [`handle_begun`](Self::handle_begun) says
    /// so right after the end, before any other event.
    pub fn waiting(&self) -> impl Iterator<Item = (&Task, Limits)> {
        let is_over = self.running() > self.slots_now();
        let waiting = self.queue.iter().take(if is_over { 0 } else { usize::MAX });
        waiting.map(|queued| (&queued.task, queued.limits))
    }

    /// Returns the next task to stop.
    pub fn poll_stop(&mut self) -> Option<Stop> {
        self.stops.pop_front()
    }

    /// Returns the next message for the sink, of those that cannot wait for results.
    pub fn poll_news(&mut self) -> Option<ToSink> {
        if !self.is_sink_connected {
            return None;
        }
        let news = self.news.pop_front()?;
        Some(ToSink::News { session: self.session, news })
    }

    /// Returns the next message for the sink.
    pub fn poll_transmit(&mut self) -> Option<ToSink> {
        if !self.is_sink_connected {
            return None;
        }
        if let Some(news) = self.poll_news() {
            return Some(news);
        }
        let session = self.session;
        if let Some(results) = self.next_results() {
            let job = self.job.as_ref()?.id;
            return Some(ToSink::Results { job, session, results: results.into() });
        }
        if self.draining && self.is_empty() && !self.said_goodbye {
            self.said_goodbye = true;
            return Some(ToSink::News { session, news: News::Goodbye });
        }
        None
    }

    /// Returns the time at which to call [`handle_timeout`](Self::handle_timeout), at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let running = self.slots.iter().flatten();
        let deadlines =
            running.filter(|running| running.stopped.is_none()).filter_map(Running::deadline);
        deadlines
            .chain(self.grace_ends)
            .chain(self.shortage.raise_at())
            .fold(self.next_beat, Time::min)
    }

    /// Returns the id of the job, unless none is known or it has ended.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        self.job.as_ref().map(|job| job.id)
    }

    /// Returns whether the worker is to leave.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Forgets the results that are retained, so that a drain can come to its end, and returns their
    /// number. The ventilator still has their tasks: each one is dispatched again
    /// unless the sink has its result.
    pub fn give_up_results(&mut self) -> u64 {
        let count = self.retained.count() as u64;
        self.retained.clear();
        self.unsent.clear();
        count
    }

    /// Returns whether a drain has come to its end.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.said_goodbye
    }

    /// Returns whether no task runs or waits and no result is retained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running() == 0 && self.queue.is_empty() && self.retained.count() == 0
    }

    /// Returns the state of the worker for display.
    #[must_use]
    pub fn snapshot(&self) -> ExecutorSnapshot {
        ExecutorSnapshot {
            running: self.running(),
            queued: self.queued(),
            slots: self.slots_now(),
            retained: self.retained.count() as u64,
            tasks_done: self.tasks_done,
            jobs_done: self.jobs_done,
        }
    }

    fn begin(&mut self, job: JobId, slot: Slot, queued: &Queued, began: Time) {
        let Queued { task, limits } = queued;
        let running = Running {
            job,
            seq: task.seq,
            attempt: task.attempt,
            answers: task.attempt,
            last: task.last,
            tag: task.tag,
            task_bytes: task.payload.len() as u64,
            task_hash: task.hash,
            started: (!self.is_prefetching).then_some(began),
            limits: *limits,
            stopped: None,
        };
        self.begun_end = self.begun_end.max(task.seq.next());
        match &mut self.slots[slot.0 as usize] {
            Some(_) => {
                self.feeds[slot.0 as usize].behind.push_back(running);
                self.prefetched += 1;
            }
            place => *place = Some(running),
        }
    }

    /// Returns the busy slot for which this task may be prefetched. Slots take turns, so that the
    /// tasks in front have the lowest seqs: those are blamed should the worker die.
    fn slot_to_prefetch(&mut self, seq: Seq, attempt: Attempt) -> Option<Slot> {
        if !self.is_prefetching || attempt != Attempt::FIRST {
            return None;
        }
        let count = self.slots.len();
        let mut places = (0..count).map(|offset| (self.next_prefetch + offset) % count);
        let place = places.find(|place| {
            let Some(running) = &self.slots[*place] else { return false };
            let Feed { depth, behind } = &self.feeds[*place];
            let last = behind.back().unwrap_or(running);
            running.attempt == Attempt::FIRST
                && behind.len() + 1 < *depth as usize
                && last.seq < seq
        })?;
        self.next_prefetch = place + 1;
        Some(Slot(place as u32))
    }

    /// Gives a slot to the task that lies behind the one that has ended, or frees the slot.
    fn vacate(&mut self, slot: Slot) {
        if let Some(next) = self.take_prefetched(slot) {
            self.slots[slot.0 as usize] = Some(next);
        } else {
            self.free_slots.push(slot);
        }
    }

    fn take_prefetched(&mut self, slot: Slot) -> Option<Running> {
        let next = self.feeds.get_mut(slot.0 as usize)?.behind.pop_front()?;
        self.prefetched -= 1;
        Some(next)
    }

    fn running(&self) -> u32 {
        (self.slots.len() - self.free_slots.len()) as u32
    }

    fn queued(&self) -> u32 {
        (self.queue.len() + self.prefetched) as u32
    }

    /// Returns the tasks in slots, running or prefetched.
    fn in_slots(&self) -> impl Iterator<Item = &Running> {
        let behind = self.feeds.iter().flat_map(|feed| &feed.behind);
        self.slots.iter().flatten().chain(behind)
    }

    /// Returns the tasks in slots, running or prefetched, with their slots.
    fn in_slots_mut(&mut self) -> impl Iterator<Item = (usize, &mut Running)> {
        let running = self.slots.iter_mut().enumerate();
        let running = running.filter_map(|(slot, running)| Some((slot, running.as_mut()?)));
        let behind = self.feeds.iter_mut().enumerate();
        running.chain(
            behind.flat_map(|(slot, feed)| {
                feed.behind.iter_mut().map(move |running| (slot, running))
            }),
        )
    }

    fn is_job(&self, job: JobId) -> bool {
        self.job.as_ref().is_some_and(|current| current.id == job)
    }

    fn send_news(&mut self, news: News) {
        // Without a connection the message would be lost; the next roll call asks for everything
        // that still matters then.
        if self.is_sink_connected {
            self.news.push_back(news);
        }
    }

    fn handle_roll_call(&mut self, job: JobId, call: CallId) {
        if !self.is_job(job) {
            self.job = Some(Job { id: job, below: Seq(0), cancelled: false });
            self.drop_work();
        }
        if let Some(current) = &mut self.job {
            // Another ventilator may resume a job that the one before has cancelled; a cancel that
            // still holds is sent again.
            current.cancelled = false;
        }
        let wanted = self.in_slots().filter(|running| !running.is_unwanted());
        let mut unfinished: Vec<(Seq, (TaskHash, Tag))> =
            wanted.map(|running| (running.seq, (running.task_hash, running.tag))).collect();
        let queued = self.queue.iter().map(|queued| &queued.task);
        unfinished.extend(queued.map(|task| (task.seq, (task.hash, task.tag))));
        let finished = self.retained.iter();
        let finished = finished.map(|(seq, result)| (seq, (result.task_hash, result.tag)));
        let finished: Vec<(Seq, (TaskHash, Tag))> = finished.collect();
        let mut all: BTreeMap<Seq, (TaskHash, Tag)> = finished.iter().copied().collect();
        all.extend(unfinished.iter().copied());
        let (hashes, tags) = all.into_values().unzip();
        // Only the answer to the latest call counts.
        self.news.retain(|news| !matches!(news, News::Holding { .. }));
        self.send_news(News::Holding {
            job,
            call,
            unfinished: unfinished.into_iter().map(|(seq, _)| seq).collect(),
            finished: finished.into_iter().map(|(seq, _)| seq).collect(),
            hashes: Bounded(hashes),
            tags: Bounded(tags),
        });
        if self.draining {
            self.send_news(News::Draining { reason: self.leave_reason.clone() });
            self.return_unstarted();
        }
        self.push_again();
    }

    fn handle_tasks(&mut self, job: JobId, limits: Limits, tasks: Vec<Task>) {
        let Some(current) = self.job.as_ref().filter(|current| current.id == job) else { return };
        if current.cancelled {
            return;
        }
        let below = current.below;
        // No honest ventilator gives more, however long the results wait to be settled.
        let is_overfull = self.retained.count() as u64 >= RETAINED_MAX;
        let mut refused = SeqList::new();
        for task in tasks {
            // A task that came twice is run once. If it has its result already, that one is on its
            // way; if it runs or waits, it will have one.
            if self.draining {
                refused.push(task.seq);
            } else if task.seq >= below
                && !has_result(&mut self.retained, &mut self.unsent, &task)
                && !self.is_run(&task)
            {
                let begun = self.slots.len() - self.free_slots.len() + self.prefetched;
                if is_overfull || self.queue.is_full(begun, &task) {
                    refused.push(task.seq);
                    continue;
                }
                // The failure that this attempt makes up for is not needed any more.
                self.retained.remove(task.seq);
                self.queue.insert(Queued { task, limits });
            }
        }
        if !refused.is_empty() {
            self.send_news(News::Returned { job, ranges: refused.take() });
        }
    }

    /// Returns whether the task is in a slot already: its result will count for this attempt too. That is so
    /// if its message came twice or an earlier attempt runs, and for first attempts after another ventilator
    /// or a sink that makes other tags.
    fn is_run(&mut self, task: &Task) -> bool {
        // As nearly always: the slots need not be searched.
        if task.seq >= self.begun_end {
            return false;
        }
        let is_it = |running: &Running| running.seq == task.seq && !running.is_unwanted();
        let Some((slot, running)) = self.in_slots_mut().find(|(_, running)| is_it(running)) else {
            return false;
        };
        if running.task_hash != task.hash {
            // The input has changed: nobody wants the result of what runs.
            let stop = running.stopped.replace(StopReason::Unwanted).is_none();
            let stop = stop.then(|| running.stop(slot));
            self.stops.extend(stop);
            return false;
        }
        running.answers = task.attempt;
        running.last = task.last;
        running.tag = task.tag;
        true
    }

    fn handle_limits(&mut self, job: JobId, limits: Limits) {
        if !self.is_job(job) {
            return;
        }
        self.queue.set_limits(limits);
        for (_, running) in self.in_slots_mut().filter(|(_, running)| running.job == job) {
            running.limits = limits;
        }
    }

    fn handle_settled(&mut self, job: JobId, below: Seq, ranges: &SeqRanges) {
        let Some(current) = self.job.as_mut().filter(|current| current.id == job) else { return };
        current.below = current.below.max(below);
        let is_settled = |seq: Seq| seq < below || ranges.contains(seq);
        let is_retained = |seq: &Seq| self.retained.get(*seq).is_some();
        let unsent = self.unsent.iter().copied().filter(|seq| is_settled(*seq));
        let unheard: SeqRanges = unsent.filter(is_retained).collect();
        for range in ranges.as_slice() {
            self.retained.remove_range(*range);
        }
        self.retained.advance_to(below);
        if !unheard.is_empty() {
            self.send_news(News::Returned { job, ranges: unheard });
        }
        self.drop_settled(below, ranges);
    }

    /// Stops and hands back tasks that another worker's record has settled: the credit they take up
    /// is free, and no result will say so.
    fn drop_settled(&mut self, below: Seq, ranges: &SeqRanges) {
        let Some(job) = self.job.as_ref().map(|job| job.id) else { return };
        let end = below.max(ranges.end());
        let is_settled = |seq: Seq| seq < below || ranges.contains(seq);
        // Settled tasks are hardly ever in the queue: do not walk it in vain.
        if self.queue.has_any(SeqRange { start: Seq(0), end: below })
            || ranges.as_slice().iter().any(|range| self.queue.has_any(*range))
        {
            let ranges = self.queue.take_out(is_settled);
            if !ranges.is_empty() {
                self.send_news(News::Returned { job, ranges });
            }
        }
        // Tasks behind others have the higher seqs.
        let mut returned = SeqList::new();
        let running = self.slots.iter_mut().enumerate();
        let running = running.filter_map(|(slot, running)| Some((slot, running.as_mut()?)));
        let behind = self.feeds.iter_mut().enumerate().flat_map(|(slot, feed)| {
            let reached = feed.behind.iter_mut().take_while(|running| running.seq < end);
            reached.map(move |running| (slot, running))
        });
        for (slot, running) in running.chain(behind) {
            if running.is_unwanted() || running.job != job || !is_settled(running.seq) {
                continue;
            }
            // A task that has timed out is being stopped, but its end will not be reported.
            if running.stopped.replace(StopReason::Unwanted).is_none() {
                self.stops.push_back(running.stop(slot));
            }
            returned.push(running.seq);
        }
        if !returned.is_empty() {
            self.send_news(News::Returned { job, ranges: returned.take() });
        }
    }

    fn retain(&mut self, result: TaskResult) {
        let seq = result.seq;
        if self.job.as_ref().is_some_and(|job| seq >= job.below) {
            self.retained.insert(seq, result);
            self.unsent.push_back(seq);
        }
    }

    /// Sends all retained results (again).
    fn push_again(&mut self) {
        self.unsent = self.retained.iter().map(|(seq, _)| seq).collect();
    }

    fn next_results(&mut self) -> Option<Vec<TaskResult>> {
        let most = self.message_bytes_max[0].saturating_sub(MESSAGE_OVERHEAD_BYTES);
        let mut results = Vec::with_capacity(self.unsent.len().min(BATCH_TASKS_MAX));
        let mut bytes = 0;
        while let Some(seq) = self.unsent.front().copied() {
            let Some(result) = self.retained.get(seq) else {
                // Settled before it was sent (again).
                self.unsent.pop_front();
                continue;
            };
            let size = result.payload_bytes();
            if size > most {
                self.make_fit(seq, most);
                continue;
            }
            bytes += size as usize;
            let is_full = results.len() == BATCH_TASKS_MAX || bytes > BATCH_BYTES_MAX;
            if is_full && !results.is_empty() {
                break;
            }
            results.push(result.clone());
            self.unsent.pop_front();
        }
        (!results.is_empty()).then_some(results)
    }

    /// Shrinks a retained result to a number of bytes. Out of line: the insertion that every result
    /// goes through is to stay where it is.
    #[cold]
    #[inline(never)]
    fn make_fit(&mut self, seq: Seq, most: u64) {
        if let Some(result) = self.retained.get(seq) {
            let result = lighten(result, most).unwrap_or_else(|| self.unfit(result));
            self.retained.insert(seq, result);
        }
    }

    /// Returns a failure in place of a result that the sink does not take. The failure stays,
    /// whatever the next sink takes: a result does not change.
    fn unfit(&self, result: &TaskResult) -> TaskResult {
        let [sink, own] = self.message_bytes_max;
        let bytes = result.payload_bytes();
        let error = format!(
            "the result has {bytes} bytes, and the sink takes messages of {sink} bytes (its \
             --message-max; it is {own} at the worker)"
        );
        let exit = result.outcome.exit;
        let outcome = Outcome { exit, ..Outcome::error(Status::Failed, error) };
        // The task that it carries may be the part that is too large.
        TaskResult { outcome, reported: None, ..result.clone() }
    }

    /// Hands back the tasks that have not started.
    fn return_unstarted(&mut self) {
        let Some(job) = self.job.as_ref().map(|job| job.id) else { return };
        let ranges = self.queue.take_rest(0);
        if !ranges.is_empty() {
            self.send_news(News::Returned { job, ranges });
        }
    }

    /// Stops the running tasks and hands them back, to be run elsewhere.
    fn give_up_running(&mut self) {
        let mut ranges = SeqList::new();
        let mut stops = Vec::new();
        for (slot, running) in self.in_slots_mut() {
            if running.stopped.is_none() {
                running.stopped = Some(StopReason::Unwanted);
                stops.push(running.stop(slot));
                ranges.push(running.seq);
            }
        }
        self.stops.extend(stops);
        if let Some(job) = self.job.as_ref().map(|job| job.id)
            && !ranges.is_empty()
        {
            self.send_news(News::Returned { job, ranges: ranges.take() });
        }
    }

    /// Forgets the tasks of a job that is over.
    fn drop_work(&mut self) {
        self.queue.clear();
        self.retained.clear();
        self.unsent.clear();
        let mut stops = Vec::new();
        for (slot, running) in self.in_slots_mut() {
            if !running.is_unwanted() {
                running.stopped = Some(StopReason::Unwanted);
                stops.push(running.stop(slot));
            }
        }
        self.stops.extend(stops);
    }
}

impl Queued {
    fn bytes(&self) -> u64 {
        self.task.payload.len() as u64
    }
}

impl Running {
    fn deadline(&self) -> Option<Time> {
        Some(self.started? + self.timeout()?)
    }

    fn timeout(&self) -> Option<Duration> {
        self.limits.timeout_us.map(Duration::from_micros)
    }

    fn is_unwanted(&self) -> bool {
        self.stopped == Some(StopReason::Unwanted)
    }

    fn stop(&self, slot: usize) -> Stop {
        Stop { slot: Slot(slot as u32), seq: self.seq, attempt: self.attempt }
    }
}

/// Returns the result without stderr and the data that the sink asked for, if it is small enough
/// then: neither is worth a failure of the task.
fn lighten(result: &TaskResult, bytes_max: u64) -> Option<TaskResult> {
    let said = result.outcome.stderr.len();
    let head = if said > 0 { format!("[{said} bytes are left out]\n") } else { String::new() };
    let outcome = Outcome { stderr: head.into(), ..result.outcome.clone() };
    let without_stderr = TaskResult { outcome, ..result.clone() };
    let bare = TaskResult { reported: None, ..without_stderr.clone() };
    [without_stderr, bare].into_iter().find(|lighter| lighter.payload_bytes() <= bytes_max)
}

/// Returns whether there is a result that makes this attempt needless. If the task has another tag than
/// the result, a sink without a journal was started again, and takes the result with this one.
fn has_result(retained: &mut SeqRing<TaskResult>, unsent: &mut VecDeque<Seq>, task: &Task) -> bool {
    let Some(result) = retained.get_mut(task.seq) else { return false };
    if !result.is_final() && result.attempt < task.attempt {
        return false;
    }
    if result.tag != task.tag {
        if result.task_hash != task.hash {
            return false;
        }
        result.tag = task.tag;
        unsent.push_back(task.seq);
    }
    true
}
