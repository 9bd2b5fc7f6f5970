//! The programs: the gates, the HTTP port and the queues behind them, until they are told to stop.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tradewind_client::{Client, Options};
use tradewind_http::{Limits, Queues, Server};
use tradewind_keys::Role as KeyRole;
use tradewind_lanes::{Endpoint, LaneOptions};
use tradewind_node::doors::{Port, queues_door};
use tradewind_node::exit::{Fatal, LISTEN, OK, OUTPUT, OrExit, Outcome, SYSTEM, USAGE};
use tradewind_node::keys::{Wanted, keep_fresh, session, sink_at, ventilator_at};
use tradewind_node::{Listen, Room, Shutdown};
use tradewind_proto::SessionId;
use tradewind_proto::message::{Card, Role};

use crate::config::Config;
use crate::dir::{LOCK_WAIT, lock_dir, queues_dir};
use crate::gates::{judge, pass};
use crate::loops::Common;
use crate::queue::Place;
use crate::remote::Remote;
use crate::service::{CallersPort, Service, SinksPort, WorkersPort};
use crate::sink_service::{SinkPort, SinkService};
use tradewind_face::{HttpPort, Trusted, http_keys};

/// Settings that all programs have which serve queues.
pub struct Settings {
    /// Directory of all that it keeps.
    pub dir: PathBuf,
    /// Settings of queues.
    pub config: Config,
    /// Port for HTTP.
    pub http: SocketAddr,
    /// Who may ask there without a key, besides this machine. If there is somebody, the port has no TLS.
    pub http_trust: Vec<Trusted>,
    /// What was said about keys.
    pub keys: Wanted,
    /// Limits of connections.
    pub lanes: LaneOptions,
}

/// Ports of a program that serves both halves of queues.
pub struct Ports {
    /// Port that workers fetch tasks from.
    pub tasks: Listen,
    /// Port that workers and relays send results to.
    pub results: Listen,
    /// Port that relays send receipts to, if queues have stages behind them.
    pub receipts: Option<Listen>,
}

/// Ports of a program that serves the tasks of queues, and where their records are.
pub struct TaskPorts {
    /// Port that workers fetch tasks from.
    pub tasks: Listen,
    /// Port that the sink sends receipts to.
    pub receipts: Listen,
    /// Where the sink listens; by default the token says so.
    pub sink: Option<Endpoint>,
    /// URL of the sink's HTTP port.
    pub records: String,
}

/// Ports of a program that serves the records of queues, and where their tasks are.
pub struct RecordPorts {
    /// Port that workers, relays and the ventilator send to.
    pub results: Listen,
    /// Where the ventilator listens for receipts; by default the token says so.
    pub ventilator: Option<Endpoint>,
}

/// Interval at which what is not needed any more is removed.
const TRIM_INTERVAL: Duration = Duration::from_secs(5);

/// Time that a connection to the sink's HTTP port may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Serves queues until a request to stop.
///
/// # Errors
/// When a port cannot be listened on, keys cannot be used, or what is in the directory is damaged or in use.
pub async fn serve(settings: Settings, ports: Ports, shutdown: Shutdown) -> Outcome {
    let Settings { dir, config, http, http_trust, keys: wanted, lanes } = settings;
    let Ports { tasks, results, receipts } = ports;
    let keys =
        wanted.clone().open(KeyRole::Ventilator, [&tasks].into_iter().chain(&receipts), [])?;
    let sink_keys = wanted.clone().open(KeyRole::Sink, [&results], [])?;
    let http_keys = http_keys(&wanted, http.ip(), &keys, &http_trust)?;
    // What only dials here is locked by the same keys.
    keep_fresh(&keys)?;
    keep_fresh(&sink_keys)?;
    let _locked = locked(&dir).await?;
    let (ended, ends) = mpsc::unbounded_channel();
    let common = Common {
        ventilator: session(&keys),
        sink: session(&sink_keys),
        ventilator_keys: keys.clone(),
        sink_keys: sink_keys.clone(),
        lanes: lanes.clone(),
        ended,
    };
    let (room, limits) = room(2, 1);
    let ours = card(Role::Ventilator, common.ventilator, &lanes);
    let door = queues_door(&ours, Port::Tasks, room.clone(), &keys, judge);
    let tasks = tasks.open(room.options(&lanes), door).await.or_exit(LISTEN)?;
    let receipts = match receipts {
        Some(receipts) => {
            let door = queues_door(&ours, Port::Receipts, room.clone(), &keys, judge);
            Some(receipts.open(room.receipts_options(&lanes), door).await.or_exit(LISTEN)?)
        }
        None => None,
    };
    let ours = card(Role::Sink, common.sink, &lanes);
    let door = queues_door(&ours, Port::Results, room.clone(), &sink_keys, judge);
    let results = results.open(room.options(&lanes), door).await.or_exit(LISTEN)?;
    let port = HttpPort::open(http, http_keys, &[KeyRole::Client])?;
    let service =
        opened(move || Service::open(queues_dir(&dir), config, Place::Here, common)).await?;
    tracing::info!(
        tasks = %tasks.endpoint(),
        results = %results.endpoint(),
        http = %port.at()?,
        queues = service.all().len(),
        "queues are served"
    );
    let mut passing = vec![
        tokio::spawn(pass(tasks, WorkersPort(service.clone()))),
        tokio::spawn(pass(results, CallersPort(service.clone()))),
    ];
    passing
        .extend(receipts.map(|receipts| tokio::spawn(pass(receipts, SinksPort(service.clone())))));
    let server = server(&port, service.clone(), limits, &lanes);
    run(Running { passing, port, server, service, ends, shutdown }).await
}

