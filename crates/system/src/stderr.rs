//! Standard error, which may be full, closed or stuck: writing to it never stops a job.
//!
//! Lines wait in a bounded queue for a thread that writes them. A disk that is full, a pipe without a
//! reader, a terminal that was stopped with Ctrl-S: each of them costs lines, and nothing else. Lines
//! that were lost are counted, and the count is written as soon as something can be.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Bytes that wait to be written; further ones are lost.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// Time for which the end of a program waits for a reader of its last lines.
pub const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Bytes that may be queued when text of other processes is forwarded, and lost at the end.
const PASSED_BYTES_MAX: usize = 64 << 10;

/// Time without a reader after which writers wait no longer.
const STUCK_MAX: Duration = Duration::from_secs(2);

/// Clears the line that a progress bar stands on.
const CLEAR_LINE: &[u8] = b"\r\x1b[2K";

/// Queues whole lines, which are written in one piece.
pub fn write(lines: Vec<u8>) {
    shared().push(lines, Kind::Lines);
}

/// Queues text of other processes, after waiting until little else is queued: but no longer than
/// 2 s for a reader that does not read.
pub fn pass_on(text: Vec<u8>) {
    shared().wait_for_room();
    shared().push(text, Kind::Lines);
}

/// Queues the bytes that draw a progress bar, or remove it.
pub fn draw(bytes: Vec<u8>, is_bar: bool) {
    shared().push(bytes, Kind::Bar { stands: is_bar });
}

/// Waits until all queued bytes are written, but no longer than [`FLUSH_MAX`].
pub fn flush() {
    if let Some(shared) = SHARED.get() {
        shared.flush(FLUSH_MAX);
    }
}

/// Writer for a subscriber of `tracing`, which writes each line with one call.
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Another process draws a progress bar on the same terminal.
static HAS_FOREIGN_BAR: AtomicBool = AtomicBool::new(false);

/// Makes each line remove the text on its own terminal line from now on: the progress bar of
/// another process. Such a process must not share the terminal with an output, which would lose an
/// unfinished line.
pub fn share_with_bar() {
    HAS_FOREIGN_BAR.store(true, Ordering::Relaxed);
}

static SHARED: OnceLock<Arc<Shared>> = OnceLock::new();

fn shared() -> &'static Arc<Shared> {
    SHARED.get_or_init(|| {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("stderr".to_owned())
            .spawn(move || writer.run(rustix::stdio::stderr()));
        // Without a thread there are no lines: to write them here could stop the job.
        shared.lock().is_dead = spawned.is_err();
        shared
    })
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// A chunk is queued.
    filled: Condvar,
    /// All chunks are written.
    emptied: Condvar,
    /// A chunk is written.
    written: Condvar,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A chunk has left the queue and is not written yet.
    is_writing: bool,
    /// A progress bar stands on the last line.
    has_bar: bool,
    is_dead: bool,
    /// No reader has read for a while.
    is_stuck: bool,
    lost: Lost,
}

/// Number of chunks that were not written, and the latest error.
#[derive(Default)]
struct Lost {
    chunks: u64,
    reason: Option<Errno>,
}

