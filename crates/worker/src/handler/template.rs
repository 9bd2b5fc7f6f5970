//! The command of `-- COMMAND [ARG]...`, with GNU parallel's replacement strings.
//!
//! No shell is involved and nothing is assumed about encodings: a task is bytes, an argument is
//! bytes. What each string stands for is taken from the definitions in parallel(1), under `--rpl`.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use tradewind_proto::Seq;

use super::quote;

/// A command line in which some places are filled in for each task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    words: Vec<Word>,
    input: Input,
}

/// How a task reaches its command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// In its arguments: as the last one, if no replacement string says where.
    #[default]
    Argument,
    /// On stdin; replacement strings are filled in all the same.
    Stdin,
}

/// There is no command after `--`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a command is missing")]
pub struct MissingCommand;

impl Template {
    /// Takes a command and its arguments as they were typed.
    ///
    /// As with GNU parallel, any replacement string at all, `{#}` included, means that nothing is
    /// appended.
    ///
    /// # Errors
    ///
    /// If there is not even a command.
    pub fn parse<I>(args: I, input: Input) -> Result<Self, MissingCommand>
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        let mut words: Vec<Word> = args.into_iter().map(|arg| Word::parse(&arg.into())).collect();
        if words.is_empty() {
            return Err(MissingCommand);
        }
        if input == Input::Argument && words.iter().all(Word::is_fixed) {
            words.push(Word::Parts(vec![Part::Blank(Blank::Task)]));
        }
        Ok(Self { words, input })
    }

    /// How a task reaches the command.
    #[must_use]
    pub fn input(&self) -> Input {
        self.input
    }

    /// The command itself, unless it differs from task to task.
    #[must_use]
    pub fn program(&self) -> Option<&OsStr> {
        match self.words.first() {
            Some(Word::Fixed(text)) => Some(text),
            _ => None,
        }
    }

    /// The command and its arguments for one task. Never empty.
    #[must_use]
    pub fn expand<'a>(&'a self, task: &'a [u8], seq: Seq) -> Vec<Cow<'a, OsStr>> {
        self.words.iter().map(|word| word.expand(task, seq)).collect()
    }

    /// What [`expand`](Self::expand) gives as one line that a shell would read back the same way,
    /// for people and logs. A command longer than
    /// [`COMMAND_BYTES_MAX`](quote::COMMAND_BYTES_MAX) is cut off and ends in `...`.
    #[must_use]
    pub fn quote(&self, task: &[u8], seq: Seq) -> Vec<u8> {
        let words = self.expand(task, seq);
        quote::line(words.iter().map(|word| word.as_bytes()))
    }
}

/// One argument, or the command itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Fixed(OsString),
    Parts(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Blank(Blank),
}

/// A replacement string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blank {
    Task,
    WithoutExtension,
    Basename,
    Dirname,
    BasenameWithoutExtension,
    Number,
}

const BLANKS: [(&[u8], Blank); 6] = [
    (b"{}", Blank::Task),
    (b"{.}", Blank::WithoutExtension),
    (b"{/}", Blank::Basename),
    (b"{//}", Blank::Dirname),
    (b"{/.}", Blank::BasenameWithoutExtension),
    (b"{#}", Blank::Number),
];

impl Word {
    fn parse(arg: &OsStr) -> Self {
        let mut parts = Vec::new();
        let mut text = Vec::new();
        let mut rest = arg.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            let Some((string, blank)) = BLANKS.iter().find(|(string, _)| rest.starts_with(string))
            else {
                text.push(first);
                rest = after;
                continue;
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Blank(*blank));
            rest = &rest[string.len()..];
        }
        if parts.is_empty() {
            return Self::Fixed(OsString::from_vec(text));
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Self::Parts(parts)
    }

    fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed(_))
    }

    fn expand<'a>(&'a self, task: &'a [u8], seq: Seq) -> Cow<'a, OsStr> {
        match self {
            Self::Fixed(text) => Cow::Borrowed(text),
            Self::Parts(parts) => match parts.as_slice() {
                [Part::Blank(blank)] => match blank.fill(task, seq) {
                    Cow::Borrowed(bytes) => Cow::Borrowed(OsStr::from_bytes(bytes)),
                    Cow::Owned(bytes) => Cow::Owned(OsString::from_vec(bytes)),
                },
                parts => {
                    let mut bytes = Vec::new();
                    for part in parts {
                        match part {
                            Part::Text(text) => bytes.extend_from_slice(text),
                            Part::Blank(blank) => bytes.extend_from_slice(&blank.fill(task, seq)),
                        }
                    }
                    Cow::Owned(OsString::from_vec(bytes))
                }
            },
        }
    }
}

impl Blank {
    fn fill(self, task: &[u8], seq: Seq) -> Cow<'_, [u8]> {
        Cow::Borrowed(match self {
            Self::Task => task,
            Self::WithoutExtension => without_extension(task),
            Self::Basename => basename(task),
            Self::Dirname => dirname(task),
            Self::BasenameWithoutExtension => without_extension(basename(task)),
            // GNU parallel counts its jobs from 1.
            Self::Number => return Cow::Owned((u128::from(seq.0) + 1).to_string().into_bytes()),
        })
    }
}

/// Perl's `s:\.[^/.]+$::`: a name that ends in a dot keeps it, and of `.bashrc` nothing is left.
fn without_extension(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| matches!(byte, b'/' | b'.')) {
        Some(at) if path[at] == b'.' && at + 1 < path.len() => &path[..at],
        _ => path,
    }
}

