//! What is wrong with a row.

/// Why a row is no task. The columns of text count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRow {
    /// A line of jsonl is not JSON.
    #[error("column {column} is not JSON: {reason}")]
    NotJson {
        /// The byte of the line where that shows.
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
    /// JSON is UTF-8, and so is everything that is put into it.
    #[error("column {column} is not UTF-8")]
    NotUtf8 {
        /// The byte of a line of jsonl; otherwise the number of the field.
        column: usize,
    },
    /// It has not as many fields as there are names.
    #[error("{found} where the header has {wanted}", found = fields(*found))]
    Fields {
        /// How many it has.
        found: usize,
        /// How many there should be.
        wanted: usize,
    },
    /// It has more fields than a row may have.
    #[error("more than {most} fields")]
    TooManyFields {
        /// How many it may have.
        most: usize,
    },
    /// The rest of the input lies in quotes.
    #[error("a quote that begins in this row has no end")]
    OpenQuote,
    /// The header gives two columns one name.
    #[error("the header has the name {name:?} twice, in columns {first} and {second}")]
    NameTwice {
        /// The name.
        name: String,
        /// Where it is.
        first: usize,
        /// Where it is again.
        second: usize,
    },
    /// The header lacks a field that every task would need.
    #[error(
        "the command asks for the field {field:?}, which the header does not have: it has {has}"
    )]
    NoField {
        /// As the command has it.
        field: String,
        /// Names in the header, for display.
        has: String,
    },
    /// The header is longer than a task may be.
    #[error("the header has {bytes} bytes, more than the {most} that a row may have")]
    HeaderTooLarge {
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        most: usize,
    },
}

fn fields(count: usize) -> String {
    if count == 1 { "1 field".to_owned() } else { format!("{count} fields") }
}
