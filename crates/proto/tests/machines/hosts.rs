//! Hosts at which everything fails, beside others at which it does not.

use tradewind_proto::Payload;
use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::{Notice, TaskLimits};
use tradewind_proto::limits::ELSEWHERE_WAIT_MAX;
use tradewind_proto::message::{Exit, News, Outcome, Status, ToVentilator};
use tradewind_proto::{Seq, SessionId};

use tradewind_testkit::{JOB, Ring};

const SECOND: u64 = 1_000_000;

fn ok() -> Outcome {
    Outcome::ok(Payload::from(b"fine"))
}

fn failed() -> Outcome {
    Outcome { exit: Exit::Code(1), ..Outcome::error(Status::Failed, "exit code 1") }
}

fn notices(ring: &mut Ring) -> Vec<Notice> {
    ring.notices.drain(..).collect()
}

fn not_ok(ring: &Ring) -> usize {
    ring.records().iter().filter(|record| record.1 != Status::Ok).count()
}

/// Lets worker 1 end all that it gets at once, as said, while the others take 100 ms for each task.
fn play(ring: &mut Ring, tasks: usize, first: impl FnMut(&Ring) -> Outcome) {
    play_first(ring, tasks, 1, first);
}

/// The same with so many workers that end all at once.
fn play_first(
    ring: &mut Ring,
    tasks: usize,
    workers: u64,
    mut first: impl FnMut(&Ring) -> Outcome,
) {
    for _ in 0..20_000 {
        if ring.records().len() == tasks {
            return;
        }
        // In turns, a millisecond for each.
        for _ in 0..100 {
            for id in 1..=workers {
                if let Some(slot) = ring.workers[&id].running.keys().next().copied() {
                    let outcome = first(ring);
                    ring.finish_after(id, slot, 1_000, outcome);
                }
            }
        }
        ring.pass(100_000);
        let others: Vec<u64> = ring.workers.keys().copied().filter(|id| *id > workers).collect();
        for id in others {
            let slots: Vec<u32> = ring.workers[&id].running.keys().copied().collect();
            for slot in slots {
                ring.finish_after(id, slot, 100_000, ok());
            }
        }
    }
    panic!("only {} of {tasks} tasks have records", ring.records().len());
}

fn with_three_others(retries: u32, tasks: usize) -> Ring {
    let mut ring = Ring::new(retries, Order::Completion);
    (1..=4).for_each(|id| ring.join(id, 2));
    ring.tasks(&vec!["t"; tasks]);
    ring.dispatcher.handle_input_end();
    ring
}

#[test]
fn a_host_at_which_everything_fails_uses_up_no_retries() {
    for retries in 1..=3 {
        let mut ring = with_three_others(retries, 200);
        play(&mut ring, 200, |_| failed());
        assert_eq!(not_ok(&ring), 0, "with {retries} retries");
        let said = notices(&mut ring);
        assert!(matches!(said[..], [Notice::SetAside { .. }]), "{said:?}");
    }
}

/// The same where each task has another number of retries than the job.
fn with_own_retries(job: u32, retries: u32, tasks: usize) -> Ring {
    let mut ring = Ring::new(job, Order::Completion);
    (1..=4).for_each(|id| ring.join(id, 2));
    let limits = TaskLimits { retries: Some(retries), timeout: None };
    ring.tasks_with(&vec![("t", limits); tasks]);
    ring.dispatcher.handle_input_end();
    ring
}

// Fails if a sick worker is probed, or the last attempt kept for a better one, by the job's number of retries.
#[test]
fn probes_go_by_the_retries_that_tasks_have_of_their_own() {
    let mut ring = with_own_retries(0, 1, 2_000);
    play(&mut ring, 2_000, |ring| if ring.now.0 < 8 * SECOND { failed() } else { ok() });
    assert_eq!(not_ok(&ring), 0);
    let back = Notice::TakenBack { worker: "w1".to_owned() };
    assert_eq!(notices(&mut ring).last(), Some(&back));
    let mut ring = with_own_retries(1, 0, 2_000);
    play(&mut ring, 2_000, |_| failed());
    let said = notices(&mut ring);
    let [Notice::SetAside { ended, .. }] = &said[..] else { panic!("{said:?}") };
    // One more ran beside the last of these.
    assert!((not_ok(&ring) as u64) <= ended + 1 + 3, "{} of {ended}", not_ok(&ring));
}

