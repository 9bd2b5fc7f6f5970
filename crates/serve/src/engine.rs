//! A queue's ventilator and sink, each with its loop on a thread of its own.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;
use tradewind_lanes::{Endpoint, LaneOptions, Listener, PrivateDir, PullLane, PushLane};
use tradewind_node::exit::{Audience, Fatal, LISTEN, OrExit, SYSTEM};
use tradewind_node::keys::MaybeKeys;
use tradewind_node::{Asked, Listen, Shutdown, StopHandle, block_on_until};
use tradewind_proto::SessionId;
use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::Policy;
use tradewind_proto::message::{Layout, Start};
use tradewind_sink::WhenFull;
use tradewind_ventilator::Command;

use crate::config::Relays;
use crate::logs::Logs;
use crate::output::LogStore;
use crate::source::LogSource;
use crate::workers;

/// Number of commands that wait for a ventilator.
const COMMANDS_MAX: usize = 256;

/// What all queues of a process have in common.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// Session that ventilators show.
    pub(crate) ventilator: SessionId,
    /// Session that sinks show.
    pub(crate) sink: SessionId,
    /// Keys of ventilators, for the first relays of their queues.
    pub(crate) ventilator_keys: MaybeKeys,
    /// Keys of sinks, for the last relays.
    pub(crate) sink_keys: MaybeKeys,
    /// Limits of connections.
    pub(crate) lanes: LaneOptions,
    /// Says that an engine has ended, and why.
    pub(crate) ended: mpsc::UnboundedSender<Fatal>,
}

/// A queue's ventilator and sink.
pub(crate) struct Engine {
    /// Commands for the ventilator.
    pub(crate) commands: mpsc::Sender<Command>,
    /// Workers for the ventilator.
    pub(crate) workers: mpsc::UnboundedSender<PushLane>,
    /// Relays for the ventilator.
    pub(crate) sinks: mpsc::UnboundedSender<PullLane>,
    /// Workers and relays for the sink.
    pub(crate) callers: mpsc::UnboundedSender<PullLane>,
    logs: Arc<Logs>,
    ventilator: Loop,
    sink: Loop,
}

struct Loop {
    handle: StopHandle,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Starts both.
    pub(crate) fn start(
        name: &str,
        logs: &Arc<Logs>,
        policy: Policy,
        relays: Option<Relays>,
        common: &Common,
    ) -> Result<Self, Fatal> {
        let sockets = PrivateDir::without_files().or_exit(LISTEN)?;
        let listen = |socket: &str| -> Result<(Listen, Endpoint), Fatal> {
            let (listener, endpoint) = sockets.listen(socket).or_exit(LISTEN)?;
            Ok((Listen::Sockets(vec![Listener::from(listener)]), endpoint))
        };
        let (tasks, _) = listen("tasks")?;
        let (receipts, receipts_at) = listen("receipts")?;
        let (results, results_at) = listen("results")?;
        // With relays between them the two do not meet.
        let (next, before) = match relays {
            Some(Relays { first, last }) => (first, last),
            None => (results_at, receipts_at),
        };

        if !logs.has_job() {
            workers::note_none(logs.dir());
        }
        // Before there is a sink: what counts as recorded here is known there.
        let source = LogSource::new(logs.clone());
        let (callers, called) = mpsc::unbounded_channel();
        let sink = tradewind_sink::Settings {
            listen: results,
            ventilator: before,
            order: Order::Completion,
            spool_bytes_max: 0,
            keys: common.sink_keys.clone(),
            lanes: common.lanes.clone(),
            connect_timeout: None,
            quiet: true,
            progress: false,
            when_full: WhenFull::Wait,
            audience: Audience::Program,
            queue: Some(tradewind_sink::Queue {
                name: name.to_owned(),
                session: common.sink,
                callers: called,
                workers: workers::read(logs.dir()),
                note_workers: workers::writer(logs.dir().to_owned()),
            }),
        };
        let mut store = Some(LogStore(logs.clone()));
        let prepare = move || Ok(store.take().expect("what can be opened is not asked for twice"));
        let sink = Loop::spawn(format!("{name}:out"), common, move |shutdown| async {
            tradewind_sink::run(sink, prepare, shutdown).await.map(drop)
        })?;

        let (workers, joining) = mpsc::unbounded_channel();
        let (sinks, asking) = mpsc::unbounded_channel();
        let (commands, said) = mpsc::channel(COMMANDS_MAX);
        let (is_paused, cancelled) = {
            let control = logs.control();
            let state = control.state();
            (state.paused, state.cancelled.iter().collect())
        };
        let ventilator = tradewind_ventilator::Settings {
            task_bytes_max: tradewind_text::payload_bytes_max(common.lanes.message_bytes_max),
            tasks,
            receipts,
            sink: next,
            job: name.to_owned(),
            stage: String::new(),
            start: if logs.has_job() { Start::Resume } else { Start::New },
            layout: Layout::Unsaid,
            policy,
            keys: common.ventilator_keys.clone(),
            lanes: common.lanes.clone(),
            connect_timeout: None,
            progress: false,
            measured: None,
            audience: Audience::Program,
            queue: Some(tradewind_ventilator::Queue {
                name: name.to_owned(),
                session: common.ventilator,
                first: source.next(),
                is_paused,
                cancelled,
                workers: joining,
                sinks: asking,
                commands: said,
            }),
        };
        let ventilator = Loop::spawn(format!("{name}:in"), common, move |shutdown| async {
            tradewind_ventilator::run(ventilator, source, shutdown).await.map(drop)
        })?;
        let logs = logs.clone();
        Ok(Self { commands, workers, sinks, callers, logs, ventilator, sink })
    }

    /// Ends both. Results that have come are stored; workers keep the others. Blocks.
    pub(crate) fn stop(self) {
        let Self { logs, ventilator, sink, .. } = self;
        ventilator.stop();
        logs.close();
        sink.stop();
    }
}

impl Loop {
    fn spawn<F>(
        name: String,
        common: &Common,
        run: impl FnOnce(Shutdown) -> F + Send + 'static,
    ) -> Result<Self, Fatal>
    where
        F: Future<Output = Result<(), Fatal>>,
    {
        let handle = StopHandle::default();
        let (stop, ended) = (handle.clone(), common.ended.clone());
        let body = move || {
            if let Err(fatal) = block_on_until(|| Ok(Shutdown::by(&stop)), run) {
                let _ = ended.send(fatal);
            }
        };
        let thread = thread::Builder::new().name(name).spawn(body).or_exit(SYSTEM)?;
        Ok(Self { handle, thread })
    }

    fn stop(self) {
        self.handle.ask(Asked::Drain);
        // A panic was printed.
        let _ = self.thread.join();
    }
}
