//! One that speaks the protocol well, in the place of a worker, a sink or a ventilator.

use std::collections::BTreeSet;

use tradewind_e2e::wait_until;
use tradewind_keys::Role as KeyRole;
use tradewind_proto::message::{
    InputEnd, News, Outcome, Report, Role, Start, Status, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::{
    Attempt, JobId, JobKey, Payload, Seq, SeqRange, SeqRanges, SessionId, Tag, TaskHash,
};

use super::{AS_SINK, AS_VENTILATOR, AS_WORKER, INSIDE};
use crate::peer::{Kind, Trap};
use crate::ring::{Flags, Ring, task};
use crate::stage::{Known, Stage, Way, Worker, failure, forged, result};
use crate::suite::{Group, Scenario, Seen};

pub(crate) const GROUP: Group = Group {
    name: "impostors",
    scenarios: &[
        Scenario {
            name: "forged-results",
            required: "0 forged records; refused results are counted under the liar's name (R8)",
            ways: AS_WORKER,
            play: forged_results,
        },
        Scenario {
            name: "results-port-alone",
            required: "0 forged records for a guessed job (R8, R13)",
            ways: AS_WORKER,
            play: results_port_alone,
        },
        Scenario {
            name: "false-end",
            required: "a second ventilator does not end the sink's job (R15)",
            ways: AS_VENTILATOR,
            play: false_end,
        },
        Scenario {
            name: "given-up",
            required: "a second ventilator writes no records (R15)",
            ways: AS_VENTILATOR,
            play: given_up,
        },
        Scenario {
            name: "false-inputs",
            required: "a second ventilator's hashes neither end the job nor cost time (R2, R15)",
            ways: AS_VENTILATOR,
            play: false_inputs,
        },
        Scenario {
            name: "false-cancel",
            required: "a second ventilator does not cancel the job (R15)",
            ways: AS_VENTILATOR,
            play: false_cancel,
        },
        Scenario {
            name: "squatter",
            required: "the job is that of the ventilator at the sink's --ventilator (R15)",
            ways: AS_VENTILATOR,
            play: squatter,
        },
        Scenario {
            name: "fake-sink",
            required: "a second sink does not end the job (R15)",
            ways: AS_SINK,
            play: fake_sink,
        },
        Scenario {
            name: "fake-refusal",
            required: "a second sink cannot refuse the job (R15)",
            ways: AS_SINK,
            play: fake_refusal,
        },
        Scenario {
            name: "fake-empty-hello",
            required: "a second sink cannot begin the job anew (R15)",
            ways: AS_SINK,
            play: fake_empty_hello,
        },
        Scenario {
            name: "mute-sink",
            required: "a second sink does not displace the first (R15)",
            ways: AS_SINK,
            play: mute_sink,
        },
        Scenario {
            name: "black-hole",
            required: "2,000 right records although one keeps all it is given, within 60 s (R4)",
            ways: AS_WORKER,
            play: black_hole,
        },
        Scenario {
            name: "fast-liar",
            required: "one that answers at once writes the records of its own tasks alone (R3, R8)",
            ways: AS_WORKER,
            play: fast_liar,
        },
        Scenario {
            name: "median-timeout",
            required: "repeated and unknown results make 0 tasks time out (R3)",
            ways: AS_WORKER,
            play: median_timeout,
        },
        Scenario {
            name: "halt",
            required: "a forged failure does not halt the job (R3)",
            ways: AS_WORKER,
            play: halt,
        },
        Scenario {
            name: "resumed-ended",
            required: "a lie about hashes does not end the resumed job (R4)",
            ways: AS_WORKER,
            play: resumed_ended,
        },
        Scenario {
            name: "resumed-hostage",
            required: "claiming all tasks of a resumed job gains none; 400 right records (R4, R8)",
            ways: AS_WORKER,
            play: resumed_hostage,
        },
        Scenario {
            name: "session-theft",
            required: "no card with another's session is accepted (R15)",
            ways: &[
                Way::Token(KeyRole::Worker),
                Way::Token(KeyRole::Ventilator),
                Way::Token(KeyRole::Sink),
                Way::Token(KeyRole::Relay),
                Way::Token(KeyRole::Client),
                Way::NoKey,
                Way::OthersKey,
            ],
            play: session_theft,
        },
        Scenario {
            name: "worker-as-others",
            required: "a worker speaks for itself alone, and not as a ventilator (R15)",
            ways: INSIDE,
            play: worker_as_others,
        },
        Scenario {
            name: "every-door",
            required: "each port opens to the cards and keys that belong there, and to no others (R14)",
            ways: &[
                Way::Plain,
                Way::Token(KeyRole::Worker),
                Way::Token(KeyRole::Ventilator),
                Way::Token(KeyRole::Sink),
                Way::Token(KeyRole::Relay),
                Way::Token(KeyRole::Client),
                Way::NoKey,
                Way::OthersKey,
            ],
            play: every_door,
        },
        Scenario {
            name: "fake-gates",
            required: "a ventilator and a sink refuse a gate without the key that it has to have (R14)",
            ways: &[
                Way::Token(KeyRole::Worker),
                Way::Token(KeyRole::Client),
                Way::NoKey,
                Way::OthersKey,
            ],
            play: fake_gates,
        },
    ],
    undefended: &[
        ("session-theft", "whoever shows the session of another is taken for it"),
        ("fake-sink", "one that shows the sink's session, which it tells to whoever dials it"),
        ("false-end", "one that shows the ventilator's session, which any worker is told"),
    ],
};

/// All seqs below this one.
fn below(end: u64) -> SeqRanges {
    SeqRanges::of(SeqRange { start: Seq(0), end: Seq(end) })
}

fn hash(seq: u64) -> TaskHash {
    TaskHash::of(task(seq).as_bytes())
}

fn forged_results(stage: &Stage) -> Seen {
    let mut ring = Ring::begin(stage, Flags::default());
    let worker = stage.liar(&ring.scene).worker(&ring.scene, 1, "liar");
    let is_in = worker.is_some();
    if let Some(mut worker) = worker {
        // Of tasks that others have, of those that nobody has yet, and of those that are stored.
        let _ = worker.send((0..80).map(|seq| forged(seq, hash(seq))).collect());
        // With the one tag that it can have seen: that of another task, once it has one.
        worker.answer();
        ring.feed_until_given(&mut worker);
        let own = worker.take();
        let others = (0..80).filter(|seq| own.iter().all(|task| task.seq.0 != *seq));
        let copies = others.map(|seq| forged(seq, hash(seq))).map(|mut it| {
            it.tag = own[0].tag;
            it
        });
        let _ = worker.send(copies.collect());
        // What it was given it does not do.
    }
    let ended = ring.end_untouched();
    if !is_in {
        return "kept out; 80 right records".into();
    }
    let line =
        ended.sink.lines().find(|line| line.contains("results of worker \"liar\" were refused"));
    let line = line.unwrap_or_else(|| panic!("refusals are counted: {}", ended.sink));
    let count =
        line.split("WARN ").last().unwrap_or(line).split(' ').find(|it| it.parse::<u64>().is_ok());
    format!("0 of 80 records forged, {} results refused under its name", count.unwrap_or("?"))
        .into()
}

fn results_port_alone(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let liar = stage.liar(&ring.scene);
    let card = liar.card(Role::Worker, 1, "liar");
    let mut told = "kept out".to_owned();
    if let Ok(mut peer) = liar.route.dial(ring.scene.results(), Kind::Push, &card) {
        let guess = |job| ToSink::Results {
            job: JobId(job),
            session: liar.session,
            results: (0..80).map(|seq| forged(seq, hash(seq))).collect::<Vec<_>>().into(),
        };
        for job in 0..200 {
            if peer.send(&guess(job)).is_err() {
                break;
            }
        }
        told = "200 guesses".to_owned();
    }
    let _ = ring.end_untouched();
    format!("0 of 80 records forged; {told}").into()
}

/// Says this as a ventilator to the sink of a running job.
fn as_ventilator(stage: &Stage, say: impl FnOnce(Known) -> Vec<ToSink>) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let known = stage.spy(&ring.scene);
    let told = stage.liar(&ring.scene).ventilator(&ring.scene).map(|mut peer| {
        for message in say(known) {
            // It may be closed in the middle.
            let _ = peer.send(&message);
        }
        peer.wait_for_end("a second ventilator")
    });
    let _ = ring.end_untouched();
    kept_out(told)
}

