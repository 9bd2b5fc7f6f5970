//! Where a server is.

use std::fmt;
use std::str::FromStr;

use hyper::http::Uri;
use thiserror::Error;
use tradewind_queue::excerpt;

/// Names the variable that says where the server is.
pub const URL_ENV: &str = "TRADEWIND_URL";

/// URL of a server that nobody has configured.
pub const DEFAULT_URL: &str = "http://127.0.0.1:5560";

/// Port of a URL without one.
const DEFAULT_PORT: u16 = 5560;

/// Error: the text is no URL of a server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{}\" is no URL of a server: it is like {DEFAULT_URL}, without a path", excerpt(.0))]
pub struct AddressError(String);

/// Address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Whether the connection is encrypted, and both ends show keys.
    pub(crate) is_tls: bool,
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Value of the header `Host`.
    pub(crate) authority: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| error())?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(error()),
        };
        let is_bare = uri.path() == "/" && uri.query().is_none();
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.filter(|_| is_bare).ok_or_else(error)?;
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        // What stands after the host and is no port would be passed over.
        let has_rest = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(0) => return Err(error()),
            Some(port) => port,
            None if has_rest => return Err(error()),
            None => DEFAULT_PORT,
        };
        if host.is_empty() {
            return Err(error());
        }
        let authority = format!("{}:{port}", authority.host());
        Ok(Self { is_tls, host: host.to_owned(), port, authority })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_without_a_path() {
        for (text, host, port, shown) in [
            (DEFAULT_URL, "127.0.0.1", 5560, DEFAULT_URL),
            ("http://localhost/", "localhost", 5560, "http://localhost:5560"),
            ("https://queues.example:443", "queues.example", 443, "https://queues.example:443"),
            ("http://[::1]:99", "::1", 99, "http://[::1]:99"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((&*address.host, address.port), (host, port), "{text}");
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.is_tls, text.starts_with("https"));
        }
        for text in [
            "",
            "127.0.0.1:5560",
            "localhost",
            "tcp://127.0.0.1:5560",
            "http://",
            "http://:5560",
            "http://a:0",
            "http://a:99999",
            "http://a:b",
            "http://a/v1",
            "http://a?b",
            "http://user@a",
            "http://a b",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains(DEFAULT_URL), "{text}: {error}");
        }
    }
}
