//! The signals that a command gets when it is stopped, and how long it has after each.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::Signal;
use tradewind_text::duration_or_zero;

/// Signals, each with a wait after it; the last one is always KILL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermSeq(Vec<(Signal, Duration)>);

/// Why a text is no termination sequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermSeqError {
    /// Text in the place of a signal.
    #[error("{0:?} is not a signal, such as TERM, INT or 15")]
    NoSignal(String),
    /// Text in the place of a wait.
    #[error("{0:?} is not a wait, such as 200 (milliseconds) or 2s")]
    NoWait(String),
    /// Longer than anybody waits.
    #[error("the waits add up to more than a day")]
    TooLong,
}

/// Far enough away, and no clock overflows.
const TOTAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The signals that have names here.
const SIGNALS: [(&str, Signal); 14] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("WINCH", Signal::WINCH),
];

impl TermSeq {
    /// TERM, and after this time KILL.
    #[must_use]
    pub fn term_then_kill(after: Duration) -> Self {
        Self(vec![(Signal::TERM, after.min(TOTAL_MAX)), (Signal::KILL, Duration::ZERO)])
    }

    /// The signal at this place, and the wait after it; `None` beyond KILL.
    pub(super) fn step(&self, at: usize) -> Option<(Signal, Duration)> {
        self.0.get(at).copied()
    }

    /// From the first signal to KILL.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.0.iter().map(|(_, wait)| *wait).sum()
    }
}

impl Default for TermSeq {
    /// TERM, and KILL two seconds later.
    fn default() -> Self {
        Self::term_then_kill(Duration::from_secs(2))
    }
}

impl FromStr for TermSeq {
    type Err = TermSeqError;

    /// As GNU parallel's `--termseq`: signals, each followed by milliseconds. What ends without KILL
    /// gets one at its end: nothing is left behind.
    fn from_str(text: &str) -> Result<Self, TermSeqError> {
        let mut words = text.split(',').map(str::trim);
        let mut steps = Vec::new();
        while let Some(word) = words.next() {
            let signal = signal(word).ok_or_else(|| TermSeqError::NoSignal(word.to_owned()))?;
            if signal == Signal::KILL {
                steps.push((signal, Duration::ZERO));
                break;
            }
            let wait = match words.next() {
                Some(word) => wait(word).ok_or_else(|| TermSeqError::NoWait(word.to_owned()))?,
                None => Duration::from_secs(2),
            };
            steps.push((signal, wait));
        }
        if steps.last().is_none_or(|(signal, _)| *signal != Signal::KILL) {
            steps.push((Signal::KILL, Duration::ZERO));
        }
        let mut total = Duration::ZERO;
        for (_, wait) in &steps {
            total = total.checked_add(*wait).ok_or(TermSeqError::TooLong)?;
        }
        if total > TOTAL_MAX { Err(TermSeqError::TooLong) } else { Ok(Self(steps)) }
    }
}

impl fmt::Display for TermSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (signal, wait) in &self.0 {
            let name =
                SIGNALS.iter().find(|(_, known)| known == signal).map_or("?", |(name, _)| name);
            match *signal {
                Signal::KILL => write!(f, "KILL")?,
                _ => write!(f, "{name},{},", wait.as_millis())?,
            }
        }
        Ok(())
    }
}

fn signal(word: &str) -> Option<Signal> {
    if let Ok(number) = word.parse::<i32>() {
        return SIGNALS.iter().map(|(_, signal)| *signal).find(|signal| signal.as_raw() == number);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

fn wait(word: &str) -> Option<Duration> {
    match word.parse() {
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) => duration_or_zero(word).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_signals_with_waits_and_ends_with_kill() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<TermSeq>().unwrap().to_string(), expected, "{text}");
        };
        check("TERM,200,TERM,100,TERM,50,KILL,25", "TERM,200,TERM,100,TERM,50,KILL");
        check("TERM,1000,KILL", "TERM,1000,KILL");
        check("INT,500", "INT,500,KILL");
        check("15, 1s ,kill", "TERM,1000,KILL");
        check("sigusr1,0,KILL,10,TERM,10", "USR1,0,KILL");
        check("TERM", "TERM,2000,KILL");
        assert_eq!(TermSeq::default().to_string(), "TERM,2000,KILL");
        assert_eq!("INT,1s,TERM,2s".parse::<TermSeq>().unwrap().total(), Duration::from_secs(3));
    }

    #[test]
    fn what_is_no_sequence_is_named() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<TermSeq>().unwrap_err().to_string(), expected);
        };
        check("", "\"\" is not a signal, such as TERM, INT or 15");
        check("TERM,KILL", "\"KILL\" is not a wait, such as 200 (milliseconds) or 2s");
        check("200", "\"200\" is not a signal, such as TERM, INT or 15");
        check("TERM,25h", "the waits add up to more than a day");
        check("TERM,18446744073709551615,INT,18446744073709551615", {
            "the waits add up to more than a day"
        });
    }
}
