//! Forms of the output, and records of tasks that do not succeed.

use std::collections::BTreeSet;
use std::fs;

use tradewind_e2e::{Scene, records, summary_counts};

fn numbers(count: u64) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn lines_come_in_the_order_of_the_input() {
    let scene = Scene::new();
    // The earlier a task, the later it ends.
    let naps: String = (0..20).rev().map(|n| format!("0.{n:02}\n")).collect();
    let command = ["--", "sh", "-c", "sleep $1; echo $1", "sh", "{}"];
    let run = || scene.run().words("-j 8").input(naps.clone());
    assert_eq!(run().args(command).run().expect(0).text(), naps);

    let unordered = run().arg("--unordered").args(command).run().expect(0);
    assert_ne!(unordered.text(), naps);
    let set = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(set(unordered.text()), set(&naps));
    assert_eq!(unordered.text().len(), naps.len());
}

#[test]
fn jsonl_has_its_documented_keys() {
    let scene = Scene::new();
    let out = scene.path("out.jsonl");
    let run = scene.run().arg("--output").arg(&out).input("0\n3\n");
    let ended =
        run.args(["--", "sh", "-c", "echo hi; echo oh >&2; exit $1", "sh", "{}"]).run().expect(1);
    assert_eq!(ended.text(), "");
    assert_eq!(summary_counts(&ended.stderr), Some("2 tasks: 1 ok, 1 failed"));
    let records = records(&scene.read("out.jsonl"), 2);
    let keys = |json: &serde_json::Value| json.as_object().unwrap().keys().cloned().collect();
    let ok: BTreeSet<String> = keys(&records[0].json);
    let wanted = [
        "attempt",
        "exit_code",
        "output",
        "seconds",
        "seq",
        "started",
        "status",
        "stderr",
        "worker",
    ];
    assert_eq!(ok, wanted.map(str::to_owned).into());
    let failed: BTreeSet<String> = keys(&records[1].json);
    assert_eq!(failed.difference(&ok).collect::<Vec<_>>(), ["error"]);
    assert_eq!((&records[1].status[..], &records[1].error[..]), ("failed", "exit code 3"));
    assert_eq!(records[1].json["exit_code"], 3);
}

#[test]
fn output_that_is_no_text_is_base64() {
    let scene = Scene::new();
    let run = scene.run().words("--format jsonl --echo").input(b"\xff\xfe\n");
    let records = records(&run.run().expect(0).stdout, 1);
    assert_eq!(records[0].json["output_base64"], "//4=");
}

#[test]
fn a_joblog_is_what_gnu_parallel_writes() {
    let scene = Scene::new();
    let log = scene.path("log");
    let run = scene.run().arg("--joblog").arg(&log).words("-j 1 --ordered --timeout 300ms");
    let run = run
        .args(["--", "sh", "-c", "echo out; $1", "sh", "{}"])
        .input("true\nexit 7\nsleep 1000\n");
    let ended = run.run().expect(1);
    assert_eq!(summary_counts(&ended.stderr), Some("3 tasks: 1 ok, 1 failed, 1 timed out"));
    let text = fs::read_to_string(log).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let header = "Seq Host Starttime JobRuntime Send Receive Exitval Signal Command";
    assert_eq!(rows[0].join(" "), header);
    let columns = |row: &Vec<&str>| [0, 4, 5, 6, 7].map(|column| row[column].to_owned());
    assert_eq!(columns(&rows[1]), ["1", "4", "4", "0", "0"]);
    assert_eq!(columns(&rows[2]), ["2", "6", "4", "7", "0"]);
    assert_eq!(columns(&rows[3]), ["3", "10", "4", "-1", "15"]);
    assert_eq!(rows[2][8], "sh -c 'echo out; $1' sh 'exit 7'");
    assert_eq!(rows.len(), 4);
    scene.assert_nothing_left();
}

