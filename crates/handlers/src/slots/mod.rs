//! A thread for each slot, that runs one task after another.
//!
//! A free slot is told which task to run. The next ones are in the run queue, for the slot that is done
//! first: its thread starts one at once, and the caller hears of it later. Until then the caller can take
//! them back.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tradewind_proto::message::{Layout, Outcome, Reported, Status};
use tradewind_proto::{Attempt, Seq, Slot};
use tradewind_system::unix_us;

use super::{BlockingHandler, Lack, StopSignal, Task, Unstarted, tail};

/// Largest number of tasks in the run queue.
const RUN_QUEUE_TASKS_MAX: usize = 32;

/// Number of tasks in the run queue below which every end of a task is called at once.
const RUN_QUEUE_TASKS_MIN: usize = 8;

/// A worker's slots. A slot's thread is started when it gets its first task.
///
/// Dropping them stops the running tasks and waits for them. Tasks in the run queue never start then.
pub struct Slots {
    shared: Arc<Shared>,
    threads: Vec<Option<SlotThread>>,
}

/// A task that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Slot in which it ran, which is free again, or runs `next`.
    pub slot: Slot,
    /// The task.
    pub seq: Seq,
    /// Attempt that has ended.
    pub attempt: Attempt,
    /// Start, in microseconds since 1970.
    pub started_us: u64,
    /// Run time in microseconds.
    pub ran_us: u64,
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// Command and task, as far as reports of them were asked for.
    pub reported: Option<Box<Reported>>,
    /// Task that the slot has taken from the run queue.
    pub next: Option<Begun>,
    /// The task if it was not run, with the reason; the outcome means nothing then.
    pub unstarted: Option<Box<(Task, Unstarted)>>,
}

/// A task that a slot has taken from the run queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The task.
    pub seq: Seq,
    /// Attempt that was started.
    pub attempt: Attempt,
    /// Start of the attempt.
    pub at: Instant,
}

/// Result of [`Slots::enqueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunQueue {
    /// There is enough for a while: `call` is not called for more.
    Full,
    /// Every end of a task is called.
    Low,
    /// Nothing was laid out: something has ended that must be [taken](Slots::take_finished) first.
    Behind,
}

struct Shared {
    handler: Arc<dyn BlockingHandler>,
    call: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
}

struct SlotThread {
    signals: Arc<Signals>,
    thread: JoinHandle<()>,
}

/// Signals to a slot's thread.
struct Signals {
    /// Something has changed for this slot.
    changed: Condvar,
    stop: StopSignal,
}

struct State {
    /// By slot.
    places: Vec<Place>,
    /// Number of places with a task. All of them, or the run queue is empty.
    busy: usize,
    /// Tasks that slots take when they are done, in this order.
    run_queue: VecDeque<Task>,
    /// Tasks that have ended and were not taken yet, in this order.
    finished: Vec<Finished>,
    /// Whether the caller checks the slots without being called, as long as the run queue is long enough.
    is_watched: bool,
    closing: bool,
}

#[derive(Clone, Default)]
struct Place {
    /// Waits to be picked up.
    next: Option<Task>,
    /// Task that was started and has not ended, picked up or not: one that a stop may be meant for.
    current: Option<(Seq, Attempt)>,
}

