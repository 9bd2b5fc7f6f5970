use std::process::Command;
use std::sync::mpsc::{self, Receiver};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tradewind_proto::message::Report;

use tradewind_proto::Payload;

use super::*;
use crate::{CommandHandler, CommandOptions, Handler, Input, STOPPED, Template};

/// Longer than anything here takes on a machine that does nothing else: only a failing test
/// waits so long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Slots, and who is called for them.
struct Worker {
    slots: Slots,
    calls: Receiver<()>,
    finished: VecDeque<Finished>,
}

impl Worker {
    fn new(count: u32, handler: impl BlockingHandler + 'static) -> Self {
        let (sender, calls) = mpsc::channel();
        let slots = Slots::new(count, Arc::new(handler), move || {
            sender.send(()).expect("the test listens until the slots are gone");
        });
        Self { slots, calls, finished: VecDeque::new() }
    }

    /// The next task that ends.
    fn receive(&mut self) -> Finished {
        loop {
            self.finished.extend(self.slots.take_finished());
            match self.finished.pop_front() {
                Some(finished) => return finished,
                None => self.calls.recv_timeout(TIMEOUT).expect("a task ends"),
            }
        }
    }

    /// Returns the next task that ends, without waiting for a call.
    fn look(&mut self) -> Finished {
        let began = Instant::now();
        loop {
            self.finished.extend(self.slots.take_finished());
            if let Some(finished) = self.finished.pop_front() {
                return finished;
            }
            assert!(began.elapsed() < TIMEOUT, "no task ends");
            thread::yield_now();
        }
    }

    fn enqueue(&mut self, seqs: impl IntoIterator<Item = u64>, is_watched: bool) -> RunQueue {
        self.slots.enqueue(seqs.into_iter().map(|seq| task(seq, "")), is_watched)
    }

    /// Stops everything; what has ended by then.
    fn shutdown(self) -> Vec<Finished> {
        let mut finished = Vec::from(self.finished);
        finished.extend(self.slots.shutdown());
        finished
    }
}

/// A handler whose tasks end when the test says so, or when they are stopped.
struct Gates {
    begun: Receiver<Seq>,
    open: Arc<Mutex<Vec<Seq>>>,
}

impl Gates {
    fn new() -> (Self, impl BlockingHandler) {
        let (sender, begun) = mpsc::channel();
        let open = Arc::new(Mutex::new(Vec::new()));
        let is_open = Arc::clone(&open);
        let handler = move |task: &Task, stop: &StopSignal| {
            sender.send(task.seq).expect("the test outlives the slots");
            while !is_open.lock().unwrap().contains(&task.seq) {
                if stop.wait_timeout(Duration::from_millis(1)) {
                    return Outcome::error(Status::Failed, STOPPED);
                }
            }
            Outcome::ok(Payload::new())
        };
        (Self { begun, open }, handler)
    }

    fn begun(&self) -> Seq {
        self.begun.recv_timeout(TIMEOUT).expect("a task begins")
    }

    fn open(&self, seq: u64) {
        self.open.lock().unwrap().push(Seq(seq));
    }

