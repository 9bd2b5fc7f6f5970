//! The runtime of a program.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Shutdown;
use crate::exit::{Fatal, OrExit, Outcome, SYSTEM};
use crate::parent;

/// Number of threads for blocking calls in a program that `tradewind run` has started: name lookups
/// and the removal of socket files run there. Its limits of processes are shared by its workers, so
/// each thread counts. With Unix sockets no call blocks for long.
pub const BLOCKING_THREADS_MAX: usize = 2;

/// Time for which such a thread waits for more work: connections are made when a program starts.
const BLOCKING_THREAD_LIFE: Duration = Duration::from_secs(1);

/// Runs a program to its end, on one thread: on few cores zmq.rs is faster so than on several.
/// Signals ask it to stop.
///
/// # Errors
/// When there is no runtime to be had, or the program failed.
pub fn block_on<F>(program: impl FnOnce(Shutdown) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    block_on_until(Shutdown::new, program)
}

/// Does the same, with another source of requests to stop.
///
/// # Errors
/// When there is no runtime to be had, or the program failed.
pub fn block_on_until<F, T>(
    shutdown: impl FnOnce() -> Result<Shutdown, Fatal>,
    program: impl FnOnce(Shutdown) -> F,
) -> Result<T, Fatal>
where
    F: Future<Output = Result<T, Fatal>>,
{
    check_files()?;
    teach_allocator();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().thread_keep_alive(BLOCKING_THREAD_LIFE);
    if parent::speaks_for_us() {
        builder.max_blocking_threads(BLOCKING_THREADS_MAX);
    }
    let ended = builder.build().or_exit(SYSTEM)?.block_on(async { program(shutdown()?).await });
    parent::tidy_up();
    ended
}

/// Number of open files that even a job with one worker needs.
const FILES_MIN: u64 = 32;

/// Checks the limit of open files: a process with too few would wait for ever for the missing one.
fn check_files() -> Result<(), Fatal> {
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < FILES_MIN => {
            let text = format!("ulimit -n is {files}: at least {FILES_MIN} open files are needed");
            Err(Fatal::new(SYSTEM, text))
        }
        _ => Ok(()),
    }
}

/// Makes glibc keep the memory of a batch for the next one.
///
/// It gives a large block back to the system as soon as it is freed, and pays for it again with
/// page faults, until it has seen a block of that size come and go: then it raises the threshold,
/// and that for giving back the end of the heap to twice as much (mallopt(3),
/// `M_MMAP_THRESHOLD`). Other allocators do not mind.
fn teach_allocator() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES)));
}

/// Allows this process as many open files as it may have: a connection at a gate takes three, and the
/// usual soft limit of 1,024 would end the welcome at some three hundred workers. Not for a program that
/// starts commands: they inherit it, and some believe in 1,024.
pub fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Bytes of the lists of some dozens of batches.
const KEPT_BYTES: usize = 4 << 20;
