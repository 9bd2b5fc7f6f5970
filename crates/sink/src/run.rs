//! Loop of the sink: feeds the collector and does what it asks.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tradewind_lanes::{Endpoint, LaneOptions, PullLane};
use tradewind_node::doors::{Port, gate_door};
use tradewind_node::drive::{self, Driven, EVENTS_MAX, drive};
use tradewind_node::exit::{
    self, Audience, CLOSED, Fatal, LISTEN, OK, OUTPUT, OrExit, REFUSED, STOPPED, SYSTEM,
    TASKS_FAILED, USAGE,
};
use tradewind_node::keys::{MaybeKeys, keep_fresh, session};
use tradewind_node::links::dialler;
use tradewind_node::upstream::{Heard, Upstream, UpstreamEvent};
use tradewind_node::{Asked, Listen, Progress, ProgressView, Room, Shutdown, parent};
use tradewind_proto::collector::{
    Collector, CollectorConfig, CollectorSnapshot, Inputs, Order, SpoolLimits,
};
use tradewind_proto::dispatcher::HaltOn;
use tradewind_proto::farewell::{SinkExit, SinkFarewell};
use tradewind_proto::limits::QUEUE_HELD_BYTES_MAX;
use tradewind_proto::message::{Card, InputEnd, Role, ToSink};
use tradewind_proto::{JobKey, SessionId, Time};
use tradewind_system::{Clock, random_key};

use crate::summary::summary;
use tradewind_records::{
    self as records, Journal, OpenError, OutputError, Store, TaskHashes, WriterThread,
};

/// Reaction to an output that cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum WhenFull {
    /// It is tried again until it can; nothing is lost meanwhile.
    #[default]
    Wait,
    /// The program ends.
    Exit,
}

impl WhenFull {
    /// Returns the word on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Exit => "exit",
        }
    }
}

/// Settings of a sink.
pub struct Settings {
    /// Port that workers and the ventilator connect to.
    pub listen: Listen,
    /// Address of the ventilator's port for receipts.
    pub ventilator: Endpoint,
    /// Order of the records.
    pub order: Order,
    /// Bytes of records that may wait on the disk for an earlier one; 0 for none.
    pub spool_bytes_max: u64,
    /// Keys for TCP connections.
    pub keys: MaybeKeys,
    /// Limits of connections.
    pub lanes: LaneOptions,
    /// Time after which the ventilator counts as unreachable; `None` for no limit.
    pub connect_timeout: Option<Duration>,
    /// Whether to leave the summary out.
    pub quiet: bool,
    /// Whether to show the progress of the job.
    pub progress: bool,
    /// Reaction to an output that cannot be written.
    pub when_full: WhenFull,
    /// Receiver of messages about the job.
    pub audience: Audience,
    /// What makes the job a queue, which stays open.
    pub queue: Option<Queue>,
}

/// What makes a job a queue.
pub struct Queue {
    /// Name of the queue.
    pub name: String,
    /// Session that its sink shows: of the gate that workers have met.
    pub session: SessionId,
    /// Workers and relays that another gate has let in.
    pub callers: mpsc::UnboundedReceiver<PullLane>,
    /// Workers that may hold tasks since the process before this one; `None` if that is not known.
    pub workers: Option<Vec<SessionId>>,
    /// Takes the workers that may hold tasks, for the process after this one, whenever they change.
    pub note_workers: NoteWorkers,
}

/// What takes the sessions of workers. It does not wait.
pub type NoteWorkers = Box<dyn FnMut(Vec<SessionId>) + Send>;

/// Event of the sink.
enum Event {
    Link(UpstreamEvent),
    Output(records::Event),
}

impl From<UpstreamEvent> for Event {
    fn from(event: UpstreamEvent) -> Self {
        Self::Link(event)
    }
}

/// Interval at which a failing output is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which an output that cannot be opened yet is tried again.
const PREPARE_INTERVAL: Duration = Duration::from_millis(200);

