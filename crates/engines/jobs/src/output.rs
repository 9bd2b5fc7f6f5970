//! Records on their way into a log.

use std::io;

use tradewind_engine::{EngineError, Epoch, NewRecord, RecordLog};
use tradewind_proto::Seq;
use tradewind_proto::collector::{Record, Records};
use tradewind_proto::message::Status;
use tradewind_records::{
    Destination, JournalLines, KeptJournal, Output, OutputError, OutputTarget, Role, Terminal,
    complete_line, encode_jsonl_within,
};

use crate::keeper::Keeper;
use crate::store::Look;

/// Bytes of records that wait in memory for being committed together.
const WAITING_BYTES_MAX: usize = 2 << 20;

/// Number of records after which is written down which are stored, so that the next start need not read all.
const CHECKPOINT_RECORDS: usize = 64 << 10;

/// Stores records in a log, after a line of the journal that says so.
///
/// A task that was cancelled has no record here: it is in no other one's way, and runs when the job is resumed.
pub struct EngineOutput {
    name: String,
    records: Box<dyn RecordLog>,
    journal: Box<dyn RecordLog>,
    epoch: Epoch,
    /// Renews the lease for as long as this is there.
    _keeper: Keeper,
    look: Look,
    kept: KeptJournal,
    /// Number of the next line of the journal.
    next_line: u64,
    claim: Option<Vec<u8>>,
    /// What the journal is to say about the records that wait.
    about: JournalLines,
    /// Lines that are not in the journal yet.
    lines: Vec<NewRecord>,
    /// Records that are not in the log yet.
    waiting: Vec<NewRecord>,
    bytes: usize,
    since_checkpoint: usize,
    /// Number of records that are `failed` because they are too large, and were not told of.
    failed: u64,
    terminal: Terminal,
}

/// What an output begins with.
pub(crate) struct Begun {
    /// Number of the next line of the journal.
    pub(crate) next_line: u64,
    /// Line with which the journal is to begin anew.
    pub(crate) claim: Option<Vec<u8>>,
}

impl EngineOutput {
    #[expect(clippy::too_many_arguments, reason = "it is what a store has, and what it has read")]
    pub(crate) fn new(
        name: String,
        records: Box<dyn RecordLog>,
        journal: Box<dyn RecordLog>,
        epoch: Epoch,
        keeper: Keeper,
        look: Look,
        kept: KeptJournal,
        begun: Begun,
    ) -> Self {
        let Begun { next_line, claim } = begun;
        Self {
            name,
            records,
            journal,
            epoch,
            _keeper: keeper,
            look,
            kept,
            next_line,
            claim,
            about: JournalLines::default(),
            lines: Vec::new(),
            waiting: Vec::new(),
            bytes: 0,
            since_checkpoint: 0,
            failed: 0,
            terminal: Terminal::new(look.show),
        }
    }

    fn add(&mut self, record: Record<'_>) {
        self.terminal.add(record, b"");
        let Record { result, .. } = record;
        let before = result.outcome.status;
        if before == Status::Cancelled {
            return;
        }
        let (mut line, bytes_max) = (Vec::new(), self.records.line_bytes_max());
        let status =
            encode_jsonl_within(record, result.seq, self.look.has_task, bytes_max, &mut line);
        if status != before {
            self.failed += 1;
            tracing::warn!(
                "output {}: the record with seq {} is failed, and without what the task has written: it is larger than \
                 the engine takes, {bytes_max} bytes. Let it take more, or limit what tasks write with the workers' \
                 --max-output",
                self.name,
                result.seq.0
            );
        }
        self.about.add(result, status);
        self.bytes += line.len();
        self.waiting.push(NewRecord { seq: result.seq, status, line: line.into() });
    }

    fn add_line(&mut self, line: Vec<u8>) {
        let record = NewRecord { seq: Seq(self.next_line), status: Status::Ok, line: line.into() };
        self.lines.push(record);
        self.next_line += 1;
    }

