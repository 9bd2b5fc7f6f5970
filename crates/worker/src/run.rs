//! The worker's loop: what happens goes into the executor, what it says is done.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tradewind_lanes::{Dialler, Endpoint, LaneOptions, PushLane};
use tradewind_node::exit::{self, Audience, CONNECT, Fatal, HANDLER, OK, OrExit, SYSTEM, say};
use tradewind_node::links::{Conn, Inward, Outward, identity, keep_inward, keep_outward, send};
use tradewind_node::{Asked, Clock, Shutdown, random_id};
use tradewind_proto::executor::{self, Executor};
use tradewind_proto::limits::BATCH_TASKS_MAX;
use tradewind_proto::message::{Card, Role, ToWorker};
use tradewind_proto::{Attempt, SessionId, Time};

use crate::handler::{Deck, Finished, Standing};
use crate::runner::{Runner, Running};

/// What a worker was told to do.
pub struct Settings {
    /// Where tasks come from.
    pub ventilator: Endpoint,
    /// Where results go.
    pub sink: Endpoint,
    /// Tasks to run at once.
    pub slots: u32,
    /// The worker's name.
    pub name: String,
    /// Exit with the job.
    pub exit_when_done: bool,
    /// When asked to stop: how long to finish what runs before it is stopped and handed back.
    pub grace: Duration,
    /// What is done with a task.
    pub runner: Runner,
    /// The limits of connections.
    pub lanes: LaneOptions,
    /// How long to try to reach the ventilator or the sink.
    pub connect_timeout: Option<Duration>,
    /// Who hears that it was stopped.
    pub audience: Audience,
}

/// Everything that can happen on a connection.
enum Event {
    Tasks(Inward<ToWorker>),
    Results(Outward),
}

/// Events that wait for the loop. What fills it up waits in the sockets.
const EVENTS_MAX: usize = 256;

/// How often a worker with short tasks sees what has ended, and sends the results.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How long the results' connection may take to deliver the last of them.
const LINGER: Duration = Duration::from_secs(2);

/// How long a worker that is to leave waits for somebody to take its results.
const ALONE_MAX: Duration = Duration::from_secs(4);

/// How long a worker whose handler is given up waits until what it has is somebody else's.
const GIVEN_UP_MAX: Duration = Duration::from_secs(4);

