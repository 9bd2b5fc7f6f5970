//! Bytes that are no messages: ZMTP that is cut, changed, endless, or of another kind.

use std::net::SocketAddrV4;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tradewind_e2e::wait_until;
use tradewind_keys::Role as KeyRole;
use tradewind_proto::message::{News, Role, ToSink};
use tradewind_wire::encode;

use crate::peer::{Kind, Last, Route, block, command, frame, greeting, header, ready};
use crate::ring::{Flags, Ring};
use crate::stage::{Liar, Stage, Way};
use crate::suite::{Group, Scenario, Seen};

const WAYS: &[Way] = &[Way::Plain, Way::Token(KeyRole::Worker), Way::NoKey];

pub(crate) const GROUP: Group = Group {
    name: "bytes",
    scenarios: &[
        Scenario {
            name: "broken-zmtp",
            required: "thousands of wrong, cut and changed connections: the records are the same, no panic",
            ways: WAYS,
            play: broken_zmtp,
        },
        Scenario {
            name: "message-limit",
            required: "a frame one byte beyond the limit closes the lane before it is read",
            ways: &[Way::Plain, Way::Token(KeyRole::Worker)],
            play: message_limit,
        },
    ],
    undefended: &[],
};

/// Something to say at a port.
type Said = (Vec<u8>, Last);

/// Number of connections at a time.
const TOGETHER: usize = 48;

/// A good beginning at each port, as a worker of any way has it.
fn good(liar: &Liar, ring: &Ring) -> [(SocketAddrV4, Vec<u8>); 3] {
    let worker = liar.card(Role::Worker, 1, "x");
    let beat = ToSink::News {
        session: liar.session,
        news: News::Heartbeat { running: 0, queued: 0, slots: 1 },
    };
    let hello = |kind: &[u8], card: &[u8]| [greeting(), ready(kind, card)].concat();
    [
        (ring.scene.tasks(), hello(b"PULL", &worker)),
        (ring.scene.results(), [hello(b"PUSH", &worker), frame(&encode(&beat))].concat()),
        (ring.scene.receipts(), hello(b"PUSH", &liar.card(Role::Sink, 0, "x"))),
    ]
}

/// All that is wrong with a good beginning.
fn wrong(good: &[u8], card: &[u8], random: &mut fastrand::Rng) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    for at in 0..good.len() {
        let mut changed = good.to_vec();
        changed[at] ^= random.u8(1..);
        said.push((changed, Last::Close));
    }
    for end in 0..=good.len() {
        let ways: &[Last] = match end % 4 {
            0 => &[Last::Close, Last::Reset, Last::Half],
            2 => &[Last::Close, Last::Reset],
            _ => &[Last::Close],
        };
        said.extend(ways.iter().map(|last| (good[..end].to_vec(), *last)));
    }
    said.extend((0..2).map(|_| (good.to_vec(), Last::Bytewise)));
    for round in 0..100 {
        let mut bytes = good[..random.usize(..=good.len())].to_vec();
        bytes.extend((0..random.usize(1..300)).map(|_| random.u8(..)));
        said.push((bytes, if round % 2 == 0 { Last::Close } else { Last::Reset }));
    }
    // Every flag with lengths that are lies.
    for flags in [0, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x80, 0xff] {
        for length in [0, 1, 255, 4096, (64 << 20) + 1, 1 << 32, 1 << 63, u64::MAX] {
            let mut bytes = vec![flags];
            match flags & 2 {
                0 => bytes.push(length as u8),
                _ => bytes.extend(length.to_be_bytes()),
            }
            bytes.extend([b'x'; 40]);
            said.push(([&greeting()[..], &bytes].concat(), Last::Close));
            said.push(([good, &bytes].concat(), Last::Close));
        }
    }
    for mechanism in [&b"PLAIN"[..], b"CURVE", b"NULL\0X", b"GSSAPI"] {
        let mut bytes = greeting();
        bytes[12..32].fill(0);
        bytes[12..12 + mechanism.len()].copy_from_slice(mechanism);
        said.push(([bytes, ready(b"PUSH", card)].concat(), Last::Half));
    }
    for version in (0..=255).step_by(15) {
        let mut changed = good.to_vec();
        changed[10] = version;
        said.push((changed, Last::Close));
    }
    for kind in [
        &b"REQ"[..],
        b"REP",
        b"DEALER",
        b"ROUTER",
        b"PUB",
        b"SUB",
        b"XPUB",
        b"PAIR",
        b"STREAM",
        b"",
        b"push",
        b"PUSH\0",
        &[b'P'; 255],
    ] {
        said.push(([greeting(), ready(kind, card)].concat(), Last::Half));
    }
    for properties in [
        b"\0\0\0\0\0".to_vec(),
        b"\x0bSocket-Type\xff\xff\xff\xff".to_vec(),
        b"\xffSocket".to_vec(),
        b"\x0bSocket-Type\0\0\0\x04PUSH".repeat(100),
        [&b"\x08Identity\0\0\x10\0"[..], &[b'i'; 4000]].concat(),
    ] {
        let body = [&b"\x05READY"[..], &properties].concat();
        said.push(([greeting(), command(&body)].concat(), Last::Half));
    }
    // A message without an end; a connection that is said again.
    said.push(([good, &b"\x01\x01a".repeat(1000)].concat(), Last::Close));
    said.extend((0..20).map(|_| (good.to_vec(), Last::Close)));
    said
}

