//! Loop of the ventilator: feeds the dispatcher and does what it asks.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tradewind_lanes::{Endpoint, LaneOptions};
use tradewind_node::doors::{Port, gate_door};
use tradewind_node::downstream::{Downstream, DownstreamEvent};
use tradewind_node::drive::{self, Driven, EVENTS_MAX, drive};
use tradewind_node::exit::{
    self, Audience, Fatal, INPUT, LISTEN, OK, OrExit, REFUSED, STOPPED, SYSTEM, TASKS_FAILED,
};
use tradewind_node::keys::{MaybeKeys, keep_fresh, session};
use tradewind_node::links::dialler;
use tradewind_node::{Asked, Listen, Progress, ProgressView, Room, Shutdown};
use tradewind_proto::JobId;
use tradewind_proto::dispatcher::{
    Dispatcher, DispatcherConfig, DispatcherSnapshot, Ended, HaltOn, Policy,
};
use tradewind_proto::farewell::{VentilatorExit, VentilatorFarewell};
use tradewind_proto::message::{Card, Layout, Role, Start, ToVentilator};
use tradewind_seen::{self as seen, About, Ask, End, Look, Runs};
use tradewind_system::{Clock, random_id};

use crate::queue::{Command, JudgeSink, Queue};
use crate::reader;
use tradewind_input::{Chunk, InputError, Item, Measured, Source};

/// Settings of a ventilator.
pub struct Settings {
    /// Bytes of the largest task that can be sent.
    pub task_bytes_max: u64,
    /// Port that workers connect to.
    pub tasks: Listen,
    /// Port that the sink connects to.
    pub receipts: Listen,
    /// Address of the sink.
    pub sink: Endpoint,
    /// Name of the job.
    pub job: String,
    /// Name of the stage whose workers get the job's tasks; may be empty.
    pub stage: String,
    /// Start of the job: new or resumed.
    pub start: Start,
    /// Layout of the tasks.
    pub layout: Layout,
    /// Limits of tasks and workers.
    pub policy: Policy,
    /// Keys for TCP connections.
    pub keys: MaybeKeys,
    /// Limits of connections.
    pub lanes: LaneOptions,
    /// Time after which the sink counts as unreachable; `None` for no limit.
    pub connect_timeout: Option<Duration>,
    /// Whether to show the progress of the job.
    pub progress: bool,
    /// Measure of the input, to estimate the number of its tasks.
    pub measured: Option<Measured>,
    /// Receiver of messages about the job.
    pub audience: Audience,
    /// What makes the job a queue, which stays open.
    pub queue: Option<Queue>,
    /// Questions about the job, of threads that show it.
    pub asks: Option<mpsc::Receiver<Ask>>,
}

impl Settings {
    /// Returns what does not change about the program, for those who look at it.
    #[must_use]
    pub fn about(&self, role: &'static str) -> About {
        About {
            role,
            version: env!("CARGO_PKG_VERSION"),
            host: tradewind_text::host_name(),
            name: self.job.clone(),
            sink: self.sink.to_string(),
            tasks: match &self.tasks {
                Listen::Endpoint(endpoint) => endpoint.to_string(),
                Listen::Sockets(_) => "an inherited socket".to_owned(),
            },
            is_queue: self.queue.is_some(),
        }
    }
}

/// End of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Exit code of a program.
    pub code: u8,
    /// Number of tasks that have their records.
    pub tasks: u64,
    /// Number of those whose status is neither `ok` nor `skipped`.
    pub failed: u64,
}

/// What a job that was run came to.
pub struct Ran {
    /// Its end, or why it could not be run to its end.
    pub result: Result<Ending, Fatal>,
    /// The last look at it, once it has begun.
    pub look: Option<Look>,
}

type Read = Result<Option<Chunk>, InputError>;

/// Event of the ventilator.
enum Event {
    Link(DownstreamEvent),
    /// A chunk of the input, its end, or the end of the thread that reads it.
    Read(Option<Read>),
    /// What is said about the queue.
    Said(Command),
    /// A question about the job.
    Asked(Ask),
}

impl From<DownstreamEvent> for Event {
    fn from(event: DownstreamEvent) -> Self {
        Self::Link(event)
    }
}

