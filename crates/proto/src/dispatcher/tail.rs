//! Sharing of tasks when few are left: who gets how many, and who hands back some.
//!
//! While many tasks wait, every worker gets as many as its window has room for. When so few wait
//! that it matters who gets them, a worker holds no more than its share, by its speed, of all that
//! are left; one that is much slower than the others gets none that the others would finish sooner;
//! and when no task waits and a worker is starved, workers whose queues are longer than their share
//! are asked to hand back the rest.
//!
//! All of this rests on estimates, so no decision is final: a worker that waits for tasks that do
//! not come is checked again ([`Tail::next_check`]).

use std::time::Duration;

use super::worker::{Phase, Worker};
use super::{Dispatcher, Transmit};
use crate::limits::{CREDIT_BYTES_MAX, HELD_BYTES_MAX};
use crate::{CallId, SeqRange, SeqRanges, SessionId, Time};

/// Number of waiting tasks beyond which there is no hurry to share them out finely.
const WAITING_MAX: u64 = 1 << 14;

/// Part of its share that a worker holds at most near the known end of the input, so that some
/// tasks are left to even out with.
const PART_NEAR_END: f64 = 0.5;

/// Ratio of run times from which a worker is slow, compared with the others. A lower ratio can be
/// chance, and little would be gained.
const SLOW_MIN: f64 = 2.0;

/// Standard deviations by which a slow worker's next task is expected to exceed the worker's mean:
/// to wait for that task costs the time of all workers, to leave this one idle only its own.
const SLOW_DEVIATIONS: f64 = 2.0;

/// Weight of the latest results in a worker's pace, in tasks.
const PACE_TASKS: f64 = 32.0;

/// Weight of the latest results in the spread, in batches.
const SPREAD_BATCHES: f64 = 64.0;

/// Weight of the latest results in their size, where that falls.
const RESULT_GAIN: f64 = 0.1;

/// Travel time of a task and its receipt, before it is known.
const TRAVEL_UNKNOWN: Duration = Duration::from_millis(1);

/// Least work that is worth a message of its own.
const WORTH_MIN: Duration = Duration::from_millis(1);

/// Longest run time of a short task: such tasks come and go with many others.
const SHORT_MAX: Duration = Duration::from_micros(100);

/// Silence for which a worker with short tasks is not slow: it waits for other workers that share
/// its cores.
const SILENCE_MIN: Duration = Duration::from_millis(100);

/// Shortest time between two recalls from a worker, beside four times the travel time.
const RECALL_GAP: Duration = Duration::from_millis(1);

/// Time after the last dispatch before which no task is recalled, unless the input has ended: more
/// tasks may be on their way.
const STARVED_MIN: Duration = Duration::from_millis(1);

/// Time for each worker that passes between two checks for tasks to recall: a check costs about a
/// microsecond for a hundred workers.
const CHECK_GAP: Duration = Duration::from_micros(1);

/// Run time of tasks at a worker. Failed attempts that are retried do not count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    us: f64,
    tasks: f64,
}

impl Pace {
    /// Adds `count` results with a mean run time of `mean_us` µs.
    pub(super) fn add(&mut self, count: u64, mean_us: u64, spread: &mut Spread) {
        if count == 0 {
            return;
        }
        let old = self.us();
        self.tasks += count as f64;
        // A task that takes no time by a clock of microseconds takes some.
        let newest = mean_us.max(1) as f64;
        self.us += (newest - self.us) * (count as f64 / self.tasks);
        self.tasks = self.tasks.min(PACE_TASKS);
        if let Some(old) = old {
            // Beside the mean with these results in it: a first task that happens to be short would
            // let all others look like outliers for long (Welford's update of a variance).
            spread.add(count, (newest - old) * (newest - self.us) / self.us.powi(2));
        }
    }

