//! What can be asked of all queues.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tradewind_http::{
    ConsumerName, NewTask, Page, QueueName, QueueState, Queues, Refusal, Settings, SettingsPatch,
    Submitted, TaskId, TaskKey, TaskState, Wanted,
};
use tradewind_node::exit::{Fatal, OUTPUT};
use tradewind_system::random_id;

use crate::config::Config;
use crate::engine::Common;
use crate::gates::Waiting;
use crate::queue::Queue;

/// Number of queues: each has some threads and two dozen files.
const QUEUES_MAX: usize = 256;

/// Time after which a queue for which there was no room may be asked for again.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Beginning of the names of directories of queues that are being removed.
const REMOVED: &str = ".removed-";

/// All queues of a process. All clones are one.
#[derive(Clone)]
pub(crate) struct Service(Arc<Inner>);

struct Inner {
    /// Directory with a directory for each queue.
    dir: PathBuf,
    config: Config,
    common: Common,
    queues: RwLock<BTreeMap<QueueName, Arc<Queue>>>,
    /// Held while a queue is made or removed.
    making: Mutex<()>,
    waiting: Waiting,
    is_closed: AtomicBool,
}

impl Service {
    /// Opens the queues that are there, and those that are configured. Blocks.
    pub(crate) fn open(dir: PathBuf, config: Config, common: Common) -> Result<Self, Fatal> {
        let amiss =
            |error: std::io::Error| Fatal::new(OUTPUT, format!("{}: {error}", dir.display()));
        fs::create_dir_all(&dir).map_err(amiss)?;
        let mut names: Vec<QueueName> = config.queues.keys().cloned().collect();
        for entry in fs::read_dir(&dir).map_err(amiss)? {
            let name = entry.map_err(amiss)?.file_name();
            let name = name.to_string_lossy();
            match name.parse() {
                Ok(name) => names.push(name),
                Err(_) if name.starts_with(REMOVED) => {
                    let _ = fs::remove_dir_all(dir.join(&*name));
                }
                Err(_) => {
                    tracing::warn!("{}: {name:?} is no queue, and is left alone", dir.display());
                }
            }
        }
        names.sort();
        names.dedup();
        let service = Self(Arc::new(Inner {
            dir,
            config,
            common,
            queues: RwLock::default(),
            making: Mutex::default(),
            waiting: Waiting::default(),
            is_closed: AtomicBool::new(false),
        }));
        for name in names {
            service.start(&name)?;
        }
        Ok(service)
    }

