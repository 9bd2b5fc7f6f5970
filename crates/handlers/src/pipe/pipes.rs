//! All slots' children, and how their threads and the thread that gives out the tasks notify each
//! other.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};
use tradewind_proto::{Attempt, Seq, Slot, Time};
use tradewind_system::Clock;

use super::super::{Finished, Task, files};
use super::PipeHandler;
use super::feed::Close;
use super::slot;

/// A worker's slots, each with a thread and a child that is started at once.
///
/// Dropping them stops the children, or waits for them if they were [closed](Self::close).
pub struct Pipes {
    shared: Arc<Shared>,
    slots: Vec<PipeSlot>,
    /// Slots that have tasks in `PipeSlot::given`.
    touched: Vec<Slot>,
    /// The children end at their leisure.
    is_closed: bool,
}

/// State of a slot after the ends of tasks that were reported with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotStatus {
    /// The slot.
    pub slot: Slot,
    /// Number of tasks that the slot takes at once.
    pub depth: u32,
    /// Task that the slot runs, and the time from which its timeout counts.
    pub under_way: Option<(Seq, Attempt, Time)>,
}

struct PipeSlot {
    mailbox: Arc<Mailbox>,
    /// Tasks that were not handed over yet.
    given: Vec<Task>,
    thread: Option<JoinHandle<()>>,
}

/// State shared by all threads.
pub(super) struct Shared {
    pub(super) handler: PipeHandler,
    pub(super) clock: Clock,
    outbox: Mutex<Outbox>,
    call: Box<dyn Fn() + Send + Sync>,
}

/// Messages for the thread that gives out the tasks.
#[derive(Default)]
struct Outbox {
    finished: Vec<Finished>,
    statuses: Vec<SlotStatus>,
    given_up: Option<String>,
}

/// Mailbox of a slot's thread.
pub(super) struct Mailbox {
    inbox: Mutex<Inbox>,
    /// Readable if there is something in the inbox.
    pub(super) wake: OwnedFd,
}

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) tasks: Vec<Task>,
    pub(super) stops: Vec<(Seq, Attempt)>,
    pub(super) close: Option<Close>,
    is_called: bool,
}

impl Pipes {
    /// Starts a child for each slot. `call` is called on their threads when there is something to
    /// [take](Self::take).
    ///
    /// # Errors
    ///
    /// When the system refuses a thread or a file.
    pub fn new(
        slots: u32,
        handler: PipeHandler,
        clock: Clock,
        call: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let outbox = Mutex::default();
        let shared = Arc::new(Shared { handler, clock, outbox, call: Box::new(call) });
        let mut pipes = Self { shared, slots: Vec::new(), touched: Vec::new(), is_closed: false };
        for slot in (0..slots).map(Slot) {
            let wake = files::keep(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            let mailbox = Arc::new(Mailbox { inbox: Mutex::default(), wake });
            let thread = thread::Builder::new().name(format!("pipe-{}", slot.0)).spawn({
                let (shared, mailbox) = (Arc::clone(&pipes.shared), Arc::clone(&mailbox));
                move || slot::run(slot, &shared, &mailbox)
            })?;
            pipes.slots.push(PipeSlot { mailbox, given: Vec::new(), thread: Some(thread) });
        }
        Ok(pipes)
    }

    /// Puts a task at the end of a slot's. It gets there with the next
    /// [`hand_over`](Self::hand_over).
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    pub fn give(&mut self, slot: Slot, task: Task) {
        let given = &mut self.slots[slot.0 as usize].given;
        if given.is_empty() {
            self.touched.push(slot);
        }
        given.push(task);
    }

    /// Hands over what was given: many tasks cost as much as one.
    pub fn hand_over(&mut self) {
        for slot in self.touched.drain(..) {
            let PipeSlot { mailbox, given, .. } = &mut self.slots[slot.0 as usize];
            mailbox.send(|inbox| inbox.tasks.append(given));
        }
    }

    /// Stops this attempt of this task, if it has not ended. Its end is reported as usual.
    pub fn stop(&mut self, slot: Slot, seq: Seq, attempt: Attempt) {
        self.hand_over();
        if let Some(PipeSlot { mailbox, .. }) = self.slots.get(slot.0 as usize) {
            mailbox.send(|inbox| inbox.stops.push((seq, attempt)));
        }
    }

    /// Returns the tasks that have ended, each once and in this order for each slot, and the status of
    /// the slots after that.
    pub fn take(&mut self) -> (Vec<Finished>, Vec<SlotStatus>) {
        let mut outbox = self.shared.outbox();
        (std::mem::take(&mut outbox.finished), std::mem::take(&mut outbox.statuses))
    }

    /// Returns why a slot will have no child any more, if that is so. The tasks that it was given wait
    /// there to be stopped.
    #[must_use]
    pub fn given_up(&self) -> Option<String> {
        self.shared.outbox().given_up.clone()
    }

    /// No more tasks will come: lets the children see the end of their input, and exit by
    /// themselves. Does not wait for them.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.tell_close(Close::AtLeisure);
    }

    fn tell_close(&self, close: Close) {
        for PipeSlot { mailbox, .. } in &self.slots {
            mailbox.send(|inbox| inbox.close = Some(close));
        }
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        // First all of them, then wait: their graces run side by side.
        if !self.is_closed {
            self.tell_close(Close::AtOnce);
        }
        for thread in self.slots.iter_mut().filter_map(|slot| slot.thread.take()) {
            // It has panicked only for a reason that is said already.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pipes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipes").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Shared {
    /// No outbox is ever left half changed, and dropping must not panic.
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports tasks that have ended in a slot, and the state of the slot.
    pub(super) fn report(&self, finished: impl Iterator<Item = Finished>, status: SlotStatus) {
        let mut outbox = self.outbox();
        outbox.finished.extend(finished);
        outbox.statuses.push(status);
        drop(outbox);
        (self.call)();
    }

    /// Reports that a slot will have no child any more.
    pub(super) fn give_up(&self, reason: &str) {
        self.outbox().given_up.get_or_insert_with(|| reason.to_owned());
        (self.call)();
    }
}

impl Mailbox {
    fn send(&self, put: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        put(&mut inbox);
        if !std::mem::replace(&mut inbox.is_called, true) {
            // Cannot fail: the counter goes from 0 to 1.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Returns the messages that have arrived, if there are any.
    pub(super) fn take(&self) -> Option<Inbox> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if !inbox.is_called {
            return None;
        }
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        Some(std::mem::take(&mut inbox))
    }
}
