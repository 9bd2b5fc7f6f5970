//! Where handlers run.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tradewind_node::Clock;
use tradewind_proto::Payload;
use tradewind_proto::Slot;
use tradewind_proto::executor::{Start, Stop};
use tradewind_proto::message::{Outcome, Status};

use crate::handler::{BlockingHandler, Finished, Slots, StopSignal, Task};

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
}

/// A runner at work.
pub(crate) enum Running {
    Inline { handler: Arc<dyn BlockingHandler>, stop: StopSignal },
    Threads(Slots),
    Async(Futures),
}

/// Asynchronous handlers' tasks, by slot.
pub(crate) struct Futures {
    handler: Arc<dyn Fn(Task) -> OutcomeFuture + Send + Sync>,
    running: HashMap<Slot, (Task, u64, Instant, JoinHandle<()>)>,
    finished: UnboundedSender<Finished>,
}

impl Running {
    pub(crate) fn new(
        runner: Runner,
        slots: u32,
        finished: UnboundedSender<Finished>,
    ) -> std::io::Result<Self> {
        Ok(match runner {
            Runner::Inline(handler) => Self::Inline { handler, stop: StopSignal::new()? },
            Runner::Threads(handler) => Self::Threads(Slots::new(slots, handler, move |done| {
                // The loop is gone only when the process is about to be.
                let _ = finished.send(done);
            })),
            Runner::Async(handler) => {
                Self::Async(Futures { handler, running: HashMap::new(), finished })
            }
        })
    }

    /// Runs a task; gives its end if that is now.
    ///
    /// What ends at once has started at `now_us`: to ask the clock would take longer than it does.
    pub(crate) fn start(&mut self, clock: &Clock, now_us: u64, start: Start) -> Option<Finished> {
        let Start { slot, task, report_command } = start;
        let task =
            Task { seq: task.seq, attempt: task.attempt, payload: task.payload, report_command };
        match self {
            Self::Inline { handler, stop } => {
                let outcome = handler.run(&task, stop);
                Some(finished(slot, &task, now_us, 0, outcome))
            }
            Self::Threads(slots) => {
                slots.start(slot, task);
                None
            }
            Self::Async(futures) => {
                futures.start(clock, slot, task);
                None
            }
        }
    }

    pub(crate) fn stop(&mut self, stop: Stop) {
        match self {
            Self::Inline { .. } => {}
            Self::Threads(slots) => slots.stop(stop.slot, stop.seq, stop.attempt),
            Self::Async(futures) => futures.stop(stop),
        }
    }
}

impl Futures {
    fn start(&mut self, clock: &Clock, slot: Slot, task: Task) {
        let (started_us, began) = (clock.unix_us(), Instant::now());
        let future = (self.handler)(task.clone());
        let done = self.finished.clone();
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
        let _ = self.finished.send(finished(stop.slot, task, *started_us, ran_us, outcome));
    }
}

fn finished(slot: Slot, task: &Task, started_us: u64, ran_us: u64, outcome: Outcome) -> Finished {
    let Task { seq, attempt, .. } = *task;
    Finished { slot, seq, attempt, started_us, ran_us, outcome, command: Payload::new() }
}
