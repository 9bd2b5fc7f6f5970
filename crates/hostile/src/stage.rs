//! The way in which a liar comes, and what it has in its hands.

use std::fmt;
use std::fs;
use std::io::Write;
use std::net::SocketAddrV4;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tradewind_e2e::Scene;
use tradewind_keys::{Addresses, Folder, Keys, ROOT_LIFE, Role as KeyRole, Source, UnixTime};
use tradewind_proto::message::{
    Card, News, Outcome, Role, Status, Task, TaskResult, ToSink, ToWorker,
};
use tradewind_proto::{Attempt, CallId, JobId, Payload, Seq, SeqRanges, SessionId, Tag, TaskHash};
use tradewind_wire::encode;

use crate::peer::{Kind, Peer, Route, Shut};

/// Way in which a liar comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing has keys.
    Plain,
    /// The programs have keys, and the liar a token of their folder.
    Token(KeyRole),
    /// The programs have keys, and the liar has none.
    NoKey,
    /// The programs have keys, and the liar those of another folder.
    OthersKey,
    /// There is no liar on a connection: a task, a file or another user is hostile.
    Here,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.pad("plain"),
            Self::Token(role) => f.pad(&format!("{role}'s token")),
            Self::NoKey => f.pad("no key"),
            Self::OthersKey => f.pad("another's key"),
            Self::Here => f.pad("-"),
        }
    }
}

impl Way {
    fn has_keys(self) -> bool {
        matches!(self, Self::Token(_) | Self::NoKey | Self::OthersKey)
    }

    /// Returns whether a door has to open to a card of this role, shown in this way.
    pub(crate) fn opens(self, role: Role) -> bool {
        match self {
            Self::Plain => true,
            Self::Token(key) => match role {
                Role::Worker => key == KeyRole::Worker,
                Role::Ventilator => matches!(key, KeyRole::Ventilator | KeyRole::Relay),
                Role::Sink => matches!(key, KeyRole::Sink | KeyRole::Relay),
            },
            Self::NoKey | Self::OthersKey | Self::Here => false,
        }
    }
}

/// Place where a scenario is played.
pub(crate) struct Stage {
    pub(crate) way: Way,
}

/// What a liar knows of a job: as much as any worker is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) job: JobId,
    pub(crate) ventilator: SessionId,
    pub(crate) sink: SessionId,
}

impl Stage {
    /// Makes a scene for honest programs.
    pub(crate) fn scene(&self) -> Scene {
        let mut scene = Scene::new();
        if self.way.has_keys() {
            scene.make_keys();
        }
        scene
    }

    /// Makes a liar that comes in this stage's way.
    pub(crate) fn liar(&self, scene: &Scene) -> Liar {
        let keys = match self.way {
            Way::Plain | Way::NoKey | Way::Here => None,
            Way::Token(role) => Some(token(scene, role)),
            Way::OthersKey => Some(others(scene)),
        };
        Liar::with(self.way, keys)
    }

    /// Returns what a worker is told, by way of an accomplice that has whatever a worker needs.
    #[track_caller]
    pub(crate) fn spy(&self, scene: &Scene) -> Known {
        self.spy_at(scene, &Ports::of(scene))
    }

    /// The same at any ports.
    #[track_caller]
    pub(crate) fn spy_at(&self, scene: &Scene, at: &Ports) -> Known {
        let way = if self.way.has_keys() { Way::Token(KeyRole::Worker) } else { Way::Plain };
        let worker = Self { way }.liar(scene).worker_at(at, 1, "spy");
        let worker = worker.expect("a worker gets in");
        let session = |peer: &Peer| peer.card.as_ref().expect("a gate shows a card").session;
        Known {
            job: worker.job,
            ventilator: session(&worker.tasks),
            sink: session(&worker.results),
        }
    }
}

fn keys_folder(scene: &Scene) -> PathBuf {
    scene.path(".config/tradewind/keys")
}

/// Makes a token of the scene's folder and opens it, as a new process would.
fn token(scene: &Scene, role: KeyRole) -> Arc<Keys> {
    open(&token_file(scene, role), role)
}

/// Makes a token of the scene's folder; returns its file.
pub(crate) fn token_file(scene: &Scene, role: KeyRole) -> PathBuf {
    let now = UnixTime::now();
    let folder = Folder::open(&keys_folder(scene)).expect("the scene has keys");
    let token = folder.token(role, ROOT_LIFE, Addresses::default(), now).expect("one can be made");
    let dir = scene.path(&format!("liar-{}", token.fingerprint()));
    fs::create_dir(&dir).expect("a directory can be made");
    let path = dir.join("token");
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&path).expect("a file can be made");
    let text = token.encode().expect("it has no addresses");
    file.write_all(text.as_bytes()).expect("there is room");
    path
}

