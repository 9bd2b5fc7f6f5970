//! The record log of a partition as a job's output, before the job is known.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use tradewind_engine::{Engine, EngineError, Epoch, Leases, PARTITIONS_MAX, RecordLog};
use tradewind_proto::SeqSet;
use tradewind_proto::collector::{Opened, Opening, Order};
use tradewind_proto::message::Report;
use tradewind_records::{
    Claim, Continued, Format, KeptJournal, OpenError, OutputError, Show, Store,
};

use crate::keeper::{Held, Keeper, PARTITION};
use crate::opening::{Begin, begin};
use crate::output::{Begun, EngineOutput};
use crate::renewal::{LEASE, Waiting};

/// Partition whose record log is the job's journal: the one after the last that a URL can name.
pub(crate) const JOURNAL: u32 = PARTITIONS_MAX;

/// Time after which a lease that another has is asked for again.
const TAKE_INTERVAL: Duration = Duration::from_millis(100);

/// Time after which a log that cannot be read is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of the journal that are read together.
const READ_BYTES_MAX: usize = 1 << 20;

/// Longest wait for a line of the journal that is known to be there.
const WAIT: Duration = Duration::from_secs(1);

/// Form of the records.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Order of the records.
    pub order: Order,
    /// Whether a record has its task.
    pub has_task: bool,
    /// Lines that are written to stderr.
    pub show: Show,
}

/// A record log and its lease, before the job is known.
pub struct EngineStore {
    pub(crate) name: String,
    records: Box<dyn RecordLog>,
    journal: Box<dyn RecordLog>,
    epoch: Epoch,
    keeper: Keeper,
    look: Look,
}

/// Reason why there is no store.
#[derive(Debug)]
pub enum TakeError {
    /// The engine does not do what it is asked for.
    Engine(EngineError),
    /// Another has the lease, and renews it.
    Taken,
    /// The system has no thread to give.
    Thread(std::io::Error),
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Taken => f.write_str("it is in use by another process"),
            Self::Thread(error) => write!(f, "failed to start a thread: {error}"),
        }
    }
}

impl std::error::Error for TakeError {}

impl From<EngineError> for TakeError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl EngineStore {
    /// Takes the lease, and opens the logs. Waits for a lease that was not given up: `wait` is called once before.
    /// `name` is for messages, `owner` for whoever looks at the lease.
    ///
    /// # Errors
    ///
    /// When another has the lease, or the engine cannot be asked for it.
    pub fn open(
        engine: &dyn Engine,
        name: String,
        owner: &str,
        look: Look,
        wait: impl FnOnce(),
    ) -> Result<(Self, Held), TakeError> {
        let mut leases = engine.leases()?;
        let epoch = take(&mut *leases, owner, wait)?;
        let (keeper, held) = Keeper::spawn(leases, epoch).map_err(TakeError::Thread)?;
        let (records, journal) = (engine.records(PARTITION)?, engine.records(JOURNAL)?);
        Ok((Self { name, records, journal, epoch, keeper, look }, held))
    }

    /// Reads what is there. From here on nobody with an earlier lease can write.
    fn read(&mut self) -> Result<(SeqSet, KeptJournal, u64), EngineError> {
        let full = |error: std::io::Error| EngineError::Full(error.to_string());
        self.records.commit(self.epoch, &[])?;
        self.journal.commit(self.epoch, &[])?;
        let lines = self.journal.stored()?;
        let mut kept = KeptJournal::new().map_err(full)?;
        let (mut from, mut left) = (0, lines.count());
        while left > 0 {
            let read = self.journal.read(from, READ_BYTES_MAX, WAIT)?;
            if read.is_empty() {
                return Err(EngineError::Away("a line of the journal is not there yet".into()));
            }
            for (position, line) in read {
                let taken = kept.handle_line(&line.bytes).map_err(full)?;
                let amiss =
                    |error| EngineError::Amiss { position, what: format!("journal: {error}") };
                taken.map_err(amiss)?;
                (from, left) = (position + 1, left.saturating_sub(1));
            }
        }
        let stored = self.records.stored()?;
        Ok((stored, kept, lines.end().0))
    }
}

impl Store for EngineStore {
    type Output = EngineOutput;

    fn open(mut self, opening: &Opening) -> Result<(EngineOutput, Continued), OpenError> {
        let output = format!("output {}", self.name);
        let at = |reason: String| OpenError::Elsewhere { output: output.clone(), reason };
        let mut is_said = false;
        let (stored, kept, next_line) = loop {
            match self.read() {
                Ok(read) => break read,
                Err(error) if error.is_passing() => {
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::error!(
                            "output {} cannot be read: {error}; waiting until it can, nothing is lost",
                            self.name
                        );
                    }
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(error) => return Err(at(format!("cannot be read: {error}"))),
            }
        };
        let counts = kept.counts(&stored);
        let mut opened = Opened { job: opening.job, ..Opened::default() };
        let begun = match begin(&self.name, opening, kept.claim(), &counts, kept.is_complete())? {
            Begin::New => {
                let Opening { job, key, name, .. } = opening.clone();
                let claim = Claim::new(job, name, Format::Jsonl, self.look.order, false);
                let mut line = Vec::new();
                claim.with_key(key).encode(&mut line);
                Begun { next_line, claim: Some(line) }
            }
            Begin::GoOn(pending) => {
                if let Some(claim) = kept.claim() {
                    (opened.job, opened.key) = (claim.job, claim.key());
                }
                (opened.stored, opened.counts, opened.pending) = (stored, counts, pending);
                Begun { next_line, claim: None }
            }
        };
        let journal = kept.journal().map_err(|error| at(format!("has no journal: {error}")))?;
        let Self { name, records, journal: journal_log, epoch, keeper, look } = self;
        let output =
            EngineOutput::new(name, records, journal_log, epoch, keeper, look, kept, begun);
        Ok((output, Continued { opened, journal: Some(journal), cut_bytes: 0 }))
    }

    fn report(&self) -> Report {
        Report { task: self.look.has_task, ..Report::default() }
    }

    fn watch(&mut self, tell: Box<dyn FnOnce(OutputError) + Send>) {
        let output = format!("output {}", self.name);
        self.keeper.tell(Box::new(move |error| {
            tell(OutputError::Refused { output, reason: error.to_string() });
        }));
    }
}

/// Takes the lease.
fn take(leases: &mut dyn Leases, owner: &str, wait: impl FnOnce()) -> Result<Epoch, TakeError> {
    let began = Instant::now();
    let waiting = Waiting::new(began.elapsed());
    let mut wait = Some(wait);
    loop {
        if let Some(epoch) = leases.take(PARTITION, owner, LEASE)? {
            return Ok(epoch);
        }
        if waiting.is_taken(began.elapsed()) {
            return Err(TakeError::Taken);
        }
        if let Some(wait) = wait.take() {
            wait();
        }
        thread::sleep(TAKE_INTERVAL);
    }
}
