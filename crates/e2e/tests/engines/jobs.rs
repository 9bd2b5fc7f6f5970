//! Jobs whose input and output are an engine's.

use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use tradewind_e2e::chaos::{EngineKind, EngineServer};
use tradewind_e2e::{Process, Record, Scene, Start, records, wait_for};
use tradewind_engine::SubmitId;
use tradewind_engines::EngineUrl;
use tradewind_node::exit::{CONNECT, OUTPUT, REFUSED};
use tradewind_store::{StoredTask, TaskOptions};

struct Engine(EngineServer);

impl Engine {
    fn start() -> Self {
        Self(EngineServer::start(EngineKind::Nats))
    }

    fn connect(&self, stream: &str) -> Box<dyn tradewind_engines::Engine> {
        let url: EngineUrl = self.0.url(stream).parse().expect("it is one");
        url.connect().expect("it is there")
    }

    fn submit(&self, stream: &str, partition: u32, tasks: impl IntoIterator<Item = String>) {
        let task = |text: String| StoredTask {
            key: None,
            options: TaskOptions::default(),
            payload: Bytes::from(text),
        };
        let tasks: Vec<_> = tasks.into_iter().map(task).collect();
        let mut log = self.connect(stream).tasks(partition).expect("it is there");
        log.submit(SubmitId(u128::from(fastrand::u64(..))), &tasks).expect("it takes them");
    }

    fn stored(&self, stream: &str) -> u64 {
        let mut log = self.connect(stream).records(0).expect("it is there");
        log.stored().expect("it can be read").count()
    }

    /// Returns the records of a stream, one for each of `total` tasks, and the order in which they were stored.
    fn records(&self, stream: &str, total: u64) -> (Vec<Record>, Vec<u64>) {
        let mut log = self.connect(stream).records(0).expect("it is there");
        let (mut lines, mut order, mut from) = (Vec::new(), Vec::new(), 0);
        while (order.len() as u64) < total {
            let read = log.read(from, 1 << 20, Duration::from_secs(5)).expect("it can be read");
            let Some((last, _)) = read.last() else { break };
            from = last + 1;
            for (_, record) in read {
                lines.extend_from_slice(&record.bytes);
                order.push(record.seq.0);
            }
        }
        (records(&lines, total), order)
    }

    fn run(&self, scene: &Scene, words: &str) -> Start {
        let (input, output) = (self.0.url("ORDERS"), self.0.url("ORDERS_DONE"));
        let run = scene.ours("tradewind").words("run -j 4");
        run.arg("--input").arg(input).arg("--output").arg(output).words(words)
    }
}

fn numbers(count: u64) -> impl Iterator<Item = String> {
    (0..count).map(|number| number.to_string())
}

fn kill_sink(process: &Process) {
    let children = std::fs::read_to_string(format!(
        "/proc/{pid}/task/{pid}/children",
        pid = process.pid().as_raw_nonzero()
    ));
    let children = children.expect("it runs");
    let is_sink = |pid: &&str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"sink")
    };
    let sink = children.split_whitespace().find(is_sink).expect("there is a sink");
    let pid = Pid::from_raw(sink.parse().expect("it is a number")).expect("it is not 0");
    kill_process(pid, Signal::KILL).expect("it is ours");
}

#[test]
fn each_task_of_a_stream_has_its_record_in_another_one() {
    let (engine, scene) = (Engine::start(), Scene::new());
    engine.submit("ORDERS", 0, numbers(10_000));
    let _ = engine.run(&scene, "--echo").run().expect(0);
    let (records, _) = engine.records("ORDERS_DONE", 10_000);
    for record in &records {
        assert_eq!(record.output.as_deref(), Some(&*record.seq.to_string()));
    }
    // As a file with something in it is.
    let again = engine.run(&scene, "--echo").run();
    assert_eq!(again.code(), i32::from(OUTPUT), "{}", again.stderr);
    assert!(
        again.stderr.contains("has 10000 records of an earlier run of this job"),
        "{}",
        again.stderr
    );
    let resumed = engine.run(&scene, "--resume --echo").run().expect(0);
    assert!(resumed.stderr.contains("all had their records already"), "{}", resumed.stderr);
}

