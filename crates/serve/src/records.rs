//! The record log of a queue, shared by the threads that work on it, and who waits for what.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use tradewind_proto::{Seq, SeqSet};
use tradewind_records::Directory;
use tradewind_store::{Part, RecordError, RecordLog, RecordOptions};
use tradewind_system::random_id;

use crate::control::ControlLog;
use crate::disk::Disk;
use crate::logs::{OpenError, say_torn};
use crate::waiters::Waiters;

/// The record log of a queue.
pub(crate) struct SharedRecords {
    control: Arc<ControlLog>,
    records: Mutex<RecordLog<Disk>>,
    /// Tasks whose records are kept, and are neither `ok` nor `skipped`: they may be retried.
    failed: Mutex<SeqSet>,
    /// Position after the last record.
    stored: watch::Sender<u64>,
    waiting: Waiters,
}

impl SharedRecords {
    /// Opens the log in the directory of its control log, or creates it there.
    pub(crate) fn open(control: Arc<ControlLog>) -> Result<Self, OpenError> {
        let dir = control.dir();
        let durability = control.durability();
        let part =
            |part: Part| Disk::new(Directory::new(dir.join(part.as_str())), durability.clone());
        let amiss = |error: RecordError| OpenError::Records { path: dir.to_owned(), error };
        let (mut records, found) = RecordLog::open(
            part(Part::Records),
            part(Part::Index),
            random_id(),
            RecordOptions::default(),
        )
        .map_err(amiss)?;
        say_torn(dir, Part::Records, found.torn_bytes);
        let failed = records.not_ok().map_err(amiss)?;
        Ok(Self {
            failed: Mutex::new(failed),
            stored: watch::Sender::new(records.committed()),
            waiting: Waiters::default(),
            records: Mutex::new(records),
            control,
        })
    }

    /// Returns the directory of the log.
    pub(crate) fn dir(&self) -> &Path {
        self.control.dir()
    }

    pub(crate) fn control(&self) -> &ControlLog {
        &self.control
    }

    pub(crate) fn records(&self) -> MutexGuard<'_, RecordLog<Disk>> {
        lock(&self.records)
    }

    /// Returns the tasks whose records are kept, and with which they may be retried. To be locked after the log.
    pub(crate) fn failed(&self) -> MutexGuard<'_, SeqSet> {
        lock(&self.failed)
    }

    /// Notes that records are stored, up to this position of their log.
    pub(crate) fn note_stored(&self, records: &[(Seq, bool)], end: u64) {
        {
            let mut failed = lock(&self.failed);
            for (seq, _) in records.iter().filter(|(_, is_failed)| *is_failed) {
                failed.insert(*seq);
            }
        }
        self.stored.send_replace(end);
        self.waiting.tell(records.iter().map(|(seq, _)| seq.0));
    }

    /// Returns what tells the position after the last record.
    pub(crate) fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// Returns what ends when the record of a task is stored. One that is stored already does not end it: to be
    /// looked at after this.
    pub(crate) fn wait_stored(&self, seq: Seq) -> oneshot::Receiver<()> {
        self.waiting.wait(seq.0)
    }

    /// Forgets who does not wait any more.
    pub(crate) fn forget_waiters(&self) {
        self.waiting.forget_closed();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No thread leaves what it guards in the middle of a change by a panic: the logs see to that themselves.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
