//! Address to listen on or to dial: `tcp://host:port`, or `ipc:///path` of a Unix socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// An endpoint in ZeroMQ's notation. The host of a TCP endpoint is a name or an address, with its zone if it
/// needs one as in `[fe80::1%eth0]`; it is not looked up before it is used. Port 0 asks for any free port, and
/// `*` stands for all addresses of this machine: they make sense for listening only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Port of a host.
    Tcp(TcpEndpoint),
    /// Unix socket on this machine.
    Ipc(IpcEndpoint),
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpEndpoint {
    /// Host, without the brackets that an IPv6 address has in text.
    host: String,
    port: u16,
}

/// Name of a Unix socket, at most [`IpcEndpoint::NAME_BYTES_MAX`] bytes long.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IpcEndpoint {
    /// Absolute path of a socket file.
    Path(PathBuf),
    /// Name in no file system, written `ipc://@name`: Linux's abstract sockets.
    Abstract(String),
}

/// Reason why a text is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum EndpointError {
    #[error(
        "`{text}` does not start with tcp:// or ipc:// (write it like tcp://127.0.0.1:5557 or \
         ipc:///run/jobs/tasks)"
    )]
    Scheme { text: String },
    #[error("`{text}` has no port (write it like tcp://127.0.0.1:5557)")]
    PortMissing { text: String },
    #[error(
        "`{text}` has a bad port, which is a number from 0 to 65535 (like tcp://127.0.0.1:5557)"
    )]
    Port { text: String },
    #[error("`{text}` has no host (write it like tcp://127.0.0.1:5557)")]
    HostMissing { text: String },
    #[error("`{text}` has an IPv6 address without brackets (write it like tcp://[::1]:5557)")]
    Brackets { text: String },
    #[error("`{text}` has a bad IPv6 address (write it like tcp://[::1]:5557)")]
    Ipv6 { text: String },
    #[error("`{text}` has a host with a character that no name has (like tcp://sink.example:5558)")]
    HostCharacter { text: String },
    #[error("`{text}` names no socket (write it like ipc:///run/jobs/tasks)")]
    PathMissing { text: String },
    #[error(
        "`{text}` has a path that does not begin at the root (write it like ipc:///run/jobs/tasks)"
    )]
    PathRelative { text: String },
    #[error(
        "`{text}` names a socket with more than {} bytes, the most that the system takes",
        IpcEndpoint::NAME_BYTES_MAX
    )]
    PathLong { text: String },
}

impl Endpoint {
    /// Returns the host and port, unless it is a Unix socket.
    pub fn tcp(&self) -> Option<&TcpEndpoint> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Ipc(_) => None,
        }
    }

    /// Returns whether the host is all of this machine: to be listened on, and not to be dialled.
    pub fn is_wildcard(&self) -> bool {
        self.tcp().is_some_and(TcpEndpoint::is_wildcard)
    }

    /// Returns the same host at another port; a Unix socket as it is.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Self::Tcp(tcp) => Self::Tcp(TcpEndpoint { host: tcp.host.clone(), port }),
            Self::Ipc(_) => self.clone(),
        }
    }
}

impl TcpEndpoint {
    /// Returns the name or address; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port; 0 for any.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the host is `*`.
    pub fn is_wildcard(&self) -> bool {
        self.host == "*"
    }

    /// Returns whether the host stands for all addresses of this machine, of one family or both.
    pub fn is_everywhere(&self) -> bool {
        let is_unspecified = |address: IpAddr| address.is_unspecified();
        self.is_wildcard() || self.host.parse().is_ok_and(is_unspecified)
    }

    /// Returns whether the host is certain to be this machine alone: a loopback address, or
    /// `localhost`.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl IpcEndpoint {
    /// Length of the longest name of a Unix socket in bytes: Linux's 108, without the closing zero.
    pub const NAME_BYTES_MAX: usize = 107;

    /// Returns the path of the socket file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Abstract(_) => None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(TcpEndpoint { host: address.ip().to_string(), port: address.port() })
    }
}

impl From<IpcEndpoint> for Endpoint {
    fn from(endpoint: IpcEndpoint) -> Self {
        Self::Ipc(endpoint)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(name) = text.strip_prefix("ipc://") {
            return ipc(text, name).map(Self::Ipc);
        }
        let Some(place) = text.strip_prefix("tcp://") else {
            return Err(EndpointError::Scheme { text: text.to_owned() });
        };
        tcp(text, place).map(Self::Tcp)
    }
}

