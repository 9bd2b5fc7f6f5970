//! Those who submit tasks. They are patient: what was not answered they send again, under the same keys; and they
//! die, and begin again from some request on.

use bytes::Bytes;
use tradewind_store::{StoredTask, SubmitError, Submitted, TaskOptions};

use super::{Serve, Turn};
use crate::event::Event;
use crate::world::World;

/// One who submits.
#[derive(Debug, Default)]
pub(super) struct Submitter {
    /// The request that is its turn.
    at: usize,
    /// Counts what it sends: answers to what it sent before do not reach it.
    attempt: u64,
    /// Number of times that it began again from the first request on.
    restarts: u32,
    is_done: bool,
}

/// A request at the process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// Of one who submits.
    Submit {
        submitter: usize,
        attempt: u64,
        /// Place of the request among those of its submitter.
        place: usize,
    },
    /// That a task is run again, by its place among such wishes.
    Retry(usize),
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(super) request: Request,
    /// Life of the process that answers.
    pub(super) life: u64,
    /// Whether there is nothing to be sent again: all is promised, or refused for good.
    pub(super) is_final: bool,
}

impl Submitter {
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }
}

/// Number of times that a submitter begins from its first request on.
const RESTARTS_MAX: u32 = 2;

impl Serve {
    fn tasks_of(&self, submitter: usize, place: usize) -> Vec<StoredTask> {
        let wishes = &self.plan.submitters[submitter].requests[place];
        let task = |place: &usize| {
            let wish = &self.plan.wishes[*place];
            let mut payload = format!("wish {place} ").into_bytes();
            payload.resize(payload.len() + wish.task.payload_bytes, b'-');
            StoredTask {
                key: wish.key.map(|key| Bytes::from(format!("key-{key}"))),
                options: TaskOptions {
                    retries: wish.limits.retries,
                    timeout: wish.limits.timeout,
                    retry_of: None,
                },
                payload: payload.into(),
            }
        };
        wishes.iter().map(task).collect()
    }
}

impl World {
    pub(super) fn submit(&mut self, submitter: usize) {
        let now = self.now;
        let calm_at = self.plan.calm_at;
        let serve = self.serve();
        let plan = &serve.plan.submitters[submitter];
        let me = &mut serve.submitters[submitter];
        if me.at >= plan.requests.len() {
            me.is_done = true;
            return;
        }
        me.attempt += 1;
        let request = Request::Submit { submitter, attempt: me.attempt, place: me.at };
        let way = serve.rng.u64(30..2_000);
        if now < calm_at && serve.rng.u8(0..100) < plan.dies_percent {
            // The answer does not reach it.
            me.attempt += 1;
            if me.restarts < RESTARTS_MAX && serve.rng.bool() {
                (me.at, me.restarts) = (0, me.restarts + 1);
            }
            let back = serve.rng.u64(0..500_000);
            self.queue.push(now + back, Event::Queue(Turn::Submit(submitter)));
        }
        self.queue.push(now + way, Event::Queue(Turn::Request(request)));
    }

    fn submit_again(&mut self, request: Request) {
        let (submitter, attempt) = match request {
            Request::Submit { submitter, attempt, .. } => (submitter, attempt),
            Request::Retry(retry) => return self.retry_again(retry),
        };
        let now = self.now;
        let serve = self.serve();
        if serve.submitters[submitter].attempt == attempt {
            let backoff = serve.rng.u64(1_000..1_000_000);
            let again = Turn::Submit(submitter);
            self.queue.push(now + backoff, Event::Queue(again));
        }
    }

    /// Requests that wait get no answer.
    pub(super) fn break_requests(&mut self) {
        for (request, _) in std::mem::take(&mut self.serve().requests) {
            self.submit_again(request);
        }
    }

    pub(super) fn handle_request(&mut self, request: Request) {
        let now = self.now;
        let (least, most) = self.plan.write_us;
        if self.serve().logs.is_none() {
            return self.submit_again(request);
        }
        let tasks = match request {
            Request::Submit { submitter, place, .. } => self.serve().tasks_of(submitter, place),
            Request::Retry(retry) => match self.take_retry(retry) {
                Some(task) => vec![task],
                None => return,
            },
        };
        let serve = self.serve();
        serve.requests.push((request, tasks));
        if serve.requests.len() == 1 {
            let (life, takes) = (serve.life, serve.rng.u64(least..=most));
            self.queue.push(now + takes, Event::Queue(Turn::Commit(life)));
        }
    }

    /// Takes what was sent, and syncs it together.
    pub(super) fn commit_requests(&mut self) {
        let serve = self.serve();
        let Serve { logs: Some(logs), requests, .. } = serve else { return };
        let tasks = logs.tasks.get_mut();
        let answers: Vec<_> =
            requests.iter().map(|(_, wanted)| tasks.submit_all(wanted.clone())).collect();
        let committed = tasks.commit();
        if committed.is_err() {
            tasks.discard();
        }
        if self.has_died() {
            return;
        }
        let serve = self.serve();
        let requests = std::mem::take(&mut serve.requests);
        let before = serve.account.count();
        if committed.is_ok() {
            let Some(mut logs) = serve.logs.take() else { return };
            let learned = serve.learn(&mut logs);
            serve.submitted = logs.tasks.get_mut().committed();
            serve.logs = Some(logs);
            if let Err(problem) = learned {
                return self.check.fail(|| problem);
            }
        }
        let mut new = 0;
        for ((request, wanted), answer) in requests.into_iter().zip(answers) {
            let serve = self.serve();
            let (is_final, judged) = match answer {
                Ok(submitted) if committed.is_ok() => {
                    let is_new = |it: &&Submitted| matches!(it, Submitted::New(_));
                    new += submitted.iter().filter(is_new).count() as u64;
                    let mut pairs = wanted.iter().zip(submitted);
                    (true, pairs.try_for_each(|(task, it)| serve.account.answered(task, it)))
                }
                Err(error) => match error.error {
                    SubmitError::OtherTask { position } if committed.is_ok() => {
                        (true, serve.account.refused(&wanted[..=error.place], position))
                    }
                    SubmitError::TwoTasks if committed.is_ok() => {
                        (true, serve.account.refused_by_itself(&wanted[..=error.place]))
                    }
                    _ => (false, Ok(())),
                },
                Ok(_) => (false, Ok(())),
            };
            if let Err(problem) = judged {
                return self.check.fail(|| problem);
            }
            let reply = Reply { request, life: serve.life, is_final };
            let at = self.now + self.serve().rng.u64(30..2_000);
            self.queue.push(at, Event::Queue(Turn::Reply(reply)));
        }
        let count = self.serve().account.count();
        if count - before != new {
            self.check
                .fail(|| format!("{new} tasks were said to be new, and {} are", count - before));
        }
        self.check.progressed(self.now);
        self.note_learned();
        self.want_input();
    }

    pub(super) fn handle_reply(&mut self, reply: Reply) {
        let now = self.now;
        let Reply { request, life, is_final } = reply;
        let (submitter, attempt) = match request {
            Request::Submit { submitter, attempt, .. } => (submitter, attempt),
            Request::Retry(retry) => return self.handle_retry_reply(retry, reply),
        };
        let serve = self.serve();
        let me = &mut serve.submitters[submitter];
        if me.attempt != attempt {
            return;
        }
        // With the process its connections may go.
        if !is_final || life != serve.life && serve.rng.bool() {
            return self.submit_again(request);
        }
        me.at += 1;
        let gap = serve.rng.u64(0..=serve.plan.submitters[submitter].gap_us);
        self.queue.push(now + gap, Event::Queue(Turn::Submit(submitter)));
    }
}
