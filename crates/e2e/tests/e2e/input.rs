//! Whatever the input looks like, each task of it has its record.

use tradewind_e2e::{Scene, records, summary_counts};

#[test]
fn each_form_of_input_has_its_tasks() {
    let scene = Scene::new();
    let check = |flags: &str, input: &[u8], tasks: &[&str]| {
        let run = scene.run().words(flags).words("--format jsonl --echo").input(input);
        let found = records(&run.run().expect(0).stdout, tasks.len() as u64);
        let found: Vec<_> = found.iter().map(|record| record.output.as_deref().unwrap()).collect();
        assert_eq!(found, tasks, "{flags} {:?}", String::from_utf8_lossy(input));
    };
    check("", b"", &[]);
    check("", b"\n", &[""]);
    check("", b"a\nb\n", &["a", "b"]);
    check("", b"a\nb", &["a", "b"]);
    check("", b"\n\na\n\n", &["", "", "a", ""]);
    check("", b"a\r\n\0b\n", &["a\r", "\0b"]);
    check("-0", b"a\nb\0c\0", &["a\nb", "c"]);
    check("-0", b"a\nb\0\0c", &["a\nb", "", "c"]);
    check("-0", b"", &[]);
    scene.assert_nothing_left();
}

#[test]
fn an_input_without_tasks_gives_a_job_without_records() {
    let scene = Scene::new();
    for file in ["/dev/null".into(), scene.file("empty", "")] {
        let ended = scene.run().arg("--input").arg(file).words("-- cat").run().expect(0);
        assert_eq!(ended.text(), "");
        assert_eq!(summary_counts(&ended.stderr), Some("0 tasks: 0 ok"));
    }
    scene.assert_nothing_left();
}

#[test]
fn a_task_may_be_large_and_any_bytes() {
    let scene = Scene::new();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut line: Vec<u8> = (0..1 << 20).map(|_| random.u8(..)).collect();
    line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = 0);
    let input = [b"small\n", &line[..], b"\nlast\n"].concat();
    let run = scene.run().words("--stdin -j 2 -- cat").input(input.clone());
    assert!(run.run().expect(0).stdout == input, "what came out is not what went in");
}

#[test]
fn a_task_that_is_too_large_fails_alone() {
    let scene = Scene::new();
    let input = format!("a\n{}\nb\n", "x".repeat(2 << 20));
    let sink = scene.sink().args(["--message-max", "1MiB", "--format", "jsonl"]).start();
    let ventilator = scene.ventilator().args(["--message-max", "1MiB"]).input(input).start();
    let worker = scene.worker("w").args(["--message-max", "1MiB"]).words("--exit-when-done --echo");
    let _ = worker.run().expect(0);
    let _ = ventilator.wait().expect(1);
    let sink = sink.wait().expect(1);
    let records = records(&sink.stdout, 3);
    let ends: Vec<_> =
        records.iter().map(|record| (&record.status[..], record.output.as_deref())).collect();
    assert_eq!(ends, [("ok", Some("a")), ("failed", Some("")), ("ok", Some("b"))]);
    assert!(records[1].error.contains("2097152 bytes"), "{}", records[1].error);
    assert!(records[1].error.contains("--message-max"), "{}", records[1].error);
    assert_eq!(summary_counts(&sink.stderr), Some("3 tasks: 2 ok, 1 failed"));
}

#[test]
fn a_task_that_cannot_be_an_argument_says_what_to_do() {
    let scene = Scene::new();
    let input = format!("{}\na\0b\nok\n", "x".repeat(200_000));
    let run = scene.run().words("--format jsonl -- echo").input(input);
    let records = records(&run.run().expect(1).stdout, 3);
    for record in &records[..2] {
        assert_eq!(record.status, "failed");
        assert!(record.error.contains("use --stdin"), "{}", record.error);
    }
    assert_eq!(records[2].output.as_deref(), Some("ok\n"));
}

#[test]
fn tasks_run_while_their_input_is_still_open() {
    let scene = Scene::new();
    let mut run = scene.run().words("-- echo").keep_stdin().start();
    for (written, lines) in [("a\n", 1), ("b\nc\nd", 3)] {
        std::io::Write::write_all(run.stdin().unwrap(), written.as_bytes()).unwrap();
        tradewind_e2e::wait_until("what was written has run", || run.stdout_lines() == lines);
    }
    run.close_stdin();
    assert_eq!(run.wait().expect(0).text(), "a\nb\nc\nd\n");
}
