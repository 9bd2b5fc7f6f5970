//! Sleeps of very different lengths, and the schedules that they allow.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::lab::Place;

const SLEEPS: usize = 200;

/// Standard deviation of the lengths' logarithms: the longest are some twelve times as long as the
/// median.
const SIGMA: f64 = 1.0;

/// Seed with which dispatching in order, without knowledge of the lengths, comes within 3 % of the
/// bound and with a slow worker within 5 %. With three of four others it does not
/// ([`Sleeps::greedy`]): a long sleep comes to the slow worker, or last.
const SEED: u64 = 0;

/// Sleeps in seconds, in the order of the input.
#[derive(Debug)]
pub(super) struct Sleeps(Vec<f64>);

/// Speed of each worker.
pub(super) type Speeds = [f64];

impl Sleeps {
    /// Returns the same sleeps each time, scaled to this number of seconds in all.
    pub(super) fn lognormal(total: f64) -> Self {
        let mut random = fastrand::Rng::with_seed(SEED);
        let lengths: Vec<f64> = (0..SLEEPS).map(|_| (SIGMA * normal(&mut random)).exp()).collect();
        let factor = total / lengths.iter().sum::<f64>();
        Self(lengths.into_iter().map(|length| length * factor).collect())
    }

    /// Writes a file with a line for each.
    pub(super) fn write(&self, place: &Place) -> Result<PathBuf> {
        let path = place.path("sleeps");
        let lines: String = self.0.iter().map(|seconds| format!("{seconds:.6}\n")).collect();
        fs::write(&path, lines).context("cannot write the tasks")?;
        Ok(path)
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Returns a time that no schedule can beat.
    pub(super) fn bound(&self, speeds: &Speeds) -> f64 {
        let sum: f64 = self.0.iter().sum();
        let longest = self.0.iter().copied().fold(0.0, f64::max);
        (sum / speeds.iter().sum::<f64>()).max(longest)
    }

    /// Returns the time if each worker that is free gets the next one, in no time; the faster one
    /// if several are.
    pub(super) fn greedy(&self, speeds: &Speeds) -> f64 {
        let mut free_at: Vec<(f64, f64)> = speeds.iter().map(|speed| (0.0, *speed)).collect();
        for length in &self.0 {
            let next =
                free_at.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
            if let Some((at, speed)) = next {
                *at += length / *speed;
            }
        }
        free_at.into_iter().map(|(at, _)| at).fold(0.0, f64::max)
    }
}

/// Returns a number from the standard normal distribution, by Box and Muller's method.
fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_to_the_first_worker_that_is_free() {
        for (lengths, speeds, greedy, bound) in [
            (&[1.0, 1.0, 1.0, 1.0][..], &[1.0, 1.0][..], 2.0, 2.0),
            (&[1.0, 2.0, 3.0], &[1.0, 1.0], 4.0, 3.0),
            (&[9.0, 1.0], &[1.0, 1.0], 9.0, 9.0),
            (&[1.0, 1.0], &[1.0, 0.1], 10.0, 2.0 / 1.1),
        ] {
            let sleeps = Sleeps(lengths.to_vec());
            assert_eq!(sleeps.greedy(speeds), greedy, "{lengths:?}");
            assert_eq!(sleeps.bound(speeds), bound, "{lengths:?}");
        }
    }

    #[test]
    fn the_seed_leaves_room_for_the_targets() {
        let sleeps = Sleeps::lognormal(1.0);
        for (speeds, target) in [([1.0; 4], 1.03), ([1.0, 1.0, 1.0, 0.1], 1.05)] {
            assert!(sleeps.greedy(&speeds) / sleeps.bound(&speeds) < target, "{speeds:?}");
        }
    }

    #[test]
    fn the_sleeps_are_the_same_but_for_a_factor() {
        let (short, long) = (Sleeps::lognormal(1.0), Sleeps::lognormal(10.0));
        assert_eq!(short.0.len(), SLEEPS);
        assert!((long.0.iter().sum::<f64>() - 10.0).abs() < 1e-9);
        assert!(short.0.iter().zip(&long.0).all(|(a, b)| (a * 10.0 - b).abs() < 1e-9));
    }
}
