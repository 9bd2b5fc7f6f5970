//! Where to listen: on an endpoint, or on a socket that somebody opened for us.

use tradewind_lanes::{BindError, Door, Endpoint, Gate, Lane, LaneOptions};

/// Where a gate stands.
pub enum Listen {
    /// Open this one.
    Endpoint(Endpoint),
    /// It is open already, at one or more addresses.
    Sockets(Vec<std::net::TcpListener>),
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
