//! Tasks with fields: rows of jsonl and CSV, columns, groups of lines, values on the command line.

use std::process::{Command, Stdio};

use tradewind_e2e::{Ended, Scene, Signal, Start, records, wait_until};
use tradewind_node::exit::{INPUT, TASKS_FAILED, USAGE};

const PEOPLE: &str =
    "name,city\r\n\"Lovelace, Ada\",London\r\nTuring,\"Wilmslow\r\n(Cheshire)\"\r\n";

/// Returns the output of a run.
#[track_caller]
fn check(start: Start, wanted: &str) {
    assert_eq!(start.run().expect(0).text(), wanted);
}

#[test]
fn fields_of_jsonl_are_arguments() {
    let scene = Scene::new();
    let input =
        "{\"n\": 1, \"s\": \"a b\"}\n\n{\"n\": [2, {\"x\": null}], \"s\": \"\\u00fc\\n\"}\n";
    let run = || scene.run().words("-q --input-format jsonl").input(input);
    let show = ["--", "printf", "%s.%s|", "{n}", "{s}"];
    check(run().args(show), "1.a b|\n[2, {\"x\": null}].ü\n|\n");
    check(run().words("-- printf %s| {2} {-1}"), "a b|a b|\nü\n|ü\n|\n");
    let rows = input.replace("\n\n", "\n");
    check(run().words("-- echo"), &rows);
    check(run().words("-- echo {}"), &rows);
    check(run().words("--echo"), &rows);
    check(run().args(["--stdin", "--", "sh", "-c", "cat; echo $TRADEWIND_SEQ"]), {
        "{\"n\": 1, \"s\": \"a b\"}0\n{\"n\": [2, {\"x\": null}], \"s\": \"\\u00fc\\n\"}1\n"
    });
    check(run().args(["--stdin", "--", "sh", "-c", "cat >/dev/null; echo $1", "{n}", "{n}"]), {
        "1\n[2, {\"x\": null}]\n"
    });
    scene.assert_nothing_left();
}

#[test]
fn fields_of_csv_are_arguments() {
    let scene = Scene::new();
    scene.file("people.csv", PEOPLE);
    let run = || scene.run().words("-q --input-format csv --input people.csv");
    check(run().words("-- echo {name}"), "Lovelace, Ada\nTuring\n");
    check(run().words("-- echo {2}"), "London\nWilmslow\r\n(Cheshire)\n");
    check(run().words("--stdin -- cat"), {
        "{\"name\":\"Lovelace, Ada\",\"city\":\"London\"}\n\
         {\"name\":\"Turing\",\"city\":\"Wilmslow\\r\\n(Cheshire)\"}\n"
    });
    check(run().words("--no-header -- echo {1}"), "name\nLovelace, Ada\nTuring\n");
    let _ = run().words("--no-header --header=: -- echo").run().expect(USAGE.into());
    let semicolons = scene.run().words("-q --input-format csv --colsep ; -- echo {b.}-{a}");
    check(semicolons.input("a;b\n1,5;x.txt\n"), "x-1,5\n");
    let tabs = scene.run().args(["-q", "--input-format", "csv", "--colsep", r"\t"]);
    check(tabs.words("-- echo {b}").input("a\tb\n1\t\"2\t3\"\n"), "2\t3\n");
    scene.assert_nothing_left();
}

#[test]
fn a_field_that_is_missing_fails_its_task_alone() {
    let scene = Scene::new();
    let input = "{\"id\":1}\n{\"idd\":2,\"x\":0}\n{\"id\":3}\n";
    let run = scene.run().words("-q --input-format jsonl --format jsonl -- echo {id}");
    let ended = run.input(input).run().expect(TASKS_FAILED.into());
    let records = records(&ended.stdout, 3);
    let outputs: Vec<_> = records.iter().map(|record| record.output.as_deref()).collect();
    assert_eq!(outputs, [Some("1\n"), Some(""), Some("3\n")]);
    assert_eq!(records[1].error, "the task has no field \"id\", but \"idd\", \"x\"");
    let run = scene.run().words("-q --format jsonl --fields json -- echo {id}");
    let ended = run.input("{\"id\":1}\nno JSON\n").run().expect(TASKS_FAILED.into());
    let records = tradewind_e2e::records(&ended.stdout, 2);
    assert!(records[1].error.starts_with("the task is not JSON"), "{}", records[1].error);
}

