//! What can be asked of one queue.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tradewind_http::{
    ConsumerName, NewTask, Page, QueueName, QueueState, Record, Refusal, Settings, SettingsPatch,
    Submitted, TaskId, TaskKey, TaskState, Wanted,
};
use tradewind_lanes::{PullLane, PushLane};
use tradewind_node::exit::{Fatal, OUTPUT, OrExit, SYSTEM};
use tradewind_proto::dispatcher::{CancelAnswer, DispatcherSnapshot};
use tradewind_proto::{Seq, SeqRange};
use tradewind_store::{
    Change, ChangeError, ControlError, Retry, StoredRecord, StoredTask, TaskOptions, retry,
};
use tradewind_ventilator::Command;

use crate::config::QueueConfig;
use crate::engine::{Common, Engine};
use crate::logs::Logs;
use crate::settings::{all_changes, changes, durability, effective, keep, policy};
use crate::submitter::{Refused, Submitter, is_full};

/// Time after which a submit for which there was no room may come again.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Time for which a cancel waits for the record of a task that does not run.
const CANCEL_WAIT: Duration = Duration::from_secs(2);

/// Bytes of records that are looked at before others get a turn.
const LOOK_BYTES_MAX: usize = 16 << 20;

/// Bytes of records that are read at a time.
const READ_BYTES_MAX: usize = 256 << 10;

/// A queue: its logs, and the loops that work on them.
pub(crate) struct Queue {
    name: QueueName,
    logs: Arc<Logs>,
    submitter: RwLock<Submitter>,
    /// What the configuration says.
    config: SettingsPatch,
    settings: Mutex<Settings>,
    /// Held from the writing of a change until the ventilator is told: it hears of changes in their order.
    telling: tokio::sync::Mutex<()>,
    commands: mpsc::Sender<Command>,
    workers: mpsc::UnboundedSender<PushLane>,
    sinks: mpsc::UnboundedSender<PullLane>,
    callers: mpsc::UnboundedSender<PullLane>,
    /// Until it is stopped.
    engine: Mutex<Option<Engine>>,
}

impl Queue {
    /// Opens a queue in its directory, or makes it there, and starts it. Blocks.
    pub(crate) fn start(
        name: QueueName,
        dir: &Path,
        config: QueueConfig,
        common: &Common,
    ) -> Result<Self, Fatal> {
        let logs = Arc::new(Logs::open(dir, &config.settings).or_exit(OUTPUT)?);
        let QueueConfig { settings: config, relays } = config;
        let settings = effective(&config, logs.control().state());
        let amiss = |text: &dyn std::fmt::Display| {
            Fatal::new(OUTPUT, format!("{}: its settings: {text}", dir.display()))
        };
        let settings = settings.map_err(|error| amiss(&error))?;
        let submitter = Submitter::spawn(logs.clone()).or_exit(SYSTEM)?;
        let engine = Engine::start(name.as_str(), &logs, policy(&settings), relays, common)?;
        let queue = Self {
            name,
            logs,
            submitter: RwLock::new(submitter),
            config,
            settings: Mutex::new(settings.clone()),
            telling: tokio::sync::Mutex::default(),
            commands: engine.commands.clone(),
            workers: engine.workers.clone(),
            sinks: engine.sinks.clone(),
            callers: engine.callers.clone(),
            engine: Mutex::new(Some(engine)),
        };
        queue.apply(&settings);
        Ok(queue)
    }

    /// Passes a worker on to the ventilator. One that comes after the end of that is let go.
    pub(crate) fn add_worker(&self, lane: PushLane) {
        let _ = self.workers.send(lane);
    }

    /// Passes a relay on to the ventilator, likewise.
    pub(crate) fn add_sink(&self, lane: PullLane) {
        let _ = self.sinks.send(lane);
    }

    /// Passes a worker or a relay on to the sink, likewise.
    pub(crate) fn add_caller(&self, lane: PullLane) {
        let _ = self.callers.send(lane);
    }

    /// Takes no more tasks. Blocks until what was promised is. Returns whether each task has its record.
    pub(crate) fn close(&self) -> bool {
        self.submitter.read().unwrap_or_else(PoisonError::into_inner).close();
        let stored = self.logs.records().stored().count();
        stored >= self.logs.tasks().committed()
    }

    /// Takes tasks again.
    pub(crate) fn open(&self) -> io::Result<()> {
        let submitter = Submitter::spawn(self.logs.clone())?;
        *self.submitter.write().unwrap_or_else(PoisonError::into_inner) = submitter;
        Ok(())
    }

    /// Ends its loops. Blocks.
    pub(crate) fn stop(&self) {
        let engine = lock(&self.engine).take();
        if let Some(engine) = engine {
            engine.stop();
        }
    }

    /// Removes what is not needed any more. Blocks.
    pub(crate) fn trim(&self) {
        let settings = lock(&self.settings).clone();
        let consumed = self.logs.control().state().consumed();
        if let Err(error) = self.logs.trim(keep(&settings, consumed), settings.unique) {
            let dir = self.logs.dir().display();
            tracing::warn!("{dir}: what is not needed any more stays for now: {error}");
        }
        self.logs.forget_waiters();
    }