/// Runs tasks until told to stop, or until the job is over if that was asked for.
///
/// # Errors
/// When no tasks can be run.
pub async fn run(settings: Settings, mut shutdown: Shutdown) -> exit::Outcome {
    let session = SessionId(random_id());
    let card = Card {
        role: Role::Worker,
        session,
        slots: settings.slots,
        message_bytes_max: settings.lanes.message_bytes_max,
        name: settings.name.clone(),
    };
    let dialler = |endpoint: &Endpoint| {
        let endpoint = endpoint.clone();
        Dialler::new(endpoint, settings.lanes.clone(), identity(&card), random_id()).or_exit(SYSTEM)
    };
    let (events_in, mut events) = mpsc::channel(EVENTS_MAX);
    keep_inward(
        dialler(&settings.ventilator)?,
        settings.connect_timeout,
        events_in.clone(),
        Event::Tasks,
    );
    keep_outward(dialler(&settings.sink)?, settings.connect_timeout, events_in, Event::Results);
    tracing::info!(
        name = settings.name,
        slots = settings.slots,
        ventilator = %settings.ventilator,
        sink = %settings.sink,
        "the worker is up"
    );

    let clock = Clock::default();
    let running = Running::new(settings.runner, settings.slots, clock).or_exit(SYSTEM)?;
    let executor = Executor::new(session, settings.slots);
    let mut worker = Worker {
        clock,
        executor: if running.is_feeding() { executor.with_feeding() } else { executor },
        running,
        look_at: None,
        ended: 0,
        is_urgent: false,
        sink: None,
        has_ventilator: false,
        is_asked_to_stop: false,
        grace: settings.grace,
        alone: None,
        given_up: None,
    };
    let mut batch = Vec::with_capacity(EVENTS_MAX);
    let mut has_more = false;
    let mut looks = shutdown.take_looks();

    while !worker.is_over(settings.exit_when_done) {
        let due = worker.clock.instant(worker.poll_timeout());
        tokio::select! {
            // In this order: what has ended first frees a slot, then come new tasks.
            biased;
            () = worker.running.called() => {}
            asked = shutdown.asked() => {
                worker.withdraw();
                worker.handle_asked_to_stop(asked)?;
            }
            _ = events.recv_many(&mut batch, EVENTS_MAX) => {
                // What is said now may be about tasks that lie on deck.
                worker.withdraw();
                for event in batch.drain(..) {
                    worker.handle_event(event)?;
                }
            }
            () = looks.next() => worker.tell(),
            () = tokio::task::yield_now(), if has_more => {}
            () = tokio::time::sleep_until(due.into()), if !has_more => {}
        }
        has_more = worker.go_on();
    }
    worker.running.close();
    // At the end of a job all that was said is stored: a thousand workers need not wait for the sink
    // to hear so, nor it for them.
    if let Some((_, lane)) = worker.sink.take()
        && (worker.executor.is_drained() || !worker.executor.is_empty())
    {
        lane.close(LINGER).await;
    }
    if worker.executor.is_drained() && worker.has_ventilator {
        // The goodbye goes round by the sink; were our end of the lane to overtake it, that would
        // pass for our death, and what was just on its way to us for its cause.
        let hung_up = async {
            while let Some(event) = events.recv().await {
                if matches!(event, Event::Tasks(Inward::Down { .. })) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, hung_up).await;
    }
    let tasks = worker.executor.snapshot().tasks_done;
    tracing::info!(tasks, "the worker leaves");
    if let Some((reason, _)) = worker.given_up.take() {
        return Err(Fatal::new(HANDLER, reason));
    }
    if worker.is_asked_to_stop {
        let line = format!("stopped: {tasks} tasks ended here, what had not is handed back");
        settings.audience.say(&line);
    }
    Ok(OK)
}

struct Worker {
    clock: Clock,
    executor: Executor,
    running: Running,
    /// While tasks are short: when to see what has ended. The slots do not call for it.
    look_at: Option<Time>,
    /// Tasks that have ended since the last look.
    ended: usize,
    /// One of these must be known of at once.
    is_urgent: bool,
    sink: Option<(Conn, PushLane)>,
    has_ventilator: bool,
    is_asked_to_stop: bool,
    grace: Duration,
    /// Since when it was to leave, ran nothing, and had nobody to give its results to.
    alone: Option<Instant>,
    /// Why its handler is given up, and since when.
    given_up: Option<(String, Instant)>,
}

impl Worker {
    fn is_over(&self, exit_when_done: bool) -> bool {
        let is_done = exit_when_done && self.executor.snapshot().jobs_done > 0;
        // One that never had anything to do with anybody need not say goodbye.
        let is_idle = self.is_asked_to_stop && self.sink.is_none() && self.executor.is_empty();
        let is_left = self.alone.is_some_and(|since| since.elapsed() > ALONE_MAX);
        let is_given_up =
            self.given_up.as_ref().is_some_and(|(_, since)| since.elapsed() > GIVEN_UP_MAX);
        is_done || is_idle || is_left || is_given_up || self.executor.is_drained()
    }

    /// Says how things stand.
    fn tell(&self) {
        let snapshot = self.executor.snapshot();
        let (running, queued, done) = (snapshot.running, snapshot.queued, snapshot.tasks_done);
        let missing = match (self.has_ventilator, self.sink.is_some()) {
            (true, true) => "",
            (false, true) => ", no connection to the ventilator",
            (true, false) => ", no connection to the sink",
            (false, false) => ", no connection to ventilator and sink",
        };
        say(&format!("{done} tasks done here, {running} running, {queued} queued{missing}"));
    }

    fn poll_timeout(&self) -> Time {
        let due = self.executor.poll_timeout();
        self.look_at.map_or(due, |look_at| due.min(look_at))
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Tasks(Inward::Up { .. }) => {
                tracing::info!("connected to the ventilator");
                self.has_ventilator = true;
            }
            Event::Tasks(Inward::Message { message, .. }) => self.executor.handle_message(message),
            Event::Tasks(Inward::Down { .. }) => {
                tracing::info!("lost the ventilator");
                self.has_ventilator = false;
            }
            Event::Results(Outward::Up { conn, lane, .. }) => {
                tracing::info!("connected to the sink");
                self.sink = Some((conn, lane));
                self.executor.handle_sink_connected();
            }
            Event::Results(Outward::Down { conn }) => {
                if self.sink.as_ref().is_some_and(|(current, _)| *current == conn) {
                    tracing::info!("lost the sink");
                    self.sink = None;
                    self.executor.handle_sink_disconnected();
                }
            }
            Event::Tasks(Inward::GaveUp { reason }) => {
                return Err(Fatal::new(CONNECT, format!("the ventilator at {reason}")));
            }
            Event::Results(Outward::GaveUp { reason }) => {
                return Err(Fatal::new(CONNECT, format!("the sink at {reason}")));
            }
        }
        Ok(())
    }

    /// Hears of what has ended, and of what slots have begun instead.
    fn take_finished(&mut self) {
        for finished in self.running.take_finished() {
            self.ended += 1;
            self.is_urgent |= finished.attempt != Attempt::FIRST;
            self.handle_finished(finished);
        }
        for Standing { slot, depth, under_way } in self.running.take_standings() {
            self.executor.handle_depth(slot, depth);
            if let Some((seq, attempt, since)) = under_way {
                self.executor.handle_under_way(slot, seq, attempt, since);
            }
        }
    }

    /// After this the executor knows what has begun, and nothing more begins by itself.
    fn withdraw(&mut self) {
        self.running.withdraw();
        self.take_finished();
    }

    fn handle_finished(&mut self, finished: Finished) {
        let Finished { slot, started_us, ran_us, outcome, reported, next, .. } = finished;
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
            // Dropping the runner stops what runs; the ventilator sees us go.
            return Err(Fatal::quit("stopped at once; what ran will be run elsewhere"));
        }
        let snapshot = self.executor.snapshot();
        tracing::info!(
            running = snapshot.running,
            queued = snapshot.queued,
            "stopping: handing back what has not started, finishing what runs"
        );
        self.is_asked_to_stop = true;
        self.executor.handle_drain(self.clock.now(), self.grace);
        Ok(())
    }

    /// Does what the executor says; true if there is more to do at once.
    fn go_on(&mut self) -> bool {
        let now = self.clock.now();
        self.take_finished();
        if self.given_up.is_none()
            && let Some(reason) = self.running.given_up()
        {
            tracing::info!("the handler is given up: handing back what it has");
            self.given_up = Some((reason, Instant::now()));
            self.executor.handle_drain(now, Duration::ZERO);
        }
        if now >= self.executor.poll_timeout() {
            self.executor.handle_timeout(now);
        }
        let is_alone = self.is_asked_to_stop
            && self.sink.is_none()
            && !self.has_ventilator
            && self.executor.snapshot().running == 0;
        self.alone = is_alone.then(|| self.alone.unwrap_or_else(Instant::now));
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
        let deck = self.running.lay_out(self.executor.waiting(), self.look_at.is_some());
        // As long as the slots have enough to do, nobody waits for results: a few in one message
        // cost hardly more than one.
        let may_wait = !is_look && deck == Deck::Full && !self.is_urgent;
        while let Some(message) =
            if may_wait { self.executor.poll_news() } else { self.executor.poll_transmit() }
        {
            // A lane that is gone says so by an event of its own.
            let _ = self.sink.as_mut().map(|(_, lane)| send(lane, &message));
        }
        self.is_urgent = false;
        ended == BATCH_TASKS_MAX || deck == Deck::Behind
    }
}
