//! How a connection of an `https` URL is encrypted: all that is to change if servers want it otherwise.

use tokio::net::TcpStream;
use tradewind_keys::{Encrypted, Fault, Keys, Places, Role, Roles, UnixTime};

use crate::error::Error;
use crate::options::Options;

/// Name of what is spoken inside TLS, as ALPN has it.
pub const PROTOCOL: &str = "tradewind-http/1";

/// Roles of the programs that serve queues.
const SERVERS: Roles = Roles::of(&[Role::Ventilator, Role::Sink]);

/// Opens the keys of a client, or of the program that asks in its place.
pub(crate) fn keys(options: &Options, role: Role, url: &str) -> Result<Keys, Error> {
    let places = Places::of_process(options.keys.clone());
    let source = places.find(role)?;
    let source = source.ok_or_else(|| Error::NoKeys { url: url.to_owned() })?;
    Ok(Keys::open(source, role, UnixTime::now())?)
}

/// Encrypts a connection, and checks that a server of queues is at its other end.
pub(crate) async fn encrypt(keys: &Keys, stream: TcpStream) -> Result<Encrypted<TcpStream>, Fault> {
    let now = UnixTime::now();
    // A token that was renewed, a key that was banned.
    for notice in keys.refresh(now) {
        tracing::warn!("{notice}");
    }
    let (stream, _) = keys.connect_unconfirmed(stream, PROTOCOL, SERVERS, now).await?;
    Ok(stream)
}
