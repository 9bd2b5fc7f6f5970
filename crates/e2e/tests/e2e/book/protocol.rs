//! A worker that was written from the protocol's page runs a job. That the page has the bytes which the
//! codec gives is tested in `wire`.

use std::process::Command;

use tradewind_e2e::{Scene, records};

use super::pages::root;

#[test]
fn a_worker_written_from_the_page_runs_a_job_beside_ours() {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        let test = "a_worker_written_from_the_page_runs_a_job_beside_ours";
        tradewind_e2e::note_skipped(test, "there is no python3");
        return;
    }
    let scene = Scene::new();
    let theirs = root().join("examples/protocol/worker.py");
    let (tasks, results) = (scene.tasks().to_string(), scene.results().to_string());
    let mut sink = scene.sink().words("--format jsonl").start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    ventilator.wait_for_stderr("the ventilator is up");
    sink.wait_for_stderr("the sink is up");
    let theirs = scene.other("python3").arg(theirs).args([tasks, results]).start();
    ventilator.wait_for_stderr("worker joins");

    // More than one message has, an empty task, one with a long length, one that is no text.
    let mut input: Vec<u8> = (0..3000).flat_map(|n| format!("task {n}\n").into_bytes()).collect();
    input.extend_from_slice(b"\n");
    input.extend_from_slice(&[&b"x".repeat(100_000)[..], b"\n\xff\n"].concat());
    let count = 3003;
    feed(&mut ventilator, &input);
    let records = records(&sink.wait().expect(0).stdout, count);
    let _ = ventilator.wait().expect(0);
    let _ = theirs.wait().expect(0);
    assert!(records.iter().all(|record| record.status == "ok" && record.worker == "python"));
    for record in &records[..3000] {
        assert_eq!(record.output, Some(format!("TASK {}", record.seq)));
    }
    assert_eq!(records[3000].output.as_deref(), Some(""));
    assert_eq!(records[3001].output, Some("X".repeat(100_000)));
    scene.assert_nothing_left();
}

fn feed(ventilator: &mut tradewind_e2e::Process, input: &[u8]) {
    use std::io::Write as _;

    ventilator.stdin().expect("it is kept").write_all(input).expect("it reads");
    ventilator.close_stdin();
}
