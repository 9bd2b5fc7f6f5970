//! Keys of a process on its TCP connections: TLS between TCP and ZMTP.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::net::TcpStream;
use tradewind_keys::{Encrypted, Fault, Keys, Notice, Peer, Roles, UnixTime};

use crate::lane::LaneState;
use crate::read_ahead::ReadAhead;
use crate::stream::Stream;

/// Keys of a process, and the lanes that were opened with them.
///
/// A [`Door`](crate::Door) that has one encrypts its TCP connections, and refuses those that do not speak
/// TLS. On Unix sockets it changes nothing: the kernel says whose process the peer is.
pub struct Keyring {
    keys: Keys,
    /// Protocol inside, with its version: the same at both ends.
    protocol: String,
    lanes: Mutex<Vec<(Peer, Weak<LaneState>)>>,
}

impl Keyring {
    /// Creates a keyring without lanes. `protocol` names what is spoken inside, with its version.
    pub fn new(keys: Keys, protocol: impl Into<String>) -> Self {
        Self { keys, protocol: protocol.into(), lanes: Mutex::default() }
    }

    /// Returns the keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Reads changed keys again, closes the lanes of peers that are banned by now, and returns what the
    /// user should know. To be called every few seconds.
    pub fn refresh(&self, now: UnixTime) -> Vec<Notice> {
        let notices = self.keys.refresh(now);
        self.lanes().retain(|(peer, lane)| {
            let Some(lane) = lane.upgrade() else { return false };
            let is_banned = self.keys.is_banned(peer);
            if is_banned {
                lane.dismiss(&format!("the {} key {} is banned", peer.role, peer.fingerprint));
            }
            !is_banned
        });
        notices
    }

    /// Adds a lane, to be closed when its peer is banned.
    fn add(&self, peer: Peer, lane: &Arc<LaneState>) {
        self.lanes().push((peer, Arc::downgrade(lane)));
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, Vec<(Peer, Weak<LaneState>)>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("role", &self.keys.role()).finish_non_exhaustive()
    }
}

/// End of a connection that this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Gate,
    Dialler,
}

/// A keyring, and the roles that peers must have.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) peers: Roles,
}

impl Lock {
    /// Encrypts a TCP connection; returns the peer that is at its other end. Unbounded in time.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        end: End,
    ) -> Result<(Stream, Peer), Fault> {
        let Self { keyring, peers } = self;
        let Keyring { keys, protocol, .. } = &**keyring;
        let (stream, now) = (ReadAhead::new(stream), UnixTime::now());
        let (stream, peer) = match end {
            End::Gate => keys.accept(stream, protocol, *peers, now).await?,
            End::Dialler => keys.connect(stream, protocol, *peers, now).await?,
        };
        Ok((Stream::Tls(Box::new(stream)), peer))
    }

    /// Notes a lane, to be closed when its peer is banned.
    pub(crate) fn watch(&self, peer: Peer, lane: &Arc<LaneState>) {
        self.keyring.add(peer, lane);
    }
}

/// TLS on a TCP connection.
pub(crate) type Secured = Encrypted<ReadAhead<TcpStream>>;
