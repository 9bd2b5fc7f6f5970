//! Who is not let in hears why, and so does whoever finds somebody else than was meant.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tradewind_lanes::meter::error_command;
use tradewind_lanes::{
    Admitted, Dialler, Door, Endpoint, GoneReason, LaneOptions, PullGate, PushGate,
};

use crate::strangers::{Stranger, ready};
use crate::{any_port, run};

fn shut(identity: &'static [u8], reason: &'static str) -> Door {
    let door = Door::showing(Bytes::from_static(identity)).unwrap();
    door.admitting(move |_| Err(reason.to_owned()))
}

async fn pull_gate(options: &LaneOptions, door: Door) -> PullGate {
    PullGate::bind(&any_port(), options.clone(), door).await.unwrap()
}

/// Dials until something has failed, and says what.
async fn failure(dialler: &mut Dialler) -> String {
    while dialler.last_error().is_none() {
        let dial = tokio::time::timeout(Duration::from_millis(50), dialler.dial_push()).await;
        assert!(dial.is_err(), "nobody lets it in");
    }
    dialler.last_error().unwrap().to_string()
}

#[test]
fn both_ends_see_the_others_identity() {
    run(async |world| {
        let door = Door::showing(Bytes::from_static(b"gate")).unwrap();
        let mut gate = pull_gate(&world.options, door).await;
        let mut dialler = world.dialler(gate.endpoint());
        let (push, pull) = tokio::join!(dialler.dial_push(), gate.accept());
        assert_eq!(push.peer_identity(), b"gate");
        assert_eq!(pull.peer_identity(), b"\x01card");
    });
}

#[test]
fn a_dialler_that_is_not_let_in_hears_why() {
    run(async |world| {
        let gate = pull_gate(&world.options, shut(b"gate", "no room for you")).await;
        let mut dialler = world.dialler(gate.endpoint());
        assert_eq!(failure(&mut dialler).await, "it says: no room for you");
    });
}

#[test]
fn a_dialler_that_finds_somebody_else_says_whom() {
    run(async |world| {
        // Neither would ZeroMQ have them together: both push. Each door sees the other's READY first.
        let (any, door) = (any_port(), shut(b"gate", "go"));
        let gate = PushGate::bind(&any, world.options.clone(), door).await.unwrap();
        let door = Door::default().admitting(|hello| {
            let socket = String::from_utf8_lossy(hello.socket_type);
            let identity = String::from_utf8_lossy(hello.identity);
            Err(format!("a {socket} called {identity}"))
        });
        let mut dialler = Dialler::new(gate.endpoint(), world.options.clone(), door, 7);
        assert_eq!(failure(&mut dialler).await, "a PUSH called gate");
    });
}

#[test]
fn a_peer_that_stays_the_wrong_one_is_hopeless_and_not_at_once() {
    run(async |world| {
        let gate = pull_gate(&world.options, Door::default()).await;
        let mut dialler =
            Dialler::new(gate.endpoint(), world.options.clone(), shut(b"", "another"), 7);
        let mut hopeless = dialler.hopeless();
        let began = Instant::now();
        tokio::select! {
            _ = dialler.dial_push() => panic!("nobody lets it in"),
            () = hopeless.wait() => {}
        }
        assert!(began.elapsed() > Duration::from_secs(9), "{:?}", began.elapsed());
        assert_eq!(dialler.last_error().unwrap().to_string(), "another");
    });
}

#[test]
fn a_lane_is_closed_with_a_reason_from_either_end() {
    run(async |world| {
        let (push, mut pull) = world.back().await;
        pull.closer().refuse("enough");
        assert_eq!(pull.recv().await, Err(GoneReason::Refused("enough".into())));
        assert_eq!(push.watch().gone().await, GoneReason::Told("enough".into()));

        let (push, mut pull) = world.out().await;
        push.closer().refuse("enough");
        assert_eq!(push.watch().gone().await, GoneReason::Refused("enough".into()));
        drop(push);
        assert_eq!(pull.recv().await, Err(GoneReason::Told("enough".into())));
    });
}

#[test]
fn a_lane_from_which_nobody_takes_anything_is_closed_all_the_same() {
    run(async |world| {
        let (mut push, pull) = world.back().await;
        // More than the sockets on the way take.
        for _ in 0..32 {
            push.send(vec![0; 1 << 20].into()).unwrap();
        }
        // The peer's bytes stop coming when the pump waits for somebody who takes them.
        let (mut bytes_in, mut since) = (0, 0);
        while bytes_in < 1 << 16 || since < 1_000 {
            tokio::task::yield_now().await;
            let now = pull.traffic().bytes_in();
            since = if now == bytes_in { since + 1 } else { 0 };
            bytes_in = now;
        }
        pull.closer().refuse("enough");
        assert_eq!(push.watch().gone().await, GoneReason::Told("enough".into()));
    });
}

