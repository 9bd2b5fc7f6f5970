//! Column separators: `--colsep`, as in GNU parallel.

use std::fmt;
use std::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};

/// A separator of columns: one character, or a regular expression.
///
/// A single character is itself, `|` and `.` included: as expressions they would be of no use.
/// Expressions see bytes, so that columns need not be UTF-8.
#[derive(Clone, Debug)]
pub struct Colsep {
    text: String,
    regex: Regex,
}

impl Colsep {
    /// Text of the separator as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the columns of a line, without the spaces around them. There is always one.
    pub fn split<'s, 'l>(&'s self, line: &'l [u8]) -> impl Iterator<Item = &'l [u8]> + use<'s, 'l> {
        self.regex.split(line).map(<[u8]>::trim_ascii)
    }

    /// Returns the separator if it is always the same byte, written as `,`, as `\t` or as `\|`.
    #[must_use]
    pub fn byte(&self) -> Option<u8> {
        match self.text.as_bytes() {
            [byte] => Some(*byte),
            br"\t" => Some(b'\t'),
            [b'\\', byte] if byte.is_ascii_punctuation() => Some(*byte),
            _ => None,
        }
    }
}

impl FromStr for Colsep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pattern = if text.chars().count() == 1 { regex::escape(text) } else { text.to_owned() };
        let regex = RegexBuilder::new(&pattern).unicode(false).build().map_err(|error| {
            // The last line names the error, those before it draw its place.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("not a regular expression: {reason}")
        })?;
        if regex.is_match(b"") {
            return Err("the pattern matches the empty string".to_owned());
        }
        Ok(Self { text: text.to_owned(), regex })
    }
}

impl fmt::Display for Colsep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Colsep {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Colsep {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_gnu_parallel_splits_them() {
        let check = |colsep: &str, line: &str, columns: &[&str]| {
            let colsep: Colsep = colsep.parse().unwrap();
            let found: Vec<_> = colsep.split(line.as_bytes()).collect();
            let wanted: Vec<_> = columns.iter().map(|column| column.as_bytes()).collect();
            assert_eq!(found, wanted, "{line:?} at {colsep}");
        };
        check(",", "a,b", &["a", "b"]);
        check(",", "", &[""]);
        check(",", ",a,,", &["", "a", "", ""]);
        check(",", " a ,\tb\r", &["a", "b"]);
        check(r"\t", "a b\tc", &["a b", "c"]);
        check(r"\s+", "a  b \t c", &["a", "b", "c"]);
        check("[,;] *", "a; b,c", &["a", "b", "c"]);
        check("::", "a::b:c", &["a", "b:c"]);
        check("|", "a|b", &["a", "b"]);
        check(r"\|", "a|b", &["a", "b"]);
        check(".", "a.b", &["a", "b"]);
        check("→", "a→b", &["a", "b"]);
        check("→+", "a→b", &["a", "b"]);
        check("x", "grüße", &["grüße"]);
    }

    #[test]
    fn columns_need_not_be_utf8() {
        let colsep: Colsep = ",".parse().unwrap();
        assert_eq!(colsep.split(b"\xff,\xfe").collect::<Vec<_>>(), [b"\xff", b"\xfe"]);
    }

    #[test]
    fn what_separates_nothing_is_refused() {
        let check = |text: &str, wanted: &str| {
            assert_eq!(text.parse::<Colsep>().map(drop), Err(wanted.to_owned()), "{text:?}");
        };
        let nothing = "the pattern matches the empty string";
        check("", nothing);
        check(" *", nothing);
        check("a|", nothing);
        check("[,", "not a regular expression: unclosed character class");
    }

    #[test]
    fn a_byte_is_known_as_one() {
        let check = |text: &str, wanted: Option<u8>| {
            assert_eq!(text.parse::<Colsep>().unwrap().byte(), wanted, "{text:?}");
        };
        check(",", Some(b','));
        check("|", Some(b'|'));
        check(r"\|", Some(b'|'));
        check(r"\t", Some(b'\t'));
        check("\t", Some(b'\t'));
        check(r"\s", None);
        check(", ", None);
        check("→", None);
    }
}