fn ipc(text: &str, name: &str) -> Result<IpcEndpoint, EndpointError> {
    let owned = || text.to_owned();
    let bytes = name.strip_prefix('@').map_or(name.len(), |name| name.len() + 1);
    if bytes > IpcEndpoint::NAME_BYTES_MAX {
        return Err(EndpointError::PathLong { text: owned() });
    }
    match name.strip_prefix('@') {
        Some("") => Err(EndpointError::PathMissing { text: owned() }),
        Some(name) => Ok(IpcEndpoint::Abstract(name.to_owned())),
        None if name.is_empty() || name.ends_with('/') => {
            Err(EndpointError::PathMissing { text: owned() })
        }
        None if !name.starts_with('/') => Err(EndpointError::PathRelative { text: owned() }),
        None => Ok(IpcEndpoint::Path(name.into())),
    }
}

fn tcp(text: &str, rest: &str) -> Result<TcpEndpoint, EndpointError> {
    let owned = || text.to_owned();
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let Some((host, after)) = bracketed.split_once(']') else {
                return Err(EndpointError::Ipv6 { text: owned() });
            };
            let (address, zone) = match host.split_once('%') {
                Some((address, zone)) => (address, Some(zone)),
                None => (host, None),
            };
            let of_a_zone = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let is_zone = |zone: &str| !zone.is_empty() && zone.chars().all(of_a_zone);
            if !matches!(address.parse::<IpAddr>(), Ok(IpAddr::V6(_))) || !zone.is_none_or(is_zone)
            {
                return Err(EndpointError::Ipv6 { text: owned() });
            }
            let Some(port) = after.strip_prefix(':') else {
                return Err(EndpointError::PortMissing { text: owned() });
            };
            (host, port)
        }
        None => {
            if rest.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
                return Err(EndpointError::Brackets { text: owned() });
            }
            let Some((host, port)) = rest.rsplit_once(':') else {
                return Err(EndpointError::PortMissing { text: owned() });
            };
            match host {
                "" => return Err(EndpointError::HostMissing { text: owned() }),
                _ if host.contains(':') => {
                    return Err(EndpointError::Brackets { text: owned() });
                }
                _ => (host, port),
            }
        }
    };
    let of_a_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host != "*" && !rest.starts_with('[') && !host.chars().all(of_a_host) {
        return Err(EndpointError::HostCharacter { text: owned() });
    }
    // `u16::from_str` would take a plus sign.
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(EndpointError::Port { text: owned() });
    }
    let port = port.parse().map_err(|_| EndpointError::Port { text: owned() })?;
    Ok(TcpEndpoint { host: host.to_owned(), port })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(TcpEndpoint { host, port }) if host.contains(':') => {
                write!(f, "tcp://[{host}]:{port}")
            }
            Self::Tcp(TcpEndpoint { host, port }) => write!(f, "tcp://{host}:{port}"),
            Self::Ipc(endpoint) => endpoint.fmt(f),
        }
    }
}

