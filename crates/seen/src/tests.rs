//! One world for each rule, and what is told of workers.

use std::time::Duration;

use tradewind_proto::dispatcher::{
    Aside, DispatcherSnapshot, Place, Straggler, WorkerSnapshot, WorkerState,
};
use tradewind_proto::limits::{HELD_BYTES_MAX, UNSETTLED_TASKS_MAX};
use tradewind_proto::{Seq, SessionId, Time};

use crate::{About, Asked, By, End, Look, Runs, State, Tone, Wanted, Watch, text};

/// When all worlds begin, in seconds since 1970.
const BEGAN: f64 = 1_700_000_000.0;

fn worker(number: u64, running: u32, slots: u64) -> WorkerSnapshot {
    WorkerSnapshot {
        session: SessionId(number),
        name: format!("w{number}"),
        slots,
        window: slots * 2,
        out: u64::from(running),
        out_bytes: 0,
        running,
        queued: 0,
        done: 100,
        rate: Some(5.0),
        is_ready: true,
        state: WorkerState::Ready,
        heard: Time(0),
        joined: Time(0),
        first: None,
        failed: 0,
        failed_in_row: 0,
        usual: Some(Duration::from_millis(200)),
        factor: None,
        is_slow: false,
    }
}

/// A job with a thousand tasks, two workers, and all slots busy.
fn world() -> Look {
    let workers = vec![worker(1, 4, 4), worker(2, 4, 4)];
    Look {
        job: tradewind_proto::JobId(7),
        snapshot: DispatcherSnapshot {
            now: Time(0),
            read: 1_000,
            total: Some(1_000),
            settled: 100,
            low_water_mark: Seq(100),
            entries: 900,
            own_limits: 0,
            failed: 0,
            is_sink_open: true,
            is_paused: false,
            is_calling_roll: false,
            kept_bytes: 0,
            held_bytes: 0,
            is_output_stuck: false,
            workers,
            queued: 892,
            delayed: 0,
            delayed_until: None,
            dispatched: 8,
            running: 8,
            received: 0,
            given_up: 0,
            straggler: None,
            retries: 0,
            recalled: 0,
            workers_lost: 0,
            roll_calls: 1,
            stored_at: None,
        },
        about: None,
        busy: Duration::ZERO,
        asked: Asked::Nothing,
        end: None,
        runs: Runs::default(),
        failures: Vec::new(),
        timeout: None,
    }
}

fn about() -> About {
    About {
        role: "ventilator",
        version: "0.1.0",
        host: "here".to_owned(),
        name: "thumbs".to_owned(),
        sink: "tcp://sink:5558".to_owned(),
        tasks: "tcp://here:5557".to_owned(),
        is_queue: false,
    }
}

/// Plays seconds of a world, in each of which it is changed, and returns what is told then.
fn play(seconds: u32, about: About, mut change: impl FnMut(u32, &mut Look)) -> (Watch, Look) {
    let mut watch = Watch::new(about, BEGAN);
    let mut look = world();
    for second in 0..=seconds {
        look.snapshot.now = Time(u64::from(second) * 1_000_000);
        for worker in &mut look.snapshot.workers {
            worker.heard = look.snapshot.now;
        }
        change(second, &mut look);
        watch.note(BEGAN + f64::from(second), look.clone());
    }
    (watch, look)
}

#[track_caller]
fn check(seconds: u32, by: By, line: &str, change: impl FnMut(u32, &mut Look)) -> crate::Status {
    let (watch, _) = play(seconds, about(), change);
    let status = watch.status(&Wanted::default()).expect("it has looked");
    assert_eq!((status.queue.limit.by, &*status.queue.limit.line), (by, line));
    status
}

