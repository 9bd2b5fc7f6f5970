//! A job that is over has ended: no program waits for something that cannot come.

use std::time::{Duration, Instant};

use tradewind_e2e::{Scene, Signal, Start, summary_counts, wait_until};
use tradewind_node::is_caught;

/// Less than what a worker that cannot be told of the end used to be waited for.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Whether a worker has joined before the job is over is chance.
const TRIES: usize = 8;

#[test]
fn a_job_is_over_at_once_whether_or_not_all_workers_have_joined() {
    let scene = Scene::new();
    let stage = |name: &str| format!("[[stage]]\nname = '{name}'\necho = true\nworkers = 2\n");
    scene.file("stages.toml", stage("one") + &stage("two") + &stage("three"));
    scene.file("bad.csv", "a,b\n1\n");
    scene.file("three.csv", "a,b\n1,2\n");
    let check = |words: &str, input: &str, code: i32| {
        for _ in 0..TRIES {
            let began = Instant::now();
            let start: Start = scene.run().words(words);
            let ended = start.input(input).run().expect(code);
            let took = began.elapsed();
            assert!(took < AT_ONCE, "{words} of {input:?} took {took:?}:\n{}", ended.stderr);
        }
    };
    check("-- echo", "", 0);
    check("--workers 4 -j 4 --echo", "", 0);
    check("--workers 4 -j 4 --echo", "1\n", 0);
    check("--workers 4 -j 4 -- echo", "1\n2\n3\n", 0);
    check("--input-format csv --input bad.csv -- echo {a}", "", 3);
    check("--input-format csv --input three.csv --workers 3 -j 3 -- echo {a}", "", 0);
    check("-- echo :::", "", 0);
    check("--pipe lines -- cat", "", 0);
    check("--pipe lines --workers 2 -j 2 -- cat", "1\n", 0);
    check("--pipeline stages.toml", "", 0);
    check("--pipeline stages.toml", "1\n", 0);
    scene.assert_nothing_left();
}

#[test]
fn a_worker_that_is_killed_is_replaced_however_young_it_was() {
    let scene = Scene::new();
    // Each task ends its worker the first time that it is run, and so none of these grows old.
    let script = "mkdir seen.$1 2>/dev/null && kill -9 $PPID; echo $1";
    let run = scene.run().words("-j 1 --").args(["sh", "-c", script, "sh"]);
    let ended = run.input("1\n2\n3\n4\n5\n6\n7\n8\n").run().expect(0);
    assert_eq!(ended.text(), "1\n2\n3\n4\n5\n6\n7\n8\n");
    assert_eq!(summary_counts(&ended.stderr), Some("8 tasks: 8 ok"));
    assert_eq!(ended.stderr.matches("another takes its place").count(), 8, "{}", ended.stderr);
    scene.assert_nothing_left();
}

#[test]
fn asked_how_things_stand_as_early_as_can_be_it_goes_on() {
    let scene = Scene::new();
    // One that has no peer to ask does not mind.
    let mut dry = scene.run().words("--dry-run -- echo").keep_stdin().start();
    wait_until("it has taken signals over", || is_caught(dry.pid(), Signal::USR1));
    dry.signal(Signal::USR1);
    dry.close_stdin();
    let _ = dry.wait().expect(0);
    for _ in 0..4 {
        let mut run = scene.run().words("-- echo").keep_stdin().start();
        // Before this it is not our program yet.
        wait_until("it has taken signals over", || is_caught(run.pid(), Signal::USR1));
        // Now it starts its children.
        for _ in 0..40 {
            run.signal(Signal::USR1);
            std::thread::sleep(Duration::from_millis(1));
        }
        run.close_stdin();
        let ended = run.wait().expect(0);
        assert!(!ended.stderr.contains("killed"), "{}", ended.stderr);
    }
    scene.assert_nothing_left();
}

#[test]
fn asked_to_stop_as_early_as_can_be_it_has_been_stopped() {
    let scene = Scene::new();
    // It is asked when its children are there and do not listen yet, or as early as can be.
    for delay_ms in [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20] {
        let (reader, open) = std::io::pipe().unwrap();
        let mut run = scene.run().words("-- echo").stdin(reader).start();
        std::thread::sleep(Duration::from_millis(delay_ms));
        run.signal(Signal::TERM);
        let ended = run.wait();
        let is_stopped = [130, 128 + Signal::TERM.as_raw()].contains(&ended.code());
        assert!(is_stopped, "after {delay_ms} ms: {} {}", ended.code(), ended.stderr);
        assert!(!ended.stderr.contains("killed"), "{}", ended.stderr);
        drop(open);
    }
    scene.assert_nothing_left();
}

#[test]
fn a_sink_that_gives_up_on_its_ventilator_at_the_end_reports_the_end() {
    let scene = Scene::new();
    scene.file("wait.sh", "while [ ! -e go ]; do sleep 0.02; done; echo $1");
    let mut worker = scene.worker("w").words("--exit-when-done -- sh wait.sh {}").start();
    let mut ventilator = scene.ventilator().input("1\n").start();
    let mut sink = scene.sink().words("--connect-timeout 1s --output out").start();
    wait_until("the task runs", || scene.count("sh wait.sh") > 0);
    wait_until("the sink knows how many tasks there are", || {
        sink.signal(Signal::USR1);
        sink.stderr().contains("0 of 1 done")
    });
    ventilator.signal(Signal::STOP);
    scene.file("go", "");
    wait_until("the record is there", || scene.read("out") == b"1\n");
    ventilator.kill();
    let ended = sink.wait().expect(0);
    assert_eq!(summary_counts(&ended.stderr), Some("1 task: 1 ok"));
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
    scene.assert_nothing_left();
}

#[test]
fn a_worker_that_is_to_leave_and_gives_up_on_its_peers_has_left() {
    let scene = Scene::new();
    let mut worker = scene.worker("w").words("--connect-timeout 2s --echo").start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    worker.wait_for_stderr("connected to the ventilator");
    ventilator.kill();
    worker.wait_for_stderr("lost the ventilator");
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
    scene.assert_nothing_left();
}
