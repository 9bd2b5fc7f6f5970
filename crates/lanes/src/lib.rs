//! Lanes: frames of bytes in and out over ZeroMQ PUSH/PULL, without tasks, messages or any idea of
//! the meaning of the bytes.
//!
//! This is the only crate that knows ZeroMQ, and ZeroMQ never touches the network here. Every
//! connection, accepted or dialled, is a stream of ours, TCP or a Unix socket, and a ZeroMQ socket
//! of its own, which listens on a Unix socket that no other process can reach. Between the two runs
//! a pump:
//!
//! ```text
//!  peer ── TCP, TLS or Unix ──▶ frame meter ──▶ Unix socket ──▶ PULL      a lane that carries in
//!  peer ◀── TCP, TLS or Unix ◀──────────────── Unix socket ◀── PUSH      a lane that carries out
//! ```
//!
//! With a [`Keyring`] each TCP connection is encrypted before the first byte of ZMTP, and each end knows the
//! key of the other; there is no way back to a plain one.
//!
//! On a Unix socket both ends have to belong to one user: each asks the kernel for the other's
//! (`SO_PEERCRED`), and closes the connection if it is another one.
//!
//! The features that zmq.rs lacks are in that pump and around it: limits on connections and on
//! frame sizes, handshake timeouts, keepalive, byte counts, the news that a peer has gone, and
//! reasons for closing. The wire carries plain ZMTP 3, so that any ZeroMQ library can be the other
//! end.
//!
//! - [`Gate`] listens and yields one lane per connection; [`Dialler`] connects, and keeps trying.
//! - [`PushLane`] sends, [`PullLane`] receives; both know their peer's identity and when it has gone.
//! - A [`Door`] shows peers who is here and decides who may stay; one who may not hears why.
//! - [`meter::Meter`] decides what may reach ZeroMQ at all.
//!
//! # One socket per connection, PULL included
//!
//! A PULL socket could serve many peers at once. It does not here, for two reasons: two peers with the same
//! identity replace one another inside a zmq.rs socket, and with a socket each we know which connection a
//! frame came from and when exactly that connection had nothing more to say.
//!
//! # What never happens
//!
//! Nothing a peer sends makes this crate panic or reserve memory that it has not been allowed to. No lane
//! waits for another one's handshake. Nothing is made for a stranger but a task and a small buffer, until the
//! door has let it in. Nothing stays on disk: the file of a private Unix socket is gone before
//! the first byte passes through it, that of one that listens when the gate is.

mod attach;
mod buffer;
mod dial;
mod door;
mod endpoint;
#[cfg(test)]
mod few_files;
mod gate;
mod handshake;
mod keyring;
mod lane;
mod listener;
pub mod meter;
mod options;
mod porch;
mod private;
mod pull;
mod pump;
mod push;
mod read_ahead;
mod reasons;
mod sparing;
mod stream;
mod tcp;
mod unfinished;
mod unix;

pub use attach::HandshakeError;
pub use dial::{DialError, Dialler, Hopeless};
pub use door::{Admitted, Door, Hello, IdentityTooLong};
pub use endpoint::{Endpoint, EndpointError, IpcEndpoint, TcpEndpoint};
pub use gate::{BindError, Gate, PullGate, PushGate, bind};
pub use keyring::Keyring;
pub use lane::{Closer, GoneReason, Lane, LaneGone, LaneWatch, Traffic};
pub use listener::Listener;
pub use options::LaneOptions;
pub use porch::NoRoom;
pub use private::{PrivateDir, remove_private_dir};
pub use pull::PullLane;
pub use push::PushLane;
pub use sparing::Sparing;
pub use stream::{PeerAddr, PeerHost};
pub use unfinished::{RATE_BYTES_MIN, UNFINISHED_BYTES_MAX, Unfinished};
