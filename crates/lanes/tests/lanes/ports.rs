//! Ports are had, or it is said why not.

use tradewind_lanes::{BindError, Endpoint, PullGate, PushGate};

use crate::{any_port, run};

#[test]
fn a_gate_says_which_port_it_has() {
    run(async |world| {
        let endpoint: Endpoint = "tcp://localhost:0".parse().unwrap();
        let gate = PullGate::bind(&endpoint, world.options).await.unwrap();
        assert_eq!(gate.endpoint().host(), "localhost");
        assert_ne!(gate.endpoint().port(), 0);
    });
}

#[test]
fn a_taken_port_is_named() {
    run(async |world| {
        let first = world.pull_gate().await;
        let endpoint = first.endpoint();
        let error = PushGate::bind(&endpoint, world.options).await.err().unwrap();
        assert!(matches!(error, BindError::Taken { .. }));
        assert_eq!(error.to_string(), format!("{endpoint} is taken by another process"));
    });
}

#[test]
fn somebody_elses_address_is_named() {
    run(async |world| {
        // TEST-NET-1: documentation's, and nobody's.
        let endpoint = "tcp://192.0.2.1:0".parse().unwrap();
        let error = PushGate::bind(&endpoint, world.options).await.err().unwrap();
        assert_eq!(error.to_string(), "tcp://192.0.2.1:0 is not an address of this machine");
    });
}

#[test]
fn an_inherited_listener_is_a_gate_too() {
    run(async |world| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut gate = PushGate::adopt(listener, world.options.clone()).unwrap();
        assert_eq!(gate.endpoint(), any_port().with_port(port));
        let mut dialler = world.dialler(gate.endpoint());
        let (mut push, mut pull) = tokio::join!(gate.accept(), dialler.dial_pull());
        push.send(b"x".to_vec().into()).unwrap();
        assert_eq!(pull.recv().await.unwrap(), "x");
    });
}
