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
use crate::settings;

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
        let _making = self.0.making.lock().await;
        if self.0.is_closed.load(Ordering::Relaxed) {
            return Err(Refusal::Closed);
        }
        if let Some(queue) = self.find(name) {
            return Ok((queue, false));
        }
        if self.all().len() >= QUEUES_MAX {
            let what = "there are 256 queues";
            return Err(Refusal::Full { what, retry_after: FULL_RETRY_AFTER });
        }
        let (service, name) = (self.clone(), name.clone());
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
        self.with_task(id)?.cancel(id.seq).await
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
        settings::check(&settings).map_err(Refusal::Settings)?;
        let (queue, is_new) = self.make(queue).await?;
        queue.put(settings).await?;
        Ok((queue.state().await?, is_new))
    }

    async fn patch_queue(
        &self,
        queue: &QueueName,
        patch: SettingsPatch,
    ) -> Result<QueueState, Refusal> {
        let queue = self.known(queue)?;
        queue.patch(patch).await?;
        queue.state().await
    }

    async fn remove_queue(&self, queue: &QueueName) -> Result<(), Refusal> {
        let _making = self.0.making.lock().await;
        let (service, name, queue) = (self.clone(), queue.clone(), self.known(queue)?);
        let removed = tokio::task::spawn_blocking(move || service.remove(&name, &queue)).await;
        removed.unwrap_or(Err(Refusal::Failed("the queue cannot be removed")))
    }

    async fn set_paused(&self, queue: &QueueName, is_paused: bool) -> Result<QueueState, Refusal> {
        let queue = self.known(queue)?;
        queue.set_paused(is_paused).await?;
        queue.state().await
    }

    async fn health(&self) -> Result<(), Refusal> {
        if self.0.is_closed.load(Ordering::Relaxed) { Err(Refusal::Closed) } else { Ok(()) }
    }
}
