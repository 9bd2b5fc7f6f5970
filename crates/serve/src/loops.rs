//! A queue's ventilator and sink, each with its loop on a thread of its own.

use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;
use tradewind_input::Source;
use tradewind_lanes::{Endpoint, LaneOptions, Listener, PrivateDir, PullLane, PushLane};
use tradewind_node::exit::{Audience, Fatal, LISTEN, OrExit, SYSTEM};
use tradewind_node::keys::MaybeKeys;
use tradewind_node::{Asked, Listen, Shutdown, StopHandle, block_on_until};
use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::Policy;
use tradewind_proto::message::{Layout, Start};
use tradewind_proto::{JobId, Seq, SessionId};
use tradewind_records::Store;
use tradewind_sink::{NoteWorkers, WhenFull};
use tradewind_ventilator::{Command, JudgeSink};

use crate::config::Relays;

/// Number of commands that wait for a ventilator.
const COMMANDS_MAX: usize = 256;

/// What all queues of a process have in common.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// Session that ventilators show.
    pub(crate) ventilator: SessionId,
    /// Session that sinks show.
    pub(crate) sink: SessionId,
    /// Keys of ventilators, for a sink or the first relays of their queues.
    pub(crate) ventilator_keys: MaybeKeys,
    /// Keys of sinks, for a ventilator or the last relays.
    pub(crate) sink_keys: MaybeKeys,
    /// Limits of connections.
    pub(crate) lanes: LaneOptions,
    /// Says that an engine has ended, and why.
    pub(crate) ended: mpsc::UnboundedSender<Fatal>,
}

/// Sockets between the two programs of a queue, and where each dials.
pub(crate) struct Sockets {
    tasks: Listen,
    receipts: Listen,
    results: Listen,
    receipts_at: Endpoint,
    results_at: Endpoint,
}

impl Sockets {
    /// Makes them, in a private directory.
    pub(crate) fn new() -> Result<Self, Fatal> {
        let sockets = PrivateDir::without_files().or_exit(LISTEN)?;
        let listen = |socket: &str| -> Result<(Listen, Endpoint), Fatal> {
            let (listener, endpoint) = sockets.listen(socket).or_exit(LISTEN)?;
            Ok((Listen::Sockets(vec![Listener::from(listener)]), endpoint))
        };
        let (tasks, _) = listen("tasks")?;
        let (receipts, receipts_at) = listen("receipts")?;
        let (results, results_at) = listen("results")?;
        Ok(Self { tasks, receipts, results, receipts_at, results_at })
    }

    /// Returns what the ventilator listens to, and what the sink does. Each dials the relays of the queue if it has
    /// some, or else what is given: where the other one is.
    pub(crate) fn of_both(
        self,
        relays: Option<&Relays>,
        sink_at: Option<Endpoint>,
        ventilator_at: Option<Endpoint>,
    ) -> (VentilatorSockets, SinkSockets) {
        let Self { tasks, receipts, results, receipts_at, results_at } = self;
        // With relays between them the two do not meet.
        let (first, last) = match relays {
            Some(Relays { first, last }) => (first.clone(), last.clone()),
            None => (sink_at.unwrap_or(results_at), ventilator_at.unwrap_or(receipts_at)),
        };
        let ventilator = VentilatorSockets { tasks, receipts, sink: first };
        (ventilator, SinkSockets { results, ventilator: last })
    }
}

/// What a queue's ventilator listens to, and dials.
pub(crate) struct VentilatorSockets {
    tasks: Listen,
    receipts: Listen,
    sink: Endpoint,
}

/// What a queue's sink listens to, and dials.
pub(crate) struct SinkSockets {
    results: Listen,
    ventilator: Endpoint,
}

/// A queue's ventilator.
pub(crate) struct Ventilator {
    /// Commands for it.
    pub(crate) commands: mpsc::Sender<Command>,
    /// Workers for it.
    pub(crate) workers: mpsc::UnboundedSender<PushLane>,
    /// Relays for it, or a sink on another host.
    pub(crate) sinks: mpsc::UnboundedSender<PullLane>,
    inner: Loop,
}

/// A queue's sink.
pub(crate) struct Sink {
    /// Workers and relays for it, or a ventilator on another host.
    pub(crate) callers: mpsc::UnboundedSender<PullLane>,
    inner: Loop,
}

