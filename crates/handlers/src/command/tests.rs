use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use rustix::process::Pid;
use tradewind_proto::Rare;
use tradewind_proto::limits::STDERR_BYTES_MAX;
use tradewind_proto::{Attempt, Seq, Slot};

use super::*;
use crate::process::members;

/// Longer than anything here takes on a machine that does nothing else: only a failing test
/// waits so long.
const TIMEOUT: Duration = Duration::from_secs(60);

fn handler(input: Input, args: &[&str]) -> CommandHandler {
    CommandHandler::new(Template::parse(args, input).unwrap(), CommandOptions::default())
}

fn run(handler: &CommandHandler, payload: impl Into<Payload>) -> Outcome {
    let task = Task { slot: Slot(3), ..Task::new(Seq(6), Attempt(2), payload.into()) };
    handler.run(&task, &StopSignal::new().unwrap())
}

fn outcome(status: Status, exit: Exit, output: &str, error: &str) -> Outcome {
    Outcome {
        status,
        exit,
        output: output.to_owned().into(),
        stderr: Rare::default(),
        error: error.to_owned(),
    }
}

/// The same, and this was written to stderr.
fn with_stderr(outcome: Outcome, stderr: &str) -> Outcome {
    Outcome { stderr: stderr.to_owned().into(), ..outcome }
}

fn ok(output: &str) -> Outcome {
    outcome(Status::Ok, Exit::Code(0), output, "")
}

fn failed(code: i32, output: &str, error: &str) -> Outcome {
    outcome(Status::Failed, Exit::Code(code), output, error)
}

fn not_run(error: &str) -> Outcome {
    outcome(Status::Failed, Exit::None, "", error)
}

#[track_caller]
fn check(args: &[&str], payload: &'static str, expected: &Outcome) {
    assert_eq!(run(&handler(Input::Argument, args), payload), *expected);
}

#[track_caller]
fn check_stdin(args: &[&str], payload: &'static [u8], expected: &Outcome) {
    assert_eq!(run(&handler(Input::Stdin, args), payload), *expected);
}

#[test]
fn exit_decides_between_ok_and_failed() {
    check(&["true"], "", &ok(""));
    check(&["echo", "-n"], "a  b", &ok("a  b"));
    check(&["false"], "", &failed(1, "", "exit code 1"));
    check(
        &["sh", "-c", "echo out; echo err >&2; echo err2 >&2; exit 7"],
        "",
        &with_stderr(failed(7, "out\n", "exit code 7"), "err\nerr2\n"),
    );
    check(&["sh", "-c", "echo warning >&2; echo out"], "", &with_stderr(ok("out\n"), "warning\n"));
    check(
        &["sh", "-c", "echo out; kill -KILL $$"],
        "",
        &outcome(Status::Failed, Exit::Signal(9), "out\n", "killed by signal 9 (SIGKILL)"),
    );
    check(
        &["sh", "-c", "echo why >&2; kill -USR1 $$"],
        "",
        &with_stderr(
            outcome(Status::Failed, Exit::Signal(10), "", "killed by signal 10 (SIGUSR1)"),
            "why\n",
        ),
    );
}

#[test]
fn command_knows_its_task_and_finds_stdin_empty() {
    let words = "echo $TRADEWIND_SEQ $TRADEWIND_ATTEMPT $TRADEWIND_WORKER {#} \
                 $TRADEWIND_SLOT {%}; cat";
    let template = Template::parse(["sh", "-c", words], Input::Argument).unwrap();
    let options = CommandOptions { worker: "anna".to_owned(), ..CommandOptions::default() };
    assert_eq!(run(&CommandHandler::new(template, options), "x"), ok("6 2 anna 7 3 4\n"));
}

#[test]
fn command_sees_its_name_as_it_was_typed() {
    check(&["sh", "-c", "tr '\\0' ' ' < /proc/$$/cmdline | cut -c -2"], "", &ok("sh\n"));
}

