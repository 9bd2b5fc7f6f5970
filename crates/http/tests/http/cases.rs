//! Each answer that `openapi.json` has, and none that it has not.

use std::collections::BTreeSet as Set;
use std::time::Duration;

use axum::body::Body;
use serde_json::Value;
use tradewind_http::Refusal;

use crate::ask::{Answer, ask, memory, server};

const OPENAPI: &str = include_str!("../../openapi.json");

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";
const PROBLEM: &str = "application/problem+json";

const AS_JSON: &[(&str, &str)] = &[("content-type", JSON)];
const AS_LINES: &[(&str, &str)] = &[("content-type", LINES)];
const AS_PATCH: &[(&str, &str)] = &[("content-type", "application/merge-patch+json")];
const AS_TEXT: &[(&str, &str)] = &[("content-type", "text/plain")];
const WRONG: &[(&str, &str)] = &[("authorization", "Bearer wrong")];
const LAST_EVENT: &[(&str, &str)] = &[("last-event-id", "7")];

/// A request, of a path of the table with its values, and its answer: status, media type, part of the body.
type Case = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    u16,
    &'static str,
    &'static str,
);

/// Cases of one path of the table.
const CASES: &[(&str, &[Case])] = &[
    (
        "/healthz",
        &[
            ("GET", "/healthz", &[], "", 200, JSON, r#"{"status":"ok"}"#),
            ("GET", "/healthz", WRONG, "", 200, JSON, "ok"),
            ("GET", "/healthz?a", &[], "", 400, PROBLEM, "no parameters"),
        ],
    ),
    (
        "/v1/openapi.json",
        &[
            ("GET", "/v1/openapi.json", &[], "", 200, JSON, "\"openapi\": \"3.1.0\""),
            ("GET", "/v1/openapi.json", WRONG, "", 401, PROBLEM, "urn:tradewind:unauthorized"),
        ],
    ),
    (
        "/v1/queues",
        &[
            (
                "GET",
                "/v1/queues",
                &[],
                "",
                200,
                JSON,
                r#"{"queues":[{"name":"idle","paused":false"#,
            ),
            ("GET", "/v1/queues", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
    (
        "/v1/queues/{queue}",
        &[
            (
                "GET",
                "/v1/queues/jobs",
                &[],
                "",
                200,
                JSON,
                r#""queued":1,"running":1,"records":1,"position":0"#,
            ),
            ("GET", "/v1/queues/none", &[], "", 404, PROBLEM, "unknown-queue"),
            ("GET", "/v1/queues/jobs-1", &[], "", 400, PROBLEM, "bad-request"),
            ("GET", "/v1/queues/%ff", &[], "", 400, PROBLEM, "not UTF-8"),
            ("GET", "/v1/queues/%2e%2e", &[], "", 400, PROBLEM, "a name has"),
            ("GET", "/v1/queues/a%2fb", &[], "", 400, PROBLEM, "a name has"),
            (
                "PUT",
                "/v1/queues/new",
                AS_JSON,
                r#"{"retries":3,"keep":"7d"}"#,
                201,
                JSON,
                r#""keep":"7days""#,
            ),
            ("PUT", "/v1/queues/idle", &[], "", 200, JSON, r#""name":"idle""#),
            (
                "PUT",
                "/v1/queues/idle",
                AS_TEXT,
                "{}",
                415,
                PROBLEM,
                "the body is to be application/json",
            ),
            ("PUT", "/v1/queues/idle", AS_JSON, "{\"keep\":\"\\u001b\"}", 422, PROBLEM, r"\\u{1b}"),
            ("PUT", "/v1/queues/idle", AS_JSON, "{", 400, PROBLEM, "EOF"),
            ("PUT", "/v1/queues/idle", AS_JSON, "[1]", 400, PROBLEM, "it is no JSON object"),
            (
                "PATCH",
                "/v1/queues/idle",
                AS_PATCH,
                r#"{"timeout":"10m"}"#,
                200,
                JSON,
                r#""timeout":"10m""#,
            ),
            (
                "PATCH",
                "/v1/queues/idle",
                AS_JSON,
                r#"{"max_running":null}"#,
                200,
                JSON,
                r#""max_running":null"#,
            ),
            ("PATCH", "/v1/queues/none", AS_PATCH, "{}", 404, PROBLEM, "unknown-queue"),
            ("PATCH", "/v1/queues/idle", AS_TEXT, "{}", 415, PROBLEM, "media-type"),
            (
                "PATCH",
                "/v1/queues/idle",
                AS_PATCH,
                r#"{"max_running":0}"#,
                422,
                PROBLEM,
                "at least 1",
            ),
            ("PATCH", "/v1/queues/idle", AS_PATCH, "nil", 400, PROBLEM, "bad-request"),
            ("DELETE", "/v1/queues/idle", &[], "", 204, "", ""),
            ("DELETE", "/v1/queues/none", &[], "", 404, PROBLEM, "unknown-queue"),
            ("DELETE", "/v1/queues/jobs", &[], "", 409, PROBLEM, "not-empty"),
            ("DELETE", "/v1/queues/jobs", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
    (
        "/v1/queues/{queue}/pause",
        &[
            ("POST", "/v1/queues/jobs/pause", &[], "", 200, JSON, r#""paused":true"#),
            ("POST", "/v1/queues/none/pause", &[], "", 404, PROBLEM, "unknown-queue"),
            ("POST", "/v1/queues/jobs/pause", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
    (
        "/v1/queues/{queue}/resume",
        &[
            ("POST", "/v1/queues/jobs/resume", &[], "", 200, JSON, r#""paused":false"#),
            ("POST", "/v1/queues/none/resume", &[], "", 404, PROBLEM, "unknown-queue"),
            ("POST", "/v1/queues/jobs/resume", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
    (
        "/v1/queues/{queue}/tasks",
        &[
            (
                "POST",
                "/v1/queues/jobs/tasks",
                &[],
                "new",
                201,
                JSON,
                r#"{"id":"jobs-3","key":null}"#,
            ),
            ("POST", "/v1/queues/made/tasks", &[], "", 201, JSON, r#"{"id":"made-0","key":null}"#),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                &[("idempotency-key", "known")],
                "two",
                200,
                JSON,
                "jobs-2",
            ),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                &[("idempotency-key", "known")],
                "other",
                422,
                PROBLEM,
                r#""id":"jobs-2""#,
            ),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                &[("prefer", "wait=1")],
                "x",
                202,
                JSON,
                r#""status":"queued""#,
            ),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                AS_LINES,
                "{\"task\":\"a\"}",
                200,
                LINES,
                "{\"id\":\"jobs-3\",\"key\":null}\n",
            ),
            ("POST", "/v1/queues/jobs/tasks", AS_LINES, "", 400, PROBLEM, "the body has no task"),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                AS_LINES,
                "{\"tisk\":\"\"}",
                422,
                PROBLEM,
                "line 1 is no task",
            ),
            (
                "POST",
                "/v1/queues/jobs/tasks?retries=1",
                AS_LINES,
                "{\"task\":\"\"}",
                400,
                PROBLEM,
                "no parameters",
            ),
            ("POST", "/v1/queues/jobs/tasks?retries=4294967296", &[], "", 422, PROBLEM, "retries"),
            ("POST", "/v1/queues/jobs/tasks?timeout=0s", &[], "", 422, PROBLEM, "timeout"),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                &[("content-type", LINES), ("idempotency-key", "a")],
                "{\"task\":\"a\"}",
                400,
                PROBLEM,
                "each line",
            ),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                &[("content-length", "2001")],
                "",
                413,
                PROBLEM,
                "2000 bytes",
            ),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                &[("content-encoding", "gzip")],
                "",
                415,
                PROBLEM,
                "media-type",
            ),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                &[("origin", "https://example.net")],
                "x",
                403,
                PROBLEM,
                "Origin",
            ),
            (
                "POST",
                "/v1/queues/jobs/tasks",
                &[("host", "example.net")],
                "x",
                403,
                PROBLEM,
                "Host",
            ),
            ("POST", "/v1/queues/jobs/tasks", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
    (
        "/v1/queues/{queue}/records",
        &[
            (
                "GET",
                "/v1/queues/jobs/records",
                &[],
                "",
                200,
                LINES,
                r#"{"position":0,"id":"jobs-0","seq":0"#,
            ),
            ("GET", "/v1/queues/old/records", &[], "", 200, LINES, r#"{"position":1,"id":"old-1""#),
            (
                "GET",
                "/v1/queues/jobs/records?limit=1",
                &[("accept", EVENTS)],
                "",
                200,
                EVENTS,
                "id: 0\ndata: {",
            ),
            (
                "GET",
                "/v1/queues/jobs/records?status=done",
                &[],
                "",
                400,
                PROBLEM,
                "status is one of ok, ",
            ),
            (
                "GET",
                "/v1/queues/jobs/records?partition=1",
                &[],
                "",
                404,
                PROBLEM,
                "the queue has no partition 1",
            ),
            (
                "GET",
                "/v1/queues/jobs/records?partition=4294967296",
                &[],
                "",
                422,
                PROBLEM,
                "partition is the number of one",
            ),
            (
                "GET",
                "/v1/queues/jobs/records?follow=1",
                &[],
                "",
                400,
                PROBLEM,
                "after, limit, partition, wait, status",
            ),
            (
                "GET",
                "/v1/queues/jobs/records?limit=0",
                &[],
                "",
                422,
                PROBLEM,
                "limit is at least 1",
            ),
            (
                "GET",
                "/v1/queues/none/records",
                &[("accept", EVENTS)],
                "",
                404,
                PROBLEM,
                "unknown-queue",
            ),
            ("GET", "/v1/queues/old/records?after=0", &[], "", 200, LINES, "old-1"),
            (
                "GET",
                "/v1/queues/jobs/records",
                &[("accept", EVENTS), ("last-event-id", "x")],
                "",
                400,
                PROBLEM,
                "Last-Event-ID",
            ),
            // It is read by nothing but events, and looked at all the same.
            (
                "GET",
                "/v1/queues/jobs/records",
                &[("last-event-id", "x")],
                "",
                400,
                PROBLEM,
                "Last-Event-ID",
            ),
            ("GET", "/v1/queues/old/records?after=0", LAST_EVENT, "", 200, LINES, "old-1"),
            ("GET", "/v1/queues/jobs/records", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
    (
        "/v1/queues/{queue}/consumers/{consumer}",
        &[
            (
                "PUT",
                "/v1/queues/jobs/consumers/c-1",
                AS_JSON,
                r#"{"position":7}"#,
                201,
                JSON,
                r#"{"name":"c-1","position":7}"#,
            ),
            // Whole numbers are whole however they are written.
            (
                "PUT",
                "/v1/queues/jobs/consumers/c-1",
                AS_JSON,
                r#"{"position":7.0}"#,
                201,
                JSON,
                r#"{"name":"c-1","position":7}"#,
            ),
            (
                "PUT",
                "/v1/queues/none/consumers/c",
                AS_JSON,
                r#"{"position":7}"#,
                404,
                PROBLEM,
                "unknown-queue",
            ),
            (
                "PUT",
                "/v1/queues/jobs/consumers/c",
                AS_TEXT,
                r#"{"position":7}"#,
                415,
                PROBLEM,
                "media-type",
            ),
            ("PUT", "/v1/queues/jobs/consumers/c", AS_JSON, "{}", 422, PROBLEM, "missing field"),
            (
                "PUT",
                "/v1/queues/jobs/consumers/c",
                AS_JSON,
                r#"{"position":-1}"#,
                422,
                PROBLEM,
                "bad-value",
            ),
            (
                "PUT",
                "/v1/queues/jobs/consumers/C",
                AS_JSON,
                r#"{"position":1}"#,
                400,
                PROBLEM,
                "a name has",
            ),
            ("PUT", "/v1/queues/jobs/consumers/c", &[], "", 400, PROBLEM, "it is no JSON object"),
            ("GET", "/v1/queues/jobs/consumers/c", &[], "", 404, PROBLEM, "unknown-consumer"),
            ("GET", "/v1/queues/jobs/consumers/c", WRONG, "", 401, PROBLEM, "unauthorized"),
            ("DELETE", "/v1/queues/jobs/consumers/c", &[], "", 404, PROBLEM, "unknown-consumer"),
            ("DELETE", "/v1/queues/jobs/consumers/c", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
    (
        "/v1/queues/{queue}/kept",
        &[
            (
                "GET",
                "/v1/queues/jobs/kept?from=0&count=1&within=1h",
                &[],
                "",
                200,
                JSON,
                r#""needed":false,"positions":[0]"#,
            ),
            ("GET", "/v1/queues/jobs/kept?count=3", &[], "", 200, JSON, r#""needed":true"#),
            ("GET", "/v1/queues/jobs/kept", &[], "", 200, JSON, r#""positions":[]"#),
            ("GET", "/v1/queues/none/kept", &[], "", 404, PROBLEM, "unknown-queue"),
            ("GET", "/v1/queues/jobs/kept?from=a", &[], "", 400, PROBLEM, "a whole number"),
            (
                "GET",
                "/v1/queues/jobs/kept?count=16385",
                &[],
                "",
                422,
                PROBLEM,
                "16384 tasks at most",
            ),
            (
                "GET",
                "/v1/queues/jobs/kept?from=4611686018427387905",
                &[],
                "",
                422,
                PROBLEM,
                "from is a seq",
            ),
            (
                "GET",
                "/v1/queues/none/kept?from=4611686018427387904&count=9",
                &[],
                "",
                404,
                PROBLEM,
                "unknown-queue",
            ),
            ("GET", "/v1/queues/jobs/kept", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
    (
        "/v1/tasks/{id}",
        &[
            (
                "GET",
                "/v1/tasks/jobs-0",
                &[],
                "",
                200,
                JSON,
                r#"{"position":0,"id":"jobs-0","seq":0,"status":"ok"}"#,
            ),
            ("GET", "/v1/tasks/jobs-2", &[], "", 200, JSON, r#"{"id":"jobs-2","status":"queued"}"#),
            ("GET", "/v1/tasks/jobs-9", &[], "", 404, PROBLEM, "unknown-task"),
            ("GET", "/v1/tasks/old-0", &[], "", 410, PROBLEM, "urn:tradewind:gone"),
            ("GET", "/v1/tasks/jobs", &[], "", 400, PROBLEM, "the id of a task"),
            ("GET", "/v1/tasks/jobs-0?wait=soon", &[], "", 400, PROBLEM, "wait is a time"),
            ("HEAD", "/v1/tasks/jobs-0", &[], "", 200, JSON, ""),
            ("DELETE", "/v1/tasks/jobs-0", &[], "", 200, JSON, r#""status":"ok""#),
            ("DELETE", "/v1/tasks/jobs-2", &[], "", 200, JSON, r#""status":"cancelled""#),
            ("DELETE", "/v1/tasks/jobs-1", &[], "", 202, JSON, r#""status":"running""#),
            ("DELETE", "/v1/tasks/jobs-9", &[], "", 404, PROBLEM, "unknown-task"),
            ("DELETE", "/v1/tasks/old-0", &[], "", 410, PROBLEM, "urn:tradewind:gone"),
            ("DELETE", "/v1/tasks/jobs-2", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
    (
        "/v1/tasks/{id}/retry",
        &[
            ("POST", "/v1/tasks/jobs-0/retry", &[], "", 201, JSON, r#"{"id":"jobs-3","key":null}"#),
            (
                "POST",
                "/v1/tasks/jobs-0/retry",
                &[("idempotency-key", "known")],
                "",
                422,
                PROBLEM,
                "other-task",
            ),
            ("POST", "/v1/tasks/jobs-1/retry", &[], "", 409, PROBLEM, "unsettled"),
            ("POST", "/v1/tasks/jobs-9/retry", &[], "", 404, PROBLEM, "unknown-task"),
            ("POST", "/v1/tasks/old-0/retry", &[], "", 410, PROBLEM, "urn:tradewind:gone"),
            ("POST", "/v1/tasks/jobs-0/retry", WRONG, "", 401, PROBLEM, "unauthorized"),
        ],
    ),
];

/// An operation, a status and a media type.
type Seen = (String, String, String);

fn seen(method: &str, path: &str, answer: &Answer) -> Seen {
    let operation = format!("{} {path}", method.replace("HEAD", "GET"));
    (operation, answer.status.to_string(), answer.header("content-type").to_owned())
}

#[tokio::test(start_paused = true)]
async fn each_answer_is_documented_and_each_that_is_documented_is_given() {
    let mut given = Set::new();
    for (path, cases) in CASES {
        for (method, uri, headers, body, status, media_type, part) in *cases {
            let memory = memory().await;
            let answer = ask(&server(&memory), method, uri, headers, *body).await;
            let case = format!("{method} {uri} {headers:?} {body:?}: {answer:?}");
            assert_eq!(answer.status, *status, "{case}");
            assert_eq!(answer.header("content-type"), *media_type, "{case}");
            assert!(answer.body.contains(part), "{part}: {case}");
            assert_eq!(answer.header("cache-control"), "no-store", "{case}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{case}");
            check_problem(&answer);
            given.insert(seen(method, path, &answer));
        }
    }
    given.extend(more_answers().await);
    let documented = documented();
    let explicit = |(operation, status, _): &&Seen| {
        documented.iter().any(|(other, of, _)| other == operation && of == status)
    };
    let (given, defaults): (Set<_>, Set<_>) = given.iter().partition(explicit);
    let defaults = defaults.iter().map(|(operation, _, media_type)| {
        (operation.clone(), "default".to_owned(), media_type.clone())
    });
    let given: Set<Seen> = given.into_iter().cloned().chain(defaults).collect();
    assert_eq!(Vec::from_iter(given.difference(&documented)), Vec::<&Seen>::new(), "undocumented");
    assert_eq!(Vec::from_iter(documented.difference(&given)), Vec::<&Seen>::new(), "never given");
}

/// Returns what takes more than one request to be seen.
async fn more_answers() -> Vec<Seen> {
    let mut given = Vec::new();
    let tasks = "/v1/queues/{queue}/tasks";
    let memory = memory().await;
    let server = server(&memory);
    let pending = Body::from_stream(futures::stream::pending::<Result<&str, String>>());
    let slow = ask(&server, "POST", "/v1/queues/jobs/tasks", &[], pending).await;
    assert_eq!(slow.status, 408);
    given.push(seen("POST", tasks, &slow));
    let consumer = "/v1/queues/{queue}/consumers/{consumer}";
    for (method, status) in [("PUT", 201), ("PUT", 200), ("GET", 200), ("DELETE", 204)] {
        let body = if method == "PUT" { r#"{"position":null}"# } else { "" };
        let answer = ask(&server, method, "/v1/queues/jobs/consumers/c", AS_JSON, body).await;
        assert_eq!(answer.status, status);
        given.push(seen(method, consumer, &answer));
    }
    let key = &[("idempotency-key", "again")];
    for status in [201, 200] {
        let answer = ask(&server, "POST", "/v1/tasks/jobs-0/retry", key, "").await;
        assert_eq!((answer.status, answer.header("location")), (status, "/v1/tasks/jobs-3"));
        given.push(seen("POST", "/v1/tasks/{id}/retry", &answer));
    }
    memory.trim("old", 2);
    let answer = ask(&server, "GET", "/v1/queues/old/records?after=0", &[], "").await;
    assert!(answer.status == 410 && answer.body.contains(r#""first":2"#), "{answer:?}");
    given.push(seen("GET", "/v1/queues/{queue}/records", &answer));
    let retry_after = Duration::from_secs(9);
    memory.refuse(Refusal::Full { what: "the disk is full", retry_after });
    for (method, uri, path) in [
        ("POST", "/v1/queues/jobs/tasks", tasks),
        ("POST", "/v1/tasks/jobs-0/retry", "/v1/tasks/{id}/retry"),
        ("GET", "/healthz", "/healthz"),
    ] {
        let answer = ask(&server, method, uri, &[], "").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "9"));
        given.push(seen(method, path, &answer));
    }
    given
}

/// Checks that what is no success is a problem, and says its status.
fn check_problem(answer: &Answer) {
    if answer.status < 400 {
        return;
    }
    assert_eq!(answer.header("content-type"), PROBLEM, "{answer:?}");
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["status"], answer.status);
    for name in ["type", "title", "detail"] {
        assert!(problem[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {answer:?}");
    }
}

/// Returns what the file says that there is.
fn documented() -> Set<Seen> {
    let file: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut documented = Set::new();
    for (path, methods) in file["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap();
        for (method, operation) in methods.iter().filter(|(name, _)| *name != "parameters") {
            let operation_name = format!("{} {path}", method.to_uppercase());
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response = resolved(&file, response);
                let types = response.get("content").map(|content| content.as_object().unwrap());
                let types = types.map_or(vec![""], |types| types.keys().map(|it| &**it).collect());
                let of = |media_type: &str| {
                    (operation_name.clone(), status.clone(), media_type.to_owned())
                };
                documented.extend(types.into_iter().map(of));
            }
        }
    }
    documented
}

fn resolved<'a>(file: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value.get("$ref") else { return value };
    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
    file.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in the file"))
}

#[test]
fn each_reference_leads_somewhere() {
    fn visit(file: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                resolved(file, value);
                members.values().for_each(|member| visit(file, member));
            }
            Value::Array(values) => values.iter().for_each(|value| visit(file, value)),
            _ => {}
        }
    }
    let file: Value = serde_json::from_str(OPENAPI).unwrap();
    visit(&file, &file);
}

#[tokio::test(start_paused = true)]
async fn what_the_router_refuses_is_a_problem_too() {
    let memory = memory().await;
    let server = server(&memory);
    for (method, uri, status, allow) in [
        ("GET", "/", 404, ""),
        ("GET", "/v1/queues/", 404, ""),
        ("GET", "/v1/tasks/jobs-0/", 404, ""),
        ("GET", "/v1//queues", 404, ""),
        ("GET", "/v1/queues/jobs/tasks", 405, "POST"),
        ("OPTIONS", "/v1/queues/jobs/tasks", 405, "POST"),
        ("POST", "/v1/queues/jobs", 405, "GET, HEAD, PUT, PATCH, DELETE"),
        ("TRACE", "/healthz", 405, "GET, HEAD"),
        ("PROPFIND", "/v1/queues", 405, "GET, HEAD"),
    ] {
        let answer = ask(&server, method, uri, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{method} {uri}");
        check_problem(&answer);
        // What there is, is told to those who may ask.
        let answer = ask(&server, method, uri, WRONG, "").await;
        assert_eq!(answer.status, 401, "{method} {uri}");
    }
    let answer = ask(&server, "GET", "/v1/queues", &[("host", "a"), ("host", "b")], "").await;
    assert_eq!(answer.status, 400);
}
