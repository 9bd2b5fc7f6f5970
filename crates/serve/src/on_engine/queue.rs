//! What can be asked of a queue whose logs are an engine's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tradewind_engine::{EngineError, SubmitId};
use tradewind_engines::EngineUrl;
use tradewind_http::{
    ConsumerName, Keep, NewTask, Page, QueueName, QueueState, Record, Refusal, Settings,
    SettingsPatch, Submitted, TaskId, TaskKey, TaskState, Wanted,
};
use tradewind_lanes::{PullLane, PushLane};
use tradewind_node::exit::{Fatal, OUTPUT, OrExit, REFUSED, SYSTEM};
use tradewind_partitions::{Place, partition_of};
use tradewind_proto::Seq;
use tradewind_proto::message::Start;
use tradewind_store::{Change, StoredRecord, StoredTask, Submitted as Stored};
use tradewind_system::random_id;

use super::engines::{Engines, lock};
use super::held::Held;
use super::leases::{Owner, Owning};
use super::output::EngineStore;
use super::source::EngineSource;
use crate::config::{QueueConfig, Underneath};
use crate::control::{ControlLog, Half};
use crate::loops::{Begin, Common, Holders, Sink, Sockets, Ventilator};
use crate::queue::stored_task;
use crate::record_half;
use crate::refused::{FULL_RETRY_AFTER, blocking, changed};
use crate::settings::{all_changes, changes, effective, policy};
use crate::steering::Steering;

/// Wait for a record that another process may store before it is looked for again: the first, doubled each time up to
/// the second.
const LOOK_INTERVAL: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(500)];

/// Wait for a record that this process stores, unless the partition goes to another meanwhile.
const LOST_INTERVAL: Duration = Duration::from_secs(5);

/// Time for which a submit is made again while its engine is away.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(10);

/// Time after which such a submit is made again: the first, doubled each time up to the second.
const SUBMIT_AGAIN: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(500)];

/// Time after which a request may come again whose engine was away.
const AWAY_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Bytes of records that are read at a time.
const READ_BYTES_MAX: usize = 256 << 10;

/// A queue whose logs are an engine's, or the part of it that this process has.
pub(crate) struct OnEngine {
    name: QueueName,
    engines: Arc<Engines>,
    held: Arc<Held>,
    control: Arc<ControlLog>,
    steering: Arc<Steering>,
    workers: mpsc::UnboundedSender<PushLane>,
    sinks: mpsc::UnboundedSender<PullLane>,
    callers: mpsc::UnboundedSender<PullLane>,
    /// Partition of the next tasks that have no key.
    turn: AtomicU32,
    /// Until it is stopped.
    running: Mutex<Option<Running>>,
}

struct Running {
    ventilator: Ventilator,
    sink: Sink,
    owner: Owner,
}

impl OnEngine {
    /// Opens a queue whose logs these are, and starts it. Blocks.
    pub(crate) fn start(
        name: QueueName,
        dir: &Path,
        config: QueueConfig,
        underneath: Underneath,
        common: &Common,
    ) -> Result<Self, Fatal> {
        let QueueConfig { settings: config, relays, .. } = config;
        let control = Arc::new(ControlLog::open(dir, Some(Half::Neither)).or_exit(OUTPUT)?);
        let settings = effective(&config, control.lock().state()).map_err(|error| {
            Fatal::new(OUTPUT, format!("{}: its settings: {error}", dir.display()))
        })?;
        check(&settings).map_err(|what| Fatal::new(OUTPUT, format!("queue {name}: {what}")))?;
        let (policy, settings) = (policy(&settings), Arc::new(Mutex::new(settings)));
        let engines = Arc::new(Engines::new(underneath));
        look(&name, &engines)?;
        let held = Arc::new(Held::default());
        let (sockets, of_sink) = Sockets::new()?.of_both(relays.as_ref(), None, None);
        let store = EngineStore {
            held: held.clone(),
            partitions: engines.partitions(),
            sink: engines.sink().clone(),
        };
        // The job is this process's own: no worker has a task of it.
        let holders = Holders { before: Some(Vec::new()), note: Box::new(drop) };
        let sink = Sink::start(name.as_str(), store, holders, of_sink, common)?;
        let (source, reads) = EngineSource::new(held.clone());
        let begin = Begin {
            start: Start::New,
            own: None,
            first: Seq(0),
            is_paused: control.lock().state().paused,
            cancelled: Vec::new(),
            policy,
        };
        let ventilator = Ventilator::start(name.as_str(), source, begin, sockets, common)?;
        let owning = Owning {
            queue: name.as_str().to_owned(),
            own: format!("{}-{:08x}", tradewind_text::default_name(), random_id() as u32),
            engines: engines.clone(),
            held: held.clone(),
            reads,
            commands: ventilator.commands.clone(),
            settings: settings.clone(),
        };
        let owner = Owner::spawn(owning).or_exit(SYSTEM)?;
        let commands = ventilator.commands.clone();
        let steering = Arc::new(Steering::new(control.clone(), config, settings, commands));
        Ok(Self {
            name,
            engines,
            held,
            control,
            steering,
            workers: ventilator.workers.clone(),
            sinks: ventilator.sinks.clone(),
            callers: sink.callers.clone(),
            turn: AtomicU32::new(random_id() as u32),
            running: Mutex::new(Some(Running { ventilator, sink, owner })),
        })
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

    /// Ends its loops, and gives its partitions to others. Blocks.
    pub(crate) fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(Running { ventilator, sink, owner }) = running {
            ventilator.stop();
            sink.stop();
            owner.stop();
        }
    }