/// Serves the tasks of queues whose records are on another host, until a request to stop.
///
/// # Errors
/// As [`serve`], and when the records there are not those of the tasks.
pub async fn serve_tasks(settings: Settings, ports: TaskPorts, shutdown: Shutdown) -> Outcome {
    let Settings { dir, config, http, http_trust, keys: wanted, lanes } = settings;
    let TaskPorts { tasks, receipts, sink, records } = ports;
    let keys = wanted.clone().open(KeyRole::Ventilator, [&tasks, &receipts], [sink.as_ref()])?;
    let sink = sink_at(sink, &keys, "tcp://127.0.0.1:5558")?;
    let http_keys = http_keys(&wanted, http.ip(), &keys, &http_trust)?;
    keep_fresh(&keys)?;
    let mut options = Options::from_env();
    options.keys = wanted.keys.clone().or(options.keys);
    // Who asks here is told at once that the sink does not answer, and may ask again.
    (options.patience, options.connect_timeout) = (Duration::ZERO, CONNECT_TIMEOUT);
    let remote = Client::of_ventilator(&records, options);
    let remote =
        Remote(remote.map_err(|error| Fatal::new(USAGE, format!("--records {records}: {error}")))?);
    let _locked = locked(&dir).await?;
    let (ended, ends) = mpsc::unbounded_channel();
    let common = Common {
        ventilator: session(&keys),
        sink: SessionId(0),
        ventilator_keys: keys.clone(),
        sink_keys: None,
        lanes: lanes.clone(),
        ended,
    };
    let (room, limits) = room(1, 1);
    let ours = card(Role::Ventilator, common.ventilator, &lanes);
    let door = queues_door(&ours, Port::Tasks, room.clone(), &keys, judge);
    let tasks = tasks.open(room.options(&lanes), door).await.or_exit(LISTEN)?;
    let door = queues_door(&ours, Port::Receipts, room.clone(), &keys, judge);
    let receipts = receipts.open(room.receipts_options(&lanes), door).await.or_exit(LISTEN)?;
    let port = HttpPort::open(http, http_keys, &[KeyRole::Client])?;
    let place = Place::There { sink: sink.clone(), remote };
    let service = opened(move || Service::open(queues_dir(&dir), config, place, common)).await?;
    tracing::info!(
        tasks = %tasks.endpoint(),
        receipts = %receipts.endpoint(),
        %sink,
        http = %port.at()?,
        queues = service.all().len(),
        "the tasks of queues are served"
    );
    let passing = vec![
        tokio::spawn(pass(tasks, WorkersPort(service.clone()))),
        tokio::spawn(pass(receipts, SinksPort(service.clone()))),
    ];
    let server = server(&port, service.clone(), limits, &lanes);
    run(Running { passing, port, server, service, ends, shutdown }).await
}

/// Takes the directory for this process, until the file is closed.
async fn locked(dir: &Path) -> Result<File, Fatal> {
    let dir = dir.to_owned();
    let locked = tokio::task::spawn_blocking(move || lock_dir(&dir, LOCK_WAIT));
    locked.await.or_exit(SYSTEM)?.or_exit(OUTPUT)
}

