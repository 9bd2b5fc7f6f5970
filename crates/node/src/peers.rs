//! The connected peers, and the messages that each may send.

use std::collections::BTreeMap;

use crate::links::Conn;
use tradewind_proto::SessionId;
use tradewind_proto::message::{Card, News, Role, ToSink};

/// Peers of the sink's port.
#[derive(Default)]
pub(crate) struct Peers {
    cards: BTreeMap<Conn, (Role, SessionId)>,
    workers: BTreeMap<SessionId, Conn>,
}

impl Peers {
    /// Adds a peer; returns whether it is a worker.
    pub(crate) fn add(&mut self, conn: Conn, card: &Card) -> bool {
        self.cards.insert(conn, (card.role, card.session));
        let is_worker = card.role == Role::Worker;
        if is_worker {
            self.workers.insert(card.session, conn);
        }
        is_worker
    }

    /// Removes a peer; returns the worker's session if it has no newer connection.
    pub(crate) fn remove(&mut self, conn: Conn) -> Option<SessionId> {
        let (_, session) = self.cards.remove(&conn)?;
        (self.workers.get(&session) == Some(&conn)).then(|| {
            self.workers.remove(&session);
            session
        })
    }

    /// Returns whether this peer may send this message. A worker may send for its own session only,
    /// and in the name of neither the ventilator nor the sink.
    pub(crate) fn may_say(&self, conn: Conn, message: &ToSink) -> bool {
        let Some((role, session)) = self.cards.get(&conn) else { return false };
        match message {
            ToSink::News { news: News::Alive | News::Gone, .. } => false,
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

    /// Returns whether a ventilator is connected.
    pub(crate) fn has_ventilator(&self) -> bool {
        self.cards.values().any(|(role, _)| *role == Role::Ventilator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_speaks_for_itself_alone() {
        let mut peers = Peers::default();
        let (conn, session) = (Conn(0), SessionId(1));
        let name = String::new();
        peers.add(
            conn,
            &Card {
                role: Role::Worker,
                session,
                slots: 1,
                message_bytes_max: 1,
                name,
                queue: String::new(),
            },
        );
        let may_say = |session, news| peers.may_say(conn, &ToSink::News { session, news });
        assert!(may_say(session, News::Goodbye));
        assert!(!may_say(SessionId(2), News::Goodbye));
        // These are the sink's, about a worker.
        assert!(!may_say(session, News::Alive));
        assert!(!may_say(session, News::Gone));
    }
}