    /// Stores the lines of the journal that wait.
    fn write_lines(&mut self) -> Result<(), OutputError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let stored = self.journal.commit(self.epoch, &self.lines);
        stored.map_err(|error| self.failed(error))?;
        for record in &self.lines {
            let copied = self.kept.handle_line(&record.line);
            copied.map_err(|reason| full(&self.name, reason))?.expect("it is one of a journal");
        }
        self.lines.clear();
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), OutputError> {
        self.since_checkpoint = 0;
        match self.records.checkpoint(self.epoch) {
            // The next start reads all records instead.
            Ok(()) | Err(EngineError::TooLarge { .. }) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: EngineError) -> OutputError {
        let output = format!("output {}", self.name);
        match error {
            EngineError::Full(reason) => {
                full(&self.name, io::Error::new(io::ErrorKind::StorageFull, reason))
            }
            error if error.is_passing() => OutputError::Away { output, reason: error.to_string() },
            error => OutputError::Refused { output, reason: error.to_string() },
        }
    }
}

fn full(name: &str, reason: io::Error) -> OutputError {
    let target = OutputTarget::File(name.into());
    OutputError::Io { destination: Destination { role: Role::Output, target }, reason }
}

impl Output for EngineOutput {
    fn begin(&mut self) -> Result<(), OutputError> {
        if let Some(claim) = self.claim.take() {
            self.add_line(claim);
        }
        self.write_lines()
    }

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
        for line in self.about.take() {
            self.add_line(line);
        }
        self.write_lines()?;
        if !self.waiting.is_empty() {
            let stored = self.records.commit(self.epoch, &self.waiting);
            stored.map_err(|error| self.failed(error))?;
            self.since_checkpoint += self.waiting.len();
            self.waiting.clear();
            self.bytes = 0;
        }
        self.terminal.flush();
        if self.since_checkpoint >= CHECKPOINT_RECORDS { self.checkpoint() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), OutputError> {
        self.commit()
    }

    fn take_failed(&mut self) -> u64 {
        std::mem::take(&mut self.failed)
    }