    /// Orders the faster pace first; an unknown one is tried before all.
    pub(super) fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.us.total_cmp(&other.us)
    }

    /// Returns the usual run time of a task, once it is known.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.us().map(|us| Duration::from_micros(us as u64))
    }

    /// Returns the number of tasks that are so little work together that to share them out would
    /// cost more. A few short tasks are no reason to believe it.
    pub(super) fn least_worth(&self) -> Option<u64> {
        let is_known = self.tasks >= PACE_TASKS;
        is_known.then(|| (WORTH_MIN.as_micros() as f64 / self.us) as u64)
    }

    /// Returns the run time of a task in microseconds, once it is known.
    pub(super) fn us(&self) -> Option<f64> {
        (self.tasks > 0.0).then_some(self.us)
    }

    /// Returns the run time in microseconds that is to be expected of the next task, where the
    /// tasks of other workers take `others_us` and tasks at one worker deviate by this part of
    /// their mean: a few tasks may have been long by chance, and say little of the worker. (The
    /// mean of a normal distribution after some samples, if workers differ by a factor of two.)
    fn believed_us(&self, others_us: f64, deviation: f64) -> Option<f64> {
        let noise = deviation.powi(2);
        let us = self.us()?;
        Some((self.tasks * us + noise * others_us) / (self.tasks + noise))
    }
}

/// Spread of run times between tasks, independent of the worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread {
    variance: f64,
    batches: f64,
}

impl Spread {
    /// Adds `count` tasks whose mean run time deviates by this square, as a part of the square of
    /// the usual run time.
    fn add(&mut self, count: u64, square: f64) {
        self.batches += 1.0;
        let newest = square * count as f64;
        self.variance += (newest - self.variance) / self.batches;
        self.batches = self.batches.min(SPREAD_BATCHES);
    }

    /// Returns the standard deviation, as a part of the mean.
    fn deviation(&self) -> f64 {
        self.variance.sqrt()
    }
}

/// Time of the next check, and facts to decide whether to recall tasks.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) spread: Spread,
    /// Run time of a task at any worker.
    pace: Pace,
    /// Bytes of the result of a task.
    result_bytes: f64,
    /// Last progress: a result arrived, or a task was dispatched.
    last_progress: Time,
    /// Time since which no task has waited.
    starved_since: Option<Time>,
    /// Earliest time of the next check for tasks to recall.
    next_check_min: Time,
    /// Time at which a waiting worker may have waited for too long.
    next_check: Option<Time>,
}

impl Tail {
    pub(super) fn handle_received(&mut self, now: Time) {
        self.last_progress = now;
    }

    /// Records `count` results with a mean run time of `mean_us` µs and `bytes` bytes in total.
    pub(super) fn handle_results(&mut self, count: u64, mean_us: u64, bytes: u64) {
        self.pace.add(count, mean_us, &mut Spread::default());
        let each = bytes as f64 / count.max(1) as f64;
        self.result_bytes = each.max(self.result_bytes + RESULT_GAIN * (each - self.result_bytes));
    }

    /// Returns the number of tasks that are so little work together that to share them out would
    /// cost more, as long as their results are small.
    pub(super) fn least_worth(&self) -> u64 {
        let results = CREDIT_BYTES_MAX as f64 / self.result_bytes.max(1.0);
        self.pace.least_worth().unwrap_or(0).min(results as u64)
    }

    pub(super) fn handle_dispatched(&mut self, now: Time) {
        self.last_progress = now;
        (self.starved_since, self.next_check) = (None, None);
    }

    /// Ends the wait for the next check: the next poll decides again.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.next_check.take_if(|next_check| *next_check <= now);
    }

    /// Returns the time of the next check, unless an event comes before.
    pub(super) fn next_check(&self) -> Option<Time> {
        self.next_check
    }

    fn check_at(&mut self, at: Time) {
        self.next_check = Some(self.next_check.map_or(at, |next_check| next_check.min(at)));
    }
}

/// Tasks that are left, and the workers for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    now: Time,
    last_progress: Time,
    /// Number of tasks that wait.
    waiting: f64,
    /// Number of tasks that are out, and of those that run.
    out: f64,
    running: f64,
    slots: f64,
    /// Usual rate of all workers, in tasks per microsecond.
    rate: f64,
    /// Run time of a task in microseconds, where a worker's own pace is not known.
    us: f64,
    part: f64,
    deviation: f64,
    /// Number of tasks that are not worth sharing out.
    least: u64,
}

