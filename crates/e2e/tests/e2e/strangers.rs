//! Programs that do not belong to the job do it no harm.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};

use socket2::{Domain, Socket, Type};
use tradewind_e2e::{MIB, PATIENCE, Scene, Signal, memory_bytes_max, random, records, wait_until};
use tradewind_proto::message::{Card, News, Role, ToSink};
use tradewind_proto::{JobId, Seq, SeqList, SessionId};
use tradewind_wire::encode;

use crate::peers::with_files;

/// ZMTP 3.0: signature, version, mechanism, as-server, filler.
fn greeting() -> Vec<u8> {
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    greeting.extend_from_slice(b"NULL");
    greeting.resize(64, 0);
    greeting
}

/// A READY command that says this about its sender.
fn ready(socket: &[u8], identity: &[u8]) -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [(&b"Socket-Type"[..], socket), (b"Identity", identity)] {
        body.push(name.len() as u8);
        body.extend_from_slice(name);
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
    let mut command = vec![0x06];
    command.extend_from_slice(&(body.len() as u64).to_be_bytes());
    command.extend_from_slice(&body);
    command
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&[0, body.len() as u8][..], body].concat()
}

/// Says this, and waits until it is answered or shown the door.
fn call(address: SocketAddrV4, bytes: &[u8]) -> TcpStream {
    say(TcpStream::connect(address).expect("the port is open"), bytes)
}

fn say(mut stream: TcpStream, bytes: &[u8]) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The door may close while we speak.
    let _ = stream.write_all(bytes);
    let _ = stream.read(&mut [0; 1024]);
    stream
}

#[test]
fn a_job_goes_on_whatever_strangers_say() {
    let mut random = random();
    let mut bytes = |count: usize| (0..count).map(|_| random.u8(..)).collect::<Vec<u8>>();
    let huge = [0x02, 0, 0, 0x40, 0, 0, 0, 0, 0];
    let more = [0x03, 0, 0, 0, 0, 0, 0, 0, 1, b'x'].repeat(1000);
    let push = [greeting(), ready(b"PUSH", b"nobody")].concat();
    let pull = [greeting(), ready(b"PULL", b"")].concat();
    let calls: Vec<Vec<u8>> = vec![
        vec![],
        bytes(100),
        bytes(100_000),
        b"GET / HTTP/1.1\r\nHost: tradewind\r\n\r\n".to_vec(),
        greeting()[..30].to_vec(),
        [&greeting()[..], &huge].concat(),
        [&push[..], &huge].concat(),
        [&pull[..], &huge].concat(),
        [push.clone(), frame(&bytes(50)), frame(b""), frame(b"\0")].concat(),
        [pull.clone(), frame(&bytes(50))].concat(),
        [&push[..], &more].concat(),
        [greeting(), ready(b"PUSH", &bytes(255)), frame(&bytes(200))].concat(),
        [greeting(), ready(b"PULL", &bytes(255))].concat(),
        [greeting(), ready(b"REQ", b""), frame(b"hello")].concat(),
        [&greeting()[..], &[0x04, 200], &bytes(200)].concat(),
    ];

    let scene = Scene::new();
    let mut sink = scene.sink().start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    let mut worker = scene.worker("w").words("--exit-when-done --echo").start();
    let write = |process: &mut tradewind_e2e::Process, text: &str| {
        process.stdin().unwrap().write_all(text.as_bytes()).unwrap();
    };
    write(&mut ventilator, "before\n");
    wait_until("the job has begun", || sink.stdout_lines() == 1);

    let mut strangers = Vec::new();
    for address in [scene.tasks(), scene.results(), scene.receipts()] {
        for said in &calls {
            // Those that go at once, and those that stay.
            let mut gone = TcpStream::connect(address).expect("the port is open");
            let _ = gone.write_all(said);
            drop(gone);
            strangers.push(std::thread::spawn({
                let said = said.clone();
                move || call(address, &said)
            }));
        }
    }
    write(&mut ventilator, "during\n");
    wait_until("the job goes on", || sink.stdout_lines() == 2);
    let strangers: Vec<_> = strangers.into_iter().map(|s| s.join().expect("no panic")).collect();
    write(&mut ventilator, "after\n");
    wait_until("the job goes on", || sink.stdout_lines() == 3);
    for process in [&mut ventilator, &mut worker, &mut sink] {
        assert!(process.is_running());
    }
    drop(strangers);
    ventilator.close_stdin();
    let _ = ventilator.wait().expect(0);
    let _ = worker.wait().expect(0);
    assert_eq!(sink.wait().expect(0).text(), "before\nduring\nafter\n");
    scene.assert_nothing_left();
}

