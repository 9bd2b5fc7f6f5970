//! The command of `-- COMMAND [ARG]...`, with GNU parallel's replacement strings, and the names of
//! fields where a task has some.
//!
//! No shell is involved and nothing is assumed about encodings: a task is bytes, an argument is
//! bytes. What each string stands for is taken from the definitions in parallel(1), under `--rpl`.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use tradewind_proto::message::Layout;
use tradewind_proto::{Seq, Slot};

use super::code::{CodeError, CodeWord, Piece, check_code};
use super::fields::{FieldError, Fields, Parts};
use super::quote;

/// A command line in which some places are filled in for each task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// As they were typed.
    args: Vec<OsString>,
    words: Vec<Word>,
    input: Input,
    fields: Fields,
    /// End of the lines that tasks are made of, if they are.
    end: Option<u8>,
    /// Tasks may be put into code.
    is_code_fine: bool,
}

/// Ways in which a task reaches its command.
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
    /// Takes a command and its arguments as they were typed, for tasks without fields.
    ///
    /// As with GNU parallel, any replacement string at all, `{#}` included, means that nothing is
    /// appended.
    ///
    /// # Errors
    ///
    /// When there is no command.
    pub fn parse<I>(args: I, input: Input) -> Result<Self, MissingCommand>
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        Self::with_fields(args, input, Fields::Whole)
    }

    /// The same for tasks with fields: `{1}` stands for the first, and of JSON also `{name}` for
    /// the one of that name. Of groups and columns `{}` stands for all fields, as an argument each
    /// if nothing else is in the word.
    ///
    /// # Errors
    ///
    /// When there is no command.
    pub fn with_fields<I>(args: I, input: Input, fields: Fields) -> Result<Self, MissingCommand>
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let mut words: Vec<Word> = args.iter().map(|arg| Word::parse(arg, &fields)).collect();
        if words.is_empty() {
            return Err(MissingCommand);
        }
        if input == Input::Argument && words.iter().all(Word::is_fixed) {
            words.push(Word::Parts(vec![Part::Task(Change::None)]));
        }
        Ok(Self { args, words, input, fields, end: None, is_code_fine: false })
    }

    /// The same command for tasks that are made of what the job says.
    ///
    /// # Errors
    ///
    /// When this template was made for another layout.
    pub(super) fn for_job(&self, layout: &Layout) -> Result<Self, String> {
        let fields = self.fields.of_job(layout)?;
        let template = Self::with_fields(self.args.iter().cloned(), self.input, fields);
        let end = match layout {
            // JSON is passed on byte for byte.
            Layout::Unsaid | Layout::Whole | Layout::Json => None,
            Layout::Line | Layout::Columns(_) => Some(b'\n'),
            Layout::Group(byte) => Some(*byte),
        };
        let is_code_fine = self.is_code_fine;
        let template = Self { end, is_code_fine, ..template.expect("it has a command") };
        template.check_code().map_err(|error| error.to_string())?;
        Ok(template)
    }

    /// Lets tasks be put into code, as in `sh -c 'cat {}'`: whatever a task says is then run.
    #[must_use]
    pub fn with_code(self) -> Self {
        Self { is_code_fine: true, ..self }
    }

    /// Checks that no task is put into code, unless [that is fine](Self::with_code).
    ///
    /// # Errors
    ///
    /// When one is: the error has the words to type instead.
    pub fn check_code(&self) -> Result<(), CodeError> {
        if self.is_code_fine { Ok(()) } else { check_code(self) }
    }

    /// Returns the standard input of the command: the task, and the end of a line if it is made of
    /// lines, as programs that read lines expect.
    #[must_use]
    pub fn stdin<'a>(&self, task: &'a [u8]) -> Cow<'a, [u8]> {
        match (self.input, self.end) {
            (Input::Argument, _) => Cow::Borrowed(&[]),
            (Input::Stdin, None) => Cow::Borrowed(task),
            (Input::Stdin, Some(end)) => Cow::Owned([task, &[end]].concat()),
        }
    }

    /// The fields that the command asks for, if tasks are JSON: for each of them the names that it
    /// may have, one of which may be a place.
    #[must_use]
    pub fn asked_fields(&self) -> Vec<Vec<String>> {
        let names = |field: &FieldName| {
            let bare = field.changed.as_ref().map(|(name, _)| name);
            [Some(&field.text), bare].into_iter().flatten().cloned().collect()
        };
        self.words.iter().flat_map(Word::fields).map(names).collect()
    }

    /// Returns the words that were typed, with what is put into them.
    pub(super) fn code_words(&self) -> Vec<CodeWord<'_>> {
        let words = self.args.iter().zip(&self.words);
        words.map(|(text, word)| CodeWord { text, pieces: word.pieces() }).collect()
    }

    /// Returns the way in which a task reaches the command.
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
    ///
    /// # Errors
    ///
    /// When the task lacks a field that the command asks for.
    pub fn expand<'a>(
        &'a self,
        task: &'a [u8],
        seq: Seq,
        slot: Slot,
    ) -> Result<Vec<Cow<'a, OsStr>>, FieldError> {
        // Most commands want the task as it is.
        let wants_fields = match self.fields {
            Fields::Whole => false,
            Fields::Json => self.words.iter().any(Word::has_fields),
            Fields::Group(_) | Fields::Columns(_) => true,
        };
        let split = if wants_fields { &self.fields } else { &Fields::Whole };
        let task = Task { parts: split.split(task)?, whole: task, fields: &self.fields, seq, slot };
        let mut words = Vec::with_capacity(self.words.len());
        for word in &self.words {
            word.expand(&task, &mut words)?;
        }
        Ok(words)
    }

    /// Returns the words of [`expand`](Self::expand) as one line that a shell would read back the same way,
    /// for people and logs. A command longer than
    /// [`COMMAND_BYTES_MAX`](quote::COMMAND_BYTES_MAX) is cut off and ends in `...`.
    ///
    /// # Errors
    ///
    /// When the task lacks a field that the command asks for.
    pub fn quote(&self, task: &[u8], seq: Seq, slot: Slot) -> Result<Vec<u8>, FieldError> {
        let words = self.expand(task, seq, slot)?;
        Ok(quote::line(words.iter().map(|word| word.as_bytes())))
    }
}

