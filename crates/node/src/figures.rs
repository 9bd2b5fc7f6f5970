//! Numbers in a form for people.

use std::time::Duration;

/// Formats a rate from a number per second: `8.9/s`, `123k/s`, `4.0/min`.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 999_500.0 => format!("{:.1}M/s", r / 1e6),
        r if r >= 9_999.5 => format!("{:.0}k/s", r / 1e3),
        r if r >= 99.95 => format!("{r:.0}/s"),
        r if r >= 0.95 => format!("{r:.1}/s"),
        r if r * 60.0 >= 0.95 => format!("{:.1}/min", r * 60.0),
        r => format!("{:.1}/h", r * 3600.0),
    }
}

/// Formats a duration, in its two largest units at most: `42s`, `2m`, `3h 20m`, `2d 4h`.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: u64, unit: char, small: u64, part: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{part}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        // Single seconds do not matter beyond a few minutes.
        60..300 => two(minutes, 'm', seconds % 60 / 10 * 10, 's'),
        300..3_600 => format!("{minutes}m"),
        3_600..86_400 => two(hours, 'h', minutes % 60, 'm'),
        86_400..8_640_000 => two(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_as_many_digits_as_mean_something() {
        let check = |per_second: f64, wanted: &str| assert_eq!(rate(per_second), wanted);
        check(4_650_000.0, "4.7M/s");
        check(999_600.0, "1.0M/s");
        check(123_456.0, "123k/s");
        check(9_999.0, "9999/s");
        check(120.4, "120/s");
        check(8.9124, "8.9/s");
        check(0.5, "30.0/min");
        check(1.0 / 60.0, "1.0/min");
        check(1.0 / 3600.0, "1.0/h");
    }

    #[test]
    fn times_have_two_units_at_most() {
        let check = |seconds: u64, wanted: &str| {
            assert_eq!(time(Duration::from_secs(seconds)), wanted);
        };
        check(0, "0s");
        check(59, "59s");
        check(60, "1m");
        check(125, "2m");
        check(139, "2m 10s");
        check(301, "5m");
        check(3_599, "59m");
        check(3_600, "1h");
        check(12_000, "3h 20m");
        check(187_200, "2d 4h");
        check(u64::MAX, "213503982334601d");
    }
}