/// Runs the job whose tasks the source gives, to its end. The source is read on a thread of its
/// own, no further than there is room.
///
/// # Errors
/// When the job cannot be run, or not to its end.
pub async fn run(
    settings: Settings,
    source: impl Source + Send + 'static,
    shutdown: Shutdown,
) -> Result<Ending, Fatal> {
    run_seen(settings, source, shutdown).await.result
}

/// Runs a job as [`run`] does, and returns the last look at it too.
pub async fn run_seen(
    mut settings: Settings,
    source: impl Source + Send + 'static,
    shutdown: Shutdown,
) -> Ran {
    let mut ventilator = Ventilator::new(&mut settings);
    let result = ventilator.run(settings, source, shutdown).await;
    let look = ventilator.asks.is_some().then(|| ventilator.look(result.as_ref().err()));
    Ran { result, look }
}

impl Ventilator {
    async fn run(
        &mut self,
        mut settings: Settings,
        source: impl Source + Send + 'static,
        mut shutdown: Shutdown,
    ) -> Result<Ending, Fatal> {
        let ventilator = self;
        let queue = settings.queue.take();
        let card = Card {
            role: Role::Ventilator,
            session: queue.as_ref().map_or_else(|| session(&settings.keys), |queue| queue.session),
            slots: 0,
            message_bytes_max: settings.lanes.message_bytes_max,
            name: settings.job.clone(),
            queue: queue.as_ref().map(|queue| queue.name.clone()).unwrap_or_default(),
        };
        keep_fresh(&settings.keys)?;
        let room = Room::for_workers(1, 1);
        let sink =
            dialler(settings.sink.clone(), &settings.lanes, &card, Port::Results, &settings.keys)?;
        let (options, door) = (
            room.options(&settings.lanes),
            gate_door(&card, Port::Tasks, room.clone(), &settings.keys),
        );
        let mut tasks = settings.tasks.open(options, door).await.or_exit(LISTEN)?;
        let options = room.receipts_options(&settings.lanes);
        let door = gate_door(&card, Port::Receipts, room, &settings.keys);
        let mut receipts = settings.receipts.open(options, door).await.or_exit(LISTEN)?;
        if let Some(Queue { workers, sinks, commands, judge, .. }) = queue {
            ventilator.judge = judge;
            (tasks, receipts) = (tasks.with_lanes(workers), receipts.with_lanes(sinks));
            ventilator.commands = Some(commands);
        }
        tracing::info!(
            job = settings.job,
            tasks = %tasks.endpoint(),
            receipts = %receipts.endpoint(),
            sink = %settings.sink,
            "the ventilator is up"
        );

        let (events_in, mut events) = mpsc::channel::<Event>(EVENTS_MAX);
        Downstream::serve(tasks, receipts, sink, settings.connect_timeout, &events_in);
        drop(events_in);

        ventilator.chunks = Some(reader::spawn(source).or_exit(SYSTEM)?);
        let progress = Progress::new(settings.progress);
        let driven = drive(ventilator, &mut events, &mut shutdown, progress).await?;
        if driven == Driven::Stopped {
            // A queue goes on with its next process: workers keep what they have.
            let DispatcherSnapshot { settled, failed, .. } = ventilator.dispatcher.snapshot();
            return Ok(Ending { code: OK, tasks: settled, failed });
        }
        ventilator.links.close().await;
        ventilator.ending()
    }
}

struct Ventilator {
    clock: Clock,
    dispatcher: Dispatcher,
    links: Downstream,
    farewell: VentilatorFarewell,
    /// Chunks of the input; `None` once there is no more.
    chunks: Option<mpsc::Receiver<Read>>,
    /// What is said about the queue; `None` in a job.
    commands: Option<mpsc::Receiver<Command>>,
    /// What looks at whose records a sink has.
    judge: Option<JudgeSink>,
    audience: Audience,
    task_bytes_max: u64,
    input_error: Option<InputError>,
    /// Measure of the input, to estimate the number of its tasks.
    measured: Option<Measured>,
    /// Number of tasks of the whole input, once it was read to its end.
    input_tasks: Option<u64>,
    /// Questions about the job.
    asks: Option<mpsc::Receiver<Ask>>,
    /// Time in which the loop had something to do.
    busy: Duration,
    asked: seen::Asked,
}

