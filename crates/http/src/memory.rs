//! Queues in memory, for tests of what asks a server: nothing survives, and workers are the test.

use std::collections::{BTreeMap as Map, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tradewind_proto::message::Status;
use tradewind_queue::{
    ConsumerName, Kept, KeptAsk, QueueName, Settings, SettingsPatch, TaskId, TaskKey,
};

use crate::queues::{NewTask, Page, QueueState, Queues, Record, Submitted, TaskState, Wanted};
use crate::refusal::Refusal;

/// Queues in memory. All clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    queues: Map<QueueName, Queue>,
    /// Answer to all requests.
    refusal: Option<Refusal>,
}

#[derive(Debug, Default)]
struct Queue {
    settings: Settings,
    is_paused: bool,
    tasks: Vec<(NewTask, Progress)>,
    records: Vec<(Status, Record)>,
    /// Position of the first record that is kept.
    first: u64,
    consumers: Map<ConsumerName, Option<u64>>,
    /// Tasks whose payloads are not kept.
    forgotten: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Queued,
    Running,
    Recorded(u64),
}

/// Notes that a request waits, until it is answered or dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Answer<T> = Result<T, Refusal>;

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn with<T>(&self, name: &QueueName, then: impl FnOnce(&mut Queue) -> Answer<T>) -> Answer<T> {
        let mut state = self.state();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        let queue = state.queues.get_mut(name).ok_or(Refusal::UnknownQueue(name.clone()))?;
        then(queue)
    }

    fn change(&self) {
        self.0.changed.send_modify(|version| *version += 1);
    }

    /// Refuses all that is asked from now on.
    pub fn refuse(&self, refusal: Refusal) {
        self.state().refusal = Some(refusal);
        self.change();
    }

    /// Makes a task one that a worker has.
    pub fn start(&self, id: &str) {
        let id: TaskId = id.parse().unwrap();
        let at = usize::try_from(id.seq).unwrap();
        self.state().queues.get_mut(&id.queue).unwrap().tasks[at].1 = Progress::Running;
    }

    /// Writes the record of a task.
    pub fn record(&self, id: &str, status: Status) {
        let id: TaskId = id.parse().unwrap();
        self.state().queues.get_mut(&id.queue).unwrap().record(&id, status);
        self.change();
    }

    /// Keeps no record before this position.
    pub fn trim(&self, queue: &str, first: u64) {
        self.state().queues.get_mut(&queue.parse().unwrap()).unwrap().first = first;
        self.change();
    }

    /// Keeps a task's record without its payload: it cannot be retried.
    pub fn forget(&self, id: &str) {
        let id: TaskId = id.parse().unwrap();
        self.state().queues.get_mut(&id.queue).unwrap().forgotten.insert(id.seq);
    }

    /// Returns the tasks of a queue.
    pub fn tasks(&self, queue: &str) -> Vec<NewTask> {
        let state = self.state();
        let queue = state.queues.get(&queue.parse().unwrap());
        queue.map_or(Vec::new(), |queue| queue.tasks.iter().map(|(task, _)| task.clone()).collect())
    }

    /// Returns once this many requests wait.
    pub async fn waiting(&self, count: usize) {
        while self.0.waiting.load(Ordering::SeqCst) != count {
            tokio::task::yield_now().await;
        }
    }

    /// Asks until there is an answer or the time is over, then once more.
    async fn until<T>(
        &self,
        wait: Duration,
        ask: impl Fn() -> Answer<(bool, T)> + Send,
    ) -> Answer<T> {
        let mut changed = self.0.changed.subscribe();
        let until = Instant::now() + wait;
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.0.waiting);
        loop {
            let (is_there, answer) = ask()?;
            if is_there || timeout_at(until, changed.changed()).await.is_err() {
                return Ok(answer);
            }
        }
    }
}