#[test]
fn two_sick_hosts_do_not_hide_behind_each_other() {
    for retries in 1..=3 {
        let mut ring = with_three_others(retries, 2_000);
        play_first(&mut ring, 2_000, 2, |_| failed());
        assert_eq!(not_ok(&ring), 0, "with {retries} retries");
        let said = notices(&mut ring);
        assert!(matches!(said[..], [Notice::SetAside { .. }, Notice::SetAside { .. }]), "{said:?}");
        for notice in said {
            let Notice::SetAside { ended, .. } = notice else { continue };
            assert!(ended < 200, "{notice}");
        }
    }
}

#[test]
fn even_if_the_others_are_busy_for_long() {
    let mut ring = Ring::new(1, Order::Completion);
    (1..=2).for_each(|id| ring.join(id, 1));
    ring.tasks(&["t"; 4]);
    ring.dispatcher.handle_input_end();
    // Worker 2 is at its first task for an hour.
    for _ in 0..360 {
        while let Some(slot) = ring.workers[&1].running.keys().next().copied() {
            ring.finish_after(1, slot, 1_000, failed());
        }
        ring.pass(10 * SECOND);
    }
    assert_eq!(ring.records(), []);
    ring.finish_after(2, 0, 3_600 * SECOND, ok());
    play(&mut ring, 4, |_| failed());
    assert_eq!(not_ok(&ring), 0);
}

#[test]
fn a_worker_that_fails_much_more_is_set_aside_and_said_to_be() {
    let mut ring = with_three_others(0, 400);
    play(&mut ring, 400, |_| failed());
    let said = notices(&mut ring);
    let [Notice::SetAside { worker, failed, ended, others_failed, others_ended }] = &said[..]
    else {
        panic!("{said:?}");
    };
    assert_eq!((worker.as_str(), *failed, *others_failed), ("w1", *ended, 0));
    assert!(*ended < 40 && *others_ended < 40, "{said:?}");
    assert!(said[0].to_string().contains("worker w1 is set aside"), "{}", said[0]);
    // With no retry each probe costs a record: there are no more than a few.
    assert!((not_ok(&ring) as u64) <= ended + 3, "{} of {ended}", not_ok(&ring));
}

#[test]
fn a_host_that_got_well_gets_tasks_again() {
    let mut ring = with_three_others(1, 2_000);
    play(&mut ring, 2_000, |ring| if ring.now.0 < 8 * SECOND { failed() } else { ok() });
    assert_eq!(not_ok(&ring), 0);
    let said = notices(&mut ring);
    let back = Notice::TakenBack { worker: "w1".to_owned() };
    assert!(matches!(&said[..], [Notice::SetAside { .. }, last] if *last == back), "{said:?}");
    let done = ring.dispatcher.snapshot().workers[0].done;
    assert!(done > 100, "it did {done}");
}

#[test]
fn nobody_is_set_aside_where_everybody_fails() {
    for every in [1, 2, 10] {
        let mut ring = Ring::new(0, Order::Completion);
        (1..=3).for_each(|id| ring.join(id, 2));
        ring.tasks(&["t"; 600]);
        let mut count = 0;
        while ring.records().len() < 600 {
            ring.pass(1_000);
            for id in 1..=3 {
                let slots: Vec<u32> = ring.workers[&id].running.keys().copied().collect();
                for slot in slots {
                    count += 1;
                    ring.finish(id, slot, if count % every == 0 { failed() } else { ok() });
                }
            }
        }
        assert_eq!(notices(&mut ring), [], "every {every}th fails");
    }
}

#[test]
fn the_last_worker_is_never_set_aside() {
    let mut ring = with_three_others(0, 400);
    let tasks = 400;
    // The others leave when it has been set aside.
    while ring.dispatcher.snapshot().settled < 60 {
        while let Some(slot) = ring.workers[&1].running.keys().next().copied() {
            ring.finish_after(1, slot, 1_000, failed());
        }
        ring.pass(100_000);
        for id in 2..=4 {
            let slots: Vec<u32> = ring.workers[&id].running.keys().copied().collect();
            slots.into_iter().for_each(|slot| ring.finish_after(id, slot, 100_000, ok()));
        }
    }
    assert_eq!(notices(&mut ring).len(), 1);
    assert_eq!(ring.running(1), []);
    (2..=4).for_each(|id| ring.kill(id));
    assert_ne!(ring.running(1), [], "there is nobody else");
    play(&mut ring, tasks, |_| failed());
}

