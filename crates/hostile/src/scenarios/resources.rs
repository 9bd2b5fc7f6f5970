//! Connections, memory, processor time and logs: what a peer can make the programs spend.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use tradewind_e2e::{MIB, Process, Scene, memory_bytes_max, wait_until};
use tradewind_keys::Role as KeyRole;
use tradewind_proto::message::{News, Outcome, Role, Status, ToSink, ToVentilator, ToWorker};
use tradewind_proto::{
    Attempt, CallId, JobId, Payload, Seq, SeqRange, SeqRanges, SessionId, TaskHash,
};
use tradewind_wire::encode;

use super::INSIDE;
use crate::peer::{Kind, Peer, Raw, frame, greeting, header, ready};
use crate::ring::{Flags, Ring};
use crate::stage::{Known, Liar, Stage, Way, Worker, result};
use crate::suite::{Group, Scenario, Seen};

/// Ways of one that only connects.
const OUTSIDE: &[Way] = &[Way::Plain, Way::NoKey];

pub(crate) const GROUP: Group = Group {
    name: "resources",
    scenarios: &[
        // The longest first: what is begun last decides how long all take.
        Scenario {
            name: "deaf-workers",
            required: "5 workers that never read: all records within 60 s, 256 MiB at most (R4, R5)",
            ways: INSIDE,
            play: deaf_workers,
        },
        Scenario {
            name: "trickled-frames",
            required: "a frame of which a byte a second comes is closed in time, and excuses nobody (R4, R5)",
            ways: INSIDE,
            play: trickled_frames,
        },
        Scenario {
            name: "silent-crowd",
            required: "an honest worker joins within 2 s beside 1,000 silent connections (R6)",
            ways: OUTSIDE,
            play: |stage| crowd(stage, b""),
        },
        Scenario {
            name: "half-greetings",
            required: "an honest worker joins within 2 s beside 1,000 half handshakes (R6)",
            ways: OUTSIDE,
            play: |stage| crowd(stage, &greeting()[..11]),
        },
        Scenario {
            name: "renewed-crowd",
            required: "a job ends although silent connections fill 300 files again and again (R6)",
            ways: OUTSIDE,
            play: renewed_crowd,
        },
        Scenario {
            name: "crowd-of-workers",
            required: "one host has three quarters of a small room: a worker of another joins within 2 s (R6)",
            ways: INSIDE,
            play: crowd_of_workers,
        },
        Scenario {
            name: "no-files",
            required: "no directory is left in /dev/shm when files run out (R6)",
            ways: OUTSIDE,
            play: no_files,
        },
        Scenario {
            name: "storm",
            required: "1,000 refused connections: at most 10 kB of log (R7)",
            ways: OUTSIDE,
            play: storm,
        },
        Scenario {
            name: "card-storm",
            required: "1,000 cards of workers that go at once: at most 10 kB of log (R7)",
            ways: INSIDE,
            play: card_storm,
        },
        Scenario {
            name: "log-flood",
            required: "messages for others: at most 10 kB of log, and the lane is closed (R7)",
            ways: INSIDE,
            play: log_flood,
        },
        Scenario {
            name: "unfinished-frames",
            required: "720 MiB of frames that never end: the sink has at most 512 MiB (R5)",
            ways: INSIDE,
            play: unfinished_frames,
        },
        Scenario {
            name: "claimed-frames",
            required: "200 claims of 64 MiB, a byte each: the sink has at most 100 MiB (R5)",
            ways: INSIDE,
            play: claimed_frames,
        },
        Scenario {
            name: "early-callers",
            required: "600 MiB of messages before the right peer is there: 256 MiB at most (R5)",
            ways: &[Way::Plain, Way::Token(KeyRole::Ventilator), Way::Token(KeyRole::Sink)],
            play: early_callers,
        },
        Scenario {
            name: "held-results",
            required: "320 MiB of results above a gap: the sink has at most 256 MiB (R5)",
            ways: INSIDE,
            play: held_results,
        },
        Scenario {
            name: "pinned-errors",
            required: "10 errors of 40 MiB for small outputs: the sink has at most 256 MiB (R5)",
            ways: INSIDE,
            play: pinned_errors,
        },
        Scenario {
            name: "false-answers",
            required: "3 s of answers with 65,536 ranges: 512 MiB at most, the job goes on (R2, R5)",
            ways: INSIDE,
            play: false_answers,
        },
        Scenario {
            name: "relayed-returns",
            required: "3 s of returns with 65,536 ranges: 512 MiB at most, the job goes on (R2, R5)",
            ways: INSIDE,
            play: relayed_returns,
        },
        Scenario {
            name: "overlapping-ranges",
            required: "a list of ranges that is not normal is no message (R2)",
            ways: INSIDE,
            play: overlapping_ranges,
        },
        Scenario {
            name: "far-ranges",
            required: "50 messages with ranges over 200,000 tasks take at most 20 ms each (R2)",
            ways: INSIDE,
            play: far_ranges,
        },
        Scenario {
            name: "sparse-receipts",
            required: "20 receipts for 65,536 tasks each take at most 20 ms each, of any sink (R2)",
            ways: &[Way::Plain],
            play: sparse_receipts,
        },
        Scenario {
            name: "reconnected-storm",
            required: "50,000 times `reconnected`: 256 MiB at most, the job goes on (R5)",
            ways: INSIDE,
            play: reconnected_storm,
        },
    ],
    undefended: &[],
};