#[test]
fn an_impostor_with_a_good_card_delays_its_tasks_at_most() {
    let card = |role, session, name: &str| {
        let card = Card {
            role,
            session: SessionId(session),
            slots: 1,
            message_bytes_max: 64 << 20,
            name: name.to_owned(),
            queue: String::new(),
        };
        encode(&card)
    };
    let scene = Scene::new();
    let mut sink = scene.sink().words("--format jsonl").start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    sink.wait_for_stderr("the sink is up");
    ventilator.wait_for_stderr("the ventilator is up");

    // One that takes tasks and never says a word, and some that speak nonsense.
    let pull = [greeting(), ready(b"PULL", &card(Role::Worker, 1, "silent"))].concat();
    let silent = call(scene.tasks(), &pull);
    ventilator.wait_for_stderr("worker joins");
    let mut liars = Vec::new();
    for (session, role) in [(1, Role::Worker), (2, Role::Ventilator), (3, Role::Sink)] {
        let push = [greeting(), ready(b"PUSH", &card(role, session, "liar"))].concat();
        for address in [scene.results(), scene.receipts()] {
            for junk in [&b""[..], b"\0", &[0xff; 200]] {
                liars.push(call(address, &[&push[..], &frame(junk)].concat()));
            }
        }
    }

    let worker = scene.worker("true").words("--exit-when-done --echo").start();
    let input: String = (0..20).map(|n| format!("{n}\n")).collect();
    ventilator.stdin().unwrap().write_all(input.as_bytes()).unwrap();
    ventilator.close_stdin();
    let records = records(&sink.wait().expect(0).stdout, 20);
    assert!(records.iter().all(|record| record.output == Some(record.seq.to_string())));
    let _ = ventilator.wait().expect(0);
    let _ = worker.wait().expect(0);
    drop((silent, liars));
    scene.assert_nothing_left();
}

#[test]
fn a_crowd_of_fake_workers_keeps_no_worker_of_another_host_out() {
    let scene = Scene::new();
    let (tasks, results, receipts) = (
        format!("tcp://{}", scene.tasks()),
        format!("tcp://{}", scene.results()),
        format!("tcp://{}", scene.receipts()),
    );
    let sink = scene.sink().start();
    // It has room for some twenty workers.
    let ventilator = with_files(
        &scene,
        128,
        |it| {
            let it = it.args(["--tasks", &tasks, "--receipts", &receipts, "--sink", &results]);
            it.words("--connections-per-address 10")
        },
        "ventilator",
    );
    let mut ventilator = ventilator.keep_stdin().start();
    ventilator.wait_for_stderr("the ventilator is up");
    let fakes: Vec<_> = (0..40)
        .map(|n| {
            let (role, session) = (Role::Worker, SessionId(n + 1));
            let name = format!("fake{n}");
            let card = Card {
                role,
                session,
                slots: 4096,
                message_bytes_max: 64 << 20,
                name,
                queue: String::new(),
            };
            let said = [greeting(), ready(b"PULL", &encode(&card))].concat();
            let from = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            from.bind(&SocketAddrV4::new([127, 0, 0, 2].into(), 0).into()).unwrap();
            from.connect(&scene.tasks().into()).unwrap();
            say(from.into(), &said)
        })
        .collect();
    let worker = scene.worker("honest").words("--exit-when-done --echo").start();
    ventilator.stdin().unwrap().write_all(b"a\nb\n").unwrap();
    ventilator.close_stdin();
    assert_eq!(sink.wait().expect(0).text(), "a\nb\n");
    let _ = ventilator.wait().expect(0);
    // It did not have to wait until the others counted as lost.
    let ended = worker.wait().expect(0);
    assert!(!ended.stderr.contains("no more fit"), "{}", ended.stderr);
    drop(fakes);
    scene.assert_nothing_left();
}

#[test]
fn news_that_the_ventilator_does_not_take_are_not_taken_from_workers() {
    let scene = Scene::new();
    let mut sink = scene.sink().start();
    let mut ventilator = scene.ventilator().keep_stdin().start();
    let worker = scene.worker("true").words("--exit-when-done --echo").start();
    ventilator.stdin().unwrap().write_all(b"a\n").unwrap();
    wait_until("the job has begun", || sink.stdout_lines() == 1);

    ventilator.signal(Signal::STOP);
    let (role, session, name) = (Role::Worker, SessionId(1), "liar".to_owned());
    let card = encode(&Card {
        role,
        session,
        slots: 1,
        message_bytes_max: 64 << 20,
        name,
        queue: String::new(),
    });
    let mut liar = call(scene.results(), &[greeting(), ready(b"PUSH", &card)].concat());
    let mut ranges = SeqList::new();
    (0..100_000).for_each(|n| ranges.push(Seq(2_000_000_000 + 2 * n)));
    let news = News::Returned { job: JobId(1), ranges: ranges.take() };
    let body = encode(&ToSink::News { session, news });
    let frame = [&[2][..], &(body.len() as u64).to_be_bytes(), &body].concat();
    // Some hundred MiB, if they were taken.
    let liar = std::thread::spawn(move || (0..1_000).all(|_| liar.write_all(&frame).is_ok()));
    sink.wait_for_stderr("wait for the ventilator to take them");
    ventilator.signal(Signal::CONT);

    ventilator.stdin().unwrap().write_all(b"b\n").unwrap();
    wait_until("the job goes on", || sink.stdout_lines() == 2);
    let most = memory_bytes_max(sink.pid()).expect("it is running");
    assert!(most < 400 * MIB, "{} MiB", most / MIB);
    ventilator.close_stdin();
    let _ = ventilator.wait().expect(0);
    let _ = worker.wait().expect(0);
    assert_eq!(sink.wait().expect(0).text(), "a\nb\n");
    let _ = liar.join().unwrap();
    scene.assert_nothing_left();
}
