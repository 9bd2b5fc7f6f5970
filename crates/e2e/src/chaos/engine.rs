//! Servers of engines, each with a directory of its own: on loopback, or on hosts of a network.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fs};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Namespaces, Process, Scene, Start, ask, wait_until};

/// Engine underneath a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// NATS JetStream, of the program that `NATS_SERVER` names.
    Nats,
    /// PostgreSQL, of the programs in the directory that `POSTGRES_BIN` names.
    Postgres,
}

/// Server of an engine. It ends with this.
#[derive(Debug)]
pub struct EngineServer {
    kind: EngineKind,
    process: Process,
    scene: Scene,
    data: TempDir,
    /// Addresses of all nodes of its cluster; none where it is the only one.
    nodes: Vec<Ipv4Addr>,
}

/// Cluster of NATS servers on hosts of a network, which have a copy of each stream each.
#[derive(Debug)]
pub struct NatsCluster(Vec<EngineServer>);

/// Ports at which a node says how it is, and at which others reach it.
const MONITOR: u16 = 8222;
const CLUSTER: u16 = 6222;

/// User and group as which PostgreSQL runs where root starts it, as root it does not: nobody.
const NOBODY: u32 = 65534;

impl EngineServer {
    /// Starts one.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(kind: EngineKind) -> Self {
        Self::start_in(kind, Scene::new(), Vec::new())
    }

    /// Starts one on a host of a network. Its starts wait for it from within.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_on(kind: EngineKind, network: &Arc<Namespaces>, node: usize) -> Self {
        Self::start_in(kind, Scene::on_host(network, node), Vec::new())
    }

    fn start_in(kind: EngineKind, scene: Scene, nodes: Vec<Ipv4Addr>) -> Self {
        let data = tempfile::tempdir().expect("there is room for a directory");
        if kind == EngineKind::Postgres {
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(data.path(), open).expect("it is ours");
            if geteuid().is_root() {
                chown(data.path(), Some(NOBODY), Some(NOBODY)).expect("root may do that");
            }
            let initdb = postgres(&scene, "initdb").arg("-D").arg(data.path().join("data"));
            initdb.args(["-A", "trust", "-U", "chaos", "--no-sync"]).run().expect(0);
        }
        let process = start(kind, &scene, &data, &nodes);
        Self { kind, process, scene, data, nodes }
    }

    /// Ends it as a crash does.
    ///
    /// # Panics
    /// When processes of it go on.
    pub fn kill(&mut self) {
        self.process.kill();
        // The processes of a connection each.
        let pids = || -> Vec<Pid> { self.scene.pids("postgres") };
        wait_until("the engine has ended", || {
            for pid in pids() {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
            pids().is_empty()
        });
    }

    /// Starts it again over what it had.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_again(&mut self) {
        self.process = start(self.kind, &self.scene, &self.data, &self.nodes);
    }

    /// Returns the URL of a stream of it, or of a table.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let at = at(self.kind, &self.scene);
        match self.kind {
            EngineKind::Nats => format!("nats://{at}/{name}"),
            EngineKind::Postgres => format!("postgres://chaos@{at}/postgres?table={name}"),
        }
    }

    /// Returns the configuration of a server whose queue is on this engine.
    #[must_use]
    pub fn config(&self, queue: &str, partitions: u32) -> String {
        let (source, sink) = match self.kind {
            EngineKind::Nats => {
                let stream = queue.to_uppercase();
                (self.url(&stream), self.url(&format!("{stream}_DONE")))
            }
            EngineKind::Postgres => {
                let url = self.url(queue);
                (url.clone(), url)
            }
        };
        configured(queue, &source, &sink, partitions)
    }
}

impl NatsCluster {
    /// Starts one on the first hosts of a network.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(network: &Arc<Namespaces>, nodes: usize) -> Self {
        let addresses: Vec<_> = (0..nodes).map(|node| network.address(node)).collect();
        let node = |number| {
            let scene = Scene::on_host(network, number);
            EngineServer::start_in(EngineKind::Nats, scene, addresses.clone())
        };
        let cluster = Self((0..nodes).map(node).collect());
        wait_until("the nodes have a leader", || {
            let leader = |node| {
                ask_node(node, "/jsz")?["meta_cluster"]["leader"].as_str().map(str::to_owned)
            };
            cluster.0.iter().all(|node| leader(node).is_some_and(|it| !it.is_empty()))
        });
        cluster
    }

    /// Returns the number of its nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.0.len()
    }

    /// Returns the node that leads the copies of a stream, if one does.
    #[must_use]
    pub fn leader(&self, stream: &str) -> Option<usize> {
        let leads = |number: &usize| {
            let name = node_name(self.0[*number].scene.http().ip());
            let Some(said) = ask_node(&self.0[*number], "/jsz?streams=true") else { return false };
            let streams = said["account_details"].as_array().into_iter().flatten();
            let mut streams =
                streams.flat_map(|it| it["stream_detail"].as_array().into_iter().flatten());
            streams.any(|it| it["name"] == stream && it["cluster"]["leader"] == name)
        };
        (0..self.nodes()).find(leads)
    }

    /// Returns a node to which a program at an address is connected.
    #[must_use]
    pub fn connected(&self, program: Ipv4Addr) -> Option<usize> {
        let is_connected = |number: &usize| {
            let said = ask_node(&self.0[*number], "/connz");
            let ips = said.as_ref().and_then(|said| said["connections"].as_array());
            ips.into_iter().flatten().any(|it| it["ip"] == program.to_string())
        };
        (0..self.nodes()).find(is_connected)
    }

    /// Cuts a node off from all others, or lets it be reached again.
    ///
    /// # Panics
    /// When its link cannot be switched.
    pub fn cut(&self, node: usize, is_cut: bool) {
        self.0[node].scene.cut_host(is_cut);
    }

    /// Ends a node as a crash does.
    ///
    /// # Panics
    /// When it goes on.
    pub fn kill(&mut self, node: usize) {
        self.0[node].kill();
    }

    /// Starts a node again over what it had.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_again(&mut self, node: usize) {
        self.0[node].start_again();
    }

    /// Returns the configuration of a server whose queue is on this cluster, with a copy on each node.
    #[must_use]
    pub fn config(&self, queue: &str, partitions: u32) -> String {
        let hosts: Vec<_> =
            self.0.iter().map(|node| at(node.kind, &node.scene).to_string()).collect();
        let (hosts, stream, nodes) = (hosts.join(","), queue.to_uppercase(), self.nodes());
        let url = |stream: &str| format!("nats://{hosts}/{stream}?replicas={nodes}");
        configured(queue, &url(&stream), &url(&format!("{stream}_DONE")), partitions)
    }
}

