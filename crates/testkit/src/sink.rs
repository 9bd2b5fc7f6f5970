//! A sink, and the disk that does as it says.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use tradewind_proto::collector::{
    Collector, CollectorConfig, Counts, Inputs, Opened, Opening, Order, Records, SpoolLimits,
};
use tradewind_proto::message::{Report, Start, TaskResult, ToVentilator};
use tradewind_proto::{JobId, JobKey, Seq, SeqRange, SeqSet, SessionId, Tag, TaskHash, Time};

use crate::machine::{Accepts, CollectorAction, Machine};

/// A sink whose output and spool are lists in memory, which outlive it.
#[derive(Debug)]
pub struct Sink {
    /// The sink's machine.
    pub collector: Collector,
    /// Key of the tags that the sink has when it is started again: that of the journal, or one of its own.
    pub key: JobKey,
    /// Seq below which every task is stored, and has no record in the output.
    pub first: Seq,
    /// Records in the output, in the order in which they were written.
    pub written: Vec<Written>,
    /// Records in the spool.
    pub spooled: BTreeMap<Seq, Written>,
    /// Number of records for which the spool has room.
    pub spool_room: usize,
    /// Whether the disk does nothing before a test calls [`write`](Self::write).
    pub is_slow: bool,
    /// Number of tasks that were compared with their records.
    pub compared: usize,
    /// Work for the disk, in the order in which it was asked for.
    work: VecDeque<Work>,
    /// Job that the output belongs to, once there is one.
    job: Option<JobId>,
    limits: Option<SpoolLimits>,
}

/// Key of the tags of a [`Sink`]'s job, unless a test gives another one to it.
pub const KEY: JobKey = JobKey::new(*b"the key of tests");

/// Returns the tag of a task that a session was given.
#[must_use]
pub fn tag(session: u64, seq: u64, hash: TaskHash) -> Tag {
    KEY.tagger(SessionId(session)).tag(Seq(seq), hash)
}

/// A record in the output or in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Name of the stage that the task ended in.
    pub stage: Arc<str>,
    /// Outcome of the task.
    pub result: TaskResult,
}

impl Deref for Written {
    type Target = TaskResult;

    fn deref(&self) -> &TaskResult {
        &self.result
    }
}

#[derive(Debug)]
enum Work {
    Store(Vec<Records>),
    Spool(Vec<Records>),
    Unspool(SeqRange),
}

impl Sink {
    /// Creates a sink that knows no job, with a spool if there are limits for one.
    #[must_use]
    pub fn new(order: Order, limits: Option<SpoolLimits>) -> Self {
        Self {
            collector: collector(SessionId(1000), order, limits, KEY),
            key: KEY,
            first: Seq(0),
            written: Vec::new(),
            spooled: BTreeMap::new(),
            spool_room: usize::MAX,
            is_slow: false,
            compared: 0,
            work: VecDeque::new(),
            job: None,
            limits,
        }
    }

    /// Gives the sink an output and a spool of this job, as if it had been started before.
    #[must_use]
    pub fn with_records(
        mut self,
        job: JobId,
        written: impl IntoIterator<Item = TaskResult>,
        spooled: impl IntoIterator<Item = TaskResult>,
    ) -> Self {
        let record = |result| Written { stage: "".into(), result };
        self.job = Some(job);
        self.written = written.into_iter().map(record).collect();
        self.spooled = spooled.into_iter().map(|result| (result.seq, record(result))).collect();
        self
    }

    /// Removes the records of all tasks below a seq from the output, as if nobody was to read them any more. A
    /// sink that is started again still knows that they are stored.
    pub fn trim(&mut self, first: Seq) {
        self.written.retain(|record| record.seq >= first);
        self.first = self.first.max(first);
    }

    /// Starts another sink with the output and the spool of this one. What the disk has not done is lost.
    pub(crate) fn restart(&mut self, order: Order) {
        self.work.clear();
        self.collector = collector(SessionId(1001), order, self.limits, self.key);
    }

