//! `tradewind cancel` and `retry`.

use clap::Args;
use futures::stream::{StreamExt, TryStreamExt};
use tradewind_client::{
    Client, Error, ProblemKind, QueueName, Record, Status, Submitted, TaskId, Wanted,
};
use tradewind_node::exit::{Fatal, OK, Outcome, REFUSED, say};

use super::HELP;
use super::read::{state_json, word};
use super::server::{Out, ServerArgs, fatal};

/// Cancel tasks: one that waits never runs, one that runs is stopped, and each has its record
///
/// Prints each id and the state of its task: cancelled; running, if it is being stopped; or the status of
/// the record that it had already.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct CancelArgs {
    /// Ids of tasks
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TaskId>,

    #[command(flatten)]
    server: ServerArgs,
}

/// Submit tasks again that have their records, as new tasks; prints the new ids
///
/// A record is never replaced. With --failed each is submitted under the key retry-of-ID, so the command can
/// be run again: tasks that were retried have the same new ids then. Tasks whose payloads are no longer kept are
/// left out and counted, and the exit code is 7 then.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(crate) struct RetryArgs {
    /// Ids of tasks
    #[arg(required_unless_present = "failed", value_name = "ID")]
    ids: Vec<TaskId>,

    /// Retry all tasks of this queue that failed, timed out or were lost
    #[arg(long, value_name = "QUEUE", conflicts_with = "ids")]
    failed: Option<QueueName>,

    #[command(flatten)]
    server: ServerArgs,
}

/// Number of requests at a time: what they write is made to survive together.
const RETRIES_AT_ONCE: usize = 16;

impl CancelArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        let Self { ids, server } = self;
        server.run(|client| async move {
            let mut out = Out::new();
            let mut each = Each::new("cancel");
            for id in &ids {
                let Some(state) = each.answer(id, client.cancel(id).await)? else { continue };
                out.line(match server.json {
                    true => state_json(id, &state),
                    false => format!("{id} {}", word(&state)),
                })?;
            }
            out.flush()?;
            Ok(each.code)
        })
    }
}

impl RetryArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        let Self { ids, failed, server } = self;
        let is_json = server.json;
        server.run(|client| async move {
            let mut out = Out::new();
            if let Some(queue) = failed {
                return retry_failed(&client, &queue, is_json, out).await;
            }
            let mut each = Each::new("retry");
            for id in &ids {
                let answer = client.retry(id, None).await;
                let Some(submitted) = each.answer(id, answer)? else { continue };
                out.line(retried(id, &submitted, is_json))?;
            }
            out.flush()?;
            Ok(each.code)
        })
    }
}

/// Goes through several ids: what is refused of one is no reason to leave out the others.
struct Each {
    command: &'static str,
    code: u8,
}

impl Each {
    fn new(command: &'static str) -> Self {
        Self { command, code: OK }
    }

    fn answer<T>(&mut self, id: &TaskId, answer: Result<T, Error>) -> Result<Option<T>, Fatal> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error @ Error::Problem(_)) => {
                let Fatal { code, error } = fatal(error);
                say(&format!("tradewind {}: {id}: {error:#}", self.command));
                self.code = code;
                Ok(None)
            }
            Err(error) => Err(fatal(error)),
        }
    }
}

async fn retry_failed(client: &Client, queue: &QueueName, is_json: bool, mut out: Out) -> Outcome {
    // Those that are recorded later belong to the next call: among them may be the retries of this one.
    let last = client.queue(queue.as_str()).await.map_err(fatal)?.position;
    let records = client.records(queue.as_str(), Wanted::default()).map_err(fatal)?;
    let records = records.try_take_while(|record| {
        let is_before = Some(record.position) <= last;
        async move { Ok(is_before) }
    });
    let failed = records.try_filter(|record| {
        let is_failed = is_failed(record);
        async move { is_failed }
    });
    let retries = failed.map(|record| async move {
        let id = record?.id;
        match client.retry(&id, Some(&format!("retry-of-{id}"))).await {
            Ok(submitted) => Ok((id, Some(submitted))),
            Err(error) if error.is(ProblemKind::Gone) => Ok((id, None)),
            Err(error) => Err(error),
        }
    });
    let retries = retries.buffered(RETRIES_AT_ONCE).ready_chunks(RETRIES_AT_ONCE);
    let mut retries = std::pin::pin!(retries);
    let mut gone = Gone::default();
    while let Some(chunk) = retries.next().await {
        let mut end = Ok(());
        for retry in chunk {
            match retry {
                Ok((id, Some(submitted))) => out.line(retried(&id, &submitted, is_json))?,
                Ok((id, None)) => gone.note(id),
                Err(error) => end = Err(fatal(error)),
            }
        }
        out.flush()?;
        if end.is_err() {
            gone.tell();
        }
        end?;
    }
    Ok(gone.tell())
}

/// Failed tasks that cannot be retried, since their payloads are no longer kept.
#[derive(Default)]
struct Gone {
    count: u64,
    first: Option<TaskId>,
}

impl Gone {
    fn note(&mut self, id: TaskId) {
        self.count += 1;
        self.first.get_or_insert(id);
    }

    /// Says how many there are, and returns the exit code.
    fn tell(&self) -> u8 {
        let Some(first) = &self.first else { return OK };
        let (tasks, these) =
            if self.count == 1 { ("task", "it is") } else { ("tasks", "they are") };
        say(&format!(
            "tradewind retry: {} failed {tasks} cannot be retried, {these} no longer kept; the first is {first}",
            self.count
        ));
        REFUSED
    }
}

/// Returns whether a task is to be run again: one that was cancelled was meant not to.
fn is_failed(record: &Record) -> bool {
    matches!(record.status, Status::Failed | Status::TimedOut | Status::Lost)
}

fn retried(of: &TaskId, submitted: &Submitted, is_json: bool) -> String {
    let Submitted { id, key } = submitted;
    match is_json {
        true => {
            serde_json::json!({"id": id.to_string(), "key": key, "of": of.to_string()}).to_string()
        }
        false => id.to_string(),
    }
}
