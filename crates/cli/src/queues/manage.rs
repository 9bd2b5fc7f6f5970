//! `tradewind queue`, `pause` and `resume`.

use std::time::Duration;

use clap::{Args, Subcommand};
use tradewind_client::{
    Change, Client, Fsync, Keep, QueueName, QueueState, Settings, SettingsPatch, Unique,
};
use tradewind_node::exit::{Fatal, OK, Outcome, USAGE, say};
use tradewind_queue::time;

use super::HELP;
use super::server::{Out, ServerArgs, fatal};

/// Make, change, list and remove queues
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{HELP}"))]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

const EXAMPLES: &str = "\
Examples:
  tradewind queue add thumbs --retries 3 --timeout 10m --keep 7d
  tradewind queue set thumbs --max-running 200 --timeout default
  tradewind queue list
  tradewind queue rm thumbs";

#[derive(Subcommand, Clone, Debug)]
enum QueueCommand {
    Add(AddArgs),
    Set(SetArgs),
    List(ListArgs),
    Rm(RmArgs),
}

/// Make a queue; one that is there gets exactly these settings
#[derive(Args, Clone, Debug)]
struct AddArgs {
    /// Name of the queue: a-z, 0-9, - and _
    queue: QueueName,

    #[command(flatten)]
    settings: SettingArgs,

    #[command(flatten)]
    server: ServerArgs,
}

/// Change settings of a queue; those that are not named stay as they are
#[derive(Args, Clone, Debug)]
struct SetArgs {
    /// Name of the queue
    queue: QueueName,

    #[command(flatten)]
    settings: SettingArgs,

    #[command(flatten)]
    server: ServerArgs,
}

/// List all queues
#[derive(Args, Clone, Debug)]
struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Remove a queue whose tasks all have their records, with these records
#[derive(Args, Clone, Debug)]
struct RmArgs {
    /// Name of the queue
    queue: QueueName,

    #[command(flatten)]
    server: ServerArgs,
}

/// Stop to dispatch the tasks of a queue; those that run go on
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct PauseArgs {
    /// Name of the queue
    queue: QueueName,

    #[command(flatten)]
    server: ServerArgs,
}

/// Dispatch the tasks of a queue again
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ResumeArgs {
    /// Name of the queue
    queue: QueueName,

    #[command(flatten)]
    server: ServerArgs,
}

/// Settings of a queue. The word `default` gives one its default again.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings (each may be `default`)")]
struct SettingArgs {
    /// Retry a failed task up to N times [default: 0]
    #[arg(long, value_name = "N", value_parser = change(number::<u32>))]
    retries: Option<Change<u32>>,

    /// Stop an attempt that runs longer, as in 10m [default: none is stopped]
    #[arg(long, value_name = "TIME", value_parser = change(timeout))]
    timeout: Option<Change<Duration>>,

    /// Run at most N tasks at a time [default: as many as there are slots]
    #[arg(long, value_name = "N", value_parser = change(running))]
    max_running: Option<Change<u64>>,

    /// Keep records for a time (7d), the latest of a size (20G), or those that a consumer has not passed
    /// (consumed) [default: all]
    #[arg(long, value_name = "TIME|SIZE|consumed", value_parser = change(setting::<Keep>))]
    keep: Option<Change<Keep>>,

    /// Remember keys as long as their records are kept (kept), until they are stored (stored), or for a time
    /// (1h) [default: kept]
    #[arg(long, value_name = "kept|stored|TIME", value_parser = change(setting::<Unique>))]
    unique: Option<Change<Unique>>,

    /// Make what was written survive a crash of the machine: never (none), many at a time (batch), or each by
    /// itself (record) [default: batch]
    #[arg(long, value_name = "none|batch|record", value_parser = change(setting::<Fsync>))]
    fsync: Option<Change<Fsync>>,
}

/// Returns a parser of values that may be `default`.
fn change<T: Clone + Send + Sync + 'static>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Change<T>, String> + Clone + Send + Sync + 'static {
    move |text| match text {
        "default" => Ok(Change::Default),
        text => parse(text).map(Change::To),
    }
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: std::num::ParseIntError| error.to_string())
}

