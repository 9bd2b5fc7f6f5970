//! Who may ask.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use subtle::ConstantTimeEq;

use crate::params::header;
use crate::problem::{Kind, Problem};

/// What tells whether a token may be used.
///
/// Closures are such checks. One that compares secrets does so in a time that says nothing of them, as
/// [`Token`].
pub trait Check: Send + Sync + 'static {
    /// Returns whether the bytes behind `Bearer` are a token that may be used.
    fn allows(&self, token: &[u8]) -> bool;
}

impl<F: Fn(&[u8]) -> bool + Send + Sync + 'static> Check for F {
    fn allows(&self, token: &[u8]) -> bool {
        self(token)
    }
}

/// A token, compared in a time that depends on its length alone.
pub struct Token(Box<[u8]>);

impl Token {
    /// Keeps a token. Its length is no secret: it is to be a long one that chance made.
    #[must_use]
    pub fn new(token: &[u8]) -> Self {
        Self(token.into())
    }
}

impl Check for Token {
    fn allows(&self, token: &[u8]) -> bool {
        // An empty one would let everyone in who writes `Bearer`.
        !self.0.is_empty() && bool::from(self.0.ct_eq(token))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Who may ask: those with a token, and those on this machine or at certain addresses if they are trusted.
#[derive(Clone, Default)]
pub struct Access {
    check: Option<Arc<dyn Check>>,
    trusts_loopback: bool,
    addresses: Arc<[IpAddr]>,
    trusts_all: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, trusts_loopback, addresses, trusts_all } = self;
        let mut f = f.debug_struct("Access");
        f.field("check", &check.is_some()).field("trusts_loopback", trusts_loopback);
        f.field("addresses", addresses).field("trusts_all", trusts_all).finish()
    }
}

impl Access {
    /// Lets in who has a token.
    #[must_use]
    pub fn with_check(self, check: impl Check) -> Self {
        Self { check: Some(Arc::new(check)), ..self }
    }

    /// Lets in who comes from a loopback address without a token, unless a web page may have sent the
    /// request.
    #[must_use]
    pub fn with_loopback(self) -> Self {
        Self { trusts_loopback: true, ..self }
    }

    /// Lets in who comes from one of these addresses, as [`Self::with_loopback`] does.
    #[must_use]
    pub fn with_addresses(self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses = addresses.into_iter().map(|address| address.to_canonical()).collect();
        Self { addresses, ..self }
    }

    /// Lets everybody in without a token: whatever carries the connections has seen to who they are.
    #[must_use]
    pub fn with_all(self) -> Self {
        Self { trusts_all: true, ..self }
    }

    /// Returns a problem if this client may not ask.
    pub(crate) fn judge(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<(), Problem> {
        if headers.contains_key(AUTHORIZATION) {
            // One that is wrong is refused on loopback too: its owner believes that it matters.
            let value = header(headers, AUTHORIZATION.as_str())?.and_then(bearer);
            let check = self.check.as_ref();
            return match value.is_some_and(|token| check.is_some_and(|it| it.allows(token))) {
                true => Ok(()),
                false => Err(Problem::unauthorized("the token is none that may be used")),
            };
        }
        if self.trusts_all {
            return Ok(());
        }
        if !peer.is_some_and(|peer| self.trusts(peer)) {
            let from =
                peer.map(|peer| format!(" from {}", peer.to_canonical())).unwrap_or_default();
            let detail = format!("a request{from} needs Authorization: Bearer and a token");
            return Err(Problem::unauthorized(detail));
        }
        match foreign_page(headers) {
            Some(why) => Err(Problem::new(Kind::Forbidden, why)),
            None => Ok(()),
        }
    }

    /// Says why this client may not read, if that is so: as for other requests, but that a page which came from here may
    /// ask for more.
    ///
    /// # Errors
    ///
    /// With the answer that says so.
    pub fn judge_reader(
        &self,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Result<(), Box<axum::response::Response>> {
        let is_own_page = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
        let judged = if is_own_page && !headers.contains_key(ORIGIN) {
            let mut headers = headers.clone();
            headers.remove("sec-fetch-site");
            self.judge(peer, &headers)
        } else {
            self.judge(peer, headers)
        };
        judged.map_err(|problem| Box::new(axum::response::IntoResponse::into_response(problem)))
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusts_loopback && peer.is_loopback() || self.addresses.contains(&peer)
    }
}

fn bearer(value: &str) -> Option<&[u8]> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().as_bytes())
}

