//! The runtime that a program runs on.

use crate::Shutdown;
use crate::exit::{OrExit, Outcome, SYSTEM};

/// Runs a program to its end, on one thread: on few cores zmq.rs is faster so than on several.
///
/// # Errors
/// When there is no runtime to be had, or the program failed.
pub fn block_on<F>(program: impl FnOnce(Shutdown) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.or_exit(SYSTEM)?.block_on(async { program(Shutdown::new()?).await })
}
