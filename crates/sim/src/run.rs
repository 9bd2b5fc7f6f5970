//! One seed, from its beginning to its end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use tradewind_proto::JobId;
use tradewind_proto::dispatcher::Ended;
use tradewind_proto::limits::FORGOTTEN_MAX;

use crate::check::Check;
use crate::event::Queue;
use crate::mutation::Mutation;
use crate::plan::Plan;
use crate::relay::RelayNode;
use crate::serve::Serve;
use crate::sink::Sink;
use crate::ventilator::Ventilator;
use crate::world::{Trace, World};

/// Settings of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A bug to plant.
    pub mutation: Option<Mutation>,
    /// Some tasks have limits of their own.
    pub has_own_limits: bool,
    /// There is a queue instead of a job.
    pub is_queue: bool,
    /// Keep a line for each event.
    pub trace: bool,
}

/// Result of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The first violation of the promise, if there was one.
    pub violation: Option<String>,
    /// Made of everything that happened.
    pub hash: u64,
    /// Events that happened.
    pub events: u64,
    /// Records that were written.
    pub records: u64,
    /// Runs that were not their task's first.
    pub reruns: u64,
    /// Records that say `lost`.
    pub lost: u64,
    /// A line for each event, if they were asked for.
    pub lines: Vec<String>,
}

/// Time after which there is progress, once nothing goes wrong: a late notice, a worker's timeout, the
/// longest backoff.
const PATIENCE_US: u64 = 120_000_000;

/// Time after which all have left, once the job is over: a worker that has missed the end waits longest.
const LEAVING_US: u64 = FORGOTTEN_MAX.as_micros() as u64;

/// Worlds that go on for longer than this never end.
const EVENTS_MAX: u64 = 2_000_000;

/// Runs the world of a seed to its end.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    let plan = match options {
        Options { is_queue: true, .. } => Plan::with_queue(seed),
        Options { has_own_limits: true, .. } => Plan::with_own_limits(seed),
        _ => Plan::new(seed),
    };
    run_plan(plan, seed, options)
}

/// Runs a world to its end.
#[must_use]
pub(crate) fn run_plan(plan: Plan, seed: u64, options: Options) -> Report {
    let mut world = World::new(plan, seed, options);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let panic = outcome.err().map(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("panicked: {}", text.unwrap_or("with something that is no text"))
    });
    Report {
        violation: panic.or_else(|| world.check.violation().map(str::to_owned)),
        hash: world.trace.hash,
        events: world.trace.events,
        records: world.check.records(),
        reruns: world.check.reruns(),
        lost: world.check.lost_records(),
        lines: world.trace.lines.unwrap_or_default(),
    }
}

impl World {
    fn new(mut plan: Plan, seed: u64, options: Options) -> Self {
        let seats = plan.seats.len();
        let check = Check::new(&plan);
        let queue = plan.queue.clone();
        if queue.is_some() {
            // They are there when they are submitted.
            plan.tasks.clear();
        }
        let serve = queue.map(|queue| Box::new(Serve::new(queue, seed, options.mutation)));
        Self {
            serve,
            now: 0,
            queue: Queue::default(),
            rng: Rng::with_seed(!seed),
            check,
            mutation: options.mutation,
            connections: Vec::new(),
            ventilator: Ventilator::new(&plan, seed),
            sink: Sink::new(&plan, seed),
            relays: (0..plan.stages - 1).map(|place| RelayNode::new(&plan, place, 0)).collect(),
            workers: Vec::new(),
            seats_left: Vec::new(),
            was_stored: false,
            dialling: Vec::new(),
            given_up: Vec::new(),
            blocked_tasks: vec![0; seats],
            blocked_results: vec![0; seats],
            blocked_trunk: vec![0; plan.stages],
            cuts_due: vec![0; seats],
            holes: vec![(0, 0); seats],
            slow_network: (0, 0),
            slow_disk_until: 0,
            trace: Trace { lines: options.trace.then(Vec::new), ..Trace::default() },
            plan,
        }
    }

