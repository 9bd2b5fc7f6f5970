//! What arrives at an open port besides workers. None of it may harm anything, least of all the others.

use std::fs::File;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tradewind_lanes::{Endpoint, PullGate};

use crate::{World, run};

/// A header that claims 64 TiB.
const KILLER: &[u8] = b"\x02\x00\x00\x40\x00\x00\x00\x00\x00";

pub(crate) struct Stranger {
    pub(crate) stream: TcpStream,
}

impl Stranger {
    pub(crate) async fn dial(endpoint: &Endpoint) -> Self {
        let tcp = endpoint.tcp().unwrap();
        let stream = TcpStream::connect((tcp.host(), tcp.port())).await.unwrap();
        Self { stream }
    }

    /// Dials from another address of this machine.
    pub(crate) async fn dial_from(from: [u8; 4], endpoint: &Endpoint) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let port = endpoint.tcp().unwrap().port();
        Self { stream: socket.connect(([127, 0, 0, 1], port).into()).await.unwrap() }
    }

    pub(crate) fn greeting() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[0] = 0xff;
        bytes[9] = 0x7f;
        bytes[10] = 3;
        bytes[12..16].copy_from_slice(b"NULL");
        bytes
    }

    pub(crate) async fn shake_hands(&mut self, socket_type: &str) {
        self.stream.write_all(&[Self::greeting(), ready(socket_type)].concat()).await.unwrap();
    }

    /// Dies as a machine does that loses its power and comes back: with a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads until the other side has closed, in whichever way.
    pub(crate) async fn closed(mut self) {
        let mut bytes = vec![0; 4096];
        while self.stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    }
}

pub(crate) fn ready(socket_type: &str) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend((socket_type.len() as u32).to_be_bytes());
    body.extend(socket_type.as_bytes());
    let mut frame = vec![4, body.len() as u8];
    frame.extend(body);
    frame
}

async fn assert_works(world: &World, gate: &mut PullGate) {
    let mut dialler = world.dialler(gate.endpoint());
    let (mut push, mut pull) = tokio::join!(dialler.dial_push(), gate.accept());
    push.send(Bytes::from_static(b"good")).unwrap();
    assert_eq!(pull.recv().await.unwrap(), "good");
}

/// A stranger who sends this is shown the door, never yields a lane, and leaves the gate as it was.
fn check(bytes: &[u8]) {
    run(async |mut world| {
        world.options.handshake_timeout = Duration::from_secs(2);
        let mut gate = world.pull_gate().await;
        assert_works(&world, &mut gate).await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.stream.write_all(bytes).await.unwrap();
        // Not delayed by the stranger, who is still there or not.
        assert_works(&world, &mut gate).await;
        stranger.closed().await;
        assert_works(&world, &mut gate).await;
    });
}

#[test]
fn noise() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    check(&[(); 100].map(|()| rng.u8(..)));
}

