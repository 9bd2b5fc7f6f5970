//! A table of a TOML file, read key by key, with errors that say where in the file they are.
//!
//! Knows no key by itself: which there are, and what their values may be, is its caller's business.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Error in a file and its position: displayed as `LINE:COLUMN: what`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {problem}")]
pub(crate) struct FileError {
    /// Counted from 1.
    pub(crate) line: usize,
    /// In characters, counted from 1.
    pub(crate) column: usize,
    /// Description of the error.
    pub(crate) problem: Problem,
}

/// Error in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("this is not UTF-8")]
    NotUtf8,
    #[error("{0}")]
    Syntax(String),
    #[error("unknown key {key:?} in {section}{}", Nearest(*nearest))]
    UnknownKey { key: String, section: Section, nearest: Option<&'static str> },
    #[error("{section} has no {key:?}")]
    MissingKey { key: &'static str, section: Section },
    #[error("{key:?} in {section} is {wanted}, not {found}")]
    WrongType { key: String, section: Section, wanted: &'static str, found: &'static str },
    #[error("{key:?} in {section}: {reason}")]
    BadValue { key: String, section: Section, reason: String },
    #[error("{key:?} in {section}: {value:?} is not one of {}{}", Words(words), Nearest(*nearest))]
    UnknownWord {
        key: &'static str,
        section: Section,
        value: String,
        words: &'static [&'static str],
        nearest: Option<&'static str>,
    },
    #[error("{key:?} and {other:?} exclude each other, and {section} has both")]
    Exclusive { key: &'static str, other: &'static str, section: Section },
    #[error("there are two stages named {name:?}; the other is in line {other_line}")]
    SameName { name: String, other_line: usize },
}

/// A part of the file, as errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// Keys before all other sections.
    Top,
    /// The defaults of all stages.
    Defaults,
    /// A stage whose name is not known, by its number from 1.
    Stage(usize),
    /// A stage with a name.
    Named(String),
}

/// Something is wrong with the bytes at an offset. Lines are counted only if that is so.
#[derive(Debug)]
pub(super) struct At {
    pub(super) offset: usize,
    pub(super) problem: Problem,
}

/// A table that is being read.
pub(super) struct Table<'a> {
    pub(super) section: Section,
    /// Offset of the table in the file.
    pub(super) offset: usize,
    /// In the order of the file.
    entries: Vec<(Spanned<DeString<'a>>, Spanned<DeValue<'a>>)>,
}

/// A key's value.
pub(super) struct Value<'a> {
    pub(super) offset: usize,
    key: String,
    section: Section,
    value: DeValue<'a>,
}

/// A word that is so much like another (Jaro's measure, 0 to 1) is taken for a misspelt one.
const LIKENESS_MIN: f64 = 0.7;

impl At {
    pub(super) fn new(offset: usize, problem: Problem) -> Self {
        Self { offset, problem }
    }

    /// Counts the lines of the text up to there.
    pub(super) fn in_text(self, text: &str) -> FileError {
        let before = text.get(..self.offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        FileError {
            line: line_of(text, self.offset),
            column: before[line_start..].chars().count() + 1,
            problem: self.problem,
        }
    }
}

/// The line of an offset, counted from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Parses a whole file.
pub(super) fn parse(text: &str) -> Result<Table<'_>, At> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let at = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    // The others may be what came of the first.
    if let Some(error) = errors.iter().min_by_key(|error| at(error)) {
        // Some of them have several lines.
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(At::new(at(error), Problem::Syntax(message)));
    }
    Ok(Table::new(Section::Top, 0, table.into_inner()))
}

impl<'a> Table<'a> {
    fn new(section: Section, offset: usize, table: DeTable<'a>) -> Self {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        Self { section, offset, entries }
    }

    /// Sees to it that there are no keys but these.
    pub(super) fn only(&self, keys: &[&'static str]) -> Result<(), At> {
        let is_unknown = |key: &&Spanned<DeString<'_>>| !keys.contains(&key.get_ref().as_ref());
        match self.entries.iter().map(|(key, _)| key).find(is_unknown) {
            Some(key) => {
                let problem = Problem::UnknownKey {
                    key: key.get_ref().clone().into_owned(),
                    section: self.section.clone(),
                    nearest: nearest(key.get_ref(), keys),
                };
                Err(At::new(key.span().start, problem))
            }
            None => Ok(()),
        }
    }

    /// The value of a key, if it is there.
    pub(super) fn take(&mut self, key: &str) -> Option<Value<'a>> {
        let place = self.entries.iter().position(|(found, _)| found.get_ref() == key)?;
        let (key, value) = self.entries.remove(place);
        Some(Value::new(key.into_inner().into_owned(), self.section.clone(), value))
    }

