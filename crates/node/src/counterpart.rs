//! Choice of the one counterpart among the callers: the ventilator's only sink, the sink's only
//! ventilator.
//!
//! The counterpart is the process that answers at the given address. It shows its session there,
//! and a caller with another session belongs to another job, or dialled a wrong port. While no
//! process answers, as when the counterpart is being restarted, callers wait for the answer.

use std::collections::BTreeMap;
use std::time::Duration;

use tradewind_proto::{SessionId, Time};

use crate::links::Conn;

/// Keeps callers apart. Time is an argument.
#[derive(Debug)]
pub(crate) struct Counterpart<M> {
    /// Session that answers at the dialled address, and the time since which it does.
    answers: Option<(SessionId, Time)>,
    callers: BTreeMap<Conn, Caller<M>>,
    /// Time at which the counterpart was heard last.
    heard: Option<Time>,
    /// Time at which the address was last dialled again.
    asked: Option<Time>,
}

#[derive(Debug)]
struct Caller<M> {
    session: SessionId,
    held: Vec<M>,
    /// Bytes of those messages, as they came.
    held_bytes: usize,
}

/// Verdict on a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The caller is the counterpart, or may be.
    Stay,
    /// Another process is the counterpart, and is there.
    Refuse,
    /// Another process is the counterpart and is not heard: dial again, to see which one answers
    /// now.
    Ask,
}

/// Verdict on a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<M> {
    /// The message is the counterpart's.
    Taken(M),
    /// The sender may be the counterpart: the message is held.
    Held,
    /// The sender may be the counterpart, but has more messages than can be held.
    TooMuch,
}

/// Silence after which the counterpart may have been replaced.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Interval between dials to see which process answers, where they lead to nothing.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

/// Number of a caller's messages that are held.
const HELD_MAX: usize = 4096;

/// Bytes of a caller's messages that are held.
const HELD_BYTES_MAX: usize = 8 << 20;

/// Bytes of all callers' messages that are held.
const ALL_HELD_BYTES_MAX: usize = 64 << 20;

impl<M> Default for Counterpart<M> {
    fn default() -> Self {
        Self { answers: None, callers: BTreeMap::new(), heard: None, asked: None }
    }
}

impl<M> Counterpart<M> {
    /// Notes that a process answers at the dialled address. Returns the messages that it had sent
    /// already, and the callers to refuse.
    pub(crate) fn handle_answer(
        &mut self,
        now: Time,
        session: SessionId,
    ) -> (Vec<(Conn, M)>, Vec<Conn>) {
        self.answers = Some((session, now));
        self.heard = None;
        let (mut held, mut others) = (Vec::new(), Vec::new());
        for (conn, caller) in &mut self.callers {
            caller.held_bytes = 0;
            if caller.session == session {
                held.extend(caller.held.drain(..).map(|message| (*conn, message)));
            } else {
                others.push(*conn);
            }
        }
        (held, others)
    }

    /// Notes that no process answers any more.
    pub(crate) fn handle_no_answer(&mut self) {
        self.answers = None;
    }

    /// Handles a new caller.
    pub(crate) fn handle_caller(&mut self, now: Time, conn: Conn, session: SessionId) -> Verdict {
        self.callers.insert(conn, Caller { session, held: Vec::new(), held_bytes: 0 });
        let Some((answers, since)) = self.answers else { return Verdict::Stay };
        if answers == session {
            return Verdict::Stay;
        }
        let silent = now.since(self.heard.unwrap_or(since));
        let is_due = self.asked.is_none_or(|asked| now.since(asked) >= ASK_INTERVAL);
        if silent < SILENCE_MAX || !is_due {
            return Verdict::Refuse;
        }
        self.asked = Some(now);
        self.answers = None;
        Verdict::Ask
    }

    /// Handles a message of a caller, of so many bytes.
    pub(crate) fn handle_message(
        &mut self,
        now: Time,
        conn: Conn,
        message: M,
        bytes: usize,
    ) -> Admission<M> {
        let all_bytes: usize = self.callers.values().map(|caller| caller.held_bytes).sum();
        let Some(caller) = self.callers.get_mut(&conn) else { return Admission::TooMuch };
        match self.answers {
            Some((session, _)) if session == caller.session => {
                self.heard = Some(now);
                Admission::Taken(message)
            }
            Some(_) => Admission::TooMuch,
            None if caller.held.len() < HELD_MAX
                && caller.held_bytes + bytes <= HELD_BYTES_MAX
                && all_bytes + bytes <= ALL_HELD_BYTES_MAX =>
            {
                caller.held_bytes += bytes;
                caller.held.push(message);
                Admission::Held
            }
            None => Admission::TooMuch,
        }
    }

