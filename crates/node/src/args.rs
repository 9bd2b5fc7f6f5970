//! Flags that programs share, and what their texts mean.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_lanes::LaneOptions;
use tradewind_proto::dispatcher::Timeout;
use tradewind_proto::limits::{
    HEARTBEAT_INTERVAL, LOSSES_MAX, MESSAGE_BYTES_MAX, MESSAGE_OVERHEAD_BYTES, NAME_BYTES_MAX,
    WORKER_TIMEOUT,
};

use crate::exit::{self, OK, STOPPED, TASKS_FAILED};

/// Flags of every program.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Talking to people")]
pub struct LogArgs {
    /// What to log: error, warn, info, debug, or a tracing filter
    #[arg(long, env = "TRADEWIND_LOG", value_name = "LEVEL")]
    pub log: Option<String>,

    /// No progress and no summary; warnings and errors only
    #[arg(long, short, env = "TRADEWIND_QUIET", value_parser = BoolishValueParser::new())]
    pub quiet: bool,

    /// No progress, but a summary
    #[arg(long, env = "TRADEWIND_NO_PROGRESS", value_parser = BoolishValueParser::new())]
    pub no_progress: bool,
}

/// Flags of every program that has connections.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct LaneArgs {
    /// Give up when a peer cannot be reached for this time; by default never
    #[arg(long, env = "TRADEWIND_CONNECT_TIMEOUT", value_name = "DURATION", value_parser = duration)]
    pub connect_timeout: Option<Duration>,

    /// Largest message to accept from a peer
    #[arg(
        long,
        env = "TRADEWIND_MESSAGE_MAX",
        value_name = "SIZE",
        value_parser = message_size,
        default_value = "64MiB"
    )]
    pub message_max: u64,

    /// Break a connection when sent data is not acknowledged, or not taken, for this time
    #[arg(
        long,
        env = "TRADEWIND_UNACKED_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "30s"
    )]
    pub unacked_timeout: Duration,
}

/// When a worker is given up.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct LivenessArgs {
    /// Count a worker as lost that is not heard for this time, while the sink is: its tasks go to
    /// others
    #[arg(
        long,
        env = "TRADEWIND_WORKER_TIMEOUT",
        value_name = "DURATION",
        value_parser = worker_timeout,
        default_value = "10s"
    )]
    pub worker_timeout: Duration,
}

impl LaneArgs {
    /// The lanes' options.
    #[must_use]
    pub fn options(&self) -> LaneOptions {
        LaneOptions {
            message_bytes_max: self.message_max,
            unacked_max: self.unacked_timeout,
            ..LaneOptions::default()
        }
    }
}

/// A flag of every program that knows how the job ended.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Talking to people")]
pub struct EndArgs {
    /// Exit with 0 when the job is complete, also if tasks failed; a sink or relay, also when its
    /// ventilator was stopped: for what starts a program again unless it exits with 0, such as a
    /// restart policy
    #[arg(long, env = "TRADEWIND_FAILED_OK", value_parser = BoolishValueParser::new())]
    pub failed_ok: bool,
}

impl EndArgs {
    /// The code to exit with.
    ///
    /// # Errors
    /// None of its own.
    pub fn apply(self, outcome: exit::Outcome) -> exit::Outcome {
        match outcome {
            Ok(TASKS_FAILED) if self.failed_ok => Ok(OK),
            other => other,
        }
    }

    /// The code that a sink or relay exits with. One that leaves since its ventilator was stopped is not
    /// to be started again: whoever stops all of them would find it just starting.
    ///
    /// # Errors
    /// None of its own.
    pub fn apply_downstream(self, outcome: exit::Outcome) -> exit::Outcome {
        match outcome {
            Ok(STOPPED) if self.failed_ok => Ok(OK),
            other => self.apply(other),
        }
    }
}

/// What a task may take before it counts as failed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What a task may take")]
pub struct AttemptArgs {
    /// Try a failed task again up to N times
    #[arg(long, env = "TRADEWIND_RETRIES", value_name = "N", default_value_t = 0)]
    pub retries: u32,

    /// Stop an attempt that takes longer: a duration, or N% of the median so far
    #[arg(long, env = "TRADEWIND_TIMEOUT", value_name = "DURATION|N%", value_parser = timeout)]
    pub timeout: Option<Timeout>,

    /// Give a task up when N workers died while they may have run it
    #[arg(
        long,
        env = "TRADEWIND_MAX_LOSSES",
        value_name = "N",
        default_value_t = LOSSES_MAX,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_losses: u32,

    /// Give a worker no more tasks when N have failed there, unless it is the last one. One that
    /// fails much more than the others is set aside without this
    #[arg(
        long,
        env = "TRADEWIND_MAX_FAILURES_PER_WORKER",
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub max_failures_per_worker: Option<u64>,
}

/// A duration: a number of seconds, or with a unit as in `300ms`, `2m`, `1h 30m`.
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

/// Workers are heard once a second, and one that is late is not lost.
fn worker_timeout(text: &str) -> Result<Duration, String> {
    let least = 3 * HEARTBEAT_INTERVAL;
    match duration(text)? {
        short if short < least => {
            Err(format!("workers are heard once a second: {least:?} at least"))
        }
        timeout => Ok(timeout),
    }
}

/// The same, but it may be 0.
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

/// A number of bytes, or with a unit as in `64KiB`, `16M`, `1G`; all units are powers of 1024.
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

/// The limit of a message: a [`size`] from 1 MiB to 1 GiB.
///
/// # Errors
/// When it is not.
pub fn message_size(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    let least = 1 << 20;
    let most = tradewind_wire::FRAME_BYTES_MAX as u64;
    if (least..=most).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("a message limit is between 1MiB and 1GiB".to_owned())
    }
}

/// A worker's or a job's name.
///
/// # Errors
/// When it could not be shown, or would not fit.
pub fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("a name holds no control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// A [`duration`], or a percentage of the median so far as in `300%`.
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

/// This machine's name and this process's id: a worker's name if it was given none.
#[must_use]
pub fn default_name() -> String {
    let uname = rustix::system::uname();
    let host: String = uname
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|c| !c.is_control())
        .take(NAME_BYTES_MAX / 5)
        .collect();
    format!("{host}-{}", std::process::id())
}

/// The largest payload that fits into a message of so many bytes.
#[must_use]
pub fn payload_bytes_max(message_bytes_max: u64) -> u64 {
    message_bytes_max - MESSAGE_OVERHEAD_BYTES
}

const _: () = assert!(MESSAGE_BYTES_MAX == 64 << 20, "the flag's default says so");
const _: () = assert!(WORKER_TIMEOUT.as_secs() == 10, "the flag's default says so");

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
