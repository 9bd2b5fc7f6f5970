//! The rule by which a process group is ended: the signals of the termination sequence, each with a
//! wait after it, and KILL at the end. Knows no process and no clock.

use rustix::process::Signal;
use tradewind_proto::Time;

use crate::term_seq::TermSeq;

/// A group's progress through the termination sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Termination {
    /// The group was sent a signal, and will be sent the one of this place at this time.
    Grace { next: usize, at: Time },
    /// The group was sent KILL.
    Killed,
}

impl Termination {
    /// Begins the sequence, and returns its first signal too.
    pub(crate) fn begin(now: Time, term_seq: &TermSeq) -> (Self, Signal) {
        Self::step(now, term_seq, 0)
    }

    /// Returns the signal that is due by now, if one is.
    pub(crate) fn handle_timeout(&mut self, now: Time, term_seq: &TermSeq) -> Option<Signal> {
        let due = self.poll_timeout().is_some_and(|at| at <= now);
        let Self::Grace { next, .. } = *self else { return None };
        due.then(|| {
            let (progress, signal) = Self::step(now, term_seq, next);
            *self = progress;
            signal
        })
    }

    /// Returns the time at which the next signal is due; `None` after KILL.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        match self {
            Self::Grace { at, .. } => Some(*at),
            Self::Killed => None,
        }
    }

    fn step(now: Time, term_seq: &TermSeq, place: usize) -> (Self, Signal) {
        match term_seq.step(place) {
            Some((signal, wait)) if signal != Signal::KILL => {
                (Self::Grace { next: place + 1, at: now + wait }, signal)
            }
            _ => (Self::Killed, Signal::KILL),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn signals_come_one_by_one_and_kill_comes_last_and_once() {
        let ms = |ms| Time(0) + Duration::from_millis(ms);
        let term_seq: TermSeq = "INT,10,TERM,20".parse().unwrap();
        let (mut termination, first) = Termination::begin(ms(0), &term_seq);
        let mut seen = vec![(0, first)];
        for now in 1..100 {
            let signal = termination.handle_timeout(ms(now), &term_seq);
            seen.extend(signal.map(|signal| (now, signal)));
        }
        assert_eq!(seen, [(0, Signal::INT), (10, Signal::TERM), (30, Signal::KILL)]);
        assert_eq!(termination.poll_timeout(), None);
        let killed = (Termination::Killed, Signal::KILL);
        assert_eq!(Termination::begin(ms(0), &"KILL".parse().unwrap()), killed);
    }
}
