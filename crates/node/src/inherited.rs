//! Sockets that somebody opened for this process.

use std::os::unix::net::UnixDatagram;

use tradewind_lanes::Endpoint;

use crate::Listen;

/// Listening sockets that were passed on by whoever started this process, by systemd's convention
/// (`LISTEN_FDS`, with `LISTEN_FDS_FIRST_FD` if they do not begin at 3).
pub struct Inherited(listenfd::ListenFd);

impl Inherited {
    /// Takes what the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        Self(listenfd::ListenFd::from_env())
    }

    /// The datagram socket at this place, if one was passed on.
    #[must_use]
    pub fn datagram(&mut self, place: usize) -> Option<UnixDatagram> {
        self.0.take_unix_datagram(place).ok().flatten()
    }

    /// Was anything passed on?
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.0.len() > 0
    }

    /// The socket at this place if one was passed on, else the endpoint.
    #[must_use]
    pub fn or_endpoint(&mut self, place: usize, endpoint: Endpoint) -> Listen {
        match self.0.take_tcp_listener(place) {
            Ok(Some(socket)) => Listen::Sockets(vec![socket]),
            Ok(None) | Err(_) => Listen::Endpoint(endpoint),
        }
    }
}
