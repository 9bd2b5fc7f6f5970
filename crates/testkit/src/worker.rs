//! A worker, and what its tasks come to.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tradewind_proto::Slot;
use tradewind_proto::Time;
use tradewind_proto::executor::{Executor, Finished, Start};
use tradewind_proto::message::{Outcome, Task, ToSink};

use crate::machine::{Accepts, ExecutorAction, Machine};

/// Run time in µs of a task for which nothing else is said.
pub(crate) const RUN_US: u64 = 10;

/// A worker, whose tasks end by a rule or when a test says so.
#[derive(Debug)]
pub struct Worker {
    /// The worker's machine.
    pub executor: Executor,
    /// Rule by which tasks that start from now on end.
    pub ends: Ends,
    /// Running tasks by slot, without those that end as they start.
    pub running: BTreeMap<u32, Start>,
    /// Seqs and attempts of the tasks that were to be stopped.
    pub stopped: Vec<(u64, u32)>,
    /// Number of tasks that were started.
    pub started: u64,
    /// Number of tasks that were sent to the worker.
    pub sent_tasks: u64,
    /// Number of messages that asked the worker for tasks back.
    pub recalls: u64,
    /// Stage to which the worker belongs, from 0.
    pub(crate) stage: usize,
}

/// Rule by which a worker's tasks end.
#[derive(Clone, Default)]
pub struct Ends(Option<Rc<Rule>>);

type Rule = dyn Fn(&Task) -> (Duration, Outcome);

/// Something that a worker does.
pub(crate) enum Deed {
    /// Sends a message to the sink.
    Send(ToSink),
    /// Runs a task that ends by itself.
    Run(Run),
}

/// Run of a task that ends by itself.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) slot: u32,
    pub(crate) takes: Duration,
    pub(crate) outcome: Outcome,
}

impl Ends {
    /// Returns the rule that tasks end when a test says so.
    #[must_use]
    pub fn by_test() -> Self {
        Self(None)
    }

    /// Returns the rule that tasks end as they start.
    pub fn at_once(outcome: impl Fn(&Task) -> Outcome + 'static) -> Self {
        Self::after(move |task| (Duration::ZERO, outcome(task)))
    }

    /// Returns the rule that tasks end after a time.
    pub fn after(rule: impl Fn(&Task) -> (Duration, Outcome) + 'static) -> Self {
        Self(Some(Rc::new(rule)))
    }
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Ends::after" } else { "Ends::by_test" })
    }
}

impl Worker {
    pub(crate) fn new(executor: Executor, stage: usize) -> Self {
        Self {
            executor,
            ends: Ends::by_test(),
            running: BTreeMap::new(),
            stopped: Vec::new(),
            started: 0,
            sent_tasks: 0,
            recalls: 0,
            stage,
        }
    }

    /// Does what the executor asks for, and passes on what else there is to do. Returns whether it asked
    /// for anything.
    pub(crate) fn drive(
        &mut self,
        now: Time,
        accepts: Accepts,
        mut deed: impl FnMut(Deed),
    ) -> bool {
        let mut moved = false;
        while let Some(action) = self.executor.poll(now, accepts) {
            moved = true;
            match action {
                ExecutorAction::Start(start) => {
                    if let Some(run) = self.start(start) {
                        deed(Deed::Run(run));
                    }
                }
                ExecutorAction::Stop(stop) => self.stopped.push((stop.seq.0, stop.attempt.0)),
                ExecutorAction::Transmit(message) => deed(Deed::Send(message)),
            }
        }
        moved
    }

    /// Starts a task. Returns its run, unless it has ended or a test ends it.
    fn start(&mut self, start: Start) -> Option<Run> {
        self.started += 1;
        let slot = start.slot.0;
        let Some(rule) = &self.ends.0 else {
            self.running.insert(slot, start);
            return None;
        };
        let (takes, outcome) = rule(&start.task);
        if takes.is_zero() {
            self.end(slot, RUN_US, outcome);
            return None;
        }
        self.running.insert(slot, start);
        Some(Run { slot, takes, outcome })
    }

    /// Ends the task in a slot after it has run for this time in µs.
    pub(crate) fn finish(&mut self, slot: u32, ran_us: u64, outcome: Outcome) {
        self.running.remove(&slot).expect("a task runs there");
        self.end(slot, ran_us, outcome);
    }

    fn end(&mut self, slot: u32, ran_us: u64, outcome: Outcome) {
        let (slot, started_us, reported) = (Slot(slot), 1, None);
        self.executor.handle_finished(Finished { slot, started_us, ran_us, outcome, reported });
    }
}
