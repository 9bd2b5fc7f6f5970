//! The values of `::: VALUE...` after a command, as GNU parallel has them.

use std::ffi::OsString;
use std::io::{self, BufWriter, PipeReader, Write};
use std::os::unix::ffi::OsStrExt;

/// Several sources of values, of which every combination is a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Values {
    /// Those of one list are linked: they go forward together.
    lists: Vec<Vec<Source>>,
}

type Source = Vec<OsString>;

/// Why a command line cannot be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValuesError {
    /// Files instead of values.
    #[error("{0} is not there: give the file as --input")]
    Files(String),
    /// There is nothing to link to.
    #[error(":::+ links values to those of an earlier :::, and there are none")]
    Unlinked,
}

/// Takes the values off the end of a command.
pub(super) fn split(
    command: Vec<OsString>,
) -> Result<(Vec<OsString>, Option<Values>), ValuesError> {
    let mut rest = Vec::new();
    let mut lists: Vec<Vec<Source>> = Vec::new();
    for word in command {
        match word.as_bytes() {
            b":::" => lists.push(vec![Source::new()]),
            b":::+" => lists.last_mut().ok_or(ValuesError::Unlinked)?.push(Source::new()),
            b"::::" | b"::::+" => {
                return Err(ValuesError::Files(word.to_string_lossy().into_owned()));
            }
            _ => match lists.last_mut().and_then(|list| list.last_mut()) {
                Some(source) => source.push(word),
                None => rest.push(word),
            },
        }
    }
    let values = (!lists.is_empty()).then_some(Values { lists });
    Ok((rest, values))
}

impl Values {
    /// How many values make a task.
    pub(super) fn sources(&self) -> usize {
        self.lists.iter().map(Vec::len).sum()
    }

    /// Writes each task's values, and a NUL after each value. The last source varies fastest.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // The shortest of those that are linked is the end of all.
        let lengths: Vec<usize> =
            self.lists.iter().map(|list| list.iter().map(Vec::len).min().unwrap_or(0)).collect();
        if lengths.contains(&0) {
            return Ok(());
        }
        let mut places = vec![0; lengths.len()];
        loop {
            for (list, place) in self.lists.iter().zip(&places) {
                for source in list {
                    out.write_all(source[*place].as_bytes())?;
                    out.write_all(&[0])?;
                }
            }
            let last = (0..places.len()).rev().find(|&at| places[at] + 1 < lengths[at]);
            let Some(last) = last else { return Ok(()) };
            places[last] += 1;
            places[last + 1..].fill(0);
        }
    }

    /// The same, from a thread of its own: there may be more combinations than memory holds.
    pub(super) fn reader(self) -> io::Result<PipeReader> {
        let (reader, writer) = io::pipe()?;
        std::thread::Builder::new().name("values".to_owned()).spawn(move || {
            let mut writer = BufWriter::new(writer);
            // Whoever reads may stop before the end.
            let _ = self.write(&mut writer).and_then(|()| writer.flush());
        })?;
        Ok(reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect()
    }

    #[test]
    fn every_combination_is_a_task() {
        let check = |line: &str, command: &str, sources: usize, tasks: &[&str]| {
            let (rest, values) = split(words(line)).unwrap();
            assert_eq!(rest, words(command), "{line}");
            let values = values.unwrap();
            let mut written = Vec::new();
            values.write(&mut written).unwrap();
            let written = String::from_utf8(written).unwrap();
            let found: Vec<_> = written.split_terminator('\0').collect();
            let found: Vec<_> = found.chunks(sources).map(|task| task.join(" ")).collect();
            assert_eq!(found, tasks, "{line}");
            assert_eq!(values.sources(), sources, "{line}");
        };
        check("c -x ::: a b", "c -x", 1, &["a", "b"]);
        check("c :::", "c", 1, &[]);
        check("c ::: a ::: ", "c", 2, &[]);
        check("::: a", "", 1, &["a"]);
        check("c ::: a b ::: 1 2 3", "c", 2, &["a 1", "a 2", "a 3", "b 1", "b 2", "b 3"]);
        check("c ::: a b :::+ 1 2", "c", 2, &["a 1", "b 2"]);
        check("c ::: a b c :::+ 1 2", "c", 2, &["a 1", "b 2"]);
        check("c ::: a b :::+ 1 2 ::: x y", "c", 3, &["a 1 x", "a 1 y", "b 2 x", "b 2 y"]);
        check("c ::: x y ::: a b :::+ 1 2", "c", 3, &["x a 1", "x b 2", "y a 1", "y b 2"]);
    }

    #[test]
    fn a_command_without_values_is_left_as_it_is() {
        assert_eq!(split(words("c ::a :: :::x")), Ok((words("c ::a :: :::x"), None)));
        assert_eq!(split(words("c :::+ a")), Err(ValuesError::Unlinked));
        assert_eq!(split(words("c :::: a")), Err(ValuesError::Files("::::".to_owned())));
    }

    #[test]
    fn whoever_reads_may_stop_early() {
        let many = "a b c d e f g h i j k l m n o p q r s t";
        let line = format!("c ::: {many} ::: {many} ::: {many} ::: {many} ::: {many} ::: {many}");
        let mut reader = split(words(&line)).unwrap().1.unwrap().reader().unwrap();
        let mut begin = [0; 12];
        io::Read::read_exact(&mut reader, &mut begin).unwrap();
        assert_eq!(&begin, b"a\0a\0a\0a\0a\0a\0");
    }
}
