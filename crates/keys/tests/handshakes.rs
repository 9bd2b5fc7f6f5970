//! Two ends with keys, over a stream in memory: who is let in, and what each end says when one is not.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tradewind_keys::{
    Addresses, Fault, Folder, Keys, Peer, Refusal, Role, Roles, Source, UnixTime,
};

const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const PROTOCOL: &str = "tradewind/5";

fn later(pause: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs()) + pause)
}

struct Scene {
    dir: tempfile::TempDir,
    folder: Folder,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("keys"), NOW).unwrap();
        Self { dir, folder }
    }

    fn holder(&self, role: Role) -> Keys {
        Keys::open(Source::at(self.folder.path()).unwrap(), role, NOW).unwrap()
    }

    fn token(&self, role: Role, life: Duration, now: UnixTime) -> Source {
        let token = self.folder.token(role, life, Addresses::default(), now).unwrap();
        let place = self.dir.path().join(token.fingerprint().to_string());
        fs::create_dir(&place).unwrap();
        let path = place.join("token");
        write(&path, &token.encode().unwrap());
        Source::at(&path).unwrap()
    }

    fn bearer(&self, role: Role) -> Keys {
        Keys::open(self.token(role, DAY * 90, NOW), role, NOW).unwrap()
    }
}

fn write(path: &Path, text: &str) {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// One end of a connection.
struct Side<'a> {
    keys: &'a Keys,
    takes: Role,
    protocol: &'static str,
    now: UnixTime,
}

impl<'a> Side<'a> {
    fn new(keys: &'a Keys, takes: Role) -> Self {
        Self { keys, takes, protocol: PROTOCOL, now: NOW }
    }
}

/// Returns what the listener and the dialler make of one another.
async fn meet(listener: Side<'_>, dialler: Side<'_>) -> (Result<Peer, Fault>, Result<Peer, Fault>) {
    let (near, far) = duplex(4096);
    let listen = async {
        let roles = Roles::of(&[listener.takes]);
        let (mut stream, peer) =
            listener.keys.accept(near, listener.protocol, roles, listener.now).await?;
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        let mut word = [0; 3];
        stream.read_exact(&mut word).await.map_err(|error| Fault::of_io(&error))?;
        assert_eq!(&word, b"yes");
        Ok(peer)
    };
    let dial = async {
        let roles = Roles::of(&[dialler.takes]);
        let (mut stream, peer) =
            dialler.keys.connect(far, dialler.protocol, roles, dialler.now).await?;
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hello");
        stream.write_all(b"yes").await.unwrap();
        stream.flush().await.unwrap();
        Ok(peer)
    };
    tokio::time::timeout(MINUTE, async { tokio::join!(listen, dial) }).await.unwrap()
}