    fn apply(&self, settings: &Settings) {
        let (is_synced, is_alone) = durability(settings);
        self.logs.set_synced(is_synced);
        self.submitter.read().unwrap_or_else(PoisonError::into_inner).set_alone(is_alone);
    }

    pub(crate) async fn submit(&self, tasks: Vec<NewTask>) -> Result<Vec<Submitted>, Refusal> {
        let keys: Vec<Option<TaskKey>> = tasks.iter().map(|task| task.key.clone()).collect();
        let stored = tasks.into_iter().map(|task| StoredTask {
            key: task.key.map(|key| Bytes::copy_from_slice(key.as_str().as_bytes())),
            options: TaskOptions {
                retries: task.retries,
                timeout: task.timeout.map(|it| Duration::from_micros(micros(it))),
                retry_of: None,
            },
            payload: task.payload,
        });
        self.submit_stored(keys, stored.collect()).await
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
        let until = Instant::now() + wait;
        // Before the look: what is stored in between is not missed.
        let stored = self.logs.wait_stored(Seq(seq));
        if let Some(record) = self.blocking(move |queue| queue.record(seq)).await? {
            return Ok(TaskState::Record(record));
        }
        if !wait.is_zero()
            && let Ok(Ok(())) = timeout_at(until, stored).await
            && let Some(record) = self.blocking(move |queue| queue.record(seq)).await?
        {
            return Ok(TaskState::Record(record));
        }
        let (answer, is_out) = oneshot::channel();
        self.say(Command::IsOut { seq: Seq(seq), answer }).await?;
        Ok(match is_out.await {
            Ok(true) => TaskState::Running,
            Ok(false) => TaskState::Queued,
            Err(_) => return Err(Refusal::Closed),
        })
    }

    /// Returns the record of a task, if it has one.
    fn record(&self, seq: u64) -> Result<Option<Record>, Refusal> {
        let mut records = self.logs.records();
        if !records.stored().contains(Seq(seq)) {
            return Ok(None);
        }
        let position = records.position_of(Seq(seq)).map_err(|error| self.unreadable(&error))?;
        let stored = records.get(Seq(seq)).map_err(|error| self.unreadable(&error))?;
        match position.zip(stored) {
            Some((position, stored)) => Ok(Some(self.record_of(position, &stored))),
            None => Err(Refusal::Gone(self.id(seq))),
        }
    }

    fn record_of(&self, position: u64, stored: &StoredRecord) -> Record {
        let line = stored.bytes.strip_suffix(b"\n").unwrap_or(&stored.bytes);
        Record { position, id: self.id(stored.seq.0), json: stored.bytes.slice_ref(line) }
    }

