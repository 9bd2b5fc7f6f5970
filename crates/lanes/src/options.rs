//! What a lane may cost, and how long it may take.

use std::path::PathBuf;
use std::time::Duration;

/// The limits of a gate's or a dialler's lanes.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// Largest message a peer may send, in bytes. A header that claims more ends the lane before ZeroMQ
    /// sees it. Frames that are sent are not checked: the peer's own limit decides.
    pub message_bytes_max: u64,
    /// How long a connection may take from TCP's handshake to the end of ZMTP's.
    pub handshake_timeout: Duration,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// Connections of a gate, those still in their handshake included. Those beyond it are closed at once.
    pub connections_max: usize,
    /// How long a connection may be idle before TCP asks whether the peer is still there.
    pub keepalive: Duration,
    /// How long sent data may stay unacknowledged, or unsent because the peer reads nothing, before the
    /// connection counts as broken (`TCP_USER_TIMEOUT`). It finds a cut-off peer while there is data in
    /// flight, when keepalive is silent.
    pub unacked_max: Duration,
    /// Where the private directories for Unix sockets are made, each for an instant.
    /// `/dev/shm`, or else the system's temporary directory, if `None`.
    pub socket_dir: Option<PathBuf>,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 20,
            handshake_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            connections_max: 16_384,
            keepalive: Duration::from_secs(15),
            unacked_max: Duration::from_secs(30),
            socket_dir: None,
        }
    }
}
