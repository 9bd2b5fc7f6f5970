//! A queue whose server and workers are killed while submitters die and send again.
//!
//! What was said yes to is counted against the records: each has one, none has two, and no key is two tasks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::mem;
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use super::engine::{EngineKind, EngineServer, NatsCluster};
use crate::{Namespaces, Process, Scene, Signal, ask, wait_for, wait_for_as_long_as, wait_until};

/// What is done to a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueuePlan {
    /// Decides everything but the machine's own timing.
    pub seed: u64,
    /// Time for which tasks are submitted and processes killed.
    pub length: Duration,
    /// Number of submitters.
    pub submitters: usize,
    /// Number of submitters that are programs, each with a file after the other.
    pub programs: usize,
    /// Number of workers of each server.
    pub workers: usize,
    /// What the queue's logs are in; `None` for logs of its own.
    pub underneath: Option<Underneath>,
    /// Number of tasks that each submitter submits at most, spread over the time.
    pub tasks_max: u64,
    /// Pause between two kills, on average.
    pub pause: Duration,
    /// Time after the last kill in which all records have to be there.
    pub patience: Duration,
}

/// Engine underneath a queue.
#[derive(Clone, Copy, Debug)]
pub struct Underneath {
    /// Which.
    pub kind: EngineKind,
    /// Number of servers that share the queue.
    pub servers: usize,
    /// Number of nodes of the engine. If there are several, each node and each server has a network namespace, and is
    /// cut off as well: that takes root, and NATS.
    pub nodes: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueReport {
    /// Times that the server was killed.
    pub server_kills: u64,
    /// Times that it was told to stop, and started again.
    pub server_stops: u64,
    /// Times that the engine, or a node of it, was killed.
    pub engine_kills: u64,
    /// Times that a node of the engine was cut off.
    pub node_cuts: u64,
    /// Times that this was the leader of a task stream.
    pub leader_cuts: u64,
    /// Times that a server was cut off with its workers, for longer than its leases hold.
    pub server_cuts: u64,
    /// Times that a server stood still for longer than its leases hold.
    pub server_pauses: u64,
    /// Times that a worker was killed.
    pub worker_kills: u64,
    /// Times that a submitter that is a program was killed, and run again.
    pub submitter_kills: u64,
    /// Times that a submitter did not hear the answer, and sent the same again.
    pub sent_again: u64,
    /// Cancels that were answered.
    pub cancels: u64,
    /// Tasks that were said yes to.
    pub promised: u64,
    /// Records that came out.
    pub records: u64,
    /// Records of tasks whose answer nobody heard, and which had no key to be sent again.
    pub unheard: u64,
    /// Tasks without a record.
    pub lost: u64,
    /// Records too many, of a task or of a key.
    pub doubled: u64,
    /// Records that are not those of their task.
    pub wrong: u64,
    /// Keys that were answered with two ids.
    pub split_keys: u64,
}

impl QueueReport {
    /// Returns whether the promise was kept.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let Self { lost, doubled, wrong, split_keys, promised, .. } = *self;
        promised > 0 && [lost, doubled, wrong, split_keys] == [0; 4]
    }
}

impl fmt::Display for QueueReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server_kills, server_stops, worker_kills, engine_kills, server_pauses, .. } =
            self;
        let Self {
            submitter_kills, sent_again, cancels, node_cuts, leader_cuts, server_cuts, ..
        } = self;
        let Self { promised, records, unheard, lost, doubled, wrong, split_keys, .. } = self;
        writeln!(
            f,
            "server killed {server_kills} times, stopped {server_stops}, stood still {server_pauses}; engine killed \
             {engine_kills}; workers killed {worker_kills}, submitters {submitter_kills}"
        )?;
        if node_cuts + server_cuts > 0 {
            writeln!(
                f,
                "nodes of the engine cut off {node_cuts} times, {leader_cuts} of them as leader of a task stream; \
                 servers cut off {server_cuts} times"
            )?;
        }
        writeln!(f, "answers not heard, and sent again: {sent_again}; cancels: {cancels}")?;
        write!(
            f,
            "{promised} tasks promised, {records} records ({unheard} of unheard answers), {lost} lost, {doubled} \
             doubled, {wrong} wrong, {split_keys} keys with two ids"
        )
    }
}