#[test]
fn a_job_that_has_ended_says_how() {
    let status = check(3, By::Ended, "Finished: all 1,000 tasks have their record.", |_, look| {
        look.snapshot.settled = 1_000;
        look.end = Some(End::Complete);
    });
    assert_eq!(status.queue.state, State::Done);
    let line = "Finished: all 1,000 tasks have their record, 41 of them not ok.";
    let status = check(3, By::Ended, line, |_, look| {
        (look.snapshot.settled, look.snapshot.failed) = (1_000, 41);
        look.end = Some(End::Complete);
    });
    assert_eq!(status.queue.state, State::DoneFailed);
    check(3, By::Ended, "The job was refused: no disk left.", |_, look| {
        look.end = Some(End::Refused("no disk left".to_owned()));
    });
}

#[test]
fn who_asked_for_it_is_told_at_once() {
    check(1, By::Paused, "Draining: 8 tasks still run, none is handed out.", |second, look| {
        look.asked = if second == 1 { Asked::Drain } else { Asked::Nothing };
    });
    let status =
        check(1, By::Paused, "Paused: 1 task still runs, none is handed out.", |_, look| {
            (look.snapshot.is_paused, look.snapshot.running) = (true, 1);
        });
    assert_eq!(status.queue.state, State::Paused);
}

#[test]
fn peers_that_are_not_there_are_named() {
    let line = "Waiting for the sink: nobody answers at tcp://sink:5558 for 12 s.";
    let status = check(12, By::NoSink, line, |_, look| look.snapshot.is_sink_open = false);
    assert_eq!(status.queue.state, State::Waiting);
    let line = "Waiting for workers: none is connected.";
    let status = check(5, By::NoWorkers, line, |_, look| {
        look.snapshot.workers.clear();
        (look.snapshot.dispatched, look.snapshot.running) = (0, 0);
    });
    assert!(
        status
            .queue
            .limit
            .more
            .contains("worker --ventilator tcp://here:5557 --sink tcp://sink:5558")
    );
    check(5, By::RollCall, "Asking 1 worker what they hold, up to 10 s.", |_, look| {
        look.snapshot.is_calling_roll = true;
        look.snapshot.workers[0].is_ready = false;
    });
}

#[test]
fn an_output_that_is_stuck_or_slow_is_the_sinks() {
    let status =
        check(5, By::Sink, "The sink limits: its output takes nothing more.", |_, look| {
            look.snapshot.is_output_stuck = true;
        });
    assert_eq!((status.queue.state, status.queue.limit.tone), (State::Stuck, Tone::Bad));
    let line =
        "The sink limits: 10 MiB wait there for the output, which takes 50 records a second.";
    check(20, By::Sink, line, |second, look| {
        look.snapshot.settled = u64::from(second) * 50;
        look.snapshot.held_bytes = HELD_BYTES_MAX / 16 * 10;
    });
}

#[test]
fn a_job_in_which_nothing_ends_stands_still() {
    let line =
        "Nothing has ended for 62 s. Task #100 at w1 is the first without a record, for 62 s.";
    let status = check(63, By::Stalled, line, |_, look| {
        look.snapshot.straggler = Some(Straggler {
            seq: Seq(100),
            since: Time(1_000_000),
            place: Place::AtWorker {
                session: SessionId(1),
                worker: "w1".to_owned(),
                since: None,
                is_running: true,
            },
        });
    });
    assert_eq!(status.queue.state, State::Stuck);
    assert_eq!(status.queue.eta, None);
    assert_eq!(status.queue.no_eta, "nothing has ended for a while");
    // Tasks that take long are no sign of it.
    let (watch, _) =
        play(100, about(), |_, look| look.runs = Runs::new(vec![(60.0, 0), (61.0, 100)]));
    assert_eq!(watch.limit(), Some(By::Workers));
}

#[test]
fn one_task_may_hold_up_the_rest() {
    check(5, By::Order, "One task holds up the rest.", |_, look| {
        look.snapshot.total = None;
        look.snapshot.read = UNSETTLED_TASKS_MAX + 100;
        (look.snapshot.queued, look.snapshot.running, look.snapshot.dispatched) = (0, 1, 1);
        look.snapshot.workers = vec![worker(1, 1, 4)];
    });
}