/// Collects one job's records to its end, in the store that `prepare` gives.
///
/// # Errors
/// When they cannot be collected.
pub async fn run<S: Store>(
    settings: Settings,
    prepare: impl FnMut() -> Result<S, OpenError>,
    mut shutdown: Shutdown,
) -> exit::Outcome {
    let (events_in, mut events) = mpsc::channel(EVENTS_MAX);
    keep_fresh(&settings.keys)?;
    let (name, session) = match &settings.queue {
        Some(queue) => (queue.name.clone(), queue.session),
        None => (String::new(), session(&settings.keys)),
    };
    let card = Card {
        role: Role::Sink,
        session,
        slots: 0,
        message_bytes_max: settings.lanes.message_bytes_max,
        name: "sink".to_owned(),
        queue: name,
    };
    let ventilator = dialler(
        settings.ventilator.clone(),
        &settings.lanes,
        &card,
        Port::Receipts,
        &settings.keys,
    )?;
    let room = Room::for_workers(1, 0);
    let (options, door) =
        (room.options(&settings.lanes), gate_door(&card, Port::Results, room, &settings.keys));
    let mut gate = settings.listen.open(options, door).await.or_exit(LISTEN)?;
    let mut queue = None;
    if let Some(Queue { callers, workers, note_workers, .. }) = settings.queue {
        gate = gate.with_lanes(callers);
        queue = Some((workers, note_workers));
    }
    let Some(mut store) = prepared(prepare, settings.when_full, &mut shutdown).await? else {
        return Ok(STOPPED);
    };
    let (report, can_retry) = (store.report(), store.can_retry());
    let has_reasons = store.has_reasons();
    let has_input = store.has_input();
    let lost = events_in.clone();
    store.watch(Box::new(move |error| {
        let _ = lost.blocking_send(Event::Output(records::Event::Failed(error)));
    }));
    tracing::info!(
        listen = %gate.endpoint(),
        ventilator = %settings.ventilator,
        "the sink is up"
    );

    Upstream::serve(gate, ventilator, settings.connect_timeout, &events_in);

    let config =
        CollectorConfig { session, order: settings.order, report, key: JobKey::new(random_key()) };
    let mut collector = Collector::new(config);
    if settings.spool_bytes_max > 0 {
        let spool_bytes_max = settings.spool_bytes_max;
        collector = collector.with_spool(SpoolLimits { spool_bytes_max, ..SpoolLimits::default() });
    }
    let mut note_workers = None;
    if let Some((workers, note)) = queue {
        collector = collector.with_workers(workers).with_held_bytes_max(QUEUE_HELD_BYTES_MAX);
        note_workers = Some(note);
    }
    let mut sink = Sink::new(collector, settings.audience, store, events_in);
    sink.note_workers = note_workers;
    sink.when_full = settings.when_full;
    sink.is_unchecked = has_input;
    let progress = Progress::new(settings.progress);
    if drive(&mut sink, &mut events, &mut shutdown, progress).await? == Driven::Stopped {
        if let Some(error) = sink.refused {
            return Err(refused(error, true));
        }
        // Records that were given to the writer are still written: it does so as it ends, and must
        // not wait for this loop to take its events.
        events.close();
        return Ok(sink.stop(&mut shutdown).await);
    }
    sink.links.close().await;
    let exit = sink.farewell.exit(sink.clock.now(), &sink.collector);
    if let (Some(SinkExit::Refused { is_heard }), Some(error)) = (exit, sink.refused.take()) {
        return Err(refused(error, is_heard));
    }
    sink.outcome(settings.quiet, can_retry, has_reasons)
}

/// Opens the output. Waits for one that is full, or has no reader yet; `None` if the program was
/// stopped meanwhile.
async fn prepared<S>(
    mut prepare: impl FnMut() -> Result<S, OpenError>,
    when_full: WhenFull,
    shutdown: &mut Shutdown,
) -> Result<Option<S>, Fatal> {
    let mut is_said = false;
    loop {
        let error = match prepare() {
            Ok(store) => return Ok(Some(store)),
            Err(error) if error.is_unread() || (error.is_full() && when_full == WhenFull::Wait) => {
                error
            }
            Err(error) => {
                let code = if error.is_misuse() { USAGE } else { OUTPUT };
                return Err(Fatal { code, error: error.into() });
            }
        };
        if !std::mem::replace(&mut is_said, true) {
            tracing::warn!("{error}; waiting until it can be opened");
        }
        tokio::select! {
            () = tokio::time::sleep(PREPARE_INTERVAL) => {}
            _ = shutdown.asked() => return Ok(None),
        }
    }
}

/// Returns the error of an output that cannot be opened. `is_said`: the ventilator has heard of it,
/// and prints it.
fn refused(error: OpenError, is_said: bool) -> Fatal {
    // The parent and the ventilator need not both print it.
    if is_said && parent::speaks_for_us() {
        return Fatal::new(OUTPUT, "");
    }
    Fatal { code: OUTPUT, error: error.into() }
}

