//! Stores of records, before the job is known: files, or a program that takes them.

use tradewind_proto::collector::Opening;
use tradewind_proto::message::Report;

use super::{Continued, FileOutput, Format, OpenError, Output, OutputError, Prepared, Settings};

/// Store that becomes an [`Output`] once the job of the records is known.
pub trait Store: Send + 'static {
    /// Output of the store.
    type Output: Output;

    /// Makes it ready for a job. Returns the records that it has of the job already. Runs on the
    /// writer's thread.
    ///
    /// # Errors
    ///
    /// When it cannot take the job's records.
    fn open(self, opening: &Opening) -> Result<(Self::Output, Continued), OpenError>;

    /// Returns the data that results are to carry.
    fn report(&self) -> Report {
        Report::default()
    }

    /// Returns whether records of failed tasks can be replaced by those of a later run.
    fn can_retry(&self) -> bool {
        false
    }

    /// Returns whether the input is a log that this store belongs to, so that no task of it can change.
    fn has_input(&self) -> bool {
        false
    }

    /// Takes what is to be told once when the store takes nothing more, although nothing is being written. Does not
    /// wait.
    fn watch(&mut self, _: Box<dyn FnOnce(OutputError) + Send>) {}

    /// Returns whether records say why their tasks failed.
    fn has_reasons(&self) -> bool {
        true
    }
}

impl Store for Prepared {
    type Output = FileOutput;

    fn open(self, opening: &Opening) -> Result<(FileOutput, Continued), OpenError> {
        self.open(opening)
    }

    fn report(&self) -> Report {
        let Settings { joblog, extras, results, .. } = self.settings();
        let task = extras.tag || extras.task || results.is_some();
        Report { command: joblog.is_some(), task }
    }

    fn can_retry(&self) -> bool {
        self.settings().can_retry()
    }

    fn has_reasons(&self) -> bool {
        self.settings().format == Format::Jsonl
    }
}
