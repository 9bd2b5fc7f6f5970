//! Scene of a test: a directory, an address and a mark of its own.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::namespaces::Namespaces;
use crate::system::marked;
use crate::{Start, program, wait_until};

/// Scene of a test.
///
/// Every process of it, and of its processes in turn, carries a mark in its environment by which
/// it is found: processes that a failed test leaves behind are killed.
#[derive(Debug)]
pub struct Scene {
    dir: TempDir,
    mark: String,
    network: Network,
    /// Whether its programs have keys.
    has_keys: bool,
}

/// Addresses of its programs.
#[derive(Debug)]
enum Network {
    /// All at one address.
    Loopback(Address),
    /// Each in a namespace of its own.
    Namespaces(Namespaces),
    /// All in one namespace of a network that others are in, too.
    Host(Arc<Namespaces>, usize),
}

const VENTILATOR: usize = 0;
const SINK: usize = 1;
const FIRST_WORKER: usize = 2;

/// The name of the mark. Not one of Tradewind's, which are not passed on.
pub(crate) const MARK_ENV: &str = "E2E_MARK";

static SCENES: AtomicU32 = AtomicU32::new(1);

/// An address of loopback that no other scene has. Loopback has 16 million, and each has all ports:
/// no other program can take ours.
#[derive(Debug)]
struct Address(Ipv4Addr);

/// The last bytes of this process's addresses that no scene has. The first is the one that was not used
/// for longest: of those that had it before, something may still be on its way.
static FREE: LazyLock<Mutex<VecDeque<u8>>> = LazyLock::new(|| Mutex::new((1..=254).collect()));

impl Address {
    fn take() -> Self {
        let number = free().pop_front().expect("a test has few scenes at a time");
        let [.., high, low] = std::process::id().to_be_bytes();
        Self(Ipv4Addr::new(127, high, low, number))
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let [.., number] = self.0.octets();
        free().push_back(number);
    }
}