fn kept_out(told: Option<String>) -> Seen {
    let end = "80 right records, both exit with 0";
    match told {
        None => format!("kept out; {end}").into(),
        Some(told) => {
            format!("sent away ({}); {end}", told.chars().take(60).collect::<String>()).into()
        }
    }
}

fn false_end(stage: &Stage) -> Seen {
    as_ventilator(stage, |Known { job, .. }| {
        vec![ToSink::JobClose { job, total: 10, end: InputEnd::Whole }, ToSink::JobDone { job }]
    })
}

fn given_up(stage: &Stage) -> Seen {
    as_ventilator(stage, |Known { job, .. }| {
        let give_up = |seq| ToSink::GiveUp {
            job,
            seq: Seq(seq),
            attempt: Attempt::FIRST,
            task_hash: hash(seq),
            status: Status::Ok,
            error: String::new(),
        };
        let forward = ToSink::Forwarded {
            job,
            stage: "any".to_owned(),
            worker: "honest0".to_owned(),
            results: (40..60).map(|seq| forged(seq, hash(seq))).collect::<Vec<_>>().into(),
        };
        (20..40).map(give_up).chain([forward]).collect()
    })
}

fn false_inputs(stage: &Stage) -> Seen {
    as_ventilator(stage, |Known { job, .. }| {
        let open = |start| ToSink::JobOpen {
            job,
            name: "j".to_owned(),
            start,
            stage: String::new(),
            is_untouched: true,
        };
        let wrong =
            |from| ToSink::Inputs { job, from: Seq(from), hashes: vec![TaskHash(1)].into() };
        let mut said = vec![open(Start::Resume), open(Start::RetryFailed), open(Start::New)];
        said.extend((0..300).map(|n| wrong(n % 2 * 50)));
        said
    })
}