struct Sink<S> {
    clock: Clock,
    collector: Collector,
    farewell: SinkFarewell,
    audience: Audience,
    /// Store for the records, until the job is known.
    store: Option<S>,
    events: mpsc::Sender<Event>,
    writer: Option<WriterThread>,
    journal: Option<Journal>,
    /// Hashes of the stored tasks, while a resumed job's input is compared.
    hashes: Option<TaskHashes>,
    /// Whether the warning was given that a resumed job's input cannot be compared.
    is_unchecked: bool,
    /// Reason why the output cannot be opened.
    refused: Option<OpenError>,
    links: Upstream,
    /// Time at which the job was opened, for the summary.
    opened: Option<Time>,
    is_finishing: bool,
    /// Number of finishes that the writer was asked for and has not reported.
    finishes: u32,
    /// Time at which an output that has failed is tried again.
    retry: Option<Time>,
    /// Whether the warning was given that records cannot be spooled.
    is_spool_failing: bool,
    /// Whether there were no records of the job when it was opened.
    is_new: bool,
    /// Number of stored lists of records.
    stored: u64,
    when_full: WhenFull,
    /// Takes the workers that may hold tasks; `None` in a job.
    note_workers: Option<NoteWorkers>,
}

impl<S: Store> Sink<S> {
    fn new(
        collector: Collector,
        audience: Audience,
        store: S,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let clock = Clock::default();
        Self {
            clock,
            collector,
            farewell: SinkFarewell::default(),
            audience,
            store: Some(store),
            events,
            writer: None,
            journal: None,
            hashes: None,
            is_unchecked: false,
            refused: None,
            links: Upstream::new(clock),
            opened: None,
            is_finishing: false,
            finishes: 0,
            retry: None,
            is_spool_failing: false,
            is_new: true,
            stored: 0,
            when_full: WhenFull::default(),
            note_workers: None,
        }
    }

    /// Prints the summary. Returns the exit code.
    fn outcome(self, is_quiet: bool, can_retry: bool, has_reasons: bool) -> exit::Outcome {
        let snapshot = self.collector.snapshot();
        let say = |line: &str| {
            if !is_quiet {
                self.audience.say(line);
            }
        };
        let took = self.opened.map_or(Duration::ZERO, |opened| self.clock.now().since(opened));
        if self.is_new || self.stored > 0 {
            say(&summary(&snapshot.stored, took));
        } else {
            say(&format!("{}; all had their records already", summary(&snapshot.stored, took)));
        }
        let end = self.collector.input_end();
        let has_parent = parent::speaks_for_us();
        if end == Some(InputEnd::CutShort) && !has_parent {
            let line = "the job was stopped before the end of its input: the rest was not run";
            match self.audience {
                Audience::User => say(line),
                Audience::Program => tracing::warn!("{line}"),
            }
        }
        let has_failures = snapshot.stored.not_ok() > 0;
        if self.journal.is_some() {
            if !self.collector.is_whole() {
                say("to resume: the same command with --resume");
            } else if has_failures && can_retry {
                say(
                    "to retry tasks that are not ok: the same command with --resume --retry-failed",
                );
            }
        }
        if has_failures && !has_reasons {
            say(
                "to record why tasks failed, and to be able to run them again: --format jsonl and a \
                 file as --output",
            );
        }
        if snapshot.duplicates + snapshot.unexpected_results > 0 {
            tracing::info!(
                duplicates = snapshot.duplicates,
                unexpected_results = snapshot.unexpected_results,
                "results that were not needed"
            );
        }
        for (worker, count) in self.collector.refused_by_worker() {
            tracing::warn!("{}", refused_results(worker, count));
        }
        if !self.collector.is_all_stored() {
            let line = "the ventilator has given the job up before all of its records were stored";
            self.audience.say(line);
            return Ok(REFUSED);
        }
        Ok(match end {
            // The parent hears it from the ventilator, and knows why; a program has all the records that
            // there are, and reads our log.
            Some(InputEnd::CutShort) if !has_parent && self.audience == Audience::User => STOPPED,
            Some(InputEnd::Halted(HaltOn::Success)) => OK,
            _ if has_failures => TASKS_FAILED,
            _ => OK,
        })
    }

    fn hear(&mut self, heard: Heard) -> Result<(), Fatal> {
        match heard {
            Heard::Message(message) => {
                self.farewell.handle_message(&message);
                self.handle_message(message)?;
            }
            Heard::VentilatorConnected => self.farewell.handle_ventilator_connected(),
            Heard::VentilatorGone => self.farewell.handle_ventilator_gone(),
        }
        Ok(())
    }

