//! An engine in memory, which fails when a test wants it to.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tradewind_engine::{
    Committed, Engine, EngineError, Epoch, Leases, NewRecord, RecordLog, SubmitId, TaskLog,
};
use tradewind_proto::dispatcher::TaskLimits;
use tradewind_proto::{Seq, SeqSet};
use tradewind_store::{StoredRecord, StoredTask, Submitted, TaskOptions};

/// Bytes that a record has at most.
pub(crate) const LINE_BYTES_MAX: usize = 1000;

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    tasks: BTreeMap<u32, Vec<Option<StoredTask>>>,
    records: BTreeMap<u32, Vec<StoredRecord>>,
    epoch: u64,
    is_held: bool,
    failure: Option<EngineError>,
}

struct Part(Fake, u32);

pub(crate) fn task(text: &'static str, limits: TaskLimits) -> StoredTask {
    let TaskLimits { retries, timeout } = limits;
    let options = TaskOptions { retries, timeout, ..TaskOptions::default() };
    StoredTask { key: None, options, payload: Bytes::from_static(text.as_bytes()) }
}

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("no test panics with it")
    }

    pub(crate) fn submit(&self, partition: u32, texts: &[&'static str]) {
        texts.iter().for_each(|text| self.push(partition, task(text, TaskLimits::default())));
    }

    pub(crate) fn push(&self, partition: u32, task: StoredTask) {
        self.state().tasks.entry(partition).or_default().push(Some(task));
    }

    pub(crate) fn remove(&self, partition: u32, position: usize) {
        self.state().tasks.entry(partition).or_default()[position] = None;
    }

    pub(crate) fn tasks_left(&self, partition: u32) -> usize {
        self.state().tasks.get(&partition).map_or(0, |tasks| tasks.iter().flatten().count())
    }

    /// Returns the tasks whose records are stored, in the order in which they were.
    pub(crate) fn records(&self, partition: u32) -> Vec<u64> {
        let state = self.state();
        let records = state.records.get(&partition).into_iter().flatten();
        records.map(|record| record.seq.0).collect()
    }

    /// Returns the line of a record.
    pub(crate) fn line(&self, partition: u32, seq: u64) -> String {
        let state = self.state();
        let mut records = state.records.get(&partition).into_iter().flatten();
        let found = records.find(|record| record.seq == Seq(seq)).expect("it is stored");
        String::from_utf8(found.bytes.to_vec()).expect("it is JSON")
    }

    /// Makes the next read or commit fail.
    pub(crate) fn fail(&self, error: EngineError) {
        self.state().failure = Some(error);
    }

    /// Takes the lease, whoever has it.
    pub(crate) fn take_over(&self) {
        self.state().epoch += 1;
    }

    /// Waits until the lease is given up.
    pub(crate) fn wait_released(&self) {
        let waited = self.0.1.wait_while(self.state(), |state| state.is_held);
        drop(waited.expect("no test panics with it"));
    }

    fn checked(&self, epoch: Option<Epoch>) -> Result<MutexGuard<'_, State>, EngineError> {
        let mut state = self.state();
        if let Some(epoch) = epoch
            && epoch.0 < state.epoch
        {
            return Err(EngineError::Fenced { epoch, by: Some(Epoch(state.epoch)) });
        }
        match state.failure.take() {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }
}

impl Engine for Fake {
    fn tasks(&self, partition: u32) -> Result<Box<dyn TaskLog>, EngineError> {
        Ok(Box::new(Part(self.clone(), partition)))
    }

    fn records(&self, partition: u32) -> Result<Box<dyn RecordLog>, EngineError> {
        Ok(Box::new(Part(self.clone(), partition)))
    }

    fn leases(&self) -> Result<Box<dyn Leases>, EngineError> {
        Ok(Box::new(Part(self.clone(), 0)))
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

impl TaskLog for Part {
    fn submit(&mut self, _: SubmitId, _: &[StoredTask]) -> Result<Vec<Submitted>, EngineError> {
        unreachable!("a job submits nothing")
    }

    fn read(
        &mut self,
        from: u64,
        _bytes_max: usize,
        _wait: Duration,
    ) -> Result<Vec<(u64, StoredTask)>, EngineError> {
        let state = self.0.checked(None)?;
        let tasks = state.tasks.get(&self.1).into_iter().flatten().zip(0..);
        let tasks = tasks.filter_map(|(task, at)| Some((at, task.clone()?)));
        Ok(tasks.filter(|(at, _)| *at >= from).collect())
    }

    fn first(&mut self) -> Result<u64, EngineError> {
        Ok(0)
    }

    fn end(&mut self) -> Result<u64, EngineError> {
        Ok(self.0.state().tasks.get(&self.1).map_or(0, |tasks| tasks.len() as u64))
    }

    fn trim(&mut self, _: Epoch, _: u64, _: u64) -> Result<(), EngineError> {
        unreachable!("a job takes nothing out")
    }
}

impl RecordLog for Part {
    fn line_bytes_max(&self) -> usize {
        LINE_BYTES_MAX
    }

    fn commit(
        &mut self,
        epoch: Epoch,
        records: &[NewRecord],
    ) -> Result<Vec<Committed>, EngineError> {
        let mut state = self.0.checked(Some(epoch))?;
        let stored = state.records.entry(self.1).or_default();
        let answers = records.iter().map(|record| {
            if stored.iter().any(|it| it.seq == record.seq) {
                return Committed::Known;
            }
            let NewRecord { seq, status, line } = record.clone();
            stored.push(StoredRecord { seq, status, bytes: line });
            Committed::New
        });
        Ok(answers.collect())
    }

    fn stored(&mut self) -> Result<SeqSet, EngineError> {
        Ok(self.0.records(self.1).into_iter().map(Seq).collect())
    }

    fn checkpoint(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.0.checked(Some(epoch)).map(drop)
    }

    fn get(&mut self, _: Seq) -> Result<Option<(u64, StoredRecord)>, EngineError> {
        unreachable!("a job gets no single record")
    }

    fn read(
        &mut self,
        from: u64,
        _bytes_max: usize,
        _wait: Duration,
    ) -> Result<Vec<(u64, StoredRecord)>, EngineError> {
        let state = self.0.checked(None)?;
        let records = state.records.get(&self.1).into_iter().flatten().cloned();
        Ok((0..).zip(records).filter(|(at, _)| *at >= from).collect())
    }

    fn remove_below(&mut self, _: Epoch, _: u64) -> Result<(), EngineError> {
        unreachable!("a job removes nothing")
    }
}

impl Leases for Part {
    fn take(&mut self, _: u32, _: &str, _: Duration) -> Result<Option<Epoch>, EngineError> {
        let mut state = self.0.state();
        if state.is_held {
            return Ok(None);
        }
        (state.is_held, state.epoch) = (true, state.epoch + 1);
        Ok(Some(Epoch(state.epoch)))
    }

    fn renew(&mut self, _: u32, epoch: Epoch, _: Duration) -> Result<(), EngineError> {
        let state = self.0.state();
        if epoch.0 < state.epoch {
            return Err(EngineError::Fenced { epoch, by: Some(Epoch(state.epoch)) });
        }
        Ok(())
    }

    fn holders(&mut self) -> Result<BTreeMap<u32, String>, EngineError> {
        unreachable!("a job asks for its own lease alone")
    }

    fn release(&mut self, _: u32, epoch: Epoch) -> Result<(), EngineError> {
        let mut state = self.0.state();
        if epoch.0 == state.epoch {
            state.is_held = false;
            self.0.0.1.notify_all();
        }
        Ok(())
    }
}
