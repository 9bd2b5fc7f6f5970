//! HTTP at a server of queues: requests that are slow, endless, too many, or mean one thing here and another elsewhere.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tradewind_e2e::{
    MIB, Process, Scene, Signal, ask, memory_bytes_max, wait_for_as_long_as, wait_until,
};
use tradewind_keys::Role as KeyRole;

use crate::stage::{Stage, Way, token_file};
use crate::suite::{Group, Scenario, Seen};

const PLAIN: &[Way] = &[Way::Plain];

pub(crate) const GROUP: Group = Group {
    name: "requests",
    scenarios: &[
        // The longest first.
        Scenario {
            name: "slow-bodies",
            required: "a body of which a byte a second comes is answered with 408 in time, and gives its place back",
            ways: PLAIN,
            play: slow_bodies,
        },
        Scenario {
            name: "deaf-readers",
            required: "100 clients that read no records are closed in time, and cost a page each",
            ways: PLAIN,
            play: deaf_readers,
        },
        Scenario {
            name: "slow-heads",
            required: "a head of which a byte a second comes is answered with 408 in time",
            ways: PLAIN,
            play: slow_heads,
        },
        Scenario {
            name: "crowd-of-one",
            required: "10,000 connections of one address: others are answered at once, 128 MiB at most",
            ways: PLAIN,
            play: crowd_of_one,
        },
        Scenario {
            name: "crowd-of-many",
            required: "10,000 connections of 40 addresses: there is a place again within 30 s, 128 MiB at most",
            ways: PLAIN,
            play: crowd_of_many,
        },
        Scenario {
            name: "few-files",
            required: "connections beyond the open files: nothing that was promised is lost, and it goes on",
            ways: PLAIN,
            play: few_files,
        },
        Scenario {
            name: "endless-bodies",
            required: "20 bodies without an end are refused; 512 MiB at most",
            ways: PLAIN,
            play: endless_bodies,
        },
        Scenario {
            name: "smuggled",
            required: "a length that may be read in two ways is refused, and what follows is no request",
            ways: PLAIN,
            play: smuggled,
        },
        Scenario {
            name: "odd-heads",
            required: "a head that is too large, or no head, is refused with a status or closed",
            ways: PLAIN,
            play: odd_heads,
        },
        Scenario {
            name: "odd-paths",
            required: "no spelling of a path is another resource, or a file",
            ways: PLAIN,
            play: odd_paths,
        },
        Scenario {
            name: "other-protocols",
            required: "floods of HTTP/2 frames, TLS and ZMTP at the port of HTTP end at once",
            ways: PLAIN,
            play: other_protocols,
        },
        Scenario {
            name: "pipelined",
            required: "2,000 requests in one piece are answered in their order",
            ways: PLAIN,
            play: pipelined,
        },
        Scenario {
            name: "broken-tls",
            required: "plain HTTP and broken handshakes at a port with TLS end, and are answered by nothing",
            ways: &[Way::NoKey],
            play: broken_tls,
        },
    ],
    undefended: &[],
};

/// A server of queues, an honest worker of one of them, and an honest client.
struct Desk {
    serve: Process,
    _worker: Process,
    at: SocketAddrV4,
    url: String,
    /// Number of tasks that the client has submitted.
    tasks: u64,
    /// Open files of the server at rest.
    files: usize,
    scene: Scene,
}

/// Key of the task that is submitted again and again.
const KEY: &str = "hostile-0";

/// Time in which an honest client has to be answered beside hostile ones, with a program's start on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(4);

impl Desk {
    fn start(stage: &Stage) -> Self {
        // Of which a quarter is for HTTP: as many as its usual limit.
        Self::start_with(stage, 8192)
    }

