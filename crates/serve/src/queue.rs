//! What can be asked of one queue.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tradewind_http::{
    ConsumerName, Kept, KeptAsk, NewTask, Page, QueueName, QueueState, Record, Refusal, Settings,
    SettingsPatch, Submitted, TaskId, TaskKey, TaskState, Wanted,
};
use tradewind_lanes::{Endpoint, PullLane, PushLane};
use tradewind_node::exit::{Fatal, OUTPUT, OrExit, SYSTEM};
use tradewind_proto::message::Start;
use tradewind_proto::{Seq, SeqRange};
use tradewind_store::{Change, Retry, StoredTask, TaskOptions, retry_settled};

use crate::config::QueueConfig;
use crate::control::removing;
use crate::elsewhere::Elsewhere;
use crate::logs::{self, open_both, open_tasks, set_synced};
use crate::loops::{Begin, Common, Sockets, Ventilator};
use crate::record_half::RecordHalf;
use crate::refused::{FULL_RETRY_AFTER, blocking, changed, unreadable};
use crate::remote::Remote;
use crate::settings::{all_changes, changes, durability, effective, policy};
use crate::source::LogSource;
use crate::steering::Steering;
use crate::submitter::{Refused, Submitter};
use crate::tasks::SharedTasks;

/// A queue: its tasks and its ventilator, and its records, wherever these are.
pub(crate) struct Queue {
    name: QueueName,
    logs: Arc<SharedTasks>,
    records: Records,
    submitter: RwLock<Submitter>,
    steering: Arc<Steering>,
    workers: mpsc::UnboundedSender<PushLane>,
    sinks: mpsc::UnboundedSender<PullLane>,
    /// Until it is stopped.
    ventilator: Mutex<Option<Ventilator>>,
}

/// The records of a queue.
enum Records {
    /// In this process.
    Here(Arc<RecordHalf>),
    /// On another host.
    There(Elsewhere),
}

/// Where the records of all queues are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In this process.
    Here,
    /// At a sink that listens here, and whose server of HTTP is asked.
    There { sink: Endpoint, remote: Remote },
}

impl Queue {
    /// Opens a queue in its directory, or makes it there, and starts it. Blocks.
    pub(crate) fn start(
        name: QueueName,
        dir: &Path,
        config: QueueConfig,
        place: &Place,
        common: &Common,
    ) -> Result<Self, Fatal> {
        let (logs, records) = match place {
            Place::Here => {
                let (tasks, records) = open_both(dir, &config.settings).or_exit(OUTPUT)?;
                (tasks, Some(records))
            }
            Place::There { .. } => (open_tasks(dir).or_exit(OUTPUT)?, None),
        };
        let QueueConfig { settings: config, relays, .. } = config;
        let settings = effective(&config, logs.control().lock().state());
        let amiss = |text: &dyn std::fmt::Display| {
            Fatal::new(OUTPUT, format!("{}: its settings: {text}", dir.display()))
        };
        let settings = settings.map_err(|error| amiss(&error))?;
        let policy = policy(&settings);
        let settings = Arc::new(Mutex::new(settings));
        let submitter = Submitter::spawn(logs.clone()).or_exit(SYSTEM)?;
        let start = if logs.control().has_job() { Start::Resume } else { Start::New };
        let (records, (recorded, own), sockets) = match (place, records) {
            (Place::There { sink, remote }, _) => {
                let (sockets, _) =
                    Sockets::new()?.of_both(relays.as_ref(), Some(sink.clone()), None);
                let there = remote.of(name.clone(), settings.clone());
                let (there, recorded, own) = Elsewhere::begin(there, &logs).or_exit(OUTPUT)?;
                (Records::There(there), (recorded, Some(own)), sockets)
            }
            (Place::Here, records) => {
                let records = records.expect("they are opened where they are here");
                let (sockets, of_sink) = Sockets::new()?.of_both(relays.as_ref(), None, None);
                // Before there is a sink: what counts as recorded here is known there.
                let recorded = records.records().stored().clone();
                let half = RecordHalf::start(name.clone(), records, of_sink, common)?;
                (Records::Here(Arc::new(half)), (recorded, None), sockets)
            }
        };
        let source = LogSource::new(logs.clone(), recorded);
        let first = source.next();
        let (is_paused, cancelled) = {
            let control = logs.control().lock();
            let state = control.state();
            (state.paused, state.cancelled.iter().collect())
        };
        let begin = Begin { start, own, first, is_paused, cancelled, policy };
        let ventilator = Ventilator::start(name.as_str(), source, begin, sockets, common)?;
        let control = logs.control().clone();
        let steering = Steering::new(control, config, settings, ventilator.commands.clone());
        let queue = Self {
            name,
            logs,
            records,
            submitter: RwLock::new(submitter),
            steering: Arc::new(steering),
            workers: ventilator.workers.clone(),
            sinks: ventilator.sinks.clone(),
            ventilator: Mutex::new(Some(ventilator)),
        };
        queue.apply(&queue.steering.settings());
        Ok(queue)
    }

