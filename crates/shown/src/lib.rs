//! Text that others chose, made fit for a terminal, a log or a table.
//!
//! A peer, a task or a file may hold characters that move a cursor, set a title, begin a line that looks
//! like one of ours, or turn the direction in which the rest is read. Whatever a person is shown goes
//! through here: such characters appear as Rust writes them, `\n` or `\u{1b}`. Ordinary text, a backslash
//! too, stays as it is.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns whether a character does something else than to be seen: control characters (C0, DEL, C1),
/// separators of lines and paragraphs, characters that turn the direction of text or have no width, and
/// tags (Unicode's `Cc`, `Zl` and `Zp`, and of `Cf` those that do not show).
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Returns whether a text has no [hidden](is_hidden) character.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    // Printable ASCII, as a rule.
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(is_hidden)
}

/// Returns a text on one line, with its [hidden](is_hidden) characters escaped.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push(c, &mut shown));
    Cow::Owned(shown)
}

/// Returns bytes that need not be UTF-8 as a text on one line: what is not UTF-8 appears as `\x9b`.
#[must_use]
pub fn shown_bytes(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => shown(text),
        Err(_) => {
            let mut shown = String::with_capacity(bytes.len() + 16);
            push_bytes(bytes, push, &mut shown);
            Cow::Owned(shown)
        }
    }
}

/// Returns bytes that need not be UTF-8 as text that may have several lines: newlines, with a carriage
/// return before them or not, and tabs stay. All else is as with [`shown_bytes`].
#[must_use]
pub fn shown_lines(bytes: &[u8]) -> Cow<'_, str> {
    let is_plain_line =
        |line: &str| line.split('\t').all(|cell| is_plain(cell.strip_suffix('\n').unwrap_or(cell)));
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.split_inclusive('\n').all(is_plain_line)
    {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(bytes.len() + 16);
    let push_unless_layout = |c, shown: &mut String| match c {
        '\n' | '\t' => shown.push(c),
        _ => push(c, shown),
    };
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => {
                push_bytes(line, push_unless_layout, &mut shown);
                shown.push('\n');
            }
            None => push_bytes(line, push_unless_layout, &mut shown),
        }
    }
    Cow::Owned(shown)
}

fn push(c: char, shown: &mut String) {
    if is_hidden(c) {
        shown.extend(c.escape_default());
    } else {
        shown.push(c);
    }
}

fn push_bytes(bytes: &[u8], push: impl Fn(char, &mut String), shown: &mut String) {
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(c, shown));
        for byte in chunk.invalid() {
            write!(shown, "\\x{byte:02x}").expect("writing to memory does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in ["", "host-1", r"C:\new 'x' {}", "übung 漢字 🦀", "a\u{301}"] {
            assert!(is_plain(text), "{text}");
            assert!(matches!(shown(text), Cow::Borrowed(same) if same == text));
            assert!(matches!(shown_bytes(text.as_bytes()), Cow::Borrowed(same) if same == text));
        }
        for text in ["one\n\ttwo\n", "no end", "\n", "\t"] {
            assert!(matches!(shown_lines(text.as_bytes()), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_does_something_to_a_terminal_is_escaped() {
        let cases = [
            ("\x1b[31mred\x07", r"\u{1b}[31mred\u{7}"),
            ("a\nb\tc\rd\0", r"a\nb\tc\rd\u{0}"),
            ("\u{9b}2J\x7f", r"\u{9b}2J\u{7f}"),
            ("abc\u{202e}txt.exe", r"abc\u{202e}txt.exe"),
            ("one\u{2028}two\u{2029}", r"one\u{2028}two\u{2029}"),
            ("zero\u{200b}width\u{feff}", r"zero\u{200b}width\u{feff}"),
            ("\u{2066}\u{61c}\u{e0041}", r"\u{2066}\u{61c}\u{e0041}"),
        ];
        for (text, wanted) in cases {
            assert!(!is_plain(text));
            assert_eq!(shown(text), wanted);
            assert_eq!(shown_bytes(text.as_bytes()), wanted);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_numbers() {
        assert_eq!(shown_bytes(b"caf\xe9 \x9b2J\n"), r"caf\xe9 \x9b2J\n");
        assert_eq!(shown_bytes(b"\xf0\x9f"), r"\xf0\x9f");
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(shown_lines(b"one\r\ntwo\x1b]0;x\x07\n\tthree\xff"), {
            "one\ntwo\\u{1b}]0;x\\u{7}\n\tthree\\xff"
        });
        assert_eq!(shown_lines(b"10%\r20%\r\n"), "10%\\r20%\n");
    }
}