    fn start_with(stage: &Stage, files_max: u32) -> Self {
        let scene = stage.scene();
        // With keys, HTTP has TLS anywhere but on loopback.
        let (http, scheme) = match stage.way {
            Way::Plain => (scene.http().to_string(), "http"),
            _ => ("0.0.0.0:0".to_owned(), "https"),
        };
        let mut serve = scene.serve_at(&http).files_max(files_max).start();
        serve.wait_for_stderr("queues are served");
        let at = address(&serve.stderr());
        let worker = scene.worker("honest0").words("--queue jobs --echo").start();
        let url = format!("{scheme}://{at}");
        let mut desk = Self { serve, _worker: worker, at, url, tasks: 0, files: 0, scene };
        for _ in 0..3 {
            desk.submit();
        }
        // The worker has come, and all that a first task opens is open.
        desk.files = desk.files_open();
        desk
    }

    /// Submits a task with a key of its own, and returns the time that it took until its record was there.
    #[track_caller]
    fn submit(&mut self) -> Duration {
        let began = Instant::now();
        let key = format!("hostile-{}", self.tasks);
        let record = self.submit_as(&key, &format!("task-{}", self.tasks));
        assert_eq!(record["id"], format!("jobs-{}", self.tasks), "{record}");
        assert_eq!(record["status"], "ok", "{record}");
        assert_eq!(record["output"], format!("task-{}", self.tasks), "{record}");
        self.tasks += 1;
        began.elapsed()
    }

    #[track_caller]
    fn submit_as(&self, key: &str, task: &str) -> serde_json::Value {
        let words = ["submit", "jobs", "--wait", "--url", &self.url, "--key", key, task];
        let submit = self.scene.ours("tradewind").args(words).run().expect(0);
        serde_json::from_str(submit.text()).expect("a record is JSON")
    }

    fn files_open(&self) -> usize {
        let path = format!("/proc/{}/fd", self.serve.pid().as_raw_nonzero());
        fs::read_dir(path).expect("the server runs").count()
    }

    /// The most memory that the server has had, in MiB.
    #[track_caller]
    fn memory_mib(&self) -> u64 {
        memory_bytes_max(self.serve.pid()).expect("the server runs") / MIB
    }

    /// Sees to it that all is as if nobody else had asked: the tasks and the records are those of the honest client, a
    /// key is known, the places are free, and the server ends well.
    #[track_caller]
    fn end_untouched(mut self) {
        self.submit();
        let known = self.submit_as(KEY, "task-0");
        assert_eq!(known["id"], "jobs-0");
        let words = ["records", "jobs", "--url", &self.url];
        let records = self.scene.ours("tradewind").args(words).run().expect(0);
        let ids: Vec<String> = records.text().lines().map(id_of).collect();
        let wanted: Vec<String> = (0..self.tasks).map(|seq| format!("jobs-{seq}")).collect();
        assert_eq!(ids, wanted, "the records are those of the honest tasks");
        let words = ["status", "--json", "--url", &self.url];
        let queues = self.scene.ours("tradewind").args(words).run().expect(0);
        assert_eq!(queues.text().lines().count(), 1, "no other queue: {}", queues.text());
        let most = self.files;
        wait_until("all connections are closed", || self.files_open() <= most);
        self.serve.signal(Signal::TERM);
        let serve = self.serve.wait().expect(0);
        assert!(!serve.stderr.contains("panicked"), "{}", serve.stderr);
        assert!(serve.stderr.len() <= 10_000, "{} bytes of log", serve.stderr.len());
    }
}

fn id_of(record: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(record).expect("a record is JSON");
    record["id"].as_str().expect("an id is text").to_owned()
}

/// Returns the address of HTTP that a server has said.
#[track_caller]
fn address(log: &str) -> SocketAddrV4 {
    let at = log.split_once("http=").and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    let at: SocketAddrV4 = at.and_then(|at| at.parse().ok()).expect("it says where it is");
    match at.ip().is_unspecified() {
        true => SocketAddrV4::new(Ipv4Addr::LOCALHOST, at.port()),
        false => at,
    }
}