    /// Passes a worker on to the ventilator. One that comes after the end of that is let go.
    pub(crate) fn add_worker(&self, lane: PushLane) {
        let _ = self.workers.send(lane);
    }

    /// Passes a relay, or a sink on another host, on to the ventilator, likewise.
    pub(crate) fn add_sink(&self, lane: PullLane) {
        let _ = self.sinks.send(lane);
    }

    /// Passes a worker or a relay on to the sink, likewise.
    pub(crate) fn add_caller(&self, lane: PullLane) {
        if let Records::Here(half) = &self.records {
            half.add_caller(lane);
        }
    }

    /// Takes no more tasks. Blocks until what was promised is.
    pub(crate) fn close(&self) {
        self.submitter.read().unwrap_or_else(PoisonError::into_inner).close();
    }

    /// Takes tasks again.
    pub(crate) fn open(&self) -> io::Result<()> {
        let submitter = Submitter::spawn(self.logs.clone())?;
        *self.submitter.write().unwrap_or_else(PoisonError::into_inner) = submitter;
        Ok(())
    }

    /// Returns whether each task has its record.
    pub(crate) async fn is_settled(&self) -> Result<bool, Refusal> {
        let stored = match &self.records {
            Records::Here(half) => half.counts().0,
            Records::There(there) => there.head(None).await?.stored,
        };
        Ok(stored >= self.logs.submitted())
    }

    /// Ends its loops. Blocks.
    pub(crate) fn stop(&self) {
        let ventilator = lock(&self.ventilator).take();
        if let Some(ventilator) = ventilator {
            ventilator.stop();
            self.logs.close();
        }
        if let Records::Here(half) = &self.records {
            half.stop();
        }
    }

    /// Notes that it is being removed, so that the next process goes on with that.
    pub(crate) fn note_removing(&self) -> Result<(), Refusal> {
        changed(self.logs.control(), [removing()])
    }

    /// Removes what is not needed any more.
    pub(crate) async fn trim(self: &Arc<Self>) {
        let settings = self.steering.settings();
        match &self.records {
            Records::Here(half) => {
                let (logs, half, unique) = (self.logs.clone(), half.clone(), settings.unique);
                let trim = move || {
                    half.trim(&settings);
                    if let Err(error) = logs::trim(&logs, half.logs(), unique) {
                        let dir = logs.dir().display();
                        tracing::warn!("{dir}: what is not needed any more stays for now: {error}");
                    }
                };
                let _ = tokio::task::spawn_blocking(trim).await;
            }
            Records::There(there) => {
                if let Ok(snapshot) = self.steering.look().await {
                    there.tend(&self.logs, &snapshot, settings.unique).await;
                }
            }
        }
    }

    /// Tells the sink of the queue, if that is on another host.
    pub(crate) async fn introduce(&self) {
        if let Records::There(there) = &self.records {
            // It is told again soon if it is not there now.
            let _ = there.records.introduce().await;
        }
    }

    fn apply(&self, settings: &Settings) {
        let (is_synced, is_alone) = durability(settings);
        if let Records::Here(half) = &self.records {
            set_synced(&self.logs, half.logs(), is_synced);
        }
        self.submitter.read().unwrap_or_else(PoisonError::into_inner).set_alone(is_alone);
    }

    pub(crate) async fn submit(&self, tasks: Vec<NewTask>) -> Result<Vec<Submitted>, Refusal> {
        let keys: Vec<Option<TaskKey>> = tasks.iter().map(|task| task.key.clone()).collect();
        self.submit_stored(keys, tasks.into_iter().map(stored_task).collect()).await
    }

