//! Connections with keys.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tradewind_client::{Client, Error, Options, PROTOCOL, Unreachable};
use tradewind_http::memory::Memory;
use tradewind_http::{Access, Limits, Server};
use tradewind_keys::{Folder, Keys, Role, Roles, Source, UnixTime};

/// Serves queues to clients with keys of a folder.
async fn serve(folder: &Path, role: Role) -> SocketAddr {
    let keys = Keys::open(Source::at(folder).unwrap(), role, UnixTime::now()).unwrap();
    let keys = Arc::new(keys);
    let access = Access::default().with_loopback();
    let server = Server::new(Memory::default(), access, Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let (keys, server) = (keys.clone(), server.clone());
            tokio::spawn(async move {
                let accepted = Roles::of(&[Role::Client]);
                let admission = server.admit(peer.ip()).unwrap();
                let accepted = keys.accept(stream, PROTOCOL, accepted, UnixTime::now()).await;
                if let Ok((stream, _)) = accepted {
                    server.connection(stream, admission).await;
                }
            });
        }
    });
    address
}

fn client(address: SocketAddr, keys: &Path) -> Client {
    let mut options = Options::default();
    options.keys = Some(keys.to_owned());
    Client::with(&format!("https://{address}"), options).unwrap()
}

#[tokio::test]
async fn both_ends_show_keys_of_one_set() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, others) = (dir.path().join("ours"), dir.path().join("others"));
    for folder in [&ours, &others] {
        Folder::create(folder, UnixTime::now()).unwrap();
    }
    for role in [Role::Ventilator, Role::Sink] {
        let address = serve(&ours, role).await;
        let submitted = client(address, &ours).submit("q", "a").await.unwrap();
        assert_eq!(submitted.id.to_string(), "q-0");
        let error = client(address, &others).queues().await.unwrap_err();
        let is_key = matches!(&error, Error::Unreachable { why: Unreachable::Keys(_), .. });
        assert!(is_key && !error.is_transient(), "{error}");
        assert!(error.to_string().contains("another set of keys"), "{error}");
    }
    let worker = serve(&ours, Role::Worker).await;
    let error = client(worker, &ours).queues().await.unwrap_err();
    assert!(error.to_string().contains("ventilator or sink"), "{error}");
}

#[tokio::test]
async fn a_client_whose_key_is_refused_is_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("keys");
    let made = Folder::create(&folder, UnixTime::now()).unwrap();
    let address = serve(&folder, Role::Sink).await;
    // The server has the list of banned keys, and the client's token has not.
    let token = made
        .token(
            Role::Client,
            std::time::Duration::from_secs(3600),
            Default::default(),
            UnixTime::now(),
        )
        .unwrap();
    let path = dir.path().join("token");
    let text = token.encode().unwrap();
    std::fs::write(&path, text).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    client(address, &path).queues().await.unwrap();
    Source::at(&folder).unwrap().ban(token.fingerprint()).unwrap();
    let strict = serve(&folder, Role::Sink).await;
    let error = client(strict, &path).queues().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { why: Unreachable::Keys(_), .. }), "{error}");
    assert!(error.to_string().contains("it is banned there"), "{error}");
}

#[test]
fn a_url_that_needs_keys_without_any_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.keys = Some(dir.path().join("none"));
    let error = Client::with("https://127.0.0.1:5560", options).unwrap_err();
    assert!(matches!(error, Error::Keys(_)), "{error}");
}
