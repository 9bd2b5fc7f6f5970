//! Who gets how much when little is left, and who gives back what.
//!
//! While much waits, every worker gets what its window has room for. When what waits is so little
//! that it matters who gets it, a worker holds no more than its share, by its speed, of all that is
//! left; one that is much slower than the others gets nothing that they would sooner be through
//! with; and when nothing waits and somebody runs dry, those whose queues are longer than their
//! share are asked to hand back the rest.
//!
//! All of it goes by estimates, so none of it is final: whoever waits for something that does not
//! come is looked at again ([`Tail::look`]).

use std::time::Duration;

use super::worker::{Phase, Worker};
use super::{Dispatcher, Transmit};
use crate::limits::{CREDIT_BYTES_MAX, HELD_BYTES_MAX};
use crate::message::ToWorker;
use crate::{CallId, SeqRange, SeqRanges, SessionId, Time};

/// Tasks that wait beyond which there is no hurry to share them out finely.
const WAITING_MAX: u64 = 1 << 14;

/// Near the known end of the input a worker holds at most this part of its share, so that there is
/// something left to even out with.
const PART_NEAR_END: f64 = 0.5;

/// A worker is slow if its tasks take so many times as long as the others'. What is less can be
/// chance, and would gain little.
const SLOW_MIN: f64 = 2.0;

/// A slow worker's next task is expected to take longer than its tasks do on the average, by so many
/// standard deviations: to wait for it costs everybody's time, to leave it idle only its own.
const SLOW_DEVIATIONS: f64 = 2.0;

/// The weight of the latest results in a worker's pace, in tasks.
const PACE_TASKS: f64 = 32.0;

/// The weight of the latest results in the spread, in batches.
const SPREAD_BATCHES: f64 = 64.0;

/// The weight of the latest results in their size, where that falls.
const RESULT_GAIN: f64 = 0.1;

/// The travel time of a task and its receipt, before it is known.
const TRAVEL_UNKNOWN: Duration = Duration::from_millis(1);

/// Less work than this is not worth a message of its own.
const WORTH_MIN: Duration = Duration::from_millis(1);

/// A task that takes less is short: it comes and goes with many others.
const SHORT_MAX: Duration = Duration::from_micros(100);

/// A worker with short tasks may be silent for so long, and is not slow: it waits for others who
/// share its cores.
const SILENCE_MIN: Duration = Duration::from_millis(100);

/// Two recalls from a worker are so far apart, and four times the travel time.
const RECALL_GAP: Duration = Duration::from_millis(1);

/// Nothing is recalled before so long after the last task went out, unless the input has ended:
/// more may be on its way.
const STARVED_MIN: Duration = Duration::from_millis(1);

/// Looking for something to recall costs about a microsecond for a hundred workers: so long is
/// waited for each of them before the next look.
const CHECK_GAP: Duration = Duration::from_micros(1);

/// How long a task takes at a worker. Failed attempts that are tried again say nothing of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    us: f64,
    tasks: f64,
}

impl Pace {
    /// So many tasks took so long each.
    pub(super) fn add(&mut self, count: u64, mean_us: u64, spread: &mut Spread) {
        if count == 0 {
            return;
        }
        if let Some(us) = self.us() {
            spread.add(count, mean_us as f64 / us);
        }
        self.tasks += count as f64;
        // What takes no time by a clock of microseconds takes some.
        let newest = mean_us.max(1) as f64;
        self.us += (newest - self.us) * (count as f64 / self.tasks);
        self.tasks = self.tasks.min(PACE_TASKS);
    }

    /// The faster one first; one that nobody knows is tried before all.
    pub(super) fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.us.total_cmp(&other.us)
    }

    /// The time a task takes, once there is something to go by.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.us().map(|us| Duration::from_micros(us as u64))
    }

    /// Tasks that are so little work together that to share them out would cost more. A few short
    /// ones are no reason to believe it.
    pub(super) fn least_worth(&self) -> Option<u64> {
        let is_known = self.tasks >= PACE_TASKS;
        is_known.then(|| (WORTH_MIN.as_micros() as f64 / self.us) as u64)
    }

    /// Microseconds a task, once there is something to go by.
    pub(super) fn us(&self) -> Option<f64> {
        (self.tasks > 0.0).then_some(self.us)
    }
}

