//! Settings of a queue, and how they stand in JSON.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use tradewind_shown::shown;
use tradewind_text::{duration, size};

/// Reason why a value is no setting.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what each case is")]
pub enum SettingError {
    #[error("{name} is a time with a unit, as in \"300ms\", \"10m\", \"7d\", not \"{value}\"")]
    Time { name: &'static str, value: String },
    #[error(
        "{name} is a time or a size with a unit, as in \"7d\", \"20G\", or \"consumed\", not \"{value}\""
    )]
    Keep { name: &'static str, value: String },
    #[error("{name} is \"kept\", \"stored\" or a time with a unit, as in \"1h\", not \"{value}\"")]
    Unique { name: &'static str, value: String },
    #[error("{name} is \"none\", \"batch\" or \"record\", not \"{value}\"")]
    Fsync { name: &'static str, value: String },
    #[error("max_running is at least 1")]
    NoneRunning,
}

/// Bytes of a value that an error shows.
const SHOWN_BYTES_MAX: usize = 80;

/// Settings of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Number of attempts after the first.
    pub retries: u32,
    /// Time that an attempt may take; `None` for any.
    pub timeout: Option<Duration>,
    /// Number of tasks that run at a time, at least 1; `None` for any.
    pub max_running: Option<u64>,
    /// Which records are kept.
    pub keep: Keep,
    /// How long a key is remembered.
    pub unique: Unique,
    /// When what was written is made to survive a crash of the machine.
    pub fsync: Fsync,
}

/// Which records are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// All.
    #[default]
    All,
    /// Those stored within this time.
    Time(Duration),
    /// The latest of these bytes.
    Bytes(u64),
    /// Those that a consumer has not passed.
    Consumed,
}

/// How long a key is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unique {
    /// As long as its record is kept.
    #[default]
    Kept,
    /// Until its record is stored.
    Stored,
    /// For this time from the submit.
    Time(Duration),
}

/// When what was written is made to survive a crash of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// When the system does it.
    None,
    /// Before it is promised, many entries at a time.
    #[default]
    Batch,
    /// Before it is promised, each by itself.
    Record,
}

/// Changes of settings: of each, none, back to the default, or a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsPatch {
    /// Change of [`Settings::retries`].
    pub retries: Change<u32>,
    /// Change of [`Settings::timeout`].
    pub timeout: Change<Duration>,
    /// Change of [`Settings::max_running`].
    pub max_running: Change<u64>,
    /// Change of [`Settings::keep`].
    pub keep: Change<Keep>,
    /// Change of [`Settings::unique`].
    pub unique: Change<Unique>,
    /// Change of [`Settings::fsync`].
    pub fsync: Change<Fsync>,
}

/// Change of one setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays.
    #[default]
    None,
    /// It has its default again.
    Default,
    /// It has this value.
    To(T),
}

impl<T> Change<T> {
    fn apply(self, value: &mut T, default: T) {
        match self {
            Self::None => {}
            Self::Default => *value = default,
            Self::To(new) => *value = new,
        }
    }

    fn map<U, E>(self, map: impl FnOnce(T) -> Result<U, E>) -> Result<Change<U>, E> {
        Ok(match self {
            Self::None => Change::None,
            Self::Default => Change::Default,
            Self::To(value) => Change::To(map(value)?),
        })
    }

    /// Returns the change of a setting for which `None` is a value, and the default.
    fn some(self) -> Change<Option<T>> {
        match self {
            Self::None => Change::None,
            Self::Default => Change::Default,
            Self::To(value) => Change::To(Some(value)),
        }
    }
}

impl SettingsPatch {
    /// Returns settings with these changes.
    #[must_use]
    pub fn apply(self, mut settings: Settings) -> Settings {
        let default = Settings::default();
        self.retries.apply(&mut settings.retries, default.retries);
        self.timeout.some().apply(&mut settings.timeout, default.timeout);
        self.max_running.some().apply(&mut settings.max_running, default.max_running);
        self.keep.apply(&mut settings.keep, default.keep);
        self.unique.apply(&mut settings.unique, default.unique);
        self.fsync.apply(&mut settings.fsync, default.fsync);
        settings
    }
}