/// Time in which an honest worker has to join: 2 s, and as much again for a busy machine.
const JOIN_MAX: Duration = Duration::from_secs(4);

/// Opens connections that say these bytes. Those that are refused by the system do not count.
fn open(liar: &Liar, to: SocketAddrV4, count: usize, bytes: &[u8]) -> Vec<Raw> {
    (0..count).filter_map(|_| liar.route.say_plainly(to, bytes).ok()).collect()
}

/// Starts an honest worker; returns the time that it takes to join.
#[track_caller]
fn joins(ring: &mut Ring) -> Duration {
    let began = Instant::now();
    let name = format!("worker=\"honest{}\"", ring.workers.len());
    ring.echo();
    ring.ventilator.wait_for_stderr(&name);
    let took = began.elapsed();
    assert!(took < JOIN_MAX, "it took the worker {took:?}");
    took
}

fn crowd(stage: &Stage, bytes: &[u8]) -> Seen {
    let mut ring = Ring::start(stage, Flags::default());
    let liar = stage.liar(&ring.scene);
    let mut open_ones = Vec::new();
    for port in [ring.scene.tasks(), ring.scene.results(), ring.scene.receipts()] {
        open_ones.extend(open(&liar, port, 333, bytes));
    }
    let took = joins(&mut ring);
    ring.feed(10);
    ring.wait_for_stored(10);
    let count = open_ones.len();
    let memory = Ring::memory_mib(&ring.ventilator);
    drop(open_ones);
    let _ = ring.end_untouched();
    format!(
        "joined after {:.1} s beside {count}; the ventilator had {memory} MiB",
        took.as_secs_f64()
    )
    .into()
}

fn renewed_crowd(stage: &Stage) -> Seen {
    let mut ring = Ring::start(stage, Flags { files: Some(300), ..Flags::default() });
    let liar = stage.liar(&ring.scene);
    let (mut held, mut opened) = (Vec::new(), 0);
    let mut renew = |ring: &Ring| {
        held.retain(|it: &Raw| !it.has_ended());
        let more =
            open(&liar, ring.scene.tasks(), 260_usize.saturating_sub(held.len()).min(50), b"");
        opened += more.len();
        held.extend(more);
    };
    for _ in 0..6 {
        renew(&ring);
    }
    ring.echo();
    ring.feed(10);
    let began = Instant::now();
    wait_until("10 records are stored", || {
        renew(&ring);
        ring.stored() >= 10
    });
    let took = began.elapsed();
    let _ = ring.end_untouched();
    format!("10 records after {:.1} s, {opened} connections by the crowd", took.as_secs_f64())
        .into()
}

/// Address from which a crowd comes: not that of the honest.
const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

