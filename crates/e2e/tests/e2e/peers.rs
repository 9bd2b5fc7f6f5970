//! A program that meets the wrong peer is told so in words, and the right ones continue.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use tradewind_e2e::{Process, Scene, Start, program, records, wait_until};

fn naps(count: usize, nap: &str) -> String {
    format!("{nap}\n").repeat(count)
}

/// Ends with the code for a wrong peer, and says this.
#[track_caller]
fn assert_wrong(process: Process, said: &str) {
    let ended = process.wait().expect(10);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(said), "{}", ended.stderr);
    assert!(ended.stderr.lines().count() < 12, "{}", ended.stderr);
}

#[test]
fn whoever_dials_the_wrong_port_ends_and_says_which_it_is() {
    let scene = Scene::new();
    let port = |address| format!("tcp://{address}");
    let mut sink = scene.sink().start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    sink.wait_for_stderr("the job is open");

    let (tasks, results, receipts) =
        (port(scene.tasks()), port(scene.results()), port(scene.receipts()));
    let worker = |ventilator: &str, sink: &str| {
        let worker = scene.ours("worker").words("--echo");
        worker.args(["--ventilator", ventilator, "--sink", sink]).start()
    };
    let crossed = worker(&receipts, &results);
    let twice = worker(&tasks, &receipts);
    let other = scene.ours("sink").args(["--listen", "tcp://127.0.0.1:0", "--ventilator", &tasks]);
    let other = other.arg("--output").arg(scene.path("other")).start();
    let backwards = scene.ours("ventilator").args(["--sink", &receipts]);
    let backwards = backwards.args(["--tasks", "tcp://127.0.0.1:0"]);
    let backwards = backwards.args(["--receipts", "tcp://127.0.0.1:0"]).keep_stdin().start();

    let said = "is not the one that is needed: it is the receipts port of a ventilator or relay";
    assert_wrong(
        crossed,
        &format!("the ventilator at {receipts} {said}; a worker dials the tasks"),
    );
    assert_wrong(twice, &format!("the sink at {receipts} {said}; a worker dials the results"));
    assert_wrong(backwards, &format!("the sink at {receipts} {said}; a ventilator dials"));
    assert_wrong(other, "it is the tasks port of a ventilator or relay; a sink dials the receipts");
    // Each of them has cost a line a minute, not one an attempt.
    let refused = |it: &Process| it.stderr().matches("closed: a ").count();
    let (at_ventilator, at_sink) = (refused(&ventilator), refused(&sink));
    assert!((3..=4).contains(&at_ventilator), "{}", ventilator.stderr());
    assert_eq!(at_sink, 0, "{}", sink.stderr());

    let worker = scene.worker("w").words("--exit-when-done --echo").start();
    ventilator.stdin().unwrap().write_all(b"after all\n").unwrap();
    ventilator.close_stdin();
    let _ = ventilator.wait().expect(0);
    let _ = worker.wait().expect(0);
    assert_eq!(sink.wait().expect(0).text(), "after all\n");
    scene.assert_nothing_left();
}

