//! Rules about which role may connect to which port, and whether the dialled port is the intended
//! one.
//!
//! Both ends of a connection show a card. A gate judges the dialler, a dialler judges the gate that
//! it has reached, and each gives the reason of a refusal, in its own log and to the peer.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use bytes::Bytes;
use tradewind_keys::{Role as KeyRole, Roles};
use tradewind_lanes::{Admitted, Door, Hello, PeerAddr, PeerHost, Sparing};
use tradewind_proto::message::{Card, Role};
use tradewind_wire::{DecodeError, VERSION, decode, encode};

use crate::keys::{MaybeKeys, compare};
use crate::room::Room;

/// Port that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Port at which workers fetch tasks from a ventilator.
    Tasks,
    /// Port at which a ventilator gets receipts from its sink.
    Receipts,
    /// Port at which a sink gets results from workers, and the job from its ventilator.
    Results,
}

const PORTS: [Port; 3] = [Port::Tasks, Port::Receipts, Port::Results];

impl Port {
    fn name(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Receipts => "receipts",
            Self::Results => "results",
        }
    }

    fn owner(self) -> Role {
        match self {
            Self::Tasks | Self::Receipts => Role::Ventilator,
            Self::Results => Role::Sink,
        }
    }

    fn default_number(self) -> u16 {
        match self {
            Self::Tasks => 5557,
            Self::Results => 5558,
            Self::Receipts => 5559,
        }
    }

    /// Returns the ZMTP socket type that listens here.
    fn socket(self) -> &'static [u8] {
        if self == Self::Tasks { b"PUSH" } else { b"PULL" }
    }

    fn dialler_socket(self) -> &'static [u8] {
        if self == Self::Tasks { b"PULL" } else { b"PUSH" }
    }

    /// Returns the roles of keys at which the port listens.
    fn owner_keys(self) -> Roles {
        match self {
            Self::Tasks | Self::Receipts => Roles::of(&[KeyRole::Ventilator, KeyRole::Relay]),
            Self::Results => Roles::of(&[KeyRole::Sink, KeyRole::Relay]),
        }
    }

    /// Returns the roles of keys that may connect.
    fn dialler_keys(self) -> Roles {
        match self {
            Self::Tasks => Roles::of(&[KeyRole::Worker]),
            Self::Receipts => Roles::of(&[KeyRole::Sink, KeyRole::Relay]),
            Self::Results => Roles::of(&[KeyRole::Worker, KeyRole::Ventilator, KeyRole::Relay]),
        }
    }

    fn diallers(self) -> &'static [Role] {
        match self {
            Self::Tasks => &[Role::Worker],
            Self::Receipts => &[Role::Sink],
            Self::Results => &[Role::Worker, Role::Ventilator],
        }
    }
}

/// Returns the name of a role. A relay is a sink or a ventilator, depending on the side from which
/// it is seen.
fn name(role: Role) -> &'static str {
    match role {
        Role::Ventilator => "ventilator",
        Role::Worker => "worker",
        Role::Sink => "sink",
    }
}

/// Returns the door of a listening port. Workers have to fit into the room. With keys, only those of the roles
/// that belong here open it.
///
/// # Panics
/// Never: every card fits into an identity, since names are bounded.
#[must_use]
pub fn gate_door(ours: &Card, port: Port, room: Room, keys: &MaybeKeys) -> Door {
    let queue = ours.queue.clone();
    door(ours, port, room, keys, move |card| match &card.queue {
        theirs if *theirs == queue => Ok(()),
        theirs if queue.is_empty() => {
            Err(format!("a job runs here, and no queues: nobody serves queue {theirs:?} (--queue)"))
        }
        theirs => Err(format!("queue {queue:?} is served here, and not {theirs:?} (--queue)")),
    })
}

