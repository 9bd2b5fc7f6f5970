//! What answers the requests.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::message::Status;

use crate::refusal::Refusal;
use tradewind_queue::{ConsumerName, Kept, KeptAsk, QueueName, TaskId, TaskKey};
use tradewind_queue::{Settings, SettingsPatch};

/// Queues: what requests ask for, and what answers are made of.
///
/// A future that is dropped belongs to a client that has left: nothing is waited for any more. A submit that
/// is dropped may have taken its tasks or not, as when its answer is lost.
pub trait Queues: Send + Sync + 'static {
    /// Takes tasks, all or none, and returns for each, in the same order, its id. When it returns, they
    /// survive a crash of the machine. A queue that nobody has made is made.
    fn submit(
        &self,
        queue: &QueueName,
        tasks: Vec<NewTask>,
    ) -> impl Future<Output = Result<Vec<Submitted>, Refusal>> + Send;

    /// Returns a task's state, once it has a record or this time is over.
    fn task(
        &self,
        id: &TaskId,
        wait: Duration,
    ) -> impl Future<Output = Result<TaskState, Refusal>> + Send;

    /// Cancels a task, and returns its state: a record if it has one already or did not run. One that runs is
    /// stopped, and is recorded after this.
    fn cancel(&self, id: &TaskId) -> impl Future<Output = Result<TaskState, Refusal>> + Send;

    /// Submits the task of a record as a new one, under a key if one is given.
    fn retry(
        &self,
        id: &TaskId,
        key: Option<TaskKey>,
    ) -> impl Future<Output = Result<Submitted, Refusal>> + Send;

    /// Returns records, once there is one that is wanted or this time is over. It does wait: who follows a
    /// queue asks again at once.
    fn records(
        &self,
        queue: &QueueName,
        wanted: Wanted,
        wait: Duration,
    ) -> impl Future<Output = Result<Page, Refusal>> + Send;

    /// Returns the position that a consumer has.
    fn consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
    ) -> impl Future<Output = Result<Option<u64>, Refusal>> + Send;

    /// Sets the position of a consumer: of the last record that it needs no more; `None` if it needs all.
    /// Returns whether the consumer is new.
    fn set_consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
        position: Option<u64>,
    ) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// Forgets a consumer.
    fn remove_consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Returns all queues.
    fn queues(&self) -> impl Future<Output = Result<Vec<QueueState>, Refusal>> + Send;

    /// Returns a queue.
    fn queue(&self, queue: &QueueName) -> impl Future<Output = Result<QueueState, Refusal>> + Send;

    /// Makes a queue with these settings, or gives them to the one that is there. Returns it, and whether it
    /// is new.
    fn put_queue(
        &self,
        queue: &QueueName,
        settings: Settings,
    ) -> impl Future<Output = Result<(QueueState, bool), Refusal>> + Send;

    /// Changes settings of a queue.
    fn patch_queue(
        &self,
        queue: &QueueName,
        patch: SettingsPatch,
    ) -> impl Future<Output = Result<QueueState, Refusal>> + Send;

    /// Removes a queue that has no unsettled tasks, with its records.
    fn remove_queue(&self, queue: &QueueName) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Stops or begins to dispatch the tasks of a queue.
    fn set_paused(
        &self,
        queue: &QueueName,
        is_paused: bool,
    ) -> impl Future<Output = Result<QueueState, Refusal>> + Send;

    /// Returns what is kept of the records of tasks: asked by a ventilator whose sink is on another host, to remove
    /// what is not needed any more.
    fn kept(
        &self,
        queue: &QueueName,
        ask: KeptAsk,
    ) -> impl Future<Output = Result<Kept, Refusal>> + Send;

    /// Returns whether tasks are taken at all.
    fn health(&self) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// A task that is submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTask {
    /// The task itself.
    pub payload: Bytes,
    /// Name that its submitter gave it: with the same key it is the same task.
    pub key: Option<TaskKey>,
    /// Number of attempts after the first, if not the queue's.
    pub retries: Option<u32>,
    /// Time that an attempt may take, if not the queue's.
    pub timeout: Option<Duration>,
}

/// Answer to a submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Id of the task.
    pub id: TaskId,
    /// Its key.
    pub key: Option<TaskKey>,
    /// Whether it was not known before, by its key.
    pub is_new: bool,
}

/// State of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It waits.
    Queued,
    /// A worker has it.
    Running,
    /// It has its record.
    Record(Record),
}

/// Record of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position among the records of its queue, from 0.
    pub position: u64,
    /// Id of the task.
    pub id: TaskId,
    /// JSON object of at least one member, on one line, without `position` and `id`.
    pub json: Bytes,
}

/// Which records are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Position after which they are; `None` for the first that are kept, and those after them.
    pub after: Option<u64>,
    /// Partition of them, where a queue has several; `None` where it has one.
    pub partition: Option<u32>,
    /// Status that they have; `None` for any.
    pub status: Option<Status>,
    /// Number of them, at the most.
    pub records_max: usize,
    /// Bytes of them after which no further one is added.
    pub bytes_max: usize,
}

/// Records, by their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// Position of the last record that was looked at, wanted or not; [`Wanted::after`] if there was none.
    pub through: Option<u64>,
}

/// State of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Its name.
    pub name: QueueName,
    /// Its settings.
    pub settings: Settings,
    /// Whether none of its tasks is dispatched.
    pub is_paused: bool,
    /// Number of tasks that wait.
    pub queued: u64,
    /// Number of tasks that workers have.
    pub running: u64,
    /// Number of records that are kept.
    pub records: u64,
    /// Position of the last record; `None` before the first.
    pub position: Option<u64>,
}