#[tokio::test]
async fn each_role_is_taken_exactly_where_it_is_expected() {
    let scene = Scene::new();
    let everybody: Vec<_> = Role::ALL.iter().map(|role| scene.bearer(*role)).collect();
    for listener in &everybody {
        for dialler in &everybody {
            for takes in Role::ALL {
                let (at_gate, at_dialler) =
                    meet(Side::new(listener, takes), Side::new(dialler, listener.role())).await;
                let case =
                    format!("{} at {}, which takes {takes}", dialler.role(), listener.role());
                if takes == dialler.role() {
                    let (gate, far) = (at_gate.expect(&case), at_dialler.expect(&case));
                    assert_eq!((gate.role, gate.session), (dialler.role(), dialler.session()));
                    assert_eq!((far.role, far.session), (listener.role(), listener.session()));
                } else {
                    let (role, accepted) = (dialler.role(), Roles::of(&[takes]));
                    assert_eq!(at_gate, Err(Fault::WrongRole { role, accepted }), "{case}");
                    assert_eq!(at_dialler, Err(Fault::Refused(Refusal::Role)), "{case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_dialler_that_reaches_another_role_says_so_at_both_ends() {
    let scene = Scene::new();
    let (sink, worker) = (scene.bearer(Role::Sink), scene.bearer(Role::Worker));
    let (at_gate, at_dialler) =
        meet(Side::new(&sink, Role::Worker), Side::new(&worker, Role::Ventilator)).await;
    let accepted = Roles::of(&[Role::Ventilator]);
    assert_eq!(at_dialler, Err(Fault::WrongRole { role: Role::Sink, accepted }));
    assert_eq!(at_gate, Err(Fault::Refused(Refusal::Role)));
}

#[tokio::test]
async fn who_holds_the_folder_and_who_holds_a_token_take_one_another() {
    let scene = Scene::new();
    let (holder, bearer) = (scene.holder(Role::Ventilator), scene.bearer(Role::Worker));
    let (at_gate, at_dialler) =
        meet(Side::new(&holder, Role::Worker), Side::new(&bearer, Role::Ventilator)).await;
    let token = scene.folder.path().join("issued");
    let issued = fs::read_to_string(token).unwrap();
    assert!(issued.contains(&at_gate.unwrap().fingerprint.to_string()));
    let root = scene.folder.anchors().find(|anchor| anchor.role == Role::Ventilator).unwrap();
    assert_eq!(at_dialler.unwrap().fingerprint, root.fingerprint());
}

#[tokio::test]
async fn keys_of_another_folder_are_unknown_at_both_ends() {
    let (ours, theirs) = (Scene::new(), Scene::new());
    let (sink, worker) = (ours.bearer(Role::Sink), theirs.bearer(Role::Worker));
    let (at_gate, at_dialler) =
        meet(Side::new(&sink, Role::Worker), Side::new(&worker, Role::Sink)).await;
    // The dialler sees the other's certificate first.
    assert_eq!(at_dialler, Err(Fault::UnknownRoot));
    assert_eq!(at_gate, Err(Fault::Refused(Refusal::Root)));
}

#[tokio::test]
async fn an_expired_token_opens_nothing_and_no_certificate_outlives_it() {
    let scene = Scene::new();
    let sink = scene.holder(Role::Sink);
    let worker = Keys::open(scene.token(Role::Worker, MINUTE, NOW), Role::Worker, NOW).unwrap();
    let at = |gate, dialler| {
        let (sink, worker) = (&sink, &worker);
        async move {
            let listener = Side { now: gate, ..Side::new(sink, Role::Worker) };
            meet(listener, Side { now: dialler, ..Side::new(worker, Role::Sink) }).await
        }
    };
    let (gate, dialler) = at(later(MINUTE), later(MINUTE)).await;
    assert!(gate.is_ok() && dialler.is_ok(), "{gate:?} {dialler:?}");
    let late = later(MINUTE * 2);
    worker.refresh(late);
    let (gate, dialler) = at(late, late).await;
    assert_eq!(gate, Err(Fault::Expired { role: Role::Worker, at: later(MINUTE) }));
    assert_eq!(dialler, Err(Fault::Refused(Refusal::Time)));
}

#[tokio::test]
async fn a_clock_that_is_five_minutes_slow_is_forgiven_and_one_that_is_slower_is_named() {
    let scene = Scene::new();
    let (sink, worker) = (scene.bearer(Role::Sink), scene.bearer(Role::Worker));
    let at = |minutes: u32| {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs()) - MINUTE * minutes);
        let (sink, worker) = (&sink, &worker);
        async move {
            let listener = Side { now, ..Side::new(sink, Role::Worker) };
            meet(listener, Side::new(worker, Role::Sink)).await
        }
    };
    let (gate, dialler) = at(5).await;
    assert!(gate.is_ok() && dialler.is_ok(), "{gate:?} {dialler:?}");
    let (gate, dialler) = at(6).await;
    let from = UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs()) - MINUTE * 5);
    assert_eq!(gate, Err(Fault::NotYetValid { role: Role::Worker, from }));
    assert_eq!(dialler, Err(Fault::Refused(Refusal::Time)));
}

#[tokio::test]
async fn a_banned_token_is_refused_and_its_open_connections_are_known() {
    let scene = Scene::new();
    let (sink, worker) = (scene.holder(Role::Sink), scene.bearer(Role::Worker));
    let meet = || meet(Side::new(&sink, Role::Worker), Side::new(&worker, Role::Sink));
    let peer = meet().await.0.unwrap();
    assert!(!sink.is_banned(&peer));
    sink.source().ban(peer.fingerprint).unwrap();
    sink.refresh(NOW);
    assert!(sink.is_banned(&peer));
    let (gate, dialler) = meet().await;
    let (role, fingerprint) = (Role::Worker, peer.fingerprint);
    assert_eq!(gate, Err(Fault::Banned { role, fingerprint }));
    assert_eq!(dialler, Err(Fault::Refused(Refusal::Banned)));
    // Another token of the role is as good as before.
    let other = scene.bearer(Role::Worker);
    let other = self::meet(Side::new(&sink, Role::Worker), Side::new(&other, Role::Sink)).await;
    assert!(other.0.is_ok());
}

#[tokio::test]
async fn a_banned_root_takes_its_tokens_with_it() {
    let scene = Scene::new();
    let (sink, worker) = (scene.holder(Role::Sink), scene.bearer(Role::Worker));
    let root = scene.folder.anchors().find(|anchor| anchor.role == Role::Worker).unwrap();
    sink.source().ban(root.fingerprint()).unwrap();
    sink.refresh(NOW);
    let gate = meet(Side::new(&sink, Role::Worker), Side::new(&worker, Role::Sink)).await.0;
    assert_eq!(gate, Err(Fault::Banned { role: Role::Worker, fingerprint: root.fingerprint() }));
}

#[tokio::test]
async fn another_version_is_named_at_the_gate_and_known_to_the_dialler() {
    let scene = Scene::new();
    let (sink, worker) = (scene.bearer(Role::Sink), scene.bearer(Role::Worker));
    let dialler = Side { protocol: "tradewind/4", ..Side::new(&worker, Role::Sink) };
    let (gate, dialler) = meet(Side::new(&sink, Role::Worker), dialler).await;
    let (theirs, ours) = ("tradewind/4".to_owned(), PROTOCOL.to_owned());
    assert_eq!(gate, Err(Fault::WrongVersion { theirs, ours }));
    assert_eq!(dialler, Err(Fault::Refused(Refusal::Version)));
}

#[tokio::test]
async fn during_a_rotation_both_tokens_are_taken_and_afterwards_the_new_one() {
    let scene = Scene::new();
    let (sink, old) = (scene.holder(Role::Sink), scene.bearer(Role::Worker));
    let Scene { dir, folder } = scene;
    let folder = folder.rotate(Role::Worker, DAY, NOW).unwrap();
    let scene = Scene { dir, folder };
    let new = scene.bearer(Role::Worker);
    sink.refresh(NOW);
    let dials = |keys, now| {
        let sink = &sink;
        async move {
            let listener = Side { now, ..Side::new(sink, Role::Worker) };
            meet(listener, Side { now, ..Side::new(keys, Role::Sink) }).await.0
        }
    };
    assert!(dials(&old, NOW).await.is_ok() && dials(&new, NOW).await.is_ok());
    let after = later(DAY + MINUTE);
    for keys in [&sink, &old, &new] {
        keys.refresh(after);
    }
    let refused = dials(&old, after).await.unwrap_err();
    assert!(matches!(refused, Fault::RootExpired { role: Role::Worker, .. }), "{refused}");
    assert!(dials(&new, after).await.is_ok());
}

#[tokio::test]
async fn plain_and_tls_know_one_another() {
    let scene = Scene::new();
    let (sink, worker) = (scene.bearer(Role::Sink), scene.bearer(Role::Worker));
    // The beginning of a greeting of ZMTP.
    let zmtp = [0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];

    let (near, mut far) = duplex(4096);
    let plain = async {
        far.write_all(&zmtp).await.unwrap();
        let mut first = [0];
        far.read_exact(&mut first).await.unwrap();
        drop(far);
        first[0]
    };
    let roles = Roles::of(&[Role::Worker]);
    let (gate, first) = tokio::join!(sink.accept(near, PROTOCOL, roles, NOW), plain);
    assert_eq!(gate.unwrap_err(), Fault::Plain);
    assert!(tradewind_keys::is_tls(first) && !tradewind_keys::is_tls(zmtp[0]));

    let (mut near, far) = duplex(4096);
    let plain = async {
        near.write_all(&zmtp).await.unwrap();
        let mut first = [0];
        near.read_exact(&mut first).await.unwrap();
        drop(near);
        first[0]
    };
    let roles = Roles::of(&[Role::Sink]);
    let (dialler, first) = tokio::join!(worker.connect(far, PROTOCOL, roles, NOW), plain);
    assert_eq!(dialler.unwrap_err(), Fault::Plain);
    assert!(tradewind_keys::is_tls(first));
}

#[tokio::test]
async fn strangers_get_nowhere() {
    let scene = Scene::new();
    let sink = scene.bearer(Role::Sink);
    let roles = Roles::of(&[Role::Worker]);
    let mut rng = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2000 {
        let (near, mut far): (_, DuplexStream) = duplex(1 << 16);
        let mut noise = vec![0_u8; (round % 400) + 1];
        for byte in &mut noise {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            *byte = rng.to_le_bytes()[0];
        }
        // Half of them look like a handshake at first.
        if round % 2 == 0 {
            let length = u8::try_from(noise.len().min(255)).unwrap();
            noise.splice(0..0, [0x16, 3, 1, 0, length, 1, 0, 0, length.saturating_sub(4)]);
        }
        far.write_all(&noise).await.unwrap();
        far.shutdown().await.unwrap();
        let drain = async {
            let mut ignored = Vec::new();
            far.read_to_end(&mut ignored).await.unwrap();
            drop(far);
        };
        let (gate, ()) = tokio::join!(sink.accept(near, PROTOCOL, roles, NOW), drain);
        assert!(gate.is_err());
    }
}
