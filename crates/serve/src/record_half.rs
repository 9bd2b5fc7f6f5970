//! The records of a queue: its record log, its sink, and what can be asked of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tradewind_http::{
    ConsumerName, Kept, KeptAsk, Page, QueueName, Record, Refusal, Settings, TaskId, Wanted,
};
use tradewind_lanes::PullLane;
use tradewind_node::exit::Fatal;
use tradewind_proto::Seq;
use tradewind_store::{Change, StoredRecord, Told};

use crate::control::ControlLog;
use crate::logs::now;
use crate::loops::{Common, Holders, Sink, SinkSockets};
use crate::output::LogStore;
use crate::records::SharedRecords;
use crate::refused::{blocking, changed, unreadable};
use crate::settings::keep;
use crate::workers;

/// Bytes of records that are looked at before others get a turn.
const LOOK_BYTES_MAX: usize = 16 << 20;

/// Bytes of records that are read at a time.
const READ_BYTES_MAX: usize = 256 << 10;

/// The records of a queue.
pub(crate) struct RecordHalf {
    name: QueueName,
    logs: Arc<SharedRecords>,
    callers: tokio::sync::mpsc::UnboundedSender<PullLane>,
    /// Until it is stopped.
    sink: Mutex<Option<Sink>>,
}

impl RecordHalf {
    /// Starts the sink of a record log. Blocks.
    pub(crate) fn start(
        name: QueueName,
        logs: Arc<SharedRecords>,
        sockets: SinkSockets,
        common: &Common,
    ) -> Result<Self, Fatal> {
        // No worker has a task of a job that has not begun.
        let is_new = !logs.control().has_job();
        if is_new {
            workers::note_none(logs.dir());
        }
        let holders = Holders {
            before: if is_new { Some(Vec::new()) } else { workers::read(logs.dir()) },
            note: workers::writer(logs.dir().to_owned()),
        };
        let sink = Sink::start(name.as_str(), LogStore(logs.clone()), holders, sockets, common)?;
        Ok(Self { name, logs, callers: sink.callers.clone(), sink: Mutex::new(Some(sink)) })
    }

    pub(crate) fn logs(&self) -> &Arc<SharedRecords> {
        &self.logs
    }

    /// Passes a worker or a relay on to the sink. One that comes after the end of that is let go.
    pub(crate) fn add_caller(&self, lane: PullLane) {
        let _ = self.callers.send(lane);
    }

    /// Ends the sink. Blocks.
    pub(crate) fn stop(&self) {
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sink) = sink {
            sink.stop();
        }
    }

    /// Removes records that are not to be kept any longer. Blocks.
    pub(crate) fn trim(&self, settings: &Settings) {
        let consumed = self.logs.control().lock().state().consumed();
        if let Some(keep) = keep(settings, consumed)
            && let Err(error) = self.logs.records().remove_old(keep, now())
        {
            let dir = self.logs.dir().display();
            tracing::warn!("{dir}: records that are not to be kept stay for now: {error}");
        }
        self.logs.forget_waiters();
    }

    /// Returns the record of a task, once it has one or this time is over.
    pub(crate) async fn task(
        self: &Arc<Self>,
        seq: u64,
        wait: Duration,
    ) -> Result<Option<Record>, Refusal> {
        let until = Instant::now() + wait;
        // Before the look: what is stored in between is not missed.
        let stored = self.logs.wait_stored(Seq(seq));
        let record = self.blocking(move |half| half.record(seq)).await?;
        if record.is_some()
            || wait.is_zero()
            || !matches!(timeout_at(until, stored).await, Ok(Ok(())))
        {
            return Ok(record);
        }
        self.blocking(move |half| half.record(seq)).await
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

    pub(crate) fn consumer(&self, name: &ConsumerName) -> Result<Option<u64>, Refusal> {
        consumer(self.logs.control(), &self.name, name)
    }

    pub(crate) async fn set_consumer(
        self: &Arc<Self>,
        consumer: ConsumerName,
        position: Option<u64>,
    ) -> Result<bool, Refusal> {
        self.blocking(move |half| set_consumer(half.logs.control(), &consumer, position)).await
    }

    pub(crate) async fn remove_consumer(
        self: &Arc<Self>,
        consumer: ConsumerName,
    ) -> Result<(), Refusal> {
        self.consumer(&consumer)?;
        let change = Change::Consumer(consumer.as_str().into(), None);
        self.blocking(move |queue| queue.change([change])).await
    }

    /// Returns what is kept of the records of tasks.
    pub(crate) async fn kept(self: &Arc<Self>, ask: KeptAsk) -> Result<Kept, Refusal> {
        self.blocking(move |half| {
            let KeptAsk { tasks, within } = ask;
            let job = half.logs.control().job().unwrap_or_default();
            let job = job.map(|(job, _)| format!("{:016x}", job.0));
            let mut records = half.logs.records();
            let first = match within {
                None => Ok(records.first()),
                Some(time) => records.first_since(now().saturating_sub(time)),
            };
            let told = records.tell(tasks, &mut half.logs.failed());
            let amiss = |error| half.unreadable(&error);
            let (first, Told { is_needed, positions, end }) =
                (first.map_err(amiss)?, told.map_err(amiss)?);
            let stored = records.stored().count();
            Ok(Kept { job, first, end, stored, needed: is_needed, positions })
        })
        .await
    }

    /// Returns the number of tasks that have their records, of records that are kept, and the position of the last.
    pub(crate) fn counts(&self) -> (u64, u64, Option<u64>) {
        let records = self.logs.records();
        let position = (records.counts().total() > 0).then(|| records.committed() - 1);
        (records.stored().count(), records.kept(), position)
    }

    fn change(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), Refusal> {
        changed(self.logs.control(), changes)
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

/// Returns the position of a consumer.
pub(crate) fn consumer(
    control: &ControlLog,
    queue: &QueueName,
    consumer: &ConsumerName,
) -> Result<Option<u64>, Refusal> {
    let control = control.lock();
    let next = control.state().consumers.get(consumer.as_str()).copied();
    next.map(|next| next.checked_sub(1)).ok_or_else(|| Refusal::UnknownConsumer {
        queue: queue.clone(),
        consumer: consumer.clone(),
    })
}

/// Sets the position of a consumer. Returns whether the consumer is new. Blocks.
pub(crate) fn set_consumer(
    control: &ControlLog,
    consumer: &ConsumerName,
    position: Option<u64>,
) -> Result<bool, Refusal> {
    let name: Box<str> = consumer.as_str().into();
    let is_new = !control.lock().state().consumers.contains_key(&name);
    let next = position.map_or(0, |position| position.saturating_add(1));
    changed(control, [Change::Consumer(name, Some(next))])?;
    Ok(is_new)
}
