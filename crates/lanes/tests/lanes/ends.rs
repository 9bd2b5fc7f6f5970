//! Lanes end, and both sides hear of it.

use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tradewind_lanes::GoneReason;

use crate::strangers::{Stranger, ready};
use crate::{World, run, run_all};

const LONG: Duration = Duration::from_secs(30);
const FRAMES: u32 = 3_000;

fn frame(n: u32) -> Bytes {
    // Large enough that most of them are still queued when the last one is sent.
    let mut bytes = vec![0; 2_000];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes.into()
}

#[test]
fn a_push_lane_hears_that_its_peer_was_dropped() {
    run_all(async |world| {
        let (mut push, pull) = world.out().await;
        let watch = tokio::spawn(push.watch().gone());
        drop(pull);
        assert_eq!(push.gone().await, GoneReason::Ended);
        assert_eq!(watch.await.unwrap(), GoneReason::Ended);
        assert_eq!(push.send(frame(0)).unwrap_err().reason, GoneReason::Ended);
    });
}

#[test]
fn a_push_lane_hears_that_its_peer_is_dead() {
    run(async |world| {
        let mut gate = world.push_gate().await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PULL").await;
        let mut push = gate.accept().await;
        stranger.reset();
        assert_eq!(push.gone().await, GoneReason::Broken(ErrorKind::ConnectionReset));
        assert!(push.send(frame(0)).is_err());
    });
}

#[test]
fn a_dropped_push_lane_ends_at_once_and_tells_its_watchers() {
    run_all(async |world| {
        let (push, mut pull) = world.out().await;
        let watch = push.watch();
        drop(push);
        assert_eq!(watch.gone().await, GoneReason::Closed);
        assert_eq!(pull.recv().await, Err(GoneReason::Ended));
    });
}

#[test]
fn a_pull_lane_gives_all_it_has_before_it_ends() {
    run_all(async |world| {
        let (mut push, mut pull) = world.back().await;
        for n in 0..FRAMES {
            push.send(frame(n)).unwrap();
        }
        let close = tokio::spawn(push.close(LONG));
        for n in 0..FRAMES {
            assert_eq!(pull.recv().await.unwrap(), frame(n));
        }
        for _ in 0..2 {
            assert_eq!(pull.recv().await, Err(GoneReason::Ended));
        }
        close.await.unwrap();
    });
}

#[test]
fn frames_of_a_peer_that_came_and_went_are_still_delivered() {
    run(async |world| {
        let mut gate = world.pull_gate().await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        // All in one write, and gone before the gate has looked.
        let stream = [Stranger::greeting(), ready("PUSH"), b"\x00\x01a\x00\x01b".to_vec()].concat();
        stranger.stream.write_all(&stream).await.unwrap();
        stranger.stream.shutdown().await.unwrap();
        let mut pull = gate.accept().await;
        assert_eq!(pull.recv().await.unwrap(), "a");
        assert_eq!(pull.recv().await.unwrap(), "b");
        assert_eq!(pull.recv().await, Err(GoneReason::Ended));
    });
}

#[test]
fn a_frame_cut_short_is_not_delivered() {
    run(async |world| {
        let mut gate = world.pull_gate().await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PUSH").await;
        let mut pull = gate.accept().await;
        stranger.stream.write_all(b"\x00\x01a\x00\x05b").await.unwrap();
        stranger.stream.shutdown().await.unwrap();
        assert_eq!(pull.recv().await.unwrap(), "a");
        assert_eq!(pull.recv().await, Err(GoneReason::Ended));
    });
}

#[test]
fn receiving_may_be_cancelled() {
    run_all(async |world| {
        let (mut push, mut pull) = world.back().await;
        for n in 0..FRAMES {
            push.send(frame(n)).unwrap();
        }
        let mut received = 0;
        while received < FRAMES {
            tokio::select! {
                biased;
                frame_or_gone = pull.recv() => {
                    assert_eq!(frame_or_gone.unwrap(), frame(received));
                    received += 1;
                }
                () = tokio::task::yield_now() => {}
            }
        }
    });
}

