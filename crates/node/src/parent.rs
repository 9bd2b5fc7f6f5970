//! The process that started this one and speaks for it to the user, if there is one: `tradewind run`.

use rustix::process::Pid;

/// Names the process that started this one and speaks for it to the user: then Ctrl-C is that
/// one's business, and its end is ours.
pub const ENV: &str = "TRADEWIND_PARENT";

/// Is there a process that has started this one and speaks for it to the user?
#[must_use]
pub fn speaks_for_us() -> bool {
    std::env::var_os(ENV).is_some()
}

/// Its id.
pub(crate) fn pid() -> Option<Pid> {
    let pid = std::env::var(ENV).ok().and_then(|pid| pid.parse().ok());
    pid.and_then(Pid::from_raw)
}