    pub(crate) async fn submit(
        self: &Arc<Self>,
        tasks: Vec<NewTask>,
    ) -> Result<Vec<Submitted>, Refusal> {
        let keys: Vec<Option<TaskKey>> = tasks.iter().map(|task| task.key.clone()).collect();
        let tasks = tasks.into_iter().map(stored_task).collect();
        self.submit_stored(keys, tasks).await
    }

    async fn submit_stored(
        self: &Arc<Self>,
        keys: Vec<Option<TaskKey>>,
        tasks: Vec<StoredTask>,
    ) -> Result<Vec<Submitted>, Refusal> {
        let by_key = keys.clone();
        let stored = blocking(self, move |queue| queue.submit_now(&by_key, tasks)).await?;
        let partitions = self.engines.partitions();
        let answer = |((partition, stored), key): ((u32, Stored), Option<TaskKey>)| Submitted {
            id: self.id(Place { partition, position: stored.position() }.number(partitions)),
            key,
            is_new: matches!(stored, Stored::New(_)),
        };
        Ok(stored.into_iter().zip(keys).map(answer).collect())
    }

    /// Adds tasks to their partitions: those of one key to one, and all that have none to another each time. Blocks.
    fn submit_now(
        &self,
        keys: &[Option<TaskKey>],
        tasks: Vec<StoredTask>,
    ) -> Result<Vec<(u32, Stored)>, Refusal> {
        let partitions = self.engines.partitions();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % partitions;
        let mut calls: BTreeMap<u32, (Vec<usize>, Vec<StoredTask>)> = BTreeMap::new();
        for (place, task) in tasks.into_iter().enumerate() {
            let key = task.key.as_deref();
            let partition = key.map_or(turn, |key| partition_of(key, partitions));
            let (places, tasks) = calls.entry(partition).or_default();
            places.push(place);
            tasks.push(task);
        }
        let mut answers = vec![(0, Stored::New(0)); keys.len()];
        let until = std::time::Instant::now() + SUBMIT_PATIENCE;
        for (partition, (places, tasks)) in calls {
            let id = SubmitId(u128::from(random_id()) << 64 | u128::from(random_id()));
            let mut pause = SUBMIT_AGAIN[0];
            let stored = loop {
                match self.engines.tasks(partition, |log| log.submit(id, &tasks)) {
                    Ok(stored) => break stored,
                    // With the same id nothing is there twice.
                    Err(error) if error.is_passing() && std::time::Instant::now() < until => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(SUBMIT_AGAIN[1]);
                    }
                    Err(error) => return Err(self.not_taken(&error, (partition, &places), keys)),
                }
            };
            for (place, stored) in places.into_iter().zip(stored) {
                answers[place] = (partition, stored);
            }
        }
        Ok(answers)
    }

    fn not_taken(
        &self,
        error: &EngineError,
        (partition, places): (u32, &[usize]),
        keys: &[Option<TaskKey>],
    ) -> Refusal {
        let key = |place: usize| keys.get(*places.get(place)?)?.clone();
        match *error {
            EngineError::OtherTask { place, position } => match key(place) {
                Some(key) => {
                    let number = Place { partition, position }.number(self.engines.partitions());
                    Refusal::OtherTask { key, id: self.id(number) }
                }
                None => Refusal::Failed("the engine has a key that the task has not"),
            },
            EngineError::TooLarge { bytes, max, .. } => {
                Refusal::TooLarge { bytes: bytes as u64, max: max as u64 }
            }
            EngineError::Full(_) => {
                Refusal::Full { what: "the engine is full", retry_after: FULL_RETRY_AFTER }
            }
            ref error => self.refusal(error, self.engines.source()),
        }
    }

    pub(crate) async fn task(
        self: &Arc<Self>,
        number: u64,
        wait: Duration,
    ) -> Result<TaskState, Refusal> {
        let (until, mut pause) = (Instant::now() + wait, LOOK_INTERVAL[0]);
        loop {
            // Before the look: what is stored in between is not missed.
            let stored = self.held.wait_stored(number);
            if let Some(record) = blocking(self, move |queue| queue.record(number)).await? {
                return Ok(TaskState::Record(record));
            }
            let now = Instant::now();
            if now >= until {
                break;
            }
            let is_held = self.held.placed().has(self.place(number).partition);
            // Where another process has the partition, nobody says when.
            let next = if is_held { LOST_INTERVAL } else { pause };
            let _ = timeout_at(until.min(now + next), stored).await;
            pause = (pause * 2).min(LOOK_INTERVAL[1]);
        }
        let place = self.place(number);
        let seq = self.held.placed().seq(place);
        let Some(seq) = seq else { return Ok(TaskState::Queued) };
        self.steering.task(seq).await
    }

    /// Returns the record of a task, if it has one. Blocks.
    fn record(&self, number: u64) -> Result<Option<Record>, Refusal> {
        let Place { partition, position } = self.place(number);
        let got = self.engines.records(partition, |log| log.get(Seq(position)));
        let got = got.map_err(|error| self.refusal(&error, self.engines.sink()))?;
        if let Some(stored) = got {
            let (position, stored) = stored;
            return Ok(Some(self.record_of(partition, position, &stored)));
        }
        if self.held.placed().is_stored(Place { partition, position }) {
            return Err(Refusal::Gone(self.id(number)));
        }
        let end = self.engines.tasks(partition, |log| log.end());
        let end = end.map_err(|error| self.refusal(&error, self.engines.source()))?;
        if position >= end {
            return Err(Refusal::UnknownTask(self.id(number)));
        }
        Ok(None)
    }

    fn record_of(&self, partition: u32, position: u64, stored: &StoredRecord) -> Record {
        let place = Place { partition, position: stored.seq.0 };
        let line = stored.bytes.strip_suffix(b"\n").unwrap_or(&stored.bytes);
        let id = self.id(place.number(self.engines.partitions()));
        Record { position, id, json: stored.bytes.slice_ref(line) }
    }

    pub(crate) async fn cancel(self: &Arc<Self>, number: u64) -> Result<TaskState, Refusal> {
        let state = self.task(number, Duration::ZERO).await?;
        if matches!(state, TaskState::Record(_)) {
            return Ok(state);
        }
        let place = self.place(number);
        let seq = self.held.placed().seq(place);
        let Some(seq) = seq else {
            return Err(Refusal::Elsewhere(match self.held.placed().has(place.partition) {
                true => {
                    "the task has yet to be read from the engine, and can be cancelled when it is"
                }
                false => "another process has the partition of this task, and can cancel it",
            }));
        };
        let wait = self.steering.cancel(seq).await?;
        self.task(number, wait).await
    }

    pub(crate) async fn retry(
        self: &Arc<Self>,
        number: u64,
        key: Option<TaskKey>,
    ) -> Result<Submitted, Refusal> {
        let by_key = key.as_ref().map(|key| Bytes::copy_from_slice(key.as_str().as_bytes()));
        let task = blocking(self, move |queue| {
            if queue.record(number)?.is_none() {
                return Err(Refusal::Unsettled(queue.id(number)));
            }
            let Place { partition, position } = queue.place(number);
            let read = queue.engines.tasks(partition, |log| log.read(position, 1, Duration::ZERO));
            let read = read.map_err(|error| queue.refusal(&error, queue.engines.source()))?;
            match read.into_iter().next() {
                Some((found, task)) if found == position => Ok(task.retried(number, by_key)),
                _ => Err(Refusal::Gone(queue.id(number))),
            }
        });
        let task = task.await?;
        let submitted = self.submit_stored(vec![key], vec![task]).await?;
        submitted.into_iter().next().ok_or(Refusal::Closed)
    }

    pub(crate) async fn records(
        self: &Arc<Self>,
        wanted: Wanted,
        wait: Duration,
    ) -> Result<Page, Refusal> {
        let partition = match (wanted.partition, self.engines.partitions()) {
            (None, 1) => 0,
            (Some(partition), partitions) if partition < partitions => partition,
            (None, _) => {
                return Err(Refusal::Settings(
                    "the queue has partitions, each with records of its own: name one, from 0, with --partition, or as partition \
                     in a request",
                ));
            }
            (Some(partition), _) => return Err(Refusal::UnknownPartition(partition)),
        };
        blocking(self, move |queue| queue.page(partition, &wanted, wait)).await
    }

    /// Returns what there is of the records that are wanted, as far as was looked. Blocks.
    fn page(&self, partition: u32, wanted: &Wanted, wait: Duration) -> Result<Page, Refusal> {
        let from = wanted.after.map_or(0, |after| after.saturating_add(1));
        let bytes_max = READ_BYTES_MAX.min(wanted.bytes_max);
        let read = self.engines.records(partition, |log| log.read(from, bytes_max, wait));
        let read = read.map_err(|error| self.refusal(&error, self.engines.sink()))?;
        let mut page = Page { records: Vec::new(), through: wanted.after };
        for (position, stored) in &read {
            if page.records.len() >= wanted.records_max {
                break;
            }
            page.through = Some(*position);
            if wanted.status.is_none_or(|status| status == stored.status) {
                page.records.push(self.record_of(partition, *position, stored));
            }
        }
        Ok(page)
    }

    pub(crate) fn consumer(&self, consumer: &ConsumerName) -> Result<Option<u64>, Refusal> {
        record_half::consumer(&self.control, &self.name, consumer)
    }

    pub(crate) async fn set_consumer(
        self: &Arc<Self>,
        consumer: ConsumerName,
        position: Option<u64>,
    ) -> Result<bool, Refusal> {
        blocking(self, move |queue| record_half::set_consumer(&queue.control, &consumer, position))
            .await
    }

    pub(crate) async fn remove_consumer(
        self: &Arc<Self>,
        consumer: ConsumerName,
    ) -> Result<(), Refusal> {
        self.consumer(&consumer)?;
        let change = Change::Consumer(consumer.as_str().into(), None);
        blocking(self, move |queue| changed(&queue.control, [change])).await
    }

    pub(crate) async fn state(self: &Arc<Self>) -> Result<QueueState, Refusal> {
        let snapshot = self.steering.look().await?;
        let running = snapshot.workers.iter().map(|worker| worker.out).sum::<u64>();
        let unsettled = blocking(self, |queue| Ok(queue.unsettled())).await?;
        let running = running.min(unsettled);
        Ok(QueueState {
            name: self.name.clone(),
            settings: self.steering.settings(),
            is_paused: self.steering.is_paused(),
            queued: unsettled - running,
            running,
            records: snapshot.settled,
            position: None,
        })
    }

    /// Returns the number of tasks without records of the partitions that this process has. Blocks.
    fn unsettled(&self) -> u64 {
        let count = |(partition, _)| {
            // While the engine is away, what was read counts.
            let end = self.engines.tasks(partition, |log| log.end());
            let placed = self.held.placed();
            match end {
                Ok(end) => placed.unsettled(partition, end),
                Err(_) => placed.out(partition),
            }
        };
        self.held.epochs().into_iter().filter_map(count).sum()
    }

    pub(crate) async fn put(&self, settings: Settings) -> Result<(), Refusal> {
        check(&settings).map_err(Refusal::Settings)?;
        self.steering.set(all_changes(&settings), |_| ()).await
    }

    pub(crate) async fn patch(&self, patch: SettingsPatch) -> Result<(), Refusal> {
        check(&patch.clone().apply(self.steering.settings())).map_err(Refusal::Settings)?;
        self.steering.set(changes(&patch), |_| ()).await
    }

    pub(crate) async fn set_paused(&self, is_paused: bool) -> Result<(), Refusal> {
        self.steering.set_paused(is_paused).await
    }

    fn refusal(&self, error: &EngineError, at: &EngineUrl) -> Refusal {
        if error.is_passing() {
            return Refusal::Away {
                who: "the engine",
                at: at.to_string(),
                why: error.to_string(),
                retry_after: AWAY_RETRY_AFTER,
            };
        }
        tracing::error!("queue {}: {at}: {error}", self.name.as_str());
        Refusal::Failed("the engine refuses what was asked for")
    }

    fn place(&self, number: u64) -> Place {
        Place::of(number, self.engines.partitions())
    }

    fn id(&self, seq: u64) -> TaskId {
        TaskId { queue: self.name.clone(), seq }
    }
}

/// Says which settings a queue on an engine cannot have.
fn check(settings: &Settings) -> Result<(), &'static str> {
    match settings.keep {
        Keep::All => Ok(()),
        _ => Err(
            "keep is \"all\" where the records are an engine's, which has its own means to remove them",
        ),
    }
}

/// Looks at whether the engines can be had, and says what weakens the promise. One that is away is waited for.
fn look(name: &QueueName, engines: &Engines) -> Result<(), Fatal> {
    let looked = engines.open_leases().map(drop).and_then(|()| {
        (0..engines.partitions()).try_for_each(|partition| {
            engines.open_tasks(partition)?;
            engines.open_records(partition).map(drop)
        })
    });
    match looked {
        Ok(()) => {
            for note in engines.notes() {
                tracing::warn!("queue {}: {note}", name.as_str());
            }
            Ok(())
        }
        Err(error) if error.is_passing() => {
            tracing::warn!("queue {}: {error}; it is tried again", name.as_str());
            Ok(())
        }
        Err(error) => Err(Fatal::new(
            REFUSED,
            format!("queue {}: {}: {error}", name.as_str(), engines.source()),
        )),
    }
}