struct Loop {
    handle: StopHandle,
    thread: JoinHandle<()>,
}

/// How a queue's ventilator begins.
pub(crate) struct Begin {
    /// Whether an earlier process may have dispatched tasks.
    pub(crate) start: Start,
    /// Id of the job, and what looks at whose records the sink has, if that is on another host.
    pub(crate) own: Option<(JobId, JudgeSink)>,
    /// First task that the source gives: every one below has its record.
    pub(crate) first: Seq,
    /// Whether no task is dispatched.
    pub(crate) is_paused: bool,
    /// Tasks that are cancelled and have no record yet.
    pub(crate) cancelled: Vec<Seq>,
    /// Limits of tasks.
    pub(crate) policy: Policy,
}

/// Workers that may hold tasks, of the process before this one and for the one after it.
pub(crate) struct Holders {
    /// Those of the process before; `None` if that is not known.
    pub(crate) before: Option<Vec<SessionId>>,
    /// Takes those that do now, whenever they change.
    pub(crate) note: NoteWorkers,
}

impl Ventilator {
    /// Starts it.
    pub(crate) fn start(
        name: &str,
        source: impl Source + Send + 'static,
        begin: Begin,
        sockets: VentilatorSockets,
        common: &Common,
    ) -> Result<Self, Fatal> {
        let Begin { start, own, first, is_paused, cancelled, policy } = begin;
        let (job, judge) = own.unzip();
        let (workers, joining) = mpsc::unbounded_channel();
        let (sinks, asking) = mpsc::unbounded_channel();
        let (commands, said) = mpsc::channel(COMMANDS_MAX);
        let settings = tradewind_ventilator::Settings {
            task_bytes_max: tradewind_text::payload_bytes_max(common.lanes.message_bytes_max),
            tasks: sockets.tasks,
            receipts: sockets.receipts,
            sink: sockets.sink,
            job: name.to_owned(),
            stage: String::new(),
            start,
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
                job,
                judge,
                first,
                is_paused,
                cancelled,
                workers: joining,
                sinks: asking,
                commands: said,
            }),
            asks: None,
        };
        let inner = Loop::spawn(format!("{name}:in"), name, common, move |shutdown| async {
            tradewind_ventilator::run(settings, source, shutdown).await.map(drop)
        })?;
        Ok(Self { commands, workers, sinks, inner })
    }

    /// Ends it. Workers keep what they have. Blocks.
    pub(crate) fn stop(self) {
        self.inner.stop();
    }
}

impl Sink {
    /// Starts it.
    pub(crate) fn start(
        name: &str,
        store: impl Store + 'static,
        holders: Holders,
        sockets: SinkSockets,
        common: &Common,
    ) -> Result<Self, Fatal> {
        let (callers, called) = mpsc::unbounded_channel();
        let settings = tradewind_sink::Settings {
            listen: sockets.results,
            ventilator: sockets.ventilator,
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
                workers: holders.before,
                note_workers: holders.note,
            }),
        };
        let mut store = Some(store);
        let prepare = move || Ok(store.take().expect("what can be opened is not asked for twice"));
        let inner = Loop::spawn(format!("{name}:out"), name, common, move |shutdown| async {
            tradewind_sink::run(settings, prepare, shutdown).await.map(drop)
        })?;
        Ok(Self { callers, inner })
    }

    /// Ends it. Results that have come are stored. Blocks.
    pub(crate) fn stop(self) {
        self.inner.stop();
    }
}

impl Loop {
    fn spawn<F>(
        name: String,
        queue: &str,
        common: &Common,
        run: impl FnOnce(Shutdown) -> F + Send + 'static,
    ) -> Result<Self, Fatal>
    where
        F: Future<Output = Result<(), Fatal>>,
    {
        let handle = StopHandle::default();
        let (stop, ended, queue) = (handle.clone(), common.ended.clone(), queue.to_owned());
        let body = move || {
            if let Err(Fatal { code, error }) = block_on_until(|| Ok(Shutdown::by(&stop)), run) {
                let _ = ended.send(Fatal { code, error: error.context(format!("queue {queue}")) });
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