    fn handle_message(&mut self, message: ToSink) -> Result<(), Fatal> {
        if let ToSink::JobOpen { job, name, .. } = &message
            && self.opened.is_none()
        {
            tracing::info!(job = %job, name, "the job is open");
            self.opened = Some(self.clock.now());
        }
        self.collector.handle_message(message);
        if let Some(opening) = self.collector.poll_open()
            && let Some(store) = self.store.take()
        {
            let events = self.events.clone();
            let report = move |event| {
                let _ = events.blocking_send(Event::Output(event));
            };
            let writer = WriterThread::spawn(move || store.open(&opening), report);
            self.writer = Some(writer.or_exit(SYSTEM)?);
        }
        while let Some(inputs) = self.collector.poll_inputs() {
            self.compare(&inputs)?;
        }
        Ok(())
    }

    /// Compares a part of a resumed job's input with the records.
    fn compare(&mut self, inputs: &Inputs) -> Result<(), Fatal> {
        let Some(journal) = &self.journal else {
            // There are no hashes to compare with; without an answer the job would wait for ever.
            if !std::mem::replace(&mut self.is_unchecked, true) {
                tracing::warn!("there is no journal: whether the input has changed is not checked");
            }
            self.collector.handle_verified(inputs.below);
            return Ok(());
        };
        for (seq, hash) in &inputs.stored {
            let hashes = match self.hashes.take().filter(|hashes| hashes.next() <= *seq) {
                Some(hashes) => hashes,
                // For the first time, or again.
                None => journal.hashes().or_exit(OUTPUT)?,
            };
            if self.hashes.insert(hashes).get(*seq).or_exit(OUTPUT)? != Some(*hash) {
                self.collector.handle_changed(*seq);
                return Ok(());
            }
        }
        self.collector.handle_verified(inputs.below);
        Ok(())
    }

    /// Ends the writer, so that the job can be resumed.
    async fn stop(self, shutdown: &mut Shutdown) -> u8 {
        if let Some(writer) = self.writer {
            let (ended_in, ended) = oneshot::channel();
            // It may be waiting for a reader of the output; then a second request ends the program.
            let joined = std::thread::Builder::new().spawn(move || {
                writer.join();
                let _ = ended_in.send(());
            });
            if joined.is_ok() {
                tokio::select! {
                    _ = ended => {}
                    _ = shutdown.asked() => {}
                }
            }
        }
        let stored = self.collector.snapshot().stored.total();
        let how = if self.journal.is_some() { "; start it again to resume" } else { "" };
        if !parent::speaks_for_us() {
            self.audience.say(&format!("stopped: {stored} records are stored{how}"));
        }
        STOPPED
    }

    fn handle_output(&mut self, event: records::Event) -> Result<(), Fatal> {
        match event {
            records::Event::Opened(continued) => {
                let stored = continued.opened.counts.total();
                if stored > 0 {
                    let cut_bytes = continued.cut_bytes;
                    tracing::info!(stored, cut_bytes, "resuming from existing output");
                }
                self.journal = continued.journal;
                self.is_new = stored == 0;
                let is_pending = continued.opened.pending.is_some();
                self.collector.handle_opened(continued.opened);
                if !is_pending && let Some(writer) = &self.writer {
                    writer.begin();
                }
            }
            records::Event::Begun => self.handle_output_goes_on(),
            records::Event::Refused(error) => {
                self.collector.handle_open_refused(error.to_string());
                self.refused = Some(error);
                self.farewell.handle_refused(self.clock.now());
            }
            records::Event::Stored { count, failed } => {
                self.handle_output_goes_on();
                self.stored += count as u64;
                self.collector.handle_written(count);
                self.collector.handle_failed(failed);
            }
            records::Event::Spooled { count, spool_bytes } => {
                if std::mem::take(&mut self.is_spool_failing) {
                    tracing::info!("records that wait for an earlier one are spooled again");
                }
                tracing::debug!(spool_bytes, "records wait for an earlier one in the spool");
                self.stored += count as u64;
                self.collector.handle_spooled(count, spool_bytes);
            }
            records::Event::SpoolFailed { records, error } => {
                if !std::mem::replace(&mut self.is_spool_failing, true) {
                    tracing::warn!(
                        "{error}; records that wait for an earlier one stay in memory, and soon no \
                         more tasks are begun, until it can be written"
                    );
                }
                self.collector.handle_spool_failed(records);
            }
            records::Event::Unspooled { below, spool_bytes } => {
                self.handle_output_goes_on();
                self.collector.handle_unspooled(below, spool_bytes);
            }
            records::Event::Finished => {
                self.finishes -= 1;
                if self.finishes == 0 {
                    self.collector.handle_flushed();
                }
            }
            records::Event::Failed(error @ (OutputError::Closed { .. } | OutputError::Dropped)) => {
                // The reader of the output has seen enough, as `head` does.
                return Err(Fatal { code: CLOSED, error: error.into() });
            }
            records::Event::Failed(error @ OutputError::Refused { .. }) => {
                return Err(Fatal { code: OUTPUT, error: error.into() });
            }
            records::Event::Failed(
                error @ (OutputError::Io { .. }
                | OutputError::Unspool { .. }
                | OutputError::Rewrite { .. }
                | OutputError::Replaced { .. }),
            ) if self.when_full == WhenFull::Exit => {
                let how =
                    if self.journal.is_some() { "; --resume continues from there" } else { "" };
                return Err(Fatal::new(OUTPUT, format!("{error}{how}")));
            }
            records::Event::Failed(error) => {
                // Nothing is acknowledged meanwhile, so nothing is lost: the job stands still
                // until there is room.
                if self.retry.is_none() {
                    tracing::error!("{error}; waiting until it can be written, nothing is lost");
                    self.collector.handle_stuck(true);
                }
                self.retry = Some(self.clock.now() + RETRY_INTERVAL);
            }
        }
        Ok(())
    }

