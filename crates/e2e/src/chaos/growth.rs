//! An output that is watched while it grows.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Counts a file's lines without reading what it has read before.
#[derive(Debug)]
pub(super) struct Growth {
    path: PathBuf,
    read_bytes: u64,
    lines: u64,
}

impl Growth {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read_bytes: 0, lines: 0 }
    }

    /// Returns the number of lines. A file that is not there has none.
    pub(super) fn lines(&mut self) -> u64 {
        let Ok(mut file) = File::open(&self.path) else { return 0 };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        if length < self.read_bytes {
            // A sink that was started again has taken its torn end off.
            (self.read_bytes, self.lines) = (0, 0);
        }
        if file.seek(SeekFrom::Start(self.read_bytes)).is_err() {
            return self.lines;
        }
        let mut buffer = vec![0; 256 << 10];
        while let Ok(count @ 1..) = file.read(&mut buffer) {
            let newlines = buffer[..count].iter().filter(|byte| **byte == b'\n').count();
            self.read_bytes += count as u64;
            self.lines += newlines as u64;
        }
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_are_counted_as_the_file_grows_and_when_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut growth = Growth::new(&path);
        assert_eq!(growth.lines(), 0);
        for (content, lines) in [("a\nb", 1), ("a\nb\nc\n", 3), ("a\nb\nc\n", 3), ("a\n", 1)] {
            fs::write(&path, content).unwrap();
            assert_eq!(growth.lines(), lines, "{content:?}");
        }
    }
}
