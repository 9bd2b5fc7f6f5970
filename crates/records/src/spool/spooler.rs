//! The spool of an output.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tradewind_proto::collector::Records;
use tradewind_proto::{JobId, Seq, SeqRange};

use super::medium::{Directory, Medium, Unnamed};
use super::{Found, Spool};
use crate::{Destination, OutputError, OutputTarget, Role};

/// Spool on a disk, and its name in errors.
pub struct Spooler {
    spool: Spool<Box<dyn Medium + Send>>,
    destination: Destination,
}

/// Returns the directory of the spool that belongs to a journal.
pub(crate) fn beside(journal: &Path) -> PathBuf {
    let mut name = OsString::from(journal);
    name.push("-spool");
    name.into()
}

/// Returns the name of the spool in errors.
pub(crate) fn destination(journal: &Path) -> Destination {
    Destination { role: Role::Spool, target: OutputTarget::File(beside(journal)) }
}

impl Spooler {
    /// Creates a spool in a file without a name, in the directory for temporary files: nothing is
    /// left of it when the process ends.
    #[must_use]
    pub fn unnamed(job: JobId) -> Self {
        let directory = env::temp_dir();
        let target = OutputTarget::File(directory.clone());
        let medium: Box<dyn Medium + Send> = Box::new(Unnamed::new(directory));
        let destination = Destination { role: Role::Spool, target };
        Self { spool: Spool::new(medium, job, false), destination }
    }

    pub(crate) fn begin(journal: &Path, job: JobId, is_synced: bool) -> Result<Self, OutputError> {
        let medium: Box<dyn Medium + Send> = Box::new(Directory::new(beside(journal)));
        let destination = destination(journal);
        let spool = Spool::begin(medium, job, is_synced).map_err(at(&destination))?;
        Ok(Self { spool, destination })
    }

    pub(crate) fn go_on(
        journal: &Path,
        job: JobId,
        is_synced: bool,
        found: &Found,
    ) -> Result<Self, OutputError> {
        let medium: Box<dyn Medium + Send> = Box::new(Directory::new(beside(journal)));
        let destination = destination(journal);
        let spool = Spool::go_on(medium, job, is_synced, found).map_err(at(&destination))?;
        Ok(Self { spool, destination })
    }

    /// Stores records. Returns the bytes of the spool.
    ///
    /// # Errors
    ///
    /// When that failed. None of them is there then.
    pub fn append(&mut self, records: &[Records]) -> Result<u64, OutputError> {
        self.spool.append(records).map_err(at(&self.destination))?;
        Ok(self.spool.bytes())
    }

    /// Reads records back: see [`Output::unspool`](crate::Output::unspool).
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn read(&mut self, range: SeqRange, bytes_max: usize) -> Result<Vec<Records>, OutputError> {
        let Self { spool, destination } = self;
        spool
            .read(range, bytes_max)
            .map_err(|reason| OutputError::Unspool { destination: destination.clone(), reason })
    }

    /// Removes segments that are not needed: all records below this seq are in the output. Returns
    /// the bytes that are left.
    pub fn release(&mut self, below: Seq) -> u64 {
        self.spool.release(below);
        self.spool.bytes()
    }

    pub(crate) fn sync(&mut self) -> Result<(), OutputError> {
        self.spool.sync().map_err(at(&self.destination))
    }
}

fn at(destination: &Destination) -> impl Fn(io::Error) -> OutputError {
    |reason| OutputError::Io { destination: destination.clone(), reason }
}

impl std::fmt::Debug for Spooler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spooler").field("destination", &self.destination).finish_non_exhaustive()
    }
}