/// What a node says of itself.
fn ask_node(node: &EngineServer, path: &str) -> Option<Value> {
    let at = SocketAddrV4::new(*node.scene.http().ip(), MONITOR);
    serde_json::from_str(&ask(at, "GET", path, &[], b"").ok()?.body).ok()
}

fn node_name(address: &Ipv4Addr) -> String {
    format!("node-{address}")
}

fn configured(queue: &str, source: &str, sink: &str, partitions: u32) -> String {
    format!(
        "[queue.{queue}]\nsource = \"{source}\"\nsink = \"{sink}\"\npartitions = {partitions}\n"
    )
}

fn at(kind: EngineKind, scene: &Scene) -> SocketAddrV4 {
    let port = match kind {
        EngineKind::Nats => 4222,
        EngineKind::Postgres => 5432,
    };
    SocketAddrV4::new(*scene.http().ip(), port)
}

/// A program of PostgreSQL, as a user as which it runs.
fn postgres(scene: &Scene, program: &str) -> Start {
    let program = env::var("POSTGRES_BIN")
        .map_or_else(|_| PathBuf::from(program), |bin| PathBuf::from(bin).join(program));
    if !geteuid().is_root() {
        return scene.other(program.to_str().expect("it is text"));
    }
    let id = NOBODY.to_string();
    let start = scene.other("setpriv").args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    start.arg("--").arg(program)
}

fn start(kind: EngineKind, scene: &Scene, data: &TempDir, nodes: &[Ipv4Addr]) -> Process {
    let at = at(kind, scene);
    let mut process = program(kind, scene, data, nodes).start();
    wait_until("the engine listens", || {
        // What a killed process had of the kernel's may be there for longer than the process.
        if !process.is_running() && process.stderr().contains("still in use") {
            process = program(kind, scene, data, nodes).start();
        }
        TcpStream::connect(at).is_ok()
    });
    process
}

fn program(kind: EngineKind, scene: &Scene, data: &TempDir, nodes: &[Ipv4Addr]) -> Start {
    let at = at(kind, scene);
    match kind {
        EngineKind::Nats => {
            let store = data.path().join("store");
            // What one has said yes to is on the disk, as with our own logs. Of several each has it.
            let sync = if nodes.is_empty() { ", sync_interval: always" } else { "" };
            let mut config = format!("listen: {at}\njetstream {{ store_dir: {store:?}{sync} }}\n");
            if !nodes.is_empty() {
                config += &clustered(at.ip(), nodes);
            }
            let path = scene.file("nats.conf", config);
            let program = env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
            scene.other(&program).arg("-c").arg(path)
        }
        EngineKind::Postgres => postgres(scene, "postgres")
            .arg("-D")
            .arg(data.path().join("data"))
            .args(["-p", &at.port().to_string(), "-h", &listens(*at.ip()).to_string(), "-k", ""])
            .args(["-c", "shared_buffers=16MB"]),
    }
}

/// What the configuration of a node says of the others.
fn clustered(own: &Ipv4Addr, nodes: &[Ipv4Addr]) -> String {
    let mut routes = String::new();
    for node in nodes.iter().filter(|node| *node != own) {
        let _ = write!(routes, "nats-route://{node}:{CLUSTER},");
    }
    let name = node_name(own);
    format!(
        "server_name: {name}\nhttp: {own}:{MONITOR}\n\
         cluster {{ name: chaos, listen: {own}:{CLUSTER}, routes: [{}] }}\n",
        routes.trim_end_matches(',')
    )
}

/// Loopback is shared with others; a host of a network is not.
fn listens(address: Ipv4Addr) -> Ipv4Addr {
    if address.is_loopback() { address } else { Ipv4Addr::UNSPECIFIED }
}