/// Changes as they are written: a merge patch (RFC 7396), in which `null` is the default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WrittenPatch {
    #[serde(deserialize_with = "written")]
    retries: Change<u32>,
    #[serde(deserialize_with = "written")]
    timeout: Change<String>,
    #[serde(deserialize_with = "written")]
    max_running: Change<u64>,
    #[serde(deserialize_with = "written")]
    keep: Change<String>,
    #[serde(deserialize_with = "written")]
    unique: Change<String>,
    #[serde(deserialize_with = "written")]
    fsync: Change<String>,
}

fn written<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Change<T>, D::Error> {
    Ok(Option::deserialize(from)?.map_or(Change::Default, Change::To))
}

impl WrittenPatch {
    /// Returns what these changes mean.
    ///
    /// # Errors
    ///
    /// When a value is none for its setting.
    pub(crate) fn parse(self) -> Result<SettingsPatch, SettingError> {
        Ok(SettingsPatch {
            retries: self.retries,
            timeout: self.timeout.map(|text| time("timeout", &text))?,
            max_running: self.max_running.map(|max| match max {
                0 => Err(SettingError::NoneRunning),
                _ => Ok(max),
            })?,
            keep: self.keep.map(|text| keep(&text))?,
            unique: self.unique.map(|text| unique(&text))?,
            fsync: self.fsync.map(|text| fsync(&text))?,
        })
    }
}

/// Parses a time with a unit: a number alone is taken for milliseconds by one and for seconds by another.
pub(crate) fn time(name: &'static str, text: &str) -> Result<Duration, SettingError> {
    let has_unit = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    let parsed = duration(text).ok().filter(|_| has_unit);
    parsed.ok_or_else(|| SettingError::Time { name, value: excerpt(text) })
}

fn keep(text: &str) -> Result<Keep, SettingError> {
    if text == "consumed" {
        return Ok(Keep::Consumed);
    }
    // Units of sizes are upper case, those of times are not; `M` would be a month.
    let is_size = text.bytes().any(|byte| byte.is_ascii_uppercase());
    let parsed = match is_size {
        true => size(text).ok().filter(|bytes| *bytes > 0).map(Keep::Bytes),
        false => time("keep", text).ok().map(Keep::Time),
    };
    parsed.ok_or_else(|| SettingError::Keep { name: "keep", value: excerpt(text) })
}

fn unique(text: &str) -> Result<Unique, SettingError> {
    match text {
        "kept" => Ok(Unique::Kept),
        "stored" => Ok(Unique::Stored),
        _ => match time("unique", text) {
            Ok(time) => Ok(Unique::Time(time)),
            Err(_) => Err(SettingError::Unique { name: "unique", value: excerpt(text) }),
        },
    }
}

fn fsync(text: &str) -> Result<Fsync, SettingError> {
    match text {
        "none" => Ok(Fsync::None),
        "batch" => Ok(Fsync::Batch),
        "record" => Ok(Fsync::Record),
        _ => Err(SettingError::Fsync { name: "fsync", value: excerpt(text) }),
    }
}

/// Returns the beginning of a text that another chose, fit to be shown.
pub(crate) fn excerpt(text: &str) -> String {
    let cut = text.floor_char_boundary(SHOWN_BYTES_MAX);
    let dots = if cut < text.len() { "…" } else { "" };
    format!("{}{dots}", shown(&text[..cut]))
}

/// Settings as they are written.
#[derive(Debug, Serialize)]
pub(crate) struct WrittenSettings {
    retries: u32,
    timeout: Option<String>,
    max_running: Option<u64>,
    keep: Option<String>,
    unique: String,
    fsync: &'static str,
}

