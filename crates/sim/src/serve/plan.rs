//! Plan of a queue: what is submitted, asked for and done to it.

use std::time::Duration;

use fastrand::Rng;
use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::TaskLimits;
use tradewind_store::{ControlOptions, Keep, LogOptions, RecordOptions, TasksOptions};

use crate::faults::{Fault, Link, Who};
use crate::plan::{Fate, Plan, TaskPlan};

/// A queue as the seed has it.
#[derive(Clone, Debug)]
pub struct QueuePlan {
    /// Tasks that are wished for, each once or more.
    pub wishes: Vec<Wish>,
    /// Those who submit them.
    pub submitters: Vec<SubmitterPlan>,
    /// What is asked for and done, with times in microseconds.
    pub asks: Vec<(u64, Ask)>,
    /// Time from which nothing is asked for any more.
    pub calm_at: u64,
    /// How long records are kept.
    pub keep: Option<KeepPlan>,
    /// Whether the key of a task that is removed is forgotten: `unique = "stored"`.
    pub forgets_keys: bool,
    /// Whether a promise is synced first: not with `fsync = "none"`.
    pub is_synced: bool,
    pub(crate) sizes: Sizes,
}

/// Sizes of logs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) tasks: TasksOptions,
    pub(crate) records: RecordOptions,
    pub(crate) control: ControlOptions,
}

/// A task that is wished for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The task.
    pub task: TaskPlan,
    /// Its key. Two wishes with the same one are two tasks of which only one can be there.
    pub key: Option<usize>,
    /// Limits of its own.
    pub limits: TaskLimits,
}

/// One who submits.
#[derive(Clone, Debug)]
pub struct SubmitterPlan {
    /// Its start, in microseconds.
    pub starts_at: u64,
    /// Longest time between two requests, in microseconds.
    pub gap_us: u64,
    /// Requests, of wishes by their places.
    pub requests: Vec<Vec<usize>>,
    /// Times of a hundred that it dies when it has sent a request, and begins again.
    pub dies_percent: u8,
}

/// How long records are kept.
#[derive(Clone, Copy, Debug)]
pub enum KeepPlan {
    /// At least this long.
    Time(Duration),
    /// As many as fit into these bytes.
    Bytes(u64),
    /// Until they are consumed.
    Consumed,
}

/// Something that is asked for, or done.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// Cancels a task: dice say which.
    Cancel(u64),
    /// Pauses the queue, or lets it go on.
    Pause(bool),
    /// Sets limits for tasks.
    Policy {
        /// Number of retries.
        retries: u32,
        /// Number of tasks that may be out.
        max_running: Option<u64>,
    },
    /// A consumer has read some of the records: dice say how many.
    Consume(u64),
    /// What is not needed any more is removed.
    Trim,
    /// Somebody wants a task to be run again: dice say which.
    Retry(u64),
    /// Somebody wants all tasks to be run again that have failed.
    RetryFailed,
    /// The disk has room for this many bytes more for a while.
    Full {
        /// Room in bytes.
        room: u64,
        /// Length in microseconds.
        lasts_us: u64,
    },
    /// The process dies.
    Die {
        /// Number of changes of the disk after which it does; `None`: at once.
        after: Option<u64>,
        /// Whether its machine dies with it.
        is_machine: bool,
    },
    /// All is well from now on.
    Calm,
}

const SECOND: u64 = 1_000_000;

/// Number of wishes, so that many worlds can be played.
const WISHES_MAX: usize = 300;

impl QueuePlan {
    /// Returns the records to keep, by the position from which the consumer reads on.
    pub(crate) fn keep(&self, consumed: Option<u64>) -> Option<Keep> {
        match self.keep? {
            KeepPlan::Time(time) => Some(Keep::Time(time)),
            KeepPlan::Bytes(bytes) => Some(Keep::Bytes(bytes)),
            KeepPlan::Consumed => Some(Keep::Consumed(consumed?)),
        }
    }

    /// Has tasks run again that were, by dice of their own.
    fn add_retries(&mut self, rng: &mut Rng, span: u64) {
        if rng.bool() {
            return;
        }
        let until = self.calm_at.max(2 * span) + 1;
        let mut asks = Vec::new();
        for _ in 0..rng.usize(0..8) {
            asks.push((rng.u64(0..until), Ask::Retry(rng.u64(..))));
        }
        for _ in 0..rng.usize(0..4) {
            let at = rng.u64(0..until);
            // Now and then the command is run again at once.
            let again = at + rng.u64(0..2_000_000);
            let ats = if rng.u8(0..3) == 0 { vec![at, again.min(until)] } else { vec![at] };
            asks.extend(ats.into_iter().map(|at| (at, Ask::RetryFailed)));
        }
        let calm = self.asks.pop();
        self.asks.extend(asks);
        self.asks.sort_by_key(|(at, _)| *at);
        self.calm_at = self.calm_at.max(self.asks.last().map_or(0, |(at, _)| *at));
        self.asks.extend(calm.map(|(_, ask)| (self.calm_at, ask)));
    }

