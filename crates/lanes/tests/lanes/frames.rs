//! What is sent arrives, whole and in order.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tradewind_lanes::meter::error_command;
use tradewind_lanes::{GoneReason, PeerAddr, PullLane, PushLane, Unfinished};

use crate::strangers::Stranger;
use crate::{CARD, MESSAGE_BYTES_MAX, World, run, run_all};

const SIZES: [usize; 9] = [
    0,
    1,
    254,
    255,
    256,
    65_536,
    1 << 20,
    MESSAGE_BYTES_MAX as usize - 1,
    MESSAGE_BYTES_MAX as usize,
];

async fn check_sizes(mut push: PushLane, mut pull: PullLane) {
    for size in SIZES {
        let frame: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
        push.send(frame.clone()).unwrap();
        assert!(pull.recv().await.unwrap() == frame, "{size} bytes");
    }
    let bytes: usize = SIZES.iter().sum();
    assert!(push.traffic().bytes_out() > bytes as u64);
    assert_eq!(push.traffic().bytes_out(), pull.traffic().bytes_in());
}

async fn check_order(mut push: PushLane, mut pull: PullLane) {
    const FRAMES: u32 = 10_000;
    for n in 0..FRAMES {
        push.send(Bytes::copy_from_slice(&n.to_be_bytes())).unwrap();
    }
    for n in 0..FRAMES {
        assert_eq!(pull.recv().await.unwrap(), n.to_be_bytes()[..]);
    }
}

#[test]
fn frames_of_every_size_go_out() {
    run_all(async |world| {
        let (push, pull) = world.out().await;
        check_sizes(push, pull).await;
    });
}

#[test]
fn frames_of_every_size_come_back() {
    run_all(async |world| {
        let (push, pull) = world.back().await;
        check_sizes(push, pull).await;
    });
}

#[test]
fn frames_go_out_in_order() {
    run_all(async |world| {
        let (push, pull) = world.out().await;
        check_order(push, pull).await;
    });
}

#[test]
fn frames_come_back_in_order() {
    run_all(async |world| {
        let (push, pull) = world.back().await;
        check_order(push, pull).await;
    });
}

#[test]
fn a_gate_learns_who_dialled() {
    run_all(async |world| {
        let (push, _pull) = world.out().await;
        assert_eq!(push.peer_identity(), CARD);
        let (_push, pull) = world.back().await;
        assert_eq!(pull.peer_identity(), CARD);
        match pull.peer_addr() {
            PeerAddr::Tcp(addr) => assert!(addr.ip().is_loopback()),
            PeerAddr::Process { user, process } => {
                assert_eq!(*user, rustix::process::geteuid().as_raw());
                assert_eq!(*process, i32::try_from(std::process::id()).ok());
            }
            PeerAddr::Socket(_) => panic!("it was dialled"),
        }
    });
}

#[test]
fn peers_of_one_identity_keep_their_lanes() {
    run_all(async |world| {
        let mut gate = world.pull_gate().await;
        let mut dialler = world.dialler(gate.endpoint());
        let (mut push_a, mut pull_a) = tokio::join!(dialler.dial_push(), gate.accept());
        let (mut push_b, mut pull_b) = tokio::join!(dialler.dial_push(), gate.accept());
        push_b.send(Bytes::from_static(b"b")).unwrap();
        push_a.send(Bytes::from_static(b"a")).unwrap();
        assert_eq!(pull_a.recv().await.unwrap(), "a");
        assert_eq!(pull_b.recv().await.unwrap(), "b");
    });
}

#[test]
fn a_frame_over_the_limit_ends_the_lane_after_those_before_it() {
    run_all(async |world| {
        let (mut push, mut pull) = world.back().await;
        push.send(Bytes::from_static(b"fine")).unwrap();
        push.send(vec![0; MESSAGE_BYTES_MAX as usize + 1].into()).unwrap();
        assert_eq!(pull.recv().await.unwrap(), "fine");
        let gone = pull.recv().await.unwrap_err();
        assert!(matches!(gone, GoneReason::Protocol(_)), "{gone}");
        assert_eq!(
            gone.to_string(),
            "the peer sent a message of 2097153 bytes or more, where at most 2097152 are taken (see --message-max)"
        );
        let gone = push.gone().await;
        assert!(matches!(gone, GoneReason::Told(_)), "{gone}");
    });
}

/// Strangers that send most of a frame each, and the lanes that they have.
async fn unfinished(world: &World, count: usize, bytes: usize) -> Vec<(Stranger, PullLane)> {
    let mut gate = world.pull_gate().await;
    let mut lanes = Vec::new();
    for _ in 0..count {
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PUSH").await;
        let pull = gate.accept().await;
        let header = [&[2][..], &(bytes as u64).to_be_bytes()].concat();
        stranger.stream.write_all(&header).await.unwrap();
        stranger.stream.write_all(&vec![7; bytes - 1]).await.unwrap();
        lanes.push((stranger, pull));
    }
    lanes
}

