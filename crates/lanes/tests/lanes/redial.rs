//! Diallers do not give up.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Socket, Type};
use tradewind_lanes::{Dialler, Door, Endpoint, GoneReason, PullGate, PushGate};

use crate::{run, run_all};

#[test]
fn a_dialler_may_start_before_its_gate() {
    run(async |world| {
        // Bound and not listened on: refused to diallers, and to other tests that want any port.
        let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        reserved.set_reuse_address(true).unwrap();
        reserved.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let endpoint = Endpoint::from(reserved.local_addr().unwrap().as_socket().unwrap());
        let mut dialler = world.dialler(endpoint.clone());
        let early = tokio::time::timeout(Duration::from_millis(200), dialler.dial_push()).await;
        assert!(early.is_err(), "nobody is there yet");
        let error = dialler.last_error().unwrap().to_string();
        assert!(error.contains("refused"), "{error}");

        let dial = tokio::spawn(async move {
            let lane = dialler.dial_push().await;
            (dialler.last_error().is_none(), lane)
        });
        tokio::task::yield_now().await;
        let mut gate =
            PullGate::bind(&endpoint, world.options.clone(), Door::default()).await.unwrap();
        let mut pull = gate.accept().await;
        let (forgot_its_errors, mut push) = dial.await.unwrap();
        assert!(forgot_its_errors);
        push.send(Bytes::from_static(b"at last")).unwrap();
        assert_eq!(pull.recv().await.unwrap(), "at last");
    });
}

#[test]
fn a_dialler_finds_a_gate_that_came_back() {
    run_all(async |world| {
        let mut gate = world.push_gate().await;
        let endpoint = gate.endpoint();
        let mut dialler = world.dialler(endpoint.clone());
        for n in 0..3_u8 {
            let (mut push, mut pull) = tokio::join!(gate.accept(), dialler.dial_pull());
            push.send(vec![n].into()).unwrap();
            assert_eq!(pull.recv().await.unwrap(), vec![n]);
            drop(push);
            gate.close().await;
            assert_eq!(pull.recv().await, Err(GoneReason::Ended));
            gate = PushGate::bind(&endpoint, world.options.clone(), world.door()).await.unwrap();
        }
    });
}

#[test]
fn a_dialler_outlasts_a_gate_that_is_not_one() {
    run(async |mut world| {
        world.options.handshake_timeout = Duration::from_millis(50);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut dialler = world.dialler(listener.local_addr().unwrap().into());
        // The listener's queue takes the connection; nobody ever says a word.
        let dial = tokio::time::timeout(Duration::from_millis(300), dialler.dial_pull()).await;
        assert!(dial.is_err());
        let error = dialler.last_error().unwrap().to_string();
        assert!(error.contains("no complete handshake within 50ms"), "{error}");
    });
}

#[test]
fn a_dialler_says_that_the_name_does_not_resolve() {
    run(async |mut world| {
        world.options.connect_timeout = Duration::from_secs(2);
        let mut dialler = world.dialler("tcp://tradewind.invalid:1".parse().unwrap());
        let mut patience = Duration::from_millis(100);
        while dialler.last_error().is_none() {
            assert!(tokio::time::timeout(patience, dialler.dial_pull()).await.is_err());
            patience *= 2;
        }
        // A resolver without a network may take longer to say so than anybody wants to wait.
        let error = dialler.last_error().unwrap().to_string();
        let expected = ["the host does not resolve", "no answer within 2s"];
        assert!(expected.iter().any(|expected| error.contains(expected)), "{error}");
    });
}

#[test]
fn a_long_identity_is_refused() {
    run(async |_| {
        let door = |bytes: usize| Door::showing(vec![1; bytes].into());
        assert!(door(255).is_ok());
        let error = door(256).unwrap_err().to_string();
        assert_eq!(error, "an identity of 256 bytes, where at most 255 are possible");
    });
}

#[test]
fn an_identity_may_fill_all_255_bytes() {
    run_all(async |world| {
        let mut gate = world.push_gate().await;
        let card = Bytes::from(vec![7; 255]);
        let door = world.dial_door(Door::showing(card.clone()).unwrap());
        let mut dialler = Dialler::new(gate.endpoint(), world.options.clone(), door, 7);
        let (push, _pull) = tokio::join!(gate.accept(), dialler.dial_pull());
        assert_eq!(push.peer_identity(), card);
    });
}
