//! A command line written as one line that a shell would read back the same way.

/// Bytes of a quoted command. Beyond it a joblog's line is of no use, and quoting may make a
/// large task several times larger than any message could carry.
pub const COMMAND_BYTES_MAX: usize = 64 << 10;

/// Stands at the end of what was cut off.
const CUT: &[u8] = b"...";

/// `words`, quoted where needed, with a space between them.
///
/// The result has no control characters: it is one line and one column. Bytes that are no UTF-8
/// stay as they are.
pub(super) fn line<'a>(words: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut line = Vec::new();
    for (at, word) in words.enumerate() {
        if at > 0 {
            line.push(b' ');
        }
        // Not more of a word than could be kept: it may be megabytes.
        quote(&word[..word.len().min(COMMAND_BYTES_MAX)], &mut line);
        if line.len() > COMMAND_BYTES_MAX {
            line.truncate(COMMAND_BYTES_MAX - CUT.len());
            line.extend_from_slice(CUT);
            break;
        }
    }
    line
}

fn quote(word: &[u8], line: &mut Vec<u8>) {
    if word.iter().any(u8::is_ascii_control) {
        quote_with_escapes(word, line);
    } else if word.is_empty() || !word.iter().copied().all(is_plain) {
        line.push(b'\'');
        for &byte in word {
            match byte {
                b'\'' => line.extend_from_slice(br"'\''"),
                _ => line.push(byte),
            }
        }
        line.push(b'\'');
    } else {
        line.extend_from_slice(word);
    }
}

/// `$'...'`, of POSIX 2024 and of every shell with arrays.
fn quote_with_escapes(word: &[u8], line: &mut Vec<u8>) {
    line.extend_from_slice(b"$'");
    for &byte in word {
        match byte {
            b'\n' => line.extend_from_slice(br"\n"),
            b'\t' => line.extend_from_slice(br"\t"),
            b'\r' => line.extend_from_slice(br"\r"),
            b'\'' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            // Always three digits, so that a digit that follows is not taken for a fourth.
            _ if byte.is_ascii_control() => {
                line.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            _ => line.push(byte),
        }
    }
    line.push(b'\'');
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &[&[u8]], expected: &[u8]) {
        let line = line(words.iter().copied());
        assert_eq!(line, expected, "{}", line.escape_ascii());
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_misread_them() {
        check(&[b"convert", b"a-1.png", b"x=y,z", b"100%"], b"convert a-1.png x=y,z 100%");
        check(&[b"echo", b"two words", b""], b"echo 'two words' ''");
        check(&[b"it's", b"$HOME", b"~", b"a\\b"], br"'it'\''s' '$HOME' '~' 'a\b'");
        check(&[b"a\nb", b"c\td's\\"], br"$'a\nb' $'c\td\'s\\'");
        check(&[b"\x001", b"\x1b[1m", b"\x7f"], br"$'\0001' $'\033[1m' $'\177'");
        check(&[b"caf\xc3\xa9", b"\xff\xfe"], b"'caf\xc3\xa9' '\xff\xfe'");
    }

    #[test]
    fn long_command_is_cut_off() {
        let line = line([&b"echo"[..], &vec![b'\''; 10 << 20], b"more"].into_iter());
        assert_eq!(line.len(), COMMAND_BYTES_MAX);
        assert!(line.ends_with(b"..."));
    }
}
