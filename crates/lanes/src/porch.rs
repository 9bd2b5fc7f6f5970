//! Decides which connections of a gate may stay, and which of those that have not said who they are goes first.
//!
//! No I/O, no clock: time is an argument. A connection is *half-open* until the door has judged it. What it costs
//! until then is one open file, so that these have a number of their own: no crowd of strangers takes the place
//! of a peer, and no crowd of peers keeps one out that may use the reserve.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

/// Number of connections that one address may open in a second, beyond a burst of as many as it may have at all: a
/// host whose workers all start together has them in at once, and one whose connections never live for long is
/// slowed down.
const ARRIVALS_PER_SECOND: u32 = 100;

/// Time that a half-open connection has before another one may take its place: time enough to shake hands on a
/// slow network, also while strangers come as fast as they can. Others wait in the listener's queue meanwhile,
/// where they cost no file.
const PATIENCE: Duration = Duration::from_millis(250);

/// Reason why a connection may not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum NoRoom {
    #[error("{max} connections, no more fit")]
    Connections { max: usize },
    #[error(
        "{max} connections from one address, no more are taken (see --connections-per-address)"
    )]
    Address { max: usize },
    #[error("too many new connections from one address, {ARRIVALS_PER_SECOND} a second are taken")]
    Rate,
    #[error("others came while its handshake was under way")]
    Late,
}

/// Number of a connection at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(u64);

/// Result of an arrival.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The connection may shake hands. Another one that has not done so has to go.
    Admit {
        ticket: Ticket,
        instead_of: Option<Ticket>,
    },
    Refuse(NoRoom),
}

/// What a gate's options say about their number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Number of connections that the door has let in.
    pub(crate) connections_max: usize,
    /// Number of those that are kept for peers which may use the reserve.
    pub(crate) reserved: usize,
    /// Number of half-open connections.
    pub(crate) half_open_max: usize,
    /// Number of connections from one address; 0 for any number.
    pub(crate) per_address_max: usize,
}

/// Peers by address: an IPv4 address, or a network of IPv6, in which one host has as many as it wants.
type Address = IpAddr;

/// The connections of one gate.
#[derive(Debug)]
pub(crate) struct Porch {
    limits: Limits,
    next: u64,
    /// All of them, and the address of each, if it has one that counts.
    connections: HashMap<Ticket, Option<Address>>,
    /// Those that have not been judged, the oldest first.
    half_open: BTreeMap<Ticket, Instant>,
    addresses: HashMap<Address, Visitors>,
    /// Addresses without a connection, and the time at which their burst is whole again, in the order of leaving.
    idle: VecDeque<(Address, Instant)>,
}

/// What is known of one address.
#[derive(Debug)]
struct Visitors {
    connections: usize,
    /// Time at which the burst will be whole again: each arrival adds the interval between two.
    whole_at: Instant,
}