#[test]
fn a_browser() {
    check(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

#[test]
fn somebody_who_says_nothing() {
    check(b"");
}

#[test]
fn half_a_greeting() {
    check(&Stranger::greeting()[..40]);
}

#[test]
fn a_greeting_and_nothing_more() {
    check(&Stranger::greeting());
}

#[test]
fn a_greeting_and_a_killer() {
    check(&[Stranger::greeting(), KILLER.to_vec()].concat());
}

#[test]
fn a_socket_of_the_wrong_type() {
    check(&[Stranger::greeting(), ready("PULL")].concat());
    check(&[Stranger::greeting(), ready("NONSENSE")].concat());
}

#[test]
fn a_handshake_that_makes_no_sense() {
    check(&[Stranger::greeting(), b"\x04\x05HELLO".to_vec()].concat());
    check(&[Stranger::greeting(), b"\x04\x00".to_vec()].concat());
    check(&[Stranger::greeting(), b"\x04\x08\x05READY\xff\xff".to_vec()].concat());
}

/// These come as far as to have a lane, and then lose it.
fn check_after_handshake(bytes: &[u8]) {
    run(async |world| {
        let mut gate = world.pull_gate().await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PUSH").await;
        let mut pull = gate.accept().await;
        assert_works(&world, &mut gate).await;
        stranger.stream.write_all(bytes).await.unwrap();
        stranger.closed().await;
        let gone = pull.recv().await.unwrap_err();
        assert!(matches!(gone, tradewind_lanes::GoneReason::Protocol(_)), "{gone}");
        assert_works(&world, &mut gate).await;
    });
}

#[test]
fn a_handshake_and_a_killer() {
    check_after_handshake(KILLER);
}

#[test]
fn a_command_in_mid_stream() {
    check_after_handshake(b"\x04\x05\x04PING");
}

#[test]
fn a_message_of_two_frames() {
    check_after_handshake(b"\x01\x01a\x00\x01b");
}

#[test]
fn unknown_flags() {
    check_after_handshake(b"\x80\x01a");
}

#[test]
fn a_worker_who_talks_back() {
    run(async |world| {
        let mut gate = world.push_gate().await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PULL").await;
        let mut push = gate.accept().await;
        stranger.stream.write_all(b"\x00\x01a").await.unwrap();
        let gone = push.gone().await;
        assert!(matches!(gone, tradewind_lanes::GoneReason::Protocol(_)), "{gone}");
        stranger.closed().await;
    });
}

#[test]
fn nothing_is_made_for_a_stranger_before_it_has_said_who_it_is() {
    run(async |world| {
        let dir = File::open(world.options.socket_dir.as_ref().unwrap()).unwrap();
        let is_untouched = || dir.metadata().unwrap().modified().unwrap() == UNIX_EPOCH;
        let mut gate = world.pull_gate().await;
        dir.set_modified(UNIX_EPOCH).unwrap();
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        let words = [Stranger::greeting(), ready("PUSH")].concat();
        let (last, most) = words.split_last().unwrap();
        stranger.stream.write_all(most).await.unwrap();
        let mut greeting = [0; 64];
        stranger.stream.read_exact(&mut greeting).await.unwrap();
        // It is shaking hands with another one meanwhile, so it has had the time.
        let mut refused = Stranger::dial(&gate.endpoint()).await;
        refused.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        refused.closed().await;
        assert!(is_untouched());
        stranger.stream.write_all(&[*last]).await.unwrap();
        let _lane = gate.accept().await;
        assert!(!is_untouched());
    });
}

#[test]
fn a_peer_that_gives_no_identity_gets_one_made_up() {
    run(async |world| {
        let mut gate = world.pull_gate().await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PUSH").await;
        assert_eq!(gate.accept().await.peer_identity().len(), 16);
    });
}

#[test]
fn of_silent_strangers_the_one_that_is_longest_there_goes_first() {
    run(async |mut world| {
        world.options.half_open_max = 3;
        let mut gate = world.pull_gate().await;
        let mut strangers = Vec::new();
        for _ in 0..3 {
            let mut stranger = Stranger::dial(&gate.endpoint()).await;
            stranger.stream.read_exact(&mut [0; 64]).await.unwrap();
            strangers.push(stranger);
        }
        assert_works(&world, &mut gate).await;
        strangers.remove(0).closed().await;
        // The others are still welcome.
        for mut stranger in strangers {
            stranger
                .stream
                .write_all(&[Stranger::greeting(), ready("PUSH")].concat())
                .await
                .unwrap();
            gate.accept().await;
        }
    });
}

#[test]
fn a_crowd_of_strangers_keeps_nobody_out() {
    run(async |mut world| {
        world.options.half_open_max = 4;
        let mut gate = world.pull_gate().await;
        let mut strangers = Vec::new();
        for _ in 0..40 {
            strangers.push(Stranger::dial(&gate.endpoint()).await);
        }
        assert_works(&world, &mut gate).await;
    });
}

#[test]
fn a_host_that_has_enough_connections_keeps_no_other_host_out() {
    run(async |mut world| {
        world.options.connections_per_address = 2;
        let mut gate = world.pull_gate().await;
        let mut lanes = Vec::new();
        for _ in 0..2 {
            let mut fake = Stranger::dial(&gate.endpoint()).await;
            fake.shake_hands("PUSH").await;
            lanes.push((fake, gate.accept().await));
        }
        Stranger::dial(&gate.endpoint()).await.closed().await;
        let mut honest = Stranger::dial_from([127, 0, 0, 2], &gate.endpoint()).await;
        honest.shake_hands("PUSH").await;
        let mut pull = gate.accept().await;
        honest.stream.write_all(b"\x00\x04good").await.unwrap();
        assert_eq!(pull.recv().await.unwrap(), "good");
        // The first host is welcome again when one of its connections has ended, and a moment has passed.
        drop(lanes.pop());
        let mut dialler = world.dialler(gate.endpoint());
        let (mut push, mut pull) = tokio::join!(dialler.dial_push(), gate.accept());
        push.send(Bytes::from_static(b"good")).unwrap();
        assert_eq!(pull.recv().await.unwrap(), "good");
    });
}
