//! Those who want tasks to be run again. They are patient where a key tells that it is the same wish, and give up
//! else when they get no answer.

use bytes::Bytes;
use tradewind_proto::Seq;
use tradewind_proto::message::Status;
use tradewind_store::{StoredTask, TaskOptions, retry};

use super::submit::{Reply, Request};
use super::{Serve, Turn};
use crate::event::Event;
use crate::world::World;

/// Wish that a task is run again.
#[derive(Debug)]
pub(super) struct Retry {
    of: u64,
    key: Option<Bytes>,
    is_done: bool,
}

/// Number of wishes of a world, so that many worlds can be played.
const RETRIES_MAX: usize = 100;

/// Bytes of records that are read at a time.
const READ_BYTES_MAX: usize = 2_000;

impl Retry {
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }
}

impl Serve {
    /// Returns the task that is to be submitted for a wish.
    pub(super) fn retry_of(&self, retry: usize) -> StoredTask {
        let Retry { of, key, .. } = &self.retries[retry];
        let task = &self.account.tasks[*of as usize];
        let options = TaskOptions { retry_of: Some(*of), ..task.options };
        StoredTask { key: key.clone(), options, payload: task.payload.clone() }
    }
}

impl World {
    /// Somebody wants a task to be run again: dice say which, and whether under a key.
    pub(super) fn ask_retry(&mut self, dice: u64) {
        let serve = self.serve();
        let count = serve.account.count();
        let not_ok = &serve.account.not_ok;
        let (kind, key, dice) = (dice % 8, dice / 8 % 4, dice >> 8);
        let of = match kind {
            // Any task, in any state.
            0 | 1 => dice.checked_rem(count),
            _ => not_ok
                .iter()
                .nth(dice.checked_rem(not_ok.len() as u64).unwrap_or(0) as usize)
                .copied(),
        };
        let Some(of) = of else { return };
        let key = match key {
            0 => None,
            // Which may be that of another task.
            1 => Some(Bytes::from(format!("key-{}", dice % (2 * count)))),
            _ => Some(key_of(of)),
        };
        self.want_retry(of, key);
    }

    /// Somebody wants all tasks to be run again that have failed, as `tradewind retry --failed` does.
    pub(super) fn ask_retry_failed(&mut self) {
        let mut failed = Vec::new();
        let Some(logs) = &self.serve().logs else { return };
        let mut records = logs.records.borrow_mut();
        let mut next = records.first();
        loop {
            let (read, then) = match records.read(next, READ_BYTES_MAX) {
                Ok(read) => read,
                Err(error) => {
                    drop(records);
                    return self.check.fail(|| format!("the records: {error}"));
                }
            };
            if read.is_empty() {
                break;
            }
            let is_failed =
                |status| matches!(status, Status::Failed | Status::TimedOut | Status::Lost);
            let read = read.into_iter().map(|(_, record)| record);
            failed.extend(read.filter(|it| is_failed(it.status)).map(|it| it.seq.0));
            next = then;
        }
        drop(records);
        failed.into_iter().for_each(|of| self.want_retry(of, Some(key_of(of))));
    }

    fn want_retry(&mut self, of: u64, key: Option<Bytes>) {
        let now = self.now;
        let serve = self.serve();
        if serve.retries.len() < RETRIES_MAX {
            let way = serve.rng.u64(30..2_000);
            let request = Request::Retry(serve.retries.len());
            serve.account.asked_retries.insert((of, key.clone()));
            serve.retries.push(Retry { of, key, is_done: false });
            self.queue.push(now + way, Event::Queue(Turn::Request(request)));
        }
    }

    /// Sends a wish again that got no answer, if that is the same wish then.
    pub(super) fn retry_again(&mut self, retry: usize) {
        let now = self.now;
        let serve = self.serve();
        let it = &mut serve.retries[retry];
        it.is_done = it.key.is_none();
        if !it.is_done {
            let backoff = serve.rng.u64(1_000..1_000_000);
            let again = Turn::Request(Request::Retry(retry));
            self.queue.push(now + backoff, Event::Queue(again));
        }
    }

    /// Returns what is to be submitted for a wish that is at the process, which lives. `None` if it is answered.
    pub(super) fn take_retry(&mut self, retry_at: usize) -> Option<StoredTask> {
        let serve = self.serve();
        let wanted = serve.retry_of(retry_at);
        let Retry { of, key, .. } = &serve.retries[retry_at];
        let of = *of;
        let logs = serve.logs.as_ref()?;
        let (records, tasks) = (|| logs.records.borrow_mut(), || logs.tasks.borrow_mut());
        let answer = match retry(records, tasks, of, key.clone()) {
            Ok(answer) => answer,
            Err(error) => {
                self.check.fail(|| format!("task {of} cannot be run again: {error}"));
                return None;
            }
        };
        let judged = serve.account.judge_retry(of, &wanted, &answer);
        let judged = judged.and_then(|()| serve.judge_gone(of, &wanted, &answer));
        self.trace.say(self.now, || format!("task {of} is to be run again: {answer:?}"));
        if let Err(problem) = judged {
            self.check.fail(|| problem);
            return None;
        }
        if let tradewind_store::Retry::New(task) = answer {
            return Some(task);
        }
        let serve = self.serve();
        let request = Request::Retry(retry_at);
        let reply = Reply { request, life: serve.life, is_final: true };
        let way = serve.rng.u64(30..2_000);
        self.queue.push(self.now + way, Event::Queue(Turn::Reply(reply)));
        None
    }

    pub(super) fn handle_retry_reply(&mut self, retry: usize, reply: Reply) {
        let serve = self.serve();
        // With the process its connections may go, and now and then one goes by itself.
        let is_lost = serve.rng.u8(0..8) == 0 || reply.life != serve.life && serve.rng.bool();
        if is_lost || !reply.is_final {
            return self.retry_again(retry);
        }
        serve.retries[retry].is_done = true;
    }
}

impl Serve {
    /// Checks that a task that is said to be gone is, and that it is not run again already under the key.
    fn judge_gone(
        &self,
        of: u64,
        wanted: &StoredTask,
        answer: &tradewind_store::Retry,
    ) -> Result<(), String> {
        let (Some(logs), tradewind_store::Retry::Gone) = (&self.logs, answer) else {
            return Ok(());
        };
        let mut tasks = logs.tasks.borrow_mut();
        let known = wanted.key.as_ref().and_then(|key| self.account.last_of(key));
        let is_there = |tasks: &mut tradewind_store::Tasks<_>, position| {
            tasks.task(position).map_err(|error| format!("task {position}: {error}"))
        };
        if let Some(known) = known
            && self.account.tasks[known as usize].options.retry_of == Some(of)
            && is_there(&mut tasks, known)?.is_some()
        {
            return Err(format!("task {of} was said to be gone, and {known} is its retry"));
        }
        let is_kept = logs.records.borrow_mut().position_of(Seq(of));
        let is_kept = is_kept.map_err(|error| format!("record of {of}: {error}"))?.is_some();
        if is_kept && is_there(&mut tasks, of)?.is_some() {
            return Err(format!("task {of} was said to be gone, and is there with its record"));
        }
        Ok(())
    }
}

/// Returns the key under which a task is run again, as the command has it.
fn key_of(of: u64) -> Bytes {
    Bytes::from(format!("retry-of-queue-{of}"))
}