    /// Returns the lowest and the highest number of retries that ever hold, with these of the beginning.
    pub(crate) fn retries(&self, first: u32) -> (u32, u32) {
        let set = self.asks.iter().filter_map(|(_, ask)| match ask {
            Ask::Policy { retries, .. } => Some(*retries),
            _ => None,
        });
        set.fold((first, first), |(least, most), retries| (least.min(retries), most.max(retries)))
    }
}

impl Plan {
    /// The world of this seed, with a queue instead of a job.
    #[must_use]
    pub fn with_queue(seed: u64) -> Self {
        let mut plan = Self::with_queue_of_wishes(seed);
        let span = plan.bound_us();
        let Some(queue) = &mut plan.queue else { return plan };
        let mut rng = Rng::with_seed(seed ^ 0x0000_2e72);
        queue.add_retries(&mut rng, span);
        queue.is_synced = rng.u8(0..5) > 0;
        plan.calm_at = plan.calm_at.max(queue.calm_at);
        plan
    }

    /// The same world, in which nobody wants tasks to be run again, and all is synced.
    pub(crate) fn with_queue_of_wishes(seed: u64) -> Self {
        let mut plan = Self::without_troubles(seed);
        let mut rng = Rng::with_seed(seed ^ 0x0005_e47e);
        plan.become_one_stage(&mut rng);
        let queue = plan.draw_queue(&mut rng);
        plan.calm_at = plan.calm_at.max(queue.calm_at);
        plan.queue = Some(queue);
        plan
    }

    fn become_one_stage(&mut self, rng: &mut Rng) {
        (self.order, self.stages, self.is_fair) = (Order::Completion, 1, false);
        self.seats.iter_mut().for_each(|seat| seat.stage = 0);
        self.at_end.clear();
        // The two are one process, and what becomes of that is drawn elsewhere.
        self.faults.retain(|(_, fault)| match fault {
            Fault::Cut(link) | Fault::Partition { link, .. } => {
                !matches!(link, Link::Job(_) | Link::Receipts(_))
            }
            Fault::Hang { who, .. } | Fault::ClockJump { who, .. } | Fault::Inject { who, .. } => {
                !matches!(who, Who::Relay(_))
            }
            Fault::Restart { .. } | Fault::SecondSink { .. } | Fault::Drain | Fault::Cancel => {
                false
            }
            _ => true,
        });
        let count = self.tasks.len().min(WISHES_MAX);
        self.tasks.truncate(count);
        while self.tasks.len() < 8 {
            self.tasks.push(TaskPlan {
                payload_bytes: rng.usize(0..40),
                output_bytes: rng.usize(0..40),
                run_us: rng.u64(1..=100_000),
                fate: Fate::FailsUpTo(0),
                fate_stage: 0,
            });
        }
        for task in &mut self.tasks {
            task.fate_stage = 0;
            if matches!(task.fate, Fate::Unfit) {
                task.fate = Fate::Skips;
            }
        }
        (self.input_chunk, self.input_gap_us) = (rng.u64(1..64), rng.u64(0..1_000));
        self.settle_faults();
        self.is_safe = false;
    }

    fn draw_queue(&mut self, rng: &mut Rng) -> QueuePlan {
        let span = (self.bound_us() as f64 * (0.3 + 3.0 * rng.f64())) as u64;
        let span = span.clamp(200_000, 40 * SECOND);
        let keyed_percent = [0, 30, 100][rng.usize(0..3)];
        let limited_percent = [0, 0, 50][rng.usize(0..3)];
        let mut wishes: Vec<Wish> = Vec::new();
        for (place, task) in self.tasks.iter().enumerate() {
            let is_keyed = rng.u8(0..100) < keyed_percent;
            // Now and then the key is that of another.
            let rival = rng.usize(0..=place);
            let rival = wishes.get(rival).and_then(|wish| wish.key).filter(|_| rng.u8(0..20) == 0);
            let is_limited = rng.u8(0..100) < limited_percent;
            let timeout_us = rng.u64(task.run_us / 2..=2 * task.run_us).next_power_of_two();
            let limits = TaskLimits {
                retries: (is_limited && rng.bool()).then(|| rng.u32(0..5)),
                timeout: (is_limited && rng.bool()).then(|| Duration::from_micros(timeout_us)),
            };
            wishes.push(Wish {
                task: *task,
                key: is_keyed.then(|| rival.unwrap_or(place)),
                limits,
            });
        }
        let submitters = draw_submitters(rng, &wishes, span);
        let asks = self.draw_asks(rng, span, wishes.len());
        let calm_at = asks.last().map_or(0, |(at, _)| *at);
        let keep = match rng.u8(0..6) {
            0..3 => None,
            3 => Some(KeepPlan::Time(Duration::from_micros(rng.u64(1..=20 * SECOND)))),
            4 => Some(KeepPlan::Bytes(rng.u64(500..20_000))),
            _ => Some(KeepPlan::Consumed),
        };
        let forgets_keys = rng.u8(0..4) == 0;
        QueuePlan {
            wishes,
            submitters,
            asks,
            calm_at,
            keep,
            forgets_keys,
            is_synced: true,
            sizes: sizes(rng),
        }
    }

