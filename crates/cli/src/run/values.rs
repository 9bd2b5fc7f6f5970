//! The values of `::: VALUE...` and `:::: FILE...` after a command, as GNU parallel has them.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, PipeReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use tradewind_input::{Delimiter, InputError, InputPath};

/// Several sources of values, of which every combination is a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Values {
    /// Those of one list are linked: they go forward together.
    lists: Vec<Vec<Source>>,
}

/// Source of values.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The words after a `:::`.
    Words(Vec<OsString>),
    /// The lines of a file after a `::::`.
    File(InputPath),
}

/// Values that are all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Combinations {
    /// By list, by source.
    lists: Vec<Vec<Vec<OsString>>>,
}

/// Why a command line cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValuesError {
    /// There is nothing to link to.
    #[error("{word} links values to those of an earlier ::: or ::::, and there are none")]
    Unlinked {
        /// `:::+` or `::::+`.
        word: &'static str,
    },
    /// A `::::` without a file.
    #[error("{word} takes values from the files after it, and there is none")]
    NoFile {
        /// `::::` or `::::+`.
        word: &'static str,
    },
}

/// Why a file has no values.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Values are passed on with NULs between them, and no argument can have one.
    #[error("{input}, line {line}: a value cannot contain a NUL; with -0 values end with it")]
    Nul {
        /// The file.
        input: InputPath,
        /// The line, from 1.
        line: usize,
    },
}

/// Takes the values off the end of a command.
pub(super) fn split(
    command: Vec<OsString>,
) -> Result<(Vec<OsString>, Option<Values>), ValuesError> {
    let mut words = command.into_iter().peekable();
    let mut rest = Vec::new();
    let mut lists: Vec<Vec<Source>> = Vec::new();
    while let Some(word) = words.next() {
        let Some(separator) = separator(&word) else {
            rest.push(word);
            continue;
        };
        let mut values = Vec::new();
        while let Some(value) = words.next_if(|word| self::separator(word).is_none()) {
            values.push(value);
        }
        if separator.is_linked && lists.is_empty() {
            return Err(ValuesError::Unlinked { word: separator.word });
        }
        let sources = match separator.has_files {
            false => vec![Source::Words(values)],
            true if values.is_empty() => return Err(ValuesError::NoFile { word: separator.word }),
            true => values.into_iter().map(|path| Source::File(path.into())).collect(),
        };
        match lists.last_mut().filter(|_| separator.is_linked) {
            Some(list) => list.extend(sources),
            // Each file is a source of its own.
            None => lists.extend(sources.into_iter().map(|source| vec![source])),
        }
    }
    let values = (!lists.is_empty()).then_some(Values { lists });
    Ok((rest, values))
}

impl Values {
    /// Places that values are read from.
    pub(super) fn files(&self) -> Vec<InputPath> {
        let sources = self.lists.iter().flatten();
        let file = |source: &Source| match source {
            Source::File(path) => Some(path.clone()),
            Source::Words(_) => None,
        };
        sources.filter_map(file).collect()
    }
}

/// A word that begins a list of values.
struct Separator {
    word: &'static str,
    is_linked: bool,
    has_files: bool,
}

fn separator(word: &OsStr) -> Option<Separator> {
    let new = |word, is_linked, has_files| Some(Separator { word, is_linked, has_files });
    match word.as_bytes() {
        b":::" => new(":::", false, false),
        b":::+" => new(":::+", true, false),
        b"::::" => new("::::", false, true),
        b"::::+" => new("::::+", true, true),
        _ => None,
    }
}

impl Values {
    /// Number of values that make a task.
    pub(super) fn sources(&self) -> usize {
        self.lists.iter().map(Vec::len).sum()
    }

    /// The file, if its lines are all that there is: they need not be combined with anything.
    pub(super) fn only_file(&self) -> Option<&InputPath> {
        let [list] = &self.lists[..] else { return None };
        let [Source::File(path)] = &list[..] else { return None };
        Some(path)
    }

    /// Reads the files, to their ends: each of their lines is needed again and again.
    pub(super) fn read(self, delimiter: Delimiter) -> Result<Combinations, FileError> {
        let read = |source| match source {
            Source::Words(words) => Ok(words),
            Source::File(path) => read_lines(&path, delimiter),
        };
        let list = |list: Vec<Source>| list.into_iter().map(read).collect();
        Ok(Combinations { lists: self.lists.into_iter().map(list).collect::<Result<_, _>>()? })
    }
}

fn read_lines(path: &InputPath, delimiter: Delimiter) -> Result<Vec<OsString>, FileError> {
    let mut bytes = Vec::new();
    let read = tradewind_input::open(path)?.reader.read_to_end(&mut bytes);
    read.map_err(|reason| InputError::Read { input: path.clone(), reason })?;
    let delimiter = delimiter.byte();
    if bytes.last() == Some(&delimiter) {
        bytes.pop();
    } else if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let lines = (1..).zip(bytes.split(|byte| *byte == delimiter));
    let value = |(line, value): (usize, &[u8])| match value.contains(&0) {
        true => Err(FileError::Nul { input: path.clone(), line }),
        false => Ok(OsString::from_vec(value.to_vec())),
    };
    lines.map(value).collect()
}

