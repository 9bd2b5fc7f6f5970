//! Servers of engines, on loopback, each with a directory of its own.

use std::net::{SocketAddrV4, TcpStream};

use crate::{Process, Scene, wait_until};

/// Engine underneath a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// NATS JetStream, of the program that `NATS_SERVER` names.
    Nats,
}

/// Server of an engine. It ends with this.
#[derive(Debug)]
pub struct EngineServer {
    kind: EngineKind,
    scene: Scene,
    process: Process,
}

impl EngineServer {
    /// Starts one.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(kind: EngineKind) -> Self {
        let scene = Scene::new();
        let process = start(kind, &scene);
        Self { kind, scene, process }
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again over what it had.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_again(&mut self) {
        self.process = start(self.kind, &self.scene);
    }

    /// Returns the configuration of a server whose queue is on this engine.
    #[must_use]
    pub fn config(&self, queue: &str, partitions: u32) -> String {
        let at = at(&self.scene);
        let source = format!("nats://{at}/{}", queue.to_uppercase());
        format!(
            "[queue.{queue}]\nsource = \"{source}\"\nsink = \"{source}_DONE\"\npartitions = {partitions}\n"
        )
    }
}

fn at(scene: &Scene) -> SocketAddrV4 {
    SocketAddrV4::new(*scene.http().ip(), 4222)
}

fn start(kind: EngineKind, scene: &Scene) -> Process {
    let at = at(scene);
    let process = match kind {
        EngineKind::Nats => {
            let store = scene.path("store");
            // What it has said yes to is on the disk, as with our own logs.
            let config = format!(
                "listen: {at}\njetstream {{ store_dir: {store:?}, sync_interval: always }}\n"
            );
            let path = scene.file("nats.conf", config);
            let program = std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
            scene.other(&program).arg("-c").arg(path).start()
        }
    };
    wait_until("the engine listens", || TcpStream::connect(at).is_ok());
    process
}