impl Ventilator {
    fn new(settings: &mut Settings) -> Self {
        let config = DispatcherConfig {
            layout: settings.layout.clone(),
            job: settings
                .queue
                .as_ref()
                .and_then(|queue| queue.job)
                .unwrap_or_else(|| JobId(random_id())),
            name: settings.job.clone(),
            stage: settings.stage.clone(),
            start: settings.start,
            policy: settings.policy,
            message_bytes_max: settings.lanes.message_bytes_max,
            seed: random_id(),
        };
        let clock = Clock::default();
        Self {
            clock,
            dispatcher: match &settings.queue {
                Some(queue) => queue.dispatcher(config),
                None => Dispatcher::new(config),
            },
            links: Downstream::new(clock),
            farewell: VentilatorFarewell::default(),
            chunks: None,
            commands: None,
            judge: None,
            audience: settings.audience,
            task_bytes_max: settings.task_bytes_max,
            input_error: None,
            measured: settings.measured.clone(),
            input_tasks: None,
            asks: settings.asks.take(),
            busy: Duration::ZERO,
            asked: seen::Asked::Nothing,
        }
    }

    fn handle_read(&mut self, read: Option<Read>) {
        match read {
            Some(Ok(Some(mut chunk))) => {
                let mut limits = chunk.take_limits().into_iter().peekable();
                let mut hashes = chunk.take_hashes().into_iter().peekable();
                let is_caught_up = chunk.is_caught_up();
                let mut recorded = chunk.take_recorded().into_iter().peekable();
                for (place, item) in chunk.into_iter().enumerate() {
                    while let Some((_, count)) = recorded.next_if(|(before, _)| *before == place) {
                        self.dispatcher.handle_recorded(count);
                    }
                    let own = limits.next_if(|(limited, _)| *limited == place);
                    let hash = hashes.next_if(|(hashed, _)| *hashed == place);
                    match item {
                        Item::Task(payload) => match (own, hash) {
                            (own, Some((_, hash))) => {
                                let own = own.map(|(_, own)| own).unwrap_or_default();
                                self.dispatcher.handle_task_at(payload, hash, own);
                            }
                            (Some((_, own)), None) => {
                                self.dispatcher.handle_task_with(payload, own);
                            }
                            (None, None) => self.dispatcher.handle_task(payload),
                        },
                        Item::Unfit { reason } => self.dispatcher.handle_unfit_task(reason),
                        Item::TooLarge { bytes } => self.dispatcher.handle_unfit_task(format!(
                            "the task has {bytes} bytes, more than the {} that fit into a message; \
                             see --message-max",
                            self.task_bytes_max
                        )),
                    }
                }
                recorded.for_each(|(_, count)| self.dispatcher.handle_recorded(count));
                if is_caught_up {
                    self.dispatcher.handle_caught_up();
                }
                return;
            }
            Some(Ok(None)) => {
                self.dispatcher.handle_input_end();
                self.input_tasks = Some(self.dispatcher.snapshot().read);
            }
            Some(Err(error)) => self.handle_input_failed(error),
            None => {}
        }
        self.chunks = None;
    }

    fn handle_input_failed(&mut self, error: InputError) {
        let line = format!("{error}; finishing the tasks before it");
        match self.audience {
            // At the end there is nothing to add to it.
            Audience::User => exit::say(&format!("{}: {line}", exit::speaker("ventilator"))),
            Audience::Program => tracing::error!("{line}"),
        }
        self.input_error = Some(error);
        self.farewell.handle_input_failed();
    }

