//! Tasks that bring workers down, the innocent ones beside them, and losses that were none.

use tradewind_proto::collector::Order;
use tradewind_proto::dispatcher::Notice;
use tradewind_proto::limits::{
    DEAF_MIN, LARGE_WAIT_MAX, LOSSES_MAX, MESSAGE_BYTES_MAX, RETURN_GRACE, WORKER_TIMEOUT,
};
use tradewind_proto::message::{Failure, News, Outcome, Status, ToVentilator};
use tradewind_proto::{Attempt, JobKey, LaneId, Payload, Seq, SeqRanges, SessionId};

use tradewind_testkit::{JOB, Ring};

const SECOND: u64 = 1_000_000;

fn ok() -> Outcome {
    Outcome::ok(Payload::from(b"fine"))
}

fn lost(ring: &Ring) -> Vec<u64> {
    let lost = ring.records().into_iter().filter(|record| record.1 == Status::Lost);
    let mut lost: Vec<u64> = lost.map(|record| record.0).collect();
    lost.sort_unstable();
    lost
}

/// Runs a job whose guilty tasks kill the worker that has begun them, with all that runs there; a new
/// worker takes the place of each. Every other task takes a moment. Gives the workers that it took.
fn play(ring: &mut Ring, workers: u64, slots: u32, guilty: &[u64], tasks: usize) -> u64 {
    let mut next = 0;
    let mut join = |ring: &mut Ring| {
        next += 1;
        ring.join(next, slots);
        next
    };
    let mut live: Vec<u64> = (0..workers).map(|_| join(ring)).collect();
    for step in 0..20_000 {
        if ring.records().len() == tasks {
            break;
        }
        for id in &mut live {
            let running = ring.running(*id);
            if running.iter().any(|(seq, _)| guilty.contains(seq)) {
                ring.kill(*id);
                *id = join(ring);
            } else if let Some(slot) = ring.workers[id].running.keys().next().copied() {
                ring.finish(*id, slot, ok());
            }
        }
        ring.pass(if step % 8 == 0 { SECOND } else { 1_000 });
    }
    assert_eq!(ring.records().len(), tasks, "it ends");
    *live.iter().max().expect("there are workers")
}

#[test]
fn exactly_the_guilty_are_lost() {
    for (workers, slots) in [(1, 1), (2, 8), (1, 8), (3, 3)] {
        for losses_max in [1, 2, 3, 5] {
            for (guilty, tasks) in [(vec![5], 30), ((0..50).step_by(5).collect(), 50)] {
                for order in [Order::Seq, Order::Completion] {
                    let mut ring =
                        Ring::with(order, |config| config.policy.losses_max = losses_max);
                    ring.tasks(&vec!["t"; tasks]);
                    ring.dispatcher.handle_input_end();
                    let used = play(&mut ring, workers, slots, &guilty, tasks);
                    assert_eq!(lost(&ring), guilty, "{workers} of {slots} slots, {losses_max}");
                    // An innocent brings nobody down, and a guilty one no more than it may and once
                    // more among others.
                    let most = guilty.len() as u64 * u64::from(losses_max + 1) + workers;
                    assert!(used <= most, "{used} workers of {most}");
                    ring.finish_all();
                    ring.flush();
                }
            }
        }
    }
}

/// The worker of so many slots dies with a task in each.
fn a_large_machine_is_lost(slots: u32, tasks: usize) -> Ring {
    let mut ring = Ring::new(0, Order::Completion);
    ring.join(1, slots);
    ring.tasks(&vec!["t"; tasks]);
    assert_eq!(ring.running(1).len(), slots as usize);
    ring.kill(1);
    ring
}

fn seqs(ring: &Ring, id: u64) -> Vec<u64> {
    ring.running(id).iter().map(|(seq, _)| *seq).collect()
}

#[test]
fn a_suspect_is_beside_no_other_while_there_is_something_else_to_do() {
    let mut ring = a_large_machine_is_lost(16, 100);
    ring.join(2, 16);
    let running = seqs(&ring, 2);
    assert_eq!(running.len(), 16, "no slot is idle: {running:?}");
    assert_eq!(running.iter().filter(|seq| **seq < 16).count(), 1, "{running:?}");
    ring.join(3, 4);
    assert_eq!(seqs(&ring, 3).iter().filter(|seq| **seq < 16).count(), 1);
    // One is done with, so that the next may run there.
    let slot = ring.workers[&2].running.iter().find(|(_, start)| start.task.seq.0 < 16);
    let slot = *slot.expect("it runs").0;
    ring.finish(2, slot, ok());
    assert_eq!(seqs(&ring, 2).iter().filter(|seq| **seq < 16).count(), 1);
    ring.finish_all();
    assert_eq!(ring.records().len(), 100);
}

