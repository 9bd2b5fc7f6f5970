//! Loop of the worker: feeds the executor and does what it asks.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::sync::mpsc;
use tradewind_lanes::{Dialler, Endpoint, LaneOptions, PushLane};
use tradewind_node::doors::Port;
use tradewind_node::drive::EVENTS_MAX;
use tradewind_node::exit::{
    self, Audience, CLOSED, COMMAND, CONNECT, Fatal, HANDLER, OK, OUTPUT, OrExit, SYSTEM, USAGE,
    say,
};
use tradewind_node::keys::{MaybeKeys, keep_fresh, session};
use tradewind_node::links::{Conn, Inward, Outward, dialler, keep_inward, keep_outward, send};
use tradewind_node::{Asked, Shutdown};
use tradewind_proto::executor::{self, Executor, PutBack};
use tradewind_proto::farewell::{WorkerExit, WorkerFarewell, WorkerRules, WorkerStep};
use tradewind_proto::limits::{BATCH_TASKS_MAX, FORGOTTEN_MAX, LATE_MAX, LINGER, STARVED_MAX};
use tradewind_proto::message::{self, Card, Layout, Role, ToWorker};
use tradewind_proto::{Attempt, SessionId, Slot, Tag, Time};
use tradewind_system::Clock;

use crate::runner::{Runner, Running};
use tradewind_handlers::{
    Finished, Lack, RunQueue, SlotStatus, Task, Unstarted, clip, live_failure, stop_at_once,
};

/// Settings of a worker.
pub struct Settings {
    /// Address of the ventilator, which sends tasks.
    pub ventilator: Endpoint,
    /// Address of the sink, which gets results.
    pub sink: Endpoint,
    /// Queue whose tasks it runs; empty for a job.
    pub queue: String,
    /// Number of tasks that run at once.
    pub slots: u32,
    /// Name of the worker.
    pub name: String,
    /// Whether to exit when the job is over.
    pub exit_when_done: bool,
    /// Whether to exit with 0 if the ventilator was never reached: the job may be over.
    pub late_ok: bool,
    /// Time without a task after which the worker exits.
    pub exit_when_idle: Option<Duration>,
    /// Time for running tasks to finish after a request to stop. Then they are stopped and handed
    /// back.
    pub grace: Duration,
    /// Runner of the tasks.
    pub runner: Runner,
    /// Keys for TCP connections.
    pub keys: MaybeKeys,
    /// Limits of connections.
    pub lanes: LaneOptions,
    /// Time after which the ventilator or the sink counts as unreachable; `None` for no limit.
    pub connect_timeout: Option<Duration>,
    /// Time after which a worker leaves that has never reached the ventilator: [`Settings::late_max`].
    pub late_max: Option<Duration>,
    /// Time after which a worker leaves that has worked for a job and met no ventilator that knows it:
    /// [`Settings::forgotten_max`].
    pub forgotten_max: Option<Duration>,
    /// Socket that gets one byte as soon as a job is known.
    pub joined: Option<UnixDatagram>,
    /// Receiver of the message that the worker was stopped.
    pub audience: Audience,
}

impl Settings {
    /// Returns the time after which a worker leaves that has never reached the ventilator, if its
    /// flags say no more than this: one that leaves with the job may have come after the end.
    #[must_use]
    pub fn late_max(exit_when_done: bool, connect_timeout: Option<Duration>) -> Option<Duration> {
        (exit_when_done && connect_timeout.is_none()).then_some(LATE_MAX)
    }

    /// Returns the time after which a worker leaves that has worked for a job and met no ventilator that
    /// knows it, if its flags say no more than this: one that leaves with the job may have missed the end.
    #[must_use]
    pub fn forgotten_max(
        exit_when_done: bool,
        connect_timeout: Option<Duration>,
    ) -> Option<Duration> {
        exit_when_done.then_some(connect_timeout.unwrap_or_default().max(FORGOTTEN_MAX))
    }

    fn rules(&self) -> WorkerRules {
        WorkerRules {
            exit_when_done: self.exit_when_done,
            idle_max: self.exit_when_idle,
            late_max: self.late_max,
            forgotten_max: self.forgotten_max,
        }
    }
}