fn crowd_of_workers(stage: &Stage) -> Seen {
    let flags = Flags { files: Some(300), ..Flags::default() };
    let mut ring = Ring::start(stage, flags);
    let mut crowd = Vec::new();
    for _ in 0..110 {
        let mut liar = stage.liar(&ring.scene);
        liar.route.from = Some(CROWD);
        let card = liar.card(Role::Worker, 1, "crowd");
        let results = liar.route.dial(ring.scene.results(), Kind::Push, &card);
        let tasks = liar.route.dial(ring.scene.tasks(), Kind::Pull, &card);
        crowd.push((liar.session, results, tasks));
    }
    let inside =
        crowd.iter().filter(|(_, results, tasks)| results.is_ok() && tasks.is_ok()).count();
    let mut beat = || {
        for (session, results, _) in &mut crowd {
            let news = News::Heartbeat { running: 0, queued: 0, slots: 1 };
            if let Ok(results) = results {
                let _ = results.send(&ToSink::News { session: *session, news });
            }
        }
    };
    beat();
    let took = joins(&mut ring);
    ring.feed(10);
    let mut last = Instant::now();
    ring.wait_for_stored_while(10, || {
        if last.elapsed() > Duration::from_secs(1) {
            last = Instant::now();
            beat();
        }
    });
    drop(crowd);
    let _ = ring.end_untouched();
    format!("joined after {:.1} s beside {inside} of 110 that got in", took.as_secs_f64()).into()
}

/// Directories of private sockets.
fn directories() -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir("/dev/shm") else { return BTreeSet::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("tradewind-")).collect()
}

fn no_files(stage: &Stage) -> Seen {
    let before = directories();
    let mut ring = Ring::start(stage, Flags { files: Some(300), ..Flags::default() });
    let liar = stage.liar(&ring.scene);
    let card = liar.card(Role::Worker, 1, "x");
    let hello = [greeting(), ready(b"PULL", &card)].concat();
    let mut count = 0;
    for bytes in [&b""[..], &greeting(), &hello] {
        let held = open(&liar, ring.scene.tasks(), 600, bytes);
        count += held.len();
        wait_until("there is an answer to some", || held.iter().any(Raw::has_ended));
    }
    ring.echo();
    ring.feed(10);
    ring.wait_for_stored(10);
    let _ = ring.end_untouched();
    // Those of other programs that run just now go away by themselves.
    let mut left: BTreeSet<String> = directories().difference(&before).cloned().collect();
    wait_until("no directory is left in /dev/shm", || {
        let now = directories();
        left.retain(|name| now.contains(name));
        left.is_empty()
    });
    format!("0 directories after {count} connections against 300 files").into()
}

#[track_caller]
fn assert_short(process: &Process, since: usize) -> usize {
    let said = process.stderr().len().saturating_sub(since);
    assert!(said <= 10_000, "{said} bytes of log");
    said
}

fn storm(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let liar = stage.liar(&ring.scene);
    let (log, cpu) = (ring.ventilator.stderr().len(), Ring::cpu(&ring.ventilator));
    let hello = [greeting(), ready(b"PULL", b"yyyyyyyyyyyyyyyy")].concat();
    let mut count = 0;
    for _ in 0..1000 {
        count += u32::from(liar.route.say_plainly(ring.scene.tasks(), &hello).is_ok());
    }
    let used = Ring::settle(&ring.ventilator, cpu);
    let said = assert_short(&ring.ventilator, log);
    let _ = ring.end_untouched();
    format!(
        "{count} connections: {said} bytes of log, {:?} of processor time each",
        used / count.max(1)
    )
    .into()
}

fn card_storm(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let log = ring.ventilator.stderr().len();
    let mut liar = stage.liar(&ring.scene);
    for count in 0..1000 {
        if stage.way == Way::Plain {
            liar = liar.showing(SessionId(1_000_000 + count));
        }
        let card = liar.card(Role::Worker, 4096, &"N".repeat(100));
        let _ = liar.route.dial(ring.scene.tasks(), Kind::Pull, &card);
    }
    let memory = Ring::memory_mib(&ring.ventilator);
    assert!(memory <= 256, "{memory} MiB");
    let said = assert_short(&ring.ventilator, log);
    let _ = ring.end_untouched();
    format!("{said} bytes of log, {memory} MiB").into()
}

