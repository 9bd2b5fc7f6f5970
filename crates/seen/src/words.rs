//! Numbers and times as people read them.

/// Returns a number with a comma between thousands: `77,509`.
#[must_use]
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns a number with its noun: `1 worker`, `7 workers`.
#[must_use]
pub fn many(n: u64, one: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {one}{plural}", number(n))
}

/// Returns a number in at most four characters and a unit: `77.5 k`.
#[must_use]
pub fn short(n: f64) -> String {
    let scaled = [(1e9, " G"), (1e6, " M"), (1e3, " k")];
    if n < 9_999.5 {
        return if n < 9.95 { digits(n, 2) } else { number(n.round() as u64) };
    }
    // What would be 1,000 of a unit when it is rounded is 1 of the next one.
    let (unit, name) =
        scaled.into_iter().find(|(unit, _)| n >= unit * 0.999_5).unwrap_or((1e3, " k"));
    format!("{}{name}", digits(n / unit, 3))
}

/// Returns a rate: `95/s`, `289 k/s`.
#[must_use]
pub fn rate(per_second: f64) -> String {
    if per_second <= 0.0 {
        return "0/s".to_owned();
    }
    if per_second < 9.95 {
        return format!("{}/s", digits(per_second, if per_second < 0.05 { 1 } else { 2 }));
    }
    format!("{}/s", short(per_second))
}

/// Returns a time: `760 ms`, `2.4 s`, `6 min 12 s`, `1 d 4 h`.
#[must_use]
pub fn time(seconds: f64) -> String {
    let whole = |unit: f64| (seconds / unit).floor() as u64;
    match seconds {
        s if s < 0.000_999_5 => format!("{} µs", (s * 1e6).round()),
        s if s < 0.999_5 => format!("{} ms", digits(s * 1e3, if s < 0.01 { 2 } else { 3 })),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{} s", s.round()),
        s if s < 600.0 => match (whole(60.0), whole(1.0) % 60) {
            (minutes, 0) => format!("{minutes} min"),
            (minutes, seconds) => format!("{minutes} min {seconds} s"),
        },
        s if s < 6_000.0 => format!("{} min", (s / 60.0).round()),
        s if s < 172_800.0 => format!("{} h {} min", whole(3_600.0), whole(60.0) % 60),
        _ => format!("{} d {} h", whole(86_400.0), whole(3_600.0) % 24),
    }
}

/// Returns a time that is not known well: `7 min`, `1.5 h`.
#[must_use]
pub fn about(seconds: f64) -> String {
    match seconds {
        s if s < 20.0 => format!("{} s", s.round().max(1.0)),
        s if s < 90.0 => format!("{} s", (s / 5.0).round() * 5.0),
        s if s < 5_400.0 => format!("{} min", (s / 60.0).round()),
        s if s < 36_000.0 => format!("{:.1} h", s / 3_600.0),
        s if s < 172_800.0 => format!("{} h", (s / 3_600.0).round()),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// Returns a size: `14 MiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| n >= *unit) {
        Some((unit, name)) => format!("{} {name}", digits(n as f64 / unit as f64, 3)),
        None => format!("{n} bytes"),
    }
}

/// Returns a number with so many digits that count, and no zeros after the point.
fn digits(n: f64, count: i32) -> String {
    if n <= 0.0 {
        return "0".to_owned();
    }
    let before = n.log10().floor() as i32 + 1;
    let text = format!("{n:.*}", usize::try_from(count - before).unwrap_or(0));
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (n, wanted) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(n), wanted);
        }
        assert_eq!(many(1, "worker"), "1 worker");
        assert_eq!(many(1_200, "task"), "1,200 tasks");
    }

    #[test]
    fn short_numbers_have_three_digits() {
        for (n, wanted) in [
            (0.0, "0"),
            (1.25, "1.2"),
            (42.4, "42"),
            (9_999.0, "9,999"),
            (10_000.0, "10 k"),
            (77_509.0, "77.5 k"),
            (999_499.0, "999 k"),
            (999_900.0, "1 M"),
            (8_400_000.0, "8.4 M"),
        ] {
            assert_eq!(short(n), wanted, "{n}");
        }
        assert_eq!(rate(0.013), "0.01/s");
        assert_eq!(rate(95.2), "95/s");
        assert_eq!(rate(289_418.0), "289 k/s");
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        for (seconds, wanted) in [
            (0.000_008, "8 µs"),
            (0.0015, "1.5 ms"),
            (0.76, "760 ms"),
            (2.44, "2.4 s"),
            (41.0, "41 s"),
            (372.0, "6 min 12 s"),
            (360.0, "6 min"),
            (840.0, "14 min"),
            (7_800.0, "2 h 10 min"),
            (100_800.0, "28 h 0 min"),
            (187_200.0, "2 d 4 h"),
        ] {
            assert_eq!(time(seconds), wanted, "{seconds}");
        }
        assert_eq!(about(433.0), "7 min");
        assert_eq!(about(12.4), "12 s");
        assert_eq!(about(6_000.0), "1.7 h");
        assert_eq!(bytes(16 << 20), "16 MiB");
    }
}
