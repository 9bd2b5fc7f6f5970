//! Records which standard streams were closed when the program began, as by a shell's `>&-`.
//!
//! This cannot be found out once `main` runs: Rust's runtime has opened `/dev/null` in their places
//! by then, as many programs do on purpose for the ones they start. So the streams are checked
//! before that.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::fcntl_getfd;
use rustix::stdio::{stdin, stdout};

static STDIN: AtomicBool = AtomicBool::new(false);
static STDOUT: AtomicBool = AtomicBool::new(false);

/// Runs before `main`, and does no more than two calls of the system.
#[ctor::ctor]
fn look() {
    STDIN.store(fcntl_getfd(stdin()).is_err(), Ordering::Relaxed);
    STDOUT.store(fcntl_getfd(stdout()).is_err(), Ordering::Relaxed);
}

/// Returns whether standard input was closed.
#[must_use]
pub fn is_stdin_closed() -> bool {
    STDIN.load(Ordering::Relaxed)
}

/// Returns whether standard output was closed.
#[must_use]
pub fn is_stdout_closed() -> bool {
    STDOUT.load(Ordering::Relaxed)
}