/// Returns the door of a port at which all queues of a program are listened for. `judge` is given the name of a
/// queue, and returns why nobody may take part in it.
///
/// # Panics
/// Never: see [`gate_door`].
#[must_use]
pub fn queues_door(
    ours: &Card,
    port: Port,
    room: Room,
    keys: &MaybeKeys,
    judge: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
) -> Door {
    door(ours, port, room, keys, move |card| match &*card.queue {
        "" => Err("queues are served here: say which one with --queue NAME".to_owned()),
        queue => judge(queue),
    })
}

fn door(
    ours: &Card,
    port: Port,
    room: Room,
    keys: &MaybeKeys,
    judge: impl Fn(&Card) -> Result<(), String> + Send + Sync + 'static,
) -> Door {
    let said = Mutex::new(Sparing::default());
    let door = showing(ours).admitting(move |hello| {
        let card = judge_dialler(port, hello)
            .and_then(|card| judge(&card).map(|()| card))
            .inspect_err(|reason| {
                warn_once_a_minute(&said, &hello.addr, port, reason);
            })?;
        Ok(match card.role {
            Role::Worker => {
                let permit = room.admit(Instant::now(), card.session)?;
                Admitted { permit, may_use_reserve: false }
            }
            // Without them there is no job. A relay is one of them, depending on the side.
            Role::Ventilator | Role::Sink => Admitted { permit: None, may_use_reserve: true },
        })
    });
    locked(door, keys, port.dialler_keys())
}

/// Returns the door of a dialler of a port.
///
/// # Panics
/// Never: see [`gate_door`].
#[must_use]
pub fn dial_door(ours: &Card, port: Port, keys: &MaybeKeys) -> Door {
    let (role, session) = (ours.role, ours.session);
    let door = showing(ours).admitting(move |hello| {
        let card = judge_gate(port, role, hello)?;
        if card.session == session {
            return Err("it is this program itself".to_owned());
        }
        Ok(Admitted::default())
    });
    locked(door, keys, port.owner_keys())
}

fn locked(door: Door, keys: &MaybeKeys, peers: Roles) -> Door {
    match keys {
        Some(keyring) => door.locked(keyring.clone(), peers),
        None => door,
    }
}

fn showing(card: &Card) -> Door {
    Door::showing(encode(card)).expect("every card fits into an identity")
}

fn warn_once_a_minute(
    said: &Mutex<Sparing<(PeerHost, String)>>,
    from: &PeerAddr,
    port: Port,
    reason: &str,
) {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let port = port.name();
    if let Some(left_out) = said.say(Instant::now(), (from.host(), reason.to_owned())) {
        tracing::warn!("connection from {from} to the {port} port closed: {reason}{left_out}");
    }
}

/// Returns the dialler's card, if it may connect to this port.
fn judge_dialler(port: Port, hello: &Hello<'_>) -> Result<Card, String> {
    let card = card(hello)?;
    if !port.diallers().contains(&card.role) || hello.socket_type != port.dialler_socket() {
        let (role, port) = (name(card.role), port.name());
        return Err(format!("a {role} may not connect to the {port} port"));
    }
    Ok(card)
}

/// Returns the card of the dialled gate, if it is the intended port.
fn judge_gate(wanted: Port, role: Role, hello: &Hello<'_>) -> Result<Card, String> {
    let card = card(hello)?;
    let is_found = |port: &Port| port.owner() == card.role && port.socket() == hello.socket_type;
    let Some(found) = PORTS.into_iter().find(is_found) else {
        return Err(format!("it is a {} and not a port of Tradewind's", name(card.role)));
    };
    if found == wanted {
        return Ok(card);
    }
    let of = |port: Port| match port.owner() {
        Role::Sink => "a sink or relay",
        Role::Ventilator | Role::Worker => "a ventilator or relay",
    };
    Err(format!(
        "it is the {} port of {}; a {} dials the {} port of {} ({} by default)",
        found.name(),
        of(found),
        name(role),
        wanted.name(),
        of(wanted),
        wanted.default_number()
    ))
}