    /// Returns who waits for a queue that is not there yet.
    pub(crate) fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    /// Returns a queue, if it is there.
    pub(crate) fn find(&self, name: &QueueName) -> Option<Arc<Queue>> {
        self.0.queues.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Returns all queues.
    pub(crate) fn all(&self) -> Vec<Arc<Queue>> {
        let queues = self.0.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.values().cloned().collect()
    }

    fn dir_of(&self, name: &QueueName) -> PathBuf {
        self.0.dir.join(name.as_str())
    }

    /// Starts a queue. Blocks.
    fn start(&self, name: &QueueName) -> Result<Arc<Queue>, Fatal> {
        let Inner { config, common, .. } = &*self.0;
        let config = config.queues.get(name).cloned().unwrap_or_default();
        let queue = Arc::new(Queue::start(name.clone(), &self.dir_of(name), config, common)?);
        let mut queues = self.0.queues.write().unwrap_or_else(PoisonError::into_inner);
        queues.insert(name.clone(), queue.clone());
        // With the lock: who comes now finds the queue.
        self.0.waiting.pass_on(name, &queue);
        Ok(queue)
    }

    /// Returns a queue, which is made if it is not there, and whether it was.
    async fn make(&self, name: &QueueName) -> Result<(Arc<Queue>, bool), Refusal> {
        if let Some(queue) = self.find(name) {
            return Ok((queue, false));
        }
        let (service, name) = (self.clone(), name.clone());
        whole(async move { service.make_new(name).await }).await
    }

    /// Makes a queue, unless it is there by now. To its end: two of them would write to the same files.
    async fn make_new(self, name: QueueName) -> Result<(Arc<Queue>, bool), Refusal> {
        let _making = self.0.making.lock().await;
        if self.0.is_closed.load(Ordering::Relaxed) {
            return Err(Refusal::Closed);
        }
        if let Some(queue) = self.find(&name) {
            return Ok((queue, false));
        }
        if self.all().len() >= QUEUES_MAX {
            let what = "there are 256 queues";
            return Err(Refusal::Full { what, retry_after: FULL_RETRY_AFTER });
        }
        let service = self.clone();
        let started = tokio::task::spawn_blocking(move || service.start(&name)).await;
        match started {
            Ok(Ok(queue)) => Ok((queue, true)),
            Ok(Err(fatal)) => {
                tracing::error!("a queue cannot be made: {:#}", fatal.error);
                Err(Refusal::Failed("the queue cannot be made"))
            }
            Err(_) => Err(Refusal::Failed("the queue cannot be made")),
        }
    }

    fn known(&self, name: &QueueName) -> Result<Arc<Queue>, Refusal> {
        self.find(name).ok_or_else(|| Refusal::UnknownQueue(name.clone()))
    }

    fn with_task(&self, id: &TaskId) -> Result<Arc<Queue>, Refusal> {
        self.find(&id.queue).ok_or_else(|| Refusal::UnknownTask(id.clone()))
    }

    /// Takes no more tasks, and ends the queues' loops. Blocks.
    pub(crate) fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
        let queues = self.all();
        for queue in &queues {
            queue.close();
        }
        // All at once: each waits for its disk.
        std::thread::scope(|scope| {
            for queue in &queues {
                scope.spawn(|| queue.stop());
            }
        });
    }

    fn remove(&self, name: &QueueName, queue: &Queue) -> Result<(), Refusal> {
        if !queue.close() {
            let opened = queue.open();
            opened.map_err(|_| {
                Refusal::Failed("the queue takes no tasks until it is started again")
            })?;
            return Err(Refusal::NotEmpty(name.clone()));
        }
        self.0.queues.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        queue.stop();
        let dir = self.dir_of(name);
        // By its name it is gone at once, whatever is left of it when the process ends.
        let aside = self.0.dir.join(format!("{REMOVED}{name}-{:016x}", random_id()));
        let removed = fs::rename(&dir, &aside).and_then(|()| fs::remove_dir_all(&aside));
        removed.map_err(|error| {
            tracing::error!("{}: cannot be removed: {error}", dir.display());
            Refusal::Failed("the queue's files cannot be removed")
        })
    }
}

/// Does something to its end, although the client that has asked for it may leave meanwhile.
async fn whole<T: Send + 'static>(
    done: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(done).await.unwrap_or(Err(Refusal::Failed("the request was not carried out")))
}

impl Queues for Service {
    async fn submit(
        &self,
        queue: &QueueName,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<Submitted>, Refusal> {
        self.make(queue).await?.0.submit(tasks).await
    }

    async fn task(&self, id: &TaskId, wait: Duration) -> Result<TaskState, Refusal> {
        self.with_task(id)?.task(id.seq, wait).await
    }

    async fn cancel(&self, id: &TaskId) -> Result<TaskState, Refusal> {
        let (queue, seq) = (self.with_task(id)?, id.seq);
        whole(async move { queue.cancel(seq).await }).await
    }

    async fn retry(&self, id: &TaskId, key: Option<TaskKey>) -> Result<Submitted, Refusal> {
        self.with_task(id)?.retry(id.seq, key).await
    }

    async fn records(
        &self,
        queue: &QueueName,
        wanted: Wanted,
        wait: Duration,
    ) -> Result<Page, Refusal> {
        self.known(queue)?.records(wanted, wait).await
    }

    async fn consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
    ) -> Result<Option<u64>, Refusal> {
        self.known(queue)?.consumer(consumer)
    }