impl Queue {
    fn record(&mut self, id: &TaskId, status: Status) -> Record {
        let position = self.records.len() as u64;
        let Self { records, tasks, .. } = self;
        let json = format!(r#"{{"seq":{},"status":"{}"}}"#, id.seq, status.as_str());
        let record = Record { position, id: id.clone(), json: json.into() };
        records.push((status, record.clone()));
        tasks[usize::try_from(id.seq).unwrap()].1 = Progress::Recorded(position);
        record
    }

    fn task(&self, id: &TaskId) -> Answer<TaskState> {
        let at = usize::try_from(id.seq).unwrap();
        match self.tasks.get(at).ok_or(Refusal::UnknownTask(id.clone()))?.1 {
            Progress::Queued => Ok(TaskState::Queued),
            Progress::Running => Ok(TaskState::Running),
            Progress::Recorded(position) if position < self.first => Err(Refusal::Gone(id.clone())),
            Progress::Recorded(position) => {
                let at = usize::try_from(position).unwrap();
                Ok(TaskState::Record(self.records[at].1.clone()))
            }
        }
    }

    fn submit(&mut self, name: &QueueName, task: NewTask) -> Answer<Submitted> {
        let at =
            self.tasks.iter().position(|(known, _)| task.key.is_some() && known.key == task.key);
        let id = |at: usize| TaskId { queue: name.clone(), seq: at as u64 };
        let key = task.key.clone();
        match at {
            Some(at) if self.tasks[at].0 == task => {
                Ok(Submitted { id: id(at), key, is_new: false })
            }
            Some(at) => Err(Refusal::OtherTask { key: key.unwrap(), id: id(at) }),
            None => {
                self.tasks.push((task, Progress::Queued));
                Ok(Submitted { id: id(self.tasks.len() - 1), key, is_new: true })
            }
        }
    }

    fn page(&self, wanted: &Wanted) -> Answer<Page> {
        if let Some(partition) = wanted.partition.filter(|partition| *partition > 0) {
            return Err(Refusal::UnknownPartition(partition));
        }
        let Wanted { after, status, records_max, bytes_max, .. } = *wanted;
        if let Some(after) = after.filter(|after| self.first.saturating_sub(1) > *after) {
            return Err(Refusal::RecordsGone { after, first: self.first });
        }
        let mut page = Page { records: Vec::new(), through: after };
        let mut bytes = 0;
        let is_after = |record: &Record| after.is_none_or(|after| record.position > after);
        for (of, record) in &self.records {
            if !is_after(record) || record.position < self.first {
                continue;
            }
            if page.records.len() == records_max || bytes > bytes_max {
                break;
            }
            page.through = Some(record.position);
            if status.is_none_or(|status| status == *of) {
                bytes += record.json.len();
                page.records.push(record.clone());
            }
        }
        Ok(page)
    }

    fn state(&self, name: &QueueName) -> QueueState {
        let count = |of| self.tasks.iter().filter(|(_, progress)| *progress == of).count() as u64;
        let records = self.records.len() as u64;
        QueueState {
            name: name.clone(),
            settings: self.settings.clone(),
            is_paused: self.is_paused,
            queued: count(Progress::Queued),
            running: count(Progress::Running),
            records: records - self.first,
            position: records.checked_sub(1),
        }
    }
}

impl Queues for Memory {
    async fn submit(&self, name: &QueueName, tasks: Vec<NewTask>) -> Answer<Vec<Submitted>> {
        let mut state = self.state();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        let queue = state.queues.entry(name.clone()).or_default();
        let before = queue.tasks.len();
        let submitted = tasks.into_iter().map(|task| queue.submit(name, task)).collect();
        if Result::is_err(&submitted) {
            queue.tasks.truncate(before);
        }
        submitted
    }

    async fn task(&self, id: &TaskId, wait: Duration) -> Answer<TaskState> {
        let ask = || {
            let state = self.with(&id.queue, |queue| queue.task(id))?;
            Ok((matches!(state, TaskState::Record(_)), state))
        };
        self.until(wait, ask).await
    }

    async fn cancel(&self, id: &TaskId) -> Answer<TaskState> {
        self.with(&id.queue, |queue| match queue.task(id)? {
            TaskState::Queued => Ok(TaskState::Record(queue.record(id, Status::Cancelled))),
            other => Ok(other),
        })
    }

