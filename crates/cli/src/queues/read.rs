//! `tradewind result`, `status` and `records`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::StreamExt;
use tokio::time::Instant;
use tradewind_client::{
    Client, ConsumerName, QueueName, QueueState, Record, Status, TaskId, TaskState, Wanted,
};
use tradewind_node::exit::{Fatal, OK, Outcome, REFUSED, TASKS_FAILED, USAGE, say};
use tradewind_text::duration_or_zero;

use super::manage::list;
use super::server::{Out, ServerArgs, fatal};
use super::{HELP, NO_RECORD};

/// Print the records of tasks, in the order of the ids
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{RESULT_EXAMPLES}\n\n{HELP}"))]
pub(crate) struct ResultArgs {
    /// Ids of tasks, as `submit` prints them
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TaskId>,

    /// Wait up to this time for records that are not there yet [default: not at all]
    #[arg(long, value_name = "DURATION", value_parser = duration_or_zero)]
    wait: Option<Duration>,

    /// Print the outputs of the tasks instead, their bytes as they are
    #[arg(long, conflicts_with = "json")]
    output: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const RESULT_EXAMPLES: &str = "\
Examples:
  tradewind result thumbs-17 --wait 30s
  tradewind result thumbs-17 --output > thumb.jpg";

/// Show all queues, a queue, or whether a task waits, runs or has its record
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct StatusArgs {
    /// Name of a queue, or id of a task
    #[arg(value_name = "QUEUE|ID")]
    of: Option<Of>,

    /// Of a task: print success, failed or running alone, as workflow managers want it
    #[arg(long, conflicts_with = "json")]
    short: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// A queue or a task: no text is both.
#[derive(Clone, Debug)]
enum Of {
    Queue(QueueName),
    Task(TaskId),
}

impl std::str::FromStr for Of {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let task = text.parse().map(Self::Task);
        task.or_else(|_| text.parse().map(Self::Queue)).map_err(|error| error.to_string())
    }
}

/// Print the records of a queue, one a line, in the order in which they were stored
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{RECORDS_EXAMPLES}\n\n{HELP}"))]
pub(crate) struct RecordsArgs {
    /// Name of the queue
    queue: QueueName,

    /// Go on with records as they are stored, also when the server is started again meanwhile
    #[arg(long, short)]
    follow: bool,

    /// Begin after this position [default: with the first that is kept]
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,

    /// Begin where this consumer is, and set its position after what was printed
    #[arg(long, value_name = "NAME", conflicts_with = "after")]
    consumer: Option<ConsumerName>,

    /// Those of this partition, of a queue on an engine that has several: each has positions of its own
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,

    /// Only those with this status
    #[arg(long, value_name = "STATUS", value_enum)]
    status: Option<StatusArg>,

    #[command(flatten)]
    server: ServerArgs,
}

const RECORDS_EXAMPLES: &str = "\
Examples:
  tradewind records thumbs --status failed
  tradewind records thumbs --follow --consumer billing >> billing.jsonl";

/// Status of a record, as a flag has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StatusArg(Status);

impl ValueEnum for StatusArg {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [StatusArg; Status::ALL.len()] = {
            let mut all = [StatusArg(Status::Ok); Status::ALL.len()];
            let mut at = 0;
            while at < all.len() {
                all[at] = StatusArg(Status::ALL[at]);
                at += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.as_str()))
    }
}

impl ResultArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        let Self { ids, wait, output, server } = self;
        server.run(|client| async move {
            let until = Instant::now() + wait.unwrap_or_default();
            let mut out = Out::new();
            let mut code = OK;
            for id in &ids {
                let left = until.saturating_duration_since(Instant::now());
                let Some(record) = client.result(id, left).await.map_err(fatal)? else {
                    out.flush()?;
                    say(&format!("tradewind result: task {id} has no record yet"));
                    code = NO_RECORD;
                    continue;
                };
                if code == OK {
                    code = code_of(&record);
                }
                if output {
                    out.bytes(output_of(&record)?)?;
                } else {
                    out.line(record.json())?;
                }
            }
            out.flush()?;
            Ok(code)
        })
    }
}

fn output_of(record: &Record) -> Result<Vec<u8>, Fatal> {
    let what = || format!("the record of task {} has no output", record.id);
    record.output().ok_or_else(|| Fatal::new(REFUSED, what()))
}

/// Returns the exit code for a record.
pub(super) fn code_of(record: &Record) -> u8 {
    if record.status.is_success() { OK } else { TASKS_FAILED }
}