/// Longest wait for what a server does in its own time: the longest of its limits is a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// Connects from an address of loopback.
fn connect(from: Ipv4Addr, to: SocketAddrV4) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&SocketAddr::from(to).into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Says these bytes, and returns all that is answered until the other end closes the connection.
#[track_caller]
fn say(to: SocketAddrV4, bytes: &[u8]) -> String {
    let mut stream = connect(Ipv4Addr::LOCALHOST, to).expect("it listens");
    // That it is refused in the middle is what is to be seen.
    let _ = stream.write_all(bytes);
    hear(&mut stream)
}

/// Reads until the other end closes the connection.
#[track_caller]
fn hear(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("open after {PATIENCE:?}, with {:?}", String::from_utf8_lossy(&answer))
        }
        // Reset, with what was not read: it is closed.
        Ok(_) | Err(_) => String::from_utf8_lossy(&answer).into_owned(),
    }
}

/// Returns the statuses of the answers in it.
fn statuses(answers: &str) -> Vec<u16> {
    let heads = answers.split("HTTP/1.1 ").skip(1);
    heads.filter_map(|head| head.get(..3)?.parse().ok()).collect()
}

/// Says each of these on a connection of its own, all at a time; returns the answers in their order.
fn say_all(to: SocketAddrV4, all: &[Vec<u8>]) -> Vec<String> {
    thread::scope(|scope| {
        let said: Vec<_> = all.iter().map(|bytes| scope.spawn(move || say(to, bytes))).collect();
        said.into_iter().map(|one| one.join().expect("each connection is closed")).collect()
    })
}

/// Says the head, and then a byte a second, on connections of one address; returns what each is answered, and the
/// longest time that it took. Meanwhile something else is done.
fn trickle(
    to: SocketAddrV4,
    count: usize,
    head: &str,
    meanwhile: impl FnOnce(),
) -> (Vec<String>, Duration) {
    let began = Instant::now();
    thread::scope(|scope| {
        let one = || {
            let mut stream = connect(Ipv4Addr::LOCALHOST, to).expect("it listens");
            stream.write_all(head.as_bytes()).expect("there is a place");
            stream.set_read_timeout(Some(Duration::from_secs(1))).expect("it is a second");
            let mut answer = Vec::new();
            let mut bytes = [0; 1024];
            while began.elapsed() < PATIENCE {
                match stream.read(&mut bytes) {
                    Ok(0) => return String::from_utf8_lossy(&answer).into_owned(),
                    Ok(count) => answer.extend_from_slice(&bytes[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let _ = stream.write_all(b"x");
                    }
                    Err(_) => return String::from_utf8_lossy(&answer).into_owned(),
                }
            }
            panic!("open after {PATIENCE:?}");
        };
        let slow: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        meanwhile();
        let answers = slow.into_iter().map(|one| one.join().expect("each is closed")).collect();
        (answers, began.elapsed())
    })
}

fn all_slow(answers: &[String]) {
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 408 "), "not told that it is slow: {answer:?}");
    }
}

fn slow_heads(stage: &Stage) -> Seen {
    let mut desk = Desk::start(stage);
    let head = "GET /v1/queues HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    let mut honest = Duration::ZERO;
    let (answers, took) = trickle(desk.at, 100, head, || honest = desk.submit());
    assert!(honest < ANSWER_MAX, "it took an honest client {honest:?}");
    all_slow(&answers);
    desk.end_untouched();
    format!("100 heads were ended after {:.0} s", took.as_secs_f64()).into()
}

fn slow_bodies(stage: &Stage) -> Seen {
    let mut desk = Desk::start(stage);
    let head =
        "POST /v1/queues/jobs/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    let mut honest = Duration::ZERO;
    let (answers, took) = trickle(desk.at, 100, head, || honest = desk.submit());
    assert!(honest < ANSWER_MAX, "it took an honest client {honest:?}");
    all_slow(&answers);
    desk.end_untouched();
    format!("100 bodies were ended after {:.0} s", took.as_secs_f64()).into()
}

