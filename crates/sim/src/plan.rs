//! Plan of a world, drawn from the seed before anything runs.

use std::collections::BTreeMap;

use fastrand::Rng;
use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::TaskLimits;
use tradewind_proto::limits::LOSSES_MAX;
use tradewind_records::Format;

use crate::event::Stage;

pub use crate::faults::{Fault, Link, Trunk, Who};
pub use crate::serve::plan::QueuePlan;

/// A world as the seed has it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed from which it was drawn.
    pub seed: u64,
    /// Order of the output.
    pub order: Order,
    /// Format of its records.
    pub format: Format,
    /// Whether records are synced before they count as stored: `--fsync batch`.
    pub is_synced: bool,
    /// Number of retries of a failed task.
    pub retries: u32,
    /// Longest run time of an attempt, in microseconds.
    pub timeout_us: Option<u64>,
    /// Whether attempts end that take ten times the median instead. None does by itself.
    pub has_percent_timeout: bool,
    /// Tasks of the input.
    pub tasks: Vec<TaskPlan>,
    /// Number of tasks that the input has at a time.
    pub input_chunk: u64,
    /// Wait between two chunks of input, in microseconds.
    pub input_gap_us: u64,
    /// Number of stages.
    pub stages: usize,
    /// Seats of workers, one at a time in each; in each stage is one whose worker always comes back.
    pub seats: Vec<SeatPlan>,
    /// The shortest and the longest way of a message, in microseconds.
    pub delay_us: (u64, u64),
    /// The shortest and the longest group commit, in microseconds.
    pub write_us: (u64, u64),
    /// Time within which either end of a connection notices its loss, in microseconds.
    pub notice_us_max: u64,
    /// Faults, with their times in microseconds.
    pub faults: Vec<(u64, Fault)>,
    /// Faults after everything is stored, with their times after that in microseconds.
    pub at_end: Vec<(u64, Fault)>,
    /// Time after which a process gives up one that it cannot reach, in microseconds.
    pub connect_timeout_us: Option<u64>,
    /// Time from which nothing goes wrong, in microseconds.
    pub calm_at: u64,
    /// Whether no worker has a reason to be declared lost.
    pub is_safe: bool,
    /// Whether the job's time can be held against perfect sharing.
    pub is_fair: bool,
    /// Number of lost workers after which a task is recorded as `lost`.
    pub losses_max: u32,
    /// Bytes a second that a worker's connection to the sink carries.
    pub result_rate: Option<u64>,
    /// Whether no worker dies but of its task, and none is silent for long: only such tasks are lost.
    pub is_bloodless: bool,
    /// Whether no task fails by its own fault, and there is a worker that does them well.
    pub is_sparing: bool,
    /// The sink keeps the key of the tags nowhere: each of its processes has another one.
    pub is_keyless: bool,
    /// By seq, the limits that tasks have of their own.
    pub own_limits: BTreeMap<u64, TaskLimits>,
    /// Queue that is played instead of a job. Tasks are there when they are submitted.
    pub queue: Option<QueuePlan>,
}

/// A task as the seed has it.
#[derive(Clone, Copy, Debug)]
pub struct TaskPlan {
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// Bytes of its output.
    pub output_bytes: usize,
    /// Run time on a worker of full speed, in microseconds.
    pub run_us: u64,
    /// End of the task in that stage.
    pub fate: Fate,
    /// Stage of its fate; it ends well in all others.
    pub fate_stage: usize,
}

/// End of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Fails up to this attempt, which may be none, then ends well.
    FailsUpTo(u32),
    /// Cannot be sent to any worker.
    Unfit,
    /// Kills the worker that runs it.
    Poison,
    /// Its handler says that it ends there.
    Skips,
}

