//! The end of what a command wrote to stderr, and error texts of bounded length.

use tradewind_proto::limits::{ERROR_BYTES_MAX, STDERR_BYTES_MAX};

/// Keeps the last [`STDERR_BYTES_MAX`] bytes of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    /// Bytes before these.
    left_out: u64,
}

/// Bytes of the line that says how much is missing.
const HEAD_BYTES_MAX: usize = 64;

impl Tail {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
        // Now and then rather than each time: every cut moves what stays.
        if self.bytes.len() > 4 * STDERR_BYTES_MAX {
            self.cut(STDERR_BYTES_MAX);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the end as text of at most about `bytes_max` bytes; what is no UTF-8 is replaced.
    pub(super) fn text(&self, bytes_max: usize) -> String {
        let text = String::from_utf8_lossy(self.bytes.trim_ascii_end());
        let mut start = text.len().saturating_sub(bytes_max);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text[start..].to_owned()
    }

    fn cut(&mut self, bytes_max: usize) {
        let more = self.bytes.len().saturating_sub(bytes_max);
        self.bytes.drain(..more);
        self.left_out += more as u64;
    }

    /// All of it, or the end after a line that says how much is missing: at most
    /// [`STDERR_BYTES_MAX`] bytes.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        if self.left_out == 0 && self.bytes.len() <= STDERR_BYTES_MAX {
            self.bytes.shrink_to_fit();
            return self.bytes;
        }
        self.cut(STDERR_BYTES_MAX - HEAD_BYTES_MAX);
        // The first character may have lost its first bytes: that is no garbage of theirs.
        let broken = self.bytes.iter().take(3).take_while(|&&byte| byte & 0xc0 == 0x80).count();
        self.cut(self.bytes.len() - broken);
        let mut bytes = format!("[{} bytes are left out]\n", self.left_out).into_bytes();
        bytes.append(&mut self.bytes);
        bytes
    }
}

/// The beginning of a text, at most [`ERROR_BYTES_MAX`] bytes of it.
pub fn clip(mut text: String) -> String {
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

    fn tail(chunks: &[&[u8]]) -> Vec<u8> {
        let mut tail = Tail::default();
        for chunk in chunks {
            tail.push(chunk);
        }
        tail.into_bytes()
    }

    #[test]
    fn what_fits_is_kept_as_it_is() {
        assert_eq!(tail(&[]), b"");
        assert_eq!(tail(&[b"one\n", b"t\xffwo\n\n"]), b"one\nt\xffwo\n\n");
        let long = vec![b'x'; STDERR_BYTES_MAX];
        assert_eq!(tail(&[&long]), long);
    }

    #[test]
    fn of_what_does_not_fit_the_end_is_kept_and_the_rest_is_counted() {
        for count in [STDERR_BYTES_MAX + 1, 100_000, 1_000_000] {
            let long: Vec<u8> = (0..count).map(|at| b'a' + (at % 26) as u8).collect();
            let chunks: Vec<&[u8]> = long.chunks(7_000).collect();
            let kept = tail(&chunks);
            assert!(kept.len() <= STDERR_BYTES_MAX, "{}", kept.len());
            let text = String::from_utf8(kept).unwrap();
            let (head, end) = text.split_once('\n').unwrap();
            assert!(long.ends_with(end.as_bytes()) && end.len() > STDERR_BYTES_MAX - 100);
            assert_eq!(head, format!("[{} bytes are left out]", count - end.len()));
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        for padding in 0..4 {
            let text = format!("{}{}", "x".repeat(padding), "€".repeat(50_000));
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
            let kept = String::from_utf8(tail(&chunks)).unwrap();
            let (_, end) = kept.split_once('\n').unwrap();
            assert!(end.chars().all(|c| c == '€'), "cut inside a character");
        }
    }

    #[test]
    fn clipped_text_ends_between_characters() {
        assert_eq!(clip("short".to_owned()), "short");
        assert_eq!(clip("€".repeat(ERROR_BYTES_MAX)).len(), ERROR_BYTES_MAX / 3 * 3);
    }
}
