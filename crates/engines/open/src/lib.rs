//! The engines underneath queues that this build has, by URL. Each is a feature.
//!
//! An engine is added in four places: the feature, `SCHEMES`, `Kind` with what matches it, and the README's table.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use tradewind_engine::PARTITIONS_MAX;
pub use tradewind_engine::{Engine, EngineError};
#[cfg(feature = "nats")]
use tradewind_engine_nats::{Nats, NatsUrl};
#[cfg(feature = "postgres")]
use tradewind_engine_postgres::{Postgres, PostgresUrl};

/// Schemes of URLs, each with the feature that its engine is.
const SCHEMES: [(&str, &str); 4] =
    [("nats", "nats"), ("tls", "nats"), ("postgres", "postgres"), ("postgresql", "postgres")];

/// Where the logs of a queue are, in an engine: `SCHEME://…[?partitions=N&end=POSITION,…&…]`.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineUrl {
    /// The URL without what is secret in it.
    shown: String,
    partitions: u32,
    ends: Vec<u64>,
    kind: Kind,
}

/// URL of one engine.
#[derive(Clone, PartialEq, Eq)]
enum Kind {
    #[cfg(feature = "nats")]
    Nats(NatsUrl),
    #[cfg(feature = "postgres")]
    Postgres(PostgresUrl),
}

/// Reason why a text is no URL of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EngineUrlError {
    /// It has another scheme, or none.
    #[error("no URL of an engine begins so: there are {}", schemes())]
    Scheme,
    /// This build lacks the engine.
    #[error(
        "this build is without the engine {0}: build it with the feature {0}, as in cargo build \
         --features {0}"
    )]
    Missing(&'static str),
    /// The number of partitions is none.
    #[error("partitions is a number from 1 to {PARTITIONS_MAX}")]
    Partitions,
    /// The positions at which a job's input ends are none, or not one for each partition.
    #[error(
        "end is a position for each partition, with commas between: end=100,120 with partitions=2"
    )]
    End,
    /// The engine cannot read the rest of it.
    #[error("{0}")]
    Engine(String),
}

impl EngineUrl {
    /// Returns whether a text is meant to be a URL of an engine, also of one that this build lacks.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        feature_of(text).is_some()
    }

    /// Returns the number of partitions that it names (`partitions`, 1 to 1024): 1 if it names none.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Says the number of partitions, in the place of the URL's.
    #[must_use]
    pub fn with_partitions(self, partitions: u32) -> Self {
        Self { partitions, ..self }
    }

    /// Returns the positions, one for each partition, below which a job reads tasks (`end`); none if the job is to read
    /// those that are there.
    #[must_use]
    pub fn ends(&self) -> &[u64] {
        &self.ends
    }

    /// Connects to the engine. Waits for as long as its timeout says.
    ///
    /// # Errors
    ///
    /// When it cannot be reached, or refuses the credentials.
    pub fn connect(&self) -> Result<Box<dyn Engine>, EngineError> {
        match self.kind {
            #[cfg(feature = "nats")]
            Kind::Nats(ref url) => Ok(Box::new(Nats::connect(url.clone())?)),
            // Its tables are made with the number.
            #[cfg(feature = "postgres")]
            Kind::Postgres(ref url) => {
                let url = PostgresUrl { partitions: Some(self.partitions), ..url.clone() };
                Ok(Box::new(Postgres::connect(url)?))
            }
        }
    }
}

impl FromStr for EngineUrl {
    type Err = EngineUrlError;

    #[cfg_attr(
        not(any(feature = "nats", feature = "postgres")),
        expect(
            unreachable_code,
            unused_variables,
            reason = "a build without engines refuses each"
        )
    )]
    fn from_str(text: &str) -> Result<Self, EngineUrlError> {
        let feature = feature_of(text).ok_or(EngineUrlError::Scheme)?;
        let (rest, OwnOptions { partitions, ends }) = without_own_options(text)?;
        let kind = match feature {
            #[cfg(feature = "nats")]
            "nats" => Kind::Nats(rest.parse().map_err(of_engine)?),
            #[cfg(feature = "postgres")]
            "postgres" => Kind::Postgres(rest.parse().map_err(of_engine)?),
            _ => return Err(EngineUrlError::Missing(feature)),
        };
        Ok(Self { shown: shown(text), partitions, ends, kind })
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

// Settings are printed where something goes wrong.
impl fmt::Debug for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineUrl({:?})", self.shown)
    }
}

fn schemes() -> String {
    SCHEMES.map(|(scheme, _)| format!("{scheme}://")).join(", ")
}

fn feature_of(text: &str) -> Option<&'static str> {
    let (given, _) = text.split_once("://")?;
    SCHEMES.iter().find(|(scheme, _)| *scheme == given).map(|(_, feature)| *feature)
}

#[cfg(any(feature = "nats", feature = "postgres"))]
fn of_engine(error: impl fmt::Display) -> EngineUrlError {
    EngineUrlError::Engine(error.to_string())
}

/// Options that are not the engine's.
struct OwnOptions {
    partitions: u32,
    ends: Vec<u64>,
}