fn log_flood(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let log = ring.sink.stderr().len();
    let liar = stage.liar(&ring.scene);
    let card = liar.card(Role::Worker, 1, "x");
    let mut peer =
        liar.route.dial(ring.scene.results(), Kind::Push, &card).expect("workers get in");
    let foreign = ToSink::News { session: SessionId(2), news: News::Reconnected };
    let many = frame(&encode(&foreign)).repeat(1000);
    for _ in 0..100 {
        if peer.send_bytes(&many).is_err() {
            break;
        }
    }
    let told = peer.wait_for_end("one that speaks for others");
    let said = assert_short(&ring.sink, log);
    let _ = ring.end_untouched();
    format!("{said} bytes of log; closed: {}", told.chars().take(60).collect::<String>()).into()
}

/// A peer at the results port with a card of a worker of its own.
fn results_peer(stage: &Stage, ring: &Ring) -> Peer {
    let liar = stage.liar(&ring.scene);
    let card = liar.card(Role::Worker, 1, "x");
    liar.route.dial(ring.scene.results(), Kind::Push, &card).expect("workers get in")
}

#[track_caller]
fn assert_memory(process: &Process, most: u64) -> u64 {
    let memory = Ring::memory_mib(process);
    assert!(memory <= most, "{memory} MiB, more than {most}");
    memory
}

fn unfinished_frames(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let chunk = vec![0; 1 << 20];
    let mut peers = Vec::new();
    let mut sent = 0;
    for _ in 0..12 {
        let mut peer = results_peer(stage, &ring);
        let _ = peer.send_bytes(&header(64 << 20));
        for _ in 0..60 {
            // Where the sum is bounded, the rest is not taken.
            if peer.send_within(&chunk, Duration::from_millis(500)).is_err() {
                break;
            }
            sent += 1;
        }
        peers.push(peer);
    }
    let memory = assert_memory(&ring.sink, 512);
    drop(peers);
    let _ = ring.end_untouched();
    format!("{sent} MiB were taken of 12 frames; the sink had {memory} MiB").into()
}

fn trickled_frames(stage: &Stage) -> Seen {
    let mut ring = Ring::begin(stage, Flags { ventilator: "--timeout 2s", ..Flags::default() });
    let mut worker =
        stage.liar(&ring.scene).worker(&ring.scene, 4, "liar").expect("workers get in");
    worker.answer();
    ring.feed_until_given(&mut worker);
    let _ = worker.results.send_bytes(&header(1 << 20));
    let began = Instant::now();
    let mut last = began;
    ring.feed(20);
    let all = ring.fed();
    ring.wait_for_stored_while(all, || {
        if last.elapsed() > Duration::from_millis(500) {
            last = Instant::now();
            let _ = worker.results.send_bytes(b"x");
        }
    });
    let told = worker.results.end().or(worker.tasks.end()).unwrap_or_else(|| "open".to_owned());
    drop(worker);
    let took = began.elapsed().as_secs();
    let _ = ring.end_untouched();
    format!(
        "its tasks were done by others after {took} s; its connection: {}",
        told.chars().take(60).collect::<String>()
    )
    .into()
}

fn claimed_frames(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let mut peers = Vec::new();
    for _ in 0..200 {
        let mut peer = results_peer(stage, &ring);
        let _ = peer.send_bytes(&[&header(64 << 20)[..], b"x"].concat());
        peers.push(peer);
    }
    let memory = assert_memory(&ring.sink, 100);
    drop(peers);
    let _ = ring.end_untouched();
    format!("the sink had {memory} MiB").into()
}

