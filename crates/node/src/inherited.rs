//! Sockets that were opened for this process by its parent.

use std::os::unix::net::UnixDatagram;

use tradewind_lanes::{Endpoint, Listener};

use crate::Listen;

/// Listening sockets that were inherited from the parent, by systemd's convention (`LISTEN_FDS`,
/// with `LISTEN_FDS_FIRST_FD` if they do not begin at 3).
pub struct Inherited(listenfd::ListenFd);

impl Inherited {
    /// Takes the sockets that the environment names.
    #[must_use]
    pub fn from_env() -> Self {
        Self(listenfd::ListenFd::from_env())
    }

    /// Returns the datagram socket at this place, if one was inherited.
    #[must_use]
    pub fn datagram(&mut self, place: usize) -> Option<UnixDatagram> {
        self.0.take_unix_datagram(place).ok().flatten()
    }

    /// Returns whether any socket was inherited.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.0.len() > 0
    }

    /// Returns the socket at this place if one was inherited, else the endpoint.
    #[must_use]
    pub fn or_endpoint(&mut self, place: usize, endpoint: Endpoint) -> Listen {
        // One that is of the other kind stays where it is.
        let tcp = self.0.take_tcp_listener(place).ok().flatten().map(Listener::from);
        let unix = || self.0.take_unix_listener(place).ok().flatten().map(Listener::from);
        match tcp.or_else(unix) {
            Some(socket) => Listen::Sockets(vec![socket]),
            None => Listen::Endpoint(endpoint),
        }
    }
}