impl Left {
    fn us(&self, worker: &Worker) -> f64 {
        us_now(worker, self.now, worker.pace.us().unwrap_or(self.us))
    }

    /// Returns the worker's present rate in tasks per microsecond.
    fn rate(&self, worker: &Worker) -> f64 {
        worker.window.slots() as f64 / self.us(worker)
    }

    /// Returns the number of tasks that the worker may hold.
    pub(super) fn room(&self, worker: &Worker) -> u64 {
        let rate = self.rate(worker);
        let share = self.part * (self.waiting + self.out) * rate / self.rate;
        let least = in_reach(worker, rate).max(self.least);
        (share as u64).max(least).min(worker.window(self.least))
    }

    /// Returns the time until which the worker gets no more tasks, because the others will finish
    /// all that are left before this one finishes its next task. The time is bounded by how long
    /// that task would take, should the others make no progress.
    pub(super) fn hold_back_until(&self, worker: &Worker) -> Option<Time> {
        let compared = self.compared(worker)?;
        if !compared.is_slow() {
            return None;
        }
        let (Compared { us, rate, slots }, running) = (compared, running(worker));
        let left = self.waiting + self.out - running - (self.running - running) / 2.0;
        let others_us = left / rate + slots / rate / 2.0;
        let until = self.last_progress + Duration::from_micros(us as u64);
        (us * (1.0 + SLOW_DEVIATIONS * self.deviation) > others_us && self.now < until)
            .then_some(until)
    }

    /// Compares the worker with the others, once the run times of both are known.
    pub(super) fn compared(&self, worker: &Worker) -> Option<Compared> {
        let (own_us, own_slots) = (worker.pace.us()?, worker.window.slots() as f64);
        let (rate, slots) = (self.rate - own_slots / own_us, self.slots - own_slots);
        if slots < 1.0 || rate <= 0.0 {
            return None;
        }
        let us = worker.pace.believed_us(slots / rate, self.deviation)?;
        Some(Compared { us, rate, slots })
    }
}

/// A worker beside the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared {
    /// Run time that is to be expected of its next task, in microseconds.
    us: f64,
    /// Rate of the others together, in tasks per microsecond, and their slots.
    rate: f64,
    slots: f64,
}

impl Compared {
    /// Returns whether the worker is slow.
    pub(super) fn is_slow(self) -> bool {
        self.us * self.rate >= SLOW_MIN * self.slots
    }

    /// Returns the run time of its tasks, as a multiple of that at the others.
    pub(super) fn factor(self) -> f64 {
        self.us * self.rate / self.slots
    }
}

/// Returns the run time of a task in microseconds: the usual one, unless the running task takes
/// longer. It may take as long again.
fn us_now(worker: &Worker, now: Time, usual_us: f64) -> f64 {
    let silent =
        if worker.out.is_empty() { Duration::ZERO } else { now.since(worker.last_progress) };
    if silent < silence_min(usual_us) { usual_us } else { usual_us.max(silent.as_micros() as f64) }
}

/// Returns the silence that a worker may keep, whatever the run time of its tasks.
fn silence_min(usual_us: f64) -> Duration {
    if usual_us < SHORT_MAX.as_micros() as f64 { SILENCE_MIN } else { Duration::ZERO }
}

fn running(worker: &Worker) -> f64 {
    worker.out.count().min(worker.window.slots()) as f64
}

fn travel(worker: &Worker) -> Duration {
    worker.window.travel().unwrap_or(TRAVEL_UNKNOWN)
}

/// Returns the number of tasks that keep the worker busy until more can have come.
fn in_reach(worker: &Worker, rate: f64) -> u64 {
    worker.window.slots() + (rate * travel(worker).as_micros() as f64) as u64
}