#[test]
fn a_sender_hears_that_its_message_was_too_large() {
    run(async |world| {
        let (mut push, mut pull) = world.back().await;
        push.send(vec![0; 8 << 20].into()).unwrap();
        assert!(matches!(pull.recv().await, Err(GoneReason::Protocol(_))));
        drop(pull);
        let reason = push.gone().await.to_string();
        assert!(
            reason.contains("8388608 bytes or more, where at most 2097152 are taken"),
            "{reason}"
        );
    });
}

#[test]
fn one_connection_too_many_hears_so() {
    run(async |mut world| {
        world.options.connections_max = 1;
        let mut gate = pull_gate(&world.options, Door::default()).await;
        let mut first = world.dialler(gate.endpoint());
        let _lane = tokio::join!(first.dial_push(), gate.accept());
        let mut second = world.dialler(gate.endpoint());
        assert_eq!(failure(&mut second).await, "it says: 1 connections, no more fit");
    });
}

#[test]
fn the_last_connections_are_kept_for_whom_the_door_says() {
    run(async |mut world| {
        (world.options.connections_max, world.options.connections_reserved) = (3, 2);
        let door = Door::default().admitting(|hello| {
            let may_use_reserve = hello.identity == b"sink";
            Ok(Admitted { may_use_reserve, ..Admitted::default() })
        });
        let mut gate = pull_gate(&world.options, door).await;
        let mut worker = world.dialler(gate.endpoint());
        let _lane = tokio::join!(worker.dial_push(), gate.accept());
        let mut other = world.dialler(gate.endpoint());
        assert_eq!(failure(&mut other).await, "it says: 1 connections, no more fit");
        let showing = Door::showing(Bytes::from_static(b"sink")).unwrap();
        let mut sink = Dialler::new(gate.endpoint(), world.options.clone(), showing, 7);
        let _lane = tokio::join!(sink.dial_push(), gate.accept());
    });
}

#[test]
fn a_permit_is_given_back_when_the_lane_is_no_more() {
    run(async |world| {
        let room = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let permits = room.clone();
        let door = Door::default().admitting(move |_| {
            let permit = permits.clone().try_acquire_owned().map_err(|_| "full".to_owned())?;
            Ok(Admitted { permit: Some(permit), ..Admitted::default() })
        });
        let mut gate = pull_gate(&world.options, door).await;
        let mut dialler = world.dialler(gate.endpoint());
        let (push, pull) = tokio::join!(dialler.dial_push(), gate.accept());
        let mut other = world.dialler(gate.endpoint());
        assert_eq!(failure(&mut other).await, "it says: full");
        drop((push, pull));
        let (_push, _pull) = tokio::join!(other.dial_push(), gate.accept());
        assert_eq!(room.available_permits(), 0);
    });
}

/// Reads all that a gate has to say to a plain peer that shook hands.
async fn heard(endpoint: &Endpoint, socket_type: &str) -> Vec<u8> {
    let mut stranger = Stranger::dial(endpoint).await;
    stranger.shake_hands(socket_type).await;
    let mut bytes = Vec::new();
    stranger.stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[test]
fn what_goes_over_the_wire_is_zmtp() {
    run(async |world| {
        let gate = pull_gate(&world.options, shut(b"me", "no")).await;
        let bytes = heard(&gate.endpoint(), "PUSH").await;
        let (greeting, commands) = bytes.split_at(64);
        assert_eq!((greeting[0], greeting[9]), (0xff, 0x7f));
        // READY comes first, so that the peer can make up its own mind; its properties in any order.
        let error = error_command("no");
        let ready = commands.strip_suffix(&error[..]).expect("and then an ERROR, and the end");
        assert_eq!(ready[..8], [&[4, ready.len() as u8 - 2][..], b"\x05READY"].concat());
        let is_in = |text: &[u8]| ready.windows(text.len()).any(|window| window == text);
        assert!(is_in(b"\x0bSocket-Type\0\0\0\x04PULL") && is_in(b"\x08Identity\0\0\0\x02me"));
    });
}

#[test]
fn a_stranger_who_says_why_it_leaves_is_heard_at_any_time() {
    run(async |world| {
        let mut gate = pull_gate(&world.options, Door::default()).await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PUSH").await;
        let mut pull = gate.accept().await;
        let words = [b"\x00\x01a".to_vec(), error_command("\x1b[2Jbored")].concat();
        stranger.stream.write_all(&words).await.unwrap();
        assert_eq!(pull.recv().await.unwrap(), "a");
        let told = GoneReason::Told("\\u{1b}[2Jbored".into());
        assert_eq!(pull.recv().await, Err(told));
        // And in place of a handshake.
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        let words = [Stranger::greeting(), error_command("no"), ready("PUSH")].concat();
        stranger.stream.write_all(&words).await.unwrap();
        stranger.closed().await;
    });
}
