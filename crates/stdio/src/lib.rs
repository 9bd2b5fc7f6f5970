//! Which standard streams were closed when the program began, as by a shell's `>&-`.
//!
//! Nobody can tell once `main` runs: Rust's runtime has opened `/dev/null` in their places by then,
//! as many programs do for the ones they start on purpose. So they are looked at before that.

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

/// Was standard input closed?
#[must_use]
pub fn is_stdin_closed() -> bool {
    STDIN.load(Ordering::Relaxed)
}

/// Was standard output closed?
#[must_use]
pub fn is_stdout_closed() -> bool {
    STDOUT.load(Ordering::Relaxed)
}