/// Event of a connection.
enum Event {
    Tasks(Inward<ToWorker>),
    Results(Outward),
}

/// Interval at which a worker with short tasks takes their outcomes, and sends the results.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Time after the first task that could not be started, until the number of slots that the host has
/// room for is known.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Runs tasks until a request to stop, or until the job is over if the settings say so.
///
/// # Errors
/// When a peer was not reached in time or is the wrong one, when keys cannot be used, when a handler that is
/// to stay up cannot be kept up, or when the system refuses a thread or a socket.
pub async fn run(settings: Settings, mut shutdown: Shutdown) -> exit::Outcome {
    keep_fresh(&settings.keys)?;
    let session = session(&settings.keys);
    let card = Card {
        role: Role::Worker,
        session,
        slots: settings.slots,
        message_bytes_max: settings.lanes.message_bytes_max,
        name: settings.name.clone(),
        queue: settings.queue.clone(),
    };
    let dial = |endpoint: &Endpoint, port| {
        dialler(endpoint.clone(), &settings.lanes, &card, port, &settings.keys)
    };
    let (events_in, mut events) = mpsc::channel(EVENTS_MAX);
    keep_inward(
        dial(&settings.ventilator, Port::Tasks)?,
        settings.connect_timeout,
        events_in.clone(),
        Event::Tasks,
    );
    let to_sink = ToSink {
        dialler: dial(&settings.sink, Port::Results)?,
        connect_timeout: settings.connect_timeout,
        events: events_in,
    };
    tracing::info!(
        name = settings.name,
        slots = settings.slots,
        ventilator = %settings.ventilator,
        sink = %settings.sink,
        "the worker is up"
    );
    let (ventilator, audience) = (settings.ventilator.clone(), settings.audience);
    let mut worker = Worker::new(settings, session, to_sink)?;
    // Dropped before the worker, which then waits for the tasks that it stops.
    let asked_again = shutdown.when_asked_again(stop_at_once);
    let exit = worker.work(&mut events, &mut shutdown).await?;
    worker.running.close();
    worker.say_goodbye(exit, &mut events).await;
    drop(asked_again);
    worker.outcome(exit, &ventilator, audience)
}

/// Returns the error of a standard output that takes no more bytes of commands.
fn cannot_show(error: &std::io::Error) -> Fatal {
    match error.kind() {
        // The reader has seen enough, as `head` does.
        std::io::ErrorKind::BrokenPipe => Fatal::new(CLOSED, ""),
        _ => Fatal::new(OUTPUT, format!("cannot write to standard output: {error}")),
    }
}

/// Connection to the sink, which is not made before the ventilator has accepted the worker: where
/// there is no room for all workers, the sink accepts those that the ventilator has accepted.
struct ToSink {
    dialler: Dialler,
    connect_timeout: Option<Duration>,
    events: mpsc::Sender<Event>,
}

struct Worker {
    clock: Clock,
    farewell: WorkerFarewell,
    /// Bytes of the largest message that this worker takes.
    message_bytes_max: u64,
    executor: Executor,
    running: Running,
    /// Layout that the handler has.
    layout: Layout,
    /// Number of tasks that run at once where the host lacks nothing.
    slots: u32,
    /// Time at which outcomes are taken, while tasks are short: the slots do not wake the loop
    /// then.
    look_at: Option<Time>,
    /// Number of tasks that have ended since outcomes were last taken.
    ended: usize,
    /// Whether one of these results must be sent at once.
    is_urgent: bool,
    to_sink: Option<ToSink>,
    sink: Option<(Conn, PushLane)>,
    /// Socket that waits for the first news of a job.
    joined: Option<UnixDatagram>,
    late_ok: bool,
    is_asked_to_stop: bool,
    grace: Duration,
    leaving: Option<Leaving>,
    shortage: Shortage,
    /// Bytes that were sent to the sink on connections that have ended.
    sent_bytes: u64,
}

/// Reason why a worker leaves of its own accord.
struct Leaving {
    /// Exit code.
    code: u8,
    reason: String,
}

