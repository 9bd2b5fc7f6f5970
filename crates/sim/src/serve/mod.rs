//! A queue: its process, which is ventilator, sink and store in one, and those who submit to it.
//!
//! Its logs are the real ones on a disk in memory. The process dies at any moment, also in the middle of a change of
//! the disk, and starts again as the real one does.

mod account;
mod asks;
mod disk;
pub(crate) mod plan;
mod retry;
mod store;
mod submit;

use std::cell::RefCell;

use bytes::Bytes;
use fastrand::Rng;
use tradewind_proto::collector::Records;
use tradewind_proto::dispatcher::Policy;
use tradewind_proto::message::Start;
use tradewind_proto::{Seq, SeqSet, SessionId};
use tradewind_store::{
    Change, Control, RecordBatches, RecordLog, StoredTask, TaskReader, Tasks, check,
};

use self::account::Account;
use self::disk::{Disk, Part};
use self::plan::QueuePlan;
use self::retry::Retry;
use self::submit::{Reply, Request, Submitter};
use crate::event::{Event, Instant, Process, Route};
use crate::mutation::Mutation;
use crate::plan::Plan;
use crate::sink::Sink;
use crate::ventilator::Ventilator;
use crate::world::World;

/// Something that happens to a queue.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    /// Its process starts.
    Start,
    /// A submitter begins with its next request.
    Submit(usize),
    /// A request is at the process.
    Request(Request),
    /// The process of this life syncs what was submitted.
    Commit(u64),
    /// An answer is at the submitter.
    Reply(Reply),
    /// A place in the plan's list is due.
    Ask(usize),
    /// A ventilator hears what was said, in this life of the process.
    Said(u64, Said),
    /// The workers that may hold tasks are noted.
    Noted(u64, Vec<SessionId>),
    /// Records that could not be stored are tried again.
    Rewrite(u64),
    /// The disk has room again.
    Room,
}

/// What is said to a ventilator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said {
    Cancel(Seq),
    Pause(bool),
    SetPolicy { retries: u32, max_running: Option<u64> },
}

/// A queue.
pub(crate) struct Serve {
    pub(crate) plan: QueuePlan,
    pub(crate) account: Account,
    disk: Disk,
    /// While the process lives.
    logs: Option<Logs>,
    /// Number of starts.
    life: u64,
    /// Requests that wait for the disk, with their tasks.
    requests: Vec<(Request, Vec<StoredTask>)>,
    submitters: Vec<Submitter>,
    /// Those who want tasks to be run again.
    retries: Vec<Retry>,
    /// Records on their way into the log, and the number of lists of them that the collector has given.
    batches: RecordBatches,
    under_way: Vec<Records>,
    lists: usize,
    /// The ventilator's input.
    reader: TaskReader,
    /// Position after the last task that was there when the process started.
    before: u64,
    /// Position behind the last task that is promised.
    submitted: u64,
    is_input_due: bool,
    /// Workers that may hold tasks, as they are noted on the disk.
    workers: Option<Vec<SessionId>>,
    /// Whether the machine dies with the process that dies in the middle of a change.
    is_machine: bool,
    is_calm: bool,
    /// Whether a machine has died of a queue that is not synced: what is left is looked at, and the world ends.
    is_lost: bool,
    /// Time at which the ventilator hears what was said last.
    said_at: Instant,
    rng: Rng,
}

struct Logs {
    tasks: RefCell<Tasks<Part>>,
    records: RefCell<RecordLog<Part>>,
    control: Control<Part>,
    failed: RefCell<SeqSet>,
}

/// Name of the setting that is the id of the queue's job, and that of its key.
const JOB: &str = ".job";
const TAGS: &str = ".tags";

/// Name of the setting that is the policy.
const POLICY: &str = "policy";

/// Longest time until a process that died is back, in microseconds.
const BACK_US_MAX: [u64; 3] = [1_000, 1_000_000, 15_000_000];

impl Serve {
    pub(crate) fn new(plan: QueuePlan, seed: u64, mutation: Option<Mutation>) -> Self {
        let submitters = plan.submitters.iter().map(|_| Submitter::default()).collect();
        Self {
            account: Account::new(plan.forgets_keys),
            disk: Disk::new(
                seed ^ 0x0d15c,
                mutation == Some(Mutation::AnswerEarly),
                plan.is_synced,
            ),
            logs: None,
            life: 0,
            requests: Vec::new(),
            submitters,
            retries: Vec::new(),
            batches: RecordBatches::default(),
            under_way: Vec::new(),
            lists: 0,
            reader: TaskReader::new(SeqSet::new()),
            before: 0,
            submitted: 0,
            is_input_due: false,
            workers: None,
            is_machine: false,
            is_calm: false,
            is_lost: false,
            said_at: 0,
            rng: Rng::with_seed(seed ^ 0x05e4_0e00),
            plan,
        }
    }

