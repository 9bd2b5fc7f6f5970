//! Points in time, in seconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use rustls::pki_types::UnixTime;

/// Difference between two clocks that is forgiven: whatever is made is valid from so much earlier.
pub const SKEW_MAX: Duration = Duration::from_secs(5 * 60);

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn of_seconds(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn after(time: UnixTime, pause: Duration) -> UnixTime {
    of_seconds(time.as_secs().saturating_add(pause.as_secs()))
}

pub(crate) fn before(time: UnixTime, pause: Duration) -> UnixTime {
    of_seconds(time.as_secs().saturating_sub(pause.as_secs()))
}

/// Returns the time from one point to a later one; zero if it is not later.
pub(crate) fn between(from: UnixTime, to: UnixTime) -> Duration {
    Duration::from_secs(to.as_secs().saturating_sub(from.as_secs()))
}

/// Latest time that is written, the end of the year 9999.
const LATEST: u64 = 253_402_300_799;

/// Returns the time as people read it, e.g. `2026-12-01T10:00:00Z`.
#[must_use]
pub fn text(time: UnixTime) -> String {
    let since = Duration::from_secs(time.as_secs().min(LATEST));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

pub(crate) fn parse(text: &str) -> Option<UnixTime> {
    let time: SystemTime = humantime::parse_rfc3339(text).ok()?;
    Some(of_seconds(time.duration_since(UNIX_EPOCH).ok()?.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_and_read_back() {
        let time = of_seconds(1_796_119_200);
        assert_eq!(text(time), "2026-12-01T10:00:00Z");
        assert_eq!(parse(&text(time)), Some(time));
        assert_eq!(parse("tomorrow"), None);
        assert_eq!(text(of_seconds(u64::MAX)), "9999-12-31T23:59:59Z");
    }
}