fn early_callers(stage: &Stage) -> Seen {
    let text = "x".repeat(30 << 20);
    let job = JobId(1);
    // At the sink while it has no ventilator, and at a ventilator while it has no sink.
    let (sink, (to_sink, to_ventilator)) = {
        let scene = stage.scene();
        let mut sink = Ring::sink(&scene, Flags::default()).start();
        sink.wait_for_stderr("the sink is up");
        let mut at_sink = (stage.way != Way::Token(KeyRole::Sink))
            .then(|| stage.liar(&scene).ventilator(&scene).expect("it has what it needs"));
        let mut taken = (0, 0);
        for _ in 0..20 {
            let give_up = ToSink::GiveUp {
                job,
                seq: Seq(1),
                attempt: Attempt::FIRST,
                task_hash: TaskHash(1),
                status: Status::Failed,
                error: text.clone(),
            };
            taken.0 += at_sink.as_mut().map_or(0, |peer| u32::from(peer.send(&give_up).is_ok()));
        }
        let sink_mib = assert_memory(&sink, 256);
        sink.kill();
        drop(at_sink);
        let mut ventilator = Ring::ventilator(&scene, Flags::default()).keep_stdin().start();
        ventilator.wait_for_stderr("the ventilator is up");
        let mut at_ventilator = (stage.way != Way::Token(KeyRole::Ventilator))
            .then(|| stage.liar(&scene).sink(&scene).expect("it has what it needs"));
        for _ in 0..20 {
            let refused = ToVentilator::Refused { job, reason: text.clone() };
            taken.1 +=
                at_ventilator.as_mut().map_or(0, |peer| u32::from(peer.send(&refused).is_ok()));
        }
        let _ = Ring::settle(&ventilator, Duration::ZERO);
        let ventilator_mib = assert_memory(&ventilator, 256);
        ((sink_mib, ventilator_mib), taken)
    };
    format!(
        "{to_sink} and {to_ventilator} of 20 taken; sink {} MiB, ventilator {} MiB",
        sink.0, sink.1
    )
    .into()
}

/// A job with ordered records of which a liar has this number of tasks, and honest workers the others.
fn with_gap(stage: &Stage, tasks: usize) -> (Ring, Worker) {
    let mut ring = Ring::start(stage, Flags { output: Some("out.txt"), ..Flags::default() });
    let liar = stage.liar(&ring.scene);
    let mut worker = liar.worker(&ring.scene, 64, "liar").expect("workers get in");
    worker.answer();
    ring.feed(tasks as u64 + 20);
    wait_until("it is given tasks", || worker.given() >= tasks);
    (ring, worker)
}

/// Answers all tasks but the first; sees to it that the sink takes little memory; leaves, so that the first goes
/// elsewhere. Of the output only the number of records can be right.
fn above_a_gap(stage: &Stage, tasks: usize, outcome: impl Fn() -> Outcome) -> Seen {
    let (mut ring, mut worker) = with_gap(stage, tasks);
    let mut given = worker.take();
    given.sort_by_key(|task| task.seq);
    for task in given.iter().skip(1).take(tasks - 1) {
        let _ = worker.send(vec![result(task, outcome())]);
    }
    // Whatever it has not taken by now it takes while the job goes on.
    let _ = Ring::settle(&ring.sink, Duration::ZERO);
    let memory = assert_memory(&ring.sink, 256);
    let _ = worker.tell(News::Goodbye);
    drop(worker);
    ring.echo();
    let all = ring.fed();
    ring.ventilator.close_stdin();
    wait_until("the programs end", || !ring.ventilator.is_running() && !ring.sink.is_running());
    format!("the sink had {memory} MiB; {all} tasks ended").into()
}

fn held_results(stage: &Stage) -> Seen {
    above_a_gap(stage, 21, || Outcome::ok(Payload::from(vec![b'x'; 16 << 20])))
}

fn pinned_errors(stage: &Stage) -> Seen {
    above_a_gap(stage, 11, || {
        let error = "e".repeat(40 << 20);
        Outcome { output: Payload::from(vec![b'x'; 24]), ..Outcome::error(Status::Failed, error) }
    })
}

