//! The process that started this one and speaks for it to the user, if there is one: `tradewind run`.

use rustix::process::Pid;

/// Environment variable that names the process that started this one and speaks for it to the user:
/// Ctrl-C is the parent's business then, and this process ends with it.
pub const ENV: &str = "TRADEWIND_PARENT";

/// Returns whether a process has started this one and speaks for it to the user.
#[must_use]
pub fn speaks_for_us() -> bool {
    std::env::var_os(ENV).is_some()
}

/// Returns the process id of the parent.
pub(crate) fn pid() -> Option<Pid> {
    let pid = std::env::var(ENV).ok().and_then(|pid| pid.parse().ok());
    pid.and_then(Pid::from_raw)
}