    fn never_begins(self) {
        assert_eq!(self.begun.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}

fn task(seq: u64, payload: &'static str) -> Task {
    let payload = Payload::from(payload.as_bytes());
    Task::new(Seq(seq), Attempt::FIRST, payload)
}

fn command(args: &[&str]) -> Handler {
    let template = Template::parse(args, Input::Argument).unwrap();
    Handler::Command(Box::new(CommandHandler::new(template, CommandOptions::default())))
}

#[test]
fn task_comes_back_with_its_slot_and_its_output() {
    let mut worker = Worker::new(3, Handler::Echo);
    worker.slots.start(Slot(2), task(7, "hello"));
    let finished = worker.receive();
    assert_eq!((finished.slot, finished.seq, finished.attempt), (Slot(2), Seq(7), Attempt(1)));
    assert_eq!(finished.outcome, Outcome::ok(Payload::from(b"hello")));
    assert!(finished.started_us > 0);
    assert_eq!(worker.shutdown(), [], "nothing else has ended");
}

#[test]
fn threads_are_started_when_they_are_needed() {
    let mut worker = Worker::new(4096, |_: &Task, _: &StopSignal| {
        Outcome::ok(Payload::from(thread::current().name().unwrap_or_default().to_owned()))
    });
    for _ in 0..3 {
        worker.slots.start(Slot(4095), task(0, ""));
        assert_eq!(worker.receive().outcome.output, "slot-4095");
    }
    assert_eq!(worker.slots.threads.iter().filter(|thread| thread.is_some()).count(), 1);
}

#[test]
fn what_is_asked_for_is_reported() {
    let check = |command_wanted, task_wanted, expected: Option<(&str, &str)>| {
        let mut worker = Worker::new(1, command(&["echo", "{}", "{#}"]));
        let report = Report { command: command_wanted, task: task_wanted };
        worker.slots.start(Slot(0), Task { report, ..task(1, "two words") });
        let finished = worker.receive();
        let reported = expected.map(|(command, task)| {
            let (command, task) = (command.to_owned().into(), task.to_owned().into());
            Box::new(Reported { command, task })
        });
        assert_eq!(finished.reported, reported);
        assert_eq!(finished.outcome.output, "two words 2\n");
    };
    check(false, false, None);
    check(true, false, Some(("echo 'two words' 2", "")));
    check(false, true, Some(("", "two words")));
    check(true, true, Some(("echo 'two words' 2", "two words")));
}

#[test]
fn panic_is_a_failure_of_its_task_only() {
    let mut worker = Worker::new(1, |task: &Task, _: &StopSignal| {
        assert!(task.seq != Seq(0), "{}", "no good ".repeat(1_000));
        Outcome::ok(Payload::new())
    });
    worker.slots.start(Slot(0), task(0, ""));
    let outcome = worker.receive().outcome;
    assert_eq!(outcome.status, Status::Failed);
    assert!(outcome.error.starts_with("the handler panicked: no good"), "{}", outcome.error);
    assert!(outcome.error.len() <= tradewind_proto::limits::ERROR_BYTES_MAX);
    worker.slots.start(Slot(0), task(1, ""));
    assert_eq!(worker.receive().outcome.status, Status::Ok);
}

#[test]
fn stop_is_for_one_attempt() {
    let mut worker = Worker::new(2, Handler::Sleep);
    let long = Task { attempt: Attempt(2), ..task(5, "86400") };
    worker.slots.stop(Slot(0), Seq(5), Attempt(2));
    worker.slots.start(Slot(0), long);
    worker.slots.stop(Slot(0), Seq(5), Attempt(1));
    worker.slots.stop(Slot(0), Seq(4), Attempt(2));
    worker.slots.stop(Slot(1), Seq(5), Attempt(2));
    worker.slots.stop(Slot(9), Seq(5), Attempt(2));
    // None of these was meant for it: there would be a second, earlier end to receive.
    worker.slots.start(Slot(1), task(6, "0.05"));
    assert_eq!(worker.receive().seq, Seq(6));

    worker.slots.stop(Slot(0), Seq(5), Attempt(2));
    let finished = worker.receive();
    assert_eq!((finished.seq, finished.outcome.error.as_str()), (Seq(5), "stopped"));
    worker.slots.stop(Slot(0), Seq(5), Attempt(2));
    worker.slots.start(Slot(0), task(7, "0.001"));
    assert_eq!(worker.receive().outcome.status, Status::Ok);
}

#[test]
fn shutdown_stops_everything_and_reports_it() {
    let mut worker = Worker::new(4, command(&["sleep"]));
    for slot in 0..3 {
        worker.slots.start(Slot(slot), task(u64::from(slot), "86400"));
    }
    let mut ended: Vec<_> = worker.shutdown().iter().map(|finished| finished.seq).collect();
    ended.sort();
    assert_eq!(ended, [Seq(0), Seq(1), Seq(2)]);
}

#[test]
fn slot_that_is_done_goes_on_with_the_run_queue() {
    let (gates, handler) = Gates::new();
    let mut worker = Worker::new(2, handler);
    worker.slots.start(Slot(0), task(0, ""));
    worker.slots.start(Slot(1), task(1, ""));
    assert_eq!(worker.enqueue([2, 3], false), RunQueue::Low);
    let mut begun = [gates.begun(), gates.begun()];
    begun.sort();
    assert_eq!(begun, [Seq(0), Seq(1)]);

    // Nobody has said where: the first that is done takes the first that waits, and does so twice
    // if the other is still busy.
    for (ends, next) in [(1, Some(2)), (2, Some(3)), (3, None)] {
        gates.open(ends);
        let finished = worker.receive();
        assert_eq!((finished.slot, finished.seq), (Slot(1), Seq(ends)));
        let began = finished.next.map(|begun| begun.seq);
        assert_eq!(began, next.map(Seq));
        assert_eq!(began, next.map(|_| gates.begun()));
    }
    assert_eq!(worker.shutdown().len(), 1);
    gates.never_begins();
}

#[test]
fn what_was_withdrawn_never_begins() {
    let (gates, handler) = Gates::new();
    let mut worker = Worker::new(1, handler);
    worker.slots.start(Slot(0), task(0, ""));
    assert_eq!(gates.begun(), Seq(0));
    worker.enqueue([1, 2], false);
    assert!(worker.slots.withdraw());
    gates.open(0);
    assert_eq!(worker.receive().next, None);
    // Others may take their place.
    worker.slots.start(Slot(0), task(5, ""));
    assert_eq!(gates.begun(), Seq(5));
    assert_eq!(worker.shutdown().len(), 1);
    gates.never_begins();
}

/// Each task is either handed back or run, never both, whichever comes first.
#[test]
fn withdrawing_and_beginning_exclude_one_another() {
    let mut worker = Worker::new(2, Handler::Echo);
    let mut waiting: VecDeque<u64> = (0..20_000).collect();
    let mut ended = Vec::new();
    let mut free = vec![Slot(0), Slot(1)];
    while ended.len() < 20_000 {
        while let Some(slot) = free.pop() {
            match waiting.pop_front() {
                Some(seq) => worker.slots.start(slot, task(seq, "")),
                None => break,
            }
        }
        worker.enqueue(waiting.iter().copied(), true);
        worker.slots.withdraw();
        for finished in worker.slots.take_finished() {
            ended.push(finished.seq);
            match finished.next {
                Some(begun) => assert_eq!(waiting.pop_front().map(Seq), Some(begun.seq)),
                None => free.push(finished.slot),
            }
        }
    }
    ended.sort();
    assert!(ended.into_iter().eq((0..20_000).map(Seq)));
}

#[test]
fn stop_is_not_for_what_comes_next() {
    let (gates, handler) = Gates::new();
    let mut worker = Worker::new(1, handler);
    worker.slots.start(Slot(0), task(0, ""));
    worker.enqueue([1, 2], false);
    // It has not begun: its slot runs another task.
    worker.slots.stop(Slot(0), Seq(1), Attempt::FIRST);
    gates.open(0);
    let finished = worker.receive();
    assert_eq!((finished.seq, finished.outcome.status), (Seq(0), Status::Ok));
    // Too late for the one, in time for the other, which may not have been picked up yet.
    worker.slots.stop(Slot(0), Seq(0), Attempt::FIRST);
    gates.open(1);
    let finished = worker.receive();
    assert_eq!((finished.seq, finished.outcome.status), (Seq(1), Status::Ok));
    worker.slots.stop(Slot(0), Seq(2), Attempt::FIRST);
    let finished = worker.receive();
    assert_eq!((finished.seq, finished.outcome.status), (Seq(2), Status::Failed));
}

#[test]
fn nothing_is_laid_out_while_a_slot_is_free() {
    let (gates, handler) = Gates::new();
    let mut worker = Worker::new(2, handler);
    worker.slots.start(Slot(0), task(0, ""));
    assert_eq!(worker.enqueue(1..100, false), RunQueue::Low);
    gates.open(0);
    assert_eq!(worker.receive().next, None);

    worker.slots.start(Slot(0), task(1, ""));
    worker.slots.start(Slot(1), task(2, ""));
    gates.open(2);
    worker.calls.recv_timeout(TIMEOUT).unwrap();
    // The caller does not know yet that this slot is free.
    assert_eq!(worker.enqueue(3..100, true), RunQueue::Behind);
    assert_eq!(worker.receive().slot, Slot(1));
    assert_eq!(worker.shutdown().len(), 1);
    assert_eq!(gates.begun.iter().count(), 3);
}

#[test]
fn what_has_begun_meanwhile_is_not_laid_out_again() {
    let (gates, handler) = Gates::new();
    let mut worker = Worker::new(1, handler);
    worker.slots.start(Slot(0), task(0, ""));
    worker.enqueue([1, 2], true);
    gates.open(0);
    assert_eq!([gates.begun(), gates.begun()], [Seq(0), Seq(1)]);
    // The same again, as for one who has not heard of it.
    worker.enqueue([1, 2, 3], true);
    for (ends, next) in [(0, Some(1)), (1, Some(2)), (2, Some(3)), (3, None)] {
        gates.open(ends);
        let finished = worker.receive();
        assert_eq!(
            (finished.seq, finished.next.map(|begun| begun.seq)),
            (Seq(ends), next.map(Seq))
        );
    }
}

#[test]
fn a_caller_that_checks_by_itself_is_called_only_when_the_run_queue_is_low() {
    let (gates, handler) = Gates::new();
    let mut worker = Worker::new(1, handler);
    worker.slots.start(Slot(0), task(0, ""));
    let end = RUN_QUEUE_TASKS_MIN as u64 + 2;
    assert_eq!(worker.enqueue(1..end, true), RunQueue::Full);
    gates.open(0);
    assert_eq!(worker.look().seq, Seq(0));
    assert!(worker.calls.try_recv().is_err(), "there is enough in the run queue");
    gates.open(1);
    worker.calls.recv_timeout(TIMEOUT).expect("the run queue is low");
    assert_eq!(worker.look().seq, Seq(1));

    assert_eq!(worker.enqueue(3..100, false), RunQueue::Full);
    gates.open(2);
    worker.calls.recv_timeout(TIMEOUT).expect("nobody looks");
}

#[test]
fn a_task_that_was_run_before_is_never_in_the_run_queue_and_its_end_is_called() {
    let (gates, handler) = Gates::new();
    let mut worker = Worker::new(1, handler);
    let again = Task { attempt: Attempt(2), ..task(0, "") };
    worker.slots.start(Slot(0), again.clone());
    assert_eq!(worker.enqueue(1..100, true), RunQueue::Full);
    gates.open(0);
    worker.calls.recv_timeout(TIMEOUT).expect("it was run before");
    assert_eq!(worker.receive().next.map(|begun| begun.seq), Some(Seq(1)));

    assert!(worker.slots.withdraw());
    let waiting = [task(2, ""), Task { seq: Seq(3), ..again }, task(4, "")];
    worker.slots.enqueue(waiting.into_iter(), true);
    gates.open(1);
    assert_eq!(worker.receive().next.map(|begun| begun.seq), Some(Seq(2)));
    gates.open(2);
    assert_eq!(worker.receive().next, None);
}

#[test]
fn a_task_in_the_run_queue_at_the_end_never_begins() {
    let (gates, handler) = Gates::new();
    let mut worker = Worker::new(1, handler);
    worker.slots.start(Slot(0), task(0, ""));
    assert_eq!(gates.begun(), Seq(0));
    worker.enqueue(1..10, true);
    let ended = worker.shutdown();
    assert_eq!(ended.iter().map(|finished| finished.seq).collect::<Vec<_>>(), [Seq(0)]);
    assert_eq!(ended[0].next, None);
    gates.never_begins();
}

/// Has the process to itself: other tests open files and start children, too.
#[test]
fn thousand_runs_leave_no_descriptor_and_no_zombie() {
    const ALONE: &str = "TRADEWIND_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "slots::tests::thousand_runs_leave_no_descriptor_and_no_zombie";
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
    let mut worker = Worker::new(2, command(&["sh", "-c", words, "sh", "{}"]));
    let mut run = |seq: u64| {
        let kind = match seq % 100 {
            99 => "leave",
            n => ["succeed", "fail", "wait", "cannot be started: \0"][(n % 4) as usize],
        };
        let slot = Slot((seq % 2) as u32);
        worker.slots.start(slot, task(seq, kind));
        if kind == "wait" {
            worker.slots.stop(slot, Seq(seq), Attempt::FIRST);
        }
        worker.receive()
    };
    for seq in 0..2 {
        run(seq);
    }
    let before = descriptors();
    for seq in 2..1_002 {
        run(seq);
    }
    assert_eq!(descriptors(), before);
    let child =
        waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT);
    assert_eq!(child.unwrap_err(), Errno::CHILD);
}

#[test]
fn what_ends_well_after_it_was_stopped_has_failed() {
    let mut worker = Worker::new(1, |_: &Task, stop: &StopSignal| {
        stop.wait_timeout(TIMEOUT);
        Outcome::ok("late".into())
    });
    worker.slots.start(Slot(0), task(0, ""));
    worker.slots.stop(Slot(0), Seq(0), Attempt::FIRST);
    let outcome = worker.receive().outcome;
    assert_eq!((outcome.status, outcome.error.as_str()), (Status::Failed, STOPPED));
}

/// A handler whose host lacks something for every task but the first.
struct Lacking;

impl BlockingHandler for Lacking {
    fn run(&self, _: &Task, _: &StopSignal) -> Outcome {
        Outcome::ok(Payload::new())
    }

    fn try_run(&self, task: &Task, stop: &StopSignal) -> Result<Outcome, Unstarted> {
        match task.seq {
            Seq(0) => Ok(self.run(task, stop)),
            _ => Err(Unstarted { lack: Lack::Files, reason: "none left".to_owned() }),
        }
    }
}

#[test]
fn a_task_that_was_not_started_comes_back_whole_and_its_slot_takes_no_other() {
    let mut worker = Worker::new(1, Lacking);
    worker.slots.start(Slot(0), task(0, ""));
    assert_eq!(worker.receive().unstarted, None);
    let late = Task { attempt: Attempt(2), ..task(1, "payload") };
    worker.slots.start(Slot(0), late.clone());
    worker.enqueue(2..20, true);
    let finished = worker.receive();
    let (task, unstarted) = *finished.unstarted.expect("it was not started");
    assert_eq!((task, unstarted.lack), (late, Lack::Files));
    assert_eq!(finished.next, None);
    assert_eq!(worker.shutdown(), []);
}
