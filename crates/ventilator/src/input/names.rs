//! Rows as JSON: objects if there are names for the fields, arrays otherwise.

use std::collections::HashMap;

use super::BadRow;

/// The names of the fields, in their order.
#[derive(Debug)]
pub(super) struct Names {
    /// Each as JSON, with the colon after it.
    keys: Vec<Vec<u8>>,
}

impl Names {
    /// The names that a header has.
    pub(super) fn new<'a>(header: impl Iterator<Item = &'a [u8]>) -> Result<Self, BadRow> {
        let mut keys = Vec::new();
        let mut columns = HashMap::new();
        for (column, name) in (1..).zip(header) {
            let name = text(name, column)?;
            if let Some(first) = columns.insert(name, column) {
                return Err(BadRow::NameTwice { name: name.to_owned(), first, second: column });
            }
            let mut key = Vec::with_capacity(name.len() + 3);
            push_string(name, &mut key);
            key.push(b':');
            keys.push(key);
        }
        Ok(Self { keys })
    }

    /// Adds a row to the end of `out`, as an object. After an error, what was added is of no use.
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

/// Adds a row to the end of `out`, as an array. After an error, what was added is of no use.
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