#[test]
fn suspects_with_losses_to_spare_use_slots_that_nothing_else_needs() {
    let mut ring = a_large_machine_is_lost(16, 16);
    ring.join(2, 16);
    assert_eq!(ring.running(2).len(), 16);
}

#[test]
fn a_suspect_whose_next_loss_is_its_last_runs_alone() {
    let mut ring = Ring::with(Order::Completion, |config| config.policy.losses_max = 2);
    ring.join(1, 2);
    ring.join(2, 2);
    ring.tasks(&["t"; 40]);
    ring.kill(1);
    ring.join(3, 2);
    // One of the two is kept free of all else as soon as it is empty, the other goes on.
    let suspects = [0, 1];
    for _ in 0..30 {
        for id in [2, 3] {
            let running = seqs(&ring, id);
            if running.iter().any(|seq| suspects.contains(seq)) {
                assert_eq!(running.len(), 1, "nothing is beside it");
            }
        }
        let other = [2, 3].into_iter().find(|id| seqs(&ring, *id).iter().all(|seq| *seq > 1));
        let Some(other) = other else { break };
        if let Some(slot) = ring.workers[&other].running.keys().next().copied() {
            ring.finish(other, slot, ok());
        }
    }
    ring.finish_all();
    assert_eq!(ring.records().len(), 40);
    assert_eq!(lost(&ring), []);
}

/// A sink is started again with another key: what it or its ventilator have given so far proves nothing.
fn lose_the_key(ring: &mut Ring) {
    ring.sink.key = JobKey::new([9; 16]);
    ring.restart_sink(Order::Completion);
}

// Found by the simulator. Fails if a worker is taken to be empty while it runs what it was given before the
// sink had another key.
#[test]
fn a_suspect_waits_for_tasks_whose_tags_a_new_sink_does_not_know() {
    let mut ring = Ring::with(Order::Completion, |config| config.policy.losses_max = 2);
    ring.join(1, 2);
    ring.tasks(&["a"]);
    ring.join(2, 2);
    ring.tasks(&["suspect"]);
    assert_eq!(ring.running(2), [(1, 1)]);
    ring.kill(2);
    lose_the_key(&mut ring);
    ring.pass(5 * SECOND);
    assert_eq!(ring.running(1), [(0, 1)]);
    ring.finish(1, 0, ok());
    ring.pass(SECOND);
    assert_eq!(ring.running(1), [(1, 2)], "it has said that it has none");
    ring.finish_all();
    assert_eq!(ring.records().len(), 2);
}

// Fails if what a worker was given before the sink had another key cannot have killed it.
#[test]
fn a_task_is_not_alone_beside_one_whose_tag_a_new_sink_does_not_know() {
    let mut ring = Ring::with(Order::Completion, |config| config.policy.losses_max = 1);
    ring.join(2, 2);
    ring.tasks(&["guilty"]);
    ring.join(1, 1);
    lose_the_key(&mut ring);
    assert_eq!((ring.running(1), ring.running(2)), (vec![(0, 2)], vec![(0, 1)]));
    ring.tasks(&["innocent"]);
    assert_eq!(ring.running(2), [(0, 1), (1, 1)]);
    ring.kill(2);
    ring.pass(2 * WORKER_TIMEOUT.as_micros() as u64);
    assert_eq!(lost(&ring), []);
}

#[test]
fn the_only_worker_that_is_kept_for_a_suspect_still_does_what_the_output_waits_for() {
    let mut ring = Ring::with(Order::Seq, |config| config.policy.losses_max = 1);
    ring.join(1, 2);
    ring.tasks(&["t"; 4]);
    ring.kill(1);
    // Tasks 0 and 1 are suspects, and the sink says that it is full.
    let full = ToVentilator::Receipt {
        job: tradewind_testkit::JOB,
        received: Default::default(),
        stored: Default::default(),
        retry: Default::default(),
        held_bytes: u64::MAX,
        failed: 0,
    };
    ring.say(full);
    ring.join(2, 4);
    assert_eq!(seqs(&ring, 2), [0]);
    ring.finish_all();
    assert_eq!(ring.records().len(), 4);
}