/// How much tasks differ from one another, whoever runs them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread {
    variance: f64,
    batches: f64,
}

impl Spread {
    /// So many tasks took so many times as long as is usual.
    fn add(&mut self, count: u64, ratio: f64) {
        self.batches += 1.0;
        let newest = (ratio - 1.0).powi(2) * count as f64;
        self.variance += (newest - self.variance) / self.batches;
        self.batches = self.batches.min(SPREAD_BATCHES);
    }

    /// The standard deviation, in parts of the mean.
    fn deviation(&self) -> f64 {
        self.variance.sqrt()
    }
}

/// When to look again, and whether there is anything to recall.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) spread: Spread,
    /// How long a task takes, whoever runs it.
    pace: Pace,
    /// Bytes of its result.
    result_bytes: f64,
    /// When a result came or a task went out last.
    last_progress: Time,
    /// Nothing has waited since then.
    starved_since: Option<Time>,
    /// The next look for something to recall, at the earliest.
    next_check_min: Time,
    /// Somebody waits, and at this time it may have been for too long.
    next_check: Option<Time>,
}

impl Tail {
    pub(super) fn handle_received(&mut self, now: Time) {
        self.last_progress = now;
    }

    /// So many tasks took so long each, and their results have so many bytes together.
    pub(super) fn handle_results(&mut self, count: u64, mean_us: u64, bytes: u64) {
        self.pace.add(count, mean_us, &mut Spread::default());
        let each = bytes as f64 / count.max(1) as f64;
        self.result_bytes = each.max(self.result_bytes + RESULT_GAIN * (each - self.result_bytes));
    }

    /// Tasks that are so little work together that to share them out would cost more, as long as
    /// their results are small.
    pub(super) fn least_worth(&self) -> u64 {
        let results = CREDIT_BYTES_MAX as f64 / self.result_bytes.max(1.0);
        self.pace.least_worth().unwrap_or(0).min(results as u64)
    }

    pub(super) fn handle_dispatched(&mut self, now: Time) {
        self.last_progress = now;
        (self.starved_since, self.next_check) = (None, None);
    }

    /// What it was time for is decided anew with whatever is polled next.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.next_check.take_if(|next_check| *next_check <= now);
    }

    /// When to decide anew, if nothing happens before.
    pub(super) fn next_check(&self) -> Option<Time> {
        self.next_check
    }

    fn check_at(&mut self, at: Time) {
        self.next_check = Some(self.next_check.map_or(at, |next_check| next_check.min(at)));
    }
}

/// All that is left, and who is there to do it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    now: Time,
    last_progress: Time,
    /// Tasks that wait.
    waiting: f64,
    /// Tasks that are out, and so many of them that run.
    out: f64,
    running: f64,
    slots: f64,
    /// Tasks a microsecond, usually.
    rate: f64,
    /// Microseconds a task, where a worker's own pace is not known.
    us: f64,
    part: f64,
    deviation: f64,
    /// Tasks that are not worth sharing out.
    least: u64,
}

impl Left {
    fn us(&self, worker: &Worker) -> f64 {
        us_now(worker, self.now, worker.pace.us().unwrap_or(self.us))
    }

    /// Tasks a microsecond that the worker gets through as things are.
    fn rate(&self, worker: &Worker) -> f64 {
        worker.window.slots() as f64 / self.us(worker)
    }

    /// Tasks that the worker may hold.
    pub(super) fn room(&self, worker: &Worker) -> u64 {
        let rate = self.rate(worker);
        let share = self.part * (self.waiting + self.out) * rate / self.rate;
        let least = in_reach(worker, rate).max(self.least);
        (share as u64).max(least).min(worker.window(self.least))
    }

