//! How long attempts ran.

/// Attempts by their run times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runs {
    /// Seconds that a bucket goes up to, and the number of attempts in it. The buckets grow.
    buckets: Vec<(f64, u64)>,
}

impl Runs {
    /// Makes one of buckets: the seconds that each goes up to, in growing order, and its attempts.
    #[must_use]
    pub const fn new(buckets: Vec<(f64, u64)>) -> Self {
        Self { buckets }
    }

    /// Returns the number of attempts.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Returns the seconds in which this share of the attempts ended; `None` without any.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share;
        let (mut below, mut from) = (0.0, 0.0);
        for (to, count) in &self.buckets {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return Some(from + (to - from) * ((wanted - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            from = *to;
        }
        None
    }

    /// Returns the seconds that the longest of so many running tasks will still take, with this
    /// probability, if they run as long as the others did and it is not known since when.
    #[must_use]
    pub fn rest(&self, running: u64, probability: f64) -> f64 {
        let all = self.count() as f64;
        if all == 0.0 || running == 0 {
            return 0.0;
        }
        // The time that a running task has left is spread by what survives: the renewal theorem's residual life.
        let one = probability.powf(1.0 / running as f64);
        let mut total = 0.0;
        let (mut alive, mut from) = (all, 0.0);
        let mut areas = Vec::with_capacity(self.buckets.len());
        for (to, count) in &self.buckets {
            let (width, ended) = (to - from, *count as f64);
            let area = width * (alive - ended / 2.0) / all;
            areas.push((from, *to, area));
            total += area;
            alive -= ended;
            from = *to;
            if alive <= 0.0 {
                break;
            }
        }
        let mut wanted = one * total;
        for (from, to, area) in areas {
            if area >= wanted && area > 0.0 {
                return from + (to - from) * wanted / area;
            }
            wanted -= area;
        }
        from
    }

    /// Returns a bucket for each doubling from the first that has attempts to the last, as plots show them.
    #[must_use]
    pub fn doublings(&self) -> Vec<(f64, u64)> {
        let mut doublings: Vec<(f64, u64)> = Vec::new();
        for (to, count) in self.buckets.iter().filter(|(_, count)| *count > 0) {
            let up_to = to.log2().ceil().exp2();
            while let Some((last, _)) = doublings.last()
                && *last < up_to
            {
                let next = last * 2.0;
                doublings.push((next, 0));
            }
            match doublings.last_mut() {
                Some((_, sum)) => *sum += count,
                None => doublings.push((up_to, *count)),
            }
        }
        doublings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> Runs {
        Runs::new((1..=10).map(|n| (f64::from(n), 10)).collect())
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        assert_eq!(Runs::default().quantile(0.5), None);
        assert_eq!(runs().quantile(0.5), Some(5.0));
        assert_eq!(runs().quantile(0.95), Some(9.5));
        assert_eq!(Runs::new(vec![(1.0, 0), (2.0, 4)]).quantile(0.5), Some(1.5));
    }

    #[test]
    fn more_running_tasks_take_longer_and_none_takes_longer_than_all_did() {
        let runs = runs();
        let (one, many) = (runs.rest(1, 0.5), runs.rest(64, 0.5));
        assert!(0.0 < one && one < many && many < 10.0, "{one} {many}");
        // Of run times that are spread evenly from 0 to 10 the rest is, at half, 10 - √50.
        assert!((one - (10.0 - 50_f64.sqrt())).abs() < 0.2, "{one}");
        assert_eq!(Runs::default().rest(4, 0.9), 0.0);
    }

    #[test]
    fn plots_have_a_bar_for_each_doubling_without_a_gap() {
        let runs = Runs::new(vec![(0.1, 0), (0.11, 3), (0.12, 1), (0.9, 2), (4.0, 0)]);
        assert_eq!(runs.doublings(), [(0.125, 4), (0.25, 0), (0.5, 0), (1.0, 2)]);
    }
}
