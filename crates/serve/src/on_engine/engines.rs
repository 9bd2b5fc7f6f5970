//! The logs of a queue in its engines: opened when they are wanted, and kept for whoever wants them next.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tradewind_engine::{Leases, RecordLog, TaskLog};
use tradewind_engines::{Engine, EngineError, EngineUrl};

use crate::config::Underneath;

/// Number of logs of a partition that are kept open for requests.
const IDLE_MAX: usize = 8;

/// The logs of a queue in its engines.
pub(crate) struct Engines {
    underneath: Underneath,
    source: Mutex<Option<Box<dyn Engine>>>,
    /// `None` until it is wanted; not used where it is the source's.
    sink: Mutex<Option<Box<dyn Engine>>>,
    tasks: Mutex<BTreeMap<u32, Vec<Box<dyn TaskLog>>>>,
    records: Mutex<BTreeMap<u32, Vec<Box<dyn RecordLog>>>>,
}

impl Engines {
    pub(crate) fn new(underneath: Underneath) -> Self {
        Self {
            underneath,
            source: Mutex::default(),
            sink: Mutex::default(),
            tasks: Mutex::default(),
            records: Mutex::default(),
        }
    }

    /// Returns the number of partitions.
    pub(crate) fn partitions(&self) -> u32 {
        self.underneath.partitions
    }

    /// Returns where the tasks are, without what is secret.
    pub(crate) fn source(&self) -> &EngineUrl {
        &self.underneath.source
    }

    /// Returns where the records are, likewise.
    pub(crate) fn sink(&self) -> &EngineUrl {
        &self.underneath.sink
    }

    /// Says what weakens the promise, for people.
    pub(crate) fn notes(&self) -> Vec<String> {
        let of = |engine: &Mutex<Option<Box<dyn Engine>>>| {
            lock(engine).as_ref().map(|engine| engine.notes()).unwrap_or_default()
        };
        let mut notes = of(&self.source);
        notes.extend(of(&self.sink));
        notes.dedup();
        notes
    }

    /// Opens the task log of a partition.
    pub(crate) fn open_tasks(&self, partition: u32) -> Result<Box<dyn TaskLog>, EngineError> {
        with(&self.source, &self.underneath.source, |engine| engine.tasks(partition))
    }

    /// Opens the record log of a partition.
    pub(crate) fn open_records(&self, partition: u32) -> Result<Box<dyn RecordLog>, EngineError> {
        with(&self.sink, &self.underneath.sink, |engine| engine.records(partition))
    }

    /// Opens the leases on partitions: they stand beside the records, whose log they guard.
    pub(crate) fn open_leases(&self) -> Result<Box<dyn Leases>, EngineError> {
        with(&self.sink, &self.underneath.sink, |engine| engine.leases())
    }

    /// Does something with the task log of a partition.
    pub(crate) fn tasks<T>(
        &self,
        partition: u32,
        run: impl FnOnce(&mut dyn TaskLog) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let mut log = match taken(&self.tasks, partition) {
            Some(log) => log,
            None => self.open_tasks(partition)?,
        };
        let done = run(&mut *log);
        put_back(&self.tasks, partition, log);
        done
    }

    /// Does something with the record log of a partition.
    pub(crate) fn records<T>(
        &self,
        partition: u32,
        run: impl FnOnce(&mut dyn RecordLog) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let mut log = match taken(&self.records, partition) {
            Some(log) => log,
            None => self.open_records(partition)?,
        };
        let done = run(&mut *log);
        put_back(&self.records, partition, log);
        done
    }
}

/// Does something with an engine, which is connected to if it is not yet.
fn with<T>(
    engine: &Mutex<Option<Box<dyn Engine>>>,
    url: &EngineUrl,
    run: impl FnOnce(&dyn Engine) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let mut engine = lock(engine);
    let engine = match &mut *engine {
        Some(engine) => engine,
        empty => empty.insert(url.connect()?),
    };
    run(&**engine)
}

fn taken<T>(idle: &Mutex<BTreeMap<u32, Vec<T>>>, partition: u32) -> Option<T> {
    lock(idle).get_mut(&partition)?.pop()
}

fn put_back<T>(idle: &Mutex<BTreeMap<u32, Vec<T>>>, partition: u32, log: T) {
    let mut idle = lock(idle);
    let logs = idle.entry(partition).or_default();
    if logs.len() < IDLE_MAX {
        logs.push(log);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is guarded so is left in the middle of a change by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
