//! Rows as JSON: objects if there are names for the fields, arrays otherwise.

use std::collections::HashMap;

use super::BadRow;

/// Names of the fields, in their order.
#[derive(Debug)]
pub(super) struct Names {
    /// Each name as JSON, with the colon after it.
    keys: Vec<Vec<u8>>,
}

/// Fields that the tasks' command uses, each with its possible names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked(Option<Vec<Vec<String>>>);

impl Asked {
    /// Fields, if they are known.
    #[must_use]
    pub fn new(fields: Option<Vec<Vec<String>>>) -> Self {
        Self(fields)
    }

    /// Returns whether the command may use a field of this name.
    fn may_include(&self, name: &str) -> bool {
        let Some(fields) = &self.0 else { return !name.is_empty() };
        fields.iter().flatten().any(|other| other == name)
    }

    /// Checks that the header has all of them.
    fn check(&self, columns: &HashMap<&str, usize>, count: usize) -> Result<(), BadRow> {
        let is_place = |name: &str| {
            let place = name.parse::<i64>().ok().filter(|_| !name.starts_with('+'));
            place.is_some_and(|place| (1..=count as u64).contains(&place.unsigned_abs()))
        };
        let is_there = |names: &&Vec<String>| {
            names.iter().any(|name| columns.contains_key(name.as_str()) || is_place(name))
        };
        let Some(missing) = self.0.iter().flatten().find(|names| !is_there(names)) else {
            return Ok(());
        };
        let mut has: Vec<_> = columns.iter().map(|(name, column)| (column, name)).collect();
        has.sort_unstable();
        let mut list = String::new();
        for (_, name) in has {
            if list.len() + name.len() > LIST_BYTES_MAX {
                list += " ...";
                break;
            }
            list += if list.is_empty() { "" } else { ", " };
            list += &format!("{name:?}");
        }
        Err(BadRow::NoField { field: missing[0].clone(), has: list })
    }
}

/// Bytes of an error's list of names. Some headers have thousands.
const LIST_BYTES_MAX: usize = 400;

impl Names {
    /// Returns the names of a header, if it has the required fields. Two columns may have the same
    /// name as long as no command uses it.
    pub(super) fn new<'a>(
        header: impl Iterator<Item = &'a [u8]>,
        asked: &Asked,
    ) -> Result<Self, BadRow> {
        let mut keys = Vec::new();
        let mut columns = HashMap::new();
        for (column, name) in (1..).zip(header) {
            let name = text(name, column)?;
            if let Some(first) = columns.insert(name, column)
                && asked.may_include(name)
            {
                return Err(BadRow::NameTwice { name: name.to_owned(), first, second: column });
            }
            let mut key = Vec::with_capacity(name.len() + 3);
            push_string(name, &mut key);
            key.push(b':');
            keys.push(key);
        }
        asked.check(&columns, keys.len())?;
        Ok(Self { keys })
    }

    /// Appends a row to `out`, as an object. After an error, the appended bytes are of no use.
    pub(super) fn push_object<'a>(
        &self,
        row: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadRow> {
        let mut found = 0;
        out.push(b'{');
        for field in row {
            if let Some(key) = self.keys.get(found) {
                if found > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(key);
                push_string(text(field, found + 1)?, out);
            }
            found += 1;
        }
        out.push(b'}');
        let wanted = self.keys.len();
        if found == wanted { Ok(()) } else { Err(BadRow::Fields { found, wanted }) }
    }
}

/// Appends a row to `out`, as an array. After an error, the appended bytes are of no use.
#[cfg(feature = "formats")]
pub(super) fn push_array<'a>(
    row: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<(), BadRow> {
    out.push(b'[');
    for (column, field) in (1..).zip(row) {
        if column > 1 {
            out.push(b',');
        }
        push_string(text(field, column)?, out);
    }
    out.push(b']');
    Ok(())
}

fn text(field: &[u8], column: usize) -> Result<&str, BadRow> {
    std::str::from_utf8(field).map_err(|_| BadRow::NotUtf8 { column })
}

fn push_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("every text is a JSON string, and memory takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &[&str], asked: Option<&[&[&str]]>, wanted: &str) {
        let owned = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let asked = Asked::new(asked.map(|fields| fields.iter().map(owned).collect()));
        let found = Names::new(header.iter().map(|name| name.as_bytes()), &asked);
        let found = found.map_or_else(|bad| bad.to_string(), |_| String::new());
        assert_eq!(found, wanted, "{header:?}");
    }

    #[test]
    fn a_field_that_is_asked_for_has_to_be_there_by_name_or_place() {
        let header = &["name", "mail", "a."];
        check(header, Some(&[]), "");
        check(header, Some(&[&["name"], &["mail"], &["1"], &["3"], &["-3"]]), "");
        check(header, Some(&[&["name.", "name"], &["a."]]), "");
        let lacks = |field: &str| {
            format!(
                "the command asks for the field {field:?}, which the header does not have: it has \
                 \"name\", \"mail\", \"a.\""
            )
        };
        check(header, Some(&[&["name"], &["Name"]]), &lacks("Name"));
        check(header, Some(&[&["4"]]), &lacks("4"));
        check(header, Some(&[&["0"]]), &lacks("0"));
        check(header, Some(&[&["-4"]]), &lacks("-4"));
        check(header, Some(&[&["b.", "b"]]), &lacks("b."));
        // The fields are unknown.
        check(header, None, "");
    }

    #[test]
    fn a_name_may_be_there_twice_if_no_command_uses_it() {
        let twice = "the header has the name \"a\" twice, in columns 1 and 3";
        check(&["a", "b", "a"], None, twice);
        check(&["a", "b", "a"], Some(&[&["b"], &["a"]]), twice);
        check(&["a", "b", "a"], Some(&[&["b"], &["2"]]), "");
        check(&["a", "b", "", ""], None, "");
    }
}