    fn draw_asks(&self, rng: &mut Rng, span: u64, tasks: usize) -> Vec<(u64, Ask)> {
        let mut asks = Vec::new();
        let mut end = 0;
        let mut add = |at: u64, lasts_us: u64, ask: Ask| {
            asks.push((at, ask));
            end = end.max(at + lasts_us);
        };
        if rng.u8(0..100) < 60 {
            for _ in 0..rng.usize(1..=tasks.clamp(2, 30)) {
                add(rng.u64(0..span), 0, Ask::Cancel(rng.u64(..)));
            }
        }
        if rng.u8(0..100) < 40 {
            for _ in 0..rng.usize(1..4) {
                let at = rng.u64(0..span);
                add(at, 0, Ask::Pause(true));
                let lasts_us = rng.u64(0..span);
                add(at + lasts_us, 0, Ask::Pause(false));
            }
        }
        if rng.u8(0..100) < 30 {
            for _ in 0..rng.usize(1..4) {
                let max_running = rng.bool().then(|| rng.u64(1..8));
                let ask = Ask::Policy { retries: rng.u32(0..4), max_running };
                add(rng.u64(0..span), 0, ask);
            }
        }
        for _ in 0..rng.usize(0..12) {
            add(rng.u64(0..2 * span), 0, Ask::Consume(rng.u64(..)));
        }
        for _ in 0..rng.usize(0..20) {
            add(rng.u64(0..2 * span), 0, Ask::Trim);
        }
        if rng.u8(0..100) < 25 {
            for _ in 0..rng.usize(1..4) {
                let (room, lasts_us) = (rng.u64(0..2_000), rng.u64(0..=span));
                add(rng.u64(0..span), lasts_us, Ask::Full { room, lasts_us });
            }
        }
        if rng.u8(0..100) < 75 {
            for _ in 0..rng.usize(1..12) {
                let most = [4, 40][rng.usize(0..2)];
                let after = rng.bool().then(|| rng.u64(0..most));
                let is_machine = rng.u8(0..3) > 0;
                add(rng.u64(0..2 * span), 16 * SECOND, Ask::Die { after, is_machine });
            }
        }
        asks.sort_by_key(|(at, _)| *at);
        asks.push((end, Ask::Calm));
        asks
    }
}

fn draw_submitters(rng: &mut Rng, wishes: &[Wish], span: u64) -> Vec<SubmitterPlan> {
    let count = rng.usize(1..=4);
    let dies_percent = [0, 10, 40][rng.usize(0..3)];
    let gap_us = [1_000, span / 4, span][rng.usize(0..3)];
    let draw = |rng: &mut Rng| SubmitterPlan {
        starts_at: rng.u64(0..=span / 2),
        gap_us: gap_us / wishes.len() as u64 + 1,
        requests: vec![Vec::new()],
        dies_percent,
    };
    let mut submitters: Vec<SubmitterPlan> = (0..count).map(|_| draw(rng)).collect();
    let size_max = [1, 4, 30][rng.usize(0..3)];
    for (place, wish) in wishes.iter().enumerate() {
        let mut to: Vec<usize> = vec![rng.usize(0..count)];
        // What has a key may be wished for by two, or by one again later.
        if wish.key.is_some() && rng.u8(0..4) == 0 {
            to.push(rng.usize(0..count));
        }
        for submitter in to {
            let requests = &mut submitters[submitter].requests;
            if requests.last().is_some_and(|last| last.len() >= rng.usize(1..=size_max)) {
                requests.push(Vec::new());
            }
            requests.last_mut().expect("there is one").push(place);
        }
    }
    for submitter in &mut submitters {
        submitter.requests.retain(|request| !request.is_empty());
        // And all of it again when it may be done, with the same keys.
        let again: Vec<Vec<usize>> = submitter.requests.clone();
        let is_keyed = |request: &Vec<usize>| request.iter().all(|at| wishes[*at].key.is_some());
        if rng.bool() {
            submitter.requests.extend(again.into_iter().filter(is_keyed));
        }
    }
    submitters
}

fn sizes(rng: &mut Rng) -> Sizes {
    let mut log = |least: u64, most: u64| LogOptions {
        segment_bytes: rng.u64(least..most),
        zeroed_bytes: rng.u64(0..400),
    };
    let tasks = TasksOptions { log: log(200, 3_000), keys: log(200, 2_000), keys_max: 1 << 20 };
    let records = log(300, 6_000);
    let control = ControlOptions { log: log(300, 3_000), changes_bytes_min: 500 };
    Sizes { tasks, records: RecordOptions { log: records, index_seqs: rng.u64(1..64) }, control }
}
