//! Ports are had, or it is said why not.

use tradewind_lanes::{BindError, Door, Endpoint, PeerAddr, PullGate, PushGate};

use std::net::ToSocketAddrs;

use crate::{World, any_port, run};

#[test]
fn a_gate_says_which_port_it_has() {
    run(async |world| {
        let endpoint: Endpoint = "tcp://localhost:0".parse().unwrap();
        let gate = PullGate::bind(&endpoint, world.options, Door::default()).await.unwrap();
        assert_eq!(gate.endpoint().tcp().unwrap().host(), "localhost");
        assert_ne!(gate.endpoint().tcp().unwrap().port(), 0);
    });
}

#[test]
fn a_taken_port_is_named() {
    run(async |world| {
        let first = world.pull_gate().await;
        let endpoint = first.endpoint();
        let error = PushGate::bind(&endpoint, world.options, Door::default()).await.err().unwrap();
        assert!(matches!(error, BindError::Taken { .. }));
        assert_eq!(error.to_string(), format!("{endpoint} is taken by another process"));
    });
}

#[test]
fn somebody_elses_address_is_named() {
    run(async |world| {
        // TEST-NET-1: documentation's, and nobody's.
        let endpoint = "tcp://192.0.2.1:0".parse().unwrap();
        let error = PushGate::bind(&endpoint, world.options, Door::default()).await.err().unwrap();
        assert_eq!(error.to_string(), "tcp://192.0.2.1:0 is not an address of this machine");
    });
}

async fn is_reached(world: &World, gate: &mut PushGate, host: &str) {
    let port = gate.endpoint().tcp().unwrap().port();
    let endpoint: Endpoint = format!("tcp://{host}:{port}").parse().unwrap();
    let mut dialler = world.dialler(endpoint);
    let (mut push, mut pull) = tokio::join!(gate.accept(), dialler.dial_pull());
    push.send(b"x".to_vec().into()).unwrap();
    assert_eq!(pull.recv().await.unwrap(), "x", "by way of {host}");
    let PeerAddr::Tcp(addr) = push.peer_addr() else { panic!("not over TCP") };
    let ip = addr.ip();
    assert_eq!(ip.to_string(), host.trim_matches(['[', ']']), "not as a mapped one");
}

#[test]
fn everywhere_is_ipv6_and_ipv4() {
    run(async |world| {
        for everywhere in ["tcp://*:0", "tcp://[::]:0"] {
            let endpoint = everywhere.parse().unwrap();
            let gate = PushGate::bind(&endpoint, world.options.clone(), Door::default()).await;
            let mut gate = gate.unwrap();
            is_reached(&world, &mut gate, "127.0.0.1").await;
            // A machine may have no IPv6.
            if std::net::TcpListener::bind("[::1]:0").is_ok() {
                is_reached(&world, &mut gate, "[::1]").await;
            }
        }
    });
}

#[test]
fn all_addresses_of_a_name_are_listened_on() {
    run(async |world| {
        let endpoint = "tcp://localhost:0".parse().unwrap();
        let gate = PushGate::bind(&endpoint, world.options.clone(), Door::default()).await;
        let mut gate = gate.unwrap();
        let addresses: Vec<_> = ("localhost", 0).to_socket_addrs().unwrap().collect();
        for address in addresses {
            let host = Endpoint::from(address).to_string();
            let host = host.trim_start_matches("tcp://").trim_end_matches(":0");
            // One of them may be of a family that is switched off.
            if std::net::TcpListener::bind(address).is_ok() {
                is_reached(&world, &mut gate, host).await;
            }
        }
    });
}

#[test]
fn an_inherited_listener_is_a_gate_too() {
    run(async |world| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut gate =
            PushGate::adopt(vec![listener.into()], world.options.clone(), Door::default()).unwrap();
        assert_eq!(gate.endpoint(), any_port().with_port(port));
        let mut dialler = world.dialler(gate.endpoint());
        let (mut push, mut pull) = tokio::join!(gate.accept(), dialler.dial_pull());
        push.send(b"x".to_vec().into()).unwrap();
        assert_eq!(pull.recv().await.unwrap(), "x");
    });
}
