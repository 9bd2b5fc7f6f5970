//! What can be asked of a process that has the records of queues, and whose tasks are on another host.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tradewind_http::{
    ConsumerName, Kept, KeptAsk, NewTask, Page, QueueName, QueueState, Queues, Refusal, Settings,
    SettingsPatch, Submitted, TaskId, TaskKey, TaskState, Wanted,
};
use tradewind_lanes::{Endpoint, PullLane};
use tradewind_node::exit::{Fatal, OUTPUT, OrExit};
use tradewind_proto::message::Role;
use tradewind_system::random_id;

use crate::any::served_whole;
use crate::config::{Config, QueueConfig};
use crate::gates::{Port, Waiting};
use crate::logs::open_records;
use crate::loops::{Common, Sockets};
use crate::names::{self, REMOVED, whole};
use crate::record_half::RecordHalf;
use crate::refused::changed;
use crate::service::{FULL_RETRY_AFTER, QUEUES_MAX};
use crate::settings::{all_changes, effective};

/// Answer to what the ventilator alone knows.
const ELSEWHERE: Refusal = Refusal::Elsewhere(
    "records are kept here, and no tasks: ask the --http port of the `ventilator --serve` that has them",
);

/// The records of all queues of a process. All clones are one.
#[derive(Clone)]
pub(crate) struct SinkService(Arc<Inner>);

struct Inner {
    /// Directory with a directory for each queue.
    dir: PathBuf,
    config: Config,
    /// Where the ventilator listens for receipts.
    ventilator: Endpoint,
    common: Common,
    queues: RwLock<BTreeMap<QueueName, Arc<SinkQueue>>>,
    /// Held while a queue is made or removed.
    making: Mutex<()>,
    callers: Waiting<PullLane>,
    is_closed: AtomicBool,
}

/// The records of a queue, and what holds for them.
pub(crate) struct SinkQueue {
    name: QueueName,
    half: Arc<RecordHalf>,
    settings: Lock<Settings>,
}

impl SinkQueue {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> QueueState {
        let (_, records, position) = self.half.counts();
        QueueState {
            name: self.name.clone(),
            settings: self.settings().clone(),
            is_paused: false,
            queued: 0,
            running: 0,
            records,
            position,
        }
    }

    /// Has these settings hold from now on. Blocks.
    fn set(&self, settings: Settings) -> Result<(), Refusal> {
        let mut held = self.settings();
        let control = self.half.logs().control();
        changed(control, all_changes(&settings))?;
        *held = settings;
        Ok(())
    }
}

impl SinkService {
    /// Opens the queues that are there, and those that are configured. Blocks.
    pub(crate) fn open(
        dir: PathBuf,
        config: Config,
        ventilator: Endpoint,
        common: Common,
    ) -> Result<Self, Fatal> {
        let names = names::names(&dir, &config).or_exit(OUTPUT)?;
        let service = Self(Arc::new(Inner {
            dir,
            config,
            ventilator,
            common,
            queues: RwLock::default(),
            making: Mutex::default(),
            callers: Waiting::default(),
            is_closed: AtomicBool::new(false),
        }));
        for name in names {
            service.start(&name)?;
        }
        Ok(service)
    }

    /// Returns all queues.
    pub(crate) fn all(&self) -> Vec<Arc<SinkQueue>> {
        let queues = self.0.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.values().cloned().collect()
    }

    fn find(&self, name: &QueueName) -> Option<Arc<SinkQueue>> {
        self.0.queues.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn known(&self, name: &QueueName) -> Result<Arc<SinkQueue>, Refusal> {
        self.find(name).ok_or_else(|| Refusal::UnknownQueue(name.clone()))
    }

    fn dir_of(&self, name: &QueueName) -> PathBuf {
        self.0.dir.join(name.as_str())
    }

    /// Starts a queue. Blocks.
    fn start(&self, name: &QueueName) -> Result<Arc<SinkQueue>, Fatal> {
        let Inner { config, ventilator, common, .. } = &*self.0;
        let QueueConfig { settings, relays, underneath } =
            config.queues.get(name).cloned().unwrap_or_default();
        if underneath.is_some() {
            return Err(served_whole(name));
        }
        let dir = self.dir_of(name);
        let logs = open_records(&dir).or_exit(OUTPUT)?;
        let settings = effective(&settings, logs.control().lock().state());
        let settings = settings.map_err(|error| {
            Fatal::new(OUTPUT, format!("{}: its settings: {error}", dir.display()))
        })?;
        let sockets = Sockets::new()?;
        let (_, sockets) = sockets.of_both(relays.as_ref(), None, Some(ventilator.clone()));
        let half = Arc::new(RecordHalf::start(name.clone(), logs, sockets, common)?);
        let queue = Arc::new(SinkQueue { name: name.clone(), half, settings: Lock::new(settings) });
        let mut queues = self.0.queues.write().unwrap_or_else(PoisonError::into_inner);
        queues.insert(name.clone(), queue.clone());
        // With the lock: who comes now finds the queue.
        self.0.callers.pass_on(name, |lane| queue.half.add_caller(lane));
        Ok(queue)
    }

    /// Returns a queue, which is made if it is not there, and whether it was.
    async fn make(&self, name: &QueueName) -> Result<(Arc<SinkQueue>, bool), Refusal> {
        if let Some(queue) = self.find(name) {
            return Ok((queue, false));
        }
        let (service, name) = (self.clone(), name.clone());
        // To its end: two of them would write to the same files.
        whole(async move {
            let _making = service.0.making.lock().await;
            if service.0.is_closed.load(Ordering::Relaxed) {
                return Err(Refusal::Closed);
            }
            if let Some(queue) = service.find(&name) {
                return Ok((queue, false));
            }
            if service.all().len() >= QUEUES_MAX {
                let what = "there are 256 queues";
                return Err(Refusal::Full { what, retry_after: FULL_RETRY_AFTER });
            }
            let maker = service.clone();
            match tokio::task::spawn_blocking(move || maker.start(&name)).await {
                Ok(Ok(queue)) => Ok((queue, true)),
                Ok(Err(fatal)) => {
                    tracing::error!("a queue cannot be made: {:#}", fatal.error);
                    Err(Refusal::Failed("the queue cannot be made"))
                }
                Err(_) => Err(Refusal::Failed("the queue cannot be made")),
            }
        })
        .await
    }

    /// Ends the queues' loops. Blocks.
    pub(crate) fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
        let queues = self.all();
        // All at once: each waits for its disk.
        std::thread::scope(|scope| {
            for queue in &queues {
                scope.spawn(|| queue.half.stop());
            }
        });
    }