    /// Notes that a caller is gone.
    pub(crate) fn handle_gone(&mut self, conn: Conn) {
        self.callers.remove(&conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId(1);
    const OTHER: SessionId = SessionId(2);

    struct Scene {
        counterpart: Counterpart<&'static str>,
        start: Time,
    }

    impl Scene {
        fn new() -> Self {
            Self { counterpart: Counterpart::default(), start: Time(0) }
        }

        fn at(&self, secs: u64) -> Time {
            self.start + Duration::from_secs(secs)
        }

        fn call(&mut self, secs: u64, conn: u64, session: SessionId) -> Verdict {
            self.counterpart.handle_caller(self.at(secs), Conn(conn), session)
        }

        fn say(&mut self, secs: u64, conn: u64, message: &'static str) -> Admission<&'static str> {
            self.counterpart.handle_message(self.at(secs), Conn(conn), message, message.len())
        }

        fn answer(
            &mut self,
            secs: u64,
            session: SessionId,
        ) -> (Vec<(Conn, &'static str)>, Vec<Conn>) {
            self.counterpart.handle_answer(self.at(secs), session)
        }
    }

    #[test]
    fn who_answers_is_the_one_and_another_is_refused_while_it_is_heard() {
        let mut scene = Scene::new();
        assert_eq!(scene.answer(0, ONE), (vec![], vec![]));
        assert_eq!(scene.call(0, 1, ONE), Verdict::Stay);
        for secs in 0..100 {
            assert_eq!(scene.say(secs, 1, "beat"), Admission::Taken("beat"));
            assert_eq!(scene.call(secs + 2, 100 + secs, OTHER), Verdict::Refuse);
            assert_eq!(scene.say(secs, 100 + secs, "hello"), Admission::TooMuch);
        }
    }

    #[test]
    fn callers_wait_for_the_answer() {
        let mut scene = Scene::new();
        assert_eq!(scene.call(0, 1, OTHER), Verdict::Stay);
        assert_eq!(scene.call(0, 2, ONE), Verdict::Stay);
        assert_eq!(scene.say(0, 1, "I am it"), Admission::Held);
        assert_eq!(scene.say(0, 2, "no, I am"), Admission::Held);
        assert_eq!(scene.say(1, 2, "really"), Admission::Held);
        let held = vec![(Conn(2), "no, I am"), (Conn(2), "really")];
        assert_eq!(scene.answer(2, ONE), (held, vec![Conn(1)]));
        assert_eq!(scene.say(3, 2, "so"), Admission::Taken("so"));
    }

    #[test]
    fn one_that_is_started_again_takes_over() {
        let mut scene = Scene::new();
        let _ = scene.answer(0, ONE);
        assert_eq!(scene.call(0, 1, ONE), Verdict::Stay);
        scene.counterpart.handle_gone(Conn(1));
        scene.counterpart.handle_no_answer();
        assert_eq!(scene.call(1, 2, OTHER), Verdict::Stay);
        assert_eq!(scene.say(1, 2, "hello"), Admission::Held);
        assert_eq!(scene.answer(2, OTHER), (vec![(Conn(2), "hello")], vec![]));
    }

    #[test]
    fn one_that_has_gone_silent_is_looked_for_but_not_all_the_time() {
        let mut scene = Scene::new();
        let _ = scene.answer(0, ONE);
        assert_eq!(scene.call(0, 1, ONE), Verdict::Stay);
        assert_eq!(scene.say(1, 1, "beat"), Admission::Taken("beat"));
        assert_eq!(scene.call(3, 2, OTHER), Verdict::Refuse);
        assert_eq!(scene.call(4, 3, OTHER), Verdict::Ask);
        // It still answers, and is hung up.
        assert_eq!(scene.answer(5, ONE), (vec![], vec![Conn(2), Conn(3)]));
        assert_eq!(scene.call(20, 4, OTHER), Verdict::Refuse);
        assert_eq!(scene.call(40, 5, OTHER), Verdict::Ask);
        let (_, refused) = scene.answer(41, OTHER);
        assert_eq!(refused, [Conn(1)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut scene = Scene::new();
        scene.call(0, 1, ONE);
        for _ in 0..HELD_MAX {
            assert_eq!(scene.say(0, 1, "x"), Admission::Held);
        }
        assert_eq!(scene.say(0, 1, "x"), Admission::TooMuch);
    }

    #[test]
    fn bytes_that_wait_are_bounded_for_each_caller_and_for_all() {
        let mut scene = Scene::new();
        let mut say = |conn, bytes| {
            scene.counterpart.handle_message(Time(0), Conn(conn), "x", bytes) == Admission::Held
        };
        for conn in 0..10 {
            assert!(!say(conn, 1), "it is not known");
        }
        for conn in 0..10 {
            scene.call(0, conn, SessionId(conn));
        }
        let mut say = |conn, bytes| {
            scene.counterpart.handle_message(Time(0), Conn(conn), "x", bytes) == Admission::Held
        };
        for conn in 0..8 {
            assert!(say(conn, HELD_BYTES_MAX - 1) && !say(conn, 2) && say(conn, 1));
        }
        assert!(!say(8, 1));
        // One that has gone takes its messages with it.
        scene.counterpart.handle_gone(Conn(0));
        let held = scene.counterpart.handle_message(Time(0), Conn(8), "x", HELD_BYTES_MAX);
        assert_eq!(held, Admission::Held);
    }
}