/// Warnings about resources that the host lacks.
#[derive(Default)]
struct Shortage {
    /// Time of the next warning, by when the number of slots is known, and its text.
    unsaid: Option<(Time, String)>,
    /// Time of the last warning that nothing can be started.
    said: Option<Time>,
    /// Time at which slots were last removed so that commands can start processes too.
    left_room: Option<Time>,
}

impl Worker {
    fn new(settings: Settings, session: SessionId, to_sink: ToSink) -> Result<Self, Fatal> {
        let clock = Clock::default();
        let farewell = WorkerFarewell::new(settings.rules());
        let running = Running::new(settings.runner, settings.slots, clock).or_exit(SYSTEM)?;
        let executor = Executor::new(session, settings.slots);
        Ok(Self {
            clock,
            farewell,
            message_bytes_max: settings.lanes.message_bytes_max,
            executor: if running.is_feeding() { executor.with_prefetch() } else { executor },
            running,
            layout: Layout::Unsaid,
            slots: settings.slots,
            look_at: None,
            ended: 0,
            is_urgent: false,
            to_sink: Some(to_sink),
            sink: None,
            joined: settings.joined,
            late_ok: settings.late_ok,
            is_asked_to_stop: false,
            grace: settings.grace,
            leaving: None,
            shortage: Shortage::default(),
            sent_bytes: 0,
        })
    }

    /// Drives the worker until it leaves.
    async fn work(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        shutdown: &mut Shutdown,
    ) -> Result<WorkerExit, Fatal> {
        let mut batch = Vec::with_capacity(EVENTS_MAX);
        let mut has_more = false;
        let mut looks = shutdown.take_looks();
        loop {
            if let Some(exit) = self.farewell.exit(self.clock.now(), &self.executor) {
                return Ok(exit);
            }
            let due = self.clock.instant(self.poll_timeout());
            tokio::select! {
                // In this order: ended tasks free slots, then come new tasks.
                biased;
                () = self.running.called() => {}
                asked = shutdown.asked() => {
                    self.withdraw();
                    self.handle_asked_to_stop(asked)?;
                }
                _ = events.recv_many(&mut batch, EVENTS_MAX) => {
                    // A message may be about tasks in the run queue.
                    self.withdraw();
                    batch.drain(..).try_for_each(|event| self.handle_event(event))?;
                }
                () = looks.next() => self.tell(),
                () = tokio::task::yield_now(), if has_more => {}
                () = tokio::time::sleep_until(due.into()), if !has_more => {}
            }
            has_more = self.go_on();
            if let Some(error) = live_failure() {
                return Err(cannot_show(&error));
            }
        }
    }

