//! Who is connected, and what they may say.

use std::collections::BTreeMap;

use crate::links::Conn;
use tradewind_proto::SessionId;
use tradewind_proto::message::{Card, Role, ToSink};

/// The peers of the sink's port.
#[derive(Default)]
pub(crate) struct Peers {
    cards: BTreeMap<Conn, (Role, SessionId)>,
    workers: BTreeMap<SessionId, Conn>,
}

impl Peers {
    /// A peer came; true if it is a worker.
    pub(crate) fn add(&mut self, conn: Conn, card: &Card) -> bool {
        self.cards.insert(conn, (card.role, card.session));
        let is_worker = card.role == Role::Worker;
        if is_worker {
            self.workers.insert(card.session, conn);
        }
        is_worker
    }

    /// A peer went; gives the worker's session if it has no newer connection.
    pub(crate) fn remove(&mut self, conn: Conn) -> Option<SessionId> {
        let (_, session) = self.cards.remove(&conn)?;
        (self.workers.get(&session) == Some(&conn)).then(|| {
            self.workers.remove(&session);
            session
        })
    }

    /// May this peer say this? A worker speaks for itself alone, and not for the ventilator.
    pub(crate) fn may_say(&self, conn: Conn, message: &ToSink) -> bool {
        let Some((role, session)) = self.cards.get(&conn) else { return false };
        match message {
            ToSink::Results { session: said, .. } | ToSink::News { session: said, .. } => {
                *role == Role::Worker && said == session
            }
            ToSink::Ping => true,
            ToSink::JobOpen { .. }
            | ToSink::Forwarded { .. }
            | ToSink::Cancel { .. }
            | ToSink::JobClose { .. }
            | ToSink::GiveUp { .. }
            | ToSink::Inputs { .. }
            | ToSink::JobDone { .. } => *role == Role::Ventilator,
        }
    }

    /// Is there a ventilator?
    pub(crate) fn has_ventilator(&self) -> bool {
        self.cards.values().any(|(role, _)| *role == Role::Ventilator)
    }
}
