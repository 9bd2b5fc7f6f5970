//! Connections with keys: who is let in, what each end says of one that is not, and what is seen on the way.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tradewind_keys::{Addresses, Folder, Keys, Role, Roles, Source, UnixTime};
use tradewind_lanes::{Dialler, Door, Endpoint, GoneReason, Keyring, LaneOptions, PullGate};

use crate::strangers::{Stranger, ready};
use crate::{any_port, run};

const PROTOCOL: &str = "tradewind/1";
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Keys of one `tradewind keys new`.
pub(crate) struct Set {
    dir: tempfile::TempDir,
    folder: Folder,
    tokens: Cell<u32>,
}

impl Set {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), moved(UnixTime::now(), -60)).unwrap();
        Self { dir, folder, tokens: Cell::new(0) }
    }

    /// Keys of a process with a token of this role.
    pub(crate) fn keyring(&self, role: Role) -> Arc<Keyring> {
        self.keyring_at(role, DAY, UnixTime::now(), PROTOCOL)
    }

    /// The same for a token that was made, and a process that was started, at another time.
    fn keyring_at(&self, role: Role, life: Duration, at: UnixTime, protocol: &str) -> Arc<Keyring> {
        let token = self.folder.token(role, life, Addresses::default(), at).unwrap();
        let number = self.tokens.get();
        self.tokens.set(number + 1);
        let place = self.dir.path().join(number.to_string());
        fs::create_dir(&place).unwrap();
        let path = place.join("token");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(token.encode().unwrap().as_bytes()).unwrap();
        let keys = Keys::open(Source::at(&path).unwrap(), role, at).unwrap();
        Arc::new(Keyring::new(keys, protocol))
    }
}

fn moved(time: UnixTime, minutes: i64) -> UnixTime {
    let seconds = time.as_secs().checked_add_signed(minutes * 60).unwrap();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn locked(door: Door, keyring: &Arc<Keyring>, peer: Role) -> Door {
    door.locked(keyring.clone(), Roles::of(&[peer]))
}

/// Log of a test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Collects what is logged on this thread.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let to = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Waits until a line has this text.
    async fn wait_for(&self, text: &str) {
        while !self.text().contains(text) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What one end has: keys, and the role that it expects; or nothing.
type Side<'a> = Option<(&'a Arc<Keyring>, Role)>;

fn door(side: Side<'_>) -> Door {
    match side {
        Some((keyring, peer)) => locked(Door::default(), keyring, peer),
        None => Door::default(),
    }
}

/// A gate that pulls, and a dialler of it.
async fn ends(gate: Side<'_>, dialler: Side<'_>) -> (PullGate, Dialler) {
    let options = LaneOptions::default();
    let gate = PullGate::bind(&any_port(), options.clone(), door(gate)).await.unwrap();
    let dialler = Dialler::new(gate.endpoint(), options, door(dialler), 7);
    (gate, dialler)
}

/// Has two ends meet that do not trust one another, and checks what each says.
async fn check_refused(gate: Side<'_>, dialler: Side<'_>, at_gate: &str, at_dialler: &str) {
    let (log, _guard) = Log::start();
    let (mut gate, mut dialler) = ends(gate, dialler).await;
    let failed = async {
        while dialler.last_error().is_none() {
            let _ = tokio::time::timeout(Duration::from_millis(20), dialler.dial_push()).await;
        }
        dialler.last_error().unwrap().to_string()
    };
    let said = tokio::select! {
        said = failed => said,
        _ = gate.accept() => panic!("it was let in: {at_gate}"),
    };
    assert!(said.contains(at_dialler) && !said.contains('\n'), "{at_dialler}: {said}");
    log.wait_for(at_gate).await;
    let text = log.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].contains("connection from 127.0.0.1:"), "{text}");
}

