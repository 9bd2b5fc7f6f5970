use tradewind_proto::Payload;

use super::super::PipeMode;
use super::*;
use crate::process::signal_name;

/// A feed and what it was seen to do, one word each.
struct Scene {
    feed: Feed,
    now: Time,
    seen: Vec<String>,
}

const MS: u64 = 1_000;

fn scene() -> Scene {
    let mut options = PipeOptions::new(PipeMode::Lines);
    (options.output_bytes_max, options.restarts_max) = (10, 2);
    let mut scene = Scene { feed: Feed::new(options), now: Time(0), seen: Vec::new() };
    scene.look();
    scene
}

impl Scene {
    /// One step: what happens, as one word with an argument after a colon.
    fn step(&mut self, step: &str) {
        let (what, about) = step.split_once(':').unwrap_or((step, ""));
        let number = || about.parse::<u64>().unwrap();
        self.now = self.now + Duration::from_millis(1);
        let now = self.now;
        match what {
            "task" => {
                let seq = Seq(number());
                let payload = Payload::from(format!("t{about}"));
                self.feed.handle_task(now, Task::new(seq, Attempt(1), payload));
            }
            "unfit" => {
                let (seq, payload) = (Seq(number()), Payload::from(b"\n"));
                self.feed.handle_task(now, Task::new(seq, Attempt(1), payload));
            }
            "up" => self.feed.handle_started(now),
            "lack" => self.feed.handle_lack(now, "too many files"),
            "down" => self.feed.handle_start_failed(now, "no such file"),
            "out" => self.feed.handle_output(now, about.replace('|', "\n").as_bytes()),
            "err" => self.feed.handle_error_output(now, about.as_bytes()),
            "exit" => self.feed.handle_exit(now, Exit::Code(number() as i32), 0),
            "unread" => {
                let State::Up(child) = &self.feed.state else { panic!("no child") };
                let written = child.written;
                self.feed.handle_exit(now, Exit::Code(number() as i32), written);
            }
            "signal" => self.feed.handle_exit(now, Exit::Signal(number() as i32), 0),
            "stop" => self.feed.handle_stop(now, Seq(number()), Attempt(1)),
            "eof" => self.feed.handle_output_closed(now),
            "deaf" => self.feed.handle_input_closed(now),
            "close" => self.feed.handle_close(now, Close::AtLeisure),
            "quit" => self.feed.handle_close(now, Close::AtOnce),
            "wait" => {
                self.now = now + Duration::from_millis(number());
                self.feed.handle_timeout(self.now);
            }
            _ => panic!("{step:?} is no step"),
        }
        self.look();
    }

    /// Takes all outputs. A write takes everything.
    fn look(&mut self) {
        loop {
            while let Some(action) = self.feed.poll_action() {
                self.seen.push(match action {
                    Action::Signal(signal) => signal_name(signal.as_raw()).unwrap().to_owned(),
                    Action::Start | Action::CloseInput => format!("{action:?}"),
                });
            }
            let bytes = self.feed.outgoing();
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len();
            self.seen.push(String::from_utf8_lossy(bytes).trim_end().replace('\n', "|"));
            self.feed.handle_written(self.now, count);
        }
        for Ended { task, outcome, .. } in self.feed.take_ended() {
            let output = String::from_utf8_lossy(&outcome.output).into_owned();
            let text = if outcome.status == Status::Ok { output } else { outcome.error };
            let stderr = String::from_utf8_lossy(&outcome.stderr);
            let stderr = if stderr.is_empty() { String::new() } else { format!(" [{stderr}]") };
            self.seen.push(format!("{}={text}{stderr}", task.seq));
        }
        let _ = self.feed.take_logs();
    }
}

/// Lets these steps happen, separated by spaces, and compares what is seen.
#[track_caller]
fn check(steps: &str, expected: &[&str]) {
    let mut scene = scene();
    for step in steps.split_whitespace() {
        scene.step(step);
    }
    assert_eq!(scene.seen, expected, "{steps}");
}

