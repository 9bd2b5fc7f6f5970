//! Errors: one line that says what cannot be done, the documented exit code, and nothing that hangs.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tradewind_e2e::{Ended, Scene, Start, cpu_time, pause_between_signals, wait_until};
use tradewind_node::exit::{COMMAND, CONNECT, INPUT, LISTEN, OUTPUT, USAGE};

/// Panics unless it ends with this code, after one line that has all these texts in it.
#[track_caller]
fn check(start: Start, code: u8, texts: &[&str]) {
    let ended = start.run().expect(code.into());
    assert_eq!(ended.stderr.lines().count(), 1, "one line:\n{}", ended.stderr);
    assert_says(&ended, texts);
}

#[track_caller]
fn assert_says(ended: &Ended, texts: &[&str]) {
    for text in texts {
        assert!(ended.stderr.contains(text), "{text:?} is not in:\n{}", ended.stderr);
    }
    assert_eq!(ended.text(), "");
}

#[test]
fn a_port_that_is_taken() {
    let scene = Scene::new();
    for address in [scene.tasks(), scene.receipts()] {
        let _taken = TcpListener::bind(address).unwrap();
        let text = format!("tcp://{address} is taken");
        check(scene.ventilator().arg("-q").input("a\n"), LISTEN, &["ventilator: ", &text]);
    }
    let _taken = TcpListener::bind(scene.results()).unwrap();
    let text = format!("tcp://{} is taken", scene.results());
    check(scene.sink().arg("-q"), LISTEN, &["sink: ", &text]);
}

#[test]
fn an_address_that_is_not_ours() {
    let scene = Scene::new();
    // From the range that is set aside for documentation.
    let sink = scene.ours("sink").words("-q --listen tcp://192.0.2.1:5558");
    check(sink, LISTEN, &["tcp://192.0.2.1:5558", "not an address of this machine"]);
}

#[test]
fn a_sink_that_cannot_listen_leaves_the_output_alone() {
    let scene = Scene::new();
    let out = scene.file("out", "precious");
    let _taken = TcpListener::bind(scene.results()).unwrap();
    check(scene.sink().args(["-q", "--overwrite", "--output"]).arg(&out), LISTEN, &["taken"]);
    assert_eq!(scene.read("out"), b"precious");
}

#[test]
fn an_endpoint_that_is_none() {
    let scene = Scene::new();
    for (program, flag) in [
        ("ventilator", "--tasks"),
        ("ventilator", "--receipts"),
        ("ventilator", "--sink"),
        ("worker", "--ventilator"),
        ("worker", "--sink"),
        ("sink", "--listen"),
        ("sink", "--ventilator"),
    ] {
        for endpoint in ["", "nowhere", "tcp://", "tcp://host", "tcp://host:0x1", "udp://h:1"] {
            let ended = scene.ours(program).args([flag, endpoint]).run().expect(USAGE.into());
            assert_says(&ended, &[flag]);
            assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        }
    }
}

#[test]
fn an_input_that_cannot_be_read() {
    let scene = Scene::new();
    let missing = scene.path("missing");
    let starts: [fn(&Scene) -> Start; 2] =
        [|scene| scene.ventilator().arg("-q"), |scene| scene.run().words("-q --echo")];
    for start in starts {
        check(start(&scene).arg("--input").arg(&missing), INPUT, &["missing", "does not exist"]);
        check(start(&scene).arg("--input").arg(scene.dir()), INPUT, &["is a directory"]);
    }
    scene.assert_nothing_left();
}

#[test]
fn a_command_that_does_not_exist_or_cannot_run() {
    let scene = Scene::new();
    let script = scene.file("script", "#!/bin/sh\n");
    let starts: [fn(&Scene) -> Start; 2] =
        [|scene| scene.worker("w").arg("-q"), |scene| scene.run().arg("-q").input("a\n")];
    for start in starts {
        check(start(&scene).words("-- no-such-command {}"), COMMAND, &["no-such-command"]);
        check(start(&scene).arg("--").arg(&script), COMMAND, &["script", "not executable"]);
        check(start(&scene), USAGE, &["no handler"]);
        check(start(&scene).arg("--"), USAGE, &["no handler"]);
    }
    scene.assert_nothing_left();
}

