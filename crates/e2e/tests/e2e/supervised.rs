//! Exit codes for what starts a program again unless it exits with 0.

use tradewind_e2e::Scene;

const CONNECT: i32 = 6;
const STOPPED: i32 = 130;

#[test]
fn a_complete_job_is_no_failure_with_failed_ok() {
    for (flag, code) in [("", 1), ("--failed-ok", 0)] {
        let scene = Scene::new();
        let sink = scene.sink().words("--output out.jsonl").words(flag).start();
        let ventilator = scene.ventilator().words(flag).input("0\n3\n").start();
        let worker = scene.worker("w").words("--exit-when-done -- sh -c").arg("exit $1").arg("sh");
        worker.run().expect(0);
        ventilator.wait().expect(code);
        let summary = sink.wait().expect(code);
        assert!(summary.stderr.contains("1 ok, 1 failed"), "{}", summary.stderr);
    }
}

#[test]
fn a_sink_whose_ventilator_was_stopped_is_not_started_again() {
    for (flag, code) in [("", STOPPED), ("--failed-ok", 0)] {
        let scene = Scene::new();
        let sink = scene.sink().words("--output out.jsonl").words(flag).start();
        let mut ventilator = scene.ventilator().words(flag).keep_stdin().start();
        std::io::Write::write_all(ventilator.stdin().unwrap(), b"1\n").unwrap();
        let mut worker = scene.worker("w").words("--echo").start();
        tradewind_e2e::wait_until("a record is there", || {
            std::fs::read(scene.path("out.jsonl")).is_ok_and(|out| !out.is_empty())
        });
        ventilator.signal(tradewind_e2e::Signal::TERM);
        // Its input stays open until then: the end of that would be the job's.
        tradewind_e2e::wait_until("the ventilator ends", || !ventilator.is_running());
        ventilator.wait().expect(STOPPED);
        sink.wait().expect(code);
        worker.kill();
    }
}

#[test]
fn only_a_worker_that_came_too_late_is_late() {
    let scene = Scene::new();
    let late = "--connect-timeout 300ms --exit-when-done --echo";
    scene.worker("w").words(late).run().expect(CONNECT);
    let ended = scene.worker("w").words(late).words("--late-ok").run().expect(0);
    assert!(ended.stderr.contains("the ventilator at"), "{}", ended.stderr);

    // One that loses its ventilator is needed when that comes back.
    let mut sink = scene.sink().words("--output out").start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    std::io::Write::write_all(ventilator.stdin().unwrap(), b"1\n").unwrap();
    let worker = scene.worker("w").words("--late-ok").words(late).start();
    tradewind_e2e::wait_until("a record is there", || {
        std::fs::read(scene.path("out")).is_ok_and(|out| !out.is_empty())
    });
    ventilator.kill();
    worker.wait().expect(CONNECT);
    sink.kill();
}