    fn handle_output_goes_on(&mut self) {
        if self.retry.take().is_some() {
            tracing::info!("output is writable again");
            self.collector.handle_stuck(false);
        }
    }
}

impl<S: Store> drive::Role for Sink<S> {
    type Event = Event;

    fn congestion(&mut self) -> Option<impl Future<Output = ()> + use<S>> {
        self.links.congestion()
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Fatal> {
        let event = match event {
            Event::Link(event) => event,
            Event::Output(event) => return self.handle_output(event),
        };
        if let Err(gave_up) = self.links.handle_event(self.clock.now(), &mut self.collector, event)
            && !self.farewell.handle_ventilator_given_up(&self.collector)
        {
            return Err(gave_up.fatal("the ventilator"));
        }
        while let Some(heard) = self.links.poll_heard() {
            self.hear(heard)?;
        }
        Ok(())
    }

    /// Stops at once: the records in the output stay there, and the next start resumes the job.
    fn handle_asked(&mut self, _: Asked) -> Result<bool, Fatal> {
        Ok(true)
    }

    fn drive(&mut self) -> Result<(), Fatal> {
        let now = self.clock.now();
        if now >= self.collector.poll_timeout() {
            self.collector.handle_timeout(now);
        }
        if self.collector.poll_begin()
            && let Some(writer) = &self.writer
        {
            writer.begin();
        }
        if let Some(writer) = &self.writer {
            loop {
                if let Some(records) = self.collector.poll_write() {
                    writer.store(records);
                } else if let Some(range) = self.collector.poll_unspool() {
                    writer.unspool(range);
                } else {
                    break;
                }
            }
            if let Some(records) = self.collector.poll_spool() {
                writer.spool(records);
            }
        }
        if let (Some(note), Some(workers)) = (&mut self.note_workers, self.collector.poll_workers())
        {
            note(workers);
        }
        // A ventilator that resumes a finished job may have more.
        let was_finishing =
            std::mem::replace(&mut self.is_finishing, self.collector.is_all_stored());
        if self.is_finishing
            && !was_finishing
            && let Some(writer) = &self.writer
        {
            self.finishes += 1;
            writer.finish(self.collector.is_whole());
        }
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = Some(now + RETRY_INTERVAL);
            self.writer.iter().for_each(WriterThread::retry);
        }
        self.links.drive(now, &mut self.collector);
        let is_flushed = self.is_finishing && self.finishes == 0;
        self.farewell.review(now, is_flushed, self.links.has_ventilator());
        Ok(())
    }

    fn poll_timeout(&self) -> Instant {
        let due = self.collector.poll_timeout().min(self.farewell.poll_timeout());
        self.clock.instant(self.retry.map_or(due, |retry| retry.min(due)))
    }

    fn is_over(&self) -> bool {
        self.farewell.exit(self.clock.now(), &self.collector).is_some()
    }

    fn view(&mut self) -> ProgressView {
        view(&self.collector.snapshot())
    }
}

/// Returns the line about results that a worker was not given the tasks of.
fn refused_results(worker: &str, count: u64) -> String {
    format!(
        "{count} results of worker {worker:?} were refused: it was not given their tasks, or by a \
         ventilator that this sink did not know"
    )
}

fn view(snapshot: &CollectorSnapshot) -> ProgressView {
    ProgressView {
        done: snapshot.stored.total(),
        about: None,
        total: snapshot.total,
        failed: snapshot.stored.not_ok(),
        workers: snapshot.workers,
        unreached: 0,
        waiting_for: snapshot.job.is_none().then_some("the ventilator"),
    }
}
