//! The logs on a queue's own disk, as an engine with one partition.
//!
//! There are no leases: one process has the logs, and what locks their directory says so. So no epoch is too old here.

use std::io::ErrorKind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tradewind_engine::{
    Committed, Engine, EngineError, Epoch, Leases, NewRecord, RecordLog, SubmitId, TaskLog,
};
use tradewind_proto::{Seq, SeqSet};
use tradewind_records::Medium;
use tradewind_store::{
    Keep, LogError, RecordError, RecordLog as Records, RequestError, StoredRecord, StoredTask,
    SubmitError, Submitted, Tasks,
};

/// The logs of a queue on its own disk.
#[derive(Debug)]
pub struct Local<M>(Arc<Shared<M>>);

#[derive(Debug)]
struct Shared<M> {
    // Whoever needs both takes that of the tasks first.
    tasks: Mutex<Tasks<M>>,
    records: Mutex<Records<M>>,
    is_submitted: Condvar,
    is_stored: Condvar,
}

impl<M> Clone for Local<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Medium> Local<M> {
    /// Returns the engine that these logs are, of one queue.
    #[must_use]
    pub fn new(tasks: Tasks<M>, records: Records<M>) -> Self {
        Self(Arc::new(Shared {
            tasks: Mutex::new(tasks),
            records: Mutex::new(records),
            is_submitted: Condvar::new(),
            is_stored: Condvar::new(),
        }))
    }
}

impl<M: Medium + Send + 'static> Engine for Local<M> {
    fn tasks(&self, partition: u32) -> Result<Box<dyn TaskLog>, EngineError> {
        check_partition(partition)?;
        Ok(Box::new(self.clone()))
    }

    fn records(&self, partition: u32) -> Result<Box<dyn RecordLog>, EngineError> {
        check_partition(partition)?;
        Ok(Box::new(self.clone()))
    }

    fn leases(&self) -> Result<Box<dyn Leases>, EngineError> {
        Err(EngineError::Refused(
            "the local log has no leases: one process has its directory".into(),
        ))
    }

    /// None: a log is synced before it answers.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

fn check_partition(partition: u32) -> Result<(), EngineError> {
    match partition {
        0 => Ok(()),
        _ => Err(EngineError::Refused(format!(
            "the local log has one partition, 0, and none with the number {partition}"
        ))),
    }
}

impl<M: Medium + Send> TaskLog for Local<M> {
    fn submit(
        &mut self,
        _id: SubmitId,
        tasks: &[StoredTask],
    ) -> Result<Vec<Submitted>, EngineError> {
        let mut log = lock(&self.0.tasks);
        let added = log.submit_all(tasks.to_vec()).map_err(of_request)?;
        if let Err(error) = log.commit() {
            log.discard();
            return Err(of_submit(0, error));
        }
        drop(log);
        self.0.is_submitted.notify_all();
        Ok(added)
    }

    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<(u64, StoredTask)>, EngineError> {
        let log = lock(&self.0.tasks);
        let waited =
            self.0.is_submitted.wait_timeout_while(log, wait, |log| log.committed() <= from);
        let (mut log, _) = waited.unwrap_or_else(PoisonError::into_inner);
        log.read(from, bytes_max).map_err(|error| of_submit(0, error))
    }

    fn first(&mut self) -> Result<u64, EngineError> {
        Ok(lock(&self.0.tasks).first())
    }

    fn end(&mut self) -> Result<u64, EngineError> {
        Ok(lock(&self.0.tasks).committed())
    }

    /// Removes whole segments. Keys are remembered as long as the records of their tasks are kept, whatever `keys_low` is.
    fn trim(&mut self, _epoch: Epoch, low: u64, _keys_low: u64) -> Result<(), EngineError> {
        let mut log = lock(&self.0.tasks);
        let kept_from = lock(&self.0.records).first();
        let trimmed = log.forget_below(kept_from).and_then(|()| {
            log.remove_unneeded(
                |range| range.end > low,
                |task| {
                    let mut records = lock(&self.0.records);
                    let record = records.position_of(Seq(task))?;
                    Ok(Some(record.unwrap_or_else(|| records.committed())))
                },
            )
        });
        trimmed.map(drop).map_err(|error| of_submit(0, error))
    }
}

