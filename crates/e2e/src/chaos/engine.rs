//! Servers of engines, on loopback, each with a directory of its own.

use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::{env, fs};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::{Process, Scene, Start, wait_until};

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
}

/// User and group as which PostgreSQL runs where root starts it, as root it does not: nobody.
const NOBODY: u32 = 65534;

impl EngineServer {
    /// Starts one.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(kind: EngineKind) -> Self {
        let (scene, data) =
            (Scene::new(), tempfile::tempdir().expect("there is room for a directory"));
        if kind == EngineKind::Postgres {
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(data.path(), open).expect("it is ours");
            if geteuid().is_root() {
                chown(data.path(), Some(NOBODY), Some(NOBODY)).expect("root may do that");
            }
            let initdb = postgres(&scene, "initdb").arg("-D").arg(data.path().join("data"));
            initdb.args(["-A", "trust", "-U", "chaos", "--no-sync"]).run().expect(0);
        }
        let process = start(kind, &scene, &data);
        Self { kind, process, scene, data }
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
        self.process = start(self.kind, &self.scene, &self.data);
    }

    /// Returns the URL of a stream of it.
    #[must_use]
    pub fn url(&self, stream: &str) -> String {
        format!("nats://{}/{stream}", at(self.kind, &self.scene))
    }

    /// Returns the configuration of a server whose queue is on this engine.
    #[must_use]
    pub fn config(&self, queue: &str, partitions: u32) -> String {
        let at = at(self.kind, &self.scene);
        let (source, sink) = match self.kind {
            EngineKind::Nats => {
                let source = format!("nats://{at}/{}", queue.to_uppercase());
                (source.clone(), format!("{source}_DONE"))
            }
            EngineKind::Postgres => {
                let url = format!("postgres://chaos@{at}/postgres?table={queue}");
                (url.clone(), url)
            }
        };
        format!(
            "[queue.{queue}]\nsource = \"{source}\"\nsink = \"{sink}\"\npartitions = {partitions}\n"
        )
    }
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

fn start(kind: EngineKind, scene: &Scene, data: &TempDir) -> Process {
    let at = at(kind, scene);
    let start = match kind {
        EngineKind::Nats => {
            let store = data.path().join("store");
            // What it has said yes to is on the disk, as with our own logs.
            let config = format!(
                "listen: {at}\njetstream {{ store_dir: {store:?}, sync_interval: always }}\n"
            );
            let path = scene.file("nats.conf", config);
            let program = env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
            scene.other(&program).arg("-c").arg(path)
        }
        EngineKind::Postgres => postgres(scene, "postgres")
            .arg("-D")
            .arg(data.path().join("data"))
            .args(["-p", &at.port().to_string(), "-h", &at.ip().to_string(), "-k", ""])
            .args(["-c", "shared_buffers=16MB"]),
    };
    let process = start.start();
    wait_until("the engine listens", || TcpStream::connect(at).is_ok());
    process
}