fn running(text: &str) -> Result<u64, String> {
    match number(text)? {
        0 => Err("this must be at least 1".to_owned()),
        running => Ok(running),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    time("timeout", text).map_err(|error| error.to_string())
}

fn setting<T>(text: &str) -> Result<T, String>
where
    T: std::str::FromStr,
    T::Err: ToString,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

impl SettingArgs {
    fn patch(self) -> SettingsPatch {
        SettingsPatch {
            retries: self.retries.unwrap_or_default(),
            timeout: self.timeout.unwrap_or_default(),
            max_running: self.max_running.unwrap_or_default(),
            keep: self.keep.unwrap_or_default(),
            unique: self.unique.unwrap_or_default(),
            fsync: self.fsync.unwrap_or_default(),
        }
    }
}

impl QueueArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        match self.command {
            QueueCommand::Add(args) => args.main(),
            QueueCommand::Set(args) => args.main(),
            QueueCommand::List(args) => args.server.run(|client| list(client, args.server.json)),
            QueueCommand::Rm(args) => args.main(),
        }
    }
}

impl AddArgs {
    fn main(self) -> Outcome {
        let Self { queue, settings, server } = self;
        let settings = settings.patch().apply(Settings::default());
        server.run(|client| async move {
            let put = client.put_queue(queue.as_str(), &settings).await;
            let (state, is_new) = put.map_err(fatal)?;
            let what = if is_new { "made" } else { "was there, and has these settings now" };
            told(&state, server.json, &format!("queue {queue} {what}"))
        })
    }
}

impl SetArgs {
    fn main(self) -> Outcome {
        let Self { queue, settings, server } = self;
        let patch = settings.patch();
        if patch == SettingsPatch::default() {
            return Err(Fatal::new(USAGE, "no setting to change: see --help"));
        }
        server.run(|client| async move {
            let state = client.patch_queue(queue.as_str(), &patch).await.map_err(fatal)?;
            told(&state, server.json, &format!("queue {queue} changed"))
        })
    }
}

impl RmArgs {
    fn main(self) -> Outcome {
        let Self { queue, server } = self;
        server.run(|client| async move {
            client.remove_queue(queue.as_str()).await.map_err(fatal)?;
            if !server.json {
                say(&format!("queue {queue} removed"));
            }
            Ok(OK)
        })
    }
}

impl PauseArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        let Self { queue, server } = self;
        server.run(|client| async move {
            let state = client.pause(queue.as_str()).await.map_err(fatal)?;
            told(&state, server.json, &format!("queue {queue} paused: {} tasks run", state.running))
        })
    }
}

impl ResumeArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        let Self { queue, server } = self;
        server.run(|client| async move {
            let state = client.resume(queue.as_str()).await.map_err(fatal)?;
            told(&state, server.json, &format!("queue {queue} resumed"))
        })
    }
}

fn told(state: &QueueState, is_json: bool, text: &str) -> Outcome {
    if is_json {
        let mut out = Out::new();
        out.line(state.json())?;
        out.flush()?;
    } else {
        say(text);
    }
    Ok(OK)
}

/// Prints all queues, one a line.
pub(super) async fn list(client: Client, is_json: bool) -> Outcome {
    let queues = client.queues().await.map_err(fatal)?;
    let mut out = Out::new();
    if is_json {
        for state in &queues {
            out.line(state.json())?;
        }
    } else {
        let width = queues.iter().map(|state| state.name.as_str().len()).max().unwrap_or(0).max(5);
        out.line(format!(
            "{:width$}  {:6}  {:>10}  {:>10}  {:>10}",
            "queue", "state", "queued", "running", "records"
        ))?;
        for state in &queues {
            let QueueState { name, is_paused, queued, running, records, .. } = state;
            let paused = if *is_paused { "paused" } else { "open" };
            let name = name.as_str();
            out.line(format!(
                "{name:width$}  {paused:6}  {queued:>10}  {running:>10}  {records:>10}"
            ))?;
        }
    }
    out.flush()?;
    Ok(OK)
}
