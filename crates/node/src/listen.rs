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