fn deaf_readers(stage: &Stage) -> Seen {
    let mut desk = Desk::start(stage);
    // Records that no buffer of a socket holds: a page, and more, for each reader.
    let large = format!("{{\"task\":\"{}\"}}\n", "x".repeat(1 << 20)).repeat(32);
    let lines = ["Content-Type: application/x-ndjson"];
    let path = "/v1/queues/large/tasks";
    ask(desk.at, "POST", path, &lines, large.as_bytes()).expect("it is up").expect(200);
    let large = desk.scene.worker("honest1").words("--queue large --echo").start();
    let state = || ask(desk.at, "GET", "/v1/queues/large", &[], b"").expect("it is up").json();
    wait_until("the large records are there", || state()["records"] == 32);
    let readers: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect(Ipv4Addr::LOCALHOST, desk.at).expect("it listens");
            let request = "GET /v1/queues/large/records HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request.as_bytes()).expect("there is a place");
            stream
        })
        .collect();
    let honest = desk.submit();
    assert!(honest < ANSWER_MAX, "it took an honest client {honest:?}");
    let began = Instant::now();
    // The worker's two connections are those that a server of two queues has.
    let most = desk.files + 40;
    wait_for_as_long_as(PATIENCE, "they are closed", || (desk.files_open() <= most).then_some(()));
    let took = began.elapsed();
    drop(readers);
    let memory = desk.memory_mib();
    assert!(memory <= 512, "{memory} MiB");
    drop(large);
    let words = ["queue", "rm", "large", "--url", &desk.url];
    let _ = desk.scene.ours("tradewind").args(words).run().expect(0);
    desk.end_untouched();
    format!("closed after {:.0} s; {memory} MiB", took.as_secs_f64()).into()
}

/// Connects 10,000 times from these addresses, says a part of a head, and keeps what is not closed. Returns what is
/// open.
fn crowd(to: SocketAddrV4, from: &[Ipv4Addr]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for (number, from) in (0..10_000).zip(from.iter().cycle()) {
        // Where the system gives none, there is one less.
        if let Ok(mut stream) = connect(*from, to) {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost");
            open.push(stream);
        }
        if number % 500 == 499 {
            open.retain(is_open);
        }
    }
    open.retain(is_open);
    open
}

/// Returns whether the other end has not closed a connection yet. What it says is not looked at.
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("it is a socket");
    let mut stream = stream;
    let mut bytes = [0; 1 << 12];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn crowd_of_one(stage: &Stage) -> Seen {
    let mut desk = Desk::start(stage);
    let open = crowd(desk.at, &[Ipv4Addr::new(127, 9, 9, 9)]);
    let honest = desk.submit();
    assert!(honest < ANSWER_MAX, "it took an honest client {honest:?}");
    assert!(open.len() <= 256, "{} connections of one address", open.len());
    let memory = desk.memory_mib();
    assert!(memory <= 128, "{memory} MiB");
    let count = open.len();
    drop(open);
    desk.end_untouched();
    format!("answered after {:.1} s beside {count}; {memory} MiB", honest.as_secs_f64()).into()
}

fn crowd_of_many(stage: &Stage) -> Seen {
    let mut desk = Desk::start(stage);
    let from: Vec<Ipv4Addr> = (1..=40).map(|number| Ipv4Addr::new(127, 9, 8, number)).collect();
    let mut open = crowd(desk.at, &from);
    // Of those some have lost their places again.
    let mut from = from.iter().cycle();
    wait_until("all places are taken", || {
        open.extend(from.by_ref().take(200).filter_map(|from| connect(*from, desk.at).ok()));
        desk.files_open() >= desk.files + 1000
    });
    // The client is told to come back until a silent one has lost its place.
    let honest = desk.submit();
    assert!(honest < Duration::from_secs(30), "it took an honest client {honest:?}");
    let memory = desk.memory_mib();
    assert!(memory <= 128, "{memory} MiB");
    drop(open);
    desk.end_untouched();
    format!("answered after {:.1} s, when a place was free; {memory} MiB", honest.as_secs_f64())
        .into()
}

