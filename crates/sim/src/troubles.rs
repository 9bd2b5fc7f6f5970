//! Worlds in which something is half right: links that are slow, lanes that end or swallow what is
//! large, a task that kills among others that do not, hosts at which everything fails.
//!
//! Drawn by dice of their own, after all else: without them a world is what it was before.

use std::time::Duration;

use fastrand::Rng;
use tradewind_proto::dispatcher::TaskLimits;

use crate::faults::{Fault, Link, Trunk};
use crate::plan::{Fate, Lie, Plan, SeatPlan, Sickness, TaskPlan};

const SECOND: u64 = 1_000_000;

/// Worlds of a hundred that have stragglers, of those that are neither fair nor large already.
const STRAGGLERS_PERCENT: u8 = 2;

/// Worlds of a hundred in which workers lie, of those that are neither fair nor large.
const LIARS_PERCENT: u8 = 6;

/// Time within which either end of a connection notices its loss, where it matters that a worker is
/// not silent for long.
const NOTICE_US_MAX: u64 = 50_000;

impl Plan {
    /// The world of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut plan = Self::without_stragglers(seed);
        let mut rng = Rng::with_seed(seed ^ 0x57a6_61e5);
        if !plan.is_fair && plan.tasks.len() < 150 && rng.u8(0..100) < STRAGGLERS_PERCENT {
            plan.add_stragglers(&mut rng);
        }
        let mut rng = Rng::with_seed(seed ^ 0x0011_a125);
        if !plan.is_fair && plan.tasks.len() < 150 && rng.u8(0..100) < LIARS_PERCENT {
            plan.add_liars(&mut rng);
        }
        plan
    }

    /// The world of this seed, where some tasks have limits of their own.
    #[must_use]
    pub fn with_own_limits(seed: u64) -> Self {
        let mut plan = Self::new(seed);
        let mut rng = Rng::with_seed(seed ^ 0x0000_11a1);
        let percent = [10, 50, 100][rng.usize(0..3)];
        for (seq, task) in (0..).zip(&plan.tasks) {
            if rng.u8(0..100) < percent {
                let retries = rng.bool().then(|| rng.u32(0..6));
                // Of a few lengths, so that neighbours may have the same.
                let timeout_us = rng.u64(task.run_us / 2..=2 * task.run_us).next_power_of_two();
                let timeout = rng.bool().then(|| Duration::from_micros(timeout_us));
                plan.own_limits.insert(seq, TaskLimits { retries, timeout });
            }
        }
        (plan.is_fair, plan.is_sparing) = (false, false);
        plan
    }

    /// Beside honest workers there are some that lie.
    fn add_liars(&mut self, rng: &mut Rng) {
        // A worker owes a result only where tasks have a timeout. Short ones: it is lost again and again.
        let withholds = self.timeout_us.is_some();
        self.timeout_us = self.timeout_us.map(|timeout| timeout.min(3 * SECOND));
        if withholds {
            self.tasks.iter_mut().for_each(|task| task.run_us = task.run_us.min(2 * SECOND));
        }
        for _ in 0..rng.usize(1..=2) {
            let lie = match rng.u8(0..3) {
                // On a slow link that would be withholding, without a timeout to end it.
                0 if self.result_rate.is_none() => Lie::Repeats,
                1 if withholds => Lie::Withholds,
                _ => Lie::Forges,
            };
            self.seats.push(SeatPlan {
                slots: rng.u32(1..=8),
                stage: rng.usize(0..self.stages),
                is_feeding: false,
                slowness: 1,
                joins_at: rng.u64(0..1_000),
                sickness: Sickness::Lies(lie),
            });
        }
        self.is_safe = false;
        self.is_sparing = false;
    }

    /// The world of this seed, as it was before there were stragglers.
    fn without_stragglers(seed: u64) -> Self {
        let mut plan = Self::without_troubles(seed);
        let mut rng = Rng::with_seed(seed ^ 0x7071_b1e5);
        let dice = rng.u8(0..100);
        if plan.is_fair {
            return plan;
        }
        match dice {
            0..10 => plan.add_guilty(&mut rng),
            10..20 => plan.make_hosts_sick(&mut rng),
            20..27 => plan.slow_links_down(&mut rng),
            27..36 => plan.break_lanes(&mut rng),
            36..40 => plan.add_second_sink(&mut rng),
            40..54 => plan.end_badly(&mut rng),
            _ => {}
        }
        plan
    }

    /// A few tasks take longer than thousands of others together, while programs are started again.
    fn add_stragglers(&mut self, rng: &mut Rng) {
        self.tasks.truncate(20);
        self.timeout_us = None;
        (self.input_chunk, self.input_gap_us) = (u64::MAX, 0);
        let longest = rng.u64(SECOND..20 * SECOND);
        let plain = |run_us| TaskPlan {
            payload_bytes: 8,
            output_bytes: 8,
            run_us,
            fate: Fate::FailsUpTo(0),
            fate_stage: 0,
        };
        self.tasks.extend((0..rng.usize(1..=3)).map(|_| plain(longest)));
        self.tasks.extend((0..rng.usize(2_000..5_000)).map(|_| plain(rng.u64(1..=1_000))));
        for who in [Trunk::Sink, Trunk::Ventilator] {
            if rng.bool() {
                // Workers that do not learn of it send to a process that is gone, and are lost for that.
                let is_sparing = self.is_sparing || self.is_bloodless;
                let (back_us, is_silent) = (rng.u64(0..SECOND), rng.bool() && !is_sparing);
                self.faults.push((rng.u64(0..longest), Fault::Restart { who, back_us, is_silent }));
            }
        }
        self.settle_faults();
    }

    fn calm_down(&mut self) {
        self.faults.clear();
        self.settle_faults();
    }

    /// No worker dies but of its task, and none is silent for long.
    fn spare_workers(&mut self) {
        self.faults.retain(|(_, fault)| fault.is_harmless());
        self.notice_us_max = self.notice_us_max.min(NOTICE_US_MAX);
        self.is_bloodless = true;
        self.settle_faults();
    }

    /// Some tasks kill their worker, at once or after a while, with whatever runs beside them.
    fn add_guilty(&mut self, rng: &mut Rng) {
        self.losses_max = rng.u32(1..=4);
        if rng.u8(0..4) > 0 {
            self.spare_workers();
        }
        for seat in &mut self.seats {
            seat.slots = rng.u32(1..=8);
        }
        let count = self.tasks.len().min(60);
        self.tasks.truncate(count);
        let is_quick = rng.bool();
        for _ in 0..rng.usize(1..=3).min(count) {
            let task = &mut self.tasks[rng.usize(0..count)];
            task.fate = Fate::Poison;
            if is_quick {
                task.run_us = 1;
            }
        }
    }

    /// Beside a worker that is well there are some that are not, in each stage.
    fn make_hosts_sick(&mut self, rng: &mut Rng) {
        self.calm_down();
        // What a host lacks needs no retry.
        let is_failing = rng.bool();
        self.retries = if is_failing { self.retries.max(1) } else { 0 };
        (self.timeout_us, self.is_sparing) = (None, true);
        for task in &mut self.tasks {
            if task.fate != Fate::Skips {
                task.fate = Fate::FailsUpTo(0);
            }
        }
        for (place, seat) in self.seats.iter_mut().enumerate() {
            if place < self.stages {
                (seat.joins_at, seat.stage) = (0, place);
            }
        }
        // Each of them may have failed it once.
        let most = if is_failing { rng.u32(1..=2).min(self.retries) } else { 2 };
        for stage in 0..self.stages {
            for _ in 0..most {
                let until_us = if rng.bool() { u64::MAX } else { rng.u64(0..60 * SECOND) };
                let slots = rng.u32(1..=8);
                let sickness = match rng.u8(0..if is_failing { 4 } else { 2 }) {
                    0 => Sickness::Lacks { slots: 0, until_us },
                    1 => Sickness::Lacks { slots: rng.u32(0..slots), until_us },
                    _ => Sickness::Fails { until_us },
                };
                let joins_at = SECOND + rng.u64(0..2 * SECOND);
                let (is_feeding, slowness) = (false, 1);
                self.seats.push(SeatPlan {
                    slots,
                    stage,
                    is_feeding,
                    slowness,
                    joins_at,
                    sickness,
                });
            }
        }
    }

    /// Results travel so slowly that a large one takes longer than any timeout.
    fn slow_links_down(&mut self, rng: &mut Rng) {
        if rng.bool() {
            self.spare_workers();
        }
        let count = self.tasks.len().min(100);
        self.tasks.truncate(count);
        self.result_rate = Some(rng.u64(1_000..4_000));
        for task in &mut self.tasks {
            task.payload_bytes = task.payload_bytes.min(1_000);
            task.output_bytes = task.output_bytes.min(1_000);
        }
        for _ in 0..rng.usize(1..=3).min(count) {
            self.tasks[rng.usize(0..count)].output_bytes = rng.usize(10_000..40_000);
        }
    }

    /// Lanes end while a task is on its way, or swallow what is large and all that follows.
    fn break_lanes(&mut self, rng: &mut Rng) {
        self.spare_workers();
        let span = (self.bound_us() + 20 * self.delay_us.1).clamp(5_000, 60 * SECOND);
        for _ in 0..rng.usize(1..8) {
            let seat = rng.usize(0..self.seats.len());
            let fault = if rng.u8(0..3) > 0 {
                Fault::CutWhenSent { seat, count: rng.u32(1..=4) }
            } else {
                let lasts_us = rng.u64(0..=span);
                Fault::Hole { seat, bytes: rng.usize(40..120), lasts_us }
            };
            self.faults.push((rng.u64(0..span), fault));
        }
        self.settle_faults();
    }

    /// Lets faults fall at the end, when some know of it and others do not: processes die then and
    /// are back when the others have left, workers miss it, are all asked to leave, or one asks again.
    fn end_badly(&mut self, rng: &mut Rng) {
        if rng.bool() {
            self.calm_down();
        }
        if rng.u8(0..4) == 0 {
            self.connect_timeout_us = Some(rng.u64(2 * SECOND..8 * SECOND));
        }
        let span = (self.bound_us() + 20 * self.delay_us.1).clamp(5_000, 60 * SECOND);
        for _ in 0..rng.usize(1..=3) {
            let soon = rng.u64(0..2 * (self.delay_us.1 + self.write_us.1));
            let lasts_us = rng.u64(0..40 * SECOND);
            match rng.u8(0..6) {
                0 | 1 => {
                    let who = match rng.u8(0..4) {
                        0 => Trunk::Ventilator,
                        1 => Trunk::Sink,
                        _ if self.stages > 1 => Trunk::Relay(rng.usize(0..self.stages - 1)),
                        _ => Trunk::Sink,
                    };
                    let is_silent = rng.bool();
                    self.at_end.push((soon, Fault::Restart { who, back_us: lasts_us, is_silent }));
                }
                2 => {
                    let seat = rng.usize(0..self.seats.len());
                    for link in [Link::Tasks(seat), Link::Results(seat)] {
                        self.at_end.push((soon, Fault::Partition { link, lasts_us }));
                    }
                }
                3 => {
                    // A stage without workers, for longer than others wait for it.
                    let (at, stage) = (rng.u64(0..span), rng.usize(0..self.stages));
                    let back_us = Some(rng.u64(10 * SECOND..400 * SECOND));
                    for seat in 0..self.seats.len() {
                        if self.seats[seat].stage == stage {
                            self.faults.push((at, Fault::Leave { seat, back_us }));
                        }
                    }
                    let other = rng.usize(0..self.seats.len());
                    self.faults.push((at + soon, Fault::Leave { seat: other, back_us }));
                }
                4 => {
                    let at = rng.u64(0..span);
                    self.faults.push((at, Fault::Drain));
                    self.faults.push((at + rng.u64(0..10 * SECOND), Fault::Cancel));
                }
                _ => self.at_end.push((soon, Fault::Drain)),
            }
        }
        self.settle_faults();
        self.is_safe = false;
    }

    /// Adds a second sink that connects to a ventilator or relay.
    fn add_second_sink(&mut self, rng: &mut Rng) {
        let span = (self.bound_us() + 20 * self.delay_us.1).clamp(5_000, 60 * SECOND);
        for _ in 0..rng.usize(1..4) {
            let stage = rng.usize(0..self.stages);
            self.faults.push((rng.u64(0..span), Fault::SecondSink { stage }));
        }
        self.settle_faults();
    }
}