#[test]
fn each_end_says_why_there_is_no_connection() {
    run(async |_| {
        let (ours, theirs) = (Set::new(), Set::new());
        let (sink, worker) = (ours.keyring(Role::Sink), ours.keyring(Role::Worker));
        let (at_sink, of_worker) = (Some((&sink, Role::Worker)), Some((&worker, Role::Sink)));

        check_refused(at_sink, None, "it does not use TLS", "TLS, and this program has no keys")
            .await;
        check_refused(None, of_worker, "TLS, and this program has no keys", "it does not use TLS")
            .await;

        let ventilator = ours.keyring(Role::Ventilator);
        let wrong = "its key is that of a ventilator, and here it has to be that of a worker";
        let told = "it refuses this program's key: this role may not connect to that port";
        check_refused(at_sink, Some((&ventilator, Role::Sink)), wrong, told).await;
        let wrong = "its key is that of a sink, and here it has to be that of a ventilator";
        check_refused(at_sink, Some((&worker, Role::Ventilator)), told, wrong).await;

        let stranger = theirs.keyring(Role::Worker);
        let told = "it refuses this program's key: it is of another set of keys";
        check_refused(at_sink, Some((&stranger, Role::Sink)), told, "of another set of keys").await;

        let now = UnixTime::now();
        let newer = ours.keyring_at(Role::Worker, DAY, now, "tradewind/2");
        let wrong = "it speaks tradewind/2, and this program tradewind/1";
        let told = "the program there speaks another version";
        check_refused(at_sink, Some((&newer, Role::Sink)), wrong, told).await;

        let told = "it has expired, or is not valid yet by the clock there";
        let old = ours.keyring_at(Role::Worker, MINUTE, moved(now, -10), PROTOCOL);
        check_refused(at_sink, Some((&old, Role::Sink)), "its worker token expired at", told).await;
        let early = ours.keyring_at(Role::Worker, DAY, moved(now, 6), PROTOCOL);
        check_refused(
            at_sink,
            Some((&early, Role::Sink)),
            "its worker key is valid only from",
            told,
        )
        .await;

        let banned = ours.keyring(Role::Worker);
        let key = first_key(&sink, &banned).await;
        sink.keys().source().ban(key).unwrap();
        sink.refresh(now);
        let (line, told) = (format!("its worker key {key} is banned"), "it is banned there");
        check_refused(at_sink, Some((&banned, Role::Sink)), &line, told).await;
    });
}

/// Returns the fingerprint by which a worker's token is banned at a sink.
async fn first_key(sink: &Arc<Keyring>, worker: &Arc<Keyring>) -> tradewind_keys::Fingerprint {
    let seen = Arc::new(Mutex::new(None));
    let to = seen.clone();
    let door = locked(Door::default(), sink, Role::Worker).admitting(move |hello| {
        *to.lock().unwrap() = hello.key.cloned();
        Ok(tradewind_lanes::Admitted::default())
    });
    let options = LaneOptions::default();
    let mut gate = PullGate::bind(&any_port(), options.clone(), door).await.unwrap();
    let door = locked(Door::default(), worker, Role::Sink);
    let mut dialler = Dialler::new(gate.endpoint(), options, door, 7);
    let _lanes = tokio::join!(dialler.dial_push(), gate.accept());
    let key = seen.lock().unwrap().clone().unwrap();
    assert_eq!((key.role, key.session), (Role::Worker, worker.keys().session()));
    key.fingerprint
}

#[test]
fn a_clock_that_is_four_minutes_fast_is_forgiven() {
    run(async |_| {
        let set = Set::new();
        let early = set.keyring_at(Role::Worker, DAY, moved(UnixTime::now(), 4), PROTOCOL);
        let sink = set.keyring(Role::Sink);
        let (mut gate, mut dialler) =
            ends(Some((&sink, Role::Worker)), Some((&early, Role::Sink))).await;
        let (mut push, mut pull) = tokio::join!(dialler.dial_push(), gate.accept());
        push.send(Bytes::from_static(b"x")).unwrap();
        assert_eq!(pull.recv().await.unwrap(), "x");
    });
}

#[test]
fn a_ban_ends_the_lanes_of_a_peer_and_no_others() {
    run(async |_| {
        let set = Set::new();
        let (sink, bad) = (set.keyring(Role::Sink), set.keyring(Role::Worker));
        let good = set.keyring(Role::Worker);
        let key = first_key(&sink, &bad).await;
        let (mut gate, mut dialler) =
            ends(Some((&sink, Role::Worker)), Some((&bad, Role::Sink))).await;
        let (push, mut pull) = tokio::join!(dialler.dial_push(), gate.accept());
        let options = LaneOptions::default();
        let door = locked(Door::default(), &good, Role::Sink);
        let mut other = Dialler::new(gate.endpoint(), options, door, 7);
        let (mut other_push, mut other_pull) = tokio::join!(other.dial_push(), gate.accept());

        sink.refresh(UnixTime::now());
        assert_eq!(push.watch().reason(), None);
        sink.keys().source().ban(key).unwrap();
        sink.refresh(UnixTime::now());
        let reason = format!("the worker key {key} is banned");
        assert_eq!(pull.recv().await, Err(GoneReason::Refused((*reason).into())));
        assert_eq!(push.watch().gone().await, GoneReason::Told((*reason).into()));
        other_push.send(Bytes::from_static(b"x")).unwrap();
        assert_eq!(other_pull.recv().await.unwrap(), "x");
    });
}