    /// The value of a key that has to be there.
    pub(super) fn require(&mut self, key: &'static str) -> Result<Value<'a>, At> {
        let offset = self.offset;
        let section = self.section.clone();
        self.take(key).ok_or_else(|| At::new(offset, Problem::MissingKey { key, section }))
    }

    /// The value of a key, if it is there, made into something.
    pub(super) fn get<T>(
        &mut self,
        key: &str,
        make: impl FnOnce(Value<'a>) -> Result<T, At>,
    ) -> Result<Option<T>, At> {
        self.take(key).map(make).transpose()
    }

    /// All that is left, as pairs of a key and what its value is made into.
    pub(super) fn rest<T>(
        self,
        make: impl Fn(Value<'a>) -> Result<T, At>,
    ) -> Result<Vec<(String, T)>, At> {
        let Self { section, entries, .. } = self;
        let pair = |(key, value): (Spanned<DeString<'a>>, _)| {
            let key = key.into_inner().into_owned();
            let value = make(Value::new(key.clone(), section.clone(), value))?;
            Ok((key, value))
        };
        entries.into_iter().map(pair).collect()
    }
}

impl<'a> Value<'a> {
    fn new(key: String, section: Section, value: Spanned<DeValue<'a>>) -> Self {
        let Range { start: offset, .. } = value.span();
        Self { offset, key, section, value: value.into_inner() }
    }

    /// The part of the file that it stands in.
    pub(super) fn section(&self) -> &Section {
        &self.section
    }

    /// The error of a value that means nothing.
    pub(super) fn bad(offset: usize, key: &str, section: &Section, reason: String) -> At {
        At::new(offset, Problem::BadValue { key: key.to_owned(), section: section.clone(), reason })
    }

    fn wrong(&self, wanted: &'static str) -> At {
        let found = match &self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let (key, section) = (self.key.clone(), self.section.clone());
        At::new(self.offset, Problem::WrongType { key, section, wanted, found })
    }

    /// `true` or `false`.
    pub(super) fn bool(self) -> Result<bool, At> {
        match self.value {
            DeValue::Boolean(is_so) => Ok(is_so),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// A text.
    pub(super) fn text(self) -> Result<String, At> {
        match self.value {
            DeValue::String(text) => Ok(text.into_owned()),
            _ => Err(self.wrong("a text")),
        }
    }

    /// A text that means something.
    pub(super) fn parsed<T>(self, parse: fn(&str) -> Result<T, String>) -> Result<T, At> {
        let (offset, key, section) = (self.offset, self.key.clone(), self.section.clone());
        let text = self.text()?;
        parse(&text).map_err(|reason| Self::bad(offset, &key, &section, reason))
    }

    /// The same, where a plain number means something too.
    pub(super) fn parsed_or_number<T>(
        self,
        wanted: &'static str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<T, At> {
        let text = match &self.value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| number.to_string(), |number| number.to_string()),
            DeValue::Float(number) => number.as_str().to_owned(),
            _ => return Err(self.wrong(wanted)),
        };
        parse(&text).map_err(|reason| Self::bad(self.offset, &self.key, &self.section, reason))
    }

    /// A whole number within bounds.
    pub(super) fn number(self, least: u32, most: u32) -> Result<u32, At> {
        let DeValue::Integer(number) = &self.value else {
            return Err(self.wrong("a whole number"));
        };
        let parsed = u32::from_str_radix(number.as_str(), number.radix());
        parsed.ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            let reason = format!("{number} is not between {least} and {most}");
            Self::bad(self.offset, &self.key, &self.section, reason)
        })
    }

    /// One of these words.
    pub(super) fn word(
        self,
        key: &'static str,
        words: &'static [&'static str],
    ) -> Result<&'static str, At> {
        let (offset, section) = (self.offset, self.section.clone());
        let value = self.text()?;
        words.iter().copied().find(|word| *word == value).ok_or_else(|| {
            let nearest = nearest(&value, words);
            At::new(offset, Problem::UnknownWord { key, section, value, words, nearest })
        })
    }

    /// A text, or a list of texts.
    pub(super) fn text_or_texts(self) -> Result<TextOrTexts, At> {
        let wanted = "a text or a list of texts";
        match self.value {
            DeValue::String(text) => Ok(TextOrTexts::Text(text.into_owned())),
            DeValue::Array(ref items) => {
                let text = |item: &Spanned<DeValue<'a>>| match item.get_ref() {
                    DeValue::String(text) => Ok(text.to_string()),
                    _ => {
                        let (key, section) = (self.key.clone(), self.section.clone());
                        let item = Value::new(key, section, item.clone());
                        Err(item.wrong("a list of nothing but texts"))
                    }
                };
                Ok(TextOrTexts::Texts(items.iter().map(text).collect::<Result<_, _>>()?))
            }
            _ => Err(self.wrong(wanted)),
        }
    }

    /// A table.
    pub(super) fn table(self, section: Section) -> Result<Table<'a>, At> {
        match self.value {
            DeValue::Table(table) => Ok(Table::new(section, self.offset, table)),
            _ => Err(self.wrong("a table")),
        }
    }

    /// A list of tables.
    pub(super) fn tables(
        self,
        wanted: &'static str,
        section: impl Fn(usize) -> Section,
    ) -> Result<Vec<Table<'a>>, At> {
        let DeValue::Array(items) = self.value else { return Err(self.wrong(wanted)) };
        let table = |(place, item): (usize, Spanned<DeValue<'a>>)| {
            let item = Value::new(self.key.clone(), self.section.clone(), item);
            match item.value {
                DeValue::Table(_) => item.table(section(place)),
                _ => Err(item.wrong(wanted)),
            }
        };
        items.into_iter().enumerate().map(table).collect()
    }
}

/// A text, or a list of texts.
#[derive(Debug)]
pub(super) enum TextOrTexts {
    Text(String),
    Texts(Vec<String>),
}

/// The word that was meant, if one is near.
fn nearest(word: &str, words: &[&'static str]) -> Option<&'static str> {
    let likeness = |known: &'static str| (strsim::jaro(word, known), known);
    let near = words.iter().map(|known| likeness(known)).filter(|(like, _)| *like > LIKENESS_MIN);
    near.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => write!(f, "the file"),
            Self::Defaults => write!(f, "the defaults"),
            Self::Stage(number) => write!(f, "stage {number}"),
            Self::Named(name) => write!(f, "stage {name:?}"),
        }
    }
}

struct Nearest(Option<&'static str>);

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(word) => write!(f, "; did you mean {word:?}?"),
            None => Ok(()),
        }
    }
}

struct Words<'a>(&'a [&'static str]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|word| format!("{word:?}")).collect();
        write!(f, "{}", words.join(", "))
    }
}
