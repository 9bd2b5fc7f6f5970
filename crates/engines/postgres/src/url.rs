//! `postgres://[user[:password]@]host[:port]/database?table=[schema.]table[&option=value…]`

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tradewind_engine::PARTITIONS_MAX;
use tradewind_engine::url::{PercentError, UrlParts, decoded, timeout_ms};

/// Bytes of a table's name: the names of the tables beside it are longer, and the server cuts names at 63.
const NAME_BYTES_MAX: usize = 40;

/// Where the tables of a queue are, and who asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Host, or the directory of a unix socket (`host=/var/run/postgresql`).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// User; that of the variable `PGUSER` if there is none.
    pub user: Option<String>,
    /// Password; that of the variable `PGPASSWORD` if there is none.
    pub password: Option<Password>,
    /// Schema of the tables; the first of the server's `search_path` if there is none.
    pub schema: Option<String>,
    /// Table of the tasks (`table`).
    pub table: String,
    /// Number of partitions (`partitions`): of tables that are made, and that those that are there are to have.
    pub partitions: Option<u32>,
    /// Whether and how the connection is encrypted (`sslmode`).
    pub tls: TlsMode,
    /// File with certificates of authorities (`sslrootcert`); the system's if there is none.
    pub root_cert: Option<PathBuf>,
    /// Time that an answer may take (`timeout_ms`).
    pub timeout: Duration,
}

/// Password, which is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Whether and how a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// It is not: the default for this host.
    Disable,
    /// It is, with whoever answers.
    Require,
    /// It is, with who has a certificate for the host: the default for other hosts.
    VerifyFull,
}

/// Reason why a text is no such URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum UrlError {
    #[error("it does not begin with postgres:// or postgresql://")]
    Scheme,
    #[error("it names no host")]
    Host,
    #[error("{0:?} is no port")]
    Port(String),
    #[error("it names no database: postgres://host/database?table=orders is wanted")]
    NoDatabase,
    #[error("it names no table: postgres://host/database?table=orders is wanted")]
    NoTable,
    #[error(
        "{0:?} is no name of a table: lower-case letters, digits and _ are, {NAME_BYTES_MAX} at most, and the first is \
         no digit"
    )]
    Table(String),
    #[error(
        "there is no option {0:?}: there are table, host, partitions, sslmode, sslrootcert and timeout_ms"
    )]
    Option(String),
    #[error("{0:?} is no value of {1}")]
    Value(String, &'static str),
    #[error(transparent)]
    Percent(#[from] PercentError),
}

impl std::str::FromStr for PostgresUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = UrlParts::split(text)?.ok_or(UrlError::Scheme)?;
        if !matches!(parts.scheme, "postgres" | "postgresql") {
            return Err(UrlError::Scheme);
        }
        let database = decoded(parts.path.ok_or(UrlError::NoDatabase)?)?;
        if database.is_empty() {
            return Err(UrlError::NoDatabase);
        }
        let (user, password) = match parts.login.map(|login| login.split_once(':').ok_or(login)) {
            None => (None, None),
            Some(Err(user)) => (Some(decoded(user)?), None),
            Some(Ok((user, password))) => {
                (Some(decoded(user)?), Some(Password(decoded(password)?)))
            }
        };
        let (host, port) = host_and_port(parts.hosts)?;
        let mut url = Self {
            host,
            port,
            database,
            user,
            password,
            schema: None,
            table: String::new(),
            partitions: None,
            tls: TlsMode::Disable,
            root_cert: None,
            timeout: Duration::from_secs(5),
        };
        let mut tls = None;
        for (name, value) in parts.options {
            let wrong = |name| UrlError::Value(value.clone(), name);
            match name {
                "table" => (url.schema, url.table) = table(&value)?,
                "host" if value.starts_with('/') => url.host = value,
                "host" => return Err(wrong("host")),
                "partitions" => {
                    let number = value.parse().ok().filter(|it| (1..=PARTITIONS_MAX).contains(it));
                    url.partitions = Some(number.ok_or_else(|| wrong("partitions"))?);
                }
                "sslmode" => {
                    tls = Some(match &value[..] {
                        "disable" => TlsMode::Disable,
                        "require" => TlsMode::Require,
                        "verify-full" => TlsMode::VerifyFull,
                        _ => return Err(wrong("sslmode")),
                    });
                }
                "sslrootcert" => url.root_cert = Some(value.into()),
                "timeout_ms" => {
                    url.timeout = timeout_ms(&value).ok_or_else(|| wrong("timeout_ms"))?;
                }
                _ => return Err(UrlError::Option(name.to_owned())),
            }
        }
        if url.host.is_empty() {
            return Err(UrlError::Host);
        }
        if url.table.is_empty() {
            return Err(UrlError::NoTable);
        }
        let default = if url.is_local() { TlsMode::Disable } else { TlsMode::VerifyFull };
        url.tls = tls.unwrap_or(default);
        Ok(url)
    }
}

impl PostgresUrl {
    /// Returns whether what is sent stays on this host.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let is_loopback = |host: &str| host.parse().is_ok_and(|it: IpAddr| it.is_loopback());
        self.host == "localhost" || self.host.starts_with('/') || is_loopback(&self.host)
    }
}

