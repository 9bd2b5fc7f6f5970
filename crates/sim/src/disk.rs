//! The sink's disk: the real writer and the real reading back, on files in memory.
//!
//! A process that dies leaves whatever it had written, torn at any byte. A machine that dies
//! leaves of each file what was synced, and any part of the rest.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use fastrand::Rng;
use tradewind_proto::collector::{Counts, Opened, Opening, Records};
use tradewind_proto::message::TaskResult;
use tradewind_proto::{Seq, SeqSet, TaskHash};
use tradewind_records::{
    Claim, Destination, Device, Format, Fsync, Output, OutputTarget, Place, Role, Writer, recover,
};

use crate::mutation::Mutation;
use crate::plan::Plan;

pub(crate) struct Disk {
    format: Format,
    fsync: Fsync,
    files: Rc<RefCell<Files>>,
    /// Of the process that runs now.
    writer: Option<Writer<File>>,
    /// Every record, one by one, in the order of writing.
    written: Vec<Records>,
    /// What the tasks were whose records are on the disk.
    hashes: BTreeMap<Seq, TaskHash>,
}

#[derive(Default)]
struct Files {
    /// The output and the journal.
    bytes: [Vec<u8>; 2],
    synced: [usize; 2],
    /// What was written since the last commit, in this order.
    log: Vec<(usize, usize)>,
}

struct File {
    files: Rc<RefCell<Files>>,
    which: usize,
}

const OUTPUT: usize = 0;
const JOURNAL: usize = 1;

