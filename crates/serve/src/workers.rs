//! The workers that may hold tasks of a queue, for the process after this one: it waits for these, and not for
//! whoever may come.
//!
//! A file of lines: `tradewind workers 1`, a session in hexadecimal for each worker, and `end`. One that is not there,
//! or that is something else, says nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tradewind_proto::SessionId;
use tradewind_sink::NoteWorkers;

const FILE: &str = "workers";
const HEAD: &str = "tradewind workers 1";
const END: &str = "end";

/// Returns the workers that may hold tasks, if that is known.
pub(crate) fn read(dir: &Path) -> Option<Vec<SessionId>> {
    parse(&fs::read_to_string(dir.join(FILE)).ok()?)
}

/// Notes that no worker holds a task, of a queue that is new. Where that cannot be written it is not known.
pub(crate) fn note_none(dir: &Path) {
    if let Err(error) = write(dir, &[]) {
        let path = dir.join(FILE);
        tracing::warn!(
            "{}: cannot be written: {error}; the next start waits longer",
            path.display()
        );
    }
}

fn parse(text: &str) -> Option<Vec<SessionId>> {
    let sessions = text.strip_prefix(HEAD)?.strip_prefix('\n')?.strip_suffix('\n')?;
    let sessions = sessions.strip_suffix(END)?;
    sessions.lines().map(|line| u64::from_str_radix(line, 16).ok().map(SessionId)).collect()
}

fn written(sessions: &[SessionId]) -> String {
    let lines: String = sessions.iter().map(|session| format!("{:016x}\n", session.0)).collect();
    format!("{HEAD}\n{lines}{END}\n")
}

/// Returns what writes the workers that may hold tasks, on another thread.
pub(crate) fn writer(dir: PathBuf) -> NoteWorkers {
    let latest: Arc<Mutex<Option<Vec<SessionId>>>> = Arc::default();
    let dir = Arc::new(dir);
    Box::new(move |sessions| {
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(sessions);
        let (latest, dir) = (latest.clone(), dir.clone());
        tokio::task::spawn_blocking(move || {
            // Held while it writes: a later list is not overtaken by an earlier one.
            let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sessions) = latest.take()
                && let Err(error) = write(&dir, &sessions)
            {
                let path = dir.join(FILE);
                tracing::warn!(
                    "{}: cannot be written: {error}; the next start waits longer",
                    path.display()
                );
                // An old list would be worse than none.
                let _ = fs::remove_file(path);
            }
        });
    })
}

fn write(dir: &Path, sessions: &[SessionId]) -> io::Result<()> {
    let beside = dir.join("workers.new");
    let mut file = File::create(&beside)?;
    file.write_all(written(sessions).as_bytes())?;
    file.sync_data()?;
    fs::rename(beside, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for sessions in [vec![], vec![SessionId(7)], vec![SessionId(0), SessionId(u64::MAX)]] {
            let text = written(&sessions);
            assert_eq!(parse(&text), Some(sessions));
            for cut in 0..text.len() {
                assert_eq!(parse(&text[..cut]), None, "{text:?} cut at {cut}");
            }
        }
        assert_eq!(parse("tradewind workers 2\nend\n"), None);
        assert_eq!(parse("tradewind workers 1\nxyz\nend\n"), None);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        write(dir.path(), &[SessionId(3)]).unwrap();
        write(dir.path(), &[SessionId(4)]).unwrap();
        assert_eq!(read(dir.path()), Some(vec![SessionId(4)]));
    }
}