/// Perl's `s:.*/::`: of `a/` nothing is left.
fn basename(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => &path[at + 1..],
        None => path,
    }
}

/// `dirname` of Perl's `File::Basename`: like dirname(1), the one of `a/b/` is `a`.
fn dirname(path: &[u8]) -> &[u8] {
    let path = without_trailing_slashes(path);
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => without_trailing_slashes(&path[..=at]),
        None => b".",
    }
}

/// The root stays what it is.
fn without_trailing_slashes(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte != b'/') {
        Some(at) => &path[..=at],
        None => &path[..path.len().min(1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: Input, args: &[&str], task: &str, expected: &[&str]) {
        let template = Template::parse(args, input).unwrap();
        let words = template.expand(task.as_bytes(), Seq(41));
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words, expected, "{args:?} with {task:?}");
    }

    #[track_caller]
    fn check_blanks(task: &str, expected: [&str; 5]) {
        check(Input::Argument, &["{}", "{.}", "{/}", "{//}", "{/.}"], task, {
            assert_eq!(expected[0], task, "the first column repeats the task");
            &expected
        });
    }

    #[test]
    fn replacement_strings_are_those_of_gnu_parallel() {
        check_blanks("A/B.C", ["A/B.C", "A/B", "B.C", "A", "B"]);
        check_blanks("/path/A.txt", ["/path/A.txt", "/path/A", "A.txt", "/path", "A"]);
        check_blanks("plain", ["plain", "plain", "plain", ".", "plain"]);
        check_blanks("a.tar.gz", ["a.tar.gz", "a.tar", "a.tar.gz", ".", "a.tar"]);
        check_blanks("foo.d/bar", ["foo.d/bar", "foo.d/bar", "bar", "foo.d", "bar"]);
        check_blanks("foo.", ["foo.", "foo.", "foo.", ".", "foo."]);
        check_blanks(".bashrc", [".bashrc", "", ".bashrc", ".", ""]);
        check_blanks("a/.b", ["a/.b", "a/", ".b", "a", ""]);
        check_blanks("..", ["..", "..", "..", ".", ".."]);
        check_blanks("a/b/", ["a/b/", "a/b/", "", "a", ""]);
        check_blanks("a//b.c", ["a//b.c", "a//b", "b.c", "a", "b"]);
        check_blanks("dir/", ["dir/", "dir/", "", ".", ""]);
        check_blanks("/x", ["/x", "/x", "x", "/", "x"]);
        check_blanks("/", ["/", "/", "", "/", ""]);
        check_blanks("//", ["//", "//", "", "/", ""]);
        check_blanks("", ["", "", "", ".", ""]);
        check_blanks(
            "two words.txt",
            ["two words.txt", "two words", "two words.txt", ".", "two words"],
        );
    }

    #[test]
    fn replacement_strings_may_stand_anywhere() {
        let check = |args, task, expected| check(Input::Argument, args, task, expected);
        check(&["run-{}", "x"], "a", &["run-a", "x"]);
        check(&["c", "{}{}-{#}.{/}"], "d/e", &["c", "d/ed/e-42.e"]);
        check(&["c", "--in={}", "--out={.}.png"], "a.jpg", &["c", "--in=a.jpg", "--out=a.png"]);
        check(&["c", "{{}}"], "a", &["c", "{a}"]);
        check(
            &["c", "{}", "{x}", "{", "}", "{/", "{.", "{ }"],
            "a",
            &["c", "a", "{x}", "{", "}", "{/", "{.", "{ }"],
        );
        check(&["c", "{}"], "{#}", &["c", "{#}"]);
    }

    #[test]
    fn task_is_appended_unless_something_else_says_where_it_goes() {
        check(Input::Argument, &["c"], "a b", &["c", "a b"]);
        check(Input::Argument, &["c", "-x", ""], "", &["c", "-x", "", ""]);
        check(Input::Argument, &["c", "{#}"], "a", &["c", "42"]);
        check(Input::Stdin, &["c", "-x"], "a", &["c", "-x"]);
        check(Input::Stdin, &["c", "{#}", "{}"], "a", &["c", "42", "a"]);
    }

    #[test]
    fn bytes_need_not_be_utf8() {
        let args = [OsString::from("c"), OsString::from_vec(b"\xff{.}\xfe".to_vec())];
        let template = Template::parse(args, Input::Argument).unwrap();
        let words = template.expand(b"\x80/\x81.\x82", Seq(0));
        assert_eq!(words[1].as_bytes(), b"\xff\x80/\x81\xfe");
    }

    #[test]
    fn command_is_known_beforehand_unless_it_has_a_blank() {
        let program = |word: &str| {
            let template = Template::parse([word, "x"], Input::Argument).unwrap();
            template.program().map(OsStr::to_owned)
        };
        assert_eq!(program("true"), Some("true".into()));
        assert_eq!(program("{}"), None);
        assert_eq!(program("./{/}"), None);
    }

    #[test]
    fn last_number_does_not_overflow() {
        let template = Template::parse(["{#}"], Input::Argument).unwrap();
        assert_eq!(template.quote(b"", Seq(u64::MAX)), b"18446744073709551616");
    }

    #[test]
    fn command_is_required() {
        assert_eq!(Template::parse([""; 0], Input::Stdin), Err(MissingCommand));
    }
}
