//! Tasks in: what many requests submit is synced together.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;
use tradewind_store::{LogError, RequestError, StoredTask, SubmitError, Submitted};

use crate::tasks::SharedTasks;

/// Bytes after which no further request joins a batch.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Takes the tasks of a queue, on a thread of its own.
pub(crate) struct Submitter {
    /// Requests; `None` is the last.
    requests: Sender<Option<Request>>,
    is_alone: Arc<AtomicBool>,
    /// Until it is closed.
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Request {
    tasks: Vec<StoredTask>,
    answer: oneshot::Sender<Answer>,
}

type Answer = Result<Vec<Submitted>, Refused>;

/// Reason why none of the tasks of a request was taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The key of this one is that of a task with this position, which is another.
    OtherTask { place: usize, position: u64 },
    /// The key of this one is that of another task of the request, which is refused with it.
    TwoTasks { place: usize },
    /// No more keys can be remembered.
    KeysFull,
    /// The disk is full.
    DiskFull,
    /// Something is amiss with the log, which is logged.
    Failed,
    /// The queue is closed.
    Closed,
}

impl Submitter {
    pub(crate) fn spawn(logs: Arc<SharedTasks>) -> io::Result<Self> {
        let (requests, received) = channel();
        let is_alone = Arc::new(AtomicBool::new(false));
        let alone = is_alone.clone();
        let run = move || run(&logs, &received, &alone);
        let thread = thread::Builder::new().name("submits".to_owned()).spawn(run)?;
        Ok(Self { requests, is_alone, thread: Mutex::new(Some(thread)) })
    }

    /// Says whether each request is synced by itself.
    pub(crate) fn set_alone(&self, is_alone: bool) {
        self.is_alone.store(is_alone, Ordering::Relaxed);
    }

    /// Submits tasks, all or none. They survive a crash of the machine when this returns.
    pub(crate) fn submit(&self, tasks: Vec<StoredTask>) -> impl Future<Output = Answer> + use<> {
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(Some(Request { tasks, answer }));
        async move {
            sent.map_err(|_| Refused::Closed)?;
            answered.await.unwrap_or(Err(Refused::Closed))
        }
    }

    /// Takes no more requests. Those that were sent before are answered when this returns.
    pub(crate) fn close(&self) {
        let _ = self.requests.send(None);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic was printed.
            let _ = thread.join();
        }
    }
}

fn run(logs: &SharedTasks, requests: &Receiver<Option<Request>>, is_alone: &AtomicBool) {
    let mut is_failing = false;
    let mut is_over = false;
    while !is_over && let Ok(Some(first)) = requests.recv() {
        let mut taken = Vec::new();
        let mut tasks = logs.tasks();
        let mut next = Some(first);
        while let Some(Request { tasks: wanted, answer }) = next.take() {
            match tasks.submit_all(wanted) {
                Ok(submitted) => taken.push((answer, submitted)),
                Err(error) => {
                    let _ = answer.send(Err(refused(logs, error, &mut is_failing)));
                }
            }
            if tasks.waiting_bytes() < BATCH_BYTES_MAX && !is_alone.load(Ordering::Relaxed) {
                match requests.try_recv() {
                    Ok(None) => is_over = true,
                    other => next = other.ok().flatten(),
                }
            }
        }
        let committed = tasks.commit();
        let end = tasks.committed();
        if committed.is_err() {
            tasks.discard();
        }
        drop(tasks);
        match committed {
            Ok(()) => {
                is_failing = false;
                logs.note_submitted(end);
                for (answer, submitted) in taken {
                    let _ = answer.send(Ok(submitted));
                }
            }
            Err(error) => {
                let is_full = matches!(
                    refused(logs, RequestError::from(error), &mut is_failing),
                    Refused::DiskFull
                );
                for (answer, _) in taken {
                    let refused = if is_full { Refused::DiskFull } else { Refused::Failed };
                    let _ = answer.send(Err(refused));
                }
            }
        }
    }
}

fn refused(logs: &SharedTasks, error: RequestError, is_failing: &mut bool) -> Refused {
    let RequestError { place, error } = error;
    match error {
        SubmitError::OtherTask { position } => return Refused::OtherTask { place, position },
        SubmitError::TwoTasks => return Refused::TwoTasks { place },
        SubmitError::KeysFull { .. } => return Refused::KeysFull,
        _ => {}
    }
    if !std::mem::replace(is_failing, true) {
        let dir = logs.dir().display();
        tracing::error!("{dir}: no task is taken until it can be written: {error}");
    }
    match error {
        SubmitError::Log(error) if is_full(&error) => Refused::DiskFull,
        _ => Refused::Failed,
    }
}

/// Returns whether the disk is full, or what may be used of it.
pub(crate) fn is_full(error: &LogError) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error {
        LogError::Io(error) => matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge),
        _ => false,
    }
}