const QUEUE: &str = "chaos";

/// Number of partitions of a queue on an engine.
const PARTITIONS: u32 = 4;

/// Time for which a server stands still: its leases have gone then.
const PAUSE: Duration = Duration::from_secs(8);

/// Time for which a node of the engine is cut off: the others have a leader by then.
const NODE_CUT: Duration = Duration::from_secs(10);

/// What happens to a server, a worker or the engine.
#[derive(Clone, Copy)]
enum Blow {
    KillServer,
    StopServer,
    KillWorker,
    KillEngine,
    PauseServer,
    CutLeader,
    CutNode,
    CutServer,
}

/// What is underneath.
enum Engine {
    Server(Box<EngineServer>),
    Cluster(NatsCluster),
}

impl Engine {
    fn start(underneath: Underneath, network: Option<&Arc<Namespaces>>) -> Self {
        match network {
            None => Self::Server(Box::new(EngineServer::start(underneath.kind))),
            Some(network) => Self::Cluster(NatsCluster::start(network, underneath.nodes)),
        }
    }

    fn config(&self) -> String {
        match self {
            Self::Server(server) => server.config(QUEUE, PARTITIONS),
            Self::Cluster(cluster) => cluster.config(QUEUE, PARTITIONS),
        }
    }

    /// Kills it, or a node of it, and starts it again.
    fn kill(&mut self, rng: &mut Rng) {
        let pause = Duration::from_millis(rng.u64(..2000));
        match self {
            Self::Server(server) => {
                server.kill();
                thread::sleep(pause);
                server.start_again();
            }
            Self::Cluster(cluster) => {
                let node = rng.usize(..cluster.nodes());
                cluster.kill(node);
                thread::sleep(pause);
                cluster.start_again(node);
            }
        }
    }

    /// Cuts a node off for a while, by choice the leader of a task stream. Returns whether it was one.
    fn cut_node(&self, is_leader_wanted: bool, rng: &mut Rng) -> bool {
        let Self::Cluster(cluster) = self else { panic!("there are nodes where one is cut off") };
        let stream = format!("{}-{}", QUEUE.to_uppercase(), rng.u32(..PARTITIONS));
        let any = rng.usize(..cluster.nodes());
        let (node, leader) = if is_leader_wanted {
            // After a blow they may have to find one.
            let leader = wait_for("a task stream has a leader", || cluster.leader(&stream));
            (leader, Some(leader))
        } else {
            (any, cluster.leader(&stream))
        };
        cluster.cut(node, true);
        thread::sleep(NODE_CUT);
        cluster.cut(node, false);
        leader == Some(node)
    }
}

/// Each of them, in random order: whatever the seed, and however slow the machine, all of them happen.
fn each_blow(underneath: Option<Underneath>, rng: &mut Rng) -> Vec<Blow> {
    let mut blows = match underneath {
        None => vec![Blow::KillServer, Blow::StopServer, Blow::KillWorker],
        Some(Underneath { nodes: ..=1, .. }) => {
            let blows = [Blow::KillServer, Blow::StopServer, Blow::KillWorker];
            [&blows[..], &[Blow::KillEngine, Blow::PauseServer]].concat()
        }
        // Those that are about several nodes: the others happen by chance.
        Some(_) => vec![Blow::CutLeader, Blow::CutNode, Blow::KillEngine, Blow::CutServer],
    };
    rng.shuffle(&mut blows);
    blows
}

fn random_blow(underneath: Option<Underneath>, rng: &mut Rng) -> Blow {
    let kinds = match underneath {
        None => 10,
        Some(Underneath { nodes: ..=1, .. }) => 13,
        Some(_) => 16,
    };
    match rng.u8(..kinds) {
        0..4 => Blow::KillServer,
        4 => Blow::StopServer,
        5..10 => Blow::KillWorker,
        10..12 => Blow::KillEngine,
        12 => Blow::PauseServer,
        13 => Blow::CutLeader,
        14 => Blow::CutNode,
        _ => Blow::CutServer,
    }
}

