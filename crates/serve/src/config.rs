//! The configuration file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::{Table, Value};
use tradewind_engine::PARTITIONS_MAX;
use tradewind_engines::EngineUrl;
use tradewind_http::{QueueName, SettingsPatch};
use tradewind_lanes::Endpoint;

/// What a configuration file says of queues, by their names. Such a queue is made at the start.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What it says of each.
    pub queues: BTreeMap<QueueName, QueueConfig>,
}

/// What a configuration says of a queue.
#[derive(Clone, Debug, Default)]
pub struct QueueConfig {
    /// Settings, which can be changed while the queue is open.
    pub settings: SettingsPatch,
    /// Relays to its further stages, if it has any.
    pub relays: Option<Relays>,
    /// Where its logs are, if not in the directory.
    pub underneath: Option<Underneath>,
}

/// Where the logs of a queue are that does not have its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underneath {
    /// Engine with its tasks.
    pub source: EngineUrl,
    /// Engine with its records.
    pub sink: EngineUrl,
    /// Number of its partitions. The same for all processes that share them, for ever: it is in the tasks' ids.
    pub partitions: u32,
}

/// Ends of the chain of relays behind a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relays {
    /// Where the first relay listens for results: its `--listen`.
    pub first: Endpoint,
    /// Where the last relay listens for receipts: its `--receipts`.
    pub last: Endpoint,
}

/// Reason why a configuration file is not understood.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum ConfigError {
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: {text}", .path.display())]
    Text { path: PathBuf, text: String },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or has a table, a queue or a setting that is none.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Io { path: path.to_owned(), error })?;
        Self::parse(&text).map_err(|text| ConfigError::Text { path: path.to_owned(), text })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!("line {}: {}", before.matches('\n').count() + 1, error.message())
        })?;
        let queues = table.remove("queue").unwrap_or_else(|| Value::Table(Table::new()));
        if let Some(other) = table.keys().next() {
            return Err(format!("{other:?} is not known: settings stand under [queue.NAME]"));
        }
        let Value::Table(queues) = queues else {
            return Err("queue is a table of tables: [queue.NAME]".to_owned());
        };
        let mut config = Self::default();
        for (name, settings) in queues {
            let amiss = |text: &str| format!("[queue.{name}]: {text}");
            let queue: QueueName = name.parse().map_err(|error| amiss(&format!("{error}")))?;
            let Value::Table(mut settings) = settings else {
                return Err(amiss("it is a table of settings"));
            };
            let mut relay = |name: &str| match settings.remove(name) {
                None => Ok(None),
                Some(Value::String(text)) => text
                    .parse::<Endpoint>()
                    .map(Some)
                    .map_err(|error| amiss(&format!("{name}: {error}"))),
                Some(_) => Err(amiss(&format!("{name} is an endpoint as \"tcp://host:5558\""))),
            };
            let relays = match (relay("first_relay")?, relay("last_relay")?) {
                (Some(first), Some(last)) => Some(Relays { first, last }),
                (None, None) => None,
                _ => return Err(amiss("first_relay and last_relay belong together")),
            };
            let underneath = underneath(&mut settings).map_err(|text| amiss(&text))?;
            let members = settings.into_iter().map(|(setting, value)| match value {
                Value::String(text) => Ok((setting, text.into())),
                Value::Integer(number) => Ok((setting, number.into())),
                other => Err(amiss(&format!(
                    "{setting} is a text or a number, not a {}",
                    other.type_str()
                ))),
            });
            let members = members.collect::<Result<_, String>>()?;
            let patch = SettingsPatch::from_json(members).map_err(|text| amiss(&text))?;
            config.queues.insert(queue, QueueConfig { settings: patch, relays, underneath });
        }
        Ok(config)
    }
}

