//! The end of what a command wrote to stderr, and error texts of bounded length.

use tradewind_proto::limits::ERROR_BYTES_MAX;

/// Keeps the last [`ERROR_BYTES_MAX`] bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
        // Now and then rather than each time: every cut moves what stays.
        if self.bytes.len() > 4 * ERROR_BYTES_MAX {
            self.cut();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn cut(&mut self) {
        if self.bytes.len() > ERROR_BYTES_MAX {
            self.bytes.drain(..self.bytes.len() - ERROR_BYTES_MAX);
            self.cut = true;
        }
    }

    /// At most `bytes_max` bytes of text; what is no UTF-8 is replaced.
    pub(super) fn text(mut self, bytes_max: usize) -> String {
        self.cut();
        let mut bytes = self.bytes.trim_ascii_end();
        if self.cut {
            // The first character may have lost its first bytes: that is no garbage of theirs.
            let broken = bytes.iter().take(3).take_while(|&&byte| byte & 0xc0 == 0x80).count();
            bytes = &bytes[broken..];
        }
        let text = String::from_utf8_lossy(bytes);
        // A replacement character is longer than the byte it stands for.
        let mut start = text.len().saturating_sub(bytes_max);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text[start..].to_owned()
    }
}

/// The beginning of a text, at most [`ERROR_BYTES_MAX`] bytes of it.
pub(crate) fn clip(mut text: String) -> String {
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(chunks: &[&[u8]], bytes_max: usize) -> String {
        let mut tail = Tail::default();
        for chunk in chunks {
            tail.push(chunk);
        }
        tail.text(bytes_max)
    }

    #[test]
    fn tail_is_the_end_of_the_text() {
        #[track_caller]
        fn check(chunks: &[&[u8]], bytes_max: usize, expected: &str) {
            assert_eq!(tail(chunks, bytes_max), expected);
        }
        check(&[], 10, "");
        check(&[b"one\n", b"two\n\n"], 10, "one\ntwo");
        check(&[b"0123456789"], 4, "6789");
        check(&["aéé".as_bytes()], 3, "é");
        check(&[b"a\xffb"], 10, "a\u{fffd}b");
        check(&[b"\x80"], 10, "\u{fffd}");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        for padding in 0..4 {
            let text = format!("{}{}", "x".repeat(padding), "€".repeat(20_000));
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
            let tail = tail(&chunks, ERROR_BYTES_MAX);
            assert!(tail.chars().all(|c| c == '€'), "cut inside a character");
            assert_eq!(tail.len(), ERROR_BYTES_MAX / 3 * 3);
        }
    }

    #[test]
    fn garbage_stays_within_the_limit() {
        let tail = tail(&[&[0xff; 100_000]], ERROR_BYTES_MAX);
        assert!(tail.len() <= ERROR_BYTES_MAX && tail.len() > ERROR_BYTES_MAX - 3);
    }

    #[test]
    fn clipped_text_ends_between_characters() {
        assert_eq!(clip("short".to_owned()), "short");
        assert_eq!(clip("€".repeat(ERROR_BYTES_MAX)).len(), ERROR_BYTES_MAX / 3 * 3);
    }
}