    fn finish(&mut self, is_whole: bool) -> Result<(), OutputError> {
        self.commit()?;
        if is_whole && !self.kept.is_complete() {
            // A line that waits was not written by the try before.
            if self.lines.is_empty() {
                self.add_line(complete_line());
            }
            self.write_lines()?;
            self.checkpoint()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use tradewind_proto::collector::{Counts, Opening, Order};
    use tradewind_proto::message::{Outcome, Start, TaskResult};
    use tradewind_proto::{Attempt, JobId, SeqSet, Tag, TaskHash};
    use tradewind_records::{Continued, OpenError, Show, Store};

    use super::*;
    use crate::EngineStore;
    use crate::fake::{Fake, LINE_BYTES_MAX};

    fn store(fake: &Fake) -> EngineStore {
        let show = Show::default();
        let look = Look { order: Order::Completion, has_task: false, show };
        EngineStore::open(fake, "it".into(), "me", look, || {}).expect("nobody has it").0
    }

    fn open(fake: &Fake, job: u64, start: Start) -> Result<(EngineOutput, Continued), OpenError> {
        let opening = Opening {
            job: JobId(job),
            name: "job".into(),
            start,
            stage: String::new(),
            is_untouched: false,
            key: None,
        };
        store(fake).open(&opening)
    }

    fn records(seqs: &[(u64, Status)]) -> Vec<Records> {
        let result = |(seq, status): &(u64, Status)| TaskResult {
            seq: Seq(*seq),
            task_hash: TaskHash(*seq as u32 + 1),
            outcome: Outcome::error(*status, "why"),
            attempt: Attempt::FIRST,
            last: true,
            tag: Tag::default(),
            started_us: 0,
            ran_us: 0,
            task_bytes: 0,
            reported: None,
        };
        let results = seqs.iter().map(result).collect();
        vec![Records { worker: Arc::from("w"), stage: Arc::from(""), results }]
    }

    #[test]
    fn a_job_goes_on_with_the_records_that_its_log_has() {
        let fake = Fake::default();
        let (mut output, continued) = open(&fake, 1, Start::New).expect("it is empty");
        assert_eq!((continued.opened.job, continued.opened.stored.count()), (JobId(1), 0));
        output.begin().expect("it can");
        let first = [(3, Status::Ok), (1, Status::Failed), (2, Status::Cancelled)];
        output.write(&records(&first)).expect("it can");
        output.commit().expect("it can");
        drop(output);
        fake.wait_released();

        let refused = open(&fake, 2, Start::New).err().expect("it has records").to_string();
        let wanted = "output it has 2 records of an earlier run of this job, which is not complete, 1 of them not ok; \
                      --resume continues it, or name another stream";
        assert_eq!(refused, wanted);
        fake.wait_released();

        let (mut output, continued) = open(&fake, 2, Start::Resume).expect("it goes on");
        let stored: SeqSet = [1, 3].map(Seq).into_iter().collect();
        assert_eq!((continued.opened.job, continued.opened.stored), (JobId(1), stored));
        let counts = Counts { ok: 1, failed: 1, ..Counts::default() };
        assert_eq!(
            (continued.opened.counts, continued.opened.pending),
            (counts, Some(Start::Resume))
        );
        let mut hashes = continued.journal.expect("there is one").hashes().expect("it can");
        assert_eq!(hashes.get(Seq(3)).expect("it can"), Some(TaskHash(4)));
        output.begin().expect("it can");
        output.write(&records(&[(0, Status::Ok), (2, Status::Ok)])).expect("it can");
        output.finish(true).expect("it can");
        output.finish(true).expect("it can");
        assert_eq!(fake.records(0), [3, 1, 0, 2]);
        assert_eq!(fake.records(crate::store::JOURNAL), [0, 1, 2, 3]);
        drop(output);
        fake.wait_released();
        let complete = open(&fake, 3, Start::New).err().expect("it has records").to_string();
        assert!(complete.contains("which is complete"), "{complete}");
    }

    #[test]
    fn what_could_not_be_stored_is_stored_once_it_can() {
        let fake = Fake::default();
        let (mut output, _) = open(&fake, 1, Start::New).expect("it is empty");
        fake.fail(EngineError::Unsure("x".into()));
        assert!(matches!(output.begin(), Err(OutputError::Away { .. })));
        output.begin().expect("it can");
        output.write(&records(&[(0, Status::Ok)])).expect("it can");
        fake.fail(EngineError::Away("x".into()));
        let error = output.commit().expect_err("it is away").to_string();
        assert_eq!(error, "cannot write to output it: the engine is away: x");
        output.write(&records(&[(1, Status::Ok)])).expect("it can");
        output.commit().expect("it can");
        fake.fail(EngineError::Full("x".into()));
        output.write(&records(&[(2, Status::Ok)])).expect("it can");
        assert!(matches!(output.commit(), Err(OutputError::Io { .. })));
        output.commit().expect("it can");
        assert_eq!(fake.records(0), [0, 1, 2]);
    }

    #[test]
    fn a_record_that_is_too_large_is_failed_without_its_output_and_counted_so() {
        let fake = Fake::default();
        let (mut output, _) = open(&fake, 1, Start::New).expect("it is empty");
        output.begin().expect("it can");
        let mut lists = records(&[(0, Status::Ok), (1, Status::Ok), (2, Status::Failed)]);
        for result in &mut lists[0].results[1..] {
            result.outcome.output = vec![b'x'; 2 * LINE_BYTES_MAX].into();
        }
        output.write(&lists).expect("it can");
        output.commit().expect("it can");
        assert_eq!(fake.records(0), [0, 1, 2]);
        assert_eq!((output.take_failed(), output.take_failed()), (1, 0));
        let line = fake.line(0, 1);
        assert!(line.contains(r#""status":"failed""#) && line.contains("takes 1000"), "{line}");
        drop(output);
        fake.wait_released();
        let (_, continued) = open(&fake, 1, Start::Resume).expect("it goes on");
        let counts = Counts { ok: 1, failed: 2, ..Counts::default() };
        assert_eq!(continued.opened.counts, counts);
    }

    #[test]
    fn an_output_whose_lease_was_taken_says_so_and_writes_nothing_more() {
        let fake = Fake::default();
        let mut store = store(&fake);
        let (told_in, told) = channel();
        store.watch(Box::new(move |error| {
            told_in.send(error.to_string()).expect("it is waited for");
        }));
        fake.take_over();
        let text = told.recv().expect("it is told");
        assert_eq!(
            text,
            "cannot write to output it: the lease of epoch 1 has gone: another has taken it, with epoch 2"
        );
        let opening = Opening {
            job: JobId(1),
            name: String::new(),
            start: Start::New,
            stage: String::new(),
            is_untouched: false,
            key: None,
        };
        let error = store.open(&opening).err().expect("it is another's").to_string();
        assert!(error.contains("epoch 2"), "{error}");
    }
}