/// Says all of this; returns the number of connections that were made.
fn fire(route: &Route, to: SocketAddrV4, said: Vec<Said>) -> usize {
    block(async {
        let room = Arc::new(Semaphore::new(TOGETHER));
        let mut all = JoinSet::new();
        for (bytes, last) in said {
            let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
            let route = route.clone();
            all.spawn(async move {
                let _permit = permit;
                // That it is refused in the middle is what is to be seen.
                let _ = route.say(to, &bytes, last).await;
            });
        }
        all.join_all().await.len()
    })
}

fn broken_zmtp(stage: &Stage) -> Seen {
    let mut ring = Ring::start(stage, Flags::default());
    ring.echo();
    ring.feed(100);
    let liar = stage.liar(&ring.scene);
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    for (port, good) in good(&liar, &ring) {
        let card = liar.card(Role::Worker, 1, "x");
        count += fire(&liar.route, port, wrong(&good, &card, &mut random));
        ring.feed(100);
        let fed = ring.fed();
        ring.wait_for_stored(fed);
    }
    let log = ring.ventilator.stderr().len() + ring.sink.stderr().len();
    assert!(log <= 100_000, "{log} bytes of log");
    let memory = [&ring.ventilator, &ring.sink].map(Ring::memory_mib);
    assert!(memory.iter().all(|it| *it <= 256), "{memory:?} MiB");
    let _ = ring.end_untouched();
    format!("{count} connections, {} kB of log, {memory:?} MiB (seed {seed})", log / 1000).into()
}

fn message_limit(stage: &Stage) -> Seen {
    let ring = Ring::begin(stage, Flags::default());
    let liar = stage.liar(&ring.scene);
    let card = liar.card(Role::Worker, 1, "x");
    let dial = || liar.route.dial(ring.scene.results(), Kind::Push, &card).expect("workers get in");
    let mut beyond = dial();
    let _ = beyond.send_bytes(&header((64 << 20) + 1));
    let told = beyond.wait_for_end("one with too large a message");
    let mut within = dial();
    let junk = vec![0xff; 1 << 20];
    let _ = within.send_bytes(&header(64 << 20));
    for _ in 0..64 {
        if within.send_bytes(&junk).is_err() {
            break;
        }
    }
    // It is read, and no message.
    wait_until("its connection is closed too", || within.end().is_some());
    let _ = ring.end_untouched();
    format!("closed: {}", told.chars().take(60).collect::<String>()).into()
}
