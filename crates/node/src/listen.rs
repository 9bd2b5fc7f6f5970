//! Where to listen: on an endpoint, or on a socket that somebody opened for us.

use std::os::unix::net::UnixDatagram;

use tradewind_lanes::{BindError, Door, Endpoint, Gate, Lane, LaneOptions};

/// Listening sockets that were passed on by whoever started this process, by systemd's convention
/// (`LISTEN_FDS`, with `LISTEN_FDS_FIRST_FD` if they do not begin at 3).
pub struct Inherited(listenfd::ListenFd);

/// Where a gate stands.
pub enum Listen {
    /// Open this one.
    Endpoint(Endpoint),
    /// It is open already, at one or more addresses.
    Sockets(Vec<std::net::TcpListener>),
}

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

impl Listen {
    /// Opens the gate.
    ///
    /// # Errors
    /// When the endpoint cannot be listened on.
    pub async fn open<L: Lane>(
        self,
        options: LaneOptions,
        door: Door,
    ) -> Result<Gate<L>, BindError> {
        match self {
            Self::Endpoint(endpoint) => Gate::bind(&endpoint, options, door).await,
            Self::Sockets(sockets) => Gate::adopt(sockets, options, door),
        }
    }
}