#[test]
fn broken_pipe_kills_commands_as_in_a_shell() {
    check(&["sh", "-c", "yes | head -n 1"], "", &ok("y\n"));
}

#[test]
fn task_on_stdin_is_any_bytes() {
    check_stdin(&["cat"], b"", &ok(""));
    check_stdin(&["cat"], b"a\0b\n", &ok("a\0b\n"));
    check_stdin(&["od", "-An", "-tx1"], b"\x00\xff\x80\n", &ok(" 00 ff 80 0a\n"));
    check_stdin(&["sh", "-c", "cat; echo {}"], b"x", &ok("xx\n"));
}

#[test]
fn large_task_does_not_deadlock() {
    let large = Payload::from(vec![b'x'; 10 << 20]);
    let check = |args: &[&str], expected: &Outcome| {
        assert!(run(&handler(Input::Stdin, args), large.clone()) == *expected, "{args:?}");
    };
    check(&["wc", "-c"], &ok("10485760\n"));
    check(&["cat"], &Outcome { output: large.clone(), ..ok("") });
    // The task need not be read.
    check(&["head", "-c", "1"], &ok("x"));
    check(&["true"], &ok(""));
    check(&["sh", "-c", "exec <&-; echo closed"], &ok("closed\n"));
    // Everything at once.
    let tee = handler(Input::Stdin, &["sh", "-c", "tee /dev/stderr; exit 1"]);
    let Outcome { stderr, output, error, .. } = run(&tee, large.clone());
    assert!(output == large && error == "exit code 1");
    assert!(stderr.len() <= STDERR_BYTES_MAX && stderr.ends_with(&[b'x'; STDERR_BYTES_MAX - 100]));
}

#[test]
fn output_beyond_the_limit_is_an_error() {
    #[track_caller]
    fn check(args: &[&str], output_bytes_max: u64, expected: (Status, Exit, usize, &str)) {
        let template = Template::parse(args, Input::Stdin).unwrap();
        let options = CommandOptions { output_bytes_max, ..CommandOptions::default() };
        let outcome = run(&CommandHandler::new(template, options), vec![0; 20 << 20]);
        let Outcome { status, exit, output, error, .. } = &outcome;
        assert_eq!((*status, *exit, output.len(), error.as_str()), expected, "{args:?}");
    }
    let limit = 1 << 20;
    let error = "wrote more than 1048576 bytes to stdout, the limit of --max-output";
    let killed = (Status::Failed, Exit::Signal(9), 1 << 20, error);
    check(&["cat"], limit, killed);
    check(&["yes"], limit, killed);
    check(&["sh", "-c", "yes & yes"], limit, killed);
    let dd = |count: &str| {
        ["dd", "if=/dev/zero", "bs=65536", count, "status=none"].map(str::to_owned).to_vec()
    };
    let exactly: Vec<_> = dd("count=16");
    let exactly: Vec<&str> = exactly.iter().map(String::as_str).collect();
    check(&exactly, limit, (Status::Ok, Exit::Code(0), 1 << 20, ""));
    check(&["true"], 0, (Status::Ok, Exit::Code(0), 0, ""));
}

#[test]
fn end_of_stderr_is_kept() {
    let words = "yes € | head -n 100000 | tr -d '\\n' >&2; exit $1";
    for code in ["0", "1"] {
        let script = handler(Input::Argument, &["sh", "-c", words, "sh", "{}"]);
        let stderr = run(&script, code).stderr;
        let stderr = std::str::from_utf8(&stderr).unwrap();
        let (head, end) = stderr.split_once('\n').unwrap();
        assert_eq!(head, format!("[{} bytes are left out]", 300_000 - end.len()));
        assert!(end.chars().all(|c| c == '€') && end.len() > STDERR_BYTES_MAX - 100);
    }
}

#[test]
fn arguments_need_not_be_utf8() {
    let args = ["printf", "%s"].map(OsString::from);
    let args = args.into_iter().chain([OsString::from_vec(b"\xfe{}\xff".to_vec())]);
    let template = Template::parse(args, Input::Argument).unwrap();
    let handler = CommandHandler::new(template, CommandOptions::default());
    assert_eq!(run(&handler, &b"\x80"[..]).output, &b"\xfe\x80\xff"[..]);
}

