//! Records on their way from a sink to its program.
//!
//! A sink stores records in what the program takes: [`Given`] is to it what a file is to the
//! `sink` program, and a record that was taken is one that was written.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, oneshot};
use tradewind_proto::collector::{Opened, Opening, Records as Written};
use tradewind_proto::{Seq, SeqRange};
use tradewind_records::{
    Continued, FileOutput, OpenError, Output, OutputError, Prepared, Spooler, Store,
};

use crate::{Error, Record};

/// Records that are given and not taken.
const WAITING_MAX: usize = 1024;

/// The sink's end, before the job is known.
pub(crate) struct Giving {
    /// Output in which records are stored as well.
    file: Option<Prepared>,
    given: Given,
}

/// The sink's end: waits until what it was told to write is taken.
pub(crate) struct Given {
    records: mpsc::Sender<Record>,
    count: u64,
    taken: Arc<Taken>,
}

/// Records that the program has taken.
#[derive(Debug, Default)]
struct Taken {
    state: Mutex<TakenState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct TakenState {
    count: u64,
    /// It will take no more.
    is_over: bool,
}

/// Both: a record is in the file only after it was taken.
pub(crate) struct GivenAndKept {
    given: Given,
    file: Option<FileOutput>,
    /// Records that wait for an earlier one, without a file.
    spooler: Spooler,
}

/// The program's end.
#[derive(Debug)]
pub(crate) struct Taking {
    records: mpsc::Receiver<Record>,
    taken: Arc<Taken>,
    /// End of the sink, once it has ended.
    end: Option<oneshot::Receiver<Result<(), Error>>>,
}

/// Tells the program how the sink has ended.
pub(crate) type End = oneshot::Sender<Result<(), Error>>;

/// A sink's and a program's end, with a file to store records in as well.
pub(crate) fn channel(file: Option<Prepared>) -> (Giving, End, Taking) {
    let (records_in, records) = mpsc::channel(WAITING_MAX);
    let (end_in, end) = oneshot::channel();
    let taken = Arc::new(Taken::default());
    let given = Given { records: records_in, count: 0, taken: Arc::clone(&taken) };
    (Giving { file, given }, end_in, Taking { records, taken, end: Some(end) })
}

impl Store for Giving {
    type Output = GivenAndKept;

    fn open(self, opening: &Opening) -> Result<(GivenAndKept, Continued), OpenError> {
        let Self { file, given } = self;
        let (file, continued) = match file {
            Some(file) => {
                let (file, continued) = Store::open(file, opening)?;
                (Some(file), continued)
            }
            None => {
                let opened = Opened { job: opening.job, ..Opened::default() };
                (None, Continued { opened, journal: None, cut_bytes: 0 })
            }
        };
        let spooler = Spooler::unnamed(opening.job);
        Ok((GivenAndKept { given, file, spooler }, continued))
    }

    fn can_retry(&self) -> bool {
        self.file.as_ref().is_some_and(Store::can_retry)
    }
}

impl Given {
    /// Returns when all are taken. It fails only if they never will be.
    fn give(&mut self, records: &[Written]) -> Result<(), OutputError> {
        for record in records.iter().flat_map(Written::iter) {
            let sent = self.records.blocking_send(Record::new(&record));
            sent.map_err(|_| OutputError::Dropped)?;
            self.count += 1;
        }
        // A program that has taken the last record need not wait for the end of the job.
        if self.taken.wait_for(self.count) { Ok(()) } else { Err(OutputError::Dropped) }
    }
}

impl Taken {
    fn lock(&self) -> MutexGuard<'_, TakenState> {
        // No thread panics with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this many records are taken; returns false if they never will be.
    fn wait_for(&self, count: u64) -> bool {
        let is_open = |state: &mut TakenState| state.count < count && !state.is_over;
        let state = self.changed.wait_while(self.lock(), is_open);
        state.unwrap_or_else(PoisonError::into_inner).count >= count
    }

    fn change(&self, change: impl FnOnce(&mut TakenState)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }
}

impl Output for GivenAndKept {
    fn begin(&mut self) -> Result<(), OutputError> {
        self.file.as_mut().map_or(Ok(()), Output::begin)
    }

    fn write(&mut self, records: &[Written]) -> Result<(), OutputError> {
        self.given.give(records)?;
        self.file.as_mut().map_or(Ok(()), |file| file.write(records))
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        self.file.as_mut().map_or(Ok(()), Output::commit)
    }

    fn sync(&mut self) -> Result<(), OutputError> {
        self.file.as_mut().map_or(Ok(()), Output::sync)
    }

    fn finish(&mut self, is_whole: bool) -> Result<(), OutputError> {
        self.file.as_mut().map_or(Ok(()), |file| file.finish(is_whole))
    }

    fn spool(&mut self, records: &[Written]) -> Result<u64, OutputError> {
        match &mut self.file {
            Some(file) => file.spool(records),
            None => self.spooler.append(records),
        }
    }

    fn unspool(&mut self, range: SeqRange, bytes_max: usize) -> Result<Vec<Written>, OutputError> {
        match &mut self.file {
            Some(file) => file.unspool(range, bytes_max),
            None => self.spooler.read(range, bytes_max),
        }
    }

    fn release(&mut self, below: Seq) -> u64 {
        match &mut self.file {
            Some(file) => file.release(below),
            None => self.spooler.release(below),
        }
    }
}

impl Taking {
    /// Waits for the next record; `None` when the sink has ended well.
    pub(crate) fn next(&mut self) -> Option<Result<Record, Error>> {
        match self.records.blocking_recv() {
            Some(record) => Some(Ok(self.take(record))),
            None => self.end.take().map(oneshot::Receiver::blocking_recv).and_then(ended),
        }
    }

    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Record, Error>>> {
        if let Some(record) = ready!(self.records.poll_recv(context)) {
            return Poll::Ready(Some(Ok(self.take(record))));
        }
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let end = ready!(Future::poll(std::pin::Pin::new(end), context));
        self.end = None;
        Poll::Ready(ended(end))
    }

    fn take(&self, record: Record) -> Record {
        self.taken.change(|taken| taken.count += 1);
        record
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.taken.change(|taken| taken.is_over = true);
    }
}

fn ended(
    end: Result<Result<(), Error>, oneshot::error::RecvError>,
) -> Option<Result<Record, Error>> {
    let end = end.unwrap_or_else(|_| Err(Error::system(anyhow::anyhow!("the sink panicked"))));
    end.err().map(Err)
}
