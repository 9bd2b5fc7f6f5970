//! Statistics over rounds.

use serde::Serialize;

/// Spread of a figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Returns the spread; `None` if there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let sorted = sorted(values);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Self { median, min, max })
    }
}

/// Returns the ratios of ours to theirs, for each round in which both have a value: drift from
/// round to round does not show in them.
pub(crate) fn ratios<'a>(
    ours: &'a [Option<f64>],
    theirs: &'a [Option<f64>],
) -> impl Iterator<Item = f64> + 'a {
    ours.iter().zip(theirs).filter_map(|(ours, theirs)| Some((*ours)? / (*theirs)?))
}

/// Returns the value that `percent` of all values do not exceed; `None` if there are none.
pub(crate) fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let sorted = sorted(values.iter().copied());
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, expected) in [
            (&[][..], None),
            (&[7.0][..], Some((7.0, 7.0, 7.0))),
            (&[3.0, 1.0][..], Some((2.0, 1.0, 3.0))),
            (&[9.0, 1.0, 4.0][..], Some((4.0, 1.0, 9.0))),
            (&[4.0, 1.0, 2.0, 3.0][..], Some((2.5, 1.0, 4.0))),
        ] {
            let spread = Spread::of(values.iter().copied());
            assert_eq!(spread.map(|s| (s.median, s.min, s.max)), expected, "{values:?}");
        }
    }

    #[test]
    fn a_ratio_takes_both_of_a_round() {
        let ours = [Some(6.0), None, Some(2.0), Some(5.0)];
        let theirs = [Some(3.0), Some(1.0), None, Some(10.0)];
        assert_eq!(ratios(&ours, &theirs).collect::<Vec<_>>(), [2.0, 0.5]);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (percent, expected) in [(50.0, 50.0), (99.0, 99.0), (100.0, 100.0), (0.0, 1.0)] {
            assert_eq!(percentile(&hundred, percent), Some(expected), "{percent}");
        }
        assert_eq!(percentile(&[4.0], 99.0), Some(4.0));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
