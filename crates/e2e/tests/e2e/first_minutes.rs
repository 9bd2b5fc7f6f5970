//! Commands that people type in their first minutes, and the answers to them.

use tradewind_e2e::{Scene, Start, program, records};

/// It ends with 2 or 127, after this one line.
#[track_caller]
fn check(start: Start, code: i32, line: &str) {
    let ended = start.run().expect(code);
    assert_eq!(ended.stderr, format!("{line}\n"));
    assert_eq!(ended.text(), "");
}

/// A program whose standard input and stderr are a terminal with so many columns, and what it
/// writes there, which is all that it writes.
fn on_a_terminal(scene: &Scene, columns: u32, line: &str) -> Start {
    let line = line.replace("tradewind", program("tradewind").to_str().unwrap());
    let line = format!("stty cols {columns}; {line}");
    scene.other("script").args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh")
}

#[test]
fn a_command_without_dashes_is_shown_with_them() {
    let scene = Scene::new();
    let text = "tradewind: the command goes after --: tradewind run ";
    check(scene.run().words("echo x"), 2, &format!("{text}-- echo x"));
    check(scene.run().arg("echo x"), 2, &format!("{text}-- 'echo x'"));
    check(scene.run().words("-j 2 sha256sum {}"), 2, &format!("{text}-j 2 -- sha256sum {{}}"));
    let worker = scene.ours("worker").words("cat {}");
    check(worker, 2, "worker: the command goes after --: worker -- cat {}");
}

#[test]
fn a_line_for_a_shell_is_shown_with_a_shell() {
    let scene = Scene::new();
    let hint = |line: &str, in_a_shell: &str| {
        format!(
            "tradewind: command {line:?} was not found in PATH; no shell is started: to run it in \
             one, write sh -c {in_a_shell}"
        )
    };
    for (line, in_a_shell) in [
        ("echo x | cat", "'echo x | cat'"),
        ("echo {} | cat", "'echo \"$1\" | cat' sh {}"),
        ("echo x", "'echo x'"),
    ] {
        check(scene.run().args(["--", line]).input("a\n"), 127, &hint(line, in_a_shell));
    }
    let stage = |command: &str| format!("[[stage]]\nname = 'one'\ncommand = {command:?}\n");
    scene.file("shell.toml", stage("echo a | cat"));
    check(
        scene.run().words("--pipeline shell.toml").input("a\n"),
        2,
        "tradewind: shell.toml:3:11: \"command\" in stage \"one\": no shell is started, and | would \
         be a word like others: to run it in a shell, write command = [\"sh\", \"-c\", \"echo a | \
         cat\"]; if it is one, quote it",
    );
    scene.file("quoted.toml", stage("echo a '|' cat"));
    let ended = scene.run().words("--pipeline quoted.toml").input("x\n").run().expect(0);
    assert_eq!(ended.text(), "a | cat x\n");
}