#[test]
fn braces_in_a_command_stay_for_whoever_they_are_meant_for() {
    let scene = Scene::new();
    let run = |flags: &str, command: &[&str]| {
        scene.run().arg("-q").words(flags).arg("--").args(command).input("{\"a\":\"x\"}\n")
    };
    check(run("--stdin", &["awk", "{print}"]), "{\"a\":\"x\"}\n");
    check(run("--stdin --input-format jsonl", &["awk", "{ print }"]), "{\"a\":\"x\"}\n");
    check(
        run("--input-format jsonl --unsafe-template", &["sh", "-c", "A=y; echo ${A} {a}"]),
        "y x\n",
    );
    check(run("", &["echo", "{a}", "{1}", "{}"]), "{a} {1} {\"a\":\"x\"}\n");
}

/// The job ends at a bad row, after all rows before it have their records.
#[track_caller]
fn assert_ends_at(ended: &Ended, error: &str, rows: u64) {
    assert_eq!(ended.code(), i32::from(INPUT), "{}", ended.stderr);
    let line = format!("tradewind: standard input, {error}; finishing the tasks before it\n");
    assert_eq!(ended.stderr, line);
    assert!(records(&ended.stdout, rows).iter().all(|record| record.status == "ok"));
}

#[test]
fn a_bad_row_ends_the_input_and_loses_nothing_before_it() {
    let scene = Scene::new();
    let run = |format: &str, input: String| {
        let run = scene.run().words("-q -j 2 --format jsonl --input-format").arg(format);
        run.words("-- echo {n}").input(input).run()
    };
    // More than workers are given at once, and fast, so that the bad row is found while most wait.
    let rows: String = (0..3_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let error = "line 3001: column 5 is not JSON: EOF while parsing a value";
    assert_ends_at(&run("jsonl", format!("{rows}{{\"n\":\n{rows}")), error, 3_000);
    let rows: String = (0..30).map(|n| format!("{n},\"a\nb\"\n")).collect();
    let error = "line 62: 1 field where the header has 2";
    assert_ends_at(&run("csv", format!("n,x\n{rows}1\n{rows}")), error, 30);
    let error = "line 62: a quote that begins in this row has no end";
    assert_ends_at(&run("csv", format!("n,x\n{rows}1,\"\n{}", rows.replace('"', ""))), error, 30);
    let error = "line 1: the header has the name \"n\" twice, in columns 1 and 2";
    assert_ends_at(&run("csv", "n,n\n1,2\n".to_owned()), error, 0);
    scene.assert_nothing_left();
}

#[test]
fn a_bad_row_ends_the_three_programs_too() {
    let scene = Scene::new();
    let sink = scene.sink().words("-q --format jsonl").start();
    let worker = scene.worker("w").words("-q --exit-when-done --fields json -- echo {n}").start();
    let ventilator = scene.ventilator().words("-q --input-format jsonl").input("{\"n\":1}\n2\n");
    let ended = ventilator.run().expect(INPUT.into());
    let error = "ventilator: standard input, line 2: a row is an object or an array, not a number";
    assert!(ended.stderr.contains(error), "{}", ended.stderr);
    let _ = worker.wait().expect(0);
    // It has not all that it was to have.
    let sink = sink.wait().expect(130);
    assert_eq!(records(&sink.stdout, 1)[0].output.as_deref(), Some("1\n"));
    scene.assert_nothing_left();
}

#[test]
fn a_bad_row_can_be_mended_and_the_job_goes_on() {
    let scene = Scene::new();
    let rows = |from, to| -> String { (from..to).map(|n| format!("{n},\"row\n{n}\"\n")).collect() };
    let run = |middle: &str| {
        let (before, after) = (rows(0, 20), rows(21, 40));
        scene.file("in.csv", format!("n,x\n{before}{middle}{after}"));
        let run = scene.run().words("-q -j 2 --input-format csv --input in.csv --resume");
        let run = run.words("--output out.jsonl --");
        run.args(["sh", "-c", "echo $2 >> runs; echo \"$1\"", "sh", "{x}", "{n}"]).run()
    };
    for _ in 0..2 {
        let ended = run("20,a,b\n").expect(INPUT.into());
        assert!(ended.stderr.contains("line 42: 3 fields"), "{}", ended.stderr);
        let _ = records(&scene.read("out.jsonl"), 20);
    }
    let _ = run("20,\"row\n20\"\n").expect(0);
    let records = records(&scene.read("out.jsonl"), 40);
    for record in records {
        assert_eq!(record.output, Some(format!("row\n{}\n", record.seq)));
    }
    let runs = String::from_utf8(scene.read("runs")).expect("it is text");
    let mut runs: Vec<u64> = runs.lines().map(|line| line.parse().expect("a number")).collect();
    runs.sort_unstable();
    assert!(runs.into_iter().eq(0..40), "each ran once");
}

#[test]
fn a_job_over_csv_that_is_killed_goes_on_with_resume() {
    let scene = Scene::new();
    let rows: String = (0..200).map(|n| format!("\"{n}\",\"it's \"\"{n}\"\"\"\n")).collect();
    scene.file("in.csv", format!("n,text\n{rows}"));
    let run = || {
        let run = scene.run().words("-q -j 2 --input-format csv --input in.csv --resume");
        run.args(["--output", "out.jsonl", "--", "sh", "-c", "sleep 0.02; echo $1", "sh", "{n}"])
    };
    let lines = || scene.read("out.jsonl").iter().filter(|byte| **byte == b'\n').count();
    let mut first = run().start();
    wait_until("there are records", || lines() >= 20);
    first.signal(Signal::KILL);
    drop(first.wait());
    scene.assert_nothing_left();
    assert!(lines() < 200);
    let _ = run().run().expect(0);
    for record in records(&scene.read("out.jsonl"), 200) {
        assert_eq!(record.output, Some(format!("{}\n", record.seq)));
    }
}

#[test]
fn a_row_that_is_too_large_fails_alone() {
    let scene = Scene::new();
    let long = "x".repeat(2 << 20);
    let sink = scene.sink().words("-q --message-max 1MiB --format jsonl").start();
    let worker = scene.worker("w").words("-q --message-max 1MiB --exit-when-done --fields json");
    let worker = worker.words("--max-output 64KiB -- echo {a}").start();
    let ventilator = scene.ventilator().words("-q --message-max 1MiB --input-format csv");
    let ventilator = ventilator.input(format!("a\n1\n\"{long}\"\n2\n")).start();
    let _ = ventilator.wait().expect(TASKS_FAILED.into());
    let _ = worker.wait().expect(0);
    let sink = sink.wait().expect(TASKS_FAILED.into());
    let records = records(&sink.stdout, 3);
    assert_eq!(records[0].output.as_deref(), Some("1\n"));
    assert!(records[1].error.contains("the task has 2097152 bytes"), "{}", records[1].error);
    assert_eq!(records[2].output.as_deref(), Some("2\n"));
}

#[test]
fn values_on_the_command_line_are_tasks() {
    let scene = Scene::new();
    let run = |line: &str| scene.run().arg("-q").words(line);
    check(run("-- echo ::: a b"), "a\nb\n");
    check(run("-- echo :::"), "");
    check(run("-- echo {1} {} ::: a b"), "a a\nb b\n");
    check(run("-- echo {2}-{1} ::: a b ::: 1 2"), "1-a\n2-a\n1-b\n2-b\n");
    check(run("-- echo ::: a b c :::+ 1 2"), "a 1\nb 2\n");
    check(run("-n 2 -- echo ::: a b c"), "a b\nc\n");
    check(run("--colsep , -- echo {2}{1} ::: a,b c,d"), "ba\ndc\n");
    check(run("-- echo {1/.} ::: /x/y.z"), "y\n");
    let odd = scene.run().args(["-q", "--", "printf", "<%s>", ":::", "a b", "", "c\nd", "'"]);
    check(odd, "<a b>\n<>\n<c\nd>\n<'>\n");
    // The command is still checked, and so is what else gives tasks.
    scene.file("in", "a\n");
    for line in [
        "::: a",
        "-- ::: a",
        "--input in -- echo ::: a",
        "--input-format csv -- echo ::: a",
        "--header -- echo ::: a",
        "-n 2 -- echo ::: a ::: b",
        "--colsep , -- echo ::: a ::: b",
        "-- echo :::+ a",
        "-- echo ::::",
    ] {
        let ended = run(line).run().expect(USAGE.into());
        assert_eq!(ended.stderr.lines().count(), 1, "{line}: {}", ended.stderr);
    }
    scene.assert_nothing_left();
}

#[test]
fn a_job_over_values_goes_on_with_resume() {
    let scene = Scene::new();
    let run = || {
        let run = scene.run().words("-q --output out.jsonl --resume --retry-failed --");
        let script = "echo $1$2 >> runs; test -e all-is-well || test $1$2 != b1; echo $1$2";
        run.args(["sh", "-ec", script, "sh", "{1}", "{2}", ":::", "a", "b", ":::", "1", "2"]).run()
    };
    let _ = run().expect(TASKS_FAILED.into());
    scene.file("all-is-well", "");
    let _ = run().expect(0);
    assert_eq!(records(&scene.read("out.jsonl"), 4)[2].output.as_deref(), Some("b1\n"));
    assert_eq!(scene.read("runs").len(), "a1\na2\nb1\nb2\nb1\n".len());
}

#[test]
fn groups_and_columns_come_to_workers_of_their_own_too() {
    let scene = Scene::new();
    let job = |ventilator: &str, worker: &[&str], input: &[u8], wanted: &[u8]| {
        let sink = scene.sink().words("-q --format lines").start();
        let worker = scene.worker("w").words("-q --exit-when-done").args(worker).start();
        let ventilator = scene.ventilator().arg("-q").words(ventilator).input(input).start();
        let _ = ventilator.wait().expect(0);
        let _ = worker.wait().expect(0);
        let found = sink.wait().expect(0).stdout;
        assert_eq!(found.escape_ascii().to_string(), wanted.escape_ascii().to_string());
    };
    let echo = ["--fields", "lines", "--", "echo"];
    job("-n 2", &echo, b"a\nb c\nd\n", b"a b c\nd\n");
    // Whatever bytes they are.
    job("-n 2", &["--fields", "lines", "--", "echo", "{2}{1}"], b"\xff\n\xfe\n", b"\xfe\xff\n");
    job("-0 -n 2", &["--fields", "nul", "--", "echo"], b"a\nb\0c\0d\0", b"a\nb c\nd\n");
    // All of a group on standard input, as of `parallel --pipe -N`.
    job("-n 2", &["--stdin", "--", "cat"], b"a\nb\nc\n", b"a\nb\nc\n");
    job("", &["--colsep", " +", "--", "echo", "{2}"], b"\xff  b\n", b"b\n");
    let header = ["--fields", "json", "--", "echo", "{y}"];
    job("--header --colsep ,", &header, b"x,y\n1,2\n", b"2\n");
    scene.assert_nothing_left();
}

#[test]
fn a_dry_run_prints_what_a_shell_would_run_and_runs_nothing() {
    let scene = Scene::new();
    let dry = |line: &str, input: &str| {
        let run = scene.run().arg("--dry-run").words(line);
        run.args(["--", "sh", "-c", "printf '%s\\n' \"$1 $2\"; echo x >> ran", "sh", "{1}", "{#}"])
            .input(input)
            .run()
    };
    let ended = dry("--colsep ,", "it's,1\n$HOME\\n,\n").expect(0);
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.text().lines().count(), 2);
    assert!(scene.read("ran").is_empty());
    let script = ended.stdout;
    check(scene.other("sh").input(script), "it's 1\n$HOME\\n 2\n");
    assert_eq!(scene.read("ran"), b"x\nx\n");
    let ended = scene.run().words("--dry-run -- echo ::: a b").run().expect(0);
    assert_eq!(ended.text(), "echo a\necho b\n");
    // What is wrong is said as in a run.
    let ended = dry("--input-format csv", "a\n1\n2,3\n").expect(INPUT.into());
    assert_eq!(ended.text().lines().count(), 1);
    assert!(ended.stderr.contains("line 3: 2 fields"), "{}", ended.stderr);
    let ended = dry("--input-format jsonl", "[]\n[1]\n").expect(TASKS_FAILED.into());
    assert_eq!(ended.stderr, "tradewind: task 1: the task has no field \"1\", but 0 fields\n");
    assert_eq!(ended.text().lines().count(), 1);
    let _ = scene.run().words("--dry-run -- no-such-command ::: a").run().expect(127);
    let _ = scene.run().words("--dry-run --echo").run().expect(USAGE.into());
    assert_eq!(scene.read("ran"), b"x\nx\n");
    // The reader may have seen enough.
    let endless = "exec 3>&1; { \"$0\" run --dry-run -- echo; echo $? >&2; } < in | head -n 1";
    scene.file("in", "y\n".repeat(1 << 20));
    let head = scene.other("sh").args(["-c", endless]).arg(tradewind_e2e::program("tradewind"));
    let ended = head.run().expect(0);
    assert_eq!((ended.text(), ended.stderr.as_str()), ("echo y\n", "141\n"));
    scene.assert_nothing_left();
}