#[test]
fn closing_delivers_everything_first() {
    run_all(async |world| {
        let (mut push, mut pull) = world.out().await;
        for n in 0..FRAMES {
            push.send(frame(n)).unwrap();
        }
        let receive = tokio::spawn(async move {
            for n in 0..FRAMES {
                assert_eq!(pull.recv().await.unwrap(), frame(n));
            }
            assert_eq!(pull.recv().await, Err(GoneReason::Ended));
        });
        push.close(LONG).await;
        receive.await.unwrap();
    });
}

#[test]
fn closing_waits_for_as_long_as_it_was_told_to() {
    const LINGER: Duration = Duration::from_millis(200);
    /// For a machine that is busy.
    const LATE_MAX: Duration = Duration::from_secs(5);
    run_all(async |world| {
        let (mut push, _pull_that_never_reads) = world.out().await;
        for n in 0..FRAMES {
            push.send(frame(n)).unwrap();
        }
        let began = Instant::now();
        push.close(LINGER).await;
        let took = began.elapsed();
        assert!(LINGER <= took && took < LINGER + LATE_MAX, "{took:?}");
    });
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_when_its_queue_is_full() {
    run(async |world| {
        let mut gate = world.push_gate().await;
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        stranger.shake_hands("PULL").await;
        let mut push = gate.accept().await;
        let frame = Bytes::from_static(b"x");
        let gone = (0..200_000).find_map(|_| push.send(frame.clone()).err());
        assert_eq!(gone.unwrap().reason, GoneReason::Overrun);
        assert_eq!(push.gone().await, GoneReason::Overrun);
        stranger.closed().await;
    });
}

/// Set in a process that runs one test alone.
#[cfg(target_os = "linux")]
const ALONE: &str = "TRADEWIND_TEST_ALONE";

/// Runs a test in a process of its own, where no other test opens or closes sockets meanwhile.
#[cfg(target_os = "linux")]
#[track_caller]
fn run_alone<F: Future<Output = ()>>(name: &str, test: impl FnOnce(World) -> F) {
    if std::env::var_os(ALONE).is_some() {
        return run(test);
    }
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let ended = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Sockets of this process.
#[cfg(target_os = "linux")]
fn open_sockets() -> usize {
    let links = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[cfg(target_os = "linux")]
const LANES: usize = 300;

/// Waits until no socket is left that was not there before. Without care the lanes would leave hundreds.
#[cfg(target_os = "linux")]
async fn assert_none_left(before: usize) {
    let began = Instant::now();
    while open_sockets() > before {
        let left = open_sockets() - before;
        assert!(began.elapsed() < LONG, "{left} sockets are left");
        tokio::task::yield_now().await;
    }
}

#[cfg(target_os = "linux")]
#[test]
fn lanes_that_ended_hold_no_file_descriptors() {
    run_alone("ends::lanes_that_ended_hold_no_file_descriptors", async |world| {
        let before = open_sockets();
        for _ in 0..LANES {
            let (mut push, mut pull) = world.out().await;
            push.send(Bytes::from_static(b"x")).unwrap();
            pull.recv().await.unwrap();
            drop(pull);
            push.gone().await;
        }
        assert_none_left(before).await;
    });
}

#[cfg(target_os = "linux")]
#[test]
fn dialling_that_was_cancelled_holds_no_file_descriptors() {
    run_alone("ends::dialling_that_was_cancelled_holds_no_file_descriptors", async |world| {
        let before = open_sockets();
        let gate = world.push_gate().await;
        // Cancelled at every point that a handshake passes through, and at some beyond it.
        for polls in 0..LANES {
            let mut dialler = world.dialler(gate.endpoint());
            tokio::select! {
                biased;
                _ = dialler.dial_pull() => {}
                () = async { for _ in 0..polls % 60 { tokio::task::yield_now().await; } } => {}
            }
        }
        drop(gate);
        assert_none_left(before).await;
    });
}