impl<M: Medium + Send> RecordLog for Local<M> {
    fn line_bytes_max(&self) -> usize {
        // The log takes more, and no message has as much.
        u32::MAX as usize / 8
    }

    fn commit(
        &mut self,
        _epoch: Epoch,
        records: &[NewRecord],
    ) -> Result<Vec<Committed>, EngineError> {
        let mut log = lock(&self.0.records);
        let mut answers = Vec::with_capacity(records.len());
        let added = records.iter().enumerate().try_for_each(|(place, record)| {
            let is_new = log
                .append(now(), record.seq, record.status, &record.line)
                .map_err(|error| of_record(place, error))?;
            answers.push(if is_new { Committed::New } else { Committed::Known });
            Ok(())
        });
        let added = added.and_then(|()| log.commit().map_err(|error| of_record(0, error)));
        if let Err(error) = added {
            log.discard();
            return Err(error);
        }
        drop(log);
        self.0.is_stored.notify_all();
        Ok(answers)
    }

    fn stored(&mut self) -> Result<SeqSet, EngineError> {
        Ok(lock(&self.0.records).stored().clone())
    }

    /// Does nothing: each segment begins with a checkpoint.
    fn checkpoint(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        Ok(())
    }

    fn get(&mut self, seq: Seq) -> Result<Option<(u64, StoredRecord)>, EngineError> {
        let mut log = lock(&self.0.records);
        let position = log.position_of(seq).map_err(|error| of_record(0, error))?;
        let stored = log.get(seq).map_err(|error| of_record(0, error))?;
        Ok(position.zip(stored))
    }

    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<(u64, StoredRecord)>, EngineError> {
        let log = lock(&self.0.records);
        let waited = self.0.is_stored.wait_timeout_while(log, wait, |log| log.committed() <= from);
        let (mut log, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let read = log.read(from, bytes_max).map_err(|error| of_record(0, error))?;
        Ok(read.0)
    }

    /// Removes whole segments.
    fn remove_below(&mut self, _epoch: Epoch, position: u64) -> Result<(), EngineError> {
        let removed = lock(&self.0.records).remove_old(Keep::Consumed(position), now());
        removed.map(drop).map_err(|error| of_record(0, error))
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

// What panicked has left a log as it is on the disk, or with a batch that is discarded.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn of_request(error: RequestError) -> EngineError {
    of_submit(error.place, error.error)
}

fn of_submit(place: usize, error: SubmitError) -> EngineError {
    match error {
        SubmitError::Key => EngineError::Key { place },
        SubmitError::OtherTask { position } => EngineError::OtherTask { place, position },
        SubmitError::TwoTasks => EngineError::Refused(error.to_string()),
        SubmitError::KeysFull { .. } => EngineError::Full(error.to_string()),
        SubmitError::Log(error) | SubmitError::KeyLog(error) => of_log(place, error),
        SubmitError::Records(error) => of_record(place, error),
        SubmitError::Unreadable { position, .. } | SubmitError::UnreadableKey { position, .. } => {
            EngineError::Amiss { position, what: error.to_string() }
        }
    }
}

fn of_record(place: usize, error: RecordError) -> EngineError {
    match error {
        RecordError::Log(error) => of_log(place, error),
        RecordError::Unreadable { position, .. } => {
            EngineError::Amiss { position, what: error.to_string() }
        }
        RecordError::NoCheckpoint { .. } | RecordError::Index { .. } => {
            EngineError::Refused(error.to_string())
        }
    }
}

fn of_log(place: usize, error: LogError) -> EngineError {
    match error {
        LogError::Io(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                EngineError::Full(error.to_string())
            }
            _ => EngineError::Unsure(error.to_string()),
        },
        LogError::TooLarge { bytes, max } => EngineError::TooLarge { place, bytes, max },
        LogError::Damaged { .. } | LogError::Version { .. } | LogError::Foreign { .. } => {
            EngineError::Refused(error.to_string())
        }
    }
}
