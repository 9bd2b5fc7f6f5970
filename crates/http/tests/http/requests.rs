//! What requests do, one after another.

use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use futures::stream::iter;
use tokio::time::Instant;
use tradewind_http::{Limits, NewTask, Refusal};
use tradewind_proto::message::Status;

use crate::ask::{ask, memory, response, server, server_with};
use tradewind_http::memory::Memory;

const NDJSON: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];
const EVENTS: &[(&str, &str)] = &[("accept", "text/event-stream")];

#[tokio::test(start_paused = true)]
async fn a_body_is_one_task_as_it_is_and_lines_are_many_in_their_order() {
    let memory = Memory::default();
    let server = server(&memory);
    let path = "/v1/queues/thumbs/tasks?retries=3&timeout=10m";
    let key: &[_] = &[("idempotency-key", "\"a b\""), ("content-type", "text/plain")];
    let answer = ask(&server, "POST", path, key, vec![0, 255, 10]).await;
    assert_eq!((answer.status, answer.header("location")), (201, "/v1/tasks/thumbs-0"));
    assert_eq!(answer.body, r#"{"id":"thumbs-0","key":"a b"}"#);
    let lines = "{\"task\":\"x\",\"key\":\"k\"}\n\n{\"task_base64\":\"/w==\"}\r\n{\"task\":\"\"}";
    let answer = ask(&server, "POST", "/v1/queues/thumbs/tasks", NDJSON, lines).await;
    let wanted = concat!(
        "{\"id\":\"thumbs-1\",\"key\":\"k\"}\n{\"id\":\"thumbs-2\",\"key\":null}\n",
        "{\"id\":\"thumbs-3\",\"key\":null}\n"
    );
    assert_eq!((answer.status, &*answer.body), (200, wanted));
    let key = |key: &str| Some(key.to_owned().try_into().unwrap());
    let first = NewTask {
        payload: vec![0, 255, 10].into(),
        key: key("a b"),
        retries: Some(3),
        timeout: Some(Duration::from_secs(600)),
    };
    let second = NewTask { payload: "x".into(), key: key("k"), ..NewTask::default() };
    let third = NewTask { payload: vec![255].into(), ..NewTask::default() };
    assert_eq!(memory.tasks("thumbs"), [first, second, third, NewTask::default()]);
}

#[tokio::test(start_paused = true)]
async fn all_tasks_of_a_request_are_taken_or_none() {
    let memory = memory().await;
    let server = server(&memory);
    for lines in [
        "{\"task\":\"new\"}\n{\"task\":1}",
        "{\"task\":\"new\"}\n{\"task\":\"other\",\"key\":\"known\"}",
    ] {
        let answer = ask(&server, "POST", "/v1/queues/jobs/tasks", NDJSON, lines).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        assert_eq!(memory.tasks("jobs").len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_record_or_with_its_time() {
    let memory = memory().await;
    let server = server(&memory);
    let begin = Instant::now();
    let answer = ask(&server, "GET", "/v1/tasks/jobs-1?wait=30s", &[], "").await;
    assert_eq!(begin.elapsed(), Duration::from_secs(30));
    assert_eq!((answer.status, &*answer.body), (200, r#"{"id":"jobs-1","status":"running"}"#));
    let answer = ask(&server, "GET", "/v1/tasks/jobs-1?wait=1h", &[], "").await;
    assert_eq!((begin.elapsed(), answer.status), (Duration::from_secs(90), 200));
    let waiting = ask(&server, "GET", "/v1/tasks/jobs-1?wait=30s", &[], "");
    let recorded = async {
        memory.waiting(1).await;
        memory.record("jobs-1", Status::Failed);
    };
    let (answer, ()) = tokio::join!(waiting, recorded);
    let wanted = r#"{"position":1,"id":"jobs-1","seq":1,"status":"failed"}"#;
    assert_eq!((answer.status, &*answer.body), (200, wanted));
    assert_eq!(begin.elapsed(), Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn a_submit_may_wait_for_its_record_and_is_accepted_without_it() {
    let memory = Memory::default();
    let server = server(&memory);
    let submit = || ask(&server, "POST", "/v1/queues/q/tasks", &[("prefer", "wait=5")], "x");
    let recorded = async {
        memory.waiting(1).await;
        memory.record("q-0", Status::Ok);
    };
    let (answer, ()) = tokio::join!(submit(), recorded);
    let wanted = r#"{"position":0,"id":"q-0","seq":0,"status":"ok"}"#;
    assert_eq!((answer.status, &*answer.body), (200, wanted));
    assert_eq!(answer.header("preference-applied"), "wait=5");
    let answer = submit().await;
    assert_eq!((answer.status, &*answer.body), (202, r#"{"id":"q-1","status":"queued"}"#));
    assert_eq!(answer.header("location"), "/v1/tasks/q-1");
    // It is in the queue, whatever happens while its record is waited for.
    let refused = async {
        memory.waiting(1).await;
        memory.refuse(Refusal::Failed("the disk"));
    };
    let (answer, ()) = tokio::join!(submit(), refused);
    assert_eq!((answer.status, &*answer.body), (201, r#"{"id":"q-2","key":null}"#));
    assert_eq!(answer.header("preference-applied"), "");
}

#[tokio::test(start_paused = true)]
async fn records_are_lines_after_a_position() {
    let memory = Memory::default();
    let server = server_with(&memory, Limits { tasks_max: 10_000, ..Limits::default() });
    let lines = "{\"task\":\"\"}\n".repeat(2500);
    assert_eq!(ask(&server, "POST", "/v1/queues/q/tasks", NDJSON, lines).await.status, 200);
    for seq in 0..2500 {
        let status = if seq % 1000 == 999 { Status::Failed } else { Status::Ok };
        memory.record(&format!("q-{seq}"), status);
    }
    let ids = async |query: &str| {
        let path = format!("/v1/queues/q/records{query}");
        let answer = ask(&server, "GET", &path, &[], "").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
        let line = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["id"], format!("q-{}", record["position"]));
            record["position"].as_u64().unwrap()
        };
        answer.body.lines().map(line).collect::<Vec<_>>()
    };
    assert_eq!(ids("").await, Vec::from_iter(0..2500));
    assert_eq!(ids("?after=2400").await, Vec::from_iter(2401..2500));
    assert_eq!(ids("?after=10&limit=2").await, [11, 12]);
    assert_eq!(ids("?limit=1001").await, Vec::from_iter(0..1001));
    assert_eq!(ids("?status=failed").await, [999, 1999]);
    assert_eq!(ids("?status=lost").await, [0_u64; 0]);
    assert_eq!(ids("?after=18446744073709551615").await, [0_u64; 0]);
    let begin = Instant::now();
    assert_eq!(ids("?after=2499&wait=20").await, [0_u64; 0]);
    assert_eq!(ids("?after=2498&wait=20").await, [2499]);
    assert_eq!(begin.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn events_go_on_where_the_client_was_and_say_that_they_are_there() {
    let memory = Memory::default();
    let server = server(&memory);
    let lines = "{\"task\":\"\"}\n".repeat(4);
    ask(&server, "POST", "/v1/queues/q/tasks", NDJSON, lines).await;
    memory.record("q-0", Status::Ok);
    memory.record("q-1", Status::Failed);
    let headers = &[EVENTS[0], ("last-event-id", "0")];
    let answer = response(&server, "GET", "/v1/queues/q/records?after=77", headers, "").await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut events = answer.into_body().into_data_stream();
    let mut next =
        async || String::from_utf8(events.next().await.unwrap().unwrap().into()).unwrap();
    let event = |position: u64, seq: u64, status: &str| {
        format!(
            "id: {position}\ndata: {{\"position\":{position},\"id\":\"q-{seq}\",\"seq\":{seq},\"status\":\"{status}\"}}\n\n"
        )
    };
    assert_eq!(next().await, event(1, 1, "failed"));
    let begin = Instant::now();
    assert_eq!(next().await, "id: 1\n\n");
    assert_eq!(begin.elapsed(), Limits::default().heartbeat);
    let recorded = async {
        memory.waiting(1).await;
        memory.record("q-3", Status::Lost);
    };
    assert_eq!(tokio::join!(next(), recorded).0, event(2, 3, "lost"));
    let removed = async {
        memory.waiting(1).await;
        memory.refuse(Refusal::UnknownQueue("q".parse().unwrap()));
    };
    let (last, ()) = tokio::join!(next(), removed);
    assert!(last.starts_with("event: problem\ndata: {\"type\":\"urn:tradewind:unknown-queue\""));
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_what_was_asked_for_it() {
    let memory = memory().await;
    let server = server(&memory);
    let answer = response(&server, "GET", "/v1/queues/idle/records", EVENTS, "").await;
    let mut events = answer.into_body().into_data_stream();
    assert_eq!(events.next().await.unwrap().unwrap(), ":\n\n");
    {
        let next = events.next();
        tokio::pin!(next);
        tokio::select! {
            biased;
            _ = &mut next => panic!("there is no record"),
            () = memory.waiting(1) => {}
        }
    }
    drop(events);
    memory.waiting(0).await;
}

#[tokio::test(start_paused = true)]
async fn records_that_end_with_a_failure_end_without_their_end() {
    let memory = Memory::default();
    let server = server_with(&memory, Limits { tasks_max: 10_000, ..Limits::default() });
    let lines = "{\"task\":\"\"}\n".repeat(2000);
    ask(&server, "POST", "/v1/queues/q/tasks", NDJSON, lines).await;
    (0..2000).for_each(|seq| memory.record(&format!("q-{seq}"), Status::Ok));
    let answer = response(&server, "GET", "/v1/queues/q/records", &[], "").await;
    let mut lines = answer.into_body().into_data_stream();
    assert!(lines.next().await.unwrap().is_ok());
    memory.refuse(Refusal::Failed("the disk"));
    assert!(lines.next().await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_drained_waits_for_nothing() {
    let memory = memory().await;
    let server = server(&memory);
    let begin = Instant::now();
    let task = ask(&server, "GET", "/v1/tasks/jobs-1?wait=30s", &[], "");
    let lines = ask(&server, "GET", "/v1/queues/idle/records?wait=30s", &[], "");
    let events = ask(&server, "GET", "/v1/queues/jobs/records", EVENTS, "");
    let drained = async {
        memory.waiting(3).await;
        server.drain();
    };
    let (task, lines, events, ()) = tokio::join!(task, lines, events, drained);
    assert_eq!((task.status, &*task.body), (200, r#"{"id":"jobs-1","status":"running"}"#));
    assert_eq!((lines.status, &*lines.body), (200, ""));
    assert!(events.body.starts_with("id: 0\ndata: {\"position\":0"), "{}", events.body);
    ask(&server, "GET", "/v1/tasks/jobs-1?wait=30s", &[], "").await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_bodies_is_bounded_in_all() {
    let memory = Memory::default();
    let limits = Limits { bodies_bytes_max: 100, ..Limits::default() };
    let server = server_with(&memory, limits);
    let chunks = |count| Body::from_stream(iter((0..count).map(|_| Ok::<_, String>("0123456789"))));
    let path = "/v1/queues/q/tasks";
    let stuck = iter([Ok::<_, String>("0123456789")]).chain(futures::stream::pending());
    let stuck = ask(&server, "POST", path, &[], Body::from_stream(stuck));
    let begin = Instant::now();
    let others = async {
        assert_eq!(ask(&server, "POST", path, &[], chunks(4)).await.status, 201);
        let answer = ask(&server, "POST", path, &[], chunks(5)).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        // They left nothing behind.
        assert_eq!(ask(&server, "POST", path, &[], chunks(4)).await.status, 201);
        assert_eq!(begin.elapsed(), Duration::ZERO);
    };
    let (stuck, ()) = tokio::join!(stuck, others);
    assert_eq!((stuck.status, stuck.header("connection")), (408, "close"));
    assert_eq!(ask(&server, "POST", path, &[], chunks(5)).await.status, 201);
}