#[test]
fn the_last_tasks_are_told() {
    let line = "The last 3 tasks run; 5 slots are idle.";
    check(5, By::Tail, line, |_, look| {
        (look.snapshot.settled, look.snapshot.queued) = (997, 0);
        (look.snapshot.dispatched, look.snapshot.running) = (3, 3);
        look.snapshot.workers = vec![worker(1, 2, 4), worker(2, 1, 4)];
    });
    let line = "2 tasks that failed wait to be tried again, the next in 4.0 s.";
    check(5, By::Retries, line, |_, look| {
        let now = look.snapshot.now;
        (look.snapshot.settled, look.snapshot.queued, look.snapshot.delayed) = (998, 0, 2);
        (look.snapshot.dispatched, look.snapshot.running) = (0, 0);
        look.snapshot.delayed_until = Some(now + Duration::from_secs(4));
        look.snapshot.workers = vec![worker(1, 0, 4)];
    });
}

#[test]
fn an_input_that_is_slow_is_waited_for_and_a_queue_without_tasks_is_idle() {
    let waiting = |_: u32, look: &mut Look| {
        (look.snapshot.total, look.snapshot.queued) = (None, 0);
        (look.snapshot.dispatched, look.snapshot.running) = (3, 3);
        look.snapshot.workers = vec![worker(1, 3, 4), worker(2, 0, 8)];
    };
    check(5, By::Input, "Waiting for input: 3 of 12 slots are busy.", waiting);
    let (watch, _) = play(5, About { is_queue: true, ..about() }, |_, look| {
        (look.snapshot.total, look.snapshot.queued) = (None, 0);
        (look.snapshot.dispatched, look.snapshot.running) = (0, 0);
        look.snapshot.workers = vec![worker(1, 0, 4)];
    });
    let status = watch.status(&Wanted::default()).expect("it has looked");
    assert_eq!(status.queue.limit.line, "Idle: every task has its record.");
    assert_eq!((status.queue.state, status.queue.total), (State::Idle, None));
}

#[test]
fn a_ventilator_and_a_network_that_are_too_slow_are_told_apart() {
    let idle = |second: u32, look: &mut Look| {
        look.snapshot.settled = u64::from(second) * 10;
        look.snapshot.workers = vec![worker(1, 2, 4), worker(2, 0, 4)];
        (look.snapshot.dispatched, look.snapshot.running) = (2, 2);
    };
    let line = "The ventilator limits: its loop is 97 % busy with 10 tasks a second.";
    check(20, By::Ventilator, line, |second, look| {
        idle(second, look);
        look.busy = Duration::from_millis(970) * second;
    });
    let line = "The way to the workers limits: 6 of 8 slots are idle while tasks wait.";
    check(20, By::Workers, line, idle);
    check(
        20,
        By::Workers,
        "Workers limit: 1 is set aside, since their tasks fail.",
        |second, look| {
            idle(second, look);
            let why = Aside::Failures { failed: 20, ended: 21 };
            look.snapshot.workers[1].state = WorkerState::SetAside { why, probe_at: Time(0) };
        },
    );
}

#[test]
fn workers_that_are_all_busy_limit_and_more_of_them_help() {
    let status = check(40, By::Workers, "Workers limit: all 8 slots are busy.", |second, look| {
        look.snapshot.settled = u64::from(second) * 10;
    });
    let eta = status.queue.eta.as_ref().expect("the job is steady");
    assert!((55.0..65.0).contains(&eta.seconds), "{eta:?}");
    let more = "More workers help: 2 more slots would end it about 12 s earlier.";
    assert_eq!(status.queue.limit.more, more);
    assert_eq!(status.queue.progress, Some(0.4));
}

