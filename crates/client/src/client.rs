//! What can be asked, a method each.

use std::env;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tradewind_keys::Role;
use tradewind_queue::{
    ConsumerName, Kept, KeptAsk, QueueName, Settings, SettingsPatch, TaskId, TaskKey, WrittenPatch,
    WrittenSettings,
};

use crate::address::{DEFAULT_URL, URL_ENV};
use crate::answer::{self, QueueState, Record, Submitted, TaskState, consumer_path};
use crate::error::Error;
use crate::exchange::{Answer, Ask, Link};
use crate::options::Options;
use crate::records::{self, Records, Wanted};
use crate::task::{Batch, NewTask};

pub(crate) const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";
const PATCH: &str = "application/merge-patch+json";

/// Longest time that one request waits. A server may have a shorter one.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Pause before a record is asked for again, if the server did not wait as long as it was asked to: it ends.
const HURRIED_PAUSE: Duration = Duration::from_millis(200);

/// Number of tasks of a request of [`Client::submit_all`].
const BATCH_TASKS_MAX: usize = 1000;

/// Bytes of a request of [`Client::submit_all`] after which it gets no further task.
const BATCH_BYTES: usize = 1 << 20;

/// A client of a server of queues. All clones are the same.
///
/// It is to be used within a tokio runtime; [`blocking::Client`](crate::blocking::Client) needs none. Nothing
/// is connected before it is asked something.
///
/// A request without an answer is sent again for [`Options::patience`] if the server has answered this client
/// before, unless it could make a second task: see [`Error::Uncertain`].
///
/// ```no_run
/// use std::time::Duration;
/// use tradewind_client::{Client, NewTask};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::from_env()?;
/// let task = NewTask::new("https://example.net/1.jpg").key("1.jpg")?;
/// let submitted = client.submit("thumbs", task).await?;
/// if let Some(record) = client.result(&submitted.id, Duration::from_secs(60)).await? {
///     println!("{}: {:?}", record.status.as_str(), record.output());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    link: Arc<Link>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.link.address)
    }
}

#[derive(Serialize)]
struct WrittenPosition {
    position: Option<u64>,
}

impl Client {
    /// Creates a client of the server at a URL, like `http://127.0.0.1:5560`, with the options that the
    /// environment has. With `https` both ends show keys of `tradewind keys`, which are found as the programs
    /// find them.
    ///
    /// # Errors
    ///
    /// When the URL is none, or there are no keys for it that can be used.
    pub fn connect(url: &str) -> Result<Self, Error> {
        Self::with(url, Options::from_env())
    }

