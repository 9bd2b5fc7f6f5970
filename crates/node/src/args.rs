//! Flags that programs share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_keys::KEYS_ENV;
use tradewind_lanes::LaneOptions;
use tradewind_proto::dispatcher::{Halt, Policy, Timeout};
use tradewind_proto::limits::{HEARTBEAT_INTERVAL, LOSSES_MAX, MESSAGE_BYTES_MAX, WORKER_TIMEOUT};
use tradewind_text::{duration, size, timeout};

use crate::exit::{self, OK, STOPPED, TASKS_FAILED};
use crate::keys::{INSECURE_ENV, Wanted};

/// Flags of every program.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging and progress")]
pub struct LogArgs {
    /// Log level: error, warn, info, debug, or a tracing filter
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

/// Flags of every program that listens.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Connections")]
pub struct GateArgs {
    /// Number of connections to one port from one address, or from one /64 network of IPv6; 0 for any number. More
    /// workers than that behind one address (NAT, a proxy) need a higher one
    #[arg(
        long,
        env = "TRADEWIND_CONNECTIONS_PER_ADDRESS",
        value_name = "N",
        default_value_t = LaneOptions::default().connections_per_address
    )]
    pub connections_per_address: usize,
}

impl GateArgs {
    /// Returns the lanes' options with those of a port.
    #[must_use]
    pub fn options(&self, lanes: LaneOptions) -> LaneOptions {
        LaneOptions { connections_per_address: self.connections_per_address, ..lanes }
    }
}

/// Flags of every program that has connections over TCP.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Keys")]
pub struct KeyArgs {
    /// Folder of keys that `tradewind keys new` has made, or file with a token. By default looked for in
    /// $CREDENTIALS_DIRECTORY, /run/secrets and ~/.config/tradewind
    #[arg(long, env = KEYS_ENV, value_name = "PATH")]
    pub keys: Option<PathBuf>,

    /// Use no keys: whoever reaches a port may take part, and connections are not encrypted
    #[arg(long, env = INSECURE_ENV, value_parser = BoolishValueParser::new())]
    pub insecure: bool,
}

impl KeyArgs {
    /// Returns what was said about keys.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted { keys: self.keys.clone(), is_insecure: self.insecure }
    }
}

/// When a worker is given up.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct LivenessArgs {
    /// Silence after which a worker counts as lost, if the sink was heard meanwhile: its tasks are
    /// reassigned
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
#[command(next_help_heading = "Logging and progress")]
pub struct EndArgs {
    /// Exit with 0 when the job is complete, even if tasks failed; a sink or relay, also when its
    /// ventilator was stopped. For a supervisor that restarts a program unless it exits with 0, such
    /// as a restart policy
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

    /// Returns the code that a sink or relay exits with. One that leaves since its ventilator was stopped is
    /// not to be started again: a supervisor that stops all of them would find it just starting.
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

/// Limits on retries and run time of a task.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Retries and timeouts")]
pub struct AttemptArgs {
    /// Retry a failed task up to N times
    #[arg(long, env = "TRADEWIND_RETRIES", value_name = "N", default_value_t = 0)]
    pub retries: u32,

    /// Stop an attempt that runs longer: a duration, or N% of the median run time so far
    #[arg(long, env = "TRADEWIND_TIMEOUT", value_name = "DURATION|N%", value_parser = timeout)]
    pub timeout: Option<Timeout>,

    /// Record a task as lost after N workers were lost that may have run it
    #[arg(
        long,
        env = "TRADEWIND_MAX_LOSSES",
        value_name = "N",
        default_value_t = LOSSES_MAX,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_losses: u32,

    /// Give a worker no more tasks after N have failed there, unless it is the last one. A worker that
    /// fails much more often than the others is set aside without this flag
    #[arg(
        long,
        env = "TRADEWIND_MAX_FAILURES_PER_WORKER",
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub max_failures_per_worker: Option<u64>,
}

impl AttemptArgs {
    /// Returns the limits of a stage's tasks and workers, with the flags that stand elsewhere.
    #[must_use]
    pub fn policy(
        &self,
        liveness: &LivenessArgs,
        resume_wait: Duration,
        halt: Option<Halt>,
    ) -> Policy {
        let Self { retries, timeout, max_losses, max_failures_per_worker } = *self;
        let LivenessArgs { worker_timeout } = *liveness;
        Policy {
            retries,
            timeout,
            losses_max: max_losses,
            max_running: None,
            worker_failures_max: max_failures_per_worker,
            worker_timeout,
            resume_wait,
            halt,
        }
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

const _: () = assert!(MESSAGE_BYTES_MAX == 64 << 20, "the flag's default says so");
const _: () = assert!(WORKER_TIMEOUT.as_secs() == 10, "the flag's default says so");
