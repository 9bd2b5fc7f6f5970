//! `nats://[user:password@|token@]host[:port][,host[:port]…]/STREAM[?option=value&…]`

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tradewind_engine::url::{PercentError, UrlParts, decoded, timeout_ms};

/// Where the streams of a queue are, and who asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsUrl {
    /// Hosts with ports.
    pub hosts: Vec<String>,
    /// User and password, or a token.
    pub login: Login,
    /// Beginning of the streams' names and subjects.
    pub stream: String,
    /// Credentials file (`creds`).
    pub credentials: Option<PathBuf>,
    /// Whether only TLS will do (`tls://`, or `tls=required`).
    pub is_tls: bool,
    /// File with certificates of authorities (`ca`).
    pub ca: Option<PathBuf>,
    /// Files with the client's certificate and its key (`cert`, `key`).
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Number of replicas of streams that are made (`replicas`, 1 to 5).
    pub replicas: usize,
    /// Time that an answer may take (`timeout_ms`).
    pub timeout: Duration,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// Nobody in particular.
    #[default]
    None,
    /// A token.
    Token(String),
    /// A user with a password.
    User(String, String),
}

/// Reason why a text is no such URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum UrlError {
    #[error("it does not begin with nats:// or tls://")]
    Scheme,
    #[error("it names no host")]
    Host,
    #[error("it names no stream: nats://host:4222/STREAM is wanted")]
    NoStream,
    #[error("{0:?} is no name of a stream: letters, digits, - and _ are")]
    Stream(String),
    #[error(
        "there is no option {0:?}: there are creds, tls, ca, cert, key, replicas and timeout_ms"
    )]
    Option(String),
    #[error("{0:?} is no value of {1}")]
    Value(String, &'static str),
    #[error("cert and key go together")]
    ClientCert,
    #[error(transparent)]
    Percent(#[from] PercentError),
}

impl std::str::FromStr for NatsUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = UrlParts::split(text)?.ok_or(UrlError::Scheme)?;
        let mut is_tls = match parts.scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(UrlError::Scheme),
        };
        let stream = parts.path.ok_or(UrlError::NoStream)?;
        let login = match parts.login.map(|login| login.split_once(':').ok_or(login)) {
            None => Login::None,
            Some(Ok((user, password))) => Login::User(decoded(user)?, decoded(password)?),
            Some(Err(token)) => Login::Token(decoded(token)?),
        };
        let hosts: Vec<_> = parts.hosts.split(',').map(str::to_owned).collect();
        if hosts.iter().any(String::is_empty) {
            return Err(UrlError::Host);
        }
        if stream.is_empty() {
            return Err(UrlError::NoStream);
        }
        if !stream.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(UrlError::Stream(stream.to_owned()));
        }
        let (mut credentials, mut ca, mut cert, mut key) = (None, None, None, None);
        let (mut replicas, mut timeout) = (1, Duration::from_secs(5));
        for (name, value) in parts.options {
            let path = || Some(PathBuf::from(&value));
            let wrong = |name| UrlError::Value(value.clone(), name);
            match name {
                "creds" => credentials = path(),
                "ca" => ca = path(),
                "cert" => cert = path(),
                "key" => key = path(),
                "tls" if value == "required" => is_tls = true,
                "tls" => return Err(wrong("tls")),
                "replicas" => {
                    let number = value.parse().ok().filter(|it| (1..=5).contains(it));
                    replicas = number.ok_or_else(|| wrong("replicas"))?;
                }
                "timeout_ms" => {
                    timeout = timeout_ms(&value).ok_or_else(|| wrong("timeout_ms"))?;
                }
                _ => return Err(UrlError::Option(name.to_owned())),
            }
        }
        let client_cert = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(UrlError::ClientCert),
        };
        let stream = stream.to_owned();
        Ok(Self { hosts, login, stream, credentials, is_tls, ca, client_cert, replicas, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_who() {
        let plain: NatsUrl = "nats://a:4222/ORDERS".parse().expect("it is one");
        assert_eq!((plain.hosts, plain.login), (vec!["a:4222".to_owned()], Login::None));
        assert_eq!((&plain.stream[..], plain.replicas, plain.is_tls), ("ORDERS", 1, false));
        let text =
            "tls://u%40x:p%3A@a,b:1/S-1?creds=/x&ca=/c&cert=/d&key=/e&replicas=3&timeout_ms=70";
        let wanted = NatsUrl {
            hosts: vec!["a".into(), "b:1".into()],
            login: Login::User("u@x".into(), "p:".into()),
            stream: "S-1".into(),
            credentials: Some("/x".into()),
            is_tls: true,
            ca: Some("/c".into()),
            client_cert: Some(("/d".into(), "/e".into())),
            replicas: 3,
            timeout: Duration::from_millis(70),
        };
        assert_eq!(text.parse(), Ok(wanted));
        let token: NatsUrl = "nats://t@a/S?tls=required".parse().expect("it is one");
        assert_eq!((token.login, token.is_tls), (Login::Token("t".into()), true));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        let cases = [
            ("a/S", UrlError::Scheme),
            ("http://a/S", UrlError::Scheme),
            ("nats://a", UrlError::NoStream),
            ("nats://a/", UrlError::NoStream),
            ("nats:///S", UrlError::Host),
            ("nats://a,/S", UrlError::Host),
            ("nats://a/S.x", UrlError::Stream("S.x".into())),
            ("nats://a/S?x=1", UrlError::Option("x".into())),
            ("nats://a/S?tls=no", UrlError::Value("no".into(), "tls")),
            ("nats://a/S?replicas=6", UrlError::Value("6".into(), "replicas")),
            ("nats://a/S?timeout_ms=0", UrlError::Value("0".into(), "timeout_ms")),
            ("nats://a/S?cert=x", UrlError::ClientCert),
            ("nats://%4@a/S", UrlError::Percent(PercentError)),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<NatsUrl>(), Err(error), "{text}");
        }
    }
}
