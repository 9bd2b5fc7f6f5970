//! Where handlers run.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tradewind_node::Clock;
use tradewind_proto::executor::{Start, Stop};
use tradewind_proto::message::{self, Limits, Outcome, Status};
use tradewind_proto::{Payload, Slot};

use crate::handler::{
    BlockingHandler, Deck, Finished, PipeHandler, Pipes, Slots, Standing, StopSignal, Task,
};

/// What an asynchronous handler returns.
pub type OutcomeFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A handler, and where it runs.
#[derive(Clone)]
pub enum Runner {
    /// In the worker's loop: for what takes no time at all.
    Inline(Arc<dyn BlockingHandler>),
    /// On a thread for each slot.
    Threads(Arc<dyn BlockingHandler>),
    /// On the worker's runtime. A task that is to stop is dropped where it waits.
    Async(Arc<dyn Fn(Task) -> OutcomeFuture + Send + Sync>),
    /// In a child for each slot, which stays up.
    Pipes(Arc<PipeHandler>),
}

/// A runner at work.
pub(crate) enum Running {
    Inline { handler: Arc<dyn BlockingHandler>, stop: StopSignal },
    Threads { slots: Slots, called: Arc<Notify> },
    Async(Futures),
    Pipes { pipes: Pipes, called: Arc<Notify>, standings: Vec<Standing> },
}

/// Asynchronous handlers' tasks, by slot.
pub(crate) struct Futures {
    handler: Arc<dyn Fn(Task) -> OutcomeFuture + Send + Sync>,
    running: HashMap<Slot, (Task, u64, Instant, JoinHandle<()>)>,
    // Never holds more than there are slots.
    finished_in: UnboundedSender<Finished>,
    finished: UnboundedReceiver<Finished>,
    /// What was received and not taken yet.
    ended: Vec<Finished>,
}

impl Running {
    pub(crate) fn new(runner: Runner, slots: u32, clock: Clock) -> std::io::Result<Self> {
        Ok(match runner {
            Runner::Inline(handler) => Self::Inline { handler, stop: StopSignal::new()? },
            Runner::Threads(handler) => {
                let called = Arc::new(Notify::new());
                let call = Arc::clone(&called);
                let slots = Slots::new(slots, handler, move || call.notify_one());
                Self::Threads { slots, called }
            }
            Runner::Async(handler) => {
                let (finished_in, finished) = mpsc::unbounded_channel();
                let (running, ended) = (HashMap::new(), Vec::new());
                Self::Async(Futures { handler, running, finished_in, finished, ended })
            }
            Runner::Pipes(handler) => {
                let called = Arc::new(Notify::new());
                let call = Arc::clone(&called);
                let handler = Arc::unwrap_or_clone(handler);
                let pipes = Pipes::new(slots, handler, clock, move || call.notify_one())?;
                Self::Pipes { pipes, called, standings: Vec::new() }
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

    /// What has ended, in this order.
    pub(crate) fn take_finished(&mut self) -> Vec<Finished> {
        match self {
            Self::Inline { .. } => Vec::new(),
            Self::Threads { slots, .. } => slots.take_finished(),
            Self::Async(futures) => std::mem::take(&mut futures.ended),
            Self::Pipes { pipes, standings, .. } => {
                let (finished, stand) = pipes.take();
                standings.extend(stand);
                finished
            }
        }
    }

    /// Where slots stand after all that was taken.
    pub(crate) fn take_standings(&mut self) -> Vec<Standing> {
        match self {
            Self::Pipes { standings, .. } => std::mem::take(standings),
            Self::Inline { .. } | Self::Threads { .. } | Self::Async(_) => Vec::new(),
        }
    }

    /// Are tasks fed to slots that are busy?
    pub(crate) fn is_feeding(&self) -> bool {
        matches!(self, Self::Pipes { .. })
    }

    /// What was started is on its way from now on.
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

    /// Says what waits, for slots to go on with; see [`Slots::lay_out`].
    pub(crate) fn lay_out<'a>(
        &mut self,
        waiting: impl Iterator<Item = (&'a message::Task, Limits)>,
        is_watched: bool,
    ) -> Deck {
        match self {
            Self::Threads { slots, .. } => {
                let tasks = waiting
                    .map(|(task, limits)| task_for_slot(task.clone(), limits.report_command));
                slots.lay_out(tasks, is_watched)
            }
            Self::Inline { .. } | Self::Async(_) | Self::Pipes { .. } => Deck::Low,
        }
    }

    /// Takes back what was laid out and has not begun.
    pub(crate) fn withdraw(&mut self) {
        if let Self::Threads { slots, .. } = self {
            slots.withdraw();
        }
    }

    /// Runs a task; gives its end if that is now.
    ///
    /// What ends at once has started at `now_us`: to ask the clock would take longer than it does.
    pub(crate) fn start(&mut self, clock: &Clock, now_us: u64, start: Start) -> Option<Finished> {
        let Start { slot, task, report_command } = start;
        let task = task_for_slot(task, report_command);
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
    fn start(&mut self, clock: &Clock, slot: Slot, task: Task) {
        let (started_us, began) = (clock.unix_us(), Instant::now());
        let future = (self.handler)(task.clone());
        let done = self.finished_in.clone();
        let about = task.clone();
        let handle = tokio::spawn(async move {
            // A panic must be that task's failure, not the slot's end.
            let outcome = tokio::spawn(future).await.unwrap_or_else(|error| {
                Outcome::error(Status::Failed, format!("the handler panicked: {error}"))
            });
            let ran_us = began.elapsed().as_micros() as u64;
            let _ = done.send(finished(slot, &about, started_us, ran_us, outcome));
        });
        self.running.insert(slot, (task, started_us, began, handle));
    }

    fn stop(&mut self, stop: Stop) {
        let Some((task, started_us, began, handle)) = self.running.get(&stop.slot) else { return };
        if handle.is_finished() || (task.seq, task.attempt) != (stop.seq, stop.attempt) {
            return;
        }
        handle.abort();
        let outcome = Outcome::error(Status::Failed, "stopped");
        let ran_us = began.elapsed().as_micros() as u64;
        let _ = self.finished_in.send(finished(stop.slot, task, *started_us, ran_us, outcome));
    }
}

fn task_for_slot(task: message::Task, report_command: bool) -> Task {
    let message::Task { seq, attempt, payload, .. } = task;
    Task { seq, attempt, payload, report_command }
}

fn finished(slot: Slot, task: &Task, started_us: u64, ran_us: u64, outcome: Outcome) -> Finished {
    let Task { seq, attempt, .. } = *task;
    let command = Payload::new();
    Finished { slot, seq, attempt, started_us, ran_us, outcome, command, next: None }
}
