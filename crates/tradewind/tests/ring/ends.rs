//! Jobs, workers and sinks that end before their time.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tradewind::{Context, Error, JobOptions, Sink, Status, Ventilator, Worker};

use crate::{ANY_PORT, Job, another_job, brief, ring, run, start, worker};

fn echo(task: &[u8], _: &Context<'_>) -> Result<Vec<u8>, String> {
    Ok(task.to_vec())
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

/// Waits for a job that was stopped.
fn assert_stopped(job: Job) {
    let ended = job.join().unwrap();
    assert!(matches!(ended, Err(Error::Stopped)), "{ended:?}");
}

#[test]
fn a_worker_that_drains_leaves_the_rest_to_others() {
    let (ventilator, first, sink) = ring(JobOptions::new());
    let second = worker(&ventilator, &sink).name("second");
    let (handle, (drained, has_drained)) = (first.handle(), mpsc::channel());
    let (job, first) = start((ventilator, first.name("first").slots(1)), numbers(100), |worker| {
        worker.run(move |task, context| {
            // Asked for more than once, it is the same.
            if context.seq() >= 3 {
                handle.drain();
            }
            echo(task, context)
        })
    });
    let first = thread::spawn(move || {
        let ended = first.join().unwrap();
        drained.send(()).unwrap();
        ended
    });
    let records = sink.ordered(false).records().unwrap();
    let second = thread::spawn(move || {
        // It alone is there for the others, once the first has gone.
        has_drained.recv().unwrap();
        second.run(echo)
    });
    let mut records = records.collect::<Result<Vec<_>, _>>().unwrap();
    records.sort_by_key(|record| record.seq);
    first.join().unwrap().unwrap();
    second.join().unwrap().unwrap();
    assert_eq!(job.join().unwrap().unwrap().tasks, 100);
    let outputs: Vec<_> = brief(&records).iter().map(|(_, output, _)| output.to_string()).collect();
    assert_eq!(outputs, numbers(100));
    for (worker, at_least) in [("first", 4), ("second", 1)] {
        let count = records.iter().filter(|record| &*record.worker == worker).count();
        assert!(count >= at_least, "{worker} has run {count}");
    }
}

#[test]
fn a_job_that_drains_ends_with_what_was_handed_out() {
    let (ventilator, worker, sink) = ring(JobOptions::new());
    let handle = ventilator.handle();
    // They never end.
    let (job, worker) =
        start((ventilator, worker), (0_u64..).map(|n| n.to_string()), |worker| worker.run(echo));
    let mut records = Vec::new();
    for record in sink.records().unwrap() {
        records.push(record.unwrap());
        if records.len() == 1_000 {
            handle.drain();
        }
    }
    assert!(records.len() >= 1_000);
    assert!(brief(&records).iter().all(|(status, ..)| *status == "ok"));
    worker.join().unwrap().unwrap();
    assert_stopped(job);
}

#[test]
fn a_job_that_drains_does_not_wait_for_the_next_task() {
    let (ventilator, worker, sink) = ring(JobOptions::new());
    let handle = ventilator.handle();
    let (tasks, given) = mpsc::channel();
    let (job, worker) = start((ventilator, worker), given, |worker| worker.run(echo));
    let mut records = sink.records().unwrap();
    for n in ["0", "1"] {
        tasks.send(n).unwrap();
        assert_eq!(records.next().unwrap().unwrap().output, n);
    }
    handle.drain();
    assert!(records.next().is_none());
    worker.join().unwrap().unwrap();
    assert_stopped(job);
    // Only now no more can be given.
    drop(tasks);
}

#[test]
fn a_job_that_is_cancelled_stops_what_runs() {
    let (ventilator, worker, sink) = ring(JobOptions::new());
    let handle = ventilator.handle();
    let (job, worker) = start((ventilator, worker.slots(2)), numbers(2), move |worker| {
        worker.run(move |_, context| {
            if context.seq() == 1 {
                handle.cancel();
            }
            assert!(context.sleep(Duration::MAX));
            Ok::<_, String>("nobody sees this")
        })
    });
    let records = sink.records().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(brief(&records), [("cancelled", "", "the job was cancelled"); 2]);
    worker.join().unwrap().unwrap();
    assert_stopped(job);
}

#[test]
fn a_program_that_has_seen_enough_ends_the_sink_and_can_end_the_rest() {
    let (ventilator, worker, sink) = ring(JobOptions::new());
    let handles = [ventilator.handle(), worker.handle()];
    let tasks = (0_u64..).map(|n| n.to_string());
    let (job, worker) = start((ventilator, worker), tasks, |worker| worker.run(echo));
    let mut records = sink.records().unwrap();
    for seq in 0..10 {
        assert_eq!(records.next().unwrap().unwrap().seq, seq);
    }
    drop(records);
    handles.iter().for_each(tradewind::Handle::quit);
    assert_stopped(job);
    assert!(matches!(worker.join().unwrap(), Err(Error::Stopped)));
}

#[test]
fn whoever_has_taken_the_last_record_need_not_wait_for_the_end() {
    let (ventilator, worker, sink) = ring(JobOptions::new());
    let (job, worker) = start((ventilator, worker), numbers(10), |worker| worker.run(echo));
    assert_eq!(sink.records().unwrap().take(10).filter(Result::is_ok).count(), 10);
    assert_eq!(job.join().unwrap().unwrap().tasks, 10);
    worker.join().unwrap().unwrap();
}

/// Ways in which a program ends that takes records.
#[derive(Clone, Copy, PartialEq)]
enum Taking {
    All,
    /// It stops its sink after this number of records, and takes those that the sink has.
    Stop(usize),
    /// It takes no more than this number of records.
    Drop(usize),
}

/// Takes records of a thousand tasks, with a file besides; gives their seqs.
fn take(file: &Path, options: &JobOptions, taking: Taking) -> Vec<u64> {
    let (ventilator, worker, sink, records) = loop {
        let (ventilator, worker, sink) = ring(options.clone());
        let stop = sink.handle();
        match sink.output(file).records() {
            Ok(records) => break (ventilator, worker, stop, records),
            // The sink that was dropped is still there, for a moment.
            Err(error) if error.to_string().contains("is in use") => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let handles = [ventilator.handle(), worker.handle(), sink];
    let (job, worker) = start((ventilator, worker), numbers(1_000), |worker| worker.run(echo));
    let mut seqs = Vec::new();
    let mut end = None;
    for record in records {
        match record {
            Ok(record) => seqs.push(record.seq),
            Err(error) => end = Some(error),
        }
        if taking == Taking::Stop(seqs.len()) {
            handles[2].drain();
        }
        if taking == Taking::Drop(seqs.len()) {
            another_job();
            break;
        }
    }
    assert_eq!(matches!(end, Some(Error::Stopped)), matches!(taking, Taking::Stop(_)), "{end:?}");
    if taking == Taking::All {
        assert_eq!(job.join().unwrap().unwrap().tasks, 1_000);
        worker.join().unwrap().unwrap();
    } else {
        handles.iter().for_each(tradewind::Handle::quit);
        assert_stopped(job);
        // It may have left with the ventilator.
        let _ = worker.join().unwrap();
    }
    seqs
}

#[test]
fn what_is_in_the_file_was_taken_and_the_rest_is_given_again() {
    let resume = JobOptions::new().resume().resume_wait(Duration::ZERO);
    for first in [Taking::Stop(300), Taking::Drop(300)] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("records.jsonl");
        let before = take(&file, &JobOptions::new(), first);
        let after = take(&file, &resume, Taking::All);
        assert!(before.iter().copied().eq(0..before.len() as u64));
        // A program that stops its sink takes all that it has, which may be everything, so that
        // nothing comes twice.
        let begin = after.first().copied().unwrap_or(1_000);
        assert!(after.iter().copied().eq(begin..1_000), "{after:?}");
        let is_once = begin == before.len() as u64;
        assert!(is_once || matches!(first, Taking::Drop(count) if begin < count as u64));
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 1_000);
    }
}

#[test]
fn tasks_that_cannot_be_had_are_an_error_after_those_that_could() {
    let check = |fail: fn() -> Result<String, String>, wanted: &str| {
        let (ventilator, worker, sink) = ring(JobOptions::new());
        // A job whose tasks end so goes on with none that was not handed out.
        let (taken, is_taken) = mpsc::channel();
        let job = thread::spawn(move || {
            ventilator.try_run((0..).map(move |n| match n {
                0..2 => Ok(n.to_string()),
                _ => is_taken.recv().map_err(|error| error.to_string()).and_then(|()| fail()),
            }))
        });
        let worker = thread::spawn(move || worker.run(echo));
        let mut records = Vec::new();
        for record in sink.records().unwrap() {
            records.push(record.unwrap());
            if records.len() == 2 {
                taken.send(()).unwrap();
            }
        }
        assert_eq!(brief(&records), [("ok", "0", ""), ("ok", "1", "")]);
        worker.join().unwrap().unwrap();
        let error = job.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Input(_)), "{error:?}");
        assert_eq!((error.to_string(), error.exit_code()), (wanted.to_owned(), 3));
    };
    let gone = "cannot get more tasks: the disk is gone";
    check(|| Err("the disk is gone".to_owned()), gone);
    let panicked = "cannot get more tasks: what gives the tasks panicked";
    check(|| panic!("on purpose"), panicked);
}