    /// Waits until the last messages have arrived.
    async fn say_goodbye(&mut self, exit: WorkerExit, events: &mut mpsc::Receiver<Event>) {
        let is_drained = exit == WorkerExit::Drained;
        // At the end of a job all results are stored: a thousand workers need not wait for the sink
        // to take the last messages, nor the sink for them.
        if let Some((_, lane)) = self.sink.take()
            && (is_drained || !self.executor.is_empty())
        {
            lane.close(LINGER).await;
        }
        if is_drained && self.farewell.has_ventilator() {
            // The goodbye goes round by the sink; if our end of the lane overtook it, it would pass
            // for our death, and a message on its way to us for the cause.
            let hung_up = async {
                while let Some(event) = events.recv().await {
                    if matches!(event, Event::Tasks(Inward::Down { .. })) {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(LINGER, hung_up).await;
        }
    }

    /// Prints the last messages. Returns the exit code.
    fn outcome(self, exit: WorkerExit, ventilator: &Endpoint, audience: Audience) -> exit::Outcome {
        let tasks = self.executor.snapshot().tasks_done;
        tracing::info!(tasks, "the worker leaves");
        match exit {
            WorkerExit::Late(late_max) => {
                let text = format!(
                    "the ventilator at {ventilator} was not reached in {late_max:?}, and \
                     --exit-when-done was given: is the job over already? --connect-timeout waits \
                     longer"
                );
                return Err(self.unreached(Fatal::new(CONNECT, text)));
            }
            WorkerExit::Forgotten(forgotten_max) => {
                let text = format!(
                    "for {forgotten_max:?} no ventilator that knows the job was met at {ventilator}, \
                     and --exit-when-done was given: is the job over? --connect-timeout waits longer"
                );
                return Err(Fatal::new(CONNECT, text));
            }
            WorkerExit::JobDone | WorkerExit::Drained | WorkerExit::Alone => {}
        }
        match self.leaving {
            Some(Leaving { code: OK, reason }) => audience.say(&reason),
            Some(Leaving { code, reason }) => return Err(Fatal::new(code, reason)),
            None => {}
        }
        if self.is_asked_to_stop {
            let ended = if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") };
            let line = format!("stopped: {ended} ended here; the others are handed back");
            audience.say(&line);
        }
        Ok(OK)
    }

    /// Prints the state of the worker.
    fn tell(&self) {
        let snapshot = self.executor.snapshot();
        let (running, queued, done) = (snapshot.running, snapshot.queued, snapshot.tasks_done);
        let missing = match (self.farewell.has_ventilator(), self.sink.is_some()) {
            (true, true) => "",
            (false, true) => ", no connection to the ventilator",
            (true, false) => ", no connection to the sink",
            (false, false) => ", no connection to ventilator and sink",
        };
        say(&format!("{done} tasks done here, {running} running, {queued} queued{missing}"));
    }

    fn poll_timeout(&self) -> Time {
        let due = self.executor.poll_timeout().min(self.farewell.poll_timeout());
        let say_at = self.shortage.unsaid.as_ref().map(|(at, _)| *at);
        [self.look_at, say_at].into_iter().flatten().fold(due, Time::min)
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Tasks(Inward::Up { .. }) => {
                tracing::info!("connected to the ventilator");
                self.farewell.handle_ventilator_connected();
                if let Some(ToSink { dialler, connect_timeout, events }) = self.to_sink.take() {
                    keep_outward(dialler, connect_timeout, events, Event::Results);
                }
            }
            Event::Tasks(Inward::Message { message, .. }) => {
                if let Some(joined) = self.joined.take() {
                    // The end of the parent is noticed elsewhere.
                    let _ = joined.send(&[1]);
                }
                self.farewell.handle_message(&message);
                self.executor.handle_message(message);
                self.follow_layout();
            }
            Event::Tasks(Inward::Down { .. }) => {
                tracing::info!("lost the ventilator");
                self.farewell.handle_ventilator_disconnected();
            }
            Event::Results(Outward::Up { conn, card, lane }) => {
                tracing::info!("connected to the sink");
                self.sink = Some((conn, lane));
                self.executor.handle_sink_limit(card.message_bytes_max, self.message_bytes_max);
                self.executor.handle_sink_connected();
                self.farewell.handle_sink_connected();
            }
            Event::Results(Outward::Down { conn, reason }) => {
                if self.sink.as_ref().is_some_and(|(current, _)| *current == conn) {
                    tracing::info!(%reason, "lost the sink");
                    self.sent_bytes += self.lane_bytes();
                    self.sink = None;
                    self.executor.handle_sink_disconnected();
                    self.farewell.handle_sink_disconnected();
                }
            }
            Event::Tasks(Inward::GaveUp(gave_up)) => {
                return self.handle_given_up(gave_up.fatal("the ventilator"));
            }
            Event::Results(Outward::GaveUp(gave_up)) => {
                return self.handle_given_up(gave_up.fatal("the sink"));
            }
        }
        Ok(())
    }

    fn handle_given_up(&mut self, fatal: Fatal) -> Result<(), Fatal> {
        if self.farewell.handle_peer_given_up(&self.executor) {
            return Ok(());
        }
        Err(self.unreached(fatal))
    }

    /// Returns the bytes that were sent on the current connection to the sink.
    fn lane_bytes(&self) -> u64 {
        self.sink.as_ref().map_or(0, |(_, lane)| lane.traffic().bytes_out())
    }

    /// Returns the error of a peer that cannot be reached. Both may have left with the job, and
    /// which of them is given up first is chance.
    fn unreached(&self, fatal: Fatal) -> Fatal {
        let is_late = fatal.code == CONNECT && self.late_ok && !self.farewell.had_ventilator();
        Fatal { code: if is_late { OK } else { fatal.code }, ..fatal }
    }

    /// Takes the outcomes of tasks, and the tasks that slots have started next.
    fn take_finished(&mut self) {
        let mut unstarted = Vec::new();
        loop {
            for mut finished in self.running.take_finished() {
                if let Some(it) = finished.unstarted.take() {
                    unstarted.push((finished.slot, it));
                    continue;
                }
                self.ended += 1;
                self.is_urgent |= finished.attempt != Attempt::FIRST;
                self.handle_finished(finished);
            }
            if unstarted.is_empty() {
                break;
            }
            // A task that is put back comes before those in the run queue, and may be handed back
            // together with them: nothing is done until it is known that those have not started.
            if !self.running.withdraw() {
                break;
            }
        }
        for (slot, it) in unstarted {
            let (task, unstarted) = *it;
            self.handle_unstarted(slot, task, unstarted);
        }
        for SlotStatus { slot, depth, under_way } in self.running.take_statuses() {
            self.executor.handle_depth(slot, depth);
            if let Some((seq, attempt, since)) = under_way {
                self.executor.handle_under_way(slot, seq, attempt, since);
            }
        }
    }

    /// Empties the run queue: the executor knows then which tasks have started, and no other starts
    /// by itself.
    fn withdraw(&mut self) {
        self.running.withdraw();
        self.take_finished();
    }

    /// Gives the layout of the job's tasks to the handler.
    fn follow_layout(&mut self) {
        if self.leaving.is_some() || *self.executor.layout() == self.layout {
            return;
        }
        self.layout = self.executor.layout().clone();
        if let Err(reason) = self.running.set_layout(&self.layout) {
            self.leave(USAGE, reason, self.grace);
        }
    }

    /// Leaves: hands back the tasks that have not started, and running ones after this time.
    fn leave(&mut self, code: u8, reason: String, grace: Duration) {
        let (now, executor) = (self.clock.now(), &mut self.executor);
        if self.farewell.handle_leave(now, grace, clip(reason.clone()), executor) {
            tracing::info!("leaving: {reason}");
            self.leaving = Some(Leaving { code, reason });
        }
    }

    /// Handles a task that was not run because this host lacks something: that is not its failure.
    fn handle_unstarted(&mut self, slot: Slot, task: Task, unstarted: Unstarted) {
        let Task { seq, attempt, payload, hash, .. } = task;
        // The executor knows what is left out here.
        let tag = Tag::default();
        let task = message::Task { seq, attempt, last: false, tag, hash, payload };
        let put_back = self.executor.handle_unstartable(self.clock.now(), slot, task);
        let Unstarted { lack, reason } = unstarted;
        let slots = self.executor.slots_now();
        tracing::debug!(seq = seq.0, slots, "not started, {put_back:?}: {reason}");
        if lack == Lack::Worker {
            return tracing::info!("task {} is handed back: {reason}", seq.0 + 1);
        }
        if lack == Lack::Command {
            let reason = format!("{reason}; no task can be run here any more");
            return self.leave(COMMAND, reason, self.grace);
        }
        match put_back {
            PutBack::Waits => {
                if lack == Lack::Processes {
                    self.leave_room();
                }
                let say_at = self.clock.now() + SETTLED_AFTER;
                self.shortage.unsaid.get_or_insert((say_at, format!("{lack}: {reason}")));
            }
            PutBack::Returned => {
                let now = self.clock.now();
                if self.farewell.handle_starved(now) {
                    let reason = format!("no task could be started for {STARVED_MAX:?}: {reason}");
                    return self.leave(SYSTEM, reason, Duration::ZERO);
                }
                if self.shortage.said.is_none_or(|said| now.since(said) > STARVED_MAX / 2) {
                    self.shortage.said = Some(now);
                    tracing::warn!("{reason}; nothing else runs here, so tasks are handed back");
                }
            }
            PutBack::Dropped => {}
        }
    }

    /// Removes slots: where processes are used up, commands cannot start any either, and fail for
    /// it. Half of the running tasks are enough from now on.
    fn leave_room(&mut self) {
        let now = self.clock.now();
        if self.shortage.left_room.is_none_or(|at| now.since(at) > SETTLED_AFTER) {
            self.shortage.left_room = Some(now);
            self.executor.set_slots((self.executor.slots_now() / 2).max(1));
        }
    }

    /// Warns that the host lacks something, once the number of slots is known.
    fn say_shortage(&mut self, now: Time) {
        let slots = self.executor.slots_now();
        if slots < self.slots
            && let Some((_, reason)) = self.shortage.unsaid.take_if(|(say_at, _)| *say_at <= now)
            && self.shortage.said.is_none_or(|said| now.since(said) > STARVED_MAX / 2)
        {
            self.shortage.said = Some(now);
            tracing::warn!("{reason}: running {slots} at once instead of {}", self.slots);
        }
    }

    fn handle_finished(&mut self, finished: Finished) {
        let Finished { slot, started_us, ran_us, outcome, reported, next, .. } = finished;
        self.farewell.handle_ran();
        self.executor.handle_finished(executor::Finished {
            slot,
            started_us,
            ran_us,
            outcome,
            reported,
        });
        if let Some(begun) = next {
            self.executor.handle_begun(self.clock.time(begun.at), slot, begun.seq);
        }
    }

    fn handle_asked_to_stop(&mut self, asked: Asked) -> Result<(), Fatal> {
        if asked != Asked::Drain {
            // Dropping the runner stops running tasks; the ventilator sees that the connection
            // ends.
            return Err(Fatal::quit("stopped at once; the running tasks will be run elsewhere"));
        }
        let snapshot = self.executor.snapshot();
        tracing::info!(
            running = snapshot.running,
            queued = snapshot.queued,
            "stopping: handing back queued tasks, finishing running ones"
        );
        self.is_asked_to_stop = true;
        self.running.notice_leaving();
        self.farewell.handle_drain(self.clock.now(), self.grace, &mut self.executor);
        Ok(())
    }

    /// Drives the executor. Returns whether there is more to do at once.
    fn go_on(&mut self) -> bool {
        let now = self.clock.now();
        self.take_finished();
        if let Some(reason) = self.running.given_up() {
            self.leave(HANDLER, reason, Duration::ZERO);
        }
        self.say_shortage(now);
        let sent_bytes = self.sent_bytes + self.lane_bytes();
        match self.farewell.review(now, &mut self.executor, sent_bytes) {
            Some(WorkerStep::Idle(idle_max)) => {
                let reason = format!("no task for {idle_max:?}: the worker leaves");
                self.leave(OK, reason, Duration::ZERO);
            }
            Some(WorkerStep::GaveUp { results }) => tracing::warn!(
                results,
                "leaving with results that were not stored in time; where the sink does not have \
                 them, their tasks run again elsewhere"
            ),
            None => {}
        }
        if now >= self.executor.poll_timeout() {
            self.executor.handle_timeout(now);
        }
        while let Some(stop) = self.executor.poll_stop() {
            self.running.stop(stop);
        }
        let now_us = self.clock.unix_us();
        let is_look = self.look_at.is_none_or(|look_at| look_at <= now);
        // Tasks that end in the loop are run a batch at a time, so that their results are on the way
        // while the next batch is run.
        let mut ended = 0;
        while ended < BATCH_TASKS_MAX
            && let Some(start) = self.executor.poll_start(now)
        {
            if let Some(finished) = self.running.start(&self.clock, now_us, start) {
                self.handle_finished(finished);
                ended += 1;
            }
        }
        self.running.hand_over();
        if is_look {
            self.look_at = (self.ended > 0).then(|| now + LOOK_INTERVAL);
            self.ended = 0;
        }
        let run_queue = self.running.enqueue(self.executor.waiting(), self.look_at.is_some());
        // While the slots have enough to do, nothing waits for results: a few in one message cost
        // hardly more than one.
        let may_wait = !is_look && run_queue == RunQueue::Full && !self.is_urgent;
        while let Some(message) =
            if may_wait { self.executor.poll_news() } else { self.executor.poll_transmit() }
        {
            // The end of a lane comes as an event of its own.
            let _ = self.sink.as_mut().map(|(_, lane)| send(lane, &message));
        }
        self.is_urgent = false;
        ended == BATCH_TASKS_MAX || run_queue == RunQueue::Behind
    }
}
