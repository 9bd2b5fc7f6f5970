//! Listening on an endpoint, or on a socket that was inherited.

use tradewind_lanes::{BindError, Door, Endpoint, Gate, Lane, LaneOptions, Listener};

/// Place at which a gate listens.
pub enum Listen {
    /// An endpoint to open.
    Endpoint(Endpoint),
    /// Sockets that are open already, at one or more addresses.
    Sockets(Vec<Listener>),
}

impl Listen {
    /// Returns where it listens if that is on TCP; sockets whose place is not known count as such.
    pub(crate) fn on_tcp(&self) -> Option<String> {
        match self {
            Self::Endpoint(endpoint) => endpoint.tcp().map(|_| endpoint.to_string()),
            Self::Sockets(sockets) => sockets.iter().find_map(|socket| match socket.endpoint() {
                Ok(endpoint) => endpoint.tcp().map(|_| endpoint.to_string()),
                Err(_) => Some("an inherited socket".to_owned()),
            }),
        }
    }

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