/// Returns the text of a word of tasks without fields, and the strings that are replaced in it.
pub(super) fn pieces_of(word: &OsStr) -> Vec<Piece> {
    Word::parse(word, &Fields::Whole).pieces()
}

/// One argument, or the command itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Fixed(OsString),
    Parts(Vec<Part>),
}

/// A piece of a word: text, or a replacement string.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Task(Change),
    Number,
    Slot,
    Field(FieldName),
}

/// Operation on a task or a field before it is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    WithoutExtension,
    Basename,
    Dirname,
    BasenameWithoutExtension,
}

/// A field that a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldName {
    /// All that is in the braces: a name may well end in a dot.
    text: String,
    /// The name without the change after it, and the change.
    changed: Option<(String, Change)>,
}

/// Values that go into words.
struct Task<'a> {
    whole: &'a [u8],
    parts: Parts<'a>,
    fields: &'a Fields,
    seq: Seq,
    slot: Slot,
}

/// Longest first: what ends in `//` ends in `/` too.
const CHANGES: [(&str, Change); 4] = [
    ("//", Change::Dirname),
    ("/.", Change::BasenameWithoutExtension),
    ("/", Change::Basename),
    (".", Change::WithoutExtension),
];

impl Word {
    fn parse(arg: &OsStr, fields: &Fields) -> Self {
        let mut parts = Vec::new();
        let mut text = Vec::new();
        let mut rest = arg.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            if let Some(literal) = literal(rest, fields) {
                text.extend_from_slice(literal);
                rest = &rest[literal.len() + 2..];
                continue;
            }
            let is_after_dollar = text.last() == Some(&b'$');
            let Some((part, length)) = Part::parse(rest, is_after_dollar, fields) else {
                text.push(first);
                rest = after;
                continue;
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(part);
            rest = &rest[length..];
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

    /// Returns the text, and the strings that a part of a task replaces. Numbers of tasks and slots are
    /// text here: they are no danger to anybody.
    fn pieces(&self) -> Vec<Piece> {
        let parts = match self {
            Self::Fixed(text) => return vec![Piece::Text(text.as_bytes().to_vec())],
            Self::Parts(parts) => parts,
        };
        let of_task = |change: &Change| {
            let string = CHANGES.iter().find(|(_, other)| other == change);
            Piece::OfTask(format!("{{{}}}", string.map_or("", |(string, _)| string)))
        };
        let piece = |part: &Part| match part {
            Part::Text(text) => Piece::Text(text.clone()),
            Part::Number => Piece::Text(b"{#}".to_vec()),
            Part::Slot => Piece::Text(b"{%}".to_vec()),
            Part::Task(change) => of_task(change),
            Part::Field(field) => Piece::OfTask(format!("{{{}}}", field.text)),
        };
        parts.iter().map(piece).collect()
    }

    fn fields(&self) -> impl Iterator<Item = &FieldName> {
        let parts = match self {
            Self::Fixed(_) => [].as_slice(),
            Self::Parts(parts) => parts,
        };
        parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(field),
            Part::Text(_) | Part::Task(_) | Part::Number | Part::Slot => None,
        })
    }

