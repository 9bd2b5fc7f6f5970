//! A directory for each task, with its output, its stderr and its record.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tradewind_proto::collector::{Record, Records};

use super::{Destination, OutputError, OutputTarget, Role, jsonl};

/// Suffix of a directory before it is whole, and of the one that it replaces after that.
const UNFINISHED: &str = ".tradewind-";

/// Writes a directory for each record, named by the task's number from 1. Each appears whole.
#[derive(Debug)]
pub(super) struct Results {
    directory: PathBuf,
    /// Directories that are yet to be written.
    pending: VecDeque<Records>,
}

impl Results {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, pending: VecDeque::new() }
    }

    /// Takes records, to be written with the next [`drain`](Self::drain).
    pub(super) fn add(&mut self, records: &[Records]) {
        self.pending.extend(records.iter().cloned());
    }

    /// Creates the directory, if it does not exist.
    pub(super) fn begin(&self) -> Result<(), OutputError> {
        fs::create_dir_all(&self.directory).map_err(|reason| self.failed(reason))
    }

    /// Writes the directories. May be tried again.
    pub(super) fn drain(&mut self) -> Result<(), OutputError> {
        while let Some(records) = self.pending.front() {
            for record in records.iter() {
                write(&self.directory, record).map_err(|reason| self.failed(reason))?;
            }
            self.pending.pop_front();
        }
        Ok(())
    }

    fn failed(&self, reason: io::Error) -> OutputError {
        let target = OutputTarget::File(self.directory.clone());
        OutputError::Io { destination: Destination { role: Role::Results, target }, reason }
    }
}

/// Returns whether the directory is empty or does not exist.
pub(super) fn is_empty(directory: &Path) -> io::Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn write(directory: &Path, record: Record<'_>) -> io::Result<()> {
    let number = record.result.seq.0.saturating_add(1);
    let (new, old) =
        (directory.join(format!("{UNFINISHED}{number}")), directory.join(number.to_string()));
    clear(&new)?;
    fs::create_dir(&new)?;
    let mut line = Vec::new();
    jsonl::encode_outcome(record, &mut line);
    fs::write(new.join("stdout"), &record.result.outcome.output)?;
    fs::write(new.join("stderr"), &record.result.outcome.stderr)?;
    fs::write(new.join("record.json"), line)?;
    match fs::rename(&new, &old) {
        // The task ran before, and ran again.
        Err(error)
            if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) =>
        {
            let aside = directory.join(format!("{UNFINISHED}{number}.old"));
            clear(&aside)?;
            fs::rename(&old, &aside)?;
            fs::rename(&new, &old)?;
            clear(&aside)
        }
        renamed => renamed,
    }
}

fn clear(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tradewind_proto::Payload;
    use tradewind_proto::message::{Exit, Status};

    use super::super::examples::{ended, record};
    use super::*;

    #[test]
    fn each_task_has_a_directory_which_a_later_run_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let mut results = Results::new(dir.path().join("deep/results"));
        results.begin().unwrap();
        let text =
            |name: &str| fs::read_to_string(dir.path().join("deep/results").join(name)).unwrap();
        let mut failed = ended(Status::Failed, Exit::Code(3), "exit code 3");
        failed.results[0].outcome.stderr = Payload::from(b"why\n").into();
        results.add(&[record(0, b"\xff\n"), failed]);
        results.drain().unwrap();
        assert_eq!(text("4/stderr"), "why\n");
        let json: serde_json::Value = serde_json::from_str(&text("4/record.json")).unwrap();
        assert_eq!(
            (json["exit_code"].as_i64(), json["status"].as_str()),
            (Some(3), Some("failed"))
        );
        assert_eq!(json.get("output"), None, "it stands beside it");
        assert_eq!(fs::read(dir.path().join("deep/results/1/stdout")).unwrap(), b"\xff\n");

        results.add(&[record(3, "better")]);
        results.drain().unwrap();
        assert_eq!((text("4/stdout").as_str(), text("4/stderr").as_str()), ("better", ""));
        let names = fs::read_dir(dir.path().join("deep/results")).unwrap();
        assert_eq!(names.count(), 2, "nothing else is left");
    }

    #[test]
    fn failed_directories_are_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results");
        fs::write(&path, "a file").unwrap();
        let mut results = Results::new(path.clone());
        results.begin().unwrap_err();
        results.add(&[record(0, "x"), record(1, "y")]);
        let error = results.drain().unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write to results {path:?}: ")), "{error}");
        fs::remove_file(&path).unwrap();
        results.begin().unwrap();
        results.drain().unwrap();
        assert!(path.join("1/stdout").exists() && path.join("2/stdout").exists());
        assert!(!is_empty(&path).unwrap() && is_empty(&dir.path().join("none")).unwrap());
    }
}
