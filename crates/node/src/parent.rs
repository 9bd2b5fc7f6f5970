//! The process that started this one and speaks for it to the user, if there is one: `tradewind run`.

use std::path::Path;

use rustix::process::Pid;

/// Environment variable that names the process that started this one and speaks for it to the user:
/// Ctrl-C is the parent's business then, and this process ends with it.
pub const ENV: &str = "TRADEWIND_PARENT";

/// Environment variable with the directory of the sockets that the parent has made.
pub const DIR_ENV: &str = "TRADEWIND_PRIVATE_DIR";

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

/// Removes the parent's directory if the parent has been killed and cannot do so itself.
pub(crate) fn tidy_up() {
    let Some(dir) = std::env::var_os(DIR_ENV) else { return };
    if speaks_for_us() && pid() != rustix::process::getppid() {
        // The others that it has started do the same. The last one finds an empty directory.
        let _ = tradewind_lanes::remove_private_dir(Path::new(&dir));
    }
}