#[test]
fn a_task_that_cannot_be_sent_has_a_record() {
    #[derive(serde::Serialize)]
    struct Maps(std::collections::BTreeMap<(u8, u8), u8>);
    let (ventilator, worker, sink) = ring(JobOptions::new());
    let job = thread::spawn(move || {
        let none = std::collections::BTreeMap::new();
        let some = [((1, 2), 3)].into();
        ventilator.run_json([Maps(none), Maps(some)])
    });
    let worker = thread::spawn(move || worker.run(echo));
    let records = sink.records().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let reason = "the task cannot become JSON: key must be a string";
    assert_eq!(brief(&records), [("ok", "{}", ""), ("failed", "", reason)]);
    assert_eq!(job.join().unwrap().unwrap().failed, 1);
    worker.join().unwrap().unwrap();
}

#[test]
fn records_say_what_their_tasks_came_to() {
    let (_, records) =
        run(JobOptions::new(), ["7", "x", ""], |worker| {
            worker.run(|task, _| {
                if task.is_empty() { Err("empty") } else { Ok(Bytes::copy_from_slice(task)) }
            })
        });
    let values: Vec<_> = records.iter().cloned().map(tradewind::Record::json::<u32>).collect();
    assert!(matches!(values[0], Ok(7)));
    let text = |n: usize| values[n].as_ref().unwrap_err().to_string();
    assert_eq!(text(1), "cannot decode the output of task 1: expected value at line 1 column 1");
    assert_eq!(text(2), "task 2 failed: empty");
    let error = records[2].clone().ok().unwrap_err();
    assert_eq!((error.seq, error.status, &*error.error), (2, Status::Failed, "empty"));
}

