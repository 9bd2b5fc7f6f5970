//! Keys of Tradewind's programs: who may take part in a job, and as what. No tasks, messages, flags or
//! ports: streams come in, and leave encrypted with a known peer at the other end.
//!
//! ```text
//! Folder     a root for each role                  made once: `tradewind keys new`
//!   └─ Token      a key that a role's root vouches for     one for a host: `tradewind keys token worker`
//!        └─ Keys       a key that is made at the start       one for a process, with a certificate of a day
//! ```
//!
//! Nothing has to be online: each step signs the next. The role of a peer is which root verified it; its
//! session is the hash of its own key.
//!
//! - [`Folder`] makes and rotates roots and makes [`Token`]s.
//! - [`Places`] finds a [`Source`], and [`Keys`] reads it, reads it again when it was changed, and renews
//!   the process's certificate.
//! - [`Keys::accept`] and [`Keys::connect`] put TLS 1.3 on a stream and return the [`Peer`], or the
//!   [`Fault`] in one line.
//!
//! What decides (which root, expiry, ban, when to renew and to warn) takes the time as an argument.

mod certificate;
mod error;
mod fault;
mod fingerprint;
mod folder;
mod keys;
mod list;
mod moment;
mod private;
mod role;
mod source;
mod tls;
mod token;
mod trust;

pub use certificate::{BadCertificate, IDENTITY_LIFE, ROOT_LIFE};
pub use error::KeysError;
pub use fault::{Fault, Refusal};
pub use fingerprint::{Fingerprint, NoFingerprint};
pub use folder::{Folder, Issued};
pub use keys::{Keys, Notice};
pub use moment::{SKEW_MAX, UnixTime, text as time_text};
pub use role::{NoRole, Role, Roles};
pub use source::{KEYS_ENV, Places, Source, default_folder, read_token};
pub use tls::{Encrypted, is_tls};
pub use token::{Addresses, Token, TokenError, TooLong};
pub use trust::{Anchor, Peer};
