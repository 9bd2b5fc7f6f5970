//! Gates, diallers and lanes over real sockets, and strangers at the door.

mod doors;
mod ends;
mod frames;
mod keys;
mod ports;
mod redial;
mod strangers;
mod unix;

use std::cell::Cell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradewind_keys::Role;
use tradewind_lanes::{
    Dialler, Door, Endpoint, Keyring, LaneOptions, PullGate, PullLane, PushGate, PushLane,
};

pub(crate) const MESSAGE_BYTES_MAX: u64 = 2 << 20;
const CARD: &[u8] = b"\x01card";

/// What a test's lanes are made of.
pub(crate) struct World {
    pub(crate) options: LaneOptions,
    /// Directory for sockets, where the lanes are no TCP connections.
    sockets: Option<PathBuf>,
    /// Keys of gates and of diallers, where the lanes are encrypted.
    keyrings: Option<[Arc<Keyring>; 2]>,
    gates: Cell<u32>,
}

/// What lanes run over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Tcp,
    Tls,
    Unix,
}

impl World {
    fn new(dir: &Path, over: Over) -> Self {
        let options = LaneOptions {
            message_bytes_max: MESSAGE_BYTES_MAX,
            socket_dir: Some(dir.to_owned()),
            ..LaneOptions::default()
        };
        Self {
            options,
            sockets: (over == Over::Unix).then(|| dir.to_owned()),
            keyrings: (over == Over::Tls).then(|| {
                let keys = keys::Set::new();
                [keys.keyring(Role::Sink), keys.keyring(Role::Worker)]
            }),
            gates: Cell::new(0),
        }
    }

    /// An endpoint at which no gate listens yet.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let Some(dir) = &self.sockets else { return any_port() };
        let gate = self.gates.get();
        self.gates.set(gate + 1);
        format!("ipc://{}/gate-{gate}", dir.display()).parse().unwrap()
    }

    pub(crate) async fn push_gate(&self) -> PushGate {
        PushGate::bind(&self.endpoint(), self.options.clone(), self.door()).await.unwrap()
    }

    pub(crate) async fn pull_gate(&self) -> PullGate {
        PullGate::bind(&self.endpoint(), self.options.clone(), self.door()).await.unwrap()
    }

    pub(crate) fn dialler(&self, endpoint: Endpoint) -> Dialler {
        let door = self.dial_door(Door::showing(Bytes::from_static(CARD)).unwrap());
        Dialler::new(endpoint, self.options.clone(), door, 7)
    }

    /// A dialler's door with the keys of this world, if it has any.
    pub(crate) fn dial_door(&self, door: Door) -> Door {
        match &self.keyrings {
            Some([_, dialler]) => keys::locked(door, dialler, Role::Sink),
            None => door,
        }
    }

    /// A gate's door.
    pub(crate) fn door(&self) -> Door {
        match &self.keyrings {
            Some([gate, _]) => keys::locked(Door::default(), gate, Role::Worker),
            None => Door::default(),
        }
    }

    /// A gate's PUSH lane, and the PULL lane that was dialled to it.
    pub(crate) async fn out(&self) -> (PushLane, PullLane) {
        let mut gate = self.push_gate().await;
        let mut dialler = self.dialler(gate.endpoint());
        tokio::join!(gate.accept(), dialler.dial_pull())
    }

    /// A PUSH lane that was dialled, and the gate's PULL lane behind it.
    pub(crate) async fn back(&self) -> (PushLane, PullLane) {
        let mut gate = self.pull_gate().await;
        let mut dialler = self.dialler(gate.endpoint());
        tokio::join!(dialler.dial_push(), gate.accept())
    }
}

pub(crate) fn any_port() -> Endpoint {
    "tcp://127.0.0.1:0".parse().unwrap()
}

/// Runs a test over TCP, on the runtime that production uses, not for ever, and checks that nothing is left on
/// disk.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    run_over(Over::Tcp, test);
}

/// Does the same over Unix sockets.
pub(crate) fn run_unix<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    run_over(Over::Unix, test);
}

/// Does both, and the same over TCP with keys.
pub(crate) fn run_all<F: Future<Output = ()>>(test: impl Fn(World) -> F) {
    run(&test);
    run_over(Over::Tls, &test);
    run_unix(&test);
}

fn run_over<F: Future<Output = ()>>(over: Over, test: impl FnOnce(World) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let test = test(World::new(dir.path(), over));
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test comes to its end");
    });
    drop(runtime);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something was left on disk");
}