impl fmt::Display for IpcEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "ipc://{}", path.display()),
            Self::Abstract(name) => write!(f, "ipc://@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&str, u16), &str>) {
        match (text.parse::<Endpoint>(), expected) {
            (Ok(endpoint), Ok((host, port))) => {
                let tcp = endpoint.tcp().unwrap();
                assert_eq!((tcp.host(), tcp.port()), (host, port), "{text}");
                assert_eq!(endpoint.to_string(), text);
            }
            (Err(error), Err(part)) => {
                let error = error.to_string();
                assert!(error.contains(part), "{text}: {error}");
                assert!(error.contains(text) && !error.contains('\n'), "{text}: {error}");
            }
            (parsed, expected) => panic!("{text}: {parsed:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn endpoints_are_read_and_given_back() {
        check("tcp://127.0.0.1:5557", Ok(("127.0.0.1", 5557)));
        check("tcp://0.0.0.0:0", Ok(("0.0.0.0", 0)));
        check("tcp://localhost:65535", Ok(("localhost", 65535)));
        check("tcp://my_sink-2.example.org:1", Ok(("my_sink-2.example.org", 1)));
        check("tcp://[::1]:5557", Ok(("::1", 5557)));
        check("tcp://[::]:5557", Ok(("::", 5557)));
        check("tcp://*:5557", Ok(("*", 5557)));
        check("tcp://[fe80::1%eth0]:5557", Ok(("fe80::1%eth0", 5557)));

        check("", Err("does not start with tcp://"));
        check("127.0.0.1:5557", Err("does not start with tcp://"));
        check("udp:///tmp/x", Err("does not start with tcp:// or ipc://"));
        check("TCP://a:1", Err("does not start with tcp://"));
        check("tcp://", Err("no port"));
        check("tcp://localhost", Err("no port"));
        check("tcp://[::1]", Err("no port"));
        check("tcp://[::1]5557", Err("no port"));
        check("tcp://localhost:", Err("bad port"));
        check("tcp://localhost:65536", Err("bad port"));
        check("tcp://localhost:+1", Err("bad port"));
        check("tcp://localhost:-1", Err("bad port"));
        check("tcp://localhost:5557/", Err("bad port"));
        check("tcp://localhost:*", Err("bad port"));
        check("tcp://:5557", Err("no host"));
        check("tcp://**:5557", Err("no name has"));
        check("tcp://a%b:5557", Err("no name has"));
        check("tcp://[fe80::1%]:5557", Err("bad IPv6"));
        check("tcp://[fe80::1%e/0]:5557", Err("bad IPv6"));
        check("tcp://::1", Err("without brackets"));
        check("tcp://::1:5557", Err("without brackets"));
        check("tcp://a:b:1", Err("without brackets"));
        check("tcp://[::1:5557", Err("bad IPv6"));
        check("tcp://[localhost]:5557", Err("bad IPv6"));
        check("tcp://a b:5557", Err("no name has"));
        check("tcp://user@host:5557", Err("no name has"));
    }

    #[test]
    fn unix_sockets_are_read_and_given_back() {
        let check = |text: &str, expected: Result<IpcEndpoint, &str>| match (
            text.parse::<Endpoint>(),
            expected,
        ) {
            (Ok(endpoint), Ok(expected)) => {
                assert_eq!(endpoint, Endpoint::Ipc(expected));
                assert_eq!(endpoint.to_string(), text);
                assert!(!endpoint.is_wildcard());
                assert_eq!(endpoint.with_port(7), endpoint);
            }
            (Err(error), Err(part)) => {
                let error = error.to_string();
                assert!(error.contains(part) && error.contains(text), "{text}: {error}");
            }
            (parsed, expected) => panic!("{text}: {parsed:?}, expected {expected:?}"),
        };
        let path = |path: &str| Ok(IpcEndpoint::Path(path.into()));
        check("ipc:///run/jobs/tasks", path("/run/jobs/tasks"));
        check("ipc:///a b:1", path("/a b:1"));
        check("ipc://@jobs", Ok(IpcEndpoint::Abstract("jobs".to_owned())));
        check("ipc://", Err("names no socket"));
        check("ipc://@", Err("names no socket"));
        check("ipc:///", Err("names no socket"));
        check("ipc:///run/", Err("names no socket"));
        check("ipc://tasks", Err("does not begin at the root"));
        check("ipc:tasks", Err("does not start with"));
        let long = |bytes: usize| format!("ipc:///{}", "x".repeat(bytes - 1));
        assert!(long(107).parse::<Endpoint>().is_ok());
        check(&long(108), Err("more than 107 bytes"));
        check(&format!("ipc://@{}", "x".repeat(107)), Err("more than 107 bytes"));
    }

    #[test]
    fn another_port_keeps_the_host() {
        let endpoint: Endpoint = "tcp://[::1]:0".parse().unwrap();
        assert_eq!(endpoint.with_port(7).to_string(), "tcp://[::1]:7");
    }

    #[test]
    fn loopback_is_known_without_a_lookup() {
        let is_loopback =
            |text: &str| text.parse::<Endpoint>().unwrap().tcp().unwrap().is_loopback();
        assert!(is_loopback("tcp://127.1.2.3:1") && is_loopback("tcp://[::1]:1"));
        assert!(is_loopback("tcp://LocalHost:1"));
        assert!(!is_loopback("tcp://0.0.0.0:1") && !is_loopback("tcp://example.org:1"));
    }
}
