//! Errors in a row.

/// Reason why a row is no task. The columns of text count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRow {
    /// A line of jsonl is not JSON.
    #[error("column {column} is not JSON: {reason}")]
    NotJson {
        /// Number of the byte in the line at which that shows.
        column: usize,
        /// Message of the parser.
        reason: String,
    },
    /// It is JSON without fields.
    #[error("a row is an object or an array, not {found}")]
    NoFields {
        /// Kind of JSON value that was found.
        found: &'static str,
    },
    /// A field is not UTF-8, as JSON has to be.
    #[error("column {column} is not UTF-8")]
    NotUtf8 {
        /// Number of the byte in a line of jsonl; otherwise number of the field.
        column: usize,
    },
    /// The number of fields is not the number of names.
    #[error("{found} where the header has {wanted}", found = fields(*found))]
    Fields {
        /// Number of fields.
        found: usize,
        /// Number of names.
        wanted: usize,
    },
    /// The row has more fields than are allowed.
    #[error("more than {most} fields")]
    TooManyFields {
        /// Largest number of fields.
        most: usize,
    },
    /// The rest of the input lies in quotes.
    #[error("a quote that begins in this row has no end")]
    OpenQuote,
    /// The header gives two columns one name.
    #[error("the header has the name {name:?} twice, in columns {first} and {second}")]
    NameTwice {
        /// Name of both.
        name: String,
        /// Number of the first column.
        first: usize,
        /// Number of the second column.
        second: usize,
    },
    /// The header lacks a field that every task would need.
    #[error(
        "the command asks for the field {field:?}, which the header does not have: it has {has}"
    )]
    NoField {
        /// Name in the command.
        field: String,
        /// Names in the header, for display.
        has: String,
    },
    /// The header is longer than a task may be.
    #[error("the header has {bytes} bytes, more than the {most} that a row may have")]
    HeaderTooLarge {
        /// Bytes of the header.
        bytes: u64,
        /// Largest number of bytes.
        most: usize,
    },
}

fn fields(count: usize) -> String {
    if count == 1 { "1 field".to_owned() } else { format!("{count} fields") }
}