// Found by the simulator: the only worker had run a suspect alone, the full sink left the result there, and the task
// that the sink waited for was kept from a worker that was reserved. Fails without `has_ended`.
#[test]
fn a_worker_whose_suspect_has_ended_does_what_a_full_sink_waits_for() {
    let mut ring = Ring::with(Order::Seq, |config| {
        (config.policy.losses_max, config.policy.retries) = (2, 1);
    });
    ring.join(1, 1);
    ring.join(2, 1);
    ring.tasks(&["t"; 2]);
    ring.kill(2);
    ring.finish(1, 0, crate::failed());
    ring.pass(SECOND);
    let out = |ring: &Ring| ring.dispatcher.snapshot().workers[0].out;
    assert_eq!((ring.running(1), out(&ring)), (vec![(1, 2)], 1), "it runs alone");
    ring.say(ToVentilator::Receipt {
        job: JOB,
        received: Default::default(),
        stored: Default::default(),
        retry: Default::default(),
        held_bytes: u64::MAX,
        failed: 0,
    });
    let beat = |running| {
        let news = News::Heartbeat { running, queued: 0, slots: 1 };
        ToVentilator::Relay { session: SessionId(1), news }
    };
    ring.say(beat(1));
    assert_eq!(out(&ring), 1, "it runs still");
    ring.say(beat(0));
    assert_eq!(out(&ring), 2);
}

/// A worker's lane ends, and that of another connection takes its place.
fn relane(ring: &mut Ring, id: u64, slots: u32) {
    ring.dispatcher.handle_lane_gone(LaneId(id));
    ring.rejoin(id, slots);
}

#[test]
fn a_connection_that_ends_is_no_loss() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    for _ in 0..10 {
        // The task was on its way, and never arrives.
        let worker = ring.workers.get_mut(&1).expect("it has joined");
        let mut other = tradewind_proto::executor::Executor::new(SessionId(1), 1);
        other.handle_sink_connected();
        (worker.executor, worker.running) = (other, Default::default());
        relane(&mut ring, 1, 1);
        ring.pass(SECOND / 2);
    }
    ring.finish_all();
    assert_eq!(ring.records().iter().map(|record| record.1).collect::<Vec<_>>(), [Status::Ok]);
}

#[test]
fn connections_that_end_all_at_once_blame_nobody() {
    let mut ring = Ring::new(0, Order::Seq);
    for id in 1..=u64::from(LOSSES_MAX) + 1 {
        ring.join(id, 1);
    }
    ring.tasks(&["a"]);
    // One after the other has it, and none for long: a switch restarts.
    for _ in 0..LOSSES_MAX {
        let id = (1..9).find(|id| ring.workers.contains_key(id) && !ring.running(*id).is_empty());
        let id = id.expect("somebody has it");
        ring.sink.collector.handle_worker_disconnected(SessionId(id));
        ring.dispatcher.handle_lane_gone(LaneId(id));
        ring.workers.get_mut(&id).expect("it lives").running.clear();
        let executor = tradewind_proto::executor::Executor::new(SessionId(id), 1);
        ring.workers.get_mut(&id).expect("it lives").executor = executor;
        ring.settle();
    }
    ring.pass(SECOND);
    assert_eq!(ring.records(), []);
    for id in 1..=u64::from(LOSSES_MAX) {
        let worker = ring.workers.get_mut(&id).expect("it lives");
        worker.executor.handle_sink_connected();
        ring.sink.collector.handle_worker_connected(SessionId(id), "w");
        ring.rejoin(id, 1);
    }
    for _ in 0..30 {
        ring.pass(SECOND);
    }
    ring.finish_all();
    assert_eq!(lost(&ring), []);
    assert_eq!(ring.records().len(), 1);
}

#[test]
fn a_worker_that_is_heard_by_way_of_the_sink_is_not_dead() {
    let mut ring = Ring::with(Order::Seq, |config| config.policy.losses_max = 1);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    // It does not reach the ventilator any more, for a minute.
    ring.dispatcher.handle_lane_gone(LaneId(1));
    for _ in 0..60 {
        let beat = News::Heartbeat { running: 1, queued: 0, slots: 1 };
        ring.say(ToVentilator::Relay { session: SessionId(1), news: beat });
        ring.pass(SECOND);
        assert_eq!(ring.records(), []);
    }
    ring.rejoin(1, 1);
    ring.finish_all();
    assert_eq!(ring.records(), [(0, Status::Ok, 1)]);
}