#[test]
fn failures_are_counted_and_said_by_the_exit_code() {
    let scene = Scene::new();
    let run = || scene.run().words("-j 4").input(numbers(30));
    let ended = run().args(["--", "sh", "-c", "exit $(($1 % 3 == 0))", "sh", "{}"]).run().expect(1);
    assert_eq!(summary_counts(&ended.stderr), Some("30 tasks: 20 ok, 10 failed"));
    let ended = run().arg("--quiet").args(["--", "sh", "-c", "exit 9"]).run().expect(1);
    assert_eq!(ended.stderr, "");
    let ended = run().arg("--quiet").args(["--", "true"]).run().expect(0);
    assert_eq!((ended.text(), &ended.stderr[..]), ("", ""));
}

#[test]
fn a_task_is_tried_again_as_often_as_allowed() {
    let scene = Scene::new();
    // Each attempt leaves a line behind; the third finds two.
    let state = scene.dir().display().to_string();
    let script = format!("f={state}/try.$TRADEWIND_SEQ; echo >> $f; [ $(wc -l < $f) -ge $1 ]");
    let run = scene
        .run()
        .words("--retries 2 --format jsonl -j 4")
        .args(["--", "sh", "-c", &script, "sh", "{}"]);
    let ended = run.input("1\n2\n3\n4\n").run().expect(1);
    let records = records(&ended.stdout, 4);
    let ends: Vec<_> = records.iter().map(|r| (&r.status[..], r.attempt)).collect();
    assert_eq!(ends, [("ok", 1), ("ok", 2), ("ok", 3), ("failed", 3)]);
    for (seq, attempts) in [1, 2, 3, 3].into_iter().enumerate() {
        assert_eq!(scene.read(&format!("try.{seq}")).len(), attempts, "seq {seq}");
    }
    assert_eq!(summary_counts(&ended.stderr), Some("4 tasks: 3 ok, 1 failed"));
}

#[test]
fn an_attempt_that_takes_too_long_is_stopped() {
    let scene = Scene::new();
    let run = scene.run().words("--timeout 300ms --format jsonl -j 4");
    // One is the command itself, one hides behind a shell, one does not listen to TERM.
    let run = run.args(["--", "sh", "-c", "{}"]);
    let input = "exec sleep 1000\nsleep 1000; true\ntrap '' TERM; sleep 1000\necho quick\n";
    let records = records(&run.input(input).run().expect(1).stdout, 4);
    let ends: Vec<_> = records.iter().map(|record| &record.status[..]).collect();
    assert_eq!(ends, ["timed_out", "timed_out", "timed_out", "ok"]);
    scene.assert_nothing_left();
}

#[test]
fn output_beyond_its_limit_fails_its_task_alone() {
    let scene = Scene::new();
    let run = scene.run().words("--max-output 100KiB --format jsonl -j 2");
    let run = run.args(["--", "sh", "-c", "{}"]).input("yes\necho ok\n");
    let records = records(&run.run().expect(1).stdout, 2);
    assert!(records[0].error.contains("--max-output"), "{}", records[0].error);
    assert_eq!(records[1].output.as_deref(), Some("ok\n"));
    scene.assert_nothing_left();
}

#[test]
fn an_output_may_be_larger_than_a_message_is_by_default() {
    let scene = Scene::new();
    let large = |flags: &str| {
        let run = scene.run().words(flags).input("70000000\n");
        run.args(["--", "sh", "-c", "head -c $1 /dev/zero | tr '\\0' x", "sh", "{}"]).run()
    };
    let ended = large("--max-output 100MiB --message-max 128MiB").expect(0);
    assert_eq!(ended.stdout.len(), 70_000_001);
    let ended = large("--max-output 100MiB").expect(2);
    assert!(ended.stderr.contains("see --message-max"), "{}", ended.stderr);
    // Without --max-output it is what fits.
    let ended = large("--message-max 1MiB --format jsonl").expect(1);
    assert!(ended.text().contains("the limit of --max-output"), "{}", ended.text());
}
