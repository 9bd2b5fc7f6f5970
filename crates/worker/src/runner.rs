//! Threads and runtimes on which handlers run.

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use tradewind_proto::executor::{Start, Stop};
use tradewind_proto::message::{self, Layout, Limits, Outcome, Report, Status};
use tradewind_proto::{Payload, Slot};
use tradewind_system::Clock;

use tradewind_handlers::{
    BlockingHandler, Finished, PipeHandler, Pipes, RunQueue, SlotStatus, Slots, StopSignal, Task,
    clip, panicked,
};

/// Future of an asynchronous handler.
pub type OutcomeFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A handler, and where it runs.
#[derive(Clone)]
pub enum Runner {
    /// In the worker's loop: for what takes no time at all.
    Inline(Arc<dyn BlockingHandler>),
    /// On a thread for each slot.
    Threads(Arc<dyn BlockingHandler>),
    /// On a runtime, as many at once as there are slots.
    Async(AsyncRunner),
    /// In a child for each slot, which stays up.
    Pipes(Arc<PipeHandler>),
}

/// An asynchronous handler. A task that is to stop is dropped where it waits.
#[derive(Clone)]
pub struct AsyncRunner {
    /// Runs a task.
    pub handler: AsyncHandler,
    /// Where; if `None`, on a runtime of one thread, which is made for the purpose. It is never the
    /// worker's own: a handler that blocks must not keep the loop from saying that it is there.
    pub runtime: Option<Handle>,
}

/// See [`AsyncRunner`].
pub type AsyncHandler = Arc<dyn Fn(Task, StopToken) -> OutcomeFuture + Send + Sync>;

/// Says when an asynchronous task should stop, to what it has started besides: it is dropped
/// itself.
#[derive(Clone, Debug)]
pub struct StopToken(watch::Receiver<bool>);

impl StopToken {
    /// Is the task to stop, or over?
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the task is to stop, or over.
    pub async fn stopped(&self) {
        // An error says that the task is over.
        let _ = self.0.clone().wait_for(|is_stopped| *is_stopped).await;
    }
}

/// A runner at work.
pub(crate) enum Running {
    Inline { handler: Arc<dyn BlockingHandler>, stop: StopSignal },
    Threads { slots: Slots, called: Arc<Notify> },
    Async(Futures),
    Pipes { pipes: Pipes, called: Arc<Notify>, statuses: Vec<SlotStatus> },
}

/// Asynchronous handlers' tasks, by slot.
pub(crate) struct Futures {
    handler: AsyncHandler,
    runtime: Runtime,
    running: HashMap<Slot, (Arc<RunningTask>, AbortHandle)>,
    // Never holds more than there are slots.
    finished_in: UnboundedSender<Finished>,
    finished: UnboundedReceiver<Finished>,
    /// Ended tasks that were received and not taken yet.
    ended: Vec<Finished>,
}

/// A task that runs. It ends by itself, or is stopped, or is dropped with its runtime: only what
/// comes first is reported.
struct RunningTask {
    slot: Slot,
    task: Task,
    started_us: u64,
    began: Instant,
    is_ended: AtomicBool,
    stop: watch::Sender<bool>,
    finished_in: UnboundedSender<Finished>,
}

/// Goes down with the future that runs the task.
struct DroppedWith(Arc<RunningTask>);

/// Runtime of asynchronous handlers.
enum Runtime {
    Given(Handle),
    /// A thread that runs it until it is dropped, and is waited for.
    Own {
        handle: Handle,
        end: Option<oneshot::Sender<()>>,
        thread: Option<thread::JoinHandle<()>>,
    },
}

impl Running {
    pub(crate) fn new(runner: Runner, slots: u32, clock: Clock) -> io::Result<Self> {
        Ok(match runner {
            Runner::Inline(handler) => Self::Inline { handler, stop: StopSignal::new()? },
            Runner::Threads(handler) => {
                let called = Arc::new(Notify::new());
                let call = Arc::clone(&called);
                let slots = Slots::new(slots, handler, move || call.notify_one());
                Self::Threads { slots, called }
            }
            Runner::Async(AsyncRunner { handler, runtime }) => {
                let runtime =
                    runtime.map_or_else(Runtime::new, |given| Ok(Runtime::Given(given)))?;
                Self::Async(Futures::new(handler, runtime))
            }
            Runner::Pipes(handler) => {
                let called = Arc::new(Notify::new());
                let call = Arc::clone(&called);
                let handler = Arc::unwrap_or_clone(handler);
                let pipes = Pipes::new(slots, handler, clock, move || call.notify_one())?;
                Self::Pipes { pipes, called, statuses: Vec::new() }
            }
        })
    }