fn false_cancel(stage: &Stage) -> Seen {
    as_ventilator(stage, |Known { job, .. }| vec![ToSink::Cancel { job }])
}

fn squatter(stage: &Stage) -> Seen {
    let (mut ring, peer) = Ring::start_after(stage, Flags::default(), |scene| {
        let mut peer = stage.liar(scene).ventilator(scene);
        if let Some(peer) = &mut peer {
            let open = ToSink::JobOpen {
                job: JobId(77),
                name: "mine".to_owned(),
                start: Start::New,
                stage: String::new(),
                is_untouched: true,
            };
            peer.send(&open).expect("the sink does not know yet whose it is");
        }
        peer
    });
    ring.slow();
    ring.feed(60);
    let told = peer.map(|peer| peer.wait_for_end("the squatter"));
    let _ = ring.end_untouched();
    kept_out(told)
}

/// Says this as a sink to the ventilator of a running job.
fn as_sink(stage: &Stage, say: impl FnOnce(Known, SessionId) -> Vec<ToVentilator>) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let known = stage.spy(&ring.scene);
    let liar = stage.liar(&ring.scene);
    let told = liar.sink(&ring.scene).map(|mut peer| {
        for message in say(known, liar.session) {
            let _ = peer.send(&message);
        }
        peer.wait_for_end("a second sink")
    });
    let _ = ring.end_untouched();
    kept_out(told)
}

fn hello(job: JobId, sink: SessionId, stored: SeqRanges) -> ToVentilator {
    ToVentilator::SinkHello {
        asked: job,
        job,
        sink,
        stored,
        again: SeqRanges::new(),
        workers: Some(Vec::new().into()),
        report: Report::default(),
        key: JobKey::new([0; 16]),
    }
}

fn fake_sink(stage: &Stage) -> Seen {
    as_sink(stage, |Known { job, .. }, session| {
        let receipt = ToVentilator::Receipt {
            job,
            received: Vec::new().into(),
            stored: below(80),
            retry: Vec::new().into(),
            held_bytes: 0,
            failed: 0,
        };
        vec![hello(job, session, below(80)), receipt, ToVentilator::Complete { job }]
    })
}

fn fake_refusal(stage: &Stage) -> Seen {
    as_sink(stage, |Known { job, .. }, _| {
        vec![ToVentilator::Refused { job, reason: "no disk left".to_owned() }]
    })
}

