//! The records of a queue whose sink is on another host: asked for at the HTTP port of that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tradewind_client::{Client, Error, ProblemKind, TaskState, Wanted as Asked};
use tradewind_http::{
    ConsumerName, Kept, KeptAsk, Page, QueueName, Record, Refusal, Settings, TaskId, Wanted,
};

/// Time after which a sink that does not answer may be asked again.
const AWAY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Server of the records of all queues.
#[derive(Clone, Debug)]
pub(crate) struct Remote(pub(crate) Client);

/// The records of a queue there.
pub(crate) struct RemoteRecords {
    remote: Remote,
    name: QueueName,
    /// Settings of the queue, which are told to the sink's half.
    settings: Arc<Mutex<Settings>>,
}

impl Remote {
    /// Returns the records of a queue.
    pub(crate) fn of(&self, name: QueueName, settings: Arc<Mutex<Settings>>) -> RemoteRecords {
        RemoteRecords { remote: self.clone(), name, settings }
    }

    /// Removes the sink's half of a queue, if it is there.
    pub(crate) async fn remove(&self, name: &QueueName) -> Result<(), Refusal> {
        match self.0.remove_queue(name.as_str()).await {
            Err(error) if !error.is(ProblemKind::UnknownQueue) => Err(self.refusal(&error)),
            _ => Ok(()),
        }
    }

    fn refusal(&self, error: &Error) -> Refusal {
        match error.problem().map(|problem| problem.kind) {
            Some(ProblemKind::Failed) => Refusal::Failed("the sink failed, and its log has more"),
            // One that has not heard of the queue yet is told of it soon.
            _ => Refusal::Away {
                who: "the sink",
                at: self.0.url(),
                why: error.to_string(),
                retry_after: AWAY_RETRY_AFTER,
            },
        }
    }
}

impl RemoteRecords {
    fn client(&self) -> &Client {
        &self.remote.0
    }

    fn queue(&self) -> &str {
        self.name.as_str()
    }

    /// Asks, and asks again if the sink has not heard of the queue yet and is told of it.
    async fn known<T, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        ask: impl Fn() -> F + Send + Sync,
    ) -> Result<T, Error> {
        match ask().await {
            Err(error) if error.is(ProblemKind::UnknownQueue) => {
                self.introduced().await?;
                ask().await
            }
            answer => answer,
        }
    }

    /// Returns the record of a task, once it has one or this time is over.
    pub(crate) async fn task(&self, seq: u64, wait: Duration) -> Result<Option<Record>, Refusal> {
        let id = TaskId { queue: self.name.clone(), seq };
        let found = match wait.is_zero() {
            true => self.client().task(&id).await.map(TaskState::into_record),
            false => self.client().result(&id, wait).await,
        };
        match found {
            Ok(record) => Ok(record.map(|record| recorded(&record))),
            Err(error) if error.is(ProblemKind::Elsewhere) => Ok(None),
            Err(error) if error.is(ProblemKind::Gone) => Err(Refusal::Gone(id)),
            Err(error) => Err(self.refusal(&error)),
        }
    }

    pub(crate) async fn records(&self, wanted: Wanted, wait: Duration) -> Result<Page, Refusal> {
        let Wanted { after, status, records_max, bytes_max, .. } = wanted;
        let mut asked = Asked::default();
        if let Some(after) = after {
            asked = asked.after(after);
        }
        if let Some(status) = status {
            asked = asked.status(status);
        }
        let most = (records_max, bytes_max);
        let ask = || self.client().page(self.queue(), asked.clone(), most, wait);
        match self.known(ask).await {
            Ok((records, through)) => {
                Ok(Page { records: records.iter().map(recorded).collect(), through })
            }
            Err(error) => {
                let first = error.problem().and_then(|problem| problem.first);
                Err(match (after, first) {
                    (Some(after), Some(first)) if error.is(ProblemKind::RecordsGone) => {
                        Refusal::RecordsGone { after, first }
                    }
                    _ => self.refusal(&error),
                })
            }
        }
    }

    pub(crate) async fn consumer(&self, consumer: &ConsumerName) -> Result<Option<u64>, Refusal> {
        let found = self.known(|| self.client().consumer(self.queue(), consumer.as_str())).await;
        found.map_err(|error| self.of_consumer(&error, consumer))
    }

    pub(crate) async fn set_consumer(
        &self,
        consumer: &ConsumerName,
        position: Option<u64>,
    ) -> Result<bool, Refusal> {
        let set = self
            .known(|| self.client().set_consumer(self.queue(), consumer.as_str(), position))
            .await;
        set.map_err(|error| self.of_consumer(&error, consumer))
    }

    pub(crate) async fn remove_consumer(&self, consumer: &ConsumerName) -> Result<(), Refusal> {
        let removed =
            self.known(|| self.client().remove_consumer(self.queue(), consumer.as_str())).await;
        removed.map_err(|error| self.of_consumer(&error, consumer))
    }

    pub(crate) async fn kept(&self, ask: &KeptAsk) -> Result<Kept, Refusal> {
        let kept = self.known(|| self.client().kept(self.queue(), ask)).await;
        kept.map_err(|error| self.refusal(&error))
    }

    /// Has the sink's half of the queue be there, with the settings that the queue has. Returns the number of records
    /// that are kept, and the position of the last.
    pub(crate) async fn introduce(&self) -> Result<(u64, Option<u64>), Refusal> {
        self.introduced().await.map_err(|error| self.refusal(&error))
    }

    async fn introduced(&self) -> Result<(u64, Option<u64>), Error> {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = match self.client().queue(self.queue()).await {
            Ok(state) if state.settings == settings => state,
            Err(error) if !error.is(ProblemKind::UnknownQueue) => return Err(error),
            _ => self.client().put_queue(self.queue(), &settings).await?.0,
        };
        Ok((state.records, state.position))
    }

    fn of_consumer(&self, error: &Error, consumer: &ConsumerName) -> Refusal {
        match error.problem().map(|problem| problem.kind) {
            Some(ProblemKind::UnknownConsumer) => {
                Refusal::UnknownConsumer { queue: self.name.clone(), consumer: consumer.clone() }
            }
            _ => self.refusal(error),
        }
    }

    fn refusal(&self, error: &Error) -> Refusal {
        self.remote.refusal(error)
    }
}

/// Returns a record as it is kept: without the members that HTTP puts before the others.
fn recorded(record: &tradewind_client::Record) -> Record {
    let tradewind_client::Record { position, id, .. } = record;
    let (position, id) = (*position, id.clone());
    let before = format!(r#"{{"position":{position},"id":"{id}","#);
    let json = match record.json().strip_prefix(&before) {
        Some(rest) => Bytes::from(format!("{{{rest}")),
        None => Bytes::copy_from_slice(record.json().as_bytes()),
    };
    Record { position, id, json }
}
