//! Errors of keys on disk.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::certificate::BadCertificate;
use crate::moment::{UnixTime, text};
use crate::role::Role;
use crate::token::{TokenError, TooLong};

/// Reason why keys cannot be used or made.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum KeysError {
    #[error("{}: {why}", path.display())]
    Io { path: PathBuf, why: io::Error },
    #[error("{} exists already, and keys are never written over", path.display())]
    Exists { path: PathBuf },
    #[error(
        "{} may be read or written by other users (mode {mode:03o}): make it private with \
         `chmod {} {0}`", path.display(), if *is_directory { "700" } else { "600" }
    )]
    Open { path: PathBuf, mode: u32, is_directory: bool },
    #[error("{} belongs to user {owner}, and this program runs as user {user}", path.display())]
    Owner { path: PathBuf, owner: u32, user: u32 },
    #[error("{} is no file with a token and no folder of keys", path.display())]
    Neither { path: PathBuf },
    #[error("{} is no folder of keys: `tradewind keys new` makes one", path.display())]
    NoFolder { path: PathBuf },
    #[error("{}: {why}", path.display())]
    Token { path: PathBuf, why: TokenError },
    #[error("{}: {why}", path.display())]
    Certificate { path: PathBuf, why: BadCertificate },
    #[error("{}, line {line}: {what}", path.display())]
    List { path: PathBuf, line: usize, what: String },
    #[error("{} is a {role}'s token, and this program is a {wanted}", path.display())]
    WrongRole { path: PathBuf, role: Role, wanted: Role },
    #[error("{} has no root for a {role} that is accepted now: `tradewind keys rotate {role}` makes one",
        path.display())]
    NoRoot { path: PathBuf, role: Role },
    #[error("{}: the {role} key expired at {}", path.display(), text(*at))]
    Expired { path: PathBuf, role: Role, at: UnixTime },
    #[error("{}: the {role} key is valid only from {}; is the clock of this machine right?",
        path.display(), text(*from))]
    NotYetValid { path: PathBuf, role: Role, from: UnixTime },
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl KeysError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |why| Self::Io { path, why }
    }
}
