//! Durations, sizes, names and timeouts.

use std::time::Duration;

use tradewind_proto::dispatcher::Timeout;
use tradewind_proto::limits::{MESSAGE_OVERHEAD_BYTES, NAME_BYTES_MAX, QUEUE_BYTES_MAX};
use tradewind_shown::{is_hidden, is_plain};

/// Parses a duration: a number of seconds, or with a unit as in `300ms`, `2m`, `1h 30m`.
///
/// # Errors
/// When it is neither.
pub fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text) {
        Ok(duration) if duration.is_zero() => {
            Err("a duration is a number of seconds above 0, or like 300ms, 2m, 1h".to_owned())
        }
        parsed => parsed,
    }
}

/// Parses a [`duration`] that may be 0.
///
/// # Errors
/// When it is neither.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let parsed = if is_plain {
        text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    } else {
        humantime::parse_duration(text).ok()
    };
    parsed.ok_or_else(|| {
        "a duration is a number of seconds above 0, or like 300ms, 2m, 1h".to_owned()
    })
}

/// Parses a number of bytes, or with a unit as in `64KiB`, `16M`, `1G`; all units are powers of
/// 1024.
///
/// # Errors
/// When it is neither.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(format!("unknown unit {unit:?}; sizes are like 4096, 64KiB, 16MiB, 1GiB")),
    };
    let number: u64 =
        number.parse().map_err(|_| "a size is like 4096, 64KiB, 16MiB, 1GiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too large".to_owned())
}

/// Parses the name of a worker or a job.
///
/// # Errors
/// When it could not be shown, or would not fit.
pub fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if !is_plain(text) {
        return Err("a name holds no hidden characters (control, direction, zero width)".to_owned());
    }
    Ok(text.to_owned())
}

/// Returns whether a text is 1 to 63 of `a-z`, `0-9`, `-` and `_`, the first of them one of `a-z` and `0-9`: fit for a
/// path, a URL and a file name as it is.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= QUEUE_BYTES_MAX
        && text.bytes().next().is_some_and(|first| is_alphanumeric(&first))
        && text.bytes().all(|byte| is_alphanumeric(&byte) || matches!(byte, b'-' | b'_'))
}

/// Returns whether a text is the name of a queue: an [identifier](is_identifier) that does not end as the id of a
/// task does, with `-` or with `-` and digits.
#[must_use]
pub fn is_queue_name(text: &str) -> bool {
    let end = text.rsplit_once('-').map(|(_, end)| end);
    is_identifier(text) && !end.is_some_and(|end| end.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Parses the [name of a queue](is_queue_name).
///
/// # Errors
/// When it is none.
pub fn queue_name(text: &str) -> Result<String, String> {
    if is_queue_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "the name of a queue has 1 to {QUEUE_BYTES_MAX} of a-z, 0-9, - and _, begins with one of a-z and 0-9, and does \
         not end with - and digits"
    ))
}

/// Parses a [`duration`], or a percentage of the median so far as in `300%`.
///
/// # Errors
/// When it is neither.
pub fn timeout(text: &str) -> Result<Timeout, String> {
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(percent) if percent > 0.0 && percent <= 1e6 => Ok(Timeout::Percent(percent)),
            _ => Err("a percentage is a number above 0, as in 300%".to_owned()),
        },
        None => duration(text).map(Timeout::After),
    }
}

/// Returns the machine's name and this process's id: the default name of a worker.
#[must_use]
pub fn default_name() -> String {
    format!("{}-{}", host_name(), std::process::id())
}

/// Returns the machine's name.
#[must_use]
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    name.chars().filter(|c| !is_hidden(*c)).take(NAME_BYTES_MAX / 5).collect()
}

/// Returns the bytes of the largest payload that fits into a message of this size.
#[must_use]
pub fn payload_bytes_max(message_bytes_max: u64) -> u64 {
    message_bytes_max - MESSAGE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_what_people_write() {
        let ms = |text| duration(text).map(|duration| duration.as_millis()).ok();
        assert_eq!(ms("2"), Some(2_000));
        assert_eq!(ms("0.25"), Some(250));
        assert_eq!(ms("300ms"), Some(300));
        assert_eq!(ms("1h 30m"), Some(5_400_000));
        for bad in ["", "0", "-1", "1.2.3", "soon", "nan", "1e400"] {
            assert_eq!(ms(bad), None, "{bad:?}");
        }
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64KiB"), Ok(64 << 10));
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size("1GB"), Ok(1 << 30));
        for bad in ["", "MiB", "1TiB", "-1", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_default_name_is_a_name() {
        assert_eq!(name(&default_name()), Ok(default_name()));
    }
}
