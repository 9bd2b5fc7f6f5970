//! Limits of a lane's resources and times.

use std::path::PathBuf;
use std::time::Duration;

use crate::unfinished::Unfinished;

/// The limits of a gate's or a dialler's lanes.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// Largest message a peer may send, in bytes. A header that claims more ends the lane before ZeroMQ
    /// sees it. Frames that are sent are not checked: the peer's own limit decides.
    pub message_bytes_max: u64,
    /// Time from the connection to the end of ZMTP's handshake, at most.
    pub handshake_timeout: Duration,
    /// Time of one attempt to connect, at most.
    pub connect_timeout: Duration,
    /// Number of a gate's connections whose handshake is complete. Further ones hear that no more fit.
    pub connections_max: usize,
    /// Number of those that are kept for peers which the door lets use the reserve.
    pub connections_reserved: usize,
    /// Number of a gate's connections whose handshake is under way. When there are more, the oldest goes, once it has
    /// had a quarter of a second.
    pub half_open_max: usize,
    /// Number of a gate's connections from one IPv4 address, or from one /64 network of IPv6; 0 for any number. As many
    /// may come at once, and then 100 a second. Unix sockets are not concerned.
    pub connections_per_address: usize,
    /// Time for which a connection may be idle before TCP asks whether the peer is still there. A Unix
    /// socket need not ask.
    pub keepalive: Duration,
    /// Time for which sent data may stay unacknowledged, or unsent because the peer reads nothing,
    /// before the connection counts as broken (`TCP_USER_TIMEOUT`). Finds a peer that is cut off
    /// while data is on its way, when keepalive is silent. On a Unix socket: time for which a peer
    /// may read nothing of what waits for it.
    pub unacked_max: Duration,
    /// Time that a message may be behind 64 KiB/s, reckoned from its first byte, before the lane ends. Only the time
    /// counts in which its bytes are waited for.
    pub message_lag_max: Duration,
    /// Bytes of messages that have begun and not ended, over all lanes that have a clone of it: those of this process,
    /// by default. Beyond its bound, lanes in the middle of a message wait.
    pub unfinished: Unfinished,
    /// Directory in which the private directories for Unix sockets are made, each for an instant.
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
            connections_reserved: 16,
            half_open_max: 256,
            connections_per_address: 1_024,
            keepalive: Duration::from_secs(15),
            unacked_max: Duration::from_secs(30),
            message_lag_max: Duration::from_secs(30),
            unfinished: Unfinished::of_process(),
            socket_dir: None,
        }
    }
}
