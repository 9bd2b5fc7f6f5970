//! What only a connection shows: what its bytes are, when it ends, how many there are.
//!
//! Sockets where it matters that they are; streams in memory where it is about time, which then passes at
//! once.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tradewind_http::{Limits, NoRoom, Server};
use tradewind_proto::message::Status;

use crate::ask::{memory, server_with};
use tradewind_http::memory::Memory;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Time after which something does not happen any more.
const NEVER: Duration = Duration::from_secs(60);

async fn listen(server: &Server) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, tokio::spawn(server.clone().listen(listener)))
}

/// Sends bytes over a socket, and returns all that comes back until the server closes.
async fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let read = timeout(NEVER, stream.read_to_end(&mut bytes)).await.expect("it is closed");
    let text = String::from_utf8(bytes).unwrap();
    read.unwrap_or_else(|error| panic!("{error}: {text}"));
    text
}

/// Reads until a text has come.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = timeout(NEVER, stream.read_u8()).await.expect(end);
        text.push(byte.unwrap_or_else(|error| panic!("{error}: {text}")).into());
    }
    text
}

/// Returns the statuses of answers, of which each that is none of success is a problem.
fn statuses(answers: &str) -> Vec<u16> {
    let answers = answers.split("HTTP/1.1 ").skip(1).map(|answer| {
        let status: u16 = answer[..3].parse().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if status >= 400 {
            let problem: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
            assert_eq!(problem["status"], status);
            assert!(head.contains("content-type: application/problem+json"), "{head}");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        }
        status
    });
    answers.collect()
}

/// Serves one connection in memory.
fn connect(server: &Server, bytes: usize) -> (DuplexStream, JoinHandle<()>) {
    let (ours, theirs) = duplex(bytes);
    let admission = server.admit(PEER).unwrap();
    (ours, tokio::spawn(server.clone().connection(theirs, admission)))
}

#[tokio::test]
async fn a_connection_has_several_requests_up_to_a_number() {
    let server = server_with(&memory().await, Limits { requests_max: 3, ..Limits::default() });
    let (address, _) = listen(&server).await;
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answers = exchange(&address, request.repeat(5).as_bytes()).await;
    assert_eq!(statuses(&answers), [200, 200, 200]);
    let answers: Vec<_> = answers.split("HTTP/1.1 ").skip(1).collect();
    assert!(!answers[1].contains("connection: close") && answers[2].contains("connection: close"));
}

#[tokio::test]
async fn a_length_that_may_be_understood_in_two_ways_hides_no_second_request() {
    let memory = memory().await;
    let server = server_with(&memory, Limits::default());
    let (address, _) = listen(&server).await;
    // What is after the body would be a request of its own, if the connection went on.
    let hidden =
        "POST /v1/queues/hidden/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let cases = [
        ("Content-Length: 5\r\nContent-Length: 6", "01234", 400),
        ("Content-Length: 5, 6", "01234", 400),
        ("Content-Length: 5, 5", "01234", 400),
        ("Content-Length: +5", "01234", 400),
        ("Content-Length: -5", "01234", 400),
        ("Content-Length: 0x5", "01234", 400),
        ("Content-Length:", "01234", 400),
        ("Content-Length: 99999999999999999999", "01234", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 201),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n", 201),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked, identity", "0\r\n\r\n", 400),
        ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding: identity", "01234", 400),
        ("Transfer-Encoding: xchunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding : chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding:\r\n chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "z\r\n", 400),
        ("Transfer-Encoding: chunked", "-1\r\n", 400),
        ("Transfer-Encoding: chunked", "fffffffffffffffff\r\n", 400),
        ("Transfer-Encoding: chunked", "1\r\nxx\r\n0\r\n\r\n", 400),
        ("Host: other\r\nContent-Length: 0", "", 400),
        ("A: b\0\r\nContent-Length: 0", "", 400),
        ("A b: c\r\nContent-Length: 0", "", 400),
    ];
    for (headers, body, status) in cases {
        let head =
            format!("POST /v1/queues/q/tasks HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n");
        let answers = exchange(&address, format!("{head}{body}{hidden}").as_bytes()).await;
        assert_eq!(statuses(&answers), [status], "{headers} {body}: {answers}");
    }
    assert_eq!(memory.tasks("hidden"), []);
    // And it is one, where the lengths are clear.
    let head =
        "POST /v1/queues/q/tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let bytes = format!("{head}1\r\nx\r\n0\r\n\r\n{hidden}{last}");
    assert_eq!(statuses(&exchange(&address, bytes.as_bytes()).await), [201, 201, 200]);
    assert_eq!(memory.tasks("hidden").len(), 1);
}

