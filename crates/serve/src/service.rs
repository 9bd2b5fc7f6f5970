//! What can be asked of all queues.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::Mutex;
use tradewind_http::{
    ConsumerName, Kept, KeptAsk, NewTask, Page, QueueName, QueueState, Queues, Refusal, Settings,
    SettingsPatch, Submitted, TaskId, TaskKey, TaskState, Wanted,
};
use tradewind_lanes::{PullLane, PushLane};
use tradewind_node::exit::{Fatal, OUTPUT, OrExit};
use tradewind_proto::message::Role;
use tradewind_store::Part;
use tradewind_system::random_id;

use crate::any::AnyQueue;
use crate::config::Config;
use crate::control::ControlLog;
use crate::gates::{Port, Waiting};
use crate::logs::OpenError;
use crate::loops::Common;
use crate::names::{self, REMOVED, whole};
use crate::queue::Place;

/// Number of queues: each has some threads and two dozen files.
pub(crate) const QUEUES_MAX: usize = 256;

/// Time after which a queue for which there was no room may be asked for again.
pub(crate) const FULL_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Time after which the name of a queue that is being removed may be asked for again.
const REMOVING_RETRY_AFTER: Duration = Duration::from_secs(5);

/// All queues of a process. All clones are one.
#[derive(Clone)]
pub(crate) struct Service(Arc<Inner>);

struct Inner {
    /// Directory with a directory for each queue.
    dir: PathBuf,
    config: Config,
    place: Place,
    common: Common,
    queues: RwLock<BTreeMap<QueueName, AnyQueue>>,
    /// Queues that are to be removed as soon as their sink answers.
    removing: RwLock<BTreeSet<QueueName>>,
    /// Held while a queue is made or removed.
    making: Mutex<()>,
    workers: Waiting<PushLane>,
    sinks: Waiting<PullLane>,
    callers: Waiting<PullLane>,
    is_closed: AtomicBool,
}

impl Service {
    /// Opens the queues that are there, and those that are configured. Blocks.
    pub(crate) fn open(
        dir: PathBuf,
        config: Config,
        place: Place,
        common: Common,
    ) -> Result<Self, Fatal> {
        let names = names::names(&dir, &config).or_exit(OUTPUT)?;
        let service = Self(Arc::new(Inner {
            dir,
            config,
            place,
            common,
            queues: RwLock::default(),
            removing: RwLock::default(),
            making: Mutex::default(),
            workers: Waiting::default(),
            sinks: Waiting::default(),
            callers: Waiting::default(),
            is_closed: AtomicBool::new(false),
        }));
        for name in names {
            if is_removing(&service.dir_of(&name)).or_exit(OUTPUT)? {
                service.removing().insert(name);
            } else {
                service.start(&name)?;
            }
        }
        Ok(service)
    }