/// What all threads share.
struct Shared {
    /// Servers, any of which may be asked.
    at: Vec<SocketAddrV4>,
    began: Instant,
    /// Time in which each submitter is to submit one task.
    each: Duration,
    /// Ids by the task that each is.
    promised: Mutex<HashMap<String, String>>,
    /// Time that a submitter which is a program may take.
    patience: Duration,
    is_over: AtomicBool,
    /// Whether something is amiss, so that nobody has to finish.
    is_broken: AtomicBool,
    submitter_kills: AtomicU64,
    sent_again: AtomicU64,
    split_keys: AtomicU64,
    cancels: AtomicU64,
}

/// Ends the submitters when whoever has it panics: else these would be waited for for ever.
struct EndOnPanic<'a>(&'a Shared);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.is_over.store(true, Ordering::Relaxed);
            self.0.is_broken.store(true, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn at(&self, rng: &mut Rng) -> SocketAddrV4 {
        *rng.choice(&self.at).expect("there is a server")
    }

    /// Waits until a submitter of this many tasks is to have submitted them, or all is over.
    fn wait_for_turn(&self, submitted: u64) {
        let due = self.began + self.each.mul_f64(submitted as f64);
        while Instant::now() < due && !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Does it.
///
/// # Panics
/// When a process cannot be started, or not all records come in time.
#[must_use]
pub fn queue_chaos(plan: &QueuePlan) -> QueueReport {
    match plan.underneath {
        Some(Underneath { nodes: 2.., kind: EngineKind::Nats, .. }) => {}
        Some(Underneath { nodes: 2.., .. }) => panic!("only NATS has several nodes here"),
        _ => return play(plan, None),
    }
    let Underneath { nodes, servers, .. } = plan.underneath.expect("it has nodes");
    let network =
        Namespaces::new(nodes + servers).expect("network namespaces take root and iproute2");
    let network = Arc::new(network);
    network.within(|| play(plan, Some(&network)))
}

fn play(plan: &QueuePlan, network: Option<&Arc<Namespaces>>) -> QueueReport {
    let mut rng = Rng::with_seed(plan.seed);
    let mut engine = plan.underneath.map(|underneath| Engine::start(underneath, network));
    let (servers, nodes) = plan.underneath.map_or((1, 0), |it| (it.servers, it.nodes));
    let scene = |place| match network {
        Some(network) => Scene::on_host(network, nodes + place),
        None => Scene::new(),
    };
    let scenes: Vec<Scene> = (0..servers).map(scene).collect();
    let config = engine.as_ref().map(Engine::config);
    let up = |place: usize| up(&scenes[place], config.as_deref());
    let shared = Shared {
        at: scenes.iter().map(Scene::http).collect(),
        began: Instant::now(),
        each: plan.length.div_f64(plan.tasks_max as f64),
        promised: Mutex::default(),
        patience: plan.patience,
        is_over: AtomicBool::new(false),
        is_broken: AtomicBool::new(false),
        submitter_kills: AtomicU64::new(0),
        sent_again: AtomicU64::new(0),
        split_keys: AtomicU64::new(0),
        cancels: AtomicU64::new(0),
    };
    let mut serves: Vec<Process> = (0..scenes.len()).map(&up).collect();
    let worker = |number: usize| {
        let name = format!("w{number}");
        let words = format!("--queue {QUEUE} --echo --slots 4 --grace 1s");
        scenes[number % scenes.len()].worker(&name).words(&words).stdout(null()).start()
    };
    let mut workers: Vec<Process> = (0..plan.workers * scenes.len()).map(worker).collect();
    let mut report = QueueReport::default();
    thread::scope(|scope| {
        let _end = EndOnPanic(&shared);
        for number in 0..plan.submitters {
            let (rng, shared) = (rng.fork(), &shared);
            scope.spawn(move || submit(number, plan.tasks_max, rng, shared));
        }
        for number in 0..plan.programs {
            let (rng, scene, shared) = (rng.fork(), &scenes[0], &shared);
            scope.spawn(move || submit_files(number, plan.tasks_max, rng, scene, shared));
        }
        let (cancels, shared) = (rng.fork(), &shared);
        // On an engine only the server with a task's partition cancels it.
        if plan.underneath.is_none() {
            scope.spawn(move || cancel(cancels, shared));
        }
        let until = Instant::now() + plan.length;
        let mut first = each_blow(plan.underneath, &mut rng);
        while Instant::now() < until || !first.is_empty() {
            // Between nothing and twice the pause.
            thread::sleep(plan.pause.mul_f64(2.0 * rng.f64()));
            let place = rng.usize(..serves.len());
            let serve = &mut serves[place];
            match first.pop().unwrap_or_else(|| random_blow(plan.underneath, &mut rng)) {
                Blow::KillServer => {
                    serve.kill();
                    report.server_kills += 1;
                    *serve = up(place);
                }
                Blow::StopServer => {
                    serve.signal(Signal::TERM);
                    wait_until("the server stops", || !serve.is_running());
                    report.server_stops += 1;
                    *serve = up(place);
                }
                Blow::KillWorker => {
                    let number = rng.usize(..workers.len());
                    workers[number].kill();
                    report.worker_kills += 1;
                    workers[number] = worker(number);
                }
                Blow::KillEngine => {
                    engine.as_mut().expect("it is killed where there is one").kill(&mut rng);
                    report.engine_kills += 1;
                }
                blow @ (Blow::CutLeader | Blow::CutNode) => {
                    let is_leader_wanted = matches!(blow, Blow::CutLeader);
                    let engine = engine.as_ref().expect("it is cut where there is one");
                    let was_leader = engine.cut_node(is_leader_wanted, &mut rng);
                    report.node_cuts += 1;
                    report.leader_cuts += u64::from(was_leader);
                }
                Blow::CutServer => {
                    scenes[place].cut_host(true);
                    report.server_cuts += 1;
                    thread::sleep(PAUSE);
                    scenes[place].cut_host(false);
                }
                Blow::PauseServer => {
                    serve.signal(Signal::STOP);
                    report.server_pauses += 1;
                    thread::sleep(PAUSE);
                    serve.signal(Signal::CONT);
                }
            }
        }
        shared.is_over.store(true, Ordering::Relaxed);
    });
    report.submitter_kills = shared.submitter_kills.into_inner();
    report.sent_again = shared.sent_again.into_inner();
    report.split_keys = shared.split_keys.into_inner();
    report.cancels = shared.cancels.into_inner();
    let promised = shared.promised.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.promised = promised.len() as u64;
    let partitions: Vec<Option<u32>> = match engine {
        Some(_) => (0..PARTITIONS).map(Some).collect(),
        None => vec![None],
    };
    let at = shared.at[0];
    settle(at, &partitions, &promised, plan.patience);
    wait_until("the records are read", || {
        let mut counted = report;
        let is_counted = count(at, &partitions, &promised, &mut counted).is_some();
        if is_counted {
            report = counted;
        }
        is_counted
    });
    drop((serves, workers, engine));
    report
}

fn null() -> std::process::Stdio {
    std::process::Stdio::null()
}

/// Returns a pipe into which nothing more can be written, and its other end.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().expect("there are pipes");
    let bytes = rustix::pipe::fcntl_getpipe_size(&writer).expect("a pipe has a size");
    writer.write_all(&vec![0; bytes]).expect("as much fits into it");
    (reader, writer)
}

fn up(scene: &Scene, config: Option<&str>) -> Process {
    let mut start = scene.serve();
    if let Some(config) = config {
        start = start.args(["--config".into(), scene.file("serve.toml", config)]);
    }
    let mut serve = start.stdout(null()).start();
    serve.wait_for_stderr("queues are served");
    serve
}

/// Submits tasks with keys, a batch at a time, until it has had an answer to each.
fn submit(number: usize, tasks_max: u64, mut rng: Rng, shared: &Shared) {
    let path = format!("/v1/queues/{QUEUE}/tasks");
    let mut next = 0_u64;
    // The first request is sent again, whatever the seed.
    let mut leaves = true;
    while !shared.is_over.load(Ordering::Relaxed) && next < tasks_max {
        let count = rng.u64(1..200);
        let mut tasks: Vec<String> =
            (next..next + count).map(|n| format!("s{number}-{n}")).collect();
        next += count;
        // Some of long ago are sent again: they are the same tasks.
        if rng.u8(..8) == 0 && next > 1000 {
            tasks.extend((0..5).map(|_| format!("s{number}-{}", rng.u64(..next - 500))));
            tasks.sort();
            tasks.dedup();
        }
        let lines: String = tasks
            .iter()
            .map(|task| format!("{{\"task\":\"{task}\",\"key\":\"{task}\"}}\n"))
            .collect();
        let headers = ["Content-Type: application/x-ndjson"];
        while !shared.is_broken.load(Ordering::Relaxed) {
            // It dies, and is started again with the same tasks.
            if mem::take(&mut leaves) || rng.u8(..6) == 0 {
                let _ = send_and_leave(shared.at(&mut rng), &path, lines.as_bytes(), &mut rng);
                shared.sent_again.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            match ask(shared.at(&mut rng), "POST", &path, &headers, lines.as_bytes()) {
                Ok(answer) if answer.status == 200 => {
                    note(shared, &tasks, &ids(&answer.body));
                    break;
                }
                // It leaves, or its answer was lost.
                Ok(_) | Err(_) => {
                    shared.sent_again.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(rng.u64(1..50)));
                }
            }
        }
        thread::sleep(Duration::from_millis(rng.u64(..20)));
        shared.wait_for_turn(next);
    }
}

/// Sends a request, or a part of it, and goes away before the answer.
fn send_and_leave(at: SocketAddrV4, path: &str, body: &[u8], rng: &mut Rng) -> io::Result<()> {
    let mut stream = TcpStream::connect(at)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    let part = if rng.bool() { request.len() } else { rng.usize(..request.len()) };
    stream.write_all(&request[..part])
}

/// Submits files by the program, one after the other: it is killed, and run again as it was until it has printed the id
/// of each line.
fn submit_files(number: usize, tasks_max: u64, mut rng: Rng, scene: &Scene, shared: &Shared) {
    let (mut submitted, mut file) = (0, 0);
    let (_reader, full) = full_pipe();
    let mut has_been_killed = false;
    // Time that the last one took which was let be: however fast it is, kills fall at all points of its life.
    let mut life = Duration::ZERO;
    while !shared.is_over.load(Ordering::Relaxed) && submitted < tasks_max {
        // Several requests of the program.
        let count = rng.u64(100..5000);
        let tasks: Vec<String> = (0..count).map(|n| format!("p{number}-{file}-{n}")).collect();
        let path = scene.file(&format!("p{number}-{file}"), tasks.join("\n") + "\n");
        while !shared.is_broken.load(Ordering::Relaxed) {
            let url = format!("http://{}", shared.at(&mut rng));
            let start = scene.ours("tradewind").args(["submit", QUEUE, "--url", &url, "--input"]);
            let mut start = start.arg(&path);
            // Until one was killed, none can end well: it has nowhere to print its ids.
            if !has_been_killed {
                start = start.stdout(full.try_clone().expect("a pipe can be shared"));
            }
            let began = Instant::now();
            let mut submit = start.start();
            if !has_been_killed || rng.u8(..4) > 0 {
                thread::sleep(life.mul_f64(rng.f64()));
                submit.kill();
            }
            wait_for_as_long_as(shared.patience, "a submitter ends", || {
                (!submit.is_running()).then_some(())
            });
            let ended = submit.wait();
            if ended.status.signal() == Some(Signal::KILL.as_raw()) {
                has_been_killed = true;
                shared.submitter_kills.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if ended.code() == 0 {
                life = began.elapsed();
                let ids: Vec<&str> = ended.text().lines().collect();
                note(shared, &tasks, &ids);
                break;
            }
            // The server was not there when it began.
            shared.sent_again.fetch_add(1, Ordering::Relaxed);
        }
        submitted += count;
        file += 1;
        shared.wait_for_turn(submitted);
    }
}

/// Returns the ids of an answer in lines.
fn ids(body: &str) -> Vec<String> {
    let id = |line| {
        let line: Value = serde_json::from_str(line).expect("each line is JSON");
        line["id"].as_str().expect("it has an id").to_owned()
    };
    body.lines().map(id).collect()
}

/// Notes the ids that tasks have.
fn note(shared: &Shared, tasks: &[String], ids: &[impl AsRef<str>]) {
    assert_eq!(ids.len(), tasks.len(), "there is an id for each task");
    let mut promised = shared.promised.lock().unwrap_or_else(PoisonError::into_inner);
    for (task, id) in tasks.iter().zip(ids) {
        let id = id.as_ref();
        if promised.insert(task.clone(), id.to_owned()).is_some_and(|before| before != id) {
            shared.split_keys.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Cancels a task now and then, most of which have their records already.
fn cancel(mut rng: Rng, shared: &Shared) {
    while !shared.is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(rng.u64(..100)));
        let count = shared.promised.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        if count == 0 {
            continue;
        }
        let id = format!("/v1/tasks/{QUEUE}-{}", rng.u64(count.saturating_sub(200)..count));
        let answer = ask(shared.at(&mut rng), "DELETE", &id, &[], b"");
        shared
            .cancels
            .fetch_add(u64::from(answer.is_ok_and(|it| it.status < 300)), Ordering::Relaxed);
    }
}

fn state(at: SocketAddrV4) -> Option<Value> {
    let answer = ask(at, "GET", &format!("/v1/queues/{QUEUE}"), &[], b"").ok()?;
    serde_json::from_str(&answer.body).ok()
}

/// Waits until each task has its record.
fn settle(
    at: SocketAddrV4,
    partitions: &[Option<u32>],
    promised: &HashMap<String, String>,
    patience: Duration,
) {
    let began = Instant::now();
    let has_engine = partitions[0].is_some();
    wait_for_as_long_as(Duration::MAX, "each task has its record", || {
        let state = state(at);
        let mut report = QueueReport::default();
        // A server knows of its own partitions alone.
        let is_counted = !has_engine || count(at, partitions, promised, &mut report).is_some();
        assert!(
            began.elapsed() < patience,
            "tasks have no record after {patience:?}: {state:?}, {report}"
        );
        let state = state?;
        let is_settled = ["queued", "running"].iter().all(|name| state[*name] == 0);
        (is_settled && is_counted && report.lost == 0).then_some(())
    });
}

/// Compares records with what was promised, if all can be read now.
fn count(
    at: SocketAddrV4,
    partitions: &[Option<u32>],
    promised: &HashMap<String, String>,
    report: &mut QueueReport,
) -> Option<()> {
    let by_id: BTreeMap<&str, &str> =
        promised.iter().map(|(task, id)| (id.as_str(), task.as_str())).collect();
    // Two tasks with one id.
    report.doubled += (promised.len() - by_id.len()) as u64;
    let (mut ids, mut tasks) = (HashSet::new(), HashSet::new());
    for partition in partitions {
        for_each_record(at, *partition, |record| {
            report.records += 1;
            let id = record["id"].as_str().expect("it has an id").to_owned();
            let output = record["output"].as_str().unwrap_or_default().to_owned();
            // On an engine nobody cancels.
            let is_cancelled = record["status"] == "cancelled" && partition.is_none();
            match by_id.get(&*id) {
                _ if is_cancelled => {}
                Some(task) if output != *task || record["status"] != "ok" => report.wrong += 1,
                Some(_) => {}
                None => report.unheard += 1,
            }
            let is_twice = !is_cancelled && !tasks.insert(output);
            report.doubled += u64::from(!ids.insert(id) || is_twice);
        })?;
    }
    report.lost += by_id.keys().filter(|id| !ids.contains(**id)).count() as u64;
    Some(())
}

/// Tells of each record of a queue, or of a partition of it, unless the server or the engine is away.
fn for_each_record(
    at: SocketAddrV4,
    partition: Option<u32>,
    mut tell: impl FnMut(&Value),
) -> Option<()> {
    let partition = partition.map(|number| format!("&partition={number}")).unwrap_or_default();
    let mut after = String::new();
    loop {
        let path = format!("/v1/queues/{QUEUE}/records?limit=1000{partition}{after}");
        let page = ask(at, "GET", &path, &[], b"").ok().filter(|page| page.status != 503)?;
        assert_eq!(page.status, 200, "{}", page.body);
        let mut last = None;
        for line in page.body.lines() {
            let record: Value = serde_json::from_str(line).expect("records are JSON");
            last = Some(record["position"].clone());
            tell(&record);
        }
        let Some(last) = last else { return Some(()) };
        after = format!("&after={last}");
    }
}
