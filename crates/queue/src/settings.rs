//! Settings of a queue, and how they stand in JSON.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;
use tradewind_shown::shown;
use tradewind_text::{duration, size};

use crate::whole::whole;

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
    /// Returns whether the setting gets a value of its own; `None` if it stays.
    fn has_value(&self) -> Option<bool> {
        match self {
            Self::None => None,
            Self::Default => Some(false),
            Self::To(_) => Some(true),
        }
    }

    fn apply(self, value: &mut T, default: T) {
        match self {
            Self::None => {}
            Self::Default => *value = default,
            Self::To(new) => *value = new,
        }
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    fn then<U>(self, then: impl FnOnce(T) -> Change<U>) -> Change<U> {
        match self {
            Self::None => Change::None,
            Self::Default => Change::Default,
            Self::To(value) => then(value),
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
        self.then(|value| Change::To(Some(value)))
    }
}

impl Settings {
    /// Returns the settings as JSON has them, by their names.
    ///
    /// # Panics
    ///
    /// Never: they are text and numbers.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        match serde_json::to_value(WrittenSettings::from(self)) {
            Ok(Value::Object(members)) => members,
            written => panic!("settings are an object: {written:?}"),
        }
    }
}

impl SettingsPatch {
    /// Returns the changes that a JSON object has: a merge patch (RFC 7396), in which `null` is the default.
    ///
    /// # Errors
    ///
    /// In words, when a name or a value is none.
    pub fn from_json(members: Map<String, Value>) -> Result<Self, String> {
        let written = WrittenPatch::deserialize(Value::Object(members));
        let written = written.map_err(|error| excerpt(&error.to_string()))?;
        written.parse().map_err(|error| error.to_string())
    }

    /// Returns the names of the settings that change, and whether each gets a value of its own and not the default.
    #[must_use]
    pub fn names(&self) -> Vec<(&'static str, bool)> {
        let Self { retries, timeout, max_running, keep, unique, fsync } = self;
        let all = [
            ("retries", retries.has_value()),
            ("timeout", timeout.has_value()),
            ("max_running", max_running.has_value()),
            ("keep", keep.has_value()),
            ("unique", unique.has_value()),
            ("fsync", fsync.has_value()),
        ];
        all.into_iter().filter_map(|(name, has_value)| Some((name, has_value?))).collect()
    }

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
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WrittenPatch {
    #[serde(deserialize_with = "written_whole", skip_serializing_if = "Change::is_none")]
    retries: Change<u32>,
    #[serde(deserialize_with = "written", skip_serializing_if = "Change::is_none")]
    timeout: Change<String>,
    #[serde(deserialize_with = "written_whole", skip_serializing_if = "Change::is_none")]
    max_running: Change<u64>,
    #[serde(deserialize_with = "written", skip_serializing_if = "Change::is_none")]
    keep: Change<String>,
    #[serde(deserialize_with = "written", skip_serializing_if = "Change::is_none")]
    unique: Change<String>,
    #[serde(deserialize_with = "written", skip_serializing_if = "Change::is_none")]
    fsync: Change<String>,
}

impl<T: Serialize> Serialize for Change<T> {
    /// Writes `null` for the default. A setting that stays is not written at all.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None | Self::Default => serializer.serialize_none(),
            Self::To(value) => value.serialize(serializer),
        }
    }
}

impl From<&SettingsPatch> for WrittenPatch {
    fn from(patch: &SettingsPatch) -> Self {
        Self {
            retries: patch.retries,
            timeout: patch.timeout.then(|time| Change::To(written_time(time))),
            max_running: patch.max_running,
            keep: patch.keep.then(|keep| written_keep(keep).map_or(Change::Default, Change::To)),
            unique: patch.unique.then(|unique| Change::To(written_unique(unique))),
            fsync: patch.fsync.then(|fsync| Change::To(written_fsync(fsync).to_owned())),
        }
    }
}

fn written<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Change<T>, D::Error> {
    Ok(Option::deserialize(from)?.map_or(Change::Default, Change::To))
}

fn written_whole<'de, D, T>(from: D) -> Result<Change<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    Ok(whole(from)?.map_or(Change::Default, Change::To))
}

impl WrittenPatch {
    /// Returns what these changes mean.
    ///
    /// # Errors
    ///
    /// When a value is none for its setting.
    pub fn parse(self) -> Result<SettingsPatch, SettingError> {
        Ok(SettingsPatch {
            retries: self.retries,
            timeout: self.timeout.map(|text| time("timeout", &text))?,
            max_running: self.max_running.map(|max| match max {
                0 => Err(SettingError::NoneRunning),
                _ => Ok(max),
            })?,
            keep: self.keep.map(|text| text.parse())?,
            unique: self.unique.map(|text| text.parse())?,
            fsync: self.fsync.map(|text| text.parse())?,
        })
    }
}