    async fn submit_stored(
        &self,
        keys: Vec<Option<TaskKey>>,
        tasks: Vec<StoredTask>,
    ) -> Result<Vec<Submitted>, Refusal> {
        let submitted = {
            let submitter = self.submitter.read().unwrap_or_else(PoisonError::into_inner);
            submitter.submit(tasks)
        };
        let full = |what| Refusal::Full { what, retry_after: FULL_RETRY_AFTER };
        let submitted = submitted.await.map_err(|refused| match refused {
            Refused::OtherTask { place, position } => match keys.get(place).cloned().flatten() {
                Some(key) => Refusal::OtherTask { key, id: self.id(position) },
                None => Refusal::Failed("the log has a key that the task has not"),
            },
            Refused::TwoTasks { place } => match keys.get(place).cloned().flatten() {
                Some(key) => Refusal::TwoTasks { key },
                None => Refusal::Failed("the log has a key that the task has not"),
            },
            Refused::KeysFull => full("no more keys can be remembered"),
            Refused::DiskFull => full("the disk is full"),
            Refused::Failed => Refusal::Failed("the tasks cannot be written"),
            Refused::Closed => Refusal::Closed,
        })?;
        let answer = |(submitted, key): (tradewind_store::Submitted, _)| Submitted {
            id: self.id(submitted.position()),
            key,
            is_new: matches!(submitted, tradewind_store::Submitted::New(_)),
        };
        Ok(submitted.into_iter().zip(keys).map(answer).collect())
    }

    pub(crate) async fn task(
        self: &Arc<Self>,
        seq: u64,
        wait: Duration,
    ) -> Result<TaskState, Refusal> {
        if seq >= self.logs.submitted() {
            return Err(Refusal::UnknownTask(self.id(seq)));
        }
        if let Some(record) = self.record(seq, wait).await? {
            return Ok(TaskState::Record(record));
        }
        self.steering.task(Seq(seq)).await
    }

    /// Returns the record of a task, once it has one or this time is over.
    async fn record(&self, seq: u64, wait: Duration) -> Result<Option<Record>, Refusal> {
        match &self.records {
            Records::Here(half) => half.task(seq, wait).await,
            Records::There(there) => there.records.task(seq, wait).await,
        }
    }

    pub(crate) async fn cancel(self: &Arc<Self>, seq: u64) -> Result<TaskState, Refusal> {
        if seq >= self.logs.submitted() {
            return Err(Refusal::UnknownTask(self.id(seq)));
        }
        match self.record(seq, Duration::ZERO).await {
            Ok(Some(record)) => return Ok(TaskState::Record(record)),
            // The cancel holds if the task has no record: who asks again hears of that.
            Ok(None) | Err(Refusal::Away { .. }) => {}
            Err(refusal) => return Err(refusal),
        }
        self.blocking(move |queue| queue.change([Change::Cancel(SeqRange::one(Seq(seq)))])).await?;
        let wait = self.steering.cancel(Seq(seq)).await?;
        self.task(seq, wait).await
    }

    pub(crate) async fn retry(
        self: &Arc<Self>,
        seq: u64,
        key: Option<TaskKey>,
    ) -> Result<Submitted, Refusal> {
        if seq >= self.logs.submitted() {
            return Err(Refusal::UnknownTask(self.id(seq)));
        }
        let stored_key = key.as_ref().map(|key| Bytes::copy_from_slice(key.as_str().as_bytes()));
        let is_kept = match self.record(seq, Duration::ZERO).await {
            Ok(Some(_)) => true,
            Ok(None) => return Err(Refusal::Unsettled(self.id(seq))),
            Err(Refusal::Gone(_)) => false,
            Err(refusal) => return Err(refusal),
        };
        let task = self.blocking(move |queue| {
            match retry_settled(is_kept, || queue.logs.tasks(), seq, stored_key) {
                Ok(Retry::Unsettled) => Err(Refusal::Unsettled(queue.id(seq))),
                Ok(Retry::Gone) => Err(Refusal::Gone(queue.id(seq))),
                Ok(Retry::Known(position)) => Ok(Err(position)),
                Ok(Retry::New(task)) => Ok(Ok(task)),
                Err(error) => Err(queue.unreadable(&error)),
            }
        });
        let task = match task.await? {
            Ok(task) => task,
            Err(position) => return Ok(Submitted { id: self.id(position), key, is_new: false }),
        };
        let submitted = self.submit_stored(vec![key], vec![task]).await?;
        submitted.into_iter().next().ok_or(Refusal::Closed)
    }

