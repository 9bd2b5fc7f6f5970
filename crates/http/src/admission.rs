//! How many connections there are, in all and of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::watch;

use crate::limits::Limits;

/// Reason why a connection may not stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum NoRoom {
    #[error("{max} connections, no more fit")]
    Connections { max: usize },
    #[error("{max} connections from one address, no more are taken")]
    Address { max: usize },
    #[error("the program ends")]
    Closed,
}

/// A connection's place, until it is dropped. It is to be had before a byte is read: also of what comes
/// before HTTP, as the handshake of TLS.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Places>,
    peer: IpAddr,
}

impl Admission {
    /// Returns the address of the client.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }
}

/// Places that connections have.
#[derive(Debug)]
pub(crate) struct Places {
    connections_max: usize,
    per_address_max: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
    /// Number of connections.
    count: watch::Sender<usize>,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            connections_max: limits.connections_max,
            per_address_max: limits.connections_per_address_max,
            taken: Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    /// Takes a place for a connection from an address.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Admission, NoRoom> {
        let max = self.connections_max;
        let has_room = |count: &mut usize| {
            let has_room = *count < max;
            *count += usize::from(has_room);
            has_room
        };
        let mut taken = self.taken();
        let of_address = taken.get(&network(peer)).copied().unwrap_or_default();
        let of_address_max = self.per_address_max;
        if of_address_max > 0 && of_address >= of_address_max {
            return Err(NoRoom::Address { max: of_address_max });
        }
        if !self.count.send_if_modified(has_room) {
            return Err(NoRoom::Connections { max });
        }
        taken.insert(network(peer), of_address + 1);
        drop(taken);
        Ok(Admission { places: Arc::clone(self), peer })
    }

    /// Returns once there is no connection.
    pub(crate) async fn empty(&self) {
        // It cannot fail: the sender is ours.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let network = network(self.peer);
        let mut taken = self.places.taken();
        match taken.get_mut(&network) {
            Some(1) => drop(taken.remove(&network)),
            Some(count) => *count -= 1,
            None => {}
        }
        self.places.count.send_modify(|count| *count -= 1);
    }
}

/// Returns the address by which a peer is counted: in IPv6 a host has a whole network, as a rule.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_by_address_and_come_back() {
        let limits =
            Limits { connections_max: 3, connections_per_address_max: 2, ..Limits::default() };
        let places = Places::new(&limits);
        let admit = |peer: &str| places.admit(peer.parse().unwrap());
        let first = admit("192.0.2.1").unwrap();
        let second = admit("::ffff:192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), NoRoom::Address { max: 2 });
        let third = admit("2001:db8::1").unwrap();
        assert_eq!(admit("192.0.2.2").unwrap_err(), NoRoom::Connections { max: 3 });
        drop(first);
        let fourth = admit("2001:db8::ffff:1").unwrap();
        drop(second);
        assert_eq!(admit("2001:db8::2").unwrap_err(), NoRoom::Address { max: 2 });
        drop((third, fourth));
        assert!(places.taken().is_empty() && *places.count.borrow() == 0);
    }
}