#[test]
fn task_that_cannot_be_an_argument_fails() {
    check(
        &["echo"],
        "a\0b",
        &not_run("the task has a NUL byte and cannot be an argument: use --stdin"),
    );
    check(&["echo", "{/}"], "a\0/b", &ok("b\n"));
    let echo = handler(Input::Argument, &["echo", "-n", "{}"]);
    assert_eq!(run(&echo, vec![b'x'; 131_071]).output.len(), 131_071);
    assert_eq!(
        run(&echo, vec![b'x'; 131_072]),
        not_run(
            "the task is too long for an argument (131072 bytes, and the kernel takes 131071): \
             use --stdin"
        )
    );
}

#[test]
fn command_that_differs_from_task_to_task_and_cannot_be_started_is_the_tasks_failure() {
    let root = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    check(&["no-such-{}"], "thing", &not_run(r#"command "no-such-thing" was not found in PATH"#));
    check(&["{}"], "/etc/passwd", &not_run(r#""/etc/passwd" is not executable"#));
    check(&["{}"], "/etc", &not_run(r#""/etc" is a directory, not a command"#));
    let checked = |word: &str, expected: &str| {
        let outcome = run(&handler(Input::Argument, &["{}"]), word.to_owned());
        assert!(outcome.error.contains(expected), "{}", outcome.error);
    };
    checked(&script("no-interpreter", "#!/no/such/thing\n"), "is its interpreter missing?");
    checked(&script("no-line", "echo hi\n"), "does a script lack its #! line?");
}

#[test]
fn command_that_has_gone_is_the_hosts_failure() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("script");
    let write = |text: &str, mode: u32| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("#!/bin/sh\n", 0o755);
    let script = handler(Input::Argument, &[path.to_str().unwrap()]);
    let stop = StopSignal::new().unwrap();
    let try_run = || script.try_run(&Task::new(Seq(0), Attempt(1), "x".into()), &stop);
    assert_eq!(try_run(), Ok(ok("")));
    let lacks = |expected: &str| {
        let Unstarted { lack, reason } = try_run().unwrap_err();
        assert_eq!(lack, Lack::Command);
        assert!(reason.contains(expected), "{reason}");
    };
    write("echo hi\n", 0o755);
    lacks("does a script lack its #! line?");
    write("#!/no/such/thing\n", 0o755);
    lacks("is its interpreter missing?");
    write("#!/bin/sh\n", 0o644);
    // Root may do everything but this.
    lacks("is not executable");
    fs::remove_file(&path).unwrap();
    lacks("does not exist");
    // A shell that was started for a script finds it gone.
    write("#!/bin/sh\nrm -f $0; exit 127\n", 0o755);
    lacks("has gone while it was being started");
    // What the task itself is to blame for stays its failure.
    let long = handler(Input::Argument, &["true"]);
    let task = Task::new(Seq(0), Attempt(1), vec![b'x'; 200_000].into());
    assert_eq!(long.try_run(&task, &stop).unwrap().status, Status::Failed);
}

#[test]
fn file_that_is_being_written_is_waited_for() {
    use std::io::Write;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("program");
    fs::copy("/bin/echo", &path).unwrap();
    let mut writing = fs::OpenOptions::new().append(true).open(&path).unwrap();
    writing.write_all(b"x").unwrap();
    let echo = handler(Input::Argument, &[path.to_str().unwrap()]);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            drop(writing);
        });
        assert_eq!(run(&echo, "a"), ok("a\n"));
    });
}

/// Waits for what a command writes into a file, as a sign that it has come so far.
fn wait_for_pid(file: &Path) -> Pid {
    let deadline = std::time::Instant::now() + TIMEOUT;
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(pid) = text.strip_suffix('\n').and_then(|text| text.parse().ok()) {
            return Pid::from_raw(pid).unwrap();
        }
        assert!(std::time::Instant::now() < deadline, "the command has not started");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a script and stops it once it has written its pid to the file that is its task; then
/// nobody may be left of its group.
#[track_caller]
fn check_stopped(script: &str, grace: Duration, expected: &Outcome) {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("pid");
    let template = Template::parse(["sh", "-c", script, "sh", "{}"], Input::Argument).unwrap();
    let term_seq = TermSeq::term_then_kill(grace);
    let options = CommandOptions { term_seq, ..CommandOptions::default() };
    let handler = CommandHandler::new(template, options);
    let stop = StopSignal::new().unwrap();
    let payload = file.to_str().unwrap().to_owned().into();
    let task = Task::new(Seq(0), Attempt::FIRST, payload);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| sender.send(handler.run(&task, &stop)).unwrap());
        let group = wait_for_pid(&file);
        assert!(members(group).iter().any(|member| member.pid == group));
        stop.raise();
        assert_eq!(
            receiver.recv_timeout(TIMEOUT).expect("the command ends"),
            *expected,
            "{script}"
        );
        // The kernel may take a moment to carry out a KILL.
        let deadline = std::time::Instant::now() + TIMEOUT;
        while !members(group).is_empty() {
            assert!(std::time::Instant::now() < deadline, "{:?} are alive", members(group));
            thread::sleep(Duration::from_millis(2));
        }
    });
}