#[test]
fn an_output_that_cannot_be_written() {
    let scene = Scene::new();
    let nowhere = scene.path("nowhere/out");
    let exists = scene.file("exists", "precious");
    let starts: [fn(&Scene) -> Start; 2] =
        [|scene| scene.sink().arg("-q"), |scene| scene.run().words("-q --echo").input("a\n")];
    for start in starts {
        for flag in ["--output", "--joblog"] {
            let start = || start(&scene).arg(flag);
            check(start().arg(&nowhere), OUTPUT, &["nowhere", "does not exist"]);
            check(start().arg(scene.dir()), OUTPUT, &["is a directory"]);
            check(start().arg(&exists), OUTPUT, &["exists already", "--overwrite"]);
        }
        assert_eq!(scene.read("exists"), b"precious");
    }
    scene.assert_nothing_left();
    let run = scene.run().words("-q --echo --overwrite --output").arg(&exists).input("new\n");
    let _ = run.run().expect(0);
    assert_eq!(scene.read("exists"), b"new\n");
}

#[test]
fn a_full_disk_is_said_once_and_waited_for() {
    /// Time in which the sink tries twice or three times more.
    const WAITS: Duration = Duration::from_secs(3);
    /// Processor time from the start on of a program that only waits.
    const CPU_TIME_MAX: Duration = Duration::from_secs(1);
    let scene = Scene::new();
    let sink = scene.sink().words("-q --format jsonl --output /dev/full");
    let mut sink = sink.start();
    let mut ventilator = scene.ventilator().arg("-q").input("a\nb\n").start();
    let mut worker = scene.worker("w").words("-q --exit-when-done --echo").start();
    sink.wait_for_stderr("No space left on device");
    let began = Instant::now();
    wait_until("some time has passed", || began.elapsed() >= WAITS);
    assert_eq!(sink.stderr().lines().count(), 1, "{}", sink.stderr());
    for process in [&mut sink, &mut ventilator, &mut worker] {
        assert!(process.is_running(), "{}", process.stderr());
        assert!(cpu_time(process.pid()).unwrap() < CPU_TIME_MAX, "it runs round in circles");
    }
    // A user who gives up gets the prompt back.
    sink.signal(tradewind_e2e::Signal::TERM);
    let _ = sink.wait().expect(130);
}

#[test]
fn a_file_that_may_not_become_larger_is_an_output_that_cannot_be_written() {
    let scene = Scene::new();
    let line = |end: &str| format!("ulimit -f 8; seq 100000 | \"$0\" run {end}");
    let run = |end: &str| {
        scene.other("sh").args(["-c", &line(end)]).arg(tradewind_e2e::program("tradewind"))
    };
    for output in ["--output out", "--output out.jsonl", "> out"] {
        check(run(&format!("--echo {output}")), OUTPUT, &["File too large"]);
    }
    // Commands are ended by it as ever.
    let ended = run("-n 100000 --format jsonl --stdin -- sh -c 'cat > large'").run().expect(1);
    let signal = format!("\"signal\":{}", tradewind_e2e::Signal::XFSZ.as_raw());
    assert!(ended.text().contains(&signal) || ended.text().contains("153"), "{}", ended.text());
    scene.assert_nothing_left();
}

#[test]
fn a_job_on_a_full_disk_can_be_stopped() {
    let scene = Scene::new();
    let flags = "--output /dev/full --when-full wait --echo";
    let mut run = scene.run().words(flags).input("a\nb\n").start();
    run.wait_for_stderr("No space left on device");
    run.signal_group(tradewind_e2e::Signal::INT);
    run.wait_for_stderr("again to cancel");
    pause_between_signals();
    run.signal_group(tradewind_e2e::Signal::INT);
    let ended = run.wait().expect(130);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    scene.assert_nothing_left();
}

#[test]
fn a_peer_that_cannot_be_reached_in_time() {
    let scene = Scene::new();
    let timeout = ["-q", "--connect-timeout", "1s"];
    let within = "was not reached within 1s";
    check(
        scene.ventilator().args(timeout).input("a\n"),
        CONNECT,
        &["ventilator: the sink", within],
    );
    check(scene.sink().args(timeout), CONNECT, &["sink: the ventilator", within]);
    check(scene.worker("w").args(timeout).arg("--echo"), CONNECT, &["worker: the ", within]);
}

#[test]
fn a_flag_that_makes_no_sense() {
    let scene = Scene::new();
    for flags in [
        "--timeout soon",
        "--timeout 0",
        "-j 4097",
        "-j 1 --workers 2",
        "--ordered --unordered",
        "--format xml",
        "--retries -1",
        "--max-output 1TiB",
        "--log =x=y=",
        "--echo --sleep",
        "--no-such-flag",
    ] {
        let ended = scene.run().words(flags).words("-- true").run();
        assert_eq!(ended.code(), i32::from(USAGE), "{flags}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty() && !ended.stderr.contains("panicked"));
    }
    scene.assert_nothing_left();
}
