//! Commands: their surroundings, the meaning of their ends, and how they are stopped.

use std::time::Instant;

use tradewind_e2e::{Scene, Start, records, summary_counts, wait_until};
use tradewind_node::exit::USAGE;

/// The only record of this, in jsonl.
#[track_caller]
fn record(run: Start, code: u8) -> serde_json::Value {
    let ended = run.run().expect(code.into());
    records(ended.text().as_bytes(), 1).remove(0).json
}

#[test]
fn a_command_that_times_out_has_timed_out_however_it_ends() {
    let scene = Scene::new();
    for (flags, script, output) in [
        ("", "trap 'echo partial; exit 0' TERM; sleep 60 & wait; echo whole", "partial\n"),
        ("--skip-exit-code 9", "trap 'exit 9' TERM; sleep 60 & wait", ""),
        ("", "trap 'exit 5' TERM; sleep 60 & wait", ""),
    ] {
        let run = scene.run().words("--timeout 200ms --format jsonl").words(flags);
        let record = record(run.args(["--", "bash", "-c", script]).input("x\n"), 1);
        assert_eq!((&record["status"], &record["output"]), (&"timed_out".into(), &output.into()));
        assert_eq!(record["error"], "timed out after 200ms");
    }
    // An answer of one that stays up likewise.
    let python = "import signal, sys, time\n\
                  def late(*_): print('late', flush=True); sys.exit(0)\n\
                  signal.signal(signal.SIGTERM, late)\n\
                  for line in sys.stdin: time.sleep(60)\n";
    let run = scene.run().words("--pipe lines --pipe-startup 0s --timeout 200ms --format jsonl");
    let record = record(run.args(["--", "python3", "-c", python]).input("x\n"), 1);
    assert_eq!(record["status"], "timed_out");
    scene.assert_nothing_left();
}

#[test]
fn output_of_process_substitutions_is_the_commands() {
    let scene = Scene::new();
    let input: String = (0..300).map(|number| format!("{number}\n")).collect();
    for script in [
        "exec > >(cat); echo hello",
        "exec > >(tee /dev/null); seq 2000 | tail -1 >/dev/null; echo hello",
        "exec > >(cat) 2>&1; echo hello >&2",
    ] {
        let run = scene.run().args(["-j4", "--", "bash", "-c", script]).input(input.clone());
        let ended = run.run().expect(0);
        assert_eq!(ended.text().lines().filter(|line| *line == "hello").count(), 300, "{script}");
    }
}

#[test]
fn a_run_within_a_run_is_one_of_its_own() {
    let scene = Scene::new();
    let tradewind = tradewind_e2e::program("tradewind");
    let script = format!("seq 2 | {} run -- echo $1", tradewind.display());
    let run = scene.run().env("TRADEWIND_UNORDERED", "true").env("TRADEWIND_INPUT", "-");
    let ended = run.args(["--", "sh", "-c", &script, "sh"]).input("1\n2\n").run().expect(0);
    let mut lines: Vec<_> = ended.text().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1 1", "1 2", "2 1", "2 2"]);
    let run = scene.run().env("TRADEWIND_OUTPUT", "outer").env("LISTEN_FDS", "0");
    run.args(["--", "sh", "-c", "env | grep -E '^(TRADEWIND|LISTEN)_' | cut -d= -f1 | sort"])
        .input("1\n")
        .run()
        .expect(0);
    let seen = String::from_utf8(scene.read("outer")).unwrap();
    let expected = "TRADEWIND_ATTEMPT\nTRADEWIND_SEQ\nTRADEWIND_SLOT\nTRADEWIND_WORKER\n";
    assert_eq!(seen, expected);
}

