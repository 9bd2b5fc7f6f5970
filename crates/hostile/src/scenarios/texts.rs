//! Text that others choose, and where it ends up: logs, terminals, joblogs, records.

use tradewind_e2e::wait_until;
use tradewind_proto::message::{
    News, Outcome, Reported, Role, Start, Status, ToSink, ToVentilator,
};
use tradewind_proto::{JobId, Payload};
use tradewind_wire::VERSION;

use super::INSIDE;
use crate::peer::{Kind, Route};
use crate::ring::{Flags, Ring};
use crate::stage::{Known, Liar, Stage, Way, result};
use crate::suite::{Group, Scenario, Seen};

pub(crate) const GROUP: Group = Group {
    name: "texts",
    scenarios: &[
        Scenario {
            name: "wrong-cards",
            required: "names with control characters and other wrong cards are refused (R7)",
            ways: INSIDE,
            play: wrong_cards,
        },
        Scenario {
            name: "hostile-records",
            required: "no control character of a result is raw in jsonl, joblog and logs (R7)",
            ways: INSIDE,
            play: hostile_records,
        },
        Scenario {
            name: "hostile-reasons",
            required: "reasons of a worker and names of a job are shown escaped, or refused (R7)",
            ways: INSIDE,
            play: hostile_reasons,
        },
        Scenario {
            name: "hostile-refusal",
            required: "what a sink says is shown escaped, even where anybody can be the sink (R7)",
            ways: &[Way::Plain],
            play: hostile_refusal,
        },
        Scenario {
            name: "hostile-stderr",
            required: "what tasks write to stderr is shown escaped (R7)",
            ways: &[Way::Here],
            play: hostile_stderr,
        },
        Scenario {
            name: "hostile-terminal",
            required: "nothing that a task says changes the state of a terminal (R7)",
            ways: &[Way::Here],
            play: hostile_terminal,
        },
    ],
    undefended: &[],
};

/// All that has an effect on terminals, and on who reads them.
const EVIL: &str = "a\tb\nc\rd\u{1b}]0;owned\u{7}\u{1b}[31m\u{0}\u{b}\u{c}\u{7f}\u{85}\u{9b}31m\u{202e}\u{2028}\u{2029}\u{200b}e";

/// Returns the first character of a text that is not to be shown raw.
fn raw(text: &str) -> Option<char> {
    let is_raw = |c: &char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    text.chars().find(is_raw)
}

#[track_caller]
fn assert_escaped(what: &str, text: &str) {
    let at = raw(text).and_then(|c| text.find(c).map(|at| (c, at)));
    if let Some((c, at)) = at {
        let before: String = text[..at].chars().rev().take(80).collect();
        let before: String = before.chars().rev().collect();
        panic!("{what} has {c:?} raw, after {before:?}");
    }
}

/// A card with a name of any bytes.
fn named(liar: &Liar, name: &[u8]) -> Vec<u8> {
    let mut card = liar.card(Role::Worker, 1, "");
    assert_eq!(card.pop(), Some(0), "the queue comes last");
    assert_eq!(card.pop(), Some(0), "and the name before it");
    card.push(name.len() as u8);
    card.extend_from_slice(name);
    card.push(0);
    card
}

fn is_admitted(route: &Route, ring: &Ring, card: &[u8]) -> bool {
    match route.dial(ring.scene.tasks(), Kind::Pull, card) {
        Err(_) => false,
        Ok(peer) => {
            // One that is let in hears the roll called; one that is not, why.
            let mut peer = peer;
            let first = peer
                .wait_for("an answer", |message: tradewind_proto::message::ToWorker| Some(message));
            first.is_ok()
        }
    }
}