#[test]
fn stop_ends_the_whole_group() {
    let terminated = |output: &str| {
        outcome(Status::Failed, Exit::Signal(15), output, "killed by signal 15 (SIGTERM)")
    };
    let killed = outcome(Status::Failed, Exit::Signal(9), "", "killed by signal 9 (SIGKILL)");
    let short = Duration::from_millis(50);
    check_stopped("echo $$ > $1; exec sleep 1000", TIMEOUT, &terminated(""));
    check_stopped("sleep 1000 & echo $$ > $1; sleep 1000", TIMEOUT, &terminated(""));
    check_stopped("trap '' TERM; sleep 1000 & echo $$ > $1; sleep 1000", short, &killed);
    // The leader goes at once, its child does not.
    let script = "sh -c 'trap \"\" TERM; echo $PPID > $1; sleep 1000' sh $1 & wait";
    check_stopped(script, short, &terminated(""));
    // The same where no process holds the pipes.
    let script = "sh -c 'trap \"\" TERM; echo $PPID > $1; sleep 1000' sh $1 >&- 2>&- & wait";
    check_stopped(script, short, &terminated(""));
}

#[test]
fn stopped_command_may_clean_up() {
    // Some shells say on stderr that their child was terminated.
    let script =
        "exec 2>&-; trap 'echo bye; exit 4' TERM; echo $$ > $1; while :; do sleep 0.01; done";
    check_stopped(script, TIMEOUT, &failed(4, "bye\n", "stopped"));
    // However it ends, it was stopped.
    let script = script.replace("exit 4", "exit 0");
    check_stopped(&script, TIMEOUT, &failed(0, "bye\n", "stopped"));
    // So may a child whose leader dies at once.
    let script = "exec 2>&-; sh -c 'trap \"sleep 0.1; echo bye; exit\" TERM; echo $PPID > $1;
                         while :; do sleep 0.01; done' sh $1 & wait";
    check_stopped(
        script,
        TIMEOUT,
        &outcome(Status::Failed, Exit::Signal(15), "bye\n", "killed by signal 15 (SIGTERM)"),
    );
}

#[test]
fn stop_that_comes_first_starts_nothing() {
    let stop = StopSignal::new().unwrap();
    stop.raise();
    let task = Task::new(Seq(0), Attempt(1), Payload::new());
    let sleep = handler(Input::Argument, &["sleep", "1000"]);
    assert_eq!(sleep.run(&task, &stop), not_run("stopped"));
}