    /// Does what the collector asks for, and passes its messages on. Returns whether it asked for anything.
    pub fn drive(
        &mut self,
        now: Time,
        accepts: Accepts,
        mut send: impl FnMut(ToVentilator),
    ) -> bool {
        let mut moved = false;
        while let Some(action) = self.collector.poll(now, accepts) {
            moved = true;
            match action {
                CollectorAction::Open(opening) => self.open(&opening),
                CollectorAction::Compare(inputs) => self.compare(&inputs),
                // Nothing is torn here, and no record is to be made again.
                CollectorAction::Begin => {}
                CollectorAction::Spool(records) => self.ask(Work::Spool(records)),
                CollectorAction::Write(records) => self.ask(Work::Store(records)),
                CollectorAction::Unspool(range) => self.ask(Work::Unspool(range)),
                CollectorAction::Transmit(message) => send(message),
            }
        }
        moved
    }

    /// Returns whether the disk has nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.work.is_empty()
    }

    /// Lets the disk do one piece of its work, of which it moves no more than this number of records out
    /// of the spool. Returns whether there was any.
    pub fn write(&mut self, unspooled_max: u64) -> bool {
        let Some(work) = self.work.pop_front() else { return false };
        match work {
            Work::Store(lists) => {
                self.written.extend(one_by_one(&lists));
                self.collector.handle_written(lists.len());
            }
            Work::Spool(lists) => self.spool(lists),
            Work::Unspool(range) => {
                let end = Seq(range.end.0.min(range.start.0.saturating_add(unspooled_max)));
                for seq in (SeqRange { start: range.start, end }).seqs() {
                    let record = self.spooled.remove(&seq);
                    self.written.push(record.unwrap_or_else(|| panic!("{seq} is in the spool")));
                }
                self.collector.handle_unspooled(end, self.spool_bytes());
            }
        }
        true
    }

    fn ask(&mut self, work: Work) {
        self.work.push_back(work);
        while !self.is_slow && self.write(u64::MAX) {}
    }

    fn spool(&mut self, lists: Vec<Records>) {
        let records: Vec<Written> = one_by_one(&lists).collect();
        assert!(records.is_sorted_by_key(|record| record.seq), "ascending");
        if self.spooled.len() + records.len() > self.spool_room {
            self.collector.handle_spool_failed(lists);
            return;
        }
        for record in records {
            let before = self.spooled.insert(record.seq, record);
            assert_eq!(before, None, "a record is spooled once");
        }
        self.collector.handle_spooled(lists.len(), self.spool_bytes());
    }

    fn spool_bytes(&self) -> u64 {
        self.spooled.values().map(|record| record.payload_bytes()).sum()
    }

    /// Reads back what is there. A job that another ventilator resumes begins only when its input is known
    /// to be what it was.
    fn open(&mut self, opening: &Opening) {
        let (mut stored, mut counts) = (SeqSet::new(), Counts::default());
        for record in self.written.iter().chain(self.spooled.values()) {
            stored.insert(record.seq);
            counts.add(record.outcome.status);
        }
        // An output with records in it belongs to the job that made them.
        let has_any = counts.total() > 0 || self.first > Seq(0);
        let job = self.job.filter(|_| has_any).unwrap_or(opening.job);
        self.job = Some(job);
        let is_resumed = opening.start == Start::Resume && job != opening.job;
        self.collector.handle_opened(Opened {
            job,
            first: self.first,
            stored,
            counts,
            spooled: self.spooled.keys().copied().collect(),
            pending: is_resumed.then_some(opening.start),
            ..Opened::default()
        });
    }

    /// Compares tasks with their records, as the sink's shell does.
    fn compare(&mut self, inputs: &Inputs) {
        self.compared += inputs.stored.len();
        let hash = |seq: &Seq| {
            let written = || self.written.iter().find(|record| record.seq == *seq);
            let record = self.spooled.get(seq).or_else(written);
            record.map(|record| record.task_hash)
        };
        match inputs.stored.iter().find(|(seq, new)| hash(seq) != Some(*new)) {
            Some((seq, _)) => self.collector.handle_changed(*seq),
            None => self.collector.handle_verified(inputs.below),
        }
    }
}

fn collector(
    session: SessionId,
    order: Order,
    limits: Option<SpoolLimits>,
    key: JobKey,
) -> Collector {
    let report = Report::default();
    let collector = Collector::new(CollectorConfig { session, order, report, key });
    match limits {
        Some(limits) => collector.with_spool(limits),
        None => collector,
    }
}

/// Returns each record by itself.
fn one_by_one(lists: &[Records]) -> impl Iterator<Item = Written> + '_ {
    lists.iter().flat_map(|Records { stage, results, .. }| {
        results.iter().map(|result| Written { stage: Arc::clone(stage), result: result.clone() })
    })
}