    fn has_fields(&self) -> bool {
        self.fields().next().is_some()
    }

    fn expand<'a>(
        &'a self,
        task: &Task<'a>,
        words: &mut Vec<Cow<'a, OsStr>>,
    ) -> Result<(), FieldError> {
        match self {
            Self::Fixed(text) => words.push(Cow::Borrowed(text)),
            Self::Parts(parts) => match parts.as_slice() {
                [Part::Task(change)] => words.extend(task.all(*change).map(into_os_str)),
                [Part::Field(field)] => words.push(into_os_str(task.field(field)?)),
                parts => {
                    let mut bytes = Vec::new();
                    for part in parts {
                        match part {
                            Part::Text(text) => bytes.extend_from_slice(text),
                            Part::Task(change) => {
                                for (at, field) in task.all(*change).enumerate() {
                                    if at > 0 {
                                        bytes.push(b' ');
                                    }
                                    bytes.extend_from_slice(&field);
                                }
                            }
                            // GNU parallel counts its jobs from 1.
                            Part::Number => {
                                let number = u128::from(task.seq.0) + 1;
                                bytes.extend_from_slice(number.to_string().as_bytes());
                            }
                            // And its slots too.
                            Part::Slot => {
                                let number = u64::from(task.slot.0) + 1;
                                bytes.extend_from_slice(number.to_string().as_bytes());
                            }
                            Part::Field(field) => bytes.extend_from_slice(&task.field(field)?),
                        }
                    }
                    words.push(Cow::Owned(OsString::from_vec(bytes)));
                }
            },
        }
        Ok(())
    }
}

impl Part {
    /// The replacement string that a text begins with, and its length.
    fn parse(text: &[u8], is_after_dollar: bool, fields: &Fields) -> Option<(Self, usize)> {
        let text = text.strip_prefix(b"{")?;
        let end = text.iter().position(|byte| matches!(byte, b'{' | b'}'))?;
        if text[end] == b'{' {
            return None;
        }
        let name = std::str::from_utf8(&text[..end]).ok()?;
        let part = match name {
            "" => Self::Task(Change::None),
            "#" => Self::Number,
            "%" => Self::Slot,
            _ => match CHANGES.iter().find(|(string, _)| name == *string) {
                // A row of JSON is no path: this lacks the name of a field.
                Some((_, change)) if *fields != Fields::Json => Self::Task(*change),
                _ => Self::Field(FieldName::parse(name, is_after_dollar, fields)?),
            },
        };
        Some((part, end + 2))
    }
}

/// String for which `{{1}}` stands where `{1}` would be replaced.
fn literal<'a>(text: &'a [u8], fields: &Fields) -> Option<&'a [u8]> {
    let inner = text.strip_prefix(b"{")?;
    let (_, length) = Part::parse(inner, false, fields)?;
    (inner.get(length) == Some(&b'}')).then(|| &inner[..length])
}

