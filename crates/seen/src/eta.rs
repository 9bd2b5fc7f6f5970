//! When a job will be done, and how sure that is.
//!
//! Tasks that wait are worked off by slots at the rate of the recent part of the job; what runs then still
//! takes as long as run times say. The range comes from how much the rate has varied over the job: so it
//! holds if what comes is like what was.

use crate::Runs;

/// Seconds until the end: 8 of 10 jobs end between `low` and `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eta {
    /// Most likely.
    pub seconds: f64,
    /// One of ten jobs ends sooner.
    pub low: f64,
    /// One of ten jobs ends later.
    pub high: f64,
}

/// What was done by when, by how many slots.
#[derive(Debug, Default)]
pub struct Pace {
    marks: Vec<Mark>,
    /// Seconds between two marks, at least.
    step: f64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: f64,
    done: f64,
    /// Seconds of all slots since the first mark.
    slot_seconds: f64,
}

/// Number of marks from which every other one is dropped.
const MARKS_MAX: usize = 512;

/// Number of equal parts of the job by which its pace is judged.
const PARTS: usize = 24;

/// Number of parts that are recent.
const RECENT: usize = PARTS / 3;

/// Seconds below which all of the job is recent.
const YOUNG: f64 = 30.0;

/// The 90 % quantile of the normal distribution.
const Z: f64 = 1.281_6;

impl Pace {
    /// Notes how many tasks are done, and the slots that there are.
    pub fn note(&mut self, at: f64, done: u64, slots: u64) {
        let done = done as f64;
        let Some(last) = self.marks.last().copied() else {
            // Time before the first worker came is not the job's.
            if slots > 0 {
                self.marks.push(Mark { at, done, slot_seconds: 0.0 });
            }
            return;
        };
        let slot_seconds = last.slot_seconds + (at - last.at) * slots as f64;
        let mark = Mark { at, done, slot_seconds };
        let is_due = self.marks.len() < 2
            || at - self.marks[self.marks.len() - 2].at >= self.step.max(f64::MIN_POSITIVE);
        match self.marks.last_mut() {
            Some(last) if !is_due => *last = mark,
            _ => self.marks.push(mark),
        }
        if self.marks.len() >= MARKS_MAX {
            let mut place = 0;
            self.marks.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.marks.push(mark);
            self.step = (at - self.marks[0].at) / (MARKS_MAX / 2) as f64;
        }
    }

    /// Returns the estimate for so many tasks that are left, those that run included.
    #[must_use]
    pub fn eta(&self, left: u64, slots: u64, runs: &Runs) -> Option<Eta> {
        let (first, last) = (self.marks.first()?, self.marks.last()?);
        let age = last.at - first.at;
        if slots == 0 || age <= 0.0 {
            return None;
        }
        let width = age / PARTS as f64;
        let edge = |place: usize| self.at(first.at + width * place as f64);
        let parts: Vec<(f64, f64)> = (0..PARTS)
            .map(|place| {
                let (from, to) = (edge(place), edge(place + 1));
                (to.done - from.done, to.slot_seconds - from.slot_seconds)
            })
            .collect();
        let paces: Vec<f64> =
            parts.iter().map(|(done, seconds)| done / seconds.max(1e-9)).collect();
        let recent = if age > YOUNG { RECENT } else { PARTS };
        let (done, seconds) = parts[PARTS - recent..]
            .iter()
            .fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        if done <= 0.0 || seconds <= 0.0 {
            return None;
        }
        let pace = done / seconds;
        let spread =
            (deviation(&paces[PARTS - recent..]) / mean(&paces[PARTS - recent..])).min(2.0);
        let slots_busy = slots.min(left);
        let flow = left.saturating_sub(slots) as f64 / (pace * slots as f64);
        let variance = spread * spread / recent as f64 + spread * spread * width / flow.max(width);
        let trend = trend(&paces[2..], recent as f64 / 2.0 + flow / width / 2.0);
        let rest = |probability| runs.rest(slots_busy, probability);
        let bend = Z * variance.sqrt();
        Some(Eta {
            seconds: flow * (-trend / 2.0).exp() + rest(0.5),
            low: flow * ((-trend).min(0.0) - bend).exp() + rest(0.1),
            high: flow * ((-trend).max(0.0) + bend).exp() + rest(0.9),
        })
    }

    /// Returns the mark of a moment, between the two beside it.
    fn at(&self, at: f64) -> Mark {
        let next = self.marks.partition_point(|mark| mark.at < at).min(self.marks.len() - 1);
        let (Some(before), after) = (next.checked_sub(1), self.marks[next]) else {
            return self.marks[0];
        };
        let before = self.marks[before];
        let share = ((at - before.at) / (after.at - before.at).max(1e-9)).clamp(0.0, 1.0);
        Mark {
            at,
            done: before.done + (after.done - before.done) * share,
            slot_seconds: before.slot_seconds + (after.slot_seconds - before.slot_seconds) * share,
        }
    }
}

