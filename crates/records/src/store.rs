//! Where records are kept, before the job is known: files, or a program that takes them.

use tradewind_proto::collector::Opening;
use tradewind_proto::message::Report;

use super::{Continued, FileOutput, Format, OpenError, Output, Prepared, Settings};

/// Becomes an [`Output`] once it is known to which job the records belong.
pub trait Store: Send + 'static {
    /// What takes the records.
    type Output: Output;

    /// Makes it ready for a job, and says what it has of that already. Runs on the writer's thread.
    ///
    /// # Errors
    ///
    /// When it cannot take the job's records.
    fn open(self, opening: &Opening) -> Result<(Self::Output, Continued), OpenError>;

    /// What records are to carry besides.
    fn report(&self) -> Report {
        Report::default()
    }

    /// Can records of failed tasks be replaced by those of a later run?
    fn can_retry(&self) -> bool {
        false
    }

    /// Do records say why their tasks failed?
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