    /// Returns whether records could not be stored, and wait for the next time that it is tried.
    pub(crate) fn is_retrying(&self) -> bool {
        self.lists > 0
    }

    /// Returns whether nothing is to be done any more.
    fn is_over(&self) -> bool {
        self.is_calm
            && self.logs.is_some()
            && self.submitters.iter().all(Submitter::is_done)
            && self.retries.iter().all(Retry::is_done)
            && self.account.records.len() == self.account.tasks.len()
    }
}

/// Returns the limits that a queue has, by its plan and what was set.
fn policy_of(plan: &Plan, set: Option<&Bytes>) -> Policy {
    let policy = crate::ventilator::policy(plan);
    let Some(set) = set else { return policy };
    let number = |at: usize| u64::from_le_bytes(set[at..at + 8].try_into().expect("8 bytes"));
    set_policy(policy, number(0) as u32, Some(number(8)).filter(|most| *most > 0))
}

fn set_policy(policy: Policy, retries: u32, max_running: Option<u64>) -> Policy {
    Policy { retries, max_running, ..policy }
}

fn encode_policy(retries: u32, max_running: Option<u64>) -> Bytes {
    let numbers = [u64::from(retries), max_running.unwrap_or(0)];
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

impl World {
    /// The queue of a world that has one.
    pub(crate) fn serve(&mut self) -> &mut Serve {
        self.serve.as_mut().expect("only such worlds ask for it")
    }

    pub(crate) fn begin_queue(&mut self) {
        (self.ventilator.is_alive, self.sink.is_alive) = (false, false);
        self.queue.push(0, Event::Queue(Turn::Start));
        let Serve { plan, .. } = self.serve.as_deref().expect("it is a queue");
        for (submitter, it) in plan.submitters.iter().enumerate() {
            self.queue.push(it.starts_at, Event::Queue(Turn::Submit(submitter)));
        }
        for (place, (at, _)) in plan.asks.iter().enumerate() {
            self.queue.push(*at, Event::Queue(Turn::Ask(place)));
        }
    }

    pub(crate) fn handle_turn(&mut self, turn: Turn) {
        match turn {
            Turn::Start => self.start_serve(),
            Turn::Submit(submitter) => self.submit(submitter),
            Turn::Request(request) => self.handle_request(request),
            Turn::Commit(life) if life == self.serve().life => self.commit_requests(),
            Turn::Reply(reply) => self.handle_reply(reply),
            Turn::Ask(place) => self.ask(place),
            Turn::Said(life, said) if life == self.serve().life => self.hear_said(said),
            Turn::Noted(life, workers) if life == self.serve().life => {
                self.serve().workers = Some(workers);
            }
            Turn::Rewrite(life) if life == self.serve().life => self.commit_records(),
            Turn::Room => self.serve().disk.limit(None),
            // Of a process that has died.
            Turn::Commit(_) | Turn::Said(..) | Turn::Noted(..) | Turn::Rewrite(_) => {}
        }
    }

    /// The process dies.
    fn kill_serve(&mut self, is_machine: bool) {
        if self.serve().logs.take().is_none() {
            return;
        }
        self.trace.say(self.now, || format!("the queue dies, its machine with it: {is_machine}"));
        (self.ventilator.is_alive, self.sink.is_alive) = (false, false);
        for process in [Process::Ventilator, Process::Sink] {
            self.abandon(process, is_machine);
        }
        let now = self.now;
        let serve = self.serve();
        serve.disk.crash(is_machine);
        serve.is_lost |= is_machine && !serve.plan.is_synced;
        serve.life += 1;
        let back_us = BACK_US_MAX[serve.rng.usize(0..3)];
        let back_us = if serve.is_calm { 1_000 } else { serve.rng.u64(0..back_us) };
        self.queue.push(now + back_us, Event::Queue(Turn::Start));
        self.break_requests();
        self.check.progressed(now);
    }

    /// Returns whether the process has died in the middle of a change.
    fn has_died(&mut self) -> bool {
        let serve = self.serve();
        let is_dead = serve.disk.is_dead();
        if is_dead {
            let is_machine = serve.is_machine;
            self.kill_serve(is_machine);
        }
        is_dead
    }

    fn start_serve(&mut self) {
        let Self { plan, serve, check, .. } = self;
        let Some(serve) = serve.as_mut().filter(|serve| serve.logs.is_none()) else { return };
        let opened =
            if serve.is_lost { serve.open_what_is_left(self.mutation) } else { serve.open() };
        match opened {
            Ok(()) if serve.is_lost => {
                let (count, left) = (serve.account.count(), serve.submitted);
                return self.trace.say(self.now, || {
                    format!("the queue has {left} of {count} tasks after its machine has died")
                });
            }
            Ok(()) => {}
            Err(_) if serve.disk.is_dead() => {
                serve.disk.crash(serve.is_machine);
                serve.is_lost |= serve.is_machine && !serve.plan.is_synced;
                return self.queue.push(self.now + 1_000_000, Event::Queue(Turn::Start));
            }
            Err(_) if serve.disk.is_limited() => {
                return self.queue.push(self.now + 1_000_000, Event::Queue(Turn::Start));
            }
            Err(problem) => return check.fail(|| problem),
        }
        let starts = serve.life;
        let begun_again = serve.begin_job_again();
        if begun_again.is_some() {
            // It may be there as well where that failed.
            check.restarted(0);
            check.began_again();
        }
        if begun_again == Some(false) || serve.disk.is_dead() {
            // A queue that cannot be opened ends its program, or it has died.
            let is_machine = serve.disk.is_dead() && serve.is_machine;
            return self.kill_serve(is_machine);
        }
        let logs = serve.logs.as_ref().expect("they were just opened");
        let state = logs.control.state();
        let has_job = state.settings.contains_key(JOB);
        let set = policy_of(plan, state.settings.get(POLICY));
        let is_paused = state.paused;
        let cancelled: Vec<Seq> = state.cancelled.iter().collect();
        let mut recorded = logs.records.borrow().stored().clone();
        let is_late = self.mutation == Some(Mutation::SkipTask) && has_job;
        if is_late && recorded.first_missing().0 < serve.submitted {
            recorded.insert(recorded.first_missing());
        }
        let reader = TaskReader::new(recorded);
        let first = Seq(reader.position());
        self.trace.say(self.now, || {
            format!("the queue starts from {first}, has begun: {has_job}, paused: {is_paused}")
        });
        if has_job && begun_again.is_none() {
            check.restarted(0);
        }
        check.forgot_claims();
        (serve.reader, serve.before, serve.is_input_due) = (reader, serve.submitted, false);
        let workers = serve.workers.clone();
        let start = if has_job { Start::Resume } else { Start::New };
        self.ventilator.start_queue(plan, starts, start, first, set);
        self.sink.start_queue(plan, starts, workers);
        if is_paused {
            self.ventilator.dispatcher.handle_pause();
        }
        let account = &mut serve.account;
        account.is_held = is_paused;
        for seq in &cancelled {
            account.cancel_heard(seq.0);
            if self.mutation != Some(Mutation::ForgetCancels) {
                self.ventilator.dispatcher.handle_cancel_task(*seq);
            }
        }
        self.note_found();
        self.check.progressed(self.now);
        let stage = self.plan.stage(0);
        self.dial_anew(Route::Job(stage));
        self.dial_anew(Route::Receipts(stage));
        self.want_input();
        self.drive(Process::Ventilator);
        self.drive(Process::Sink);
    }

    pub(crate) fn is_queue_over(&self) -> bool {
        self.serve.as_ref().is_some_and(|serve| {
            serve.is_lost && serve.logs.is_some()
                || serve.is_over() && self.now > self.plan.calm_at && {
                    let snapshot = self.ventilator.dispatcher.snapshot();
                    snapshot.settled >= serve.account.count()
                }
        })
    }

    /// Looks at all that there is when everything is done.
    pub(crate) fn judge_queue(&mut self) -> Option<String> {
        if !self.is_queue_over() {
            return Some("nothing happens any more, and something is left to do".to_owned());
        }
        if self.serve().is_lost {
            return None;
        }
        let is_synced = self.serve().plan.is_synced;
        self.kill_serve(is_synced);
        let serve = self.serve();
        if let Err(problem) = serve.open() {
            return Some(problem);
        }
        let logs = serve.logs.as_ref()?;
        let count = logs.records.borrow().stored().count();
        // After it was opened: what there is of the index need not be synced, and is made again.
        let report = check(serve.disk.media());
        if let Some(fault) = report.faults.first() {
            return Some(format!("the queue is damaged: {fault}"));
        }
        let wanted = serve.account.count();
        if count != wanted {
            return Some(format!("{count} records for {wanted} tasks"));
        }
        if is_synced {
            return None;
        }
        self.kill_serve(true);
        let mutation = self.mutation;
        self.serve().open_what_is_left(mutation).err()
    }
}

impl Ventilator {
    fn start_queue(&mut self, plan: &Plan, starts: u64, start: Start, first: Seq, policy: Policy) {
        let seed = plan.seed.wrapping_add((starts + 1) << 32);
        let clock = std::mem::take(&mut self.clock);
        *self = Self::of_queue(plan, seed, start, first, policy);
        self.clock = clock;
        self.clock.restart();
    }
}

impl Sink {
    fn start_queue(&mut self, plan: &Plan, starts: u64, workers: Option<Vec<SessionId>>) {
        let clock = std::mem::take(&mut self.clock);
        *self = Self::new(plan, plan.seed.wrapping_add((starts + 1) << 32));
        self.know_workers(plan, workers);
        self.clock = clock;
        self.clock.restart();
    }
}

/// Returns a change that sets something.
fn setting(name: &str, value: Bytes) -> Change {
    Change::Setting(name.into(), Some(value))
}