/// Returns by how much the logarithm of the pace will have changed after so many parts, if it has changed by more
/// than chance explains.
fn trend(paces: &[f64], parts: f64) -> f64 {
    let floor = mean(paces) / 20.0;
    if floor <= 0.0 {
        return 0.0;
    }
    let logs: Vec<f64> = paces.iter().map(|pace| pace.max(floor).ln()).collect();
    let middle = (logs.len() as f64 - 1.0) / 2.0;
    let times = || (0..logs.len()).map(|place| place as f64 - middle);
    let squares: f64 = times().map(|time| time * time).sum();
    let slope = times().zip(&logs).map(|(time, log)| time * log).sum::<f64>() / squares;
    let level = mean(&logs);
    let rest: f64 =
        times().zip(&logs).map(|(time, log)| (log - level - slope * time).powi(2)).sum();
    let error = (rest / (logs.len() as f64 - 2.0) / squares).sqrt();
    if slope.abs() > 3.0 * error { (slope * parts).clamp(-1.5, 1.5) } else { 0.0 }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends of a job's tasks: each goes to the slot that is free first.
    fn ends(times: &[f64], slots: usize) -> Vec<f64> {
        let mut free = vec![0.0_f64; slots];
        let mut ends: Vec<f64> = times
            .iter()
            .map(|time| {
                let next = (0..slots).min_by(|a, b| free[*a].total_cmp(&free[*b])).expect("slots");
                free[next] += time;
                free[next]
            })
            .collect();
        ends.sort_by(f64::total_cmp);
        ends
    }

    fn runs(times: &[f64]) -> Runs {
        let bound = |n: i32| 1e-6 * (f64::from(n) / 4.0).exp2();
        let mut buckets: Vec<(f64, u64)> = (1..128).map(|n| (bound(n), 0)).collect();
        for time in times {
            let place = buckets.partition_point(|(to, _)| to < time).min(buckets.len() - 1);
            buckets[place].1 += 1;
        }
        Runs::new(buckets)
    }

    /// The estimate when this share of the tasks is done, and the true time that is left.
    fn judge(times: &[f64], slots: usize, share: f64) -> (Eta, f64) {
        let ends = ends(times, slots);
        let now = ends[(ends.len() as f64 * share) as usize];
        let mut pace = Pace::default();
        let mut done = 0;
        for second in 0..=(now as u64) {
            done = ends.partition_point(|end| *end <= second as f64);
            pace.note(second as f64, done as u64, slots as u64);
        }
        let eta = pace.eta((ends.len() - done) as u64, slots as u64, &runs(&times[..done.max(20)]));
        (eta.expect("there is one"), ends[ends.len() - 1] - now)
    }

    /// Log-normal times with a mean of 2 s: some take a minute.
    fn spread(seed: u64, count: usize) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        (0..count)
            .map(|_| {
                let normal =
                    (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
                (2.0_f64.ln() - 0.5 + normal).exp()
            })
            .collect()
    }

    #[test]
    fn a_steady_job_ends_when_it_was_said() {
        let times = vec![1.0; 3_000];
        for share in [0.2, 0.5, 0.9] {
            let (eta, left) = judge(&times, 16, share);
            assert!((eta.seconds - left).abs() < 0.05 * left + 2.0, "{share}: {eta:?}, {left}");
        }
    }

    #[test]
    fn the_end_lies_within_the_range_about_eight_times_in_ten() {
        for share in [0.4, 0.6, 0.9] {
            let jobs = 60;
            let hits = (0..jobs)
                .filter(|seed| {
                    let (eta, left) = judge(&spread(*seed + 1, 3_000), 16, share);
                    assert!(eta.low <= eta.seconds && eta.seconds <= eta.high, "{eta:?}");
                    (eta.low..=eta.high).contains(&left)
                })
                .count();
            assert!((36..=58).contains(&hits), "{hits} of {jobs} at {share}");
        }
    }

    #[test]
    fn slots_that_come_count_at_once() {
        let mut pace = Pace::default();
        let mut done = 0;
        for second in 0..100 {
            let slots = if second <= 60 { 4 } else { 8 };
            pace.note(f64::from(second), done, slots);
            done += slots;
        }
        let eta = pace.eta(808, 8, &Runs::default()).expect("there is one");
        assert!((eta.seconds - 100.0).abs() < 5.0, "{eta:?}");
    }

    #[test]
    fn nothing_done_and_no_slots_have_no_end() {
        let mut pace = Pace::default();
        assert_eq!(pace.eta(10, 4, &Runs::default()), None);
        for second in 0..100 {
            pace.note(f64::from(second), 0, 4);
        }
        assert_eq!(pace.eta(10, 4, &Runs::default()), None);
        assert_eq!(pace.eta(10, 0, &Runs::default()), None);
    }

    #[test]
    fn memory_is_bounded_however_long_it_takes() {
        let mut pace = Pace::default();
        for second in 0..200_000_u32 {
            pace.note(f64::from(second), u64::from(second), 1);
        }
        assert!(pace.marks.len() <= MARKS_MAX);
        let eta = pace.eta(1_001, 1, &Runs::default()).expect("there is one");
        assert!((eta.seconds - 1_000.0).abs() < 10.0, "{eta:?}");
    }
}