fn wrong_cards(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let liar = stage.liar(&ring.scene);
    let refused: &[&[u8]] = &[
        b"\x1b[2J",
        b"a\nb",
        b"\x9b31m",
        "\u{9b}31m".as_bytes(),
        "\u{202e}txt.exe".as_bytes(),
        "\u{2028}x".as_bytes(),
        "\u{200b}".as_bytes(),
        &[b'x'; 101],
        b"\xff\xfe",
        b"",
    ];
    for name in refused {
        let is_in = is_admitted(&liar.route, &ring, &named(&liar, name));
        assert!(!is_in, "the name {:?} was admitted", String::from_utf8_lossy(name));
    }
    for name in
        [&[b'x'; 100][..], "\u{1f600}".repeat(25).as_bytes(), b"{}", b"a lane=0 worker=\"b\""]
    {
        let is_in = is_admitted(&liar.route, &ring, &named(&liar, name));
        assert!(is_in, "the name {:?} was refused", String::from_utf8_lossy(name));
    }
    let good = liar.card(Role::Worker, 1, "x");
    let version = |version: u8| [&[version], &good[1..]].concat();
    let wrong: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![VERSION],
        liar.card(Role::Worker, 0, "x"),
        liar.card(Role::Worker, 4097, "x"),
        liar.card(Role::Sink, 0, "x"),
        liar.card(Role::Ventilator, 0, "x"),
        version(VERSION - 1),
        version(VERSION + 1),
        [&good[..], b"\0"].concat(),
        good[..good.len() - 1].to_vec(),
        [&good[..good.len() - 3], &[0xfd], &[0xff; 8]].concat(),
        [&good[..good.len() - 1], &[0xfd], &[0xff; 8]].concat(),
        [&good[..good.len() - 1], b"\x03a\nb"].concat(),
        // No queue is served here.
        [&good[..good.len() - 1], b"\x01q"].concat(),
        vec![b'z'; 255],
    ];
    for card in &wrong {
        assert!(!is_admitted(&liar.route, &ring, card), "the card {card:?} was admitted");
    }
    assert_escaped("the ventilator's log", &ring.ventilator.stderr());
    let _ = ring.end_untouched();
    format!("{} names and {} cards refused, 4 names admitted", refused.len(), wrong.len()).into()
}

fn hostile_records(stage: &Stage) -> Seen {
    let flags = Flags { sink: "--joblog joblog --with-task", ..Flags::default() };
    let mut ring = Ring::start(stage, flags);
    let mut worker =
        stage.liar(&ring.scene).worker(&ring.scene, 4, "liar").expect("workers get in");
    worker.answer();
    ring.feed(4);
    wait_until("it is given tasks", || worker.given() == 4);
    let evil = || Payload::from(EVIL);
    for (at, task) in worker.take().iter().enumerate() {
        let outcome = match at {
            0 => Outcome::ok(evil()),
            1 => Outcome {
                output: evil(),
                stderr: evil().into(),
                ..Outcome::error(Status::Failed, EVIL)
            },
            2 => Outcome::error(Status::TimedOut, EVIL),
            _ => Outcome {
                stderr: evil().into(),
                ..Outcome::ok(Payload::from(vec![0xff, 0x1b, 0x9b]))
            },
        };
        let mut lie = result(task, outcome);
        lie.reported = Some(Box::new(Reported { command: evil(), task: evil() }));
        (lie.ran_us, lie.started_us, lie.task_bytes) = (u64::MAX, u64::MAX, u64::MAX);
        let _ = worker.send(vec![lie]);
    }
    ring.wait_for_stored(4);
    ring.ventilator.close_stdin();
    drop(worker);
    let Ring { ventilator, sink, scene, .. } = ring;
    let ventilator = ventilator.wait().expect(1);
    let sink = sink.wait().expect(1);
    let read = |name: &str| String::from_utf8(scene.read(name)).expect("it is text");
    let (jsonl, joblog) = (read("out.jsonl"), read("joblog"));
    assert_eq!(jsonl.lines().count(), 4, "{jsonl}");
    // In JSON, which is not for people, all others stand as they are.
    let is_raw = |c: char| c < ' ' && c != '\n';
    assert!(!jsonl.contains(is_raw), "jsonl: {jsonl:?}");
    assert_eq!(joblog.lines().count(), 5, "{joblog:?}");
    let tabs: Vec<usize> = joblog.lines().map(|line| line.matches('\t').count()).collect();
    assert!(tabs.iter().all(|count| *count == tabs[0]), "{joblog:?}");
    assert_escaped("the joblog", &joblog);
    assert_escaped("the sink's stderr", &sink.stderr);
    assert_escaped("the ventilator's stderr", &ventilator.stderr);
    "4 records; nothing raw in jsonl, joblog and both logs".into()
}

