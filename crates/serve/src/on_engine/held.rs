//! What the threads of a queue on an engine share: the partitions that this process has, and who waits for what.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tradewind_engine::{Epoch, RecordLog};
use tradewind_partitions::{Place, Placed};
use tradewind_proto::SeqRange;

use super::engines::lock;
use crate::waiters::Waiters;

/// The partitions that this process has.
#[derive(Default)]
pub(crate) struct Held {
    placed: Mutex<Placed>,
    parts: Mutex<BTreeMap<u32, Part>>,
    /// Who waits for the record of a task, by its number.
    waiting: Waiters,
}

/// A partition that this process has.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) epoch: Epoch,
    /// Its records.
    pub(crate) log: Arc<Mutex<Box<dyn RecordLog>>>,
    /// Bytes that a record has there at most.
    pub(crate) line_bytes_max: usize,
    /// Whether it is read.
    pub(crate) reading: Reading,
    /// Says that another has it by now.
    lost: mpsc::UnboundedSender<u32>,
}

/// Whether a partition is read on: all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading(Arc<(Mutex<bool>, Condvar)>);

impl Reading {
    pub(crate) fn end(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    pub(crate) fn has_ended(&self) -> bool {
        *lock(&self.0.0)
    }

    /// Waits for this long, or until it ends.
    pub(crate) fn wait_ended(&self, wait: Duration) {
        let (has_ended, ends) = &*self.0;
        let waited = ends.wait_timeout_while(lock(has_ended), wait, |has_ended| !*has_ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Part {
    pub(crate) fn new(
        epoch: Epoch,
        log: Box<dyn RecordLog>,
        lost: mpsc::UnboundedSender<u32>,
    ) -> Self {
        let (line_bytes_max, reading) = (log.line_bytes_max(), Reading::default());
        Self { epoch, log: Arc::new(Mutex::new(log)), line_bytes_max, reading, lost }
    }
}

impl Held {
    /// Returns which task of the ring is which.
    pub(crate) fn placed(&self) -> MutexGuard<'_, Placed> {
        lock(&self.placed)
    }

    /// Adds a partition, of which [`Placed`] knows already.
    pub(crate) fn add(&self, partition: u32, part: Part) {
        lock(&self.parts).insert(partition, part);
    }

    /// Returns a partition, if this process has it.
    pub(crate) fn part(&self, partition: u32) -> Option<Part> {
        lock(&self.parts).get(&partition).cloned()
    }

    /// Returns the partitions with their epochs.
    pub(crate) fn epochs(&self) -> Vec<(u32, Epoch)> {
        lock(&self.parts).iter().map(|(partition, part)| (*partition, part.epoch)).collect()
    }

    /// Forgets a partition. Returns the tasks of the ring that are nobody's from now on.
    pub(crate) fn remove(&self, partition: u32) -> Vec<SeqRange> {
        if let Some(part) = lock(&self.parts).remove(&partition) {
            part.reading.end();
        }
        self.placed().end(partition)
    }

    /// Notes that another has a partition with a higher epoch than this one. The rest is done by who has the leases.
    pub(crate) fn note_lost(&self, partition: u32, part: &Part) {
        part.reading.end();
        let _ = part.lost.send(partition);
    }

    /// Notes that tasks have their records.
    pub(crate) fn note_stored(&self, places: &[Place], partitions: u32) {
        {
            let mut placed = self.placed();
            places.iter().for_each(|place| placed.settle(*place));
        }
        self.waiting.tell(places.iter().map(|place| place.number(partitions)));
    }

    /// Returns what ends when this process stores the record of a task. To be looked at after this.
    pub(crate) fn wait_stored(&self, number: u64) -> oneshot::Receiver<()> {
        self.waiting.wait(number)
    }

    /// Forgets who does not wait any more.
    pub(crate) fn forget_waiters(&self) {
        self.waiting.forget_closed();
    }
}
