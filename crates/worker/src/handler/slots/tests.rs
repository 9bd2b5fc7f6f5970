use std::process::Command;
use std::sync::mpsc::{self, Receiver};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::*;
use crate::handler::{CommandHandler, CommandOptions, Handler, Input, Template};

/// Longer than anything here takes on a machine that does nothing else: only a failing test
/// waits so long.
const TIMEOUT: Duration = Duration::from_secs(60);

fn slots(count: u32, handler: impl BlockingHandler + 'static) -> (Slots, Receiver<Finished>) {
    let (sender, receiver) = mpsc::channel();
    let slots = Slots::new(count, Arc::new(handler), move |finished| {
        sender.send(finished).expect("the test receives until the slots are gone");
    });
    (slots, receiver)
}

fn task(seq: u64, payload: &'static str) -> Task {
    let payload = Payload::from(payload.as_bytes());
    Task { seq: Seq(seq), attempt: Attempt::FIRST, payload, report_command: false }
}

fn receive(receiver: &Receiver<Finished>) -> Finished {
    receiver.recv_timeout(TIMEOUT).expect("a task ends")
}

fn command(args: &[&str]) -> Handler {
    let template = Template::parse(args, Input::Argument).unwrap();
    Handler::Command(CommandHandler::new(template, CommandOptions::default()))
}

#[test]
fn task_comes_back_with_its_slot_and_its_output() {
    let (slots, receiver) = slots(3, Handler::Echo);
    slots.start(Slot(2), task(7, "hello"));
    let finished = receive(&receiver);
    assert_eq!((finished.slot, finished.seq, finished.attempt), (Slot(2), Seq(7), Attempt(1)));
    assert_eq!(finished.outcome, Outcome::ok(Payload::from(b"hello")));
    assert!(finished.started_us > 0);
    slots.shutdown();
    assert!(receiver.try_recv().is_err(), "nothing else has ended");
}

#[test]
fn threads_are_started_when_they_are_needed() {
    let (slots, receiver) = slots(4096, |_: &Task, _: &StopSignal| {
        Outcome::ok(Payload::from(thread::current().name().unwrap_or_default().to_owned()))
    });
    for _ in 0..3 {
        slots.start(Slot(4095), task(0, ""));
        assert_eq!(receive(&receiver).outcome.output, "slot-4095");
    }
    assert_eq!(slots.threads.iter().filter(|thread| lock(thread).is_some()).count(), 1);
}

#[test]
fn command_is_reported_when_asked_for() {
    let (slots, receiver) = slots(1, command(&["echo", "{}", "{#}"]));
    slots.start(Slot(0), task(1, "two words"));
    assert_eq!(receive(&receiver).command, "");
    slots.start(Slot(0), Task { report_command: true, ..task(1, "two words") });
    let finished = receive(&receiver);
    assert_eq!(finished.command, "echo 'two words' 2");
    assert_eq!(finished.outcome.output, "two words 2\n");
}

#[test]
fn panic_is_a_failure_of_its_task_only() {
    let (slots, receiver) = slots(1, |task: &Task, _: &StopSignal| {
        assert!(task.seq != Seq(0), "{}", "no good ".repeat(1_000));
        Outcome::ok(Payload::new())
    });
    slots.start(Slot(0), task(0, ""));
    let outcome = receive(&receiver).outcome;
    assert_eq!(outcome.status, Status::Failed);
    assert!(outcome.error.starts_with("the handler panicked: no good"), "{}", outcome.error);
    assert!(outcome.error.len() <= tradewind_proto::limits::ERROR_BYTES_MAX);
    slots.start(Slot(0), task(1, ""));
    assert_eq!(receive(&receiver).outcome.status, Status::Ok);
}

#[test]
fn stop_is_for_one_attempt() {
    let (slots, receiver) = slots(2, Handler::Sleep);
    let long = Task { attempt: Attempt(2), ..task(5, "86400") };
    slots.stop(Slot(0), Seq(5), Attempt(2));
    slots.start(Slot(0), long);
    slots.stop(Slot(0), Seq(5), Attempt(1));
    slots.stop(Slot(0), Seq(4), Attempt(2));
    slots.stop(Slot(1), Seq(5), Attempt(2));
    slots.stop(Slot(9), Seq(5), Attempt(2));
    // None of these was meant for it: there would be a second, earlier end to receive.
    slots.start(Slot(1), task(6, "0.05"));
    assert_eq!(receive(&receiver).seq, Seq(6));

    slots.stop(Slot(0), Seq(5), Attempt(2));
    let finished = receive(&receiver);
    assert_eq!((finished.seq, finished.outcome.error.as_str()), (Seq(5), "stopped"));
    slots.stop(Slot(0), Seq(5), Attempt(2));
    slots.start(Slot(0), task(7, "0.001"));
    assert_eq!(receive(&receiver).outcome.status, Status::Ok);
}

#[test]
fn shutdown_stops_everything_and_reports_it() {
    let (slots, receiver) = slots(4, command(&["sleep"]));
    for slot in 0..3 {
        slots.start(Slot(slot), task(u64::from(slot), "86400"));
    }
    slots.shutdown();
    let mut ended: Vec<_> = receiver.iter().map(|finished| finished.seq).collect();
    ended.sort();
    assert_eq!(ended, [Seq(0), Seq(1), Seq(2)]);
}

/// Has the process to itself: other tests open files and start children, too.
#[test]
fn thousand_runs_leave_no_descriptor_and_no_zombie() {
    const ALONE: &str = "TRADEWIND_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "handler::slots::tests::thousand_runs_leave_no_descriptor_and_no_zombie";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let words = "case $1 in fail) exit 3;; leave) sleep 1 & ;; wait) exec sleep 1000;; esac";
    let (slots, receiver) = slots(2, command(&["sh", "-c", words, "sh", "{}"]));
    let run = |slots: &Slots, receiver: &Receiver<Finished>, seq: u64| {
        let kind = match seq % 100 {
            99 => "leave",
            n => ["succeed", "fail", "wait", "cannot be started: \0"][(n % 4) as usize],
        };
        let slot = Slot((seq % 2) as u32);
        slots.start(slot, task(seq, kind));
        if kind == "wait" {
            slots.stop(slot, Seq(seq), Attempt::FIRST);
        }
        receive(receiver)
    };
    for seq in 0..2 {
        run(&slots, &receiver, seq);
    }
    let before = descriptors();
    for seq in 2..1_002 {
        run(&slots, &receiver, seq);
    }
    assert_eq!(descriptors(), before);
    let child =
        waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT);
    assert_eq!(child.unwrap_err(), Errno::CHILD);
}