    fn removing(&self) -> RwLockWriteGuard<'_, BTreeSet<QueueName>> {
        self.0.removing.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a queue, if it is there.
    pub(crate) fn find(&self, name: &QueueName) -> Option<AnyQueue> {
        self.0.queues.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Returns all queues.
    pub(crate) fn all(&self) -> Vec<AnyQueue> {
        let queues = self.0.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.values().cloned().collect()
    }

    fn dir_of(&self, name: &QueueName) -> PathBuf {
        self.0.dir.join(name.as_str())
    }

    /// Starts a queue. Blocks.
    fn start(&self, name: &QueueName) -> Result<AnyQueue, Fatal> {
        let Inner { config, place, common, .. } = &*self.0;
        let config = config.queues.get(name).cloned().unwrap_or_default();
        let queue = AnyQueue::start(name.clone(), &self.dir_of(name), config, place, common)?;
        let mut queues = self.0.queues.write().unwrap_or_else(PoisonError::into_inner);
        queues.insert(name.clone(), queue.clone());
        // With the lock: who comes now finds the queue.
        self.0.workers.pass_on(name, |lane| queue.add_worker(lane));
        self.0.sinks.pass_on(name, |lane| queue.add_sink(lane));
        self.0.callers.pass_on(name, |lane| queue.add_caller(lane));
        Ok(queue)
    }

    /// Returns a queue, which is made if it is not there, and whether it was.
    async fn make(&self, name: &QueueName) -> Result<(AnyQueue, bool), Refusal> {
        if let Some(queue) = self.find(name) {
            return Ok((queue, false));
        }
        let (service, name) = (self.clone(), name.clone());
        whole(async move { service.make_new(name).await }).await
    }

    /// Makes a queue, unless it is there by now. To its end: two of them would write to the same files.
    async fn make_new(self, name: QueueName) -> Result<(AnyQueue, bool), Refusal> {
        let _making = self.0.making.lock().await;
        if self.0.is_closed.load(Ordering::Relaxed) {
            return Err(Refusal::Closed);
        }
        if let Some(queue) = self.find(&name) {
            return Ok((queue, false));
        }
        if self.removing().contains(&name) {
            let what = "the queue with this name is being removed, which waits for its sink";
            return Err(Refusal::Full { what, retry_after: REMOVING_RETRY_AFTER });
        }
        if self.all().len() >= QUEUES_MAX {
            let what = "there are 256 queues";
            return Err(Refusal::Full { what, retry_after: FULL_RETRY_AFTER });
        }
        let service = self.clone();
        let started = tokio::task::spawn_blocking(move || service.start(&name)).await;
        match started {
            Ok(Ok(queue)) => {
                let told = queue.clone();
                tokio::spawn(async move { told.introduce().await });
                Ok((queue, true))
            }
            Ok(Err(fatal)) => {
                tracing::error!("a queue cannot be made: {:#}", fatal.error);
                Err(Refusal::Failed("the queue cannot be made"))
            }
            Err(_) => Err(Refusal::Failed("the queue cannot be made")),
        }
    }

    fn known(&self, name: &QueueName) -> Result<AnyQueue, Refusal> {
        self.find(name).ok_or_else(|| Refusal::UnknownQueue(name.clone()))
    }

    fn with_task(&self, id: &TaskId) -> Result<AnyQueue, Refusal> {
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

    /// Removes a queue whose tasks all have their records.
    async fn remove(self, name: QueueName) -> Result<(), Refusal> {
        let _making = self.0.making.lock().await;
        let queue = self.known(&name)?;
        let closing = queue.clone();
        let _ = tokio::task::spawn_blocking(move || closing.close()).await;
        let is_settled = match queue.is_settled().await {
            Ok(true) => queue.note_removing(),
            Ok(false) => Err(Refusal::NotEmpty(name.clone())),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = is_settled {
            let opened = queue.open();
            opened.map_err(|_| {
                Refusal::Failed("the queue takes no tasks until it is started again")
            })?;
            return Err(refusal);
        }
        self.removing().insert(name.clone());
        self.0.queues.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
        let _ = tokio::task::spawn_blocking(move || queue.stop()).await;
        self.end_removing(&name).await
    }

    /// Removes what is left of a queue: first the half that is elsewhere, by which the other could not go on.
    async fn end_removing(&self, name: &QueueName) -> Result<(), Refusal> {
        if let Place::There { remote, .. } = &self.0.place {
            remote.remove(name).await?;
        }
        let (dir, path) = (self.0.dir.clone(), self.dir_of(name));
        let aside = format!("{REMOVED}{name}-{:016x}", random_id());
        let removed = tokio::task::spawn_blocking(move || {
            // By its name it is gone at once, whatever is left of it when the process ends.
            let aside = dir.join(aside);
            fs::rename(&path, &aside).and_then(|()| fs::remove_dir_all(&aside)).map_err(|error| {
                tracing::error!("{}: cannot be removed: {error}", path.display());
                Refusal::Failed("the queue's files cannot be removed")
            })
        });
        removed.await.unwrap_or(Err(Refusal::Failed("the queue cannot be removed")))?;
        self.removing().remove(name);
        Ok(())
    }

    /// Removes what is not needed any more.
    pub(crate) async fn trim(&self) {
        for queue in self.all() {
            queue.trim().await;
        }
        let removing: Vec<QueueName> = self.removing().iter().cloned().collect();
        for name in removing {
            let _making = self.0.making.lock().await;
            // It is tried again.
            let _ = self.end_removing(&name).await;
        }
    }
}

/// Port at which workers fetch tasks.
pub(crate) struct WorkersPort(pub(crate) Service);

/// Port at which relays send receipts, or a sink on another host.
pub(crate) struct SinksPort(pub(crate) Service);

/// Port at which workers and relays send results.
pub(crate) struct CallersPort(pub(crate) Service);

impl Port<PushLane> for WorkersPort {
    type Queue = AnyQueue;

    async fn find(&self, name: &QueueName, _: Role) -> Option<AnyQueue> {
        self.0.find(name)
    }

    fn waiting(&self) -> &Waiting<PushLane> {
        &self.0.0.workers
    }

    fn add(queue: &AnyQueue, lane: PushLane) {
        queue.add_worker(lane);
    }

    fn say_waits(name: &QueueName) {
        tracing::info!("a worker waits for queue {name}, which the first submit makes");
    }
}

impl Port<PullLane> for SinksPort {
    type Queue = AnyQueue;

    async fn find(&self, name: &QueueName, _: Role) -> Option<AnyQueue> {
        self.0.find(name)
    }

    fn waiting(&self) -> &Waiting<PullLane> {
        &self.0.0.sinks
    }

    fn add(queue: &AnyQueue, lane: PullLane) {
        queue.add_sink(lane);
    }
}

impl Port<PullLane> for CallersPort {
    type Queue = AnyQueue;

    async fn find(&self, name: &QueueName, _: Role) -> Option<AnyQueue> {
        self.0.find(name)
    }

    fn waiting(&self) -> &Waiting<PullLane> {
        &self.0.0.callers
    }

    fn add(queue: &AnyQueue, lane: PullLane) {
        queue.add_caller(lane);
    }
}

/// Returns whether a queue is being removed. Blocks.
fn is_removing(dir: &Path) -> Result<bool, OpenError> {
    if !dir.join(Part::Control.as_str()).exists() {
        return Ok(false);
    }
    Ok(ControlLog::look(dir)?.is_removing())
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
        self.known(queue)?.consumer(consumer).await
    }

    async fn set_consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
        position: Option<u64>,
    ) -> Result<bool, Refusal> {
        self.known(queue)?.set_consumer(consumer, position).await
    }

    async fn remove_consumer(
        &self,
        queue: &QueueName,
        consumer: &ConsumerName,
    ) -> Result<(), Refusal> {
        self.known(queue)?.remove_consumer(consumer).await
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
        whole(self.clone().remove(queue.clone())).await
    }

    async fn set_paused(&self, queue: &QueueName, is_paused: bool) -> Result<QueueState, Refusal> {
        let queue = self.known(queue)?;
        whole(async move {
            queue.set_paused(is_paused).await?;
            queue.state().await
        })
        .await
    }

    async fn kept(&self, queue: &QueueName, ask: KeptAsk) -> Result<Kept, Refusal> {
        self.known(queue)?.kept(ask).await
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
        Service::open(dir.to_owned(), Config::default(), Place::Here, common).unwrap()
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
