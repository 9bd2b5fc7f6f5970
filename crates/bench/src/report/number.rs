//! Numbers as text.

use crate::figure::{Bound, Unit};
use crate::stats::Spread;

const KIB: f64 = 1024.0;
const MIB: f64 = KIB * KIB;

/// Returns a value with its unit and three significant digits.
pub(crate) fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::TasksPerSecond => format!("{}/s", thousands(value)),
        Unit::Times => thousands(value),
        Unit::PercentOfCore => format!("{} %", digits(value)),
        _ => format!("{} {}", digits(value), unit.symbol()),
    }
}

/// Returns a number as in 2.41 M.
pub(super) fn thousands(value: f64) -> String {
    match value {
        // Not 1000 k.
        999.5e3.. => format!("{} M", digits(value / 1e6)),
        1e4.. => format!("{} k", digits(value / 1e3)),
        _ => digits(value),
    }
}

/// Returns a number of bytes that is a power of two.
pub(super) fn size(bytes: f64) -> String {
    match bytes {
        MIB.. => format!("{} MiB", bytes / MIB),
        KIB.. => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} B"),
    }
}

/// Returns the least and the most; nothing if they are the same.
pub(super) fn range(spread: Spread, unit: Unit) -> String {
    if spread.min == spread.max {
        return String::new();
    }
    format!("{} – {}", number(spread.min, unit), number(spread.max, unit))
}

/// Returns the median and, in parentheses, the least and the most.
pub(super) fn with_range(spread: Spread, unit: Unit) -> String {
    let range = range(spread, unit);
    let median = number(spread.median, unit);
    if range.is_empty() { median } else { format!("{median} ({range})") }
}

pub(super) fn bound(bound: Bound, unit: Unit) -> String {
    match bound {
        Bound::AtLeast(value) => format!("at least {}", number(value, unit)),
        Bound::AtMost(value) => format!("at most {}", number(value, unit)),
    }
}

fn digits(value: f64) -> String {
    match value.abs() {
        99.95.. => format!("{value:.0}"),
        9.995.. => format!("{value:.1}"),
        0.0995.. => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_shown_if_there_is_one() {
        for (min, max, expected) in [(1.0, 3.0, "2.00 (1.00 – 3.00)"), (2.0, 2.0, "2.00")] {
            assert_eq!(with_range(Spread { median: 2.0, min, max }, Unit::Times), expected);
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, unit, expected) in [
            (2_412_345.0, Unit::TasksPerSecond, "2.41 M/s"),
            (24_100.0, Unit::TasksPerSecond, "24.1 k/s"),
            (999_900.0, Unit::TasksPerSecond, "1.00 M/s"),
            (812.4, Unit::TasksPerSecond, "812/s"),
            (99.96, Unit::Milliseconds, "100 ms"),
            (9.996, Unit::Milliseconds, "10.0 ms"),
            (1.0349, Unit::Times, "1.03"),
            (12_340.0, Unit::Times, "12.3 k"),
            (0.0123, Unit::PercentOfCore, "0.012 %"),
            (0.0, Unit::PercentOfCore, "0 %"),
        ] {
            assert_eq!(number(value, unit), expected);
        }
    }
}