impl Slots {
    /// `call` is called on a slot's thread when there is something to
    /// [take](Self::take_finished), but not for each task that has ended, and not while the caller checks
    /// by itself, as it said in [`enqueue`](Self::enqueue).
    pub fn new(
        slots: u32,
        handler: Arc<dyn BlockingHandler>,
        call: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            places: vec![Place::default(); slots as usize],
            busy: 0,
            run_queue: VecDeque::with_capacity(RUN_QUEUE_TASKS_MAX),
            finished: Vec::new(),
            is_watched: false,
            closing: false,
        };
        let shared = Shared { handler, call: Box::new(call), state: Mutex::new(state) };
        let threads = (0..slots).map(|_| None).collect();
        Self { shared: Arc::new(shared), threads }
    }

    /// From now on tasks are made of this.
    ///
    /// # Errors
    ///
    /// If the handler was told that they are made of something else.
    pub fn set_layout(&self, layout: &Layout) -> Result<(), String> {
        self.shared.handler.set_layout(layout)
    }

    /// The worker was asked to leave.
    pub fn notice_leaving(&self) {
        self.shared.handler.notice_leaving();
    }

    /// Runs a task in a free slot. Does not wait for anything.
    ///
    /// If the slot's thread cannot be started, the task comes back unstarted.
    ///
    /// # Panics
    ///
    /// If there is no such slot, or it has a task that has not finished.
    pub fn start(&mut self, slot: Slot, task: Task) {
        let thread = &mut self.threads[slot.0 as usize];
        if thread.is_none() {
            match SlotThread::spawn(slot, &self.shared) {
                Ok(new) => *thread = Some(new),
                Err(error) => {
                    let lack = Lack::of(&error).unwrap_or(Lack::Processes);
                    let reason = format!("failed to start a thread for the task: {error}");
                    return self.shared.refuse(slot, task, Unstarted { lack, reason });
                }
            }
        }
        let signals = &thread.as_ref().expect("the thread was started above").signals;
        let mut state = self.shared.lock();
        let place = &mut state.places[slot.0 as usize];
        assert!(place.current.is_none(), "slot {} is not free", slot.0);
        place.current = Some((task.seq, task.attempt));
        place.next = Some(task);
        state.busy += 1;
        drop(state);
        signals.changed.notify_one();
    }

    /// Puts tasks into the run queue, if all slots have one. `waiting` are all that wait, in the order in
    /// which they are to start: those that are in the run queue already, and more.
    ///
    /// A task that was dispatched before may be what killed its worker. A worker that dies of it must not
    /// have tasks whose ends it has not reported, since they would be blamed: such a task is never put into
    /// the run queue, and its end is called at once.
    ///
    /// With `is_watched` the caller says that it will check the slots soon, called or not.
    pub fn enqueue(&mut self, waiting: impl Iterator<Item = Task>, is_watched: bool) -> RunQueue {
        let mut state = self.shared.lock();
        let is_behind = !state.finished.is_empty();
        if is_behind && (!is_watched || state.busy < state.places.len()) {
            return RunQueue::Behind;
        }
        if state.busy == state.places.len() {
            let begun = state.finished.iter().filter(|finished| finished.next.is_some()).count();
            let room = RUN_QUEUE_TASKS_MAX - state.run_queue.len();
            let known = begun + state.run_queue.len();
            let next = waiting.skip(known).take_while(|task| task.attempt == Attempt::FIRST);
            state.run_queue.extend(next.take(room));
        }
        state.is_watched = is_watched;
        if state.run_queue.len() >= RUN_QUEUE_TASKS_MIN { RunQueue::Full } else { RunQueue::Low }
    }

    /// Takes back the tasks in the run queue. Those that have begun are among the ones that are
    /// [taken](Self::take_finished) next; the others will never begin. Returns false if there were none and
    /// nothing is to be taken.
    pub fn withdraw(&mut self) -> bool {
        let mut state = self.shared.lock();
        let is_any = !state.run_queue.is_empty() || !state.finished.is_empty();
        state.run_queue.clear();
        is_any
    }

    /// Returns the tasks that have ended, each once and in this order.
    #[must_use]
    pub fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.shared.lock().finished)
    }

    /// Stops what runs in a slot, if it is this attempt of this task and has not ended by itself.
    /// Does not wait for the end, which is reported as usual.
    pub fn stop(&mut self, slot: Slot, seq: Seq, attempt: Attempt) {
        let thread = self.threads.get(slot.0 as usize);
        if let Some(SlotThread { signals, .. }) = thread.and_then(Option::as_ref) {
            let state = self.shared.lock();
            if state.places[slot.0 as usize].current == Some((seq, attempt)) {
                signals.stop.raise();
            }
        }
    }

    /// Stops what runs and gives what has ended by then. A handler that does not heed its
    /// [`StopSignal`] is waited for all the same.
    #[must_use]
    pub fn shutdown(mut self) -> Vec<Finished> {
        self.close();
        self.take_finished()
    }

    fn close(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        state.run_queue.clear();
        // First all of them, then wait: their graces run side by side.
        for (place, thread) in state.places.iter().zip(&self.threads) {
            let Some(SlotThread { signals, .. }) = thread else { continue };
            if place.current.is_some() {
                signals.stop.raise();
            }
            signals.changed.notify_one();
        }
        drop(state);
        for SlotThread { thread, .. } in self.threads.iter_mut().filter_map(Option::take) {
            // It has panicked only if `call` has: that is said already.
            let _ = thread.join();
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("slots", &self.threads.len()).finish_non_exhaustive()
    }
}