impl Porch {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 0,
            connections: HashMap::new(),
            half_open: BTreeMap::new(),
            addresses: HashMap::new(),
            idle: VecDeque::new(),
        }
    }

    /// Returns the time before which no connection is to be accepted, unless a half-open one leaves or is judged.
    pub(crate) fn full_until(&self, now: Instant) -> Option<Instant> {
        if self.half_open.len() < self.limits.half_open_max {
            return None;
        }
        let oldest = self.half_open.first_key_value();
        oldest.map(|(_, since)| *since + PATIENCE).filter(|until| *until > now)
    }

    /// Notes a connection from an address, if it has one.
    pub(crate) fn arrive(&mut self, now: Instant, address: Option<IpAddr>) -> Arrival {
        self.forget(now);
        let address = address.filter(|_| self.limits.per_address_max > 0).map(network);
        if let Some(address) = address
            && let Err(reason) = self.visit(now, address)
        {
            return Arrival::Refuse(reason);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let is_full = self.half_open.len() >= self.limits.half_open_max.max(1);
        let oldest = self.half_open.first_key_value().map(|(oldest, _)| *oldest);
        let instead_of = oldest.filter(|_| is_full);
        instead_of.into_iter().for_each(|oldest| self.left(oldest));
        self.connections.insert(ticket, address);
        self.half_open.insert(ticket, now);
        Arrival::Admit { ticket, instead_of }
    }

    fn visit(&mut self, now: Instant, address: Address) -> Result<(), NoRoom> {
        let max = self.limits.per_address_max;
        let interval = Duration::from_secs(1) / ARRIVALS_PER_SECOND;
        let burst = interval.saturating_mul(u32::try_from(max).unwrap_or(u32::MAX));
        let visitors =
            self.addresses.entry(address).or_insert(Visitors { connections: 0, whole_at: now });
        let whole_at = visitors.whole_at.max(now) + interval;
        if whole_at > now + burst {
            return Err(NoRoom::Rate);
        }
        // One that is told that there are too many counts as well, as that costs something too.
        visitors.whole_at = whole_at;
        if visitors.connections >= max {
            return Err(NoRoom::Address { max });
        }
        visitors.connections += 1;
        Ok(())
    }

    /// Notes that the door has let a connection in.
    pub(crate) fn judged(&mut self, ticket: Ticket, may_use_reserve: bool) -> Result<(), NoRoom> {
        let Limits { connections_max, reserved, .. } = self.limits;
        if !self.half_open.contains_key(&ticket) {
            return Err(NoRoom::Late);
        }
        let max = match may_use_reserve {
            true => connections_max,
            false => connections_max.saturating_sub(reserved).max(1),
        };
        if self.connections.len() - self.half_open.len() >= max {
            return Err(NoRoom::Connections { max });
        }
        self.half_open.remove(&ticket);
        Ok(())
    }

    /// Notes the end of a connection.
    pub(crate) fn left(&mut self, ticket: Ticket) {
        self.half_open.remove(&ticket);
        let Some(address) = self.connections.remove(&ticket).flatten() else { return };
        let Some(visitors) = self.addresses.get_mut(&address) else { return };
        visitors.connections -= 1;
        if visitors.connections == 0 {
            self.idle.push_back((address, visitors.whole_at));
        }
    }

    /// Forgets addresses without a connection whose burst is whole again.
    fn forget(&mut self, now: Instant) {
        while let Some((address, whole_at)) = self.idle.front().copied()
            && whole_at <= now
        {
            self.idle.pop_front();
            let is_idle =
                |visitors: &Visitors| visitors.connections == 0 && visitors.whole_at <= now;
            if self.addresses.get(&address).is_some_and(is_idle) {
                self.addresses.remove(&address);
            }
        }
    }
}