fn has_gnu_parallel() -> bool {
    let version = Command::new("parallel").arg("--version").stdin(Stdio::null()).output();
    version.is_ok_and(|output| output.stdout.starts_with(b"GNU parallel"))
}

#[test]
fn what_gnu_parallel_does_is_done_here_too() {
    if !has_gnu_parallel() {
        let reason = "GNU parallel is not installed (Debian has it as `parallel`)";
        tradewind_e2e::note_skipped("what_gnu_parallel_does_is_done_here_too", reason);
        return;
    }
    let scene = Scene::new();
    // A command is an argument list here and a shell's line there: these mean the same to both.
    let check = |flags: &[&str], command: &[&str], values: &[&str], input: &str| {
        let theirs = scene.other("parallel").env("HOME", scene.dir());
        let theirs = theirs.words("--will-cite -k -j 2").args(flags).args(command).args(values);
        let theirs = theirs.input(input).run();
        let ours = scene.run().words("-q -j 2").args(flags).arg("--").args(command).args(values);
        let ours = ours.input(input).run();
        let what = format!("{flags:?} {command:?} {values:?} {input:?}: {}", ours.stderr);
        assert_eq!(ours.text(), theirs.text(), "{what}");
        assert_eq!(ours.code(), theirs.code(), "{what}");
    };
    let lines = "a\nb c\nd/e.f\n\ng\n";
    check(&[], &["echo"], &[], lines);
    check(&[], &["echo", "{/.}", "{.}", "{//}", "{word}", "{#}"], &[], "d/e.f\ng\n");
    check(&["-n", "2"], &["echo"], &[], lines);
    check(&["-N", "2"], &["echo", "{2}-{1}"], &[], "a\nb\nc\n");
    check(&["-N", "3"], &["echo"], &[], "a\nb\nc\nd\n");
    check(&["-n", "2"], &["echo", "{/}", "{1.}", "{2//}", "{-1}"], &[], "x/a.b\ny/c.d\ne\nf\n");
    check(&["-0", "-n", "2"], &["echo"], &[], "a\0b\0c\0");
    let columns = "a, b,c.d\n1,2,\n";
    check(&["--colsep", ","], &["echo"], &[], columns);
    check(&["--colsep", ","], &["echo", "{3}", "{1}", "{3.}", "{-2}"], &[], columns);
    check(&["--colsep", r"\t"], &["echo", "{2}"], &[], "a b\tc\n");
    check(&["--colsep", r"\s+"], &["echo", "{2}"], &[], "a b  c\nd \t e\n");
    check(&["-C", "[,;]"], &["echo", "{2}-{1}"], &[], "a;b\nc,d\n");
    check(&["--header", ":", "--colsep", ","], &["echo", "{y}", "{x}", "{1}"], &[], "x,y\n1,2\n");
    check(&["--header", ":"], &["echo", "{x}", "{x.}"], &[], "x\na.b\nc\n");
    check(&[], &["echo"], &[":::", "a", "b c"], "");
    check(&[], &["echo", "{2}-{1}"], &[":::", "a", "b", ":::", "1", "2", "3"], "");
    check(&[], &["echo"], &[":::", "a", "b", ":::", "1", "2", ":::", "x", "y"], "");
    check(&[], &["echo"], &[":::", "a", "b", "c", ":::+", "1", "2"], "");
    check(&[], &["echo", "{3}{1}{2}"], &[":::", "a", "b", ":::+", "1", "2", ":::", "x", "y"], "");
    check(&["-n", "2"], &["echo"], &[":::", "a", "b", "c"], "");
    check(&[], &["echo", "{-1}", "{2/}"], &[":::", "a", ":::", "b/c"], "");
    check(&[], &["test", "a", "="], &[":::", "a"], "");
    check(&[], &["test", "a", "="], &[":::", "b"], "");
    check(&["--dry-run"], &["echo", "{1}-{2}"], &[":::", "a", "b", ":::", "1"], "");
    check(&["--dry-run"], &["echo"], &[":::", "a", "b c"], "");
}
