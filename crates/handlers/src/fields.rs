//! The fields of a task, for commands that ask for them.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tradewind_proto::message::Layout;
use tradewind_text::Colsep;

/// Kind of fields in a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fields {
    /// Nothing smaller.
    #[default]
    Whole,
    /// It is a JSON object or array.
    Json,
    /// It is several lines, or texts with another byte between them. There may be fewer than a
    /// command asks for: what is missing is empty.
    Group(u8),
    /// It is a line of columns.
    Columns(Colsep),
}

/// The worker was told something else of the tasks than the job says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the job's tasks are {job}, and this worker was started for {own}: start it without {flag}"
)]
struct Contradiction {
    job: String,
    own: String,
    flag: &'static str,
}

/// Why a command cannot be made of a task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// It should have been JSON.
    #[error("the task is not JSON with fields: {0}")]
    NotJson(String),
    /// The command asks for a field that the task does not have.
    #[error("the task has no field {field:?}, but {has}")]
    Missing {
        /// As the command has it.
        field: String,
        /// Fields that the task has instead, for display.
        has: String,
    },
}

/// Bytes of an error that lists what there is. Some rows have thousands of fields.
const LIST_BYTES_MAX: usize = 400;

/// A task taken apart.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// By place. Of an object only.
    names: Vec<Cow<'a, str>>,
    values: Vec<Cow<'a, [u8]>>,
}

impl Fields {
    /// Returns the fields as the job describes them, which a worker need not be told. Where the job has
    /// lines without parts, a worker may well see parts in them.
    ///
    /// # Errors
    ///
    /// When it was told something else, or the job's column separator is invalid.
    pub(super) fn of_job(&self, layout: &Layout) -> Result<Self, String> {
        let said = match layout {
            Layout::Unsaid | Layout::Whole | Layout::Line => return Ok(self.clone()),
            Layout::Json => Self::Json,
            Layout::Group(byte) => Self::Group(*byte),
            Layout::Columns(colsep) => Self::Columns(colsep.parse().map_err(|error| {
                format!("the job's column separator {colsep:?} is invalid: {error}")
            })?),
        };
        if *self == Self::Whole || *self == said {
            return Ok(said);
        }
        let flag = if matches!(self, Self::Columns(_)) { "--colsep" } else { "--fields" };
        Err(Contradiction { job: said.to_string(), own: self.to_string(), flag }.to_string())
    }

    /// Takes a task apart.
    pub(super) fn split<'a>(&self, task: &'a [u8]) -> Result<Parts<'a>, FieldError> {
        let values = match self {
            Self::Whole => vec![Cow::Borrowed(task)],
            Self::Group(byte) => task.split(|other| other == byte).map(Cow::Borrowed).collect(),
            Self::Columns(colsep) => colsep.split(task).map(Cow::Borrowed).collect(),
            Self::Json => {
                let parts: Result<Parts<'a>, _> = serde_json::from_slice(task);
                return parts.map_err(|error| FieldError::NotJson(error.to_string()));
            }
        };
        Ok(Parts { names: Vec::new(), values })
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("lines without fields"),
            Self::Json => f.write_str("JSON (--fields json)"),
            Self::Group(0) => f.write_str("texts with NULs between them (--fields nul)"),
            Self::Group(_) => f.write_str("several lines (--fields lines)"),
            Self::Columns(colsep) => write!(f, "columns (--colsep {:?})", colsep.to_string()),
        }
    }
}

impl<'a> Parts<'a> {
    pub(super) fn values(&self) -> &[Cow<'a, [u8]>] {
        &self.values
    }

    /// Of several with one name it is the last, as most readers of JSON have it.
    pub(super) fn by_name(&self, name: &str) -> Option<&Cow<'a, [u8]>> {
        let at = self.names.iter().rposition(|other| other == name)?;
        self.values.get(at)
    }

    /// From 1, or from -1 backwards.
    pub(super) fn by_place(&self, place: i32) -> Option<&Cow<'a, [u8]>> {
        let count = self.values.len();
        let away = usize::try_from(place.unsigned_abs()).ok()?;
        let at = if place > 0 { away.checked_sub(1) } else { count.checked_sub(away) };
        self.values.get(at?)
    }

    pub(super) fn missing(&self, field: &str) -> FieldError {
        let has = if !self.names.is_empty() {
            let mut list = String::new();
            for name in &self.names {
                if list.len() + name.len() > LIST_BYTES_MAX {
                    list += " ...";
                    break;
                }
                list += if list.is_empty() { "" } else { ", " };
                list += &format!("{name:?}");
            }
            list
        } else {
            match self.values.len() {
                1 => "1 field".to_owned(),
                count => format!("{count} fields"),
            }
        };
        FieldError::Missing { field: field.to_owned(), has }
    }
}

/// A text as it is meant, anything else as JSON has it.
fn value(raw: &RawValue) -> Result<Cow<'_, [u8]>, serde_json::Error> {
    let json = raw.get();
    if !json.starts_with('"') {
        return Ok(Cow::Borrowed(json.as_bytes()));
    }
    // Without anything escaped, the text is there already.
    let text: Text<'_> = serde_json::from_str(json)?;
    Ok(match text.0 {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    })
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartsVisitor)
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parts = Parts { names: Vec::new(), values: Vec::new() };
        while let Some((Text(name), raw)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            parts.names.push(name);
            parts.values.push(value(raw).map_err(serde::de::Error::custom)?);
        }
        Ok(parts)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut parts = Parts { names: Vec::new(), values: Vec::new() };
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            parts.values.push(value(raw).map_err(serde::de::Error::custom)?);
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_says_what_its_tasks_are_made_of() {
        #[track_caller]
        fn check(own: &Fields, layout: &Layout, expected: Result<&Fields, &str>) {
            let expected = expected.cloned().map_err(str::to_owned);
            assert_eq!(own.of_job(layout), expected, "{own:?} {layout:?}");
        }
        let columns = |colsep: &str| Fields::Columns(colsep.parse().unwrap());
        let comma = Layout::Columns(",".to_owned());
        for own in [Fields::Whole, Fields::Json, Fields::Group(0), columns(",")] {
            check(&own, &Layout::Unsaid, Ok(&own));
            check(&own, &Layout::Whole, Ok(&own));
        }
        for own in [Fields::Whole, Fields::Json] {
            check(&own, &Layout::Json, Ok(&Fields::Json));
        }
        check(&Fields::Whole, &Layout::Group(0), Ok(&Fields::Group(0)));
        check(&Fields::Whole, &comma, Ok(&columns(",")));
        check(&columns(","), &comma, Ok(&columns(",")));
        let error = "the job's tasks are JSON (--fields json), and this worker was started for \
                     several lines (--fields lines): start it without --fields";
        check(&Fields::Group(b'\n'), &Layout::Json, Err(error));
        let error = "the job's tasks are columns (--colsep \",\"), and this worker was started for \
                     columns (--colsep \";\"): start it without --colsep";
        check(&columns(";"), &comma, Err(error));
        let nonsense = columns(";").of_job(&Layout::Columns("((".to_owned())).unwrap_err();
        assert!(
            nonsense.starts_with("the job's column separator \"((\" is invalid: "),
            "{nonsense}"
        );
    }
}