/// Returns the address by which a peer is counted: in IPv6 a host has a whole network, as a rule.
fn network(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { connections_max: 10, reserved: 2, half_open_max: 3, per_address_max: 5 };

    fn address(n: u8) -> Option<IpAddr> {
        Some([127, 0, 0, n].into())
    }

    fn admit(porch: &mut Porch, now: Instant, from: Option<IpAddr>) -> Ticket {
        match porch.arrive(now, from) {
            Arrival::Admit { ticket, instead_of: None } => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn let_in(porch: &mut Porch, now: Instant, from: Option<IpAddr>) -> Ticket {
        let ticket = admit(porch, now, from);
        porch.judged(ticket, false).unwrap();
        ticket
    }

    #[test]
    fn the_oldest_that_is_half_open_goes_first_and_not_at_once() {
        let (mut porch, start) = (Porch::new(LIMITS), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let tickets: Vec<_> = (0..3).map(|n| admit(&mut porch, at(n), None)).collect();
        assert_eq!(porch.full_until(at(3)), Some(start + PATIENCE));
        // One that is let in makes room.
        porch.judged(tickets[0], false).unwrap();
        assert_eq!(porch.full_until(at(3)), None);
        let last = admit(&mut porch, at(4), None);
        let late = at(1) + PATIENCE;
        assert_eq!((porch.full_until(at(5)), porch.full_until(late)), (Some(late), None));
        let arrival = porch.arrive(late, None);
        assert!(
            matches!(arrival, Arrival::Admit { instead_of, .. } if instead_of == Some(tickets[1])),
            "{arrival:?}"
        );
        assert_eq!(porch.judged(tickets[1], false), Err(NoRoom::Late));
        assert_eq!((porch.judged(tickets[2], false), porch.judged(last, false)), (Ok(()), Ok(())));
    }

    #[test]
    fn half_open_ones_take_no_place_and_workers_not_the_reserve() {
        let (mut porch, now) = (Porch::new(LIMITS), Instant::now());
        let first = let_in(&mut porch, now, None);
        for _ in 1..8 {
            let_in(&mut porch, now, None);
        }
        let tickets: Vec<_> = (0..3).map(|_| admit(&mut porch, now, None)).collect();
        assert_eq!(porch.judged(tickets[0], false), Err(NoRoom::Connections { max: 8 }));
        assert_eq!(
            (porch.judged(tickets[0], true), porch.judged(tickets[1], true)),
            (Ok(()), Ok(()))
        );
        assert_eq!(porch.judged(tickets[2], true), Err(NoRoom::Connections { max: 10 }));
        for ticket in tickets.into_iter().chain([first]) {
            porch.left(ticket);
            porch.left(ticket);
        }
        let_in(&mut porch, now, None);
        let none_left = admit(&mut porch, now, None);
        assert_eq!(porch.judged(none_left, false), Err(NoRoom::Connections { max: 8 }));
    }

    #[test]
    fn an_address_has_so_many_and_others_are_not_concerned() {
        let (mut porch, start) = (Porch::new(LIMITS), Instant::now());
        let tickets: Vec<_> = (0..5).map(|_| let_in(&mut porch, start, address(1))).collect();
        // All at once, and the next one within the second is one too many by rate already.
        assert_eq!(porch.arrive(start, address(1)), Arrival::Refuse(NoRoom::Rate));
        let later = start + Duration::from_secs(1);
        let refused = Arrival::Refuse(NoRoom::Address { max: 5 });
        assert_eq!(porch.arrive(later, address(1)), refused);
        let_in(&mut porch, later, address(2));
        porch.left(tickets[0]);
        let_in(&mut porch, later, address(1));
        // A Unix socket has none.
        for _ in 0..2 {
            let_in(&mut porch, later, None);
        }
    }

    #[test]
    fn an_address_that_comes_again_and_again_is_slowed_down() {
        let (mut porch, start) = (Porch::new(LIMITS), Instant::now());
        let mut admitted = 0;
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            if let Arrival::Admit { ticket, .. } = porch.arrive(now, address(1)) {
                porch.left(ticket);
                admitted += 1;
            }
        }
        assert_eq!(admitted, 5 + 10 * ARRIVALS_PER_SECOND as usize - 1);
    }

    #[test]
    fn a_thousand_workers_of_one_host_are_in_at_once() {
        let limits = Limits {
            connections_max: 16_384,
            half_open_max: 256,
            per_address_max: 1_024,
            ..LIMITS
        };
        let (mut porch, now) = (Porch::new(limits), Instant::now());
        for _ in 0..1_024 {
            let_in(&mut porch, now, address(1));
        }
        assert_eq!(porch.full_until(now), None);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let (mut porch, now) = (Porch::new(LIMITS), Instant::now());
        for host in 0..5 {
            let_in(&mut porch, now, Some(Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, host).into()));
        }
        let arrive = |porch: &mut Porch, network| {
            porch.arrive(now, Some(Ipv6Addr::new(1, 2, 3, network, 0, 0, 0, 1).into()))
        };
        assert_eq!(arrive(&mut porch, 4), Arrival::Refuse(NoRoom::Rate));
        assert!(matches!(arrive(&mut porch, 5), Arrival::Admit { .. }));
    }

    #[test]
    fn addresses_that_came_once_are_forgotten() {
        let (mut porch, start) = (Porch::new(LIMITS), Instant::now());
        for n in 0..10_000_u32 {
            let now = start + Duration::from_millis(n.into());
            let ticket = admit(&mut porch, now, Some(IpAddr::V4(n.into())));
            porch.left(ticket);
        }
        assert!(porch.addresses.len() < 20, "{}", porch.addresses.len());
        assert!(porch.idle.len() < 20 && porch.connections.is_empty());
    }

    #[test]
    fn any_number_may_come_from_one_address_where_that_is_wanted() {
        let limits = Limits { per_address_max: 0, connections_max: 1_000, ..LIMITS };
        let (mut porch, now) = (Porch::new(limits), Instant::now());
        for _ in 0..900 {
            let_in(&mut porch, now, address(1));
        }
        assert!(porch.addresses.is_empty());
    }
}