    /// Returns the job as it is, or as it ended.
    fn look(&self, failed: Option<&Fatal>) -> Look {
        let snapshot = self.dispatcher.snapshot();
        let end = match (self.dispatcher.ended(), failed) {
            (Some(Ended::Refused(reason)), _) => Some(End::Refused(reason.clone())),
            (_, Some(fatal)) => Some(End::Failed(fatal.error.to_string())),
            (Some(Ended::Complete), None)
                if !self.dispatcher.is_stopped()
                    && !self.dispatcher.is_halted()
                    && self.input_error.is_none() =>
            {
                Some(End::Complete)
            }
            (Some(_), None) => Some(End::Early),
            (None, None) => None,
        };
        Look {
            job: self.dispatcher.job_id(),
            about: self.measured.as_ref().and_then(|measured| measured.about(snapshot.read)),
            snapshot,
            busy: self.busy,
            asked: self.asked,
            end,
            runs: Runs::default(),
            failures: Vec::new(),
            timeout: None,
        }
    }

    fn answer(&self, ask: Ask) {
        match ask {
            Ask::Look(answer) => answer(self.look(None)),
            Ask::Explain(seq, answer) => answer(self.dispatcher.explain(seq)),
        }
    }

    fn ending(&mut self) -> Result<Ending, Fatal> {
        let code = self.outcome()?;
        let DispatcherSnapshot { settled, failed, .. } = self.dispatcher.snapshot();
        Ok(Ending { code, tasks: settled, failed })
    }

    fn outcome(&mut self) -> exit::Outcome {
        let exit = self.farewell.exit(self.clock.now(), &self.dispatcher);
        if exit == Some(VentilatorExit::Unanswered) {
            let text = "cancelled, but the sink did not answer; records may be missing";
            return Err(Fatal::new(STOPPED, text));
        }
        if let Some(Ended::Refused(reason)) = self.dispatcher.ended() {
            return Err(Fatal::new(REFUSED, format!("the job was refused: {reason}")));
        }
        if self.dispatcher.ended() == Some(&Ended::Untouched) {
            self.audience.say("stopped before the job was resumed: nothing was run or changed");
            return Ok(STOPPED);
        }
        if let Some(error) = self.input_error.take() {
            return match self.audience {
                Audience::User => Err(Fatal::new(INPUT, "")),
                Audience::Program => Err(Fatal { code: INPUT, error: error.into() }),
            };
        }
        let snapshot = self.dispatcher.snapshot();
        tracing::info!(tasks = snapshot.settled, failed = snapshot.failed, "the job is over");
        if self.dispatcher.is_stopped() {
            self.audience
                .say(&format!("stopped: {}", ended_early(snapshot.settled, self.input_tasks)));
            return Ok(STOPPED);
        }
        if self.dispatcher.is_halted() {
            self.audience
                .say(&format!("halted: {}", ended_early(snapshot.settled, self.input_tasks)));
        }
        // The success that was wanted is there, whatever the status of the rest.
        let is_success = self.dispatcher.halted_by() == Some(HaltOn::Success);
        Ok(if snapshot.failed > 0 && !is_success { TASKS_FAILED } else { OK })
    }
}

impl drive::Role for Ventilator {
    type Event = Event;