#[test]
fn child_in_the_background_holds_nothing_up() {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let script = "sleep 120 & echo $!; echo hi";
        sender.send(run(&handler(Input::Argument, &["sh", "-c", script]), "")).unwrap();
        // It writes for ever; what is in the pipe at the end is all that is waited for.
        let script = "yes & echo $!; exit 3";
        sender.send(run(&handler(Input::Argument, &["sh", "-c", script]), "")).unwrap();
    });
    let outcome = receiver.recv_timeout(TIMEOUT).expect("the command ends before its child");
    let text = String::from_utf8(outcome.output.to_vec()).unwrap();
    let (child, rest) = text.split_once('\n').unwrap();
    assert_eq!((outcome.status, rest), (Status::Ok, "hi\n"));
    let child = Pid::from_raw(child.parse().unwrap()).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).expect("it is left alone");
    let outcome = receiver.recv_timeout(TIMEOUT).expect("the command ends before its child");
    assert_eq!(outcome.exit, Exit::Code(3));
}

#[test]
fn output_of_process_substitutions_is_waited_for() {
    let bash = |script: &str, expected: &Outcome| check(&["bash", "-c", script], "", expected);
    for _ in 0..50 {
        bash("exec > >(cat); echo hello", &ok("hello\n"));
    }
    bash("exec > >(sleep 0.2; cat); echo hello; exit 3", &failed(3, "hello\n", "exit code 3"));
    let late = "exec > >(cat >/dev/null; for i in 1 2 3 4 5; do sleep 0.1; echo $i; done); true";
    bash(late, &ok("1\n2\n3\n4\n5\n"));
    bash("exec 2> >(sleep 0.1; cat >&2); echo why >&2", &with_stderr(ok(""), "why\n"));
    // One that computes for longer than one that sleeps may be quiet: by the clock, since a loop of
    // a given length takes longer than anything is waited for where many others compute.
    bash(
        "exec > >(cat; SECONDS=0; while ((SECONDS < 2)); do :; done; echo end); echo x",
        &ok("x\nend\n"),
    );
}

/// The groups' members hold the pipe in silence: that costs a moment, not more.
#[test]
fn silent_daemons_hold_nothing_up() {
    for script in ["sleep 100 & echo $!", "setsid sleep 100 & echo $!"] {
        let began = std::time::Instant::now();
        let outcome = run(&handler(Input::Argument, &["bash", "-c", script]), "");
        assert_eq!((outcome.status, outcome.exit), (Status::Ok, Exit::Code(0)));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        let text = String::from_utf8(outcome.output.to_vec()).unwrap();
        let daemon = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        let kill = rustix::process::kill_process(daemon, rustix::process::Signal::KILL);
        kill.expect("it is left alone");
    }
}

#[test]
fn termination_sequence_is_kept_to() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("pid");
    // None that is ignored where these tests are run in the background, as INT is: that stays ignored.
    let script = "trap 'echo usr2' USR2; trap 'echo usr1' USR1; trap 'echo term; exit 9' TERM;
                  echo $$ > $1; while :; do sleep 0.01; done 2>&-";
    let template = Template::parse(["sh", "-c", script, "sh", "{}"], Input::Argument).unwrap();
    let term_seq = "USR2,100,USR1,100,TERM,60000".parse().unwrap();
    let options = CommandOptions { term_seq, ..CommandOptions::default() };
    let handler = CommandHandler::new(template, options);
    let stop = StopSignal::new().unwrap();
    let payload: Payload = file.to_str().unwrap().to_owned().into();
    let outcome = thread::scope(|scope| {
        let task = Task::new(Seq(0), Attempt::FIRST, payload);
        let (handler, stop) = (&handler, &stop);
        let running = scope.spawn(move || handler.run(&task, stop));
        wait_for_pid(&file);
        stop.raise();
        running.join().unwrap()
    });
    assert_eq!(outcome.output, "usr2\nusr1\nterm\n");
    assert_eq!((outcome.exit, outcome.error.as_str()), (Exit::Code(9), "stopped"));
}