/// A place where a worker runs.
#[derive(Clone, Copy, Debug)]
pub struct SeatPlan {
    /// Tasks at once.
    pub slots: u32,
    /// The stage that it works in.
    pub stage: usize,
    /// Whether its slots prefetch: tasks lie there behind the one that runs.
    pub is_feeding: bool,
    /// Factor by which its tasks take longer than planned.
    pub slowness: u64,
    /// Start of its first worker, in microseconds.
    pub joins_at: u64,
    /// Trouble of its host.
    pub sickness: Sickness,
}

/// Trouble of a host, up to some time, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sickness {
    /// Nothing.
    None,
    /// Everything fails there at once.
    Fails {
        /// Up to then.
        until_us: u64,
    },
    /// It lacks something that each task needs, beyond a number of tasks.
    Lacks {
        /// Number of tasks that can run at a time.
        slots: u32,
        /// Up to then.
        until_us: u64,
    },
    /// Its worker lies.
    Lies(Lie),
}

/// What a worker does that lies. It runs its tasks all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It makes results of tasks that it was not given, and claims to hold all that there are.
    Forges,
    /// It sends its results again and again, as if they had taken no time.
    Repeats,
    /// It sends heartbeats, and neither results nor what it is asked to hand back.
    Withholds,
}

const SECOND: u64 = 1_000_000;

/// Number of worlds in a hundred that have relays.
const MANY_STAGES_PERCENT: u8 = 40;

/// Number of worlds in a hundred in which tasks are prefetched, in about half of the seats. A prefetched task
/// cannot be reassigned, so that none of these is held against perfect sharing.
const FEEDING_PERCENT: u8 = 30;

/// Worlds of a hundred in which the sink keeps no key.
const KEYLESS_PERCENT: u8 = 10;

impl TaskPlan {
    /// Returns the end of the task in a stage.
    #[must_use]
    pub fn fate_in(&self, stage: usize) -> Fate {
        if stage == self.fate_stage { self.fate } else { Fate::FailsUpTo(0) }
    }
}

impl Plan {
    /// The world of this seed, without what [`new`](Self::new) adds.
    #[must_use]
    pub(crate) fn without_troubles(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let is_calm = rng.u8(0..100) < 15;
        let is_fair = is_calm && rng.bool();
        let retries = rng.u32(0..4);
        // Of every hundred worlds a few are large in some way.
        let (tasks, run_us_max) = match rng.u8(0..100) {
            0..2 => (rng.usize(2_000..6_000), 2_000),
            2..40 => (rng.usize(0..150), 1_000),
            40..75 => (rng.usize(0..120), 100_000),
            75..90 => (rng.usize(0..60), 2 * SECOND),
            _ => (rng.usize(0..25), 20 * SECOND),
        };
        let is_bulky = tasks < 150 && rng.u8(0..100) < 1;
        let timeout_us = (!is_fair && rng.u8(0..100) < 30)
            .then(|| rng.u64(run_us_max / 2..=2 * run_us_max) + 1_000);
        let (failing, unfit, poison) = match rng.u8(0..3) {
            _ if is_fair => (0, 0, 0),
            0 => (0, 0, 0),
            1 => (20, 2, 0),
            _ => (10, 1, 2),
        };
        let mut plan = Self {
            seed,
            order: if rng.bool() { Order::Seq } else { Order::Completion },
            format: if seed % 4 < 2 { Format::Jsonl } else { Format::Lines },
            is_synced: seed.is_multiple_of(2),
            retries,
            timeout_us,
            has_percent_timeout: false,
            tasks: Vec::with_capacity(tasks),
            input_chunk: rng.u64(1..64),
            input_gap_us: 0,
            stages: 1,
            seats: Vec::new(),
            delay_us: if rng.bool() { (30, 300) } else { (200, 20_000) },
            write_us: if rng.bool() { (20, 200) } else { (500, 20_000) },
            notice_us_max: if rng.bool() { 50_000 } else { 30 * SECOND },
            faults: Vec::new(),
            at_end: Vec::new(),
            connect_timeout_us: None,
            calm_at: 0,
            is_safe: is_calm,
            is_fair,
            losses_max: LOSSES_MAX,
            result_rate: None,
            is_bloodless: false,
            is_sparing: false,
            is_keyless: false,
            own_limits: BTreeMap::new(),
            queue: None,
        };
        for _ in 0..tasks {
            let fate = match rng.u8(0..100) {
                dice if dice < poison => Fate::Poison,
                dice if dice < poison + unfit => Fate::Unfit,
                dice if dice < poison + unfit + failing => Fate::FailsUpTo(rng.u32(1..6)),
                _ => Fate::FailsUpTo(0),
            };
            let bytes_max = if is_bulky && rng.u8(0..4) == 0 { 1 << 20 } else { 40 };
            plan.tasks.push(TaskPlan {
                payload_bytes: rng.usize(0..bytes_max),
                output_bytes: rng.usize(0..bytes_max),
                run_us: rng.u64(1..=run_us_max),
                fate,
                fate_stage: 0,
            });
        }
        plan.seat(&mut rng);
        let span = plan.bound_us() + 20 * plan.delay_us.1;
        if !is_fair && rng.bool() {
            plan.input_gap_us = rng.u64(0..=2 * span / (1 + tasks as u64 / plan.input_chunk));
        } else {
            plan.input_chunk = u64::MAX;
        }
        if !is_calm {
            plan.disturb(&mut rng, span);
            plan.restart(&mut rng, span);
        }
        // By dice of their own, so that worlds without these are what they were before.
        let mut rng = Rng::with_seed(seed ^ 0x57a6_e500);
        if rng.u8(0..100) < MANY_STAGES_PERCENT {
            plan.add_stages(&mut rng, span, is_calm);
        }
        plan.is_keyless = Rng::with_seed(seed ^ 0x007a_6500).u8(0..100) < KEYLESS_PERCENT;
        let mut rng = Rng::with_seed(seed ^ 0xfeed);
        if !plan.is_fair && rng.u8(0..100) < FEEDING_PERCENT {
            plan.seats.iter_mut().for_each(|seat| seat.is_feeding = rng.bool());
        }
        plan
    }