/// Serves the records of queues whose tasks are on another host, until a request to stop.
///
/// # Errors
/// As [`serve`].
pub async fn serve_records(settings: Settings, ports: RecordPorts, shutdown: Shutdown) -> Outcome {
    let Settings { dir, config, http, http_trust, keys: wanted, lanes } = settings;
    let RecordPorts { results, ventilator } = ports;
    let keys = wanted.clone().open(KeyRole::Sink, [&results], [ventilator.as_ref()])?;
    let ventilator = ventilator_at(ventilator, &keys, "tcp://127.0.0.1:5559")?;
    let http_keys = http_keys(&wanted, http.ip(), &keys, &http_trust)?;
    keep_fresh(&keys)?;
    let _locked = locked(&dir).await?;
    let (ended, ends) = mpsc::unbounded_channel();
    let common = Common {
        ventilator: SessionId(0),
        sink: session(&keys),
        ventilator_keys: None,
        sink_keys: keys.clone(),
        lanes: lanes.clone(),
        ended,
    };
    let (room, limits) = room(1, 0);
    let ours = card(Role::Sink, common.sink, &lanes);
    let door = queues_door(&ours, Port::Results, room.clone(), &keys, judge);
    let results = results.open(room.options(&lanes), door).await.or_exit(LISTEN)?;
    // The ventilator asks by its own key.
    let roles = [KeyRole::Client, KeyRole::Ventilator];
    let port = HttpPort::open(http, http_keys, &roles)?;
    let at = ventilator.clone();
    let service = opened(move || SinkService::open(queues_dir(&dir), config, at, common)).await?;
    tracing::info!(
        results = %results.endpoint(),
        %ventilator,
        http = %port.at()?,
        queues = service.all().len(),
        "the records of queues are served"
    );
    let passing = vec![tokio::spawn(pass(results, SinkPort(service.clone())))];
    let server = server(&port, service.clone(), limits, &lanes);
    run(Running { passing, port, server, service, ends, shutdown }).await
}

/// Returns the room for connections of workers, and the limits of those for HTTP beside them.
fn room(ports: u64, others: u64) -> (Room, Limits) {
    let mut limits = Limits::default();
    let (room, http_max) = Room::beside_http(ports, others, limits.connections_max);
    limits.connections_max = http_max;
    // As for workers: one address does not have all of them.
    limits.connections_per_address_max =
        limits.connections_per_address_max.min((http_max / 4 * 3).max(1));
    (room, limits)
}

fn card(role: Role, session: SessionId, lanes: &LaneOptions) -> Card {
    Card {
        role,
        session,
        slots: 0,
        message_bytes_max: lanes.message_bytes_max,
        name: "queues".to_owned(),
        queue: String::new(),
    }
}

async fn opened<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, Fatal> + Send + 'static,
) -> Result<T, Fatal> {
    tokio::task::spawn_blocking(open).await.or_exit(SYSTEM)?
}

/// What has queues, and tends them.
trait Tended: Queues + Clone {
    /// Removes what is not needed any more.
    fn trim(&self) -> impl Future<Output = ()> + Send;

    /// Ends the queues' loops. Blocks.
    fn close(&self);
}

impl Tended for Service {
    async fn trim(&self) {
        Self::trim(self).await;
    }

    fn close(&self) {
        Self::close(self);
    }
}

impl Tended for SinkService {
    async fn trim(&self) {
        Self::trim(self).await;
    }

    fn close(&self) {
        Self::close(self);
    }
}

/// A program that has begun.
struct Running<S> {
    passing: Vec<JoinHandle<()>>,
    port: HttpPort,
    server: Server,
    service: S,
    ends: mpsc::UnboundedReceiver<Fatal>,
    shutdown: Shutdown,
}

/// Runs a program until it is told to stop, or a queue of it cannot go on.
async fn run<S: Tended>(running: Running<S>) -> Outcome {
    let Running { passing, port, server, service, mut ends, mut shutdown } = running;
    let answering = tokio::spawn(port.answer(server.clone()));
    let trimming = tokio::spawn(trim(service.clone()));
    let ended = tokio::select! {
        _ = shutdown.asked() => None,
        ended = ends.recv() => ended,
    };
    tracing::info!(
        "stopping: what was promised is on the disk; workers keep the tasks that they have"
    );
    server.drain();
    passing.iter().chain([&trimming]).for_each(|task| task.abort());
    let closed = tokio::task::spawn_blocking(move || service.close());
    let is_hurried = tokio::select! {
        _ = async { closed.await.ok(); answering.await.ok() } => false,
        _ = shutdown.asked() => true,
    };
    if is_hurried {
        tracing::warn!("stopped at once");
    }
    match ended {
        Some(fatal) => Err(fatal),
        None => Ok(OK),
    }
}

/// Returns what answers at a port.
fn server<Q: Queues>(
    port: &HttpPort,
    queues: Q,
    mut limits: Limits,
    lanes: &LaneOptions,
) -> Server {
    let task_bytes_max = tradewind_text::payload_bytes_max(lanes.message_bytes_max);
    limits.task_bytes_max =
        limits.task_bytes_max.min(usize::try_from(task_bytes_max).unwrap_or(usize::MAX));
    Server::new(queues, port.access(), limits)
}

/// Removes what is not needed any more, now and then.
async fn trim(service: impl Tended) {
    loop {
        sleep(TRIM_INTERVAL).await;
        service.trim().await;
    }
}