fn fake_empty_hello(stage: &Stage) -> Seen {
    as_sink(stage, |Known { job, .. }, session| vec![hello(job, session, SeqRanges::new())])
}

fn mute_sink(stage: &Stage) -> Seen {
    as_sink(stage, |_, _| vec![ToVentilator::Ping { is_stuck: false }])
}

fn black_hole(stage: &Stage) -> Seen {
    let flags = Flags { ventilator: "--timeout 2s --retries 3", ..Flags::default() };
    let mut ring = Ring::start(stage, flags);
    let mut worker = stage.liar(&ring.scene).worker(&ring.scene, 4096, "hole");
    ring.feed(2000);
    if let Some(worker) = &mut worker {
        worker.answer();
        wait_until("it is given tasks", || worker.given() > 0);
    }
    ring.echo();
    ring.echo();
    ring.wait_for_stored_while(2000, || {
        if let Some(worker) = &mut worker {
            worker.tick();
        }
    });
    let kept = worker.as_mut().map(Worker::given);
    let told = worker.map(|worker| worker.tasks.end().unwrap_or_default());
    let _ = ring.end_untouched();
    match kept {
        None => "kept out; 2,000 right records".into(),
        Some(kept) => {
            let told: String = told.unwrap_or_default().chars().take(60).collect();
            format!("2,000 right records; it was given {kept} tasks ({told})").into()
        }
    }
}

fn fast_liar(stage: &Stage) -> Seen {
    let mut ring = Ring::start(stage, Flags::default());
    ring.slow();
    ring.slow();
    ring.feed(300);
    ring.wait_for_stored(4);
    let worker = stage.liar(&ring.scene).worker(&ring.scene, 64, "liar");
    let mut given = BTreeSet::new();
    if let Some(mut worker) = worker {
        worker.answer();
        ring.wait_for_stored_while(300, || {
            worker.tick();
            let tasks = worker.take();
            given.extend(tasks.iter().map(|task| task.seq.0));
            let lie = |task| result(task, Outcome::ok(Payload::from("forged")));
            if !tasks.is_empty() {
                let _ = worker.send(tasks.iter().map(lie).collect());
            }
        });
    }
    let ended = ring.end(|record| {
        let is_own = record.worker == "liar" && given.contains(&record.seq);
        assert!(is_own || record.worker.starts_with("honest"), "{record:?}");
    });
    let by_liar = ended.records.iter().filter(|record| record.worker == "liar").count();
    format!(
        "{by_liar} records are the liar's, of the {} tasks it was given; the others are right",
        given.len()
    )
    .into()
}

fn median_timeout(stage: &Stage) -> Seen {
    let mut ring = Ring::start(stage, Flags { ventilator: "--timeout 300%", ..Flags::default() });
    ring.shell("sleep 0.1; printf %s \"$1\"");
    ring.feed(40);
    ring.wait_for_stored(6);
    let worker = stage.liar(&ring.scene).worker(&ring.scene, 1, "liar");
    let mut own = None;
    if let Some(mut worker) = worker {
        worker.answer();
        ring.feed_until_given(&mut worker);
        let task = worker.take().remove(0);
        own = Some(task.seq.0);
        let lie = || result(&task, Outcome::ok(Payload::from("mine")));
        for _ in 0..300 {
            let unknown = forged(0, hash(0));
            if worker.send(vec![lie(), unknown]).is_err() {
                break;
            }
        }
        // The other tasks that it has go back.
        let _ = worker.tell(News::Goodbye);
    }
    let ended = ring.end(|record| {
        let is_own = record.worker == "liar" && Some(record.seq) == own;
        assert!(is_own || record.worker.starts_with("honest"), "{record:?}");
        assert_eq!(record.status, "ok", "{record:?}");
    });
    format!("0 of {} tasks timed out", ended.records.len()).into()
}

fn halt(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags { ventilator: "--halt now,fail=1", ..Flags::default() });
    if let Some(mut worker) = stage.liar(&ring.scene).worker(&ring.scene, 1, "liar") {
        let mut lie = forged(59, hash(59));
        lie.outcome = failure("x");
        let mut again = forged(0, hash(0));
        again.outcome = failure("x");
        let _ = worker.send(vec![lie, again]);
    }
    let _ = ring.end_untouched();
    "80 right records, not halted".into()
}

