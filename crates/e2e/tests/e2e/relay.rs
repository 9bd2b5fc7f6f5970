//! Stages in a row, with the real programs: what one makes is the next one's task.

use std::io::Write as _;
use std::net::SocketAddrV4;

use serde_json::Value;
use tradewind_e2e::{
    PATIENCE, Process, Scene, Signal, Start, random, wait_for_as_long_as, wait_until,
};

/// Three stages, two relays between them, at a scene's address.
struct Stages<'a> {
    scene: &'a Scene,
}

const STAGES: usize = 3;

impl Stages<'_> {
    fn at(&self, port: u16) -> String {
        format!("tcp://{}", SocketAddrV4::new(*self.scene.tasks().ip(), port))
    }

    /// Address to which the workers of a stage connect.
    fn tasks(&self, stage: usize) -> String {
        self.at(if stage == 0 { 5557 } else { 6000 + 10 * stage as u16 })
    }

    /// Address to which receipts for a stage go.
    fn receipts(&self, stage: usize) -> String {
        self.at(if stage == 0 { 5559 } else { 6001 + 10 * stage as u16 })
    }

    /// Address to which the results of a stage go.
    fn results(&self, stage: usize) -> String {
        self.at(if stage + 1 == STAGES { 5558 } else { 6002 + 10 * stage as u16 })
    }

    fn ventilator(&self) -> Start {
        self.scene
            .ours("ventilator")
            .args(["--stage", "stage-0"])
            .args(["--tasks", &self.tasks(0)])
            .args(["--receipts", &self.receipts(0)])
            .args(["--sink", &self.results(0)])
    }

    /// The relay before a stage.
    fn relay(&self, stage: usize) -> Start {
        self.scene
            .ours("relay")
            .args(["--listen", &self.results(stage - 1)])
            .args(["--ventilator", &self.receipts(stage - 1)])
            .args(["--tasks", &self.tasks(stage)])
            .args(["--receipts", &self.receipts(stage)])
            .args(["--sink", &self.results(stage)])
            .args(["--stage", &format!("stage-{stage}")])
    }

    fn worker(&self, stage: usize, name: &str) -> Start {
        self.scene
            .ours("worker")
            .args(["--ventilator", &self.tasks(stage)])
            .args(["--sink", &self.results(stage)])
            .args(["--name", name, "--exit-when-done"])
    }

    fn sink(&self) -> Start {
        let receipts = self.receipts(STAGES - 1);
        self.scene
            .ours("sink")
            .args(["--listen", &self.results(STAGES - 1)])
            .args(["--ventilator", &receipts])
    }

    /// The two relays, and a worker for each stage that does this.
    fn start(&self, commands: [&str; STAGES]) -> Vec<Process> {
        let relays = (1..STAGES).map(|stage| self.relay(stage).start());
        let workers = commands.iter().enumerate();
        let workers = workers.map(|(stage, command)| {
            self.worker(stage, &format!("w{stage}")).words(command).start()
        });
        relays.chain(workers).collect()
    }
}