#[test]
fn a_peer_for_which_there_is_no_room_is_told_so_in_secret() {
    run(async |_| {
        let set = Set::new();
        let (sink, worker) = (set.keyring(Role::Sink), set.keyring(Role::Worker));
        let options = LaneOptions { connections_max: 1, ..LaneOptions::default() };
        let door = locked(Door::default(), &sink, Role::Worker);
        let mut gate = PullGate::bind(&any_port(), options.clone(), door).await.unwrap();
        let dialler = |endpoint: Endpoint| {
            let door = locked(Door::default(), &worker, Role::Sink);
            Dialler::new(endpoint, options.clone(), door, 7)
        };
        let mut first = dialler(gate.endpoint());
        let _lanes = tokio::join!(first.dial_push(), gate.accept());
        let tap = Tap::to(&gate.endpoint()).await;
        let mut second = dialler(tap.endpoint());
        while second.last_error().is_none() {
            let _ = tokio::time::timeout(Duration::from_millis(20), second.dial_push()).await;
        }
        let said = second.last_error().unwrap().to_string();
        assert_eq!(said, "it says: 1 connections, no more fit");
        tap.assert_secret(&[b"no more fit"]);
        // A stranger is told nothing.
        let mut stranger = Stranger::dial(&gate.endpoint()).await;
        let words = [Stranger::greeting(), ready("PUSH")].concat();
        stranger.stream.write_all(&words).await.unwrap();
        let mut heard = Vec::new();
        let _ = stranger.stream.read_to_end(&mut heard).await;
        assert!(!contains(&heard, b"no more fit") && !contains(&heard, &ZMTP), "{heard:?}");
    });
}

/// Mechanism in a greeting.
const ZMTP: [u8; 12] = *b"NULL\0\0\0\0\0\0\0\0";

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A stranger on the way between two ends, who writes down what passes in each direction.
struct Tap {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<[Vec<u8>; 2]>>,
}

impl Tap {
    async fn to(endpoint: &Endpoint) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let far = format!("127.0.0.1:{}", endpoint.tcp().unwrap().port());
        let seen = Arc::new(Mutex::new([Vec::new(), Vec::new()]));
        let tap = Self { address, seen: seen.clone() };
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&far).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(copy(near_in, far_out, seen.clone(), 0));
                tokio::spawn(copy(far_in, near_out, seen.clone(), 1));
            }
        });
        tap
    }

    fn endpoint(&self) -> Endpoint {
        format!("tcp://{}", self.address).parse().unwrap()
    }

    /// Checks that TLS began in both directions at once, and that none of these texts passed.
    fn assert_secret(&self, texts: &[&[u8]]) {
        for seen in &*self.seen.lock().unwrap() {
            assert_eq!(seen.first(), Some(&0x16), "it begins with a handshake");
            for text in texts.iter().copied().chain([&ZMTP[..], b"READY", b"Identity"]) {
                assert!(!contains(seen, text), "{}", String::from_utf8_lossy(text));
            }
        }
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    seen: Arc<Mutex<[Vec<u8>; 2]>>,
    direction: usize,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        seen.lock().unwrap()[direction].extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[test]
fn what_passes_on_the_way_is_neither_payload_nor_zmtp() {
    run(async |_| {
        let set = Set::new();
        let (sink, worker) = (set.keyring(Role::Sink), set.keyring(Role::Worker));
        for is_locked in [true, false] {
            let at_sink = is_locked.then_some((&sink, Role::Worker));
            let (mut gate, _) = ends(at_sink, None).await;
            let tap = Tap::to(&gate.endpoint()).await;
            let card = Bytes::from_static(b"the card of a worker");
            let mut door = Door::showing(card).unwrap();
            if is_locked {
                door = locked(door, &worker, Role::Sink);
            }
            let mut dialler = Dialler::new(tap.endpoint(), LaneOptions::default(), door, 7);
            let (mut push, mut pull) = tokio::join!(dialler.dial_push(), gate.accept());
            let payload = Bytes::from(b"a secret payload, again and again. ".repeat(10_000));
            push.send(payload.clone()).unwrap();
            assert_eq!(pull.recv().await.unwrap(), payload);
            drop((push, pull));
            let texts: [&[u8]; 2] = [b"secret payload", b"the card of a worker"];
            if is_locked {
                tap.assert_secret(&texts);
            } else {
                // So the tap sees what there is to be seen.
                let seen = &tap.seen.lock().unwrap()[0];
                assert!(
                    contains(seen, texts[0]) && contains(seen, texts[1]) && contains(seen, &ZMTP)
                );
            }
        }
    });
}

#[test]
fn a_lane_is_encrypted_with_its_own_keys_and_says_whose_peer_it_has() {
    run(async |_| {
        let set = Set::new();
        let (sink, worker) = (set.keyring(Role::Sink), set.keyring(Role::Worker));
        let first = first_key(&sink, &worker).await;
        assert_eq!(first_key(&sink, &worker).await, first, "it is the token's");
        assert_ne!(first_key(&sink, &set.keyring(Role::Worker)).await, first);
    });
}