impl SlotThread {
    fn spawn(slot: Slot, shared: &Arc<Shared>) -> io::Result<Self> {
        let signals = Arc::new(Signals { changed: Condvar::new(), stop: StopSignal::new()? });
        let thread = thread::Builder::new().name(format!("slot-{}", slot.0)).spawn({
            let signals = Arc::clone(&signals);
            let shared = Arc::clone(shared);
            move || {
                let mut next = None;
                while let Some(task) = next.or_else(|| shared.wait(slot, &signals)) {
                    next = shared.finish(shared.run(slot, &task, &signals.stop), &signals);
                }
            }
        })?;
        Ok(Self { signals, thread })
    }
}

impl Shared {
    /// No state is ever left half changed, and dropping must not panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a task; `None` when there will be no more.
    fn wait(&self, slot: Slot, signals: &Signals) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.places[slot.0 as usize].next.take() {
                return Some(task);
            }
            if state.closing {
                return None;
            }
            state = signals.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self, slot: Slot, task: &Task, stop: &StopSignal) -> Finished {
        let started_us = unix_us();
        let started = Instant::now();
        // The slot was not known when the task was put into the run queue.
        let task = &Task { slot, ..task.clone() };
        let ran = catch_unwind(AssertUnwindSafe(|| self.handler.try_run(task, stop)));
        let ran_us = micros(started.elapsed());
        let ran = ran.unwrap_or_else(|panic| Ok(panicked(panic.as_ref())));
        let mut outcome = match ran {
            Ok(outcome) => outcome,
            Err(unstarted) => return unstarted_task(slot, task.clone(), unstarted),
        };
        // A handler from elsewhere may not know the limit.
        outcome.error = tail::clip(outcome.error);
        let reported = task.reported(|| {
            let command = catch_unwind(AssertUnwindSafe(|| self.handler.command(task)));
            command.unwrap_or_default()
        });
        let Task { seq, attempt, .. } = *task;
        let (next, unstarted) = (None, None);
        Finished { slot, seq, attempt, started_us, ran_us, outcome, reported, next, unstarted }
    }

    /// Hands over the task that has ended, and takes the slot's next one from the run queue. From here on
    /// a stop for the former comes too late, and one for the latter in time.
    fn finish(&self, mut finished: Finished, signals: &Signals) -> Option<Task> {
        let mut state = self.lock();
        signals.stop.clear();
        // What this host lacks for one, it lacks for the next.
        let is_unstarted = finished.unstarted.is_some();
        let next = if is_unstarted { None } else { state.run_queue.pop_front() };
        let about = next.as_ref().map(|task| (task.seq, task.attempt));
        finished.next = about.map(|(seq, attempt)| Begun { seq, attempt, at: Instant::now() });
        state.places[finished.slot.0 as usize].current = about;
        state.busy -= usize::from(next.is_none());
        let is_awaited = state.is_watched
            && state.run_queue.len() >= RUN_QUEUE_TASKS_MIN
            && finished.attempt == Attempt::FIRST
            && !is_unstarted;
        state.finished.push(finished);
        drop(state);
        if !is_awaited {
            (self.call)();
        }
        next
    }

    fn refuse(&self, slot: Slot, task: Task, unstarted: Unstarted) {
        self.lock().finished.push(unstarted_task(slot, task, unstarted));
        (self.call)();
    }
}

fn unstarted_task(slot: Slot, task: Task, unstarted: Unstarted) -> Finished {
    Finished {
        slot,
        seq: task.seq,
        attempt: task.attempt,
        started_us: unix_us(),
        ran_us: 0,
        outcome: Outcome::error(Status::Failed, unstarted.reason.clone()),
        reported: None,
        next: None,
        unstarted: Some(Box::new((task, unstarted))),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Outcome of a task whose handler panicked.
pub fn panicked(panic: &(dyn Any + Send)) -> Outcome {
    let message = if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "without a message"
    };
    Outcome::error(Status::Failed, format!("the handler panicked: {message}"))
}

#[cfg(test)]
mod tests;
