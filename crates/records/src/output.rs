//! Output that the user named, from its first record to its last.

use tradewind_proto::collector::Records;
use tradewind_proto::{JobId, Seq, SeqRange, SeqSet};

use super::file::OpenFile;
use super::format::tag;
use super::open::{Plan, Prepared, Settings};
use super::results::Results;
use super::rewrite::{self, Paths};
use super::spool::Spooler;
use super::terminal::Terminal;
use super::{Destination, Extras, Output, OutputError, Writer};

/// Output that the user named.
#[derive(Debug)]
pub struct FileOutput {
    state: State,
    /// Records that have to be brought into the order of the input at the end.
    reorder: Option<Reorder>,
    is_reordered: bool,
    /// Rewritten files, kept for their locks.
    locked: Vec<OpenFile>,
    extras: Extras,
    results: Option<Results>,
    terminal: Terminal,
    spooler: Option<Spooler>,
}

#[derive(Debug)]
enum State {
    Planned(Box<Plan>),
    Open(Box<Writer<OpenFile>>),
    /// Between two of the others.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Reorder {
    paths: Paths,
    destination: Destination,
    /// Generation of the rewritten files, which have to be renamed.
    generation: Option<u64>,
}

impl FileOutput {
    pub(super) fn planned(plan: Plan) -> Self {
        let settings = plan.settings().clone();
        Self::new(State::Planned(Box::new(plan)), &settings)
    }

    /// Creates the output of a place where no journal can be: each start is the first.
    pub(super) fn unkept(prepared: Prepared, job: JobId) -> Self {
        let Prepared { settings, output, joblog, .. } = prepared;
        let joblog = joblog.map(|file| file.into_place(None));
        let Settings { format, fsync, extras, .. } = settings;
        let writer = Writer::new(format, fsync, output.into_place(None), joblog, None);
        let unkept = Self::new(State::Open(Box::new(writer.with_extras(extras))), &settings);
        Self { spooler: Some(Spooler::unnamed(job)), ..unkept }
    }

    fn new(state: State, settings: &Settings) -> Self {
        Self {
            state,
            reorder: None,
            is_reordered: false,
            locked: Vec::new(),
            extras: settings.extras,
            results: settings.results.clone().map(Results::new),
            terminal: Terminal::new(settings.show),
            spooler: None,
        }
    }

    fn spooler(&mut self) -> Result<&mut Spooler, OutputError> {
        self.spooler.as_mut().ok_or(OutputError::NoSpool)
    }

    fn writer(&mut self) -> &mut Writer<OpenFile> {
        match &mut self.state {
            State::Open(writer) => writer,
            State::Planned(_) | State::Nothing => panic!("an output begins before its records"),
        }
    }
}

impl Output for FileOutput {
    fn begin(&mut self) -> Result<(), OutputError> {
        self.results.as_ref().map_or(Ok(()), Results::begin)?;
        let State::Planned(plan) = &mut self.state else { return Ok(()) };
        let mut ready = plan.carry_out()?;
        self.spooler = ready.spooler.take();
        self.reorder = plan.reorder();
        if let State::Planned(plan) = std::mem::replace(&mut self.state, State::Nothing) {
            self.state = State::Open(Box::new(plan.into_writer(ready)));
        }
        Ok(())
    }

    fn write(&mut self, records: &[Records]) -> Result<(), OutputError> {
        for record in records.iter().flat_map(Records::iter) {
            let tag = if self.extras.tag { tag(record) } else { Vec::new() };
            self.terminal.add(record, &tag);
        }
        if let Some(results) = &mut self.results {
            results.add(records);
            // Results are committed when they are drained, so that those of records in the journal
            // are complete.
            let drained = results.drain();
            return self.writer().write(records).and(drained);
        }
        self.writer().write(records)
    }

    fn commit(&mut self) -> Result<(), OutputError> {
        self.results.as_mut().map_or(Ok(()), Results::drain)?;
        self.writer().commit()?;
        self.terminal.flush();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), OutputError> {
        // Before the beginning there is nothing to sync.
        if matches!(self.state, State::Planned(_)) {
            return Ok(());
        }
        self.commit()?;
        self.spooler.as_mut().map_or(Ok(()), Spooler::sync)?;
        self.writer().sync()
    }

    fn spool(&mut self, records: &[Records]) -> Result<u64, OutputError> {
        self.writer().note_spooled(records)?;
        self.spooler()?.append(records)
    }

    fn unspool(&mut self, range: SeqRange, bytes_max: usize) -> Result<Vec<Records>, OutputError> {
        self.spooler()?.read(range, bytes_max)
    }

    fn release(&mut self, below: Seq) -> u64 {
        self.spooler.as_mut().map_or(0, |spooler| spooler.release(below))
    }

    fn finish(&mut self, is_whole: bool) -> Result<(), OutputError> {
        if self.is_reordered {
            return Ok(());
        }
        // An output to which records may still be added is put into order when it is whole.
        if !is_whole {
            return self.writer().finish(false);
        }
        let Some(mut reorder) = self.reorder.take() else { return self.writer().finish(true) };
        let finished = self.put_into_order(&mut reorder);
        if finished.is_err() {
            self.reorder = Some(reorder);
        }
        finished
    }
}

impl FileOutput {
    fn put_into_order(&mut self, reorder: &mut Reorder) -> Result<(), OutputError> {
        let Reorder { paths, destination, generation } = reorder;
        let failed = |reason| OutputError::Rewrite { destination: destination.clone(), reason };
        if generation.is_none() {
            self.writer().sync()?;
            if rewrite::is_in_order(paths).map_err(failed)? {
                return self.writer().finish(true);
            }
            *generation = Some(rewrite::rewrite(paths, &SeqSet::new()).map_err(failed)?);
        }
        self.locked = rewrite::settle(paths).map_err(failed)?;
        self.is_reordered = true;
        Ok(())
    }
}

impl Reorder {
    pub(super) fn new(paths: Paths, destination: Destination) -> Self {
        Self { paths, destination, generation: None }
    }
}