#[test]
fn tasks_are_written_and_answered_in_order() {
    check("", &["Start"]);
    check("task:0 up", &["Start", "t0"]);
    check("up task:0 task:1 out:a|b|", &["Start", "t0", "t1", "0=a", "1=b"]);
    check("task:0 task:1 up out:a out:b|c out:|", &["Start", "t0|t1", "0=ab", "1=c"]);
    check("up unfit:0", &["Start", &format!("0={}", unfit(PipeMode::Lines, b"\n").unwrap())]);
}

#[test]
fn an_end_is_blamed_on_the_first_task_without_an_answer() {
    let exited = "1=the handler exited with code 3";
    // Before it was started, while it loads, idle, between tasks.
    check("task:0 down", &["Start"]);
    check("task:0 down wait:100", &["Start", "Start"]);
    check("task:0 up unread:1", &["Start", "t0"]);
    check("task:0 up unread:1 wait:100 up", &["Start", "t0", "Start", "t0"]);
    check("up unread:0 task:0", &["Start"]);
    check("up unread:0 task:0 wait:100", &["Start", "Start"]);
    check("up task:0 out:a| exit:3", &["Start", "t0", "0=a"]);
    check("up task:0 out:a| exit:3 task:1", &["Start", "t0", "0=a", "Start"]);
    // With one in flight, with several, in the middle of an answer.
    check("up task:0 out:a| task:1 exit:3", &["Start", "t0", "0=a", "t1", exited]);
    check(
        "up task:0 out:a| task:1 task:2 exit:3 up out:c|",
        &["Start", "t0", "0=a", "t1", "t2", "Start", exited, "t2", "2=c"],
    );
    let amid = "0=the handler exited with code 0 in the middle of its answer to this task";
    check("up task:0 out:a exit:0", &["Start", "t0", amid]);
    let missing = "0=the handler exited with code 0 without an answer to this task and 1 more";
    check("up task:0 task:1 exit:0", &["Start", "t0", "t1", missing]);
    let killed = "0=the handler was killed by signal 9 (SIGKILL) [bad]";
    check("up task:0 err:bad signal:9", &["Start", "t0", killed]);
    // While stopping.
    check("up task:0 stop:0 signal:15", &["Start", "t0", "TERM", "0=stopped"]);
}

#[test]
fn what_is_no_answer_ends_the_child() {
    let large = "1=the handler's answer is larger than 10 bytes, the limit of --max-output";
    check(
        "up task:0 out:a| task:1 out:01234567890 out:b| signal:15 task:2 up",
        &["Start", "t0", "0=a", "t1", "TERM", large, "Start", "t2"],
    );
    // Nobody asked: at no task, and after the last.
    check("up out:a| signal:15", &["Start", "TERM"]);
    check("up task:0 out:a|b| signal:15 task:1", &["Start", "t0", "TERM", "0=a", "Start"]);
    let closed = "0=the handler closed its standard output and did not exit";
    check("up task:0 eof wait:1000 wait:2000 signal:9", &["Start", "t0", "TERM", "KILL", closed]);
    // It closes them when it exits, too.
    let exited = "0=the handler exited with code 1";
    check("up task:0 eof exit:1", &["Start", "t0", exited]);
    check("up task:0 deaf task:1 exit:1", &["Start", "t0", exited]);
}

#[test]
fn only_what_the_child_is_at_is_stopped() {
    check(
        "up task:0 task:1 stop:0 wait:2000 signal:9",
        &["Start", "t0", "t1", "TERM", "KILL", "Start", "0=stopped"],
    );
    // What is behind it and unwanted is not given to the next child.
    check(
        "up task:0 task:1 task:2 stop:1 stop:0 signal:15 up",
        &["Start", "t0", "t1", "t2", "TERM", "Start", "0=stopped", "1=stopped", "t2"],
    );
    check("up task:0 task:1 stop:1 out:a|b|", &["Start", "t0", "t1", "0=a", "1=b"]);
    check("task:0 stop:0", &["Start", "0=stopped"]);
    // What it makes of the signal comes too late.
    check(
        "up task:0 task:1 stop:0 out:a| signal:15",
        &["Start", "t0", "t1", "TERM", "0=stopped", "Start"],
    );
    // What comes after it was in time.
    check(
        "up task:0 task:1 stop:0 out:a|b| signal:15",
        &["Start", "t0", "t1", "TERM", "0=stopped", "1=b"],
    );
    check("up stop:7", &["Start"]);
}