    /// Waits until there is something to [take](Self::take_finished).
    pub(crate) async fn called(&mut self) {
        match self {
            Self::Inline { .. } => std::future::pending().await,
            Self::Threads { called, .. } | Self::Pipes { called, .. } => called.notified().await,
            Self::Async(Futures { finished, ended, .. }) => {
                finished.recv_many(ended, usize::MAX).await;
            }
        }
    }

    /// Returns the tasks that have ended, in this order.
    pub(crate) fn take_finished(&mut self) -> Vec<Finished> {
        match self {
            Self::Inline { .. } => Vec::new(),
            Self::Threads { slots, .. } => slots.take_finished(),
            Self::Async(futures) => std::mem::take(&mut futures.ended),
            Self::Pipes { pipes, statuses, .. } => {
                let (finished, new) = pipes.take();
                statuses.extend(new);
                finished
            }
        }
    }

    /// Returns the states of slots after all ends that were taken.
    pub(crate) fn take_statuses(&mut self) -> Vec<SlotStatus> {
        match self {
            Self::Pipes { statuses, .. } => std::mem::take(statuses),
            Self::Inline { .. } | Self::Threads { .. } | Self::Async(_) => Vec::new(),
        }
    }

    /// From now on tasks are made of this.
    ///
    /// # Errors
    /// When the handler was told that they are made of something else.
    pub(crate) fn set_layout(&self, layout: &Layout) -> Result<(), String> {
        match self {
            Self::Inline { handler, .. } => handler.set_layout(layout),
            Self::Threads { slots, .. } => slots.set_layout(layout),
            Self::Async(_) | Self::Pipes { .. } => Ok(()),
        }
    }

    /// The worker was asked to leave.
    pub(crate) fn notice_leaving(&self) {
        if let Self::Threads { slots, .. } = self {
            slots.notice_leaving();
        }
    }

    /// Returns whether tasks are prefetched by slots that are busy.
    pub(crate) fn is_feeding(&self) -> bool {
        matches!(self, Self::Pipes { .. })
    }

    /// Hands the started tasks over to their slots.
    pub(crate) fn hand_over(&mut self) {
        if let Self::Pipes { pipes, .. } = self {
            pipes.hand_over();
        }
    }

    /// Why no more tasks can be run.
    pub(crate) fn given_up(&self) -> Option<String> {
        match self {
            Self::Pipes { pipes, .. } => pipes.given_up(),
            Self::Inline { .. } | Self::Threads { .. } | Self::Async(_) => None,
        }
    }

    /// No more tasks will come.
    pub(crate) fn close(&mut self) {
        if let Self::Pipes { pipes, .. } = self {
            pipes.close();
        }
    }

    /// Puts waiting tasks into the run queue of the slots; see [`Slots::enqueue`].
    pub(crate) fn enqueue<'a>(
        &mut self,
        waiting: impl Iterator<Item = (&'a message::Task, Limits)>,
        is_watched: bool,
    ) -> RunQueue {
        match self {
            Self::Threads { slots, .. } => {
                let tasks =
                    waiting.map(|(task, limits)| task_for_slot(task.clone(), limits.report));
                slots.enqueue(tasks, is_watched)
            }
            Self::Inline { .. } | Self::Async(_) | Self::Pipes { .. } => RunQueue::Low,
        }
    }

    /// Takes back what was laid out and has not begun; false if there was nothing, so that all that has
    /// begun is known once what has ended was taken.
    pub(crate) fn withdraw(&mut self) -> bool {
        match self {
            Self::Threads { slots, .. } => slots.withdraw(),
            Self::Inline { .. } | Self::Async(_) | Self::Pipes { .. } => false,
        }
    }

    /// Runs a task; gives its end if that is now.
    ///
    /// A task that ends at once has started at `now_us`: to ask the clock would take longer than it does.
    pub(crate) fn start(&mut self, clock: &Clock, now_us: u64, start: Start) -> Option<Finished> {
        let Start { slot, task, report } = start;
        let task = task_for_slot(task, report);
        match self {
            Self::Inline { handler, stop } => {
                let outcome = handler.run(&task, stop);
                Some(finished(slot, &task, now_us, 0, outcome))
            }
            Self::Threads { slots, .. } => {
                slots.start(slot, task);
                None
            }
            Self::Async(futures) => {
                futures.start(clock, slot, task);
                None
            }
            Self::Pipes { pipes, .. } => {
                pipes.give(slot, task);
                None
            }
        }
    }