#[derive(Clone, Copy)]
enum Kind {
    Lines,
    Bar { stands: bool },
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code under the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, mut chunk: Vec<u8>, kind: Kind) {
        let mut queue = self.lock();
        match kind {
            Kind::Lines if queue.has_bar || HAS_FOREIGN_BAR.load(Ordering::Relaxed) => {
                chunk.splice(0..0, CLEAR_LINE.iter().copied());
            }
            Kind::Lines => {}
            Kind::Bar { stands } => queue.has_bar = stands,
        }
        if queue.is_dead || queue.bytes + chunk.len() > QUEUE_BYTES_MAX {
            if matches!(kind, Kind::Lines) {
                queue.lost.chunks += 1;
            }
            return;
        }
        queue.bytes += chunk.len();
        queue.chunks.push_back(chunk);
        drop(queue);
        self.filled.notify_one();
    }

    fn flush(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let mut queue = self.lock();
        while !queue.is_dead && (queue.is_writing || !queue.chunks.is_empty()) {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            let waited = self.emptied.wait_timeout(queue, left);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_for_room(&self) {
        let mut queue = self.lock();
        let mut until = Instant::now() + STUCK_MAX;
        let mut left_bytes = queue.bytes;
        while !queue.is_dead && !queue.is_stuck && queue.bytes > PASSED_BYTES_MAX {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                queue.is_stuck = true;
                return;
            };
            let waited = self.written.wait_timeout(queue, left);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if queue.bytes < left_bytes {
                (left_bytes, until) = (queue.bytes, Instant::now() + STUCK_MAX);
            }
        }
    }

    fn run(&self, to: BorrowedFd<'_>) {
        loop {
            let (chunk, notice) = self.next();
            let mut result = Ok(());
            if let Some(notice) = notice {
                result = write_all(to, notice.as_bytes());
            }
            let result = result.and_then(|()| write_all(to, &chunk));
            let mut queue = self.lock();
            if let Err(reason) = result {
                queue.lost.chunks += 1;
                queue.lost.reason = Some(reason);
            }
            (queue.is_writing, queue.is_stuck) = (false, false);
            self.written.notify_all();
            if queue.chunks.is_empty() {
                self.emptied.notify_all();
            }
        }
    }

    /// Waits for the next chunk; returns it with a line about the chunks that were lost before it.
    fn next(&self) -> (Vec<u8>, Option<String>) {
        let mut queue = self.lock();
        loop {
            if let Some(chunk) = queue.chunks.pop_front() {
                queue.bytes -= chunk.len();
                queue.is_writing = true;
                return (chunk, std::mem::take(&mut queue.lost).notice());
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Lost {
    fn notice(self) -> Option<String> {
        let lines = if self.chunks == 1 { "1 line" } else { &format!("{} lines", self.chunks) };
        let reason = match self.reason {
            Some(reason) => io::Error::from(reason).to_string(),
            None => "there was no reader".to_owned(),
        };
        (self.chunks > 0).then(|| format!("{lines} could not be written here: {reason}\n"))
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Another process made it non-blocking, and it is full.
            Err(Errno::AGAIN) => {
                let mut room = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                poll(&mut room, None).or_else(|error| match error {
                    Errno::INTR => Ok(0),
                    error => Err(error),
                })?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;

    fn started(to: OwnedFd) -> Arc<Shared> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        std::thread::spawn(move || writer.run(to.as_fd()));
        shared
    }

    fn read_to(from: &OwnedFd, end: &str) -> String {
        let (mut text, mut buffer) = (String::new(), vec![0; 64 << 10]);
        while !text.ends_with(end) {
            let read = rustix::io::read(from, &mut *buffer).unwrap();
            assert_ne!(read, 0, "{text:?}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        text
    }

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_no_time() {
        for is_blocking in [true, false] {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            rustix::io::ioctl_fionbio(&writer, !is_blocking).unwrap();
            let shared = started(writer);
            let line = |at: usize| format!("{at} {}\n", "x".repeat(1000)).into_bytes();
            let count = 3 * QUEUE_BYTES_MAX / 1000;
            for at in 0..count {
                shared.push(line(at), Kind::Lines);
            }
            let began = Instant::now();
            shared.flush(Duration::from_millis(20));
            assert!(began.elapsed() < FLUSH_MAX, "{:?}", began.elapsed());
            let lost = shared.lock().lost.chunks;
            assert!(lost > 0 && (lost as usize) < count, "{lost}");

            // The reader goes on: what is left of the queue is whole, and the loss is told.
            shared.lock().chunks.push_back(b"the end\n".to_vec());
            shared.lock().bytes += 8;
            let text = read_to(&reader, "the end\n");
            let (notices, lines): (Vec<_>, Vec<_>) =
                text.lines().partition(|line| line.ends_with("there was no reader"));
            assert_eq!(
                notices,
                [format!("{lost} lines could not be written here: there was no reader")]
            );
            assert_eq!(lines.len(), count - lost as usize + 1);
            for (at, found) in lines[..lines.len() - 1].iter().enumerate() {
                assert_eq!(format!("{found}\n").into_bytes(), line(at));
            }
            shared.flush(FLUSH_MAX);
            assert!(!shared.lock().is_writing);
        }
    }

    #[test]
    fn a_disk_that_is_full_costs_lines_and_a_reader_that_has_gone_too() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(reader);
        for (to, reason) in [(full.into(), Errno::NOSPC), (writer, Errno::PIPE)] {
            let shared = started(to);
            for _ in 0..3 {
                shared.push(b"line\n".to_vec(), Kind::Lines);
                shared.flush(FLUSH_MAX);
            }
            let queue = shared.lock();
            assert_eq!((queue.lost.reason, queue.chunks.len()), (Some(reason), 0));
        }
    }

    #[test]
    fn a_line_does_not_stand_behind_a_bar() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let shared = started(writer);
        shared.push(b"|##  |".to_vec(), Kind::Bar { stands: true });
        shared.push(b"first\n".to_vec(), Kind::Lines);
        shared.push(b"\r\x1b[2K".to_vec(), Kind::Bar { stands: false });
        shared.push(b"second\n".to_vec(), Kind::Lines);
        assert_eq!(read_to(&reader, "second\n"), "|##  |\r\x1b[2Kfirst\n\r\x1b[2Ksecond\n");
    }
}