/// Returns why a request may be that of a web page in a browser on this machine. A page of anywhere can send
/// a task to a port here, which would run it; and with a name that its owner points at 127.0.0.1 it could
/// read the answer.
fn foreign_page(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(ORIGIN) {
        return Some("a request with an Origin needs a token");
    }
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "none") {
        return Some("a request of a web page needs a token");
    }
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    match host.is_none_or(is_local) {
        true => None,
        false => Some("a request without a token is to name localhost or an address as its Host"),
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const REMOTE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    fn judge(access: &Access, peer: Option<IpAddr>, headers: &[(&str, &str)]) -> u16 {
        let header = |(name, value): &(&str, &str)| {
            (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap())
        };
        let headers = headers.iter().map(header).collect();
        access.judge(peer, &headers).map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_token_is_needed_unless_loopback_is_trusted() {
        let remote = REMOTE;
        let mapped = Some("::ffff:127.0.0.1".parse().unwrap());
        let closed = Access::default();
        let token = Access::default().with_check(Token::new(b"secret"));
        let both = token.clone().with_loopback();
        let all = Access::default().with_all();
        let gateway = "172.18.0.1".parse().ok();
        let some = Access::default().with_addresses(gateway);
        let bearer: &[(&str, &str)] = &[("authorization", "bEARER  secret ")];
        for (access, peer, headers, wanted) in [
            (&closed, LOOPBACK, &[][..], 401),
            (&closed, LOOPBACK, &[("authorization", "Bearer ")], 401),
            (&token, remote, bearer, 200),
            (&token, None, bearer, 200),
            (&token, LOOPBACK, &[], 401),
            (&token, remote, &[("authorization", "Bearer secret2")], 401),
            (&token, remote, &[("authorization", "Bearer secre")], 401),
            (&token, remote, &[("authorization", "Basic secret")], 401),
            (&token, remote, &[("authorization", "secret")], 401),
            (&both, LOOPBACK, &[], 200),
            (&both, mapped, &[], 200),
            (&both, "::1".parse().ok(), &[], 200),
            (&both, remote, &[], 401),
            (&both, None, &[], 401),
            (&some, gateway, &[], 200),
            (&some, "::ffff:172.18.0.1".parse().ok(), &[], 200),
            (&some, "172.18.0.2".parse().ok(), &[], 401),
            (&some, LOOPBACK, &[], 401),
            (&some, None, &[], 401),
            (&all, remote, &[], 200),
            (&all, None, &[], 200),
            (&all, remote, bearer, 401),
            (&both, LOOPBACK, &[("authorization", "Bearer other")], 401),
        ] {
            assert_eq!(judge(access, peer, headers), wanted, "{access:?} {peer:?} {headers:?}");
        }
        let empty = Access::default().with_check(Token::new(b""));
        assert_eq!(judge(&empty, remote, &[("authorization", "Bearer ")]), 401);
        let closure = Access::default().with_check(|token: &[u8]| token == b"x");
        assert_eq!(judge(&closure, remote, &[("authorization", "Bearer x")]), 200);
        assert_eq!(format!("{:?}", Token::new(b"secret")), "Token(…)");
    }

    #[test]
    fn a_web_page_does_not_submit_to_where_its_browser_is_trusted() {
        let token = Access::default().with_check(Token::new(b"secret"));
        let (loopback, some) = (token.clone().with_loopback(), token.with_addresses(REMOTE));
        for (name, value, wanted) in [
            ("origin", "https://example.net", 403),
            ("origin", "null", 403),
            ("sec-fetch-site", "cross-site", 403),
            ("sec-fetch-site", "same-origin", 403),
            ("sec-fetch-site", "none", 200),
            ("host", "rebound.example.net:5560", 403),
            ("host", "localhost.example.net", 403),
            ("host", "", 403),
            ("host", "localhost:5560", 200),
            ("host", "LOCALHOST", 200),
            ("host", "127.0.0.1:5560", 200),
            ("host", "[::1]:5560", 200),
            ("host", "[::1]", 200),
        ] {
            for (access, peer) in [(&loopback, LOOPBACK), (&some, REMOTE)] {
                assert_eq!(judge(access, peer, &[(name, value)]), wanted, "{name}: {value}");
                let with_token = &[(name, value), ("authorization", "Bearer secret")];
                assert_eq!(judge(access, peer, with_token), 200, "{name}: {value}");
            }
        }
    }
}