#[test]
fn partitions_are_read_one_after_the_other_and_records_may_be_in_order() {
    let (engine, scene) = (Engine::start(), Scene::new());
    engine.submit("ORDERS", 0, numbers(50));
    engine.submit("ORDERS", 1, (50..100).map(|number| number.to_string()));
    let input = engine.0.url("ORDERS?partitions=2");
    let run = scene.ours("tradewind").words("run -j 4 --ordered --echo --input");
    let output = engine.0.url("BOTH_DONE");
    let _ = run.arg(&input).arg("--output").arg(output).run().expect(0);
    let (records, order) = engine.records("BOTH_DONE", 100);
    assert!(order.iter().copied().eq(0..100), "{order:?}");
    assert!(records.iter().all(|it| it.output.as_deref() == Some(&*it.seq.to_string())));
}

#[test]
fn a_killed_sink_is_resumed_without_a_double_and_a_changed_input_is_refused() {
    let (engine, scene) = (Engine::start(), Scene::new());
    engine.submit("ORDERS", 0, (0..400).map(|_| "0.01".to_owned()));
    let run = engine.run(&scene, "--sleep").start();
    wait_for("records are stored", || (engine.stored("ORDERS_DONE") >= 20).then_some(()));
    kill_sink(&run);
    let killed = run.wait();
    assert!(killed.stderr.contains("the sink was killed"), "{}", killed.stderr);
    let before = engine.stored("ORDERS_DONE");
    assert!((20..400).contains(&before), "{before}");
    // All tasks are the same: their places are not.
    let mut tasks = engine.connect("ORDERS").tasks(0).expect("it is there");
    let _ = engine.run(&scene, "--resume --sleep").run().expect(0);
    let (_, order) = engine.records("ORDERS_DONE", 400);
    assert_eq!(order.len(), 400);
    let mut leases = engine.connect("ORDERS").leases().expect("they are there");
    let epoch = leases.take(0, "me", Duration::from_secs(60)).expect("it can").expect("it is free");
    tasks.trim(epoch, 10, 10).expect("it can");
    engine.submit("ORDERS", 0, (0..10).map(|_| "0.01".to_owned()));
    let refused = engine.run(&scene, "--resume --sleep").run();
    assert_eq!(refused.code(), i32::from(REFUSED), "{}", refused.stderr);
    assert!(refused.stderr.contains("number 1 of its tasks"), "{}", refused.stderr);
}

#[test]
fn an_engine_that_is_killed_in_the_middle_is_waited_for() {
    let (mut engine, scene) = (Engine::start(), Scene::new());
    engine.submit("ORDERS", 0, (0..300).map(|_| "0.01".to_owned()));
    let mut run = engine.run(&scene, "--sleep").start();
    wait_for("records are stored", || (engine.stored("ORDERS_DONE") >= 20).then_some(()));
    engine.0.kill();
    run.wait_for_stderr("waiting until it can be written, nothing is lost");
    engine.0.start_again();
    let ended = run.wait().expect(0);
    let said = ended.stderr.matches("waiting until it can be written").count();
    assert_eq!(said, 1, "{}", ended.stderr);
    let (_, order) = engine.records("ORDERS_DONE", 300);
    assert_eq!(order.len(), 300);
}

#[test]
fn a_second_sink_is_refused() {
    let (engine, scene) = (Engine::start(), Scene::new());
    engine.submit("ORDERS", 0, ["60".to_owned()]);
    let first = engine.run(&scene, "--sleep").start();
    let mut leases = engine.connect("ORDERS_DONE").leases().expect("they are there");
    wait_for("the first has the lease", || {
        leases.holders().expect("they can be read").contains_key(&0).then_some(())
    });
    let other = Scene::new();
    let second = engine.run(&other, "--sleep").run();
    assert_eq!(second.code(), i32::from(OUTPUT), "{}", second.stderr);
    assert!(second.stderr.contains("it is in use by another process"), "{}", second.stderr);
    drop(first);
}

#[test]
fn an_engine_that_is_away_at_the_start_is_one_line() {
    let (mut engine, scene) = (Engine::start(), Scene::new());
    engine.0.kill();
    let ended = engine.run(&scene, "--echo").run();
    assert_eq!(ended.code(), i32::from(CONNECT), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot open input nats://"), "{}", ended.stderr);
}