/// Takes the options out that are not the engine's: the rest is.
fn without_own_options(text: &str) -> Result<(String, OwnOptions), EngineUrlError> {
    let mut own = OwnOptions { partitions: 1, ends: Vec::new() };
    let Some((before, query)) = text.split_once('?') else { return Ok((text.to_owned(), own)) };
    let mut kept = Vec::new();
    for option in query.split('&') {
        match option.split_once('=') {
            Some(("partitions", number)) => {
                let number = number.parse().ok().filter(|it| (1..=PARTITIONS_MAX).contains(it));
                own.partitions = number.ok_or(EngineUrlError::Partitions)?;
            }
            Some(("end", positions)) => {
                let positions = positions.split(',').map(|position| position.parse().ok());
                own.ends = positions.collect::<Option<_>>().ok_or(EngineUrlError::End)?;
            }
            _ => kept.push(option),
        }
    }
    if !own.ends.is_empty() && own.ends.len() != own.partitions as usize {
        return Err(EngineUrlError::End);
    }
    Ok((format!("{before}?{}", kept.join("&")), own))
}

/// Returns a URL without what comes before the host, but for the name of a user with a password, and without the
/// values of options that are called as secrets are.
fn shown(text: &str) -> String {
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = before.split_once("://").unwrap_or(("", before));
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = login.split_once(':').map(|(user, _)| format!("{user}@")).unwrap_or_default();
    let options = query.split('&').filter(|option| !option.is_empty());
    let options: Vec<_> = options
        .map(|option| match option.split_once('=') {
            Some((name, _)) if ["password", "sslpassword"].contains(&name) => {
                format!("{name}=…")
            }
            _ => option.to_owned(),
        })
        .collect();
    let query = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
    format!("{scheme}://{user}{hosts}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_known_by_their_scheme() {
        let cases = [
            ("nats://a/S", true),
            ("tls://a/S", true),
            ("postgres://a/d", true),
            ("postgresql://a/d", true),
            ("nats:/a/S", false),
            ("nats.txt", false),
            ("http://a/S", false),
            ("", false),
        ];
        for (text, is_one) in cases {
            assert_eq!(EngineUrl::is_one(text), is_one, "{text}");
        }
        let error = "http://a/S".parse::<EngineUrl>().expect_err("it is none");
        let words =
            "no URL of an engine begins so: there are nats://, tls://, postgres://, postgresql://";
        assert_eq!(error.to_string(), words);
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        let cases = [
            ("nats://a:1,b/S?x=1", "nats://a:1,b/S?x=1"),
            ("nats://u:secret@a/S", "nats://u@a/S"),
            ("nats://u:a@secret@a/S", "nats://u@a/S"),
            ("nats://secret@a/S", "nats://a/S"),
            ("nats://secret@a", "nats://a"),
            ("postgres://u:secret@a/d?table=t", "postgres://u@a/d?table=t"),
            ("tls://a/S?password=secret&y=2", "tls://a/S?password=…&y=2"),
        ];
        for (text, wanted) in cases {
            assert_eq!(shown(text), wanted);
        }
    }

    #[cfg(feature = "nats")]
    #[test]
    fn partitions_are_no_business_of_an_engine() {
        let url = |text: &str| text.parse::<EngineUrl>();
        let three = url("nats://u:p@a/S?partitions=3&replicas=3").expect("it is one");
        assert_eq!(three.partitions(), 3);
        assert_eq!(three.to_string(), "nats://u@a/S?partitions=3&replicas=3");
        assert_eq!(format!("{three:?}"), r#"EngineUrl("nats://u@a/S?partitions=3&replicas=3")"#);
        assert_eq!(url("nats://a/S").map(|url| url.partitions()), Ok(1));
        for none in ["0", "", "-1", "1025", "x"] {
            let text = format!("nats://a/S?partitions={none}");
            assert_eq!(url(&text), Err(EngineUrlError::Partitions), "{text}");
        }
        let two = url("nats://a/S?end=7,9&partitions=2").expect("it is one");
        assert_eq!((two.ends(), three.ends()), (&[7, 9][..], &[][..]));
        for none in ["end=7", "end=7,x&partitions=2", "end=&partitions=1", "end=1,2"] {
            let text = format!("nats://a/S?{none}");
            let wrong = if none == "end=7" { Ok(vec![7]) } else { Err(EngineUrlError::End) };
            assert_eq!(url(&text).map(|url| url.ends().to_vec()), wrong, "{text}");
        }
        let error = url("nats://a").expect_err("it has no stream").to_string();
        assert_eq!(error, "it names no stream: nats://host:4222/STREAM is wanted");
    }

    #[cfg(feature = "nats")]
    #[test]
    fn an_engine_that_is_not_there_is_away() {
        // A port that nothing listens on, as its listener has just gone.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it has an address");
        drop(listener);
        let url: EngineUrl = format!("nats://{address}/S").parse().expect("it is one");
        assert!(matches!(url.connect(), Err(EngineError::Away(_))));
    }

    #[cfg(not(feature = "nats"))]
    #[test]
    fn an_engine_that_this_build_lacks_is_refused_with_its_feature() {
        assert_eq!("nats://a/S".parse::<EngineUrl>(), Err(EngineUrlError::Missing("nats")));
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_table_has_the_partitions_that_are_said_last() {
        let url = |text: &str| text.parse::<EngineUrl>();
        let two = url("postgres://u:p@a/d?table=t&partitions=2").expect("it is one");
        assert_eq!(two.partitions(), 2);
        assert_eq!(two.with_partitions(5).partitions(), 5);
        let error = url("postgres://a/d").expect_err("it has no table").to_string();
        assert!(error.starts_with("it names no table"), "{error}");
    }

    #[cfg(not(feature = "postgres"))]
    #[test]
    fn a_database_that_this_build_lacks_is_refused_with_its_feature() {
        let error = EngineUrlError::Missing("postgres");
        assert_eq!("postgres://a/d?table=t".parse::<EngineUrl>(), Err(error));
    }
}
