//! A worker's shell, and the processes of its tasks.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tradewind_proto::Payload;
use tradewind_proto::executor::{Executor, Finished, Start, Stop};
use tradewind_proto::farewell::{WorkerExit, WorkerFarewell, WorkerRules};
use tradewind_proto::limits::{FORGOTTEN_MAX, LATE_MAX};
use tradewind_proto::message::{Exit, Outcome, Report, Status, Task, ToSink};
use tradewind_proto::{Attempt, Seq, SessionId, Slot, Tag, TaskHash, Time};
use tradewind_testkit::{Accepts, ExecutorAction, Machine};
use tradewind_wire::encode;

use crate::check::RunEnd;
use crate::event::{ConnectionId, Event, Instant, Process, Route, Stage};
use crate::mutation::Mutation;
use crate::plan::{Fate, Lie, Sickness};
use crate::world::{Clock, POLLS_MAX, World};

pub(crate) struct Worker {
    pub(crate) seat: usize,
    pub(crate) stage: Stage,
    pub(crate) session: SessionId,
    pub(crate) slots: u32,
    pub(crate) executor: Executor,
    pub(crate) farewell: WorkerFarewell,
    /// Bytes of its results that the network has carried.
    pub(crate) sent_bytes: u64,
    pub(crate) clock: Clock,
    pub(crate) is_alive: bool,
    pub(crate) lane: Option<ConnectionId>,
    pub(crate) results: Option<ConnectionId>,
    pub(crate) was_connected: bool,
    /// Time at which it was asked to leave, or had a result settled after that.
    pub(crate) leaving_since: Option<Instant>,
    /// Number of results that it retained at the last check.
    retained: u64,
    /// By slot, the task that runs, and behind it those that the slot's child has prefetched.
    runs: Vec<VecDeque<Run>>,
    /// By slot, the time at which its child is back; only where tasks are prefetched.
    child_back_at: Vec<Instant>,
    count: u64,
    /// Results that it says again, if it lies so.
    pub(crate) said: Vec<ToSink>,
    /// Tags that it was given, if it forges others.
    pub(crate) tags: BTreeMap<Seq, Tag>,
    /// For [`Mutation::RepeatTasks`].
    pub(crate) repeated: Option<Bytes>,
}

#[derive(Clone, Debug)]
struct Run {
    /// Tells this run's end from that of an earlier one in the slot; none yet if it has not begun.
    run: Option<u64>,
    seq: Seq,
    attempt: Attempt,
    payload: Payload,
    hash: TaskHash,
    started: Instant,
    is_stopped: bool,
}

impl Worker {
    pub(crate) fn name(&self) -> String {
        format!("seat-{}", self.seat)
    }
}

/// Time after which a worker is started again, in microseconds.
const SEATED_AFTER_US: u64 = 1_000_000;

/// The longest that a worker stays which was asked to leave, with no result settled meanwhile. The next stage
/// may take its time for each.
const LEAVING_US_MAX: u64 = 300_000_000;

/// The longest that a task takes to die of a signal.
const GRACE_US_MAX: u64 = 50_000;

/// The longest that a child takes to start.
const START_US_MAX: u64 = 2_000_000;

/// Largest number of tasks that a slot takes at once.
const DEPTH_MAX: u32 = 12;

impl World {
    pub(crate) fn spawn(&mut self, seat: usize) {
        if self.seated(seat).is_some() {
            return;
        }
        // One that is started again and again is no progress.
        if self.workers.iter().all(|other| other.seat != seat) {
            self.check.progressed(self.now);
        }
        let worker = self.workers.len();
        let session = SessionId(0x1000 + worker as u64);
        let slots = self.plan.seats[seat].slots;
        let stage = self.plan.stage(self.plan.seats[seat].stage);
        let executor = self.executor(seat, session);
        let is_forgetting = self.mutation != Some(Mutation::NeverForget);
        self.workers.push(Worker {
            seat,
            stage,
            session,
            slots,
            executor,
            farewell: WorkerFarewell::new(WorkerRules {
                exit_when_done: true,
                idle_max: None,
                late_max: self.plan.connect_timeout_us.is_none().then_some(LATE_MAX),
                forgotten_max: is_forgetting.then_some(FORGOTTEN_MAX),
            }),
            sent_bytes: 0,
            clock: Clock::default(),
            is_alive: true,
            lane: None,
            results: None,
            was_connected: false,
            leaving_since: None,
            retained: 0,
            runs: vec![VecDeque::new(); slots as usize],
            child_back_at: vec![0; slots as usize],
            count: 0,
            said: Vec::new(),
            tags: BTreeMap::new(),
            repeated: None,
        });
        if self.plan.seats[seat].sickness == Sickness::Lies(Lie::Repeats) {
            self.check.repeats(worker);
        }
        let later = self.rng.u64(0..2_000);
        self.queue.push(self.now, Event::Dial(Route::Tasks(worker, stage)));
        self.queue.push(self.now + later, Event::Dial(Route::Results(worker, stage)));
        self.drive(Process::Worker(worker));
    }