    pub(crate) async fn cancel(self: &Arc<Self>, seq: u64) -> Result<TaskState, Refusal> {
        if seq >= self.logs.submitted() {
            return Err(Refusal::UnknownTask(self.id(seq)));
        }
        let record = self.blocking(move |queue| {
            let record = queue.record(seq)?;
            if record.is_none() {
                queue.change([Change::Cancel(SeqRange::one(Seq(seq)))])?;
            }
            Ok(record)
        });
        if let Some(record) = record.await? {
            return Ok(TaskState::Record(record));
        }
        let (answer, answered) = oneshot::channel();
        self.say(Command::Cancel { seq: Seq(seq), answer }).await?;
        let wait = match answered.await {
            Ok(CancelAnswer::Stopping) => Duration::ZERO,
            Ok(_) => CANCEL_WAIT,
            Err(_) => return Err(Refusal::Closed),
        };
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
        let task = self.blocking(move |queue| {
            let logs = &queue.logs;
            match retry(|| logs.records(), || logs.tasks(), seq, stored_key) {
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

    pub(crate) async fn records(
        self: &Arc<Self>,
        wanted: Wanted,
        wait: Duration,
    ) -> Result<Page, Refusal> {
        let until = Instant::now() + wait;
        let mut stored = self.logs.stored();
        let mut wanted = wanted;
        loop {
            let end = *stored.borrow_and_update();
            let page = self.blocking(move |queue| queue.page(wanted)).await?;
            let is_at_end = page.through.is_none_or(|through| through.saturating_add(1) >= end);
            if !page.records.is_empty() || Instant::now() >= until {
                return Ok(page);
            }
            wanted.after = page.through;
            if is_at_end && !matches!(timeout_at(until, stored.changed()).await, Ok(Ok(()))) {
                return Ok(page);
            }
        }
    }

    /// Returns what there is of the records that are wanted, as far as was looked.
    fn page(&self, wanted: Wanted) -> Result<Page, Refusal> {
        let mut records = self.logs.records();
        let first = records.first();
        let from = wanted.after.map_or(first, |after| after.saturating_add(1));
        if let Some(after) = wanted.after.filter(|_| from < first) {
            return Err(Refusal::RecordsGone { after, first });
        }
        let mut page = Page { records: Vec::new(), through: wanted.after };
        let (mut next, mut bytes, mut looked) = (from, 0, 0);
        while looked < LOOK_BYTES_MAX {
            let read = records.read(next, READ_BYTES_MAX.min(wanted.bytes_max));
            let (found, then) = read.map_err(|error| self.unreadable(&error))?;
            if found.is_empty() {
                break;
            }
            for (position, stored) in &found {
                if page.records.len() >= wanted.records_max || bytes >= wanted.bytes_max {
                    return Ok(page);
                }
                page.through = Some(*position);
                looked += stored.bytes.len();
                if wanted.status.is_none_or(|status| status == stored.status) {
                    bytes += stored.bytes.len();
                    page.records.push(self.record_of(*position, stored));
                }
            }
            next = then;
        }
        Ok(page)
    }

    pub(crate) fn consumer(&self, consumer: &ConsumerName) -> Result<Option<u64>, Refusal> {
        let control = self.logs.control();
        let next = control.state().consumers.get(consumer.as_str()).copied();
        next.map(|next| next.checked_sub(1)).ok_or_else(|| Refusal::UnknownConsumer {
            queue: self.name.clone(),
            consumer: consumer.clone(),
        })
    }

    pub(crate) async fn set_consumer(
        self: &Arc<Self>,
        consumer: ConsumerName,
        position: Option<u64>,
    ) -> Result<bool, Refusal> {
        self.blocking(move |queue| {
            let name: Box<str> = consumer.as_str().into();
            let is_new = !queue.logs.control().state().consumers.contains_key(&name);
            let next = position.map_or(0, |position| position.saturating_add(1));
            queue.change([Change::Consumer(name, Some(next))])?;
            Ok(is_new)
        })
        .await
    }

    pub(crate) async fn remove_consumer(
        self: &Arc<Self>,
        consumer: ConsumerName,
    ) -> Result<(), Refusal> {
        self.consumer(&consumer)?;
        let change = Change::Consumer(consumer.as_str().into(), None);
        self.blocking(move |queue| queue.change([change])).await
    }

    pub(crate) async fn state(&self) -> Result<QueueState, Refusal> {
        let snapshot = self.look().await?;
        let running = snapshot.workers.iter().map(|worker| worker.out).sum::<u64>();
        let (stored, records, position) = {
            let records = self.logs.records();
            let position = (records.counts().total() > 0).then(|| records.committed() - 1);
            (records.stored().count(), records.kept(), position)
        };
        let unsettled = self.logs.submitted().saturating_sub(stored);
        let running = running.min(unsettled);
        Ok(QueueState {
            name: self.name.clone(),
            settings: lock(&self.settings).clone(),
            is_paused: self.logs.control().state().paused,
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
        let _telling = self.telling.lock().await;
        let settings = self.blocking(move |queue| {
            let mut settings = lock(&queue.settings);
            queue.change(changes)?;
            let now = effective(&queue.config, queue.logs.control().state());
            *settings = now.map_err(|_| Refusal::Failed("the settings cannot be read back"))?;
            queue.apply(&settings);
            Ok(settings.clone())
        });
        let policy = policy(&settings.await?);
        self.say(Command::SetPolicy(policy)).await
    }

    pub(crate) async fn set_paused(self: &Arc<Self>, is_paused: bool) -> Result<(), Refusal> {
        let _telling = self.telling.lock().await;
        self.blocking(move |queue| queue.change([Change::Pause(is_paused)])).await?;
        self.say(Command::Pause(is_paused)).await
    }

    /// Makes changes that survive a crash of the machine. Blocks.
    fn change(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), Refusal> {
        let full = |what| Refusal::Full { what, retry_after: FULL_RETRY_AFTER };
        self.logs.change(changes).map_err(|error| match error {
            ControlError::Change(ChangeError::ConsumersFull) => {
                full("there are too many consumers")
            }
            ControlError::Change(ChangeError::CancelledFull) => {
                full("too many tasks are cancelled and have no record")
            }
            ControlError::Log(error) if is_full(&error) => full("the disk is full"),
            error => {
                tracing::error!("{}: cannot be written: {error}", self.logs.dir().display());
                Refusal::Failed("the control log cannot be written")
            }
        })
    }

    /// Returns whether the ventilator dispatches nothing.
    #[cfg(test)]
    pub(crate) async fn is_dispatch_paused(&self) -> Result<bool, Refusal> {
        Ok(self.look().await?.is_paused)
    }

    async fn look(&self) -> Result<DispatcherSnapshot, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.say(Command::Look(answer)).await?;
        answered.await.map_err(|_| Refusal::Closed)
    }

    async fn say(&self, command: Command) -> Result<(), Refusal> {
        self.commands.send(command).await.map_err(|_| Refusal::Closed)
    }

    /// Does something that waits for the disk.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        run: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let queue = self.clone();
        let done = tokio::task::spawn_blocking(move || run(&queue)).await;
        done.unwrap_or(Err(Refusal::Failed("the request was not carried out")))
    }

    fn unreadable(&self, error: &dyn std::error::Error) -> Refusal {
        tracing::error!("{}: cannot be read: {error}", self.logs.dir().display());
        Refusal::Failed("the log cannot be read")
    }

    fn id(&self, seq: u64) -> TaskId {
        TaskId { queue: self.name.clone(), seq }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