impl Disk {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            format: plan.format,
            fsync: if plan.is_synced { Fsync::Batch } else { Fsync::None },
            files: Rc::default(),
            writer: None,
            written: Vec::new(),
            hashes: BTreeMap::new(),
        }
    }

    /// Reads back what is there, or begins anew.
    pub(crate) fn open(
        &mut self,
        opening: &Opening,
        plan: &Plan,
        mutation: Option<Mutation>,
    ) -> Result<Opened, String> {
        let is_new = self.files.borrow().bytes[JOURNAL].is_empty();
        let opened = if is_new {
            let Opening { job, name, .. } = opening.clone();
            let claim = Claim::new(job, name, self.format, plan.order, false);
            let files = &mut *self.files.borrow_mut();
            files.bytes[OUTPUT].clear();
            claim.encode(&mut files.bytes[JOURNAL]);
            // As a claim is written before the first record is.
            files.synced = [0, files.bytes[JOURNAL].len()];
            Opened { job, ..Opened::default() }
        } else {
            self.read_back(mutation)?
        };
        let place = |which: usize, role| Place {
            destination: Destination { role, target: OutputTarget::Stdout },
            device: File { files: Rc::clone(&self.files), which },
            end: Some(self.files.borrow().bytes[which].len() as u64),
        };
        let (output, journal) = (place(OUTPUT, Role::Output), place(JOURNAL, Role::Journal));
        self.writer = Some(Writer::new(self.format, self.fsync, output, None, Some(journal)));
        Ok(opened)
    }

    fn read_back(&mut self, mutation: Option<Mutation>) -> Result<Opened, String> {
        let files = &mut *self.files.borrow_mut();
        let [output, journal] = &files.bytes;
        let recovered = recover(&journal[..], Some(&output[..]), None::<&[u8]>)
            .map_err(|damage| format!("the output is damaged: {damage}"))?;
        let job = recovered.claim.job;
        if mutation != Some(Mutation::KeepTornTail) {
            files.bytes[OUTPUT].truncate(recovered.output_end as usize);
            files.bytes[JOURNAL].truncate(recovered.journal_end as usize);
        }
        files.synced = [files.bytes[OUTPUT].len(), files.bytes[JOURNAL].len()];
        if mutation == Some(Mutation::ForgetDisk) {
            return Ok(Opened { job, ..Opened::default() });
        }
        Ok(Opened { job, stored: recovered.stored, counts: recovered.counts, ..Opened::default() })
    }

    /// Writes records and commits them.
    pub(crate) fn store(&mut self, records: &[Records]) {
        let Some(writer) = &mut self.writer else { return };
        self.files.borrow_mut().log.clear();
        let stored = writer.write(records).and_then(|()| writer.commit());
        stored.expect("the disk of the simulator is never full");
        for Records { worker, stage, results } in records {
            self.hashes.extend(results.iter().map(|result| (result.seq, result.task_hash)));
            let one = |result: &TaskResult| Records {
                worker: Arc::clone(worker),
                stage: Arc::clone(stage),
                results: vec![result.clone()],
            };
            self.written.extend(results.iter().map(one));
        }
    }

    /// The process dies while it stores these records, or its machine does; gives those that made
    /// it all the same.
    pub(crate) fn crash(
        &mut self,
        records: &[Records],
        is_machine: bool,
        rng: &mut Rng,
    ) -> Result<usize, String> {
        let before = self.written.len();
        self.store(records);
        self.writer = None;
        {
            let files = &mut *self.files.borrow_mut();
            if !records.is_empty() {
                files.tear(rng);
            }
            if is_machine && self.fsync != Fsync::None {
                files.lose_unsynced(rng);
            }
        }
        let [output, journal] = self.files.borrow().bytes.clone();
        if journal.is_empty() {
            return Ok(0);
        }
        let recovered = recover(&journal[..], Some(&output[..]), None::<&[u8]>)
            .map_err(|damage| format!("the output is damaged: {damage}"))?;
        let is_stored = |record: &&Records| recovered.stored.contains(record.results[0].seq);
        if let Some(lost) = self.written[..before].iter().find(|record| !is_stored(record)) {
            return Err(format!("the disk has lost the record of {}", lost.results[0].seq));
        }
        let made_it = self.written[before..].iter().take_while(is_stored).count();
        for record in self.written.drain(before + made_it..) {
            self.hashes.remove(&record.results[0].seq);
        }
        Ok(made_it)
    }

    pub(crate) fn hash(&self, seq: Seq) -> Option<TaskHash> {
        self.hashes.get(&seq).copied()
    }

    /// What is wrong with the output, now that the job is over?
    pub(crate) fn judge(&self) -> Option<String> {
        let mut wanted = Vec::new();
        let records = self.written.iter().flat_map(Records::iter);
        records.for_each(|record| self.format.encode(record, &mut wanted));
        let [output, journal] = &self.files.borrow().bytes;
        if *output != wanted {
            return Some("the output is not what was written".to_owned());
        }
        if journal.is_empty() {
            return Some("there is no journal".to_owned());
        }
        match recover(&journal[..], Some(&output[..]), None::<&[u8]>) {
            Ok(recovered) => {
                let all: SeqSet = self.written.iter().map(|record| record.results[0].seq).collect();
                let mut counts = Counts::default();
                let statuses = self.written.iter().map(|record| record.results[0].outcome.status);
                statuses.for_each(|status| counts.add(status));
                let is_all = recovered.stored == all && recovered.counts == counts;
                (!is_all).then(|| "the journal does not speak of all that was written".to_owned())
            }
            Err(damage) => Some(format!("the output cannot be read back: {damage}")),
        }
    }
}

impl Files {
    /// Undoes what was written after some byte.
    fn tear(&mut self, rng: &mut Rng) {
        let total: usize = self.log.iter().map(|(_, count)| count).sum();
        let mut left = rng.usize(0..=total);
        for (which, count) in std::mem::take(&mut self.log) {
            let kept = count.min(left);
            left -= kept;
            let end = self.bytes[which].len() - (count - kept);
            // Whatever came after it in the same file is cut off by its own turn: lengths only
            // add up.
            self.bytes[which].truncate(end);
            self.synced[which] = self.synced[which].min(end);
        }
    }

    fn lose_unsynced(&mut self, rng: &mut Rng) {
        for which in [OUTPUT, JOURNAL] {
            let end = rng.usize(self.synced[which]..=self.bytes[which].len());
            self.bytes[which].truncate(end);
        }
    }
}

impl io::Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut files = self.files.borrow_mut();
        files.bytes[self.which].extend_from_slice(bytes);
        files.log.push((self.which, bytes.len()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Device for File {
    fn sync(&mut self) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        files.synced[self.which] = files.bytes[self.which].len();
        Ok(())
    }
}