    fn run(&mut self) {
        let plan = format!("{:?}", Summary(&self.plan));
        self.trace.say(0, || plan);
        self.start();
        let stages = self.plan.stages as u64;
        let longest = self.plan.run_us_max() * stages + self.plan.input_gap_us;
        let longest = longest + self.plan.transfer_us_max() * stages;
        while self.check.violation().is_none() && !self.is_over() && self.step() {
            let last = self.check.last_progress().max(self.plan.calm_at);
            let leaving = if self.is_job_over() { LEAVING_US } else { 0 };
            if self.now > last + PATIENCE_US + longest + leaving {
                let records = self.check.records();
                let state = self.ventilator.dispatcher.snapshot();
                let relays: Vec<_> =
                    self.relays.iter().map(|node| node.relay.downstream().snapshot()).collect();
                self.check.fail(|| {
                    let left = (self.ventilator.has_left, self.sink.has_left);
                    format!(
                        "nothing goes on after {records} records: {state:?}, {relays:?}; \
                         ventilator and sink have left: {left:?}"
                    )
                });
            }
            if self.trace.events > EVENTS_MAX {
                self.check.fail(|| "the world never ends".to_owned());
            }
        }
        if self.check.violation().is_none() {
            self.check_end();
        }
    }

    /// Returns whether a process knows that the job is over, and has left for it.
    pub(crate) fn is_job_over(&self) -> bool {
        self.ventilator.has_left || self.sink.has_left
    }

    /// Has everybody left? One that was started again when the others had left knows no job, and waits
    /// for one: that is what it was started for.
    fn is_over(&self) -> bool {
        if self.serve.is_some() {
            return self.is_queue_over();
        }
        let Self { ventilator, sink, relays, workers, .. } = self;
        let knows_none = |job: Option<JobId>| job.is_none();
        self.is_job_over()
            && ventilator.has_left
            && (sink.has_left || sink.is_alive && knows_none(sink.collector.job()))
            && relays.iter().all(|node| {
                node.has_left || node.is_alive && knows_none(node.relay.upstream().job())
            })
            && workers.iter().all(|worker| {
                !worker.is_alive
                    || worker.farewell.had_ventilator() && worker.executor.job().is_none()
            })
    }

    fn check_end(&mut self) {
        if self.serve.is_some() {
            if let Some(problem) = self.judge_queue() {
                self.check.fail(|| problem);
            }
            return;
        }
        if !self.is_over() {
            self.check.fail(|| "nothing happens any more, and somebody is left".to_owned());
        }
        let dispatcher = &self.ventilator.dispatcher;
        let ended = dispatcher.ended().cloned();
        if ended != Some(Ended::Complete) {
            self.check.fail(|| format!("the job ended as {ended:?}"));
        }
        self.check.complete(dispatcher.snapshot().total.unwrap_or(u64::MAX));
        if let Some(problem) = self.judge_output() {
            self.check.fail(|| problem);
        }
        if self.plan.is_fair {
            self.check_fair();
        }
    }

    /// No worker stood idle while another had more than it could do.
    fn check_fair(&mut self) {
        let bound = self.plan.bound_us();
        let (_, delay) = self.plan.delay_us;
        let (_, write) = self.plan.write_us;
        // A window that begins with one task takes some ten rounds of three messages until it covers the way.
        let slack = 2 * self.plan.run_us_max() + 35 * (delay + write);
        let allowed = (bound as f64 * 1.3) as u64 + slack;
        let took = self.check.last_record();
        if took > allowed {
            self.check.fail(|| format!("the job took {took} µs where {bound} µs are possible"));
        }
    }
}

/// A plan without the list of its tasks.
struct Summary<'a>(&'a Plan);

impl std::fmt::Debug for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plan = self.0;
        f.debug_struct("Plan")
            .field("order", &plan.order)
            .field("tasks", &plan.tasks.len())
            .field("retries", &plan.retries)
            .field("timeout_us", &plan.timeout_us)
            .field("has_percent_timeout", &plan.has_percent_timeout)
            .field("stages", &plan.stages)
            .field("seats", &plan.seats)
            .field("delay_us", &plan.delay_us)
            .field("notice_us_max", &plan.notice_us_max)
            .field("faults", &plan.faults)
            .field("calm_at", &plan.calm_at)
            .finish_non_exhaustive()
    }
}