/// Makes keys of a folder of the liar's own.
fn others(scene: &Scene) -> Arc<Keys> {
    let path = scene.path("others-keys");
    if !path.exists() {
        Folder::create(&path, UnixTime::now()).expect("a folder can be made");
    }
    open(&path, KeyRole::Worker)
}

fn open(path: &std::path::Path, role: KeyRole) -> Arc<Keys> {
    let source = Source::at(path).expect("it was just made");
    Arc::new(Keys::open(source, role, UnixTime::now()).expect("the keys are good"))
}

/// Ports of one stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) tasks: SocketAddrV4,
    pub(crate) results: SocketAddrV4,
    pub(crate) receipts: SocketAddrV4,
}

impl Ports {
    /// Those of a job with one stage.
    fn of(scene: &Scene) -> Self {
        Self { tasks: scene.tasks(), results: scene.results(), receipts: scene.receipts() }
    }
}

/// Process that lies.
pub(crate) struct Liar {
    pub(crate) way: Way,
    pub(crate) route: Route,
    /// Session that it has a right to: that of its key, if it has one.
    pub(crate) session: SessionId,
}

impl Liar {
    fn with(way: Way, keys: Option<Arc<Keys>>) -> Self {
        let session =
            SessionId(keys.as_ref().map_or_else(|| fastrand::u64(1..), |it| it.session()));
        Self { way, route: Route { keys, from: None }, session }
    }

    /// The same liar by another name: it shows this session.
    pub(crate) fn showing(self, session: SessionId) -> Self {
        Self { session, ..self }
    }

    /// Its card.
    pub(crate) fn card(&self, role: Role, slots: u32, name: &str) -> Vec<u8> {
        let name = name.to_owned();
        let card = Card {
            role,
            session: self.session,
            slots,
            message_bytes_max: 64 << 20,
            name,
            queue: String::new(),
        };
        encode(&card).to_vec()
    }

    /// Tries to become a worker. `None`: it was kept out, as it has to be.
    #[track_caller]
    pub(crate) fn worker(&self, scene: &Scene, slots: u32, name: &str) -> Option<Worker> {
        self.worker_at(&Ports::of(scene), slots, name)
    }

    /// The same at any ports.
    #[track_caller]
    pub(crate) fn worker_at(&self, at: &Ports, slots: u32, name: &str) -> Option<Worker> {
        let card = self.card(Role::Worker, slots, name);
        let results =
            self.enter(Role::Worker, "results", || self.route.dial(at.results, Kind::Push, &card));
        let tasks =
            self.enter(Role::Worker, "tasks", || self.route.dial(at.tasks, Kind::Pull, &card));
        let (results, mut tasks) = results.zip(tasks)?;
        let called = tasks.wait_for("the roll is called", |message| match message {
            ToWorker::RollCall { job, call, .. } => Some((job, call)),
            _ => None,
        });
        let (job, call) = called.unwrap_or_else(|why| panic!("a worker was sent away: {why:?}"));
        let session = self.session;
        let now = Instant::now();
        Some(Worker { results, tasks, job, call, session, slots, beat: now, given: Vec::new() })
    }

    /// Shows a ventilator's card to the sink. `None`: it was kept out, as it has to be.
    #[track_caller]
    pub(crate) fn ventilator(&self, scene: &Scene) -> Option<Peer> {
        self.ventilator_at(&Ports::of(scene))
    }

    /// The same at any ports.
    #[track_caller]
    pub(crate) fn ventilator_at(&self, at: &Ports) -> Option<Peer> {
        let card = self.card(Role::Ventilator, 0, "impostor");
        self.enter(Role::Ventilator, "results", || self.route.dial(at.results, Kind::Push, &card))
    }

    /// Shows a sink's card to the ventilator. `None`: it was kept out, as it has to be.
    #[track_caller]
    pub(crate) fn sink(&self, scene: &Scene) -> Option<Peer> {
        self.sink_at(&Ports::of(scene))
    }

    /// The same at any ports.
    #[track_caller]
    pub(crate) fn sink_at(&self, at: &Ports) -> Option<Peer> {
        let card = self.card(Role::Sink, 0, "impostor");
        self.enter(Role::Sink, "receipts", || self.route.dial(at.receipts, Kind::Push, &card))
    }

    /// Sees to it that a door opens if it has to, and only then. A peer that is refused hears so right
    /// after READY, or before.
    #[track_caller]
    fn enter(
        &self,
        role: Role,
        port: &str,
        dial: impl FnOnce() -> Result<Peer, Shut>,
    ) -> Option<Peer> {
        match (dial(), self.way.opens(role)) {
            (Ok(peer), true) => Some(peer),
            (Ok(peer), false) => {
                // Messages that come too late to be refused are said in vain.
                let why = peer.wait_for_end(&format!("a {role:?} at the {port} port"));
                assert!(!why.is_empty());
                None
            }
            (Err(_), false) => None,
            (Err(why), true) => panic!("{role:?} was kept out of the {port} port: {why:?}"),
        }
    }
}