#[test]
fn a_command_knows_its_slot() {
    let scene = Scene::new();
    let script = "echo {%} $TRADEWIND_SLOT {{%}}; sleep 0.1";
    for flags in ["-j3", "-j3 --workers 2"] {
        let run = scene.run().words(flags).args(["--", "sh", "-c", script]);
        let ended = run.input("a\nb\nc\nd\ne\nf\ng\nh\ni\n").run().expect(0);
        let mut lines: Vec<_> = ended.text().lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines, ["1 0 {%}", "2 1 {%}", "3 2 {%}"], "{flags}");
    }
    // Of those that stay up no two are alike either.
    let script = "while read x; do sleep 0.1; echo $TRADEWIND_SLOT; done";
    let run = scene.run().words("-j3 --workers 2 --pipe lines").args(["--", "sh", "-c", script]);
    let ended = run.input("a\nb\nc\nd\ne\nf\ng\nh\ni\n").run().expect(0);
    let mut lines: Vec<_> = ended.text().lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines, ["0", "1", "2"]);
}

#[test]
fn a_termination_sequence_is_kept_to() {
    let scene = Scene::new();
    let script = "trap 'echo int' INT; trap 'echo term; exit' TERM; while :; do sleep 0.05; done";
    let run = scene.run().words("--timeout 300ms --format jsonl --termseq INT,300,TERM,60000");
    let record = record(run.args(["--", "bash", "-c", script]).input("x\n"), 1);
    assert_eq!(
        (&record["status"], &record["output"]),
        (&"timed_out".into(), &"int\nterm\n".into())
    );
    let wrong = scene.run().args(["--termseq", "NOPE,1", "--", "true"]).input("x\n").run();
    let wrong = wrong.expect(USAGE.into());
    assert!(wrong.stderr.contains("\"NOPE\" is not a signal"), "{}", wrong.stderr);
}

/// Runs a line in a terminal.
fn in_terminal(scene: &Scene, line: &str) -> Start {
    scene.other("script").args(["-qec", line, "/dev/null"])
}

#[test]
fn a_command_that_wants_the_terminal_fails_and_says_so() {
    let scene = Scene::new();
    let tradewind = tradewind_e2e::program("tradewind");
    let line = |flags: &str, script: &str| {
        let program = tradewind.display();
        format!("echo 1 | {program} run --output out.jsonl --overwrite {flags} -- sh -c '{script}'")
    };
    let script = "read x < /dev/tty; echo got $x";
    let ended = in_terminal(&scene, &line("", script)).keep_stdin().start();
    let ended = ended.wait().expect(1);
    let record = records(&scene.read("out.jsonl"), 1).remove(0);
    assert_eq!(record.status, "failed");
    assert!(record.error.contains("(SIGTTIN)"), "{} {}", record.error, ended.text());
    // So does one that stays up.
    scene.file("child.py", "import sys\nfor line in sys.stdin: print(open('/dev/tty').readline())");
    let pipe = line("--pipe lines", "exec python3 child.py");
    in_terminal(&scene, &pipe).keep_stdin().start().wait().expect(1);
    let record = records(&scene.read("out.jsonl"), 1).remove(0);
    assert!(record.error.contains("(SIGTTIN)"), "{}", record.error);
    // One that stops for another reason is left alone.
    in_terminal(&scene, &line("", "(sleep 0.5; kill -CONT $$) & kill -STOP $$; echo on"))
        .keep_stdin()
        .run()
        .expect(0);
    // And this is how it gets the terminal.
    let mut run = in_terminal(&scene, &line("--tty -j1", script)).keep_stdin().start();
    let stdin = run.stdin().expect("it is kept");
    std::io::Write::write_all(stdin, b"hello\n").unwrap();
    run.wait().expect(0);
    let record = records(&scene.read("out.jsonl"), 1).remove(0);
    assert_eq!(record.output.as_deref(), Some("got hello\n"));
    scene.assert_nothing_left();
}

#[test]
fn the_terminal_is_for_one_command_at_a_time() {
    let scene = Scene::new();
    let ended = scene.run().words("--tty -j2 -- cat").input("x\n").run().expect(USAGE.into());
    assert!(ended.stderr.contains("-j1"), "{}", ended.stderr);
    scene.worker("w").words("--tty --slots 2 -- cat").run().expect(USAGE.into());
    // And there has to be one.
    for command in ["run --tty -- cat", "worker --tty -- cat"] {
        let start = scene.other("setsid").arg("-w").arg(tradewind_e2e::program("tradewind"));
        let ended = start.words(command).input("x\n").run().expect(USAGE.into());
        assert!(ended.stderr.contains("and there is none"), "{command}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{command}: {}", ended.stderr);
    }
    scene.assert_nothing_left();
}