    pub(crate) fn drive_worker(&mut self, worker: usize) -> Option<Time> {
        let now = self.time_of(Process::Worker(worker));
        if self.mutation == Some(Mutation::WaitUnsettled) {
            self.workers[worker].sent_bytes += 1 << 20;
        }
        let Worker { executor, farewell, sent_bytes, .. } = &mut self.workers[worker];
        if let Some(step) = farewell.review(now, executor, *sent_bytes) {
            self.trace.say(self.now, || format!("worker {worker}: {step:?}"));
        }
        for polls in 0.. {
            if polls == POLLS_MAX {
                self.check.fail(|| "an executor never stops talking".to_owned());
                return None;
            }
            let executor = &mut self.workers[worker].executor;
            let Some(action) = executor.poll(now, Accepts::ALL) else { break };
            match action {
                ExecutorAction::Start(start) => self.start_task(worker, start),
                ExecutorAction::Stop(stop) => self.stop_task(worker, stop),
                ExecutorAction::Transmit(message) => {
                    let said = self.lied(worker, message);
                    if let Some(id) = self.workers[worker].results {
                        said.iter().for_each(|message| self.send(id, encode(message)));
                    }
                }
            }
        }
        let snapshot = self.workers[worker].executor.snapshot();
        self.check.held(snapshot.running as u64 + u64::from(snapshot.queued));
        let me = &mut self.workers[worker];
        if snapshot.retained < std::mem::replace(&mut me.retained, snapshot.retained) {
            me.leaving_since = me.leaving_since.map(|_| self.now);
        }
        let Worker { executor, farewell, leaving_since, .. } = &self.workers[worker];
        if leaving_since.is_some_and(|since| self.now > since + LEAVING_US_MAX) {
            self.check.fail(|| format!("worker {worker} was asked to leave, and stays"));
        }
        if let Some(exit) = farewell.exit(now, executor) {
            self.leave(worker, exit);
            return None;
        }
        Some(executor.poll_timeout().min(farewell.poll_timeout()))
    }

    fn executor(&mut self, seat: usize, session: SessionId) -> Executor {
        let plan = self.plan.seats[seat];
        let mut executor = Executor::new(session, plan.slots);
        if plan.is_feeding {
            executor = executor.with_prefetch();
            for slot in 0..plan.slots {
                executor.handle_depth(Slot(slot), self.rng.u32(1..=DEPTH_MAX));
            }
        }
        executor
    }

    fn start_task(&mut self, worker: usize, start: Start) {
        let Start { slot, task, .. } = start;
        let me = &mut self.workers[worker];
        let place = slot.0 as usize;
        if !me.runs[place].is_empty() && !self.plan.seats[me.seat].is_feeding {
            self.check.fail(|| format!("{slot:?} was given two tasks at a time"));
        }
        me.runs[place].push_back(Run {
            run: None,
            seq: task.seq,
            attempt: task.attempt,
            payload: task.payload,
            hash: task.hash,
            started: self.now,
            is_stopped: false,
        });
        self.begin(worker, place);
    }

    /// The first of a slot's tasks begins, if there is one that has not and a child to run it.
    pub(crate) fn begin(&mut self, worker: usize, slot: usize) {
        let now = self.time_of(Process::Worker(worker));
        let me = &mut self.workers[worker];
        let Some(run) = me.runs[slot].front().filter(|run| run.run.is_none()) else { return };
        if run.is_stopped {
            // No child was given it, and none will be.
            self.end_unrun(worker, slot);
            return;
        }
        if me.child_back_at[slot] > self.now {
            return;
        }
        let (seat, stage) = (me.seat, me.stage.index);
        let (seq, attempt) = (run.seq, run.attempt);
        let mut payload = run.payload.clone();
        self.trace.say(self.now, || format!("worker {worker} starts {seq}, attempt {attempt}"));
        if self.mutation == Some(Mutation::MixPayloads) && self.rng.u8(0..100) == 0 {
            payload = self.check.payload(seq.0.saturating_sub(1) as usize, stage);
        }
        if self.is_lacking(worker) {
            self.put_back(worker, slot);
            return;
        }
        self.check.started(worker, stage, seq, attempt, &payload, self.now);
        let Some(plan) = self.plan.tasks.get(seq.0 as usize) else { return };
        let takes = match self.plan.seats[seat].sickness {
            Sickness::Fails { until_us } if self.now < until_us => 1_000,
            _ => plan.run_us * self.plan.seats[seat].slowness,
        };
        let me = &mut self.workers[worker];
        me.count += 1;
        let number = me.count;
        if let Some(run) = me.runs[slot].front_mut() {
            (run.run, run.payload, run.started) = (Some(number), payload, self.now);
        }
        if self.plan.seats[seat].is_feeding {
            me.executor.handle_under_way(Slot(slot as u32), seq, attempt, now);
        }
        let ended = Event::TaskEnded { worker, slot, run: number };
        self.queue.push(self.now + takes, ended);
    }

