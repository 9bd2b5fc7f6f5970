//! A log that cannot be written costs its lines, and nothing else.

use std::fs::OpenOptions;
use std::io::PipeReader;
use std::process::Stdio;

use rustix::io::{Errno, ioctl_fionbio, write};
use tradewind_e2e::{Process, Scene, Start, records};

const TASKS: usize = 20;
const ROLES: [&str; 3] = ["sink", "ventilator", "worker"];

fn naps() -> String {
    "0.02\n".repeat(TASKS)
}

/// The three roles, of which one has this for its stderr.
fn ring(scene: &Scene, role: &str, stderr: Stdio) -> [Process; 3] {
    let mut stderr = Some(stderr);
    let mut with = |name: &str, start: Start| {
        // Debug: more than a pipe takes.
        let start = start.words("--log debug");
        match stderr.take_if(|_| name == role) {
            Some(stderr) => start.stderr(stderr).start(),
            None => start.start(),
        }
    };
    let sink = with("sink", scene.sink().words("--format jsonl"));
    let ventilator = with("ventilator", scene.ventilator().input(naps()));
    let worker = scene.worker("w").words("--slots 2 --exit-when-done --sleep");
    [sink, ventilator, with("worker", worker)]
}

#[track_caller]
fn assert_ends_well([sink, ventilator, worker]: [Process; 3]) {
    let _ = ventilator.wait().expect(0);
    let _ = worker.wait().expect(0);
    let _ = records(&sink.wait().expect(0).stdout, TASKS as u64);
}

#[test]
fn a_log_on_a_full_disk_ends_nothing() {
    for role in ROLES {
        let scene = Scene::new();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_ends_well(ring(&scene, role, full.into()));
        scene.assert_nothing_left();
    }
    let scene = Scene::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = scene.run().words("--log debug -j 2 --sleep --format jsonl").stderr(full);
    let _ = records(&run.input(naps()).run().expect(0).stdout, TASKS as u64);
}

#[test]
fn a_log_whose_reader_has_gone_ends_nothing() {
    for role in ROLES {
        let scene = Scene::new();
        let (reader, writer) = std::io::pipe().unwrap();
        let ring = ring(&scene, role, writer.into());
        drop(reader);
        assert_ends_well(ring);
        scene.assert_nothing_left();
    }
}

/// A pipe that is full, and stays so as long as its reader is there.
fn full_pipe(is_blocking: bool) -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    ioctl_fionbio(&writer, true).unwrap();
    // With the last bytes one by one, or a short line would still find room.
    for piece in [&[b'x'; 512][..], b"x"] {
        while write(&writer, piece) != Err(Errno::AGAIN) {}
    }
    ioctl_fionbio(&writer, !is_blocking).unwrap();
    (reader, writer.into())
}

#[test]
fn a_log_whose_reader_is_stuck_ends_and_stops_nothing() {
    for role in ROLES {
        for is_blocking in [false, true] {
            let scene = Scene::new();
            let (_reader, stderr) = full_pipe(is_blocking);
            assert_ends_well(ring(&scene, role, stderr));
            scene.assert_nothing_left();
        }
    }
    let scene = Scene::new();
    let (_reader, stderr) = full_pipe(true);
    let run = scene.run().words("--log debug -j 2 --sleep --format jsonl").stderr(stderr);
    let _ = records(&run.input(naps()).run().expect(0).stdout, TASKS as u64);
    // The last line cannot be said either.
    let (_reader, stderr) = full_pipe(true);
    let _ = scene.run().words("--no-such-flag").stderr(stderr).run().expect(2);
    scene.assert_nothing_left();
}