/// Worker that lies, on both of its connections.
pub(crate) struct Worker {
    pub(crate) results: Peer,
    pub(crate) tasks: Peer,
    pub(crate) job: JobId,
    pub(crate) call: CallId,
    pub(crate) session: SessionId,
    slots: u32,
    beat: Instant,
    /// Tasks that it was given and that are not taken yet.
    given: Vec<Task>,
}

/// Interval between heartbeats.
const BEAT: Duration = Duration::from_millis(900);

impl Worker {
    /// Sends news of itself.
    pub(crate) fn tell(&mut self, news: News) -> Result<(), Shut> {
        self.results.send(&ToSink::News { session: self.session, news })
    }

    /// Answers the roll call: it holds nothing.
    pub(crate) fn answer(&mut self) {
        let news = self.holding(SeqRanges::new(), Vec::new(), Vec::new());
        let _ = self.tell(news);
    }

    /// An answer to the latest roll call.
    pub(crate) fn holding(
        &self,
        unfinished: SeqRanges,
        hashes: Vec<TaskHash>,
        tags: Vec<Tag>,
    ) -> News {
        News::Holding {
            job: self.job,
            call: self.call,
            unfinished,
            finished: SeqRanges::new(),
            hashes: hashes.into(),
            tags: tags.into(),
        }
    }

    /// An honest answer to the latest roll call, if it was given all of its tasks and has taken none.
    pub(crate) fn holding_all(&self) -> News {
        let mut held: Vec<&Task> = self.given.iter().collect();
        held.sort_by_key(|task| task.seq);
        held.dedup_by_key(|task| task.seq);
        let hashes = held.iter().map(|task| task.hash).collect();
        let tags = held.iter().map(|task| task.tag).collect();
        self.holding(held.iter().map(|task| task.seq).collect(), hashes, tags)
    }

    /// The tasks that have come and are not taken.
    pub(crate) fn held(&self) -> &[Task] {
        &self.given
    }

    /// Beats, if it is time to, as one that has little.
    pub(crate) fn tick(&mut self) {
        self.beat(2);
    }

    /// Beats, if it is time to, as one that has this number of tasks.
    pub(crate) fn beat(&mut self, held: u32) {
        if self.beat.elapsed() >= BEAT {
            self.beat = Instant::now();
            let slots = self.slots;
            let running = slots.min(held);
            let _ = self.tell(News::Heartbeat { running, queued: held - running, slots });
        }
    }

    /// Reads what has come. Returns the messages that are no tasks.
    pub(crate) fn read(&mut self) -> Vec<ToWorker> {
        let mut others = Vec::new();
        while let Some(message) = self.tasks.next() {
            match message {
                ToWorker::Tasks { tasks, .. } => self.given.extend(tasks.0),
                other => others.push(other),
            }
        }
        others
    }

    /// Returns the tasks that it was given since the last time.
    pub(crate) fn take(&mut self) -> Vec<Task> {
        let _ = self.read();
        std::mem::take(&mut self.given)
    }

    /// Returns the number of tasks that have come and are not taken.
    pub(crate) fn given(&mut self) -> usize {
        let _ = self.read();
        self.given.len()
    }

    /// Sends results in this session's name.
    pub(crate) fn send(&mut self, results: Vec<TaskResult>) -> Result<(), Shut> {
        let (job, session) = (self.job, self.session);
        self.results.send(&ToSink::Results { job, session, results: results.into() })
    }
}

/// A forged result of a task that was not given: with a tag that is a guess.
pub(crate) fn forged(seq: u64, hash: TaskHash) -> TaskResult {
    TaskResult {
        seq: Seq(seq),
        attempt: Attempt::FIRST,
        last: true,
        tag: Tag(fastrand::u64(..)),
        started_us: 1,
        ran_us: 1,
        task_bytes: 1,
        task_hash: hash,
        outcome: Outcome::ok(Payload::from("forged")),
        reported: None,
    }
}

/// A result of a task that was given.
pub(crate) fn result(task: &Task, outcome: Outcome) -> TaskResult {
    TaskResult {
        seq: task.seq,
        attempt: task.attempt,
        last: task.last,
        tag: task.tag,
        started_us: 1,
        ran_us: 1,
        task_bytes: task.payload.len() as u64,
        task_hash: task.hash,
        outcome,
        reported: None,
    }
}

/// A failure that is the task's record.
pub(crate) fn failure(error: impl Into<String>) -> Outcome {
    Outcome::error(Status::Failed, error)
}