#[tokio::test]
async fn a_head_that_is_too_large_or_none_is_a_problem() {
    let limits = Limits { head_bytes_max: 8 << 10, headers_max: 10, ..Limits::default() };
    let server = server_with(&memory().await, limits);
    let (address, _) = listen(&server).await;
    let get = |rest: &str| format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{rest}");
    let long = "x".repeat(9 << 10);
    let cases = [
        (get(&format!("A: {long}\r\n\r\n")), 431),
        (get(&format!("A: {}", "x".repeat(1 << 20))), 431),
        (get(&format!("{}\r\n", "A: b\r\n".repeat(10))), 431),
        (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 431),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /healthz HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".to_owned(), 400),
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), 400),
        (get("Connection: close\r\n\r\n"), 200),
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), 200),
        (
            "CONNECT example.net:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                .to_owned(),
            404,
        ),
    ];
    for (bytes, status) in cases {
        let text = format!("{bytes:.60}");
        let answers = exchange(&address, bytes.as_bytes()).await.replace("HTTP/1.0 ", "HTTP/1.1 ");
        assert_eq!(statuses(&answers), [status], "{text}: {answers}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent_and_while_it_is() {
    let memory = Memory::default();
    let server = server_with(&memory, Limits { body_bytes_max: 100_000, ..Limits::default() });
    let (address, _) = listen(&server).await;
    let head = "POST /v1/queues/q/tasks HTTP/1.1\r\nHost: localhost\r\n";
    let expecting = format!("{head}Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n");
    assert_eq!(statuses(&exchange(&address, expecting.as_bytes()).await), [413]);
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(8));
    assert_eq!(statuses(&exchange(&address, chunked.as_bytes()).await), [413]);
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let fitting =
        format!("{head}Expect: 100-continue\r\nConnection: close\r\nContent-Length: 1\r\n\r\n");
    stream.write_all(fitting.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"x").await.unwrap();
    assert_eq!(statuses(&read_to_end(&mut stream).await), [201]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_and_a_slow_body_end_in_time() {
    let server = server_with(&memory().await, Limits::default());
    let Limits { head_time, body_time, .. } = Limits::default();
    let post = "POST /v1/queues/q/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";
    let healthy = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (bytes, time, wanted) in [
        ("", head_time, &[][..]),
        ("GET /he", head_time, &[408]),
        (healthy, head_time, &[200]),
        (&format!("{healthy}GET"), head_time, &[200]),
        (post, body_time, &[408]),
    ] {
        let begin = Instant::now();
        let (mut client, served) = connect(&server, 1 << 20);
        client.write_all(bytes.as_bytes()).await.unwrap();
        let trickle = bytes.starts_with("POST");
        let mut answers = String::new();
        if trickle {
            // One byte now and then is no reason for more time.
            for _ in 0..20 {
                client.write_all(b"x").await.unwrap();
                tokio::time::advance(Duration::from_secs(2)).await;
            }
        }
        answers += &timeout(10 * NEVER, read_to_end(&mut client)).await.unwrap();
        assert_eq!(statuses(&answers), wanted, "{bytes:?}: {answers}");
        let late = begin.elapsed() - time;
        // The first byte may come before the head is read.
        assert!(late < Duration::from_secs(3), "{bytes:?}: {late:?}");
        drop(client);
        served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_an_answer_ends_in_time() {
    let server = server_with(&memory().await, Limits::default());
    let begin = Instant::now();
    let (mut client, served) = connect(&server, 100);
    client.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    served.await.unwrap();
    let late = begin.elapsed() - Limits::default().stall_time;
    assert!(late < Duration::from_secs(2), "{late:?}");
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_by_address() {
    let limits = Limits { connections_max: 2, connections_per_address_max: 1, ..Limits::default() };
    let server = server_with(&memory().await, limits);
    let (address, _) = listen(&server).await;
    let mut first = TcpStream::connect(&address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut first, "}").await;
    let answers = exchange(&address, b"").await;
    assert_eq!(statuses(&answers), [503]);
    assert!(answers.contains("retry-after: 1\r\n"), "{answers}");
    let second = server.admit("192.0.2.1".parse().unwrap()).unwrap();
    let third = server.admit("192.0.2.2".parse().unwrap());
    assert_eq!(third.unwrap_err(), NoRoom::Connections { max: 2 });
    drop((first, second));
    server.closed().await;
    let last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(statuses(&exchange(&address, last).await), [200]);
}

#[tokio::test]
async fn a_client_that_disconnects_ends_what_was_asked_for_it() {
    let memory = memory().await;
    let server = server_with(&memory, Limits::default());
    let (address, _) = listen(&server).await;
    for (request, begin) in [
        ("GET /v1/queues/jobs/records HTTP/1.1\r\nAccept: text/event-stream", "\n\n\r\n"),
        ("GET /v1/tasks/jobs-1?wait=60 HTTP/1.1", ""),
    ] {
        let mut client = TcpStream::connect(&address).await.unwrap();
        let request = format!("{request}\r\nHost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut client, begin).await;
        memory.waiting(1).await;
        drop(client);
        timeout(NEVER, memory.waiting(0)).await.unwrap();
        timeout(NEVER, server.closed()).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_drained_answers_what_was_asked_and_ends() {
    let memory = memory().await;
    let server = server_with(&memory, Limits::default());
    let (address, listening) = listen(&server).await;
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut idle, "}").await;
    let mut waiting = TcpStream::connect(&address).await.unwrap();
    let request = b"GET /v1/tasks/jobs-1?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    waiting.write_all(request).await.unwrap();
    let mut events = TcpStream::connect(&address).await.unwrap();
    let request = b"GET /v1/queues/jobs/records HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    events.write_all(request).await.unwrap();
    memory.waiting(2).await;
    memory.record("jobs-2", Status::Ok);
    read_until(&mut events, "jobs-2\",\"seq\":2,\"status\":\"ok\"}\n\n\r\n").await;
    memory.waiting(2).await;
    server.drain();
    assert_eq!(read_to_end(&mut idle).await, "");
    let answer = read_to_end(&mut waiting).await;
    assert!(answer.contains("connection: close") && answer.contains("running"), "{answer}");
    // Its last chunk: it is complete.
    assert!(read_to_end(&mut events).await.ends_with("0\r\n\r\n"));
    drop((idle, waiting, events));
    timeout(NEVER, listening).await.unwrap().unwrap();
    assert!(TcpStream::connect(&address).await.is_err());
    assert_eq!(server.admit(PEER).unwrap_err(), NoRoom::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_end_does_not_hold_up_the_end() {
    let server = server_with(&memory().await, Limits::default());
    let (mut client, served) = connect(&server, 1 << 20);
    let begin = Instant::now();
    let head = b"POST /v1/queues/q/tasks HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    client.write_all(head).await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    server.drain();
    served.await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), Limits::default().drain_time.as_secs());
    server.closed().await;
}

#[tokio::test(start_paused = true)]
async fn any_stream_carries_requests_and_the_address_is_the_callers_word() {
    let server = server_with(&memory().await, Limits::default());
    for (peer, status) in [("127.0.0.1", 200), ("::1", 200), ("192.0.2.1", 401)] {
        let (mut ours, theirs) = duplex(1 << 20);
        let admission = server.admit(peer.parse().unwrap()).unwrap();
        let served = tokio::spawn(server.clone().connection(theirs, admission));
        write_request(&mut ours).await;
        assert_eq!(statuses(&read_to_end(&mut ours).await), [status]);
        drop(ours);
        served.await.unwrap();
    }
}

async fn write_request(stream: &mut (impl AsyncWrite + Unpin)) {
    let request = b"GET /v1/queues HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
}