    /// A stage by its number.
    pub(crate) fn stage(&self, index: usize) -> Stage {
        Stage { index, is_last: index + 1 == self.stages }
    }

    fn add_stages(&mut self, rng: &mut Rng, span: u64, is_calm: bool) {
        self.is_fair = false;
        self.stages = rng.usize(2..=3);
        while self.seats.len() < self.stages {
            let (slots, joins_at) = (rng.u32(1..=4), rng.u64(0..1_000));
            let is_feeding = false;
            let sickness = Sickness::None;
            let seat = SeatPlan { stage: 0, slots, is_feeding, slowness: 1, joins_at, sickness };
            self.seats.push(seat);
        }
        for (place, seat) in self.seats.iter_mut().enumerate() {
            seat.stage = if place < self.stages { place } else { rng.usize(0..self.stages) };
        }
        let skips = [0, 10, 60][rng.usize(0..3)];
        for task in &mut self.tasks {
            if task.fate == Fate::Unfit {
                continue;
            }
            task.fate_stage = rng.usize(0..self.stages);
            if rng.u8(0..100) < skips {
                task.fate = Fate::Skips;
            }
        }
        for (_, fault) in &mut self.faults {
            fault.move_to_stages(rng, self.stages);
        }
        for relay in 0..self.stages - 1 {
            if is_calm || rng.u8(0..100) < 40 {
                continue;
            }
            for _ in 0..rng.usize(1..4) {
                let is_silent = rng.bool();
                let back_max = [1_000, SECOND, 15 * SECOND][rng.usize(0..3)];
                let (who, back_us) = (Trunk::Relay(relay), rng.u64(0..back_max));
                let fault = Fault::Restart { who, back_us, is_silent };
                self.faults.push((rng.u64(0..(2 * span).max(1)), fault));
            }
        }
        self.settle_faults();
        self.is_safe &= is_calm;
    }