#[test]
fn a_worker_gets_no_more_after_so_many_failures() {
    let mut ring =
        Ring::with(Order::Completion, |config| config.policy.worker_failures_max = Some(3));
    (1..=2).for_each(|id| ring.join(id, 1));
    ring.tasks(&["t"; 100]);
    let mut count = 0;
    play(&mut ring, 100, |_| {
        count += 1;
        if count % 2 == 0 { failed() } else { ok() }
    });
    assert_eq!(not_ok(&ring), 3);
    assert!(matches!(notices(&mut ring)[..], [Notice::SetAside { failed: 3, .. }]));
}

#[test]
fn a_retry_waits_a_moment_for_a_host_at_which_it_has_not_failed() {
    let mut ring = Ring::new(1, Order::Completion);
    (1..=2).for_each(|id| ring.join(id, 1));
    ring.tasks(&["t"; 2]);
    // Worker 1 does its tasks well, as a rule.
    for _ in 0..5 {
        ring.tasks(&["t"]);
        ring.finish(1, 0, ok());
    }
    let seq = ring.running(1)[0].0;
    ring.finish(1, 0, failed());
    for _ in 0..ELSEWHERE_WAIT_MAX.as_secs() {
        ring.pass(SECOND);
        assert_eq!(ring.running(1), [], "worker 2 may soon be through");
    }
    (0..3).for_each(|_| ring.pass(SECOND));
    assert_eq!(ring.running(1), [(seq, 2)], "not for ever");
}

#[test]
fn what_a_host_hands_back_because_it_cannot_start_it_goes_to_another() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.join(2, 1);
    ring.tasks(&["b"]);
    let ranges = [Seq(0)].into_iter().collect();
    let worker = ring.workers.get_mut(&1).expect("it has joined");
    let start = worker.running.remove(&0).expect("it runs");
    worker.executor.handle_unstartable(ring.now, start.slot, start.task);
    ring.settle();
    assert_eq!(ring.running(1), []);
    // It has its slot again, but what it could not start waits for the other.
    ring.pass(2 * SECOND);
    assert_eq!(ring.running(1), []);
    ring.finish(2, 0, ok());
    assert_eq!(ring.running(2), [(0, 2)]);
    // A repetition changes nothing.
    ring.say(ToVentilator::Relay {
        session: SessionId(1),
        news: News::Returned { job: JOB, ranges },
    });
    assert_eq!(ring.running(2), [(0, 2)]);
    ring.finish_all();
    assert_eq!(not_ok(&ring), 0);
}

#[test]
fn the_last_attempt_is_for_a_worker_that_has_done_something_well() {
    let mut ring = Ring::new(1, Order::Completion);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.join(2, 1);
    ring.tasks(&["b"]);
    ring.finish(2, 0, ok());
    ring.tasks(&["c"]);
    assert_eq!(ring.running(2), [(2, 1)], "it is busy");
    ring.finish(1, 0, failed());
    // One that nobody knows is idle.
    ring.join(3, 1);
    ring.pass(SECOND);
    assert_eq!(ring.running(3), []);
    ring.finish(2, 0, ok());
    assert_eq!(ring.running(2), [(0, 2)]);
}

#[test]
fn or_for_one_of_which_nothing_is_known_yet_rather_than_where_all_has_failed() {
    let mut ring = Ring::new(1, Order::Completion);
    (1..=3).for_each(|id| ring.join(id, 1));
    ring.tasks(&["a", "b", "c"]);
    let at = |ring: &Ring, id| ring.running(id)[0].0;
    let (first, second) = (at(&ring, 1), at(&ring, 2));
    ring.finish(1, 0, failed());
    ring.finish(2, 0, failed());
    ring.pass(60 * SECOND);
    assert_eq!((ring.running(1), ring.running(2)), (vec![], vec![]), "the third is busy");
    ring.finish(3, 0, ok());
    assert!([first, second].contains(&at(&ring, 3)), "{:?}", ring.running(3));
}