#[test]
fn what_is_misspelt_is_named_as_it_is_spelt() {
    let scene = Scene::new();
    let misspelt = [
        ("run --inptu x -- echo", "--input"),
        ("run --retires 2 -- echo", "--retries"),
        ("run --joblogs x -- echo", "--joblog"),
        ("ventilator --recipts tcp://h:1", "--receipts"),
        ("worker --exit-when-don", "--exit-when-done"),
        ("sink --oredered", "--ordered"),
        ("relay --snik tcp://h:1", "--sink"),
        ("rnu -- echo", "run"),
        ("run --format jsnl -- echo", "jsonl"),
    ];
    for (line, meant) in misspelt {
        let ended = scene.ours("tradewind").words(line).run().expect(2);
        let hint = format!("did you mean {meant}?");
        assert!(ended.stderr.contains(&hint), "{line}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn values_need_a_command_or_what_stands_for_one() {
    let scene = Scene::new();
    let ended = scene.run().words("--echo -- ::: a b").run().expect(0);
    assert_eq!(ended.text(), "a\nb\n");
    let _ = scene.run().words("--sleep -- ::: 0.01").run().expect(0);
    check(
        scene.run().words("-- ::: a b"),
        2,
        "tradewind: no command for the values: give one before them; if they are commands \
         themselves, write -- sh -c {} :::",
    );
    let both = "--echo and --sleep run no command, and one was given after --";
    check(scene.run().words("--echo -- cat ::: a"), 2, &format!("tradewind: {both}"));
    check(scene.ours("worker").words("--sleep -- cat"), 2, &format!("worker: {both}"));
}

#[test]
fn what_users_of_parallel_and_xargs_type_is_explained() {
    let scene = Scene::new();
    for (flags, wanted) in [
        ("-P 4", "here it is -j (--jobs)"),
        ("-a x", "here it is --input"),
        ("--arg-file=x", "here it is --input"),
        ("-k", "here lines are in the order of the input anyway"),
        ("-I {}", "here the replacement string is always {}"),
        ("--bar", "where stderr is a terminal and the output goes elsewhere"),
        ("--resume-failed", "here it is --resume --retry-failed"),
    ] {
        let ended = scene.run().words(flags).words("-- echo").run().expect(2);
        assert!(ended.stderr.contains(wanted), "{flags}: {}", ended.stderr);
    }
}

#[test]
fn a_terminal_that_is_not_there_is_a_line() {
    let scene = Scene::new();
    let run = scene.other("setsid").arg("--wait").arg(program("tradewind"));
    let run = run.words("run --tty -j1 -- echo ::: 1");
    check(run, 2, "tradewind: --tty needs a terminal, and there is none here");
}

#[test]
fn a_number_that_is_none_is_told_so_in_words_for_people() {
    let scene = Scene::new();
    let lines = [
        ("run --retries x --echo", "this is not a whole number"),
        ("run -n 0 -- echo", "this must be at least 1"),
        ("run --retries 99999999999 --echo", "is not between 0 and 4294967295"),
        ("run -n 99999999999 -- echo", "this is too large"),
        ("run -j many --echo", "the number of jobs is like 8, +2 or -1"),
        ("worker --slots 1.5 --echo", "this is not a whole number"),
    ];
    for (line, wanted) in lines {
        let ended = scene.ours("tradewind").words(line).run().expect(2);
        assert!(ended.stderr.contains(wanted), "{line}: {}", ended.stderr);
    }
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let scene = Scene::new();
    let names = [
        "SLOTS", "WORKERS", "NULL", "RETRIES", "TIMEOUT", "HALT", "MAX_ARGS", "HEADER", "COLSEP",
        "INPUT", "OUTPUT", "FORMAT", "ECHO", "STDIN", "JOBLOG", "FSYNC", "LOG", "QUIET",
        "PIPELINE",
    ];
    let with_all = |start: Start| {
        names.iter().fold(start, |start, name| start.env(&format!("TRADEWIND_{name}"), ""))
    };
    let ended = with_all(scene.run()).words("-- echo").input("a\nb\n").run().expect(0);
    assert_eq!(ended.text(), "a\nb\n");
    for role in ["ventilator", "worker", "sink", "relay"] {
        let start = with_all(scene.ours(role)).env("TRADEWIND_CONNECT_TIMEOUT", "");
        let _ = start.env("TRADEWIND_SINK", "").arg("--help").run().expect(0);
    }
    // One that is set counts as before.
    let ended = scene.run().env("TRADEWIND_RETRIES", "x").arg("--echo").run().expect(2);
    assert!(ended.stderr.contains("'x' for '--retries <N>'"), "{}", ended.stderr);
}

#[test]
fn a_terminal_is_told_that_it_is_read() {
    let scene = Scene::new();
    let run = on_a_terminal(&scene, 80, "tradewind run -- echo got").input("one\n\x04");
    let ended = run.run().expect(0);
    let told = "reading tasks from the terminal, one a line; Ctrl-D ends them\r\n";
    assert!(ended.text().contains(told), "{:?}", ended.text());
    assert!(ended.text().contains("got one"), "{:?}", ended.text());
    let quiet = on_a_terminal(&scene, 80, "tradewind run -q -- echo got").input("one\n\x04");
    assert!(!quiet.run().expect(0).text().contains("reading"));
    let file = on_a_terminal(&scene, 80, "tradewind run -- echo got < /dev/null");
    assert!(!file.run().expect(0).text().contains("reading"));
    scene.assert_nothing_left();
}

#[test]
fn colours_are_for_those_who_want_them() {
    let scene = Scene::new();
    let line = "tradewind run --no-progress --log debug -- echo ::: a";
    let text = |start: Start| start.run().expect(0).text().to_owned();
    assert!(text(on_a_terminal(&scene, 80, line)).contains("\x1b["));
    assert!(text(on_a_terminal(&scene, 80, line).env("NO_COLOR", "")).contains("\x1b["));
    let plain = text(on_a_terminal(&scene, 80, line).env("NO_COLOR", "1"));
    assert!(!plain.contains("\x1b["), "{plain:?}");
}

#[test]
fn what_run_says_is_about_the_job_and_comes_once() {
    let scene = Scene::new();
    scene.file("bad.csv", "a,b\n1,2\n3\n");
    let flags = "-q --format jsonl --input-format csv --input bad.csv -- echo {a}";
    let ended = scene.run().words(flags).run().expect(3);
    let _ = records(&ended.stdout, 1);
    let line = "tradewind: input \"bad.csv\", line 3: 1 field where the header has 2; finishing the tasks \
                before it\n";
    assert_eq!(ended.stderr, line);
    let exists = scene.file("out", "precious");
    let ended = scene.run().arg("--output").arg(exists).words("--echo").input("a\n").run();
    let ended = ended.expect(4);
    assert!(ended.stderr.starts_with("tradewind: "), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    scene.assert_nothing_left();
}

#[test]
fn a_bar_has_numbers_for_people_and_fits_its_terminal() {
    let scene = Scene::new();
    let screen = |columns| {
        let line = "tradewind run -j 2 -- sh -c 'sleep 0.3' ::: 1 2 3 4 5 6 7 8 > /dev/null";
        let text = on_a_terminal(&scene, columns, line).run().expect(0).text().to_owned();
        // What stands on the last line each time it is drawn. The bar may be removed again when the other process
        // has removed it, to write the summary: then that is an empty line.
        let drawn = text.split("\r").map(|line| line.replace("\x1b[2K", ""));
        drawn.filter(|line| !line.trim().is_empty()).collect::<Vec<_>>()
    };
    for columns in [100, 45, 20] {
        let lines = screen(columns);
        let width = |line: &String| line.trim_end().chars().count() as u32;
        let [drawn @ .., summary] = &lines[..] else { panic!("{lines:?}") };
        assert!(summary.starts_with("8 tasks: 8 ok"), "{lines:?}");
        let bars = drawn.iter().filter(|line| line.contains("/8"));
        assert!(bars.clone().all(|line| width(line) < columns), "{columns}: {lines:?}");
        assert!(bars.clone().any(|line| line.starts_with("0/8") || line.contains(" 0/8  ")));
        assert!(!bars.clone().any(|line| line.contains(" 0/s") || line.contains("left")));
        let rated = bars.clone().filter(|line| line.contains("/s") || line.contains("/min"));
        let digits =
            |line: &&String| line.split("  ").find(|part| part.ends_with("/s")).map_or(0, str::len);
        assert!(
            rated.clone().count() > 0 && rated.clone().all(|line| digits(&line) <= 6),
            "{lines:?}"
        );
    }
    scene.assert_nothing_left();
}

#[test]
fn a_halt_is_said_as_gnu_parallel_has_it() {
    let scene = Scene::new();
    let run = |halt: &str| {
        let run = scene.run().words("-q -j 1 --unordered --halt").arg(halt);
        run.args(["--", "sh", "-c", "echo $1; test $1 != 2", "sh", ":::", "1", "2", "3"]).run()
    };
    for never in ["never", "0"] {
        assert_eq!(run(never).expect(1).text().lines().count(), 3, "{never}");
    }
    let wrong = run("fail").expect(2).stderr;
    assert!(wrong.contains("as in now,fail=1; or never (0), 1"), "{wrong}");
    for halt in ["1", "2", "soon,fail=1"] {
        assert!(!run(halt).expect(1).text().contains('3'), "{halt}");
    }
    scene.assert_nothing_left();
}
