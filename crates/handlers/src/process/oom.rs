//! Was it the memory limit that killed a command? The kernel counts such kills in our cgroup.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tradewind_proto::message::Exit;

use crate::host::cgroup;

/// Stands after "killed by signal 9" then.
pub(crate) const REASON: &str =
    "this container or cgroup has reached its memory limit (its oom_kill count went up)";

/// Exit code of a shell whose child was killed by KILL.
const SHELL_SAW_KILL: i32 = 128 + 9;

/// Kills that were counted, and those that no command has been told of.
#[derive(Debug)]
pub(crate) struct OomKills {
    file: Option<PathBuf>,
    counted: Mutex<Counted>,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    seen: u64,
    untold: u64,
}

impl Default for OomKills {
    fn default() -> Self {
        let file = cgroup("memory").and_then(|dir| {
            // Of version 2, and of version 1.
            let files = [dir.join("memory.events"), dir.join("memory.oom_control")];
            files.into_iter().find(|file| file.exists())
        });
        Self::of(file)
    }
}

impl OomKills {
    fn of(file: Option<PathBuf>) -> Self {
        let mut kills = Self { file, counted: Mutex::new(Counted { seen: 0, untold: 0 }) };
        let seen = kills.read().unwrap_or(0);
        kills.counted = Mutex::new(Counted { seen, untold: 0 });
        kills
    }

    /// A command was killed: was that one of the kills that were counted?
    pub(crate) fn take(&self) -> bool {
        let Some(now) = self.read() else { return false };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.untold += now.saturating_sub(counted.seen);
        counted.seen = now;
        let is_one = counted.untold > 0;
        counted.untold -= u64::from(is_one);
        is_one
    }

    fn read(&self) -> Option<u64> {
        let text = fs::read_to_string(self.file.as_ref()?).ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        count.trim().parse().ok()
    }
}

/// May a command that ended like this have been killed for its memory?
pub(crate) fn may_be(exit: Exit) -> bool {
    matches!(exit, Exit::Signal(9) | Exit::Code(SHELL_SAW_KILL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_explains_one_command() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("memory.events");
        let set = |count: u32| {
            let text = format!("low 0\nhigh 0\nmax 7\noom 9\noom_kill {count}\noom_group_kill 0\n");
            fs::write(&file, text).unwrap();
        };
        set(3);
        let kills = OomKills::of(Some(file.clone()));
        assert!(!kills.take());
        set(5);
        assert_eq!([kills.take(), kills.take(), kills.take()], [true, true, false]);
        // As version 1 has it.
        fs::write(&file, "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n").unwrap();
        assert_eq!([kills.take(), kills.take()], [true, false]);
    }

    #[test]
    fn where_nobody_counts_nothing_is_said() {
        assert!(!OomKills::of(None).take());
        assert!(!OomKills::of(Some("/nowhere/memory.events".into())).take());
        assert!(may_be(Exit::Signal(9)) && may_be(Exit::Code(137)));
        assert!(!may_be(Exit::Code(9)) && !may_be(Exit::Signal(15)) && !may_be(Exit::None));
    }
}