    pub(crate) async fn records(&self, wanted: Wanted, wait: Duration) -> Result<Page, Refusal> {
        match &self.records {
            Records::Here(half) => half.records(wanted, wait).await,
            Records::There(there) => there.records.records(wanted, wait).await,
        }
    }

    pub(crate) async fn consumer(&self, consumer: &ConsumerName) -> Result<Option<u64>, Refusal> {
        match &self.records {
            Records::Here(half) => half.consumer(consumer),
            Records::There(there) => there.records.consumer(consumer).await,
        }
    }

    pub(crate) async fn set_consumer(
        &self,
        consumer: &ConsumerName,
        position: Option<u64>,
    ) -> Result<bool, Refusal> {
        match &self.records {
            Records::Here(half) => half.set_consumer(consumer.clone(), position).await,
            Records::There(there) => there.records.set_consumer(consumer, position).await,
        }
    }

    pub(crate) async fn remove_consumer(&self, consumer: &ConsumerName) -> Result<(), Refusal> {
        match &self.records {
            Records::Here(half) => half.remove_consumer(consumer.clone()).await,
            Records::There(there) => there.records.remove_consumer(consumer).await,
        }
    }

    pub(crate) async fn kept(&self, ask: KeptAsk) -> Result<Kept, Refusal> {
        match &self.records {
            Records::Here(half) => half.kept(ask).await,
            Records::There(there) => there.records.kept(&ask).await,
        }
    }

    pub(crate) async fn state(&self) -> Result<QueueState, Refusal> {
        let snapshot = self.steering.look().await?;
        let running = snapshot.workers.iter().map(|worker| worker.out).sum::<u64>();
        let (stored, records, position) = match &self.records {
            Records::Here(half) => half.counts(),
            Records::There(there) => {
                // What is known of them here, while the sink does not answer.
                let (records, position) =
                    there.records.introduce().await.unwrap_or((snapshot.settled, None));
                (snapshot.settled, records, position)
            }
        };
        let unsettled = self.logs.submitted().saturating_sub(stored);
        let running = running.min(unsettled);
        Ok(QueueState {
            name: self.name.clone(),
            settings: self.steering.settings(),
            is_paused: self.steering.is_paused(),
            queued: unsettled - running,
            running,
            records,
            position,
        })
    }

    pub(crate) async fn put(self: &Arc<Self>, settings: Settings) -> Result<(), Refusal> {
        let changes = all_changes(&settings);
        self.set(changes).await
    }

    pub(crate) async fn patch(self: &Arc<Self>, patch: SettingsPatch) -> Result<(), Refusal> {
        self.set(changes(&patch)).await
    }

    async fn set(self: &Arc<Self>, changes: Vec<Change>) -> Result<(), Refusal> {
        let queue = self.clone();
        self.steering.set(changes, move |settings| queue.apply(settings)).await?;
        self.introduce().await;
        Ok(())
    }

    pub(crate) async fn set_paused(&self, is_paused: bool) -> Result<(), Refusal> {
        self.steering.set_paused(is_paused).await
    }

    fn change(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), Refusal> {
        changed(self.logs.control(), changes)
    }

    /// Returns whether the ventilator dispatches nothing.
    #[cfg(test)]
    pub(crate) async fn is_dispatch_paused(&self) -> Result<bool, Refusal> {
        Ok(self.steering.look().await?.is_paused)
    }

    /// Does something that waits for the disk.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        run: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        blocking(self, run).await
    }

    fn unreadable(&self, error: &dyn std::error::Error) -> Refusal {
        unreadable(self.logs.dir(), error)
    }

    fn id(&self, seq: u64) -> TaskId {
        TaskId { queue: self.name.clone(), seq }
    }
}

/// Returns a task as it stands in a log.
pub(crate) fn stored_task(task: NewTask) -> StoredTask {
    StoredTask {
        key: task.key.map(|key| Bytes::copy_from_slice(key.as_str().as_bytes())),
        options: TaskOptions {
            retries: task.retries,
            timeout: task.timeout.map(|it| Duration::from_micros(micros(it))),
            retry_of: None,
        },
        payload: task.payload,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