fn deaf_workers(stage: &Stage) -> Seen {
    let flags = Flags { ventilator: "--input in", ..Flags::default() };
    let line = format!("{}\n", "x".repeat(64 << 10));
    let prepare = |scene: &Scene| scene.file("in", line.repeat(200));
    let (mut ring, _) = Ring::start_after(stage, flags, prepare);
    let mut deaf = Vec::new();
    for _ in 0..5 {
        let liar = stage.liar(&ring.scene);
        let card = liar.card(Role::Worker, 256, "deaf");
        let results =
            liar.route.dial(ring.scene.results(), Kind::Push, &card).expect("workers get in");
        let (tasks, first) =
            liar.route.dial_deaf(ring.scene.tasks(), &card).expect("workers get in");
        deaf.push((liar.session, results, tasks));
        let (session, results, _) = deaf.last_mut().expect("it was just added");
        let ToWorker::RollCall { job, call, .. } = first else {
            panic!("first the roll is called")
        };
        let news = News::Holding {
            job,
            call,
            unfinished: SeqRanges::new(),
            finished: SeqRanges::new(),
            hashes: Vec::new().into(),
            tags: Vec::new().into(),
        };
        let _ = results.send(&ToSink::News { session: *session, news });
    }
    ring.echo();
    ring.echo();
    let mut last = Instant::now();
    let (pid, mut memory) = (ring.ventilator.pid(), 0);
    ring.wait_for_stored_while(200, || {
        memory = memory_bytes_max(pid).map_or(memory, |bytes| bytes / MIB);
        if last.elapsed() > Duration::from_millis(900) {
            last = Instant::now();
            for (session, results, _) in &mut deaf {
                let news = News::Heartbeat { running: 1, queued: 1, slots: 256 };
                let _ = results.send(&ToSink::News { session: *session, news });
            }
        }
    });
    assert!(memory <= 256, "{memory} MiB");
    drop(deaf);
    let Ring { ventilator, sink, scene, .. } = ring;
    let _ = ventilator.wait().expect(0);
    let _ = sink.wait().expect(0);
    let records = tradewind_e2e::records(&scene.read("out.jsonl"), 200);
    assert!(records.iter().all(|record| record.worker.starts_with("honest")));
    format!("200 right records; the ventilator had {memory} MiB").into()
}

/// Ranges of every second seq.
fn ranges(count: u64) -> SeqRanges {
    (0..count).map(|at| SeqRange { start: Seq(2 * at), end: Seq(2 * at + 1) }).collect()
}

/// Says the same news for three seconds, as fast as they are taken.
fn flood(stage: &Stage, news: impl Fn(&Worker) -> News) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let liar = stage.liar(&ring.scene);
    let mut worker = liar.worker(&ring.scene, 1, "liar").expect("workers get in");
    let message = ToSink::News { session: worker.session, news: news(&worker) };
    let bytes = frame(&encode(&message));
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < Duration::from_secs(3) {
        if worker.results.send_within(&bytes, Duration::from_secs(1)).is_err() {
            break;
        }
        count += 1;
    }
    let sink = assert_memory(&ring.sink, 512);
    let ventilator = assert_memory(&ring.ventilator, 512);
    drop(worker);
    let _ = ring.end_untouched();
    format!(
        "{count} messages of {} kB: sink {sink} MiB, ventilator {ventilator} MiB",
        bytes.len() / 1000
    )
    .into()
}

fn false_answers(stage: &Stage) -> Seen {
    flood(stage, |worker| {
        let hashes = vec![TaskHash(1); 65_536];
        worker.holding(ranges(65_536), hashes, Vec::new())
    })
}

fn relayed_returns(stage: &Stage) -> Seen {
    flood(stage, |worker| News::Returned { job: worker.job, ranges: ranges(65_536) })
}