impl FieldName {
    /// Text in braces, unless that is meant for another program: `${x}` for a shell, `{"x": 1}` for
    /// one that reads JSON, and `{ print }` for awk.
    fn parse(text: &str, is_after_dollar: bool, fields: &Fields) -> Option<Self> {
        let changed = CHANGES.iter().find_map(|(string, change)| {
            let name = text.strip_suffix(string)?;
            Some((name.to_owned(), *change))
        });
        let is_place = |text: &str| place(text).is_some();
        let is_name = match fields {
            Fields::Whole => false,
            Fields::Group(_) | Fields::Columns(_) => {
                is_place(text) || changed.as_ref().is_some_and(|(name, _)| is_place(name))
            }
            Fields::Json => {
                text.trim() == text && !text.contains(|c: char| c == '"' || c.is_control())
            }
        };
        (is_name && !is_after_dollar).then(|| Self { text: text.to_owned(), changed })
    }
}

/// A field's place, from 1, or from -1 backwards.
fn place(text: &str) -> Option<i32> {
    text.parse().ok().filter(|place| *place != 0 && !text.starts_with('+'))
}

impl<'a> Task<'a> {
    /// Value of `{}`.
    fn all(&self, change: Change) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let whole = match self.fields {
            Fields::Whole | Fields::Json => Some(Cow::Borrowed(self.whole)),
            Fields::Group(_) | Fields::Columns(_) => None,
        };
        let fields = if whole.is_some() { &[] } else { self.parts.values() };
        whole.into_iter().chain(fields.to_vec()).map(move |field| change.apply(&field))
    }

    fn field(&self, field: &FieldName) -> Result<Cow<'a, [u8]>, FieldError> {
        let get = |name: &str| {
            let by_place = || self.parts.by_place(place(name)?);
            self.parts.by_name(name).or_else(by_place)
        };
        if let Some(value) = get(&field.text) {
            return Ok(value.clone());
        }
        if let Some((name, change)) = &field.changed
            && let Some(value) = get(name)
        {
            return Ok(change.apply(value));
        }
        match self.fields {
            Fields::Group(_) => Ok(Cow::Borrowed(b"")),
            _ => Err(self.parts.missing(&field.text)),
        }
    }
}

fn into_os_str(bytes: Cow<'_, [u8]>) -> Cow<'_, OsStr> {
    match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(OsStr::from_bytes(bytes)),
        Cow::Owned(bytes) => Cow::Owned(OsString::from_vec(bytes)),
    }
}

impl Change {
    fn apply<'a>(self, field: &Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        match field {
            Cow::Borrowed(bytes) => Cow::Borrowed(self.part_of(bytes)),
            Cow::Owned(bytes) => Cow::Owned(self.part_of(bytes).to_vec()),
        }
    }

    fn part_of(self, path: &[u8]) -> &[u8] {
        match self {
            Self::None => path,
            Self::WithoutExtension => without_extension(path),
            Self::Basename => basename(path),
            Self::Dirname => dirname(path),
            Self::BasenameWithoutExtension => without_extension(basename(path)),
        }
    }
}

