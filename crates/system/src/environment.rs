//! Environment of the programs that a program starts.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

/// Variables of this process's environment that are meant for it alone, be they set by a user, by
/// `tradewind run` or by systemd: a program that it starts, which may be Tradewind itself or another
/// service, must not take them for its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnVariables(Vec<OsString>);

impl OwnVariables {
    /// Returns those of this process.
    #[must_use]
    pub fn find() -> Self {
        let names = env::vars_os().map(|(name, _)| name);
        Self(names.filter(|name| is_own(name)).collect())
    }

    /// Removes them from the environment of a command.
    pub fn hide_from(&self, command: &mut Command) {
        for name in &self.0 {
            command.env_remove(name);
        }
    }
}

fn is_own(name: &OsStr) -> bool {
    const PREFIXES: [&[u8]; 3] = [b"TRADEWIND_", b"LISTEN_FD", b"LISTEN_PID"];
    const NAMES: [&[u8]; 4] =
        [b"CREDENTIALS_DIRECTORY", b"NOTIFY_SOCKET", b"WATCHDOG_PID", b"WATCHDOG_USEC"];
    let name = name.as_bytes();
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_for_this_process_and_systemd_are_hidden_and_no_others() {
        let own = [
            "TRADEWIND_PARENT",
            "TRADEWIND_KEYS",
            "CREDENTIALS_DIRECTORY",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_PIDFDID",
            "LISTEN_FDNAMES",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
        ];
        assert!(own.into_iter().all(|name| is_own(name.as_ref())));
        let others = ["PATH", "TRADE", "LISTEN", "LISTEN_PORT", "MY_TRADEWIND_X"];
        assert!(!others.iter().any(|name| is_own(name.as_ref())));
    }
}
