//! Axes: from values to places on paper.

/// Range of values and its length on paper.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    is_log: bool,
    min: f64,
    max: f64,
    length: f64,
}

/// Ratio of values above which the smaller ones could not be told apart on a linear axis.
const LINEAR_RATIO_MAX: f64 = 30.0;

impl Axis {
    /// Creates an axis for bars: from zero, or, if the values differ too much for that, logarithmic
    /// from below the smallest.
    pub(super) fn of_bars(values: &[f64], length: f64) -> Self {
        let (min, max) = bounds(values);
        if min > 0.0 && max / min > LINEAR_RATIO_MAX {
            return Self { is_log: true, min: power_below(min / 1.5), max, length };
        }
        Self { is_log: false, min: 0.0, max: if max > 0.0 { max } else { 1.0 }, length }
    }

    /// Creates a logarithmic axis, from a power of ten to a power of ten.
    pub(super) fn log(values: &[f64], length: f64) -> Self {
        let (min, max) = bounds(values);
        let (min, max) = (power_below(min), power_below(max * 9.999));
        Self { is_log: true, min, max: max.max(min * 10.0), length }
    }

    /// Creates an axis from zero to a round number.
    pub(super) fn linear(values: &[f64], length: f64) -> Self {
        let (_, max) = bounds(values);
        let step = round_step(max);
        Self { is_log: false, min: 0.0, max: step * (max / step).ceil().max(1.0), length }
    }

    pub(super) fn is_log(&self) -> bool {
        self.is_log
    }

    /// Returns the place of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.min) / self.min).log10() / (self.max / self.min).log10()
        } else {
            (value - self.min) / (self.max - self.min)
        };
        share.clamp(0.0, 1.0) * self.length
    }

    /// Returns round numbers on it; powers of ten if it is logarithmic.
    pub(super) fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        let Self { is_log, min, max, .. } = *self;
        let step = round_step(max);
        let next = move |tick: &f64| Some(if is_log { tick * 10.0 } else { tick + step });
        std::iter::successors(Some(min), next).take_while(move |tick| *tick <= max * 1.001)
    }
}

fn bounds(values: &[f64]) -> (f64, f64) {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(0.0, f64::max);
    (if min.is_finite() { min } else { 0.0 }, max)
}

/// Returns one, two or five times a power of ten, so that three to six of them reach a value.
fn round_step(max: f64) -> f64 {
    let power = power_below(max / 3.0);
    let steps = [5.0, 2.0, 1.0].map(|times| times * power);
    steps.into_iter().find(|step| step * 2.5 <= max).unwrap_or(power)
}

fn power_below(value: f64) -> f64 {
    if value > 0.0 { 10f64.powf(value.log10().floor()) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_begin_at_zero_if_they_can() {
        let near = Axis::of_bars(&[10.0, 20.0], 100.0);
        assert!(!near.is_log());
        assert_eq!((near.at(0.0), near.at(10.0), near.at(20.0)), (0.0, 50.0, 100.0));
        let far = Axis::of_bars(&[30.0, 10_000.0], 100.0);
        assert!(far.is_log());
        assert!((far.at(10.0), far.at(10_000.0)) == (0.0, 100.0));
        assert!((far.at(100.0) - 100.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_and_zero_have_a_place() {
        for values in [&[][..], &[0.0][..], &[0.0, 5.0][..]] {
            assert_eq!(Axis::of_bars(values, 100.0).at(0.0), 0.0, "{values:?}");
        }
        assert_eq!(Axis::log(&[], 100.0).at(1.0), 0.0);
    }

    #[test]
    fn a_log_axis_ends_at_powers() {
        for (values, expected) in [
            (&[20.0, 3000.0][..], &[10.0, 100.0, 1000.0, 10_000.0][..]),
            (&[10.0, 1000.0], &[10.0, 100.0, 1000.0]),
            (&[5.0], &[1.0, 10.0]),
        ] {
            let ticks: Vec<f64> = Axis::log(values, 1.0).ticks().collect();
            assert_eq!(ticks, expected, "{values:?}");
        }
    }

    #[test]
    fn a_linear_axis_has_a_few_round_ticks() {
        for (max, expected) in [
            (58.0, &[0.0, 20.0, 40.0, 60.0][..]),
            (104.0, &[0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0]),
            (20.0, &[0.0, 5.0, 10.0, 15.0, 20.0]),
            (1.0, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ] {
            let ticks: Vec<f64> = Axis::linear(&[max], 1.0).ticks().collect();
            assert_eq!(ticks.len(), expected.len(), "{max}: {ticks:?}");
            assert!(ticks.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{ticks:?}");
        }
    }
}