#[test]
fn commands_inherit_signals_that_are_ignored() {
    let scene = Scene::new();
    let script = "grep SigIgn /proc/self/status | tr -d '[:space:]'";
    let trap = format!(
        "trap '' HUP INT; exec {} run -- sh -c \"{script}\"",
        tradewind_e2e::program("tradewind").display()
    );
    let ignored = scene.other("sh").args(["-c", &trap]).input("x\n").run().expect(0);
    // HUP is the first, INT the second.
    let bits =
        |text: &str| u64::from_str_radix(text.trim().trim_start_matches("SigIgn:"), 16).unwrap();
    assert_eq!(bits(ignored.text()) & 0b11, 0b11, "{}", ignored.text());
    let others = scene.run().args(["--", "sh", "-c", script]).input("x\n").run().expect(0);
    assert_eq!(bits(others.text()) & 0b11, 0, "{}", others.text());
}

#[test]
fn what_tasks_are_made_of_travels_with_the_job() {
    let scene = Scene::new();
    let out = scene.path("out.jsonl");
    let sink = scene.sink().arg("--output").arg(&out).start();
    let rows: String = (0..40).map(|number| format!("{{\"n\":{number}}}\n")).collect();
    let ventilator = scene.ventilator().words("--input-format jsonl").input(rows).start();
    // One that thinks otherwise leaves before it has written anything wrong.
    let wrong = scene.worker("wrong").words("--fields lines -- echo {n}").run();
    let wrong = wrong.expect(USAGE.into());
    assert!(wrong.stderr.contains("start it without --fields"), "{}", wrong.stderr);
    let told = scene.worker("told").words("--fields json --exit-when-done -- echo {n}").start();
    let untold = scene.worker("untold").words("--exit-when-done -- echo {n}").start();
    ventilator.wait().expect(0);
    sink.wait().expect(0);
    told.wait().expect(0);
    untold.wait().expect(0);
    for record in records(&scene.read("out.jsonl"), 40) {
        assert_eq!(record.output, Some(format!("{}\n", record.seq)));
    }
}

#[test]
fn a_worker_without_tasks_leaves() {
    let scene = Scene::new();
    let began = Instant::now();
    let alone = scene.worker("alone").words("--exit-when-idle 300ms --echo").run().expect(0);
    assert!(alone.stderr.contains("no task for 300ms"), "{}", alone.stderr);
    assert!(began.elapsed().as_millis() >= 300);

    let sink = scene.sink().words("--output out").start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    std::io::Write::write_all(ventilator.stdin().unwrap(), b"1.5\n0.1\n").unwrap();
    // A task that takes longer than that is none the less one.
    scene.worker("w").words("--exit-when-idle 700ms --slots 2 --sleep").run().expect(0);
    ventilator.close_stdin();
    ventilator.wait().expect(0);
    sink.wait().expect(0);
}

#[test]
fn what_was_handed_back_did_not_end_here() {
    let scene = Scene::new();
    let mut sink = scene.sink().words("--output out").start();
    let mut ventilator = scene.ventilator().input("60\n60\n").start();
    let mut worker = scene.worker("w").words("--slots 2 --grace 100ms -- sh -c").args([
        "touch b{#}; sleep $1",
        "sh",
        "{}",
    ]);
    worker = worker.env("TRADEWIND_LOG", "info");
    let mut worker = worker.start();
    wait_until("both run", || scene.path("b1").exists() && scene.path("b2").exists());
    worker.signal(tradewind_e2e::Signal::TERM);
    let ended = worker.wait().expect(0);
    assert!(ended.stderr.contains("stopped: 0 tasks ended here"), "{}", ended.stderr);
    ventilator.kill();
    sink.kill();
}

