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

/// Where a slot stands after all that has ended there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The slot.
    pub slot: Slot,
    /// So many tasks it takes at once.
    pub depth: u32,
    /// The task that it is at, and from when on its timeout counts.
    pub under_way: Option<(Seq, Attempt, Time)>,
}

struct PipeSlot {
    desk: Arc<Desk>,
    /// Not handed over yet.
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
    standings: Vec<Standing>,
    given_up: Option<String>,
}

/// Mailbox of a slot's thread.
pub(super) struct Desk {
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
            let desk = Arc::new(Desk { inbox: Mutex::default(), wake });
            let thread = thread::Builder::new().name(format!("pipe-{}", slot.0)).spawn({
                let (shared, desk) = (Arc::clone(&pipes.shared), Arc::clone(&desk));
                move || slot::run(slot, &shared, &desk)
            })?;
            pipes.slots.push(PipeSlot { desk, given: Vec::new(), thread: Some(thread) });
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
            let PipeSlot { desk, given, .. } = &mut self.slots[slot.0 as usize];
            desk.tell(|inbox| inbox.tasks.append(given));
        }
    }

    /// Stops this attempt of this task, if it has not ended. Its end is reported as usual.
    pub fn stop(&mut self, slot: Slot, seq: Seq, attempt: Attempt) {
        self.hand_over();
        if let Some(PipeSlot { desk, .. }) = self.slots.get(slot.0 as usize) {
            desk.tell(|inbox| inbox.stops.push((seq, attempt)));
        }
    }

    /// Returns the tasks that have ended, each once and in this order for each slot, and the status of
    /// the slots after that.
    pub fn take(&mut self) -> (Vec<Finished>, Vec<Standing>) {
        let mut outbox = self.shared.outbox();
        (std::mem::take(&mut outbox.finished), std::mem::take(&mut outbox.standings))
    }

    /// Why a slot will have no child any more. What it was given waits there to be stopped.
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
        for PipeSlot { desk, .. } in &self.slots {
            desk.tell(|inbox| inbox.close = Some(close));
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

    /// Some tasks have ended in a slot, and this is where it stands now.
    pub(super) fn report(&self, finished: impl Iterator<Item = Finished>, standing: Standing) {
        let mut outbox = self.outbox();
        outbox.finished.extend(finished);
        outbox.standings.push(standing);
        drop(outbox);
        (self.call)();
    }

    /// A slot will have no child any more.
    pub(super) fn give_up(&self, reason: &str) {
        self.outbox().given_up.get_or_insert_with(|| reason.to_owned());
        (self.call)();
    }
}

impl Desk {
    fn tell(&self, say: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        say(&mut inbox);
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