    /// Until when the worker gets nothing more, because the others will sooner be through with all
    /// that is left than this one with its next task. Not for longer than it would take if they
    /// do not move.
    pub(super) fn hold_back_until(&self, worker: &Worker) -> Option<Time> {
        let us = worker.pace.us()?;
        let (own_slots, running) = (worker.window.slots() as f64, running(worker));
        let (rate, slots) = (self.rate - own_slots / us, self.slots - own_slots);
        if slots < 1.0 || us * rate < SLOW_MIN * slots {
            return None;
        }
        let left = self.waiting + self.out - running - (self.running - running) / 2.0;
        let others_us = left / rate + slots / rate / 2.0;
        let until = self.last_progress + Duration::from_micros(us as u64);
        (us * (1.0 + SLOW_DEVIATIONS * self.deviation) > others_us && self.now < until)
            .then_some(until)
    }
}

/// Microseconds a task: as usual, unless what runs takes longer. It may take as long again.
fn us_now(worker: &Worker, now: Time, usual_us: f64) -> f64 {
    let silent =
        if worker.out.is_empty() { Duration::ZERO } else { now.since(worker.last_progress) };
    if silent < silence_min(usual_us) { usual_us } else { usual_us.max(silent.as_micros() as f64) }
}

/// A worker may be silent for so long, whatever its tasks take.
fn silence_min(usual_us: f64) -> Duration {
    if usual_us < SHORT_MAX.as_micros() as f64 { SILENCE_MIN } else { Duration::ZERO }
}

fn running(worker: &Worker) -> f64 {
    worker.out.count().min(worker.window.slots()) as f64
}

fn travel(worker: &Worker) -> Duration {
    worker.window.travel().unwrap_or(TRAVEL_UNKNOWN)
}

/// Tasks that the worker needs to be busy until more can have come.
fn in_reach(worker: &Worker, rate: f64) -> u64 {
    worker.window.slots() + (rate * travel(worker).as_micros() as f64) as u64
}

impl Dispatcher {
    /// Tasks that may go out as things are. What has to wait for the order of the output to go on
    /// gives nobody anything to do.
    fn waiting(&self) -> u64 {
        if self.sink.held_bytes >= HELD_BYTES_MAX {
            return u64::from(self.is_unheld(self.ledger.base()));
        }
        self.ledger.waiting().count() + self.ledger.fresh_room()
    }

    /// What is left, if it is so little that it matters who gets it.
    pub(super) fn left(&self, now: Time) -> Option<Left> {
        let waiting = self.waiting();
        if waiting > WAITING_MAX {
            return None;
        }
        let (mut out, mut running_sum, mut slots, mut ready) = (0, 0.0, 0, 0_u32);
        let (mut known_slots, mut known_rate) = (0.0, 0.0);
        for worker in self.roster.values().filter(|worker| worker.can_start()) {
            ready += 1;
            out += worker.out.count();
            running_sum += running(worker);
            slots += worker.window.slots();
            if let Some(us) = worker.pace.us() {
                known_slots += worker.window.slots() as f64;
                known_rate += worker.window.slots() as f64 / us;
            }
        }
        if ready < 2 {
            return None;
        }
        let us = if known_rate > 0.0 { known_slots / known_rate } else { 1.0 };
        Some(Left {
            now,
            last_progress: self.tail.last_progress,
            waiting: waiting as f64,
            out: out as f64,
            running: running_sum,
            slots: slots as f64,
            rate: known_rate + (slots as f64 - known_slots) / us,
            us,
            deviation: self.tail.spread.deviation(),
            least: self.tail.least_worth(),
            part: if self.source.is_over() { PART_NEAR_END } else { 1.0 },
        })
    }

    /// Something waits, and nobody may have it now: whoever is held back may later.
    pub(super) fn check_when_held_back(&mut self, left: Option<&Left>) {
        let Some(left) = left else { return };
        let idle = self.roster.values().filter(|w| w.can_start() && w.idle_slots() > 0);
        self.tail.next_check = idle.filter_map(|worker| left.hold_back_until(worker)).min();
    }

