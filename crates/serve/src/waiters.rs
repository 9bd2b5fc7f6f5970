//! Who waits for the records of tasks.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who waits for the records of tasks, by the numbers of these.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<HashMap<u64, Vec<oneshot::Sender<()>>>>);

impl Waiters {
    /// Returns what ends when the record of a task is stored. One that is stored already does not end it: to be
    /// looked at after this.
    pub(crate) fn wait(&self, task: u64) -> oneshot::Receiver<()> {
        let (waiter, stored) = oneshot::channel();
        let mut waiting = self.lock();
        let waiters = waiting.entry(task).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(waiter);
        stored
    }

    /// Tells those who wait that the records of these tasks are stored.
    pub(crate) fn tell(&self, tasks: impl Iterator<Item = u64>) {
        let mut waiting = self.lock();
        if waiting.is_empty() {
            return;
        }
        for task in tasks {
            for waiter in waiting.remove(&task).into_iter().flatten() {
                let _ = waiter.send(());
            }
        }
    }

    /// Forgets who does not wait any more.
    pub(crate) fn forget_closed(&self) {
        self.lock().retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Vec<oneshot::Sender<()>>>> {
        // Nothing in here panics in the middle of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_task_is_told_of_that_one_and_who_left_is_forgotten() {
        let waiters = Waiters::default();
        let (mut first, mut second, mut other) =
            (waiters.wait(7), waiters.wait(7), waiters.wait(8));
        drop(waiters.wait(9));
        assert_eq!(waiters.lock().len(), 3);
        waiters.forget_closed();
        assert_eq!(waiters.lock().len(), 2);
        waiters.tell([7, 10].into_iter());
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(()), Ok(())));
        other.try_recv().expect_err("it has no record");
        assert_eq!(waiters.lock().len(), 1);
    }
}