fn card(hello: &Hello<'_>) -> Result<Card, String> {
    if hello.identity.is_empty() {
        return Err("it shows no card: it is another program, or an older Tradewind".to_owned());
    }
    let card = decode(&Bytes::copy_from_slice(hello.identity)).map_err(|error| match error {
        DecodeError::Version { theirs } => format!(
            "it speaks version {theirs} of Tradewind's protocol, or another one; this program speaks \
             {VERSION}"
        ),
        error => format!("it shows no valid card: {error}"),
    })?;
    if let Some(key) = hello.key {
        compare(&card, key)?;
    }
    Ok(card)
}

#[cfg(test)]
mod tests {
    use tradewind_proto::SessionId;

    use super::*;

    fn ours(role: Role) -> Vec<u8> {
        let slots = u32::from(role == Role::Worker);
        let name = "n".to_owned();
        encode(&Card {
            role,
            session: SessionId(1),
            slots,
            message_bytes_max: 7,
            name,
            queue: String::new(),
        })
        .to_vec()
    }

    fn hello<'a>(socket_type: &'a [u8], identity: &'a [u8]) -> Hello<'a> {
        Hello { addr: PeerAddr::Tcp(([127, 0, 0, 1], 1).into()), socket_type, identity, key: None }
    }

    #[test]
    fn each_port_takes_those_it_is_for() {
        let check = |port, role, socket: &[u8], wanted: Result<(), &str>| {
            let identity = ours(role);
            let judged = judge_dialler(port, &hello(socket, &identity)).map(|_| ());
            assert_eq!(judged, wanted.map_err(str::to_owned), "{role:?} at {port:?}");
        };
        check(Port::Tasks, Role::Worker, b"PULL", Ok(()));
        check(Port::Receipts, Role::Sink, b"PUSH", Ok(()));
        check(Port::Results, Role::Worker, b"PUSH", Ok(()));
        check(Port::Results, Role::Ventilator, b"PUSH", Ok(()));
        let no = Err("a worker may not connect to the receipts port");
        check(Port::Receipts, Role::Worker, b"PULL", no);
        check(Port::Receipts, Role::Worker, b"PUSH", no);
        check(Port::Tasks, Role::Sink, b"PUSH", Err("a sink may not connect to the tasks port"));
        check(
            Port::Results,
            Role::Sink,
            b"PUSH",
            Err("a sink may not connect to the results port"),
        );
    }

    #[test]
    fn whoever_dials_the_wrong_port_hears_which_one_it_is() {
        let check = |wanted, role, owner, socket: &[u8], said: Result<(), &str>| {
            let identity = ours(owner);
            let judged = judge_gate(wanted, role, &hello(socket, &identity)).map(|_| ());
            assert_eq!(judged, said.map_err(str::to_owned));
        };
        check(Port::Tasks, Role::Worker, Role::Ventilator, b"PUSH", Ok(()));
        check(Port::Receipts, Role::Sink, Role::Ventilator, b"PULL", Ok(()));
        check(Port::Results, Role::Ventilator, Role::Sink, b"PULL", Ok(()));
        check(
            Port::Tasks,
            Role::Worker,
            Role::Ventilator,
            b"PULL",
            Err(
                "it is the receipts port of a ventilator or relay; a worker dials the tasks port of a \
                 ventilator or relay (5557 by default)",
            ),
        );
        check(
            Port::Receipts,
            Role::Sink,
            Role::Sink,
            b"PULL",
            Err("it is the results port of a sink or relay; a sink dials the receipts port of a \
                 ventilator or relay (5559 by default)"),
        );
    }

    #[test]
    fn another_version_and_another_program_are_told_apart() {
        let check = |identity: &[u8], wanted: &str| {
            let said = card(&hello(b"PUSH", identity)).unwrap_err();
            assert!(said.contains(wanted), "{said}");
        };
        check(b"", "shows no card");
        check(&[VERSION - 1, b'c', 0], "speaks version");
        check(&[VERSION, b'w', 0], "no valid card");
        check(&[VERSION, b'c', 0xff], "no valid card");
    }
}
