//! One request, and its answer.

use std::net::{IpAddr, Ipv4Addr};

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use tower::ServiceExt;
use tradewind_http::{Access, Limits, Peer, Server, Token};
use tradewind_proto::message::Status;

use tradewind_http::memory::Memory;

/// Token of all tests.
pub(crate) const TOKEN: &[u8] = b"a-token";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// Returns a header, or an empty text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Returns a server that trusts loopback, with small limits.
pub(crate) fn server(memory: &Memory) -> Server {
    let limits =
        Limits { body_bytes_max: 2000, task_bytes_max: 100, tasks_max: 5, ..Limits::default() };
    server_with(memory, limits)
}

pub(crate) fn server_with(memory: &Memory, limits: Limits) -> Server {
    let access = Access::default().with_check(Token::new(TOKEN)).with_loopback();
    Server::new(memory.clone(), access, limits)
}

/// Queues with a task of each state: `jobs-0` has its record, `jobs-1` runs, `jobs-2` waits, with the key
/// `known`; the record of `old-0` is kept no longer, that of `old-1` is. `idle` has no task.
pub(crate) async fn memory() -> Memory {
    let memory = Memory::default();
    let server = server(&memory);
    for (queue, key, task) in [
        ("jobs", "", "zero"),
        ("jobs", "", "one"),
        ("jobs", "known", "two"),
        ("old", "", "zero"),
        ("old", "", "one"),
    ] {
        let path = format!("/v1/queues/{queue}/tasks");
        let headers: &[_] = &[("idempotency-key", key)];
        let headers = if key.is_empty() { &[] } else { headers };
        assert_eq!(ask(&server, "POST", &path, headers, task).await.status, 201);
    }
    assert_eq!(ask(&server, "PUT", "/v1/queues/idle", &[], "").await.status, 201);
    memory.record("jobs-0", Status::Ok);
    memory.start("jobs-1");
    memory.record("old-0", Status::Failed);
    memory.record("old-1", Status::Ok);
    memory.trim("old", 1);
    memory
}

/// Sends a request from loopback and returns the whole answer.
pub(crate) async fn ask(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let response = response(server, method, path, headers, body).await;
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// Sends a request from loopback and returns the answer without having read its body.
pub(crate) async fn response(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> axum::response::Response {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:5560");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.extension(Peer(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    server.router().oneshot(request.body(body.into()).unwrap()).await.unwrap()
}