#[test]
fn frames_that_do_not_end_are_bounded_in_sum_and_stop_nobody() {
    const BYTES_MAX: u64 = 1 << 20;
    run(async |mut world| {
        let all = Unfinished::new(BYTES_MAX);
        world.options.unfinished = all.clone();
        let mut lanes = unfinished(&world, 40, 128 << 10).await;
        // Small messages and larger ones of another peer arrive, and what it needs for them is given back.
        let (mut push, mut pull) = world.back().await;
        for size in [10, 50_000, 20, 50_000, 30] {
            push.send(vec![1; size].into()).unwrap();
            assert_eq!(pull.recv().await.unwrap().len(), size);
        }
        // Each lane may have read once more.
        let bytes = all.bytes();
        assert!((BYTES_MAX / 2..BYTES_MAX + 40 * (4 << 10)).contains(&bytes), "{bytes}");
        // All frames come to their end.
        for (stranger, _) in &mut lanes {
            stranger.stream.write_all(b"7").await.unwrap();
        }
        for (stranger, mut lane) in lanes {
            assert_eq!(lane.recv().await.unwrap().len(), 128 << 10);
            // What was taken counts until it is done with.
            drop(stranger);
            assert!(lane.recv().await.is_err());
        }
        assert_eq!(all.bytes(), 0);
    });
}

#[test]
fn what_a_peer_leaves_unfinished_goes_with_it() {
    run(async |mut world| {
        let all = Unfinished::new(1 << 20);
        world.options.unfinished = all.clone();
        let mut lanes = unfinished(&world, 20, 128 << 10).await;
        let (_, mut last) = lanes.pop().unwrap();
        for (stranger, mut pull) in lanes {
            drop(stranger);
            assert!(pull.recv().await.is_err());
        }
        assert!(last.recv().await.is_err());
        assert_eq!(all.bytes(), 0);
    });
}

#[test]
fn a_frame_that_stops_ends_its_lane_and_both_ends_hear_why() {
    run(async |mut world| {
        world.options.message_lag_max = Duration::from_millis(20);
        let mut gate = world.pull_gate().await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PUSH").await;
        let mut pull = gate.accept().await;
        stranger.stream.write_all(b"\x00\x01a\x00\x04abc").await.unwrap();
        assert_eq!(pull.recv().await.unwrap(), "a");
        let said = "a message too slowly: 3 of 4 bytes had come when it was 20ms behind 64 KiB/s";
        assert_eq!(pull.recv().await.unwrap_err().to_string(), format!("the peer sent {said}"));
        let mut heard = Vec::new();
        stranger.stream.read_to_end(&mut heard).await.unwrap();
        let wanted = error_command(&format!("you sent {said}"));
        assert!(heard.ends_with(&wanted), "{heard:?}");
    });
}

#[test]
fn large_frames_that_nobody_takes_count_until_somebody_does() {
    run(async |mut world| {
        let all = Unfinished::new(8 << 20);
        world.options.unfinished = all.clone();
        let (mut push, mut pull) = world.back().await;
        for _ in 0..3 {
            push.send(vec![1; 1 << 20].into()).unwrap();
        }
        for _ in 0..3 {
            assert_eq!(pull.recv().await.unwrap().len(), 1 << 20);
            assert!(all.bytes() >= 1 << 20);
        }
        push.send(Bytes::from_static(b"small")).unwrap();
        assert_eq!(pull.recv().await.unwrap(), "small");
        assert_eq!(all.bytes(), 0);
    });
}

#[test]
fn it_is_known_what_a_peer_has_not_taken() {
    run(async |world| {
        let mut gate = world.push_gate().await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PULL").await;
        let mut push = gate.accept().await;
        assert_eq!(push.queue_bytes(), 0);
        // More than all sockets on the way take.
        let sent: u64 =
            (0..32).map(|_| push.send(vec![0; 1 << 20].into()).map(|()| 1 << 20).unwrap()).sum();
        assert!(push.queue_bytes() > sent / 4, "{}", push.queue_bytes());
        let drained = push.drained(1000);
        let read = async {
            let mut buffer = vec![0; 1 << 16];
            while stranger.stream.read(&mut buffer).await.unwrap() > 0 {}
        };
        tokio::select! {
            () = drained => {}
            () = read => panic!("it has not ended"),
        }
        assert!(push.queue_bytes() <= 1000);
        drop(stranger);
        push.gone().await;
        push.drained(0).await;
        assert_eq!(push.queue_bytes(), 0);
    });
}