fn overlapping_ranges(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    for (name, pairs) in [
        ("overlapping", &[(0, 50), (0, 50)][..]),
        ("descending", &[(10, 2), (1, 2)]),
        ("empty", &[(3, 0)]),
        ("touching", &[(0, 5), (5, 5)]),
        ("beyond the last seq", &[(1 << 62, 1)]),
        ("overflowing", &[(u64::MAX, 2)]),
    ] {
        let liar = stage.liar(&ring.scene);
        let mut worker = liar.worker(&ring.scene, 1, "liar").expect("workers get in");
        // The empty list at its end becomes another one.
        let news = News::Returned { job: worker.job, ranges: SeqRanges::new() };
        let mut body = encode(&ToSink::News { session: worker.session, news }).to_vec();
        assert_eq!(body.pop(), Some(0), "an empty list is a byte");
        body.push(pairs.len() as u8);
        for number in pairs.iter().flat_map(|(start, count)| [*start, *count]) {
            body.push(0xfd);
            body.extend_from_slice(&u64::to_le_bytes(number));
        }
        let _ = worker.results.send_frame(&body);
        let told = worker.results.wait_for_end(&format!("one that sends {name} ranges"));
        assert!(told.contains("not a message") || !told.is_empty(), "{told}");
    }
    let _ = ring.end_untouched();
    "6 kinds of wrong lists, each closed the lane".into()
}

fn far_ranges(stage: &Stage) -> Seen {
    let mut ring = Ring::start(stage, Flags::default());
    ring.echo();
    ring.feed(200_000);
    ring.wait_for_stored(190_000);
    let liar = stage.liar(&ring.scene);
    let mut worker = liar.worker(&ring.scene, 64, "liar").expect("workers get in");
    worker.answer();
    wait_until("it is given a task", || {
        ring.feed(2000);
        worker.given() > 0
    });
    let _ = Ring::settle(&ring.ventilator, Duration::ZERO);
    let cpu = Ring::cpu(&ring.ventilator);
    let (job, call) = (worker.job, worker.call);
    for round in 0..25 {
        let ranges = if round % 2 == 0 { ranges(50_000) } else { all_below(190_000) };
        let _ = worker.tell(News::Returned { job, ranges: ranges.clone() });
        let _ = worker.tell(News::Recalled { job, call: CallId(call.0 + round), ranges });
    }
    let used = Ring::settle(&ring.ventilator, cpu);
    assert!(used < Duration::from_secs(1), "{used:?} for 50 messages");
    drop(worker);
    let _ = ring.end_untouched();
    format!("{:?} each", used / 50).into()
}

/// Without keys one that shows the sink's session is the sink: the job is its own, the time of the ventilator is not.
fn sparse_receipts(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let Known { job, sink, .. } = stage.spy(&ring.scene);
    let liar = stage.liar(&ring.scene).showing(sink);
    let mut peer = liar.sink(&ring.scene).expect("anybody gets in");
    let _ = Ring::settle(&ring.ventilator, Duration::ZERO);
    let cpu = Ring::cpu(&ring.ventilator);
    for _ in 0..20 {
        let receipt = ToVentilator::Receipt {
            job,
            received: Vec::new().into(),
            // Not the first, so that nothing is settled in a row.
            stored: (1..65_536).map(|at| SeqRange::one(Seq(2 * at))).collect(),
            retry: Vec::new().into(),
            held_bytes: 0,
            failed: 0,
        };
        let _ = peer.send(&receipt);
    }
    let used = Ring::settle(&ring.ventilator, cpu);
    // Debug builds take longer to decode that much.
    let most = Duration::from_millis(20 * 20 * if cfg!(debug_assertions) { 4 } else { 1 });
    assert!(used <= most, "{used:?}");
    format!("{:?} each", used / 20).into()
}

fn all_below(end: u64) -> SeqRanges {
    SeqRanges::of(SeqRange { start: Seq(0), end: Seq(end) })
}

fn reconnected_storm(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let liar = stage.liar(&ring.scene);
    let mut worker = liar.worker(&ring.scene, 1, "liar").expect("workers get in");
    let message = ToSink::News { session: worker.session, news: News::Reconnected };
    let many = frame(&encode(&message)).repeat(1000);
    for _ in 0..50 {
        if worker.results.send_within(&many, Duration::from_secs(2)).is_err() {
            break;
        }
    }
    let sink = assert_memory(&ring.sink, 256);
    let ventilator = assert_memory(&ring.ventilator, 256);
    drop(worker);
    let _ = ring.end_untouched();
    format!("sink {sink} MiB, ventilator {ventilator} MiB").into()
}