impl Dispatcher {
    /// Returns the number of tasks that may go out now. A task that has to wait for the order of
    /// the output keeps no worker busy.
    pub(super) fn waiting(&self) -> u64 {
        if self.sink.held_bytes >= HELD_BYTES_MAX {
            return u64::from(self.is_unassigned(self.ledger.base()));
        }
        self.ledger.waiting().count() + self.ledger.fresh_room()
    }

    /// Returns the tasks that are left, if they are so few that it matters who gets them.
    pub(super) fn left(&self, now: Time) -> Option<Left> {
        let waiting = self.waiting();
        if waiting > WAITING_MAX { None } else { self.all_left(now, waiting) }
    }

    /// Returns the tasks that are left, however many, where there is more than one worker for them.
    pub(super) fn all_left(&self, now: Time, waiting: u64) -> Option<Left> {
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

    /// Sets the next check where tasks wait and no worker may have them now: a worker that is held
    /// back may later.
    pub(super) fn check_when_held_back(&mut self, left: Option<&Left>) {
        let Some(left) = left else { return };
        let idle = self.roster.values().filter(|w| w.can_start() && w.idle_slots() > 0);
        self.tail.next_check = idle.filter_map(|worker| left.hold_back_until(worker)).min();
    }

    /// When no task waits: asks workers whose queues are longer than their share to hand back the
    /// rest, for starved workers.
    pub(super) fn recall(&mut self, now: Time) -> Option<Transmit> {
        let starved_since = *self.tail.starved_since.get_or_insert(now);
        if self.roster.len() < 2 || self.roll.call.is_some() || self.is_cancelled() {
            self.tail.next_check = None;
            return None;
        }
        let due = if self.source.is_over() { now } else { starved_since + STARVED_MIN };
        let due = due.max(self.tail.next_check_min);
        if now < due {
            // With everything settled there is no task to look for.
            self.tail.next_check = (!self.ledger.is_all_settled()).then_some(due);
            return None;
        }
        self.tail.next_check = None;
        self.tail.next_check_min = now + CHECK_GAP * self.roster.len() as u32;
        let recalls = self.recalls(now);
        for (session, keep) in recalls {
            let Some(worker) = self.roster.get_mut(session) else { continue };
            worker.recall_min = now + RECALL_GAP + 4 * travel(worker);
            self.send_recall(session, keep);
        }
        self.outbox.transmits.pop_front()
    }

    /// Returns the workers that should hand back tasks that have not started, with the number that
    /// each may keep.
    fn recalls(&mut self, now: Time) -> Vec<(SessionId, u64)> {
        let Some(left) = self.left(now) else { return Vec::new() };
        let ready = self.roster.iter().filter(|(_, worker)| worker.phase == Phase::Ready);
        // Workers that are held back have no share.
        let (mut rate, mut is_starved, mut is_queued) = (0.0, false, false);
        for (_, worker) in ready.clone() {
            is_queued |= worker.out.count() > worker.window.slots();
            if left.hold_back_until(worker).is_none() {
                let own = left.rate(worker);
                rate += own;
                let room = in_reach(worker, own).min(worker.window(left.least));
                is_starved |= worker.free(room) > 0 && worker.free_bytes() > 0;
            }
        }
        if !is_starved || !is_queued {
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
            // The running task may turn out to take long.
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
        // A message from an old connection may belong to an earlier recall, and the worker may have
        // been given the same tasks again since then.
        if worker.recall.take_if(|due| *due == call).is_none() {
            return;
        }
        worker.overdue.handle_recalled();
        // A task that was only reassigned was not attempted.
        let returned = worker.out.parts_of(ranges).into_iter();
        for seq in returned.flat_map(SeqRange::seqs) {
            self.history.recalled += 1;
            self.ledger.undo_attempt(seq, session);
        }
        self.handle_returned(session, ranges);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Fails if a deviation is measured from the mean before.
    #[test]
    fn tasks_after_a_short_one_are_no_outliers() {
        let (mut pace, mut spread) = (Pace::default(), Spread::default());
        for us in [1, 1_000, 1_000, 1_000] {
            pace.add(1, us, &mut spread);
        }
        assert!(spread.deviation() < 1.0, "{}", spread.deviation());
    }
}
