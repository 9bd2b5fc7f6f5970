//! A thread for each slot, that runs one task after another.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tradewind_proto::Payload;
use tradewind_proto::message::{Outcome, Status};
use tradewind_proto::{Attempt, Seq, Slot};

use super::{BlockingHandler, StopSignal, Task, tail};

/// A worker's slots. A slot's thread is started when it gets its first task.
///
/// Dropping them stops what runs and waits for it.
pub struct Slots {
    shared: Arc<Shared>,
    threads: Vec<Mutex<Option<SlotThread>>>,
}

/// A task that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Where it ran; this slot is free again.
    pub slot: Slot,
    /// The task.
    pub seq: Seq,
    /// Which run this was.
    pub attempt: Attempt,
    /// When it started: microseconds since 1970.
    pub started_us: u64,
    /// How long it ran, in microseconds.
    pub ran_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What was run, as a shell would take it, if the task asked for it; else empty.
    pub command: Payload,
}

struct Shared {
    handler: Arc<dyn BlockingHandler>,
    finished: Box<dyn Fn(Finished) + Send + Sync>,
}

struct SlotThread {
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

/// What a slot's thread shares with whoever gives it work.
struct Desk {
    state: Mutex<State>,
    changed: Condvar,
    stop: StopSignal,
}

#[derive(Default)]
struct State {
    /// Waits to be picked up.
    next: Option<Task>,
    /// What was started and has not ended, picked up or not: what a stop may be meant for.
    current: Option<(Seq, Attempt)>,
    closing: bool,
}

impl Slots {
    /// `finished` is called once for each task that was started, on the slot's thread. It must
    /// not drop the `Slots`.
    pub fn new(
        slots: u32,
        handler: Arc<dyn BlockingHandler>,
        finished: impl Fn(Finished) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared { handler, finished: Box::new(finished) };
        let threads = (0..slots).map(|_| Mutex::default()).collect();
        Self { shared: Arc::new(shared), threads }
    }

    /// Runs a task in a free slot. Does not wait for anything.
    ///
    /// If the slot's thread cannot be started, the task has failed: then `finished` is called
    /// from here.
    ///
    /// # Panics
    ///
    /// If there is no such slot, or it has a task that has not finished.
    pub fn start(&self, slot: Slot, task: Task) {
        let mut thread = lock(&self.threads[slot.0 as usize]);
        if thread.is_none() {
            match SlotThread::spawn(slot, &self.shared) {
                Ok(new) => *thread = Some(new),
                Err(error) => {
                    drop(thread);
                    let error = format!("failed to start a thread for the task: {error}");
                    return self.shared.refuse(slot, &task, error);
                }
            }
        }
        let desk = &thread.as_ref().expect("the thread was started above").desk;
        let mut state = lock(&desk.state);
        assert!(state.current.is_none(), "slot {} is not free", slot.0);
        state.current = Some((task.seq, task.attempt));
        state.next = Some(task);
        drop(state);
        desk.changed.notify_one();
    }

    /// Stops what runs in a slot, if it is this attempt of this task and has not ended by itself.
    /// Does not wait for the end, which `finished` reports as usual.
    pub fn stop(&self, slot: Slot, seq: Seq, attempt: Attempt) {
        let thread = self.threads.get(slot.0 as usize).map(lock);
        if let Some(SlotThread { desk, .. }) = thread.as_deref().and_then(Option::as_ref) {
            let state = lock(&desk.state);
            if state.current == Some((seq, attempt)) {
                desk.stop.raise();
            }
        }
    }

    /// Stops what runs and waits until it has ended and was reported. A handler that does not
    /// heed its [`StopSignal`] is waited for all the same.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let threads: Vec<_> =
            self.threads.iter().filter_map(|thread| lock(thread).take()).collect();
        // First all of them, then wait: their graces run side by side.
        for SlotThread { desk, .. } in &threads {
            let mut state = lock(&desk.state);
            state.closing = true;
            if state.current.is_some() {
                desk.stop.raise();
            }
            desk.changed.notify_one();
        }
        for SlotThread { thread, .. } in threads {
            // It has panicked only if `finished` has: that is said already.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("slots", &self.threads.len()).finish_non_exhaustive()
    }
}

impl SlotThread {
    fn spawn(slot: Slot, shared: &Arc<Shared>) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: StopSignal::new()?,
        });
        let thread = thread::Builder::new().name(format!("slot-{}", slot.0)).spawn({
            let desk = Arc::clone(&desk);
            let shared = Arc::clone(shared);
            move || {
                while let Some(task) = desk.next() {
                    let finished = shared.run(slot, &task, &desk.stop);
                    desk.clear();
                    (shared.finished)(finished);
                }
            }
        })?;
        Ok(Self { desk, thread })
    }
}

impl Desk {
    /// Waits for a task; `None` when there will be no more.
    fn next(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            if let Some(task) = state.next.take() {
                return Some(task);
            }
            if state.closing {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// From here on a stop for the task that has ended comes too late.
    fn clear(&self) {
        let mut state = lock(&self.state);
        state.current = None;
        self.stop.clear();
    }
}

impl Shared {
    fn run(&self, slot: Slot, task: &Task, stop: &StopSignal) -> Finished {
        let started_us = now_us();
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.handler.run(task, stop)));
        let ran_us = micros(started.elapsed());
        let mut outcome = outcome.unwrap_or_else(|panic| {
            let error = format!("the handler panicked: {}", message(panic.as_ref()));
            Outcome::error(Status::Failed, error)
        });
        // A handler from elsewhere may not know the limit.
        outcome.error = tail::clip(outcome.error);
        let command = if task.report_command {
            let command = catch_unwind(AssertUnwindSafe(|| self.handler.command(task)));
            command.unwrap_or_default()
        } else {
            Payload::new()
        };
        let Task { seq, attempt, .. } = *task;
        Finished { slot, seq, attempt, started_us, ran_us, outcome, command }
    }

    fn refuse(&self, slot: Slot, task: &Task, error: String) {
        (self.finished)(Finished {
            slot,
            seq: task.seq,
            attempt: task.attempt,
            started_us: now_us(),
            ran_us: 0,
            outcome: Outcome::error(Status::Failed, error),
            command: Payload::new(),
        });
    }
}

/// No state is ever left half changed, and dropping must not panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_us() -> u64 {
    // A clock before 1970 is not worth failing a task.
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn message(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "without a message"
    }
}

#[cfg(test)]
mod tests;
