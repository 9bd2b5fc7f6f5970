//! A job is looked at while it runs.

use std::net::TcpListener;

use serde_json::Value;
use tradewind_e2e::{Process, Scene, ask, wait_until};

fn status(scene: &Scene) -> Option<Value> {
    let answer = ask(scene.http(), "GET", "/status.json", &[], b"").ok()?;
    (answer.status == 200).then(|| answer.json())
}

fn text(scene: &Scene, path: &str) -> String {
    ask(scene.http(), "GET", path, &[], b"").expect("it answers").body
}

#[track_caller]
fn wait_for(scene: &Scene, what: &str, is_so: impl Fn(&Value) -> bool) {
    wait_until(what, || status(scene).is_some_and(|status| is_so(&status["queue"])));
}

fn shown(scene: &Scene) -> tradewind_e2e::Start {
    scene.ventilator().args(["--http", &scene.http().to_string()])
}

/// A worker with two slots whose tasks end when there is a file with their name.
fn gated(scene: &Scene, name: &str) -> Process {
    scene.file("gated.sh", "while [ ! -e go-$1 ]; do sleep 0.02; done; test $1 != 2");
    scene.worker(name).words("--slots 2 -- sh gated.sh {}").start()
}

#[test]
fn what_limits_is_said_from_the_first_program_to_the_end() {
    let scene = Scene::new();
    let ventilator = shown(&scene).input("1\n2\n3\n4\n").start();
    wait_for(&scene, "the sink is missed", |queue| queue["limit"]["by"] == "no_sink");
    let ready = ask(scene.http(), "GET", "/readyz", &[], b"").expect("it answers").expect(503);
    assert!(ready.body.contains("Waiting for the sink"), "{}", ready.body);
    let sink = scene.sink().words("--output out.jsonl").start();
    wait_for(&scene, "workers are missed", |queue| queue["limit"]["by"] == "no_workers");
    let worker = gated(&scene, "w1");
    wait_for(&scene, "all slots are busy", |queue| {
        queue["limit"]["line"] == "Workers limit: both slots are busy."
            && queue["counts"]["running"] == 2
    });
    ask(scene.http(), "GET", "/readyz", &[], b"").expect("it answers").expect(200);
    wait_until("the first task runs", || text(&scene, "/tasks/0").contains("\"running\""));
    let task = text(&scene, "/tasks/0");
    assert!(task.contains("It runs at w1"), "{task}");
    scene.file("go-1", "");
    scene.file("go-2", "");
    wait_for(&scene, "two have records", |queue| {
        queue["counts"]["stored"] == 2 && queue["counts"]["not_ok"] == 1
    });
    wait_until("its record is told", || text(&scene, "/tasks/1").contains("Its record is stored."));
    scene.file("go-3", "");
    wait_for(&scene, "the last one runs", |queue| {
        queue["limit"]["line"] == "The last task runs; 1 slot is idle."
    });
    let metrics = text(&scene, "/metrics");
    for line in [
        "tradewind_records_total{queue=\"job\",status=\"not_ok\"} 1.0",
        "tradewind_limited_by{queue=\"job\",by=\"tail\"} 1.0",
        "tradewind_slots{queue=\"job\",state=\"busy\"} 1.0",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} in\n{metrics}");
    }
    let events = std::thread::scope(|scope| {
        let events = scope.spawn(|| text(&scene, "/events"));
        wait_for(&scene, "it is still there", |queue| queue["counts"]["stored"] == 3);
        scene.file("go-4", "");
        events.join().expect("the stream ends with the job")
    });
    assert!(
        events.contains("Finished: all 4 tasks have their record, 1 of them not ok."),
        "{events}"
    );
    assert!(events.ends_with("event: end\ndata: \n\n"), "{events}");
    ventilator.wait().expect(1);
    sink.wait().expect(1);
    drop(worker);
    scene.assert_nothing_left();
}

#[test]
fn a_port_that_is_taken_or_open_to_all_is_refused_before_anything_runs() {
    let scene = Scene::new();
    let taken = TcpListener::bind(scene.http()).expect("it is free");
    let refused = shown(&scene).input("1\n").run().expect(5);
    let line = format!("--http {} is taken by another process", scene.http());
    assert!(refused.stderr.contains(&line), "{}", refused.stderr);
    drop(taken);
    let sockets = "--tasks ipc:///tmp/none --receipts ipc:///tmp/none --sink ipc:///tmp/none --http 0.0.0.0:0";
    let open =
        scene.ours("ventilator").words(sockets).home(scene.dir()).input("1\n").run().expect(2);
    assert!(open.stderr.contains("name with --http-trust who may ask"), "{}", open.stderr);
    let alone = scene.ventilator().words("--http-trust 127.0.0.1").input("1\n").run().expect(2);
    assert!(alone.stderr.contains("--http"), "{}", alone.stderr);
}

#[test]
fn a_run_is_shown_as_well() {
    let scene = Scene::new();
    let http = scene.http().to_string();
    let run = scene.run().args(["--http", &http]).words("-j2 --output out -- sh -c").args([
        "while [ ! -e go ]; do sleep 0.02; done",
        "sh",
        "{}",
        ":::",
        "a",
        "b",
        "c",
    ]);
    let run = run.start();
    wait_for(&scene, "both slots are busy", |queue| {
        queue["limit"]["line"] == "Workers limit: both slots are busy."
    });
    assert!(text(&scene, "/").contains("0 of 3 tasks"), "{}", text(&scene, "/"));
    scene.file("go", "");
    run.wait().expect(0);
    scene.assert_nothing_left();
}
