//! Tasks that handlers get, and records of their answers.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, UnboundedSender};
use tradewind::{Codec, Error, JobOptions, Json, Reply, Worker};

use crate::{brief, run};

#[derive(Deserialize)]
struct Order {
    item: String,
    count: u32,
}

#[derive(Serialize)]
struct Total {
    item: String,
    cents: u64,
}

/// An order of nothing is skipped, and one that costs too much is an error.
fn total(order: Order) -> Result<Reply<Total>, String> {
    match order.count {
        0 => Ok(Reply::Skip),
        1..=9 => Ok(Total { item: order.item, cents: u64::from(order.count) * 50 }.into()),
        count => Err(format!("{count} are too many")),
    }
}

/// Sums of bytes; no sum is above 200.
struct Sums;

impl Codec for Sums {
    type Task = Vec<u8>;
    type Output = u64;
    type Error = &'static str;

    fn decode(&self, task: &[u8]) -> Result<Vec<u8>, &'static str> {
        if task.is_empty() { Err("nothing to add") } else { Ok(task.to_vec()) }
    }

    fn encode(&self, sum: u64) -> Result<Vec<u8>, &'static str> {
        if sum > 200 { Err("too much") } else { Ok(sum.to_string().into()) }
    }
}

fn check(
    tasks: &[&'static str],
    work: impl FnOnce(Worker) -> Result<(), Error> + Send + 'static,
    wanted: &[(&str, &str, &str)],
) {
    let (summary, records) = run(JobOptions::new(), tasks.to_vec(), work);
    assert_eq!(brief(&records), wanted);
    let failed = wanted.iter().filter(|(status, ..)| !["ok", "skipped"].contains(status)).count();
    assert_eq!((summary.tasks, summary.failed), (wanted.len() as u64, failed as u64));
    for record in &records {
        assert_eq!((record.attempt, &*record.worker), (1, "w"));
        assert!(record.started.is_some());
    }
}

#[test]
fn tasks_and_outputs_are_values() {
    const ORDERS: &[&str] = &[
        r#"{"item":"tea","count":3}"#,
        r#"{"item":"rum","count":0}"#,
        r#"{"item":"tar","count":10}"#,
        r#"{"item":"tea"}"#,
        "tea",
    ];
    const TOTALS: &[(&str, &str, &str)] = &[
        ("ok", r#"{"item":"tea","cents":150}"#, ""),
        ("skipped", "", ""),
        ("failed", "", "10 are too many"),
        ("failed", "", "cannot decode the task: missing field `count` at line 1 column 14"),
        ("failed", "", "cannot decode the task: expected ident at line 1 column 2"),
    ];
    let json = Json::<_, Total>::new();
    check(ORDERS, move |worker| worker.typed(json).run(|order, _| total(order)), TOTALS);
    check(
        ORDERS,
        move |worker| worker.typed(json).run_async(|order, _| async { total(order) }),
        TOTALS,
    );
}

#[test]
fn a_codec_is_whatever_a_program_needs() {
    check(
        &["12", "", "~~~~"],
        |worker| {
            worker.typed(Sums).run(|bytes, _| {
                Ok::<_, String>(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>())
            })
        },
        &[
            ("ok", "99", ""),
            ("failed", "", "cannot decode the task: nothing to add"),
            ("failed", "", "cannot encode the output: too much"),
        ],
    );
}

#[test]
fn a_panic_is_its_tasks_failure_and_nothing_else() {
    fn judge(task: &[u8]) -> Result<String, String> {
        match task {
            b"text" => panic!("no {}", "text"),
            b"odd" => std::panic::panic_any(7),
            b"bad" => Err("bad".to_owned()),
            task => Ok(String::from_utf8_lossy(task).into_owned()),
        }
    }
    let tasks = ["a", "text", "odd", "bad", "b"];
    let wanted = [
        ("ok", "a", ""),
        ("failed", "", "the handler panicked: no text"),
        ("failed", "", "the handler panicked: without a message"),
        ("failed", "", "bad"),
        ("ok", "b", ""),
    ];
    check(&tasks, |worker| worker.run(|task, _| judge(task)), &wanted);
    // Before the first await, and after it.
    check(
        &tasks,
        |worker| {
            worker.run_async(|task, _| {
                let judged = judge(&task);
                async { judged }
            })
        },
        &wanted,
    );
    check(
        &tasks,
        |worker| {
            worker.run_async(|task, _| async move {
                tokio::task::yield_now().await;
                judge(&task)
            })
        },
        &wanted,
    );
}

#[test]
fn an_attempt_knows_which_it_is() {
    let options = JobOptions::new().retries(2);
    let (_, records) = run(options, ["a", "b"], |worker| {
        worker.run(|_, context| match (context.seq(), context.attempt()) {
            (1, attempt @ 1..=2) => Err(format!("attempt {attempt}")),
            (seq, attempt) => Ok(format!("{seq} {attempt}")),
        })
    });
    assert_eq!(brief(&records), [("ok", "0 1", ""), ("ok", "1 3", "")]);
}

/// Says that it is dropped.
struct Dropped(UnboundedSender<&'static str>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

#[test]
fn a_closure_sees_that_it_is_to_stop() {
    let options = JobOptions::new().timeout(Duration::from_millis(50));
    let (_, records) = run(options, ["sleeps", "spins", "done"], |worker| {
        worker.run(|task, context| {
            if task == b"sleeps" {
                assert!(context.sleep(Duration::MAX));
            }
            while !context.is_stopped() {
                thread::yield_now();
            }
            if task == b"done" { Ok("too late") } else { Err("nobody sees this") }
        })
    });
    let timed_out = ("timed_out", "", "timed out after 50ms");
    let late = ("timed_out", "too late", "timed out after 50ms");
    assert_eq!(brief(&records), [timed_out, timed_out, late]);
}

#[test]
fn a_future_that_is_to_stop_is_dropped_and_what_it_started_hears_of_it() {
    let (said, heard) = mpsc::unbounded_channel();
    let heard = Arc::new(Mutex::new(heard));
    // What the first attempt leaves behind, the second hears of; if it does not, it times out too.
    let options = JobOptions::new().timeout(Duration::from_millis(500)).retries(1);
    let (_, records) = run(options, ["a"], |worker| {
        worker.run_async(move |_, context| {
            let (said, heard) = (said.clone(), Arc::clone(&heard));
            async move {
                if context.attempt() == 2 {
                    let mut heard = heard.lock().await;
                    let mut both = [heard.recv().await, heard.recv().await];
                    both.sort_unstable();
                    return Ok::<_, String>(format!("{both:?}"));
                }
                let beside = (context.clone(), said.clone());
                tokio::spawn(async move {
                    let (context, said) = beside;
                    context.stopped().await;
                    assert!(context.is_stopped());
                    let _ = said.send("stopped");
                });
                let _dropped = Dropped(said);
                std::future::pending().await
            }
        })
    });
    assert_eq!(brief(&records), [("ok", r#"[Some("dropped"), Some("stopped")]"#, "")]);
    assert_eq!(records[0].attempt, 2);
}

#[test]
fn futures_have_time_and_network_and_wait_beside_one_another() {
    const TASKS: usize = 50;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Answers none before all have asked.
    let server = thread::spawn(move || {
        let mut streams: Vec<_> = (0..TASKS)
            .map(|_| {
                let mut stream = listener.accept().unwrap().0;
                let mut asked = [0; 2];
                stream.read_exact(&mut asked).unwrap();
                (stream, asked)
            })
            .collect();
        for (stream, asked) in &mut streams {
            asked.reverse();
            stream.write_all(asked).unwrap();
        }
    });
    let tasks = (10..10 + TASKS).map(|n| n.to_string());
    let (_, records) = run(JobOptions::new(), tasks.clone().collect::<Vec<_>>(), move |worker| {
        worker.slots(TASKS as u32).run_async(move |task, _| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            stream.write_all(&task).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        })
    });
    server.join().unwrap();
    let reversed = tasks.map(|task| task.chars().rev().collect::<String>());
    assert!(
        records.iter().map(|record| record.output.to_vec()).eq(reversed.map(String::into_bytes))
    );
}

#[test]
fn futures_run_on_the_runtime_that_is_given() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (handle, id) = (runtime.handle().clone(), runtime.handle().id());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let runs = thread::spawn(move || runtime.block_on(ended));
    let (_, records) = run(JobOptions::new(), ["a"], |worker| {
        worker.runtime(handle).run_async(|_, _| async {
            Ok::<_, String>(tokio::runtime::Handle::current().id().to_string())
        })
    });
    assert_eq!(brief(&records), [("ok", &*id.to_string(), "")]);
    drop(end);
    assert!(runs.join().unwrap().is_err());
}

#[test]
fn a_runtime_that_has_ended_fails_tasks_and_holds_up_nobody() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let (_, records) = run(JobOptions::new(), ["a", "b"], |worker| {
        worker.runtime(handle).run_async(|task, _| async { Ok::<_, String>(task) })
    });
    assert_eq!(brief(&records), [("failed", "", "the handler's runtime has ended"); 2]);
}

#[test]
fn a_long_error_is_cut() {
    let (_, records) = run(JobOptions::new(), ["a"], |worker| {
        worker.run_async(|_, _| async { Err::<Bytes, _>("é".repeat(10_000)) })
    });
    assert_eq!(records[0].error, "é".repeat(2_048));
}
