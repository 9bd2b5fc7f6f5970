//! The record logs of the partitions that this process has, as the sink's output.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tradewind_engine::{EngineError, NewRecord};
use tradewind_engines::EngineUrl;
use tradewind_partitions::Place;
use tradewind_proto::collector::{Counts, Opened, Opening, Records};
use tradewind_proto::{JobKey, Seq, SeqSet};
use tradewind_records::{
    Continued, Destination, OpenError, Output, OutputError, OutputTarget, Role, Store,
    encode_jsonl_within,
};
use tradewind_system::random_key;

use super::engines::lock;
use super::held::Held;

/// Bytes of records that wait in memory for being committed together.
const WAITING_BYTES_MAX: usize = 2 << 20;

/// Record logs, before the job is known.
pub(crate) struct EngineStore {
    pub(crate) held: Arc<Held>,
    pub(crate) partitions: u32,
    pub(crate) sink: EngineUrl,
}

/// Stores records in the record logs of their partitions.
pub(crate) struct EngineOutput {
    held: Arc<Held>,
    partitions: u32,
    sink: EngineUrl,
    /// Records that are not in a log yet, by partition.
    waiting: BTreeMap<u32, Vec<NewRecord>>,
    bytes: usize,
    /// Number of records that are `failed` because they are too large, and were not told of.
    failed: u64,
}

impl Store for EngineStore {
    type Output = EngineOutput;

    /// Each process has a job of its own: what the one before had dispatched is dispatched again, by whoever has the
    /// partition.
    fn open(self, opening: &Opening) -> Result<(EngineOutput, Continued), OpenError> {
        let Self { held, partitions, sink } = self;
        let opened = Opened {
            job: opening.job,
            first: Seq(0),
            stored: SeqSet::new(),
            spooled: SeqSet::new(),
            counts: Counts::default(),
            again: SeqSet::new(),
            key: Some(JobKey::new(random_key())),
            pending: None,
        };
        let output =
            EngineOutput { held, partitions, sink, waiting: BTreeMap::new(), bytes: 0, failed: 0 };
        Ok((output, Continued { opened, journal: None, cut_bytes: 0 }))
    }

    fn has_input(&self) -> bool {
        true
    }
}

impl EngineOutput {
    fn add(&mut self, list: &Records) {
        let places: Vec<_> = {
            let placed = self.held.placed();
            list.results.iter().map(|result| placed.place(result.seq)).collect()
        };
        let mut limit = None;
        for (record, place) in list.iter().zip(places) {
            // What is nobody's any more is stored by whoever has its partition now.
            let Some(place) = place else { continue };
            let bytes_max = match limit {
                Some((partition, bytes_max)) if partition == place.partition => bytes_max,
                _ => {
                    let Some(part) = self.held.part(place.partition) else { continue };
                    part.line_bytes_max
                }
            };
            limit = Some((place.partition, bytes_max));
            let (mut line, number) = (Vec::new(), Seq(place.number(self.partitions)));
            let status = encode_jsonl_within(record, number, true, bytes_max, &mut line);
            if status != record.result.outcome.status {
                self.failed += 1;
                tracing::warn!(
                    "{}: the record of task {} is failed, and without what the task has written: it is larger than the \
                     engine takes, {bytes_max} bytes. Let it take more, or limit what tasks write with the workers' \
                     --max-output",
                    self.sink,
                    number.0
                );
            }
            self.bytes += line.len();
            let record = NewRecord { seq: Seq(place.position), status, line: line.into() };
            self.waiting.entry(place.partition).or_default().push(record);
        }
    }

    /// Stores what waits for one partition.
    fn store(&self, partition: u32, records: &[NewRecord]) -> Result<(), EngineError> {
        let Some(part) = self.held.part(partition) else { return Ok(()) };
        match lock(&part.log).commit(part.epoch, records) {
            Ok(_) => {}
            Err(EngineError::Fenced { .. }) => {
                self.held.note_lost(partition, &part);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let places = records.iter().map(|record| Place { partition, position: record.seq.0 });
        self.held.note_stored(&places.collect::<Vec<_>>(), self.partitions);
        Ok(())
    }
}

impl Output for EngineOutput {
    fn write(&mut self, records: &[Records]) -> Result<(), OutputError> {
        // What was not committed waits, whatever comes behind it: it is tried again.
        let mut committed = Ok(());
        for list in records {
            self.add(list);
            if committed.is_ok() && self.bytes >= WAITING_BYTES_MAX {
                committed = self.commit();
            }
        }
        committed
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        while let Some((partition, records)) = self.waiting.pop_first() {
            if let Err(error) = self.store(partition, &records) {
                self.waiting.insert(partition, records);
                let target = OutputTarget::File(PathBuf::from(self.sink.to_string()));
                return Err(OutputError::Io {
                    destination: Destination { role: Role::Output, target },
                    reason: io::Error::other(error),
                });
            }
        }
        self.bytes = 0;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), OutputError> {
        self.commit()
    }

    fn take_failed(&mut self) -> u64 {
        std::mem::take(&mut self.failed)
    }

    fn finish(&mut self, _: bool) -> Result<(), OutputError> {
        self.commit()
    }
}
