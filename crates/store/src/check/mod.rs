//! Looking at all of a queue: what is there, and what is amiss.

use std::collections::BTreeSet;
use std::fmt;

use tradewind_records::Medium;

use crate::control::ControlCheck;
use crate::format::Kind;
use crate::kept::KeptKey;
use crate::log::{Survey, Surveyed, survey};
use crate::records::{IndexFound, RecordCheck};
use crate::task::StoredTask;

/// Files of a queue.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is the directory of its name")]
pub struct QueueMedia<M> {
    pub tasks: M,
    pub keys: M,
    pub records: M,
    pub index: M,
    pub control: M,
}

/// Part of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is a directory")]
pub enum Part {
    Tasks,
    Keys,
    Records,
    Index,
    Control,
}

/// Something that is amiss, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Directory of the file.
    pub part: Part,
    /// Number of the file; `None`: the directory cannot be read.
    pub file: Option<u64>,
    /// Byte in the file.
    pub at: u64,
    /// What is amiss there.
    pub what: String,
}

/// What is in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is in the task log.
    pub tasks: Survey,
    /// What is in the key log.
    pub keys: Survey,
    /// What is in the record log. Checkpoints are entries too.
    pub records: Survey,
    /// What is in the control log.
    pub control: Survey,
    /// What is amiss, by part and place.
    pub faults: Vec<Fault>,
    /// Files of the index that are not there, or were not made to their end: the next start makes them, from the
    /// records. That is no damage.
    pub unmade: BTreeSet<u64>,
}

impl Part {
    /// Returns the name of its directory.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Keys => "keys",
            Self::Records => "records",
            Self::Index => "index",
            Self::Control => "control",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, file, at, what } = self;
        match file {
            Some(file) => write!(f, "{}/{file:08}, byte {at}: {what}", part.as_str()),
            None => write!(f, "{}: {what}", part.as_str()),
        }
    }
}

/// Looks at all of a queue that no process has open. Changes nothing.
///
/// What is damaged is passed over, up to the next batch. What looks torn is no fault: it goes with the next commit.
/// Memory grows with the ranges of what is there and with the number of faults.
pub fn check<M: Medium>(media: QueueMedia<M>) -> Report {
    let QueueMedia { tasks, keys, records, index, control } = media;
    let mut faults = Vec::new();
    let tasks = survey_part(&mut faults, Part::Tasks, tasks, Kind::Tasks, |entry| {
        StoredTask::decode(entry.bytes).map(|_| ()).map_err(|error| error.to_string())
    });
    let keys = survey_part(&mut faults, Part::Keys, keys, Kind::Keys, |entry| {
        KeptKey::decode(entry.bytes).map(|_| ()).map_err(|error| error.to_string())
    });
    // Of a task that may be there, and cannot be read, there may be a record.
    let is_whole = faults.is_empty() && tasks.torn_bytes == 0;
    let task_count = tasks.ranges.last().filter(|_| is_whole).map_or(u64::MAX, |last| last.end);
    let mut check = RecordCheck::new(index, task_count);
    let records =
        survey_part(&mut faults, Part::Records, records, Kind::Records, |entry| check.check(entry));
    let IndexFound { faults: index_faults, unmade, error } = check.finish();
    faults.extend(index_faults.into_iter().map(|(file, at, what)| Fault {
        part: Part::Index,
        file: Some(file),
        at,
        what,
    }));
    faults.extend(error.map(|error| Fault {
        part: Part::Index,
        file: None,
        at: 0,
        what: error.to_string(),
    }));
    let mut check = ControlCheck::default();
    let control =
        survey_part(&mut faults, Part::Control, control, Kind::Control, |entry| check.check(entry));
    faults.extend(check.finish().map(|(file, at, what)| Fault {
        part: Part::Control,
        file: Some(file),
        at,
        what,
    }));
    Report { tasks, keys, records, control, faults, unmade }
}

fn survey_part<M: Medium>(
    faults: &mut Vec<Fault>,
    part: Part,
    mut medium: M,
    kind: Kind,
    visit: impl FnMut(Surveyed) -> Result<(), String>,
) -> Survey {
    let mut places = Vec::new();
    let surveyed = survey(&mut medium, kind, &mut places, visit);
    faults.extend(places.into_iter().map(|(file, at, what)| Fault {
        part,
        file: Some(file),
        at,
        what,
    }));
    surveyed.unwrap_or_else(|error| {
        faults.push(Fault { part, file: None, at: 0, what: error.to_string() });
        Survey::default()
    })
}

#[cfg(test)]
mod tests;
