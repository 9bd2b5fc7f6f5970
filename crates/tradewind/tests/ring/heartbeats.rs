//! A task may run for as long as it likes.

use std::sync::{Mutex, mpsc};
use std::thread;

use tradewind::{Error, Worker};
use tradewind_lanes::{Door, LaneOptions, PullGate, PushGate};
use tradewind_proto::message::{
    Card, Layout, Limits, News, Report, Role, Status, Task, ToSink, ToWorker,
};
use tradewind_proto::{Attempt, CallId, JobId, Payload, Seq, SessionId, Tag, TaskHash};
use tradewind_wire::{decode, encode};

use crate::{ANY_PORT, PATIENCE};

/// Shows workers that this is whom they were to dial.
fn door(role: Role) -> Door {
    let (session, name) = (SessionId(7), "test".to_owned());
    let card =
        Card { role, session, slots: 0, message_bytes_max: 64 << 20, name, queue: String::new() };
    Door::showing(encode(&card)).unwrap()
}

/// Blocks until it is let go, and lets nothing else run where it does.
fn check(work: impl FnOnce(Worker, mpsc::Receiver<()>) -> Result<(), Error> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (release, released) = mpsc::channel();
    runtime.block_on(async {
        let any = ANY_PORT.parse().unwrap();
        let mut tasks =
            PushGate::bind(&any, LaneOptions::default(), door(Role::Ventilator)).await.unwrap();
        let mut results =
            PullGate::bind(&any, LaneOptions::default(), door(Role::Sink)).await.unwrap();
        let (tasks_at, results_at) = (tasks.endpoint(), results.endpoint());
        let worker = Worker::connect(&tasks_at.to_string(), &results_at.to_string()).unwrap();
        let worker = worker.slots(1).signals(false);
        let handle = worker.handle();
        let worker = thread::spawn(move || work(worker, released));
        let mut lane = tasks.accept().await;
        let mut heard = results.accept().await;

        let job = JobId(1);
        lane.send(encode(&ToWorker::RollCall { job, call: CallId(1), layout: Layout::Unsaid }))
            .unwrap();
        let payload = Payload::from("task");
        let (seq, attempt, tag) = (Seq(0), Attempt::FIRST, Tag::default());
        let task = Task { seq, attempt, last: true, tag, hash: TaskHash::of(&payload), payload };
        let limits = Limits { timeout_us: None, report: Report::default() };
        lane.send(encode(&ToWorker::Tasks { job, limits, tasks: vec![task].into() })).unwrap();

        // One a second, for as long as it runs.
        let mut beats = 0;
        loop {
            let frame = tokio::time::timeout(PATIENCE, heard.recv()).await.expect("it is heard");
            match decode(&frame.unwrap()).unwrap() {
                ToSink::News { news: News::Heartbeat { running: 1, .. }, .. } => beats += 1,
                ToSink::Results { results, .. } => {
                    assert_eq!(results.0[0].outcome.status, Status::Ok);
                    break;
                }
                _ => {}
            }
            if beats == 3 {
                release.send(()).unwrap();
            }
        }
        assert!(beats >= 3);
        handle.quit();
        assert!(matches!(worker.join().unwrap(), Err(Error::Stopped)));
    });
}

#[test]
fn a_closure_that_blocks_does_not_silence_its_worker() {
    check(|worker, released| {
        let released = Mutex::new(released);
        worker.run(move |task, _| released.lock().unwrap().recv().map(|()| task.to_vec()))
    });
}

#[test]
fn a_future_that_blocks_does_not_either() {
    check(|worker, released| {
        let released = std::sync::Arc::new(Mutex::new(released));
        worker.run_async(move |task, _| {
            let released = std::sync::Arc::clone(&released);
            async move { released.lock().unwrap().recv().map(|()| task) }
        })
    });
}