    async fn retry(&self, id: &TaskId, key: Option<TaskKey>) -> Answer<Submitted> {
        self.with(&id.queue, |queue| match queue.task(id)? {
            TaskState::Record(_) if queue.forgotten.contains(&id.seq) => {
                Err(Refusal::Gone(id.clone()))
            }
            TaskState::Record(_) => {
                let task = queue.tasks[usize::try_from(id.seq).unwrap()].0.clone();
                queue.submit(&id.queue, NewTask { key, ..task })
            }
            _ => Err(Refusal::Unsettled(id.clone())),
        })
    }

    async fn records(&self, name: &QueueName, wanted: Wanted, wait: Duration) -> Answer<Page> {
        let ask = || {
            let page = self.with(name, |queue| queue.page(&wanted))?;
            Ok((page.through != wanted.after, page))
        };
        self.until(wait, ask).await
    }

    async fn consumer(&self, name: &QueueName, consumer: &ConsumerName) -> Answer<Option<u64>> {
        let unknown = Refusal::UnknownConsumer { queue: name.clone(), consumer: consumer.clone() };
        self.with(name, |queue| queue.consumers.get(consumer).copied().ok_or(unknown))
    }

    async fn set_consumer(
        &self,
        name: &QueueName,
        consumer: &ConsumerName,
        position: Option<u64>,
    ) -> Answer<bool> {
        self.with(name, |queue| Ok(queue.consumers.insert(consumer.clone(), position).is_none()))
    }

    async fn remove_consumer(&self, name: &QueueName, consumer: &ConsumerName) -> Answer<()> {
        let unknown = Refusal::UnknownConsumer { queue: name.clone(), consumer: consumer.clone() };
        self.with(name, |queue| queue.consumers.remove(consumer).map(|_| ()).ok_or(unknown))
    }

    async fn queues(&self) -> Answer<Vec<QueueState>> {
        let state = self.state();
        match &state.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(state.queues.iter().map(|(name, queue)| queue.state(name)).collect()),
        }
    }

    async fn queue(&self, name: &QueueName) -> Answer<QueueState> {
        self.with(name, |queue| Ok(queue.state(name)))
    }

    async fn put_queue(&self, name: &QueueName, settings: Settings) -> Answer<(QueueState, bool)> {
        let is_new = !self.state().queues.contains_key(name);
        self.state().queues.entry(name.clone()).or_default();
        self.with(name, |queue| {
            queue.settings = settings;
            Ok((queue.state(name), is_new))
        })
    }

    async fn patch_queue(&self, name: &QueueName, patch: SettingsPatch) -> Answer<QueueState> {
        self.with(name, |queue| {
            queue.settings = patch.apply(std::mem::take(&mut queue.settings));
            Ok(queue.state(name))
        })
    }

    async fn remove_queue(&self, name: &QueueName) -> Answer<()> {
        self.with(name, |queue| {
            let is_recorded = |(_, progress): &(_, _)| matches!(progress, Progress::Recorded(_));
            let is_settled = queue.tasks.iter().all(is_recorded);
            if is_settled { Ok(()) } else { Err(Refusal::NotEmpty(name.clone())) }
        })?;
        self.state().queues.remove(name);
        self.change();
        Ok(())
    }

    async fn set_paused(&self, name: &QueueName, is_paused: bool) -> Answer<QueueState> {
        self.with(name, |queue| {
            queue.is_paused = is_paused;
            Ok(queue.state(name))
        })
    }

    async fn kept(&self, name: &QueueName, ask: KeptAsk) -> Answer<Kept> {
        self.with(name, |queue| {
            let tasks = ask.tasks.map(|seq| queue.tasks.get(usize::try_from(seq).unwrap()));
            let position = |task: Option<&(NewTask, Progress)>| match task?.1 {
                Progress::Recorded(position) => Some(position),
                Progress::Queued | Progress::Running => None,
            };
            let positions: Vec<Option<u64>> = tasks.map(position).collect();
            let needed = positions.contains(&None);
            let end = queue.records.len() as u64;
            Ok(Kept {
                first: queue.first,
                end,
                stored: end,
                needed,
                positions: if needed { Vec::new() } else { positions },
                ..Kept::default()
            })
        })
    }

    async fn health(&self) -> Answer<()> {
        self.state().refusal.clone().map_or(Ok(()), Err)
    }
}
