//! A queue of either kind: with logs of its own, or with an engine's.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tradewind_http::{
    ConsumerName, Kept, KeptAsk, NewTask, Page, QueueName, QueueState, Refusal, Settings,
    SettingsPatch, Submitted, TaskKey, TaskState, Wanted,
};
use tradewind_lanes::{PullLane, PushLane};
use tradewind_node::exit::{Fatal, USAGE};

use crate::config::QueueConfig;
use crate::loops::Common;
use crate::on_engine::OnEngine;
use crate::queue::{Place, Queue};

/// A queue of either kind.
#[derive(Clone)]
pub(crate) enum AnyQueue {
    /// Its logs are in the directory, or one of them is.
    Own(Arc<Queue>),
    /// Its logs are an engine's.
    OnEngine(Arc<OnEngine>),
}

/// Does the same with a queue of either kind.
macro_rules! either {
    ($any:expr, $queue:ident => $done:expr) => {
        match $any {
            AnyQueue::Own($queue) => $done,
            AnyQueue::OnEngine($queue) => $done,
        }
    };
}

impl AnyQueue {
    /// Opens a queue, or makes it, and starts it. Blocks.
    pub(crate) fn start(
        name: QueueName,
        dir: &Path,
        config: QueueConfig,
        place: &Place,
        common: &Common,
    ) -> Result<Self, Fatal> {
        let Some(underneath) = config.underneath.clone() else {
            return Ok(Self::Own(Arc::new(Queue::start(name, dir, config, place, common)?)));
        };
        match place {
            Place::Here => {
                let queue = OnEngine::start(name, dir, config, underneath, common)?;
                Ok(Self::OnEngine(Arc::new(queue)))
            }
            Place::There { .. } => Err(served_whole(&name)),
        }
    }

    pub(crate) fn add_worker(&self, lane: PushLane) {
        either!(self, queue => queue.add_worker(lane));
    }

    pub(crate) fn add_sink(&self, lane: PullLane) {
        either!(self, queue => queue.add_sink(lane));
    }

    pub(crate) fn add_caller(&self, lane: PullLane) {
        either!(self, queue => queue.add_caller(lane));
    }

    /// Takes no more tasks. Blocks until what was promised is.
    pub(crate) fn close(&self) {
        match self {
            Self::Own(queue) => queue.close(),
            // Each request waits for its engine itself.
            Self::OnEngine(_) => {}
        }
    }

    /// Takes tasks again.
    pub(crate) fn open(&self) -> io::Result<()> {
        match self {
            Self::Own(queue) => queue.open(),
            Self::OnEngine(_) => Ok(()),
        }
    }

    /// Returns whether each task has its record, and the queue may be removed.
    pub(crate) async fn is_settled(&self) -> Result<bool, Refusal> {
        match self {
            Self::Own(queue) => queue.is_settled().await,
            Self::OnEngine(_) => Err(Refusal::Elsewhere(
                "the logs of the queue are an engine's: they are removed there, and the queue from the configuration",
            )),
        }
    }

    /// Ends its loops. Blocks.
    pub(crate) fn stop(&self) {
        either!(self, queue => queue.stop());
    }

    /// Notes that it is being removed, so that the next process goes on with that.
    pub(crate) fn note_removing(&self) -> Result<(), Refusal> {
        match self {
            Self::Own(queue) => queue.note_removing(),
            Self::OnEngine(_) => Ok(()),
        }
    }

    /// Removes what is not needed any more.
    pub(crate) async fn trim(&self) {
        match self {
            Self::Own(queue) => queue.trim().await,
            // Who has its partitions does that.
            Self::OnEngine(_) => {}
        }
    }

    /// Tells the sink of the queue, if that is on another host.
    pub(crate) async fn introduce(&self) {
        if let Self::Own(queue) = self {
            queue.introduce().await;
        }
    }

    pub(crate) async fn submit(&self, tasks: Vec<NewTask>) -> Result<Vec<Submitted>, Refusal> {
        either!(self, queue => queue.submit(tasks).await)
    }

    pub(crate) async fn task(&self, seq: u64, wait: Duration) -> Result<TaskState, Refusal> {
        either!(self, queue => queue.task(seq, wait).await)
    }

    pub(crate) async fn cancel(&self, seq: u64) -> Result<TaskState, Refusal> {
        either!(self, queue => queue.cancel(seq).await)
    }

    pub(crate) async fn retry(&self, seq: u64, key: Option<TaskKey>) -> Result<Submitted, Refusal> {
        either!(self, queue => queue.retry(seq, key).await)
    }

    pub(crate) async fn records(&self, wanted: Wanted, wait: Duration) -> Result<Page, Refusal> {
        match self {
            Self::Own(queue) => match wanted.partition {
                Some(partition @ 1..) => Err(Refusal::UnknownPartition(partition)),
                _ => queue.records(wanted, wait).await,
            },
            Self::OnEngine(queue) => queue.records(wanted, wait).await,
        }
    }

    pub(crate) async fn consumer(&self, consumer: &ConsumerName) -> Result<Option<u64>, Refusal> {
        match self {
            Self::Own(queue) => queue.consumer(consumer).await,
            Self::OnEngine(queue) => queue.consumer(consumer),
        }
    }

    pub(crate) async fn set_consumer(
        &self,
        consumer: &ConsumerName,
        position: Option<u64>,
    ) -> Result<bool, Refusal> {
        match self {
            Self::Own(queue) => queue.set_consumer(consumer, position).await,
            Self::OnEngine(queue) => queue.set_consumer(consumer.clone(), position).await,
        }
    }

    pub(crate) async fn remove_consumer(&self, consumer: &ConsumerName) -> Result<(), Refusal> {
        match self {
            Self::Own(queue) => queue.remove_consumer(consumer).await,
            Self::OnEngine(queue) => queue.remove_consumer(consumer.clone()).await,
        }
    }

    pub(crate) async fn kept(&self, ask: KeptAsk) -> Result<Kept, Refusal> {
        match self {
            Self::Own(queue) => queue.kept(ask).await,
            Self::OnEngine(_) => {
                Err(Refusal::Elsewhere("the records of the queue are an engine's"))
            }
        }
    }

    pub(crate) async fn state(&self) -> Result<QueueState, Refusal> {
        either!(self, queue => queue.state().await)
    }

    pub(crate) async fn put(&self, settings: Settings) -> Result<(), Refusal> {
        either!(self, queue => queue.put(settings).await)
    }

    pub(crate) async fn patch(&self, patch: SettingsPatch) -> Result<(), Refusal> {
        either!(self, queue => queue.patch(patch).await)
    }

    pub(crate) async fn set_paused(&self, is_paused: bool) -> Result<(), Refusal> {
        either!(self, queue => queue.set_paused(is_paused).await)
    }

    /// Returns whether the ventilator dispatches nothing.
    #[cfg(test)]
    pub(crate) async fn is_dispatch_paused(&self) -> Result<bool, Refusal> {
        match self {
            Self::Own(queue) => queue.is_dispatch_paused().await,
            Self::OnEngine(_) => Err(Refusal::Closed),
        }
    }
}

/// Returns why a half of a queue whose logs are an engine's is not served.
pub(crate) fn served_whole(name: &QueueName) -> Fatal {
    let why = "its logs are an engine's: `tradewind serve` serves it, on any number of hosts";
    Fatal::new(USAGE, format!("queue {}: {why}", name.as_str()))
}