    /// Returns whether more is asked of the host than it can do.
    fn is_lacking(&self, worker: usize) -> bool {
        let me = &self.workers[worker];
        let Sickness::Lacks { slots, until_us } = self.plan.seats[me.seat].sickness else {
            return false;
        };
        let runs = me.runs.iter().flatten().filter(|run| run.run.is_some()).count();
        self.now < until_us && runs >= slots as usize
    }

    /// A task cannot be started: the shell gives it back to the machine.
    fn put_back(&mut self, worker: usize, slot: usize) {
        let now = self.time_of(Process::Worker(worker));
        if self.mutation == Some(Mutation::FailUnstartable) {
            self.end_unrun(worker, slot);
            return;
        }
        let me = &mut self.workers[worker];
        let Some(run) = me.runs[slot].pop_front() else { return };
        let (seq, attempt, payload) = (run.seq, run.attempt, run.payload);
        let (tag, hash) = (Tag::default(), run.hash);
        let task = Task { seq, attempt, last: false, tag, hash, payload };
        me.executor.handle_unstartable(now, Slot(slot as u32), task);
    }

    /// Ends the first of a slot's tasks, which is not wanted any more, without running it.
    fn end_unrun(&mut self, worker: usize, slot: usize) {
        let started_us = self.now;
        let me = &mut self.workers[worker];
        me.runs[slot].pop_front();
        me.executor.handle_finished(Finished {
            slot: Slot(slot as u32),
            started_us,
            ran_us: 0,
            outcome: Outcome::error(Status::Failed, "stopped"),
            reported: None,
        });
        self.begin(worker, slot);
    }

    fn stop_task(&mut self, worker: usize, stop: Stop) {
        let grace = self.rng.u64(0..GRACE_US_MAX);
        let me = &mut self.workers[worker];
        let slot = stop.slot.0 as usize;
        let is_it = |run: &&mut Run| (run.seq, run.attempt) == (stop.seq, stop.attempt);
        let Some(run) = me.runs[slot].iter_mut().find(is_it).filter(|run| !run.is_stopped) else {
            return;
        };
        run.is_stopped = true;
        let seq = stop.seq;
        self.trace.say(self.now, || format!("worker {worker} stops {seq}"));
        if run.run.is_none() {
            self.begin(worker, slot);
            return;
        }
        me.count += 1;
        run.run = Some(me.count);
        let run = me.count;
        if me.leaving_since.is_some() {
            self.check.died(worker);
        }
        self.queue.push(self.now + grace, Event::TaskEnded { worker, slot, run });
    }

    /// Replaces a slot's child that has ended. The next one gets the tasks that it had prefetched.
    fn replace_child(&mut self, worker: usize, slot: usize) {
        let back_at = self.now + self.rng.u64(0..START_US_MAX);
        if self.mutation == Some(Mutation::ForgetFed) {
            self.workers[worker].runs[slot].clear();
        }
        self.workers[worker].child_back_at[slot] = back_at;
        self.queue.push(back_at, Event::ChildBack { worker, slot });
    }

