//! Why something could not be asked, or has no answer.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tradewind_keys::{Fault, KeysError, Role};
use tradewind_queue::NameError;

use crate::address::AddressError;
use crate::problem::{Problem, ProblemKind};

/// Why something could not be asked, or has no answer. One line each.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A name, key or id is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key of a retry does not fit into a header.
    #[error("the key of a retry has no control characters, and no blanks at its ends")]
    HeaderKey,
    /// The token does not fit into a header.
    #[error("the token of the server has characters that a token cannot have")]
    Bearer,
    /// An `https` URL needs keys, and there are none.
    #[error(
        "there are no keys for {url}: bring a token of `tradewind keys token {}`, or name keys with --keys \
         (TRADEWIND_KEYS)",
        Role::Client
    )]
    NoKeys {
        /// Server.
        url: String,
    },
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// There is no connection to the server. Nothing was asked.
    #[error("failed to connect to {url}: {why}")]
    Unreachable {
        /// Server.
        url: String,
        /// Reason.
        why: Unreachable,
    },
    /// The connection ended before the answer, or amid it.
    #[error("connection to {url} lost: {why}")]
    Lost {
        /// Server.
        url: String,
        /// Reason.
        why: String,
    },
    /// There was no answer in time.
    #[error("{url} did not answer within {}", seconds(.after))]
    Timeout {
        /// Server.
        url: String,
        /// Time that was waited.
        after: Duration,
    },
    /// A submit or retry without a key has no answer: its tasks may have been taken or not. To send it again
    /// may take them twice; a key makes that safe.
    #[error("{0}; the tasks had no key, and may or may not have been taken")]
    Uncertain(Box<Error>),
    /// The server has not done what it was asked for, and says why.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is not one of such a server.
    #[error("{url} does not answer as a server of queues does: {what}")]
    Answer {
        /// Server.
        url: String,
        /// What is amiss.
        what: String,
    },
    /// This machine has no room for what is needed to ask.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// The connection was refused, the network is unreachable, or the name has no address.
    #[error("{}", in_words(.0))]
    Io(#[source] io::Error),
    /// It was not there in time.
    #[error("no connection within {}", seconds(.0))]
    Timeout(Duration),
    /// The keys of both ends do not fit together.
    #[error(transparent)]
    Keys(#[from] Fault),
}

impl Error {
    /// Returns whether the same request may succeed later, and asking again does no harm.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { why: Unreachable::Keys(fault), .. } => !fault.is_final(),
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Timeout { .. } => true,
            Self::Problem(problem) => problem.is_transient(),
            _ => false,
        }
    }

    /// Returns the problem that the server answered with, if it did.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// Returns whether the server answered with a problem of this kind.
    #[must_use]
    pub fn is(&self, kind: ProblemKind) -> bool {
        self.problem().is_some_and(|problem| problem.kind == kind)
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.problem()?.retry_after
    }
}

fn seconds(time: &Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// Returns `connection refused`, without the system's number.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => error.kind().to_string(),
        _ => error.to_string(),
    }
}
