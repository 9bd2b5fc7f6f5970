//! Ports that listen before anything else is known.

use std::io;

use tradewind_lanes::{Endpoint, Listener, bind};
use tradewind_node::Listen;

use crate::Error;

/// A port on which peers can be waited for already.
#[derive(Debug)]
pub(crate) struct Listening {
    endpoint: Endpoint,
    sockets: Vec<Listener>,
}

impl Listening {
    /// Listens there; on any free port if the port is 0.
    pub(crate) fn on(endpoint: &str) -> Result<Self, Error> {
        let endpoint: Endpoint = endpoint.parse()?;
        let sockets = bind(&endpoint)?;
        let actual =
            sockets.first().map_or(Err(io::ErrorKind::NotFound.into()), Listener::endpoint);
        let endpoint = match actual.map_err(Error::system)?.tcp() {
            Some(tcp) => endpoint.with_port(tcp.port()),
            None => endpoint,
        };
        Ok(Self { endpoint, sockets })
    }

    /// The host as it was asked for, and the actual port.
    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }
}

impl From<Listening> for Listen {
    fn from(listening: Listening) -> Self {
        Self::Sockets(listening.sockets)
    }
}