fn free() -> MutexGuard<'static, VecDeque<u8>> {
    // Tests panic, but not while they hold this.
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scene {
    /// A new one.
    ///
    /// # Panics
    /// When there is no room for a directory.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a directory: not a default")]
    pub fn new() -> Self {
        let number = SCENES.fetch_add(1, Ordering::Relaxed);
        Self {
            dir: tempfile::tempdir().expect("a directory can be made"),
            mark: format!("{}-{number}", std::process::id()),
            network: Network::Loopback(Address::take()),
            has_keys: false,
        }
    }

    /// Creates one whose programs run in network namespaces: the ventilator, the sink and a number of workers.
    ///
    /// # Errors
    /// When there can be none: they take root.
    ///
    /// # Panics
    /// When there is no room for a directory.
    pub fn with_namespaces(workers: usize) -> io::Result<Self> {
        let mut scene = Self::new();
        scene.network = Network::Namespaces(Namespaces::new(FIRST_WORKER + workers)?);
        Ok(scene)
    }

    /// Creates one whose programs all run on one host of a network.
    ///
    /// # Panics
    /// When there is no room for a directory.
    #[must_use]
    pub fn on_host(network: &Arc<Namespaces>, node: usize) -> Self {
        let mut scene = Self::new();
        scene.network = Network::Host(Arc::clone(network), node);
        scene
    }

    /// Makes keys, which all of its programs find from now on.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn make_keys(&mut self) {
        self.has_keys = true;
        let _ = self.ours("tradewind").words("keys new").run().expect(0);
    }

    /// Leaves the directory where it is when the scene is gone.
    pub fn keep_dir(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// A directory that goes away with the scene.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Writes a file into it.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    /// Reads a file in it; one that does not exist is empty.
    #[must_use]
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_default()
    }

    /// Returns the address to which workers connect.
    #[must_use]
    pub fn tasks(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host(VENTILATOR), 5557)
    }

    /// Returns the address to which results go.
    #[must_use]
    pub fn results(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host(SINK), 5558)
    }

    /// Returns the address to which receipts go.
    #[must_use]
    pub fn receipts(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host(VENTILATOR), 5559)
    }

    /// Any program, marked, in this scene's directory.
    #[must_use]
    pub fn other(&self, program: &str) -> Start {
        self.start(program)
    }

    fn start(&self, program: impl AsRef<OsStr>) -> Start {
        let start = match &self.network {
            Network::Host(network, node) => started_in(&network.name(*node), program),
            Network::Loopback(_) | Network::Namespaces(_) => Start::new(program),
        };
        start.dir(self.dir()).env(MARK_ENV, &self.mark)
    }

    /// `tradewind run`.
    #[must_use]
    pub fn run(&self) -> Start {
        self.ours("tradewind").arg("run")
    }

    /// Returns the address at which queues are asked for.
    #[must_use]
    pub fn http(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host(VENTILATOR), 5560)
    }

    /// `tradewind serve` at this scene's addresses, with its directory in the scene's.
    #[must_use]
    pub fn serve(&self) -> Start {
        self.serve_at(&self.http().to_string())
    }

    /// The same with HTTP elsewhere.
    #[must_use]
    pub fn serve_at(&self, http: &str) -> Start {
        self.ours_at(VENTILATOR, "tradewind")
            .arg("serve")
            .args(["--tasks", &endpoint(self.tasks())])
            .args(["--results", &endpoint(self.results())])
            .args(["--http", http])
            .args(["--dir", "queues"])
    }

    /// Returns the address at which the records of queues are asked for whose sink is a program of its own.
    #[must_use]
    pub fn records_http(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host(SINK), 5561)
    }

    /// The half of queues with the tasks, with its directory in the scene's.
    #[must_use]
    pub fn tasks_half(&self) -> Start {
        self.ventilator()
            .args(["--serve", "tasks", "--http", &self.http().to_string()])
            .args(["--records", &format!("http://{}", self.records_http())])
    }

    /// The half of queues with the records, likewise.
    #[must_use]
    pub fn records_half(&self) -> Start {
        self.sink().args(["--store", "records", "--http", &self.records_http().to_string()])
    }

    /// A ventilator at this scene's address.
    #[must_use]
    pub fn ventilator(&self) -> Start {
        self.ours_at(VENTILATOR, "ventilator")
            .args(["--tasks", &endpoint(self.tasks())])
            .args(["--receipts", &endpoint(self.receipts())])
            .args(["--sink", &endpoint(self.results())])
    }

    /// A worker for it.
    #[must_use]
    pub fn worker(&self, name: &str) -> Start {
        self.worker_at(0, name)
    }

    /// A worker in one of the places that [`Scene::with_namespaces`] has made for workers.
    #[must_use]
    pub fn worker_at(&self, place: usize, name: &str) -> Start {
        self.ours_at(FIRST_WORKER + place, "worker")
            .args(["--ventilator", &endpoint(self.tasks())])
            .args(["--sink", &endpoint(self.results())])
            .args(["--name", name])
    }

    /// A sink for it.
    #[must_use]
    pub fn sink(&self) -> Start {
        self.ours_at(SINK, "sink")
            .args(["--listen", &endpoint(self.results())])
            .args(["--ventilator", &endpoint(self.receipts())])
    }

    /// One of our programs, in this scene's directory, without arguments.
    #[must_use]
    pub fn ours(&self, name: &str) -> Start {
        self.with_keys(self.start(program(name)))
    }

    fn with_keys(&self, start: Start) -> Start {
        if self.has_keys { start.home(self.dir()) } else { start }
    }

    /// Cuts the ventilator off, or lets it be reached again.
    ///
    /// # Panics
    /// When the scene has no namespaces.
    pub fn cut_ventilator(&self, is_cut: bool) {
        self.cut(VENTILATOR, is_cut);
    }

    /// Cuts the sink off, or lets it be reached again.
    ///
    /// # Panics
    /// When the scene has no namespaces.
    pub fn cut_sink(&self, is_cut: bool) {
        self.cut(SINK, is_cut);
    }

    /// Cuts the worker in this place off, or lets it reach the others again.
    ///
    /// # Panics
    /// When the scene has no namespaces.
    pub fn cut_worker(&self, place: usize, is_cut: bool) {
        self.cut(FIRST_WORKER + place, is_cut);
    }

    /// Cuts the host off on which all of this scene's programs are, or lets it be reached again.
    ///
    /// # Panics
    /// When it is on no host of a network.
    pub fn cut_host(&self, is_cut: bool) {
        let Network::Host(network, node) = &self.network else {
            panic!("there is no host to be cut off");
        };
        network.set_cut(*node, is_cut).expect("a link of our own can be switched");
    }

    fn cut(&self, node: usize, is_cut: bool) {
        let Network::Namespaces(namespaces) = &self.network else {
            panic!("loopback cannot be cut");
        };
        namespaces.set_cut(node, is_cut).expect("a link of our own can be switched");
    }

    fn host(&self, node: usize) -> Ipv4Addr {
        match &self.network {
            Network::Loopback(Address(host)) => *host,
            Network::Namespaces(namespaces) => namespaces.address(node),
            Network::Host(network, node) => network.address(*node),
        }
    }

    /// One of our programs where this node is.
    fn ours_at(&self, node: usize, name: &str) -> Start {
        match &self.network {
            Network::Loopback(_) | Network::Host(..) => self.ours(name),
            Network::Namespaces(namespaces) => {
                let start = started_in(&namespaces.name(node), program(name));
                self.with_keys(start.dir(self.dir()).env(MARK_ENV, &self.mark))
            }
        }
    }

    /// Returns the number of this scene's processes whose command line begins with this.
    #[must_use]
    pub fn count(&self, command: &str) -> usize {
        marked(&self.mark).iter().filter(|(_, line)| line.starts_with(command)).count()
    }

    /// The processes of this scene with this in their command line.
    #[must_use]
    pub fn pids(&self, text: &str) -> Vec<Pid> {
        let marked = marked(&self.mark).into_iter();
        marked.filter(|(_, line)| line.contains(text)).map(|(pid, _)| pid).collect()
    }

    /// Waits until no process of this scene is left.
    ///
    /// # Panics
    /// When one stays.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let mut left = Vec::new();
        let is_empty = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("no process is left", || {
                left = marked(&self.mark);
                left.is_empty()
            });
        }));
        assert!(is_empty.is_ok(), "left behind: {left:?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What a killed worker was running goes on without it.
        for (pid, _) in marked(&self.mark) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A program in a namespace. `ip` becomes it: they have the same id.
fn started_in(namespace: &str, program: impl AsRef<OsStr>) -> Start {
    Start::new("ip").args(["netns", "exec", namespace]).arg(program)
}

fn endpoint(address: SocketAddrV4) -> String {
    format!("tcp://{address}")
}