    pub(crate) fn stop(&mut self, stop: Stop) {
        match self {
            Self::Inline { .. } => {}
            Self::Threads { slots, .. } => slots.stop(stop.slot, stop.seq, stop.attempt),
            Self::Async(futures) => futures.stop(stop),
            Self::Pipes { pipes, .. } => pipes.stop(stop.slot, stop.seq, stop.attempt),
        }
    }
}

impl Futures {
    fn new(handler: AsyncHandler, runtime: Runtime) -> Self {
        let (finished_in, finished) = mpsc::unbounded_channel();
        let (running, ended) = (HashMap::new(), Vec::new());
        Self { handler, runtime, running, finished_in, finished, ended }
    }

    fn start(&mut self, clock: &Clock, slot: Slot, task: Task) {
        let (stop, token) = watch::channel(false);
        let running = Arc::new(RunningTask {
            slot,
            task,
            started_us: clock.unix_us(),
            began: Instant::now(),
            is_ended: AtomicBool::new(false),
            stop,
            finished_in: self.finished_in.clone(),
        });
        let handler = Arc::clone(&self.handler);
        let dropped_with = DroppedWith(Arc::clone(&running));
        let run = async move {
            let running = &dropped_with.0;
            // What comes before the first await may panic as well. It must be that task's failure,
            // not the slot's end.
            let ran = async { handler(running.task.clone(), StopToken(token)).await };
            let ran = AssertUnwindSafe(ran).catch_unwind().await;
            running.end(|| ran.unwrap_or_else(|panic| panicked(panic.as_ref())));
        };
        let abort = self.runtime.handle().spawn(run).abort_handle();
        self.running.insert(slot, (running, abort));
    }

    fn stop(&mut self, stop: Stop) {
        let Some((running, abort)) = self.running.get(&stop.slot) else { return };
        if (running.task.seq, running.task.attempt) == (stop.seq, stop.attempt) {
            running.end(|| Outcome::error(Status::Failed, "stopped"));
            abort.abort();
        }
    }
}

impl Drop for Futures {
    fn drop(&mut self) {
        self.running.values().for_each(|(_, abort)| abort.abort());
    }
}

impl RunningTask {
    /// Reports this outcome if it has not ended before.
    fn end(&self, outcome: impl FnOnce() -> Outcome) {
        let ran_us = self.began.elapsed().as_micros() as u64;
        if !self.is_ended.swap(true, Ordering::AcqRel) {
            let finished = finished(self.slot, &self.task, self.started_us, ran_us, outcome());
            // An error: the worker is gone.
            let _ = self.finished_in.send(finished);
        }
        self.stop.send_replace(true);
    }
}

impl Drop for DroppedWith {
    fn drop(&mut self) {
        self.0.end(|| Outcome::error(Status::Failed, "the handler's runtime has ended"));
    }
}

impl Runtime {
    fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("handlers".to_owned()).spawn(move || {
            // An error: the other end is gone, which is what was waited for.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self::Own { handle, end: Some(end), thread: Some(thread) })
    }

    fn handle(&self) -> &Handle {
        match self {
            Self::Given(handle) | Self::Own { handle, .. } => handle,
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Self::Own { end, thread, .. } = self {
            drop(end.take());
            // It has panicked only if a destructor of the handler's has: that is said already.
            let _ = thread.take().map(thread::JoinHandle::join);
        }
    }
}

fn task_for_slot(task: message::Task, report: Report) -> Task {
    let message::Task { seq, attempt, payload, hash, .. } = task;
    Task { seq, attempt, payload, report, hash, slot: Slot(0) }
}

fn finished(
    slot: Slot,
    task: &Task,
    started_us: u64,
    ran_us: u64,
    mut outcome: Outcome,
) -> Finished {
    // A handler from elsewhere may not know the limit.
    outcome.error = clip(outcome.error);
    let Task { seq, attempt, .. } = *task;
    let reported = task.reported(Payload::new);
    let (next, unstarted) = (None, None);
    Finished { slot, seq, attempt, started_us, ran_us, outcome, reported, next, unstarted }
}
