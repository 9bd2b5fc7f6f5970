//! What is sent arrives, whole and in order.

use bytes::Bytes;
use tradewind_lanes::{GoneReason, PeerAddr, PullLane, PushLane};

use crate::{CARD, MESSAGE_BYTES_MAX, run_all};

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
