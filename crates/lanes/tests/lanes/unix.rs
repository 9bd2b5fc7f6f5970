//! Gates on Unix sockets: their files, and who may have the place.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tradewind_lanes::{
    BindError, Door, Endpoint, GoneReason, LaneOptions, PeerAddr, PullGate, bind,
};

use crate::{World, run_unix};

fn path(endpoint: &Endpoint) -> PathBuf {
    let Endpoint::Ipc(ipc) = endpoint else { panic!("{endpoint} is no Unix socket") };
    ipc.path().unwrap().to_owned()
}

async fn check_passes(world: &World, gate: &mut PullGate) {
    let mut dialler = world.dialler(gate.endpoint());
    let (mut push, mut pull) = tokio::join!(dialler.dial_push(), gate.accept());
    push.send(Bytes::from_static(b"x")).unwrap();
    assert_eq!(pull.recv().await.unwrap(), "x");
    let Endpoint::Ipc(ipc) = gate.endpoint() else { panic!() };
    assert_eq!(*push.peer_addr(), PeerAddr::Socket(ipc.into()));
    assert_eq!(push.peer_addr().place(), format!("at {}", gate.endpoint()));
}

#[test]
fn a_gate_has_a_file_for_its_user_alone_and_removes_it() {
    run_unix(async |world| {
        let mut gate = world.pull_gate().await;
        let path = path(&gate.endpoint());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        check_passes(&world, &mut gate).await;
        gate.close().await;
        assert!(!path.exists());
    });
}

#[test]
fn the_file_of_a_process_that_was_killed_is_replaced() {
    run_unix(async |world| {
        let endpoint = world.endpoint();
        drop(UnixListener::bind(path(&endpoint)).unwrap());
        assert!(path(&endpoint).exists(), "the standard library leaves it");
        let mut gate =
            PullGate::bind(&endpoint, world.options.clone(), Door::default()).await.unwrap();
        check_passes(&world, &mut gate).await;
    });
}

#[test]
fn a_socket_that_is_in_use_is_refused_and_stays() {
    run_unix(async |world| {
        let mut gate = world.pull_gate().await;
        let error = bind(&gate.endpoint()).unwrap_err();
        assert!(matches!(error, BindError::Taken { .. }), "{error}");
        let wanted = format!("{} is taken by another process", gate.endpoint());
        assert_eq!(error.to_string(), wanted);
        check_passes(&world, &mut gate).await;
    });
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    run_unix(async |world| {
        let endpoint = world.endpoint();
        std::fs::write(path(&endpoint), "precious").unwrap();
        let error = bind(&endpoint).unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
        assert_eq!(std::fs::read(path(&endpoint)).unwrap(), b"precious");
        std::fs::remove_file(path(&endpoint)).unwrap();
        let missing: Endpoint = format!("{endpoint}/below").parse().unwrap();
        let error = bind(&missing).unwrap_err();
        assert!(matches!(error, BindError::DirectoryMissing { .. }), "{error}");
    });
}

#[test]
fn a_gate_leaves_the_file_that_has_taken_the_place_of_its_own() {
    run_unix(async |world| {
        let gate = world.pull_gate().await;
        let path = path(&gate.endpoint());
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        gate.close().await;
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn the_file_of_an_inherited_socket_is_left_to_the_process_that_made_it() {
    run_unix(async |world| {
        let endpoint = world.endpoint();
        let listener = UnixListener::bind(path(&endpoint)).unwrap();
        let mut gate =
            PullGate::adopt(vec![listener.into()], world.options.clone(), Door::default()).unwrap();
        assert_eq!(gate.endpoint(), endpoint);
        check_passes(&world, &mut gate).await;
        gate.close().await;
        assert!(path(&endpoint).exists());
        std::fs::remove_file(path(&endpoint)).unwrap();
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_in_no_file_system_will_do() {
    run_unix(async |world| {
        let name = format!("ipc://@tradewind-test-{}", std::process::id());
        let endpoint: Endpoint = name.parse().unwrap();
        let mut gate =
            PullGate::bind(&endpoint, world.options.clone(), Door::default()).await.unwrap();
        let mut dialler = world.dialler(endpoint.clone());
        let (mut push, mut pull) = tokio::join!(dialler.dial_push(), gate.accept());
        push.send(Bytes::from_static(b"x")).unwrap();
        assert_eq!(pull.recv().await.unwrap(), "x");
        let error = bind(&endpoint).unwrap_err();
        assert!(matches!(error, BindError::Taken { .. }), "{error}");
        gate.close().await;
        assert!(bind(&endpoint).is_ok());
    });
}

/// TCP would do this with `TCP_USER_TIMEOUT`.
#[test]
fn a_peer_that_reads_nothing_is_given_up_after_a_time() {
    run_unix(async |world| {
        let unacked_max = Duration::from_millis(300);
        let options = LaneOptions { unacked_max, ..world.options.clone() };
        let mut gate = tradewind_lanes::PushGate::bind(&world.endpoint(), options, Door::default())
            .await
            .unwrap();
        let mut dialler = world.dialler(gate.endpoint());
        let (mut push, pull) = tokio::join!(gate.accept(), dialler.dial_pull());
        // As much as no queue between the two takes.
        for _ in 0..64 {
            push.send(vec![0; 1 << 20].into()).unwrap();
        }
        let start = Instant::now();
        let gone = push.gone().await;
        assert_eq!(gone, GoneReason::Broken(std::io::ErrorKind::TimedOut));
        assert!(start.elapsed() >= unacked_max);
        drop(pull);
    });
}

#[test]
fn a_dialler_says_that_there_is_no_socket_yet() {
    run_unix(async |world| {
        let endpoint = world.endpoint();
        let mut dialler = world.dialler(endpoint.clone());
        let early = tokio::time::timeout(Duration::from_millis(100), dialler.dial_push()).await;
        assert!(early.is_err());
        assert_eq!(dialler.last_error().unwrap().to_string(), "there is no such socket");
        drop(UnixListener::bind(path(&endpoint)).unwrap());
        let early = tokio::time::timeout(Duration::from_millis(200), dialler.dial_push()).await;
        assert!(early.is_err());
        assert_eq!(dialler.last_error().unwrap().to_string(), "connection refused");
        let mut gate =
            PullGate::bind(&endpoint, world.options.clone(), Door::default()).await.unwrap();
        let (_push, _pull) = tokio::join!(dialler.dial_push(), gate.accept());
        assert!(UnixStream::connect(path(&endpoint)).is_ok());
    });
}