fn records(scene: &Scene, name: &str) -> Vec<Value> {
    let text = String::from_utf8(scene.read(name)).expect("records are UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
}

fn lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn what_a_stage_makes_is_the_next_ones_task() {
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    let others = stages.start(["-- echo {}.a", "-- echo {}.b", "-- echo {}.c"]);
    let ventilator = stages.ventilator().input("1\n2\n3\n").start();
    let sink = stages.sink().run().expect(0);
    assert_eq!(sink.text(), "1.a.b.c\n2.a.b.c\n3.a.b.c\n");
    ventilator.wait().expect(0);
    others.into_iter().for_each(|process| drop(process.wait().expect(0)));
    scene.assert_nothing_left();
}

#[test]
fn a_task_that_fails_or_is_skipped_ends_in_its_stage() {
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    scene.file("second.sh", "echo $1 >> seen; [ $1 != 2 ] || { echo no >&2; exit 3; }; echo $1.b");
    scene.file("last.sh", "echo $1 >> last");
    let others = stages.start(["-- echo {}", "-- sh second.sh {}", "-- sh last.sh {}"]);
    let ventilator = stages.ventilator().input("1\n2\n3\n").start();
    stages.sink().words("--output out.jsonl --ordered").run().expect(1);
    ventilator.wait().expect(1);
    // Everybody says the same of the job.
    for (place, process) in others.into_iter().enumerate() {
        process.wait().expect(if place < STAGES - 1 { 1 } else { 0 });
    }
    let records = records(&scene, "out.jsonl");
    let ends: Vec<_> =
        records.iter().map(|r| (r["status"].as_str(), r["stage"].as_str())).collect();
    let ok = (Some("ok"), Some("stage-2"));
    assert_eq!(ends, [ok, (Some("failed"), Some("stage-1")), ok]);
    assert_eq!(
        (&records[1]["exit_code"], &records[1]["error"]),
        (&3.into(), &"exit code 3".into())
    );
    assert_eq!(records[1]["worker"], "w1");
    let mut last: Vec<_> =
        String::from_utf8_lossy(&scene.read("last")).lines().map(str::to_owned).collect();
    last.sort_unstable();
    assert_eq!(last, ["1.b", "3.b"]);
    scene.assert_nothing_left();
}

#[test]
fn a_failed_attempt_is_tried_again_in_its_own_stage() {
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    scene.file("once.sh", "echo $1 >> tried; mkdir $1 2>/dev/null && exit 1; echo $1");
    let first = stages.relay(1).words("--retries 1").start();
    let second = stages.relay(2).start();
    let workers: Vec<_> = ["--stdin -- tee -a first", "-- sh once.sh {}", "--echo"]
        .iter()
        .enumerate()
        .map(|(stage, command)| stages.worker(stage, "w").words(command).start())
        .collect();
    let ventilator = stages.ventilator().input("a\nb\n").start();
    let sink = stages.sink().run().expect(0);
    assert_eq!(sink.text(), "a\nb\n");
    for process in workers.into_iter().chain([first, second, ventilator]) {
        process.wait().expect(0);
    }
    // To a command of the first stage a task is a line.
    assert_eq!((scene.read("first").len(), lines(&scene.read("tried"))), (4, 4));
}

#[test]
fn a_relay_that_is_asked_to_leave_leaves_and_another_goes_on() {
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    scene.file("slow.sh", "echo $1 >> ran; sleep 0.02; echo $1");
    let mut others = stages.start(["--echo", "-- sh slow.sh {}", "--echo"]);
    let input: String = (0..60).map(|n| format!("{n}\n")).collect();
    let ventilator = stages.ventilator().input(input.clone()).start();
    let sink = stages.sink().words("--output out").start();
    wait_until("some records are there", || lines(&scene.read("out")) > 5);
    let mut relay = others.remove(0);
    relay.signal(Signal::TERM);
    relay.wait().expect(130);
    others.push(stages.relay(1).start());
    sink.wait().expect(0);
    ventilator.wait().expect(0);
    others.into_iter().for_each(|process| drop(process.wait().expect(0)));
    assert_eq!(String::from_utf8(scene.read("out")).expect("text"), input);
    let ran = String::from_utf8(scene.read("ran")).expect("text");
    let mut ran: Vec<u32> = ran.lines().map(|line| line.parse().expect("a number")).collect();
    ran.sort_unstable();
    assert!(ran.into_iter().eq(0..60), "nothing has run twice");
    scene.assert_nothing_left();
}

#[test]
fn a_job_that_was_cut_short_ends_so_in_all_stages() {
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    let mut relays = stages.start(["--echo", "--echo", "--echo"]);
    let _workers = relays.split_off(STAGES - 1);
    let mut ventilator = stages.ventilator().keep_stdin().start();
    let sink = stages.sink().words("--output out").start();
    writeln!(ventilator.stdin().unwrap(), "1\n2").unwrap();
    wait_until("a record is there", || scene.path("out").exists() && lines(&scene.read("out")) > 1);
    ventilator.signal(Signal::TERM);
    // Its input stays open until then: the end of that would be the job's.
    wait_until("the ventilator ends", || !ventilator.is_running());
    ventilator.wait().expect(130);
    sink.wait().expect(130);
    for relay in relays {
        let ended = relay.wait().expect(130);
        assert!(ended.stderr.contains("stopped before the end"), "{}", ended.stderr);
    }
}

#[test]
fn a_cancelled_job_is_cancelled_in_all_stages() {
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    let others = stages.start(["--echo", "-- sleep 1000", "--echo"]);
    let mut ventilator = stages.ventilator().input("1\n2\n3\n").start();
    let sink = stages.sink().words("--output out.jsonl").start();
    wait_until("a task of the second stage runs", || scene.count("sleep 1000") > 0);
    ventilator.signal(Signal::INT);
    ventilator.wait_for_stderr("stopping");
    tradewind_e2e::pause_between_signals();
    ventilator.signal(Signal::INT);
    ventilator.wait().expect(130);
    sink.wait().expect(1);
    others.into_iter().for_each(|process| drop(process.wait()));
    let records = records(&scene, "out.jsonl");
    let statuses: Vec<_> = records.iter().map(|record| record["status"].as_str()).collect();
    assert_eq!(statuses, [Some("cancelled"); 3]);
    scene.assert_nothing_left();
}

#[test]
fn a_relay_that_takes_the_place_of_one_killed_after_the_end_is_told_of_it() {
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    scene.file("wait.sh", "while [ ! -e go ]; do sleep 0.02; done; echo $1");
    let mut others = stages.start(["--echo", "--echo", "-- sh wait.sh {}"]);
    let mut ventilator = stages.ventilator().input("1\n").start();
    let sink = stages.sink().words("--output out").start();
    wait_until("the last stage runs", || scene.count("sh wait.sh") > 0);
    ventilator.signal(Signal::STOP);
    scene.file("go", "");
    // That everything is stored has gone up already when the relay dies, most times; if it has not,
    // the new one says it again.
    wait_until("the record is there", || lines(&scene.read("out")) == 1);
    others[1].kill();
    ventilator.signal(Signal::CONT);
    others[1] = stages.relay(2).start();
    sink.wait().expect(0);
    ventilator.wait().expect(0);
    // A worker may not have reached the new relay before that has left.
    for mut worker in others.split_off(2) {
        worker.signal(Signal::TERM);
        drop(worker.wait());
    }
    others.into_iter().for_each(|relay| drop(relay.wait().expect(0)));
    assert_eq!(scene.read("out"), b"1\n");
    scene.assert_nothing_left();
}

#[test]
fn a_sink_that_has_everything_does_not_wait_beside_a_relay_that_knows_no_job() {
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    scene.file("wait.sh", "while [ ! -e go ]; do sleep 0.02; done; echo $1");
    let mut others = stages.start(["--echo", "--echo", "-- sh wait.sh {}"]);
    let mut ventilator = stages.ventilator().input("1\n").start();
    let mut sink = stages.sink().words("--output out").start();
    wait_until("the last stage runs", || scene.count("sh wait.sh") > 0);
    wait_until("the sink knows how many tasks there are", || {
        sink.signal(Signal::USR1);
        sink.stderr().contains("0 of 1 done")
    });
    // No process tells the sink that the ventilator knows.
    others[1].signal(Signal::STOP);
    scene.file("go", "");
    wait_until("the record is there", || lines(&scene.read("out")) == 1);
    ventilator.kill();
    others[0].kill();
    others[1].kill();
    others[1] = stages.relay(2).start();
    others[1].wait_for_stderr("the relay is up");
    // It says half a minute that it is there, and then it is as good as not there.
    sink.wait().expect(0);
    assert_eq!(scene.read("out"), b"1\n");
    others.iter_mut().for_each(|process| process.signal(Signal::TERM));
    others.into_iter().for_each(|process| drop(process.wait()));
    scene.assert_nothing_left();
}

#[test]
fn a_worker_that_leaves_does_not_wait_for_a_later_stage_without_workers() {
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    let relays: Vec<_> = (1..STAGES).map(|stage| stages.relay(stage).start()).collect();
    scene.file("first.sh", "echo $1 >> ran; echo $1");
    let mut first = stages.worker(0, "first").words("-- sh first.sh {}").start();
    let ventilator = stages.ventilator().input("1\n2\n").start();
    let sink = stages.sink().words("--output out").start();
    wait_until("the first stage is through", || lines(&scene.read("ran")) == 2);
    first.signal(Signal::TERM);
    // It waits a minute for its results to be stored.
    wait_for_as_long_as(2 * PATIENCE, "it leaves", || first.status());
    let ended = first.wait().expect(0);
    assert!(ended.stderr.contains("not stored in time"), "{}", ended.stderr);
    let others = [stages.worker(1, "second"), stages.worker(2, "third")];
    let others = others.map(|worker| worker.arg("--echo").start());
    sink.wait().expect(0);
    ventilator.wait().expect(0);
    others.into_iter().chain(relays).for_each(|process| drop(process.wait().expect(0)));
    assert_eq!(scene.read("out"), b"1\n2\n");
    assert_eq!(lines(&scene.read("ran")), 2, "the relay has had its results");
    scene.assert_nothing_left();
}

#[test]
fn everybody_in_three_stages_is_killed_at_random() {
    const TASKS: usize = 100_000;
    const KILLS: usize = 12;
    let scene = Scene::new();
    let stages = Stages { scene: &scene };
    let mut random = random();
    let input: String = (0..TASKS).map(|n| format!("{n}\n")).collect();
    let input_file = scene.file("in", &input);
    let relay = |stage| stages.relay(stage).words("--max-losses 100").start();
    let mut relays: Vec<_> = (1..STAGES).map(relay).collect();
    let worker = |stage: usize| stages.worker(stage, "w").arg("--echo").start();
    let mut workers: Vec<Vec<Process>> =
        (0..STAGES).map(|stage| (0..2).map(|_| worker(stage)).collect()).collect();
    let sink = stages.sink().words("--output out").start();
    let ventilator = stages.ventilator().words("--max-losses 100 --input").arg(&input_file).start();
    for kill in 0..KILLS {
        let due = TASKS * kill / KILLS;
        wait_until("the output grows", || lines(&scene.read("out")) >= due);
        if random.bool() {
            let place = random.usize(0..relays.len());
            relays[place].kill();
            relays[place] = relay(place + 1);
        }
        let stage = random.usize(0..STAGES);
        let place = random.usize(0..2);
        workers[stage][place].kill();
        workers[stage][place] = worker(stage);
    }
    sink.wait().expect(0);
    ventilator.wait().expect(0);
    assert!(scene.read("out") == input.as_bytes(), "each task has its one record, in order");
    // One that was started when the job was just over finds no process to tell it.
    for mut process in relays.into_iter().chain(workers.into_iter().flatten()) {
        process.signal(Signal::TERM);
        drop(process.wait());
    }
    scene.assert_nothing_left();
}