fn hostile_reasons(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let mut worker =
        stage.liar(&ring.scene).worker(&ring.scene, 1, "liar").expect("workers get in");
    worker.answer();
    let _ = worker.tell(News::Draining { reason: EVIL.to_owned() });
    let _ = worker.tell(News::Draining { reason: EVIL.repeat(1000) });
    let _ = worker.tell(News::Goodbye);
    wait_until("its lane is closed", || worker.tasks.end().is_some());
    if stage.way == Way::Plain {
        let mut peer = stage.liar(&ring.scene).ventilator(&ring.scene).expect("anybody gets in");
        let open = ToSink::JobOpen {
            job: JobId(5),
            name: EVIL.to_owned(),
            start: Start::New,
            stage: EVIL.to_owned(),
            is_untouched: true,
        };
        let _ = peer.send(&open);
        let _ = peer.wait_for_end("one with a hostile name of a job");
    }
    assert_escaped("the ventilator's log", &ring.ventilator.stderr());
    assert_escaped("the sink's log", &ring.sink.stderr());
    let said = ring.ventilator.stderr().len();
    assert!(said < 20_000, "{said} bytes of log");
    let _ = ring.end_untouched();
    "nothing raw in both logs".into()
}

fn hostile_refusal(stage: &Stage) -> Seen {
    let mut ring = Ring::begin(stage, Flags::default());
    let Known { job, sink, .. } = stage.spy(&ring.scene);
    // Without keys one that shows the sink's session is the sink.
    let liar = stage.liar(&ring.scene).showing(sink);
    let mut peer = liar.sink(&ring.scene).expect("anybody gets in");
    let reason = format!("{EVIL}\nventilator: all is well");
    let _ = peer.send(&ToVentilator::Refused { job, reason });
    wait_until("the ventilator ends", || !ring.ventilator.is_running());
    let Ring { ventilator, .. } = ring;
    let ended = ventilator.wait().expect(7);
    assert_escaped("the ventilator's stderr", &ended.stderr);
    let lines =
        ended.stderr.lines().filter(|line| line.starts_with("ventilator: all is well")).count();
    assert_eq!(lines, 0, "{}", ended.stderr);
    "the job ends, as has to be without keys; nothing raw, no line of the liar's own".into()
}

fn hostile_stderr(stage: &Stage) -> Seen {
    let task = "\u{1b}]0;owned\u{7}\u{1b}[2Jx\n";
    for flags in ["--pipe lines", ""] {
        let scene = stage.scene();
        let sink = Ring::sink(&scene, Flags::default()).start();
        let ventilator = scene.ventilator().input(format!("{task}y\n")).start();
        let script = match flags {
            "" => "printf 'failed: %s' \"$1\" >&2; exit 1",
            _ => "while read -r line; do echo \"said $line\" >&2; echo ok; done",
        };
        let worker = scene.worker("w").words("--exit-when-done").words(flags);
        let worker = worker
            .args(["--", "sh", "-c", script])
            .args((flags.is_empty()).then_some(["sh", "{}"]).into_iter().flatten());
        let worker = worker.start();
        let ventilator = ventilator.wait();
        let sink = sink.wait();
        let worker = worker.wait();
        for (who, ended) in [("ventilator", &ventilator), ("sink", &sink), ("worker", &worker)] {
            assert_escaped(&format!("the {who}'s stderr, with {flags:?}"), &ended.stderr);
        }
        let jsonl = String::from_utf8(scene.read("out.jsonl")).expect("it is text");
        assert!(!jsonl.contains('\u{1b}'), "{jsonl:?}");
    }
    "nothing raw on three stderrs, of commands and of pipe handlers".into()
}

fn hostile_terminal(stage: &Stage) -> Seen {
    let scene = stage.scene();
    if !scene.other("script").args(["-qec", "true", "/dev/null"]).run().status.success() {
        return Seen::Skipped("this takes the command script".to_owned());
    }
    let tradewind = tradewind_e2e::program("tradewind");
    let tasks = scene.file("tasks", "\u{1b}]0;owned\u{7}\u{1b}[2Jx\n");
    for handler in [
        "--pipe lines -- sh -c 'read -r line; echo \"$line\" >&2; exit 3'",
        "-- sh -c 'printf %s \"$1\" >&2; exit 1' sh {}",
    ] {
        let command = format!(
            "{} run --overwrite --output o.jsonl {handler} < {}",
            tradewind.display(),
            tasks.display()
        );
        let ended = scene.other("script").args(["-qec", &command, "/dev/null"]).run();
        let seen = String::from_utf8_lossy(&ended.stdout);
        assert!(!seen.contains("\u{1b}]0;owned"), "the title was set: {seen:?}");
        assert!(!seen.contains("\u{1b}[2J"), "the screen was cleared: {seen:?}");
        assert!(!seen.contains('\u{7}'), "the bell rang: {seen:?}");
    }
    "no title set, no screen cleared, no bell".into()
}