/// ZMTP's greeting, and a READY with this identity.
fn words(socket: &str, identity: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    bytes.extend_from_slice(b"NULL");
    bytes.resize(64, 0);
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [("Socket-Type", socket.as_bytes()), ("Identity", identity)] {
        body.push(name.len() as u8);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
    bytes.extend_from_slice(&[4, body.len() as u8]);
    bytes.extend_from_slice(&body);
    bytes
}

#[test]
fn a_program_of_another_version_or_another_kind_is_named() {
    let scene = Scene::new();
    for (identity, said) in [
        (&b"\x04c\x00"[..], "it speaks version 4 of Tradewind's protocol"),
        (b"", "it shows no card: it is another program, or an older Tradewind"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let words = words("PUSH", identity);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.write_all(&words);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        let worker = scene.ours("worker").words("--echo --sink tcp://127.0.0.1:1");
        assert_wrong(worker.args(["--ventilator", &endpoint]).start(), said);
    }
}

#[test]
fn a_second_sink_hears_that_there_is_one_and_the_job_goes_on() {
    let scene = Scene::new();
    let mut sink = scene.sink().words("--format jsonl").start();
    let mut ventilator = scene.ventilator().input(naps(40, "0.1")).start();
    let worker = scene.worker("w").words("--slots 2 --exit-when-done --sleep").start();
    wait_until("the job has begun", || sink.stdout_lines() > 2);
    let second = scene.ours("sink").args(["--listen", "tcp://127.0.0.1:0"]);
    let second = second.args(["--ventilator", &format!("tcp://{}", scene.receipts())]);
    let mut second = second.arg("--output").arg(scene.path("other.jsonl")).start();
    second.wait_for_stderr("this ventilator's sink is another");
    ventilator.wait_for_stderr("another sink wants to take part and may not");
    assert!(sink.is_running());
    let _ = records(&sink.wait().expect(0).stdout, 40);
    let _ = worker.wait().expect(0);
    assert!(!ventilator.wait().expect(0).stderr.contains("waiting for the sink"));
    second.signal(tradewind_e2e::Signal::TERM);
    let _ = second.wait().expect(130);
}

#[test]
fn a_second_ventilator_hears_that_it_has_to_wait_and_the_job_goes_on() {
    let scene = Scene::new();
    let mut sink = scene.sink().words("--format jsonl").start();
    let ventilator = scene.ventilator().input(naps(40, "0.1")).start();
    let worker = scene.worker("w").words("--slots 2 --exit-when-done --sleep").start();
    wait_until("the job has begun", || sink.stdout_lines() > 2);
    let second = scene.ours("ventilator").args(["--tasks", "tcp://127.0.0.1:0"]);
    let second = second.args(["--receipts", "tcp://127.0.0.1:0"]);
    let second = second.args(["--sink", &format!("tcp://{}", scene.results())]);
    let mut second = second.input(naps(3, "0")).start();
    second.wait_for_stderr("this sink's ventilator is another");
    sink.wait_for_stderr("another ventilator brings a job and may not");
    let _ = records(&sink.wait().expect(0).stdout, 40);
    let _ = worker.wait().expect(0);
    let _ = ventilator.wait().expect(0);
    assert!(second.is_running(), "it waits for its turn");
    for _ in 0..3 {
        second.signal(tradewind_e2e::Signal::TERM);
        tradewind_e2e::pause_between_signals();
    }
    let _ = second.wait().expect(130);
}

#[test]
fn a_relay_that_would_dial_itself_says_so() {
    let scene = Scene::new();
    let ended = scene.ours("relay").run().expect(2);
    let said = "--ventilator tcp://127.0.0.1:5559 is this relay's own --receipts";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

#[test]
fn an_endpoint_that_stands_for_everywhere_is_not_dialled() {
    let scene = Scene::new();
    let worker = scene.ours("worker").words("--echo --ventilator tcp://*:5557");
    let ended = worker.run().expect(2);
    assert!(ended.stderr.contains("tcp://*:5557 is for listening"), "{}", ended.stderr);
}

/// The same program with so few open files.
pub(crate) fn with_files(
    scene: &Scene,
    files: u32,
    start: impl FnOnce(Start) -> Start,
    name: &str,
) -> Start {
    let command = format!("ulimit -n {files}; exec \"$@\"");
    start(scene.other("sh").args(["-c", &command, "sh"]).arg(program(name)))
}

#[test]
fn where_files_are_few_the_job_runs_with_the_workers_that_fit() {
    const WORKERS: usize = 30;
    let scene = Scene::new();
    let (tasks, results, receipts) = (
        format!("tcp://{}", scene.tasks()),
        format!("tcp://{}", scene.results()),
        format!("tcp://{}", scene.receipts()),
    );
    // The workers first: they are all at the door when it opens.
    let workers: Vec<Process> = (0..WORKERS)
        .map(|n| scene.worker(&format!("w{n}")).words("-q --slots 1 --sleep").start())
        .collect();
    let sink = with_files(
        &scene,
        64,
        |sink| sink.args(["--format", "jsonl", "--listen", &results, "--ventilator", &receipts]),
        "sink",
    );
    let sink = sink.start();
    let ventilator = with_files(
        &scene,
        64,
        |it| it.args(["--tasks", &tasks, "--receipts", &receipts, "--sink", &results]),
        "ventilator",
    );
    let mut ventilator = ventilator.input(naps(200, "0.1")).start();
    ventilator.wait_for_stderr("not fit beside the");
    let ended = ventilator.wait().expect(0);
    assert!(ended.stderr.contains("ulimit -n is 64"), "{}", ended.stderr);
    assert!(ended.stderr.lines().count() < 40, "{}", ended.stderr);
    let records = records(&sink.wait().expect(0).stdout, 200);
    let fit: std::collections::BTreeSet<_> = records.iter().map(|record| &record.worker).collect();
    assert!((4..WORKERS).contains(&fit.len()), "{fit:?}");
    // They try on, and none of them has ended.
    for mut worker in workers {
        assert!(worker.is_running());
        worker.signal(tradewind_e2e::Signal::TERM);
        let _ = worker.wait().expect(0);
    }
    scene.assert_nothing_left();
}

#[test]
fn where_files_are_too_few_for_any_job_that_is_said() {
    for name in ["ventilator", "sink", "worker", "relay"] {
        let scene = Scene::new();
        let words = match name {
            "worker" => "--echo",
            "relay" => "--ventilator tcp://127.0.0.1:1 --sink tcp://127.0.0.1:1",
            _ => "",
        };
        let ended = with_files(&scene, 24, |it| it.words(words), name).run().expect(8);
        let said = "ulimit -n is 24: at least 32 open files are needed";
        assert!(ended.stderr.contains(said), "{name}: {}", ended.stderr);
    }
}

#[test]
fn a_result_that_the_sink_does_not_take_is_its_tasks_failure_and_stops_nothing() {
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl --message-max 1MiB").start();
    let input: String = (0..50).map(|n| if n == 3 { "2000000\n" } else { "10\n" }).collect();
    let ventilator = scene.ventilator().input(input).start();
    let worker = scene.worker("w").words("--slots 2 --exit-when-done --message-max 200MiB");
    let command = "head -c $1 /dev/zero | tr '\\0' a";
    let worker =
        worker.words("--max-output 100MiB").args(["--", "sh", "-c", command, "sh", "{}"]).start();
    let _ = ventilator.wait().expect(1);
    let _ = worker.wait().expect(0);
    let records = records(&sink.wait().expect(1).stdout, 50);
    for record in &records {
        let wanted = if record.seq == 3 { "failed" } else { "ok" };
        assert_eq!(record.status, wanted, "{}", record.json);
    }
    let error = records[3].json["error"].as_str().unwrap();
    let limits = ["2000000 bytes", "1048576 bytes", "209715200"];
    assert!(limits.iter().all(|limit| error.contains(limit)), "{error}");
    scene.assert_nothing_left();
}

/// Carries connections to this address and back; bytes to it at no more than a number a second.
fn slow_way(to: SocketAddrV4, bytes_per_second: u32) -> String {
    fn carry(mut from: TcpStream, mut to: TcpStream, pace: Option<Duration>) {
        std::thread::spawn(move || {
            let mut buffer = [0; 4 << 10];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
                if let Some(pace) = pace {
                    std::thread::sleep(pace * read as u32);
                }
            }
            let _ = to.shutdown(std::net::Shutdown::Both);
            let _ = from.shutdown(std::net::Shutdown::Both);
        });
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for from in listener.incoming() {
            let from = from.unwrap();
            let Ok(to) = TcpStream::connect(to) else { continue };
            let pace = Duration::from_secs(1) / bytes_per_second;
            carry(from.try_clone().unwrap(), to.try_clone().unwrap(), Some(pace));
            carry(to, from, None);
        }
    });
    endpoint
}

#[test]
fn a_result_that_takes_long_on_its_way_is_a_sign_of_life() {
    let scene = Scene::new();
    let sink = scene.sink().words("--format jsonl").start();
    // Kernels buffer some megabytes; what is left takes twice as long as a worker may be silent.
    let ventilator = scene.ventilator().words("--worker-timeout 3s").input("9000000\n10\n").start();
    let way = slow_way(scene.results(), 500_000);
    let worker = scene.ours("worker").args(["--sink", &way, "--name", "far"]);
    let worker = worker.args(["--ventilator", &format!("tcp://{}", scene.tasks())]);
    let command =
        format!("echo $1 >> {}; head -c $1 /dev/zero | tr '\\0' a", scene.path("begun").display());
    let worker =
        worker.words("--slots 1 --exit-when-done").args(["--", "sh", "-c", &command, "sh", "{}"]);
    let worker = worker.start();
    let ended = ventilator.wait().expect(0);
    assert_eq!(ended.stderr.matches("worker joins").count(), 1, "{}", ended.stderr);
    let _ = worker.wait().expect(0);
    let records = records(&sink.wait().expect(0).stdout, 2);
    assert!(records.iter().all(|record| record.status == "ok"));
    assert_eq!(scene.read("begun"), b"9000000\n10\n", "each was run once");
    scene.assert_nothing_left();
}

#[test]
fn who_cannot_reach_the_sink_is_counted_and_who_goes_is_named() {
    let scene = Scene::new();
    let mut sink = scene.sink().words("--format jsonl").start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    sink.wait_for_stderr("the job is open");
    let mut lost = scene.worker("lost").words("--slots 2 --sleep").start();
    let cut_off = scene.ours("worker").words("--sleep --name cut-off --sink tcp://127.0.0.1:1");
    let cut_off = cut_off.args(["--ventilator", &format!("tcp://{}", scene.tasks())]);
    let mut cut_off = cut_off.start();
    ventilator.wait_for_stderr("cut-off");
    let naps = naps(2, "1000");
    ventilator.stdin().unwrap().write_all(naps.as_bytes()).unwrap();
    wait_until("it is seen that one cannot reach the sink", || {
        ventilator.signal(tradewind_e2e::Signal::USR1);
        std::thread::sleep(Duration::from_millis(200));
        ventilator.stderr().contains("1 of 2 workers cannot reach the sink")
    });
    cut_off.wait_for_stderr("WARN cannot reach tcp://127.0.0.1:1 for ");
    lost.kill();
    ventilator.wait_for_stderr("worker gone; 2 of its tasks go back worker=\"lost\"");
    for _ in 0..3 {
        ventilator.signal(tradewind_e2e::Signal::TERM);
        tradewind_e2e::pause_between_signals();
    }
    let _ = ventilator.wait().expect(130);
    cut_off.signal(tradewind_e2e::Signal::TERM);
    let _ = cut_off.wait().expect(0);
}