#[test]
fn children_that_never_answer_are_given_up() {
    let mut scene = scene();
    for step in "task:0 up unread:1 wait:100 up unread:1 wait:200 up".split(' ') {
        scene.step(step);
    }
    assert_eq!(scene.feed.given_up(), None);
    scene.step("err:no");
    scene.step("unread:1");
    let reason = scene.feed.given_up().unwrap();
    assert!(reason.contains("code 1 before it took a task: no; 3 in a row"), "{reason}");
    // What it has waits to be stopped.
    scene.seen.clear();
    scene.step("stop:0");
    assert_eq!(scene.seen, ["0=stopped"]);
}

#[test]
fn an_answer_begins_the_count_again() {
    let mut scene = scene();
    for step in "up task:0 exit:1 wait:100 task:1 up exit:1 wait:200 task:2 up".split(' ') {
        scene.step(step);
    }
    assert_eq!(scene.feed.failures, 2);
    scene.step("out:c|");
    scene.step("exit:1");
    assert_eq!((scene.feed.failures, scene.feed.given_up()), (0, None));
}

#[test]
fn loading_does_not_count() {
    let mut scene = scene();
    scene.step("task:0");
    assert_eq!(scene.feed.status().under_way, None);
    scene.step("up");
    let since = |scene: &Scene| scene.feed.status().under_way.map(|(seq, _, at)| (seq.0, at.0));
    assert_eq!(since(&scene), Some((0, 2 * MS + 60_000_000)));
    scene.step("task:1");
    scene.step("out:a|");
    assert_eq!(since(&scene), Some((1, 4 * MS)));
}

#[test]
fn closed_a_child_exits_by_itself_or_is_stopped() {
    check("up close exit:0", &["Start", "CloseInput"]);
    check("up close wait:2000 wait:2000 signal:9", &["Start", "CloseInput", "TERM", "KILL"]);
    check("close up exit:0", &["Start", "CloseInput"]);
    check("up task:0 close signal:15", &["Start", "t0", "TERM"]);
    check("up quit wait:2000 signal:9", &["Start", "TERM", "KILL"]);
    check("up close quit signal:15", &["Start", "CloseInput", "TERM"]);
    let mut scene = scene();
    for (step, is_over) in [("up", false), ("close", false), ("exit:0", true)] {
        scene.step(step);
        assert_eq!(scene.feed.is_over(), is_over, "{step}");
    }
}

#[test]
fn what_is_said_on_the_way_to_an_answer_belongs_to_that() {
    check(
        "up task:0 err:x out:a| task:1 out:b| task:2 err:y err:z out:c|",
        &["Start", "t0", "0=a [x]", "t1", "1=b", "t2", "2=c [yz]"],
    );
    check("up task:0 err:x stop:0 signal:15", &["Start", "t0", "TERM", "0=stopped [x]"]);
}

#[test]
fn what_this_host_lacks_is_waited_for() {
    let mut scene = scene();
    for step in "task:0 lack wait:100 lack wait:200 lack wait:400 lack wait:800 up".split(' ') {
        scene.step(step);
    }
    assert_eq!((scene.feed.failures, scene.feed.given_up()), (0, None));
    assert_eq!(scene.seen, ["Start", "Start", "Start", "Start", "Start", "t0"]);
}

#[test]
fn a_host_that_lacks_something_for_long_is_given_up() {
    let mut scene = scene();
    scene.step("task:0");
    for _ in 0..=LACKS_MAX {
        scene.step("lack");
        scene.step("wait:10000");
    }
    assert_eq!(scene.feed.given_up(), Some("the handler cannot be started: too many files"));
}

#[test]
fn termination_sequence_is_kept_to() {
    let mut scene = scene();
    scene.feed.options.term_seq = "INT,10,TERM,20".parse().unwrap();
    for step in "up task:0 stop:0 wait:10 wait:20 signal:9".split(' ') {
        scene.step(step);
    }
    assert_eq!(scene.seen, ["Start", "t0", "INT", "TERM", "KILL", "0=stopped"]);
}
