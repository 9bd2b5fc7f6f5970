//! Who may ask at the HTTP port without a key.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use thiserror::Error;

/// An address from which requests are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// This one.
    Address(IpAddr),
    /// The default gateway: in a container, where connections to a published port of the host come from.
    Gateway,
}

/// Reason why a text names nobody to trust.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("neither an address nor `gateway`")]
pub struct ParseTrusted;

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Gateway => f.write_str("gateway"),
        }
    }
}

impl FromStr for Trusted {
    type Err = ParseTrusted;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "gateway" => Ok(Self::Gateway),
            text => text.parse().map(Self::Address).map_err(|_| ParseTrusted),
        }
    }
}

/// Reason why the default gateway is not known.
#[derive(Debug, Error)]
#[error("--http-trust gateway: {ROUTES} names no default gateway of IPv4")]
pub struct NoGateway {
    #[source]
    why: Option<io::Error>,
}

/// Routes of this network namespace.
const ROUTES: &str = "/proc/net/route";

impl Trusted {
    /// Returns the address.
    ///
    /// # Errors
    /// When there is no gateway.
    pub fn address(&self) -> Result<IpAddr, NoGateway> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Gateway => {
                let routes = std::fs::read_to_string(ROUTES);
                let routes = routes.map_err(|why| NoGateway { why: Some(why) })?;
                gateway(&routes).map(Into::into).ok_or(NoGateway { why: None })
            }
        }
    }
}

/// Returns the gateway of the default route with the lowest metric. A line has the interface, then destination,
/// gateway, flags, references, uses, metric and mask; addresses are numbers in the byte order of the machine.
fn gateway(routes: &str) -> Option<Ipv4Addr> {
    let defaults = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "00000000", gateway, _, _, _, metric, "00000000", ..] = fields[..] else {
            return None;
        };
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        Some((metric.parse::<u32>().ok()?, Ipv4Addr::from(gateway.to_ne_bytes())))
    });
    let with_gateway = defaults.filter(|(_, gateway)| !gateway.is_unspecified());
    with_gateway.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n";

    fn word(address: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(address))
    }

    #[test]
    fn the_gateway_is_that_of_the_default_route_with_the_lowest_metric() {
        let line = |destination, gateway, metric: u32, mask| {
            let [destination, gateway, mask] = [destination, gateway, mask].map(word);
            format!("eth0\t{destination}\t{gateway}\t0003\t0\t0\t{metric}\t{mask}\t0\n")
        };
        let own = line([172, 18, 0, 0], [0; 4], 0, [255, 255, 0, 0]);
        let other = line([10, 0, 0, 0], [172, 18, 0, 9], 0, [255, 0, 0, 0]);
        let half = line([0; 4], [172, 18, 0, 8], 0, [128, 0, 0, 0]);
        let default = |last, metric| line([0; 4], [172, 18, 0, last], metric, [0; 4]);
        let on_link = line([0; 4], [0; 4], 0, [0; 4]);
        let none = [own, other, half, on_link].concat();
        for (routes, wanted) in [
            (none.clone(), None),
            (none.clone() + &default(1, 0), Some(1)),
            (none + &default(2, 100) + &default(1, 20) + &default(3, 30), Some(1)),
            ("eth0\t00000000\t\n".to_owned(), None),
        ] {
            let wanted = wanted.map(|last| Ipv4Addr::new(172, 18, 0, last));
            assert_eq!(gateway(&format!("{HEAD}{routes}")), wanted, "{routes}");
        }
    }

    #[test]
    fn an_address_or_the_gateway_is_trusted() {
        assert_eq!("gateway".parse(), Ok(Trusted::Gateway));
        assert_eq!("::1".parse(), Ok(Trusted::Address("::1".parse().unwrap())));
        for text in ["", "Gateway", "172.18.0.0/16", "localhost", "172.18.0.1:5560"] {
            assert_eq!(text.parse::<Trusted>(), Err(ParseTrusted), "{text}");
        }
    }
}
