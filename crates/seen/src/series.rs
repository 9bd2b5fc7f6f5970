//! How a job went: a point a second, and coarser ones of what is longer ago.

use std::collections::VecDeque;

/// A moment of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds since 1970.
    pub at: f64,
    /// Records stored a second.
    pub done: f64,
    /// Those of them whose status is neither `ok` nor `skipped`.
    pub failed: f64,
    /// Tasks without a record.
    pub waiting: u64,
}

/// Points of the last five minutes, of the last hour and of the last day.
#[derive(Debug)]
pub struct Series {
    rings: [Ring; RINGS.len()],
    last: Option<(f64, u64, u64)>,
}

/// Seconds between two points, and the number of points.
const RINGS: [(f64, usize); 3] = [(1.0, 300), (10.0, 360), (60.0, 1_440)];

#[derive(Debug)]
struct Ring {
    step: f64,
    capacity: usize,
    points: VecDeque<Point>,
    open: Open,
}

/// The sum of what will be the next point.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    seconds: f64,
    done: f64,
    failed: f64,
}

impl Default for Series {
    fn default() -> Self {
        let rings = RINGS.map(|(step, capacity)| Ring {
            step,
            capacity,
            points: VecDeque::new(),
            open: Open::default(),
        });
        Self { rings, last: None }
    }
}

impl Series {
    /// Notes the counts of a moment. Of two in less than half a second the later one is left out.
    pub fn note(&mut self, at: f64, done: u64, failed: u64, waiting: u64) {
        let Some((before, done_before, failed_before)) = self.last else {
            self.last = Some((at, done, failed));
            return;
        };
        let seconds = at - before;
        if seconds < 0.5 {
            return;
        }
        self.last = Some((at, done, failed));
        let part = Open {
            seconds,
            done: done.saturating_sub(done_before) as f64,
            failed: failed.saturating_sub(failed_before) as f64,
        };
        for ring in &mut self.rings {
            ring.note(at, part, waiting);
        }
    }

    /// Returns the points after a moment, in their order: each time once, as fine as it is known.
    #[must_use]
    pub fn after(&self, at: f64) -> Vec<Point> {
        let mut points = Vec::new();
        let mut until = f64::INFINITY;
        for ring in &self.rings {
            let part = ring.points.iter().rev().take_while(|point| point.at > at);
            points.extend(part.filter(|point| point.at < until));
            until = ring.points.front().map_or(until, |first| first.at.min(until));
        }
        points.reverse();
        points
    }

    /// Returns records and failed ones a second over the last ten seconds.
    #[must_use]
    pub fn rates(&self) -> (f64, f64) {
        let fine = &self.rings[0].points;
        let count = fine.len().min(10);
        let latest = fine.iter().rev().take(10);
        let (done, failed) =
            latest.fold((0.0, 0.0), |sum, point| (sum.0 + point.done, sum.1 + point.failed));
        let count = count.max(1) as f64;
        (done / count, failed / count)
    }
}

impl Ring {
    fn note(&mut self, at: f64, part: Open, waiting: u64) {
        let open = &mut self.open;
        open.seconds += part.seconds;
        open.done += part.done;
        open.failed += part.failed;
        // Of the two times around the step it is the nearer one.
        if open.seconds + part.seconds / 2.0 < self.step {
            return;
        }
        let Open { seconds, done, failed } = std::mem::take(open);
        if self.points.len() == self.capacity {
            self.points.pop_front();
        }
        self.points.push_back(Point {
            at,
            done: done / seconds,
            failed: failed / seconds,
            waiting,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_a_second_has_the_rates_of_its_second() {
        let mut series = Series::default();
        for second in 0..=20_u32 {
            series.note(1_000.0 + f64::from(second), u64::from(second) * 50, u64::from(second), 7);
        }
        let points = series.after(0.0);
        assert_eq!(points.len(), 20);
        assert!(points.iter().all(|point| (point.done, point.failed) == (50.0, 1.0)));
        assert_eq!(series.rates(), (50.0, 1.0));
        assert_eq!(series.after(1_018.0).len(), 2);
    }

    #[test]
    fn what_is_long_ago_is_coarser_and_each_time_is_there_once() {
        let mut series = Series::default();
        for second in 0..100_000_u32 {
            series.note(f64::from(second), u64::from(second) * 3, 0, 0);
        }
        let points = series.after(f64::NEG_INFINITY);
        assert!(points.len() <= 300 + 360 + 1_440);
        assert!(points.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert!(points.iter().all(|point| (point.done - 3.0).abs() < 1e-9));
        let first = points[0].at;
        assert!((10_000.0..15_000.0).contains(&first), "about a day is known: {first}");
    }

    #[test]
    fn a_program_that_was_stopped_has_one_point_for_all_of_that_time() {
        let mut series = Series::default();
        series.note(0.0, 0, 0, 0);
        series.note(1.0, 10, 0, 0);
        series.note(61.0, 70, 0, 0);
        assert_eq!(series.after(1.0), [Point { at: 61.0, done: 1.0, failed: 0.0, waiting: 0 }]);
    }
}
