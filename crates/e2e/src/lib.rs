//! Starts Tradewind's real programs and watches them from outside, as a user would: by their
//! output, their exit codes and what is left in the process table.
//!
//! This library knows no type of theirs and no message: what it knows of them is in `--help`. Of the tests
//! some do: those that speak to a port as a stranger encode messages, and those of exit codes name the
//! constants.

pub mod chaos;
mod http;
mod namespaces;
mod process;
mod records;
mod scene;
mod system;

pub use http::{Answer, ask};
pub use namespaces::Namespaces;
pub use process::{Ended, Process, Start};
pub use records::{Record, records, summary_counts};
pub use rustix::process::Signal;
pub use scene::Scene;
pub use system::{MIB, bytes_read, cpu_time, marked, memory_bytes_max};

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time that anything may take. It passes only when something is broken, so it is generous:
/// the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Names a file: a test that is skipped for want of something writes a line into it.
pub const SKIPS_ENV: &str = "E2E_SKIPS";

/// Notes that a test, or a part of one, is not run because this machine lacks something. It counts as
/// passed to who runs the tests; `scripts/test` counts the notes as skipped.
///
/// # Panics
/// When the note cannot be written.
pub fn note_skipped(test: &str, reason: &str) {
    eprintln!("{test}: skipped: {reason}");
    let Some(path) = std::env::var_os(SKIPS_ENV) else { return };
    let file = std::fs::File::options().create(true).append(true).open(path);
    let mut file = file.expect("the list of skipped tests can be opened");
    // At once: tests run beside one another.
    file.write_all(format!("{test}: {reason}\n").as_bytes()).expect("the list can be written");
}

/// Time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until something is so.
///
/// # Panics
/// When it is not in time.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until there is something to give.
///
/// # Panics
/// When there is nothing in time.
#[track_caller]
pub fn wait_for<T>(what: &str, get: impl FnMut() -> Option<T>) -> T {
    wait_for_as_long_as(PATIENCE, what, get)
}

/// Waits for something that takes a while by its nature.
///
/// # Panics
/// When it does not come in that time.
#[track_caller]
pub fn wait_for_as_long_as<T>(
    patience: Duration,
    what: &str,
    mut get: impl FnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(got) = get() {
            return got;
        }
        assert!(began.elapsed() < patience, "waited {patience:?} in vain: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Lets as much time pass as a person needs to press Ctrl-C again: signals that follow one another
/// within 200 ms are taken for one, which the sender has sent twice.
pub fn pause_between_signals() {
    std::thread::sleep(Duration::from_millis(400));
}

/// A random number generator, whose seed is printed: set `TRADEWIND_E2E_SEED` to get it again.
#[must_use]
pub fn random() -> fastrand::Rng {
    let given = std::env::var("TRADEWIND_E2E_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TRADEWIND_E2E_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Variable with the directory of the programs to be tested, if they are not beside the tests.
pub const PROGRAMS_ENV: &str = "E2E_PROGRAMS";

/// One of our programs: from the directory that [`PROGRAMS_ENV`] names, which is how the suite is run
/// against what users get (`target/release`), or else beside the program that runs, as
/// `cargo build --workspace --bins` leaves it. Cargo tells a test only about its own package's.
///
/// An example is `examples/NAME`; `cargo test --workspace` has built it, beside the tests.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let given = std::env::var_os(PROGRAMS_ENV).filter(|_| !name.starts_with("examples/"));
    let profile = given.map_or_else(own_profile, |dir| {
        let dir = PathBuf::from(dir);
        assert!(dir.is_absolute(), "{PROGRAMS_ENV} is {dir:?}: tests run in other directories");
        dir
    });
    let program = profile.join(name);
    assert!(program.exists(), "{program:?} is missing: build the programs first");
    program
}

/// Returns the directory into which cargo has put the running program.
fn own_profile() -> PathBuf {
    let ours = std::env::current_exe().expect("a program has a path");
    let dir = ours.parent().expect("a program is in a directory");
    let is_test = dir.ends_with("deps");
    if is_test { dir.parent().expect("it is PROFILE/deps").to_owned() } else { dir.to_owned() }
}