/// Takes out of a queue's settings what says where its logs are.
fn underneath(settings: &mut Table) -> Result<Option<Underneath>, String> {
    let url = |name: &str, value: Option<Value>| match value {
        None => Ok(None),
        Some(Value::String(text)) if text == "log" => Ok(None),
        Some(Value::String(text)) => {
            text.parse::<EngineUrl>().map(Some).map_err(|error| format!("{name}: {error}"))
        }
        Some(_) => Err(format!(
            "{name} is a URL as \"nats://host:4222/TASKS\" or \"postgres://host/db?table=tasks\", or \"log\""
        )),
    };
    let source = url("source", settings.remove("source"))?;
    let sink = url("sink", settings.remove("sink"))?;
    let partitions = match settings.remove("partitions") {
        None => None,
        Some(Value::Integer(number)) => match u32::try_from(number) {
            Ok(number @ 1..=PARTITIONS_MAX) => Some(number),
            _ => return Err(format!("partitions is a number from 1 to {PARTITIONS_MAX}")),
        },
        Some(_) => return Err("partitions is a number".to_owned()),
    };
    match (source, sink, partitions) {
        (Some(source), _, _) if !source.ends().is_empty() => {
            Err("end is for the input of a job: a queue has none".to_owned())
        }
        (Some(source), Some(sink), partitions) => {
            let partitions = partitions.unwrap_or(source.partitions());
            let [source, sink] = [source, sink].map(|url| url.with_partitions(partitions));
            Ok(Some(Underneath { source, sink, partitions }))
        }
        (None, None, None | Some(1)) => Ok(None),
        (None, None, Some(_)) => Err("a queue with its own log has one partition".to_owned()),
        _ => Err("source and sink are both an engine's, or both \"log\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tradewind_http::{Keep, Settings};

    use super::*;

    #[test]
    fn settings_of_queues_are_read() {
        let text = "
            [queue.thumbs]
            retries = 3
            timeout = \"10m\"
            keep = \"7d\"
            [queue.mail]
        ";
        let config = Config::parse(text).unwrap();
        let names: Vec<_> = config.queues.keys().map(QueueName::as_str).collect();
        assert_eq!(names, ["mail", "thumbs"]);
        let thumbs = &config.queues[&"thumbs".parse().unwrap()];
        assert_eq!(thumbs.relays, None);
        let thumbs = thumbs.settings.clone().apply(Settings::default());
        assert_eq!((thumbs.retries, thumbs.timeout), (3, Some(Duration::from_secs(600))));
        assert_eq!(thumbs.keep, Keep::Time(Duration::from_secs(7 * 24 * 3600)));
        assert!(Config::parse("").unwrap().queues.is_empty());
        let text = "[queue.pages]\nfirst_relay = 'tcp://a:1'\nlast_relay = 'ipc:///b'\nretries = 1";
        let config = Config::parse(text).unwrap();
        let relays = config.queues.values().next().unwrap().relays.clone().unwrap();
        assert_eq!(relays.first.to_string(), "tcp://a:1");
        assert_eq!(relays.last.to_string(), "ipc:///b");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, wanted) in [
            ("queue = 1", "queue is a table of tables"),
            ("[queues.thumbs]", "\"queues\" is not known"),
            ("[queue.Thumbs]", "[queue.Thumbs]: a name has 1 to 63 characters"),
            ("[queue.thumbs]\nretires = 1", "[queue.thumbs]: unknown field `retires`"),
            ("[queue.thumbs]\ntimeout = 10", "[queue.thumbs]: invalid type"),
            ("[queue.thumbs]\nretries = true", "retries is a text or a number, not a boolean"),
            (
                "[queue.x]\nfirst_relay = \"tcp://a:1\"",
                "first_relay and last_relay belong together",
            ),
            ("[queue.x]\nlast_relay = 1", "last_relay is an endpoint"),
            ("[queue.x]\nlast_relay = \"a:1\"", "does not start with tcp://"),
            ("[queue.thumbs]\nunique = \"1\"", "unique is \"kept\""),
            ("\n[queue", "line 2: unclosed table"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }
}