/// A job with 400 tasks whose ventilator was killed after some. A worker that keeps a task for ever cannot be
/// told from one whose task takes long, unless there is a timeout.
fn killed(stage: &Stage) -> Ring {
    let flags = Flags { ventilator: "--timeout 2s --input in", ..Flags::default() };
    let mut ring = Ring::start_whole(stage, flags, 400);
    ring.slow();
    ring.wait_for_stored(20);
    ring.ventilator.kill();
    ring
}

const RESUME: &str = "--resume --resume-wait 2s";

fn resumed_ended(stage: &Stage) -> Seen {
    let mut ring = killed(stage);
    ring.restart_ventilator(RESUME);
    let mut liars = Vec::new();
    for hash in [TaskHash(12345), hash(290)] {
        if let Some(mut worker) = stage.liar(&ring.scene).worker(&ring.scene, 1, "liar") {
            let one = SeqRanges::of(SeqRange::one(Seq(290)));
            let news = worker.holding(one, vec![hash], vec![Tag(1)]);
            let _ = worker.tell(news);
            liars.push(worker);
        }
    }
    // What they are given after that they keep.
    ring.wait_for_stored_while(400, || liars.iter_mut().for_each(Worker::tick));
    let _ = ring.end(|record| assert!(record.worker.starts_with("honest"), "{record:?}"));
    "400 right records; the lie counts as nothing held".into()
}

fn resumed_hostage(stage: &Stage) -> Seen {
    let mut ring = killed(stage);
    ring.workers.clear();
    ring.restart_ventilator(RESUME);
    let mut told = String::new();
    let first = ring.stored() + 2;
    let mut worker = stage.liar(&ring.scene).worker(&ring.scene, 1, "liar");
    if let Some(worker) = &mut worker {
        let all = SeqRanges::of(SeqRange { start: Seq(first), end: Seq(400) });
        let hashes = (first..400).map(hash).collect();
        let tags = (first..400).map(|_| Tag(fastrand::u64(..))).collect();
        let news = worker.holding(all, hashes, tags);
        let _ = worker.tell(news);
    }
    ring.echo();
    ring.wait_for_stored_while(400, || {
        if let Some(worker) = &mut worker {
            worker.tick();
        }
    });
    if let Some(worker) = &mut worker {
        told = format!("; its lane: {}", worker.tasks.end().unwrap_or_else(|| "open".to_owned()));
    }
    let _ = ring.end(|record| assert!(record.worker.starts_with("honest"), "{record:?}"));
    format!("400 right records{told}").into()
}

fn session_theft(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let scene = &ring.scene;
    let Known { ventilator, sink, .. } = stage.spy(scene);
    // Another worker of the same user, which is here meanwhile.
    let victim = Stage { way: Way::Token(KeyRole::Worker) }.liar(scene);
    let stays = victim.worker(scene, 1, "victim").expect("it has a token");
    for session in [ventilator, sink, victim.session] {
        let thief = || stage.liar(scene).showing(session);
        for (role, slots) in [(Role::Worker, 1), (Role::Ventilator, 0), (Role::Sink, 0)] {
            let card = thief().card(role, slots, "thief");
            for (port, kind) in [
                (scene.tasks(), Kind::Pull),
                (scene.results(), Kind::Push),
                (scene.receipts(), Kind::Push),
            ] {
                if let Ok(peer) = thief().route.dial(port, kind, &card) {
                    let _ = peer
                        .wait_for_end(&format!("a {role:?} with a session that is not its own"));
                }
            }
        }
    }
    assert!(stays.tasks.end().is_none(), "the victim has lost its lane");
    drop(stays);
    let _ = ring.end_untouched();
    "27 cards with stolen sessions, none accepted".into()
}