    pub(crate) fn handle_task_ended(&mut self, worker: usize, slot: usize, number: u64) {
        let me = &mut self.workers[worker];
        if me.runs[slot].front().is_none_or(|run| run.run != Some(number)) {
            return;
        }
        let Some(run) = me.runs[slot].pop_front() else { return };
        let plan = self.plan.tasks[run.seq.0 as usize];
        let stage = me.stage.index;
        let sickness = self.plan.seats[me.seat].sickness;
        let (outcome, end) = match plan.fate_in(stage) {
            _ if run.is_stopped => {
                let mut outcome = Outcome::error(Status::Failed, "ended by a signal");
                outcome.exit = Exit::Signal(15);
                (outcome, RunEnd::Stopped)
            }
            Fate::Poison => {
                let seat = me.seat;
                if self.mutation == Some(Mutation::KillNeighbour) {
                    self.kill_neighbour(worker);
                }
                let back = self.rng.u64(0..500_000);
                self.kill(worker, false);
                self.queue.push(self.now + back, Event::Spawn(seat));
                return;
            }
            _ if matches!(sickness, Sickness::Fails { until_us } if run.started < until_us) => {
                let mut outcome = Outcome::error(Status::Failed, "its host is sick");
                outcome.exit = Exit::Code(127);
                (outcome, RunEnd::Failed)
            }
            Fate::FailsUpTo(attempt) if run.attempt.0 <= attempt => {
                let mut outcome = Outcome::error(Status::Failed, "it fails");
                outcome.exit = Exit::Code(1);
                (outcome, RunEnd::Failed)
            }
            Fate::Skips => (Outcome::error(Status::Skipped, ""), RunEnd::Ok),
            Fate::FailsUpTo(_) | Fate::Unfit => {
                (Outcome::ok(output(&run.payload, plan.output_bytes)), RunEnd::Ok)
            }
        };
        self.check.ended(worker, stage, run.seq, run.started, end, self.now);
        me.executor.handle_finished(Finished {
            slot: Slot(slot as u32),
            started_us: run.started,
            ran_us: self.now - run.started,
            outcome,
            reported: None,
        });
        if self.plan.seats[me.seat].is_feeding {
            me.executor.handle_depth(Slot(slot as u32), self.rng.u32(1..=DEPTH_MAX));
            if end == RunEnd::Stopped || end == RunEnd::Failed && self.rng.bool() {
                self.replace_child(worker, slot);
            }
            self.begin(worker, slot);
            self.drive(Process::Worker(worker));
            return;
        }
        // Like a real worker's slots, every other goes on with the next task before anybody is
        // asked.
        let next = me.executor.waiting().next().map(|(task, _)| task.clone());
        if number.is_multiple_of(2)
            && let Some(task) = next
        {
            let slot = Slot(slot as u32);
            let now = self.time_of(Process::Worker(worker));
            self.workers[worker].executor.handle_begun(now, slot, task.seq);
            self.start_task(worker, Start { slot, task, report: Report::default() });
        }
        self.drive(Process::Worker(worker));
    }

    /// A worker dies, and its tasks' processes with it.
    pub(crate) fn kill(&mut self, worker: usize, is_silent: bool) {
        self.trace.say(self.now, || format!("worker {worker} dies"));
        self.workers[worker].is_alive = false;
        self.check.died(worker);
        self.abandon(Process::Worker(worker), is_silent);
    }

    fn kill_neighbour(&mut self, worker: usize) {
        let is_other = |other: &usize| *other != worker && self.workers[*other].is_alive;
        let Some(other) = (0..self.workers.len()).find(is_other) else { return };
        let (seat, back) = (self.workers[other].seat, self.rng.u64(0..500_000));
        self.kill(other, false);
        self.queue.push(self.now + back, Event::Spawn(seat));
    }

    fn leave(&mut self, worker: usize, exit: WorkerExit) {
        if !self.workers[worker].is_alive {
            return;
        }
        self.trace.say(self.now, || format!("worker {worker} leaves: {exit:?}"));
        if !matches!(exit, WorkerExit::Late(_) | WorkerExit::Forgotten(_)) {
            self.check.progressed(self.now);
        }
        let me = &mut self.workers[worker];
        me.is_alive = false;
        let seat = me.seat;
        let is_running = me.runs.iter().any(|runs| !runs.is_empty());
        match exit {
            // Tasks that are not wanted any more are stopped.
            WorkerExit::JobDone => {
                self.check.left("a worker");
                self.seats_left.push(seat);
            }
            _ if is_running => self.check.fail(|| format!("worker {worker} left while a task ran")),
            WorkerExit::Drained | WorkerExit::Alone => {}
            // It was too early for that: it is started again.
            WorkerExit::Late(_) | WorkerExit::Forgotten(_) => self.seat_if_needed(seat),
        }
        self.check.died(worker);
        self.abandon(Process::Worker(worker), false);
    }

    /// Schedules the start of a worker that has ended by mistake, unless the job seems to be over.
    pub(crate) fn seat_if_needed(&mut self, seat: usize) {
        if self.is_job_over() {
            self.seats_left.push(seat);
        } else {
            self.queue.push(self.now + SEATED_AFTER_US, Event::Spawn(seat));
        }
    }

    /// A job that was taken to be over goes on: workers that had left are started again.
    pub(crate) fn seat_again(&mut self) {
        for seat in std::mem::take(&mut self.seats_left) {
            self.queue.push(self.now + SEATED_AFTER_US, Event::Spawn(seat));
        }
    }
}

/// Returns the output of a task: made of its payload, so that no two tasks write the same.
pub(crate) fn output(payload: &Payload, length: usize) -> Payload {
    let mut output = payload.to_vec();
    output.resize(payload.len() + length, b'.');
    output.into()
}