impl StatusArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        let Self { of, short, server } = self;
        let is_task = matches!(of, Some(Of::Task(_)));
        if short && !is_task {
            return Err(Fatal::new(USAGE, "--short is for the id of a task"));
        }
        let is_json = server.json;
        server.run(|client| async move {
            match of {
                None => list(client, is_json).await,
                Some(Of::Queue(queue)) => show_queue(&client, &queue, is_json).await,
                Some(Of::Task(id)) => show_task(&client, &id, short, is_json).await,
            }
        })
    }
}

async fn show_queue(client: &Client, queue: &QueueName, is_json: bool) -> Outcome {
    let state = client.queue(queue.as_str()).await.map_err(fatal)?;
    let mut out = Out::new();
    if is_json {
        out.line(state.json())?;
    } else {
        let QueueState { is_paused, queued, running, records, position, .. } = &state;
        out.line(format!("queue     {queue}"))?;
        out.line(format!("state     {}", if *is_paused { "paused" } else { "open" }))?;
        out.line(format!("queued    {queued}"))?;
        out.line(format!("running   {running}"))?;
        out.line(format!("records   {records}"))?;
        let position = position.map_or("none".to_owned(), |position| position.to_string());
        out.line(format!("position  {position}"))?;
        out.line(format!("settings  {}", settings(&state)))?;
    }
    out.flush()?;
    Ok(OK)
}

/// Returns the settings as the server writes them.
fn settings(state: &QueueState) -> String {
    let json = serde_json::to_value(tradewind_queue::WrittenSettings::from(&state.settings));
    let members = json.ok().and_then(|json| json.as_object().cloned()).unwrap_or_default();
    let shown = members.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={value}")
    });
    shown.collect::<Vec<_>>().join(", ")
}

async fn show_task(client: &Client, id: &TaskId, short: bool, is_json: bool) -> Outcome {
    let state = client.task(id).await.map_err(fatal)?;
    let mut out = Out::new();
    out.line(match is_json {
        true => state_json(id, &state),
        false if short => short_word(&state).to_owned(),
        false => word(&state).to_owned(),
    })?;
    out.flush()?;
    Ok(OK)
}

/// Returns the word for a task's state.
pub(super) fn word(state: &TaskState) -> &'static str {
    match state {
        TaskState::Queued => "queued",
        TaskState::Running => "running",
        TaskState::Record(record) => record.status.as_str(),
    }
}

fn short_word(state: &TaskState) -> &'static str {
    match state {
        TaskState::Queued | TaskState::Running => "running",
        TaskState::Record(record) if record.status.is_success() => "success",
        TaskState::Record(_) => "failed",
    }
}

/// Returns a task's state as the server gave it.
pub(super) fn state_json(id: &TaskId, state: &TaskState) -> String {
    match state {
        TaskState::Record(record) => record.json().to_owned(),
        state => format!(r#"{{"id":"{id}","status":"{}"}}"#, word(state)),
    }
}

/// Number of records after which they are flushed and a consumer's position is set, at the latest.
const CHUNK_RECORDS_MAX: usize = 1000;

impl RecordsArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        let Self { queue, follow, after, consumer, partition, status, server } = self;
        let mut wanted = Wanted::default();
        if follow {
            wanted = wanted.follow();
        }
        if let Some(after) = after {
            wanted = wanted.after(after);
        }
        if let Some(partition) = partition {
            wanted = wanted.partition(partition);
        }
        if let Some(StatusArg(status)) = status {
            wanted = wanted.status(status);
        }
        server.run(|client| async move {
            if let Some(consumer) = &consumer {
                wanted = wanted.consumer(consumer.as_str()).map_err(|error| fatal(error.into()))?;
            }
            let records = client.records(queue.as_str(), wanted).map_err(fatal)?;
            let mut chunks = records.ready_chunks(CHUNK_RECORDS_MAX);
            let mut out = Out::new();
            while let Some(chunk) = chunks.next().await {
                let mut last = None;
                let mut end = Ok(());
                for record in chunk {
                    match record {
                        Ok(record) => {
                            out.line(record.json())?;
                            last = Some(record.position);
                        }
                        Err(error) => end = Err(fatal(error)),
                    }
                }
                out.flush()?;
                if let (Some(consumer), Some(_)) = (&consumer, last) {
                    let (queue, consumer) = (queue.as_str(), consumer.as_str());
                    client.set_consumer(queue, consumer, last).await.map_err(fatal)?;
                }
                end?;
            }
            Ok(OK)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_status_is_of_is_told_by_its_end() {
        assert!(matches!("thumbs".parse(), Ok(Of::Queue(_))));
        assert!(matches!("thumbs-17".parse(), Ok(Of::Task(_))));
        for text in ["", "Thumbs", "thumbs-", "thumbs-017"] {
            assert!(text.parse::<Of>().is_err(), "{text}");
        }
    }
}
