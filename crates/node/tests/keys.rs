//! Which keys open which ports, and that a card has to be its key's.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use tradewind_keys::{Addresses, Folder, Keys, Role as KeyRole, Source, UnixTime};
use tradewind_lanes::{Dialler, Endpoint, Keyring, LaneOptions, PullGate, PushGate};
use tradewind_node::Room;
use tradewind_node::doors::{Port, dial_door, gate_door};
use tradewind_node::keys::{MaybeKeys, session};
use tradewind_proto::SessionId;
use tradewind_proto::message::{Card, Role};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The table of the book: roles whose keys listen at a port, and roles whose keys may connect to it.
const TABLE: [(Port, &[KeyRole], &[KeyRole]); 3] = [
    (Port::Tasks, &[KeyRole::Ventilator, KeyRole::Relay], &[KeyRole::Worker]),
    (Port::Receipts, &[KeyRole::Ventilator, KeyRole::Relay], &[KeyRole::Sink, KeyRole::Relay]),
    (
        Port::Results,
        &[KeyRole::Sink, KeyRole::Relay],
        &[KeyRole::Worker, KeyRole::Ventilator, KeyRole::Relay],
    ),
];

/// For each role keyrings of two processes, made of tokens of one set of keys.
fn keyrings() -> [Vec<(KeyRole, MaybeKeys)>; 2] {
    let (dir, now) = (tempfile::tempdir().unwrap(), UnixTime::now());
    let folder = Folder::create(&dir.path().join("keys"), now).unwrap();
    let keyring = |role: KeyRole| {
        let token = folder.token(role, DAY, Addresses::default(), now).unwrap();
        let path = dir.path().join(token.fingerprint().to_string());
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(token.encode().unwrap().as_bytes()).unwrap();
        let keys = Keys::open(Source::at(&path).unwrap(), role, now).unwrap();
        (role, Some(Arc::new(Keyring::new(keys, "tradewind/1"))))
    };
    [(); 2].map(|()| KeyRole::ALL.map(keyring).into())
}

/// Card that a program shows at its end of a port. A key that is of no use there comes with the card that
/// would be.
fn card(port: Port, is_gate: bool, key: KeyRole, session: SessionId) -> Card {
    let role = match (port, is_gate, key) {
        (Port::Tasks | Port::Receipts, true, _) => Role::Ventilator,
        (Port::Results, true, _) | (Port::Receipts, false, _) => Role::Sink,
        (Port::Results, false, KeyRole::Ventilator | KeyRole::Relay) => Role::Ventilator,
        (Port::Tasks | Port::Results, false, _) => Role::Worker,
    };
    let name = key.to_string();
    Card { role, session, slots: 1, message_bytes_max: 1 << 20, name, queue: String::new() }
}

/// Returns the first failure of a dialler; none if it was let in.
async fn dialled(dialler: &mut Dialler, port: Port) -> Option<String> {
    loop {
        let step = Duration::from_millis(10);
        let is_in = match port {
            Port::Tasks => tokio::time::timeout(step, dialler.dial_pull()).await.is_ok(),
            Port::Receipts | Port::Results => {
                tokio::time::timeout(step, dialler.dial_push()).await.is_ok()
            }
        };
        if is_in {
            return None;
        }
        if let Some(error) = dialler.last_error() {
            return Some(error.to_string());
        }
    }
}

/// Has two ends meet at a port; returns why the dialler was not let in, if so.
async fn meet(
    port: Port,
    gate: (&Card, &MaybeKeys),
    dialler: (&Card, &MaybeKeys),
) -> Option<String> {
    let (any, options): (Endpoint, _) =
        ("tcp://127.0.0.1:0".parse().unwrap(), LaneOptions::default());
    let door = gate_door(gate.0, port, Room::for_workers(1, 0), gate.1);
    let dial = |endpoint: Endpoint| {
        Dialler::new(endpoint, LaneOptions::default(), dial_door(dialler.0, port, dialler.1), 7)
    };
    let patience = Duration::from_secs(60);
    let met = async {
        if port == Port::Tasks {
            let gate = PushGate::bind(&any, options, door).await.unwrap();
            dialled(&mut dial(gate.endpoint()), port).await
        } else {
            let gate = PullGate::bind(&any, options, door).await.unwrap();
            dialled(&mut dial(gate.endpoint()), port).await
        }
    };
    tokio::time::timeout(patience, met).await.expect("it comes to an end")
}

#[tokio::test]
async fn each_role_is_let_in_exactly_where_the_table_says() {
    let [gates, others] = keyrings();
    for (port, listeners, diallers) in TABLE {
        for (owner, gate_keys) in &gates {
            for (caller, keys) in &others {
                let gate = card(port, true, *owner, session(gate_keys));
                let dialler = card(port, false, *caller, session(keys));
                let failure = meet(port, (&gate, gate_keys), (&dialler, keys)).await;
                let is_wanted = listeners.contains(owner) && diallers.contains(caller);
                let case = format!("{caller} at the {port:?} port of a {owner}: {failure:?}");
                assert_eq!(failure.is_none(), is_wanted, "{case}");
                if let Some(failure) = failure {
                    assert!(
                        failure.contains("its key is that of a")
                            || failure.contains("this role may not connect"),
                        "{case}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_card_is_its_keys_or_it_is_refused() {
    let [keyrings, _] = keyrings();
    let keys = |wanted: KeyRole| {
        keyrings.iter().find(|(role, _)| *role == wanted).map(|(_, keys)| keys).unwrap()
    };
    let (sink, worker) = (keys(KeyRole::Sink), keys(KeyRole::Worker));
    let port = Port::Results;
    let gate = card(port, true, KeyRole::Sink, session(sink));
    let honest = card(port, false, KeyRole::Worker, session(worker));
    let refusal =
        async |gate: &Card, dialler: &Card| meet(port, (gate, sink), (dialler, worker)).await;
    assert_eq!(refusal(&gate, &honest).await, None);

    let session_of = |card: &Card, session| Card { session, ..card.clone() };
    let thief = session_of(&honest, SessionId(7));
    let said = refusal(&gate, &thief).await.unwrap();
    assert_eq!(said, "it says: its card shows a session that is not the one of its key");
    let liar = Card { role: Role::Ventilator, ..honest.clone() };
    let said = refusal(&gate, &liar).await.unwrap();
    assert_eq!(said, "it says: its card is not that of a worker, which its key is");
    // A dialler looks as closely.
    let said = refusal(&session_of(&gate, SessionId(7)), &honest).await.unwrap();
    assert_eq!(said, "its card shows a session that is not the one of its key");
}