/// Parses a time with a unit: a number alone is taken for milliseconds by one and for seconds by another.
///
/// # Errors
///
/// When it is none.
pub fn time(name: &'static str, text: &str) -> Result<Duration, SettingError> {
    let has_unit = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    let parsed = duration(text).ok().filter(|_| has_unit);
    parsed.ok_or_else(|| SettingError::Time { name, value: excerpt(text) })
}

impl FromStr for Keep {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
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
}

impl FromStr for Unique {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "kept" => Ok(Unique::Kept),
            "stored" => Ok(Unique::Stored),
            _ => match time("unique", text) {
                Ok(time) => Ok(Unique::Time(time)),
                Err(_) => Err(SettingError::Unique { name: "unique", value: excerpt(text) }),
            },
        }
    }
}

impl FromStr for Fsync {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "none" => Ok(Fsync::None),
            "batch" => Ok(Fsync::Batch),
            "record" => Ok(Fsync::Record),
            _ => Err(SettingError::Fsync { name: "fsync", value: excerpt(text) }),
        }
    }
}

/// Returns the beginning of a text that another chose, fit to be shown.
#[must_use]
pub fn excerpt(text: &str) -> String {
    let cut = text.floor_char_boundary(SHOWN_BYTES_MAX);
    let dots = if cut < text.len() { "…" } else { "" };
    format!("{}{dots}", shown(&text[..cut]))
}

/// Settings as they are written.
#[derive(Debug, Deserialize, Serialize)]
pub struct WrittenSettings {
    retries: u32,
    timeout: Option<String>,
    max_running: Option<u64>,
    keep: Option<String>,
    unique: String,
    fsync: String,
}

impl From<&Settings> for WrittenSettings {
    fn from(settings: &Settings) -> Self {
        Self {
            retries: settings.retries,
            timeout: settings.timeout.map(written_time),
            max_running: settings.max_running,
            keep: written_keep(settings.keep),
            unique: written_unique(settings.unique),
            fsync: written_fsync(settings.fsync).to_owned(),
        }
    }
}

impl WrittenSettings {
    /// Returns the settings that these are.
    ///
    /// # Errors
    ///
    /// When a value is none for its setting.
    pub fn parse(self) -> Result<Settings, SettingError> {
        Ok(Settings {
            retries: self.retries,
            timeout: self.timeout.map(|text| time("timeout", &text)).transpose()?,
            max_running: self.max_running,
            keep: self.keep.map(|text| text.parse()).transpose()?.unwrap_or_default(),
            unique: self.unique.parse()?,
            fsync: self.fsync.parse()?,
        })
    }
}

fn written_time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

fn written_keep(keep: Keep) -> Option<String> {
    match keep {
        Keep::All => None,
        Keep::Time(kept) => Some(written_time(kept)),
        Keep::Bytes(bytes) => Some(written_size(bytes)),
        Keep::Consumed => Some("consumed".to_owned()),
    }
}

fn written_unique(unique: Unique) -> String {
    match unique {
        Unique::Kept => "kept".to_owned(),
        Unique::Stored => "stored".to_owned(),
        Unique::Time(kept) => written_time(kept),
    }
}

fn written_fsync(fsync: Fsync) -> &'static str {
    match fsync {
        Fsync::None => "none",
        Fsync::Batch => "batch",
        Fsync::Record => "record",
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
            // A client takes those of a server that knows of more.
            let more = json.replacen('{', r#"{"priority":1,"#, 1);
            let written: WrittenSettings = serde_json::from_str(&more).unwrap();
            assert_eq!(written.parse().unwrap(), settings, "{json}");
        }
    }

    #[test]
    fn changes_are_read_as_they_are_written() {
        let none = SettingsPatch::default();
        let defaults = r#"{"retries":null,"timeout":null,"max_running":null,"keep":null,"unique":null,"fsync":null}"#;
        let all = [
            ("{}", none.clone()),
            (defaults, parse(defaults).unwrap()),
            (r#"{"keep":null}"#, SettingsPatch { keep: Change::To(Keep::All), ..none.clone() }),
            (r#"{"max_running":2}"#, SettingsPatch { max_running: Change::To(2), ..none }),
            (
                r#"{"timeout":"1m 30s","keep":"1GiB","unique":"stored","fsync":"none"}"#,
                SettingsPatch {
                    timeout: Change::To(Duration::from_secs(90)),
                    keep: Change::To(Keep::Bytes(1 << 30)),
                    unique: Change::To(Unique::Stored),
                    fsync: Change::To(Fsync::None),
                    ..SettingsPatch::default()
                },
            ),
        ];
        for (json, patch) in all {
            assert_eq!(serde_json::to_string(&WrittenPatch::from(&patch)).unwrap(), json);
            assert_eq!(parse(json).unwrap().apply(all_other()), patch.apply(all_other()), "{json}");
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