/// Says where, without the password.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        self.user.iter().try_for_each(|user| write!(f, "{user}@"))?;
        let (host, port) = (&self.host, self.port);
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}")?,
            false => write!(f, "{host}:{port}")?,
        }
        write!(f, "/{}?table=", self.database)?;
        self.schema.iter().try_for_each(|schema| write!(f, "{schema}."))?;
        f.write_str(&self.table)
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), UrlError> {
    let is_bracketed = text.starts_with('[');
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(UrlError::Host)?)),
        None if is_bracketed => return Err(UrlError::Host),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let number = |port: &str| port.parse().map_err(|_| UrlError::Port(port.to_owned()));
    Ok((decoded(host)?, port.map_or(Ok(5432), number)?))
}

fn table(text: &str) -> Result<(Option<String>, String), UrlError> {
    let (schema, table) = match text.split_once('.') {
        Some((schema, table)) => (Some(schema), table),
        None => (None, text),
    };
    let is_name = |name: &str| {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let mut bytes = name.bytes();
        bytes.next().is_some_and(is_letter)
            && bytes.all(|byte| is_letter(byte) || byte.is_ascii_digit())
            && name.len() <= NAME_BYTES_MAX
    };
    if !is_name(table) || !schema.is_none_or(is_name) {
        return Err(UrlError::Table(text.to_owned()));
    }
    Ok((schema.map(str::to_owned), table.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> PostgresUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn urls_say_where_and_who() {
        let plain = url("postgres://db.example/shop?table=orders");
        let wanted = PostgresUrl {
            host: "db.example".into(),
            port: 5432,
            database: "shop".into(),
            user: None,
            password: None,
            schema: None,
            table: "orders".into(),
            partitions: None,
            tls: TlsMode::VerifyFull,
            root_cert: None,
            timeout: Duration::from_secs(5),
        };
        assert_eq!(plain, wanted);
        let text = "postgresql://u%40x:p%3A@[::1]:1/shop?table=work.jobs_2&partitions=4&sslmode=require\
                    &sslrootcert=/ca&timeout_ms=70";
        let wanted = PostgresUrl {
            host: "::1".into(),
            port: 1,
            user: Some("u@x".into()),
            password: Some(Password("p:".into())),
            schema: Some("work".into()),
            table: "jobs_2".into(),
            partitions: Some(4),
            tls: TlsMode::Require,
            root_cert: Some("/ca".into()),
            timeout: Duration::from_millis(70),
            ..wanted
        };
        assert_eq!(url(text), wanted);
        assert_eq!(url("postgres:///d?table=t&host=/run/pg").host, "/run/pg");
    }

    #[test]
    fn what_leaves_the_host_is_encrypted_unless_it_is_said_otherwise() {
        let cases = [
            ("localhost", TlsMode::Disable),
            ("127.0.0.2", TlsMode::Disable),
            ("[::1]:5", TlsMode::Disable),
            ("10.0.0.1", TlsMode::VerifyFull),
            ("localhost.example", TlsMode::VerifyFull),
        ];
        for (host, tls) in cases {
            assert_eq!(url(&format!("postgres://{host}/d?table=t")).tls, tls, "{host}");
        }
        assert_eq!(url("postgres://a/d?sslmode=disable&table=t").tls, TlsMode::Disable);
        assert_eq!(url("postgres://[::1]/d?sslmode=verify-full&table=t").tls, TlsMode::VerifyFull);
    }

    #[test]
    fn the_password_is_not_shown() {
        let url = url("postgres://me:secret@a:1/d?table=s.t");
        assert_eq!(url.to_string(), "postgres://me@a:1/d?table=s.t");
        assert!(!format!("{url:?}").contains("secret"), "{url:?}");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        let cases = [
            ("a/d", UrlError::Scheme),
            ("http://a/d", UrlError::Scheme),
            ("postgres://a", UrlError::NoDatabase),
            ("postgres://a/?table=t", UrlError::NoDatabase),
            ("postgres:///d?table=t", UrlError::Host),
            ("postgres://[::1/d?table=t", UrlError::Host),
            ("postgres://a:x/d?table=t", UrlError::Port("x".into())),
            ("postgres://a/d", UrlError::NoTable),
            ("postgres://a/d?table=T", UrlError::Table("T".into())),
            ("postgres://a/d?table=1t", UrlError::Table("1t".into())),
            ("postgres://a/d?table=a.b.c", UrlError::Table("a.b.c".into())),
            ("postgres://a/d?table=a%22b", UrlError::Table("a\"b".into())),
            ("postgres://a/d?x=1", UrlError::Option("x".into())),
            ("postgres://a/d?host=b", UrlError::Value("b".into(), "host")),
            ("postgres://a/d?sslmode=prefer", UrlError::Value("prefer".into(), "sslmode")),
            ("postgres://a/d?partitions=0", UrlError::Value("0".into(), "partitions")),
            ("postgres://a/d?timeout_ms=0", UrlError::Value("0".into(), "timeout_ms")),
            ("postgres://%4@a/d", UrlError::Percent(PercentError)),
            ("postgres://a/%00?table=t", UrlError::Percent(PercentError)),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<PostgresUrl>(), Err(error), "{text}");
        }
    }
}
