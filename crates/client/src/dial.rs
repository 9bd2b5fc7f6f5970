//! Connections.

use std::error::Error as StdError;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tradewind_keys::{Fault, Keys};

use crate::address::Address;
use crate::error::{Error, Unreachable};
use crate::options::Options;
use crate::tls;

/// Whatever carries requests.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Carrier for S {}

/// Connects to a server.
pub(crate) async fn dial(
    address: &Address,
    keys: Option<&Keys>,
    options: &Options,
) -> Result<Box<dyn Carrier>, Error> {
    let unreachable = |why| Error::Unreachable { url: address.to_string(), why };
    let connect = async {
        let stream = TcpStream::connect((&*address.host, address.port)).await;
        let stream = stream.map_err(Unreachable::Io)?;
        // A request is written as a whole.
        stream.set_nodelay(true).map_err(Unreachable::Io)?;
        let carrier: Box<dyn Carrier> = match keys {
            Some(keys) => Box::new(tls::encrypt(keys, stream).await?),
            None => Box::new(stream),
        };
        Ok(carrier)
    };
    match timeout(options.connect_timeout, connect).await {
        Ok(connected) => connected.map_err(unreachable),
        Err(_) => Err(unreachable(Unreachable::Timeout(options.connect_timeout))),
    }
}

/// Returns why a peer ended a connection at its first word, if it was for the keys.
pub(crate) fn refusal(error: &(dyn StdError + 'static)) -> Option<Fault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Fault::Refused(refusal)) = error.downcast_ref::<io::Error>().map(Fault::of_io) {
            return Some(Fault::Refused(refusal));
        }
        next = error.source();
    }
    None
}
