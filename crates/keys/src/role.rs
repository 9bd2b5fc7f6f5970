//! Roles of programs, each with roots of its own.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Role of a program. Which root verified a peer's certificate says which role the peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say what each is")]
pub enum Role {
    Ventilator,
    Worker,
    Sink,
    Relay,
    /// Program that submits tasks to queues or asks about them, and takes no part in their jobs.
    Client,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] =
        [Self::Ventilator, Self::Worker, Self::Sink, Self::Relay, Self::Client];

    /// Returns the name, as the command takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ventilator => "ventilator",
            Self::Worker => "worker",
            Self::Sink => "sink",
            Self::Relay => "relay",
            Self::Client => "client",
        }
    }

    /// Returns the number of the role in a token. It must stay what it is.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Ventilator => 0,
            Self::Worker => 1,
            Self::Sink => 2,
            Self::Relay => 3,
            Self::Client => 4,
        }
    }

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.number() == number)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Error: no role has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no role: it is ventilator, worker, sink, relay or client")]
pub struct NoRole(String);

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| NoRole(text.into()))
    }
}

/// Set of roles, e.g. of those that a port accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Creates the set of these roles.
    #[must_use]
    pub const fn of(roles: &[Role]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < roles.len() {
            bits |= 1 << roles[at].number();
            at += 1;
        }
        Self(bits)
    }

    /// Returns whether the role is in the set.
    #[must_use]
    pub const fn contains(self, role: Role) -> bool {
        self.0 & 1 << role.number() != 0
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            Role::ALL.into_iter().filter(|role| self.contains(*role)).map(Role::name).collect();
        f.write_str(&names.join(" or "))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_back() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(Role::of_number(role.number()), Some(role));
        }
        assert!("Worker".parse::<Role>().is_err());
        assert_eq!(Role::of_number(5), None);
    }

    #[test]
    fn a_set_has_its_roles_and_no_others() {
        let roles = Roles::of(&[Role::Sink, Role::Relay]);
        assert!(roles.contains(Role::Sink) && roles.contains(Role::Relay));
        assert!(!roles.contains(Role::Worker) && !roles.contains(Role::Ventilator));
        assert_eq!(roles.to_string(), "sink or relay");
    }
}