#[test]
fn a_command_that_the_memory_limit_kills_says_so() {
    let scene = Scene::new();
    let Some(limit) = MemoryLimit::new(&format!("tradewind-test-{}", std::process::id())) else {
        let reason = "no memory cgroup can be made here";
        tradewind_e2e::note_skipped("a_command_that_the_memory_limit_kills_says_so", reason);
        return;
    };
    let script = format!("echo $$ > {}; exec \"$@\"", limit.procs());
    let tradewind = tradewind_e2e::program("tradewind");
    let eat = "x = b'x' * (1 << 20); l = []\nwhile True: l.append(bytearray(x))";
    let run = scene.other("sh").args(["-c", &script, "sh"]).arg(tradewind);
    let run = run.words("run -j1 --format jsonl -- python3 -c").arg(eat).input("x\n");
    let record = record(run, 1);
    let error = record["error"].as_str().unwrap();
    assert!(error.contains("killed by signal 9") && error.contains("memory limit"), "{error}");
    assert_eq!(summary_counts(""), None);
}

/// A cgroup with a memory limit, of version 1 or 2.
struct MemoryLimit(std::path::PathBuf);

impl MemoryLimit {
    fn new(name: &str) -> Option<Self> {
        let bytes = (200 << 20).to_string();
        let files = [("memory", "memory.limit_in_bytes"), ("", "memory.max")];
        files.iter().find_map(|(under, file)| {
            let dir = std::path::Path::new("/sys/fs/cgroup").join(under).join(name);
            std::fs::create_dir(&dir).ok()?;
            let limit = Self(dir);
            std::fs::write(limit.0.join(file), &bytes).ok()?;
            Some(limit)
        })
    }

    fn procs(&self) -> String {
        self.0.join("cgroup.procs").display().to_string()
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

// Fails if `check_code` passes everything.
#[test]
fn a_task_is_not_put_into_code_unless_that_is_wanted() {
    let scene = Scene::new();
    let evil = "x; touch owned";
    let row = "{\"name\":\"x; touch owned\"}\n";
    for (flags, input, code) in
        [("", evil, "echo {}"), ("--input-format jsonl", row, "echo {name}")]
    {
        let run = |more: &str, words: &[&str]| {
            let run = scene.run().words(flags).words(more).words("--").args(words).input(input);
            run.start().wait()
        };
        let refused = run("", &["sh", "-c", code]).expect(2);
        assert!(refused.stderr.contains("sh -c 'echo \"$1\"' sh {"), "{}", refused.stderr);
        assert!(refused.stderr.contains("--unsafe-template"), "{}", refused.stderr);
        let string = code.strip_prefix("echo ").unwrap();
        let safe = run("", &["sh", "-c", "echo \"$1\"", "sh", string]).expect(0);
        assert_eq!(String::from_utf8_lossy(&safe.stdout), format!("{evil}\n"));
        assert!(!scene.path("owned").exists());
        run("--unsafe-template", &["sh", "-c", code]).expect(0);
        assert!(scene.path("owned").exists(), "the flag allows it");
        std::fs::remove_file(scene.path("owned")).unwrap();
    }
    let worker = |insecure: &str| {
        let worker = scene.ours("worker").env("TRADEWIND_INSECURE", insecure);
        let at =
            "--ventilator tcp://127.0.0.1:1 --sink tcp://127.0.0.1:1 --connect-timeout 100ms --";
        worker.words(at).args(["sh", "-c", "echo {}"]).run()
    };
    let refused = worker("false").expect(2);
    assert!(refused.stderr.contains("give --unsafe-template"), "{}", refused.stderr);
    let warned = worker("true").expect(6);
    assert!(
        warned.stderr.contains("since --insecure trusts all tasks: sh reads"),
        "{}",
        warned.stderr
    );
    let pipeline = "[[stage]]\nname = \"a\"\ncommand = \"sh -c 'echo {}'\"\n";
    scene.file("p.toml", pipeline);
    let run = || scene.run().words("--pipeline p.toml");
    let refused = run().input(evil).start().wait().expect(2);
    assert!(refused.stderr.contains("p.toml:3:11: stage \"a\": sh reads"), "{}", refused.stderr);
    run().words("--unsafe-template").input(evil).start().wait().expect(0);
    assert!(scene.path("owned").exists(), "the flag allows it");
}
