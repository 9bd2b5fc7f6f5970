//! The port for HTTP: who may ask there, and what carries the requests.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tradewind_http::{Acceptor, Access, Server};
use tradewind_keys::{Role as KeyRole, Roles, UnixTime};
use tradewind_lanes::Keyring;
use tradewind_node::exit::{Fatal, LISTEN, OrExit, SYSTEM, USAGE};
use tradewind_node::keys::{MaybeKeys, Wanted};

use crate::trust::Trusted;

/// Protocol inside TLS at the HTTP port.
const HTTP_PROTOCOL: &str = "tradewind-http/1";

/// Time for a handshake of TLS at the HTTP port.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The port for HTTP, which listens already.
#[derive(Debug)]
pub struct HttpPort {
    listener: std::net::TcpListener,
    keys: HttpKeys,
    /// Whose keys open it.
    roles: Roles,
}

impl HttpPort {
    /// Listens.
    ///
    /// # Errors
    /// When it cannot.
    pub fn open(at: SocketAddr, keys: HttpKeys, roles: &[KeyRole]) -> Result<Self, Fatal> {
        let listener = std::net::TcpListener::bind(at)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| cannot_listen(at, &error))?;
        Ok(Self { listener, keys, roles: Roles::of(roles) })
    }

    /// Returns where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn at(&self) -> Result<SocketAddr, Fatal> {
        self.listener.local_addr().or_exit(SYSTEM)
    }

    /// Returns who may ask.
    #[must_use]
    pub fn access(&self) -> Access {
        match &self.keys {
            // Who has come through TLS has a key of the right role.
            HttpKeys::Tls(_) | HttpKeys::Insecure => Access::default().with_all(),
            HttpKeys::Trusted(addresses) => {
                Access::default().with_loopback().with_addresses(addresses.iter().copied())
            }
        }
    }

    /// Answers until the server is drained.
    pub async fn answer(self, server: Server) {
        let Self { listener, keys, roles } = self;
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the HTTP port cannot be used"),
        };
        match keys {
            HttpKeys::Tls(keyring) => Answering::Tls(listener, keyring, roles),
            HttpKeys::Trusted(_) | HttpKeys::Insecure => Answering::Plain(listener),
        }
        .run(server)
        .await;
    }
}

/// Keys of the HTTP port.
#[derive(Debug)]
pub enum HttpKeys {
    /// Who connects needs a key.
    Tls(Arc<Keyring>),
    /// Only this machine may ask, and these addresses.
    Trusted(Vec<IpAddr>),
    /// Whoever connects may ask.
    Insecure,
}

/// Returns the keys of the HTTP port. `keys` are those of the process; `trusted` are answered without, and then nobody
/// else is.
///
/// # Errors
/// When nobody is named who may ask, or the gateway is not known.
pub fn http_keys(
    wanted: &Wanted,
    at: IpAddr,
    keys: &MaybeKeys,
    trusted: &[Trusted],
) -> Result<HttpKeys, Fatal> {
    match keys {
        _ if at.is_loopback() || !trusted.is_empty() => {
            let addresses: Result<Vec<_>, _> = trusted.iter().map(Trusted::address).collect();
            let addresses = addresses.or_exit(USAGE)?;
            if !addresses.is_empty() {
                tracing::info!(?addresses, "trusted at the HTTP port, besides this machine");
            }
            Ok(HttpKeys::Trusted(addresses))
        }
        Some(keyring) => Ok(HttpKeys::Tls(keyring.clone())),
        None if wanted.is_insecure => Ok(HttpKeys::Insecure),
        None => Err(Fatal::new(
            USAGE,
            format!(
                "there are no keys, and --http {at} would be open to whoever reaches it: make keys with \
                 `tradewind keys new`, or name with --http-trust who may ask; --insecure does without"
            ),
        )),
    }
}

fn cannot_listen(at: SocketAddr, error: &std::io::Error) -> Fatal {
    let why = match error.kind() {
        ErrorKind::AddrInUse => "is taken by another process".to_owned(),
        ErrorKind::AddrNotAvailable => "is not an address of this machine".to_owned(),
        ErrorKind::PermissionDenied => {
            "may not be listened on by this user (ports below 1024 need a privilege)".to_owned()
        }
        _ => format!("cannot be listened on: {error}"),
    };
    Fatal::new(LISTEN, format!("--http {at} {why}"))
}

/// The HTTP port.
enum Answering {
    Plain(TcpListener),
    Tls(TcpListener, Arc<Keyring>, Roles),
}

impl Answering {
    async fn run(self, server: Server) {
        let (listener, keyring, roles) = match self {
            Self::Plain(listener) => return server.listen(listener).await,
            Self::Tls(listener, keyring, roles) => (listener, keyring, roles),
        };
        let mut acceptor = Acceptor::new(listener);
        loop {
            let (stream, peer) = tokio::select! {
                () = server.drained() => break,
                accepted = acceptor.accept() => accepted,
            };
            let Ok(admission) = server.admit(peer.ip()) else { continue };
            let (server, keyring) = (server.clone(), keyring.clone());
            tokio::spawn(async move {
                match timeout(HANDSHAKE_TIME, secure(stream, &keyring, roles)).await {
                    Ok(Some(stream)) => server.connection(stream, admission).await,
                    Ok(None) | Err(_) => tracing::debug!(%peer, "no handshake"),
                }
            });
        }
        drop(acceptor);
        server.closed().await;
    }
}

async fn secure(
    stream: TcpStream,
    keyring: &Keyring,
    roles: Roles,
) -> Option<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + use<>> {
    let _ = stream.set_nodelay(true);
    let accepted = keyring.keys().accept(stream, HTTP_PROTOCOL, roles, UnixTime::now()).await;
    match accepted {
        Ok((stream, _)) => Some(stream),
        Err(fault) => {
            tracing::debug!(%fault, "no handshake");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tradewind_http::Limits;
    use tradewind_http::memory::Memory;
    use tradewind_keys::Folder;
    use tradewind_node::Listen;

    use super::*;

    #[tokio::test]
    async fn a_port_with_keys_ends_when_it_is_drained_though_nobody_connects_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        Folder::create(&folder, UnixTime::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wanted = Wanted { keys: Some(folder), is_insecure: false };
        let on_tcp = Listen::Endpoint("tcp://127.0.0.1:0".parse().unwrap());
        let keyring = wanted.open(KeyRole::Ventilator, [&on_tcp], []).unwrap().unwrap();
        let server =
            Server::new(Memory::default(), Access::default().with_all(), Limits::default());
        let answering = tokio::spawn(
            Answering::Tls(listener, keyring, Roles::of(&[KeyRole::Client])).run(server.clone()),
        );
        server.drain();
        timeout(Duration::from_secs(30), answering).await.expect("it ends").unwrap();
    }

    #[test]
    fn without_keys_http_elsewhere_than_on_loopback_is_for_those_who_are_named() {
        let trusted = |at: &str, trusted: &[Trusted]| {
            let keys = http_keys(&Wanted::default(), at.parse().unwrap(), &None, trusted);
            keys.ok().map(|keys| match keys {
                HttpKeys::Trusted(addresses) => addresses,
                HttpKeys::Tls(_) | HttpKeys::Insecure => panic!("open to all at {at}"),
            })
        };
        let host = "172.18.0.1".parse().unwrap();
        assert_eq!(trusted("0.0.0.0", &[]), None);
        assert_eq!(trusted("0.0.0.0", &[Trusted::Address(host)]), Some(vec![host]));
        assert_eq!(trusted("127.0.0.1", &[]), Some(vec![]));
    }
}