    async fn set_consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
        position: Option<u64>,
    ) -> Result<bool, Refusal> {
        self.known(queue)?.set_consumer(consumer.clone(), position).await
    }

    async fn remove_consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
    ) -> Result<(), Refusal> {
        self.known(queue)?.remove_consumer(consumer.clone()).await
    }

    async fn queues(&self) -> Result<Vec<QueueState>, Refusal> {
        let mut states = Vec::new();
        for queue in self.all() {
            match queue.state().await {
                // It is being removed.
                Err(Refusal::Closed) => {}
                state => states.push(state?),
            }
        }
        Ok(states)
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueState, Refusal> {
        self.known(queue)?.state().await
    }

    async fn put_queue(
        &self,
        queue: &QueueName,
        settings: Settings,
    ) -> Result<(QueueState, bool), Refusal> {
        let (queue, is_new) = self.make(queue).await?;
        whole(async move {
            queue.put(settings).await?;
            Ok((queue.state().await?, is_new))
        })
        .await
    }

    async fn patch_queue(
        &self,
        queue: &QueueName,
        patch: SettingsPatch,
    ) -> Result<QueueState, Refusal> {
        let queue = self.known(queue)?;
        whole(async move {
            queue.patch(patch).await?;
            queue.state().await
        })
        .await
    }

    async fn remove_queue(&self, queue: &QueueName) -> Result<(), Refusal> {
        let (service, name) = (self.clone(), queue.clone());
        whole(async move {
            let _making = service.0.making.lock().await;
            let queue = service.known(&name)?;
            let remove = {
                let service = service.clone();
                move || service.remove(&name, &queue)
            };
            let removed = tokio::task::spawn_blocking(remove).await;
            removed.unwrap_or(Err(Refusal::Failed("the queue cannot be removed")))
        })
        .await
    }

    async fn set_paused(&self, queue: &QueueName, is_paused: bool) -> Result<QueueState, Refusal> {
        let queue = self.known(queue)?;
        whole(async move {
            queue.set_paused(is_paused).await?;
            queue.state().await
        })
        .await
    }

    async fn health(&self) -> Result<(), Refusal> {
        if self.0.is_closed.load(Ordering::Relaxed) { Err(Refusal::Closed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use tokio::sync::mpsc;
    use tradewind_lanes::LaneOptions;
    use tradewind_proto::SessionId;

    use super::*;

    fn service(dir: &std::path::Path) -> Service {
        let (ended, _) = mpsc::unbounded_channel();
        let common = Common {
            ventilator: SessionId(1),
            sink: SessionId(2),
            ventilator_keys: None,
            sink_keys: None,
            lanes: LaneOptions::default(),
            ended,
        };
        Service::open(dir.to_owned(), Config::default(), common).unwrap()
    }

    fn task(payload: &'static str) -> Vec<NewTask> {
        vec![NewTask { payload: payload.into(), ..NewTask::default() }]
    }

    // Fails if a queue is made by the request alone: the second one makes it beside the first.
    #[tokio::test]
    async fn a_queue_whose_maker_leaves_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path());
        for round in 0..5 {
            let name: QueueName = format!("q{round}").parse().unwrap();
            let mut leaves = Box::pin(service.submit(&name, task("first")));
            for _ in 0..2 {
                let _ = leaves.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                tokio::task::yield_now().await;
            }
            drop(leaves);
            let submitted = service.submit(&name, task("second")).await.unwrap();
            // The first was taken or not.
            assert!(submitted[0].id.seq <= 1, "{submitted:?}");
            let next = service.submit(&name, task("third")).await.unwrap();
            assert_eq!(next[0].id.seq, submitted[0].id.seq + 1);
        }
        tokio::task::spawn_blocking(move || service.close()).await.unwrap();
    }

    // Fails if what was said about a queue is written down, and its ventilator is not told.
    #[tokio::test]
    async fn a_pause_whose_client_leaves_is_a_pause() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path());
        let name: QueueName = "q".parse().unwrap();
        service.submit(&name, task("first")).await.unwrap();
        let mut leaves = Box::pin(service.set_paused(&name, true));
        let _ = leaves.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop(leaves);
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        while !service.find(&name).unwrap().is_dispatch_paused().await.unwrap() {
            assert!(tokio::time::Instant::now() < until, "it is not paused");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::task::spawn_blocking(move || service.close()).await.unwrap();
    }
}
