//! Reasons for which queues do not do what a request asks.

use std::time::Duration;

use thiserror::Error;

use tradewind_queue::{ConsumerName, QueueName, TaskId, TaskKey};

/// Reason for which queues do not do what a request asks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum Refusal {
    #[error("there is no queue {0}")]
    UnknownQueue(QueueName),
    #[error("the queue has no partition {0}")]
    UnknownPartition(u32),
    #[error("there is no task {0}")]
    UnknownTask(TaskId),
    #[error("queue {queue} has no consumer {consumer}")]
    UnknownConsumer { queue: QueueName, consumer: ConsumerName },
    /// Its record was kept, and is no longer.
    #[error("the record of task {0} is no longer kept")]
    Gone(TaskId),
    /// Records after the position that a client has are no longer kept: it would miss them without a word.
    #[error(
        "records after position {after} are no longer kept, the first that is has position {first}"
    )]
    RecordsGone { after: u64, first: u64 },
    /// A retry of a task that has no record.
    #[error("task {0} has no record yet")]
    Unsettled(TaskId),
    /// The same key with another payload or other options.
    #[error("the key is that of task {id}, which is another task")]
    OtherTask { key: TaskKey, id: TaskId },
    /// The same key twice in one request.
    #[error("two tasks of this request have the key, and are different ones")]
    TwoTasks { key: TaskKey },
    #[error("queue {0} has tasks without a record")]
    NotEmpty(QueueName),
    #[error("a task of {bytes} bytes is larger than {max} bytes")]
    TooLarge { bytes: u64, max: u64 },
    /// A value that cannot be, of the queue's settings or the task's options.
    #[error("{0}")]
    Settings(&'static str),
    /// A bound is reached: of the disk, the keys, the tasks.
    #[error("no more fits: {what}")]
    Full { what: &'static str, retry_after: Duration },
    /// It is for another program to answer: the halves of a queue may be on two hosts.
    #[error("{0}")]
    Elsewhere(&'static str),
    /// The other half of a queue, or the engine underneath, does not answer.
    #[error("{who} does not answer at {at}: {why}")]
    Away { who: &'static str, at: String, why: String, retry_after: Duration },
    /// The program leaves.
    #[error("the program ends, and takes no requests")]
    Closed,
    /// Something failed that is not the request's fault. The log has more.
    #[error("failed: {0}")]
    Failed(&'static str),
}