/// Perl's `s:\.[^/.]*$::`: a name that ends in a dot loses it, and of `.bashrc` nothing is left.
fn without_extension(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| matches!(byte, b'/' | b'.')) {
        Some(at) if path[at] == b'.' => &path[..at],
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
        let words = template.expand(task.as_bytes(), Seq(41), Slot(6)).unwrap();
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
        check_blanks("foo.", ["foo.", "foo", "foo.", ".", "foo"]);
        check_blanks(".bashrc", [".bashrc", "", ".bashrc", ".", ""]);
        check_blanks("a/.b", ["a/.b", "a/", ".b", "a", ""]);
        check_blanks("..", ["..", ".", "..", ".", "."]);
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
        check(&["c", "{%}", "s{%}"], "a", &["c", "7", "s7"]);
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
        let words = template.expand(b"\x80/\x81.\x82", Seq(0), Slot(0)).unwrap();
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
        assert_eq!(template.quote(b"", Seq(u64::MAX), Slot(0)).unwrap(), b"18446744073709551616");
    }

    fn columns(colsep: &str) -> Fields {
        Fields::Columns(colsep.parse().unwrap())
    }

    #[track_caller]
    fn check_fields(fields: &Fields, args: &[&str], task: &str, expected: Result<&[&str], &str>) {
        let template = Template::with_fields(args, Input::Argument, fields.clone()).unwrap();
        let words =
            template.expand(task.as_bytes(), Seq(41), Slot(6)).map_err(|error| error.to_string());
        let words = words.as_ref().map(|words| {
            let words = words.iter().map(|word| word.to_str().unwrap());
            words.collect::<Vec<_>>()
        });
        let words = words.as_ref().map(Vec::as_slice).map_err(|error| error.as_str());
        assert_eq!(words, expected, "{args:?} with {task:?}");
    }

    #[test]
    fn names_stand_for_the_fields_of_json() {
        let check = |args: &[&str], task, expected: &[&str]| {
            check_fields(&Fields::Json, args, task, Ok(expected));
        };
        let row = r#"{"name": "Ada L", "age": 36, "First Name": "ü\n\u00e9", "path": "a/b.c"}"#;
        check(&["{name}"], row, &["Ada L"]);
        check(&["c", "{name}-{age}-{#}"], row, &["c", "Ada L-36-42"]);
        check(&["c", "{First Name}"], row, &["c", "ü\né"]);
        check(&["c", "{path.}", "{path/}", "{path//}", "{path/.}"], row, {
            &["c", "a/b", "b.c", "a", "b"]
        });
        check(&["c", "{1}", "{2}", "{-1}", "{-1/}"], row, &["c", "Ada L", "36", "a/b.c", "b.c"]);
        check(&["c", "{}"], row, &["c", row]);
        check(&["c"], row, &["c", row]);
        check(&["c", "{#}"], "not JSON, and not asked for", &["c", "42"]);
        check(&["c", "{1}", "{-1}"], r#"["a", [1, 2]]"#, &["c", "a", "[1, 2]"]);
        let values = r#"{"a":null,"b":true,"c":1.50e3,"d":{"x": [1]},"e":[ ],"f":""}"#;
        check(&["{a}", "{b}", "{c}", "{d}", "{e}", "{f}"], values, {
            &["null", "true", "1.50e3", r#"{"x": [1]}"#, "[ ]", ""]
        });
        // A name is a name first.
        check(&["{2}", "{1}", "{x.}"], r#"{"a":"0","1":"b","x.":"y.z"}"#, &["b", "b", "y.z"]);
        check(&["{a}"], r#"{"a":1,"b":2,"a":3}"#, &["3"]);
        check(&["{ü}"], r#"{"\u00fc":"x"}"#, &["x"]);
        check(&["{a}"], r#"{"a":"{b}","b":1}"#, &["{b}"]);
    }

    #[test]
    fn braces_that_are_not_for_us_stay_as_they_are() {
        let check = |fields: &Fields, args: &[&str], expected: &[&str]| {
            check_fields(fields, args, r#"{"a":"1"}"#, Ok(expected));
        };
        check(&Fields::Json, &["{a}", "{ a }", "{ print $1 }"], &["1", "{ a }", "{ print $1 }"]);
        check(&Fields::Json, &["echo ${a} {a}"], &["echo ${a} 1"]);
        check(&Fields::Json, &[r#"{"x": {a}, "y": {"z": 2}}"#], &[r#"{"x": 1, "y": {"z": 2}}"#]);
        check(&Fields::Json, &["{a}", "{", "}", "{a"], &["1", "{", "}", "{a"]);
        let literal = ["{print}", "{a}", "{0}", "{+1}", "{1x}", "${1}", "{1}{}"];
        let filled = ["{print}", "{a}", "{0}", "{+1}", "{1x}", "${1}", r#"{"a":"1"}{"a":"1"}"#];
        check(&Fields::Group(0), &literal, &filled);
        check(&columns(","), &literal, &filled);
        let whole = ["{print}", "{a}", "{1}", "{}"];
        check(&Fields::Whole, &whole, &["{print}", "{a}", "{1}", r#"{"a":"1"}"#]);
    }

    #[test]
    fn two_braces_stand_for_one_where_one_would_be_replaced() {
        let check = |fields: &Fields, args: &[&str], expected: &[&str]| {
            check_fields(fields, args, r#"{"a":"1"}"#, Ok(expected));
        };
        let task = r#"{"a":"1"}"#;
        check(
            &Fields::Whole,
            &["{}", "{{}}", "{{#}}{{%}}", "{{/.}}"],
            &[task, "{}", "{#}{%}", "{/.}"],
        );
        // Nothing is replaced, so the task comes last.
        check(&Fields::Whole, &["c", "{{}}"], &["c", "{}", task]);
        check(
            &Fields::Whole,
            &["{{1}}", "{{a}}", "{{.Name}}", "{}"],
            &["{{1}}", "{{a}}", "{{.Name}}", task],
        );
        check(
            &Fields::Json,
            &["{{a}}={a}", "${{a}}", "{{{a}}}", "{{ a }}"],
            &["{a}=1", "${a}", "{{a}}", "{{ a }}"],
        );
        check(
            &columns(","),
            &["{{1}} is {1}", "{{-1.}}", "{{x}}"],
            &[&format!("{{1}} is {task}"), "{-1.}", "{{x}}"],
        );
        check(
            &columns(","),
            &["awk", "{print $1}", "${x} {{}", "{1}"],
            &["awk", "{print $1}", &format!("${{x}} {{{task}"), task],
        );
    }

    #[test]
    fn a_field_that_is_missing_is_named_with_those_that_are_there() {
        #[track_caller]
        fn check(fields: &Fields, args: &[&str], task: &str, error: &str) {
            check_fields(fields, args, task, Err(error));
        }
        let row = r#"{"id":1,"name":"x"}"#;
        let named = |field: &str| format!("the task has no field {field:?}, but \"id\", \"name\"");
        for field in ["nme", "3", "-3", "name.x", "id.."] {
            check(&Fields::Json, &["c", &format!("{{{field}}}")], row, &named(field));
        }
        check(&Fields::Json, &["{/.}"], row, &named("/."));
        check(&Fields::Json, &["{2}"], "[1]", "the task has no field \"2\", but 1 field");
        check(&Fields::Json, &["{a}"], "{}", "the task has no field \"a\", but 0 fields");
        check(&columns(","), &["{3}"], "a,b", "the task has no field \"3\", but 2 fields");
        let not_json = "the task is not JSON with fields: expected value at line 1 column 1";
        check(&Fields::Json, &["{a}"], "a", not_json);
        let number = "the task is not JSON with fields: invalid type: integer `5`, expected an \
                      object or an array at line 1 column 1";
        check(&Fields::Json, &["{a}"], "5", number);
        let names: Vec<_> = (0..5_000).map(|n| format!("\"name{n}\":{n}")).collect();
        let row = format!("{{{}}}", names.join(","));
        let error = Fields::Json.split(row.as_bytes()).unwrap().missing("x").to_string();
        assert!(error.len() < 1_000 && error.ends_with(" ..."), "{error}");
    }

    #[test]
    fn groups_and_columns_are_arguments_each() {
        let check = |fields: &Fields, args: &[&str], task, expected: &[&str]| {
            check_fields(fields, args, task, Ok(expected));
        };
        let lines = Fields::Group(b'\n');
        check(&lines, &["c"], "a\nb c\n", &["c", "a", "b c", ""]);
        check(&lines, &["c", "{}", "x"], "a\nb", &["c", "a", "b", "x"]);
        check(&lines, &["c", "{/}", "{.}"], "d/a.b\ne", &["c", "a.b", "e", "d/a", "e"]);
        check(&lines, &["c", "<{}>"], "a\nb", &["c", "<a b>"]);
        check(&lines, &["c", "{2}-{1}"], "a\nb", &["c", "b-a"]);
        check(&lines, &["c", "{1}", "{2}", "{-1}"], "a", &["c", "a", "", "a"]);
        check(&Fields::Group(0), &["c", "{1/.}"], "d/a.b\0c", &["c", "a"]);
        check(&columns(","), &["c"], "a, b,", &["c", "a", "b", ""]);
        check(&columns(r"\s+"), &["c", "{2}", "{-1.}"], "a b  c.d", &["c", "b", "c"]);
    }

    #[test]
    fn fields_need_not_be_utf8() {
        let fields = Fields::Group(b'\n');
        let template = Template::with_fields(["{1}", "{2}"], Input::Argument, fields).unwrap();
        let words = template.expand(b"\xff\n\xfe", Seq(0), Slot(0)).unwrap();
        assert_eq!([words[0].as_bytes(), words[1].as_bytes()], [b"\xff", b"\xfe"]);
    }

    #[test]
    fn command_is_required() {
        assert_eq!(Template::parse([""; 0], Input::Stdin), Err(MissingCommand));
    }
}