fn few_files(stage: &Stage) -> Seen {
    let mut desk = Desk::start_with(stage, 256);
    let from: Vec<Ipv4Addr> = (1..=40).map(|number| Ipv4Addr::new(127, 9, 7, number)).collect();
    let open: Vec<TcpStream> = (0..2000)
        .zip(from.iter().cycle())
        .filter_map(|(_, from)| {
            let mut stream = connect(*from, desk.at).ok()?;
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost");
            Some(stream)
        })
        .collect();
    drop(open);
    let honest = desk.submit();
    assert!(honest < Duration::from_secs(30), "it took an honest client {honest:?}");
    desk.end_untouched();
    format!("answered after {:.1} s", honest.as_secs_f64()).into()
}

fn endless_bodies(stage: &Stage) -> Seen {
    let mut desk = Desk::start(stage);
    let (to, junk) = (desk.at, vec![b'x'; 1 << 20]);
    let post = "POST /v1/queues/jobs/tasks HTTP/1.1\r\nHost: localhost\r\n";
    let answers = thread::scope(|scope| {
        let endless: Vec<_> = (0..20)
            .map(|number| {
                let junk = &junk;
                scope.spawn(move || {
                    let mut stream = connect(Ipv4Addr::LOCALHOST, to).expect("it listens");
                    let is_chunked = number % 2 == 0;
                    let length = match is_chunked {
                        true => "Transfer-Encoding: chunked",
                        false => "Content-Length: 9000000000",
                    };
                    let head = format!("{post}{length}\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes());
                    let chunk = match is_chunked {
                        true => [&b"100000\r\n"[..], junk, b"\r\n"].concat(),
                        false => junk.clone(),
                    };
                    // Far more than it may have; it is closed before.
                    for _ in 0..500 {
                        if stream.write_all(&chunk).is_err() {
                            break;
                        }
                    }
                    let _ = stream.shutdown(Shutdown::Write);
                    hear(&mut stream)
                })
            })
            .collect();
        let honest = desk.submit();
        assert!(honest < Duration::from_secs(30), "it took an honest client {honest:?}");
        let heard = |one: thread::ScopedJoinHandle<'_, String>| one.join().expect("each is closed");
        endless.into_iter().map(heard).collect::<Vec<String>>()
    });
    // One that sends on may not hear why it was closed.
    let told = answers.iter().flat_map(|answer| statuses(answer));
    let told: Vec<u16> = told.inspect(|it| assert!([413, 503].contains(it), "{it}")).collect();
    let memory = desk.memory_mib();
    assert!(memory <= 512, "{memory} MiB");
    desk.end_untouched();
    format!("{} of 20 were told why; {memory} MiB", told.len()).into()
}

/// A request that must never be taken for one.
const HIDDEN: &str =
    "POST /v1/queues/smuggled/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";

fn smuggled(stage: &Stage) -> Seen {
    let desk = Desk::start(stage);
    let post = "POST /v1/queues/none-such/pause HTTP/1.1\r\nHost: localhost\r\n";
    let hidden = HIDDEN.len();
    let chunk = format!("{hidden:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
    // Of each, the whole is one request that is refused, or none.
    let cases: Vec<String> = vec![
        // Two lengths, of which one ends before the hidden request.
        format!("{post}Content-Length: 0\r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: {hidden}\r\nContent-Length: 0\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: 0, {hidden}\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: +0\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: -1\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: 0x0\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length: 99999999999999999999999\r\n\r\n{HIDDEN}"),
        format!("{post}Content-Length : 0\r\n\r\n{HIDDEN}"),
        // A length and chunks.
        format!("{post}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{HIDDEN}"),
        // Codings that one knows and another does not.
        format!("{post}Transfer-Encoding: identity\r\n\r\n{HIDDEN}"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n{chunk}"),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n{chunk}"),
        format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n{chunk}"),
        format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n{chunk}"),
        format!("{post}Transfer-Encoding:\x0bchunked\r\n\r\n{chunk}"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n{chunk}"),
        format!("{post}Transfer-Encoding\r\n : chunked\r\n\r\n{chunk}"),
        // Chunks with sizes that are none, or too large for a number.
        format!("{post}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{HIDDEN}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{HIDDEN}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n{HIDDEN}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{HIDDEN}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n\r\n\r\n{HIDDEN}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n{HIDDEN}"),
        // Lines that end otherwise, or go on in the next.
        format!("{post}X-Folded: a\r\n Content-Length: {hidden}\r\n\r\n{HIDDEN}"),
        format!("{post}X: a\rContent-Length: 0\r\n\r\n{HIDDEN}"),
        format!("{post}X: a\0b\r\n\r\n{HIDDEN}"),
        format!(
            "POST /v1/queues/none-such/pause HTTP/1.1\nHost: localhost\nContent-Length: {hidden}\n\n{HIDDEN}"
        ),
        // Hosts: none, two, and other versions.
        format!(
            "POST /v1/queues/none-such/pause HTTP/1.1\r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}"
        ),
        format!("{post}Host: localhost\r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}"),
        format!(
            "POST /v1/queues/none-such/pause HTTP/1.2\r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}"
        ),
        format!(
            "POST /v1/queues/none-such/pause HTTP/0.9\r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}"
        ),
        format!(
            "POST /v1/queues/none-such/pause HTTP/1.1 \r\nContent-Length: {hidden}\r\n\r\n{HIDDEN}"
        ),
        format!("POST  /v1/queues/none-such/pause HTTP/1.1\r\n{HIDDEN}"),
        format!("POST\t/v1/queues/none-such/pause\tHTTP/1.1\r\n{HIDDEN}"),
    ];
    let said: Vec<Vec<u8>> = cases.iter().map(|case| case.clone().into_bytes()).collect();
    let answers = say_all(desk.at, &said);
    let mut refused = 0;
    for (case, answer) in cases.iter().zip(&answers) {
        let statuses = statuses(answer);
        assert!(statuses.len() <= 1, "{} answers to {case:?}: {answer}", statuses.len());
        assert!(statuses.iter().all(|it| (400..600).contains(it)), "{case:?}: {answer}");
        refused += statuses.len();
    }
    let hidden = ask(desk.at, "GET", "/v1/queues/smuggled", &[], b"").expect("it is up");
    let _ = hidden.expect(404);
    desk.end_untouched();
    format!("{} ways, {refused} refused with a status, the others closed", cases.len()).into()
}

fn odd_heads(stage: &Stage) -> Seen {
    let desk = Desk::start(stage);
    let get = "GET /v1/queues HTTP/1.1\r\nHost: localhost\r\n";
    let random: Vec<u8> = (0..100_000).map(|_| fastrand::u8(..)).collect();
    let cases: Vec<Vec<u8>> = vec![
        format!("{get}X: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
        format!("{get}{}: x\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
        format!("{get}{}\r\n", "X: x\r\n".repeat(1000)).into_bytes(),
        format!("{get}{}", "X: x\r\n".repeat(100_000)).into_bytes(),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000)).into_bytes(),
        format!("GET /?{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a&".repeat(50_000)).into_bytes(),
        format!("{} / HTTP/1.1\r\nHost: localhost\r\n\r\n", "G".repeat(100_000)).into_bytes(),
        b"\r\n".repeat(100_000),
        b"\0".repeat(100_000),
        b"GET".to_vec().repeat(100_000),
        random,
        b"POST /v1/queues/jobs/tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
          1;a=b\r\nx\r\n0\r\nTrailer: "
            .iter()
            .copied()
            .chain(std::iter::repeat_n(b'x', 1 << 20))
            .collect(),
        [
            &b"POST /v1/queues/jobs/tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;"[..],
            &b"e".repeat(1 << 20),
        ]
        .concat(),
        format!("{get}Authorization: Bearer {}\r\n\r\n", "x".repeat(8000)).into_bytes(),
        format!("{get}Origin: https://example.net\r\nConnection: close\r\n\r\n").into_bytes(),
        format!("{get}Expect: 100-continue\r\nExpect: x\r\nUpgrade: h2c\r\nConnection: close\r\nOrigin: x\r\n\r\n")
            .into_bytes(),
    ];
    let answers = say_all(desk.at, &cases);
    for (case, answer) in cases.iter().zip(&answers) {
        let statuses = statuses(answer);
        let start = String::from_utf8_lossy(&case[..case.len().min(80)]);
        assert!(statuses.iter().all(|it| (400..500).contains(it)), "{start:?}: {answer}");
    }
    let memory = desk.memory_mib();
    assert!(memory <= 128, "{memory} MiB");
    desk.end_untouched();
    format!("{} kinds; {memory} MiB", cases.len()).into()
}

fn odd_paths(stage: &Stage) -> Seen {
    let desk = Desk::start(stage);
    let host = desk.at;
    let request = |method: &str, target: &str| {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        format!("{head}Content-Length: 0\r\n\r\n").into_bytes()
    };
    let paths = [
        "/v1/queues/jobs/../jobs",
        "/v1/queues/%2e%2e/jobs",
        "/v1/queues/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/queues/jobs%00",
        "/v1/queues/jobs%2frecords",
        "/v1/queues/%6aobs/tasks/..",
        "/v1/queues//jobs",
        "//v1/queues/jobs",
        "/v1/queues/jobs/",
        "/v1/queues/jobs/.",
        "/v1/queues/JOBS",
        "/v1/queues/jobs;x=1",
        "/v1/queues/jobs%0d%0aX:%20y",
        "/v1/queues/%ff",
        "/v1/queues/%",
        "/v1/queues/%zz",
        "/v1/tasks/jobs-00",
        "/v1/tasks/jobs-+0",
        "/v1/tasks/jobs-0%20",
        "/v1/tasks/jobs-18446744073709551615",
        "/v1/tasks/jobs-99999999999999999999999999",
        "/v1\\queues\\jobs",
        "/healthz/..",
        "/HEALTHZ",
        "v1/queues/jobs",
        "*",
        "http://",
        "http://localhost",
        "ftp://localhost/v1/queues/none",
    ];
    let mut cases: Vec<Vec<u8>> = paths.iter().map(|path| request("DELETE", path)).collect();
    cases.extend(paths.iter().map(|path| request("GET", path)));
    let others = [
        ("CONNECT", "localhost:80"),
        ("CONNECT", "/v1/queues/jobs"),
        ("TRACE", "/v1/queues/jobs"),
        ("OPTIONS", "*"),
        ("OPTIONS", "/v1/queues/jobs"),
        ("BREW", "/v1/queues/jobs"),
        ("get", "/v1/queues/jobs"),
        ("POST", "/v1/queues/jobs"),
        ("PUT", "/v1/queues/jobs/tasks"),
        ("DELETE", "/v1/queues/jobs/pause"),
    ];
    cases.extend(others.iter().map(|(method, target)| request(method, target)));
    let answers = say_all(host, &cases);
    let mut seen = 0;
    for (case, answer) in cases.iter().zip(&answers) {
        let case = String::from_utf8_lossy(case);
        let line = case.lines().next().unwrap_or_default();
        assert!(!answer.contains("root:"), "{line}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("\r\nx: y"), "{line}: {answer}");
        let statuses = statuses(answer);
        assert!(statuses.iter().all(|it| (400..500).contains(it)), "{line}: {answer}");
        seen += statuses.len();
    }
    desk.end_untouched();
    format!("{} requests, {seen} answered", cases.len()).into()
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(body);
    frame
}

fn other_protocols(stage: &Stage) -> Seen {
    let desk = Desk::start(stage);
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat();
    // Streams that are opened and reset, headers without an end, settings, pings, windows.
    let open = |id| [frame(1, 5, id, b"\x82\x84\x86"), frame(3, 0, id, &[0, 0, 0, 8])].concat();
    let resets: Vec<u8> = (0..20_000).flat_map(|number| open(2 * number + 1)).collect();
    let endless = frame(9, 0, 1, &[0; 1024]).repeat(2_000);
    let floods = [
        resets,
        [frame(1, 1, 1, b"\x82\x84\x86"), endless].concat(),
        frame(4, 0, 0, &[0, 3, 0, 0, 0, 1]).repeat(50_000),
        frame(6, 0, 0, &[0; 8]).repeat(50_000),
        frame(8, 0, 0, &[0, 0, 0, 1]).repeat(50_000),
    ];
    let mut cases: Vec<Vec<u8>> =
        floods.iter().map(|flood| [&preface[..], flood].concat()).collect();
    cases.push(client_hello());
    cases.push([&crate::peer::greeting()[..], &crate::peer::ready(b"PULL", b"x")].concat());
    cases.push(b"SSH-2.0-x\r\n".to_vec());
    cases.push(b"EHLO x\r\nMAIL FROM: x\r\n".to_vec());
    cases.push(b"*1\r\n$4\r\nPING\r\n".to_vec());
    let began = Instant::now();
    let answers = say_all(desk.at, &cases);
    for answer in &answers {
        let statuses = statuses(answer);
        assert!(statuses.len() <= 1, "{} answers: {answer}", statuses.len());
        assert!(statuses.iter().all(|it| (400..600).contains(it)), "{answer}");
    }
    let memory = desk.memory_mib();
    assert!(memory <= 128, "{memory} MiB");
    desk.end_untouched();
    let took = began.elapsed();
    format!("{} kinds ended within {:.1} s", cases.len(), took.as_secs_f64()).into()
}

/// The begin of a handshake of TLS: a record that says to be longer than it is.
fn client_hello() -> Vec<u8> {
    [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 300]].concat()
}

fn pipelined(stage: &Stage) -> Seen {
    let desk = Desk::start(stage);
    let request = |number: u32, last: &str| {
        format!("GET /v1/tasks/none-{number} HTTP/1.1\r\nHost: localhost\r\n{last}\r\n")
    };
    let mut all: String = (0..1999).map(|number| request(number, "")).collect();
    all += &request(1999, "Connection: close\r\n");
    let answer = thread::scope(|scope| {
        let mut stream = connect(Ipv4Addr::LOCALHOST, desk.at).expect("it listens");
        let mut writer = stream.try_clone().expect("there is a file");
        let writing = scope.spawn(move || writer.write_all(all.as_bytes()));
        let answer = hear(&mut stream);
        writing.join().expect("it does not panic").expect("all of it is read");
        answer
    });
    let statuses = statuses(&answer);
    assert!(statuses.iter().all(|it| *it == 404), "{answer}");
    assert_eq!(statuses.len(), 2000);
    desk.end_untouched();
    "2,000 answers".into()
}

fn broken_tls(stage: &Stage) -> Seen {
    let mut desk = Desk::start(stage);
    let get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let random: Vec<u8> = (0..10_000).map(|_| fastrand::u8(..)).collect();
    let alert = b"\x15\x03\x03\x00\x02\x02\x28".to_vec();
    let cases = [get, random, alert, client_hello(), HIDDEN.as_bytes().to_vec(), b"\x16".to_vec()];
    let (to, mut honest) = (desk.at, Duration::ZERO);
    let answers = thread::scope(|scope| {
        let said = scope.spawn(|| say_all(to, &cases));
        honest = desk.submit();
        said.join().expect("each connection is closed")
    });
    assert!(honest < ANSWER_MAX, "it took an honest client {honest:?}");
    for answer in &answers {
        assert!(!answer.contains("HTTP/"), "answered without TLS: {answer}");
    }
    // Keys of workers are none of clients.
    let worker = token_file(&desk.scene, KeyRole::Worker);
    let words = ["status", "--url", &desk.url, "--keys"];
    let status = desk.scene.ours("tradewind").args(words).arg(worker).run();
    assert_ne!(status.code(), 0, "a worker's token is let in");
    desk.end_untouched();
    format!("{} kinds closed", cases.len()).into()
}