    async fn read(&mut self) -> Event {
        let Self { chunks, commands, dispatcher, asks, .. } = self;
        let read = async {
            match chunks {
                Some(chunks) if dispatcher.input_room() > 0 => chunks.recv().await,
                _ => std::future::pending().await,
            }
        };
        if commands.is_none() && asks.is_none() {
            return Event::Read(read.await);
        }
        tokio::select! {
            biased;
            Some(command) = said(commands) => Event::Said(command),
            Some(ask) = said(asks) => Event::Asked(ask),
            read = read => Event::Read(read),
        }
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Fatal> {
        let event = match event {
            Event::Link(event) => event,
            Event::Read(read) => {
                self.handle_read(read);
                return Ok(());
            }
            Event::Said(command) => {
                command.apply(&mut self.dispatcher);
                return Ok(());
            }
            Event::Asked(ask) => {
                self.answer(ask);
                return Ok(());
            }
        };
        let now = self.clock.now();
        if let Err(gave_up) = self.links.handle_event(now, &mut self.dispatcher, event)
            && !self.farewell.handle_sink_given_up(&self.dispatcher)
        {
            return Err(gave_up.fatal("the sink"));
        }
        while let Some(message) = self.links.poll_heard() {
            if let (Some(judge), ToVentilator::SinkHello { job, stored, .. }) =
                (&mut self.judge, &message)
            {
                judge(*job, stored).map_err(|reason| Fatal::new(REFUSED, reason))?;
            }
            self.dispatcher.handle_message(now, message);
        }
        Ok(())
    }

    fn handle_asked(&mut self, asked: Asked) -> Result<bool, Fatal> {
        if self.commands.is_some() {
            return Ok(true);
        }
        let is_over = self.dispatcher.ended().is_some();
        self.chunks = None;
        match asked {
            Asked::Drain => {
                if !is_over {
                    self.audience.say(
                        "stopping: finishing the tasks that were handed out; stop again to cancel them",
                    );
                }
                self.asked = seen::Asked::Drain;
                self.farewell.handle_drain(&mut self.dispatcher);
            }
            Asked::Cancel => {
                if !is_over {
                    self.audience.say("cancelling");
                }
                self.asked = seen::Asked::Cancel;
                self.farewell.handle_cancel(self.clock.now(), &mut self.dispatcher);
            }
            Asked::Quit if is_over => self.farewell.handle_drain(&mut self.dispatcher),
            Asked::Quit => {
                return Err(Fatal::quit("stopped at once; records may be missing"));
            }
        }
        Ok(false)
    }

    fn drive(&mut self) -> Result<(), Fatal> {
        let now = self.clock.now();
        if self.farewell.review(now, &mut self.dispatcher) {
            self.audience
                .say("no worker is left to finish the tasks that were handed out: cancelling them");
        }
        if now >= self.dispatcher.poll_timeout() {
            self.dispatcher.handle_timeout(now);
        }
        self.links.drive(now, &mut self.dispatcher);
        Ok(())
    }

    fn poll_timeout(&self) -> Instant {
        self.clock.instant(self.dispatcher.poll_timeout().min(self.farewell.poll_timeout()))
    }

    fn is_over(&self) -> bool {
        self.farewell.exit(self.clock.now(), &self.dispatcher).is_some()
    }

    fn view(&mut self) -> ProgressView {
        let snapshot = self.dispatcher.snapshot();
        let unreached = self.links.unreached(self.clock.now(), &snapshot);
        view(&snapshot, unreached, self.measured.as_ref())
    }

    fn busy(&mut self) -> Option<&mut Duration> {
        self.asks.is_some().then_some(&mut self.busy)
    }
}

/// Waits for what a channel brings; for ever if there is none. Cancel-safe.
async fn said<T>(channel: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

/// Describes a job that ended before its input: `total` is the number of tasks of the whole input,
/// if it was read to its end.
fn ended_early(settled: u64, total: Option<u64>) -> String {
    let have = if settled == 1 {
        "1 task has its record".to_owned()
    } else {
        format!("{settled} tasks have their records")
    };
    match total.map(|total| total.saturating_sub(settled)) {
        Some(0) => format!("{have}, and there are no others"),
        Some(1) => format!("{have}, 1 was not run"),
        Some(left) => format!("{have}, {left} were not run"),
        None => format!("{have}, the rest of the input was not run"),
    }
}

fn view(
    snapshot: &DispatcherSnapshot,
    unreached: u64,
    measured: Option<&Measured>,
) -> ProgressView {
    let waiting_for = if !snapshot.is_sink_open {
        Some("the sink")
    } else if snapshot.workers.is_empty() {
        Some("workers")
    } else if snapshot.is_output_stuck {
        Some("the sink's output")
    } else if snapshot.is_calling_roll {
        Some("workers to report the tasks they hold")
    } else {
        None
    };
    ProgressView {
        done: snapshot.settled,
        total: snapshot.total,
        about: measured.and_then(|measured| measured.about(snapshot.read)),
        failed: snapshot.failed,
        workers: snapshot.workers.len() as u64,
        unreached,
        waiting_for,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_ended_early_says_what_was_not_run() {
        let check = |settled, total, wanted: &str| {
            assert_eq!(ended_early(settled, total), wanted);
        };
        check(0, None, "0 tasks have their records, the rest of the input was not run");
        check(1, Some(4), "1 task has its record, 3 were not run");
        check(2, Some(3), "2 tasks have their records, 1 was not run");
        check(3, Some(3), "3 tasks have their records, and there are no others");
    }
}
