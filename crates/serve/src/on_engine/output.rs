//! The record logs of the partitions that this process has, as the sink's output.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tradewind_engine::{EngineError, NewRecord};
use tradewind_engines::EngineUrl;
use tradewind_partitions::Place;
use tradewind_proto::collector::{Counts, Opened, Opening, Record, Records};
use tradewind_proto::{JobKey, Seq, SeqSet};
use tradewind_records::{
    Continued, Destination, OpenError, Output, OutputError, OutputTarget, Role, Store, encode_jsonl,
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
        let output = EngineOutput { held, partitions, sink, waiting: BTreeMap::new(), bytes: 0 };
        Ok((output, Continued { opened, journal: None, cut_bytes: 0 }))
    }

    fn has_input(&self) -> bool {
        true
    }
}

impl EngineOutput {
    fn add(&mut self, record: Record<'_>) {
        // What is nobody's any more is stored by whoever has its partition now.
        let Some(place) = self.held.placed().place(record.result.seq) else { return };
        let mut result = record.result.clone();
        result.seq = Seq(place.number(self.partitions));
        let mut line = Vec::new();
        encode_jsonl(Record { result: &result, ..record }, true, &mut line);
        self.bytes += line.len();
        let status = result.outcome.status;
        let record = NewRecord { seq: Seq(place.position), status, line: line.into() };
        self.waiting.entry(place.partition).or_default().push(record);
    }

    /// Stores what waits for one partition.
    fn store(&self, partition: u32, records: &mut [NewRecord]) -> Result<(), EngineError> {
        let Some(part) = self.held.part(partition) else { return Ok(()) };
        let mut log = lock(&part.log);
        loop {
            match log.commit(part.epoch, records) {
                Ok(_) => break,
                Err(EngineError::Fenced { .. }) => {
                    self.held.note_lost(partition, &part);
                    return Ok(());
                }
                // There is to be a record, though without what is too large.
                Err(EngineError::TooLarge { place, bytes, max }) if place < records.len() => {
                    let record = &mut records[place];
                    let without = without_output(&record.line, bytes, max);
                    if without.len() >= record.line.len() {
                        return Err(EngineError::TooLarge { place, bytes, max });
                    }
                    record.line = without.into();
                }
                Err(error) => return Err(error),
            }
        }
        drop(log);
        let places = records.iter().map(|record| Place { partition, position: record.seq.0 });
        self.held.note_stored(&places.collect::<Vec<_>>(), self.partitions);
        Ok(())
    }
}

/// Returns a record without its task and what that has written, which an engine does not take.
fn without_output(line: &[u8], bytes: usize, max: usize) -> Vec<u8> {
    let mut members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(line).unwrap_or_default();
    for name in ["task", "task_base64", "output", "output_base64", "stderr", "stderr_base64"] {
        members.remove(name);
    }
    let error =
        format!("the record has {bytes} bytes, and the engine takes {max}: its output is left out");
    members.insert("error".to_owned(), error.into());
    let mut line = serde_json::Value::Object(members).to_string().into_bytes();
    line.push(b'\n');
    line
}

impl Output for EngineOutput {
    fn write(&mut self, records: &[Records]) -> Result<(), OutputError> {
        // What was not committed waits, whatever comes behind it: it is tried again.
        let mut committed = Ok(());
        for list in records {
            list.iter().for_each(|record| self.add(record));
            if committed.is_ok() && self.bytes >= WAITING_BYTES_MAX {
                committed = self.commit();
            }
        }
        committed
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        while let Some((partition, mut records)) = self.waiting.pop_first() {
            if let Err(error) = self.store(partition, &mut records) {
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

    fn finish(&mut self, _: bool) -> Result<(), OutputError> {
        self.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_too_large_stays_one_without_its_output() {
        let line = br#"{"seq":7,"status":"ok","output":"long","stderr":"x"}"#;
        let without = without_output(line, 100, 50);
        let read: serde_json::Value = serde_json::from_slice(&without).unwrap();
        assert_eq!((read["seq"].as_u64(), read["status"].as_str()), (Some(7), Some("ok")));
        assert_eq!(read.get("output"), None);
        assert!(read["error"].as_str().unwrap().contains("takes 50"), "{read}");
    }
}
