//! Where records are kept, before the job is known: files, or a program that takes them.

use tradewind_proto::collector::Opening;
use tradewind_proto::message::Report;

use super::{Continued, FileOutput, OpenError, Output, Prepared};

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
}

impl Store for Prepared {
    type Output = FileOutput;

    fn open(self, opening: &Opening) -> Result<(FileOutput, Continued), OpenError> {
        self.open(opening)
    }

    fn report(&self) -> Report {
        Report { command: self.settings().joblog.is_some(), task: false }
    }

    fn can_retry(&self) -> bool {
        self.settings().can_retry()
    }
}
