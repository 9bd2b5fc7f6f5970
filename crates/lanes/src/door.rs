//! The identity that this end of a lane shows, and the rule by which peers are let in.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tradewind_keys::{Peer, Roles};
use zeromq::util::PeerIdentity;

use crate::keyring::{Keyring, Lock};
use crate::stream::PeerAddr;

/// Identity that a gate or a dialler shows its peers, and the rule by which it takes them.
///
/// Peers are judged by their READY command, before ZeroMQ has seen it. A peer that is refused gets
/// the reason in an ERROR command, and so hears it even where the two kinds of socket would not
/// match.
#[derive(Clone, Default)]
pub struct Door {
    pub(crate) identity: Option<PeerIdentity>,
    admit: Option<Arc<Admit>>,
    pub(crate) lock: Option<Lock>,
}

type Admit = dyn Fn(&Hello<'_>) -> Result<Admitted, String> + Send + Sync;

/// Peer that introduces itself.
#[derive(Debug)]
pub struct Hello<'a> {
    /// Name of the peer.
    pub addr: PeerAddr,
    /// Socket type: `PUSH` or `PULL` as a rule, or any other text that the peer sent.
    pub socket_type: &'a [u8],
    /// ZMTP identity; empty if the peer gives none.
    pub identity: &'a [u8],
    /// Key of the peer; `None` if the connection is not encrypted.
    pub key: Option<&'a Peer>,
}

/// Permission for a peer to stay.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Permit that is returned when the lane ends.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Whether the peer may be one of the last connections of a gate, which are kept for it.
    pub may_use_reserve: bool,
}

/// A ZMTP identity has at most 255 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an identity of {bytes} bytes, where at most {} are possible", PeerIdentity::MAX_LENGTH)]
pub struct IdentityTooLong {
    /// Length of the identity in bytes.
    pub bytes: usize,
}

impl Door {
    /// Creates a door that shows this identity and lets every peer in. An empty identity is none.
    ///
    /// # Errors
    ///
    /// When the identity has more than 255 bytes.
    pub fn showing(identity: Bytes) -> Result<Self, IdentityTooLong> {
        let bytes = identity.len();
        // zmq.rs makes one up if it is given an empty one.
        let identity = (bytes > 0).then(|| PeerIdentity::try_from(identity));
        let identity = identity.transpose().map_err(|_| IdentityTooLong { bytes })?;
        Ok(Self { identity, admit: None, lock: None })
    }

    /// Returns the same door, which refuses the peers for which a function finds a reason.
    #[must_use]
    pub fn admitting(
        self,
        admit: impl Fn(&Hello<'_>) -> Result<Admitted, String> + Send + Sync + 'static,
    ) -> Self {
        Self { admit: Some(Arc::new(admit)), ..self }
    }

    /// Returns the same door, which encrypts TCP connections and opens only to keys of these roles.
    #[must_use]
    pub fn locked(self, keyring: Arc<Keyring>, peers: Roles) -> Self {
        Self { lock: Some(Lock { keyring, peers }), ..self }
    }

    pub(crate) fn admit(&self, hello: &Hello<'_>) -> Result<Admitted, String> {
        self.admit.as_ref().map_or_else(|| Ok(Admitted::default()), |admit| admit(hello))
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("identity", &self.identity).finish_non_exhaustive()
    }
}
