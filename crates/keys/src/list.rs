//! Small lists in files: a line for each entry, `#` begins a comment.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::KeysError;
use crate::fingerprint::Fingerprint;
use crate::private;

/// Name of the list of banned keys, in a folder of keys or beside a token.
pub(crate) const BANNED: &str = "banned";

/// Reads a list; one that is not there is empty.
///
/// # Errors
/// When it cannot be read, or a line is not understood.
pub(crate) fn read<T>(
    path: &Path,
    parse: impl Fn(&[&str]) -> Option<T>,
) -> Result<Vec<T>, KeysError> {
    let text = text(path)?;
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let fields: Vec<_> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        if fields.is_empty() {
            continue;
        }
        entries.push(parse(&fields).ok_or_else(|| KeysError::List {
            path: path.to_owned(),
            line: at + 1,
            what: format!("{:?} is not understood", fields.join(" ")),
        })?);
    }
    Ok(entries)
}

pub(crate) fn banned(path: &Path) -> Result<Vec<Fingerprint>, KeysError> {
    read(path, |fields| match fields {
        [fingerprint] => fingerprint.parse().ok(),
        _ => None,
    })
}

/// Adds a line.
pub(crate) fn add(path: &Path, line: &str) -> Result<(), KeysError> {
    let mut text = text(path)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
    private::replace(path, text.as_bytes())
}

/// Adds a banned key; returns whether it was not there before.
pub(crate) fn ban(path: &Path, fingerprint: Fingerprint) -> Result<bool, KeysError> {
    if banned(path)?.contains(&fingerprint) {
        return Ok(false);
    }
    add(path, &fingerprint.to_string()).map(|()| true)
}

fn text(path: &Path) -> Result<String, KeysError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(why) => Err(KeysError::Io { path: path.to_owned(), why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_is_added_once_and_comments_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(BANNED);
        assert_eq!(banned(&path).unwrap(), []);
        fs::write(&path, "# stolen laptop\n\nba7816bf8f01cfea414140de5dae2223 # of May").unwrap();
        let first = banned(&path).unwrap();
        let second = Fingerprint::of_key(b"x");
        assert!(!ban(&path, first[0]).unwrap());
        assert!(ban(&path, second).unwrap() && !ban(&path, second).unwrap());
        assert_eq!(banned(&path).unwrap(), [first[0], second]);
        assert!(fs::read_to_string(&path).unwrap().starts_with("# stolen laptop\n"));
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error_and_no_ban_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(BANNED);
        fs::write(&path, "# one\nba7816\n").unwrap();
        let error = banned(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("ba7816"), "{error}");
    }
}