    /// Returns the time that perfect sharing would take, in microseconds.
    #[must_use]
    pub fn bound_us(&self) -> u64 {
        let work: u64 = self.tasks.iter().map(|task| task.run_us).sum();
        let speed: f64 =
            self.seats.iter().map(|seat| f64::from(seat.slots) / seat.slowness as f64).sum();
        (work as f64 / speed) as u64
    }

    /// The longest that a run may take, in microseconds.
    #[must_use]
    pub fn run_us_max(&self) -> u64 {
        let slowness = self.seats.iter().map(|seat| seat.slowness).max().unwrap_or(1);
        let wishes = self.queue.iter().flat_map(|queue| &queue.wishes).map(|wish| &wish.task);
        self.tasks.iter().chain(wishes).map(|task| task.run_us * slowness).max().unwrap_or(0)
    }

    /// The longest that results may take on a slow link, in microseconds.
    pub(crate) fn transfer_us_max(&self) -> u64 {
        // What a stage writes is in what the next one writes.
        let size = |task: &TaskPlan| task.payload_bytes + self.stages * task.output_bytes + 200;
        let bytes: usize = self.tasks.iter().map(size).sum();
        self.result_rate.map_or(0, |rate| 2 * bytes as u64 * SECOND / rate)
    }

    fn seat(&mut self, rng: &mut Rng) {
        let late_max = [1, 1_000, 5 * SECOND][rng.usize(0..3)];
        for _ in 0..rng.usize(1..=6) {
            self.seats.push(SeatPlan {
                stage: 0,
                slots: if rng.bool() { 1 } else { rng.u32(1..=8) },
                is_feeding: false,
                slowness: if rng.bool() { 1 } else { rng.u64(1..=4) },
                joins_at: if self.is_fair { 0 } else { rng.u64(0..late_max) },
                sickness: Sickness::None,
            });
        }
    }

    fn disturb(&mut self, rng: &mut Rng, span: u64) {
        let span = (span as f64 * (0.3 + 3.0 * rng.f64())) as u64;
        let span = span.clamp(5_000, 60 * SECOND);
        let kinds: Vec<u8> = (0..Fault::KINDS).filter(|_| rng.u8(0..100) < 30).collect();
        let count = if kinds.is_empty() { 0 } else { rng.usize(1..25) };
        for _ in 0..count {
            let kind = kinds[rng.usize(0..kinds.len())];
            let fault = Fault::draw(kind, rng, self.seats.len(), span);
            self.faults.push((rng.u64(0..span), fault));
        }
        match rng.u8(0..100) {
            0..6 => self.faults.push((rng.u64(0..span), Fault::Drain)),
            6..12 => self.faults.push((rng.u64(0..span), Fault::Cancel)),
            _ => {}
        }
        self.settle_faults();
    }

    fn restart(&mut self, rng: &mut Rng, span: u64) {
        for who in [Trunk::Sink, Trunk::Ventilator] {
            if rng.u8(0..100) < 60 {
                continue;
            }
            for _ in 0..rng.usize(1..4) {
                let is_silent = rng.bool();
                let back_max = [1_000, SECOND, 15 * SECOND][rng.usize(0..3)];
                let back_us = rng.u64(0..back_max);
                let fault = Fault::Restart { who, back_us, is_silent };
                self.faults.push((rng.u64(0..span.max(1)), fault));
            }
        }
        self.settle_faults();
    }

    pub(crate) fn settle_faults(&mut self) {
        self.faults.sort_by_key(|(at, _)| *at);
        let ends = self.faults.iter().map(|(at, fault)| at + fault.lasts_us());
        self.calm_at = ends.max().unwrap_or(0) + self.notice_us_max;
        // What happens at the end of the job comes at a time that is not known here.
        self.is_safe = self.at_end.is_empty();
        self.is_safe &= self.faults.iter().all(|(_, fault)| fault.is_harmless());
    }
}
