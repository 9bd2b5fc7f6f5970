//! The port for HTTP: who may ask there, and what carries the requests.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tradewind_http::{Acceptor, Access, Limits, Queues, Server};
use tradewind_keys::{Role as KeyRole, Roles, UnixTime};
use tradewind_lanes::{Keyring, LaneOptions};
use tradewind_node::exit::{Fatal, LISTEN, OrExit, SYSTEM, USAGE};
use tradewind_node::keys::{MaybeKeys, Wanted};

use crate::trust::Trusted;

/// Protocol inside TLS at the HTTP port.
const HTTP_PROTOCOL: &str = "tradewind-http/1";

/// Time for a handshake of TLS at the HTTP port.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The port for HTTP, which listens already.
pub(crate) struct HttpPort {
    listener: TcpListener,
    keys: HttpKeys,
    /// Whose keys open it.
    roles: Roles,
}

impl HttpPort {
    /// Listens.
    pub(crate) async fn open(
        at: SocketAddr,
        keys: HttpKeys,
        roles: &[KeyRole],
    ) -> Result<Self, Fatal> {
        let listener = TcpListener::bind(at).await.map_err(|error| cannot_listen(at, &error))?;
        Ok(Self { listener, keys, roles: Roles::of(roles) })
    }

    /// Returns where it listens.
    pub(crate) fn at(&self) -> Result<SocketAddr, Fatal> {
        self.listener.local_addr().or_exit(SYSTEM)
    }

    /// Returns the server for this port.
    pub(crate) fn server<Q: Queues>(
        &self,
        queues: Q,
        mut limits: Limits,
        lanes: &LaneOptions,
    ) -> Server<Q> {
        let task_bytes_max = tradewind_text::payload_bytes_max(lanes.message_bytes_max);
        limits.task_bytes_max =
            limits.task_bytes_max.min(usize::try_from(task_bytes_max).unwrap_or(usize::MAX));
        let access = match &self.keys {
            // Who has come through TLS has a key of the right role.
            HttpKeys::Tls(_) | HttpKeys::Insecure => Access::default().with_all(),
            HttpKeys::Trusted(addresses) => {
                Access::default().with_loopback().with_addresses(addresses.iter().copied())
            }
        };
        Server::new(queues, access, limits)
    }

    /// Answers until the server is drained.
    pub(crate) async fn answer<Q: Queues>(self, server: Server<Q>) {
        let Self { listener, keys, roles } = self;
        match keys {
            HttpKeys::Tls(keyring) => Answering::Tls(listener, keyring, roles),
            HttpKeys::Trusted(_) | HttpKeys::Insecure => Answering::Plain(listener),
        }
        .run(server)
        .await;
    }
}

/// Keys of the HTTP port.
pub(crate) enum HttpKeys {
    /// Who connects needs a key.
    Tls(Arc<Keyring>),
    /// Only this machine may ask, and these addresses.
    Trusted(Vec<IpAddr>),
    /// Whoever connects may ask.
    Insecure,
}

/// Returns the keys of the HTTP port. `keys` are those of the process; `trusted` are answered without, and then nobody
/// else is.
pub(crate) fn http_keys(
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
    async fn run<Q: Queues>(self, server: Server<Q>) {
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