#[test]
fn what_holds_for_a_moment_is_not_told() {
    let (watch, _) = play(20, about(), |second, look| {
        look.snapshot.settled = u64::from(second) * 10;
        look.snapshot.is_sink_open = second != 10;
        if second == 11 {
            look.snapshot.is_sink_open = true;
        }
    });
    assert_eq!(watch.limit(), Some(By::Workers));
    let events: Vec<String> = watch
        .status(&Wanted::default())
        .unwrap()
        .queue
        .events
        .into_iter()
        .map(|event| event.text)
        .collect();
    assert_eq!(events, ["the job began", "the sink is gone", "the sink is there"]);
}

#[test]
fn workers_in_trouble_come_first_with_the_reason() {
    let (watch, _) = play(5, about(), |second, look| {
        let workers = &mut look.snapshot.workers;
        if second == 0 {
            workers.push(worker(3, 0, 4));
            workers.push(worker(4, 4, 4));
        }
        (workers[1].is_slow, workers[1].factor) = (true, Some(2.94));
        workers[2].heard = Time(0);
        let why = Aside::Failures { failed: 20, ended: 21 };
        workers[3].state = WorkerState::SetAside { why, probe_at: Time(0) };
    });
    let queue = watch.status(&Wanted::default()).expect("it has looked").queue;
    let told: Vec<_> =
        queue.workers.iter().map(|worker| (&*worker.name, &*worker.remark)).collect();
    assert_eq!(
        told,
        [
            ("w3", "silent for 5.0 s"),
            ("w4", "sick: 20 of its last 21 tasks failed; gets one now and then"),
            ("w2", "slow: 2.9 × the others"),
            ("w1", ""),
        ]
    );
    assert_eq!(queue.workers_text, "4 workers, 12 of 16 slots busy, 2 in trouble, 1 slow");
    assert_eq!(queue.notes.len(), 2);
    let wanted = Wanted { rows: 1, need: "W2".to_owned(), ..Wanted::default() };
    let queue = watch.status(&wanted).expect("it has looked").queue;
    assert_eq!((queue.workers.len(), queue.workers_found, &*queue.workers[0].name), (1, 1, "w2"));
}

#[test]
fn of_a_thousand_workers_a_page_gets_a_letter_each_and_some_rows() {
    let (watch, _) = play(3, about(), |second, look| {
        if second == 0 {
            look.snapshot.workers = (1..=1_000).map(|number| worker(number, 2, 4)).collect();
        }
    });
    let status = watch.status(&Wanted::default()).expect("it has looked");
    assert_eq!((status.queue.map.len(), status.queue.workers.len()), (1_000, 20));
    assert_eq!(status.queue.map.as_bytes()[0], b'4');
    assert_eq!(watch.crew().len(), 1_000);
    let bytes = serde_json::to_vec(&status).expect("it is JSON").len();
    assert!(bytes < 16_000, "{bytes} bytes");
}

#[test]
fn a_status_is_text_as_well() {
    let (watch, _) = play(40, about(), |second, look| {
        look.snapshot.settled = u64::from(second) * 10;
        look.snapshot.queued = 992 - look.snapshot.settled;
        (look.snapshot.workers[1].is_slow, look.snapshot.workers[1].factor) = (true, Some(2.94));
    });
    let status = watch.status(&Wanted::default()).expect("it has looked");
    let told = text(&status);
    for wanted in [
        "thumbs: running, began 40 s ago, 8 slots of 2 workers, sink at tcp://sink:5558\n",
        "Workers limit: all 8 slots are busy.\n",
        "input has ended > ventilator 0 % busy > [workers limit] > sink keeps up\n",
        "! w2: slow: 2.9 × the others.\n",
        "40 %, 400 of 1,000 tasks, 0 not ok, 10/s, ",
        "400 stored, 8 running, 592 queued\n",
        "w2          4/4         5    200 ms       0  ! slow: 2.9 × the others\n",
    ] {
        assert!(told.contains(wanted), "{wanted:?} in\n{told}");
    }
}