    /// When nothing waits: asks those whose queues are longer than their share to hand back the
    /// rest, for those who run dry.
    pub(super) fn recall(&mut self, now: Time) -> Option<Transmit> {
        let starved_since = *self.tail.starved_since.get_or_insert(now);
        if self.roster.len() < 2 || self.roll.call.is_some() || self.is_cancelled() {
            self.tail.next_check = None;
            return None;
        }
        let due = if self.source.is_over() { now } else { starved_since + STARVED_MIN };
        let due = due.max(self.tail.next_check_min);
        if now < due {
            // Whoever has settled everything has nothing to look for.
            self.tail.next_check = (!self.ledger.is_all_settled()).then_some(due);
            return None;
        }
        self.tail.next_check = None;
        self.tail.next_check_min = now + CHECK_GAP * self.roster.len() as u32;
        let recalls = self.recalls(now);
        for (session, keep) in recalls {
            let call = self.roll.take_call();
            let Some(worker) = self.roster.get_mut(session) else { continue };
            worker.recall = Some(call);
            worker.recall_min = now + RECALL_GAP + 4 * travel(worker);
            let recall = ToWorker::Recall { job: self.config.job, call, keep };
            self.outbox.transmits.push_back(Transmit::Worker(worker.lane, recall));
        }
        self.outbox.transmits.pop_front()
    }

    /// Who should hand back what it has not started, but for so many.
    fn recalls(&mut self, now: Time) -> Vec<(SessionId, u64)> {
        let Some(left) = self.left(now) else { return Vec::new() };
        let ready = self.roster.iter().filter(|(_, worker)| worker.phase == Phase::Ready);
        // Those that are held back have no share.
        let (mut rate, mut is_dry, mut is_queued) = (0.0, false, false);
        for (_, worker) in ready.clone() {
            is_queued |= worker.out.count() > worker.window.slots();
            if left.hold_back_until(worker).is_none() {
                let own = left.rate(worker);
                rate += own;
                let room = in_reach(worker, own).min(worker.window(left.least));
                is_dry |= worker.free(room) > 0 && worker.free_bytes() > 0;
            }
        }
        if !is_dry || !is_queued {
            return Vec::new();
        }
        let (mut recalls, mut next_check) = (Vec::new(), None::<Time>);
        for (session, worker) in ready {
            let (slots, out) = (worker.window.slots(), worker.out.count());
            if out <= slots || worker.recall.is_some() {
                continue;
            }
            let own = left.rate(worker);
            let share = if left.hold_back_until(worker).is_some() {
                slots
            } else {
                ((left.out * own / rate) as u64).max(in_reach(worker, own))
            };
            let wait = Duration::from_micros(((out - slots) as f64 / own) as u64);
            let worth = WORTH_MIN.max(2 * travel(worker));
            if out > share && wait > worth && now >= worker.recall_min {
                recalls.push((*session, share - slots));
                continue;
            }
            // What runs may turn out to take long.
            let us = Duration::from_micros(left.us(worker) as u64);
            let silence_min = silence_min(us.as_micros() as f64);
            let due = worker.last_progress + silence_min.max(2 * us.max(worth));
            let due = due.max(worker.recall_min);
            next_check = Some(next_check.map_or(due, |next_check| next_check.min(due)));
        }
        if let Some(next_check) = next_check {
            self.tail.check_at(next_check);
        }
        recalls
    }

    pub(super) fn handle_recalled(&mut self, session: SessionId, call: CallId, ranges: &SeqRanges) {
        let Some(worker) = self.roster.get_mut(session) else { return };
        // What came on an old connection may be of a recall before, and the worker may have been
        // given the same tasks again since then.
        if worker.recall.take_if(|due| *due == call).is_none() {
            return;
        }
        // What was only moved was not attempted.
        let returned = worker.out.parts_of(ranges).into_iter();
        for seq in returned.flat_map(SeqRange::seqs) {
            self.ledger.undo_attempt(seq, session);
        }
        self.handle_returned(session, ranges);
    }
}