    /// Removes what is not needed any more.
    pub(crate) async fn trim(&self) {
        for queue in self.all() {
            let trim = move || queue.half.trim(&queue.settings().clone());
            let _ = tokio::task::spawn_blocking(trim).await;
        }
    }

    /// Removes the records of a queue. Whose tasks they are has said that each has its record. Blocks.
    fn remove(&self, name: &QueueName) -> Result<(), Refusal> {
        let queue = self.known(name)?;
        self.0.queues.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        queue.half.stop();
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

/// Port at which workers and relays send results, and the ventilators of queues what they have to say.
pub(crate) struct SinkPort(pub(crate) SinkService);

impl Port<PullLane> for SinkPort {
    type Queue = Arc<SinkQueue>;

    /// A ventilator, or the last relay, comes for a queue that there is. Of a worker that is not known.
    async fn find(&self, name: &QueueName, role: Role) -> Option<Arc<SinkQueue>> {
        match role {
            Role::Ventilator => self.0.make(name).await.ok().map(|(queue, _)| queue),
            Role::Worker | Role::Sink => self.0.find(name),
        }
    }

    fn waiting(&self) -> &Waiting<PullLane> {
        &self.0.0.callers
    }

    fn add(queue: &Arc<SinkQueue>, lane: PullLane) {
        queue.half.add_caller(lane);
    }
}

impl Queues for SinkService {
    async fn submit(&self, _: &QueueName, _: Vec<NewTask>) -> Result<Vec<Submitted>, Refusal> {
        Err(ELSEWHERE)
    }

    async fn task(&self, id: &TaskId, wait: Duration) -> Result<TaskState, Refusal> {
        let queue = self.known(&id.queue)?;
        // Whether it waits or runs, or is none, is not known here.
        queue.half.task(id.seq, wait).await?.map(TaskState::Record).ok_or(ELSEWHERE)
    }

    async fn cancel(&self, _: &TaskId) -> Result<TaskState, Refusal> {
        Err(ELSEWHERE)
    }

    async fn retry(&self, _: &TaskId, _: Option<TaskKey>) -> Result<Submitted, Refusal> {
        Err(ELSEWHERE)
    }

    async fn records(
        &self,
        queue: &QueueName,
        wanted: Wanted,
        wait: Duration,
    ) -> Result<Page, Refusal> {
        self.known(queue)?.half.records(wanted, wait).await
    }

    async fn consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
    ) -> Result<Option<u64>, Refusal> {
        self.known(queue)?.half.consumer(consumer)
    }

    async fn set_consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
        position: Option<u64>,
    ) -> Result<bool, Refusal> {
        self.known(queue)?.half.set_consumer(consumer.clone(), position).await
    }

    async fn remove_consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
    ) -> Result<(), Refusal> {
        self.known(queue)?.half.remove_consumer(consumer.clone()).await
    }

    async fn queues(&self) -> Result<Vec<QueueState>, Refusal> {
        Ok(self.all().iter().map(|queue| queue.state()).collect())
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueState, Refusal> {
        Ok(self.known(queue)?.state())
    }

    async fn put_queue(
        &self,
        queue: &QueueName,
        settings: Settings,
    ) -> Result<(QueueState, bool), Refusal> {
        let (queue, is_new) = self.make(queue).await?;
        let set = tokio::task::spawn_blocking(move || {
            queue.set(settings)?;
            Ok((queue.state(), is_new))
        });
        set.await.unwrap_or(Err(Refusal::Failed("the request was not carried out")))
    }

    async fn patch_queue(&self, _: &QueueName, _: SettingsPatch) -> Result<QueueState, Refusal> {
        Err(ELSEWHERE)
    }

    async fn remove_queue(&self, queue: &QueueName) -> Result<(), Refusal> {
        let (service, name) = (self.clone(), queue.clone());
        whole(async move {
            let _making = service.0.making.lock().await;
            let remove = {
                let service = service.clone();
                move || service.remove(&name)
            };
            let removed = tokio::task::spawn_blocking(remove).await;
            removed.unwrap_or(Err(Refusal::Failed("the queue cannot be removed")))
        })
        .await
    }

    async fn set_paused(&self, _: &QueueName, _: bool) -> Result<QueueState, Refusal> {
        Err(ELSEWHERE)
    }

    async fn kept(&self, queue: &QueueName, ask: KeptAsk) -> Result<Kept, Refusal> {
        self.known(queue)?.half.kept(ask).await
    }

    async fn health(&self) -> Result<(), Refusal> {
        if self.0.is_closed.load(Ordering::Relaxed) { Err(Refusal::Closed) } else { Ok(()) }
    }
}