impl Combinations {
    /// Writes each task's values, and a NUL after each value. The last list varies fastest.
    ///
    /// Each task is worked out from its number alone. (An odometer, whose lower places are filled
    /// with zeros when a higher one moves, is what rustc 1.95 to 1.97 miscompile at opt-level 3
    /// with LTO: they take that store for redundant where `calloc` gave the memory.)
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // The shortest of those that are linked is the end of all.
        let length = |list: &Vec<Vec<OsString>>| list.iter().map(Vec::len).min().unwrap_or(0);
        let mut count: u64 = 1;
        let mut lists = Vec::with_capacity(self.lists.len());
        for list in self.lists.iter().rev() {
            let length = length(list) as u64;
            lists.push((list, length, count));
            // The end of more would not be seen.
            count = count.saturating_mul(length);
        }
        lists.reverse();
        for task in 0..count {
            for (list, length, stride) in &lists {
                let place = task / stride % length;
                for source in *list {
                    let value = &source[usize::try_from(place).expect("it is below a length")];
                    out.write_all(value.as_bytes())?;
                    out.write_all(&[0])?;
                }
            }
        }
        Ok(())
    }

    /// The same, from a thread of its own: there may be more combinations than memory holds.
    pub(super) fn reader(self) -> io::Result<PipeReader> {
        let (reader, writer) = io::pipe()?;
        std::thread::Builder::new().name("values".to_owned()).spawn(move || {
            let mut writer = BufWriter::new(writer);
            // The reader may stop before the end.
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

    /// The command and its tasks.
    fn tasks(line: &str, delimiter: Delimiter) -> (Vec<OsString>, usize, Vec<String>) {
        let (rest, values) = split(words(line)).unwrap();
        let values = values.unwrap();
        let sources = values.sources();
        let mut written = Vec::new();
        values.read(delimiter).unwrap().write(&mut written).unwrap();
        let written = String::from_utf8(written).unwrap();
        let found: Vec<_> = written.split_terminator('\0').collect();
        (rest, sources, found.chunks(sources).map(|task| task.join(" ")).collect())
    }

    #[test]
    fn every_combination_is_a_task() {
        let check = |line: &str, command: &str, sources: usize, wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|&task| task.to_owned()).collect();
            assert_eq!(
                tasks(line, Delimiter::Newline),
                (words(command), sources, wanted),
                "{line}"
            );
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
    fn values_may_be_the_lines_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let (one, two, empty) = (file("one", "a\nb\n"), file("two", "1\n\n3"), file("empty", ""));
        let check = |line: &str, wanted: &[&str]| {
            assert_eq!(tasks(line, Delimiter::Newline).2, wanted, "{line}");
        };
        check(&format!("c :::: {one}"), &["a", "b"]);
        check(&format!("c :::: {two}"), &["1", "", "3"]);
        check(&format!("c :::: {empty}"), &[]);
        check(&format!("c :::: {one} {two}"), &["a 1", "a ", "a 3", "b 1", "b ", "b 3"]);
        check(&format!("c :::: {one} ::: x y"), &["a x", "a y", "b x", "b y"]);
        check(&format!("c ::: x y :::: {one}"), &["x a", "x b", "y a", "y b"]);
        check(&format!("c ::: x y z ::::+ {one}"), &["x a", "y b"]);
        check(&format!("c :::: {one} ::::+ {two} {two}"), &["a 1 1", "b  "]);
        check(&format!("c :::: {one} :::: {empty}"), &[]);
        let nul = file("nul", "a\nb\0c\0");
        assert_eq!(tasks(&format!("c ::: x :::: {nul}"), Delimiter::Nul).2, ["x a\nb", "x c"]);
        let read = |path: &str| {
            let values = split(words(&format!("c :::: {path}"))).unwrap().1.unwrap();
            values.read(Delimiter::Newline).unwrap_err().to_string()
        };
        let wanted = format!(
            "input {nul:?}, line 2: a value cannot contain a NUL; with -0 values end with it"
        );
        assert_eq!(read(&nul), wanted);
        assert_eq!(read("/none"), "input \"/none\" does not exist");
    }

    #[test]
    fn a_command_without_values_is_left_as_it_is() {
        assert_eq!(split(words("c ::a :: :::x")), Ok((words("c ::a :: :::x"), None)));
        assert_eq!(split(words("c :::+ a")), Err(ValuesError::Unlinked { word: ":::+" }));
        assert_eq!(split(words("c ::::+ a")), Err(ValuesError::Unlinked { word: "::::+" }));
        assert_eq!(split(words("c :::: ::: a")), Err(ValuesError::NoFile { word: "::::" }));
    }

    #[test]
    fn more_combinations_than_can_be_counted_begin_in_order() {
        let list = " ::: a b c d e f g h";
        let line = format!("c{}", list.repeat(40));
        let values = split(words(&line)).unwrap().1.unwrap();
        let mut reader = values.read(Delimiter::Newline).unwrap().reader().unwrap();
        let mut begin = [0; 2 * 40 * 9];
        io::Read::read_exact(&mut reader, &mut begin).unwrap();
        let tasks: Vec<_> =
            begin.chunks(2 * 40).map(|task| (task[74], task[76], task[78])).collect();
        let first = (b'a'..=b'h').map(|last| (b'a', b'a', last));
        assert_eq!(tasks, first.chain([(b'a', b'b', b'a')]).collect::<Vec<_>>());
    }

    #[test]
    fn whoever_reads_may_stop_early() {
        let many = "a b c d e f g h i j k l m n o p q r s t";
        let line = format!("c ::: {many} ::: {many} ::: {many} ::: {many} ::: {many} ::: {many}");
        let values = split(words(&line)).unwrap().1.unwrap();
        let mut reader = values.read(Delimiter::Newline).unwrap().reader().unwrap();
        let mut begin = [0; 12];
        io::Read::read_exact(&mut reader, &mut begin).unwrap();
        assert_eq!(&begin, b"a\0a\0a\0a\0a\0a\0");
    }
}