#[test]
fn one_that_is_silent_for_long_enough_is_dead() {
    for is_cut in [true, false] {
        let mut ring = Ring::with(Order::Seq, |config| config.policy.losses_max = 1);
        ring.join(1, 1);
        ring.tasks(&["a"]);
        ring.workers.remove(&1);
        if is_cut {
            ring.sink.collector.handle_worker_disconnected(SessionId(1));
        }
        ring.dispatcher.handle_lane_gone(LaneId(1));
        ring.settle();
        let due = if is_cut { RETURN_GRACE } else { WORKER_TIMEOUT }.as_secs();
        for second in 0..due + 2 {
            assert_eq!(ring.records().len(), usize::from(second > due), "after {second} s");
            ring.pass(SECOND);
        }
        assert_eq!(lost(&ring), [0]);
    }
}

#[test]
fn a_loss_that_is_proven_a_death_while_its_task_backs_off_is_judged_after_that() {
    let mut ring = Ring::with(Order::Seq, |config| config.policy.losses_max = 1);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.kill(1);
    // A failure that the worker had reported before is heard late; at this attempt the backoff is
    // longer than it takes to prove the death.
    let failure = Failure { session: SessionId(1), seq: Seq(0), attempt: Attempt(8), ran_us: 1 };
    ring.say(ToVentilator::Receipt {
        job: JOB,
        received: Vec::new().into(),
        stored: SeqRanges::new(),
        retry: vec![failure].into(),
        held_bytes: 0,
        failed: 0,
    });
    ring.join(2, 1);
    for _ in 0..30 {
        ring.pass(SECOND);
    }
    assert_eq!(lost(&ring), [0]);
}

#[test]
fn a_task_goes_to_a_worker_that_it_fits() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join_with(1, 2, 100_000);
    ring.join_with(2, 2, MESSAGE_BYTES_MAX);
    ring.dispatcher.handle_task(Payload::from(vec![b'b'; 200_000]));
    ring.tasks(&["small"; 9]);
    assert_eq!(seqs(&ring, 2)[0], 0);
    assert_eq!(ring.running(1).len(), 2, "what is small is not held up");
    ring.finish_all();
    assert!(ring.records().iter().all(|record| record.1 == Status::Ok));
}

#[test]
fn a_task_that_fits_no_worker_is_failed_with_both_limits() {
    let mut ring = Ring::new(0, Order::Completion);
    ring.dispatcher.handle_task(Payload::from(vec![b'b'; 200_000]));
    ring.tasks(&["small"; 9]);
    ring.pass(20 * SECOND);
    ring.join_with(1, 1, 100_000);
    assert_eq!(seqs(&ring, 1), [1]);
    for _ in 0..LARGE_WAIT_MAX.as_secs() {
        ring.pass(SECOND);
        assert_eq!(ring.records(), [], "a larger one may join");
    }
    ring.pass(2 * SECOND);
    assert_eq!(ring.records(), [(0, Status::Failed, 0)]);
    let error = ring.sink.written[0].outcome.error.clone();
    for part in ["200000 bytes", "100000 bytes", "w1", "67108864"] {
        assert!(error.contains(part), "{part} in {error:?}");
    }
    ring.finish_all();
    assert_eq!(ring.records().len(), 10);
}

#[test]
fn a_worker_that_does_not_hear_what_it_is_given_is_left_without_blame() {
    let mut ring = Ring::with(Order::Seq, |config| config.policy.losses_max = 1);
    ring.join(1, 1);
    ring.swallows = Some(1);
    ring.tasks(&["a"]);
    assert_eq!(ring.running(1), []);
    ring.join(2, 1);
    let most = (DEAF_MIN + WORKER_TIMEOUT).as_secs() + 4;
    for _ in 0..most {
        ring.pass(SECOND);
    }
    assert_eq!(seqs(&ring, 2), [0]);
    let notices: Vec<Notice> = ring.notices.drain(..).collect();
    assert_eq!(notices, [Notice::Deaf { worker: "w1".to_owned(), out: 1 }]);
    ring.finish_all();
    assert_eq!(lost(&ring), []);
}

#[test]
fn old_heartbeats_that_come_all_at_once_say_nothing() {
    let mut ring = Ring::new(0, Order::Seq);
    ring.join(1, 1);
    ring.tasks(&["a"]);
    ring.swallows = Some(1);
    // They were said before it had the task, and waited behind a result for many minutes.
    for _ in 0..1_000 {
        let beat = News::Heartbeat { running: 0, queued: 0, slots: 1 };
        ring.say(ToVentilator::Relay { session: SessionId(1), news: beat });
        ring.now = tradewind_proto::Time(ring.now.0 + SECOND / 50);
    }
    assert_eq!(ring.notices.pop_front(), None);
    assert_eq!(ring.dispatcher.snapshot().workers.len(), 1);
}