#[test]
fn what_cannot_be_is_said_before_anything_runs() {
    let check = |error: Error, code: u8, wanted: &str| {
        assert_eq!((error.to_string().as_str(), error.exit_code()), (wanted, code));
    };
    let connect = || Worker::connect("tcp://127.0.0.1:1", "tcp://127.0.0.1:1").unwrap();
    let url = "`http://x` does not start with tcp:// or ipc:// (write it like tcp://127.0.0.1:5557 or \
               ipc:///run/jobs/tasks)";
    check(Worker::connect("http://x", "tcp://127.0.0.1:1").unwrap_err(), 2, url);
    check(Sink::listen("http://x").unwrap_err(), 2, url);
    let slots = "a worker has 1 to 4096 slots, not 0";
    check(connect().slots(0).run(echo).unwrap_err(), 2, slots);
    let name = "a name holds no hidden characters (control, direction, zero width)";
    check(connect().name("a\nb").run(echo).unwrap_err(), 2, name);
    let ventilator = Ventilator::listen(ANY_PORT, ANY_PORT).unwrap().insecure(true);
    let options = JobOptions::new().name("a\nb");
    check(ventilator.options(options).run(["x"]).unwrap_err(), 2, name);

    let keys = || Sink::listen(ANY_PORT).unwrap().keys("/none");
    let missing = "/none: No such file or directory (os error 2)";
    check(keys().records().unwrap_err(), 2, missing);

    let sink = Sink::listen(ANY_PORT).unwrap();
    let taken = format!("{} is taken by another process", sink.results_endpoint());
    check(Sink::listen(&sink.results_endpoint()).unwrap_err(), 5, &taken);
    let missing = "directory \"/none\" of output \"/none/x\" does not exist";
    check(sink.output("/none/x").records().unwrap_err(), 4, missing);
    check(tradewind::map([1], 0, Ok::<i32, String>).map(drop).unwrap_err(), 2, slots);
}

#[test]
fn whom_nobody_answers_gives_up_when_told_to() {
    let soon = Duration::from_millis(50);
    let nobody = {
        let sink = Sink::listen(ANY_PORT).unwrap();
        sink.results_endpoint()
    };
    let check = |error: Error| {
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        assert_eq!(error.exit_code(), 6);
        let wanted = format!("{nobody} was not reached within 50ms");
        assert!(error.to_string().contains(&wanted), "{error}");
    };
    let worker = Worker::connect(&nobody, &nobody).unwrap().insecure(true).signals(false);
    check(worker.connect_timeout(soon).run(echo).unwrap_err());
    let ventilator = Ventilator::listen(ANY_PORT, ANY_PORT).unwrap().sink(&nobody).unwrap();
    check(ventilator.insecure(true).connect_timeout(soon).run(["x"]).unwrap_err());
    let sink = Sink::listen(ANY_PORT).unwrap().ventilator(&nobody).unwrap();
    check(
        sink.insecure(true).connect_timeout(soon).records().unwrap().next().unwrap().unwrap_err(),
    );
}