impl From<&Settings> for WrittenSettings {
    fn from(settings: &Settings) -> Self {
        let time = |time: Duration| humantime::format_duration(time).to_string();
        Self {
            retries: settings.retries,
            timeout: settings.timeout.map(time),
            max_running: settings.max_running,
            keep: match settings.keep {
                Keep::All => None,
                Keep::Time(kept) => Some(time(kept)),
                Keep::Bytes(bytes) => Some(written_size(bytes)),
                Keep::Consumed => Some("consumed".to_owned()),
            },
            unique: match settings.unique {
                Unique::Kept => "kept".to_owned(),
                Unique::Stored => "stored".to_owned(),
                Unique::Time(kept) => time(kept),
            },
            fsync: match settings.fsync {
                Fsync::None => "none",
                Fsync::Batch => "batch",
                Fsync::Record => "record",
            },
        }
    }
}

fn written_size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| format!("{bytes}B"), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<SettingsPatch, String> {
        let written: WrittenPatch =
            serde_json::from_str(json).map_err(|error| error.to_string())?;
        written.parse().map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let minute = Duration::from_secs(60);
        let all = [
            Settings::default(),
            Settings {
                retries: 3,
                timeout: Some(10 * minute),
                max_running: Some(200),
                keep: Keep::Time(7 * 24 * 60 * minute),
                unique: Unique::Time(Duration::from_millis(1500)),
                fsync: Fsync::Record,
            },
            Settings { keep: Keep::Bytes(20 << 30), unique: Unique::Stored, ..Settings::default() },
            Settings { keep: Keep::Bytes(1001), fsync: Fsync::None, ..Settings::default() },
            Settings { keep: Keep::Consumed, ..Settings::default() },
        ];
        for settings in all {
            let json = serde_json::to_string(&WrittenSettings::from(&settings)).unwrap();
            assert_eq!(parse(&json).unwrap().apply(Settings::default()), settings, "{json}");
            assert_eq!(parse(&json).unwrap().apply(all_other()), settings, "{json}");
        }
    }

    fn all_other() -> Settings {
        Settings {
            retries: 9,
            timeout: Some(Duration::from_secs(9)),
            max_running: Some(9),
            keep: Keep::Bytes(9),
            unique: Unique::Time(Duration::from_secs(9)),
            fsync: Fsync::None,
        }
    }

    #[test]
    fn a_change_leaves_the_others_and_null_is_the_default() {
        let changed = parse(r#"{"retries": 1, "keep": null}"#).unwrap().apply(all_other());
        assert_eq!(changed, Settings { retries: 1, keep: Keep::All, ..all_other() });
        assert_eq!(parse("{}").unwrap().apply(all_other()), all_other());
    }

    #[test]
    fn a_value_that_is_none_is_refused_in_words() {
        let cases = [
            (r#"{"timeout": "10"}"#, "timeout is a time with a unit"),
            (r#"{"timeout": "0s"}"#, "timeout is a time with a unit"),
            (r#"{"keep": "10"}"#, "keep is a time or a size with a unit"),
            (r#"{"keep": "0K"}"#, "keep is a time or a size with a unit"),
            (r#"{"keep": "a\u001b[2J"}"#, r#"not "a\u{1b}[2J""#),
            (r#"{"unique": "always"}"#, "unique is \"kept\", \"stored\" or a time"),
            (r#"{"fsync": "yes"}"#, "fsync is \"none\", \"batch\" or \"record\", not \"yes\""),
            (r#"{"max_running": 0}"#, "max_running is at least 1"),
            (r#"{"retries": -1}"#, "invalid value"),
            (r#"{"retires": 1}"#, "unknown field `retires`"),
            (r#"{"retries": 1, "retries": 2}"#, "duplicate field `retries`"),
        ];
        for (json, wanted) in cases {
            let error = parse(json).unwrap_err();
            assert!(error.contains(wanted), "{json}: {error}");
        }
        let long = format!(r#"{{"fsync": "{}"}}"#, "ü".repeat(10_000));
        assert!(parse(&long).unwrap_err().len() < 200);
    }
}