fn worker_as_others(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let Known { job, .. } = stage.spy(&ring.scene);
    let victim = stage.liar(&ring.scene);
    let mut stays = victim.worker(&ring.scene, 1, "honest-victim").expect("workers get in");
    stays.answer();
    let as_ventilator = [
        ToSink::JobClose { job, total: 10, end: InputEnd::Whole },
        ToSink::JobDone { job },
        ToSink::Cancel { job },
        ToSink::Inputs { job, from: Seq(0), hashes: vec![TaskHash(1)].into() },
        ToSink::GiveUp {
            job,
            seq: Seq(50),
            attempt: Attempt::FIRST,
            task_hash: hash(50),
            status: Status::Ok,
            error: String::new(),
        },
        ToSink::Forwarded {
            job,
            stage: String::new(),
            worker: "honest0".to_owned(),
            results: vec![forged(50, hash(50))].into(),
        },
        ToSink::JobOpen {
            job,
            name: String::new(),
            start: Start::RetryFailed,
            stage: String::new(),
            is_untouched: true,
        },
    ];
    let session = stays.session;
    let as_victim =
        [News::Goodbye, News::Gone, News::Reconnected, News::Draining { reason: "x".into() }]
            .map(|news| ToSink::News { session, news });
    let as_victim = as_victim.into_iter().chain([ToSink::Results {
        job,
        session,
        results: vec![forged(55, hash(55))].into(),
    }]);
    for message in as_ventilator.into_iter().chain(as_victim) {
        // A liar each: one may be sent away after a few.
        let mut liar =
            stage.liar(&ring.scene).worker(&ring.scene, 1, "liar").expect("workers get in");
        let _ = liar.results.send(&message);
    }
    let others = stays.read();
    let is_usual =
        |message: &ToWorker| matches!(message, ToWorker::Ping | ToWorker::Settled { .. });
    assert!(others.iter().all(is_usual), "the victim hears of it: {others:?}");
    assert!(stays.tasks.end().is_none(), "the victim has lost its lane");
    // It holds tasks, which go back now.
    drop(stays);
    let _ = ring.end_untouched();
    "12 messages in the name of others, without any effect".into()
}

fn every_door(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let scene = &ring.scene;
    let ports = [
        (scene.tasks(), Kind::Pull, &[Role::Worker][..]),
        (scene.results(), Kind::Push, &[Role::Worker, Role::Ventilator]),
        (scene.receipts(), Kind::Push, &[Role::Sink]),
    ];
    let mut opened = 0;
    for (port, kind, roles) in ports {
        for (role, slots) in [(Role::Worker, 1), (Role::Ventilator, 0), (Role::Sink, 0)] {
            let liar = stage.liar(scene);
            let dialled = liar.route.dial(port, kind, &liar.card(role, slots, "x"));
            let opens = roles.contains(&role) && stage.way.opens(role);
            match (dialled, opens) {
                // One that is let in may be sent away later: as a second one.
                (Ok(_), true) => opened += 1,
                (Ok(peer), false) => {
                    let _ = peer.wait_for_end(&format!("a {role:?} at {port}"));
                }
                (Err(_), false) => {}
                (Err(why), true) => panic!("a {role:?} was kept out of {port}: {why:?}"),
            }
        }
    }
    let _ = ring.end_untouched();
    format!("{opened} of 9 doors open").into()
}

fn fake_gates(stage: &Stage) -> Seen {
    let flags = Flags::default();
    let scene = stage.scene();
    let liar = stage.liar(&scene);
    let refused = |trap: &Trap, who: &str| match trap.accept() {
        Err(_) => {}
        Ok(peer) => {
            let _ = peer.wait_for_end(who);
        }
    };
    let card = |role| liar.card(role, 0, "fake");
    let keys = || liar.route.keys.clone();
    let trap = Trap::listen(scene.receipts(), Kind::Pull, card(Role::Ventilator), keys());
    let sink = Ring::sink(&scene, flags).start();
    refused(&trap, "a fake ventilator");
    drop((trap, sink));
    let trap = Trap::listen(scene.results(), Kind::Pull, card(Role::Sink), keys());
    let ventilator = Ring::ventilator(&scene, flags).keep_stdin().start();
    refused(&trap, "a fake sink");
    drop(trap);
    let sink = Ring::sink(&scene, flags).start();
    let mut ring = Ring::of(scene, flags, ventilator, sink);
    ring.slow();
    ring.feed(60);
    let _ = ring.end_untouched();
    "both refused; 80 right records with the real ones".into()
}