    /// Creates a client of the server that `TRADEWIND_URL` names, by default `http://127.0.0.1:5560`.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn from_env() -> Result<Self, Error> {
        let url = env::var(URL_ENV).ok().filter(|url| !url.is_empty());
        Self::connect(url.as_deref().unwrap_or(DEFAULT_URL))
    }

    /// Creates a client of the server at a URL, with these options.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn with(url: &str, options: Options) -> Result<Self, Error> {
        Ok(Self { link: Arc::new(Link::new(url.parse()?, options, Role::Client)?) })
    }

    /// Creates a client of the server of a sink, for the ventilator of its queues, which shows its own key.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn of_ventilator(url: &str, options: Options) -> Result<Self, Error> {
        Ok(Self { link: Arc::new(Link::new(url.parse()?, options, Role::Ventilator)?) })
    }

    /// Returns the URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        self.link.address.to_string()
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Submits a task. When it returns, the task is on the disk. A queue that there is not is made.
    ///
    /// # Errors
    ///
    /// [`Error::Uncertain`] if the answer is lost and the task has no key; one with a key is sent again. A
    /// [`Problem`](crate::Problem) of the kind `OtherTask` if the key is that of another task, `Full` if there
    /// is no room, and what else [`Error`] has.
    pub async fn submit(&self, queue: &str, task: impl Into<NewTask>) -> Result<Submitted, Error> {
        let mut batch = Batch::new();
        batch.push(&task.into());
        let mut submitted = self.submit_batch(queue, batch).await?;
        submitted.pop().ok_or_else(|| self.link.odd("there is no id"))
    }

    /// Submits tasks in one request: all are taken, or none. Returns their ids, in the same order. A
    /// [`Batch`] is made of any iterator of tasks by `collect`.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit), and `TooLarge` if they are too many for one request: see
    /// [`submit_all`](Self::submit_all). All have to have keys for them to be sent again.
    pub async fn submit_batch(&self, queue: &str, batch: Batch) -> Result<Vec<Submitted>, Error> {
        let queue: QueueName = queue.parse()?;
        let tasks = batch.len();
        if tasks == 0 {
            return Ok(Vec::new());
        }
        let is_repeatable = batch.is_repeatable();
        let ask = Ask::new(Method::POST, format!("/v1/queues/{queue}/tasks"));
        let ask = Ask { is_repeatable, ..ask.body(NDJSON, batch.into_lines()) };
        let answer = self.link.ask(&ask).await?;
        self.read(answer::all_submitted(&answer.body, tasks))
    }

    /// Submits any number of tasks in requests of at most 1,000 tasks and some 1 MiB, one after another: all of
    /// a request are taken, or none. Each answer is an item of the stream, which ends with the first error.
    /// Tasks are taken from the iterator only as the stream is read.
    pub fn submit_all<I>(
        &self,
        queue: &str,
        tasks: I,
    ) -> impl Stream<Item = Result<Vec<Submitted>, Error>> + Send + use<I>
    where
        I: IntoIterator<Item = NewTask>,
        I::IntoIter: Send,
    {
        let state = Some((self.clone(), queue.to_owned(), tasks.into_iter()));
        stream::unfold(state, async |state| {
            let (client, queue, mut tasks) = state?;
            let mut batch = Batch::new();
            while batch.len() < BATCH_TASKS_MAX && batch.bytes() < BATCH_BYTES {
                let Some(task) = tasks.next() else { break };
                batch.push(&task);
            }
            if batch.is_empty() {
                return None;
            }
            let submitted = client.submit_batch(&queue, batch).await;
            let next = submitted.is_ok().then_some((client, queue, tasks));
            Some((submitted, next))
        })
    }

    /// Returns a task's state.
    ///
    /// # Errors
    ///
    /// A [`Problem`](crate::Problem) of the kind `UnknownTask`, `UnknownQueue` or `Gone`, and what else
    /// [`Error`] has.
    pub async fn task(&self, id: &TaskId) -> Result<TaskState, Error> {
        let answer = self.link.ask(&Ask::get(format!("/v1/tasks/{id}"))).await?;
        self.read(answer::state(&answer.body))
    }

    /// Returns the record of a task; `None` if it has none when this time is over. `Duration::MAX` waits
    /// until there is one.
    ///
    /// # Errors
    ///
    /// As [`task`](Self::task).
    pub async fn result(&self, id: &TaskId, wait: Duration) -> Result<Option<Record>, Error> {
        let until = Instant::now().checked_add(wait);
        loop {
            let begin = Instant::now();
            let left = until.map_or(WAIT_MAX, |until| until.saturating_duration_since(begin));
            let wait = left.min(WAIT_MAX);
            let ask = Ask::get(format!("/v1/tasks/{id}?wait={}ms", wait.as_millis()));
            let answer = self.link.ask(&Ask { wait, ..ask }).await?;
            if let TaskState::Record(record) = self.read(answer::state(&answer.body))? {
                return Ok(Some(record));
            }
            if until.is_some_and(|until| Instant::now() >= until) || left.is_zero() {
                return Ok(None);
            }
            if begin.elapsed() < wait / 2 {
                sleep(HURRIED_PAUSE.min(left)).await;
            }
        }
    }

    /// Returns records of a queue as a stream, in the order in which they were stored. It survives a restart
    /// of the server: no record comes twice, and none is left out.
    ///
    /// # Errors
    ///
    /// When a name is none. Items are errors where the stream ends: see [`Records`].
    pub fn records(&self, queue: &str, wanted: Wanted) -> Result<Records, Error> {
        Ok(Records::new(self.clone(), queue.parse()?, wanted))
    }

    /// Cancels a task, and returns its state: a record if it did not run, or had one already. One that runs is
    /// stopped, and recorded after this.
    ///
    /// # Errors
    ///
    /// As [`task`](Self::task).
    pub async fn cancel(&self, id: &TaskId) -> Result<TaskState, Error> {
        let ask = Ask::new(Method::DELETE, format!("/v1/tasks/{id}"));
        self.read(answer::state(&self.link.ask(&ask).await?.body))
    }

    /// Submits the task of a record again, as a new one; under a key it is the same one when it is asked for
    /// again.
    ///
    /// # Errors
    ///
    /// As [`task`](Self::task); `Unsettled` if it has no record yet; [`Error::Uncertain`] if the answer is lost
    /// and there is no key.
    pub async fn retry(&self, id: &TaskId, key: Option<&str>) -> Result<Submitted, Error> {
        let mut ask = Ask::new(Method::POST, format!("/v1/tasks/{id}/retry"));
        ask.is_repeatable = key.is_some();
        if let Some(key) = key {
            let key = TaskKey::try_from(key.to_owned())?;
            let name = HeaderName::from_static("idempotency-key");
            ask = ask.header(name, key_header(key.as_str()).ok_or(Error::HeaderKey)?);
        }
        self.read(answer::submitted(&self.link.ask(&ask).await?.body))
    }

    /// Stops to dispatch the tasks of a queue. Those that run go on.
    ///
    /// # Errors
    ///
    /// `UnknownQueue`, and what else [`Error`] has.
    pub async fn pause(&self, queue: &str) -> Result<QueueState, Error> {
        let queue: QueueName = queue.parse()?;
        self.of_queue(Ask::new(Method::POST, format!("/v1/queues/{queue}/pause"))).await
    }

    /// Begins to dispatch the tasks of a queue again.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, queue: &str) -> Result<QueueState, Error> {
        let queue: QueueName = queue.parse()?;
        self.of_queue(Ask::new(Method::POST, format!("/v1/queues/{queue}/resume"))).await
    }

    /// Returns all queues.
    ///
    /// # Errors
    ///
    /// What [`Error`] has.
    pub async fn queues(&self) -> Result<Vec<QueueState>, Error> {
        let answer = self.link.ask(&Ask::get("/v1/queues".to_owned())).await?;
        self.read(answer::queues(&answer.body))
    }

    /// Returns a queue.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub async fn queue(&self, queue: &str) -> Result<QueueState, Error> {
        let queue: QueueName = queue.parse()?;
        self.of_queue(Ask::get(format!("/v1/queues/{queue}"))).await
    }

    /// Makes a queue with these settings, or gives all of them to the one that is there. Returns whether it is
    /// new, too.
    ///
    /// # Errors
    ///
    /// `BadValue` if the server does not take a setting, and what else [`Error`] has.
    pub async fn put_queue(
        &self,
        queue: &str,
        settings: &Settings,
    ) -> Result<(QueueState, bool), Error> {
        let queue: QueueName = queue.parse()?;
        let ask = Ask::new(Method::PUT, format!("/v1/queues/{queue}"));
        let ask = ask.body(JSON, to_vec(&WrittenSettings::from(settings)));
        let Answer { status, body } = self.link.ask(&ask).await?;
        Ok((self.read(answer::queue(&body))?, status == StatusCode::CREATED))
    }

    /// Changes settings of a queue.
    ///
    /// # Errors
    ///
    /// As [`put_queue`](Self::put_queue), and `UnknownQueue`.
    pub async fn patch_queue(
        &self,
        queue: &str,
        patch: &SettingsPatch,
    ) -> Result<QueueState, Error> {
        let queue: QueueName = queue.parse()?;
        let ask = Ask::new(Method::PATCH, format!("/v1/queues/{queue}"));
        self.of_queue(ask.body(PATCH, to_vec(&WrittenPatch::from(patch)))).await
    }

    /// Removes a queue whose tasks all have their records, with these.
    ///
    /// # Errors
    ///
    /// `UnknownQueue`, `NotEmpty`, and what else [`Error`] has. If the first answer was lost, the second may
    /// be that there is no such queue.
    pub async fn remove_queue(&self, queue: &str) -> Result<(), Error> {
        let queue: QueueName = queue.parse()?;
        self.link.ask(&Ask::new(Method::DELETE, format!("/v1/queues/{queue}"))).await.map(drop)
    }

    /// Returns the position of a consumer: of the last record that it needs no more; `None` if it needs all.
    ///
    /// # Errors
    ///
    /// `UnknownQueue`, `UnknownConsumer`, and what else [`Error`] has.
    pub async fn consumer(&self, queue: &str, consumer: &str) -> Result<Option<u64>, Error> {
        let path = consumer_path(&queue.parse()?, &consumer.parse::<ConsumerName>()?);
        let answer = self.link.ask(&Ask::get(path)).await?;
        self.read(answer::consumer(&answer.body))
    }

    /// Returns records after a position, as soon as there is one or this time is over, and the position of the last
    /// that was looked at. Some records at a time: with about this number and these bytes no further one is read.
    ///
    /// # Errors
    ///
    /// `UnknownQueue`, `RecordsGone`, and what else [`Error`] has. It is not asked again.
    pub async fn page(
        &self,
        queue: &str,
        wanted: Wanted,
        most: (usize, usize),
        wait: Duration,
    ) -> Result<(Vec<Record>, Option<u64>), Error> {
        records::page(self, queue.parse()?, wanted, most, wait).await
    }

    /// Returns what is kept of the records of tasks.
    ///
    /// # Errors
    ///
    /// `UnknownQueue`, and what else [`Error`] has.
    pub async fn kept(&self, queue: &str, ask: &KeptAsk) -> Result<Kept, Error> {
        let (queue, KeptAsk { tasks, within }): (QueueName, _) = (queue.parse()?, ask);
        let within = within.map_or(String::new(), |it| format!("&within={}ms", it.as_millis()));
        let (from, count) = (tasks.start, tasks.end.saturating_sub(tasks.start));
        let ask = Ask::get(format!("/v1/queues/{queue}/kept?from={from}&count={count}{within}"));
        self.read(answer::kept(&self.link.ask(&ask).await?.body))
    }

    /// Sets the position of a consumer. Returns whether the consumer is new.
    ///
    /// # Errors
    ///
    /// `UnknownQueue`, and what else [`Error`] has.
    pub async fn set_consumer(
        &self,
        queue: &str,
        consumer: &str,
        position: Option<u64>,
    ) -> Result<bool, Error> {
        let path = consumer_path(&queue.parse()?, &consumer.parse::<ConsumerName>()?);
        let ask = Ask::new(Method::PUT, path).body(JSON, to_vec(&WrittenPosition { position }));
        Ok(self.link.ask(&ask).await?.status == StatusCode::CREATED)
    }

    /// Forgets a consumer.
    ///
    /// # Errors
    ///
    /// As [`consumer`](Self::consumer).
    pub async fn remove_consumer(&self, queue: &str, consumer: &str) -> Result<(), Error> {
        let path = consumer_path(&queue.parse()?, &consumer.parse::<ConsumerName>()?);
        self.link.ask(&Ask::new(Method::DELETE, path)).await.map(drop)
    }

    async fn of_queue(&self, ask: Ask) -> Result<QueueState, Error> {
        self.read(answer::queue(&self.link.ask(&ask).await?.body))
    }

    /// Returns what an answer says, or that it says nothing.
    pub(crate) fn read<T>(&self, parsed: Result<T, String>) -> Result<T, Error> {
        parsed.map_err(|what| self.link.odd(what))
    }
}

fn to_vec(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("all keys are strings").into()
}

/// Returns a key as the value of `Idempotency-Key`: a string in quotes if it can be one, or as it is.
fn key_header(key: &str) -> Option<HeaderValue> {
    if key.chars().all(|c| matches!(c, ' '..='~')) {
        let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
        return HeaderValue::from_str(&quoted).ok();
    }
    let is_whole = key.trim_matches([' ', '\t']) == key && !key.starts_with('"');
    HeaderValue::from_bytes(key.as_bytes()).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_quoted_or_as_it_is() {
        let of = |key: &str| key_header(key).map(|value| value.as_bytes().to_vec());
        assert_eq!(of(r#"a "b" \c"#).unwrap(), br#""a \"b\" \\c""#);
        assert_eq!(of("ü").unwrap(), "ü".as_bytes());
        for key in ["a\n", "\"ü", " ü", "a\0b"] {
            assert_eq!(of(key), None, "{key:?}");
        }
    }
}
