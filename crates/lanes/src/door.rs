//! What a peer is shown at our end of a lane, and who is let in at the other.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use zeromq::util::PeerIdentity;

/// What a gate or a dialler tells its peers of itself, and which peers it takes.
///
/// Peers are judged by their READY command, before ZeroMQ has seen it. One that is not taken is told why
/// by an ERROR command, and so hears it even where the two kinds of socket would not match.
#[derive(Clone, Default)]
pub struct Door {
    pub(crate) identity: Option<PeerIdentity>,
    admit: Option<Arc<Admit>>,
}

type Admit = dyn Fn(&Hello<'_>) -> Result<Admitted, String> + Send + Sync;

/// A peer that introduces itself.
#[derive(Debug)]
pub struct Hello<'a> {
    /// Where it is.
    pub addr: SocketAddr,
    /// `PUSH` or `PULL` as a rule, or what it says instead.
    pub socket_type: &'a [u8],
    /// Its ZMTP identity; empty if it gives none.
    pub identity: &'a [u8],
}

/// A peer may stay.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Given back when its lane is no more.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// A ZMTP identity has at most 255 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an identity of {bytes} bytes, where at most {} are possible", PeerIdentity::MAX_LENGTH)]
pub struct IdentityTooLong {
    /// How long it was.
    pub bytes: usize,
}

impl Door {
    /// A door that shows this identity and is open to everybody. An empty identity is none.
    pub fn showing(identity: Bytes) -> Result<Self, IdentityTooLong> {
        let bytes = identity.len();
        // zmq.rs makes one up if it is given an empty one.
        let identity = (bytes > 0).then(|| PeerIdentity::try_from(identity));
        let identity = identity.transpose().map_err(|_| IdentityTooLong { bytes })?;
        Ok(Self { identity, admit: None })
    }

    /// The same door, open to those alone for whom this finds no reason against it.
    #[must_use]
    pub fn admitting(
        self,
        admit: impl Fn(&Hello<'_>) -> Result<Admitted, String> + Send + Sync + 'static,
    ) -> Self {
        Self { admit: Some(Arc::new(admit)), ..self }
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
